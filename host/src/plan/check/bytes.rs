//! Bytes in memory: where they lie, and `buf`, which sends them as they are.

use super::super::bounds::{BUF_DEFAULT, BUF_MAX};
use super::super::diagnostic::{Fault, Span};
use super::super::syntax::Expr;
use super::super::{Access, AttachPoint, Node, NodeKind, Origin, Target, Type};
use super::places::{address, size_of, walked_from};
use super::{Checked, Checker, Walk, both, one};
use crate::kernel::{Kind, TypeId};

/// What an expression says of memory.
pub(super) enum Lies {
    /// There it lies: an array or a structure.
    There(Stretch),
    /// It is a value: a pointer to it, or anything else.
    Value(Node),
}

/// Memory that something is known to lie in.
pub(super) struct Stretch {
    pub pointer: Node,
    pub access: Access,
    /// Bytes; none where the last member of a structure is an array that goes on behind it.
    pub size: Option<u32>,
    /// Its type, if it is one of BTF's.
    pub ty: Option<TypeId>,
}

impl Checker<'_> {
    /// What the expression says of memory.
    pub(super) fn lies(&self, expr: &Expr) -> Checked<Lies> {
        let span = expr.span;
        if let Some((field, count, bytes)) = self.named_context_array(expr) {
            let ty = Type::Pointer { target: Target::Char, origin: Origin::Kernel };
            let pointer = Node { kind: NodeKind::ContextAddress { offset: field.offset }, ty, span };
            let size = Some(count * u32::from(bytes));
            return Ok(Lies::There(Stretch { pointer, access: Access::Kernel, size, ty: None }));
        }
        let walk = self.walk(expr)?;
        if let Walk::Place { base, origin, offset, ty, bits: None } = &walk {
            let btf = self.btf(span)?;
            let id = btf.strip(*ty).id;
            if let Kind::Array { .. } | Kind::Struct { .. } | Kind::Union { .. } = btf.kind(id) {
                let pointer = address(base.clone(), *offset, walked_from(*origin), span);
                let access = access(*origin);
                let size = size_of(btf, id).filter(|size| *size > 0);
                return Ok(Lies::There(Stretch { pointer, access, size, ty: Some(id) }));
            }
        }
        self.finish(walk, span).map(Lies::Value)
    }

    /// How what a pointer points to is read; none where the value is no pointer.
    pub(super) fn read_through(&self, value: &Node) -> Option<Access> {
        match value.ty {
            Type::Pointer { origin, .. } => Some(access(origin)),
            // What registers hold there has no type; what it points to is the process's own.
            Type::Integer { bytes: 8, .. } if matches!(self.attach, AttachPoint::User(_)) => Some(Access::User),
            _ => None,
        }
    }

    /// `buf(array)`, `buf(pointer, length)`, `buf(pointer, length, most)`
    pub(super) fn buf(&self, arguments: &[Expr], span: Span) -> Checked<Node> {
        let (what, length, most) = match arguments {
            [what] => (what, None, None),
            [what, length] => (what, Some(length), None),
            [what, length, most] => (what, Some(length), Some(most)),
            _ => {
                let fault = Fault::new(span, "`buf` takes a pointer and a number of bytes, or an array");
                return Err(one(fault.help("`buf(pointer, 16)`, `buf(pointer, length, 1024)`, `buf(array)`")));
            }
        };
        let lengths = both(length.map(|expr| self.integer(expr)).transpose(), self.most(most));
        let (lies, (length, most)) = both(self.lies(what), lengths)?;
        let (pointer, access, size) = match lies {
            Lies::There(Stretch { pointer, access, size, .. }) => (pointer, access, size),
            Lies::Value(value) => match (self.read_through(&value), &value.ty) {
                (Some(access), _) => (value, access, None),
                (None, Type::Text { .. }) => {
                    return Err(one(Fault::new(what.span, "this is a text already").help("leave `buf` away")));
                }
                (None, ty) => {
                    let message = format!("`buf` takes a pointer or an array, and this is {}", self.shown(ty));
                    return Err(one(Fault::new(what.span, message)));
                }
            },
        };
        let (max, length) = match length {
            None => (self.whole(size, what.span)?, None),
            Some(Node { kind: NodeKind::Constant(n), span, .. }) => (self.fixed(n, size, most, span)?, None),
            Some(length) => (most.unwrap_or(BUF_DEFAULT).min(size.unwrap_or(u32::MAX)), Some(Box::new(length))),
        };
        Ok(Node { kind: NodeKind::Bytes { pointer: Box::new(pointer), access, length }, ty: Type::Bytes { max }, span })
    }

    /// Bytes of a whole array.
    fn whole(&self, size: Option<u32>, at: Span) -> Checked<u32> {
        let help = "say how many of its bytes: `buf(…, 64)`";
        match size {
            None => Err(one(Fault::new(at, "how many bytes lie there is not known here").help(help))),
            Some(size @ 1..=BUF_MAX) => Ok(size),
            Some(size) => {
                Err(one(Fault::new(at, format!("this has {size} bytes, and {BUF_MAX} is the most")).help(help)))
            }
        }
    }

    /// A number of bytes that is known.
    fn fixed(&self, n: i64, size: Option<u32>, most: Option<u32>, at: Span) -> Checked<u32> {
        let bytes = u32::try_from(n).ok().filter(|n| (1..=BUF_MAX).contains(n));
        let Some(bytes) = bytes else {
            return Err(one(Fault::new(at, format!("the number of bytes must be from 1 to {BUF_MAX}"))));
        };
        if let Some(size) = size.filter(|size| bytes > *size) {
            return Err(one(Fault::new(at, format!("only {size} bytes lie there"))));
        }
        match most.filter(|most| bytes > *most) {
            Some(most) => Err(one(Fault::new(at, format!("these are more than the {most} that may be sent")))),
            None => Ok(bytes),
        }
    }

    /// The bound of a length that is known only when the probe fires.
    fn most(&self, most: Option<&Expr>) -> Checked<Option<u32>> {
        let Some(most) = most else { return Ok(None) };
        match self.value(most)?.kind {
            NodeKind::Constant(n) if (1..=i64::from(BUF_MAX)).contains(&n) => Ok(Some(n as u32)),
            _ => {
                let message = format!("the most bytes must be a constant from 1 to {BUF_MAX}");
                Err(one(Fault::new(most.span, message)))
            }
        }
    }
}

fn access(origin: Origin) -> Access {
    if origin == Origin::User { Access::User } else { Access::Kernel }
}
