//! The attach points that there are, as a declaration writes them, and the arguments of each, as expressions do: what
//! `porthole list` prints.
//!
//! What is listed is what planning takes. Names come from the same facts, and whether an argument is printed as an
//! expression is asked of the checker, so that all of it can be pasted. Without a pattern each thing is listed once:
//! functions as `func`, which is the best that the kernel offers, and not as each of the five kinds that there are at
//! functions; and programs and libraries, of which there are too many, when they are named.

mod arguments;
mod kfuncs;
mod pattern;

pub use arguments::{Argument, Arguments};
pub use kfuncs::{Callable, KfuncListing, ListedKfunc, kfuncs};

use crate::binary::Binary;
use crate::kernel::{Answer, FactError, Feature, KernelFacts};
use crate::plan::{self, FunctionKind, MAX_ATTACH_LENGTH};
use pattern::{Pattern, Wanted};

/// What is listed without a pattern.
const EACH_ONCE: [&str; 8] = ["func", "hardware", "iter", "lsm", "profile", "rawtracepoint", "software", "tracepoint"];
/// Kinds in programs and libraries.
const OF_FILES: [&str; 3] = ["uprobe", "uretprobe", "usdt"];
/// Clocks, one for each unit.
const CLOCKS: [&str; 4] = ["profile:hz:99", "profile:ms:10", "profile:s:1", "profile:us:100"];

/// What a pattern found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Sorted.
    pub points: Vec<String>,
    /// What is missing among them, or perhaps too many, and why.
    pub notes: Vec<String>,
}

/// Why a pattern finds nothing, whatever the kernel has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    #[error("`{text}`: {message}")]
    Pattern { text: String, message: String },
}

/// The attach points that match; without a pattern, all that this kernel has.
pub fn list(pattern: Option<&str>, facts: &KernelFacts) -> Result<Listing, ListError> {
    let patterns = pattern.map_or(Ok(vec![Pattern::everything()]), Pattern::parse_all)?;
    let mut listing = Listing::default();
    for wanted in &patterns {
        listing.find(wanted, facts)?;
    }
    listing.points.sort_unstable();
    listing.points.dedup();
    Ok(listing)
}

impl Listing {
    fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    fn find(&mut self, wanted: &Pattern, facts: &KernelFacts) -> Result<(), ListError> {
        match &wanted.of {
            Wanted::Kinds(kinds) => {
                for kind in kinds {
                    match offered(kind, facts) {
                        Err(why) => why.into_iter().for_each(|why| self.note(why)),
                        Ok(doubt) => {
                            doubt.into_iter().for_each(|doubt| self.note(doubt));
                            self.add(kind, wanted, facts);
                        }
                    }
                }
            }
            Wanted::File { kind, target } => {
                let binary = facts.binary(target).map_err(|error| wanted.refused(&error.to_string()))?;
                self.points.extend(in_file(kind, target, &binary).into_iter().filter(|name| wanted.matches(name)));
            }
        }
        Ok(())
    }

    fn add(&mut self, kind: &str, wanted: &Pattern, facts: &KernelFacts) {
        match points(kind, facts) {
            Ok(points) => {
                self.points.extend(points.into_iter().filter(|point| wanted.matches(point)));
                uncertain(kind, facts).into_iter().for_each(|doubt| self.note(doubt));
            }
            Err(error) => self.note(format!("{kind} attach points are missing: {error}")),
        }
    }
}

/// All attach points of a kind.
fn points(kind: &str, facts: &KernelFacts) -> Result<Vec<String>, FactError> {
    let of_kind = |names: Vec<String>| names.into_iter().map(|name| format!("{kind}:{name}")).collect();
    Ok(match kind {
        "tracepoint" => {
            let names = facts.tracepoint_names()?.into_iter();
            names.map(|(system, name)| format!("tracepoint:{system}:{name}")).collect()
        }
        "rawtracepoint" => of_kind(facts.raw_tracepoint_names()?),
        "iter" => plan::iterator_kinds(facts.btf()?).into_iter().map(|name| format!("iter:{name}")).collect(),
        "profile" => CLOCKS.map(str::to_owned).to_vec(),
        "software" | "hardware" => {
            let whole = |name| plan::find(&format!("{kind}:{name}"), facts).ok()?.first().map(ToString::to_string);
            plan::event_names(kind).into_iter().filter_map(whole).collect()
        }
        _ => match FunctionKind::parse(kind) {
            Some(function) => {
                let mut names = plan::function_names(function, facts)?;
                names.retain(|name| !plan::is_denied(function, name, facts));
                let modules = facts.symbols().map(|symbols| symbols.all_modules()).unwrap_or_default();
                for module in modules {
                    let functions = plan::function_names_of_module(function, module, facts)?.into_iter();
                    names.extend(functions.map(|name| format!("{module}:{name}")));
                }
                of_kind(names)
            }
            None => Vec::new(),
        },
    })
}

/// Whether the kernel offers a kind; with it what cannot be told, and else why not.
fn offered(kind: &str, facts: &KernelFacts) -> Result<Option<String>, Vec<String>> {
    let features: &[Feature] = match kind {
        "fentry" | "fexit" => &[Feature::Fentry],
        "kprobe" | "kretprobe" => &[Feature::Kprobe],
        // One of them will do.
        "func" => &[Feature::Fentry, Feature::Kprobe],
        "lsm" => &[Feature::Lsm],
        "hardware" => &[Feature::Hardware],
        _ => return Ok(None),
    };
    let (mut doubt, mut missing) = (None, Vec::new());
    for feature in features {
        match facts.offers(*feature) {
            Answer::Yes => return Ok(None),
            Answer::Unknown(why) => {
                doubt = Some(format!("it could not be told whether this kernel offers {}: {why}", feature.name()));
            }
            Answer::No(why) => missing.push(format!("this kernel does not offer {}: {why}", feature.name())),
        }
    }
    if doubt.is_some() { Ok(doubt) } else { Err(missing) }
}

/// What the kernel's lists of functions leave open.
fn uncertain(kind: &str, facts: &KernelFacts) -> Vec<String> {
    let mut doubts = Vec::new();
    if !matches!(kind, "fentry" | "fexit" | "func" | "kprobe" | "kretprobe") {
        return doubts;
    }
    if facts.symbols().is_none() {
        let inlined =
            "/proc/kallsyms cannot be read: functions that the compiler has put into their callers are listed too";
        doubts.push(inlined.to_owned());
    }
    if !facts.knows_traceable() {
        let notrace = "available_filter_functions cannot be read: functions that the kernel keeps tracers out of (notrace) are listed too";
        doubts.push(notrace.to_owned());
    }
    doubts
}

/// The attach points in a program or library.
fn in_file(kind: &str, target: &str, binary: &Binary) -> Vec<String> {
    let longest = MAX_ATTACH_LENGTH.saturating_sub(format!("{kind}:{target}:").len());
    let names = if kind == "usdt" {
        binary.markers().iter().map(|marker| format!("{}:{}", marker.provider, marker.name)).collect()
    } else {
        binary.findable_names(longest)
    };
    // An address begins with a digit, and an offset is a number behind a `+`.
    let is_number = |name: &str| name.starts_with(|c: char| c.is_ascii_digit());
    let is_plain = |name: &String| !is_number(name) && !name.rsplit_once('+').is_some_and(|(_, end)| is_number(end));
    names
        .into_iter()
        .filter(|name| name.len() <= longest && is_plain(name))
        .map(|n| format!("{kind}:{target}:{n}"))
        .collect()
}

#[cfg(test)]
mod tests;
