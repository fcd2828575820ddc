//! Reads that fail are counted: each that met memory which is not there, and none that met null.

use super::*;
use porthole::lower::Counter;
use porthole_tests::machine::{Memory, Space};

const SWITCH: &str = "rawtracepoint:sched_switch";
const OPENAT: &str = "tracepoint:syscalls:sys_enter_openat";
/// Nothing is there, in no memory.
const NOWHERE: u64 = 0xffff_dead_0000_0000;

/// A machine whose `prev` has, among others, a parent that is null, and whose `next` one that is nowhere.
struct Scene {
    world: Rc<World>,
    tasks: [u64; 2],
}

impl Scene {
    fn new() -> Scene {
        let mut memory = Memory::default();
        let mut task = |parent: u64, mm: u64| {
            let members: [(&str, &[u8]); 3] =
                [("pid", &[93]), ("real_parent", &parent.to_le_bytes()), ("mm", &mm.to_le_bytes())];
            memory.add(Space::Kernel, &structure("task_struct", &members))
        };
        let orphan = task(0, NOWHERE);
        let tasks = [task(orphan, 0), task(NOWHERE, 0)];
        Scene { world: Rc::new(World { task: tasks[0], memory, ..World::new() }), tasks }
    }

    /// How many faults a declaration's program counts, and whether its hit is emitted.
    fn faults(&self, declaration: &porthole::declare::Declaration, context: &[u64]) -> (u64, bool) {
        let plan = plan(declaration, &facts::recorded()).unwrap_or_else(|e| panic!("{e}"));
        let mut machine = Machine::new(&plan).unwrap();
        let context: Vec<u8> = context.iter().flat_map(|word| word.to_le_bytes()).collect();
        let outcome = machine.run(0, &context, &self.world);
        let count = |counter| outcome.counter(counter);
        assert_eq!(count(Counter::Hits), 1);
        assert_eq!(count(Counter::Filtered) + count(Counter::Emitted), 1);
        (count(Counter::Faults), count(Counter::Emitted) == 1)
    }
}

#[test]
fn faults_are_counted_and_nulls_are_not() {
    let scene = Scene::new();
    let [prev, next] = scene.tasks;
    for (attach, expression, faults) in [
        (SWITCH, "args.prev.pid", 0),
        (SWITCH, "args.prev.real_parent.pid", 0),
        // Null: at the first step, at the last, and on the way.
        (SWITCH, "args.prev.mm.total_vm", 0),
        (SWITCH, "args.prev.real_parent.real_parent.pid", 0),
        (SWITCH, "args.prev.real_parent.real_parent.real_parent.pid", 0),
        (SWITCH, "args.prev.real_parent.real_parent.comm", 0),
        (SWITCH, "str((char *)args.prev.real_parent.real_parent)", 0),
        (SWITCH, "str((char *)&args.prev.real_parent.real_parent.comm)", 0),
        (SWITCH, "args.prev.real_parent.real_parent.comm[cpu]", 0),
        (SWITCH, "*(int *)&args.prev.real_parent.real_parent.pid", 0),
        (SWITCH, "container_of(args.prev.real_parent.real_parent, struct task_struct, se).pid", 0),
        (SWITCH, "((struct task_struct *)0).pid", 0),
        (SWITCH, "((struct task_struct *)(nsecs - nsecs)).pid", 0),
        (SWITCH, "str((char *)(nsecs - nsecs))", 0),
        (SWITCH, "(args.preempt ? args.prev : args.prev.real_parent.real_parent).pid", 0),
        (SWITCH, "1 / (args.prev.pid - 93)", 0),
        // Memory that is not there.
        (SWITCH, "args.next.real_parent.pid", 1),
        (SWITCH, "args.next.real_parent.real_parent.pid", 1),
        (SWITCH, "args.next.real_parent.comm", 1),
        (SWITCH, "args.prev.real_parent.mm.total_vm", 1),
        (SWITCH, "str((char *)args.next.real_parent)", 1),
        (SWITCH, "args.next.real_parent.comm[cpu]", 1),
        (SWITCH, "args.next.real_parent.comm == \"x\"", 1),
        (SWITCH, "((struct task_struct *)8).pid", 1),
        (SWITCH, "((struct task_struct *)(nsecs - 1)).pid", 1),
        (SWITCH, "*(int *)&args.next.real_parent.pid", 1),
        (SWITCH, "(char __user *)args.next.real_parent == 0 || *(char __user *)args.next.real_parent", 1),
        (OPENAT, "str(args.filename)", 1),
        (OPENAT, "args.filename[3]", 1),
        (OPENAT, "starts_with(str(args.filename), \"/\")", 1),
    ] {
        let context: Vec<u64> = match attach {
            SWITCH => vec![0, prev, next, 1],
            _ => vec![0, 0, 0, NOWHERE, 0, 0],
        };
        let seen = scene.faults(&declaration::of_fields(attach, [("f", expression)]), &context);
        assert_eq!(seen, (faults, true), "{expression}");
    }
    let null = [0; 6];
    for expression in ["str(args.filename)", "args.filename[3]", "str(args.filename) == \"/\""] {
        let seen = scene.faults(&declaration::of_fields(OPENAT, [("f", expression)]), &null);
        assert_eq!(seen, (0, true), "{expression} of null");
    }
}

/// Each of them, and also where the hit is filtered for it.
#[test]
fn every_fault_of_a_program_counts() {
    let scene = Scene::new();
    let context = [0, scene.tasks[0], scene.tasks[1], 1];
    let of = |body: &str| {
        let text = format!("probe p\nattach {SWITCH}\n{body}");
        scene.faults(&declaration::parse(&text).unwrap(), &context)
    };
    let parent = "args.next.real_parent";
    assert_eq!(of(&format!("when {parent}.pid == 1\nemit e\n")), (1, false));
    assert_eq!(of(&format!("when {parent}.pid == 1 || true\nemit e\n")), (1, false));
    assert_eq!(of(&format!("when true || {parent}.pid == 1\nemit e\n  f = {parent}.tgid\n")), (1, true));
    assert_eq!(of(&format!("bind b = {parent}.pid\nemit e\n  f# = b + # × 5\n")), (1, true));
    assert_eq!(of(&format!("bind b = {parent}.comm\nemit e\n  f# = {parent}.pid × 5\n")), (6, true));
    assert_eq!(
        of("bind b = args.prev.real_parent.real_parent\nbind c = b.pid\nemit e\n  f = str((char *)b)\n"),
        (0, true)
    );
}
