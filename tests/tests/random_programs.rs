//! What the checker accepts, the verifier accepts: random declarations (`generate`), of every kind of attach point that
//! this kernel has.
//!
//! Seeds are taken one after the other, and each makes a declaration of some dozen probes, loaded as one object. What
//! the verifier refuses is made as small as it can be and printed, with the seed: `PORTHOLE_SEED=17 PORTHOLE_COUNT=1
//! cargo test root_random_declarations_load` makes it anew. `make soak` makes many more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use porthole::compile::compile;
use porthole::declare::{Declaration, KfuncUse, Probe};
use porthole::kernel::KernelFacts;
use porthole::load::{LoadError, load};
use porthole_tests::declaration;
use porthole_tests::generate::kfuncs::Kfuncs;
use porthole_tests::generate::points::Points;
use porthole_tests::generate::{Generator, RING, alone, planned, smallest};
use porthole_tests::kernel::{Object, Verdict};
use porthole_tests::live::unless_root;
use porthole_tests::random::{Random, SEED, count, seed};

/// Programs that are loaded at least.
const PROGRAMS: u64 = 3000;
/// And of those that call kernel functions.
const CALLING: u64 = 2000;
/// Probes of one object.
const PROBES: usize = 24;
/// Refusals told at most: one fault of the compiler makes many.
const TOLD: usize = 5;

/// What all threads have done together.
#[derive(Default)]
struct Tally {
    programs: u64,
    expressions: u64,
    refused_by_the_planner: u64,
    cut: u64,
    kinds: BTreeMap<String, u64>,
    /// Kfuncs that are called in what was loaded.
    called: BTreeSet<String>,
    /// Where the time went: making declarations, compiling them, loading them.
    times: [Duration; 3],
    /// The most instructions that the verifier went through for one program, and that program's seed and name.
    dearest: (u64, u64, String),
    /// What the kernel refused.
    faults: Vec<String>,
}

#[test]
fn root_random_declarations_load() {
    if unless_root() {
        return;
    }
    let facts = KernelFacts::running();
    many(&facts, None, PROGRAMS);
}

/// The same with calls of kernel functions, and walks.
#[test]
fn root_random_calls_load() {
    if unless_root() {
        return;
    }
    // What may be called from where is tried once in a boot.
    let facts = KernelFacts::running().remembering_in(Some(env!("CARGO_TARGET_TMPDIR").into()));
    let kfuncs = Kfuncs::of(&facts);
    if !kfuncs.are_there() {
        println!("skipped: this kernel has no kfunc that a plugin may call");
        return;
    }
    let called = many(&facts, Some(&kfuncs), CALLING);
    let (called, missing): (Vec<&str>, Vec<&str>) = kfuncs.names().into_iter().partition(|name| called.contains(*name));
    println!("{} of the kfuncs that there are were called, and not {missing:?}", called.len());
    // Linux 6.1 has two.
    assert!(count(CALLING) < CALLING || missing.len() <= called.len() / 10 + 1, "few of what there is are called");
}

/// Loads random programs, as many as that at least; the kfuncs that they call.
fn many(facts: &KernelFacts, kfuncs: Option<&Kfuncs>, usual: u64) -> BTreeSet<String> {
    let points = Points::of(facts);
    let (first, most) = (seed(), count(usual).div_ceil(PROBES as u64));
    println!("{SEED}={first}");
    let (next, tally) = (AtomicU64::new(0), Mutex::new(Tally::default()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= most || tally.lock().unwrap().faults.len() >= TOLD {
                        break;
                    }
                    one(facts, (&points, kfuncs), first + n, &tally);
                }
            });
        }
    });
    let tally = tally.into_inner().unwrap();
    println!(
        "{} programs of {} expressions, of which the planner refused {}; {} were cut to what a program holds",
        tally.programs, tally.expressions, tally.refused_by_the_planner, tally.cut
    );
    println!("{:?}", tally.kinds);
    let (processed, seed, program) = &tally.dearest;
    println!("at most {processed} instructions were gone through, for {program} of {SEED}={seed}");
    println!("making {:?}, compiling {:?}, loading {:?}", tally.times[0], tally.times[1], tally.times[2]);
    assert!(tally.faults.is_empty(), "{}", tally.faults.join("\n"));
    assert!(tally.refused_by_the_planner * 5 < tally.expressions, "what is written is seldom well-typed");
    if most * PROBES as u64 >= usual {
        let missing: Vec<&str> = points.kinds().filter(|kind| !tally.kinds.contains_key(*kind)).collect();
        assert!(missing.is_empty(), "no program of {missing:?}");
        assert!(tally.cut >= 5, "few programs are near the bounds");
    }
    tally.called
}

/// Makes the declaration of a seed and loads it.
fn one(facts: &KernelFacts, (points, kfuncs): (&Points, Option<&Kfuncs>), seed: u64, tally: &Mutex<Tally>) {
    let started = Instant::now();
    let mut generator = Generator::new(facts, points);
    if let Some(kfuncs) = kfuncs {
        generator = generator.calling(kfuncs);
    }
    // Numbers of a seed are those of the next one, moved by one: declarations would be alike from where they meet.
    let mut random = Random::new(seed << 20);
    let declaration = generator.declaration(&mut random, PROBES);
    let made = started.elapsed();
    let planned = planned(&declaration, facts).unwrap_or_else(|e| panic!("{SEED}={seed}\n{e}"));
    let compiled = compile(&planned, "random", RING).unwrap_or_else(|e| panic!("{SEED}={seed}: {e}"));
    let at = Instant::now();
    let (loaded, verdicts) = Object::load(&compiled.bytes);
    let loading = at.elapsed();
    let is_loaded = loaded.is_ok();
    let fault = loaded.err().and_then(|_| fault(facts, &declaration, &verdicts, seed));
    let mut tally = tally.lock().unwrap();
    tally.programs += compiled.programs.len() as u64;
    tally.expressions += generator.made.expressions;
    tally.refused_by_the_planner += generator.made.refused;
    tally.cut += generator.made.cut;
    if is_loaded {
        tally.called.extend(compiled.object.kfuncs.into_iter().map(|kfunc| kfunc.name));
    }
    for point in declaration.probes.iter().flat_map(|p| &p.attach) {
        let kind = point.split(':').next().unwrap_or_default();
        *tally.kinds.entry(kind.to_owned()).or_default() += 1;
    }
    for (sum, time) in tally.times.iter_mut().zip([made, started.elapsed() - made - loading, loading]) {
        *sum += time;
    }
    for verdict in verdicts {
        let cost = (verdict.processed.unwrap_or(0), seed, verdict.program);
        tally.dearest = cost.max(std::mem::take(&mut tally.dearest));
    }
    tally.faults.extend(fault);
}

/// What there is to tell of an object that was not loaded; none where that is the kernel's doing.
fn fault(facts: &KernelFacts, declaration: &Declaration, verdicts: &[Verdict], seed: u64) -> Option<String> {
    let Declaration { kfuncs, probes, .. } = declaration;
    let loads = |probe: &Probe| loads(facts, probe, kfuncs);
    // Programs are loaded in their order, so the last of which anything was said is the one.
    let refused = verdicts.iter().rev().find(|verdict| !verdict.log.is_empty());
    let named =
        refused.and_then(|v| probes.iter().find(|p| v.program.rsplit_once('_').is_some_and(|(n, _)| n == p.name)));
    let Some(probe) = named.filter(|probe| loads(probe).is_err()).or(probes.iter().find(|p| loads(p).is_err())) else {
        return Some(format!("{SEED}={seed}: only together: {refused:?}"));
    };
    let smallest = smallest(probe, |less| loads(less).is_err());
    let verdicts = loads(&smallest).err().unwrap_or_default();
    let compiled = compile(&planned(&alone(&smallest, kfuncs), facts).ok()?, "random", RING).ok()?;
    match load(&compiled).err() {
        // That lies in the function, and is told as such.
        Some(LoadError::Bound { .. }) => None,
        _ => Some(format!("{SEED}={seed}\n{}{}", told(&smallest, kfuncs), verdicts.join("\n"))),
    }
}

/// Loads the probe alone; what the verifier says where it refuses it. What is not the compiler's fault counts as
/// loaded.
fn loads(facts: &KernelFacts, probe: &Probe, kfuncs: &[KfuncUse]) -> Result<(), Vec<String>> {
    // Something that was taken away may be needed.
    let Ok(plan) = planned(&alone(probe, kfuncs), facts) else { return Ok(()) };
    let Ok(compiled) = compile(&plan, "random", RING) else { return Ok(()) };
    let (loaded, verdicts) = Object::load(&compiled.bytes);
    loaded.map(drop).map_err(|_| verdicts.into_iter().map(|v| v.log).collect())
}

/// The probe as text, and those of the kfuncs that it may call.
fn told(probe: &Probe, kfuncs: &[KfuncUse]) -> String {
    let text = declaration::text(probe);
    // A walk does not name what it walks by.
    let named = kfuncs.iter().filter(|kfunc| text.contains(&kfunc.name) || kfunc.name.starts_with("bpf_iter_"));
    let line = |kfunc: &KfuncUse| format!("kfunc {}{}\n", kfunc.name, if kfunc.required { "" } else { "?" });
    named.map(line).chain([text.clone()]).collect()
}

/// Loads a declaration that is kept in a file, as refusals are printed, and says what that cost the verifier.
#[test]
fn root_a_declaration_of_a_file_loads() {
    let Some(path) = std::env::var_os("PORTHOLE_DECLARATION") else {
        println!("skipped: PORTHOLE_DECLARATION names no file");
        return;
    };
    let text = std::fs::read_to_string(&path).expect("the file can be read");
    let declaration = declaration::parse(&text).unwrap_or_else(|e| panic!("{e}"));
    let plan = planned(&declaration, &KernelFacts::running()).unwrap_or_else(|e| panic!("{e}"));
    let compiled = compile(&plan, "random", RING).unwrap_or_else(|e| panic!("{e}"));
    let (loaded, verdicts) = Object::load(&compiled.bytes);
    verdicts.iter().for_each(|v| println!("{}: {:?} instructions gone through\n{}", v.program, v.processed, v.log));
    // What libbpf itself refuses has no verdict.
    let told = || load(&compiled).err().map(|error| error.to_string());
    assert!(loaded.is_ok(), "refused: {}", told().unwrap_or_default());
}
