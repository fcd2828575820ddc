//! What can be named at an attach point, with the types that the planner gives it.

use std::collections::HashSet;

use porthole::declare::{Declaration, KfuncUse, Probe};
use porthole::kernel::{Btf, KernelFacts, Kind, TypeId};
use porthole::plan::{AttachPoint, Origin, PlanStep, Target, Type, plan};

use super::kfuncs::{Callable, Kfuncs};
use crate::declaration::of_fields;
use crate::random::Random;

/// Names and paths at an attach point, or at several that share them.
pub struct Vocabulary {
    pub attach: Vec<String>,
    pub words: Vec<Word>,
    /// Whether integers of 64 bits may be addresses of the process's memory there.
    pub user: bool,
    /// What may be called there.
    pub kfuncs: Callable,
}

/// An expression that needs no parentheses.
#[derive(Clone, Debug)]
pub struct Word {
    pub text: String,
    pub ty: Type,
}

impl Word {
    /// The structure that it points to.
    pub fn structure(&self) -> Option<TypeId> {
        match self.ty {
            Type::Pointer { target: Target::Type(id), .. } => Some(id),
            _ => None,
        }
    }

    pub fn is_number(&self) -> bool {
        matches!(self.ty, Type::Integer { .. } | Type::Boolean | Type::Enumeration { .. })
    }
}

/// Walks from pointers that are tried at an attach point.
const WALKS: usize = 40;
/// Fields of one event.
const FIELDS: usize = 64;

impl Vocabulary {
    /// None where nothing can be attached to all of these at once.
    pub fn of(
        facts: &KernelFacts,
        attach: Vec<String>,
        (kfuncs, listed): (Option<&Kfuncs>, &[KfuncUse]),
        random: &mut Random,
    ) -> Option<Vocabulary> {
        let bare = Probe { attach: attach.clone(), ..of_fields("", []).probes.remove(0) };
        let planned = plan(&Declaration { probes: vec![bare], ..Declaration::default() }, facts).ok()?;
        let points: Vec<&AttachPoint> = planned.probes[0].points.iter().map(|point| &point.attach).collect();
        let mut words = names(points[0]);
        // What has most arguments has some dozens, and the rest is written without.
        random.shuffle(&mut words);
        words.extend(["task", "comm", "nsecs", "cgroup", "pid", "tid", "uid", "gid", "cpu"].map(str::to_owned));
        let mut words = typed(facts, &attach, &words[words.len().saturating_sub(FIELDS)..]);
        let btf = facts.btf().ok()?;
        let pointers: Vec<(String, TypeId)> =
            words.iter().filter_map(|word| Some((word.text.clone(), word.structure()?))).collect();
        let walks = (0..WALKS).filter_map(|n| {
            // All that can be walked from is, and `task`, which is everywhere, not the most.
            let (from, id) = &pointers[n % pointers.len().max(1)];
            let path = walk(random, btf, from, *id, 3)?;
            Some(match random.below(12) {
                0 => format!("&{path}"),
                _ => path,
            })
        });
        let walks: Vec<String> = if pointers.is_empty() { Vec::new() } else { walks.collect() };
        let unlike: HashSet<String> = walks.into_iter().collect();
        let mut unlike: Vec<String> = unlike.into_iter().collect();
        unlike.sort_unstable();
        words.extend(typed(facts, &attach, &unlike));
        let user = points.iter().all(|point| matches!(point, AttachPoint::User(_)));
        let kfuncs = kfuncs.map(|kfuncs| kfuncs.callable(listed, &points, facts)).unwrap_or_default();
        Some(Vocabulary { attach, words, user, kfuncs })
    }
}

/// What has a name at such a point, or might have one.
fn names(point: &AttachPoint) -> Vec<String> {
    let mut names: Vec<String> = point.argument_names().iter().map(|name| format!("args.{name}")).collect();
    if let AttachPoint::User(_) | AttachPoint::Function(_) = point {
        names.extend((0..8).map(|n| format!("arg{n}")));
        names.extend(["retval", "duration"].map(str::to_owned));
        names.extend(["ip", "sp", "flags", "ax", "r15", "cs"].map(|name| format!("reg(\"{name}\")")));
    }
    names
}

/// Those of the expressions that the planner accepts, with their types.
fn typed(facts: &KernelFacts, attach: &[String], expressions: &[String]) -> Vec<Word> {
    let mut left: Vec<&String> = expressions.iter().take(FIELDS).collect();
    loop {
        let fields: Vec<String> = (0..left.len()).map(|n| format!("f{n}")).collect();
        let named = fields.iter().map(String::as_str).zip(left.iter().map(|e| e.as_str()));
        let mut declaration = of_fields("", named);
        declaration.probes[0].attach = attach.to_vec();
        let faults = match plan(&declaration, facts) {
            Ok(plan) => {
                let Some(PlanStep::Emit(values)) = plan.probes[0].points[0].steps.last() else { return Vec::new() };
                let word = |(text, value): (&&String, &porthole::plan::Typed)| Word {
                    text: (*text).clone(),
                    ty: value.node.ty.clone(),
                };
                return left.iter().zip(values).map(word).collect();
            }
            Err(faults) => faults,
        };
        let places: HashSet<&str> = faults.0.iter().map(|fault| fault.place.as_str()).collect();
        let before = left.len();
        let mut fields = fields.iter();
        left.retain(|_| !fields.next().is_some_and(|name| places.contains(format!("field `{name}`").as_str())));
        if left.len() == before {
            // The record of all of them is too large.
            left.truncate(before / 2);
        }
    }
}

/// A path from a pointer to a structure, through so many pointers at most, to something that likely has a value.
pub fn walk(random: &mut Random, btf: &Btf, from: &str, id: TypeId, pointers: u32) -> Option<String> {
    let (mut path, mut id, mut pointers) = (from.to_owned(), id, pointers);
    // Structures inside one another are not deeper.
    for _ in 0..12 {
        let names = btf.member_names(id);
        if names.is_empty() {
            return None;
        }
        let name = &names[random.below(names.len() as u64) as usize];
        path.push_str(random.pick(&[".", ".", "->"]));
        path.push_str(name);
        let mut ty = btf.strip(btf.member(id, name)?.ty).id;
        while let Kind::Array { element, count } = btf.kind(ty) {
            let of = btf.strip(element).id;
            if matches!(btf.kind(of), Kind::Int { bytes: 1, .. }) && random.below(2) == 0 {
                return Some(path);
            }
            let index = match random.below(4) {
                _ if count == 0 => "0".to_owned(),
                0 => random.below(count.into()).to_string(),
                1 => format!("cpu & {}", random.below(u64::from(count) * 2)),
                2 => random.pick(&["cpu", "tid", "uid - 1", "nsecs"]).to_owned(),
                _ => "0".to_owned(),
            };
            path.push_str(&format!("[{index}]"));
            ty = of;
        }
        match btf.kind(ty) {
            Kind::Struct { .. } | Kind::Union { .. } => id = ty,
            Kind::Pointer(to) => {
                let to = btf.strip(to).id;
                let further = matches!(btf.kind(to), Kind::Struct { .. } | Kind::Union { .. });
                if !further || pointers == 0 || random.below(3) == 0 {
                    return Some(path);
                }
                pointers -= 1;
                id = to;
            }
            _ => return Some(path),
        }
    }
    None
}

/// Whether two pointers may be chosen from by `?:`.
pub fn go_together(a: &Type, b: &Type) -> bool {
    let is_user = |ty: &Type| matches!(ty, Type::Pointer { origin: Origin::User, .. });
    is_user(a) == is_user(b)
}
