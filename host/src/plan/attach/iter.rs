//! Iterators: the kernel walks all objects of a kind and runs the program for each, when the host asks it to.
//!
//! A kind is known by the function `bpf_iter_KIND`, whose parameters are the program's arguments: first `meta`, then
//! the object at hand. The kernel calls the program once more when it is at the end, mostly without an object, so that
//! C programs can print a footer. There is nothing in that call to see: it is no hit, and counts as nothing.

use super::search::{Meant, Name, Search};
use super::{Spec, no_facts, typed};
use crate::kernel::{Btf, KernelFacts, Kind, TypeId};
use crate::plan::Node;
use crate::plan::diagnostic::{Fault, Span};
use crate::plan::pointer::Trust;

/// The kinds that need to be told nothing but their name.
const KINDS: [&str; 15] = [
    "bpf_link",
    "bpf_map",
    "bpf_prog",
    "cgroup",
    "dmabuf",
    "ipv6_route",
    "kmem_cache",
    "ksym",
    "netlink",
    "task",
    "task_file",
    "task_vma",
    "tcp",
    "udp",
    "unix",
];

/// Those that walk one map's elements.
const OF_A_MAP: [&str; 3] = ["bpf_map_elem", "bpf_sk_storage_map", "sockmap"];

/// An iterator that the kernel has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Iter {
    pub kind: &'static str,
    /// The program's arguments.
    pub params: Vec<(String, TypeId)>,
    /// Which of them is the object at hand: null at the end.
    pub object: u32,
    /// Where the last object comes again at the end, instead of null.
    pub again: Option<Again>,
}

/// How `ksym` tells that it is at its end, where it has the last symbol once more (kernel/kallsyms.c:
/// ksym_prog_seq_show, update_iter): while it goes over the kernel's own symbols `pos` is one ahead of the number of
/// objects, and `pos_mod_end` is 0; behind them both are the same, until there is no further symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Again {
    /// Offset of `pos` in `struct kallsym_iter`.
    pub pos: u32,
    /// Offset of `pos_mod_end`.
    pub pos_mod_end: u32,
}

/// Reads `iter:KIND`; none where `kind` is another. `parts` are what stands behind it, each with its place.
pub fn parse(kind: &str, parts: &[(&str, Span)], whole: Span) -> Option<Result<Spec, Fault>> {
    if !matches!(kind, "iter" | "it") {
        return None;
    }
    Some(match parts {
        [(of, at)] if !of.is_empty() => Ok(Spec::Iter { kind: Name { text: (*of).to_owned(), at: *at } }),
        _ => Err(Fault::new(whole, "an iterator is written `iter:KIND`, such as `iter:task`")),
    })
}

/// The iterators that a pattern matches.
pub fn expand(kind: &Name, search: &Search<'_>) -> Result<Meant, Fault> {
    let had = kinds(search.facts.btf().map_err(|error| no_facts(&error))?);
    let found = search.matching(kind, &had)?;
    if found.is_empty() {
        return Err(Fault::new(kind.at, "no iterator of this kernel matches this").help(there_are(&had)));
    }
    let specs = found.iter().map(|found| Spec::Iter { kind: kind.instead(found) }).collect();
    Meant::several(kind.at, specs, &found)
}

/// Finds an iterator on the kernel.
pub fn resolve(kind: &Name, search: &Search<'_>) -> Result<Iter, Fault> {
    let Name { text, at } = kind;
    let btf = search.facts.btf().map_err(|error| no_facts(&error))?;
    if let Some(iter) = KINDS.iter().find(|k| *k == text).and_then(|kind| find(btf, kind)) {
        return Ok(iter);
    }
    if OF_A_MAP.contains(&text.as_str()) {
        return Err(Fault::new(*at, format!("`{text}` walks one map, and iterators of that kind are not there yet")));
    }
    let had = kinds(btf);
    let fault = Fault::new(*at, format!("this kernel has no iterator `{text}`"));
    Err(fault.help(search.did_you_mean(text, had.iter().copied()).unwrap_or_else(|| there_are(&had))))
}

/// The kinds that the kernel has.
pub fn kinds(btf: &Btf) -> Vec<&'static str> {
    KINDS.into_iter().filter(|kind| find(btf, kind).is_some()).collect()
}

fn there_are(kinds: &[&str]) -> String {
    if kinds.is_empty() { "it has none at all".to_owned() } else { format!("there are {}", kinds.join(", ")) }
}

fn find(btf: &Btf, kind: &'static str) -> Option<Iter> {
    let Kind::Function { proto, .. } = btf.kind(btf.function(&format!("bpf_iter_{kind}"))?) else { return None };
    let Kind::Prototype { params, .. } = btf.kind(proto) else { return None };
    // What owns the object, where something does, comes before it (kernel/bpf/task_iter.c: task, then file or vma).
    let is_pointer = |(_, ty): &(String, TypeId)| matches!(btf.kind(btf.strip(*ty).id), Kind::Pointer(_));
    let object = params.iter().rposition(is_pointer).filter(|index| *index > 0)?;
    Some(Iter { kind, object: object as u32, params, again: if kind == "ksym" { Some(again(btf)?) } else { None } })
}

fn again(btf: &Btf) -> Option<Again> {
    let offset = |name| Some(btf.member(btf.structure("kallsym_iter")?, name)?.bit_offset / 8);
    Some(Again { pos: offset("pos")?, pos_mod_end: offset("pos_mod_end")? })
}

/// Arguments of iterators that the verifier trusts: the kind, and the argument's name. All others it knows by type
/// alone.
const TRUSTED: [(&str, &str); 8] = [
    ("task", "task"),
    ("task_file", "file"),
    ("cgroup", "cgroup"),
    ("bpf_map", "map"),
    ("tcp", "sk_common"),
    ("udp", "udp_sk"),
    ("unix", "unix_sk"),
    ("kmem_cache", "s"),
];

impl Iter {
    /// Whether the verifier takes what this argument points to for alive.
    pub fn vouches_for(&self, argument: u32) -> Trust {
        let name = self.params.get(argument as usize).map(|(name, _)| name.as_str());
        let trusted = TRUSTED.iter().any(|(kind, trusted)| *kind == self.kind && Some(*trusted) == name);
        if trusted { Trust::Full } else { Trust::Nothing }
    }

    /// `args.name`; none where there is no such argument.
    pub fn argument(&self, name: &str, facts: &KernelFacts, span: Span) -> Option<Result<Node, Fault>> {
        let index = self.params.iter().position(|(n, _)| n == name)?;
        let btf = match facts.btf() {
            Ok(btf) => btf,
            Err(error) => return Some(Err(Fault::new(span, error.to_string()))),
        };
        Some(typed::argument(btf, name, index as u32, self.params[index].1, span))
    }
}
