//! Declarations that were right, and no longer are: changed at random in their texts, names, sizes and steps, and as
//! JSON. Each is refused or compiled, and never more than that ([`outcome`](super::hostile::outcome)), nor does it take
//! long.
//!
//! What mutations begin with is what there is: the declarations of the golden files, those of the documentation, and
//! some that hold a little of everything.

use std::fs;
use std::time::Duration;

use porthole::declare::{
    Binding, Buckets, Change, Declaration, Event, Field, KfuncUse, MapKind, MapUse, Probe, Step, Update,
};
use porthole_tests::random::{Random, SEED, count, seed};

use super::hostile::{ToldOnPanic, outcome};
use super::*;

/// Mutated declarations.
const DECLARATIONS: u64 = 4000;
/// CPU time that nothing so small may take: a hundred times what the slowest does.
const ABSURD: Duration = Duration::from_secs(60);

/// Expressions that are right at [`MADE`]: some of everything.
const EXPRESSIONS: [&str; 28] = [
    "pid",
    "args.u64 / (args.s8 + 1)",
    "str(args.s)",
    "str(args.s, 100) == \"abc\"",
    "comm == \"cat\"",
    "args.located != args.relative",
    "args.p.real_parent->tgid",
    "task.se.load.weight << 3",
    "args.b ? args.u32 : -args.s64",
    "args.name == args.wide || args.p && !args.s32",
    "(args.p ? args.p : task).comm",
    "a == a",
    "task.in_iowait ? \"yes\" : comm",
    "args.u8 % 10 >= 0x1f",
    "args.p.comm[args.u8] in ('a', 'b', 255)",
    "(u8)(unsigned long)args.p + sizeof(struct list_head)",
    "container_of(&args.p.se, struct task_struct, se).pid",
    "contains(str(user((u64)args.s)), \"etc\")",
    "errno(args.s32) in (\"ENOENT\", \"EACCES\")",
    "*(int *)&args.p.tgid == O_CREAT | (typeof(SS_CONNECTED))2",
    "path((struct file *)args.u64, 100)",
    "buf(args.p, args.u8, 300)",
    "ntop(args.u32) == \"127.0.0.1\"",
    "mac((void *)args.u64) in (\"02:00:00:00:00:01\")",
    "flags(args.u32, \"O_\") & O_CREAT",
    "kstack(5)",
    "ksym(args.p)",
    "usym((u64)args.s)",
];

/// What they are changed by, beside tokens of their own.
const PIECES: [&str; 72] = [
    "(",
    ")",
    "[",
    "]",
    "[0]",
    "[99999]",
    ".",
    "->",
    ",",
    "?",
    ":",
    "? 1 :",
    "+",
    "-",
    "*",
    "/ 0",
    "%",
    "<<",
    ">>",
    "==",
    "!=",
    "<=",
    "&",
    "&&",
    "||",
    "!",
    "~",
    "@",
    "$",
    "\"",
    "'",
    "\\",
    "args",
    "args.p",
    "task",
    "comm",
    "str",
    "str(",
    "a",
    "in (",
    "0",
    "18446744073709551616",
    "0xffffffffffffffff",
    "(u8)",
    "(struct task_struct *)",
    "kaddr(\"jiffies\")",
    "path(",
    "path(task.mm.exe_file)",
    "buf(",
    "buf(task, 4)",
    "ntop(",
    "ntop(AF_INET6, task)",
    "mac(",
    "flags(",
    "flags(pid, \"O_\")",
    "kstack",
    "ustack(3)",
    "ksym(",
    "usym(",
    "bpf_task_from_pid(",
    "bpf_task_from_pid(pid).comm",
    "bpf_cpumask_create()",
    "bpf_strlen(comm)",
    "count(",
    "count(tasks())",
    "any(threads(task), x, x.pid == tid)",
    "first(numbers(0, 9), x, x > 3, x)",
    "sum(",
    "x",
    "tasks()",
    "é",
    "\u{202e}\u{1b}",
];

/// A declaration that is right, and the kernel that it is for.
type Base = (Declaration, &'static KernelFacts);

/// The kernel that was recorded.
static RECORDED: LazyLock<KernelFacts> = LazyLock::new(facts::recorded);

fn bases() -> Vec<Base> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut texts = Vec::new();
    for entry in fs::read_dir(root.join("golden/compile")).expect("golden files") {
        let text = read(&entry.expect("it is listed").path());
        // A title, perhaps a line that says what to show, the declaration, and what comes of it.
        let inputs = text.split("==== ").skip(1).map(|case| case.split("\n---- ").next().unwrap_or_default());
        texts.extend(inputs.map(|case| {
            let lines = case.lines().skip(1).filter(|line| !line.starts_with("show "));
            lines.collect::<Vec<_>>().join("\n")
        }));
    }
    for page in ["expressions.md", "bpftrace.md", "plugins.md", "kfuncs.md"] {
        let text = read(&root.join("../docs").join(page));
        let blocks = text.split("```declaration\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
        texts.extend(blocks.map(str::to_owned));
    }
    let parsed = |text: &String| declaration::parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let mut bases: Vec<Base> = texts.iter().map(|text| (parsed(text), &*RECORDED)).collect();
    for some in EXPRESSIONS.chunks(2) {
        let mut made = declaration::of_fields(MADE, some.iter().enumerate().map(|(n, e)| (["x", "y"][n], *e)));
        made.probes[0].body.insert(0, declaration::bind("a", some[0]));
        bases.push((made, &*FACTS));
    }
    // The recorded kernel has not all that the documentation speaks of.
    let there = bases.len();
    bases.retain(|(declaration, facts)| {
        let taken = outcome(declaration, facts);
        assert!(taken || !std::ptr::eq(*facts, &*FACTS), "{declaration:?}");
        taken
    });
    println!("{} of {there} declarations are right on the recorded kernel", bases.len());
    bases
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one timespec, which outlives it.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) }, 0);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec.unsigned_abs() as u32)
}

#[test]
fn mutated_declarations_are_refused_or_compiled() {
    let (bases, first, all) = (bases(), seed(), count(DECLARATIONS));
    println!("{SEED}={first}");
    assert!(bases.len() >= 50, "{} to begin with", bases.len());
    let (mut taken, mut slowest) = (0, (Duration::ZERO, 0));
    for seed in first..first + all {
        let _told = ToldOnPanic(seed);
        let mut random = Random::new(seed);
        let (base, facts) = &bases[random.below(bases.len() as u64) as usize];
        let mut mutated = base.clone();
        for _ in 0..random.pick(&[1, 1, 1, 2, 2, 4, 10]) {
            mutate(&mut mutated, &bases, &mut random);
        }
        let begun = cpu_time();
        taken += u64::from(outcome(&mutated, facts));
        let took = cpu_time() - begun;
        assert!(took < ABSURD, "{SEED}={seed} took {took:?}");
        slowest = slowest.max((took, seed));
    }
    println!("{taken} of {all} were accepted; the slowest took {:?}, {SEED}={}", slowest.0, slowest.1);
    // Neither way is tried by the other.
    assert!(all < DECLARATIONS || taken * 20 > all && taken * 20 < all * 19, "{taken} of {all} were accepted");
}

/// As a file or another process may hold it: bytes of JSON. What is still a declaration is one as any other.
#[test]
fn mutated_json_is_refused_or_read() {
    let (bases, first, all) = (bases(), seed(), count(DECLARATIONS));
    println!("{SEED}={first}");
    let (mut read, mut taken) = (0, 0);
    for seed in first..first + all {
        let _told = ToldOnPanic(seed);
        let mut random = Random::new(seed);
        let (base, facts) = &bases[random.below(bases.len() as u64) as usize];
        let mut json = serde_json::to_vec(base).expect("it is written");
        assert_eq!(serde_json::from_slice::<Declaration>(&json).expect("it is read"), *base);
        for _ in 0..random.pick(&[1, 1, 2, 5]) {
            bytes(&mut json, &mut random);
        }
        if let Ok(declaration) = serde_json::from_slice(&json) {
            read += 1;
            taken += u64::from(outcome(&declaration, facts));
        }
    }
    println!("{read} of {all} were declarations, {taken} accepted");
    assert!(all < DECLARATIONS || read * 10 > all && read * 10 < all * 9 && taken > 0, "{read} of {all} were read");
}

/// Changes one thing.
fn mutate(declaration: &mut Declaration, bases: &[Base], random: &mut Random) {
    let other = bases[random.below(bases.len() as u64) as usize].0.clone();
    if declaration.probes.is_empty() || random.below(5) == 0 {
        return structure(declaration, other, random);
    }
    let mut other = other;
    let foreign = texts(&mut other).first().map(|text| (**text).clone()).unwrap_or_default();
    let mut all = texts(declaration);
    let n = random.below(all.len() as u64) as usize;
    if random.below(12) == 0 {
        let with = random.below(all.len() as u64) as usize;
        let exchanged = all[with].clone();
        *all[with] = std::mem::replace(all[n], exchanged);
        return;
    }
    text(all[n], &foreign, random);
}

/// All texts of a declaration: names, attach points, expressions.
fn texts(declaration: &mut Declaration) -> Vec<&mut String> {
    let mut all = Vec::new();
    for probe in &mut declaration.probes {
        all.push(&mut probe.name);
        all.extend(&mut probe.attach);
        for step in &mut probe.body {
            match step {
                Step::Bind(binding) => all.extend([&mut binding.name, &mut binding.value]),
                Step::When(condition) => all.push(condition),
                Step::Update(update) => {
                    all.push(&mut update.target);
                    all.extend(&mut update.key);
                }
                Step::Emit(event) => {
                    all.push(&mut event.name);
                    event.fields.iter_mut().for_each(|field| all.extend([&mut field.name, &mut field.value]));
                }
            }
        }
    }
    all.extend(declaration.kfuncs.iter_mut().map(|kfunc| &mut kfunc.name));
    all.extend(declaration.maps.iter_mut().map(|map| &mut map.name));
    all
}

/// Words, numbers, texts in quotes, and single characters of anything else.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut quoted = false;
    for c in text.chars() {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let goes_on = tokens.last().is_some_and(|t| quoted || word(c) && t.chars().all(word));
        quoted ^= c == '"';
        match tokens.last_mut() {
            Some(last) if goes_on => last.push(c),
            _ => tokens.push(c.to_string()),
        }
    }
    tokens
}

/// Changes a text: a byte of it, a token, all of it, or its length.
fn text(text: &mut String, foreign: &str, random: &mut Random) {
    let mut parts = tokens(text);
    let at = random.below(parts.len() as u64 + 1) as usize;
    let inside = at.min(parts.len().saturating_sub(1));
    match random.below(14) {
        0 => {
            let mut changed = text.as_bytes().to_vec();
            bytes(&mut changed, random);
            *text = String::from_utf8_lossy(&changed).into_owned();
            return;
        }
        1 => parts.truncate(at),
        2 => drop(parts.drain(..at)),
        3 if !parts.is_empty() => drop(parts.remove(inside)),
        4 if !parts.is_empty() => {
            let with = random.below(parts.len() as u64) as usize;
            parts.swap(inside, with);
        }
        5 if !parts.is_empty() => {
            let times = random.pick(&[2, 3, 60, 300, 5000]);
            let repeated = vec![format!("{} ", parts[inside]); times].concat();
            parts[inside] = repeated;
        }
        6 => {
            let (open, close) = random.pick(&[
                ("(", ")"),
                ("!", ""),
                ("-(", ")"),
                ("str(", ")"),
                ("(u8)", ""),
                ("1 ? ", " : 2"),
                ("*&", ""),
            ]);
            let times = random.pick(&[1, 2, 20, 63, 64, 65, 1000]);
            *text = format!("{}{text}{}", open.repeat(times), close.repeat(times));
            return;
        }
        7 => {
            let times = random.pick(&[2, 3, 20, 200]);
            let joint = random.pick(&[" + ", " && ", " || ", " == ", " / ", ", ", ".", ""]);
            *text = vec![text.as_str(); times].join(joint);
            return;
        }
        8 => {
            let number = random.number();
            parts.insert(at, random.pick(&["", "-", "0x"]).to_owned() + &number.to_string());
        }
        9 => parts.insert(at, foreign.to_owned()),
        10 => *text = foreign.to_owned(),
        _ => parts.insert(at, format!(" {} ", random.pick(&PIECES))),
    }
    if parts != tokens(text) && !(parts.is_empty() && random.below(2) == 0) {
        *text = parts.concat();
    }
}

/// Changes some bytes.
fn bytes(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(bytes.len() as u64 + 1) as usize;
    let inside = at.min(bytes.len().saturating_sub(1));
    let end = (at + random.below(40) as usize).min(bytes.len());
    match random.below(7) {
        0 | 1 if !bytes.is_empty() => bytes[inside] ^= 1 << random.below(8),
        2 => bytes.insert(at, random.below(256) as u8),
        3 => bytes.truncate(at),
        4 => drop(bytes.drain(at..end)),
        5 => {
            let again = bytes[at..end].to_vec();
            bytes.splice(at..at, again);
        }
        // A number becomes another, a letter another letter: what still is JSON.
        _ if !bytes.is_empty() => {
            let letters = |b: &u8| b.is_ascii_alphanumeric();
            if let Some(n) = bytes[inside..].iter().position(letters) {
                bytes[inside + n] = random.pick(b"0179afxzAZ");
            }
        }
        _ => {}
    }
}

/// Changes what there is, and how much of it.
fn structure(declaration: &mut Declaration, other: Declaration, random: &mut Random) {
    let many = random.pick(&[1, 2, 5, 70, 300]);
    let Some(n) = (declaration.probes.len() as u64).checked_sub(1).map(|last| random.below(last + 1) as usize) else {
        declaration.probes = other.probes;
        return;
    };
    let probe = &mut declaration.probes[n];
    let step = random.below(probe.body.len() as u64 + 1) as usize;
    let there = step.min(probe.body.len().saturating_sub(1));
    match random.below(16) {
        0 => declaration.probes.extend(other.probes),
        1 => {
            let copy = |n| Probe { name: format!("copy{n}"), ..probe.clone() };
            let copies: Vec<Probe> = (0..many.min(20)).map(copy).collect();
            declaration.probes.extend(copies);
        }
        2 => drop(declaration.probes.remove(n)),
        3 => {
            let again = vec![probe.clone(); many];
            declaration.probes.extend(again);
        }
        4 => probe.attach.clear(),
        5 => probe.attach.extend(other.probes.into_iter().flat_map(|probe| probe.attach)),
        6 => {
            let again = vec![probe.attach.first().cloned().unwrap_or_default(); many];
            probe.attach.extend(again);
        }
        7 if !probe.body.is_empty() => drop(probe.body.remove(there)),
        8 if !probe.body.is_empty() => {
            let with = random.below(probe.body.len() as u64) as usize;
            probe.body.swap(there, with);
        }
        9 if !probe.body.is_empty() => {
            let again = vec![probe.body[there].clone(); many];
            probe.body.splice(step..step, again);
        }
        10 => probe.body = other.probes.into_iter().next().map(|probe| probe.body).unwrap_or_default(),
        11 => {
            if let Some(Step::Emit(Event { fields, .. })) = probe.body.last_mut() {
                let value = fields.first().map_or("pid".to_owned(), |field| field.value.clone());
                fields.extend((0..many).map(|n| Field { name: format!("more{n}"), value: value.clone() }));
            }
        }
        12 => {
            // Each in terms of the one before: what one stands for may double with each.
            let value = |n: usize| if n == 0 { "pid".to_owned() } else { format!("c{0} + c{0}", n - 1) };
            let chain = (0..many).map(|n| Step::Bind(Binding { name: format!("c{n}"), value: value(n) }));
            probe.body.splice(0..0, chain);
        }
        13 => declaration.tick = Some(random.number() as u32),
        14 => {
            let target = random.pick(&["m", "", "@m", "pid"]).to_owned();
            let change = match random.below(4) {
                0 => Change::Delete,
                1 => Change::Set("pid".to_owned()),
                2 => Change::Add("1 +".to_owned()),
                _ => Change::Observe(String::new()),
            };
            probe.body.insert(step, Step::Update(Update { target, key: vec!["pid".to_owned(); many], change }));
        }
        _ => {
            let step = random.number().cast_unsigned();
            let kind = MapKind::Histogram(Buckets::Linear { low: random.number(), high: random.number(), step });
            let map = MapUse { name: "m".to_owned(), kind, max_entries: random.number() as u32 };
            declaration.maps.extend(vec![map; many]);
            let kfunc = KfuncUse { name: "bpf_task_from_pid".to_owned(), required: random.below(2) == 0, claim: None };
            declaration.kfuncs.extend(vec![kfunc; many]);
        }
    }
}
