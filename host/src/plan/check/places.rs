//! Paths: a walk through structures as a place, and the place as a value.

use super::super::diagnostic::{Fault, Span, did_you_mean};
use super::super::syntax::Expr;
use super::super::{Access, Node, NodeKind, Origin, Target, Type};
use super::{Checked, Checker, STR_MAX, Walk, listed, one};
use crate::kernel::{Btf, Kind, TypeId};

impl Checker<'_> {
    pub(super) fn field(&self, base: &Expr, name: &str, at: Span) -> Checked<Walk> {
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

    pub(super) fn index(&self, base: &Expr, index: &Expr) -> Checked<Walk> {
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

    /// A place becomes a value.
    pub(super) fn finish(&self, walk: Walk, span: Span) -> Checked<Node> {
        let (base, origin, offset, ty, bits) = match walk {
            Walk::Value(node) => return Ok(Node { span, ..node }),
            Walk::Arguments => {
                let names = self.attach.argument_names();
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
}

pub fn target(btf: &Btf, to: TypeId) -> Target {
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
