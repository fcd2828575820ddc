//! Whose memory an address is in.

use super::super::diagnostic::{Fault, Span};
use super::super::syntax::Expr;
use super::super::{Node, NodeKind, Origin, Target, Type};
use super::{Checked, Checker, one};

impl Checker<'_> {
    /// `user(pointer)` and `kernel(pointer)`: the same address and the same type, in that memory.
    pub(super) fn in_memory(&self, name: &str, origin: Origin, arguments: &[Expr], span: Span) -> Checked<Node> {
        let [pointer] = arguments else {
            return Err(one(Fault::new(span, format!("`{name}` takes a pointer, or an address"))));
        };
        let node = self.value(pointer)?;
        let target = match &node.ty {
            // What the kernel vouches for is the kernel's already.
            Type::Pointer { origin: Origin::Trusted, .. } if origin == Origin::Kernel => {
                return Ok(Node { span, ..node });
            }
            Type::Pointer { target, .. } => target.clone(),
            Type::Integer { .. } => Target::Unknown,
            ty => {
                let message = format!("`{name}` takes a pointer or an address, and this is {}", self.shown(ty));
                return Err(one(Fault::new(pointer.span, message)));
            }
        };
        let ty = Type::Pointer { target, origin };
        let kind = if node.ty == ty { node.kind } else { NodeKind::Cast(Box::new(node)) };
        Ok(Node { kind, ty, span })
    }
}
