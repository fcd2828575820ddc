//! docs/expressions.md: each row of its examples, its limits, and its order of operators.

use porthole::codegen::MAX_STACK;
use porthole::lower::{MAX_ALL_OPERATIONS, MAX_COMPARED, MAX_OPERATIONS, MAX_SCRATCH, STEPS};
use porthole::plan::layout::{MAX_FIELDS, MAX_RECORD};
use porthole::plan::syntax::{self, ExprKind, MAX_HEIGHT, MAX_LENGTH, MAX_NESTING};
use porthole::plan::{
    self, MAX_ATTACH_LENGTH, MAX_ATTACH_POINTS, MAX_COMPARED_NAMES, MAX_NAME, MAX_PROBES, MAX_STEPS, MAX_TEXT, TICK,
    kind_name,
};
use porthole_tests::machine::{Memory, Space};

use super::*;

const PAGE: &str = include_str!("../../../docs/expressions.md");

/// A table's cells, line by line, the first its heading; `\|` is `|`.
type Table = Vec<Vec<String>>;

/// The tables of a part of the page.
fn tables(page: &str) -> Vec<Table> {
    let mut tables: Vec<Table> = vec![Vec::new()];
    for line in page.lines() {
        match line.strip_prefix('|') {
            None => tables.push(Vec::new()),
            Some(rest) if rest.starts_with("---") => {}
            Some(rest) => {
                let cells = rest.trim_end_matches('|').replace("\\|", "\0");
                let cells = cells.split('|').map(|cell| cell.trim().replace('\0', "|")).collect();
                tables.last_mut().unwrap().push(cells);
            }
        }
    }
    tables.retain(|table| !table.is_empty());
    tables
}

/// The part of the page under this heading.
fn section(heading: &str) -> &str {
    let start = PAGE.find(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no part {heading}"));
    PAGE[start + 1..].split("\n## ").next().unwrap()
}

/// What stands between backquotes.
fn code(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// The rows of the tables whose heading is "at `ATTACH`" and then this word, with that attach point.
fn examples(word: &str) -> Vec<(String, Vec<String>)> {
    let of_word = tables(PAGE).into_iter().filter(|table| table[0].get(1).is_some_and(|cell| cell == word));
    let rows = of_word.flat_map(|mut table| {
        let heading = table.remove(0);
        let attach = heading[0].strip_prefix("at `").and_then(|a| a.strip_suffix('`')).unwrap().to_owned();
        table.into_iter().map(move |row| (attach.clone(), row))
    });
    rows.collect()
}

/// The scene that the page tells.
struct Scene {
    facts: KernelFacts,
    world: Rc<World>,
    /// Address of the path that is opened, in the process.
    path: u64,
    /// Of `cat` and of `kworker/3:1`.
    tasks: [u64; 2],
    /// The packet that is dropped.
    packet: u64,
}

impl Scene {
    fn new() -> Scene {
        let mut files = paths::Files::new(Memory::default());
        let root = files.file_system(None);
        let at = files.below(root, &[b"usr", b"bin", b"cat"]);
        let program = files.open(at);
        let mut memory = files.memory;
        let path = memory.add(Space::User, b"/etc/shadow\0");
        let mut object =
            |name, members: &[(&str, &[u8])]| memory.add(Space::Kernel, &structure(name, members)).to_le_bytes();
        let int = |n: i32| n.to_le_bytes();
        let cred = object("cred", &[("uid.val", &int(1000))]);
        let bash = object("task_struct", &[("pid", &int(4242)), ("tgid", &int(4242)), ("comm", b"bash")]);
        let mm = memory.add(Space::Kernel, &memory::address_space(44, program)).to_le_bytes();
        memory::add_variables(&mut memory, 0);
        let mut object =
            |name, members: &[(&str, &[u8])]| memory.add(Space::Kernel, &structure(name, members)).to_le_bytes();
        let cat = object(
            "task_struct",
            &[
                ("pid", &int(4712)),
                ("tgid", &int(4711)),
                ("comm", b"cat"),
                ("real_parent", &bash),
                ("cred", &cred),
                ("mm", &mm),
                ("se.load.weight", &int(1024)),
                ("in_iowait", &[1]),
            ],
        );
        let worker = object("task_struct", &[("pid", &int(93)), ("tgid", &int(93)), ("comm", b"kworker/3:1")]);
        let tasks = [cat, worker].map(u64::from_le_bytes);
        let mut object =
            |name, members: &[(&str, &[u8])]| memory.add(Space::Kernel, &structure(name, members)).to_le_bytes();
        let sock = object(
            "sock",
            &[
                ("__sk_common.skc_family", &[2]),
                ("__sk_common.skc_daddr", &[192, 0, 2, 1]),
                ("__sk_common.skc_rcv_saddr", &[192, 0, 2, 10]),
                ("__sk_common.skc_dport", &443u16.to_be_bytes()),
                ("__sk_common.skc_v6_daddr", &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
            ],
        );
        let device = object("net_device", &[("perm_addr", &[0x52, 0x54, 0, 0x12, 0x34, 0x56])]);
        // What stands before the two addresses of an IPv4 header is left out.
        let header = [&[0; 12][..], &[192, 0, 2, 1], &[192, 0, 2, 10]].concat();
        let data = memory.add(Space::Kernel, &header).to_le_bytes();
        let members = [("len", &int(60)[..]), ("sk", &sock), ("dev", &device), ("data", &data)];
        let packet = memory.add(Space::Kernel, &structure("sk_buff", &members));
        let world = World { nsecs: 3_600_000_000_000, task: tasks[0], memory, ..World::new() };
        Scene { facts: facts::recorded(), world: Rc::new(world), path, tasks, packet }
    }

    /// The context of a program at this attach point.
    fn context(&self, attach: &str) -> Vec<u8> {
        let [cat, worker] = self.tasks;
        match attach {
            "tracepoint:syscalls:sys_enter_openat" => self.record(
                attach,
                &[
                    ("dfd", &(-100i64).to_le_bytes()),
                    ("filename", &self.path.to_le_bytes()),
                    ("flags", &0x80000u64.to_le_bytes()),
                ],
            ),
            "tracepoint:syscalls:sys_exit_openat" => self.record(attach, &[("ret", &(-13i64).to_le_bytes())]),
            "tracepoint:sched:sched_switch" => self.record(
                attach,
                &[
                    ("prev_comm", b"cat"),
                    ("prev_pid", &4712u32.to_le_bytes()),
                    ("prev_prio", &[120]),
                    ("prev_state", &[1]),
                    ("next_comm", b"kworker/3:1"),
                    ("next_pid", &[93]),
                    ("next_prio", &[120]),
                ],
            ),
            "tracepoint:sched:sched_process_exec" => {
                let mut record = self.record(attach, &[]);
                let at = record.len() as u32;
                record.extend(b"/usr/bin/cat\0");
                put(&mut record, 8, &(at | 13 << 16).to_le_bytes());
                record
            }
            "rawtracepoint:kfree_skb" => [self.packet, 0, 2, 0].map(u64::to_le_bytes).concat(),
            "rawtracepoint:sched_switch" => [0, cat, worker, 1].map(u64::to_le_bytes).concat(),
            _ => panic!("the scene has no {attach}"),
        }
    }

    /// A tracepoint's record with these fields, all others 0.
    fn record(&self, attach: &str, fields: &[(&str, &[u8])]) -> Vec<u8> {
        let mut names = attach.split(':').skip(1);
        let format = self.facts.tracepoint(names.next().unwrap(), names.next().unwrap()).unwrap().unwrap();
        let mut record = vec![0; format.fields.iter().map(|f| f.offset + f.size).max().unwrap_or(0) as usize];
        for (name, bytes) in fields {
            let field = format.field(name).unwrap_or_else(|| panic!("{attach} has no {name}"));
            assert!(bytes.len() <= field.size as usize, "{name}");
            put(&mut record, field.offset as usize, bytes);
        }
        record
    }
}

#[test]
fn examples_have_the_values_and_types_that_are_shown() {
    let scene = Scene::new();
    let rows = examples("is");
    assert!(rows.len() >= 80, "{} examples", rows.len());
    for (attach, row) in rows {
        for expression in code(&row[0]) {
            let declaration = declaration::of_fields(&attach, [("f", expression)]);
            let plan = plan(&declaration, &scene.facts).unwrap_or_else(|e| panic!("{e}"));
            let mut machine = Machine::new(&plan).unwrap();
            let outcome = machine.run(0, &scene.context(&attach), &scene.world);
            let (_, value) = machine.decode(&outcome.records[0]).remove(0);
            let kind = kind_name(&plan.schemas[0].fields[0].kind);
            assert_eq!([format!("`{value}`"), kind], row[1..3], "{expression} at {attach}");
        }
    }
}

#[test]
fn what_is_refused_is_refused_with_the_message_that_is_shown() {
    let facts = facts::recorded();
    let rows = examples("refused");
    assert!(rows.len() >= 15, "{} examples", rows.len());
    for (attach, row) in rows {
        let [expression] = code(&row[0])[..] else { panic!("{row:?}") };
        let faults = plan(&declaration::of_fields(&attach, [("f", expression)]), &facts).unwrap_err();
        let [fault] = &faults.0[..] else { panic!("{expression}: {faults}") };
        let help = fault.notes.iter().filter_map(|note| note.strip_prefix("help: "));
        let whole = [fault.message.as_str()].into_iter().chain(help).collect::<Vec<_>>().join("; ");
        assert!(
            row[1] == whole || row[1] == fault.message,
            "{expression}: the page says\n{}\nand it is\n{whole}",
            row[1]
        );
    }
}

#[test]
fn the_declarations_that_are_shown_are_accepted() {
    let facts = facts::recorded();
    let blocks: Vec<&str> =
        PAGE.split("```declaration\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 3);
    for block in blocks {
        // The recorded machine has no C library.
        let declaration = declaration::parse(&block.replace("libc:getenv", "kiosk:open_kiosk")).unwrap();
        plan(&declaration, &facts).unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn the_steps_that_are_shown_run() {
    let scene = Scene::new();
    let (_, block) = section("Steps").split_once("```declaration\n").unwrap();
    let declaration = declaration::parse(block.split("```").next().unwrap()).unwrap();
    let attach = declaration.probes[0].attach[0].clone();
    let mut machine = Machine::new(&plan(&declaration, &scene.facts).unwrap()).unwrap();
    let outcome = machine.run(0, &scene.context(&attach), &scene.world);
    let fields = machine.decode(&outcome.records[0]).into_iter().map(|(name, value)| format!("{name}={value}"));
    assert_eq!(fields.collect::<Vec<_>>(), ["pid=4711", "parent=4242", "path=\"/etc/shadow\""]);
}

#[test]
fn limits_are_those_of_the_compiler() {
    let to = |most: usize| format!("1 to {most}");
    let limits = [
        to(MAX_PROBES),
        to(MAX_ATTACH_POINTS),
        MAX_ATTACH_POINTS.to_string(),
        MAX_COMPARED_NAMES.to_string(),
        MAX_ATTACH_LENGTH.to_string(),
        format!("{} to {}", TICK.start(), TICK.end()),
        MAX_TEXT.to_string(),
        to(MAX_STEPS),
        format!("0 to {MAX_FIELDS}"),
        to(MAX_NAME),
        to(MAX_LENGTH),
        MAX_NESTING.to_string(),
        MAX_HEIGHT.to_string(),
        plan::STR_DEFAULT.to_string(),
        to(plan::STR_MAX as usize),
        plan::PATH_DEFAULT.to_string(),
        to(plan::STR_MAX as usize),
        format!("1 to {STEPS}"),
        to(plan::FRAMES as usize),
        plan::BUF_DEFAULT.to_string(),
        to(plan::BUF_MAX as usize),
        plan::MAX_VALUE_NAMES.to_string(),
        plan::MAX_BEGINNINGS.to_string(),
        plan::MAX_ALL_VALUE_NAMES.to_string(),
        MAX_RECORD.to_string(),
        MAX_SCRATCH.to_string(),
        MAX_COMPARED.to_string(),
        MAX_STACK.to_string(),
        MAX_OPERATIONS.to_string(),
        MAX_ALL_OPERATIONS.to_string(),
    ];
    let told: Vec<String> = tables(section("Limits")).remove(0).into_iter().skip(1).map(|row| row[1].clone()).collect();
    assert_eq!(told, limits);
}

#[test]
fn operators_bind_in_the_order_that_is_shown() {
    let operator = |text: &str| match syntax::parse(text).unwrap().kind {
        ExprKind::Binary { op, .. } => op.text(),
        _ => panic!("{text}"),
    };
    // Behind what stands before or behind a single value, and without `?:` at the end.
    let rows: Table =
        tables(section("Operators")).remove(0).into_iter().skip(3).filter(|row| row[0] != "`?:`").collect();
    let rows: Vec<Vec<&str>> =
        rows.iter().map(|row| code(&row[0]).into_iter().filter(|op| !op.starts_with("in ")).collect()).collect();
    assert_eq!(rows.concat().len(), 18, "{rows:?}");
    for (n, row) in rows.iter().enumerate() {
        for tight in row {
            for loose in rows[n + 1..].concat() {
                assert_eq!(operator(&format!("a {tight} b {loose} c")), loose);
                assert_eq!(operator(&format!("a {loose} b {tight} c")), loose);
                assert!(matches!(
                    syntax::parse(&format!("a {loose} b ? c : d")).unwrap().kind,
                    ExprKind::Conditional { .. }
                ));
            }
            for equal in row {
                assert_eq!(operator(&format!("a {tight} b {equal} c")), *equal, "from left to right");
            }
        }
    }
}
