//! A probe: its expressions read once, typed at each of its attach points, and the layout that all of these share.

use std::collections::HashSet;

use super::attach::{self, Meant, Search};
use super::check::Checker;
use super::diagnostic::{Diagnostic, Fault, shortened};
use super::layout::{FieldKind, MAX_RECORD, Schema};
use super::syntax::{self, Expr};
use super::{
    AttachPoint, Names, Node, PlanStep, PointPlan, ProbePlan, Type, Typed, kind_name, largest_record, validate,
};
use crate::declare::{Probe, Step};
use crate::kernel::KernelFacts;

/// Names of an enumeration of the kernel's at most: the values of one with more are sent without names.
pub const MAX_VALUE_NAMES: usize = 256;
/// Names of all enumerations of all fields at most.
pub const MAX_ALL_VALUE_NAMES: usize = 1 << 16;

/// A probe whose expressions have been read.
pub(super) struct Parsed<'a> {
    probe: &'a Probe,
    /// Its attach points as they are written, lists resolved, and what each stands for: none where that could not be told.
    attach: Vec<(String, Option<Meant>)>,
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
    pub(super) fn new(probe: &'a Probe, faults: &mut Vec<Diagnostic>) -> Parsed<'a> {
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
        Parsed { probe, attach: Vec::new(), steps, whole: faults.len() == before }
    }

    /// Tells what its attach points stand for, `room` of them at most; how many there are, which is more than `room` where that ended it.
    pub(super) fn expand(&mut self, search: &Search<'_>, room: usize, faults: &mut Vec<Diagnostic>) -> usize {
        let mut points = 0;
        for text in self.probe.attach.iter().flat_map(|text| attach::members(text)) {
            if points > room {
                break;
            }
            let meant = attach::parse(&text).and_then(|spec| attach::expand(&spec, search));
            let meant = meant.map_err(|fault| faults.push(fault.within(&self.probe.name, "attach", &text))).ok();
            points += meant.as_ref().map_or(0, |meant| meant.specs.len());
            self.attach.push((text, meant));
        }
        points
    }

    /// Bytes of its expressions, counted once for each attach point.
    pub(super) fn expanded_text(&self) -> usize {
        let points: usize = self.attach.iter().flat_map(|(_, meant)| meant).map(|meant| meant.specs.len()).sum();
        points.saturating_mul(validate::expressions(self.probe))
    }

    /// The body typed at each attach point, and the schema they share.
    pub(super) fn check(
        &self,
        id: u16,
        search: &Search<'_>,
        faults: &mut Vec<Diagnostic>,
    ) -> Option<(ProbePlan, Schema)> {
        let before = faults.len();
        let mut points: Vec<PointPlan> = Vec::new();
        let mut schema: Option<(Schema, String)> = None;
        let found = self.find(search, faults);
        let faulty = faults.len() > before || self.attach.iter().any(|(_, meant)| meant.is_none());
        let before = faults.len();
        for attach in found {
            let mut here = Vec::new();
            let at = attach.to_string();
            let checked = self.check_at(id, attach, search.facts, &mut here);
            merge(faults, before, here);
            let Some((point, point_schema)) = checked else { continue };
            match &schema {
                None => schema = Some((point_schema, at)),
                Some((first, first_at)) => faults.extend(self.disagreement(first, first_at, &point_schema, &at)),
            }
            points.push(point);
        }
        if faulty || faults.len() > before || !self.whole {
            return None;
        }
        let (schema, _) = schema?;
        Some((ProbePlan { name: self.probe.name.clone(), schema: id, points }, schema))
    }

    /// Its attach points on this kernel. What several patterns match is there once.
    fn find(&self, search: &Search<'_>, faults: &mut Vec<Diagnostic>) -> Vec<AttachPoint> {
        let (mut found, mut seen) = (Vec::new(), HashSet::new());
        for (text, meant) in &self.attach {
            match meant.as_ref().map_or(Ok(Vec::new()), |meant| meant.find(search)) {
                Ok(named) => {
                    let new = named.into_iter().filter(|points| seen.insert(points.first().map(ToString::to_string)));
                    found.extend(new.flatten());
                }
                Err(fault) => faults.push(fault.within(&self.probe.name, "attach", text)),
            }
        }
        found
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
                        Some(((*name).to_owned(), field_kind(&value.as_ref()?.node.ty, facts)))
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
        let largest = largest_record(schema, values.iter().flatten());
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

/// Refuses schemas that have more names of values than a plugin can want.
pub fn bound_value_names(schemas: &[Schema], faults: &mut Vec<Diagnostic>) {
    let of_field = |kind: &FieldKind| if let FieldKind::Enumeration(names) = kind { names.len() } else { 0 };
    let names: usize = schemas.iter().flat_map(|s| &s.fields).map(|f| of_field(&f.kind)).sum();
    if names > MAX_ALL_VALUE_NAMES {
        faults.push(Diagnostic {
            probe: None,
            place: "the declaration".to_owned(),
            message: format!("its fields have enumerations with {names} names, and {MAX_ALL_VALUE_NAMES} is the most"),
            source: None,
            at: Vec::new(),
            notes: vec!["help: `x + 0` is a number without names".to_owned()],
        });
    }
}

/// How a value of this type stands in a record.
fn field_kind(ty: &Type, facts: &KernelFacts) -> FieldKind {
    match *ty {
        Type::Integer { bytes, signed: true } => FieldKind::Signed(bytes),
        Type::Integer { bytes, signed: false } => FieldKind::Unsigned(bytes),
        Type::Boolean => FieldKind::Boolean,
        Type::Enumeration { names, bytes, signed } => {
            let values = names.values(facts);
            // Only the kernel's own can have so many that a record's reader is better off without.
            if values.is_empty() || matches!(names, Names::Kernel(_)) && values.len() > MAX_VALUE_NAMES {
                return field_kind(&Type::Integer { bytes, signed }, facts);
            }
            FieldKind::Enumeration(values)
        }
        Type::Pointer { .. } => FieldKind::Unsigned(8),
        Type::Text { .. } => FieldKind::Text,
    }
}
