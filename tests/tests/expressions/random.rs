//! Random expressions, compared with [`reference`](super::reference).

use std::collections::HashMap;

use porthole::compile::CompileError;
use porthole::declare::{Binding, Declaration, Step};
use porthole::lower::Counter;
use porthole::plan::syntax::{self, Expr};
use porthole_tests::machine::{Memory, Space};

use super::reference::{Known, Scope};
use super::*;

/// Programs made; each holds [`EXPRESSIONS`] of them and is run [`RUNS`] times.
const PROGRAMS: u64 = 1500;
const EXPRESSIONS: usize = 14;
const RUNS: usize = 4;
/// Set to make the first program of a failure anew.
pub const SEED: &str = "PORTHOLE_SEED";

#[test]
fn random_expressions_have_the_values_that_the_reference_says() {
    let seed = seed();
    println!("{SEED}={seed}");
    let members = Members::new();
    let mut tally = Tally::default();
    for seed in seed..seed + PROGRAMS {
        let mut random = Random::new(seed);
        program(&mut random, &members, &mut tally, &format!("{SEED}={seed}"));
    }
    println!("{tally:?}");
    assert!(tally.values + tally.absent >= 20_000 && tally.absent >= 2_000, "too few to say anything: {tally:?}");
    assert!(tally.filtered >= 100 && tally.too_complex * 20 < PROGRAMS, "not the programs that were meant: {tally:?}");
}

/// The number to begin with: 1, or what [`SEED`] says.
pub fn seed() -> u64 {
    std::env::var(SEED).ok().map_or(1, |s| s.parse().unwrap_or_else(|e| panic!("{SEED}: {e}")))
}

/// What has been compared.
#[derive(Debug, Default)]
struct Tally {
    values: u64,
    absent: u64,
    filtered: u64,
    too_complex: u64,
}

/// Makes a program of bindings, perhaps a condition, and fields, and compares what it does in some records.
fn program(random: &mut Random, members: &Members, tally: &mut Tally, replay: &str) {
    let mut text = Text { random, bound: 0 };
    let bindings: Vec<String> = (0..text.random.below(4))
        .map(|n| {
            let expression = text.integer(3);
            text.bound = n + 1;
            expression
        })
        .collect();
    let condition = (text.random.below(4) == 0).then(|| text.condition(3));
    let fields: Vec<String> =
        (0..EXPRESSIONS).map(|_| if text.random.below(4) == 0 { text.condition(4) } else { text.integer(4) }).collect();

    let declaration = declaration(&bindings, condition.as_ref(), &fields);
    let plan = plan(&declaration, &FACTS).unwrap_or_else(|e| panic!("{replay}\n{e}"));
    let mut machine = match Machine::new(&plan) {
        Ok(machine) => machine,
        Err(CompileError::TooComplex { .. }) => {
            tally.too_complex += 1;
            return;
        }
        Err(error) => panic!("{replay}: {error}\n{declaration:#?}"),
    };
    let parse = |text: &String| syntax::parse(text).unwrap_or_else(|e| panic!("{replay}: {}: {text}", e.message));
    let sources = bindings.clone();
    let (bindings, condition) = (bindings.iter().map(parse).collect::<Vec<_>>(), condition.as_ref().map(parse));
    let trees: Vec<Expr> = fields.iter().map(parse).collect();
    for run in 1..=RUNS {
        let (record, world, mut scope) = members.scene(random);
        for (n, binding) in bindings.iter().enumerate() {
            let known = Known { value: scope.evaluate(binding), unsigned: scope.is_unsigned(binding) };
            scope.known.insert(format!("b{n}"), known);
        }
        let before = machine.run(0, &record, &world);
        let told = |text: &str| {
            let mut all: Vec<&String> = fields.iter().chain(&sources).collect();
            all.retain(|t| text.contains(*t) || !fields.contains(t));
            let used = scope.known.iter().filter(|(name, _)| all.iter().any(|t| t.contains(*name)));
            let used: Vec<String> = used.map(|(name, known)| format!("{name} = {:?}", known.value)).collect();
            format!("{replay}, run {run}: {text}\nb0, … = {sources:?}\n{}", used.join("\n"))
        };
        if condition.as_ref().is_some_and(|c| scope.evaluate(c).unwrap_or(0) == 0) {
            assert!(before.records.is_empty(), "{}", told("the condition does not hold, and an event came"));
            tally.filtered += 1;
            continue;
        }
        let [sent] = &before.records[..] else { panic!("{}", told("the condition holds, and no event came")) };
        for ((text, tree), (name, value)) in fields.iter().zip(&trees).zip(machine.decode(sent)) {
            let wanted = scope.evaluate(tree);
            let got = match value {
                Value::Absent => None,
                Value::Boolean(value) => Some(i64::from(value)),
                Value::Signed(value) => Some(value),
                Value::Unsigned(value) => Some(value as i64),
                Value::Text { .. } => panic!("{}", told("a text")),
            };
            assert_eq!(got, wanted, "{}", told(&format!("{name} = {text}")));
            if got.is_some() { tally.values += 1 } else { tally.absent += 1 }
        }
        let count = |counter| before.counter(counter);
        assert_eq!(count(Counter::Hits), run as u64);
        assert_eq!(count(Counter::Hits), count(Counter::Filtered) + count(Counter::Emitted) + count(Counter::Lost));
    }
}

fn declaration(bindings: &[String], condition: Option<&String>, fields: &[String]) -> Declaration {
    let names: Vec<String> = (0..fields.len()).map(|n| format!("f{n}")).collect();
    let mut declaration =
        declaration::of_fields(MADE, names.iter().map(String::as_str).zip(fields.iter().map(String::as_str)));
    let binds = bindings
        .iter()
        .enumerate()
        .map(|(n, value)| Step::Bind(Binding { name: format!("b{n}"), value: value.clone() }));
    let steps = binds.chain(condition.map(|c| Step::When(c.clone())));
    declaration.probes[0].body.splice(0..0, steps);
    declaration
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

/// Names of members; the bytes of each are random.
const MEMBERS: [(&str, usize, bool); 8] = [
    ("pid", 4, true),
    ("flags", 4, false),
    ("start_time", 8, false),
    ("prio", 4, true),
    ("exit_code", 4, true),
    ("in_execve", 4, false),
    ("in_iowait", 4, false),
    ("exit_state", 4, true),
];
/// Bytes of a `task_struct` at least.
const TASK: usize = 16 * 1024;

impl Members {
    fn new() -> Members {
        let btf = FACTS.btf().expect("recorded types");
        let id = btf.structure("task_struct").expect("task_struct");
        let member = |(name, bytes, signed): (&'static str, usize, bool)| {
            let at = btf.member(id, name).unwrap_or_else(|| panic!("task_struct.{name}"));
            let bits = at.bit_size.map_or(bytes * 8, |bits| bits as usize);
            Member { name, at: at.bit_offset as usize, bits, signed, wide: bytes == 8 && !signed }
        };
        Members(MEMBERS.map(member).into_iter().collect())
    }

    /// A record, a world, and what the reference has to know of both.
    fn scene(&self, random: &mut Random) -> (Vec<u8>, Rc<World>, Scope) {
        let mut known = HashMap::new();
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
        let world = World { pid, tid, uid, gid, cpu, nsecs, cgroup, comm, task, memory, full: false };
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
                let bit = |n: usize| u64::from(bytes[(member.at + n) / 8] >> ((member.at + n) % 8) & 1) << n;
                narrowed((0..member.bits).map(bit).sum::<u64>() as i64, member.bits, member.signed)
            });
            known.insert(format!("{path}.{}", member.name), Known { value, unsigned: member.wide });
        }
    }
}

/// The lowest bits of a value, sign- or zero-extended.
fn narrowed(value: i64, bits: usize, signed: bool) -> i64 {
    let shift = 64 - bits as u32;
    let up = value << shift;
    if signed { up >> shift } else { (up as u64 >> shift) as i64 }
}

/// Writes expressions.
struct Text<'a> {
    random: &'a mut Random,
    /// How many bindings there are.
    bound: u64,
}

/// What an operator of numbers joins needs no parentheses, however it is grouped.
const OPERATORS: [&str; 16] = ["|", "^", "&", "==", "!=", "<", "<=", ">", ">=", "<<", ">>", "+", "-", "*", "/", "%"];

impl Text<'_> {
    /// A number.
    fn integer(&mut self, depth: u32) -> String {
        if depth == 0 {
            return self.leaf();
        }
        match self.random.below(10) {
            0 => self.leaf(),
            1 => format!("{}{}", self.random.pick(&["-", "~", "!", "+"]), self.closed(depth - 1)),
            2 => format!("({} ? {} : {})", self.condition(depth - 1), self.integer(depth - 1), self.integer(depth - 1)),
            3 => format!("!({})", self.condition(depth - 1)),
            _ => {
                let (left, right) = (self.integer(depth - 1), self.integer(depth - 1));
                let joined = format!("{left} {} {right}", self.random.pick(&OPERATORS));
                if self.random.below(2) == 0 { format!("({joined})") } else { joined }
            }
        }
    }

    /// A number that needs no parentheses.
    fn closed(&mut self, depth: u32) -> String {
        if self.random.below(2) == 0 { self.leaf() } else { format!("({})", self.integer(depth)) }
    }

    /// Something that is 0 or not.
    fn condition(&mut self, depth: u32) -> String {
        if depth == 0 {
            return self.leaf();
        }
        match self.random.below(8) {
            0 => self
                .random
                .pick(&["args.p", "!args.p", "args.p == 0", "args.p != task", "task == task", "!!task"])
                .to_owned(),
            1 => format!(
                "comm {} \"{}\"",
                self.random.pick(&["==", "!="]),
                self.random.pick(&["", "bash", "exactly-15-byte", "sixteen bytes!!!"])
            ),
            2 => format!("!({})", self.condition(depth - 1)),
            3 | 4 => self.integer(depth - 1),
            _ => {
                let (left, right) = (self.condition(depth - 1), self.condition(depth - 1));
                format!("(({left}) {} ({right}))", self.random.pick(&["&&", "||"]))
            }
        }
    }

    fn leaf(&mut self) -> String {
        match self.random.below(8) {
            0 | 1 => self.constant(),
            2 => self.random.pick(&["pid", "tid", "uid", "gid", "cpu", "nsecs", "cgroup", "true", "false"]).to_owned(),
            3 => format!("{}.{}", self.random.pick(&["args.p", "task"]), self.random.pick(&MEMBERS).0),
            4 if self.bound > 0 => format!("b{}", self.random.below(self.bound)),
            _ => format!("args.{}", self.random.pick(&["u8", "s8", "u16", "s16", "b", "u32", "s32", "u64", "s64"])),
        }
    }

    fn constant(&mut self) -> String {
        let value = self.random.number() as u64;
        match self.random.below(4) {
            0 => format!("{value:#x}"),
            1 => format!("0{value:o}"),
            2 => format!("{value:#b}ul"),
            _ => value.to_string(),
        }
    }
}

/// Numbers that are the same for the same seed (splitmix64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// Small, at an edge, or anything.
    fn number(&mut self) -> i64 {
        const EDGES: [i64; 18] = [
            0,
            1,
            -1,
            2,
            7,
            8,
            31,
            32,
            63,
            64,
            255,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_ffff,
            -0x8000_0000,
            1 << 32,
            i64::MAX,
            i64::MIN,
        ];
        match self.below(4) {
            0 => self.below(16) as i64,
            1 | 2 => self.pick(&EDGES),
            _ => (self.next() >> self.below(64)) as i64,
        }
    }
}
