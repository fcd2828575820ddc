//! Records what tests need of the running kernel: `kernel-fixture DIRECTORY` writes `btf/vmlinux`,
//! `events/SYSTEM/NAME/format` and `kfuncs` there, in the layout that `KernelFacts::from_dir` reads. Needs root and
//! tracefs on /sys/kernel/tracing. Beside them it writes `btf/booth`, the types of a module that is made up;
//! `kernel-fixture DIRECTORY booth` writes that alone, for the `btf/vmlinux` that is there.
//!
//! The problem: the BTF of a kernel is 5 MB, and tests want a few hundred of its 126,000 types.
//!
//! The idea: start from chosen roots and keep what they reach. A struct that is held by value, or that [`WHOLE`] names,
//! is kept whole; one that is only pointed to becomes a forward declaration. Types keep their order and their bytes,
//! but for ids and names, which are numbered anew.
//!
//! So the layout of each struct kept, down to bit fields, is exactly the kernel's.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::error::Error;
use std::fs;
use std::path::Path;

use porthole::kernel::kfunc::{Usage, all_known};
use porthole::kernel::{Answer, KernelFacts, ProgramKind};

/// Structs kept with all their members wherever they are reached.
const WHOLE: &[&str] = &[
    "task_struct",
    "cred",
    "css_set",
    "cgroup",
    "kernfs_node",
    "dentry",
    "file",
    "files_struct",
    "fdtable",
    "fs_struct",
    "inode",
    "super_block",
    "path",
    "qstr",
    "vfsmount",
    "linux_binprm",
    "mm_struct",
    "nsproxy",
    "uts_namespace",
    "pid_namespace",
    "user_namespace",
    "mnt_namespace",
    "ipc_namespace",
    "ns_common",
    "upid",
    "sighand_struct",
    "vm_area_struct",
    "address_space",
    "file_system_type",
    "file_operations",
    "mount",
    "kobject",
    "device",
    "net_device",
    "block_device",
    "gendisk",
    "request",
    "bio",
    "socket",
    "inet_sock",
    "tcp_sock",
    "cgroup_subsys_state",
    "trace_entry",
    "net",
    "pid",
    "signal_struct",
    "pt_regs",
    "sk_buff",
    "sock",
    "sock_common",
    "cfs_rq",
    "task_group",
    "percpu_counter",
    "workqueue_struct",
    "pool_workqueue",
    "worker_pool",
    "bpf_cpumask",
    "bpf_dynptr",
    "bpf_iter_bits",
    "bpf_iter_css",
    "bpf_iter_css_task",
    "bpf_iter_dmabuf",
    "bpf_iter_kmem_cache",
    "bpf_iter_num",
    "bpf_iter_task",
    "bpf_iter_task_vma",
    "bpf_map",
    "cpumask",
    "dma_buf",
    "kmem_cache",
];

/// Constants that calls of kfuncs are written with; their enumerations are kept, some of which have no name.
const CONSTANTS: &[&str] =
    &["BPF_CGROUP_ITER_DESCENDANTS_PRE", "BPF_F_PAD_ZEROS", "BPF_TASK_ITER_ALL_PROCS", "PIDTYPE_TGID"];

const RAW_TRACEPOINTS: &[&str] = &[
    "sched_switch",
    "sched_wakeup",
    "sched_process_exec",
    "sched_process_exit",
    "sched_process_fork",
    "sys_enter",
    "sys_exit",
    "kfree_skb",
];

/// Functions, by their names in BTF and in kallsyms; some are in one of the two only.
const FUNCTIONS: &[&str] = &[
    "_printk",
    "bpf_lsm_bprm_check_security",
    "bpf_lsm_file_open",
    "bpf_lsm_task_free",
    "do_filp_open",
    "fput",
    "init_once",
    "kzalloc_noprof.constprop.0",
    "vfs_getxattr_alloc",
    "vfs_open",
    "vfs_read",
    "vfs_write",
    "wake_up_new_task",
    "__io_uring_free",
    "entry_SYSCALL_64",
    "do_sys_poll",
    "io_issue_sqe",
    "ext4_file_open",
    "__tcp_transmit_skb",
    "mmap_region",
    "do_mmap",
    "__sys_bpf",
    "__cgroup_bpf_run_filter_getsockopt",
    "ZSTD_checkCParams",
    "current_time",
    "make_kuid",
];

/// Kfuncs that no plugin may call, for tests of what is said then; some the host calls.
const UNUSABLE: &[&str] = &[
    "bpf_dynptr_size",
    "bpf_list_front",
    "bpf_obj_new_impl",
    "bpf_session_cookie",
    "bpf_session_is_return",
    "bpf_throw",
    "bpf_xdp_ct_lookup",
    "tcp_slow_start",
];

/// Kfuncs that LSM programs alone may call, and those of them that may sleep.
const OF_FILES: &[&str] = &[
    "bpf_get_dentry_xattr",
    "bpf_get_file_xattr",
    "bpf_get_task_exe_file",
    "bpf_path_d_path",
    "bpf_put_file",
    "bpf_remove_dentry_xattr",
    "bpf_set_dentry_xattr",
];
const SLEEPING: &[&str] =
    &["bpf_get_dentry_xattr", "bpf_get_file_xattr", "bpf_remove_dentry_xattr", "bpf_set_dentry_xattr"];

/// Per-CPU variables. Where each lies is kept, among them all.
const PER_CPU: &[&str] = &["cpu_number", "current_task", "kstat", "process_counts", "runqueues", "this_cpu_off"];

/// Where [`PER_CPU`] begin.
const PER_CPU_START: u64 = 0xffff_ffff_8300_0000;

/// Symbols that the kernel recorded does not name, being built without CONFIG_KALLSYMS_ALL, as most kernels have them.
/// The addresses are made up.
const SYMBOLS: [&str; 14] = [
    "ffffffff82611a00 D __per_cpu_offset",
    "ffffffff82612940 D init_task",
    "ffffffff82605080 D jiffies",
    "ffffffff826f8004 B nr_threads",
    "ffffffff82412c20 d once",
    "ffffffff82412c24 d once",
    "ffffffffc0000000 t booth_sell\t[booth]",
    "ffffffffc0000010 t booth_close\t[booth]",
    "ffffffffc0000020 t booth_untyped\t[booth]",
    "ffffffffc0000030 t booth_twice\t[booth]",
    "ffffffffc0000040 t booth_twice\t[booth]",
    "ffffffffc0000050 T booth_get\t[booth]",
    "ffffffffc0000060 T booth_put\t[booth]",
    "ffffffffc0000070 T booth_sold\t[booth]",
];

/// Which kinds of programs may call the kfuncs of [`MODULE`].
const CALLERS: &str = "booth_get: tracepoint tracing\nbooth_put: tracepoint tracing\nbooth_sold: tracepoint tracing\n";

/// What a raw tracepoint's name is put behind to name its typedef and its functions.
const RAW_TRACEPOINT_PREFIXES: [&str; 4] = ["btf_trace_", "__traceiter_", "__probestub_", "__bpf_trace_"];

const TRACEPOINTS: &[&str] = &[
    "block/block_rq_issue",
    "ipi/ipi_send_cpumask",
    "net/netif_receive_skb",
    "raw_syscalls/sys_enter",
    "sched/sched_process_exec",
    "sched/sched_process_exit",
    "sched/sched_process_fork",
    "sched/sched_switch",
    "sched/sched_wakeup",
    "skb/kfree_skb",
    "syscalls/sys_enter_connect",
    "syscalls/sys_enter_execve",
    "syscalls/sys_enter_execveat",
    "syscalls/sys_enter_getppid",
    "syscalls/sys_enter_open",
    "syscalls/sys_enter_openat",
    "syscalls/sys_enter_openat2",
    "syscalls/sys_enter_unlinkat",
    "syscalls/sys_enter_write",
    "syscalls/sys_exit_execve",
    "syscalls/sys_exit_getppid",
    "syscalls/sys_exit_open",
    "syscalls/sys_exit_openat",
    "syscalls/sys_exit_openat2",
    "tcp/tcp_probe",
];

/// Typedefs that expressions and declarations may name, beside those that tracepoint formats do.
const TYPEDEFS: &[&str] = &[
    "u8",
    "u16",
    "u32",
    "u64",
    "s8",
    "s16",
    "s32",
    "s64",
    "__u8",
    "__u16",
    "__u32",
    "__u64",
    "bool",
    "size_t",
    "ssize_t",
    "pid_t",
    "uid_t",
    "gid_t",
    "ino_t",
    "dev_t",
    "loff_t",
    "umode_t",
    "gfp_t",
    "uint8_t",
    "uint16_t",
    "uint32_t",
    "uint64_t",
    "uintptr_t",
];

/// The module that is made up.
const MODULE: &str = "booth";

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args_os().nth(1).ok_or("usage: kernel-fixture DIRECTORY")?;
    let directory = Path::new(&directory);
    if std::env::args().nth(2).as_deref() == Some(MODULE) {
        return write_module(directory);
    }
    let formats = copy_formats(directory)?;
    let btf = Btf::parse(&fs::read("/sys/kernel/btf/vmlinux")?);
    let bytes = pruned(&btf, &formats).write(&btf);
    fs::create_dir_all(directory.join("btf"))?;
    fs::write(directory.join("btf/vmlinux"), &bytes)?;
    fs::write(directory.join("possible"), "0-3\n")?;
    fs::write(directory.join("kfuncs"), callers()?)?;
    fs::write(directory.join("kallsyms"), symbols(&btf, &fs::read_to_string("/proc/kallsyms")?))?;
    println!("{} bytes of BTF, {} formats", bytes.len(), formats.len());
    write_module(directory)
}

fn write_module(directory: &Path) -> Result<(), Box<dyn Error>> {
    let kernel = Btf::parse(&fs::read(directory.join("btf/vmlinux"))?);
    fs::write(directory.join("btf").join(MODULE), module(&kernel))?;
    Ok(())
}

/// The types of the module, as a compiler would make them of this:
///
/// ```c
/// struct booth { int number; char name[16]; u64 sold; struct task_struct *keeper; struct booth *next; };
/// enum booth_state { BOOTH_CLOSED, BOOTH_OPEN };
/// int booth_sell(struct booth *booth, struct task_struct *buyer, u64 pieces);
/// void booth_close(struct booth *booth);
/// TRACE_EVENT(booth_sold, TP_PROTO(struct booth *booth, u64 pieces), …)
/// __bpf_kfunc struct booth *booth_get(struct task_struct *keeper);
/// __bpf_kfunc void booth_put(struct booth *booth);
/// __bpf_kfunc u64 booth_sold(struct booth *booth);
/// ```
fn module(kernel: &Btf) -> Vec<u8> {
    let of_kernel = |name: &str, kind: u32| {
        let named = kernel.named(name).into_iter().find(|id| kernel.types[*id as usize].kind() == kind);
        named.unwrap_or_else(|| panic!("the kernel has no {name}"))
    };
    let pointer_to = |to: u32| {
        let is = |ty: &Type| ty.kind() == kind::PTR && ty.size_or_type == to;
        kernel.types.iter().position(is).expect("there is a pointer to it") as u32
    };
    let of_16 = |ty: &Type| ty.kind() == kind::ARRAY && ty.tail[0] == of_kernel("char", kind::INT) && ty.tail[2] == 16;
    let name = kernel.types.iter().position(of_16).expect("names of tasks have 16 bytes") as u32;
    let (int, number) = (of_kernel("int", kind::INT), of_kernel("u64", kind::TYPEDEF));
    let (task, any) = (pointer_to(of_kernel("task_struct", kind::STRUCT)), pointer_to(0));

    let mut more =
        More { first: kernel.types.len() as u32, strings: Strings::behind(&kernel.strings), types: Vec::new() };
    let booth = more.first;
    let booths = booth + 1;
    let members =
        [("number", int, 0), ("name", name, 32), ("sold", number, 192), ("keeper", task, 256), ("next", booths, 320)];
    let members = members.map(|(name, ty, bit)| [more.strings.offset(name.as_bytes()), ty, bit]);
    more.add("booth", kind::STRUCT << 24 | members.len() as u32, 48, members.concat());
    more.add("", kind::PTR << 24, booth, Vec::new());
    let states = [("BOOTH_CLOSED", 0), ("BOOTH_OPEN", 1)];
    let states = states.map(|(name, value)| [more.strings.offset(name.as_bytes()), value]);
    more.add("booth_state", kind::ENUM << 24 | states.len() as u32, 4, states.concat());
    more.function("booth_sell", int, &[("booth", booths), ("buyer", task), ("pieces", number)]);
    more.function("booth_close", 0, &[("booth", booths)]);
    let prototype = more.prototype(0, &[("", any), ("", booths), ("", number)]);
    let pointer = more.add("", kind::PTR << 24, prototype, Vec::new());
    more.add("btf_trace_booth_sold", kind::TYPEDEF << 24, pointer, Vec::new());
    more.function("__traceiter_booth_sold", int, &[("__data", any), ("booth", booths), ("pieces", number)]);
    for kfunc in [
        more.function("booth_get", booths, &[("keeper", task)]),
        more.function("booth_put", 0, &[("booth", booths)]),
        more.function("booth_sold", number, &[("booth", booths)]),
    ] {
        more.add("bpf_kfunc", kind::DECL_TAG << 24, kfunc, vec![u32::MAX]);
    }
    with_header(more.types, more.strings)
}

/// What is added to a kernel's types.
struct More {
    /// The number of the first one.
    first: u32,
    strings: Strings,
    types: Vec<Type>,
}

impl More {
    fn add(&mut self, name: &str, info: u32, size_or_type: u32, tail: Vec<u32>) -> u32 {
        let name = self.strings.offset(name.as_bytes());
        self.types.push(Type { name, info, size_or_type, tail });
        self.first + self.types.len() as u32 - 1
    }

    fn prototype(&mut self, result: u32, params: &[(&str, u32)]) -> u32 {
        let params: Vec<_> = params.iter().flat_map(|(name, ty)| [self.strings.offset(name.as_bytes()), *ty]).collect();
        self.add("", (kind::FUNC_PROTO << 24) | (params.len() as u32 / 2), result, params)
    }

    fn function(&mut self, name: &str, result: u32, params: &[(&str, u32)]) -> u32 {
        let prototype = self.prototype(result, params);
        self.add(name, kind::FUNC << 24, prototype, Vec::new())
    }
}

/// The kfuncs that are kept: those that plugins call or the host does, and [`UNUSABLE`].
fn kfuncs() -> impl Iterator<Item = &'static str> {
    let usable = all_known().iter().filter(|known| !matches!(known.usage, Usage::No(_)));
    usable.map(|known| known.name).chain(UNUSABLE.iter().copied())
}

/// The kernel's version, and a line for each kfunc with the kinds of programs that may call it. Of kinds that this
/// kernel cannot load (`lsm`) nothing is known: there it is as Linux 6.12 and 7.2 have it, where LSM programs may call
/// all that tracing programs may, and what is for files beside it.
fn callers() -> Result<String, Box<dyn Error>> {
    let facts = KernelFacts::running();
    let (major, minor) = facts.version();
    let mut text = format!("kernel {major}.{minor}\n");
    let mut names: Vec<_> = kfuncs().collect();
    names.sort_unstable();
    for name in names {
        if facts.kfunc(name)?.is_none() {
            continue;
        }
        let answers = facts.callers(name);
        let may = |kind: ProgramKind| answers[&kind] == Answer::Yes;
        let of_files = OF_FILES.contains(&name);
        let callers = ProgramKind::ALL.into_iter().filter(|kind| match kind {
            ProgramKind::FentrySleepable => may(ProgramKind::IterSleepable) && name != "bpf_sock_destroy",
            ProgramKind::Lsm => {
                may(ProgramKind::Tracing) || name == "bpf_iter_css_task_new" || of_files && !SLEEPING.contains(&name)
            }
            ProgramKind::LsmSleepable => may(ProgramKind::IterSleepable) && name != "bpf_sock_destroy" || of_files,
            kind => may(*kind),
        });
        let callers: Vec<_> = callers.map(|kind| format!(" {}", kind.code())).collect();
        text.push_str(&format!("{name}:{}\n", callers.concat()));
    }
    Ok(text + CALLERS)
}

/// The lines of kallsyms that name [`FUNCTIONS`], and then [`PER_CPU`] and [`SYMBOLS`]. Functions are numbered instead
/// of having their addresses, which differ from boot to boot.
fn symbols(btf: &Btf, text: &str) -> String {
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    let kept =
        lines.filter(|(_, symbol)| symbol.split([' ', '\t']).nth(1).is_some_and(|name| FUNCTIONS.contains(&name)));
    let functions = kept.zip(0xffff_ffff_8100_0000_u64..).map(|((_, symbol), n)| format!("{n:016x} {symbol}\n"));
    let sections = btf.types.iter().filter(|ty| ty.kind() == kind::DATASEC);
    let variables = sections.flat_map(|section| section.tail.chunks(3)).filter_map(|entry| {
        let name = std::str::from_utf8(btf.string(btf.types[entry[0] as usize].name)).ok()?;
        PER_CPU.contains(&name).then(|| format!("{:016x} D {name}\n", PER_CPU_START + u64::from(entry[1])))
    });
    functions.chain(variables).chain(SYMBOLS.map(|line| format!("{line}\n"))).collect()
}

/// Copies the formats and returns their texts.
fn copy_formats(directory: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    TRACEPOINTS
        .iter()
        .map(|tracepoint| {
            let path = Path::new("/sys/kernel/tracing/events").join(tracepoint).join("format");
            let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            let place = directory.join("events").join(tracepoint);
            fs::create_dir_all(&place)?;
            fs::write(place.join("format"), &text)?;
            Ok(text)
        })
        .collect()
}

fn pruned(btf: &Btf, formats: &[String]) -> Selection {
    let mut selection = Selection::default();
    let raw_tracepoints = RAW_TRACEPOINTS
        .iter()
        .flat_map(|name| RAW_TRACEPOINT_PREFIXES.iter().map(move |prefix| format!("{prefix}{name}")));
    let named = TYPEDEFS.iter().chain(FUNCTIONS).copied().chain(kfuncs()).map(str::to_owned).chain(raw_tracepoints);
    // Some structs have the name of a function, too.
    let is_function = |id: &u32| btf.types[*id as usize].kind() == kind::FUNC;
    let whole = WHOLE.iter().flat_map(|name| btf.named(name)).filter(|id| !is_function(id));
    for id in named.flat_map(|name| btf.named(&name)).chain(whole).chain(btf.integers()) {
        selection.add(btf, id, Reached::ByValue);
    }
    // Pointers in a tracepoint's record are resolved by the name of what they point to.
    for id in formats.iter().flat_map(|format| words_of_fields(format)).flat_map(|word| btf.named(word)) {
        let scalar = matches!(btf.types[id as usize].kind(), kind::TYPEDEF | kind::ENUM);
        selection.add(btf, id, if scalar { Reached::ByValue } else { Reached::ByPointer });
    }
    let is_constant = |offset: u32| CONSTANTS.iter().any(|name| name.as_bytes() == btf.string(offset));
    for (id, ty) in btf.types.iter().enumerate() {
        match ty.kind() {
            kind::ENUM if ty.tail.chunks(2).any(|member| is_constant(member[0])) => {
                selection.add(btf, id as u32, Reached::ByValue);
            }
            kind::VAR if PER_CPU.iter().any(|name| name.as_bytes() == btf.string(ty.name)) => {
                selection.add(btf, id as u32, Reached::ByValue);
            }
            kind::DECL_TAG
                if btf.string(ty.name) == b"bpf_kfunc" && selection.reached.contains_key(&ty.size_or_type) =>
            {
                selection.add(btf, id as u32, Reached::ByValue);
            }
            // It refers to all its variables, of which `write` keeps those that are kept.
            kind::DATASEC => selection.reached.entry(id as u32).or_default().extend([Reached::ByValue]),
            _ => {}
        }
    }
    selection
}

fn words_of_fields(format: &str) -> impl Iterator<Item = &str> {
    let declarations = format.lines().filter_map(|line| line.trim().strip_prefix("field:")?.split(';').next());
    declarations.flat_map(|declaration| {
        // The last word is the field's name.
        let end = declaration.rfind([' ', '*']).unwrap_or(0);
        declaration[..end].split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
    })
}

/// BTF_KIND_* of include/uapi/linux/btf.h.
mod kind {
    pub const INT: u32 = 1;
    pub const PTR: u32 = 2;
    pub const ARRAY: u32 = 3;
    pub const STRUCT: u32 = 4;
    pub const UNION: u32 = 5;
    pub const ENUM: u32 = 6;
    pub const FWD: u32 = 7;
    pub const TYPEDEF: u32 = 8;
    pub const FUNC: u32 = 12;
    pub const FUNC_PROTO: u32 = 13;
    pub const VAR: u32 = 14;
    pub const DATASEC: u32 = 15;
    pub const FLOAT: u32 = 16;
    pub const DECL_TAG: u32 = 17;
    pub const ENUM64: u32 = 19;
}

/// The whole BTF, its types as words. The tool trusts the kernel: bytes that are no BTF end it with a panic.
struct Btf {
    types: Vec<Type>,
    strings: Vec<u8>,
    by_name: HashMap<Vec<u8>, Vec<u32>>,
}

/// `struct btf_type` and what follows it.
#[derive(Clone)]
struct Type {
    name: u32,
    info: u32,
    /// The size in bytes or the type referred to, by kind.
    size_or_type: u32,
    tail: Vec<u32>,
}

impl Btf {
    fn parse(bytes: &[u8]) -> Btf {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("a slice of four bytes"));
        let field = |at: usize| word(at) as usize;
        let (header, types_start, types_bytes) = (field(4), field(8), field(12));
        let strings = bytes[header + field(16)..][..field(20)].to_vec();
        let mut btf = Btf { types: vec![Type::void()], strings, by_name: HashMap::new() };
        let (mut at, end) = (header + types_start, header + types_start + types_bytes);
        while at < end {
            let mut ty = Type { name: word(at), info: word(at + 4), size_or_type: word(at + 8), tail: Vec::new() };
            ty.tail = (0..ty.tail_words()).map(|index| word(at + 12 + 4 * index)).collect();
            at += 12 + 4 * ty.tail.len();
            let name = btf.string(ty.name).to_vec();
            btf.by_name.entry(name).or_default().push(btf.types.len() as u32);
            btf.types.push(ty);
        }
        btf
    }

    fn string(&self, offset: u32) -> &[u8] {
        let rest = &self.strings[offset as usize..];
        &rest[..rest.iter().position(|&byte| byte == 0).expect("strings end with NUL")]
    }

    /// Types of that name that are not variables or declaration tags.
    fn named(&self, name: &str) -> Vec<u32> {
        let ids = self.by_name.get(name.as_bytes()).cloned().unwrap_or_default();
        ids.into_iter()
            .filter(|&id| !matches!(self.types[id as usize].kind(), kind::VAR | kind::DECL_TAG | kind::DATASEC))
            .collect()
    }

    fn integers(&self) -> impl Iterator<Item = u32> {
        (1..self.types.len() as u32).filter(|&id| self.types[id as usize].kind() == kind::INT)
    }

    fn is_whole(&self, id: u32) -> bool {
        let name = self.string(self.types[id as usize].name);
        name.is_empty() || WHOLE.iter().any(|whole| whole.as_bytes() == name)
    }
}

impl Type {
    fn void() -> Type {
        Type { name: 0, info: 0, size_or_type: 0, tail: Vec::new() }
    }

    fn kind(&self) -> u32 {
        (self.info >> 24) & 0x1f
    }

    fn is_composite(&self) -> bool {
        matches!(self.kind(), kind::STRUCT | kind::UNION)
    }

    fn tail_words(&self) -> usize {
        let count = (self.info & 0xffff) as usize;
        match self.kind() {
            kind::INT | kind::VAR | kind::DECL_TAG => 1,
            kind::ARRAY => 3,
            kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 3 * count,
            kind::ENUM | kind::FUNC_PROTO => 2 * count,
            _ => 0,
        }
    }

    /// The words that hold the ids of other types.
    fn references(&mut self) -> Vec<&mut u32> {
        let kind = self.kind();
        let own = !matches!(
            kind,
            kind::INT
                | kind::ARRAY
                | kind::STRUCT
                | kind::UNION
                | kind::ENUM
                | kind::FWD
                | kind::FLOAT
                | kind::ENUM64
                | kind::DATASEC
        );
        let in_tail: fn(usize) -> bool = match kind {
            kind::ARRAY => |index| index < 2,
            kind::STRUCT | kind::UNION => |index| index % 3 == 1,
            kind::FUNC_PROTO => |index| index % 2 == 1,
            _ => |_| false,
        };
        let tail = self.tail.iter_mut().enumerate().filter_map(move |(index, word)| in_tail(index).then_some(word));
        own.then_some(&mut self.size_or_type).into_iter().chain(tail).collect()
    }

    /// The words that hold offsets of names.
    fn names(&mut self) -> Vec<&mut u32> {
        let step = match self.kind() {
            kind::STRUCT | kind::UNION | kind::ENUM64 => 3,
            kind::ENUM | kind::FUNC_PROTO => 2,
            _ => usize::MAX,
        };
        let tail = self.tail.iter_mut().step_by(step).take(if step == usize::MAX { 0 } else { usize::MAX });
        std::iter::once(&mut self.name).chain(tail).collect()
    }

    /// `struct name;` for a struct, `union name;` for a union.
    fn forward(&self) -> Type {
        let union = u32::from(self.kind() == kind::UNION);
        Type { name: self.name, info: union << 31 | kind::FWD << 24, size_or_type: 0, tail: Vec::new() }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reached {
    ByValue,
    ByPointer,
}

/// What to keep: of each type, by what it was reached.
#[derive(Default)]
struct Selection {
    reached: BTreeMap<u32, BTreeSet<Reached>>,
}

impl Selection {
    fn add(&mut self, btf: &Btf, root: u32, how: Reached) {
        let mut pending = vec![(root, how)];
        while let Some((id, how)) = pending.pop() {
            let ty = &btf.types[id as usize];
            let how = if ty.is_composite() && btf.is_whole(id) { Reached::ByValue } else { how };
            if id == 0
                || !self.reached.entry(id).or_default().insert(how)
                || ty.is_composite() && how == Reached::ByPointer
            {
                continue;
            }
            let inside = match ty.kind() {
                kind::PTR => Reached::ByPointer,
                kind::STRUCT | kind::UNION | kind::FUNC_PROTO => Reached::ByValue,
                // Typedefs, qualifiers and arrays pass on how they were reached.
                _ => how,
            };
            pending.extend(ty.clone().references().into_iter().map(|&mut id| (id, inside)));
        }
    }

    fn write(&self, btf: &Btf) -> Vec<u8> {
        let numbers: HashMap<u32, u32> = self.reached.keys().copied().zip(1..).collect();
        let mut strings = Strings::default();
        let mut types = Vec::new();
        for (&id, reached) in &self.reached {
            let original = &btf.types[id as usize];
            let forward = original.is_composite() && !reached.contains(&Reached::ByValue);
            let mut ty = if forward { original.forward() } else { original.clone() };
            if ty.kind() == kind::DATASEC {
                let kept = ty.tail.chunks(3).filter_map(|entry| Some([*numbers.get(&entry[0])?, entry[1], entry[2]]));
                ty.tail = kept.flatten().collect();
                let count = ty.tail.len() as u32 / 3;
                ty.info = kind::DATASEC << 24 | count;
            }
            for id in ty.references().into_iter().filter(|id| **id != 0) {
                *id = numbers[id];
            }
            for name in ty.names() {
                *name = strings.offset(btf.string(*name));
            }
            types.push(ty);
        }
        with_header(types, strings)
    }
}

fn with_header(types: Vec<Type>, strings: Strings) -> Vec<u8> {
    let words = types.into_iter().flat_map(|ty| [ty.name, ty.info, ty.size_or_type].into_iter().chain(ty.tail));
    let types: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
    let mut bytes = vec![0x9f, 0xeb, 1, 0];
    let header = [24, 0, types.len(), types.len(), strings.bytes.len()];
    bytes.extend(header.into_iter().flat_map(|word| (word as u32).to_le_bytes()));
    bytes.extend(types);
    bytes.extend(strings.bytes);
    bytes
}

/// A section of strings under way. Offset 0 is the empty one.
struct Strings {
    /// Bytes of strings that are in front of these, elsewhere.
    before: u32,
    bytes: Vec<u8>,
    offsets: HashMap<Vec<u8>, u32>,
}

impl Default for Strings {
    fn default() -> Strings {
        Strings { before: 0, bytes: vec![0], offsets: HashMap::from([(Vec::new(), 0)]) }
    }
}

impl Strings {
    /// Those that a module adds to the kernel's.
    fn behind(kernel: &[u8]) -> Strings {
        Strings { before: kernel.len() as u32, bytes: Vec::new(), offsets: HashMap::from([(Vec::new(), 0)]) }
    }
}

impl Strings {
    fn offset(&mut self, string: &[u8]) -> u32 {
        if let Some(&offset) = self.offsets.get(string) {
            return offset;
        }
        let offset = self.before + self.bytes.len() as u32;
        self.bytes.extend(string);
        self.bytes.push(0);
        self.offsets.insert(string.to_vec(), offset);
        offset
    }
}
