//! Attach points in user memory: functions and static markers (USDT) of programs and libraries, and the values that are
//! there to be read.
//!
//! A marker may stand at several places, because the function around it was inlined, and the compiler keeps its
//! arguments elsewhere at each. Places with the same operands share a program; so one attach point as written becomes
//! one or more [`UserPoint`]s.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::Spec;
use super::passed::{self, ARGUMENTS, Passed};
use super::pattern::is_wild;
use super::search::{Meant, Name, Search};
use crate::binary::registers::{self, PT_REGS};
use crate::binary::{Argument, Binary, BinaryError, Found, Marker, Memory, Operand};
use crate::plan::arithmetic::Op;
use crate::plan::bounds::MAX_ATTACH_LENGTH;
use crate::plan::diagnostic::{Fault, Shown, Span, did_you_mean};
use crate::plan::{Access, Node, NodeKind, Origin, Target, Type};

/// What fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserKind {
    /// An instruction, mostly a function's first.
    Entry,
    /// The return of a function.
    Return,
    /// A static marker.
    Marker,
}

/// A place in a program or library where a probe fires, in every process that has it loaded.
#[derive(Clone, Debug)]
pub struct UserPoint {
    pub kind: UserKind,
    /// As one would write it.
    pub text: String,
    pub file: PathBuf,
    /// The name of the function where it is, as it is written; none of an address or a marker.
    pub function: Option<String>,
    pub locations: Vec<Location>,
    /// Of a marker.
    pub arguments: Vec<Argument>,
}

/// Where in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    pub offset: u64,
    /// Where a marker's semaphore is, if it has one.
    pub semaphore: Option<u64>,
}

impl UserKind {
    pub fn name(self) -> &'static str {
        match self {
            UserKind::Entry => "uprobe",
            UserKind::Return => "uretprobe",
            UserKind::Marker => "usdt",
        }
    }
}

impl fmt::Display for UserPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A name in a file may hold anything.
        Shown(&self.text).fmt(f)
    }
}

/// An attach point of this kind as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserSpec {
    kind: UserKind,
    target: Name,
    /// What stands behind the target.
    what: Name,
    place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Function { name: String, offset: u64 },
    Address(u64),
    Marker { provider: Option<String>, name: String },
}

/// What such attach points look like.
const FORM: &str = "it is written `uprobe:TARGET:FUNCTION`, `uprobe:TARGET:FUNCTION+OFFSET` or `uprobe:TARGET:ADDRESS`";
const RETURN_FORM: &str = "it is written `uretprobe:TARGET:FUNCTION`";
const MARKER_FORM: &str = "it is written `usdt:TARGET:NAME` or `usdt:TARGET:PROVIDER:NAME`";
/// Ways at most in which the places of a marker keep its arguments: each is a program.
const MAX_WAYS: usize = 64;
const TARGETS: &str = "a target is an absolute path, a library as ld.so finds it (`libc`), or a program in PATH";

/// The kind that a word in front of the first colon names, if it is one of these.
pub fn kind(word: &str) -> Option<UserKind> {
    match word {
        "uprobe" | "u" => Some(UserKind::Entry),
        "uretprobe" | "ur" => Some(UserKind::Return),
        "usdt" | "U" => Some(UserKind::Marker),
        _ => None,
    }
}

/// Reads an attach point of this kind. Names may hold colons (`shop::Order::add`), targets none.
pub fn parse(kind: UserKind, text: &str) -> Result<UserSpec, Fault> {
    let form = match kind {
        UserKind::Entry => FORM,
        UserKind::Return => RETURN_FORM,
        UserKind::Marker => MARKER_FORM,
    };
    let whole = Span::new(0, text.len());
    let parts: Vec<&str> = text.splitn(3, ':').collect();
    let [word, target, what] = parts[..] else { return Err(Fault::new(whole, form)) };
    if target.is_empty() || what.is_empty() || text.contains('\0') {
        return Err(Fault::new(whole, form));
    }
    let target_at = Span::new(word.len() + 1, word.len() + 1 + target.len());
    let at = Span::new(target_at.end as usize + 1, text.len());
    let place = match kind {
        UserKind::Marker => marker(what).ok_or_else(|| Fault::new(at, form))?,
        _ if what.starts_with(|c: char| c.is_ascii_digit()) => {
            let address = number(what).ok_or_else(|| Fault::new(at, format!("`{what}` is no address")).help(form))?;
            Place::Address(address)
        }
        _ => match what.rsplit_once('+').and_then(|(name, offset)| Some((name, number(offset)?))) {
            Some((name, offset)) if !name.is_empty() => Place::Function { name: name.to_owned(), offset },
            _ => Place::Function { name: what.to_owned(), offset: 0 },
        },
    };
    let whole_function = matches!(place, Place::Function { offset: 0, .. });
    if kind == UserKind::Return && !whole_function {
        return Err(Fault::new(at, "a return probe is one of a whole function").help(form));
    }
    let target = Name { text: target.to_owned(), at: target_at };
    Ok(UserSpec { kind, target, what: Name { text: what.to_owned(), at }, place })
}

fn marker(what: &str) -> Option<Place> {
    let (provider, name) = what.split_once(':').map_or((None, what), |(provider, name)| (Some(provider), name));
    let plain = |text: &str| !text.is_empty() && !text.contains(':');
    (plain(name) && provider.is_none_or(plain))
        .then(|| Place::Marker { provider: provider.map(str::to_owned), name: name.to_owned() })
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// What a pattern stands for: functions, or markers. A name that is there just as it is written (`operator*`) is no
/// pattern.
pub fn expand(spec: &UserSpec, search: &Search<'_>) -> Result<Meant, Fault> {
    let one = || Ok(Meant::one(&Spec::User(spec.clone())));
    if !spec.what.is_wild() {
        return one();
    }
    let binary = binary(spec, search)?;
    match &spec.place {
        Place::Function { name, offset } if is_wild(name) && binary.function(name) == Found::Nothing => {
            if *offset > 0 {
                return Err(Fault::new(spec.what.at, "an offset goes with the name of one function"));
            }
            functions(spec, &binary, search)
        }
        Place::Marker { provider, name } => expand_marker(spec, &binary, provider.as_deref(), name, search),
        _ => one(),
    }
}

fn functions(spec: &UserSpec, binary: &Binary, search: &Search<'_>) -> Result<Meant, Fault> {
    let all = binary.findable_names(MAX_ATTACH_LENGTH);
    let mut found = search.matching(&spec.what, &all)?;
    if found.is_empty() {
        let what = format!("function of {}", binary.path);
        return Err(search.nothing(&spec.what, &what, all.iter().map(String::as_str)));
    }
    // A function of several names is there once.
    let mut seen = HashSet::new();
    found.retain(|name| matches!(binary.function(name), Found::Function(function) if seen.insert(function.address)));
    let of = |name: &&String| {
        let place = Place::Function { name: (*name).clone(), offset: 0 };
        Spec::User(UserSpec { what: spec.what.instead(name), place, ..spec.clone() })
    };
    Meant::several(spec.what.at, found.iter().map(of).collect(), &found)
}

fn expand_marker(
    spec: &UserSpec,
    binary: &Binary,
    provider: Option<&str>,
    name: &str,
    search: &Search<'_>,
) -> Result<Meant, Fault> {
    let all: BTreeSet<(&str, &str)> = binary.markers().iter().map(|m| (m.provider.as_str(), m.name.as_str())).collect();
    if all.iter().any(|(p, n)| provider.is_none_or(|provider| provider == *p) && *n == name) {
        return Ok(Meant::one(&Spec::User(spec.clone())));
    }
    let (provider, name) = (spec.what.instead(provider.unwrap_or("*")), spec.what.instead(name));
    let of_provider = search.matching_by(&provider, &all, |(provider, _)| provider)?;
    let found = search.matching_by(&name, of_provider, |(_, name)| name)?;
    if found.is_empty() {
        let what = format!("marker of {}", binary.path);
        return Err(search.nothing(&name, &what, all.iter().map(|(_, name)| *name).collect::<BTreeSet<_>>()));
    }
    let names: Vec<String> = found.iter().map(|(provider, name)| format!("{provider}:{name}")).collect();
    let of = |((provider, name), what): (&&(&str, &str), &String)| {
        let place = Place::Marker { provider: Some((*provider).to_owned()), name: (*name).to_owned() };
        Spec::User(UserSpec { what: spec.what.instead(what), place, ..spec.clone() })
    };
    Meant::several(spec.what.at, found.iter().zip(&names).map(of).collect(), &names)
}

fn binary(spec: &UserSpec, search: &Search<'_>) -> Result<Arc<Binary>, Fault> {
    search.facts.binary(&spec.target.text).map_err(|error| unknown_target(&spec.target, &error, search))
}

/// Finds the place on this machine: one point, or for a marker one for each way in which its arguments are kept.
pub fn resolve(spec: &UserSpec, search: &Search<'_>) -> Result<Vec<UserPoint>, Fault> {
    let binary = binary(spec, search)?;
    let at = spec.what.at;
    let point = |locations, arguments| UserPoint {
        kind: spec.kind,
        text: format!("{}:{}:{}", spec.kind.name(), spec.target.text, spec.what.text),
        file: binary.file.clone(),
        function: match &spec.place {
            Place::Function { name, .. } => Some(name.clone()),
            Place::Address(_) | Place::Marker { .. } => None,
        },
        locations,
        arguments,
    };
    match &spec.place {
        Place::Function { name, offset } => {
            let address = function(&binary, name, *offset, at, search)?;
            Ok(vec![point(vec![code(&binary, address, at)?], Vec::new())])
        }
        Place::Address(address) => Ok(vec![point(vec![code(&binary, *address, at)?], Vec::new())]),
        Place::Marker { provider, name } => {
            let mut points: Vec<UserPoint> = Vec::new();
            for marker in markers(&binary, provider.as_deref(), name, at, search)? {
                let location = marked(&binary, marker, at)?;
                match points.iter_mut().find(|p| p.arguments == marker.arguments) {
                    Some(point) => point.locations.push(location),
                    None => points.push(point(vec![location], marker.arguments.clone())),
                }
            }
            if points.len() > MAX_WAYS {
                let message = format!("it keeps its arguments in {} ways, and {MAX_WAYS} is the most", points.len());
                return Err(Fault::new(at, message));
            }
            Ok(points)
        }
    }
}

fn unknown_target(target: &Name, error: &BinaryError, search: &Search<'_>) -> Fault {
    let fault = Fault::new(target.at, error.to_string());
    match error {
        BinaryError::Unknown { libraries, .. } => {
            let near = search.did_you_mean(&target.text, libraries.iter().map(String::as_str));
            fault.help(near.unwrap_or_else(|| TARGETS.to_owned()))
        }
        BinaryError::Relative { .. } => fault.help(TARGETS),
        BinaryError::Several { .. } => fault.help("give the path of one"),
        BinaryError::Unreadable { .. } | BinaryError::NotElf { .. } | BinaryError::Damaged { .. } => fault,
    }
}

/// The address of a function, or of an instruction inside one.
fn function(binary: &Binary, name: &str, offset: u64, span: Span, search: &Search<'_>) -> Result<u64, Fault> {
    match binary.function(name) {
        Found::Function(function) if offset > 0 && function.size > 0 && offset >= function.size => {
            Err(Fault::new(span, format!("`{name}` has {} bytes", function.size)))
        }
        Found::Function(function) => Ok(function.address.wrapping_add(offset)),
        Found::Indirect => {
            let message = format!("`{name}` in {} only picks one of several functions, once", binary.path);
            Err(Fault::new(span, message).help("probe the function that it picks, or its caller"))
        }
        Found::Several(functions) => {
            let message = format!("{} has {} functions `{name}`", binary.path, functions.len());
            Err(Fault::new(span, message).help(format!("there are {}", listed(&functions))))
        }
        Found::Nothing => {
            let fault = Fault::new(span, format!("{} has no function `{name}`", binary.path));
            let names = binary.function_names();
            let near = search.did_you_mean(name, names.iter().map(String::as_str));
            Err(match near {
                Some(help) => fault.help(help),
                None if names.is_empty() => fault.help("it names no function at all; an address would do"),
                None => fault.help(format!("`porthole list uprobe:{}` lists them", binary.path)),
            })
        }
    }
}

fn code(binary: &Binary, address: u64, span: Span) -> Result<Location, Fault> {
    match binary.code_offset(address) {
        Some(offset) => Ok(Location { offset, semaphore: None }),
        None => {
            let fault = Fault::new(span, format!("{} has no instructions at {address:#x}", binary.path));
            Err(fault.help("an address is one of those that `nm` and `objdump -d` print"))
        }
    }
}

fn marked(binary: &Binary, marker: &Marker, span: Span) -> Result<Location, Fault> {
    let location = code(binary, marker.address, span)?;
    let Some(semaphore) = marker.semaphore else { return Ok(location) };
    let message = || format!("{} has nothing where `{}` says that its semaphore is", binary.path, marker.name);
    let semaphore = binary.file_offset(semaphore).ok_or_else(|| Fault::new(span, message()))?;
    Ok(Location { semaphore: Some(semaphore), ..location })
}

/// The markers of that name, all of one provider.
fn markers<'a>(
    binary: &'a Binary,
    provider: Option<&str>,
    name: &str,
    span: Span,
    search: &Search<'_>,
) -> Result<Vec<&'a Marker>, Fault> {
    let of_provider = |m: &&Marker| provider.is_none_or(|p| m.provider == p);
    let found: Vec<&Marker> = binary.markers().iter().filter(of_provider).filter(|m| m.name == name).collect();
    let mut providers: Vec<&str> = found.iter().map(|m| m.provider.as_str()).collect();
    providers.sort_unstable();
    providers.dedup();
    match providers.as_slice() {
        [_] => Ok(found),
        [] => {
            let fault = Fault::new(span, format!("{} has no marker `{name}`", binary.path));
            let named = |m: &Marker| format!("{}:{}", m.provider, m.name);
            let mut all: Vec<String> = binary.markers().iter().map(named).collect();
            all.sort();
            all.dedup();
            let wanted = provider.map_or_else(|| name.to_owned(), |provider| format!("{provider}:{name}"));
            let bare =
                all.iter().map(|n| if provider.is_some() { n } else { n.split_once(':').map_or("", |(_, n)| n) });
            Err(match search.did_you_mean(&wanted, bare) {
                Some(help) => fault.help(help),
                None if all.is_empty() => fault.help("it has no markers at all"),
                None => fault.help(format!("it has {}", listed(&all))),
            })
        }
        _ => {
            let fault = Fault::new(span, format!("{} has markers `{name}` of several providers", binary.path));
            let ways: Vec<String> = providers.iter().map(|p| format!("`{p}:{name}`")).collect();
            Err(fault.help(format!("there are {}", listed(&ways))))
        }
    }
}

/// What a name means at such a point; none where it means nothing that others do not know better.
pub fn value(point: &UserPoint, name: &str, span: Span) -> Option<Result<Node, Fault>> {
    if name == "retval" {
        return Some(match point.kind {
            UserKind::Return => Ok(register(registers::offset("ax")?, 8, false, span)),
            _ => Err(Fault::new(span, "there is no return value here").help("`uretprobe:TARGET:FUNCTION` has it")),
        });
    }
    let number = name.strip_prefix("arg").filter(|n| *n == "0" || !n.starts_with('0'))?;
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number = number.parse().unwrap_or(usize::MAX);
    Some(match point.kind {
        UserKind::Entry => match passed::numbered(number, span) {
            Ok(Passed::Registers { first, .. }) => Ok(register(registers::offset(ARGUMENTS[first])?, 8, false, span)),
            Ok(Passed::Stack(offset)) => {
                let at = Memory { base: registers::offset("sp"), index: None, displacement: offset.into() };
                Ok(in_memory(&at, 8, false, span))
            }
            Err(fault) => Err(fault),
        },
        UserKind::Return => Err(Fault::new(span, "where a function returns its arguments are gone")
            .help("a probe at its entry has them, and a handler can join the two by `tid`")),
        UserKind::Marker => argument(point, number, span),
    })
}

fn argument(point: &UserPoint, number: usize, span: Span) -> Result<Node, Fault> {
    let Some(argument) = point.arguments.get(number) else {
        let fault = Fault::new(span, format!("`{}` has no argument of that number", point.text));
        return Err(match point.arguments.len() {
            0 => fault.help("it has no arguments"),
            1 => fault.help("it has `arg0`"),
            n => fault.help(format!("it has `arg0` to `arg{}`", n - 1)),
        });
    };
    let Argument { bytes, signed, operand } = argument;
    match operand {
        Operand::Register(offset) => Ok(register(*offset, *bytes, *signed, span)),
        Operand::Constant(value) => {
            let ty = Type::Integer { bytes: *bytes, signed: *signed };
            Ok(Node { kind: NodeKind::Constant(cut(*value, *bytes, *signed)), ty, span })
        }
        Operand::Memory(memory) => Ok(in_memory(memory, *bytes, *signed, span)),
        Operand::Other(text) => {
            let message = format!("`{}` keeps this argument where it cannot be read: `{text}`", point.text);
            Err(Fault::new(span, message).help("integers and pointers in registers and in memory can be read"))
        }
    }
}

fn in_memory(memory: &Memory, bytes: u8, signed: bool, span: Span) -> Node {
    let base = Box::new(address(memory, span));
    let kind = NodeKind::Load { base, offset: 0, bytes, bits: None, access: Access::User };
    Node { kind, ty: Type::Integer { bytes, signed }, span }
}

/// Where an operand in memory is.
fn address(memory: &Memory, span: Span) -> Node {
    let integer = Type::Integer { bytes: 8, signed: false };
    let constant = |value| Node { kind: NodeKind::Constant(value), ty: integer.clone(), span };
    let both = |op, left, right| {
        let kind = NodeKind::Arithmetic { op, unsigned: true, left: Box::new(left), right: Box::new(right) };
        Node { kind, ty: integer.clone(), span }
    };
    let base = memory.base.map(|base| register(base, 8, false, span));
    let index = memory
        .index
        .map(|(index, scale)| both(Op::Multiply, register(index, 8, false, span), constant(i64::from(scale))));
    let sum = match (base, index) {
        (Some(base), Some(index)) => both(Op::Add, base, index),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => constant(0),
    };
    let sum = both(Op::Add, sum, constant(memory.displacement));
    Node { ty: Type::Pointer { target: Target::Unknown, origin: Origin::User }, ..sum }
}

/// `reg("NAME")`.
pub fn named_register(name: &[u8], span: Span) -> Result<Node, Fault> {
    let name = String::from_utf8_lossy(name);
    if let Some(offset) = registers::offset(&name) {
        return Ok(register(offset, 8, false, span));
    }
    let names: Vec<&str> = PT_REGS.iter().map(|(name, _)| *name).collect();
    let fault = Fault::new(span, format!("there is no register `{name}`"));
    let near =
        name.strip_prefix('r').filter(|n| registers::offset(n).is_some()).map(|n| format!("did you mean `{n}`?"));
    let near = near.or_else(|| did_you_mean(&name, names.iter().copied()));
    Err(fault.help(near.unwrap_or_else(|| format!("there are {}", names.join(", ")))))
}

fn register(offset: u32, bytes: u8, signed: bool, span: Span) -> Node {
    Node { kind: NodeKind::Context { offset, bytes }, ty: Type::Integer { bytes, signed }, span }
}

/// The constant as so many bytes hold it.
fn cut(value: i64, bytes: u8, signed: bool) -> i64 {
    let unused = 64 - u32::from(bytes) * 8;
    let up = value << unused;
    if signed { up >> unused } else { (up.cast_unsigned() >> unused).cast_signed() }
}

/// "a, b, c", the first dozen.
fn listed(names: &[String]) -> String {
    let mut text = names.iter().take(12).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > 12 {
        text.push_str(&format!(" and {} more", names.len() - 12));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<(String, Place), String> {
        let kind = kind(text.split(':').next().unwrap()).unwrap();
        let spec = parse(kind, text).map_err(|fault| fault.message)?;
        Ok((spec.target.text, spec.place))
    }

    #[test]
    fn forms() {
        let function = |name: &str, offset| Place::Function { name: name.to_owned(), offset };
        let marker = |provider: Option<&str>, name: &str| Place::Marker {
            provider: provider.map(str::to_owned),
            name: name.to_owned(),
        };
        for (text, target, place) in [
            ("uprobe:/bin/sh:main", "/bin/sh", function("main", 0)),
            ("u:libc:getenv+0x10", "libc", function("getenv", 16)),
            ("uprobe:x:f+12", "x", function("f", 12)),
            ("uprobe:x:operator+", "x", function("operator+", 0)),
            ("uprobe:x:a::b::operator+(int)", "x", function("a::b::operator+(int)", 0)),
            ("uprobe:x:0x1234", "x", Place::Address(0x1234)),
            ("uprobe:x:4660", "x", Place::Address(0x1234)),
            ("ur:x:a::b", "x", function("a::b", 0)),
            ("usdt:x:name", "x", marker(None, "name")),
            ("U:x:provider:name", "x", marker(Some("provider"), "name")),
        ] {
            assert_eq!(parsed(text), Ok((target.to_owned(), place)), "{text}");
        }
    }

    #[test]
    fn what_is_no_form() {
        for (text, message) in [
            ("uprobe", FORM),
            ("uprobe:x", FORM),
            ("uprobe::f", FORM),
            ("uprobe:x:", FORM),
            ("uprobe:x:0y", "`0y` is no address"),
            ("uretprobe:x", RETURN_FORM),
            ("uretprobe:x:f+1", "a return probe is one of a whole function"),
            ("uretprobe:x:0x10", "a return probe is one of a whole function"),
            ("usdt:x", MARKER_FORM),
            ("usdt:x:p:", MARKER_FORM),
            ("usdt:x:a:b:c", MARKER_FORM),
        ] {
            assert_eq!(parsed(text), Err(message.to_owned()), "{text}");
        }
    }

    #[test]
    fn constants_are_as_wide_as_their_argument() {
        assert_eq!(cut(-1, 4, true), -1);
        assert_eq!(cut(-1, 4, false), 0xffff_ffff);
        assert_eq!(cut(0x1_80, 1, true), -128);
        assert_eq!(cut(-1, 8, false), -1);
    }
}
