//! On the recorded kernel.

use std::path::Path;

use super::*;

fn recorded() -> KernelFacts {
    KernelFacts::from_dir(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/kernel-6.18")))
}

fn points(pattern: &str) -> Vec<String> {
    list(Some(pattern), &recorded()).unwrap_or_else(|e| panic!("{e}")).points
}

#[test]
fn each_thing_is_listed_once_and_sorted() {
    let listing = list(None, &recorded()).unwrap();
    assert!(listing.points.is_sorted());
    for point in [
        "func:vfs_read",
        "hardware:cpu-cycles:1000000",
        "lsm:file_open",
        "profile:hz:99",
        "rawtracepoint:sched_switch",
        "software:page-faults:100",
        "tracepoint:syscalls:sys_enter_openat",
    ] {
        assert!(listing.points.iter().any(|p| p == point), "{point}: {:#?}", listing.points);
    }
    let other =
        listing.points.iter().find(|p| ["kprobe:", "fentry:", "fexit:", "kretprobe:"].iter().any(|k| p.starts_with(k)));
    assert_eq!(other, None);
}

#[test]
fn patterns() {
    assert_eq!(
        points("k:vfs_*"),
        ["kprobe:vfs_getxattr_alloc", "kprobe:vfs_open", "kprobe:vfs_read", "kprobe:vfs_write"]
    );
    assert_eq!(
        points("tracepoint:sys*:*openat"),
        ["tracepoint:syscalls:sys_enter_openat", "tracepoint:syscalls:sys_exit_openat"]
    );
    assert_eq!(points("kprobe:vfs_{read,write}"), ["kprobe:vfs_read", "kprobe:vfs_write"]);
    assert_eq!(points("kprobe:vfs_[rw]*"), ["kprobe:vfs_read", "kprobe:vfs_write"]);
    assert_eq!(points("lsm"), ["lsm:bprm_check_security", "lsm:file_open", "lsm:task_free"]);
    assert_eq!(points("no_such_thing"), Vec::<String>::new());
    assert!(points("sched_switch").starts_with(&["rawtracepoint:sched_switch".to_owned()]));
}

/// Several functions of one name cannot be told apart by kprobe; BTF describes one of them.
#[test]
fn functions_are_listed_where_they_can_be_attached_to() {
    assert_eq!(points("kprobe:*constprop*"), Vec::<String>::new(), "there are two");
    assert_eq!(points("kprobe:init_once"), Vec::<String>::new());
    assert_eq!(points("*:_printk"), ["func:_printk", "kprobe:_printk", "kretprobe:_printk"], "fentry cannot take it");
    assert_eq!(
        points("*:entry_SYSCALL_64"),
        ["func:entry_SYSCALL_64", "kprobe:entry_SYSCALL_64", "kretprobe:entry_SYSCALL_64"]
    );
}

#[test]
fn files() {
    let uprobes = points("uprobe:kiosk:*");
    assert!(uprobes.contains(&"uprobe:kiosk:open_kiosk".to_owned()), "{uprobes:?}");
    assert!(uprobes.contains(&"uprobe:kiosk:kiosk::Order::add(int)".to_owned()), "{uprobes:?}");
    for alone in ["twice", "pick", "kiosk::Order::add"] {
        assert!(!uprobes.iter().any(|p| *p == format!("uprobe:kiosk:{alone}")), "{alone}");
    }
    assert_eq!(points("usdt:kiosk:sa*"), ["usdt:kiosk:kiosk:sale"]);
    assert_eq!(points("usdt:/usr/bin/kiosk:booth:*"), ["usdt:/usr/bin/kiosk:booth:closed"]);
    let error = list(Some("uprobe:kioks:*"), &recorded()).unwrap_err();
    assert_eq!(error.to_string(), "`uprobe:kioks:*`: there is no program and no library `kioks`");
}

/// What is listed can be pasted: attach points and the arguments of each.
#[test]
fn what_is_listed_is_accepted() {
    let facts = recorded();
    let mut arguments = Arguments::new(&facts);
    let mut expressions = 0;
    for pattern in ["*:*", "uprobe:kiosk", "uretprobe:kiosk", "usdt:kiosk"] {
        for text in points(pattern) {
            let found = plan::find(&text, &facts).unwrap_or_else(|fault| panic!("{text}: {fault:?}"));
            for argument in arguments.of(&text).unwrap() {
                let refused = found.iter().find_map(|p| plan::type_of(&argument.expression, p, &facts).err());
                assert_eq!(refused.is_some(), argument.refused.is_some(), "{text}: {argument:?}");
                expressions += usize::from(argument.refused.is_none());
            }
        }
    }
    assert!(expressions > 150, "{expressions}");
}

#[test]
fn arguments_are_told_with_their_types() {
    let facts = recorded();
    let mut arguments = Arguments::new(&facts);
    let mut of = |text: &str| -> Vec<String> {
        let line = |a: Argument| match a.refused {
            None => format!("{} : {}", a.expression, a.c_type),
            Some(why) => format!("# {} : {}, {why}", a.expression, a.c_type),
        };
        arguments.of(text).unwrap().into_iter().map(line).collect()
    };
    assert_eq!(
        of("tracepoint:syscalls:sys_enter_openat"),
        [
            "args.__syscall_nr : int",
            "args.dfd : int",
            "args.filename : const char __user *",
            "args.flags : int",
            "args.mode : umode_t"
        ]
    );
    assert_eq!(
        of("fexit:vfs_read"),
        [
            "args.file : struct file *",
            "args.buf : char *",
            "args.count : size_t",
            "args.pos : loff_t *",
            "retval : ssize_t",
            "duration : u64"
        ]
    );
    assert_eq!(of("kretprobe:vfs_read"), ["retval : ssize_t", "duration : u64"]);
    assert_eq!(of("kretprobe:fput"), ["duration : u64"]);
    assert_eq!(of("kretprobe:entry_SYSCALL_64"), ["reg(\"ax\") : u64"]);
    assert_eq!(of("kprobe:entry_SYSCALL_64").len(), 6);
    assert_eq!(of("uretprobe:kiosk:open_kiosk"), ["retval : u64", "duration : u64"]);
    let switch = of("tracepoint:sched:sched_switch");
    assert!(switch.contains(&"args.prev_comm : char[16]".to_owned()), "{switch:?}");
    let probe = of("tracepoint:tcp:tcp_probe");
    assert!(probe.contains(&"args.saddr[0] : __u8 of __u8[28]".to_owned()), "{probe:?}");
    let mask = of("tracepoint:ipi:ipi_send_cpumask");
    assert!(mask[0].starts_with("# args.cpumask : cpumask_t[], "), "{mask:?}");
}

/// A kernel that does not offer a kind lists none of it, and says so once.
#[test]
fn what_the_kernel_lacks_is_said() {
    let directory = std::env::temp_dir().join(format!("porthole-list-{}", std::process::id()));
    let fixture = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/kernel-6.18"));
    std::fs::create_dir_all(&directory).unwrap();
    for name in ["btf", "events"] {
        std::os::unix::fs::symlink(fixture.canonicalize().unwrap().join(name), directory.join(name)).unwrap();
    }
    std::fs::write(directory.join("features"), "kprobe\n").unwrap();
    let facts = KernelFacts::from_dir(&directory);
    let listing = list(Some("*:*"), &facts).unwrap();
    let without_kallsyms = list(Some("vfs_re"), &facts).unwrap();
    let fentry = list(Some("fentry:*"), &facts).unwrap();
    let returns = Arguments::new(&facts).of("kretprobe:vfs_read").unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    let has = |listing: &Listing, start: &str| listing.points.iter().any(|p| p.starts_with(start));
    for kind in ["fentry:", "fexit:", "lsm:", "hardware:"] {
        assert!(!has(&listing, kind), "{kind}");
    }
    assert!(has(&listing, "kretprobe:vfs_read"));
    let expressions: Vec<&str> = returns.iter().map(|argument| argument.expression.as_str()).collect();
    assert_eq!(expressions, ["retval"], "`duration` takes sessions");
    let no = |name: &str| format!("this kernel does not offer {name}: the recorded kernel does not offer it");
    let of_features: Vec<&String> = listing.notes.iter().filter(|note| note.starts_with("this kernel")).collect();
    assert_eq!(of_features, [&no("fentry"), &no("lsm"), &no("hardware")]);
    assert_eq!((fentry.points, fentry.notes), (Vec::new(), vec![no("fentry")]));
    assert!(without_kallsyms.notes.iter().any(|note| note.starts_with("/proc/kallsyms cannot be read")));
    assert!(has(&without_kallsyms, "func:vfs_read"), "{without_kallsyms:?}");
}
