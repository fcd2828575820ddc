//! From a struct to its declaration, and from records to rows: the way of a plugin's data, without host and kernel.

use porthole_guest::bindings::porthole::trace::declarations::{Binding, Event as EmittedEvent, Field, Probe, Step};
use porthole_guest::prelude::*;
use porthole_guest::private::Runtime;
use porthole_guest::testing::{FieldKind, OwnedValue, Run, Sent, declare, encode, lay_out};

#[derive(Event)]
#[probe(
    attach = ["tracepoint:syscalls:sys_enter_openat", "tracepoint:syscalls:sys_enter_open"],
    when = "uid != 0",
    bind(file = "args.filename", flags = "args.flags"),
    when = "flags & 64",
)]
#[probe(name = "creat", attach = "tracepoint:syscalls:sys_enter_creat", bind(file = "args.pathname"))]
#[event(name = "open")]
struct OpenFile<'a> {
    pid: u32,
    comm: Comm,
    #[expr("str(file)")]
    path: Option<Text<'a>>,
    #[expr("mode")]
    r#type: i64,
}

#[derive(Event)]
#[probe(attach = "tracepoint:syscalls:sys_exit_openat")]
struct Exit {
    #[expr("args.ret")]
    result: i64,
    copied: String,
    raw: Vec<u8>,
    failed: bool,
}

#[derive(Event)]
enum Seen<'a> {
    Open(OpenFile<'a>),
    Exit(Exit),
}

/// Sends each event as `how` says.
#[derive(Default)]
struct Opens {
    how: String,
}

impl Plugin for Opens {
    type Event<'a> = Seen<'a>;

    fn declare(&mut self, args: &mut Args, declaration: &mut Declaration) -> Result<(), String> {
        self.how = args.value("--how")?.unwrap_or_default();
        if let Some(pid) = args.value::<u32>("--pid")? {
            declaration.when(&format!("pid == {pid}"));
        }
        if let Some(comm) = args.value::<String>("--comm")? {
            declaration.probe("creat").ok_or("no such probe")?.when(&format!("comm == {}", quote(&comm)));
        }
        declaration.tick(100);
        Ok(())
    }

    fn on_batch<'a>(&mut self, batch: &Batch<'a, Self>, out: &mut Output<'a>) -> Result<(), String> {
        match &*self.how {
            "by-time" => batch.for_each_by_time(out, |event, out| out.row(event)),
            "forward-some" => batch.for_each(out, |event, out| match event {
                Seen::Open(open) if open.pid == 0 => {}
                Seen::Open(_) => out.forward(),
                Seen::Exit(_) => out.row(event),
            }),
            _ => batch.for_each(out, |event, out| self.on(event, out)),
        }
        Ok(())
    }

    fn on(&mut self, event: &Seen, out: &mut Output) {
        let cpu = out.cpu();
        match event {
            Seen::Open(open) if open.pid == 13 => out.fail("unlucky"),
            Seen::Open(open) => out.new_row("seen").column("path", open.path).column("cpu", cpu).at(5).send(),
            Seen::Exit(_) => out.log(Level::Info, "exit"),
        }
    }

    fn stop(&mut self, out: &mut Output) {
        assert_eq!(out.time_ns(), 0);
        out.finish();
    }
}

porthole_guest::register!(Opens);

fn field(name: &str, value: &str) -> Field {
    Field { name: name.into(), value: value.into() }
}

fn open_event() -> Step {
    let fields = vec![field("pid", "pid"), field("comm", "comm"), field("path", "str(file)"), field("type", "mode")];
    Step::Emit(EmittedEvent { name: "open".into(), fields })
}

fn bind(name: &str, value: &str) -> Step {
    Step::Bind(Binding { name: name.into(), value: value.into() })
}

#[test]
fn attributes_become_the_declaration() {
    let declaration = declare::<Opens>(&["--pid", "7", "--comm", "a\"b"]).unwrap();
    let open = Probe {
        name: "open_file".into(),
        attach: vec!["tracepoint:syscalls:sys_enter_openat".into(), "tracepoint:syscalls:sys_enter_open".into()],
        body: vec![
            Step::When("pid == 7".into()),
            Step::When("uid != 0".into()),
            bind("file", "args.filename"),
            bind("flags", "args.flags"),
            Step::When("flags & 64".into()),
            open_event(),
        ],
    };
    let creat = Probe {
        name: "creat".into(),
        attach: vec!["tracepoint:syscalls:sys_enter_creat".into()],
        body: vec![
            Step::When(r#"comm == "a\"b""#.into()),
            Step::When("pid == 7".into()),
            bind("file", "args.pathname"),
            open_event(),
        ],
    };
    let exit_fields =
        vec![field("result", "args.ret"), field("copied", "copied"), field("raw", "raw"), field("failed", "failed")];
    let exit = Probe {
        name: "exit".into(),
        attach: vec!["tracepoint:syscalls:sys_exit_openat".into()],
        body: vec![
            Step::When("pid == 7".into()),
            Step::Emit(EmittedEvent { name: "exit".into(), fields: exit_fields }),
        ],
    };
    let probes = vec![open, creat, exit];
    assert_eq!(declaration, Declaration { kfuncs: vec![], maps: vec![], probes, tick: Some(100) });
}

#[test]
fn unknown_arguments_are_refused() {
    assert_eq!(
        declare::<Opens>(&["--pod", "7"]).unwrap_err(),
        "unknown argument '--pod': this plugin knows --how, --pid, --comm"
    );
}

#[test]
fn events_come_in_the_order_of_time_where_asked() {
    let mut run = Run::<Opens>::start(&["--how", "by-time"]).unwrap();
    let sent = run
        .batch(|batch| {
            batch.event("open_file", 20, 1, &[("pid", 1u32.into()), ("comm", "sh".into()), ("path", "/a".into())]);
            batch.event(
                "exit",
                10,
                0,
                &[("result", (-2i64).into()), ("copied", (&b"\xff"[..]).into()), ("raw", (&b"x"[..]).into())],
            );
            batch.event("creat", 20, 2, &[("type", i64::MIN.into())]);
        })
        .unwrap();
    let exit = [
        ("result", (-2i64).into()),
        ("copied", "\u{fffd}".into()),
        ("raw", (&b"x"[..]).into()),
        ("failed", false.into()),
    ];
    let absent = Value::Absent;
    let first = [("pid", 1u32.into()), ("comm", "sh".into()), ("path", "/a".into()), ("type", 0i64.into())];
    let second = [("pid", 0u32.into()), ("comm", "".into()), ("path", absent), ("type", i64::MIN.into())];
    assert_eq!(
        sent,
        [Sent::row("exit", Some(10), &exit), Sent::row("open", Some(20), &first), Sent::row("open", Some(20), &second)]
    );
}

#[test]
fn rows_of_other_columns_logs_and_the_end() {
    let mut run = Run::<Opens>::start(&[]).unwrap();
    let sent = run
        .batch(|batch| {
            batch.event("open_file", 1, 3, &[("path", (&b"\xff"[..]).into())]);
            batch.event("exit", 2, 0, &[]);
            batch.event("creat", 3, 0, &[("pid", 13u32.into())]);
        })
        .unwrap();
    let Sent::Row { name, time_ns: Some(5), columns } = &sent[0] else { panic!("{:?}", sent[0]) };
    assert_eq!(name, "seen");
    let path = ("path".to_owned(), OwnedValue::Bytes(vec![0xff]));
    assert_eq!(*columns, [path, ("cpu".to_owned(), OwnedValue::Unsigned(3))]);
    assert_eq!(sent[1], Sent::Log(Level::Info, "exit".into()));
    assert_eq!(sent[2], Sent::Finish(Err("unlucky".into())));
    assert_eq!(run.stop(), [Sent::Finish(Ok(()))]);
}

#[test]
fn forwarded_records_go_in_one_call_and_in_order() {
    let mut run = Run::<Opens>::start(&["--how", "forward-some"]).unwrap();
    let schema = lay_out(
        0,
        "open_file",
        "open",
        &[
            ("pid", FieldKind::Unsigned(4)),
            ("comm", FieldKind::Text),
            ("path", FieldKind::Text),
            ("type", FieldKind::Signed(8)),
        ],
    );
    let open = |time, pid: u32| encode(&schema, time, 0, &[("pid", pid.into()), ("path", "/some/path".into())]);
    let mut send = |pids: &[u32]| {
        run.batch(|batch| {
            for (time, &pid) in (1..).zip(pids) {
                if pid == 99 {
                    batch.event("exit", time, 0, &[]);
                } else {
                    batch.event("open_file", time, 0, &[("pid", pid.into()), ("path", "/some/path".into())]);
                }
            }
        })
        .unwrap()
    };
    assert_eq!(send(&[1, 2, 0, 3]), [Sent::Forwarded([open(1, 1), open(2, 2), open(4, 3)].concat())]);
    assert_eq!(send(&[0, 0]), []);
    assert_eq!(send(&[0, 5, 6]), [Sent::Forwarded([open(2, 5), open(3, 6)].concat())]);

    let sent = send(&[1, 0, 2, 99, 3]);
    assert_eq!(sent[0], Sent::Forwarded([open(1, 1), open(3, 2)].concat()));
    assert!(matches!(&sent[1], Sent::Row { name, .. } if name == "exit"));
    assert_eq!(sent[2..], [Sent::Forwarded(open(5, 3))]);
}

#[test]
fn a_schema_that_does_not_fit_is_refused_with_all_faults() {
    let schema = lay_out(
        0,
        "exit",
        "exit",
        &[("result", FieldKind::Unsigned(8)), ("copied", FieldKind::Bytes), ("failed", FieldKind::Signed(4))],
    );
    let other = lay_out(1, "strange", "strange", &[]);
    let error = Runtime::<Opens>::default().start(vec![schema, other]).unwrap_err();
    assert_eq!(
        error.lines().collect::<Vec<_>>(),
        [
            "event `exit` of probe `exit`, field `result`: the kernel gives u64, the struct wants i64; u64 holds it",
            "event `exit` of probe `exit`, field `copied`: the kernel gives bytes, the struct wants text; &'a [u8] holds it",
            "event `exit` of probe `exit`, field `raw`: the schema has no such field",
            "event `exit` of probe `exit`, field `failed`: the kernel gives i32, the struct wants bool; i32 holds it",
            "event `strange` of probe `strange`: the plugin has no struct for it",
        ]
    );
}

/// The kernel's types may be narrower than the struct's, and the fields in another order.
#[test]
fn narrower_integers_are_widened() {
    #[derive(Event)]
    #[probe(attach = "rawtracepoint:x")]
    struct Wide {
        a: i64,
        b: u32,
        c: i32,
        d: u64,
    }

    #[derive(Default)]
    struct Widen;

    impl Plugin for Widen {
        type Event<'a> = Wide;

        fn on(&mut self, event: &Wide, out: &mut Output) {
            out.row(event);
        }
    }

    let schema = lay_out(
        2,
        "wide",
        "wide",
        &[
            ("d", FieldKind::Boolean),
            ("c", FieldKind::Unsigned(2)),
            ("b", FieldKind::Unsigned(1)),
            ("a", FieldKind::Signed(4)),
        ],
    );
    let mut runtime = Runtime::<Widen>::default();
    runtime.start(vec![schema.clone()]).unwrap();
    let values = [("a", (-5i64).into()), ("b", 200u32.into()), ("c", 40_000u32.into()), ("d", true.into())];
    let records = encode(&schema, 1, 0, &values);
    let mut batch = porthole_guest::bindings::porthole::trace::events::Batch { records, count: 1, lost: 0 };
    runtime.on_events(&batch).unwrap();

    // A batch that is not what it says is an error, not a row of nonsense.
    batch.count = 2;
    assert_eq!(runtime.on_events(&batch).unwrap_err(), "the batch holds another number of records than it says");
    batch.records.push(0);
    assert_eq!(runtime.on_events(&batch).unwrap_err(), "the batch does not end with a whole record");
    batch.records[4] = 9;
    assert_eq!(runtime.on_events(&batch).unwrap_err(), "a record of the batch has an unknown schema");

    let sent = Run::<Widen>::start(&[]).unwrap().stop();
    assert_eq!(sent, []);
}

/// Addresses and bytes, present and absent.
#[test]
fn addresses_and_bytes_are_decoded() {
    #[derive(Event)]
    #[probe(attach = "rawtracepoint:x")]
    struct Packet<'a> {
        #[expr("flags(args.flags, \"MSG_\")")]
        flags: u64,
        #[expr("mac(args.from)")]
        card: Mac,
        #[expr("ntop(args.source)")]
        from: IpAddr,
        #[expr("ntop(args.target)")]
        to: Option<IpAddr>,
        #[expr("buf(args.data, args.length)")]
        data: Bytes<'a>,
        #[expr("buf(args.data, 4)")]
        raw: &'a [u8],
    }

    #[derive(Default)]
    struct Packets;

    impl Plugin for Packets {
        type Event<'a> = Packet<'a>;

        fn on(&mut self, event: &Packet, out: &mut Output) {
            assert_eq!(event.data.is_cut(), event.data.as_bytes().len() == 3);
            out.row(event);
        }
    }

    let schema = lay_out(
        0,
        "packet",
        "packet",
        &[
            ("flags", FieldKind::Flags(Vec::new())),
            ("card", FieldKind::HardwareAddress),
            ("from", FieldKind::Address),
            ("to", FieldKind::Address),
            ("data", FieldKind::Bytes),
            ("raw", FieldKind::Bytes),
        ],
    );
    let (v4, v6): (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), [0x2001, 0xdb8, 0, 0, 0, 0, 0, 9].into());
    let values = [
        ("flags", 0x4040u64.into()),
        ("card", Mac([0x52, 0x54, 0, 1, 2, 0xff]).into()),
        ("from", v4.into()),
        ("to", v6.into()),
        ("data", Value::Bytes(b"GET\0")),
        ("raw", Value::Bytes(b"\x7fELF")),
    ];
    let mut first = encode(&schema, 1, 0, &values);
    assert_eq!(schema.fields.iter().map(|f| f.offset).collect::<Vec<_>>(), [24, 32, 40, 60, 80, 84]);
    let mut run = Run::<Packets>::start(&[]).unwrap();
    let sent = run.batch(|batch| batch.event("packet", 1, 0, &values)).unwrap();
    assert_eq!(sent, [Sent::row("packet", Some(1), &values)]);

    // What was cut, and what is absent; the records are those of the kernel's own layout.
    first[82..84].copy_from_slice(&(3u16 | 0x8000).to_le_bytes());
    let records = [first, encode(&schema, 2, 0, &[])].concat();
    let mut runtime = Runtime::<Packets>::default();
    runtime.start(vec![schema]).unwrap();
    runtime
        .on_events(&porthole_guest::bindings::porthole::trace::events::Batch { records, count: 2, lost: 0 })
        .unwrap();
    let absent: IpAddr = [0, 0, 0, 0].into();
    let none = [
        ("flags", 0u64.into()),
        ("card", Mac::default().into()),
        ("from", absent.into()),
        ("to", Value::Absent),
        ("data", Value::Bytes(b"")),
        ("raw", Value::Bytes(b"")),
    ];
    let mut shorter = values;
    shorter[4].1 = Value::Bytes(b"GET");
    // What any plugin of this thread has sent is given with the next batch.
    let sent = run.batch(|_| {}).unwrap();
    assert_eq!(sent, [Sent::row("packet", Some(1), &shorter), Sent::row("packet", Some(2), &none)]);
}
