//! Attach points: their text, and what the kernel knows of them.
//!
//! A file for each family of kinds. What differs between kinds is asked of the [`AttachPoint`], by the checker (which
//! arguments there are, and how they are read) and by lowering (the section, which tells libbpf the program's type);
//! only `load` looks at the variants itself, to attach.

mod denied;
mod function;
mod iter;
mod module;
mod passed;
pub mod pattern;
mod perf;
mod raw;
mod registers;
mod search;
pub mod tracepoint;
mod typed;
mod user;

use std::fmt;
use std::sync::Arc;

pub use denied::is_denied;
pub use function::{
    FunctionKind, KernelFunction, names as function_names, names_of_module as function_names_of_module,
};
pub use iter::{Again, Iter, kinds as iterator_kinds};
pub use pattern::{Glob, count, is_wild, members};
pub use perf::{Counted, PerfEvent, names as event_names};
pub use search::{MAX_COMPARED_NAMES, Meant, Search};
pub use tracepoint::readable_fields;
pub use user::{Location, UserKind, UserPoint};

use super::bounds::MAX_ATTACH_LENGTH;
use super::diagnostic::{Fault, Span, did_you_mean};
use super::pointer::Trust;
use super::{Node, familiar};
use crate::kernel::kfunc::ProgramKind;
use crate::kernel::{FactError, Feature, KernelFacts, RawTracepoint, TracepointFormat, TypeId};
use search::Name;

/// What a name means at an attach point.
#[derive(Clone, Debug)]
pub enum Value {
    Node(Node),
    /// A structure as it is passed or returned, of which only fields are values: it lies at `base + offset`.
    Structure {
        base: Node,
        offset: u32,
        ty: TypeId,
    },
}

/// Where a probe fires, found on this kernel.
#[derive(Clone, Debug)]
pub enum AttachPoint {
    /// A perf tracepoint: the program's context is the record that the format describes.
    Tracepoint(Arc<TracepointFormat>),
    /// A raw tracepoint, as a tp_btf program: the context is the tracepoint's arguments, typed by BTF.
    RawTracepoint(RawTracepoint),
    /// A perf event on each CPU, or of one process: the context is `struct bpf_perf_event_data`.
    Perf(PerfEvent),
    /// A walk over the kernel's objects of a kind: the context is the iterator's arguments, typed by BTF.
    Iter(Iter),
    /// A function of the kernel, or a hook of its security modules.
    Function(KernelFunction),
    /// A place in a program or library: the context is the thread's registers.
    User(UserPoint),
}

impl fmt::Display for AttachPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AttachPoint::Tracepoint(format) => write!(f, "tracepoint:{}:{}", format.system, format.name),
            AttachPoint::RawTracepoint(point) => write!(f, "rawtracepoint:{}", point.name),
            AttachPoint::Perf(event) => event.fmt(f),
            AttachPoint::Iter(iter) => write!(f, "iter:{}", iter.kind),
            AttachPoint::Function(function) => function.fmt(f),
            AttachPoint::User(point) => point.fmt(f),
        }
    }
}

impl AttachPoint {
    /// The section of the program in the object, by which libbpf knows its type and what it is bound to.
    pub fn section(&self) -> String {
        match self {
            AttachPoint::Tracepoint(format) => format!("tracepoint/{}/{}", format.system, format.name),
            AttachPoint::RawTracepoint(point) => format!("tp_btf/{}", point.name),
            AttachPoint::Perf(_) => "perf_event".to_owned(),
            AttachPoint::Iter(iter) => format!("iter/{}", iter.kind),
            AttachPoint::Function(function) => format!("{}/{}", function.kind.name(), function.qualified_name()),
            // Where it fires is the loader's business.
            AttachPoint::User(_) => "uprobe".to_owned(),
        }
    }

    /// The fields of `args`.
    pub fn argument_names(&self) -> Vec<String> {
        match self {
            AttachPoint::Tracepoint(format) => tracepoint::argument_names(format),
            AttachPoint::RawTracepoint(point) => point.params.iter().map(|(name, _)| name.clone()).collect(),
            AttachPoint::Perf(event) => event.argument_names().iter().map(|name| (*name).to_owned()).collect(),
            AttachPoint::Iter(iter) => iter.params.iter().map(|(name, _)| name.clone()).collect(),
            AttachPoint::Function(function) => function.argument_names(),
            AttachPoint::User(_) => Vec::new(),
        }
    }

    /// `args.name`; none where `args` has no such field here.
    pub fn argument(&self, name: &str, facts: &KernelFacts, span: Span) -> Option<Result<Value, Fault>> {
        let argument = match self {
            AttachPoint::Tracepoint(format) => tracepoint::argument(format, name, facts, span),
            AttachPoint::RawTracepoint(point) => raw::argument(point, name, facts, span),
            AttachPoint::Perf(event) => event.argument(name, facts, span),
            AttachPoint::Iter(iter) => iter.argument(name, facts, span),
            AttachPoint::Function(function) => return function.argument(name, facts, span),
            AttachPoint::User(_) => None,
        };
        argument.map(|argument| argument.map(Value::Node))
    }

    /// Why there is no `args` here, where another attach point of the same thing has it.
    pub fn without_arguments(&self, span: Span) -> Option<Fault> {
        match self {
            AttachPoint::Function(function) => function.has_arguments(span).err(),
            _ => None,
        }
    }

    /// A name that means something at some attach points only: `retval`, `arg0`, …; none where it means nothing here.
    pub fn name(&self, name: &str, facts: &KernelFacts, span: Span) -> Option<Result<Value, Fault>> {
        let function = match self {
            AttachPoint::Function(function) => function,
            AttachPoint::User(point) => return user::value(point, name, span).map(|value| value.map(Value::Node)),
            _ => return None,
        };
        if name == "retval" {
            return Some(function.result(facts, span));
        }
        let number = name.strip_prefix("arg")?.parse().ok()?;
        Some(function.numbered(number, facts, span).map(Value::Node))
    }

    /// `reg("name")`.
    pub fn register(&self, name: &str, facts: &KernelFacts, span: Span) -> Result<Node, Fault> {
        match self {
            AttachPoint::Function(function) => function.register(name, facts, span),
            AttachPoint::User(_) => user::named_register(name.as_bytes(), span),
            _ => Err(Fault::new(span, "registers cannot be read here")
                .help("at `kprobe`, `kretprobe` and in programs they can")),
        }
    }

    /// The name of the function where it is, if it is at one.
    pub fn function(&self) -> Option<&str> {
        match self {
            AttachPoint::Function(function) => Some(&function.name),
            AttachPoint::User(point) => point.function.as_deref(),
            _ => None,
        }
    }

    /// Whether its programs may be ones that sleep.
    pub fn may_sleep(&self, facts: &KernelFacts) -> bool {
        match self {
            AttachPoint::Function(KernelFunction { kind: FunctionKind::Lsm, prototype: Some(hook), .. }) => {
                facts.may_sleep_at(hook.id)
            }
            AttachPoint::Iter(_) | AttachPoint::User(_) => true,
            _ => false,
        }
    }

    /// What its programs are, where the kernel decides what they may call; `sleeps`: one that may sleep.
    pub fn program_kind(&self, sleeps: bool) -> ProgramKind {
        match self {
            AttachPoint::Function(function) if sleeps && function.kind == FunctionKind::Lsm => {
                ProgramKind::LsmSleepable
            }
            AttachPoint::Iter(_) if sleeps => ProgramKind::IterSleepable,
            AttachPoint::User(_) if sleeps => ProgramKind::UprobeSleepable,
            AttachPoint::Tracepoint(_) => ProgramKind::Tracepoint,
            AttachPoint::RawTracepoint(_) => ProgramKind::Tracing,
            AttachPoint::Perf(_) => ProgramKind::PerfEvent,
            AttachPoint::Iter(_) => ProgramKind::Iter,
            AttachPoint::Function(function) => match function.kind {
                FunctionKind::Lsm => ProgramKind::Lsm,
                kind if kind.is_typed() => ProgramKind::Tracing,
                _ => ProgramKind::Kprobe,
            },
            AttachPoint::User(_) => ProgramKind::Kprobe,
        }
    }

    /// Whether its programs are bound to what a module adds to the kernel's types.
    pub fn is_bound_to_module(&self) -> bool {
        match self {
            AttachPoint::RawTracepoint(point) => point.of_module,
            AttachPoint::Function(function) => function.is_bound_to_module(),
            _ => false,
        }
    }

    /// Whether the verifier takes what this argument points to for alive (kernel/bpf/btf.c: prog_args_trusted, and the
    /// `ctx_arg_info` of iterators).
    pub fn vouches_for(&self, argument: u32) -> Trust {
        match self {
            AttachPoint::RawTracepoint(_) => Trust::Full,
            AttachPoint::Function(function) => function.vouches(),
            AttachPoint::Iter(iter) => iter.vouches_for(argument),
            _ => Trust::Nothing,
        }
    }

    /// What the kernel must offer beyond what Porthole needs anyway.
    pub fn feature(&self) -> Option<Feature> {
        match self {
            AttachPoint::Function(function) => Some(function.feature()),
            _ => None,
        }
    }
}

/// An attach point as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spec {
    Tracepoint { system: Name, name: Name },
    RawTracepoint { name: Name },
    Perf(PerfEvent),
    Iter { kind: Name },
    Function(function::Spec),
    User(user::UserSpec),
}

/// Kinds that bpftrace's users know and this version does not have.
const LATER: [&str; 6] = ["interval", "asyncwatchpoint", "begin", "end", "BEGIN", "END"];

/// The whole name of a kind, by that or by its short one.
///
/// # Errors
/// What is wrong with the word, in a text that begins with it.
pub fn kind(word: &str) -> Result<&'static str, Fault> {
    let whole = SHORT.iter().find(|(short, _)| *short == word).map_or(word, |(_, whole)| whole);
    KINDS.into_iter().find(|kind| *kind == whole).ok_or_else(|| unknown_kind(word, false))
}

/// The attach points that a text stands for on this kernel.
pub fn find(text: &str, facts: &KernelFacts) -> Result<Vec<AttachPoint>, Fault> {
    resolve(&parse(text)?, &Search::new(facts))
}

/// What an attach point looks like.
const FORM: &str = "an attach point is a kind and a name, such as `tracepoint:sched:sched_switch` or `kprobe:vfs_read`";

/// The kinds that there are, and what bpftrace called them before.
pub const KINDS: [&str; 16] = [
    "tracepoint",
    "rawtracepoint",
    "fentry",
    "fexit",
    "kprobe",
    "kretprobe",
    "func",
    "lsm",
    "profile",
    "software",
    "hardware",
    "watchpoint",
    "iter",
    "uprobe",
    "uretprobe",
    "usdt",
];
/// Their short names, which are bpftrace's.
const SHORT: [(&str, &str); 14] = [
    ("t", "tracepoint"),
    ("rt", "rawtracepoint"),
    ("f", "fentry"),
    ("fr", "fexit"),
    ("k", "kprobe"),
    ("kr", "kretprobe"),
    ("p", "profile"),
    ("s", "software"),
    ("h", "hardware"),
    ("w", "watchpoint"),
    ("it", "iter"),
    ("u", "uprobe"),
    ("ur", "uretprobe"),
    ("U", "usdt"),
];
const OLD: [(&str, &str); 2] = [("kfunc", "fentry"), ("kretfunc", "fexit")];

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
    // As in `kprobe:vfs_read /pid == 1/`.
    if let Some(at) = text.find([' ', '\t', '\n']) {
        let fault = Fault::new(Span::new(at, text.len()), "an attach point holds no blanks");
        return Err(fault.help("a condition is a step of its own, `when`, and what is sent another, `emit`"));
    }
    if let Some(spec) = parse_self_described(kind, text) {
        return spec;
    }
    let rest: Vec<&str> = parts.collect();
    if let Some(kind) = FunctionKind::parse(kind) {
        return function::parse(kind, &rest, text).map(Spec::Function);
    }
    let known = matches!(kind, "tracepoint" | "t" | "rawtracepoint" | "rt");
    if !known {
        return Err(unknown_kind(kind, !text.contains(':')));
    }
    let mut names = Vec::new();
    for (part, at) in placed(&rest, text) {
        check_name(part, at)?;
        names.push(Name { text: part.to_owned(), at });
    }
    match (kind, names.as_slice()) {
        ("tracepoint" | "t", [system, name]) if !system.text.is_empty() && !name.text.is_empty() => {
            Ok(Spec::Tracepoint { system: system.clone(), name: name.clone() })
        }
        ("tracepoint" | "t", _) => {
            let fault = Fault::new(whole, "a tracepoint is written `tracepoint:SYSTEM:NAME`");
            Err(match rest.as_slice() {
                [name] if !name.is_empty() => {
                    fault.help(format!("`porthole list tracepoint:*{name}*` finds its system"))
                }
                _ => fault,
            })
        }
        ("rawtracepoint" | "rt", [name]) if !name.text.is_empty() => Ok(Spec::RawTracepoint { name: name.clone() }),
        _ => {
            let fault = Fault::new(whole, "a raw tracepoint is written `rawtracepoint:NAME`");
            Err(match rest.as_slice() {
                [_, name] if !name.is_empty() => fault.help(format!("it has no system: `rawtracepoint:{name}`")),
                _ => fault,
            })
        }
    }
}

/// Kinds of which the text says all that there is to know, or that name no path; none where `kind` is none of them.
fn parse_self_described(kind: &str, text: &str) -> Option<Result<Spec, Fault>> {
    let parts: Vec<&str> = text.split(':').skip(1).collect();
    let whole = Span::new(0, text.len());
    let parts = placed(&parts, text);
    perf::parse(kind, &parts, whole).or_else(|| iter::parse(kind, &parts, whole))
}

/// The last parts of the text, each with its place.
fn placed<'a>(parts: &[&'a str], text: &str) -> Vec<(&'a str, Span)> {
    let start = |i: usize| text.len() - parts[i..].join(":").len();
    parts.iter().enumerate().map(|(i, part)| (*part, Span::new(start(i), start(i) + part.len()))).collect()
}

/// `alone` where nothing stands behind it.
fn unknown_kind(kind: &str, alone: bool) -> Fault {
    let span = Span::new(0, kind.len());
    if LATER.contains(&kind) {
        let fault = Fault::new(span, format!("attach points of the kind `{kind}` are not there yet"));
        return fault.help(familiar::attach_kind(kind).unwrap_or(FORM));
    }
    if let Some((_, new)) = OLD.iter().find(|(old, _)| *old == kind) {
        return Fault::new(span, format!("`{kind}` is an old name")).help(format!("write `{new}`"));
    }
    let fault = Fault::new(span, format!("there is no kind of attach point named `{kind}`"));
    if let Some(help) = familiar::attach_kind(kind) {
        return fault.help(help);
    }
    // As libbpf's sections are named.
    if let Some((first, rest)) = kind.split_once('/')
        && KINDS.contains(&first)
    {
        return fault.help(format!("a colon stands between kind and name: `{first}:{}`", rest.replace('/', ":")));
    }
    match did_you_mean(kind, KINDS) {
        Some(help) => fault.help(help),
        None if alone => {
            fault.help(FORM).help(format!("`porthole list {kind}` finds attach points by parts of their names"))
        }
        None => fault.help(FORM),
    }
}

/// A part of a tracepoint becomes part of a path below tracefs, so nothing but a plain name will do, or a pattern of
/// one.
fn check_name(name: &str, span: Span) -> Result<(), Fault> {
    if is_wild(name) {
        return Glob::parse(name, span).map(|_| ());
    }
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if !plain || name == "." || name == ".." {
        return Err(Fault::new(span, format!("`{name}` can be no name of a tracepoint")).help(FORM));
    }
    Ok(())
}

/// What an attach point stands for: itself, or what its pattern matches.
pub fn expand(spec: &Spec, search: &Search<'_>) -> Result<Meant, Fault> {
    match spec {
        Spec::Tracepoint { system, name } if system.is_wild() || name.is_wild() => {
            tracepoint::expand(system, name, search)
        }
        Spec::RawTracepoint { name } if name.is_wild() => raw::expand(name, search),
        Spec::Iter { kind } if kind.is_wild() => iter::expand(kind, search),
        Spec::Function(spec) if is_wild(&spec.name) => function::expand(spec, search),
        Spec::User(spec) => user::expand(spec, search),
        _ => Ok(Meant::one(spec)),
    }
}

/// Finds an attach point on the kernel, or on the machine. Mostly it is one.
pub fn resolve(spec: &Spec, search: &Search<'_>) -> Result<Vec<AttachPoint>, Fault> {
    let one = match spec {
        Spec::User(spec) => return Ok(user::resolve(spec, search)?.into_iter().map(AttachPoint::User).collect()),
        Spec::Tracepoint { system, name } => tracepoint::resolve(system, name, search).map(AttachPoint::Tracepoint),
        Spec::RawTracepoint { name } => raw::resolve(name, search).map(AttachPoint::RawTracepoint),
        Spec::Perf(event) => Ok(AttachPoint::Perf(event.clone())),
        Spec::Iter { kind } => iter::resolve(kind, search).map(AttachPoint::Iter),
        Spec::Function(spec) => function::resolve(spec, search).map(AttachPoint::Function),
    };
    Ok(vec![one?])
}

fn no_facts(error: &FactError) -> Fault {
    Fault::new(Span::new(0, 0), error.to_string()).help("`porthole doctor` tells what this kernel allows")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let name = |text: &str, start| Name { text: text.to_owned(), at: Span::new(start, start + text.len()) };
        let tracepoint = Spec::Tracepoint { system: name("sched", 11), name: name("sched_switch", 17) };
        assert_eq!(parse("tracepoint:sched:sched_switch"), Ok(tracepoint));
        let short = Spec::Tracepoint { system: name("sched", 2), name: name("sched_*", 8) };
        assert_eq!(parse("t:sched:sched_*"), Ok(short));
        assert_eq!(parse("rawtracepoint:x"), Ok(Spec::RawTracepoint { name: name("x", 14) }));
        assert_eq!(parse("rt:x"), Ok(Spec::RawTracepoint { name: name("x", 3) }));
    }

    #[test]
    fn faults_are_placed() {
        for (text, start, end, message) in [
            ("", 0, 0, "it is empty"),
            ("kprobe:../..:x", 7, 12, "`../..` can be no name of a module"),
            ("kprobe:vfs_[a", 11, 13, "`[` begins a set of characters, and no `]` ends it"),
            ("kfunc:vfs_read", 0, 5, "`kfunc` is an old name"),
            ("tracepoint", 0, 10, "a tracepoint is written `tracepoint:SYSTEM:NAME`"),
            ("tracepoint:a", 0, 12, "a tracepoint is written `tracepoint:SYSTEM:NAME`"),
            ("tracepoint:../..:x", 11, 16, "`../..` can be no name of a tracepoint"),
            ("tracepoint:..:x", 11, 13, "`..` can be no name of a tracepoint"),
            ("tracepoint:a:[b", 13, 15, "`[` begins a set of characters, and no `]` ends it"),
            ("tracepiont:a:b", 0, 10, "there is no kind of attach point named `tracepiont`"),
        ] {
            let fault = parse(text).expect_err(text);
            assert_eq!((fault.span, fault.message.as_str()), (Span::new(start, end), message), "{text}");
        }
    }
}
