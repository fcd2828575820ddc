//! Random expressions, compared with [`reference`](super::reference) in the kernel itself: its verifier, its compiler
//! to machine code, this processor.
//!
//! Programs are run by BPF_PROG_TEST_RUN, which passes what one likes to a raw tracepoint's program. So they are
//! compiled as any others, for tracepoints whose arguments are integers, and only the section is another: `raw_tp` in
//! place of `tp_btf`, whose context is the same.

use std::collections::{BTreeSet, HashMap};

use porthole::compile::{CompileError, Compiled, compile};
use porthole::objfile::{self, Role};
use porthole::plan::syntax::{self, Expr};
use porthole_tests::kernel::Object;
use porthole_tests::live::unless_root;
use porthole_tests::machine::decode;
use porthole_tests::random::{Names, Program, Random, SEED, count, seed};

use super::random::narrowed;
use super::reference::{Known, Scope};
use super::*;

/// Programs made; each holds [`EXPRESSIONS`] of them and is run [`RUNS`] times.
const PROGRAMS: u64 = 96;
const EXPRESSIONS: usize = 14;
const RUNS: usize = 10;
const RING: u32 = 1 << 16;
/// Tracepoints that are taken.
const POINTS: usize = 8;

/// An argument that is an integer.
struct Argument {
    path: &'static str,
    slot: usize,
    bits: usize,
    signed: bool,
}

struct Point {
    names: Names,
    arguments: Vec<Argument>,
    slots: usize,
}

#[test]
fn root_random_expressions_have_their_values_in_the_kernel() {
    if unless_root() {
        return;
    }
    let facts = KernelFacts::running();
    let points = points(&facts);
    let kinds: BTreeSet<_> = points.iter().flat_map(|p| &p.arguments).map(|a| (a.bits, a.signed)).collect();
    assert!(kinds.len() >= 5, "integers of few kinds: {kinds:?}");
    // SAFETY: the name ends in a 0; it is this thread's, which ends with the test.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"exactly-15-byte".as_ptr()) };
    let (first, programs) = (seed(), if count(0) == 0 { PROGRAMS } else { count(0).min(PROGRAMS) });
    println!("{SEED}={first}");
    let task = task(&points[0], &facts);
    let (mut values, mut absent) = (0, 0);
    for seed in first..first + programs {
        let point = &points[(seed % points.len() as u64) as usize];
        let told = format!("{SEED}={seed} at {}", point.names.attach);
        let found = program(&mut Random::new(seed), (point, task), &facts, &told);
        values += found.0;
        absent += found.1;
    }
    println!("{values} values and {absent} absent ones at {} tracepoints", points.len());
    assert!(programs < PROGRAMS || values + absent >= 10_000 && absent >= 500, "too few to say anything");
}

/// Makes a program, and compares what it does in the kernel; how many values there were, and how many absent ones.
fn program(random: &mut Random, (point, task): (&Point, i64), facts: &KernelFacts, told: &str) -> (u64, u64) {
    let program = Program::new(random, &point.names, EXPRESSIONS);
    let plan = plan(&program.declaration(point.names.attach), facts).unwrap_or_else(|e| panic!("{told}\n{e}"));
    let loaded = match compile(&plan, "random", RING) {
        Ok(compiled) => loaded(compiled, told),
        Err(CompileError::TooComplex { .. }) => return (0, 0),
        Err(error) => panic!("{told}: {error}"),
    };
    let parse = |text: &String| syntax::parse(text).unwrap_or_else(|e| panic!("{told}: {}: {text}", e.message));
    let bindings: Vec<Expr> = program.bindings.iter().map(parse).collect();
    let condition = program.condition.as_ref().map(parse);
    let fields: Vec<Expr> = program.fields.iter().map(parse).collect();
    let (mut values, mut absent) = (0, 0);
    for _ in 0..RUNS {
        let (context, mut scope) = scene(random, point, task);
        for (n, (binding, pointer)) in bindings.iter().zip(&program.pointers).enumerate() {
            scope.bind(&format!("b{n}"), binding, if *pointer { point.names.members } else { &[] });
        }
        loaded.run(0, &context).unwrap_or_else(|e| panic!("{told}: {e}"));
        let records = loaded.records().unwrap_or_else(|e| panic!("{told}: {e}"));
        if condition.as_ref().is_some_and(|c| scope.evaluate(c).unwrap_or(0) == 0) {
            assert!(records.is_empty(), "{told}: the condition does not hold, and an event came: {context:x?}");
            continue;
        }
        let [record] = &records[..] else { panic!("{told}: {} events for {context:x?}", records.len()) };
        for ((text, tree), (_, value)) in program.fields.iter().zip(&fields).zip(decode(&plan.schemas[0], record)) {
            let got = match value {
                Value::Absent => None,
                Value::Boolean(value) => Some(i64::from(value)),
                Value::Signed(value) | Value::Enumeration(value, _) => Some(value),
                Value::Unsigned(value) => Some(value as i64),
                other => panic!("{told}: {other}"),
            };
            let told = || format!("{told}: {text}\n{:#?}\n{context:x?}\n{:?}", program.bindings, scope.known);
            assert_eq!(got, scope.evaluate(tree), "{}", told());
            *(if got.is_some() { &mut values } else { &mut absent }) += 1;
        }
    }
    (values, absent)
}

/// The programs as ones that can be run without being attached.
fn loaded(compiled: Compiled, told: &str) -> Object {
    let mut object = compiled.object;
    object.functions.iter_mut().for_each(|f| f.role = Role::Entry { section: "raw_tp".to_owned() });
    let (loaded, verdicts) = Object::load(&objfile::write(&object).expect("an object"));
    loaded.unwrap_or_else(|e| panic!("{told}: {e}\n{verdicts:?}"))
}

/// The address of this thread's `task_struct`.
fn task(point: &Point, facts: &KernelFacts) -> i64 {
    let plan = plan(&declaration::of_fields(point.names.attach, [("task", "task")]), facts).expect("it is an address");
    let loaded = loaded(compile(&plan, "task", RING).expect("it is compiled"), "task");
    loaded.run(0, &vec![0; point.slots]).expect("it runs");
    match decode(&plan.schemas[0], &loaded.records().expect("a ring")[0])[..] {
        [(_, Value::Unsigned(address))] => address as i64,
        ref other => panic!("{other:?}"),
    }
}

/// Arguments, and what the reference has to know of them and of this thread.
fn scene(random: &mut Random, point: &Point, task: i64) -> (Vec<u64>, Scope) {
    let mut known = HashMap::new();
    let mut context: Vec<u64> = (0..point.slots).map(|_| random.below(u64::MAX)).collect();
    for argument in &point.arguments {
        // A boolean is 0 or 1; above an integer there may be anything.
        let bits = if argument.bits == 1 { random.below(2) as i64 } else { random.number() };
        let above = if argument.bits >= 8 && argument.bits < 64 { random.below(u64::MAX) << argument.bits } else { 0 };
        let value = if argument.bits == 1 { bits } else { narrowed(bits, argument.bits, argument.signed) };
        context[argument.slot] = above | narrowed(value, argument.bits.max(8), false) as u64;
        let unsigned = argument.bits == 64 && !argument.signed;
        known.insert(argument.path.to_owned(), Known { value: Some(value), unsigned });
    }
    // SAFETY: none of them takes or changes anything.
    let (tid, uid, gid) = unsafe { (libc::syscall(libc::SYS_gettid), libc::getuid(), libc::getgid()) };
    let pid = i64::from(std::process::id());
    let own = [("pid", pid), ("tid", tid), ("uid", uid.into()), ("gid", gid.into()), ("true", 1), ("false", 0)];
    for (name, value) in own.into_iter().chain([("task.pid", tid), ("task.tgid", pid)]) {
        known.insert(name.to_owned(), Known { value: Some(value), unsigned: false });
    }
    known.insert("task".to_owned(), Known { value: Some(task), unsigned: true });
    (context, Scope { known, comm: "exactly-15-byte" })
}

/// The raw tracepoints with integers of the most kinds, and with the most of them.
fn points(facts: &KernelFacts) -> Vec<Point> {
    let btf = facts.btf().expect("BTF");
    let mut points: Vec<(usize, usize, Point)> = Vec::new();
    for name in facts.raw_tracepoint_names().expect("raw tracepoints") {
        let point = facts.raw_tracepoint(&name).expect("facts").expect("it was listed");
        let integer = |(slot, (name, ty)): (usize, &(String, porthole::kernel::TypeId))| {
            let Kind::Int { bytes: bytes @ 1..=8, signed, bool, .. } = btf.kind(btf.strip(*ty).id) else { return None };
            let bits = if bool { 1 } else { bytes as usize * 8 };
            Some(Argument { path: format!("args.{name}").leak(), slot, bits, signed })
        };
        let arguments: Vec<Argument> = point.params.iter().enumerate().filter_map(integer).collect();
        let numbers: Vec<&'static str> = arguments.iter().map(|a| a.path).collect();
        let kinds: BTreeSet<_> = arguments.iter().map(|a| (a.bits, a.signed)).collect();
        let names = Names {
            attach: format!("rawtracepoint:{name}").leak(),
            numbers: numbers.leak(),
            builtins: &["pid", "tid", "uid", "gid", "true", "false"],
            pointers: &["task"],
            members: &["pid", "tgid"],
        };
        points.push((kinds.len(), arguments.len(), Point { names, arguments, slots: point.params.len() }));
    }
    points.sort_by_key(|(kinds, count, _)| std::cmp::Reverse((*kinds, *count)));
    points.into_iter().take(POINTS).map(|(_, _, point)| point).collect()
}
