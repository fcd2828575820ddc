//! The bounds and the names of a declaration: what can be told of it without reading an expression.

use std::collections::HashSet;

use super::attach;
use super::bounds::{MAX_ATTACH_POINTS, MAX_NAME, MAX_PROBES, MAX_STEPS, MAX_TEXT, TICK};
use super::check::RESERVED;
use super::diagnostic::{Diagnostic, Diagnostics, shortened};
use super::layout::MAX_FIELDS;
use super::syntax::is_identifier;
use crate::declare::{Declaration, Probe, Step};

/// Probes shown that have the most attach points.
const SHOWN_PROBES: usize = 3;

/// What is so far out of bounds that nothing else is worth a look.
pub fn bounds(declaration: &Declaration) -> Result<(), Diagnostics> {
    let mut faults = Vec::new();
    let mut refuse = |message: String| faults.push(fault(None, "the declaration", message));
    let probes = declaration.probes.len();
    let of_probe = |p: &Probe| p.attach.iter().map(|text| attach::count(text)).fold(0, usize::saturating_add);
    let points: usize = declaration.probes.iter().map(of_probe).fold(0, usize::saturating_add);
    if probes == 0 {
        refuse("it has no probe, so nothing would ever happen".to_owned());
    }
    if probes > MAX_PROBES {
        refuse(format!("it has {probes} probes, and {MAX_PROBES} is the most"));
    }
    if points > MAX_ATTACH_POINTS {
        refuse(format!("it has {points} attach points, and {MAX_ATTACH_POINTS} is the most"));
    }
    let text: usize = declaration.probes.iter().map(|p| p.attach.len().saturating_mul(expressions(p))).sum();
    if text > MAX_TEXT {
        refuse(too_much_text(text));
    }
    if faults.is_empty() { Ok(()) } else { Err(Diagnostics(faults)) }
}

/// What stands beside the probes.
pub fn beside(declaration: &Declaration, faults: &mut Vec<Diagnostic>) {
    let mut refuse = |message: String| faults.push(fault(None, "the declaration", message));
    if let Some(tick) = declaration.tick.filter(|tick| !TICK.contains(tick)) {
        refuse(format!("its tick is {tick} ms; it can be from {} to {} ms", TICK.start(), TICK.end()));
    }
    if !declaration.maps.is_empty() {
        refuse("maps are not there yet; its list of maps must be empty".to_owned());
    }
}

fn too_much_text(bytes: usize) -> String {
    format!("its expressions, counted once for each attach point, have {bytes} bytes, and {MAX_TEXT} is the most")
}

/// The bounds that hold with all that patterns match. `points` are those of each probe, up to where they were too many;
/// `text` is that of each.
pub fn expanded(declaration: &Declaration, points: &[usize], text: impl Iterator<Item = usize>) -> Option<Diagnostic> {
    if points.iter().sum::<usize>() > MAX_ATTACH_POINTS {
        let message = format!(
            "with all that its patterns match it has more than {MAX_ATTACH_POINTS} attach points, and that is the most"
        );
        let mut most: Vec<(usize, &Probe)> = points.iter().copied().zip(&declaration.probes).collect();
        most.sort_by_key(|(points, _)| std::cmp::Reverse(*points));
        let told = |(points, probe): &(usize, &Probe)| format!("probe `{}` has {points}", shortened(&probe.name));
        let told: Vec<String> = most.iter().take(SHOWN_PROBES).map(told).collect();
        let help = format!("help: {}; narrow its patterns", told.join(", "));
        return Some(Diagnostic { notes: vec![help], ..fault(None, "the declaration", message) });
    }
    let text = text.fold(0, usize::saturating_add);
    (text > MAX_TEXT).then(|| fault(None, "the declaration", too_much_text(text)))
}

/// Bytes of a probe's expressions.
pub fn expressions(probe: &Probe) -> usize {
    let of_step = |step: &Step| match step {
        Step::Bind(binding) => binding.value.len(),
        Step::When(condition) => condition.len(),
        Step::Emit(event) => event.fields.iter().map(|f| f.value.len()).sum(),
        Step::Update(_) => 0,
    };
    probe.body.iter().map(of_step).sum()
}

/// Names, and the form of the body. `seen` are the names of the probes before.
pub fn form<'a>(probe: &'a Probe, seen: &mut HashSet<&'a str>, faults: &mut Vec<Diagnostic>) {
    name(None, "a probe", &probe.name, faults);
    if !seen.insert(&probe.name) {
        faults.push(fault(None, "the declaration", format!("two probes are named `{}`", shortened(&probe.name))));
    }
    body(probe, faults);
}

fn body(probe: &Probe, faults: &mut Vec<Diagnostic>) {
    let mut refuse = |place: &str, message: String| faults.push(fault(Some(probe), place, message));
    if probe.attach.is_empty() {
        refuse("attach", "it has no attach point".to_owned());
    }
    let mut points = HashSet::new();
    for point in &probe.attach {
        if !points.insert(point) {
            refuse("attach", format!("`{}` stands there twice", shortened(point)));
        }
    }
    if probe.body.len() > MAX_STEPS {
        refuse("body", format!("it has {} steps, and {MAX_STEPS} is the most", probe.body.len()));
    }
    let emits = probe.body.iter().filter(|s| matches!(s, Step::Emit(_))).count();
    if emits == 0 {
        refuse("body", "it sends no event, so nothing of it would ever be seen (an `emit` step does)".to_owned());
    } else if emits > 1 || !matches!(probe.body.last(), Some(Step::Emit(_))) {
        refuse("body", "it can have one `emit`, as its last step; use a probe for each event".to_owned());
    }

    let mut bound = HashSet::new();
    for (step, n) in probe.body.iter().zip(1..) {
        match step {
            Step::Bind(binding) => {
                name(Some(probe), "a binding", &binding.name, faults);
                let place = format!("step {n} (bind `{}`)", shortened(&binding.name));
                if !bound.insert(binding.name.as_str()) {
                    faults.push(fault(Some(probe), &place, "a step before has bound that name".to_owned()));
                }
                if RESERVED.contains(&binding.name.as_str()) {
                    faults.push(fault(Some(probe), &place, "that is a name of the language".to_owned()));
                }
            }
            Step::When(_) => {}
            Step::Update(update) => {
                let message = format!("maps are not there yet, so `@{}` cannot be updated", shortened(&update.target));
                faults.push(fault(Some(probe), &format!("step {n} (update)"), message));
            }
            Step::Emit(event) => {
                name(Some(probe), "an event", &event.name, faults);
                if event.fields.len() > MAX_FIELDS {
                    let message = format!("it has {} fields, and {MAX_FIELDS} is the most", event.fields.len());
                    faults.push(fault(Some(probe), &format!("event `{}`", shortened(&event.name)), message));
                }
                let mut fields = HashSet::new();
                for field in &event.fields {
                    name(Some(probe), "a field", &field.name, faults);
                    if !fields.insert(field.name.as_str()) {
                        let message = format!("two fields are named `{}`", shortened(&field.name));
                        faults.push(fault(Some(probe), &format!("event `{}`", shortened(&event.name)), message));
                    }
                }
            }
        }
    }
}

fn name(probe: Option<&Probe>, of: &str, name: &str, faults: &mut Vec<Diagnostic>) {
    let what = if name.len() > MAX_NAME {
        format!("the name has {} bytes, and {MAX_NAME} is the most", name.len())
    } else if !is_identifier(name) {
        "the name is no identifier: letters, digits and `_`, no digit first".to_owned()
    } else {
        return;
    };
    faults.push(fault(probe, &format!("{of} named `{}`", shortened(name)), what));
}

fn fault(probe: Option<&Probe>, place: &str, message: String) -> Diagnostic {
    Diagnostic {
        probe: probe.map(|p| shortened(&p.name)),
        place: place.to_owned(),
        message,
        source: None,
        at: Vec::new(),
        of: 0,
        notes: Vec::new(),
    }
}
