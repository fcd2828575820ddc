//! Call stacks and names of addresses, against what else tells of them: this file's own instructions, and what the
//! kernel says of its stacks in /proc.

mod e2e;

use std::arch::global_asm;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, FromRawFd};

use porthole::compile::compile;
use porthole::kernel::KernelFacts;
use porthole::load::{LoadError, load};
use porthole::plan::plan;
use porthole_tests::live::{Seen, probe, this_thread, trace, unless_root};
use serde_json::{Value, json};

use e2e::host::Run;
use e2e::load::as_thread;
use e2e::{plugin, unique};

// One function calls another, which calls the kernel, each with a frame on the stack: so where they go on is known to
// the byte.
global_asm!(
    ".globl porthole_outer",
    ".type porthole_outer, @function",
    "porthole_outer:",
    "push rbp",
    "mov rbp, rsp",
    ".byte 0xe8",
    ".4byte porthole_inner - (. + 4)",
    "pop rbp",
    "ret",
    ".size porthole_outer, . - porthole_outer",
    ".globl porthole_inner",
    ".type porthole_inner, @function",
    "porthole_inner:",
    "push rbp",
    "mov rbp, rsp",
    "mov eax, 110",
    "syscall",
    "pop rbp",
    "ret",
    ".size porthole_inner, . - porthole_inner",
);

unsafe extern "C" {
    /// Calls getppid(2).
    fn porthole_outer();
}

const CALLS: u64 = 3;

/// What these expressions are when this thread calls the kernel.
fn seen(attach: &str, values: &[&str]) -> Seen {
    let thread = this_thread();
    let seen = trace(&probe(&[attach], &format!("tid == {thread}"), values), || {
        // SAFETY: the call takes nothing and changes nothing but registers that calls may change.
        (0..CALLS).for_each(|_| unsafe { porthole_outer() });
    });
    assert_eq!(seen.rows.len() as u64, CALLS);
    seen
}

/// This program's name in the names of its functions.
fn program() -> String {
    let path = std::env::current_exe().unwrap();
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect()
}

#[test]
fn root_stacks_of_a_process_are_its_calls() {
    if unless_root() {
        return;
    }
    let values = ["ustack", "ustack(1)", "ustack(2)"];
    for row in seen("tracepoint:syscalls:sys_enter_getppid", &values).shown() {
        let [inner, outer] = ["porthole_inner+0xb", "porthole_outer+0x9"].map(|name| format!("{name} [{}]", program()));
        assert_eq!(texts(&row["f0"])[..2], [&inner, &outer]);
        assert_eq!([&row["f1"], &row["f2"]], [&json!([inner, "…"]), &json!([inner, outer, "…"])]);
    }
}

#[test]
fn root_stacks_of_the_kernel_end_where_it_was_entered() {
    if unless_root() {
        return;
    }
    let own = fs::read_to_string("/proc/thread-self/stack").unwrap();
    // `[<0>] do_syscall_64+0xa4/0x2c0`: the offset and the function's length.
    let names = own.lines().filter_map(|line| line.split_once("] ")?.1.rsplit_once('/')).map(|(name, _)| name);
    let names: Vec<&str> = names.collect();
    let entry = *names.last().unwrap_or_else(|| panic!("{own}"));
    let is_old = KernelFacts::running().version() < (6, 12);
    for attach in
        ["tracepoint:syscalls:sys_enter_getppid", "tracepoint:raw_syscalls:sys_enter", "rawtracepoint:sys_enter"]
    {
        for row in seen_of_getppid(attach, &["kstack", "kstack(1)"]) {
            let found = texts(&row["f0"]);
            // docs/expressions.md says so.
            if is_old && attach.starts_with("tracepoint:syscalls:") && found.is_empty() {
                println!("skipped: this kernel has no stacks of its own at {attach}");
                continue;
            }
            assert_eq!(found.last(), Some(&entry), "{attach}: {found:?} and in /proc {names:?}");
            assert!(found.iter().any(|name| name.starts_with("do_syscall_64+0x")), "{found:?}");
            // The first frame of a raw tracepoint is the program's own, of which there are two calls.
            let first = texts(&row["f1"]);
            assert!(first.len() == 2 && first[1] == "…", "{first:?}");
            assert!(first[0] == found[0] || attach.starts_with("rawtracepoint:"), "{first:?} and {found:?}");
        }
    }
}

/// Rows of calls of getppid alone, which other tracepoints see among others.
fn seen_of_getppid(attach: &str, values: &[&str]) -> Vec<Value> {
    if attach.starts_with("tracepoint:syscalls") {
        return seen(attach, values).shown();
    }
    let thread = this_thread();
    let when = format!("tid == {thread} && args.id == {}", libc::SYS_getppid);
    // SAFETY: as above.
    let seen = trace(&probe(&[attach], &when, values), || unsafe { porthole_outer() });
    assert_eq!(seen.rows.len(), 1);
    seen.shown()
}

#[test]
fn root_addresses_of_the_kernel_have_its_names() {
    if unless_root() {
        return;
    }
    // SAFETY: a descriptor is made, which nobody else knows.
    let file = unsafe { File::from_raw_fd(libc::eventfd(0, 0)) };
    let read = format!("task.files.fdt.fd[{}].f_op.read_iter", file.as_raw_fd());
    let values = [
        format!("ksym({read})"),
        format!("ksym((u64){read} + 1)"),
        "ksym(kaddr(\"vfs_read\"))".to_owned(),
        "ksym((u64)-1)".to_owned(),
        "ksym(0 + 4096)".to_owned(),
        "ksym(task)".to_owned(),
    ];
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    for row in seen("tracepoint:syscalls:sys_enter_getppid", &values).shown() {
        let names = ["f0", "f1", "f2", "f3", "f4"].map(|field| row[field].as_str().unwrap());
        assert_eq!(names, ["eventfd_read", "eventfd_read+0x1", "vfs_read", "0xffffffffffffffff", "0x1000"]);
        assert!(row["f5"].as_str().unwrap().starts_with("0xff"), "no symbol is near what is allocated: {row}");
    }
}

#[test]
fn root_addresses_of_a_process_have_its_names() {
    if unless_root() {
        return;
    }
    let attach = format!("uprobe:{}:porthole_inner", std::env::current_exe().unwrap().display());
    let values = ["usym(reg(\"ip\"))", "usym(reg(\"ip\") + 4)", "usym(4096 + 0)", "ustack(1)", "ksym(reg(\"ip\"))"];
    for row in seen(&attach, &values).shown() {
        let [here, further] = ["", "+0x4"].map(|offset| format!("porthole_inner{offset} [{}]", program()));
        assert_eq!([&row["f0"], &row["f1"], &row["f2"]], [&json!(here), &json!(further), &json!("0x1000")]);
        assert_eq!(row["f3"], json!([here, "…"]));
        assert!(row["f4"].as_str().unwrap().starts_with("0x"), "{row}");
    }
}

/// The helper that collects a stack is for many kinds of programs, and not for all: where the checker takes it, the
/// verifier does.
#[test]
fn root_stacks_can_be_had_at_every_kind_of_attach_point() {
    if unless_root() {
        return;
    }
    let facts = KernelFacts::running();
    // These need what not every kernel, or its machine, has.
    let may_lack = ["fentry", "fexit", "kprobe:vfs_{", "lsm", "hardware", "watchpoint"];
    let mut loaded = Vec::new();
    for attach in [
        "tracepoint:sched:sched_switch",
        "rawtracepoint:sched_switch",
        "fentry:vfs_read",
        "fexit:vfs_read",
        "kprobe:vfs_read",
        "kprobe:vfs_{read,write}",
        "kretprobe:vfs_read",
        "lsm:file_open",
        "profile:hz:99",
        "software:page-faults:1",
        "hardware:cycles",
        "watchpoint:0x1000:8:w",
        "uprobe:libc:getenv",
        "uretprobe:libc:getenv",
    ] {
        let declaration = probe(&[attach], "true", &["kstack", "ustack", "kstack(3)", "ksym(task)", "usym(nsecs)"]);
        let plan = plan(&declaration, &facts).unwrap_or_else(|e| panic!("{e}"));
        match load(&compile(&plan, "test", 1 << 16).unwrap()) {
            Ok(_) => loaded.push(attach),
            Err(error @ LoadError::NotOffered { .. }) if may_lack.iter().any(|kind| attach.starts_with(kind)) => {
                println!("skipped: {error}")
            }
            Err(error) => panic!("{attach}: {error}"),
        }
    }
    println!("loaded at {}", loaded.join(", "));
}

/// By a plugin that forwards them, makes rows of them, and asks for names.
#[test]
fn root_plugins_show_stacks_by_names() {
    if unless_root() {
        return;
    }
    let comm = unique();
    let host = Run::new(&plugin("stacks")).arg("--comm").arg(&comm).attach();
    // SAFETY: the call takes nothing and changes nothing but registers that calls may change.
    as_thread(&comm, || unsafe { porthole_outer() });
    // Names are found while the process is there.
    let rows = host.interrupt().successful().rows();
    let [forwarded, row, names] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!(forwarded, row);
    let fields = &row["fields"];
    let [inner, outer] = ["porthole_inner+0xb", "porthole_outer+0x9"].map(|name| format!("{name} [{}]", program()));
    assert_eq!((&fields["user"], &fields["nowhere"]), (&json!([inner, outer, "…"]), &json!("0x1000")));
    let kernel = texts(&fields["kernel"]).join(" ");
    assert!(kernel.contains(" do_syscall_64+0x"), "{kernel}");
    let thread = fields["thread"].as_str().unwrap();
    let asked = json!({"kernel": kernel, "user": format!("{inner} {outer}"), "others": format!("{thread} 0x1000")});
    assert_eq!(names["fields"], asked);
}
