//! Variables of the running kernel, against what else tells of them.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::process::Command;

use porthole::compile::compile;
use porthole::events::Batch;
use porthole::kernel::KernelFacts;
use porthole::load::load;
use porthole::plan::layout::LENGTH;
use porthole::plan::plan;
use porthole_tests::declaration;
use porthole_tests::live::unless_root;
use porthole_tests::machine::{Value, decode};

const PAGE: usize = 4096;
const PAGES: usize = 1000;

/// Asks whether a file is there that nobody else asks for.
fn access(name: &str) {
    let nowhere = CString::new(format!("/porthole-{name}")).unwrap();
    // SAFETY: the path ends in a 0, and lives as long.
    unsafe { libc::syscall(libc::SYS_access, nowhere.as_ptr(), 0) };
}

/// The values of these expressions at each [`access`] to that name in `work`.
fn trace(facts: &KernelFacts, name: &str, values: &[String], work: impl FnOnce()) -> Vec<Vec<Value>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let fields: String = values.iter().enumerate().map(|(n, value)| format!("  f{n} = {value}\n")).collect();
    let text = format!(
        "probe p\nattach tracepoint:syscalls:sys_enter_access\nwhen str(args.filename) == \"/porthole-{name}\"\nemit e\n{fields}"
    );
    let plan = plan(&declaration::parse(&text).unwrap(), facts).unwrap_or_else(|e| panic!("{e}"));
    let compiled = compile(&plan, "test", 1 << 16).unwrap();
    let mut attached = load(&compiled).and_then(|loaded| loaded.attach(&plan)).unwrap_or_else(|e| panic!("{e}"));
    let mut ring = attached.ring().unwrap();
    work();
    attached.detach();
    let (mut rows, batch) = (Vec::new(), ring.take(Batch::default()).unwrap());
    let mut rest = batch.records.as_slice();
    while !rest.is_empty() {
        let at = LENGTH as usize;
        let (record, behind) = rest.split_at(u32::from_le_bytes(rest[at..at + 4].try_into().unwrap()) as usize);
        rows.push(decode(&plan.schemas[0], record).into_iter().map(|(_, value)| value).collect());
        rest = behind;
    }
    rows
}

/// What a process has of memory is counted in a number of all CPUs and one of each; only together they are right.
#[test]
fn root_per_cpu_parts_of_a_number_add_up() {
    if unless_root() {
        return;
    }
    let facts = KernelFacts::running();
    let btf = facts.btf().unwrap();
    let rss = btf.structure("mm_struct").and_then(|mm| btf.member(mm, "rss_stat")).unwrap();
    if !btf.c_name(rss.ty).starts_with("struct percpu_counter[") {
        // So it is from 6.2 on.
        println!("skipped: this kernel counts pages in a `{}`", btf.c_name(rss.ty));
        return;
    }
    let counter = "task.mm.rss_stat[MM_ANONPAGES]";
    let parts = (0..facts.cpus().unwrap()).map(|cpu| format!("*per_cpu_ptr({counter}.counters, {cpu})"));
    let all: Vec<String> = [format!("{counter}.count")].into_iter().chain(parts).collect();
    let name = format!("pages-{}", std::process::id());
    // In a process of its own: this one has other tests to run.
    let rows = trace(&facts, &name, &[all.join(" + ")], || {
        let mut other = Command::new(std::env::current_exe().unwrap());
        let ended = other.args(["--exact", "touches_pages"]).env("PORTHOLE_TEST_PAGES", &name).output().unwrap();
        assert!(ended.status.success(), "{ended:?}");
    });
    let sums: Vec<i64> =
        rows.iter().map(|row| if let Value::Signed(n) = row[0] { n } else { panic!("{row:?}") }).collect();
    let [before, with, after] = sums[..] else { panic!("{sums:?}") };
    // The process may touch a page or two of its own.
    let pages = PAGES as i64;
    assert!((pages..pages + 20).contains(&(with - before)), "{sums:?}");
    assert!((pages - 20..=pages).contains(&(with - after)), "{sums:?}");
}

/// What the other process of the test above does. By itself it does nothing.
#[test]
fn touches_pages() {
    let Ok(name) = std::env::var("PORTHOLE_TEST_PAGES") else { return };
    access(&name);
    // SAFETY: new memory, which nothing else uses.
    let memory = unsafe {
        let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let memory = libc::mmap(std::ptr::null_mut(), PAGES * PAGE, prot, flags, -1, 0);
        assert_ne!(memory, libc::MAP_FAILED);
        libc::madvise(memory, PAGES * PAGE, libc::MADV_NOHUGEPAGE);
        memory.cast::<u8>()
    };
    for page in 0..PAGES {
        // SAFETY: it is inside.
        unsafe { memory.add(page * PAGE).write_volatile(1) };
    }
    access(&name);
    // SAFETY: nothing refers to it any more.
    unsafe { libc::munmap(memory.cast(), PAGES * PAGE) };
    access(&name);
}

#[test]
fn root_variables_are_those_of_the_kernel() {
    if unless_root() {
        return;
    }
    let facts = KernelFacts::running();
    if facts.symbols().unwrap().addresses("init_task").is_empty() {
        println!("skipped: this kernel's symbols name no variables");
        return;
    }
    let values = [
        "((struct task_struct *)kaddr(\"init_task\")).comm",
        "((struct task_struct *)kaddr(\"init_task\")).pid",
        "*(unsigned long *)kaddr(\"jiffies\")",
        "*(int *)kaddr(\"nr_threads\") > 1",
        "((unsigned long *)kaddr(\"avenrun\"))[2] < (1 << 40)",
    ];
    let name = format!("variables-{}", std::process::id());
    let rows = trace(&facts, &name, &values.map(str::to_owned), || {
        access(&name);
        std::thread::sleep(std::time::Duration::from_millis(100));
        access(&name);
    });
    let [first, second] = &rows[..] else { panic!("{rows:?}") };
    // `swapper`, and on some kernels its CPU.
    assert!(matches!(&first[0], Value::Text { bytes, .. } if bytes.starts_with(b"swapper")), "{rows:?}");
    assert_eq!((&first[1], &first[3], &first[4]), (&Value::Signed(0), &Value::Boolean(true), &Value::Boolean(true)));
    let (Value::Unsigned(begun), Value::Unsigned(ended)) = (&first[2], &second[2]) else { panic!("{rows:?}") };
    // 10 ms or less each.
    assert!((9..1000).contains(&(ended - begun)), "{rows:?}");
}

/// The functions of a file are those that the kernel names so.
#[test]
fn root_functions_have_addresses() {
    if unless_root() {
        return;
    }
    // SAFETY: a descriptor is made, which nobody else knows.
    let file = unsafe { File::from_raw_fd(libc::eventfd(0, 0)) };
    let op = |name: &str| format!("task.files.fdt.fd[{}].f_op.read_iter == kaddr(\"{name}\")", file.as_raw_fd());
    let values = [op("eventfd_read"), op("eventfd_write")];
    let name = format!("functions-{}", std::process::id());
    let rows = trace(&KernelFacts::running(), &name, &values, || access(&name));
    assert_eq!(rows, [[Value::Boolean(true), Value::Boolean(false)]]);
}
