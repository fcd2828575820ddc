//! Calls of kernel functions: their arguments against the kernel's prototypes, and who owns what they give.

use std::sync::Arc;

use super::super::bounds::{STR_DEFAULT, STR_MAX};
use super::super::diagnostic::{Fault, Span};
use super::super::kfunc::{Argument, Call, Gives, Length};
use super::super::pointer::{Trust, target};
use super::super::prototype::{Prototype, points_to_structure};
use super::super::syntax::{Expr, ExprKind, UnaryOp};
use super::super::uses::{Here, Missing, Used};
use super::super::{Node, NodeKind, Origin, Target, Type};
use super::types::meaning_of;
use super::{Checked, Checker, Walk, one};
use crate::kernel::kfunc::{Kfunc, ProgramKind};
use crate::kernel::{Answer, Btf, Kind, TypeId};

/// Kfuncs that write what they read: what they have written is what a call gives.
struct Writer {
    name: &'static str,
    /// The parameter that says where to: memory, or a dynptr.
    into: usize,
    /// The parameter that says how many bytes; none: as many as `str` reads.
    bytes: Option<usize>,
    /// The parameter that says behind how many bytes of the dynptr it begins.
    start: Option<usize>,
    length: Length,
}

const fn writer(name: &'static str, into: usize, bytes: Option<usize>, start: Option<usize>, length: Length) -> Writer {
    Writer { name, into, bytes, start, length }
}

const WRITERS: [Writer; 14] = [
    writer("bpf_path_d_path", 1, Some(2), None, Length::Terminated),
    writer("bpf_get_file_xattr", 2, None, None, Length::Returned),
    writer("bpf_get_dentry_xattr", 2, None, None, Length::Returned),
    writer("bpf_cgroup_read_xattr", 2, None, None, Length::Returned),
    writer("bpf_probe_read_kernel_dynptr", 0, Some(2), Some(1), Length::Asked),
    writer("bpf_probe_read_user_dynptr", 0, Some(2), Some(1), Length::Asked),
    writer("bpf_probe_read_kernel_str_dynptr", 0, Some(2), Some(1), Length::Terminated),
    writer("bpf_probe_read_user_str_dynptr", 0, Some(2), Some(1), Length::Terminated),
    writer("bpf_copy_from_user_dynptr", 0, Some(2), Some(1), Length::Asked),
    writer("bpf_copy_from_user_str_dynptr", 0, Some(2), Some(1), Length::Terminated),
    writer("bpf_copy_from_user_task_dynptr", 0, Some(2), Some(1), Length::Asked),
    writer("bpf_copy_from_user_task_str_dynptr", 0, Some(2), Some(1), Length::Terminated),
    writer("bpf_copy_from_user_str", 0, Some(1), None, Length::Terminated),
    writer("bpf_copy_from_user_task_str", 0, Some(1), None, Length::Terminated),
];

/// The structure of dynptrs.
const DYNPTR: &str = "bpf_dynptr";
/// Ends the program.
const THROW: &str = "bpf_throw";
/// Gives an address a type, which is named by a text.
const CAST: &str = "bpf_rdonly_cast";
/// Its parameter for that.
const TYPE: &str = "btf_id__k";

/// Kfuncs that go over their second text at each byte of their first (lib/string.c's ways, in kernel/bpf/helpers.c): no
/// other takes time in proportion to the product.
const SEARCHES: [&str; 6] =
    ["bpf_strstr", "bpf_strnstr", "bpf_strcasestr", "bpf_strncasestr", "bpf_strspn", "bpf_strcspn"];
/// That product at most: a fraction of a millisecond.
pub const MAX_SEARCHED: u32 = 1 << 18;

/// What a parameter is to who writes the call.
enum Role {
    Given,
    /// A constant, which says how much is written.
    Constant(Bounded),
    /// The host passes it.
    Hidden(Argument),
}

#[derive(Clone, Copy)]
enum Bounded {
    Bytes,
    Start,
}

fn role(kfunc: &Kfunc, index: usize, writer: Option<&Writer>, btf: &Btf) -> Role {
    let (param, ty) = &kfunc.params[index];
    let is_dynptr = points_to_structure(btf, *ty).is_some_and(|id| btf.tag(id) == DYNPTR);
    match writer {
        Some(writer) if writer.into == index && is_dynptr => return Role::Hidden(Argument::WrittenDynptr),
        Some(writer) if writer.into == index => return Role::Hidden(Argument::Written),
        Some(writer) if writer.bytes == Some(index) => return Role::Constant(Bounded::Bytes),
        Some(writer) if writer.start == Some(index) => return Role::Constant(Bounded::Start),
        _ => {}
    }
    let zero = || {
        let ty = Type::Integer { bytes: 8, signed: true };
        Argument::Number(Node { kind: NodeKind::Constant(0), ty, span: Span::default() })
    };
    match param.as_str() {
        _ if is_dynptr && param.ends_with("__uninit") => Role::Hidden(Argument::NewDynptr),
        _ if param.ends_with("__opt") || param.ends_with("__prog") => Role::Hidden(zero()),
        // As 7.2 names what was `__opt` before.
        _ if param.ends_with("__nullable") && is_memory(kfunc, index) => Role::Hidden(zero()),
        _ => Role::Given,
    }
}

/// Whether the parameter is memory whose size the next one says.
fn is_memory(kfunc: &Kfunc, index: usize) -> bool {
    kfunc.params.get(index + 1).is_some_and(|(next, _)| next.ends_with("__sz") || next.ends_with("__szk"))
}

impl Checker<'_> {
    /// A call of a kfunc that the declaration lists; none where it lists none of that name.
    pub(super) fn kfunc(&self, name: &str, at: Span, arguments: &[Expr], span: Span) -> Option<Checked<Node>> {
        Some(match self.uses.get(name)? {
            Used::Here(here) => self.call_here(here, at, arguments, span),
            Used::Missing(missing) => self.call_missing(missing, arguments, span),
            Used::Faulty => Err(self.faults_of(arguments)),
        })
    }

    /// What is wrong with arguments by themselves.
    fn faults_of(&self, arguments: &[Expr]) -> Vec<Fault> {
        arguments.iter().filter_map(|argument| self.walk(argument).err()).flatten().collect()
    }

    /// Help for a function that is none of the language's, and a kfunc that is not listed.
    pub(super) fn not_listed(&self, name: &str, at: Span) -> Option<Fault> {
        self.facts.kfunc(name).ok()??;
        let fault = Fault::new(at, format!("`{name}` is a kfunc, which the declaration does not list"));
        Some(
            fault
                .help("what a plugin calls stands in its `kfuncs`, so that it can be judged before anything is loaded"),
        )
    }

    fn call_here(&self, here: &Here, at: Span, arguments: &[Expr], span: Span) -> Checked<Node> {
        let name = &here.kfunc.name;
        let sleeps = here.flags.sleepable();
        if sleeps && !self.attach.may_sleep(self.facts) {
            let fault = Fault::new(at, format!("`{name}` may sleep, and programs at this attach point must not"));
            return Err(one(fault.help("at uprobe, uretprobe, usdt, iter and most hooks of lsm they can")));
        }
        let kind = self.attach.program_kind(sleeps);
        self.sleeps.set(self.sleeps.get() || sleeps);
        if let Answer::No(_) = self.facts.may_call(name, kind) {
            return Err(one(self.not_from_here(name, at)));
        }
        let searches = SEARCHES.contains(&name.as_str());
        if searches && self.is_in_walk() {
            let fault =
                Fault::new(at, format!("`{name}` cannot stand within a walk: it is a search, which takes long"));
            return Err(one(fault.help("`starts_with`, `ends_with`, `contains` and `==` can")));
        }
        let btf = self.btf(span)?;
        let writer = WRITERS.iter().find(|writer| writer.name == name);
        let roles: Vec<Role> =
            (0..here.kfunc.params.len()).map(|index| role(&here.kfunc, index, writer, btf)).collect();
        let wanted = roles.iter().filter(|role| !matches!(role, Role::Hidden(_))).count();
        if arguments.len() != wanted {
            let takes = match wanted {
                0 => "no arguments".to_owned(),
                1 => "one argument".to_owned(),
                n => format!("{n} arguments"),
            };
            let stand = match arguments.len() {
                0 => "none stands".to_owned(),
                1 => "one stands".to_owned(),
                n => format!("{n} stand"),
            };
            let mut fault = Fault::new(span, format!("`{name}` takes {takes}, and {stand} here"));
            fault = fault.note(Prototype::of(btf, &here.kfunc).text);
            let hidden: Vec<String> = roles
                .iter()
                .zip(&here.kfunc.params)
                .filter(|(role, _)| matches!(role, Role::Hidden(_)))
                .map(|(_, (param, _))| format!("`{param}`"))
                .collect();
            if !hidden.is_empty() {
                fault = fault.help(format!("the host passes {}", hidden.join(" and ")));
            }
            let mut faults = self.faults_of(arguments);
            faults.push(fault);
            return Err(faults);
        }
        let (mut passed, mut faults, mut max) = (Vec::new(), Vec::new(), STR_DEFAULT);
        let mut written = arguments.iter();
        for (index, role) in roles.into_iter().enumerate() {
            let argument = match role {
                Role::Hidden(argument) => Ok(argument),
                Role::Given => written.next().map_or(Err(Vec::new()), |expr| self.kfunc_argument(here, index, expr)),
                Role::Constant(is) => written
                    .next()
                    .map_or(Err(Vec::new()), |expr| self.bounded_argument(here, index, is, expr))
                    .map(|(bytes, argument)| {
                        max = bytes.unwrap_or(max);
                        argument
                    }),
            };
            match argument {
                Ok(argument) => passed.push(argument),
                Err(found) => faults.extend(found),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        if searches {
            let bytes = passed.iter().filter_map(|argument| match argument {
                Argument::Text(node) => Some(text_bytes(&node.ty)),
                _ => None,
            });
            let product = bytes.fold(1u32, u32::saturating_mul);
            if product > MAX_SEARCHED {
                let fault = Fault::new(
                    span,
                    format!(
                        "`{name}` goes over one text at each byte of the other: {product} steps, and {MAX_SEARCHED} are the most"
                    ),
                );
                return Err(one(fault.help("bound the texts: `str(pointer, 256)`")));
            }
        }
        let is_zero =
            |argument: &Argument| matches!(argument, Argument::Number(node) if node.kind == NodeKind::Constant(0));
        if name == THROW && !passed.iter().all(is_zero) {
            // Which is bounded in programs of some kinds, and looked at by nobody.
            let fault = Fault::new(span, "what is thrown is what the program returns, and that is 0");
            return Err(one(fault.help("write `bpf_throw(0)`")));
        }
        let (gives, ty) = match writer {
            Some(writer) => (Gives::Text(writer.length), Type::Text { max }),
            None => self.given(here, btf, arguments, span)?,
        };
        let rcu = here.flags.rcu_protected();
        let call = Call { function: Arc::clone(&here.function), arguments: passed, gives, sleeps, rcu };
        Ok(Node { kind: NodeKind::Kfunc(Box::new(call)), ty, span })
    }

    /// The number of bytes that a kfunc writes, or where it begins to.
    fn bounded_argument(
        &self,
        here: &Here,
        index: usize,
        is: Bounded,
        expr: &Expr,
    ) -> Checked<(Option<u32>, Argument)> {
        let btf = self.btf(expr.span)?;
        let node = self.value(expr)?;
        let wrong = |message: String| one(self.wrong_argument(&here.kfunc, index, expr.span, message, btf));
        match (is, &node.kind) {
            (Bounded::Bytes, NodeKind::Constant(n)) if (1..=i64::from(STR_MAX)).contains(n) => {
                Ok((Some(*n as u32), Argument::WrittenBytes))
            }
            (Bounded::Start, NodeKind::Constant(0)) => Ok((None, Argument::Number(node))),
            (Bounded::Bytes, _) => Err(wrong(format!("the number of bytes must be a constant from 1 to {STR_MAX}"))),
            (Bounded::Start, _) => Err(wrong("it can be 0 only: what is written begins there".to_owned())),
        }
    }

    /// What a call is as a value.
    fn given(&self, here: &Here, btf: &Btf, arguments: &[Expr], span: Span) -> Checked<(Gives, Type)> {
        let result = here.kfunc.result;
        match here.kfunc.name.as_str() {
            THROW => return Ok((Gives::End, Type::Boolean)),
            CAST => {
                let named = arguments.last().and_then(|name| self.structure_named(name).ok());
                let target = named.map_or(Target::Unknown, Target::Type);
                return Ok((Gives::Address, Type::Pointer { target, origin: Origin::Kernel }));
            }
            _ => {}
        }
        if let Kind::Void = btf.kind(btf.strip(result).id) {
            return Ok((Gives::Nothing, Type::Boolean));
        }
        let ty = meaning_of(btf, result).ok_or_else(|| {
            one(Fault::new(span, format!("`{}` gives a `{}`, which is no value", here.kfunc.name, btf.c_name(result))))
        })?;
        Ok(match (ty, &here.released_by) {
            (Type::Pointer { target, .. }, Some(release)) => {
                let gives = Gives::Owned { release: Arc::clone(release), may_be_null: here.flags.ret_null() };
                (gives, Type::Pointer { target, origin: Origin::Trusted })
            }
            (Type::Pointer { target, .. }, None) => (Gives::Address, Type::Pointer { target, origin: Origin::Kernel }),
            (ty, _) => (Gives::Number, ty),
        })
    }

    /// What this kernel does not have: absent, of the type that it has elsewhere.
    fn call_missing(&self, missing: &Missing, arguments: &[Expr], span: Span) -> Checked<Node> {
        let faults = self.faults_of(arguments);
        if !faults.is_empty() {
            return Err(faults);
        }
        let writes = |name: &str| WRITERS.iter().any(|writer| writer.name == name);
        let ty = missing.known.and_then(|known| match known.name {
            name if writes(name) => Some(Type::Text { max: STR_DEFAULT }),
            name => self.type_of_prototype(known.prototype, name),
        });
        let ty = ty.unwrap_or(Type::Integer { bytes: 8, signed: false });
        Ok(Node { kind: NodeKind::Absent, ty, span })
    }

    pub(super) fn not_from_here(&self, name: &str, at: Span) -> Fault {
        let from = ProgramKind::ALL.iter().filter(|kind| self.facts.may_call(name, **kind) == Answer::Yes);
        let from: Vec<String> = from.map(|kind| kind.name().to_owned()).collect();
        let here = self.attach.program_kind(false).name();
        let fault = Fault::new(at, format!("`{name}` cannot be called at {here} on this kernel"));
        match from.as_slice() {
            [] => fault.help("nor at any other kind of attach point"),
            kinds => fault.help(format!("at {} it can", kinds.join(", "))),
        }
    }

    fn kfunc_argument(&self, here: &Here, index: usize, expr: &Expr) -> Checked<Argument> {
        let btf = self.btf(expr.span)?;
        let (param, ty) = &here.kfunc.params[index];
        let wrong = |message: String| one(self.wrong_argument(&here.kfunc, index, expr.span, message, btf));
        match btf.kind(btf.strip(*ty).id) {
            Kind::Int { .. } if param == TYPE => {
                let id = self
                    .structure_named(expr)
                    .map_err(|_| wrong("the name of a structure of the kernel itself is wanted".to_owned()))?;
                let ty = Type::Integer { bytes: 8, signed: true };
                let kind = NodeKind::Constant(id.number().into());
                Ok(Argument::Number(Node { kind, ty, span: expr.span }))
            }
            Kind::Int { bytes, signed, .. } | Kind::Enum { bytes, signed, .. } => {
                let node = self.value(expr)?;
                let of_memory = index > 0 && is_memory(&here.kfunc, index - 1);
                if of_memory && !matches!(node.kind, NodeKind::Constant(0..=8)) {
                    return Err(wrong(
                        "the number of bytes must be a constant from 0 to 8, as an integer has".to_owned(),
                    ));
                }
                self.number_argument(node, (bytes, signed), param, &wrong).map(Argument::Number)
            }
            Kind::Pointer(to) => match btf.kind(btf.strip(to).id) {
                Kind::Struct { name, .. } if name == DYNPTR => {
                    let node = self.value(expr)?;
                    match node.ty {
                        Type::Text { .. } => Ok(Argument::Dynptr(node)),
                        ref ty => Err(wrong(format!("this is {}, and a text is wanted: its bytes", self.shown(ty)))),
                    }
                }
                Kind::Void if is_memory(&here.kfunc, index) => self.integer(expr).map(Argument::Word),
                Kind::Int { bytes: 1, .. } if param.ends_with("__ign") => self.text_argument(&here.kfunc, expr, &wrong),
                _ if param.ends_with("__ign") => {
                    let node = self.value(expr)?;
                    match node.ty {
                        Type::Pointer { .. } | Type::Integer { bytes: 8, .. } => Ok(Argument::Number(node)),
                        ref ty => Err(wrong(format!("this is {}, and an address is wanted", self.shown(ty)))),
                    }
                }
                Kind::Int { bytes: 1, .. } if param.ends_with("__str") => match self.value(expr)?.kind {
                    NodeKind::Literal(text) => Ok(Argument::Fixed(text)),
                    _ => Err(wrong("a text in quotes is wanted".to_owned())),
                },
                Kind::Struct { .. } | Kind::Forward { .. } => self.structure_argument(here, (index, *ty), expr, &wrong),
                _ => Err(wrong(format!("a `{}` cannot be made from an expression", btf.c_name(*ty)))),
            },
            _ => Err(wrong(format!("a `{}` cannot be made from an expression", btf.c_name(*ty)))),
        }
    }

    fn number_argument(
        &self,
        node: Node,
        (bytes, signed): (u32, bool),
        param: &str,
        wrong: &dyn Fn(String) -> Vec<Fault>,
    ) -> Checked<Node> {
        match node.ty {
            Type::Integer { .. } | Type::Boolean | Type::Enumeration { .. } => {}
            Type::Pointer { .. } if bytes == 8 => return Ok(node),
            ref ty => return Err(wrong(format!("this is {}, and a number is wanted", self.shown(ty)))),
        }
        let NodeKind::Constant(value) = node.kind else {
            return if param.ends_with("__k") || param.ends_with("__szk") {
                Err(wrong("a constant is wanted".to_owned()))
            } else {
                Ok(node)
            };
        };
        let bits = (bytes * 8).min(64);
        let fits = match (bits, signed) {
            (64, _) => true,
            (_, true) => value >= -(1 << (bits - 1)) && value < 1 << (bits - 1),
            (_, false) => value >= 0 && value < 1 << bits,
        };
        if fits { Ok(node) } else { Err(wrong(format!("{value} does not fit into {bits} bits"))) }
    }

    /// A text, or the address of one in the kernel's memory: of that the kernel reads up to 64 KiB, which is too much
    /// for each step of a walk, and for a search.
    fn text_argument(&self, kfunc: &Kfunc, expr: &Expr, wrong: &dyn Fn(String) -> Vec<Fault>) -> Checked<Argument> {
        let node = self.value(expr)?;
        match node.ty {
            Type::Text { .. } => Ok(Argument::Text(node)),
            Type::Pointer { origin: Origin::User, .. } => {
                Err(wrong("it reads the kernel's memory only; `str(pointer)` reads the process's".to_owned()))
            }
            Type::Pointer { .. } if self.is_in_walk() || SEARCHES.contains(&kfunc.name.as_str()) => {
                Err(wrong("this is an address, and a text of a known length is wanted: `str(pointer)`".to_owned()))
            }
            Type::Pointer { .. } => Ok(Argument::Number(node)),
            ref ty => Err(wrong(format!("this is {}, and a text is wanted", self.shown(ty)))),
        }
    }

    fn structure_argument(
        &self,
        here: &Here,
        (index, ty): (usize, TypeId),
        expr: &Expr,
        wrong: &dyn Fn(String) -> Vec<Fault>,
    ) -> Checked<Argument> {
        let btf = self.btf(expr.span)?;
        let Some(wanted) = points_to_structure(btf, ty) else { return Err(Vec::new()) };
        let node = self.pointed(expr)?;
        if node.kind == NodeKind::Constant(0) && here.kfunc.params[index].0.ends_with("__nullable") {
            return Ok(Argument::Number(node));
        }
        // Where something is acquired or released, the verifier wants the very structure.
        let strict = here.flags.acquire() || here.flags.release();
        match &node.ty {
            Type::Pointer { target: Target::Type(has), .. } if is_a(btf, *has, wanted, strict) => {}
            other => {
                let of = btf.c_name(wanted);
                return Err(wrong(format!("this is {}, and a pointer to `{of}` is wanted", self.shown(other))));
            }
        }
        let trust = if here.flags.trusted_args() { Trust::Full } else { Trust::Rcu };
        let takes = format!("`{}`", here.kfunc.name);
        self.trusted(node, trust, &takes, expr.span).map(Argument::Pointer)
    }

    /// The value of a pointer, also of `&a.b` where `a` is one that the kernel vouches for: so is its address then.
    pub(super) fn pointed(&self, expr: &Expr) -> Checked<Node> {
        if let ExprKind::Unary { op: UnaryOp::AddressOf, value } = &expr.kind
            && let Walk::Place { base, offset, ty, bits: None, .. } = self.walk(value)?
            && self.trust(&base) > Trust::Nothing
        {
            let target = target(self.btf(expr.span)?, ty);
            let ty = Type::Pointer { target, origin: Origin::Trusted };
            if offset == 0 {
                return Ok(Node { ty, span: expr.span, ..base });
            }
            return Ok(Node { kind: NodeKind::Address { base: Box::new(base), offset }, ty, span: expr.span });
        }
        self.value(expr)
    }

    /// A structure of the kernel itself, by its name in quotes: the number that is passed means one of the kernel's own
    /// types, and never a module's.
    fn structure_named(&self, expr: &Expr) -> Checked<TypeId> {
        let ExprKind::Text(name) = &expr.kind else { return Err(Vec::new()) };
        let found = self.btf(expr.span)?.structure(&String::from_utf8_lossy(name));
        found.filter(|id| !id.is_of_module()).ok_or_else(Vec::new)
    }

    fn wrong_argument(&self, kfunc: &Kfunc, index: usize, span: Span, message: String, btf: &Btf) -> Fault {
        let [prototype, marks] = Prototype::of(btf, kfunc).underlined(index);
        Fault::new(span, message).note(prototype).note(marks)
    }
}

fn text_bytes(ty: &Type) -> u32 {
    if let Type::Text { max } = ty { *max } else { 0 }
}

/// Whether a structure is, or begins with, the wanted one.
fn is_a(btf: &Btf, has: TypeId, wanted: TypeId, strict: bool) -> bool {
    let (mut at, name) = (has, btf.tag(wanted));
    loop {
        if at == wanted || !name.is_empty() && btf.tag(at) == name {
            return true;
        }
        match btf.first_member(at) {
            Some(first) if !strict => at = first,
            _ => return false,
        }
    }
}
