//! Attach points: their text, and what the kernel knows of them.

use std::fmt;
use std::sync::Arc;

use super::diagnostic::{Fault, Span, did_you_mean};
use super::familiar;
use super::user::{self, UserPoint, UserSpec};
use super::validate::MAX_ATTACH_LENGTH;
use crate::kernel::{FactError, KernelFacts, RawTracepoint, TracepointFormat};

/// Where a probe fires, found on this kernel.
#[derive(Clone, Debug)]
pub enum AttachPoint {
    /// A perf tracepoint: the program's context is the record that the format describes.
    Tracepoint(Arc<TracepointFormat>),
    /// A raw tracepoint, as a tp_btf program: the context is the tracepoint's arguments, typed by BTF.
    RawTracepoint(RawTracepoint),
    /// A place in a program or library: the context is the thread's registers.
    User(UserPoint),
}

impl fmt::Display for AttachPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AttachPoint::Tracepoint(format) => write!(f, "tracepoint:{}:{}", format.system, format.name),
            AttachPoint::RawTracepoint(point) => write!(f, "rawtracepoint:{}", point.name),
            AttachPoint::User(point) => point.fmt(f),
        }
    }
}

/// An attach point as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spec {
    Tracepoint { system: String, name: String },
    RawTracepoint { name: String },
    User(UserSpec),
}

/// Kinds that bpftrace's users know and this version does not have.
const LATER: [&str; 21] = [
    "fentry",
    "fexit",
    "kfunc",
    "kretfunc",
    "kprobe",
    "kretprobe",
    "func",
    "profile",
    "interval",
    "software",
    "hardware",
    "watchpoint",
    "asyncwatchpoint",
    "iter",
    "lsm",
    "begin",
    "end",
    "BEGIN",
    "END",
    "self",
    "bench",
];

/// What an attach point looks like.
const FORM: &str = "an attach point is `tracepoint:SYSTEM:NAME` or `rawtracepoint:NAME`";

/// Where the names of tracepoints can be read.
const LISTED: &str = "/sys/kernel/tracing/available_events lists them";

/// Which names raw tracepoints have.
const RAW_NAMES: &str =
    "raw tracepoints have the names of tracepoints, without the system; those of modules are not there yet";

/// Reads an attach point's text.
pub fn parse(text: &str) -> Result<Spec, Fault> {
    let whole = Span::new(0, text.len());
    if text.len() > MAX_ATTACH_LENGTH {
        return Err(Fault::new(whole, format!("it has {} bytes, and {MAX_ATTACH_LENGTH} is the most", text.len())));
    }
    if text.is_empty() {
        return Err(Fault::new(whole, "it is empty").help(FORM));
    }
    let mut parts = text.split(':');
    let kind = parts.next().unwrap_or_default();
    if let Some(kind) = user::kind(kind) {
        return user::parse(kind, text).map(Spec::User);
    }
    if !matches!(kind, "tracepoint" | "t" | "rawtracepoint" | "rt") {
        return Err(unknown_kind(kind));
    }
    let rest: Vec<&str> = parts.collect();
    for (i, part) in rest.iter().enumerate() {
        let start = text.len() - rest[i..].join(":").len();
        check_name(part, Span::new(start, start + part.len()))?;
    }
    match (kind, rest.as_slice()) {
        ("tracepoint" | "t", [system, name]) if !system.is_empty() && !name.is_empty() => {
            Ok(Spec::Tracepoint { system: (*system).to_owned(), name: (*name).to_owned() })
        }
        ("tracepoint" | "t", _) => Err(Fault::new(whole, "a tracepoint is written `tracepoint:SYSTEM:NAME`")),
        ("rawtracepoint" | "rt", [name]) if !name.is_empty() => Ok(Spec::RawTracepoint { name: (*name).to_owned() }),
        _ => Err(Fault::new(whole, "a raw tracepoint is written `rawtracepoint:NAME`")),
    }
}

fn unknown_kind(kind: &str) -> Fault {
    let span = Span::new(0, kind.len());
    if LATER.contains(&kind) {
        let fault = Fault::new(span, format!("attach points of the kind `{kind}` are not there yet"));
        return fault.help(familiar::attach_kind(kind).unwrap_or(FORM));
    }
    let fault = Fault::new(span, format!("there is no kind of attach point named `{kind}`"));
    match did_you_mean(kind, ["tracepoint", "rawtracepoint", "uprobe", "uretprobe", "usdt"]) {
        Some(help) => fault.help(help),
        None => fault.help(FORM),
    }
}

/// A part of an attach point becomes part of a path below tracefs, so nothing but a plain name will do.
fn check_name(name: &str, span: Span) -> Result<(), Fault> {
    if name.contains(['*', '?', '[', '{', ',']) {
        return Err(Fault::new(span, "wildcards and lists are not there yet").help("name each attach point"));
    }
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if !plain || name == "." || name == ".." {
        return Err(Fault::new(span, format!("`{name}` can be no name of a tracepoint")).help(FORM));
    }
    Ok(())
}

/// Finds an attach point on the kernel, or on the machine. Mostly it is one.
pub fn resolve(spec: &Spec, facts: &KernelFacts) -> Result<Vec<AttachPoint>, Fault> {
    match spec {
        Spec::User(spec) => Ok(user::resolve(spec, facts)?.into_iter().map(AttachPoint::User).collect()),
        Spec::Tracepoint { system, name } => match facts.tracepoint(system, name) {
            Ok(Some(format)) => Ok(vec![AttachPoint::Tracepoint(format)]),
            Ok(None) => Err(unknown_tracepoint(system, name, facts)),
            Err(error) => Err(no_facts(&error)),
        },
        Spec::RawTracepoint { name } => match facts.raw_tracepoint(name) {
            Ok(Some(point)) => Ok(vec![AttachPoint::RawTracepoint(point)]),
            Ok(None) => {
                let names = facts.raw_tracepoint_names().unwrap_or_default();
                let start = "rawtracepoint:".len();
                let span = Span::new(start, start + name.len());
                let fault = Fault::new(span, format!("this kernel has no raw tracepoint `{name}`"));
                let near = did_you_mean(name, names.iter().map(String::as_str));
                Err(fault.help(near.unwrap_or_else(|| RAW_NAMES.to_owned())))
            }
            Err(error) => Err(no_facts(&error)),
        },
    }
}

fn unknown_tracepoint(system: &str, name: &str, facts: &KernelFacts) -> Fault {
    let all = facts.tracepoint_names().unwrap_or_default();
    let start = "tracepoint:".len();
    if all.iter().any(|(s, _)| s == system) {
        let start = start + system.len() + 1;
        let span = Span::new(start, start + name.len());
        let names = all.iter().filter(|(s, _)| s == system).map(|(_, n)| n.as_str());
        let elsewhere = all.iter().find(|(_, n)| n == name).map(|(s, n)| format!("there is `tracepoint:{s}:{n}`"));
        let fault = Fault::new(span, format!("this kernel has no tracepoint `{name}` in `{system}`"));
        return fault.help(did_you_mean(name, names).or(elsewhere).unwrap_or_else(|| LISTED.to_owned()));
    }
    let mut systems: Vec<&str> = all.iter().map(|(s, _)| s.as_str()).collect();
    systems.dedup();
    let fault =
        Fault::new(Span::new(start, start + system.len()), format!("this kernel has no tracepoints in `{system}`"));
    fault.help(did_you_mean(system, systems).unwrap_or_else(|| LISTED.to_owned()))
}

fn no_facts(error: &FactError) -> Fault {
    Fault::new(Span::new(0, 0), error.to_string()).help("`porthole doctor` tells what this kernel allows")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let tracepoint = Spec::Tracepoint { system: "sched".into(), name: "sched_switch".into() };
        assert_eq!(parse("tracepoint:sched:sched_switch"), Ok(tracepoint.clone()));
        assert_eq!(parse("t:sched:sched_switch"), Ok(tracepoint));
        assert_eq!(parse("rawtracepoint:x"), Ok(Spec::RawTracepoint { name: "x".into() }));
        assert_eq!(parse("rt:x"), parse("rawtracepoint:x"));
    }

    #[test]
    fn faults_are_placed() {
        for (text, start, end, message) in [
            ("", 0, 0, "it is empty"),
            ("kprobe:../..:x", 0, 6, "attach points of the kind `kprobe` are not there yet"),
            ("tracepoint", 0, 10, "a tracepoint is written `tracepoint:SYSTEM:NAME`"),
            ("tracepoint:a", 0, 12, "a tracepoint is written `tracepoint:SYSTEM:NAME`"),
            ("tracepoint:../..:x", 11, 16, "`../..` can be no name of a tracepoint"),
            ("tracepoint:..:x", 11, 13, "`..` can be no name of a tracepoint"),
            ("tracepoint:a:b*", 13, 15, "wildcards and lists are not there yet"),
            ("kprobe:vfs_read", 0, 6, "attach points of the kind `kprobe` are not there yet"),
            ("tracepiont:a:b", 0, 10, "there is no kind of attach point named `tracepiont`"),
        ] {
            let fault = parse(text).expect_err(text);
            assert_eq!((fault.span, fault.message.as_str()), (Span::new(start, end), message), "{text}");
        }
    }
}
