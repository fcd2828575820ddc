//! Random expressions, compared with [`reference`](super::reference).

use std::collections::HashMap;

use porthole::compile::CompileError;
use porthole::lower::Counter;
use porthole::plan::syntax::{self, Expr};
use porthole_tests::machine::{Memory, Space};
use porthole_tests::random::{Names, Program, Random, SEED, seed};

use super::reference::{Known, Scope};
use super::*;

/// Programs made; each holds [`EXPRESSIONS`] of them and is run [`RUNS`] times.
const PROGRAMS: u64 = 450;
const EXPRESSIONS: usize = 14;
const RUNS: usize = 190;

const NAMES: Names = Names {
    attach: MADE,
    numbers: &["args.u8", "args.s8", "args.u16", "args.s16", "args.b", "args.u32", "args.s32", "args.u64", "args.s64"],
    builtins: &["pid", "tid", "uid", "gid", "cpu", "nsecs", "cgroup", "true", "false"],
    pointers: &["args.p", "task"],
    members: &["pid", "flags", "start_time", "prio", "exit_code", "in_execve", "in_iowait", "exit_state"],
};

#[test]
fn random_expressions_have_the_values_that_the_reference_says() {
    let seed = seed();
    println!("{SEED}={seed}");
    let members = Members::new();
    let mut tally = Tally::default();
    for seed in seed..seed + PROGRAMS {
        program(&mut Random::new(seed), &members, &mut tally, &format!("{SEED}={seed}"));
    }
    println!("{tally:?}");
    assert!(tally.values + tally.absent >= 1_000_000 && tally.absent >= 100_000, "too few to say anything: {tally:?}");
    assert!(
        tally.filtered >= 5_000 && tally.too_complex * 20 < PROGRAMS,
        "not the programs that were meant: {tally:?}"
    );
}

/// What has been compared.
#[derive(Debug, Default)]
struct Tally {
    values: u64,
    absent: u64,
    filtered: u64,
    too_complex: u64,
}

/// Makes a program, and compares what it does in some records.
fn program(random: &mut Random, members: &Members, tally: &mut Tally, replay: &str) {
    let program = Program::new(random, &NAMES, EXPRESSIONS);
    let plan = plan(&program.declaration(MADE), &FACTS).unwrap_or_else(|e| panic!("{replay}\n{e}"));
    let mut machine = match Machine::new(&plan) {
        Ok(machine) => machine,
        Err(CompileError::TooComplex { .. }) => {
            tally.too_complex += 1;
            return;
        }
        Err(error) => panic!("{replay}: {error}"),
    };
    let parse = |text: &String| syntax::parse(text).unwrap_or_else(|e| panic!("{replay}: {}: {text}", e.message));
    let bindings: Vec<Expr> = program.bindings.iter().map(parse).collect();
    let condition = program.condition.as_ref().map(parse);
    let fields: Vec<Expr> = program.fields.iter().map(parse).collect();
    for run in 1..=RUNS {
        let (record, world, mut scope) = members.scene(random);
        for (n, (binding, pointer)) in bindings.iter().zip(&program.pointers).enumerate() {
            scope.bind(&format!("b{n}"), binding, if *pointer { NAMES.members } else { &[] });
        }
        let outcome = machine.run(0, &record, &world);
        let told = |what: &str| {
            let values = program.bindings.iter().enumerate().map(|(n, text)| {
                let name = format!("b{n}");
                format!("{name} = {text} = {:?}", scope.known[&name].value)
            });
            let values = values.collect::<Vec<_>>().join("\n");
            format!("{replay}, run {run}: {what}\n{values}\n{record:02x?}\n{world:?}")
        };
        if condition.as_ref().is_some_and(|c| scope.evaluate(c).unwrap_or(0) == 0) {
            assert!(outcome.records.is_empty(), "{}", told("the condition does not hold, and an event came"));
            tally.filtered += 1;
            continue;
        }
        let [sent] = &outcome.records[..] else { panic!("{}", told("the condition holds, and no event came")) };
        for ((text, tree), (name, value)) in program.fields.iter().zip(&fields).zip(machine.decode(sent)) {
            let got = match value {
                Value::Absent => None,
                Value::Boolean(value) => Some(i64::from(value)),
                Value::Signed(value) | Value::Enumeration(value, _) => Some(value),
                Value::Unsigned(value) => Some(value as i64),
                other => panic!("{}", told(&other.to_string())),
            };
            assert_eq!(got, scope.evaluate(tree), "{}", told(&format!("{name} = {text}")));
            *(if got.is_some() { &mut tally.values } else { &mut tally.absent }) += 1;
        }
        let count = |counter| outcome.counter(counter);
        assert_eq!(count(Counter::Hits), run as u64);
        assert_eq!(count(Counter::Hits), count(Counter::Filtered) + count(Counter::Emitted) + count(Counter::Lost));
    }
}

/// Paths below a `task_struct`, with where they lie.
struct Members(Vec<Member>);

struct Member {
    name: &'static str,
    /// Bits from the start.
    at: usize,
    bits: usize,
    signed: bool,
    /// Whether it is 64 bits wide.
    wide: bool,
}

/// Of each of the members, its bytes and whether it is signed.
const MEMBERS: [(usize, bool); 8] =
    [(4, true), (4, false), (8, false), (4, true), (4, true), (4, false), (4, false), (4, true)];
/// Bytes of a `task_struct` at least.
const TASK: usize = 16 * 1024;

impl Members {
    fn new() -> Members {
        let btf = FACTS.btf().expect("recorded types");
        let id = btf.structure("task_struct").expect("task_struct");
        let member = |(name, (bytes, signed)): (&&'static str, (usize, bool))| {
            let at = btf.member(id, name).unwrap_or_else(|| panic!("task_struct.{name}"));
            let bits = at.bit_size.map_or(bytes * 8, |bits| bits as usize);
            Member { name, at: at.bit_offset as usize, bits, signed, wide: bytes == 8 && !signed }
        };
        Members(NAMES.members.iter().zip(MEMBERS).map(member).collect())
    }

    /// A record, a world, and what the reference has to know of both.
    fn scene(&self, random: &mut Random) -> (Vec<u8>, Rc<World>, Scope) {
        let mut known = HashMap::with_capacity(64);
        let mut record = vec![0; facts::RECORD];
        for field in facts::FIELDS.iter().filter(|f| f.size <= 8 && f.offset < 48) {
            let value = if field.name == "b" { random.below(2) as i64 } else { random.number() };
            if field.name != "p" {
                let value = narrowed(value, field.size * 8, field.signed);
                set(&mut record, field.name, value);
                let unsigned = field.size == 8 && !field.signed;
                known.insert(format!("args.{}", field.name), Known { value: Some(value), unsigned });
            }
        }
        let mut memory = Memory::default();
        let pointer = match random.below(3) {
            0 => {
                let bad = [0, 1, 0xdead_beef_dead_beef][random.below(3) as usize];
                self.know(&mut known, "args.p", None);
                bad
            }
            _ => self.task(random, &mut memory, &mut known, "args.p"),
        };
        set(&mut record, "p", pointer as i64);
        known.insert("args.p".to_owned(), Known { value: Some(pointer as i64), unsigned: true });
        let task = self.task(random, &mut memory, &mut known, "task");
        known.insert("task".to_owned(), Known { value: Some(task as i64), unsigned: true });

        let comm = ["", "sh", "bash", "exactly-15-byte"][random.below(4) as usize];
        let mut small = || random.number() as u32;
        let (pid, tid, uid, gid, cpu) = (small(), small(), small(), small(), small() % 64);
        let (nsecs, cgroup) = (random.number() as u64, random.number() as u64);
        for (name, value) in [("pid", pid), ("tid", tid), ("uid", uid), ("gid", gid), ("cpu", cpu)] {
            known.insert(name.to_owned(), Known { value: Some(value.into()), unsigned: false });
        }
        for (name, value) in [("nsecs", nsecs), ("cgroup", cgroup)] {
            known.insert(name.to_owned(), Known { value: Some(value as i64), unsigned: true });
        }
        for (name, value) in [("true", 1), ("false", 0)] {
            known.insert(name.to_owned(), Known { value: Some(value), unsigned: false });
        }
        let world = World { pid, tid, uid, gid, cpu, nsecs, cgroup, comm, task, memory, ..World::new() };
        (record, Rc::new(world), Scope { known, comm })
    }

    /// A `task_struct` of random bytes; its address.
    fn task(&self, random: &mut Random, memory: &mut Memory, known: &mut HashMap<String, Known>, path: &str) -> u64 {
        let mut bytes = vec![0; TASK];
        for member in &self.0 {
            let first = member.at / 8;
            bytes[first..first + 8].copy_from_slice(&random.number().to_le_bytes());
        }
        self.know(known, path, Some(&bytes));
        memory.add(Space::Kernel, &bytes)
    }

    fn know(&self, known: &mut HashMap<String, Known>, path: &str, bytes: Option<&[u8]>) {
        for member in &self.0 {
            let value = bytes.map(|bytes| {
                let word = bytes[member.at / 8..].first_chunk().expect("the structure ends later");
                narrowed((u64::from_le_bytes(*word) >> (member.at % 8)) as i64, member.bits, member.signed)
            });
            known.insert(format!("{path}.{}", member.name), Known { value, unsigned: member.wide });
        }
    }
}

/// The lowest bits of a value, sign- or zero-extended.
pub fn narrowed(value: i64, bits: usize, signed: bool) -> i64 {
    let shift = 64 - bits as u32;
    let up = value << shift;
    if signed { up >> shift } else { (up as u64 >> shift) as i64 }
}
