//! `duration`: programs that are called at both the entry and the return of a function.

use porthole::declare::Step;
use porthole::lower::{COUNTER_COUNT, Counter};

use super::*;

/// Where each is entered, and returns.
const ENTERED: u64 = 5_000_000;
const RETURNED: u64 = 5_000_250;

/// A program's machine, and what it sees.
struct Traced {
    machine: Machine,
    world: World,
    context: [u8; 168],
}

impl Traced {
    /// At a function of the kernel: those of programs count in ways that the machine does not know.
    fn new(steps: &[&str]) -> Traced {
        let mut declaration =
            declaration::of_fields("kretprobe:vfs_read", [("took", "duration"), ("again", "duration")]);
        for condition in steps.iter().rev() {
            declaration.probes[0].body.insert(0, Step::When((*condition).to_owned()));
        }
        let plan = plan(&declaration, &facts::recorded()).unwrap_or_else(|e| panic!("{e}"));
        let machine = Machine::new(&plan).unwrap_or_else(|e| panic!("{e}"));
        Traced { machine, world: World::new(), context: [0; 168] }
    }

    /// The values of each record, and the counters.
    fn call(&mut self, is_return: bool, nsecs: u64) -> (Vec<Vec<Value>>, [u64; COUNTER_COUNT]) {
        let world = Rc::new(World { is_return, nsecs, ..self.world.clone() });
        let outcome = self.machine.run(0, &self.context, &world);
        let values = |record: &Vec<u8>| self.machine.decode(record).into_iter().map(|(_, value)| value).collect();
        (outcome.records.iter().map(values).collect(), outcome.counters)
    }
}

fn counted(counts: &[(Counter, u64)]) -> [u64; COUNTER_COUNT] {
    let mut counters = [0; COUNTER_COUNT];
    for (counter, count) in counts {
        counters[*counter as usize] = *count;
    }
    counters
}

#[test]
fn a_return_tells_how_long_the_call_took() {
    let mut traced = Traced::new(&[]);
    assert_eq!(traced.call(false, ENTERED), (vec![], counted(&[])), "an entry is no hit");
    assert_eq!(traced.world.kept.get(), ENTERED);
    let took = vec![Value::Unsigned(RETURNED - ENTERED); 2];
    let counts = counted(&[(Counter::Hits, 1), (Counter::Emitted, 1)]);
    assert_eq!(traced.call(true, RETURNED), (vec![took], counts));
    assert_eq!(traced.world.kept.get(), 0, "the place is left as it was found");
}

/// The kernel has left out the entry, and has counted that.
#[test]
fn a_return_without_its_entry_is_no_hit() {
    let mut traced = Traced::new(&[]);
    assert_eq!(traced.call(true, RETURNED), (vec![], counted(&[])));
}

#[test]
fn what_is_about_the_process_is_asked_at_the_entry() {
    for (steps, at_entry, at_return) in [
        (&["pid == 4711"][..], true, true),
        (&["pid != 4711"], false, false),
        (&["pid in (1, 4711) && tid == 1"], true, false),
        (&["tid == 1 && !(pid == 4711)"], false, false),
        (&["pid == 1 || tid == 4712"], true, true),
        (&["pid / 0 == 1"], false, false),
        // Only the first step.
        (&["tid == 4712", "pid == 1"], true, false),
        (&["duration == 250", "duration > 249"], true, true),
        (&["duration < 250"], true, false),
    ] {
        let mut traced = Traced::new(steps);
        let (records, counters) = traced.call(false, ENTERED);
        assert!(records.is_empty());
        let filtered = counted(&[(Counter::Hits, 1), (Counter::Filtered, 1)]);
        if !at_entry {
            assert_eq!((counters, traced.world.kept.get()), (filtered, 0), "{steps:?}");
            continue;
        }
        assert_eq!((counters, traced.world.kept.get()), (counted(&[]), ENTERED), "{steps:?}");
        let (records, counters) = traced.call(true, RETURNED);
        let emitted = counted(&[(Counter::Hits, 1), (Counter::Emitted, 1)]);
        assert_eq!(counters, if at_return { emitted } else { filtered }, "{steps:?}");
        assert_eq!(records.len(), usize::from(at_return), "{steps:?}");
    }
}
