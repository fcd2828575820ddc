//! Perf tracepoints: the program's context is a record that the tracepoint's format describes.

use std::sync::Arc;

use super::search::{Meant, Name, Search};
use super::{Spec, no_facts};
use crate::kernel::{FieldLocation, KernelFacts, Kind, TracepointField, TracepointFormat};
use crate::plan::bounds::{STR_DEFAULT, STR_MAX};
use crate::plan::diagnostic::{Fault, Span};
use crate::plan::{Node, NodeKind, Origin, Target, Type};

/// Words of a type at most that is looked at star by star.
const MOST_WORDS: usize = 8;

/// Where the names of tracepoints can be read.
const LISTED: &str = "`porthole list tracepoint` lists them";

/// Tracepoints of the function tracer's own, which only it can use (include/linux/trace_events.h:
/// TRACE_EVENT_FL_IGNORE_ENABLE).
const OF_FTRACE: &str = "ftrace";

/// The tracepoints that two patterns match, or a name and a pattern.
pub fn expand(system: &Name, name: &Name, search: &Search<'_>) -> Result<Meant, Fault> {
    let all = search.tracepoints().map_err(no_facts)?;
    let mut systems: Vec<&str> = all.iter().map(|(system, _)| system.as_str()).filter(|s| *s != OF_FTRACE).collect();
    systems.dedup();
    let wanted = if system.is_wild() { search.matching(system, systems.iter().copied())? } else { vec![&*system.text] };
    if wanted.is_empty() {
        return Err(search.nothing(system, "system of tracepoints", systems));
    }
    let inside = || all.iter().filter(|(system, _)| wanted.binary_search(&system.as_str()).is_ok());
    if inside().next().is_none() {
        return Err(unknown_system(system, search));
    }
    let mut found = inside().collect::<Vec<_>>();
    if name.is_wild() {
        found = search.matching_by(name, found, |(_, name)| name)?;
    } else {
        found.retain(|(_, n)| *n == name.text);
    }
    if found.is_empty() {
        let what = format!("tracepoint in `{}`", system.text);
        return Err(search.nothing(name, &what, inside().map(|(_, name)| name.as_str())));
    }
    let spec = |(s, n): &&(String, String)| Spec::Tracepoint { system: system.instead(s), name: name.instead(n) };
    let names: Vec<String> = found.iter().map(|(system, name)| format!("{system}:{name}")).collect();
    Meant::several(system.at.to(name.at), found.iter().map(spec).collect(), &names)
}

/// Finds a tracepoint on the kernel.
pub fn resolve(system: &Name, name: &Name, search: &Search<'_>) -> Result<Arc<TracepointFormat>, Fault> {
    match search.facts.tracepoint(&system.text, &name.text) {
        Ok(Some(format)) => Ok(format),
        Ok(None) => Err(unknown_tracepoint(system, name, search)),
        Err(error) => Err(no_facts(&error)),
    }
}

/// The fields that a program may read.
pub fn readable_fields(format: &TracepointFormat) -> Vec<&TracepointField> {
    format.fields.iter().filter(|f| readable(format, f)).collect()
}

/// Their names.
pub fn argument_names(format: &TracepointFormat) -> Vec<String> {
    readable_fields(format).into_iter().map(|f| f.name.clone()).collect()
}

/// `args.name`; none where there is no such field.
pub fn argument(format: &TracepointFormat, name: &str, facts: &KernelFacts, span: Span) -> Option<Result<Node, Fault>> {
    let found = format.fields.iter().find(|f| f.name == name).filter(|f| readable(format, f))?;
    Some(field(facts, format, found, span))
}

fn field(facts: &KernelFacts, format: &TracepointFormat, field: &TracepointField, span: Span) -> Result<Node, Fault> {
    let c_type = field.c_type.trim();
    let is_char = matches!(c_type, "char" | "const char");
    let node = |kind, ty| Ok(Node { kind, ty, span });
    match (field.location, field.array) {
        (FieldLocation::DataLoc | FieldLocation::RelLoc, _) if is_char => {
            let relative = field.location == FieldLocation::RelLoc;
            node(NodeKind::LocatedText { offset: field.offset, relative }, Type::Text { max: STR_DEFAULT })
        }
        (FieldLocation::Fixed, Some(count)) if is_char && count == field.size => {
            node(NodeKind::ContextText { offset: field.offset }, Type::Text { max: count.min(STR_MAX) })
        }
        (FieldLocation::Fixed, None) => scalar(facts, format, field, c_type, span),
        _ => Err(Fault::new(
            span,
            format!("`{}` is an array of `{c_type}`, and only arrays of characters can be read yet", field.name),
        )),
    }
}

fn scalar(
    facts: &KernelFacts,
    format: &TracepointFormat,
    field: &TracepointField,
    c_type: &str,
    span: Span,
) -> Result<Node, Fault> {
    let context = |bytes| NodeKind::Context { offset: field.offset, bytes };
    if let Some(target) = c_type.strip_suffix('*') {
        if field.size != 8 {
            return Err(Fault::new(span, format!("`{}` is a pointer of {} bytes", field.name, field.size)));
        }
        let origin = if format.system == "syscalls" { Origin::User } else { Origin::Kernel };
        let ty = Type::Pointer { target: named_target(facts, target), origin };
        return Ok(Node { kind: context(8), ty, span });
    }
    let size = match field.size {
        size @ (1 | 2 | 4 | 8) if field.offset.is_multiple_of(size) => size as u8,
        _ => return Err(Fault::new(span, format!("`{}` is `{c_type}`, which is no integer", field.name))),
    };
    if c_type == "bool" && size == 1 {
        return Ok(Node { kind: context(1), ty: Type::Boolean, span });
    }
    // A system call's arguments come as registers of 8 bytes, whatever their type; of an `int`, the upper half means
    // nothing.
    let narrow = if format.system == "syscalls" { named_integer(facts, c_type) } else { None };
    let (bytes, signed) = narrow.filter(|(bytes, _)| *bytes <= size).unwrap_or((size, field.signed));
    Ok(Node { kind: context(bytes), ty: Type::Integer { bytes, signed }, span })
}

/// What `T` of `T *` is, by its name as tracepoint formats write it.
pub fn named_target(facts: &KernelFacts, text: &str) -> Target {
    let is_qualifier = |word: &str| matches!(word, "const" | "volatile" | "__user" | "__rcu");
    // `const char *const` of `const char *const *`: one of several stars, of which C has no more than a few.
    let words: Vec<&str> = text.split_whitespace().flat_map(|w| w.split_inclusive('*')).collect();
    let words = words.into_iter().flat_map(|w| w.split_once('*').map_or([w, ""], |(w, _)| [w, "*"]));
    let mut words: Vec<&str> = words.filter(|w| !w.is_empty() && !is_qualifier(w)).collect();
    if words.last() == Some(&"*") {
        words.pop();
        let target = if words.len() > MOST_WORDS { Target::Unknown } else { named_target(facts, &words.join(" ")) };
        // What a user pointer leads to is taken for the process's where it is read.
        return Target::Scalar(Box::new(Type::Pointer { target, origin: Origin::Kernel }));
    }
    match words.as_slice() {
        ["char"] | ["signed" | "unsigned", "char"] => Target::Char,
        ["struct" | "union", name] => {
            facts.btf().ok().and_then(|btf| btf.structure(name)).map_or(Target::Unknown, Target::Type)
        }
        _ => Target::Unknown,
    }
}

/// Bytes and signedness of a C integer type by its name.
fn named_integer(facts: &KernelFacts, name: &str) -> Option<(u8, bool)> {
    let known = match name {
        "int" | "pid_t" | "clockid_t" | "timer_t" | "key_t" | "mqd_t" | "s32" | "__s32" | "key_serial_t" | "rwf_t" => {
            (4, true)
        }
        "unsigned" | "unsigned int" | "uid_t" | "gid_t" | "qid_t" | "u32" | "__u32" | "aio_context_t32" => (4, false),
        "umode_t" | "unsigned short" | "u16" | "__u16" => (2, false),
        "short" => (2, true),
        "char" => (1, true),
        "unsigned char" | "u8" | "__u8" | "bool" => (1, false),
        "long" | "off_t" | "loff_t" | "ssize_t" | "s64" | "__s64" => (8, true),
        "unsigned long" | "size_t" | "u64" | "__u64" | "aio_context_t" => (8, false),
        _ => {
            let btf = facts.btf().ok()?;
            let id = btf.typedef(name).or_else(|| btf.find(name.strip_prefix("enum ")?).first().copied())?;
            return match btf.kind(btf.strip(id).id) {
                Kind::Int { bytes, signed, .. } | Kind::Enum { bytes, signed, .. } => {
                    u8::try_from(bytes).ok().map(|bytes| (bytes, signed))
                }
                _ => None,
            };
        }
    };
    Some(known)
}

/// Whether a program may read this field of its context. A system call's context holds the number and the arguments and
/// nothing of what newer kernels append for perf (kernel/trace/trace_syscalls.c: struct syscall_tp_t).
pub fn readable(format: &TracepointFormat, field: &TracepointField) -> bool {
    format.system != "syscalls"
        || (field.location == FieldLocation::Fixed && field.array.is_none() && field.offset < 64)
}

fn unknown_tracepoint(system: &Name, name: &Name, search: &Search<'_>) -> Fault {
    let all = search.tracepoints().unwrap_or_default();
    if !all.iter().any(|(s, _)| *s == system.text) {
        return unknown_system(system, search);
    }
    let names = all.iter().filter(|(s, _)| *s == system.text).map(|(_, n)| n.as_str());
    let elsewhere = all.iter().find(|(_, n)| *n == name.text).map(|(s, n)| format!("there is `tracepoint:{s}:{n}`"));
    let fault = Fault::new(name.at, format!("this kernel has no tracepoint `{}` in `{}`", name.text, system.text));
    fault.help(search.did_you_mean(&name.text, names).or(elsewhere).unwrap_or_else(|| LISTED.to_owned()))
}

fn unknown_system(system: &Name, search: &Search<'_>) -> Fault {
    let all = search.tracepoints().unwrap_or_default();
    let mut systems: Vec<&str> = all.iter().map(|(s, _)| s.as_str()).collect();
    systems.dedup();
    let fault = Fault::new(system.at, format!("this kernel has no tracepoints in `{}`", system.text));
    fault.help(search.did_you_mean(&system.text, systems).unwrap_or_else(|| LISTED.to_owned()))
}
