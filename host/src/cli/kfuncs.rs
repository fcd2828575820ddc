//! `porthole kfuncs`.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use super::{ignore_closed, say};
use porthole::cache::default_cache_dir;
use porthole::kernel::{Answer, KernelFacts, ProgramKind};
use porthole::list::{Callable, KfuncListing, ListedKfunc, kfuncs as find};
use porthole::output::{escape_terminal, json_line};

#[derive(Args)]
pub struct KfuncsArguments {
    /// Print also why other kinds of probes may not call each, and since when it is there
    #[arg(short, long)]
    verbose: bool,
    /// Print each as a JSON object on a line of its own
    #[arg(long)]
    json: bool,
    /// Those to print: a part of the name, with wildcards and lists as declarations have them: `task`, 'bpf_cpumask_*',
    /// '{acquire,release}'
    pattern: Option<String>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    prototype: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    module: Option<&'a str>,
    /// None where they are not known.
    flags: Option<&'a [&'static str]>,
    from: Vec<From<'a>>,
    /// `yes`, `host`, `claimed` or `no`.
    callable: &'static str,
    /// Why it is not, or what to write instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    about: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    effect: Option<&'static str>,
    /// The first version that is known to have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
}

/// Whether probes of a kind may call it.
#[derive(Serialize)]
struct From<'a> {
    kinds: Vec<&'static str>,
    sleepable: bool,
    /// `yes`, `no` or `unknown`.
    may: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
}

pub fn kfuncs(arguments: &KfuncsArguments) -> anyhow::Result<ExitCode> {
    let facts = KernelFacts::running().remembering_in(default_cache_dir());
    let listing = find(arguments.pattern.as_deref(), &facts)??;
    if let (Some(pattern), true) = (&arguments.pattern, listing.kfuncs.is_empty()) {
        anyhow::bail!("no kfunc of this kernel matches `{}`{}", escape_terminal(pattern), elsewhere(&listing));
    }
    if let Some(Answer::Unknown(why)) = doubt(&listing) {
        say(format_args!("note: which probes may call them could not be told for all: {}", escape_terminal(why)));
    }
    let mut stdout = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let mut line = Vec::new();
    let printed = listing.kfuncs.iter().try_for_each(|kfunc| {
        line.clear();
        if arguments.json {
            json_line(&as_json(kfunc), &mut line);
        } else {
            as_text(kfunc, arguments.verbose, &mut line);
        }
        stdout.write_all(&line)
    });
    let printed = printed.and_then(|()| stdout.flush());
    // What it still holds after a failure nobody would read.
    let _ = stdout.into_parts();
    printed.or_else(ignore_closed).context("stdout cannot be written")?;
    Ok(ExitCode::SUCCESS)
}

/// Other kernels that have what this one lacks.
fn elsewhere(listing: &KfuncListing) -> String {
    let there = listing.elsewhere.iter().map(|known| {
        let (major, minor) = known.since();
        format!("{} in Linux {major}.{minor}", known.name)
    });
    match there.collect::<Vec<_>>() {
        there if there.is_empty() => String::new(),
        there => format!("; known of other kernels: {}", there.join(", ")),
    }
}

/// An answer that could not be had for any kind of probe, as without privileges.
fn doubt(listing: &KfuncListing) -> Option<&Answer> {
    let first = listing.kfuncs.first()?.callers.values().next()?;
    let all = listing.kfuncs.iter().flat_map(|kfunc| kfunc.callers.values());
    all.into_iter().all(|answer| matches!(answer, Answer::Unknown(_))).then_some(first)
}

fn as_text(kfunc: &ListedKfunc, verbose: bool, to: &mut Vec<u8>) {
    let mut line = |indent: &str, text: &str| {
        to.extend_from_slice(indent.as_bytes());
        to.extend_from_slice(escape_terminal(text).as_bytes());
        to.push(b'\n');
    };
    line("", &kfunc.prototype);
    if let Some(module) = &kfunc.module {
        line("    ", &format!("module: {module}"));
    }
    if let Some(known) = kfunc.known {
        line("    ", &format!("about: {}", known.about));
    }
    let flags = match kfunc.flags.as_deref() {
        None => "not known".to_owned(),
        Some([]) => "none".to_owned(),
        Some(flags) => flags.join(", "),
    };
    line("    ", &format!("flags: {flags}"));
    line("    ", &format!("from: {}", from(kfunc)));
    match kfunc.callable() {
        Callable::Yes => line("    ", "plugins: may call it"),
        Callable::Host(instead) => line("    ", &format!("plugins: need not call it: {instead}")),
        Callable::Claimed => line("    ", "plugins: may call it, where the declaration claims how its result is owned"),
        Callable::No(why) => line("    ", &format!("plugins: cannot call it: {why}")),
    }
    if let Some(effect) = kfunc.known.and_then(|known| known.effect) {
        line("    ", &format!("effect: {effect}"));
    }
    if verbose {
        for (refusal, kinds) in refusals(kfunc) {
            match refusal {
                Answer::No(why) => line("    ", &format!("not from {}: {why}", kinds.join("; "))),
                Answer::Unknown(why) => line("    ", &format!("could not tell of {}: {why}", kinds.join("; "))),
                Answer::Yes => {}
            }
        }
        if let Some(known) = kfunc.known {
            let (major, minor) = known.since();
            line("    ", &format!("known since: Linux {major}.{minor}"));
        }
    }
}

/// The kinds that may call it. One that may sleep is told only where the same that may not is not among them.
fn from(kfunc: &ListedKfunc) -> String {
    let may = |kind: ProgramKind| kfunc.callers.get(&kind) == Some(&Answer::Yes);
    let worth_telling = |kind: &ProgramKind| may(*kind) && !awake(*kind).is_some_and(may);
    let kinds: Vec<_> = ProgramKind::ALL.into_iter().filter(worth_telling).map(ProgramKind::name).collect();
    let doubt = kfunc.callers.values().find_map(|a| if let Answer::Unknown(why) = a { Some(why) } else { None });
    match (kinds.is_empty(), doubt) {
        (false, _) => kinds.join("; "),
        (true, Some(why)) => format!("could not tell: {why}"),
        (true, None) => "none".to_owned(),
    }
}

/// The kind whose programs are attached alike and must not sleep.
fn awake(kind: ProgramKind) -> Option<ProgramKind> {
    match kind {
        ProgramKind::FentrySleepable => Some(ProgramKind::Tracing),
        ProgramKind::UprobeSleepable => Some(ProgramKind::Kprobe),
        ProgramKind::IterSleepable => Some(ProgramKind::Iter),
        ProgramKind::LsmSleepable => Some(ProgramKind::Lsm),
        _ => None,
    }
}

/// Why the others may not, or what keeps it from being told, with the kinds of which it holds.
fn refusals(kfunc: &ListedKfunc) -> Vec<(&Answer, Vec<&'static str>)> {
    let mut refusals: Vec<(&Answer, Vec<&'static str>)> = Vec::new();
    for (kind, answer) in kfunc.callers.iter().filter(|(_, answer)| **answer != Answer::Yes) {
        match refusals.iter_mut().find(|(known, _)| *known == answer) {
            Some((_, kinds)) => kinds.push(kind.name()),
            None => refusals.push((answer, vec![kind.name()])),
        }
    }
    refusals
}

fn as_json(kfunc: &ListedKfunc) -> Line<'_> {
    let (callable, why) = match kfunc.callable() {
        Callable::Yes => ("yes", None),
        Callable::Host(instead) => ("host", Some(instead.to_owned())),
        Callable::Claimed => ("claimed", None),
        Callable::No(why) => ("no", Some(why)),
    };
    let from = kfunc.callers.iter().map(|(kind, answer)| {
        let (may, why) = match answer {
            Answer::Yes => ("yes", None),
            Answer::No(why) => ("no", Some(why.as_str())),
            Answer::Unknown(why) => ("unknown", Some(why.as_str())),
        };
        let kinds = kind.name().trim_start_matches("sleepable ").split(", ").collect();
        From { kinds, sleepable: kind.may_sleep(), may, why }
    });
    Line {
        name: &kfunc.name,
        prototype: &kfunc.prototype,
        module: kfunc.module.as_deref(),
        flags: kfunc.flags.as_deref(),
        from: from.collect(),
        callable,
        why,
        about: kfunc.known.map(|known| known.about),
        effect: kfunc.known.and_then(|known| known.effect),
        since: kfunc.known.map(|known| format!("{}.{}", known.since().0, known.since().1)),
    }
}
