//! A probe: its expressions read once, typed at each of its attach points, and the layout that all of these share.

use std::collections::HashSet;

use super::attach::{self, Meant, Search};
use super::check::Checker;
use super::diagnostic::{Diagnostic, FOUND, Fault, shortened};
use super::layout::{FieldKind, MAX_RECORD, Schema, fixed_size};
use super::points::Points;
use super::syntax::{self, Expr};
use super::together::{Forms, Gathered, Kinds};
use super::uses::Uses;
use super::{AttachPoint, Node, PlanStep, PointPlan, ProbePlan, Session, Typed, largest_record, shared, validate};
use crate::declare::{Probe, Step};

/// Names of all enumerations of all fields at most.
pub const MAX_ALL_VALUE_NAMES: usize = 1 << 16;

/// Faults at all attach points of a probe, after which no further attach point is looked at: at most attach points
/// there can be, each may have some.
const FOUND_AT_ALL: usize = 16 * FOUND;

/// A probe whose expressions have been read.
pub(super) struct Parsed<'a> {
    probe: &'a Probe,
    /// Its attach points as they are written, lists resolved, and what each stands for: none where that could not be
    /// told.
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

    /// Tells what its attach points stand for, `room` of them at most; how many there are, which is more than `room`
    /// where that ended it.
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
        uses: &Uses,
        faults: &mut Vec<Diagnostic>,
    ) -> Option<(ProbePlan, Schema)> {
        let before = faults.len();
        let found = self.find(search, faults);
        let found_all = faults.len() == before && self.attach.iter().all(|(_, meant)| meant.is_some());
        let names = Points::new(&found);
        let forms = Forms::new(search.facts, &names);
        let (mut points, mut gathered) = (Vec::new(), Gathered::default());
        let (mut looked_at, mut found_at_all) = (0, 0);
        let (event, fields) = self.steps.iter().find_map(ParsedStep::emitted).unwrap_or_default();
        let mut kinds: Vec<Kinds> = fields.iter().map(|(name, _)| Kinds::new(name)).collect();
        for attach in found {
            if found_at_all > FOUND_AT_ALL {
                break;
            }
            let mut here = Vec::new();
            if let Some(point) = self.check_at(attach, (&forms, uses), &mut here) {
                let at = point.attach.to_string();
                for (kinds, value) in kinds.iter_mut().zip(point.fields()) {
                    kinds.add(forms.of(&value.node.ty), &at);
                }
                points.push(point);
            }
            looked_at += 1;
            found_at_all += here.len();
            gathered.add(here);
        }
        faults.extend(gathered.told(names.len().min(looked_at)));
        let kinds: Vec<_> = kinds.into_iter().filter_map(|kinds| kinds.agreed(&self.probe.name, faults)).collect();
        if !found_all || faults.len() > before || !self.whole || points.is_empty() {
            return None;
        }
        shared::share(&mut points, search.facts);
        let name = self.probe.name.clone();
        let schema = Schema::new(id, &name, event, kinds);
        Some((ProbePlan { name, schema: id, points }, schema))
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
        attach: AttachPoint,
        (forms, uses): (&Forms<'_>, &Uses),
        faults: &mut Vec<Diagnostic>,
    ) -> Option<PointPlan> {
        let before = faults.len();
        let at = attach.to_string();
        let number = forms.points.number(&at);
        let mut checker = Checker::new(forms.facts, &attach, forms.points, number, uses);
        let mut steps = Vec::new();
        // What is to be in an RCU section, if the program may sleep.
        let mut protected = Vec::new();
        let mut note =
            |text, value: &Typed| protected.extend(value.node.needs_rcu().then_some((text, value.node.span)));
        for step in &self.steps {
            match step {
                ParsedStep::Bind(name, text) => {
                    let value = self.typed(&mut checker, text, &at, faults, |c, e| c.value(e));
                    value.iter().for_each(|value| note(text, value));
                    // An expression that failed still binds its name, lest each use of it be reported as unknown.
                    let local = checker.bind(name, value.as_ref().map(|v| &v.node));
                    steps.extend(value.map(|value| PlanStep::Bind { local, value }));
                }
                ParsedStep::When(text) => {
                    let value = self.typed(&mut checker, text, &at, faults, |c, e| c.condition(e));
                    value.iter().for_each(|value| note(text, value));
                    steps.extend(value.map(PlanStep::When));
                }
                ParsedStep::Emit(event, fields) => {
                    let mut values: Vec<Typed> = Vec::new();
                    for (_, text) in fields {
                        let value = self.typed(&mut checker, text, &at, faults, |c, e| c.value(e));
                        value.iter().for_each(|value| note(text, value));
                        values.extend(value);
                    }
                    self.bound_record(event, &values, &at, forms, faults);
                    steps.push(PlanStep::Emit(values));
                }
            }
        }
        if let Err(fault) = checker.has_sections() {
            faults.extend(protected.into_iter().map(|(text, span)| Diagnostic {
                at: vec![at.clone()],
                ..Fault { span, ..fault.clone() }.within(&self.probe.name, &text.place, text.text)
            }));
        }
        let locals = checker.locals();
        let (reads_registers, walks, sleeps) = (checker.reads_registers(), checker.walks(), checker.sleeps());
        let session = checker.measures().then(|| Session::of(&attach, &steps, forms.facts)).flatten();
        let point = PointPlan { attach, locals, steps, reads_registers, sleeps, walks, number, shares: None, session };
        (faults.len() == before && self.whole).then_some(point)
    }

    fn typed(
        &self,
        checker: &mut Checker<'_>,
        text: &Text<'_>,
        at: &str,
        faults: &mut Vec<Diagnostic>,
        check: impl FnOnce(&mut Checker<'_>, &Expr) -> Result<Node, Vec<Fault>>,
    ) -> Option<Typed> {
        if faults.len() > FOUND {
            return None;
        }
        match check(checker, text.expr.as_ref()?).and_then(|node| checker.awake(node)) {
            Ok(node) => Some(Typed { node, text: text.text.to_owned(), step: text.step }),
            Err(found) => {
                faults.extend(found.into_iter().map(|fault| Diagnostic {
                    at: vec![at.to_owned()],
                    ..fault.within(&self.probe.name, &text.place, text.text)
                }));
                None
            }
        }
    }

    fn bound_record(&self, event: &str, values: &[Typed], at: &str, forms: &Forms<'_>, faults: &mut Vec<Diagnostic>) {
        let kinds: Vec<_> = values.iter().map(|value| forms.of(&value.node.ty)).collect();
        let largest = largest_record(fixed_size(kinds.iter().map(AsRef::as_ref)), values.iter());
        if largest > u64::from(MAX_RECORD) {
            faults.push(Diagnostic {
                probe: Some(shortened(&self.probe.name)),
                place: format!("event `{}`", shortened(event)),
                message: format!("a record of it may need {largest} bytes, and {MAX_RECORD} is the most"),
                source: None,
                at: vec![at.to_owned()],
                of: 0,
                notes: vec!["help: bound its texts: `str(pointer, 1024)`".to_owned()],
            });
        }
    }
}

impl<'a> ParsedStep<'a> {
    /// The event, and its fields.
    fn emitted(&self) -> Option<(&'a str, &[(&'a str, Text<'a>)])> {
        if let ParsedStep::Emit(event, fields) = self { Some((event, fields)) } else { None }
    }
}

/// Refuses schemas that have more names of values than a plugin can want.
pub fn bound_value_names(schemas: &[Schema], faults: &mut Vec<Diagnostic>) {
    let of_field = |kind: &FieldKind| match kind {
        FieldKind::Enumeration(names) => names.len(),
        FieldKind::Flags(flags) => flags.len(),
        _ => 0,
    };
    let names: usize = schemas.iter().flat_map(|s| &s.fields).map(|f| of_field(&f.kind)).sum();
    if names > MAX_ALL_VALUE_NAMES {
        faults.push(Diagnostic {
            probe: None,
            place: "the declaration".to_owned(),
            message: format!("its fields have enumerations with {names} names, and {MAX_ALL_VALUE_NAMES} is the most"),
            source: None,
            at: Vec::new(),
            of: 0,
            notes: vec!["help: `x + 0` is a number without names, and `probe` need be sent once only".to_owned()],
        });
    }
}
