//! Texts: where they come from, how long they may be, what is told of those that were longer, and how they are
//! compared.

use super::*;
use porthole::plan::layout;
use porthole_tests::machine::{Memory, Space};

/// Values at the made tracepoint, whose `s` points to these bytes of the kernel's. The 0 at the end of a text is the
/// caller's to add.
fn of_bytes(bytes: &[u8], expressions: &[&str]) -> Vec<Value> {
    let mut memory = Memory::default();
    let mut record = vec![0; facts::RECORD];
    set(&mut record, "s", memory.add(Space::Kernel, bytes) as i64);
    evaluate(&FACTS, MADE, expressions, &record, &Rc::new(World { memory, ..World::new() }))
}

fn text(bytes: impl AsRef<[u8]>) -> Value {
    Value::Text { bytes: bytes.as_ref().to_vec(), cut: false }
}

fn cut(bytes: impl AsRef<[u8]>) -> Value {
    Value::Text { bytes: bytes.as_ref().to_vec(), cut: true }
}

/// A text of so many bytes, no two neighbours the same, with its 0.
fn long(length: usize) -> Vec<u8> {
    (0..length).map(|i| b'a' + (i % 26) as u8).chain([0]).collect()
}

#[test]
fn a_text_ends_at_its_first_zero_byte() {
    for bytes in
        [&b""[..], b"x", b"/etc/passwd", b"seven..", b"eight...", b"\xff\xfe\x80", b"\n\t\x1b", "größe".as_bytes()]
    {
        let behind = [bytes, b"\0behind\0"].concat();
        assert_eq!(of_bytes(&behind, &["str(args.s)", "str(args.s, 100)"]), [text(bytes), text(bytes)]);
    }
}

#[test]
fn a_longer_text_is_cut_and_says_so() {
    for (length, most) in
        [(256, 256), (257, 256), (5000, 256), (3, 3), (4, 3), (1, 1), (2, 1), (4096, 4096), (4097, 4096)]
    {
        let bytes = long(length);
        let expression = if most == 256 { "str(args.s)".to_owned() } else { format!("str(args.s, {most})") };
        let wanted = if length > most { cut(&bytes[..most]) } else { text(&bytes[..length]) };
        assert_eq!(of_bytes(&bytes, &[&expression]), [wanted], "{length} bytes, {expression}");
    }
}

#[test]
fn texts_are_searched() {
    let cases = [
        ("abc", "abc"),
        ("abc", ""),
        ("", ""),
        ("", "a"),
        ("abc", "ab"),
        ("abc", "bc"),
        ("abc", "b"),
        ("abc", "abcd"),
        ("aab", "ab"),
        ("/usr/lib/x86_64/libc.so.6", "/usr/lib/"),
        ("/usr/lib/x86_64/libc.so.6", ".so.6"),
        ("/usr/lib/x86_64/libc.so.6", "x86_64"),
        ("/usr/lib/x86_64/libc.so.6", "x86-64"),
        ("mississippi", "issip"),
        ("mississippi", "ppi"),
        ("mississippi", "issis"),
        ("\u{ff}\u{fe}", "\u{fe}"),
    ];
    for (whole, part) in cases {
        let quoted = part.bytes().map(|b| format!("\\x{b:02x}")).collect::<String>();
        let bytes = [whole.as_bytes(), b"\0ab\0"].concat();
        for read in ["str(args.s)", "str(args.s, 100)", "(args.b ? str(args.s, 99) : str(args.s))"] {
            let expressions = [
                format!("starts_with({read}, \"{quoted}\")"),
                format!("ends_with({read}, \"{quoted}\")"),
                format!("contains({read}, \"{quoted}\")"),
                format!("{read} in (\"no\", \"{quoted}\", \"neither\")"),
            ];
            let expressions = expressions.each_ref().map(String::as_str);
            let wanted = [whole.starts_with(part), whole.ends_with(part), whole.contains(part), whole == part]
                .map(Value::Boolean);
            assert_eq!(of_bytes(&bytes, &expressions), wanted, "{whole} {part} {read}");
        }
    }
    // What was cut is searched for in what is left.
    let cut = [
        "contains(str(args.s, 4), \"def\")",
        "ends_with(str(args.s, 4), \"cd\")",
        "starts_with(str(args.s, 4), \"abcde\")",
    ];
    assert_eq!(of_bytes(b"abcdef\0", &cut), [false, true, false].map(Value::Boolean));
    let of_comm = [
        "comm in (\"dog\", \"cat\")",
        "comm in (\"ca\", \"cats\")",
        "starts_with(comm, \"ca\")",
        "starts_with(comm, \"at\")",
        "ends_with(comm, \"at\")",
        "contains(comm, \"a\")",
        "contains(comm, \"o\")",
        "contains(\"abc\", \"b\")",
        "\"a\" in (\"b\")",
    ];
    let wanted = [true, false, true, false, true, true, false, true, false].map(Value::Boolean);
    assert_eq!(of_bytes(b"", &of_comm), wanted);
}

#[test]
fn user_memory_and_kernel_memory_are_apart() {
    for (space, at_call, at_made) in
        [(Space::User, text("here"), Value::Absent), (Space::Kernel, Value::Absent, text("here"))]
    {
        let mut memory = Memory::default();
        let address = memory.add(space, b"here\0");
        let world = Rc::new(World { memory, ..World::new() });
        let (mut call, mut made) = (vec![0; 64], vec![0; facts::RECORD]);
        put(&mut call, facts::ARGUMENTS[0].offset, &address.to_le_bytes());
        set(&mut made, "s", address as i64);
        assert_eq!(evaluate(&FACTS, CALL, &["str(args.s)"], &call, &world), [at_call], "{space:?}");
        assert_eq!(evaluate(&FACTS, MADE, &["str(args.s)"], &made, &world), [at_made], "{space:?}");
    }
}

#[test]
fn what_cannot_be_read_is_absent() {
    let expressions = ["str(args.s)", "str(args.s) == \"\"", "str(args.s) != \"\"", "pid ? str(args.s) : \"\""];
    for pointer in [0, 8, -1] {
        let mut record = vec![0; facts::RECORD];
        set(&mut record, "s", pointer);
        let values = evaluate(&FACTS, MADE, &expressions, &record, &Rc::new(World::new()));
        assert_eq!(values, [const { Value::Absent }; 4], "{pointer}");
    }
    // Memory ends before the text does; what was asked for ends sooner.
    let values = of_bytes(b"abcdef", &["str(args.s)", "str(args.s, 5)", "str(args.s, 4)"]);
    assert_eq!(values, [Value::Absent, Value::Absent, cut("abcd")]);
}

#[test]
fn arrays_may_be_full() {
    let table = [
        (&b"\x00123456789"[..], text("")),
        (b"nine.....\0", text("nine.....")),
        (b"ten bytes!", text("ten bytes!")),
        (b"a\0leftover", text("a")),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", text([0xff; 10])),
    ];
    for (bytes, wanted) in table {
        let mut record = vec![0; facts::RECORD];
        put(&mut record, 56, &bytes[..10]);
        put(&mut record, 66, b"XX");
        put(&mut record, 80, &[b'w'; 32]);
        let values = evaluate(&FACTS, MADE, &["args.name", "args.wide"], &record, &Rc::new(World::new()));
        assert_eq!(values, [wanted, text([b'w'; 32])]);
    }
}

#[test]
fn texts_of_variable_length_lie_in_the_record() {
    for (bytes, wanted) in [
        (&b"\0"[..], text("")),
        (b"/usr/bin/cat\0", text("/usr/bin/cat")),
        (&long(256), text(&long(256)[..256])),
        (&long(257), cut(&long(257)[..256])),
    ] {
        let mut record = vec![0; facts::RECORD];
        let at = (record.len() + 3) as u32;
        record.extend(b"...");
        record.extend(bytes);
        let length = (bytes.len() as u32) << 16;
        put(&mut record, 68, &(at | length).to_le_bytes());
        // From behind the field itself, which lies at 72.
        put(&mut record, 72, &((at - 76) | length).to_le_bytes());
        let values = evaluate(&FACTS, MADE, &["args.located", "args.relative"], &record, &Rc::new(World::new()));
        assert_eq!(values, [wanted.clone(), wanted]);
    }
}

#[test]
fn names_of_threads() {
    for name in ["", "a", "kworker", "kworker0", "kworker01", "exactly-15-byte"] {
        let world = Rc::new(World { comm: name, ..World::new() });
        let (same, empty) = (format!("comm == \"{name}\""), name.is_empty());
        let expressions = ["comm", same.as_str(), "comm != \"\"", "comm == \"sixteen bytes!!!\"", "comm == comm"];
        let values = evaluate(&FACTS, MADE, &expressions, &[0; facts::RECORD], &world);
        let wanted = [true, !empty, false, true].map(Value::Boolean);
        assert_eq!(values[0], text(name));
        assert_eq!(values[1..], wanted, "{name}");
        // Beside a long text a record is put together elsewhere.
        let values = evaluate(&FACTS, MADE, &["comm", "\"a text\"", "comm"], &[0; facts::RECORD], &world);
        assert_eq!(values, [text(name), text("a text"), text(name)]);
    }
}

#[test]
fn literals_of_every_length() {
    for length in 0..=17 {
        for byte in ["z", "\\xff", "\\x80"] {
            let literal = format!("\"{}\"", byte.repeat(length));
            let bytes = vec![if byte == "z" { b'z' } else { u8::from_str_radix(&byte[2..], 16).unwrap() }; length];
            let mut other = bytes.clone();
            if let Some(last) = other.last_mut() {
                *last ^= 1;
            }
            let same = format!("str(args.s) == {literal}");
            let values = of_bytes(&[&bytes[..], &[0]].concat(), &[&literal, &same]);
            assert_eq!(values, [text(&bytes), Value::Boolean(true)], "{literal}");
            let values = of_bytes(&[&other[..], &[0]].concat(), &[&same]);
            assert_eq!(values, [Value::Boolean(length == 0)], "{literal}");
        }
    }
}

#[test]
fn comparison() {
    for (bytes, expression, wanted) in [
        ("abcdef", "str(args.s) == \"abcdef\"", true),
        ("abcdef", "\"abcdef\" == str(args.s)", true),
        ("abcdef", "str(args.s) != \"abcdef\"", false),
        ("abcdef", "str(args.s) == \"abcde\"", false),
        ("abcde", "str(args.s) == \"abcdef\"", false),
        ("abcdef", "str(args.s) == \"\"", false),
        ("", "str(args.s) == \"\"", true),
        // What was cut is compared by what is left of it.
        ("abcdef", "str(args.s, 3) == \"abc\"", true),
        ("abcdef", "str(args.s, 3) == \"abcdef\"", false),
        ("abcdef", "str(args.s, 3) == str(args.s, 4)", false),
        ("abc", "str(args.s, 3) == str(args.s, 4)", true),
        ("abcdef", "str(args.s) == str(args.s)", true),
        ("abcdef", "str(args.s) != str(args.s)", false),
        ("cat", "str(args.s) == comm", true),
        ("cats", "comm == str(args.s)", false),
        ("ca", "comm == str(args.s)", false),
        ("cab", "comm == str(args.s)", false),
        ("", "args.name == str(args.s)", true),
        ("", "args.name == args.wide", true),
        ("abc", "(pid ? str(args.s) : \"x\") == \"abc\"", true),
        ("abc", "(pid ? \"x\" : str(args.s)) == (pid ? \"x\" : \"y\")", true),
        ("abc", "\"abc\" == \"abc\"", true),
        ("abc", "\"abc\" == \"abd\"", false),
        ("abc", "str(args.s) == \"abc\" && comm == \"cat\" && str(args.s) != comm", true),
    ] {
        assert_eq!(
            of_bytes(format!("{bytes}\0").as_bytes(), &[expression]),
            [Value::Boolean(wanted)],
            "{bytes}: {expression}"
        );
    }
}

#[test]
fn long_texts_are_compared_to_their_last_byte() {
    let bytes = long(3900);
    let literal = String::from_utf8(bytes[..3900].to_vec()).unwrap();
    let (with_literal, with_itself) =
        (format!("str(args.s, 4096) == \"{literal}\""), "str(args.s, 4096) == str(args.p, 4096)");
    for (changed, wanted) in [(None, true), (Some(3899), false), (Some(0), false), (Some(2047), false)] {
        let mut other = bytes.clone();
        if let Some(at) = changed {
            other[at] = b'!';
        }
        let mut memory = Memory::default();
        let mut record = vec![0; facts::RECORD];
        set(&mut record, "s", memory.add(Space::Kernel, &other) as i64);
        set(&mut record, "p", memory.add(Space::Kernel, &bytes) as i64);
        let world = Rc::new(World { memory, ..World::new() });
        let values = evaluate(&FACTS, MADE, &[&with_literal, with_itself], &record, &world);
        assert_eq!(values, [Value::Boolean(wanted), Value::Boolean(wanted)], "{changed:?}");
    }
}

#[test]
fn a_choice_of_texts() {
    let values = of_bytes(
        b"from memory\0",
        &[
            "pid ? str(args.s) : comm",
            "pid ? comm : str(args.s)",
            "pid == 0 ? \"zero\" : pid == 4711 ? \"right\" : comm",
            "1 ? \"left\" : str(args.s, 4)",
            "0 ? \"left\" : str(args.s, 4)",
            "args.p.pid ? \"left\" : str(args.s, 4)",
        ],
    );
    let wanted = [text("from memory"), text("cat"), text("right"), text("left"), cut("from"), Value::Absent];
    assert_eq!(values, wanted);
}

/// What the event's fields are where the body first binds these names.
fn bound(bindings: &[(&str, &str)], fields: &[&str], bytes: &[u8]) -> Vec<Value> {
    let names: Vec<String> = (0..fields.len()).map(|n| format!("f{n}")).collect();
    let mut declaration = declaration::of_fields(MADE, names.iter().map(String::as_str).zip(fields.iter().copied()));
    let binds = bindings.iter().map(|(name, value)| declaration::bind(name, value));
    declaration.probes[0].body.splice(0..0, binds);
    let mut machine = Machine::new(&plan(&declaration, &FACTS).unwrap()).unwrap();
    let mut memory = Memory::default();
    let mut record = vec![0; facts::RECORD];
    set(&mut record, "s", memory.add(Space::Kernel, bytes) as i64);
    let outcome = machine.run(0, &record, &Rc::new(World { memory, ..World::new() }));
    machine.decode(&outcome.records[0]).into_iter().map(|(_, value)| value).collect()
}

#[test]
fn bound_texts() {
    let values = bound(
        &[("t", "str(args.s, 6)"), ("c", "comm"), ("n", "str(args.p)"), ("u", "t"), ("l", "\"lit\"")],
        &["t", "u", "t == \"abcdef\"", "t == u", "c", "c == \"cat\"", "n", "n == t", "l", "pid ? t : c", "pid ? n : c"],
        b"abcdefgh\0",
    );
    let (yes, six) = (Value::Boolean(true), cut("abcdef"));
    let wanted = [
        six.clone(),
        six.clone(),
        yes.clone(),
        yes.clone(),
        text("cat"),
        yes,
        Value::Absent,
        Value::Absent,
        text("lit"),
        six,
        Value::Absent,
    ];
    assert_eq!(values, wanted);
}

#[test]
fn several_long_texts_in_one_record() {
    let bytes = long(5000);
    let expressions = [
        "str(args.s, 4096)",
        "str(args.p)",
        "str(args.s, 1)",
        "\"\"",
        "str(args.s, 4095)",
        "pid",
        "str(args.s, 3001)",
        "comm",
        "str(args.s)",
    ];
    let wanted = [
        cut(&bytes[..4096]),
        Value::Absent,
        cut("a"),
        text(""),
        cut(&bytes[..4095]),
        Value::Unsigned(4711),
        cut(&bytes[..3001]),
        text("cat"),
        cut(&bytes[..256]),
    ];
    assert_eq!(of_bytes(&bytes, &expressions), wanted);
}

#[test]
fn a_record_as_large_as_it_can_be() {
    let bytes = long(5000);
    let of_length = |last: u32| {
        let last = format!("str(args.s, {last})");
        let most = "str(args.s, 4096)";
        declaration::of_fields(MADE, [("a", most), ("b", most), ("c", most), ("d", most), ("e", &last)])
    };
    // A header of 24 bytes and five slots of 4, aligned to 8; then the texts.
    let last = layout::MAX_RECORD - 48 - 4 * 4096;
    let refusal = plan(&of_length(last + 1), &FACTS).unwrap_err().to_string();
    assert!(refusal.contains("20488 bytes, and 20480 is the most"), "{refusal}");
    let values = of_bytes(
        &bytes,
        &["str(args.s, 4096)"; 4].into_iter().chain([format!("str(args.s, {last})").as_str()]).collect::<Vec<_>>(),
    );
    assert_eq!(values[3..], [cut(&bytes[..4096]), cut(&bytes[..last as usize])]);
}
