//! Variables of the kernel: those that there are once, and those that each CPU has.

use super::*;
use porthole::plan::Plan;
use porthole_tests::machine::{Memory, Space};

const SWITCH: &str = "rawtracepoint:sched_switch";
/// CPUs of the recorded kernel.
const CPUS: u64 = 4;
/// Where the recorded kernel's symbols say that per-CPU variables are.
const LINKED: u64 = 0xffff_ffff_8300_0000;
/// A per-CPU pointer.
const COUNTERS: u64 = LINKED + 0x40_000;

/// Where a CPU's variables begin.
fn area(cpu: u64) -> u64 {
    0xffff_8880_3f00_0000 + 0x10_0000 * cpu
}

/// Adds the variables of a kernel: those of each CPU, its first thread, and some numbers. What leads from a thread to
/// the run queues, a `struct cfs_rq`.
pub fn add_variables(memory: &mut Memory, current: u64) -> u64 {
    let mut at = |address, bytes: &[u8]| memory.add_at(Space::Kernel, address, bytes);
    let distances: Vec<u8> = (0..CPUS).flat_map(|cpu| area(cpu).wrapping_sub(LINKED).to_le_bytes()).collect();
    let [all, init_task, jiffies, threads] = ["__per_cpu_offset", "init_task", "jiffies", "nr_threads"].map(symbol);
    at(all, &distances);
    at(init_task, &structure("task_struct", &[("comm", b"swapper/0"), ("nr_cpus_allowed", &[4])]));
    at(jiffies, &4_298_567_296_u64.to_le_bytes());
    at(threads, &131_u32.to_le_bytes());
    for cpu in 0..CPUS {
        let mut of_cpu = |name: &str, bytes: &[u8]| {
            let [variable] = FACTS.variables(name).unwrap()[..] else { panic!("{name}") };
            at(area(cpu) + u64::from(variable.per_cpu.unwrap()), bytes);
        };
        let running = [2 + cpu as u8];
        of_cpu("runqueues", &structure("rq", &[("cpu", &[cpu as u8]), ("nr_running", &running)]));
        of_cpu("cpu_number", &(cpu as u32).to_le_bytes());
        of_cpu("process_counts", &(40 + cpu).to_le_bytes());
        of_cpu("current_task", &current.to_le_bytes());
        of_cpu("this_cpu_off", &area(cpu).wrapping_sub(LINKED).to_le_bytes());
        at(COUNTERS - LINKED + area(cpu), &(-17 - cpu as i32).to_le_bytes());
    }
    let [queues] = FACTS.variables("runqueues").unwrap()[..] else { panic!("no run queues") };
    let mut add = |name, members: &[(&str, &[u8])]| memory.add(Space::Kernel, &structure(name, members));
    let of_cpus: Vec<u8> = (0..CPUS)
        .map(|cpu| area(cpu) + u64::from(queues.per_cpu.unwrap()))
        .flat_map(|queue| add("cfs_rq", &[("rq", &queue.to_le_bytes())]).to_le_bytes())
        .collect();
    let of_cpus = memory.add(Space::Kernel, &of_cpus);
    let mut add = |name, members: &[(&str, &[u8])]| memory.add(Space::Kernel, &structure(name, members));
    let group = add("task_group", &[("cfs_rq", &of_cpus.to_le_bytes())]);
    add("cfs_rq", &[("tg", &group.to_le_bytes())])
}

/// A `struct mm_struct` of so many pages, with the file of its program, and with a counter of which each CPU has a
/// part.
pub fn address_space(pages: u8, program: u64) -> Vec<u8> {
    let btf = FACTS.btf().unwrap();
    let at = |name: &str, field: &str| btf.member(btf.structure(name).unwrap(), field).unwrap().bit_offset as usize / 8;
    let mut bytes = structure("mm_struct", &[("total_vm", &[pages]), ("exe_file", &program.to_le_bytes())]);
    put(&mut bytes, at("mm_struct", "rss_stat") + at("percpu_counter", "counters"), &COUNTERS.to_le_bytes());
    bytes
}

/// The address of one of the recorded kernel's symbols.
fn symbol(name: &str) -> u64 {
    let recorded = facts::recorded();
    let [address] = recorded.symbols().unwrap().addresses(name)[..] else { panic!("{name}") };
    address
}

/// A thread, and a kernel with variables around it.
fn scene() -> (Rc<World>, u64) {
    let mut memory = Memory::default();
    let mm = memory.add(Space::Kernel, &address_space(44, 0));
    // The thread is among the variables, and they are reached through it: so it is made last, and all but
    // `current_task` know it.
    let queue = add_variables(&mut memory, 0);
    let members: [(&str, &[u8]); 3] = [("pid", &[93]), ("mm", &mm.to_le_bytes()), ("se.cfs_rq", &queue.to_le_bytes())];
    let task = memory.add(Space::Kernel, &structure("task_struct", &members));
    (Rc::new(World { task, memory, ..World::new() }), task)
}

fn run(plan: &Plan, context: &[u8], world: &Rc<World>) -> (Value, u64) {
    let mut machine = Machine::new(plan).unwrap();
    let outcome = machine.run(0, context, world);
    let (_, value) = machine.decode(&outcome.records[0]).remove(0);
    (value, outcome.counter(porthole::lower::Counter::Faults))
}

/// With symbols, and without: there by way of the scheduler's group of the thread.
#[test]
fn each_cpu_has_variables_of_its_own() {
    let (world, task) = scene();
    let context: Vec<u8> = [0, task, task, 1].map(u64::to_le_bytes).concat();
    for (expression, value) in [
        ("per_cpu(\"cpu_number\", 0)", "0"),
        ("per_cpu(\"cpu_number\", 2)", "2"),
        ("this_cpu(\"cpu_number\")", "3"),
        ("per_cpu(\"cpu_number\", cpu - 1) + 0", "2"),
        ("per_cpu(\"cpu_number\", 4)", "absent"),
        ("per_cpu(\"cpu_number\", -1)", "absent"),
        ("per_cpu(\"cpu_number\", nsecs)", "absent"),
        ("per_cpu(\"process_counts\", 1) + per_cpu(\"process_counts\", 2)", "83"),
        ("this_cpu(\"runqueues\").cpu", "3"),
        ("per_cpu(\"runqueues\", 1).nr_running", "3"),
        ("(&per_cpu(\"runqueues\", 2)).cpu", "2"),
        ("sizeof(this_cpu(\"runqueues\")) == sizeof(struct rq)", "true"),
        ("sizeof(typeof(per_cpu(\"runqueues\", 0)))== sizeof(struct rq)", "true"),
        ("this_cpu(\"current_task\") == 0", "true"),
        ("this_cpu(\"current_task\").pid", "absent"),
        ("*per_cpu_ptr(task.mm.rss_stat[0].counters, 1)", "-18"),
        ("*per_cpu_ptr(task.mm.rss_stat[0].counters, cpu)", "-20"),
        ("*per_cpu_ptr((u32 *)task.mm.rss_stat[0].counters, 0)", "4294967279"),
        ("*per_cpu_ptr(task.mm.rss_stat[0].counters, 4)", "absent"),
        ("*per_cpu_ptr(task.mm.rss_stat[1].counters, 0)", "absent"),
        ("*per_cpu_ptr((int *)0, 0)", "absent"),
    ] {
        for facts in [&facts::recorded(), &*FACTS] {
            let plan =
                plan(&declaration::of_fields(SWITCH, [("f", expression)]), facts).unwrap_or_else(|e| panic!("{e}"));
            let (found, faults) = run(&plan, &context, &world);
            assert_eq!((found.to_string(), faults), (value.to_owned(), 0), "{expression}");
        }
    }
}

#[test]
fn the_kernel_has_variables() {
    let (world, task) = scene();
    let context: Vec<u8> = [0, task, task, 1].map(u64::to_le_bytes).concat();
    for (expression, value) in [
        ("*(unsigned long *)kaddr(\"jiffies\")", "4298567296"),
        ("((unsigned *)kaddr(\"jiffies\"))[1]", "1"),
        ("*(int *)kaddr(\"nr_threads\")", "131"),
        ("((struct task_struct *)kaddr(\"init_task\")).comm", "\"swapper/0\""),
        ("(struct task_struct *)kaddr(\"init_task\") == task", "false"),
        ("kaddr(\"jiffies\") == 0xffffffff82605080", "true"),
        ("(u64)kaddr(\"vfs_read\") >> 32", "4294967295"),
        ("(u64)kaddr(\"jiffies\") & 0xff", "128"),
        ("kaddr(\"jiffies\") ? 1 : 2", "1"),
    ] {
        let plan = plan(&declaration::of_fields(SWITCH, [("f", expression)]), &facts::recorded());
        let (found, _) = run(&plan.unwrap_or_else(|e| panic!("{e}")), &context, &world);
        assert_eq!(found.to_string(), value, "{expression}");
    }
}

/// A kernel whose list of symbols has none, has functions only, or has all without their addresses.
#[test]
fn what_a_kernel_does_not_tell_is_said() {
    let kernel = |name: &str, kallsyms: Option<&str>| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let facts = facts::made(&directory);
        if let Some(text) = kallsyms {
            std::fs::write(directory.join("kallsyms"), text).unwrap();
        }
        facts
    };
    let functions = "ffffffff81000000 T vfs_read\n";
    let hidden = ["T vfs_read", "D __per_cpu_offset", "D jiffies", "D cpu_number"].map(|s| format!("{:016x} {s}\n", 0));
    let hidden = &hidden.concat();
    let hides = "the kernel hides the addresses of its symbols";
    for (facts, expression, message) in [
        (kernel("made-kernel", None), "kaddr(\"jiffies\")", "the kernel's symbols are not known"),
        (
            kernel("functions", Some(functions)),
            "kaddr(\"jiffies\")",
            "this kernel does not tell where its variables are",
        ),
        (kernel("hidden", Some(hidden)), "kaddr(\"jiffies\")", hides),
        (kernel("hidden", Some(hidden)), "this_cpu(\"cpu_number\")", hides),
        (kernel("hidden", Some(hidden)), "*per_cpu_ptr((int *)task, 0)", hides),
    ] {
        let faults = plan(&declaration::of_fields(SWITCH, [("f", expression)]), &facts).unwrap_err();
        assert!(faults.to_string().contains(message), "{expression}: {faults}");
    }
}
