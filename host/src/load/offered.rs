//! Whether this kernel offers what attach points need: asked before anything is attached, and when a load has failed.

use std::io;

use super::LoadError;
use crate::kernel::{Answer, Feature, KernelFacts, features};
use crate::plan::{AttachPoint, FunctionKind, KernelFunction};

/// Attach points named in a message at most.
const NAMED: usize = 3;

/// Refuses attach points of which the kernel offers none.
pub fn check<'a>(points: impl Iterator<Item = &'a AttachPoint>, facts: &KernelFacts) -> Result<(), LoadError> {
    let points: Vec<&AttachPoint> = points.collect();
    for feature in Feature::ALL {
        // What is wrong with all of fentry is not said of a part of it.
        let asks = |point: &AttachPoint| match (feature, point.feature()) {
            (Feature::ModuleTypes, _) => point.is_bound_to_module(),
            (Feature::Fentry, Some(Feature::FentryOnStack)) => true,
            (_, asked) => asked == Some(feature),
        };
        let of_feature: Vec<&AttachPoint> = points.iter().filter(|point| asks(point)).copied().collect();
        if of_feature.is_empty() {
            continue;
        }
        if let Answer::No(why) = facts.offers(feature) {
            let at = listed(&of_feature);
            return Err(LoadError::NotOffered { feature: feature.name(), at, why, instead: instead(feature, facts) });
        }
    }
    Ok(())
}

/// The fault of the attach points in a load that failed, if it is theirs.
pub fn why_not_loaded(points: &[AttachPoint]) -> Option<LoadError> {
    if let Err(error) = check(points.iter(), &KernelFacts::running()) {
        return Some(error);
    }
    points.iter().find_map(|point| {
        let AttachPoint::Function(function) = point else { return None };
        let source = binds(function).err()?;
        Some(LoadError::Bound { at: point.to_string(), source })
    })
}

fn binds(function: &KernelFunction) -> io::Result<()> {
    match &function.prototype {
        Some(prototype) if function.kind.is_typed() => {
            let exit = function.kind == FunctionKind::Fexit;
            features::binds(function.feature(), exit, prototype.id, function.module.as_deref())
        }
        _ => Ok(()),
    }
}

/// What this kernel has in the place of it.
fn instead(feature: Feature, facts: &KernelFacts) -> Option<String> {
    let offered = |feature| facts.offers(feature) == Answer::Yes;
    match feature {
        Feature::FentryOnStack if offered(Feature::Kprobe) => Some("kprobe, kretprobe and func do".to_owned()),
        Feature::Fentry if offered(Feature::Kprobe) => Some("kprobe, kretprobe and func work here".to_owned()),
        Feature::Kprobe if offered(Feature::Fentry) => Some("fentry, fexit and func work here".to_owned()),
        Feature::Fentry | Feature::FentryOnStack | Feature::Kprobe => {
            Some("tracepoint and rawtracepoint work here".to_owned())
        }
        Feature::ModuleTypes if offered(Feature::Kprobe) => Some("kprobe, kretprobe and func do without".to_owned()),
        Feature::Fsession
        | Feature::KprobeMulti
        | Feature::KprobeSession
        | Feature::UprobeMulti
        | Feature::UprobeSession
        | Feature::Lsm
        | Feature::Hardware
        | Feature::ModuleTypes => None,
    }
}

fn listed(points: &[&AttachPoint]) -> String {
    let mut names = points.iter().take(NAMED).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if points.len() > NAMED {
        names.push_str(&format!(" and {} more", points.len() - NAMED));
    }
    names
}
