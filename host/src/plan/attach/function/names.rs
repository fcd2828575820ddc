//! The names of what there is, for patterns and for `porthole list`.

use std::collections::{HashMap, HashSet};

use super::{FunctionKind, LSM_PREFIX, passable};
use crate::kernel::{Answer, Btf, FactError, Feature, Function, KernelFacts, Kind, TypeId};

/// The names of all functions, or hooks, that can be attached to so, sorted: those that [`super::resolve`] finds, save
/// what no one would trace. One that the kernel does not tell of until it is tried is among them.
pub fn names(kind: FunctionKind, facts: &KernelFacts) -> Result<Vec<String>, FactError> {
    let mut names = match kind {
        FunctionKind::Lsm => hooks(facts)?,
        FunctionKind::Fentry | FunctionKind::Fexit => typed_names(facts, &[])?,
        FunctionKind::Kprobe | FunctionKind::Kretprobe => probed_names(facts)?,
        FunctionKind::Func => {
            let offered = |feature| !matches!(facts.offers(feature), Answer::No(_));
            let mut both = if offered(Feature::Kprobe) { probed_names(facts)? } else { Vec::new() };
            let more = if offered(Feature::Fentry) { typed_names(facts, &both)? } else { Vec::new() };
            both.extend(more);
            both
        }
    };
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// As [`names`], of a module's functions.
pub fn names_of_module(kind: FunctionKind, module: &str, facts: &KernelFacts) -> Result<Vec<String>, FactError> {
    let offered = |feature| !matches!(facts.offers(feature), Answer::No(_));
    let there = facts.symbols().map(|symbols| symbols.functions_of(module)).unwrap_or_default();
    let kprobe = offered(Feature::Kprobe);
    let (typed, probed) = match kind {
        FunctionKind::Lsm => (false, false),
        FunctionKind::Fentry | FunctionKind::Fexit => (true, false),
        FunctionKind::Kprobe | FunctionKind::Kretprobe => (false, true),
        // kprobe takes nearly all of them, and its names need no types, which are some milliseconds for each module.
        FunctionKind::Func => (!kprobe, kprobe),
    };
    let mut names = Vec::new();
    if typed {
        let btf = facts.btf()?;
        for (name, id, proto) in btf.functions_of_module(module) {
            let passable = || Function::new(btf, id, proto).is_some_and(|function| passable(&function, btf).is_ok());
            if there.binary_search(&name.as_str()).is_ok() && is_hooked(&name, facts) && passable() {
                names.push(name);
            }
        }
    }
    if probed {
        let once = there.chunk_by(|a, b| a == b).filter(|same| same.len() == 1).map(|same| same[0]);
        let taken = |name: &&str| !is_filling(name) && is_hooked(name, facts) && !facts.is_kept_from_kprobes(name);
        names.extend(once.filter(taken).map(str::to_owned));
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

fn hooks(facts: &KernelFacts) -> Result<Vec<String>, FactError> {
    let btf = facts.btf()?;
    let mut names = facts.function_names(LSM_PREFIX)?;
    if let Some(hooks) = hooks_in(btf) {
        let hooks: HashSet<String> = btf.member_names(hooks).into_iter().collect();
        names.retain(|name| hooks.contains(name));
    }
    Ok(names)
}

/// Not every function that is named so is a hook: the kernel keeps a pointer to each hook's function in this union
/// (include/linux/lsm_hooks.h).
fn hooks_in(btf: &Btf) -> Option<TypeId> {
    btf.union("security_list_options").filter(|hooks| matches!(btf.kind(*hooks), Kind::Union { .. }))
}

pub fn is_hook(btf: &Btf, name: &str) -> bool {
    hooks_in(btf).is_none_or(|hooks| btf.member(hooks, name).is_some())
}

/// Those that are not `known`, which is sorted.
fn typed_names(facts: &KernelFacts, known: &[String]) -> Result<Vec<String>, FactError> {
    let btf = facts.btf()?;
    // Many functions share a prototype.
    let mut passed: HashMap<TypeId, bool> = HashMap::new();
    let mut is_passed = |id, proto| {
        let can_be = || Function::new(btf, id, proto).is_some_and(|function| passable(&function, btf).is_ok());
        *passed.entry(proto).or_insert_with(can_be)
    };
    let there = |name: &str| facts.symbols().is_none_or(|symbols| symbols.count(name) > 0);
    let names = facts.functions()?.into_iter().filter(|(name, _)| known.binary_search(name).is_err());
    let names = names.filter(|(name, (id, proto))| there(name) && is_hooked(name, facts) && is_passed(*id, *proto));
    Ok(names.map(|(name, _)| name).collect())
}

fn probed_names(facts: &KernelFacts) -> Result<Vec<String>, FactError> {
    let Some(symbols) = facts.symbols() else {
        return Ok(facts.functions()?.into_keys().filter(|name| is_hooked(name, facts)).collect());
    };
    let names: Vec<&str> = symbols.names().collect();
    let once = names.chunk_by(|a, b| a == b).filter(|same| same.len() == 1).map(|same| same[0]);
    Ok(once.filter(|name| !is_filling(name) && is_hooked(name, facts)).map(str::to_owned).collect())
}

/// As far as it is known; a name with a dot is one that BTF does not have, and ftrace's list need not have.
fn is_hooked(name: &str, facts: &KernelFacts) -> bool {
    name.contains('.') || facts.is_traceable(name) != Some(false)
}

/// What stands in front of functions, and the parts of them that are seldom run, have names as functions do.
fn is_filling(name: &str) -> bool {
    name.starts_with("__pfx_") || name.starts_with("__cfi_") || name.ends_with(".cold")
}
