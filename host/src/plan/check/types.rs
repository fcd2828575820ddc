//! Types by their C names: casts, `sizeof`, `offsetof`, `container_of`.

use super::super::diagnostic::{Fault, Span, did_you_mean};
use super::super::pointer::{MAX_POINTERS, target};
use super::super::syntax::{self, Expr, ExprKind, TypeBase, TypeName};
use super::super::{AttachPoint, Names, Node, NodeKind, Origin, Target, Type};
use super::places::{bytes_of, element, size_of};
use super::symbols::is_only_sent;
use super::{Checked, Checker, Walk, both, one};
use crate::kernel::{Btf, Kind, TypeId};

/// What a type's name means.
enum Named {
    Void,
    Scalar(Type),
    /// A structure or union, or what is only declared as one.
    Structure(TypeId),
    /// Of some size, and nothing that a value could be.
    Other(TypeId),
}

impl Checker<'_> {
    /// `(type)value`
    pub(super) fn cast(&self, ty: &TypeName, value: &Expr, span: Span) -> Checked<Node> {
        let (to, node) = both(self.named(ty), self.value(value))?;
        let Named::Scalar(to) = to else {
            let fault = Fault::new(ty.span, format!("a value cannot be made a `{ty}`"));
            return Err(one(fault.help(format!("a pointer can be made a pointer to it: `({ty} *)`"))));
        };
        if let Type::Point(_) = node.ty {
            return Err(self.no_number(&node, "cannot be cast"));
        }
        if is_only_sent(&node.ty) {
            return Err(self.only_sent(&node));
        }
        if let Type::Bytes { .. } | Type::Ip | Type::Mac = node.ty {
            return Err(self.no_number(&node, "cannot be cast"));
        }
        if let Type::Text { .. } = node.ty {
            let fault = Fault::new(value.span, "a text cannot be cast");
            return Err(one(fault.help("its characters are integers: `comm[0]` of a structure's array")));
        }
        let to = match (to, &node.ty) {
            // What registers hold there has no type; what it points to is the process's own.
            (Type::Pointer { target, .. }, Type::Integer { .. }) if matches!(self.attach, AttachPoint::User(_)) => {
                Type::Pointer { target, origin: Origin::User }
            }
            (to, _) => to,
        };
        Ok(converted(node, to, span))
    }

    fn no_number(&self, node: &Node, why: &str) -> Vec<Fault> {
        one(Fault::new(node.span, format!("{} {why}", self.shown(&node.ty))))
    }

    pub(super) fn size_of_type(&self, ty: &TypeName, span: Span) -> Checked<Node> {
        let bytes = match self.named(ty)? {
            Named::Scalar(ty) => Some(bytes_of(&ty).into()),
            Named::Structure(id) | Named::Other(id) => size_of(self.btf(span)?, id),
            Named::Void => None,
        };
        bytes
            .map(|bytes| number(bytes, span))
            .ok_or_else(|| one(Fault::new(ty.span, format!("`{ty}` has no size here"))))
    }

    /// `sizeof(expression)`, which is not computed.
    pub(super) fn size_of(&self, value: &Expr, span: Span) -> Checked<Node> {
        let bytes = match self.walk(value)? {
            Walk::Place { bits: Some(_), .. } => return Err(one(Fault::new(value.span, "a bit field has no size"))),
            Walk::Place { ty, .. } => size_of(self.btf(span)?, ty),
            walk => match self.finish(walk, value.span)?.ty {
                Type::Text { .. } | Type::Bytes { .. } | Type::Ip | Type::Mac | Type::Point(_) | Type::Stack { .. } => {
                    None
                }
                ty => Some(bytes_of(&ty).into()),
            },
        };
        bytes.map(|bytes| number(bytes, span)).ok_or_else(|| one(Fault::new(value.span, "this has no size")))
    }

    pub(super) fn offset_of(&self, ty: &TypeName, path: &[(String, Span)], span: Span) -> Checked<Node> {
        let id = self.structure(ty)?;
        Ok(number(self.offset(id, path)?, span))
    }

    pub(super) fn container_of(
        &self,
        pointer: &Expr,
        ty: &TypeName,
        path: &[(String, Span)],
        span: Span,
    ) -> Checked<Node> {
        let offset = self.structure(ty).and_then(|id| Ok((id, self.offset(id, path)?)));
        let (node, (id, offset)) = both(self.value(pointer), offset)?;
        let origin = match node.ty {
            Type::Pointer { origin: Origin::User, .. } => Origin::User,
            Type::Pointer { .. } => Origin::Kernel,
            ref ty => {
                let message = format!("`container_of` takes a pointer, and this is {}", self.shown(ty));
                return Err(one(Fault::new(pointer.span, message)));
            }
        };
        let mut back = number(offset, span);
        back.kind = NodeKind::Constant(-i64::from(offset));
        let ty = Type::Pointer { target: Target::Type(id), origin };
        Ok(Node { ty, span, ..element(node, back, 1, None) })
    }

    /// What a function gives whose prototype is written so, as far as this kernel has such a type.
    pub(super) fn type_of_prototype(&self, prototype: &str, function: &str) -> Option<Type> {
        let ty = prototype.split_once(function)?.0.trim().trim_start_matches("const ");
        let ExprKind::SizeOfType(ty) = syntax::parse(&format!("sizeof({ty})")).ok()?.kind else { return None };
        match self.named(&ty).ok()? {
            Named::Void => Some(Type::Boolean),
            Named::Scalar(ty) => Some(ty),
            _ => None,
        }
    }

    /// The type as one that has fields.
    fn structure(&self, ty: &TypeName) -> Checked<TypeId> {
        match self.named(ty)? {
            Named::Structure(id) => Ok(id),
            _ => Err(one(Fault::new(ty.span, format!("`{ty}` has no fields")))),
        }
    }

    /// Bytes from the structure's start.
    fn offset(&self, mut id: TypeId, path: &[(String, Span)]) -> Checked<u32> {
        let mut bits = 0;
        for (name, at) in path {
            let btf = self.btf(*at)?;
            let member = self.find_member(id, name, *at)?;
            if member.bit_size.is_some_and(|size| size > 0) {
                return Err(one(Fault::new(*at, "a bit field has no offset in bytes")));
            }
            bits += member.bit_offset;
            id = btf.strip(member.ty).id;
        }
        Ok(bits / 8)
    }

    fn named(&self, ty: &TypeName) -> Checked<Named> {
        let mut named = self.base(ty)?;
        if ty.pointers > MAX_POINTERS {
            return Err(one(Fault::new(ty.span, format!("the type has more than {MAX_POINTERS} stars"))));
        }
        for star in 1..=ty.pointers {
            let target = match named {
                Named::Void | Named::Other(_) => Target::Unknown,
                Named::Scalar(Type::Integer { bytes: 1, .. }) => Target::Char,
                Named::Scalar(ty) => Target::Scalar(Box::new(ty)),
                Named::Structure(id) => Target::Type(id),
            };
            // `char __user *const *` is rare enough to take for the process's altogether.
            let origin = if ty.user && star == ty.pointers { Origin::User } else { Origin::Kernel };
            named = Named::Scalar(Type::Pointer { target, origin });
        }
        Ok(named)
    }

    /// Helps with the name of a structure, union or enumeration that there is none of, by those that begin as it does.
    fn near_tag(&self, fault: Fault, name: &str) -> Fault {
        const SAME: usize = 3;
        let Ok(btf) = self.facts.btf() else { return fault };
        let kinds = [("struct", btf.structure(name)), ("union", btf.union(name)), ("enum", btf.enumeration(name))];
        if let Some((word, _)) = kinds.iter().find(|(_, found)| found.is_some()) {
            return fault.help(format!("there is `{word} {name}`"));
        }
        if btf.typedef(name).is_some() {
            return fault.help(format!("there is `{name}`, a type by itself"));
        }
        let prefix = name.get(..SAME.min(name.len().saturating_sub(1))).unwrap_or_default();
        match did_you_mean(name, btf.tags_from(prefix)) {
            Some(help) => fault.help(help),
            None => fault,
        }
    }

    fn base(&self, ty: &TypeName) -> Checked<Named> {
        let unknown = |what: &str, name: &str| Fault::new(ty.span, format!("this kernel's BTF has no {what} `{name}`"));
        let no_tag = |what: &str, name: &str| one(self.near_tag(unknown(what, name), name));
        match &ty.base {
            TypeBase::Struct(name) => {
                let id = self.btf(ty.span)?.structure(name);
                id.map(Named::Structure).ok_or_else(|| no_tag("structure", name))
            }
            TypeBase::Union(name) => {
                let id = self.btf(ty.span)?.union(name);
                id.map(Named::Structure).ok_or_else(|| no_tag("union", name))
            }
            TypeBase::Enum(name) => {
                let btf = self.btf(ty.span)?;
                let id = btf.enumeration(name).ok_or_else(|| no_tag("enumeration", name))?;
                Ok(meaning(btf, id))
            }
            TypeBase::Named(name) if name == "void" => Ok(Named::Void),
            TypeBase::Named(name) => {
                if let Some(ty) = c_integer(name) {
                    return Ok(Named::Scalar(ty));
                }
                let btf = self.btf(ty.span)?;
                if let Some(id) = btf.typedef(name) {
                    return Ok(meaning(btf, id));
                }
                let fault = unknown("type", name);
                Err(one(match btf.structure(name) {
                    Some(_) => fault.help(format!("there is `struct {name}`")),
                    None if btf.enumeration(name).is_some() => fault.help(format!("there is `enum {name}`")),
                    None => match did_you_mean(name, COMMON) {
                        Some(help) => fault.help(help),
                        None => fault,
                    },
                }))
            }
            TypeBase::Of(expr) => match self.walk(expr)? {
                Walk::Place { ty, bits: None, .. } => Ok(meaning(self.btf(expr.span)?, ty)),
                walk => match self.finish(walk, expr.span)?.ty {
                    ty if ty.is_number() || matches!(ty, Type::Pointer { .. }) => Ok(Named::Scalar(ty)),
                    _ => Err(one(Fault::new(expr.span, "this has no type of the kernel's"))),
                },
            },
        }
    }
}

/// The value as one of another type: of an integer as many bytes as that has, extended by its own sign.
pub(super) fn converted(node: Node, to: Type, span: Span) -> Node {
    let to = match (to, &node.ty) {
        // What a user pointer is cast to still lies in the process's memory.
        (Type::Pointer { target, .. }, Type::Pointer { origin: Origin::User, .. }) => {
            Type::Pointer { target, origin: Origin::User }
        }
        // What is cast to what it is keeps the kernel's word for it.
        (Type::Pointer { target, origin: Origin::Kernel }, Type::Pointer { target: of, origin }) if target == *of => {
            Type::Pointer { target, origin: *origin }
        }
        (to, _) => to,
    };
    if node.ty == to {
        return Node { span, ..node };
    }
    let kind = match (&node.kind, &to) {
        (NodeKind::Constant(n), Type::Boolean) => NodeKind::Constant(i64::from(*n != 0)),
        (_, Type::Boolean) => {
            let inverse = Node { kind: NodeKind::Not(Box::new(node)), ty: Type::Boolean, span };
            NodeKind::Not(Box::new(inverse))
        }
        (NodeKind::Constant(n), ty) => match ty.integer() {
            Some((bytes, signed)) => NodeKind::Constant(narrowed(*n, bytes, signed)),
            None => NodeKind::Cast(Box::new(node)),
        },
        _ => NodeKind::Cast(Box::new(node)),
    };
    Node { kind, ty: to, span }
}

/// The lowest bytes of a value, extended.
fn narrowed(value: i64, bytes: u8, signed: bool) -> i64 {
    let shift = 64 - 8 * u32::from(bytes);
    if signed { value << shift >> shift } else { ((value as u64) << shift >> shift) as i64 }
}

fn number(value: u32, span: Span) -> Node {
    Node { kind: NodeKind::Constant(value.into()), ty: Type::Integer { bytes: 8, signed: true }, span }
}

/// The type as that of a value; none where it is `void`, or a structure.
pub(super) fn meaning_of(btf: &Btf, ty: TypeId) -> Option<Type> {
    if let Named::Scalar(ty) = meaning(btf, ty) { Some(ty) } else { None }
}

fn meaning(btf: &Btf, ty: TypeId) -> Named {
    let id = btf.strip(ty).id;
    match btf.kind(id) {
        Kind::Void => Named::Void,
        Kind::Int { bool: true, .. } => Named::Scalar(Type::Boolean),
        Kind::Int { bytes: bytes @ (1 | 2 | 4 | 8), signed, .. } => {
            Named::Scalar(Type::Integer { bytes: bytes as u8, signed })
        }
        Kind::Enum { bytes: bytes @ (1 | 2 | 4 | 8), signed, .. } => {
            Named::Scalar(Type::Enumeration { names: Names::Kernel(id), bytes: bytes as u8, signed })
        }
        Kind::Struct { .. } | Kind::Union { .. } | Kind::Forward { .. } => Named::Structure(id),
        Kind::Pointer(to) => {
            let origin = if btf.strip(to).tags.user { Origin::User } else { Origin::Kernel };
            Named::Scalar(Type::Pointer { target: target(btf, to), origin })
        }
        _ => Named::Other(id),
    }
}

/// Names of types that are likely meant by one that is none.
const COMMON: [&str; 16] = [
    "u8", "u16", "u32", "u64", "s8", "s16", "s32", "s64", "int", "long", "char", "short", "bool", "size_t", "pid_t",
    "void",
];

/// The integers that every kernel has, by their names. `char` is unsigned, as in the kernel (-funsigned-char).
fn c_integer(name: &str) -> Option<Type> {
    let integer = |bytes, signed| Some(Type::Integer { bytes, signed });
    match name.trim_start_matches("__") {
        "u8" | "uint8_t" | "uint8" => return integer(1, false),
        "u16" | "uint16_t" | "uint16" => return integer(2, false),
        "u32" | "uint32_t" | "uint32" => return integer(4, false),
        "u64" | "uint64_t" | "uint64" => return integer(8, false),
        "s8" | "int8_t" | "int8" => return integer(1, true),
        "s16" | "int16_t" | "int16" => return integer(2, true),
        "s32" | "int32_t" | "int32" => return integer(4, true),
        "s64" | "int64_t" | "int64" => return integer(8, true),
        "bool" | "_Bool" => return Some(Type::Boolean),
        _ => {}
    }
    let words: Vec<&str> = name.split(' ').collect();
    let has = |word| words.contains(&word);
    if !words.iter().all(|w| matches!(*w, "unsigned" | "signed" | "char" | "short" | "int" | "long")) {
        return None;
    }
    let bytes = if has("char") {
        1
    } else if has("short") {
        2
    } else if has("long") {
        8
    } else {
        4
    };
    integer(bytes, if has("char") { has("signed") } else { !has("unsigned") })
}
