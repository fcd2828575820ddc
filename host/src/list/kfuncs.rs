//! The kfuncs that there are: what `porthole kfuncs` prints.

use std::collections::BTreeMap;

use super::ListError;
use super::pattern::anywhere;
use crate::kernel::kfunc::{Known, Usage, all_known, known};
use crate::kernel::{Answer, FactError, KernelFacts, ProgramKind};

/// What a pattern found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KfuncListing {
    /// By name; the kernel's own before those of modules.
    pub kfuncs: Vec<ListedKfunc>,
    /// What the table knows and this kernel does not have.
    pub elsewhere: Vec<&'static Known>,
}

/// A kfunc of the kernel or of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedKfunc {
    pub name: String,
    /// The module that has it; none where it is the kernel's own.
    pub module: Option<String>,
    /// As C declares it, from this kernel's types.
    pub prototype: String,
    /// Words for its flags; none where the table does not know it.
    pub flags: Option<Vec<&'static str>>,
    /// Whether programs of each kind may call it here.
    pub callers: BTreeMap<ProgramKind, Answer>,
    pub known: Option<&'static Known>,
}

/// Whether a plugin may call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Callable {
    Yes,
    /// The host does it where it is needed; what to write instead.
    Host(&'static str),
    /// Where its declaration claims how the result is owned, which the host does not know.
    Claimed,
    No(String),
}

/// The kfuncs whose names have a part that matches; without a pattern, all that this kernel and its modules have.
///
/// # Errors
///
/// A pattern that is none. The inner error says that this kernel's types cannot be read.
pub fn kfuncs(pattern: Option<&str>, facts: &KernelFacts) -> Result<Result<KfuncListing, FactError>, ListError> {
    let globs = anywhere(pattern.unwrap_or("*"))?;
    let wanted = |name: &str| globs.iter().any(|glob| glob.matches(name));
    Ok(find(&wanted, facts))
}

fn find(wanted: &dyn Fn(&str) -> bool, facts: &KernelFacts) -> Result<KfuncListing, FactError> {
    let btf = facts.btf()?;
    let mut found = Vec::new();
    for name in facts.kfunc_names()?.into_iter().filter(|name| wanted(name)) {
        let Some(kfunc) = facts.kfunc(&name)? else { continue };
        let prototype = btf.prototype(kfunc.id).map_or_else(|| name.clone(), |(_, declared)| declared);
        let known = known(&name);
        let flags = known.map(|_| kfunc.flags.words().collect());
        found.push(ListedKfunc { name, module: None, prototype, flags, callers: BTreeMap::new(), known });
    }
    for kfunc in facts.module_kfuncs()?.iter().filter(|kfunc| wanted(&kfunc.name)) {
        let known = known(&kfunc.name);
        found.push(ListedKfunc {
            name: kfunc.name.clone(),
            module: Some(kfunc.module.clone()),
            prototype: btf.prototype(kfunc.id).map_or_else(|| kfunc.name.clone(), |(_, declared)| declared),
            flags: known.map(|known| known.flags(facts.version()).words().collect()),
            callers: BTreeMap::new(),
            known,
        });
    }
    let callers = facts.callers_of_all(found.iter().map(|kfunc| kfunc.name.as_str()));
    for (kfunc, callers) in found.iter_mut().zip(callers) {
        kfunc.callers = callers;
    }
    let is_here = |known: &&Known| found.iter().any(|kfunc| kfunc.name == known.name);
    let elsewhere = all_known().iter().filter(|known| wanted(known.name) && !is_here(known)).collect();
    Ok(KfuncListing { kfuncs: found, elsewhere })
}

impl ListedKfunc {
    /// Whether a plugin may call it on this kernel.
    pub fn callable(&self) -> Callable {
        let by_none = || self.callers.values().all(|answer| matches!(answer, Answer::No(_)));
        match self.known.map(|known| known.usage) {
            Some(Usage::Host(instead)) => Callable::Host(instead),
            Some(Usage::No(why)) => Callable::No(why.to_owned()),
            _ if by_none() => Callable::No("this kernel lets no kind of probe call it".to_owned()),
            Some(Usage::Call) => Callable::Yes,
            None => Callable::Claimed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn recorded() -> KernelFacts {
        KernelFacts::from_dir(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/kernel-6.18")))
    }

    fn names(pattern: &str) -> Vec<String> {
        let listing = kfuncs(Some(pattern), &recorded()).unwrap().unwrap();
        listing.kfuncs.into_iter().map(|kfunc| kfunc.name).collect()
    }

    #[test]
    fn patterns() {
        assert_eq!(names("task_from"), ["bpf_task_from_pid", "bpf_task_from_vpid"]);
        assert_eq!(
            names("bpf_*_from_{pid,id}"),
            ["bpf_cgroup_from_id", "bpf_task_from_pid", "bpf_task_from_vpid"][..2]
        );
        assert!(kfuncs(Some("bpf_[a"), &recorded()).is_err());
        assert!(kfuncs(None, &recorded()).unwrap().unwrap().kfuncs.len() > 100);
        let newer = kfuncs(Some("strcasestr"), &recorded()).unwrap().unwrap();
        assert_eq!(
            newer.elsewhere.iter().map(|known| (known.name, known.since())).collect::<Vec<_>>(),
            [("bpf_strcasestr", (7, 2))]
        );
    }

    #[test]
    fn what_plugins_may_call() {
        let callable = |name: &str| {
            let listing = kfuncs(Some(name), &recorded()).unwrap().unwrap();
            let found = listing.kfuncs.iter().find(|kfunc| kfunc.name == name).unwrap_or_else(|| panic!("{name}"));
            found.callable()
        };
        assert_eq!(callable("bpf_task_from_pid"), Callable::Yes);
        assert!(matches!(callable("bpf_task_release"), Callable::Host(_)));
        assert!(matches!(callable("bpf_list_front"), Callable::No(why) if why.contains("list")));
        // Which the table does not know.
        let refused = Answer::No("this kernel does not let these programs call it".to_owned());
        let unknown = |answer| ListedKfunc {
            name: "x".to_owned(),
            module: Some("booth".to_owned()),
            prototype: "void x(void)".to_owned(),
            flags: None,
            callers: BTreeMap::from([(ProgramKind::Tracing, answer)]),
            known: None,
        };
        assert_eq!(unknown(Answer::Yes).callable(), Callable::Claimed);
        assert!(matches!(unknown(refused).callable(), Callable::No(_)));
    }
}
