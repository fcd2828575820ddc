//! Addresses that are shown by names: of the kernel's and of a process's memory, and those of the calls that led to
//! where the probe fires.

use super::super::bounds::FRAMES;
use super::super::diagnostic::{Fault, Span};
use super::super::syntax::Expr;
use super::super::{AttachPoint, Memory, Node, NodeKind, Origin, Type};
use super::{Checked, Checker, one};

/// Whether nothing can be done with such a value but to send it: names are for those who read it.
pub(super) fn is_only_sent(ty: &Type) -> bool {
    matches!(ty, Type::Symbol(_) | Type::Stack { .. })
}

impl Checker<'_> {
    /// `ksym(address)` and `usym(address)`.
    pub(super) fn symbol_of(&self, name: &str, arguments: &[Expr], span: Span) -> Checked<Node> {
        let [address] = arguments else {
            return Err(one(Fault::new(span, format!("`{name}` takes a pointer, or an address"))));
        };
        let node = self.value(address)?;
        let of = if name == "ksym" { Memory::Kernel } else { Memory::User };
        match node.ty {
            Type::Pointer { origin: Origin::User, .. } if of == Memory::Kernel => {
                let fault = Fault::new(address.span, "this is an address of the process's memory");
                Err(one(fault.help("`usym(address)` is shown by the process's names")))
            }
            Type::Pointer { .. } | Type::Integer { bytes: 8, .. } => {
                Ok(Node { kind: NodeKind::Cast(Box::new(node)), ty: Type::Symbol(of), span })
            }
            ref ty => {
                let message =
                    format!("`{name}` takes a pointer, or an address of 64 bits, and this is {}", self.shown(ty));
                Err(one(Fault::new(address.span, message)))
            }
        }
    }

    /// `kstack` and `ustack`, and with a number of frames.
    pub(super) fn stack(&self, name: &str, arguments: &[Expr], span: Span) -> Checked<Node> {
        let frames = match arguments {
            [] => FRAMES,
            [frames] => match self.value(frames)?.kind {
                NodeKind::Constant(n) if (1..=i64::from(FRAMES)).contains(&n) => n as u32,
                _ => {
                    let message = format!("the number of frames must be a constant from 1 to {FRAMES}");
                    return Err(one(Fault::new(frames.span, message)));
                }
            },
            _ => return Err(one(Fault::new(span, format!("`{name}` takes a number of frames, or nothing")))),
        };
        if let AttachPoint::Iter(_) = self.attach {
            let fault = Fault::new(span, "at an iterator the stack is that of the host, which walks");
            return Err(one(fault.help("where something happens, the stack of the thread can be had that does it")));
        }
        let of = if name == "kstack" { Memory::Kernel } else { Memory::User };
        Ok(Node { kind: NodeKind::Stack(of), ty: Type::Stack { of, frames }, span })
    }

    /// What is tried with a value that is shown by names.
    pub(super) fn only_sent(&self, node: &Node) -> Vec<Fault> {
        let fault =
            Fault::new(node.span, format!("{} can be sent, and nothing else be done with it", self.shown(&node.ty)));
        one(match node.ty {
            Type::Symbol(_) => fault.help("compute with the address itself; names are known when the event is shown"),
            _ => fault,
        })
    }
}
