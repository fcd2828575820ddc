//! A declaration given meaning: parsed, resolved against the kernel's facts, type-checked, and laid out.
//!
//! A [`Plan`] is checked by being one: [`plan`] is the only way to make it, and what it accepts the later stages
//! compile without a fault of the plugin's and the verifier loads. All faults of a declaration are found in one go.
//!
//! The steps: the declaration's bounds and names (`validate`), each attach point (`attach`), each expression for each
//! attach point of its probe (`probe`, `check`), and the layout that all attach points of a probe share (`layout`).

pub mod arithmetic;
mod attach;
mod bits;
mod bounds;
mod check;
mod constants;
mod diagnostic;
mod familiar;
pub mod kfunc;
pub mod layout;
mod named;
mod node;
mod pointer;
mod points;
mod probe;
mod prototype;
mod session;
mod shared;
pub mod syntax;
mod syscalls;
mod together;
mod uses;
mod validate;

use std::collections::HashSet;
use std::time::Duration;

pub use attach::{
    Again, AttachPoint, Counted, FunctionKind, Glob, Iter, KINDS, KernelFunction, Location, MAX_COMPARED_NAMES,
    PerfEvent, UserKind, UserPoint, count, event_names, find, function_names, function_names_of_module, is_denied,
    is_wild, iterator_kinds, kind, members, readable_fields,
};
pub use bits::{FlagNames, MAX_BEGINNINGS};
pub use bounds::{
    BUF_DEFAULT, BUF_MAX, COMM, FRAMES, MAX_ATTACH_LENGTH, MAX_ATTACH_POINTS, MAX_NAME, MAX_PROBES, MAX_STEPS,
    MAX_TEXT, PATH_DEFAULT, STR_DEFAULT, STR_MAX, TICK,
};
pub use check::{MAX_NESTED_WALKS, MAX_SEARCHED};
pub use diagnostic::{Diagnostic, Diagnostics, Fault, Shown, Span, is_unsafe};
pub use layout::kind_name;
pub use named::Names;
pub use node::{Access, Builtin, Directories, Form, Match, Memory, Mounts, Node, NodeKind, Origin, Target, Type};
pub use points::PointName;
pub use probe::MAX_ALL_VALUE_NAMES;
pub use session::Session;
pub use together::MAX_VALUE_NAMES;
pub use uses::MAX_KFUNCS;

use crate::declare::Declaration;
use crate::kernel::KernelFacts;
use attach::Search;
use layout::Schema;
use probe::Parsed;
use uses::Uses;

/// The type of an expression at an attach point, if it is a value there.
///
/// # Errors
/// What is wrong with it.
pub fn type_of(expression: &str, attach: &AttachPoint, facts: &KernelFacts) -> Result<Type, Vec<Fault>> {
    let expression = syntax::parse(expression).map_err(|fault| vec![fault])?;
    let points = points::Points::new(std::slice::from_ref(attach));
    let uses = Uses::default();
    Ok(check::Checker::new(facts, attach, &points, 0, &uses).value(&expression)?.ty)
}

/// A declaration that has been checked. What it says can be compiled and loaded on the kernel whose facts it was
/// checked against.
#[derive(Clone, Debug)]
pub struct Plan {
    pub probes: Vec<ProbePlan>,
    /// One for each probe that emits, by id.
    pub schemas: Vec<Schema>,
    /// The kfuncs that it lists, in the order of their names.
    pub kfuncs: Vec<UsedKfunc>,
    /// Time between calls of `on-tick`.
    pub tick: Option<Duration>,
}

/// A kfunc that a declaration lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedKfunc {
    pub name: String,
    /// What it changes that is not the plugin's own.
    pub effect: Option<&'static str>,
    /// Whether this kernel lacks it, so that what calls it is absent.
    pub missing: bool,
    /// Whether what it does with ownership is known by the plugin's claim alone.
    pub claimed: bool,
}

impl Plan {
    /// Whether a probe is at the return of functions whose calls the kernel has to follow.
    pub fn follows_calls(&self) -> bool {
        let mut functions = self.probes.iter().flat_map(|probe| &probe.points).filter_map(PointPlan::function);
        functions.any(|function| function.kind == FunctionKind::Kretprobe)
    }

    /// Bytes that a record of the probe's takes in the ring at most, when `body` sends it.
    pub fn largest_record(&self, probe: usize, body: &PointPlan) -> u64 {
        // The kernel puts a header of 8 bytes in front of each.
        const RING_HEADER: u64 = 8;
        let schema = &self.schemas[usize::from(self.probes[probe].schema)];
        RING_HEADER + largest_record(schema.size, body.fields().iter())
    }
}

/// Bytes of a record at most, of which so many are fixed and whose texts, bytes and stacks are among these.
fn largest_record<'a>(size: u32, fields: impl Iterator<Item = &'a Typed>) -> u64 {
    let tails = fields.map(|v| u64::from(v.node.ty.tail().unwrap_or(0))).sum::<u64>();
    (u64::from(size.next_multiple_of(8)) + tails).next_multiple_of(8)
}

/// One probe: the same steps at each of its attach points.
#[derive(Clone, Debug)]
pub struct ProbePlan {
    pub name: String,
    /// Index into [`Plan::schemas`].
    pub schema: u16,
    pub points: Vec<PointPlan>,
}

/// A probe's body, typed for one attach point.
#[derive(Clone, Debug)]
pub struct PointPlan {
    pub attach: AttachPoint,
    /// How many values the body binds.
    pub locals: u32,
    pub steps: Vec<PlanStep>,
    /// What `probe` and `func` are here.
    pub number: i64,
    /// Whether it reads registers by their names.
    pub reads_registers: bool,
    /// Whether it calls what may sleep, so that its program is one that may.
    pub sleeps: bool,
    /// Whether it walks over objects of the kernel's.
    pub walks: bool,
    /// The attach point of the same probe whose program serves this one, too, which is for several functions; the first
    /// of those that share one names itself.
    pub shares: Option<usize>,
    /// Where its program is called at the entry, too.
    pub session: Option<Session>,
}

impl PointPlan {
    /// The process that alone is asked for, where the first step asks for one by its number: `when pid == 4711`, or
    /// that and more.
    pub fn process(&self) -> Option<u32> {
        match self.steps.first()? {
            PlanStep::When(condition) => condition.node.process(),
            _ => None,
        }
    }

    /// What it sends, in the order of the schema's fields.
    pub fn fields(&self) -> &[Typed] {
        let sent =
            self.steps.iter().find_map(|step| if let PlanStep::Emit(fields) = step { Some(fields) } else { None });
        sent.map(Vec::as_slice).unwrap_or_default()
    }
}

/// One expression of a body, typed, with the text it was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Typed {
    pub node: Node,
    pub text: String,
    /// The step that it stands in, counted from 1.
    pub step: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanStep {
    /// Computed once, here, and kept.
    Bind { local: u32, value: Typed },
    /// The end of the program where this is false or absent.
    When(Typed),
    /// A record, fields in the order of the schema's.
    Emit(Vec<Typed>),
}

/// What a run allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Calls of kfuncs that change what is not the plugin's own: signals sent, attributes of files written, …
    pub effects: bool,
}

/// Checks a declaration against a kernel, for a run that allows no effects.
///
/// # Errors
/// All faults of the declaration, never an empty list.
pub fn plan(declaration: &Declaration, facts: &KernelFacts) -> Result<Plan, Diagnostics> {
    plan_under(declaration, facts, &Policy::default())
}

/// Checks a declaration against a kernel and what the run allows.
///
/// # Errors
/// All faults of the declaration, never an empty list.
pub fn plan_under(declaration: &Declaration, facts: &KernelFacts, policy: &Policy) -> Result<Plan, Diagnostics> {
    validate::bounds(declaration)?;
    let (mut faults, mut names) = (Vec::new(), HashSet::new());
    let mut plan = Plan { probes: Vec::new(), schemas: Vec::new(), kfuncs: Vec::new(), tick: None };
    validate::beside(declaration, &mut faults);
    plan.tick = declaration.tick.map(|ms| Duration::from_millis(u64::from(ms)));
    let uses = Uses::of(declaration, facts, policy, &mut faults);
    plan.kfuncs = uses.used();
    let search = Search::new(facts);
    let (mut read, mut points) = (Vec::new(), Vec::new());
    for probe in &declaration.probes {
        let mut here = Vec::new();
        validate::form(probe, &mut names, &mut here);
        let mut parsed = Parsed::new(probe, &mut here);
        let room = MAX_ATTACH_POINTS.saturating_sub(points.iter().sum());
        points.push(parsed.expand(&search, room, &mut here));
        read.push((parsed, here));
    }
    let unbounded = validate::expanded(declaration, &points, read.iter().map(|(parsed, _)| parsed.expanded_text()));
    let bounded = unbounded.is_none();
    faults.extend(unbounded);
    for (parsed, mut here) in read {
        if faults.len() > diagnostic::FOUND {
            break;
        }
        if let Some((checked, schema)) =
            bounded.then(|| parsed.check(plan.schemas.len() as u16, &search, &uses, &mut here)).flatten()
        {
            plan.probes.push(checked);
            plan.schemas.push(schema);
        }
        faults.append(&mut here);
    }
    if faults.is_empty() {
        probe::bound_value_names(&plan.schemas, &mut faults);
    }
    if faults.is_empty() { Ok(plan) } else { Err(Diagnostics(faults)) }
}
