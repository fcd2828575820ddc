//! Conditions over what the kernel has, tried in it: each is a probe of its own, and how many events it sends says
//! whether it held.

use std::ffi::CString;
use std::process::Command;

use porthole::compile::compile;
use porthole::kernel::KernelFacts;
use porthole::load::load;
use porthole::plan::plan;
use porthole_tests::declaration;
use porthole_tests::live::unless_root;

const PATH: &str = "/usr/lib/porthole-none.so.6";
const CALLS: u64 = 3;

/// This process and thread call access(2) with [`PATH`] and 4; what of that is true.
fn truths(pid: u32, tid: i64) -> Vec<(String, bool)> {
    let fixed = [
        ("args.mode == R_OK", true),
        ("args.mode in (F_OK, W_OK, X_OK)", false),
        ("starts_with(str(args.filename), \"/usr/lib/\")", true),
        ("starts_with(str(args.filename), \"/usr/lib64/\")", false),
        ("ends_with(str(args.filename), \".so.6\")", true),
        ("ends_with(str(args.filename), \".so.7\")", false),
        ("contains(str(args.filename), \"porthole-none\")", true),
        ("contains(str(args.filename), \"porthole-some\")", false),
        ("str(args.filename) in (\"/usr\", \"/usr/lib/porthole-none.so.6\")", true),
        ("str(args.filename) in (\"/usr\", \"/usr/lib/porthole-none.so\")", false),
        ("*(char *)args.filename == '/' && args.filename[1] == 'u'", true),
        ("args.filename[args.mode] == '/'", true),
        ("*(u16 *)args.filename == 0x752f", true),
        ("*(char *)user((u64)args.filename) == '/'", true),
        ("(u64)user((struct list_head *)(u64)args.filename).next == 0x62696c2f7273752f", true),
        ("*(u64 __user *)(u64)args.filename == 0x62696c2f7273752f", true),
        ("starts_with(str(kernel(args.filename)), \"/usr\")", false),
        ("user(task).pid == tid || true", false),
        ("kernel(user(task)).pid == tid && kernel((u64)task) == task && kernel(task).tgid == pid", true),
        ("this_cpu(\"runqueues\").cpu == cpu && per_cpu(\"runqueues\", 0).cpu == 0", true),
        ("per_cpu(\"runqueues\", 1).cpu == 1 && per_cpu(\"runqueues\", cpu).curr == task", true),
        ("this_cpu(\"runqueues\").nr_running > 0", true),
        ("per_cpu(\"runqueues\", 1 << 20).cpu >= 0 || true", false),
        ("per_cpu(\"runqueues\", -1).cpu >= 0 || true", false),
        ("per_cpu_ptr(task.signal, 0).nr_threads >= 0 || true", false),
        ("args.filename == kaddr(\"vfs_read\") || kaddr(\"vfs_read\") == kaddr(\"vfs_write\")", false),
        ("container_of(&task.se, struct task_struct, se).pid == tid", true),
        ("*(int *)&task.tgid == pid", true),
        ("((struct task_struct *)(u64)task).tgid == pid", true),
        ("(u64)task > 0xff00000000000000", true),
        ("task.comm[args.mode - 4] == ((u8 *)&task.comm)[0]", true),
        ("task.comm[args.mode + 12] >= 0", false),
        ("task.comm[args.mode - 5] >= 0", false),
        ("(*task.group_leader).pid == pid", true),
        ("(signed char)(args.mode - 5) < 0", true),
    ];
    let own = [
        (format!("pid in (0, {pid}) && tid in (1, {tid}, 0)"), true),
        (format!("(u8)tid == {}", tid & 0xff), true),
        (format!("tid in ({})", tid + 1), false),
    ];
    fixed.into_iter().map(|(text, holds)| (text.to_owned(), holds)).chain(own).collect()
}

#[test]
fn root_conditions_hold_where_they_are_true() {
    if unless_root() {
        return;
    }
    // SAFETY: it takes nothing and cannot fail.
    let tid = unsafe { libc::syscall(libc::SYS_gettid) };
    let truths = truths(std::process::id(), tid);
    let probes = truths.iter().enumerate().map(|(n, (condition, _))| {
        format!(
            "probe p{n}\nattach tracepoint:syscalls:sys_enter_access\nwhen tid == {tid}\nwhen {condition}\nemit e\n"
        )
    });
    let declaration = declaration::parse(&probes.collect::<Vec<_>>().join("\n")).unwrap();
    let plan = plan(&declaration, &KernelFacts::running()).unwrap_or_else(|e| panic!("{e}"));
    let compiled = compile(&plan, "truths", 1 << 16).unwrap();
    let attached = load(&compiled).and_then(|loaded| loaded.attach(&plan)).unwrap_or_else(|e| panic!("{e}"));
    let path = CString::new(PATH).unwrap();
    for _ in 0..CALLS {
        // SAFETY: the path ends in a 0, and lives as long.
        unsafe { libc::syscall(libc::SYS_access, path.as_ptr(), libc::R_OK) };
    }
    let counts = attached.counts(truths.len()).unwrap();
    for ((condition, holds), counts) in truths.iter().zip(counts) {
        assert_eq!(counts.emitted, if *holds { CALLS } else { 0 }, "{condition}: {counts:?}");
        assert_eq!(counts.hits, counts.filtered + counts.emitted + counts.lost, "{condition}: {counts:?}");
    }
}

/// What `argv` points to: pointers, of which each points to a text.
#[test]
fn root_arguments_of_a_program_are_read() {
    if unless_root() {
        return;
    }
    let unique = format!("porthole-{}", std::process::id());
    let conditions = [
        (format!("str(args.argv[1]) == \"{unique}\""), true),
        (format!("str(args.argv[1]) == \"{unique}\" && ends_with(str(*args.argv), \"true\")"), true),
        (format!("str(args.argv[1]) == \"{unique}\" && str(args.argv[2]) == \"second\""), true),
        (format!("str(args.argv[1]) == \"{unique}\" && args.argv[3] == 0"), true),
        (format!("str(args.argv[1]) == \"{unique}\" && str(args.argv[3]) == \"\""), false),
        (format!("str(args.argv[2]) == \"{unique}\""), false),
    ];
    let probes = conditions.iter().enumerate().map(|(n, (condition, _))| {
        format!("probe p{n}\nattach tracepoint:syscalls:sys_enter_execve\nwhen {condition}\nemit e\n")
    });
    let declaration = declaration::parse(&probes.collect::<Vec<_>>().join("\n")).unwrap();
    let plan = plan(&declaration, &KernelFacts::running()).unwrap_or_else(|e| panic!("{e}"));
    let compiled = compile(&plan, "arguments", 1 << 16).unwrap();
    let attached = load(&compiled).and_then(|loaded| loaded.attach(&plan)).unwrap_or_else(|e| panic!("{e}"));
    for _ in 0..CALLS {
        assert!(Command::new("/bin/true").args([&unique, "second"]).status().unwrap().success());
    }
    let counts = attached.counts(conditions.len()).unwrap();
    for ((condition, holds), counts) in conditions.iter().zip(counts) {
        assert_eq!(counts.emitted, if *holds { CALLS } else { 0 }, "{condition}: {counts:?}");
    }
}
