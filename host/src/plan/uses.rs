//! The kfuncs that a declaration lists, found on this kernel.
//!
//! BTF tells how a function is called, and the host's table what it does with ownership; of a function that the table
//! does not know, the plugin's claim says so. Each is looked at once, whatever calls it: what is wrong with one is told
//! where it is listed, and calls of it say nothing more.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::bounds::MAX_NAME;
use super::diagnostic::{Diagnostic, Span, did_you_mean, shortened};
use super::prototype::{Prototype, points_to_structure};
use super::syntax::is_identifier;
use super::{Policy, UsedKfunc};
use crate::bpf;
use crate::declare::{Declaration, KfuncClaim, KfuncUse};
use crate::kernel::kfunc::{Flags, Kfunc, Known, Usage, all_known, known};
use crate::kernel::{KernelFacts, TypeId};

/// Kfuncs of a declaration at most.
pub const MAX_KFUNCS: usize = 64;

/// What a declaration lists, by name.
#[derive(Default)]
pub struct Uses {
    listed: BTreeMap<String, Used>,
    /// Functions that release, by what they release.
    releasing: std::cell::OnceCell<HashMap<TypeId, Arc<bpf::Kfunc>>>,
}

/// One that is listed.
pub enum Used {
    Here(Box<Here>),
    /// This kernel does not have it, which the declaration is prepared for.
    Missing(Missing),
    /// That has been told.
    Faulty,
}

/// A kfunc that may be called.
pub struct Here {
    pub kfunc: Kfunc,
    pub function: Arc<bpf::Kfunc>,
    pub flags: Flags,
    /// What releases what it gives.
    pub released_by: Option<Arc<bpf::Kfunc>>,
    /// Whether it is known by the plugin's claim alone.
    pub claimed: bool,
}

/// A kfunc that this kernel does not have.
pub struct Missing {
    /// As the table knows it.
    pub known: Option<&'static Known>,
}

impl Uses {
    /// Finds what is listed.
    pub fn of(declaration: &Declaration, facts: &KernelFacts, policy: &Policy, faults: &mut Vec<Diagnostic>) -> Uses {
        let mut uses = Uses::default();
        if declaration.kfuncs.len() > MAX_KFUNCS {
            let listed = declaration.kfuncs.len();
            faults.push(fault(
                "the declaration",
                format!("it lists {listed} kfuncs, and {MAX_KFUNCS} is the most"),
                &[],
            ));
            return uses;
        }
        let mut seen = HashSet::new();
        for listed in &declaration.kfuncs {
            let used = if seen.insert(&listed.name) {
                uses.find(listed, facts, policy)
            } else {
                Err(told(listed, "it is listed twice".to_owned(), &[]))
            };
            let used = used.unwrap_or_else(|fault| {
                faults.push(*fault);
                Used::Faulty
            });
            uses.listed.insert(listed.name.clone(), used);
        }
        uses
    }

    pub fn get(&self, name: &str) -> Option<&Used> {
        self.listed.get(name)
    }

    /// The names of what is listed.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.listed.keys().map(String::as_str)
    }

    /// What is listed, as it is told of a plan.
    pub fn used(&self) -> Vec<UsedKfunc> {
        let one = |(name, used): (&String, &Used)| UsedKfunc {
            name: name.clone(),
            effect: known(name).and_then(|known| known.effect),
            missing: matches!(used, Used::Missing(_)),
            claimed: matches!(used, Used::Here(here) if here.claimed),
        };
        self.listed.iter().map(one).collect()
    }

    fn find(&self, listed: &KfuncUse, facts: &KernelFacts, policy: &Policy) -> Result<Used, Box<Diagnostic>> {
        let name = &listed.name;
        if name.len() > MAX_NAME || !is_identifier(name) {
            return Err(told(listed, "no function of the kernel can be named so".to_owned(), &[]));
        }
        let no_facts = |error: crate::kernel::FactError| told(listed, error.to_string(), &[]);
        let known = known(name);
        match known.map(|known| &known.usage) {
            Some(Usage::No(why)) => {
                return Err(told(listed, format!("a plugin cannot call it: {why}"), &[]));
            }
            // A walk is listed by what begins it.
            Some(Usage::Host(_)) if known.is_some_and(|known| known.flags(facts.version()).iter_new()) => {}
            Some(Usage::Host(instead)) => {
                return Err(told(
                    listed,
                    "the host calls it by itself, and a plugin does not list it".to_owned(),
                    &[instead],
                ));
            }
            Some(Usage::Call) | None => {}
        }
        if let (Some(effect), false) = (known.and_then(|known| known.effect), policy.effects) {
            let message = format!("it {effect}, and this run allows no effects");
            return Err(told(listed, message, &["`porthole run --allow-effects` does"]));
        }
        let Some(kfunc) = facts.kfunc(name).map_err(no_facts)? else {
            return self.missing(listed, known, facts).map(Used::Missing);
        };
        let btf = facts.btf().map_err(no_facts)?;
        let Some(function) = Prototype::of(btf, &kfunc).callable() else {
            return Err(told(listed, "its prototype is none that a program can call".to_owned(), &[]));
        };
        let (flags, claimed) = self.contract(listed, &kfunc, known)?;
        if claimed && !policy.effects {
            let message = "the host does not know what it changes, and this run allows no effects".to_owned();
            return Err(told(listed, message, &["`porthole run --allow-effects` does"]));
        }
        let released_by = match (&listed.claim, flags.acquire()) {
            (_, false) => None,
            (Some(KfuncClaim { released_by: Some(by), .. }), true) if claimed => {
                Some(self.claimed_release(listed, by, &kfunc, facts)?)
            }
            (_, true) => {
                let result = points_to_structure(btf, kfunc.result);
                let by = result.and_then(|id| self.releasing(facts).get(&id).cloned());
                Some(by.ok_or_else(|| {
                    told(listed, "this kernel has nothing that releases what it gives".to_owned(), &[])
                })?)
            }
        };
        Ok(Used::Here(Box::new(Here { kfunc, function: Arc::new(function), flags, released_by, claimed })))
    }

    /// What it does with ownership: by the table, or else as the plugin claims.
    fn contract(
        &self,
        listed: &KfuncUse,
        kfunc: &Kfunc,
        known: Option<&'static Known>,
    ) -> Result<(Flags, bool), Box<Diagnostic>> {
        match (known, &listed.claim) {
            (Some(_), None) => Ok((kfunc.flags, false)),
            (Some(_), Some(claim)) => {
                let flags = kfunc.flags;
                let agrees = claim.released_by.is_some() == flags.acquire()
                    && claim.may_be_null == flags.ret_null()
                    && claim.may_sleep == flags.sleepable();
                if agrees {
                    return Ok((flags, false));
                }
                let owned =
                    if flags.acquire() { "what it gives must be released" } else { "what it gives is not owned" };
                let null = if flags.ret_null() { "it may give null" } else { "it never gives null" };
                let sleep = if flags.sleepable() { "it may sleep" } else { "it does not sleep" };
                let is = format!("{owned}, {null}, {sleep}");
                Err(told(listed, format!("the claim is wrong; the host knows: {is}"), &["leave the claim out"]))
            }
            (None, Some(claim)) => {
                Ok((Flags::claimed(claim.released_by.is_some(), claim.may_be_null, claim.may_sleep), true))
            }
            (None, None) => Err(told(
                listed,
                "the host does not know what it does with what it gives".to_owned(),
                &["a claim says it: what releases the result, whether that may be null, and whether it may sleep"],
            )),
        }
    }

    fn claimed_release(
        &self,
        listed: &KfuncUse,
        by: &str,
        kfunc: &Kfunc,
        facts: &KernelFacts,
    ) -> Result<Arc<bpf::Kfunc>, Box<Diagnostic>> {
        let no_facts = |error: crate::kernel::FactError| told(listed, error.to_string(), &[]);
        let btf = facts.btf().map_err(no_facts)?;
        let Some(release) = facts.kfunc(by).map_err(no_facts)? else {
            let message =
                format!("it is claimed to be released by `{}`, and this kernel has no such kfunc", shortened(by));
            let names = facts.kfunc_names().unwrap_or_default();
            let near = did_you_mean(by, names.iter().map(String::as_str));
            return Err(told(listed, message, near.as_deref().as_slice()));
        };
        let given = points_to_structure(btf, kfunc.result);
        let taken = release.params.first().and_then(|(_, ty)| points_to_structure(btf, *ty));
        let prototype = Prototype::of(btf, &release);
        // One that the table knows does what the table says.
        let may_release = known(by).is_none() || release.flags.release();
        match (given, taken, prototype.callable()) {
            (Some(given), Some(taken), Some(function))
                if given == taken && release.params.len() == 1 && may_release =>
            {
                Ok(Arc::new(function))
            }
            _ => Err(told(
                listed,
                format!("it is claimed to be released by `{by}`, which does not release what it gives"),
                &[&prototype.text, &Prototype::of(btf, kfunc).text],
            )),
        }
    }

    /// What releases a pointer to this structure, as the table knows.
    pub fn releasing(&self, facts: &KernelFacts) -> &HashMap<TypeId, Arc<bpf::Kfunc>> {
        self.releasing.get_or_init(|| {
            let mut releasing = HashMap::new();
            let Ok(btf) = facts.btf() else { return releasing };
            let version = facts.version();
            for known in all_known().iter().filter(|known| known.flags(version).release()) {
                let Ok(Some(kfunc)) = facts.kfunc(known.name) else { continue };
                let taken = kfunc.params.first().and_then(|(_, ty)| points_to_structure(btf, *ty));
                if let (true, 1, Some(taken), Some(function)) =
                    (kfunc.flags.release(), kfunc.params.len(), taken, Prototype::of(btf, &kfunc).callable())
                {
                    releasing.insert(taken, Arc::new(function));
                }
            }
            releasing
        })
    }

    fn missing(
        &self,
        listed: &KfuncUse,
        known: Option<&'static Known>,
        facts: &KernelFacts,
    ) -> Result<Missing, Box<Diagnostic>> {
        let name = &listed.name;
        if !listed.required {
            return Ok(Missing { known });
        }
        let optional = "listed as optional, what calls it is absent here";
        if let Some(known) = known {
            let message = {
                let (major, minor) = known.since();
                format!("this kernel does not have it; Linux {major}.{minor} does")
            };
            return Err(told(listed, message, &[optional]));
        }
        if let Ok(Some(_)) = facts.function(name) {
            let message = "this function of the kernel is no kfunc: programs may not call it".to_owned();
            return Err(told(listed, message, &[&format!("`fentry:{name}` and `kprobe:{name}` see others call it")]));
        }
        let names = facts.kfunc_names().unwrap_or_default();
        let mut all: Vec<&str> = names.iter().map(String::as_str).collect();
        all.extend(facts.module_kfuncs().unwrap_or_default().iter().map(|kfunc| kfunc.name.as_str()));
        all.extend(all_known().iter().map(|known| known.name));
        let near = did_you_mean(name, all);
        let help = near.unwrap_or_else(|| "`porthole kfuncs` lists those that there are".to_owned());
        Err(told(listed, "this kernel has no such kfunc".to_owned(), &[&help]))
    }
}

/// A fault of one that is listed.
fn told(listed: &KfuncUse, message: String, help: &[&str]) -> Box<Diagnostic> {
    let mut fault = fault(&format!("kfunc `{}`", shortened(&listed.name)), message, help);
    fault.source = Some((shortened(&listed.name), Span::new(0, shortened(&listed.name).len())));
    Box::new(fault)
}

fn fault(place: &str, message: String, help: &[&str]) -> Diagnostic {
    Diagnostic {
        probe: None,
        place: place.to_owned(),
        message,
        source: None,
        at: Vec::new(),
        of: 0,
        notes: help.iter().map(|help| format!("help: {help}")).collect(),
    }
}
