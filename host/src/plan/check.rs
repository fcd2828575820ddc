//! Expressions typed against one attach point.
//!
//! The problem: `args.p.real_parent.tgid` names things of three kinds (an argument, a pointer in a structure, an integer in another), and only BTF
//! and the tracepoint's format tell which. The idea: while a path is walked it is a *place*, an address with a type (`base + offset`); it becomes a
//! *value* only where one is needed, and there the type decides how it is read (an integer is loaded, an array of characters is a
//! text, a structure as a whole is a fault). So a walk through embedded structures costs no instruction, and each pointer on
//! the way is one read.
//!
//! Invariants: a [`Node`] that leaves here has operands of the types its kind asks for. Constants are folded. Every fault names what would work.

use std::collections::HashMap;

use super::arithmetic::{self, Op};
use super::diagnostic::{Fault, Span, did_you_mean};
use super::familiar;
use super::syntax::{BinaryOp, Expr, ExprKind, UnaryOp};
use super::user;
use super::{Access, AttachPoint, Builtin, Node, NodeKind, Origin, Target, Type};
use crate::kernel::{Btf, FieldLocation, KernelFacts, Kind, RawTracepoint, TracepointField, TracepointFormat, TypeId};

/// Bytes of `str(pointer)` at most, where no other number is given.
pub const STR_DEFAULT: u32 = 256;
/// Bytes of `str(pointer, n)` at most.
pub const STR_MAX: u32 = 4096;
/// Bytes of a thread's name, its terminating 0 included (include/linux/sched.h: TASK_COMM_LEN).
pub const COMM: u32 = 16;
/// The structure behind `task`.
const TASK: &str = "task_struct";

/// Names that a `bind` step cannot take.
pub const RESERVED: [&str; 22] = [
    "pid", "tid", "uid", "gid", "comm", "cpu", "nsecs", "cgroup", "task", "args", "str", "retval", "probe", "func",
    "ctx", "reg", "kstack", "ustack", "true", "false", "sizeof", "null",
];

const BUILTINS: [(&str, Builtin); 8] = [
    ("pid", Builtin::Pid),
    ("tid", Builtin::Tid),
    ("uid", Builtin::Uid),
    ("gid", Builtin::Gid),
    ("cpu", Builtin::Cpu),
    ("nsecs", Builtin::Nsecs),
    ("cgroup", Builtin::Cgroup),
    ("task", Builtin::Task),
];

type Checked<T> = Result<T, Vec<Fault>>;

/// Types the expressions of one body at one attach point, in the order of its steps.
pub struct Checker<'a> {
    facts: &'a KernelFacts,
    attach: &'a AttachPoint,
    /// What `bind` steps named; none where the value was faulty, which has been told.
    bindings: HashMap<String, (u32, Option<Type>)>,
}

/// A path while it is walked.
enum Walk {
    Value(Node),
    /// What lies at `base + offset`. `base` is a pointer.
    Place {
        base: Node,
        origin: Origin,
        offset: u32,
        ty: TypeId,
        bits: Option<(u32, u32)>,
    },
    /// `args`, of which only fields are values.
    Arguments,
}

impl<'a> Checker<'a> {
    pub fn new(facts: &'a KernelFacts, attach: &'a AttachPoint) -> Checker<'a> {
        Checker { facts, attach, bindings: HashMap::new() }
    }

    /// How many values have been bound.
    pub fn locals(&self) -> u32 {
        self.bindings.len() as u32
    }

    /// Names a value for the expressions to come. `ty` is none where the value was faulty.
    pub fn bind(&mut self, name: &str, ty: Option<Type>) -> u32 {
        let local = self.bindings.len() as u32;
        self.bindings.insert(name.to_owned(), (local, ty));
        local
    }

    /// The expression as a value of any type.
    pub fn value(&self, expr: &Expr) -> Checked<Node> {
        let walk = self.walk(expr)?;
        self.finish(walk, expr.span)
    }

    /// The expression as something that is 0 or not.
    pub fn condition(&self, expr: &Expr) -> Checked<Node> {
        let node = self.value(expr)?;
        match node.ty {
            Type::Text { .. } => {
                Err(one(Fault::new(expr.span, "a text is neither true nor false").help("compare it: `… == \"…\"`")))
            }
            _ => Ok(node),
        }
    }

    fn walk(&self, expr: &Expr) -> Checked<Walk> {
        let span = expr.span;
        match &expr.kind {
            ExprKind::Integer(value) => Ok(Walk::Value(Node {
                kind: NodeKind::Constant(*value as i64),
                ty: Type::Integer { bytes: 8, signed: i64::try_from(*value).is_ok() },
                span,
            })),
            ExprKind::Text(bytes) => {
                let ty = Type::Text { max: bytes.len() as u32 };
                Ok(Walk::Value(Node { kind: NodeKind::Literal(bytes.clone()), ty, span }))
            }
            ExprKind::Name(name) => self.name(name, span),
            ExprKind::Field { base, name, at } => self.field(base, name, *at),
            ExprKind::Index { base, index } => self.index(base, index),
            ExprKind::Call { name, at, arguments } => self.call(name, *at, arguments, span).map(Walk::Value),
            ExprKind::Unary { op, value } => self.unary(*op, value, span).map(Walk::Value),
            ExprKind::Binary { op, at, left, right } => self.binary(*op, *at, left, right, span).map(Walk::Value),
            ExprKind::Conditional { condition, then, otherwise } => {
                self.conditional(condition, then, otherwise, span).map(Walk::Value)
            }
        }
    }

    fn name(&self, name: &str, span: Span) -> Checked<Walk> {
        if let Some((local, ty)) = self.bindings.get(name) {
            // A faulty binding has been told where it stands; what uses it says nothing more.
            let ty = ty.clone().ok_or_else(Vec::new)?;
            return Ok(Walk::Value(Node { kind: NodeKind::Local(*local), ty, span }));
        }
        if let AttachPoint::User(point) = self.attach
            && let Some(found) = user::value(point, name, span)
        {
            return found.map(Walk::Value).map_err(one);
        }
        let integer = |bytes, signed| Type::Integer { bytes, signed };
        let ty = match name {
            "args" => return Ok(Walk::Arguments),
            "comm" => {
                return Ok(Walk::Value(Node { kind: NodeKind::Comm, ty: Type::Text { max: COMM - 1 }, span }));
            }
            "true" | "false" => {
                let kind = NodeKind::Constant(i64::from(name == "true"));
                return Ok(Walk::Value(Node { kind, ty: Type::Boolean, span }));
            }
            "pid" | "tid" | "uid" | "gid" | "cpu" => integer(4, false),
            "nsecs" | "cgroup" => integer(8, false),
            "task" => {
                let btf = self.btf(span)?;
                let id = btf.structure(TASK).ok_or_else(|| one(Fault::new(span, "BTF has no struct task_struct")))?;
                Type::Pointer { target: Target::Type(id), origin: Origin::Trusted }
            }
            _ => return Err(one(self.unknown_name(name, span))),
        };
        let builtin = BUILTINS.iter().find(|(n, _)| *n == name).map(|(_, b)| *b);
        let builtin = builtin.ok_or_else(|| one(self.unknown_name(name, span)))?;
        Ok(Walk::Value(Node { kind: NodeKind::Builtin(builtin), ty, span }))
    }

    fn unknown_name(&self, name: &str, span: Span) -> Fault {
        let fault = Fault::new(span, format!("unknown name `{name}`"));
        if self.argument_names().iter().any(|a| a == name) {
            return fault.help(format!("there is `args.{name}`"));
        }
        if let Some(help) = familiar::name(name) {
            return fault.help(help);
        }
        let known = BUILTINS.iter().map(|(n, _)| *n).chain(["comm", "args", "str"]);
        let bound = self.bindings.keys().map(String::as_str);
        match did_you_mean(name, known.chain(bound)) {
            Some(help) => fault.help(help),
            None if name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_') => {
                fault.help("the kernel's constants are not there yet; write the number")
            }
            None => fault
                .help("there are pid, tid, uid, gid, comm, cpu, nsecs, cgroup, task, args and what `bind` steps name"),
        }
    }

    fn field(&self, base: &Expr, name: &str, at: Span) -> Checked<Walk> {
        match self.walk(base)? {
            Walk::Arguments => self.argument(name, at),
            Walk::Place { base: pointer, origin, offset, ty, bits } => {
                let btf = self.btf(at)?;
                match btf.kind(btf.strip(ty).id) {
                    Kind::Struct { .. } | Kind::Union { .. } => {
                        self.member(pointer, origin, offset, btf.strip(ty).id, name, at)
                    }
                    _ => {
                        let place = Walk::Place { base: pointer, origin, offset, ty, bits };
                        let value = self.finish(place, base.span)?;
                        self.through(value, name, at)
                    }
                }
            }
            Walk::Value(value) => self.through(value, name, at),
        }
    }

    /// `pointer.name`.
    fn through(&self, pointer: Node, name: &str, at: Span) -> Checked<Walk> {
        match &pointer.ty {
            Type::Pointer { target: Target::Type(id), origin } => {
                let (id, origin) = (*id, *origin);
                self.member(pointer, origin, 0, id, name, at)
            }
            Type::Pointer { target, .. } => {
                let help = match target {
                    Target::Char => "`str()` reads the text behind it",
                    _ => "what it points to is not known here, and casts are not there yet",
                };
                Err(one(Fault::new(at, format!("{} has no fields", self.shown(&pointer.ty))).help(help)))
            }
            ty => Err(one(Fault::new(at, format!("{} has no fields", self.shown(ty))))),
        }
    }

    fn member(&self, base: Node, origin: Origin, offset: u32, id: TypeId, name: &str, at: Span) -> Checked<Walk> {
        let btf = self.btf(at)?;
        if let Kind::Forward { .. } = btf.kind(id) {
            return Err(one(Fault::new(at, format!("this kernel's BTF has no fields for `{}`", btf.c_name(id)))));
        }
        let Some(member) = btf.member(id, name) else {
            let message = format!("`{}` has no field `{name}`", btf.c_name(id));
            let names = btf.member_names(id);
            let fault = Fault::new(at, message);
            return Err(one(match did_you_mean(name, names.iter().map(String::as_str)) {
                Some(help) => fault.help(help),
                None if names.is_empty() => fault,
                None => fault.help(format!("it has {}", listed(&names))),
            }));
        };
        // Of the types that share a union's bytes the verifier takes the first, whatever the path says: only a probe reads it as another.
        let origin = if member.in_union && origin == Origin::Trusted { Origin::Kernel } else { origin };
        let bits = member.bit_size.filter(|n| *n > 0).map(|size| (member.bit_offset, size));
        let bytes = if bits.is_some() { 0 } else { member.bit_offset / 8 };
        let bits = bits.map(|(at, size)| (at + offset * 8, size));
        let offset = if bits.is_some() { 0 } else { offset + bytes };
        Ok(Walk::Place { base, origin, offset, ty: member.ty, bits })
    }

    fn index(&self, base: &Expr, index: &Expr) -> Checked<Walk> {
        let walked = self.walk(base)?;
        let constant = self.value(index)?;
        let NodeKind::Constant(at) = constant.kind else {
            return Err(one(Fault::new(index.span, "an index that is not a constant is not there yet")));
        };
        let Walk::Place { base: pointer, origin, offset, ty, bits: None } = walked else {
            return Err(one(Fault::new(
                base.span,
                "this is no array; only arrays in the kernel's structures can be indexed",
            )));
        };
        let btf = self.btf(base.span)?;
        let Kind::Array { element, count } = btf.kind(btf.strip(ty).id) else {
            return Err(one(Fault::new(base.span, format!("`{}` is no array", btf.c_name(ty)))));
        };
        match u32::try_from(at) {
            Ok(at) if at < count => {
                let size = size_of(btf, element)
                    .ok_or_else(|| one(Fault::new(base.span, format!("`{}` has no size", btf.c_name(element)))))?;
                Ok(Walk::Place { base: pointer, origin, offset: offset + at * size, ty: element, bits: None })
            }
            _ => Err(one(Fault::new(index.span, format!("the array has {count} elements, counted from 0")))),
        }
    }

    /// `args.name`.
    fn argument(&self, name: &str, at: Span) -> Checked<Walk> {
        match self.attach {
            AttachPoint::Tracepoint(format) => match format.fields.iter().find(|f| f.name == name) {
                Some(field) if readable(format, field) => self.tracepoint_field(format, field, at).map(Walk::Value),
                _ => Err(one(self.unknown_argument(name, at))),
            },
            AttachPoint::RawTracepoint(point) => match point.params.iter().zip(0..).find(|((n, _), _)| n == name) {
                Some(((_, ty), index)) => self.raw_argument(point, index, *ty, at).map(Walk::Value),
                None => Err(one(self.unknown_argument(name, at))),
            },
            AttachPoint::User(_) => Err(one(self.unknown_argument(name, at))),
        }
    }

    fn argument_names(&self) -> Vec<String> {
        match self.attach {
            AttachPoint::Tracepoint(format) => {
                format.fields.iter().filter(|f| readable(format, f)).map(|f| f.name.clone()).collect()
            }
            AttachPoint::RawTracepoint(point) => point.params.iter().map(|(name, _)| name.clone()).collect(),
            AttachPoint::User(_) => Vec::new(),
        }
    }

    fn unknown_argument(&self, name: &str, at: Span) -> Fault {
        let names = self.argument_names();
        let fault = Fault::new(at, format!("`args` has no field `{name}` here"));
        if let AttachPoint::User(_) = self.attach {
            return fault.help("arguments have numbers here: `arg0`, `arg1`, …");
        }
        match did_you_mean(name, names.iter().map(String::as_str)) {
            Some(help) => fault.help(help),
            None if names.is_empty() => fault.help("this attach point has no arguments"),
            None => fault.help(format!("it has {}", listed(&names))),
        }
    }

    fn tracepoint_field(&self, format: &TracepointFormat, field: &TracepointField, span: Span) -> Checked<Node> {
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
            (FieldLocation::Fixed, None) => self.tracepoint_scalar(format, field, c_type, span),
            _ => Err(one(Fault::new(
                span,
                format!("`{}` is an array of `{c_type}`, and only arrays of characters can be read yet", field.name),
            ))),
        }
    }

    fn tracepoint_scalar(
        &self,
        format: &TracepointFormat,
        field: &TracepointField,
        c_type: &str,
        span: Span,
    ) -> Checked<Node> {
        let context = |bytes| NodeKind::Context { offset: field.offset, bytes };
        if let Some(target) = c_type.strip_suffix('*') {
            if field.size != 8 {
                return Err(one(Fault::new(span, format!("`{}` is a pointer of {} bytes", field.name, field.size))));
            }
            let origin = if format.system == "syscalls" { Origin::User } else { Origin::Kernel };
            let ty = Type::Pointer { target: self.named_target(target), origin };
            return Ok(Node { kind: context(8), ty, span });
        }
        let size = match field.size {
            size @ (1 | 2 | 4 | 8) if field.offset.is_multiple_of(size) => size as u8,
            _ => return Err(one(Fault::new(span, format!("`{}` is `{c_type}`, which is no integer", field.name)))),
        };
        if c_type == "bool" && size == 1 {
            return Ok(Node { kind: context(1), ty: Type::Boolean, span });
        }
        // A system call's arguments come as registers of 8 bytes, whatever their type; of an `int`, the upper half means nothing.
        let narrow = if format.system == "syscalls" { self.named_integer(c_type) } else { None };
        let (bytes, signed) = narrow.filter(|(bytes, _)| *bytes <= size).unwrap_or((size, field.signed));
        Ok(Node { kind: context(bytes), ty: Type::Integer { bytes, signed }, span })
    }

    /// What `T` of `T *` is, by its name as tracepoint formats write it.
    fn named_target(&self, text: &str) -> Target {
        let words: Vec<&str> =
            text.split_whitespace().filter(|w| !matches!(*w, "const" | "volatile" | "__user" | "__rcu")).collect();
        match words.as_slice() {
            ["char"] | ["signed" | "unsigned", "char"] => Target::Char,
            ["struct" | "union", name] => {
                self.facts.btf().ok().and_then(|btf| btf.structure(name)).map_or(Target::Unknown, Target::Type)
            }
            _ => Target::Unknown,
        }
    }

    /// Bytes and signedness of a C integer type by its name.
    fn named_integer(&self, name: &str) -> Option<(u8, bool)> {
        let known = match name {
            "int" | "pid_t" | "clockid_t" | "timer_t" | "key_t" | "mqd_t" | "s32" | "__s32" | "key_serial_t"
            | "rwf_t" => (4, true),
            "unsigned" | "unsigned int" | "uid_t" | "gid_t" | "qid_t" | "u32" | "__u32" | "aio_context_t32" => {
                (4, false)
            }
            "umode_t" | "unsigned short" | "u16" | "__u16" => (2, false),
            "short" => (2, true),
            "char" => (1, true),
            "unsigned char" | "u8" | "__u8" | "bool" => (1, false),
            "long" | "off_t" | "loff_t" | "ssize_t" | "s64" | "__s64" => (8, true),
            "unsigned long" | "size_t" | "u64" | "__u64" | "aio_context_t" => (8, false),
            _ => {
                let btf = self.facts.btf().ok()?;
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

    fn raw_argument(&self, point: &RawTracepoint, index: u32, ty: TypeId, span: Span) -> Checked<Node> {
        let btf = self.btf(span)?;
        let stripped = btf.strip(ty);
        let kind = NodeKind::Argument { index };
        let refuse = |why: &str| {
            let name = &point.params[index as usize].0;
            Err(one(Fault::new(span, format!("`{name}` is `{}`, {why}", btf.c_name(ty)))))
        };
        match btf.kind(stripped.id) {
            Kind::Int { bool: true, .. } => Ok(Node { kind, ty: Type::Boolean, span }),
            Kind::Int { bytes, signed, .. } | Kind::Enum { bytes, signed, .. } => match u8::try_from(bytes) {
                Ok(bytes @ (1 | 2 | 4 | 8)) => Ok(Node { kind, ty: Type::Integer { bytes, signed }, span }),
                _ => refuse("an integer of a width that cannot be read"),
            },
            Kind::Pointer(to) => match pointer_argument(btf, to) {
                Some((target, origin)) => Ok(Node { kind, ty: Type::Pointer { target, origin }, span }),
                None => refuse("a pointer that the kernel lets no tp_btf program read"),
            },
            _ => refuse("which is no integer and no pointer"),
        }
    }

    /// A place becomes a value.
    fn finish(&self, walk: Walk, span: Span) -> Checked<Node> {
        let (base, origin, offset, ty, bits) = match walk {
            Walk::Value(node) => return Ok(Node { span, ..node }),
            Walk::Arguments => {
                let names = self.argument_names();
                let fault = Fault::new(span, "`args` is not a value");
                let help = if names.is_empty() {
                    "this attach point has no arguments".to_owned()
                } else {
                    format!("it has {}", listed(&names))
                };
                return Err(one(fault.help(help)));
            }
            Walk::Place { base, origin, offset, ty, bits } => (base, origin, offset, ty, bits),
        };
        let btf = self.btf(span)?;
        let stripped = btf.strip(ty);
        let walked = if origin == Origin::User { Origin::User } else { Origin::Kernel };
        match btf.kind(stripped.id) {
            Kind::Int { bytes, signed, bool, .. } => {
                let ty = |bytes| if bool { Type::Boolean } else { Type::Integer { bytes, signed } };
                self.load(base, origin, offset, bytes, bits, ty, span)
            }
            Kind::Enum { bytes, signed, .. } => {
                self.load(base, origin, offset, bytes, bits, |bytes| Type::Integer { bytes, signed }, span)
            }
            Kind::Pointer(to) => {
                let tags = btf.strip(to).tags;
                if tags.percpu {
                    return Err(one(Fault::new(
                        span,
                        format!("`{}` is per CPU, and that is not there yet", btf.c_name(ty)),
                    )));
                }
                let points_to = target(btf, to);
                let is_struct = matches!(points_to, Target::Type(_));
                // The verifier gives what such a load yields a type of its own, with rules of its own; a probed pointer is a number to it.
                let access = match origin {
                    Origin::Trusted if is_struct && !tags.user => Access::Direct,
                    Origin::Trusted | Origin::Kernel => Access::Kernel,
                    Origin::User => Access::User,
                };
                let kind = NodeKind::Load { base: Box::new(base), offset, bytes: 8, bits: None, access };
                let origin = if tags.user { Origin::User } else { walked };
                Ok(Node { kind, ty: Type::Pointer { target: points_to, origin }, span })
            }
            Kind::Array { element, count } => match btf.kind(btf.strip(element).id) {
                Kind::Int { bytes: 1, .. } if count > 0 => {
                    let address = address(base, offset, walked, span);
                    let access = if origin == Origin::User { Access::User } else { Access::Kernel };
                    let kind = NodeKind::Str { pointer: Box::new(address), access, array: true };
                    Ok(Node { kind, ty: Type::Text { max: count.min(STR_MAX) }, span })
                }
                _ => Err(one(
                    Fault::new(span, format!("`{}` is an array", btf.c_name(ty))).help("pick an element: `[0]`")
                )),
            },
            Kind::Struct { .. } | Kind::Union { .. } => {
                let names = btf.member_names(stripped.id);
                let fault = Fault::new(span, format!("`{}` is a structure, not a value", btf.c_name(ty)));
                Err(one(fault.help(format!("pick a field: {}", listed(&names)))))
            }
            _ => Err(one(Fault::new(span, format!("a value of type `{}` cannot be read", btf.c_name(ty))))),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a place in its parts, and what is to be made of it")]
    fn load(
        &self,
        base: Node,
        origin: Origin,
        offset: u32,
        bytes: u32,
        bits: Option<(u32, u32)>,
        ty: impl Fn(u8) -> Type,
        span: Span,
    ) -> Checked<Node> {
        let probed = if origin == Origin::User { Access::User } else { Access::Kernel };
        let wide = || one(Fault::new(span, format!("an integer of {bytes} bytes cannot be read")));
        if let Some((at, size)) = bits {
            // The bytes that hold the field, aligned to their own number.
            let unit = [1u32, 2, 4, 8].into_iter().find(|n| at % (n * 8) + size <= n * 8).ok_or_else(wide)?;
            let first = at / (unit * 8) * unit;
            let kind = NodeKind::Load {
                base: Box::new(base),
                offset: first,
                bytes: unit as u8,
                bits: Some(((at - first * 8) as u8, size as u8)),
                access: probed,
            };
            return Ok(Node { kind, ty: ty(bytes.min(8) as u8), span });
        }
        let bytes = u8::try_from(bytes).ok().filter(|n| matches!(n, 1 | 2 | 4 | 8)).ok_or_else(wide)?;
        let access = if origin == Origin::Trusted { Access::Direct } else { probed };
        Ok(Node {
            kind: NodeKind::Load { base: Box::new(base), offset, bytes, bits: None, access },
            ty: ty(bytes),
            span,
        })
    }

    fn call(&self, name: &str, at: Span, arguments: &[Expr], span: Span) -> Checked<Node> {
        if let AttachPoint::User(_) = self.attach
            && name == "reg"
        {
            return match arguments {
                [Expr { kind: ExprKind::Text(name), span: at, .. }] => {
                    let node = user::named_register(name, *at).map_err(one)?;
                    Ok(Node { span, ..node })
                }
                _ => Err(one(Fault::new(span, "`reg` takes the name of a register: `reg(\"ip\")`"))),
            };
        }
        if name != "str" {
            return Err(one(self.unknown_function(name, at)));
        }
        let (pointer, max) = match arguments {
            [pointer] => (pointer, STR_DEFAULT),
            [pointer, max] => match self.value(max)?.kind {
                NodeKind::Constant(n) if (1..=i64::from(STR_MAX)).contains(&n) => (pointer, n as u32),
                _ => {
                    let message = format!("the number of bytes must be a constant from 1 to {STR_MAX}");
                    return Err(one(Fault::new(max.span, message)));
                }
            },
            _ => return Err(one(Fault::new(span, "`str` takes a pointer, and perhaps a number of bytes"))),
        };
        let value = self.value(pointer)?;
        match value.ty {
            // What registers hold there has no type; what it points to is the process's own.
            Type::Integer { bytes: 8, .. } if matches!(self.attach, AttachPoint::User(_)) => {
                let kind = NodeKind::Str { pointer: Box::new(value), access: Access::User, array: false };
                Ok(Node { kind, ty: Type::Text { max }, span })
            }
            Type::Pointer { origin, .. } => {
                let access = if origin == Origin::User { Access::User } else { Access::Kernel };
                let kind = NodeKind::Str { pointer: Box::new(value), access, array: false };
                Ok(Node { kind, ty: Type::Text { max }, span })
            }
            Type::Text { .. } => Err(one(Fault::new(pointer.span, "this is a text already").help("leave `str` away"))),
            ty => Err(one(Fault::new(pointer.span, format!("`str` takes a pointer, and this is {}", self.shown(&ty))))),
        }
    }

    fn unknown_function(&self, name: &str, at: Span) -> Fault {
        let fault = Fault::new(at, format!("there is no function `{name}`"));
        let is_value = BUILTINS.iter().any(|(n, _)| *n == name) || self.bindings.contains_key(name) || name == "comm";
        if is_value {
            return fault.help(format!("`{name}` is a value, without parentheses"));
        }
        let help = familiar::function(name).or_else(|| did_you_mean(name, ["str"]));
        fault.help(help.unwrap_or_else(|| "there is `str(pointer)`, and `str(pointer, bytes)`".to_owned()))
    }

    fn unary(&self, op: UnaryOp, value: &Expr, span: Span) -> Checked<Node> {
        if op == UnaryOp::Not {
            let value = self.condition(value)?;
            if let NodeKind::Constant(n) = value.kind {
                return Ok(Node { kind: NodeKind::Constant(i64::from(n == 0)), ty: Type::Boolean, span });
            }
            return Ok(Node { kind: NodeKind::Not(Box::new(value)), ty: Type::Boolean, span });
        }
        let value = self.integer(value)?;
        let ty = Type::Integer { bytes: 8, signed: !is_unsigned(&value.ty) };
        let kind = match (op, value.kind) {
            (UnaryOp::Plus, kind @ NodeKind::Constant(_)) => kind,
            // How a value is read follows from its type, so a type cannot just be replaced by a wider one: add 0.
            (UnaryOp::Plus, kind) => {
                let zero = Node { kind: NodeKind::Constant(0), ty: ty.clone(), span };
                return Ok(integers(Op::Add, Node { kind, ..value }, zero, span));
            }
            (UnaryOp::Complement, NodeKind::Constant(n)) => NodeKind::Constant(!n),
            (UnaryOp::Negate, NodeKind::Constant(n)) => {
                // -9223372036854775808 is written as the negation of a number that is unsigned by itself.
                let ty = if n == i64::MIN { Type::Integer { bytes: 8, signed: true } } else { ty };
                return Ok(Node { kind: NodeKind::Constant(n.wrapping_neg()), ty, span });
            }
            (UnaryOp::Complement, kind) => NodeKind::Complement(Box::new(Node { kind, ..value })),
            (_, kind) => NodeKind::Negate(Box::new(Node { kind, ..value })),
        };
        Ok(Node { kind, ty, span })
    }

    /// A value to compute with.
    fn integer(&self, expr: &Expr) -> Checked<Node> {
        let node = self.value(expr)?;
        match node.ty {
            Type::Integer { .. } | Type::Boolean => Ok(node),
            ref ty => Err(one(Fault::new(expr.span, format!("{} cannot be computed with", self.shown(ty))))),
        }
    }

    fn binary(&self, op: BinaryOp, at: Span, left: &Expr, right: &Expr, span: Span) -> Checked<Node> {
        if matches!(op, BinaryOp::And | BinaryOp::Or) {
            let (left, right) = both(self.condition(left), self.condition(right))?;
            let is_and = op == BinaryOp::And;
            if let NodeKind::Constant(n) = left.kind {
                let decided = (n == 0) == is_and;
                let kind = match (decided, &right.kind) {
                    (true, _) => Some(NodeKind::Constant(i64::from(!is_and))),
                    (false, NodeKind::Constant(m)) => Some(NodeKind::Constant(i64::from(*m != 0))),
                    _ => None,
                };
                if let Some(kind) = kind {
                    return Ok(Node { kind, ty: Type::Boolean, span });
                }
            }
            let (left, right) = (Box::new(left), Box::new(right));
            let kind = if is_and { NodeKind::And(left, right) } else { NodeKind::Or(left, right) };
            return Ok(Node { kind, ty: Type::Boolean, span });
        }
        let (left_node, right_node) = both(self.value(left), self.value(right))?;
        let op = operation(op);
        match (&left_node.ty, &right_node.ty) {
            (Type::Text { .. }, Type::Text { .. }) => self.texts(op, at, left_node, right_node, span),
            (Type::Text { .. }, other) | (other, Type::Text { .. }) => Err(one(self.text_and_other(op, at, other))),
            (Type::Pointer { .. }, _) | (_, Type::Pointer { .. }) => {
                if !matches!(op, Op::Equal | Op::NotEqual) {
                    let message = "pointers can be compared by `==` and `!=`, and not be computed with";
                    return Err(one(Fault::new(at, message).help("`.` follows them, and `str()` reads text")));
                }
                let (left, right) = (Box::new(left_node), Box::new(right_node));
                let kind = NodeKind::Arithmetic { op, unsigned: true, left, right };
                Ok(Node { kind, ty: Type::Boolean, span })
            }
            _ => Ok(integers(op, left_node, right_node, span)),
        }
    }

    fn text_and_other(&self, op: Op, at: Span, other: &Type) -> Fault {
        if !op.is_comparison() {
            return Fault::new(at, "a text cannot be computed with");
        }
        let fault = Fault::new(at, format!("a text cannot be compared with {}", self.shown(other)));
        match other {
            Type::Pointer { .. } => fault.help("`str(pointer)` reads the text behind a pointer"),
            _ => fault,
        }
    }

    fn texts(&self, op: Op, at: Span, left: Node, right: Node, span: Span) -> Checked<Node> {
        if !op.is_comparison() {
            return Err(one(Fault::new(at, "a text cannot be computed with")));
        }
        if !matches!(op, Op::Equal | Op::NotEqual) {
            return Err(one(Fault::new(at, "texts can be compared by `==` and `!=` only")));
        }
        let same = match (&left.kind, &right.kind) {
            (NodeKind::Literal(a), NodeKind::Literal(b)) => NodeKind::Constant(i64::from(a == b)),
            _ => NodeKind::SameText(Box::new(left), Box::new(right)),
        };
        let same = Node { kind: same, ty: Type::Boolean, span };
        if op == Op::Equal {
            return Ok(same);
        }
        let kind = match same.kind {
            NodeKind::Constant(n) => NodeKind::Constant(1 - n),
            _ => NodeKind::Not(Box::new(same)),
        };
        Ok(Node { kind, ty: Type::Boolean, span })
    }

    fn conditional(&self, condition: &Expr, then: &Expr, otherwise: &Expr, span: Span) -> Checked<Node> {
        let condition = self.condition(condition);
        let (then_node, otherwise_node) = match both(self.value(then), self.value(otherwise)) {
            Ok(values) => values,
            Err(mut faults) => {
                faults.splice(0..0, condition.err().unwrap_or_default());
                return Err(faults);
            }
        };
        let condition = condition?;
        let ty = match (&then_node.ty, &otherwise_node.ty) {
            (a, b) if a == b => a.clone(),
            (Type::Text { max: a }, Type::Text { max: b }) => Type::Text { max: *a.max(b) },
            (Type::Pointer { target: a, origin: from_a }, Type::Pointer { target: b, origin: from_b })
                if (*from_a == Origin::User) == (*from_b == Origin::User) =>
            {
                let target = if a == b { a.clone() } else { Target::Unknown };
                Type::Pointer { target, origin: if from_a == from_b { *from_a } else { Origin::Kernel } }
            }
            (Type::Integer { .. } | Type::Boolean, Type::Integer { .. } | Type::Boolean) => {
                Type::Integer { bytes: 8, signed: !(is_unsigned(&then_node.ty) || is_unsigned(&otherwise_node.ty)) }
            }
            (a, b) => {
                let message =
                    format!("the two values of `?:` do not go together: {} and {}", self.shown(a), self.shown(b));
                return Err(
                    one(Fault::new(span, message).help("both must be numbers, texts, or pointers of one kind")),
                );
            }
        };
        if let NodeKind::Constant(n) = condition.kind {
            let chosen = if n != 0 { &then_node } else { &otherwise_node };
            // How a value is read follows from its own type, which need not be that of both.
            if chosen.ty == ty || matches!(chosen.kind, NodeKind::Constant(_)) {
                return Ok(Node { kind: chosen.kind.clone(), ty, span });
            }
        }
        let (condition, then, otherwise) = (Box::new(condition), Box::new(then_node), Box::new(otherwise_node));
        Ok(Node { kind: NodeKind::Conditional { condition, then, otherwise }, ty, span })
    }

    fn btf(&self, span: Span) -> Checked<&'a Btf> {
        self.facts.btf().map_err(|error| one(Fault::new(span, error.to_string())))
    }

    /// A type in words, with its article.
    fn shown(&self, ty: &Type) -> String {
        match ty {
            Type::Integer { bytes, signed } => {
                format!(
                    "{} integer of {} bits",
                    if *signed { "a signed" } else { "an unsigned" },
                    u32::from(*bytes) * 8
                )
            }
            Type::Boolean => "a boolean".to_owned(),
            Type::Text { .. } => "a text".to_owned(),
            Type::Pointer { target, origin } => {
                let of = if *origin == Origin::User { "a user pointer" } else { "a pointer" };
                match (target, self.facts.btf()) {
                    (Target::Char, _) => format!("{of} to char"),
                    (Target::Type(id), Ok(btf)) => format!("{of} to `{}`", btf.c_name(*id)),
                    _ => of.to_owned(),
                }
            }
        }
    }
}

/// Whether a program may read this field of its context. A system call's context holds the number and the arguments and nothing of what
/// newer kernels append for perf (kernel/trace/trace_syscalls.c: struct syscall_tp_t).
fn readable(format: &TracepointFormat, field: &TracepointField) -> bool {
    format.system != "syscalls"
        || (field.location == FieldLocation::Fixed && field.array.is_none() && field.offset < 64)
}

/// What a pointer argument of a tp_btf program points to and how the verifier takes it (kernel/bpf/btf.c: btf_ctx_access); none where it
/// refuses to load it.
fn pointer_argument(btf: &Btf, to: TypeId) -> Option<(Target, Origin)> {
    let stripped = btf.strip(to);
    let target = target(btf, to);
    let walked = if stripped.tags.user { Origin::User } else { Origin::Kernel };
    match btf.kind(stripped.id) {
        Kind::Struct { .. } | Kind::Union { .. } if stripped.tags.user || stripped.tags.percpu => {
            Some((target, walked))
        }
        Kind::Struct { .. } | Kind::Union { .. } => Some((target, Origin::Trusted)),
        Kind::Void | Kind::Int { .. } => Some((target, walked)),
        _ => None,
    }
}

fn target(btf: &Btf, to: TypeId) -> Target {
    let id = btf.strip(to).id;
    match btf.kind(id) {
        Kind::Int { bytes: 1, .. } => Target::Char,
        Kind::Struct { .. } | Kind::Union { .. } | Kind::Forward { .. } => Target::Type(id),
        _ => Target::Unknown,
    }
}

fn size_of(btf: &Btf, ty: TypeId) -> Option<u32> {
    match btf.kind(btf.strip(ty).id) {
        Kind::Int { bytes, .. } | Kind::Enum { bytes, .. } | Kind::Struct { bytes, .. } | Kind::Union { bytes, .. } => {
            Some(bytes)
        }
        Kind::Float { bytes } => Some(bytes),
        Kind::Pointer(_) => Some(8),
        Kind::Array { element, count } => size_of(btf, element)?.checked_mul(count),
        _ => None,
    }
}

fn address(base: Node, offset: u32, origin: Origin, span: Span) -> Node {
    let ty = Type::Pointer { target: Target::Char, origin };
    Node { kind: NodeKind::Address { base: Box::new(base), offset }, ty, span }
}

fn is_unsigned(ty: &Type) -> bool {
    matches!(ty, Type::Integer { bytes: 8, signed: false })
}

fn integers(op: Op, left: Node, right: Node, span: Span) -> Node {
    // A shift has the type of what is shifted; the count says nothing of it.
    let unsigned = match op {
        Op::ShiftLeft | Op::ShiftRight => is_unsigned(&left.ty),
        _ => is_unsigned(&left.ty) || is_unsigned(&right.ty),
    };
    let ty = if op.is_comparison() { Type::Boolean } else { Type::Integer { bytes: 8, signed: !unsigned } };
    if let (NodeKind::Constant(a), NodeKind::Constant(b)) = (&left.kind, &right.kind)
        && let Some(value) = arithmetic::evaluate(op, unsigned, *a, *b)
    {
        return Node { kind: NodeKind::Constant(value), ty, span };
    }
    Node { kind: NodeKind::Arithmetic { op, unsigned, left: Box::new(left), right: Box::new(right) }, ty, span }
}

fn operation(op: BinaryOp) -> Op {
    match op {
        BinaryOp::BitOr => Op::BitOr,
        BinaryOp::BitXor => Op::BitXor,
        BinaryOp::BitAnd => Op::BitAnd,
        BinaryOp::NotEqual => Op::NotEqual,
        BinaryOp::Less => Op::Less,
        BinaryOp::LessEqual => Op::LessEqual,
        BinaryOp::Greater => Op::Greater,
        BinaryOp::GreaterEqual => Op::GreaterEqual,
        BinaryOp::ShiftLeft => Op::ShiftLeft,
        BinaryOp::ShiftRight => Op::ShiftRight,
        BinaryOp::Add => Op::Add,
        BinaryOp::Subtract => Op::Subtract,
        BinaryOp::Multiply => Op::Multiply,
        BinaryOp::Divide => Op::Divide,
        BinaryOp::Remainder => Op::Remainder,
        // `&&` and `||` are not operations on two values: `binary` has dealt with them.
        BinaryOp::Equal | BinaryOp::And | BinaryOp::Or => Op::Equal,
    }
}

/// Both results, or the faults of both.
fn both<T, U>(a: Checked<T>, b: Checked<U>) -> Checked<(T, U)> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (Err(mut a), Err(b)) => {
            a.extend(b);
            Err(a)
        }
        (Err(faults), _) | (_, Err(faults)) => Err(faults),
    }
}

fn one(fault: Fault) -> Vec<Fault> {
    vec![fault]
}

/// "a, b, c", the first dozen.
fn listed(names: &[String]) -> String {
    let mut text = names.iter().take(12).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > 12 {
        text.push_str(&format!(" and {} more", names.len() - 12));
    }
    text
}
