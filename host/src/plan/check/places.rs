//! Paths: a walk through structures as a place, and the place as a value.

use super::super::attach::tracepoint::{named_target, readable};
use super::super::bounds::STR_MAX;
use super::super::diagnostic::{Fault, Span, did_you_mean};
use super::super::pointer::target;
use super::super::syntax::{Expr, ExprKind};
use super::super::{Access, AttachPoint, Names, Node, NodeKind, Origin, Target, Type};
use super::{Checked, Checker, Walk, both, listed, one};
use crate::kernel::{Btf, FieldLocation, Kind, MemberAt, TracepointField, TypeId};

/// A field of a tracepoint's format, its elements, and the bytes of one.
type ContextArray<'a> = (&'a TracepointField, u32, u8);

impl Checker<'_> {
    pub(super) fn field(&self, base: &Expr, name: &str, at: Span) -> Checked<Walk> {
        self.member_of(self.walk(base)?, name, base.span, at)
    }

    /// The field of what has been walked to.
    pub(super) fn member_of(&self, walk: Walk, name: &str, span: Span, at: Span) -> Checked<Walk> {
        match walk {
            Walk::Arguments => {
                if let Some((field, _, _)) = self.context_array(name)
                    && !is_char(field)
                {
                    let message = format!("`{name}` is an array of `{}`", field.c_type);
                    return Err(one(Fault::new(at, message).help("pick an element: `[0]`")));
                }
                Ok(self.named_values(name, self.argument(name, at)?))
            }
            Walk::Place { base: pointer, origin, offset, ty, bits } => {
                let btf = self.btf(at)?;
                match btf.kind(btf.strip(ty).id) {
                    Kind::Struct { .. } | Kind::Union { .. } => {
                        self.member(pointer, origin, offset, btf.strip(ty).id, name, at)
                    }
                    _ => {
                        let place = Walk::Place { base: pointer, origin, offset, ty, bits };
                        let value = self.finish(place, span)?;
                        self.through(value, name, at)
                    }
                }
            }
            Walk::Value(value) => self.through(value, name, at),
        }
    }

    /// The values of an argument that is of an enumeration have names.
    fn named_values(&self, name: &str, walk: Walk) -> Walk {
        let Walk::Value(mut node) = walk else { return walk };
        let Ok(btf) = self.facts.btf() else { return Walk::Value(node) };
        let id = match self.attach {
            AttachPoint::Tracepoint(format) => {
                let declared = format.field(name).and_then(|f| f.c_type.trim().strip_prefix("enum "));
                declared.and_then(|ty| btf.enumeration(ty.trim()))
            }
            _ => None,
        };
        if let (Some(id), Type::Integer { bytes, signed }) = (id, &node.ty) {
            node.ty = Type::Enumeration { names: Names::Kernel(id), bytes: *bytes, signed: *signed };
        }
        Walk::Value(node)
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
                    Target::Scalar(_) => "`*` reads what it points to",
                    _ => "what it points to is not known here; name its type: `((struct NAME *)pointer).field`",
                };
                Err(one(Fault::new(at, format!("{} has no fields", self.shown(&pointer.ty))).help(help)))
            }
            ty => Err(one(Fault::new(at, format!("{} has no fields", self.shown(ty))))),
        }
    }

    /// The member of a structure by its name.
    pub(super) fn find_member(&self, id: TypeId, name: &str, at: Span) -> Checked<MemberAt> {
        let btf = self.btf(at)?;
        if let Kind::Forward { .. } = btf.kind(id) {
            return Err(one(Fault::new(at, format!("this kernel's BTF has no fields for `{}`", btf.c_name(id)))));
        }
        btf.member(id, name).ok_or_else(|| {
            let names = btf.member_names(id);
            let fault = Fault::new(at, format!("`{}` has no field `{name}`", btf.c_name(id)));
            one(match did_you_mean(name, names.iter().map(String::as_str)) {
                Some(help) => fault.help(help),
                None if names.is_empty() => fault,
                None => fault.help(format!("it has {}", listed(&names))),
            })
        })
    }

    fn member(&self, base: Node, origin: Origin, offset: u32, id: TypeId, name: &str, at: Span) -> Checked<Walk> {
        let member = self.find_member(id, name, at)?;
        // Of the types that share a union's bytes the verifier takes the first, whatever the path says: only a probe
        // reads it as another.
        let origin = if member.in_union && origin == Origin::Trusted { Origin::Kernel } else { origin };
        let bits = member.bit_size.filter(|n| *n > 0).map(|size| (member.bit_offset, size));
        let bytes = if bits.is_some() { 0 } else { member.bit_offset / 8 };
        let bits = bits.map(|(at, size)| (at + offset * 8, size));
        let offset = if bits.is_some() { 0 } else { offset + bytes };
        Ok(Walk::Place { base, origin, offset, ty: member.ty, bits })
    }

    pub(super) fn index(&self, base: &Expr, index: &Expr) -> Checked<Walk> {
        if let Some(array) = self.named_context_array(base) {
            let index = self.integer(index)?;
            return self.context_element(array, index, base.span).map(Walk::Value);
        }
        let (walked, index) = both(self.walk(base), self.integer(index))?;
        let Walk::Place { base: pointer, origin, offset, ty, bits: None } = walked else {
            return match walked {
                Walk::Value(node) if matches!(node.ty, Type::Pointer { .. }) => self.behind(node, index, base.span),
                _ => Err(one(Fault::new(base.span, "this is no array")
                    .help("arrays in the kernel's structures can be indexed, and pointers"))),
            };
        };
        let btf = self.btf(base.span)?;
        let Kind::Array { element, count } = btf.kind(btf.strip(ty).id) else {
            let place = Walk::Place { base: pointer, origin, offset, ty, bits: None };
            if let Kind::Pointer(_) = btf.kind(btf.strip(ty).id) {
                return self.behind(self.finish(place, base.span)?, index, base.span);
            }
            return Err(one(Fault::new(base.span, format!("`{}` is no array", btf.c_name(ty)))));
        };
        let size = size_of(btf, element)
            .ok_or_else(|| one(Fault::new(base.span, format!("`{}` has no size", btf.c_name(element)))))?;
        // The verifier of Linux 6.1 loses its way in arrays of structures whose type has a name of its own
        // (atomic_long_t): only a probe reads them.
        let stripped = btf.strip(element).id;
        let is_named = stripped != element && matches!(btf.kind(stripped), Kind::Struct { .. } | Kind::Union { .. });
        let origin = if is_named { walked_from(origin) } else { origin };
        // The last member of a structure may be an array of no elements, which goes on behind it.
        let bound = (count > 0).then_some(count);
        if let NodeKind::Constant(at) = index.kind
            && let Some(count) = bound
        {
            return match u32::try_from(at) {
                Ok(at) if at < count => {
                    Ok(Walk::Place { base: pointer, origin, offset: offset + at * size, ty: element, bits: None })
                }
                _ => Err(one(Fault::new(index.span, format!("the array has {count} elements, counted from 0")))),
            };
        }
        let origin = walked_from(origin);
        let base = address(pointer, offset, origin, base.span);
        let base = self::element(base, index, size, bound);
        Ok(Walk::Place { base, origin, offset: 0, ty: element, bits: None })
    }

    /// `*value`
    pub(super) fn dereference(&self, value: &Expr, span: Span) -> Checked<Walk> {
        let zero = Node { kind: NodeKind::Constant(0), ty: Type::Integer { bytes: 8, signed: true }, span };
        let node = self.value(value)?;
        if !matches!(node.ty, Type::Pointer { .. }) {
            return Err(one(Fault::new(span, format!("`*` takes a pointer, and this is {}", self.shown(&node.ty)))));
        }
        self.behind(node, zero, span)
    }

    /// `&value`
    pub(super) fn address_of(&self, value: &Expr, span: Span) -> Checked<Node> {
        match self.walk(value)? {
            Walk::Place { base, .. } if is_passed(&base) => {
                let fault = Fault::new(span, "this is passed in registers, and lies nowhere in memory");
                Err(one(fault.help("pick a field that is no structure: its value can be had")))
            }
            Walk::Place { base, origin, offset, ty, bits: None } => {
                let origin = walked_from(origin);
                let ty = Type::Pointer { target: target(self.btf(span)?, ty), origin };
                let kind = NodeKind::Cast(Box::new(address(base, offset, origin, span)));
                Ok(Node { kind, ty, span })
            }
            Walk::Place { .. } => Err(one(Fault::new(span, "a bit field has no address"))),
            _ => {
                let fault = Fault::new(span, "this lies nowhere in memory");
                Err(one(fault.help("`&` takes a field of a structure, or an element of an array")))
            }
        }
    }

    /// The element of that number, counted from where the pointer points to.
    fn behind(&self, pointer: Node, index: Node, span: Span) -> Checked<Walk> {
        let Type::Pointer { target, origin } = pointer.ty.clone() else {
            return Err(one(Fault::new(span, "this is no pointer")));
        };
        let first = index.kind == NodeKind::Constant(0);
        let scalar = match &target {
            Target::Type(id) => {
                let btf = self.btf(span)?;
                if first {
                    return Ok(Walk::Place { base: pointer, origin, offset: 0, ty: *id, bits: None });
                }
                let size = size_of(btf, *id)
                    .ok_or_else(|| one(Fault::new(span, format!("`{}` has no size", btf.c_name(*id)))))?;
                let base = element(pointer, index, size, None);
                return Ok(Walk::Place { base, origin: walked_from(origin), offset: 0, ty: *id, bits: None });
            }
            Target::Char => Type::Integer { bytes: 1, signed: false },
            Target::Scalar(ty) => (**ty).clone(),
            Target::Unknown => {
                let fault = Fault::new(span, "what the pointer points to is not known here");
                return Err(one(fault.help("name its type: `(int *)pointer`, `(struct NAME *)pointer`")));
            }
        };
        let bytes = bytes_of(&scalar);
        let base = if first { pointer } else { element(pointer, index, bytes.into(), None) };
        Ok(Walk::Value(scalar_at(base, origin, bytes, scalar, span)))
    }

    /// The array in the tracepoint's format that the expression names.
    pub(super) fn named_context_array(&self, expr: &Expr) -> Option<ContextArray<'_>> {
        match &expr.kind {
            ExprKind::Field { base, name, .. } if base.kind == ExprKind::Name("args".to_owned()) => {
                self.context_array(name)
            }
            _ => None,
        }
    }

    /// The field of the tracepoint's format that is an array, its elements, and the bytes of one.
    fn context_array(&self, name: &str) -> Option<ContextArray<'_>> {
        let AttachPoint::Tracepoint(format) = self.attach else { return None };
        let field = format.field(name).filter(|f| f.location == FieldLocation::Fixed && readable(format, f))?;
        let count = field.array.filter(|count| *count > 0)?;
        let bytes = u8::try_from(field.size / count).ok().filter(|n| matches!(n, 1 | 2 | 4 | 8))?;
        (field.offset.is_multiple_of(bytes.into())).then_some((field, count, bytes))
    }

    fn context_element(&self, (field, count, bytes): ContextArray<'_>, index: Node, span: Span) -> Checked<Node> {
        let ty = match field.c_type.trim() {
            "bool" => Type::Boolean,
            of if of.ends_with('*') => {
                Type::Pointer { target: named_target(self.facts, of.trim_end_matches('*')), origin: Origin::Kernel }
            }
            _ => Type::Integer { bytes, signed: field.signed },
        };
        if let NodeKind::Constant(at) = index.kind {
            return match u32::try_from(at) {
                Ok(at) if at < count => {
                    let kind = NodeKind::Context { offset: field.offset + at * u32::from(bytes), bytes };
                    Ok(Node { kind, ty, span })
                }
                _ => Err(one(Fault::new(index.span, format!("the array has {count} elements, counted from 0")))),
            };
        }
        let kind = NodeKind::ContextAddress { offset: field.offset };
        let base = Node { kind, ty: Type::Pointer { target: Target::Char, origin: Origin::Kernel }, span };
        Ok(scalar_at(element(base, index, bytes.into(), Some(count)), Origin::Kernel, bytes, ty, span))
    }

    /// A place becomes a value.
    pub(super) fn finish(&self, walk: Walk, span: Span) -> Checked<Node> {
        self.finish_any(walk, false, span)
    }

    /// The same of one that may be a per-CPU pointer, which points nowhere as it is.
    pub(super) fn finish_per_cpu(&self, walk: Walk, span: Span) -> Checked<Node> {
        self.finish_any(walk, true, span)
    }

    fn finish_any(&self, walk: Walk, per_cpu: bool, span: Span) -> Checked<Node> {
        let (base, origin, offset, ty, bits) = match walk {
            Walk::Value(node) => return Ok(Node { span, ..node }),
            Walk::Arguments => {
                if let Some(fault) = self.attach.without_arguments(span) {
                    return Err(one(fault));
                }
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
        let walked = walked_from(origin);
        match btf.kind(stripped.id) {
            Kind::Int { bytes, signed, bool, .. } => {
                let ty = |bytes| if bool { Type::Boolean } else { Type::Integer { bytes, signed } };
                self.load(base, origin, offset, bytes, bits, ty, span)
            }
            Kind::Enum { bytes, signed, .. } => {
                let ty = |bytes| Type::Enumeration { names: Names::Kernel(stripped.id), bytes, signed };
                self.load(base, origin, offset, bytes, bits, ty, span)
            }
            Kind::Pointer(to) => {
                let tags = btf.strip(to).tags;
                if tags.percpu && !per_cpu {
                    let fault = Fault::new(span, format!("`{}` points to something else for each CPU", btf.c_name(ty)));
                    return Err(one(fault.help("`per_cpu_ptr(pointer, cpu)` is where it points to for that CPU")));
                }
                let points_to = target(btf, to);
                let is_struct = matches!(points_to, Target::Type(_));
                // The verifier gives what such a load yields a type of its own, with rules of its own; a probed pointer
                // is a number to it.
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
            // The verifier lets one load a bit field from its first byte on; with those before it one may load another
            // member.
            let access = if origin == Origin::Trusted && first == at / 8 { Access::Direct } else { probed };
            let kind = NodeKind::Load {
                base: Box::new(base),
                offset: first,
                bytes: unit as u8,
                bits: Some(((at - first * 8) as u8, size as u8)),
                access,
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

/// What a read through a pointer from there yields, if it is a pointer.
pub(super) fn walked_from(origin: Origin) -> Origin {
    if origin == Origin::User { Origin::User } else { Origin::Kernel }
}

/// Whether this is where a structure lies for the program alone, and only while it runs.
pub(super) fn is_passed(base: &Node) -> bool {
    matches!(base.kind, NodeKind::Gathered { .. } | NodeKind::ContextAddress { .. })
}

fn is_char(field: &TracepointField) -> bool {
    matches!(field.c_type.trim(), "char" | "const char")
}

/// Bytes of a value in memory.
pub(super) fn bytes_of(ty: &Type) -> u8 {
    match ty {
        Type::Boolean => 1,
        ty => ty.integer().map_or(8, |(bytes, _)| bytes),
    }
}

/// What lies where `base` points to.
pub(super) fn scalar_at(base: Node, origin: Origin, bytes: u8, ty: Type, span: Span) -> Node {
    let access = if origin == Origin::User { Access::User } else { Access::Kernel };
    let ty = match ty {
        Type::Pointer { target, .. } if origin == Origin::User => Type::Pointer { target, origin },
        ty => ty,
    };
    Node { kind: NodeKind::Load { base: Box::new(base), offset: 0, bytes, bits: None, access }, ty, span }
}

/// The address of an element: a plain number to the verifier, so that only a probe reads what is there.
pub(super) fn element(base: Node, index: Node, scale: u32, count: Option<u32>) -> Node {
    let (span, origin) = (
        base.span,
        if let Type::Pointer { origin: Origin::User, .. } = base.ty { Origin::User } else { Origin::Kernel },
    );
    let ty = Type::Pointer { target: Target::Unknown, origin };
    Node { kind: NodeKind::Element { base: Box::new(base), index: Box::new(index), scale, count }, ty, span }
}

pub(super) fn size_of(btf: &Btf, ty: TypeId) -> Option<u32> {
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

pub(super) fn address(base: Node, offset: u32, origin: Origin, span: Span) -> Node {
    let ty = Type::Pointer { target: Target::Char, origin };
    Node { kind: NodeKind::Address { base: Box::new(base), offset }, ty, span }
}
