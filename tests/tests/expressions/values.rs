//! Numbers: each operator, each width, and what is absent.

use super::*;
use porthole_tests::machine::{Memory, Space};

/// A record whose numbers are all at the edge of their width.
fn record() -> Vec<u8> {
    let mut record = vec![0; facts::RECORD];
    for (field, value) in [
        ("u8", 0xff),
        ("s8", -1),
        ("u16", 0xffff),
        ("s16", -2),
        ("b", 1),
        ("u32", 0xffff_ffff),
        ("s32", -3),
        ("u64", -4),
        ("s64", -5),
        ("p", 0xdead_0000),
        ("s", 0xdead_0000),
    ] {
        set(&mut record, field, value);
    }
    record
}

fn shown(attach: &str, expressions: &[&str], context: &[u8], world: World) -> Vec<String> {
    let world = Rc::new(world);
    expressions.iter().map(|e| evaluate(&FACTS, attach, &[e], context, &world)[0].to_string()).collect()
}

/// Each expression at the made tracepoint with the value that it must have.
fn table(cases: &[(&str, &str)]) {
    let expressions: Vec<&str> = cases.iter().map(|(e, _)| *e).collect();
    let values = shown(MADE, &expressions, &record(), World::new());
    for ((expression, wanted), value) in cases.iter().zip(values) {
        assert_eq!(value, *wanted, "{expression}");
    }
}

#[test]
fn widths() {
    table(&[
        ("args.u8", "255"),
        ("args.s8", "-1"),
        ("args.u16", "65535"),
        ("args.s16", "-2"),
        ("args.u32", "4294967295"),
        ("args.s32", "-3"),
        ("args.u64", "18446744073709551612"),
        ("args.s64", "-5"),
        ("args.b", "true"),
        ("args.p", "3735879680"),
        ("args.u8 + 0", "255"),
        ("args.u32 + 1", "4294967296"),
        ("args.s8 * args.s8", "1"),
        ("args.u64 + 4", "0"),
        ("-args.u32", "-4294967295"),
        ("~args.u8", "-256"),
        ("+args.b", "1"),
    ]);
}

#[test]
fn builtins() {
    table(&[
        ("pid", "4711"),
        ("tid", "4712"),
        ("uid", "1000"),
        ("gid", "100"),
        ("cpu", "3"),
        ("nsecs", "1125899906842624"),
        ("cgroup", "77"),
        ("comm", "\"cat\""),
        ("tid - pid", "1"),
        ("true", "true"),
        ("false", "false"),
    ]);
}

#[test]
fn precedence_and_grouping_are_those_of_c() {
    table(&[
        ("1 + 2 * 3", "7"),
        ("(1 + 2) * 3", "9"),
        ("10 - 2 - 3", "5"),
        ("100 / 10 / 5", "2"),
        ("1 << 2 + 3", "32"),
        ("1 | 2 ^ 3 & 1", "3"),
        ("args.u8 & 0xf == 0xf", "1"),
        ("(args.u8 & 0xf) == 0xf", "true"),
        ("3 > 2 > 1", "false"),
        ("args.u8 > 2 == 1", "true"),
        ("1 || 0 && 0", "true"),
        ("0 ? 1 : 0 ? 2 : 3", "3"),
        ("1 ? 2 : 3 + 4", "2"),
        ("!args.u8 == 0", "true"),
        ("- - 5", "5"),
        ("!!args.u8", "true"),
        ("-args.s64 - -args.s64", "0"),
    ]);
}

#[test]
fn signs() {
    table(&[
        ("args.s64 < 0", "true"),
        ("args.s32 < args.u32", "true"),
        ("args.s64 < args.u64", "true"),
        ("args.s32 < args.u64", "false"),
        ("-1 < args.u64", "false"),
        ("-1 < args.u32", "true"),
        ("args.u64 > 0x7fffffffffffffff", "true"),
        ("args.s64 > 0xffffffffffffff00", "true"),
        ("-1 == 0xffffffffffffffff", "true"),
        ("(1 ? args.s64 : args.u64) < 0", "false"),
        ("(args.b ? args.s64 : args.u64) < 0", "false"),
        ("(args.b ? args.s64 : args.s8) < 0", "true"),
        ("-9223372036854775808 < 0", "true"),
        ("9223372036854775808 > 0", "true"),
        ("-args.u64", "4"),
    ]);
}

#[test]
fn shifts() {
    table(&[
        ("1 << 63", "-9223372036854775808"),
        ("1 << 64", "1"),
        ("args.b << 65", "2"),
        ("args.s64 >> 1", "-3"),
        ("args.u64 >> 60", "15"),
        ("args.s64 >> args.u64", "-1"),
        ("args.u32 >> 4", "268435455"),
        ("args.u8 << 8", "65280"),
        ("args.s8 >> 3", "-1"),
        ("args.u8 << -1", "-9223372036854775808"),
    ]);
}

#[test]
fn division() {
    table(&[
        ("-7 / 2", "-3"),
        ("-7 % 2", "-1"),
        ("7 / -2", "-3"),
        ("7 % -2", "1"),
        ("args.s64 / 2", "-2"),
        ("args.s64 % 2", "-1"),
        ("args.s64 / -2", "2"),
        ("args.s64 % -3", "-2"),
        ("args.u64 / 2", "9223372036854775806"),
        ("args.u64 % 10", "2"),
        ("args.s64 / args.u64", "0"),
        ("-9223372036854775808 / -1", "-9223372036854775808"),
        ("-9223372036854775808 % -1", "0"),
        ("(1 << 63) / (args.s8 + 0)", "-9223372036854775808"),
        ("(1 << 63) % (args.s8 + 0)", "0"),
        ("1 / 0", "absent"),
        ("1 % 0", "absent"),
        ("args.u64 / (args.u64 + 4)", "absent"),
        ("args.s64 % (args.s64 + 5)", "absent"),
    ]);
}

#[test]
fn absent_is_neither_true_nor_false() {
    table(&[
        ("1 / 0 == 1 / 0", "absent"),
        ("!(1 / 0)", "absent"),
        ("1 / 0 || 1", "absent"),
        ("1 || 1 / 0", "true"),
        ("0 && 1 / 0", "false"),
        ("args.b || 1 / 0", "true"),
        ("!args.b && 1 / 0", "false"),
        ("args.b && 1 / 0", "absent"),
        ("args.b ? 1 : 1 / 0", "1"),
        ("args.b ? 1 / 0 : 1", "absent"),
        ("1 / 0 ? 1 : 1", "absent"),
        ("args.p.pid", "absent"),
        ("args.p.pid == 0", "absent"),
        ("args.p.real_parent.pid", "absent"),
        ("str(args.s)", "absent"),
        ("str(args.s) == \"\"", "absent"),
        ("args.p", "3735879680"),
        ("args.p == 0", "false"),
        ("args.p && args.p.pid", "absent"),
    ]);
}

#[test]
fn structures() {
    let mut memory = Memory::default();
    let mut task = |members: &[(&str, &[u8])]| memory.add(Space::Kernel, &structure("task_struct", members));
    let grandparent = task(&[("pid", &(-7i32).to_le_bytes()), ("start_time", &[0xff; 8])]);
    let parent = task(&[("tgid", &[5]), ("real_parent", &grandparent.to_le_bytes())]);
    let child = task(&[
        ("pid", &[9]),
        ("real_parent", &parent.to_le_bytes()),
        ("comm", b"smd"),
        ("in_iowait", &[1]),
        ("rcu_users.refs.counter", &[3]),
    ]);
    let cases = [
        ("$.pid", "9"),
        ("$->pid", "9"),
        ("$.real_parent.tgid", "5"),
        ("$.real_parent->real_parent.pid", "-7"),
        ("$.real_parent.real_parent.start_time", "18446744073709551615"),
        ("$.in_iowait", "1"),
        ("$.in_execve", "0"),
        // A member of an unnamed union.
        ("$.rcu_users.refs.counter", "3"),
        ("$.comm", "\"smd\""),
        ("$.comm[1]", "109"),
        ("$.parent", "0"),
        ("!$.parent", "true"),
        ("$.parent.pid", "absent"),
        ("$.parent.parent.pid", "absent"),
        ("$.parent.comm", "absent"),
        ("$ == $", "true"),
        ("$ != $.real_parent", "true"),
        ("($.parent ? $.parent : $.real_parent).tgid", "5"),
        ("$.se.load.weight", "0"),
    ];
    let world = World { task: child, memory, ..World::new() };
    let mut made = vec![0; facts::RECORD];
    set(&mut made, "p", child as i64);
    // Arguments of a raw tracepoint: preempt, prev, next, prev_state.
    let raw = [0, child, child, 0].map(u64::to_le_bytes).concat();
    for (attach, argument, context) in
        [(MADE, "args.p", &made), ("rawtracepoint:sched_switch", "args.next", &raw), (MADE, "task", &made)]
    {
        for (expression, wanted) in cases {
            let expression = expression.replace('$', argument);
            let value = &shown(attach, &[&expression], context, world.clone())[0];
            assert_eq!(value, wanted, "{expression} at {attach}");
        }
    }
}

#[test]
fn casts() {
    table(&[
        ("(u8)args.s64", "251"),
        ("(signed char)args.u8", "-1"),
        ("(s8)args.u8 + 0", "-1"),
        ("(u16)args.s16", "65534"),
        ("(short)args.u32", "-1"),
        ("(int)args.u32", "-1"),
        ("(unsigned)args.s64", "4294967291"),
        ("(unsigned int)args.s64 + 1", "4294967292"),
        ("(u64)args.s8", "18446744073709551615"),
        ("(long)args.u64", "-4"),
        ("(long)args.u64 < 0", "true"),
        ("(u64)args.s64 > 0", "true"),
        ("(u64)args.s64 >> 60", "15"),
        ("(bool)args.s64", "true"),
        ("(bool)args.u8 + 1", "2"),
        ("(bool)0", "false"),
        ("(u8)300", "44"),
        ("(s8)200", "-56"),
        ("(u64)-1", "18446744073709551615"),
        ("(u64)-1 > 1", "true"),
        ("(char)-1", "255"),
        ("(u64)args.p", "3735879680"),
        ("(u16)args.p + 1", "1"),
        ("(u64)args.p + 8", "3735879688"),
        ("(u8)(args.u64 / 0)", "absent"),
        ("(pid_t)args.u32", "-1"),
        ("(size_t)args.s8", "18446744073709551615"),
        ("(char *)args.u8", "255"),
        ("(void *)args.u8 == args.p", "false"),
        ("((struct task_struct *)args.u8).pid", "absent"),
        ("(typeof(args.u8))args.s64", "251"),
        ("sizeof(int) + sizeof(char *) + sizeof(args.u16)", "14"),
        ("sizeof(struct list_head)", "16"),
        ("sizeof(task.comm)", "16"),
        ("sizeof(task.pid)", "4"),
        ("sizeof(*task) == sizeof(struct task_struct)", "true"),
        ("offsetof(struct list_head, prev)", "8"),
        ("offsetof(struct task_struct, se.load.weight) - offsetof(struct task_struct, se)", "0"),
    ]);
}

#[test]
fn sets() {
    table(&[
        ("args.u8 in (1, 2, 255)", "true"),
        ("args.u8 in (1)", "false"),
        ("args.s64 in (-5)", "true"),
        ("args.u64 in (-4, 9)", "true"),
        ("args.u64 in (0xfffffffffffffffc)", "true"),
        ("args.s8 in (0xff)", "false"),
        ("!(args.s8 in (1, -1))", "false"),
        ("(args.u8 in (255)) + 1", "2"),
        ("args.u8 in (SS_FREE, 127 * 2 + 1)", "true"),
        ("args.p in (0, 0xdead0000)", "true"),
        ("args.u8 + 1 in (256)", "true"),
        ("args.u8 in (255) == args.b", "true"),
        ("3 in (1, 2)", "false"),
        ("3 in (1, 3)", "true"),
        ("1 / 0 in (1)", "absent"),
        ("args.b in (true)", "true"),
    ]);
}

#[test]
fn constants_and_enumerations() {
    table(&[
        ("SS_CONNECTED", "SS_CONNECTED"),
        ("SS_CONNECTED + 0", "3"),
        ("args.u8 == 252 + SS_CONNECTED", "true"),
        ("(typeof(SS_CONNECTED))args.b", "SS_UNCONNECTED"),
        ("(typeof(SS_CONNECTED))args.u8", "255"),
        ("args.b ? SS_CONNECTED : SS_FREE", "SS_CONNECTED"),
        ("args.b ? SS_CONNECTED : 5", "3"),
        ("(enum hrtimer_restart)args.b", "HRTIMER_RESTART"),
        ("(enum hrtimer_restart)args.b + 1", "2"),
        ("(enum hrtimer_restart)args.s8", "4294967295"),
        ("(enum rpm_status)args.s8", "RPM_INVALID"),
        ("(enum rpm_status)args.u32", "RPM_INVALID"),
        ("(enum rpm_status)args.s16", "-2"),
        ("RPM_INVALID < 0", "true"),
        ("(u8)HRTIMER_RESTART", "1"),
        ("(enum hrtimer_restart)(1 / 0)", "absent"),
        ("O_CREAT | O_WRONLY", "65"),
        ("-ENOENT", "-2"),
        ("S_IFMT & 0100644 == S_IFREG", "0"),
        ("(0100644 & S_IFMT) == S_IFREG", "true"),
        ("AF_INET6", "10"),
        ("SIGKILL", "9"),
        ("CLONE_NEWNET", "1073741824"),
    ]);
}

#[test]
fn pointers_are_cast_indexed_and_followed() {
    let mut memory = Memory::default();
    let parent = memory.add(Space::Kernel, &structure("task_struct", &[("tgid", &[5])]));
    let child = structure(
        "task_struct",
        &[("pid", &(-9i32).to_le_bytes()), ("comm", b"smd"), ("real_parent", &parent.to_le_bytes())],
    );
    let child = memory.add(Space::Kernel, &child);
    let text = memory.add(Space::User, b"abc\0");
    let mut vector = text.to_le_bytes().to_vec();
    vector.extend([0xf0, 0xff, 0xff, 0xff, 7, 0, 0, 0]);
    let vector = memory.add(Space::User, &vector);
    let world = World { task: child, memory, ..World::new() };
    let mut made = vec![0; facts::RECORD];
    set(&mut made, "p", child as i64);
    set(&mut made, "u64", child as i64);
    set(&mut made, "u8", 1);
    set(&mut made, "s8", -1);
    set(&mut made, "u32", 16);
    put(&mut made, 56, b"name567890");
    let raw = [0, child, child, 1].map(u64::to_le_bytes).concat();
    let at_made = [
        ("((struct task_struct *)args.u64).pid", "-9"),
        ("((struct task_struct *)args.u64)->real_parent->tgid", "5"),
        ("str((char *)&args.p.comm)", "\"smd\""),
        ("args.p.comm[args.u8]", "109"),
        ("args.p.comm[args.u8 - 1]", "115"),
        ("args.p.comm[args.s8]", "absent"),
        ("args.p.comm[args.u32]", "absent"),
        ("args.p.comm[args.u32 - 1]", "0"),
        ("args.name[0]", "110"),
        ("args.name[args.u8]", "97"),
        ("args.name[9]", "48"),
        ("args.name[args.u32]", "absent"),
    ];
    let everywhere = [
        ("(*$).pid", "-9"),
        ("*(int *)&$.pid", "-9"),
        ("*(u32 *)&$.pid", "4294967287"),
        ("((u8 *)&$.comm)[2]", "100"),
        ("((u8 *)&$.comm)[args_u8]", "109"),
        ("container_of(&$.se, struct task_struct, se).pid", "-9"),
        ("container_of(&$.comm, struct task_struct, comm) == $", "true"),
        ("container_of($.mm, struct task_struct, comm)", "absent"),
        ("((struct task_struct *)(u64)$).pid", "-9"),
        ("(u64)$ - (u64)$", "0"),
        ("(u64)$ + 1 == (u64)$", "false"),
        ("(struct task_struct *)$ == $", "true"),
        ("$.real_parent == (void *)&(*$.real_parent).thread_info", "true"),
    ];
    for (expression, wanted) in at_made {
        assert_eq!(shown(MADE, &[expression], &made, world.clone())[0], wanted, "{expression}");
    }
    for (attach, argument, index, context) in [
        (MADE, "args.p", "args.u8", &made),
        (MADE, "task", "args.u8", &made),
        ("rawtracepoint:sched_switch", "args.prev", "args.prev_state", &raw),
    ] {
        for (expression, wanted) in everywhere {
            let expression = expression.replace('$', argument).replace("args_u8", index);
            assert_eq!(shown(attach, &[&expression], context, world.clone())[0], wanted, "{expression} at {attach}");
        }
    }
    let mut call = vec![0; 64];
    put(&mut call, 16, &vector.to_le_bytes());
    put(&mut call, 32, &[1]);
    for (expression, wanted) in [
        ("str(*(char **)args.s)", "\"abc\""),
        ("(*(char **)args.s)[1]", "98"),
        ("(*(char **)args.s)[args.fd + 1]", "99"),
        ("((int *)args.s)[2]", "-16"),
        ("((int *)args.s)[args.fd + 2]", "7"),
        ("((int *)args.s)[args.fd + 3]", "absent"),
        ("*(char *)args.p", "absent"),
    ] {
        assert_eq!(shown(CALL, &[expression], &call, world.clone())[0], wanted, "{expression}");
    }
}

#[test]
fn arguments_of_system_calls_are_narrowed() {
    let mut call = vec![0xff; 64];
    for (offset, value) in [(32, 0x1234_5678_ffff_ffffu64), (40, 0xffff_ffff_ffff_01a4), (48, u64::MAX), (56, u64::MAX)]
    {
        put(&mut call, offset, &value.to_le_bytes());
    }
    let values = shown(CALL, &["args.fd", "args.mode", "args.count", "args.offset"], &call, World::new());
    assert_eq!(values, ["-1", "420", "18446744073709551615", "-1"]);
}

#[test]
fn arguments_of_raw_tracepoints_are_narrowed() {
    let context = [0xffff_ff00u64, 0, 0, 0xffff_ffff_ffff_ffff].map(u64::to_le_bytes).concat();
    let names = ["args.preempt", "args.prev", "args.prev_state", "args.prev.pid"];
    let values = shown("rawtracepoint:sched_switch", &names, &context, World::new());
    assert_eq!(values, ["false", "0", "4294967295", "absent"]);
}

#[test]
fn each_field_has_its_own_presence_bit() {
    for absent in [0u64, u64::MAX, 0x5555_5555_5555_5555, 1 << 31, 1 << 32, 1 << 63] {
        let expressions: Vec<&str> =
            (0..64).map(|bit| if absent >> bit & 1 == 1 { "args.u64 / (args.b - 1)" } else { "args.u8" }).collect();
        let values = evaluate(&FACTS, MADE, &expressions, &record(), &Rc::new(World::new()));
        let wanted = (0..64).map(|bit| if absent >> bit & 1 == 1 { Value::Absent } else { Value::Unsigned(255) });
        assert_eq!(values, wanted.collect::<Vec<_>>(), "{absent:#x}");
    }
}

#[test]
fn what_the_ring_has_no_room_for_is_counted() {
    let plan =
        plan(&declaration::parse(&format!("probe p\nattach {MADE}\nwhen args.u8\nemit e\n")).unwrap(), &FACTS).unwrap();
    let mut machine = Machine::new(&plan).unwrap();
    let (room, full) = (Rc::new(World::new()), Rc::new(World { full: true, ..World::new() }));
    let (yes, no) = (record(), vec![0; facts::RECORD]);
    // Hits, filtered, emitted, lost.
    for (context, world, counters) in [
        (&yes, &room, [1, 0, 1, 0]),
        (&no, &room, [2, 1, 1, 0]),
        (&yes, &full, [3, 1, 1, 1]),
        (&no, &full, [4, 2, 1, 1]),
    ] {
        assert_eq!(machine.run(0, context, world).counters[..4], counters);
    }
}

#[test]
fn bytes_in_the_opposite_order() {
    table(&[
        ("bswap(args.u16)", "65535"),
        ("bswap(args.s16)", "65279"),
        ("bswap(args.u8)", "255"),
        ("bswap(args.s8)", "255"),
        ("bswap(args.s32)", "4261412863"),
        ("bswap(args.s64)", "18158513697557839871"),
        ("bswap(args.u64) >> 56", "252"),
        ("bswap((u16)0x1234)", "13330"),
        ("bswap(0x1234)", "3752061439553044480"),
        ("ntohs(args.s32)", "65023"),
        ("ntohl(args.s16 + args.b)", "4294967295"),
        ("ntohs(0x5000)", "80"),
        ("ntohs(args.u16) == 0xffff", "true"),
        ("bswap(args.b)", "1"),
        ("bswap(1 / (args.u8 - 255))", "absent"),
    ]);
}

#[test]
fn numbers_by_their_names() {
    table(&[
        ("errno(args.s16)", "ENOENT"),
        ("errno(args.s64)", "EIO"),
        ("errno(args.u64)", "EINTR"),
        ("errno(-512)", "ERESTARTSYS"),
        ("errno(args.u8)", "EPERM"),
        ("errno(7)", "7"),
        ("errno(-4096)", "-4096"),
        ("errno(args.s16) == -ENOENT", "true"),
        ("errno(args.s16) == \"ENOENT\"", "true"),
        ("\"EIO\" != errno(args.s16)", "true"),
        ("errno(args.s16) in (\"EIO\", -ENOENT)", "true"),
        ("errno(args.s16) + 0", "-2"),
        ("errno(args.s16) < 0", "true"),
        ("signal(args.b + 8)", "SIGKILL"),
        ("signal(6)", "SIGABRT"),
        ("signal(40)", "40"),
        ("signal(args.b + 8) == SIGKILL", "true"),
        ("signal(args.b + 8) == \"SIGKILL\"", "true"),
        ("syscall(args.u8 + 2)", "openat"),
        ("syscall(args.b + 1000)", "1001"),
        ("syscall(args.u8 + 2) in (\"open\", \"openat\", \"openat2\")", "true"),
        ("SS_CONNECTED == \"SS_CONNECTED\"", "true"),
    ]);
}
