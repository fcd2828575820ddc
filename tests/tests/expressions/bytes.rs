//! Bytes as they are in memory, addresses of networks, and numbers whose bits have names.

use super::*;
use porthole_tests::machine::{Memory, Space};

/// The made tracepoint's record, whose `s` points to these bytes of the kernel's, and `p` to these of the process's,
/// and the world that has them.
fn scene(kernel: &[u8], user: &[u8]) -> (Vec<u8>, Rc<World>) {
    let mut memory = Memory::default();
    let mut record = vec![0; facts::RECORD];
    set(&mut record, "s", memory.add(Space::Kernel, kernel) as i64);
    set(&mut record, "u64", memory.add(Space::User, user) as i64);
    set(&mut record, "u8", 5);
    set(&mut record, "s8", -1);
    set(&mut record, "s32", 10);
    set(&mut record, "u32", 0xffff_fff0);
    set(&mut record, "u16", 2);
    put(&mut record, 56, b"\x52\x54\x00\xab\xcd\xef0123");
    put(&mut record, 80, b"GET / HTTP/1.1\r\n\0\0\xff\xfe");
    (record, Rc::new(World { memory, ..World::new() }))
}

fn check(kernel: &[u8], user: &[u8], cases: &[(&str, &str)]) {
    let (record, world) = scene(kernel, user);
    for (expression, wanted) in cases {
        let value = evaluate(&FACTS, MADE, &[expression], &record, &world).remove(0);
        assert_eq!(value.to_string(), *wanted, "{expression}");
    }
}

const KERNEL: &[u8] = b"\x7fELF\0\x01\\\"\xc0\x00\x02\x01behind it";

#[test]
fn bytes_behind_a_pointer() {
    check(
        KERNEL,
        b"user\0bytes",
        &[
            ("buf(args.s, 1)", r#""\x7f""#),
            ("buf(args.s, 6)", r#""\x7fELF\x00\x01""#),
            ("buf(args.s, 21)", r#""\x7fELF\x00\x01\\\"\xc0\x00\x02\x01behind it""#),
            // One byte more than there is.
            ("buf(args.s, 22)", "absent"),
            ("buf((void *)args.s, 4)", r#""\x7fELF""#),
            ("buf(user(args.u64), 8)", r#""user\x00byt""#),
            ("buf(user(args.s), 4)", "absent"),
            ("buf(kernel(args.u64), 4)", "absent"),
            ("buf(args.p, 4)", "absent"),
            // Lengths that are known only when the probe fires.
            ("buf(args.s, args.u8)", r#""\x7fELF\x00""#),
            ("buf(args.s, args.u8, 5)", r#""\x7fELF\x00""#),
            ("buf(args.s, args.u8, 4)", r#""\x7fELF"…"#),
            ("buf(args.s, args.u32, 3)", r#""\x7fEL"…"#),
            ("buf(args.s, args.u64, 2)", r#""\x7fE"…"#),
            ("buf(args.s, args.s8)", "absent"),
            ("buf(args.s, args.s64, 9)", r#""""#),
            ("buf(args.s, args.u8 - 5)", r#""""#),
            ("buf(args.s, args.u8 - 6)", "absent"),
            ("buf(args.s, args.u8 / args.s64)", "absent"),
            ("buf(args.p, args.s64)", "absent"),
            ("buf(user(args.p), args.s64)", r#""""#),
            // More than lies there is asked for.
            ("buf(args.s, args.u32)", "absent"),
            ("buf(args.s, args.u32, 21)", r#""\x7fELF\x00\x01\\\"\xc0\x00\x02\x01behind it"…"#),
            // A length that is also a value of its own.
            ("args.u8 > 3 ? buf(args.s, args.u8, 4) : buf(args.s, 1)", r#""\x7fELF"…"#),
            ("args.u8 < 3 ? buf(args.s, args.u8, 4) : \"none\"", r#""none""#),
        ],
    );
}

#[test]
fn bytes_of_arrays() {
    check(
        KERNEL,
        b"",
        &[
            ("buf(args.name)", r#""RT\x00\xab\xcd\xef0123""#),
            ("buf(args.name, 3)", r#""RT\x00""#),
            ("buf(args.name, args.u8)", r#""RT\x00\xab\xcd""#),
            ("buf(args.name, args.u32)", r#""RT\x00\xab\xcd\xef0123"…"#),
            ("buf(args.wide, 20)", r#""GET / HTTP/1.1\r\n\x00\x00\xff\xfe""#),
        ],
    );
    let members: [(&str, &[u8]); 3] = [("comm", b"smd\0left over..."), ("pid", &[7]), ("se.load.weight", &[1, 2])];
    let mut memory = Memory::default();
    let task = memory.add(Space::Kernel, &structure("task_struct", &members));
    let world = Rc::new(World { task, memory, ..World::new() });
    let raw = [0, task, task, 0].map(u64::to_le_bytes).concat();
    for (at, context, path) in
        [(MADE, vec![0; facts::RECORD], "task"), ("rawtracepoint:sched_switch", raw, "args.prev")]
    {
        let cases = [
            ("buf($.comm)", r#""smd\x00left over...""#),
            ("buf($.comm, 5)", r#""smd\x00l""#),
            ("buf($.se.load)", r#""\x01\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00""#),
            ("buf(&$.pid, 4)", r#""\x07\x00\x00\x00""#),
            ("buf($.real_parent.comm)", "absent"),
            ("buf($.comm) == \"smd\"", "false"),
            ("buf($.comm, 3) == \"smd\"", "true"),
        ];
        for (expression, wanted) in cases {
            let expression = expression.replace('$', path);
            let value = evaluate(&FACTS, at, &[&expression], &context, &world).remove(0);
            assert_eq!(value.to_string(), wanted, "{expression} at {at}");
        }
    }
}

#[test]
fn bytes_are_compared_as_texts_are() {
    check(
        KERNEL,
        b"",
        &[
            ("buf(args.s, 4) == \"\\x7fELF\"", "true"),
            ("buf(args.s, 5) == \"\\x7fELF\"", "false"),
            ("buf(args.s, 3) != \"\\x7fELF\"", "true"),
            ("starts_with(buf(args.s, 8), \"\\x7fELF\")", "true"),
            ("contains(buf(args.wide), \"HTTP/1.\")", "true"),
            ("ends_with(buf(args.name), \"123\")", "true"),
            ("buf(args.name, 2) in (\"XX\", \"RT\")", "true"),
            ("buf(args.s, 21) == buf(args.s, 21)", "true"),
            ("buf(args.s, 21) == buf(args.s, 20)", "false"),
            ("buf(args.s, args.u8) == buf(args.s, 5)", "true"),
            ("buf(args.s, 8) == str(args.s)", "false"),
            ("buf(args.s, 4) == str(args.s)", "true"),
            ("buf(args.p, 4) == \"\"", "absent"),
        ],
    );
}

#[test]
fn several_in_one_record_with_texts() {
    let bytes: Vec<u8> = (0..5000).map(|n| (n % 251) as u8).collect();
    let (record, world) = scene(&bytes, b"");
    let expressions =
        ["buf(args.s, 4096)", "str(args.s)", "buf(args.p, 9)", "comm", "buf(args.s, args.s32, 4)", "ntop(args.u32)"];
    let values = evaluate(&FACTS, MADE, &expressions, &record, &world);
    assert_eq!(values[0], Value::Bytes { bytes: bytes[..4096].to_vec(), cut: false });
    assert_eq!(values[1], Value::Text { bytes: Vec::new(), cut: false });
    assert_eq!(values[2], Value::Absent);
    assert_eq!(values[4], Value::Bytes { bytes: bytes[..4].to_vec(), cut: true });
    assert_eq!(values[5].to_string(), "240.255.255.255");
}

#[test]
fn bound_bytes_and_addresses() {
    let fields = [
        "a",
        "b",
        "a == b",
        "m",
        "m == \"52:54:00:ab:cd:ef\"",
        "t",
        "t == \"\\x7fELF\"",
        "n",
        "n == \"::\"",
        "args.u8 ? a : b",
    ];
    let bindings = [
        ("a", "ntop((u32)0x010200c0)"),
        ("b", "ntop(AF_INET, args.s)"),
        ("m", "mac(args.name)"),
        ("t", "buf(args.s, args.u8, 4)"),
        ("n", "ntop(AF_INET6, args.p)"),
    ];
    let names: Vec<String> = (0..fields.len()).map(|n| format!("f{n}")).collect();
    let mut declaration = declaration::of_fields(MADE, names.iter().map(String::as_str).zip(fields));
    let binds = bindings.iter().map(|(name, value)| declaration::bind(name, value));
    declaration.probes[0].body.splice(0..0, binds);
    let mut machine = Machine::new(&plan(&declaration, &FACTS).unwrap_or_else(|e| panic!("{e}"))).unwrap();
    let (record, world) = scene(KERNEL, b"");
    let outcome = machine.run(0, &record, &world);
    let shown: Vec<String> = machine.decode(&outcome.records[0]).into_iter().map(|(_, v)| v.to_string()).collect();
    let wanted = [
        "192.0.2.1",
        "127.69.76.70",
        "false",
        "52:54:00:ab:cd:ef",
        "true",
        "\"\\x7fELF\"…",
        "true",
        "absent",
        "absent",
        "192.0.2.1",
    ];
    assert_eq!(shown, wanted);
}

#[test]
fn addresses_of_sockets() {
    const V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    let mut memory = Memory::default();
    let sock = structure(
        "sock",
        &[
            ("__sk_common.skc_family", &[10]),
            ("__sk_common.skc_daddr", &[192, 0, 2, 1]),
            ("__sk_common.skc_rcv_saddr", &[255, 255, 255, 255]),
            ("__sk_common.skc_v6_daddr", &V6),
        ],
    );
    let sock = memory.add(Space::Kernel, &sock);
    let user = memory.add(Space::User, &V6);
    let mut record = vec![0; facts::RECORD];
    set(&mut record, "u64", sock as i64);
    set(&mut record, "s64", user as i64);
    set(&mut record, "u16", 2);
    set(&mut record, "s8", 10);
    let world = Rc::new(World { memory, ..World::new() });
    let cases = [
        ("ntop($.skc_daddr)", "192.0.2.1"),
        ("ntop($.skc_rcv_saddr)", "255.255.255.255"),
        ("ntop($.skc_v6_daddr)", "2001:db8::9"),
        ("ntop(&$.skc_v6_daddr)", "2001:db8::9"),
        ("ntop($.skc_v6_daddr.in6_u.u6_addr8)", "2001:db8::9"),
        ("ntop($.skc_v6_daddr.in6_u.u6_addr32)", "2001:db8::9"),
        ("ntop(AF_INET, $.skc_daddr)", "192.0.2.1"),
        ("ntop(AF_INET, &$.skc_daddr)", "192.0.2.1"),
        ("ntop(AF_INET6, &$.skc_v6_daddr)", "2001:db8::9"),
        ("ntop(AF_INET, $.skc_v6_daddr)", "32.1.13.184"),
        ("ntop($.skc_family, $.skc_v6_daddr)", "2001:db8::9"),
        ("ntop(args.u16, &$.skc_daddr)", "192.0.2.1"),
        ("ntop(args.s8, &$.skc_v6_daddr)", "2001:db8::9"),
        ("ntop(args.u8, &$.skc_v6_daddr)", "absent"),
        ("ntop(args.u16 / args.u8, &$.skc_v6_daddr)", "absent"),
        ("ntop(AF_INET6, user(args.s64))", "2001:db8::9"),
        ("ntop(AF_INET6, user(args.u64))", "absent"),
        ("ntop(args.u16, args.p)", "absent"),
        ("$.skc_family == AF_INET ? ntop($.skc_daddr) : ntop($.skc_v6_daddr)", "2001:db8::9"),
        ("$.skc_family == AF_INET6 ? ntop($.skc_daddr) : ntop($.skc_v6_daddr)", "192.0.2.1"),
        ("ntop(0x0100007f)", "127.0.0.1"),
        ("ntop(args.u64 - args.u64)", "0.0.0.0"),
        // What an address is compared with.
        ("ntop($.skc_daddr) == \"192.0.2.1\"", "true"),
        ("\"192.0.2.2\" == ntop($.skc_daddr)", "false"),
        ("ntop($.skc_rcv_saddr) == \"255.255.255.255\"", "true"),
        ("ntop($.skc_daddr) != \"192.0.2.1\"", "false"),
        ("ntop($.skc_daddr) == \"::ffff:192.0.2.1\"", "false"),
        ("ntop($.skc_v6_daddr) == \"2001:DB8:0::9\"", "true"),
        ("ntop($.skc_v6_daddr) in (\"::1\", \"192.0.2.1\", \"2001:db8::9\")", "true"),
        ("ntop($.skc_v6_daddr) in (\"::1\", \"192.0.2.1\")", "false"),
        ("ntop($.skc_daddr) == ntop(AF_INET, &$.skc_daddr)", "true"),
        ("ntop($.skc_daddr) == ntop($.skc_v6_daddr)", "false"),
        ("ntop($.skc_v6_daddr) != ntop($.skc_family, &$.skc_v6_daddr)", "false"),
        ("ntop(AF_INET6, args.p) == \"::\"", "absent"),
        // Addresses that decide between two addresses.
        ("ntop($.skc_daddr) == (ntop($.skc_v6_daddr) == \"2001:db8::9\" ? ntop($.skc_daddr) : ntop(0))", "true"),
        ("(ntop($.skc_daddr) == \"::\" ? ntop(1) : ntop($.skc_daddr)) in (\"192.0.2.1\")", "true"),
    ];
    for (expression, wanted) in cases {
        let expression = expression.replace('$', "((struct sock *)args.u64).__sk_common");
        let value = evaluate(&FACTS, MADE, &[&expression], &record, &world).remove(0);
        assert_eq!(value.to_string(), wanted, "{expression}");
    }
}

#[test]
fn hardware_addresses() {
    let address: [u8; 6] = [0x52, 0x54, 0, 0xab, 0xcd, 0xef];
    check(
        &address,
        &address,
        &[
            ("mac(args.s)", "52:54:00:ab:cd:ef"),
            ("mac(args.name)", "52:54:00:ab:cd:ef"),
            ("mac(user(args.u64))", "52:54:00:ab:cd:ef"),
            ("mac(user(args.s))", "absent"),
            ("mac(args.p)", "absent"),
            ("mac((char *)args.s) == \"52:54:00:AB:cd:ef\"", "true"),
            ("mac(args.s) in (\"52:54:00:ab:cd:ee\", \"00:00:00:00:00:00\")", "false"),
            ("mac(args.s) == mac(args.name)", "true"),
            ("mac(args.s) != mac(&args.p.pid)", "absent"),
            ("args.u8 ? mac(args.s) : mac(args.p)", "52:54:00:ab:cd:ef"),
        ],
    );
    // Beside others on the stack: a record of fixed size, with each address at a place that is no multiple of 4.
    let (record, world) = scene(&address, &address);
    let values = evaluate(
        &FACTS,
        MADE,
        &["args.u16", "mac(args.s)", "mac(args.p)", "args.u8", "ntop(args.u32)"],
        &record,
        &world,
    );
    let shown: Vec<String> = values.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["2", "52:54:00:ab:cd:ef", "absent", "5", "240.255.255.255"]);
}

#[test]
fn bits_by_their_names() {
    check(
        b"",
        b"",
        &[
            ("flags(0x4241, \"O_\")", "O_WRONLY|O_CREAT|O_TRUNC|O_DIRECT"),
            ("flags(args.s32, \"O_\")", "O_RDWR|0x8"),
            ("flags(args.s64, \"O_\")", "O_RDONLY"),
            ("flags(args.s64, \"MS_\")", "0"),
            ("flags(args.u8, \"PROT_\")", "PROT_READ|PROT_EXEC"),
            ("flags(args.s8, \"PROT_\")", "PROT_READ|PROT_WRITE|PROT_EXEC|PROT_SEM|0xf0"),
            ("flags(0x40000001, \"MS_RDONLY | MS_NO\")", "MS_RDONLY|0x40000000"),
            ("flags(args.u16, \"enum inode_state_flags_t\")", "I_SYNC"),
            ("flags(args.u8, \"I_\")", "I_NEW|I_LRU_ISOLATING"),
            // The number is computed with as ever, and has no sign.
            ("flags(args.s32, \"O_\") & O_RDWR", "2"),
            ("flags(args.s32, \"O_\") == 10", "true"),
            ("flags(args.s8, \"O_\") + 0", "255"),
            ("flags(args.s8, \"O_\") < 0", "false"),
            ("!flags(args.s64, \"O_\")", "true"),
            ("flags(args.s32 / args.s64, \"O_\")", "absent"),
            ("(s8)flags(args.s8, \"O_\")", "-1"),
            ("args.u8 ? flags(args.u8, \"PROT_\") : flags(args.u8, \"PROT_\")", "PROT_READ|PROT_EXEC"),
            ("args.u8 ? flags(args.u8, \"PROT_\") : 1", "5"),
        ],
    );
}
