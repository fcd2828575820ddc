//! Random declarations that mean something on this kernel: the same for the same seed.
//!
//! The problem: that the verifier loads what the checker accepts can be shown for what somebody thought of, and what
//! goes wrong is what nobody thought of. The idea: walk at random. A [`Generator`] draws attach points of every kind
//! that the kernel has ([`points`]), finds out what can be named there by walking through BTF from the arguments and
//! asking the planner for the types ([`vocabulary`]), and writes bodies of it ([`writer`]), from one field to as much
//! as a program can hold. With [`kfuncs`], these call kernel functions and walk, too.
//!
//! What is written is meant to be well-typed. What the planner refuses all the same is left out and counted, so that a
//! test can say how seldom that is.

mod caller;
pub mod kfuncs;
pub mod points;
pub mod vocabulary;
mod writer;

use porthole::compile::{CompileError, compile};
use porthole::declare::{Declaration, Event, Field, KfuncUse, Probe, Step};
use porthole::kernel::KernelFacts;
use porthole::plan::{Diagnostics, Plan, Policy, plan_under};

use crate::declaration::bind;
use crate::random::Random;
use kfuncs::Kfuncs;
use points::Points;
use vocabulary::Vocabulary;
use writer::Writer;

/// Bytes of the ring that declarations are compiled with.
pub const RING: u32 = 1 << 16;

/// What has been made.
#[derive(Clone, Debug, Default)]
pub struct Made {
    pub probes: u64,
    pub expressions: u64,
    /// Expressions that the planner refused.
    pub refused: u64,
    /// Probes that were more than a program can hold, and have lost some of it.
    pub cut: u64,
}

/// Makes declarations for one kernel.
pub struct Generator<'a> {
    pub facts: &'a KernelFacts,
    points: &'a Points,
    /// What is called, if anything is.
    kfuncs: Option<&'a Kfuncs>,
    pub made: Made,
}

/// Plans what is loaded and never run, so that it may change what it likes.
///
/// # Errors
/// The declaration's faults.
pub fn planned(declaration: &Declaration, facts: &KernelFacts) -> Result<Plan, Diagnostics> {
    plan_under(declaration, facts, &Policy { effects: true })
}

/// Fewer parts, bytes of text and paths are within all bounds.
const SMALL: (usize, usize, usize) = (24, 4000, 5);

/// How much a body holds at most.
struct Size {
    steps: u64,
    fields: u64,
    depth: u32,
    /// And no less; it is then cut to what a program can hold.
    full: bool,
}

impl Size {
    fn draw(&self, random: &mut Random, most: u64) -> u64 {
        if self.full { most } else { random.below(most + 1) }
    }
}

impl<'a> Generator<'a> {
    pub fn new(facts: &'a KernelFacts, points: &'a Points) -> Generator<'a> {
        Generator { facts, points, kfuncs: None, made: Made::default() }
    }

    pub fn calling(self, kfuncs: &'a Kfuncs) -> Generator<'a> {
        Generator { kfuncs: Some(kfuncs), ..self }
    }

    /// A declaration of so many probes.
    pub fn declaration(&mut self, random: &mut Random, probes: usize) -> Declaration {
        /// Probes made of one vocabulary.
        const SHARED: usize = 6;
        let kfuncs = self.kfuncs.map(|kfuncs| kfuncs.listed(random)).unwrap_or_default();
        let mut declaration = Declaration { kfuncs, ..Declaration::default() };
        while declaration.probes.len() < probes {
            let vocabulary = self.vocabulary(random, &declaration.kfuncs);
            let more = SHARED.min(probes - declaration.probes.len());
            let first = declaration.probes.len();
            let written = (first..first + more).map(|n| self.probe(random, &vocabulary, format!("p{n}"))).collect();
            let accepted = self.accepted(written, &declaration.kfuncs);
            declaration.probes.extend(accepted);
        }
        for probe in &mut declaration.probes {
            self.cut_to_bounds(probe, &declaration.kfuncs);
        }
        self.made.probes += probes as u64;
        declaration
    }

    fn vocabulary(&mut self, random: &mut Random, listed: &[KfuncUse]) -> Vocabulary {
        // Not every function of BTF can be traced, and not every pair of points goes together.
        for _ in 0..1000 {
            let points = self.points.draw(random);
            if let Some(vocabulary) = Vocabulary::of(self.facts, points, (self.kfuncs, listed), random) {
                return vocabulary;
            }
        }
        panic!("nothing can be attached to")
    }

    fn probe(&mut self, random: &mut Random, vocabulary: &Vocabulary, name: String) -> Probe {
        let size = match random.below(100) {
            0 if random.below(2) == 0 => Size { steps: 100, fields: 64, depth: 5, full: true },
            0 => Size { steps: 20, fields: 64, depth: 7, full: true },
            1 => Size { steps: 120, fields: 20, depth: 4, full: false },
            2..5 => Size { steps: 10, fields: 64, depth: 2, full: false },
            5..12 => Size { steps: 8, fields: 24, depth: 5, full: false },
            12..40 => Size { steps: 6, fields: 8, depth: 4, full: false },
            _ => Size { steps: 4, fields: 4, depth: 3, full: false },
        };
        let btf = self.facts.btf().expect("BTF");
        let mut writer = Writer::new(random, btf, vocabulary);
        let mut body = Vec::new();
        for _ in 0..size.draw(writer.random, size.steps) {
            let depth = 1 + writer.random.below(size.depth.into()) as u32;
            body.push(match writer.random.below(3) {
                0 => Step::When(writer.likely(depth)),
                _ => {
                    let (name, value) = writer.binding(depth);
                    bind(&name, &value)
                }
            });
        }
        let count = size.draw(writer.random, size.fields);
        let field = |n| {
            let depth = 1 + writer.random.below(size.depth.into()) as u32;
            Field { name: format!("f{n}"), value: writer.field(depth) }
        };
        let fields: Vec<Field> = (0..count).map(field).collect();
        self.made.expressions += body.len() as u64 + count;
        body.push(Step::Emit(Event { name: "e".to_owned(), fields }));
        Probe { name, attach: vocabulary.attach.clone(), body }
    }

    /// The probes without what the planner refuses of them.
    fn accepted(&mut self, mut probes: Vec<Probe>, kfuncs: &[KfuncUse]) -> Vec<Probe> {
        loop {
            let declaration = Declaration { kfuncs: kfuncs.to_vec(), probes, ..Declaration::default() };
            let Err(faults) = planned(&declaration, self.facts) else { return declaration.probes };
            probes = declaration.probes;
            let before = probes.iter().map(parts).sum::<usize>();
            for probe in &mut probes {
                let of_probe = |place: &str| {
                    faults.0.iter().any(|f| f.probe.as_deref() == Some(probe.name.as_str()) && f.place == place)
                };
                let step = |n: usize, step: &Step| match step {
                    Step::Bind(b) => of_probe(&format!("step {n} (bind `{}`)", b.name)),
                    Step::When(_) => of_probe(&format!("step {n} (when)")),
                    _ => false,
                };
                let keep: Vec<bool> = (1..).zip(&probe.body).map(|(n, s)| !step(n, s)).collect();
                let mut emit = probe.body.pop();
                if let Some(Step::Emit(event)) = &mut emit {
                    event.fields.retain(|f| !of_probe(&format!("field `{}`", f.name)));
                    if of_probe(&format!("event `{}`", event.name)) {
                        event.fields.truncate(event.fields.len() / 2);
                    }
                }
                let mut keep = keep.into_iter();
                probe.body.retain(|_| keep.next().unwrap_or(true));
                probe.body.extend(emit);
            }
            let after = probes.iter().map(parts).sum::<usize>();
            assert!(after < before, "{faults}\n{probes:#?}");
            self.made.refused += (before - after) as u64;
        }
    }

    /// Takes away from a probe until a program can hold it: so it is near the bounds.
    fn cut_to_bounds(&mut self, probe: &mut Probe, kfuncs: &[KfuncUse]) {
        let text: usize = expressions(probe).map(str::len).sum();
        let paths: usize = expressions(probe).map(|e| e.matches("path(").count()).sum();
        // A few bound values that calls have given are many paths.
        if kfuncs.is_empty() && parts(probe) < SMALL.0 && text < SMALL.1 && paths < SMALL.2 {
            return;
        }
        let mut cut = false;
        while let Err(error) = self.compiled(probe, kfuncs) {
            let by_bounds = matches!(error, CompileError::TooLarge(_) | CompileError::TooComplex { .. });
            assert!(by_bounds, "{error}\n{}", crate::declaration::text(probe));
            let most = (parts(probe) / 8).max(1);
            for _ in 0..most {
                take_away_last(probe);
            }
            cut = true;
        }
        self.made.cut += u64::from(cut);
    }

    fn compiled(&self, probe: &Probe, kfuncs: &[KfuncUse]) -> Result<(), CompileError> {
        let plan = planned(&alone(probe, kfuncs), self.facts).unwrap_or_else(|e| panic!("{e}"));
        compile(&plan, "plugin", RING).map(drop)
    }
}

/// A declaration of this probe, which lists these kfuncs.
pub fn alone(probe: &Probe, kfuncs: &[KfuncUse]) -> Declaration {
    Declaration { kfuncs: kfuncs.to_vec(), probes: vec![probe.clone()], ..Declaration::default() }
}

/// Steps and fields, the event itself not counted.
pub fn parts(probe: &Probe) -> usize {
    let fields = |step: &Step| if let Step::Emit(event) = step { event.fields.len() } else { 1 };
    probe.body.iter().map(fields).sum()
}

fn expressions(probe: &Probe) -> impl Iterator<Item = &str> {
    probe.body.iter().flat_map(|step| match step {
        Step::Bind(binding) => vec![binding.value.as_str()],
        Step::When(condition) => vec![condition.as_str()],
        Step::Emit(event) => event.fields.iter().map(|f| f.value.as_str()).collect(),
        Step::Update(_) => Vec::new(),
    })
}

/// Takes the last field away, or the last step: nothing that is left can need it.
fn take_away_last(probe: &mut Probe) {
    let steps = probe.body.len();
    match probe.body.last_mut() {
        Some(Step::Emit(event)) if !event.fields.is_empty() => drop(event.fields.pop()),
        _ if steps > 1 => drop(probe.body.remove(steps - 2)),
        _ => panic!("nothing is left of {}", probe.name),
    }
}

/// The smallest probe that can be made of this one, by taking parts away, for which `fails` holds.
pub fn smallest(probe: &Probe, fails: impl Fn(&Probe) -> bool) -> Probe {
    let mut probe = probe.clone();
    // What stands behind may need what stands before, so the last goes first.
    for n in (0..parts(&probe)).rev() {
        let less = without(&probe, n);
        if fails(&less) {
            probe = less;
        }
    }
    if let Some(point) = (probe.attach.len() > 1).then(|| probe.attach.clone())
        && let Some(one) = point.into_iter().map(|p| Probe { attach: vec![p], ..probe.clone() }).find(&fails)
    {
        probe = one;
    }
    probe
}

/// The probe without its part of that number; steps are counted first, then fields.
fn without(probe: &Probe, n: usize) -> Probe {
    let mut probe = probe.clone();
    let steps = probe.body.len() - 1;
    if n < steps {
        probe.body.remove(n);
    } else if let Some(Step::Emit(event)) = probe.body.last_mut() {
        event.fields.remove(n - steps);
    }
    probe
}
