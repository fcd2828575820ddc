//! A declaration given meaning: parsed, resolved against the kernel's facts, type-checked, and laid out.
//!
//! A [`Plan`] is checked by being one: [`plan`] is the only way to make it, and what it accepts the later stages compile without a fault of the
//! plugin's and the verifier loads. All faults of a declaration are found in one go.
//!
//! The steps: the declaration's bounds and names (`validate`), each attach point (`attach`), each expression for each attach point of its
//! probe (`check`), and the layout that all attach points of a probe share (`layout`).

pub mod arithmetic;
mod attach;
mod check;
mod diagnostic;
mod familiar;
pub mod layout;
pub mod syntax;
mod user;
mod validate;

use std::collections::HashSet;
use std::time::Duration;

pub use attach::AttachPoint;
pub use check::{STR_DEFAULT, STR_MAX};
pub use diagnostic::{Diagnostic, Diagnostics, Shown, Span, is_unsafe};
use diagnostic::{Fault, shortened};
pub use user::{Location, UserKind, UserPoint};
pub use validate::{MAX_ATTACH_LENGTH, MAX_ATTACH_POINTS, MAX_NAME, MAX_PROBES, MAX_STEPS, MAX_TEXT, TICK};

use crate::declare::{Declaration, Probe, Step};
use crate::kernel::{KernelFacts, TypeId};
use check::Checker;
use layout::{FieldKind, MAX_RECORD, Schema};
use syntax::Expr;

/// A declaration that has been checked. What it says can be compiled and loaded on the kernel whose facts it was checked against.
#[derive(Clone, Debug)]
pub struct Plan {
    pub probes: Vec<ProbePlan>,
    /// One for each probe that emits, by id.
    pub schemas: Vec<Schema>,
    /// Time between calls of `on-tick`.
    pub tick: Option<Duration>,
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
}

/// One expression of a body, typed, with the text it was made from.
#[derive(Clone, Debug)]
pub struct Typed {
    pub node: Node,
    pub text: String,
    /// The step that it stands in, counted from 1.
    pub step: u32,
}

#[derive(Clone, Debug)]
pub enum PlanStep {
    /// Computed once, here, and kept.
    Bind { local: u32, value: Typed },
    /// The end of the program where this is false or absent.
    When(Typed),
    /// A record, fields in the order of the schema's.
    Emit(Vec<Typed>),
}

/// A typed expression. Integers, booleans and pointers are 64 bits wide while they are computed with, whatever their type says; they are
/// sign- or zero-extended when they are read. Any node may be absent, which makes each node that uses it absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub kind: NodeKind,
    pub ty: Type,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeKind {
    Constant(i64),
    Builtin(Builtin),
    /// So many bytes of the program's context, extended as the type says.
    Context {
        offset: u32,
        bytes: u8,
    },
    /// A pointer or integer argument of a tp_btf program: always read as 8 bytes, then narrowed as the type says.
    Argument {
        index: u32,
    },
    Local(u32),
    /// `bytes` at `base + offset`, extended as the type says. `bits`: only so many bits from that bit on (a bit field).
    Load {
        base: Box<Node>,
        offset: u32,
        bytes: u8,
        bits: Option<(u8, u8)>,
        access: Access,
    },
    /// `base + offset`, absent where base is null.
    Address {
        base: Box<Node>,
        offset: u32,
    },
    /// 1 where the value is 0, and 0 otherwise.
    Not(Box<Node>),
    Complement(Box<Node>),
    Negate(Box<Node>),
    /// Both operands are integers, booleans or (comparisons only) pointers.
    Arithmetic {
        op: arithmetic::Op,
        unsigned: bool,
        left: Box<Node>,
        right: Box<Node>,
    },
    /// The right is computed only where the left is not 0.
    And(Box<Node>, Box<Node>),
    /// The right is computed only where the left is 0.
    Or(Box<Node>, Box<Node>),
    Conditional {
        condition: Box<Node>,
        then: Box<Node>,
        otherwise: Box<Node>,
    },
    /// Whether two texts are the same.
    SameText(Box<Node>, Box<Node>),
    Literal(Vec<u8>),
    /// The thread's name.
    Comm,
    /// The text behind a pointer, up to the first 0 byte and at most as the type says. `array`: an array that may be full and then has no 0 byte, so
    /// reaching its end does not cut it.
    Str {
        pointer: Box<Node>,
        access: Access,
        array: bool,
    },
    /// A text in the program's context: an array that may be full.
    ContextText {
        offset: u32,
    },
    /// A text that a u32 of the context locates: its low 16 bits are the offset, from the context's start or (`relative`) from behind the u32.
    LocatedText {
        offset: u32,
        relative: bool,
    },
}

/// What an expression is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// So many bytes (1, 2, 4 or 8) hold any value of it.
    Integer {
        bytes: u8,
        signed: bool,
    },
    Boolean,
    Pointer {
        target: Target,
        origin: Origin,
    },
    /// At most so many bytes; longer texts are cut.
    Text {
        max: u32,
    },
}

/// What a pointer points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `void`, or something that the kernel's BTF does not tell.
    Unknown,
    Char,
    /// Not a typedef, nor qualified.
    Type(TypeId),
}

/// Where a pointer comes from, which decides how what it points to may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The verifier knows it and allows direct loads (arguments of tp_btf, `task`).
    Trusted,
    /// A kernel address found by a walk.
    Kernel,
    /// An address in the process's memory.
    User,
}

/// How memory is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// By a load instruction that the verifier checks by BTF; null is tested before it.
    Direct,
    /// bpf_probe_read_kernel: a fault makes the value absent.
    Kernel,
    /// bpf_probe_read_user: likewise.
    User,
}

/// Values that need no argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Builtin {
    /// The process id: the thread group's.
    Pid,
    /// The thread id.
    Tid,
    Uid,
    Gid,
    Cpu,
    /// Nanoseconds since boot (CLOCK_BOOTTIME).
    Nsecs,
    /// The id of the thread's cgroup v2.
    Cgroup,
    /// `struct task_struct *` of the running thread.
    Task,
}

/// Checks a declaration against a kernel.
///
/// # Errors
/// All faults of the declaration, never an empty list.
pub fn plan(declaration: &Declaration, facts: &KernelFacts) -> Result<Plan, Diagnostics> {
    validate::bounds(declaration)?;
    let (mut faults, mut names) = (Vec::new(), HashSet::new());
    let mut plan = Plan { probes: Vec::new(), schemas: Vec::new(), tick: None };
    plan.tick = declaration.tick.map(|ms| Duration::from_millis(u64::from(ms)));
    for probe in &declaration.probes {
        validate::form(probe, &mut names, &mut faults);
        let parsed = Parsed::new(probe, &mut faults);
        if let Some((checked, schema)) = parsed.check(plan.schemas.len() as u16, facts, &mut faults) {
            plan.probes.push(checked);
            plan.schemas.push(schema);
        }
    }
    if faults.is_empty() { Ok(plan) } else { Err(Diagnostics(faults)) }
}

/// A probe whose expressions have been read.
struct Parsed<'a> {
    probe: &'a Probe,
    attach: Vec<(&'a str, Result<attach::Spec, Fault>)>,
    steps: Vec<ParsedStep<'a>>,
    /// Whether each expression could be read.
    whole: bool,
}

enum ParsedStep<'a> {
    Bind(&'a str, Text<'a>),
    When(Text<'a>),
    Emit(&'a str, Vec<(&'a str, Text<'a>)>),
}

/// An expression with its place and text. `expr` is none where it could not be read.
struct Text<'a> {
    step: u32,
    place: String,
    text: &'a str,
    expr: Option<Expr>,
}

impl<'a> Parsed<'a> {
    fn new(probe: &'a Probe, faults: &mut Vec<Diagnostic>) -> Parsed<'a> {
        let before = faults.len();
        let mut steps = Vec::new();
        for (step, n) in probe.body.iter().zip(1..) {
            let mut read = |place: String, text: &'a str| {
                let expr = syntax::parse(text).map_err(|e| {
                    faults.push(e.within(&probe.name, &place, text));
                });
                Text { step: n, place, text, expr: expr.ok() }
            };
            match step {
                Step::Bind(b) => {
                    let place = format!("step {n} (bind `{}`)", shortened(&b.name));
                    steps.push(ParsedStep::Bind(&b.name, read(place, &b.value)));
                }
                Step::When(text) => steps.push(ParsedStep::When(read(format!("step {n} (when)"), text))),
                Step::Emit(event) => {
                    let fields = event.fields.iter();
                    let fields = fields
                        .map(|f| (f.name.as_str(), read(format!("field `{}`", shortened(&f.name)), &f.value)))
                        .collect();
                    steps.push(ParsedStep::Emit(&event.name, fields));
                }
                // Refused by `validate`.
                Step::Update(_) => {}
            }
        }
        let attach = probe.attach.iter().map(|text| (text.as_str(), attach::parse(text))).collect();
        Parsed { probe, attach, steps, whole: faults.len() == before }
    }

    /// The body typed at each attach point, and the schema they share.
    fn check(&self, id: u16, facts: &KernelFacts, faults: &mut Vec<Diagnostic>) -> Option<(ProbePlan, Schema)> {
        let before = faults.len();
        let mut points: Vec<PointPlan> = Vec::new();
        let mut schema: Option<(Schema, &str)> = None;
        for (text, spec) in &self.attach {
            let resolved = match spec.clone().and_then(|spec| attach::resolve(&spec, facts)) {
                Ok(resolved) => resolved,
                Err(fault) => {
                    faults.push(fault.within(&self.probe.name, "attach", text));
                    continue;
                }
            };
            for attach in resolved {
                let mut here = Vec::new();
                let checked = self.check_at(id, attach, facts, &mut here);
                merge(faults, before, here);
                let Some((point, point_schema)) = checked else { continue };
                match &schema {
                    None => schema = Some((point_schema, text)),
                    Some((first, at)) => faults.extend(self.disagreement(first, at, &point_schema, text)),
                }
                points.push(point);
            }
        }
        if faults.len() > before || !self.whole {
            return None;
        }
        let (schema, _) = schema?;
        Some((ProbePlan { name: self.probe.name.clone(), schema: id, points }, schema))
    }

    fn check_at(
        &self,
        id: u16,
        attach: AttachPoint,
        facts: &KernelFacts,
        faults: &mut Vec<Diagnostic>,
    ) -> Option<(PointPlan, Schema)> {
        let before = faults.len();
        let mut checker = Checker::new(facts, &attach);
        let mut steps = Vec::new();
        let mut schema = None;
        for step in &self.steps {
            match step {
                ParsedStep::Bind(name, text) => {
                    let value = self.typed(&mut checker, text, &attach, faults, |c, e| c.value(e));
                    // An expression that failed still binds its name, lest each use of it be reported as unknown.
                    let local = checker.bind(name, value.as_ref().map(|v| v.node.ty.clone()));
                    steps.extend(value.map(|value| PlanStep::Bind { local, value }));
                }
                ParsedStep::When(text) => {
                    let value = self.typed(&mut checker, text, &attach, faults, |c, e| c.condition(e));
                    steps.extend(value.map(PlanStep::When));
                }
                ParsedStep::Emit(event, fields) => {
                    let values: Vec<_> = fields
                        .iter()
                        .map(|(_, text)| self.typed(&mut checker, text, &attach, faults, |c, e| c.value(e)))
                        .collect();
                    let kinds = fields.iter().zip(&values).filter_map(|((name, _), value)| {
                        Some(((*name).to_owned(), field_kind(&value.as_ref()?.node.ty)))
                    });
                    let laid = Schema::new(id, &self.probe.name, event, kinds);
                    self.bound_record(&laid, &values, faults);
                    schema = Some(laid);
                    steps.push(PlanStep::Emit(values.into_iter().flatten().collect()));
                }
            }
        }
        let locals = checker.locals();
        (faults.len() == before && self.whole).then_some((PointPlan { attach, locals, steps }, schema?))
    }

    fn typed(
        &self,
        checker: &mut Checker<'_>,
        text: &Text<'_>,
        attach: &AttachPoint,
        faults: &mut Vec<Diagnostic>,
        check: impl FnOnce(&mut Checker<'_>, &Expr) -> Result<Node, Vec<Fault>>,
    ) -> Option<Typed> {
        match check(checker, text.expr.as_ref()?) {
            Ok(node) => Some(Typed { node, text: text.text.to_owned(), step: text.step }),
            Err(found) => {
                faults.extend(found.into_iter().map(|fault| Diagnostic {
                    at: vec![attach.to_string()],
                    ..fault.within(&self.probe.name, &text.place, text.text)
                }));
                None
            }
        }
    }

    fn bound_record(&self, schema: &Schema, values: &[Option<Typed>], faults: &mut Vec<Diagnostic>) {
        let texts: u64 =
            values.iter().flatten().map(|v| if let Type::Text { max } = v.node.ty { u64::from(max) } else { 0 }).sum();
        let largest = (u64::from(schema.size.next_multiple_of(8)) + texts).next_multiple_of(8);
        if largest > u64::from(MAX_RECORD) {
            faults.push(Diagnostic {
                probe: Some(shortened(&self.probe.name)),
                place: format!("event `{}`", shortened(&schema.name)),
                message: format!("a record of it may need {largest} bytes, and {MAX_RECORD} is the most"),
                source: None,
                at: Vec::new(),
                notes: vec!["help: bound its texts: `str(pointer, 1024)`".to_owned()],
            });
        }
    }

    /// Where the fields have other types at a later attach point than at the first.
    fn disagreement(&self, first: &Schema, first_at: &str, other: &Schema, other_at: &str) -> Vec<Diagnostic> {
        first
            .fields
            .iter()
            .zip(&other.fields)
            .filter(|(a, b)| a.kind != b.kind)
            .map(|(a, b)| Diagnostic {
                probe: Some(shortened(&self.probe.name)),
                place: format!("field `{}`", shortened(&a.name)),
                message: "its type differs between the attach points".to_owned(),
                source: None,
                at: Vec::new(),
                notes: vec![
                    format!("{} at {first_at}", kind_name(&a.kind)),
                    format!("{} at {other_at}", kind_name(&b.kind)),
                    "help: use a probe for each, or bring both to one type (`x + 0` is 64 bits wide)".to_owned(),
                ],
            })
            .collect()
    }
}

/// Adds faults found at one attach point. One that was found at an earlier point of the probe, behind `from`, is told once, with both.
fn merge(faults: &mut Vec<Diagnostic>, from: usize, found: Vec<Diagnostic>) {
    for fault in found {
        match faults[from..].iter_mut().find(|known| known.is_as(&fault)) {
            Some(known) => fault.at.into_iter().for_each(|at| {
                if !known.at.contains(&at) {
                    known.at.push(at);
                }
            }),
            None => faults.push(fault),
        }
    }
}

/// How a value of this type stands in a record.
fn field_kind(ty: &Type) -> FieldKind {
    match ty {
        Type::Integer { bytes, signed: true } => FieldKind::Signed(*bytes),
        Type::Integer { bytes, signed: false } => FieldKind::Unsigned(*bytes),
        Type::Boolean => FieldKind::Boolean,
        Type::Pointer { .. } => FieldKind::Unsigned(8),
        Type::Text { .. } => FieldKind::Text,
    }
}

/// A field's kind in words.
pub fn kind_name(kind: &FieldKind) -> String {
    match kind {
        FieldKind::Boolean => "boolean".to_owned(),
        FieldKind::Signed(n) => format!("signed {} bits", u32::from(*n) * 8),
        FieldKind::Unsigned(n) => format!("unsigned {} bits", u32::from(*n) * 8),
        FieldKind::Enumeration(_) => "enumeration".to_owned(),
        FieldKind::Text => "text".to_owned(),
        FieldKind::Bytes => "bytes".to_owned(),
        FieldKind::Address => "IP address".to_owned(),
        FieldKind::KernelSymbol => "kernel address".to_owned(),
        FieldKind::UserSymbol => "user address".to_owned(),
        FieldKind::KernelStack => "kernel stack".to_owned(),
        FieldKind::UserStack => "user stack".to_owned(),
    }
}
