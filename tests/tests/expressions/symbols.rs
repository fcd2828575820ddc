//! Addresses that have names, and call stacks.

use super::*;

fn one(expression: &str, world: World) -> String {
    let mut record = record();
    set(&mut record, "u64", 0x1234);
    evaluate(&FACTS, MADE, &[expression], &record, &Rc::new(world))[0].to_string()
}

fn record() -> Vec<u8> {
    vec![0; facts::RECORD]
}

/// A stack of so many calls.
fn deep(calls: usize) -> &'static [u64] {
    (0..calls as u64).map(|n| 0xffff_ffff_8100_0000 + n).collect::<Vec<_>>().leak()
}

#[test]
fn addresses_are_sent_as_they_are() {
    for (expression, value) in [
        ("ksym(args.u64)", "0x1234"),
        ("ksym(args.p)", "0x0"),
        ("ksym(task)", "0x0"),
        ("ksym(args.p.mm.exe_file)", "absent"),
        ("usym(args.u64)", "0x1234 of 4711"),
        ("usym(args.u64 / (args.u64 - 0x1234))", "absent"),
        ("args.b ? ksym(args.u64) : ksym(args.u64 + 1)", "0x1235"),
    ] {
        assert_eq!(one(expression, World::new()), value, "{expression}");
    }
}

#[test]
fn stacks_are_sent_whole() {
    let all = "0xffffffff81000112 < 0xffffffff81000207 < 0xffffffff81000300";
    for (expression, value) in [
        ("kstack", all),
        ("kstack()", all),
        ("kstack(3)", all),
        ("kstack(2)", "0xffffffff81000112 < 0xffffffff81000207 < …"),
        ("kstack(1)", "0xffffffff81000112 < …"),
        ("ustack", "0x56001010 < 0x56002020 of 4711"),
        ("ustack(1)", "0x56001010 < … of 4711"),
        ("args.b ? kstack(1) : kstack(1)", "0xffffffff81000112 < …"),
    ] {
        assert_eq!(one(expression, World::new()), value, "{expression}");
    }
    assert_eq!(one("ustack", World { calls_of_process: None, ..World::new() }), "absent");
    assert_eq!(one("kstack", World { calls: &[], ..World::new() }), "");
}

/// The kernel collects 127 at most, and does not say whether there were more.
#[test]
fn the_deepest_stacks_are_taken_for_cut() {
    for (calls, frames, cut) in
        [(126, 127, false), (127, 127, true), (200, 127, true), (126, 126, false), (127, 126, true)]
    {
        let world = World { calls: deep(calls), ..World::new() };
        let values = evaluate(&FACTS, MADE, &[&format!("kstack({frames})")], &record(), &Rc::new(world));
        let Value::Stack { addresses, cut: told, .. } = &values[0] else { panic!("{values:?}") };
        assert_eq!((&addresses[..], *told), (&deep(calls)[..calls.min(frames)], cut), "{frames} of {calls}");
    }
}

#[test]
fn stacks_stand_beside_texts_and_are_bound() {
    let text = format!(
        "probe p\nattach {MADE}\nbind s = kstack(2)\nemit e\n  a = comm\n  b = s\n  c = ustack\n  d = usym(7)\n  e = comm\n  f = s\n"
    );
    let plan = plan(&declaration::parse(&text).unwrap(), &FACTS).unwrap_or_else(|e| panic!("{e}"));
    let mut machine = Machine::new(&plan).unwrap();
    let outcome = machine.run(0, &record(), &Rc::new(World::new()));
    let values = machine.decode(&outcome.records[0]).into_iter().map(|(_, value)| value.to_string());
    let stack = "0xffffffff81000112 < 0xffffffff81000207 < …";
    let user = "0x56001010 < 0x56002020 of 4711";
    assert_eq!(values.collect::<Vec<_>>(), ["\"cat\"", stack, user, "0x7 of 4711", "\"cat\"", stack]);
}
