//! Arguments that the verifier types by BTF, and how it takes them.

use crate::kernel::{Btf, Kind, TypeId};
use crate::plan::check::target;
use crate::plan::diagnostic::{Fault, Span};
use crate::plan::{Node, NodeKind, Origin, Target, Type};

/// An argument of a program whose context is its arguments, 8 bytes each, which the verifier types by BTF (kernel/bpf/btf.c: btf_ctx_access).
pub fn argument(btf: &Btf, name: &str, index: u32, ty: TypeId, span: Span) -> Result<Node, Fault> {
    let stripped = btf.strip(ty);
    let kind = NodeKind::Argument { index };
    let refuse = |why: &str| Err(Fault::new(span, format!("`{name}` is `{}`, {why}", btf.c_name(ty))));
    match btf.kind(stripped.id) {
        Kind::Int { bool: true, .. } => Ok(Node { kind, ty: Type::Boolean, span }),
        Kind::Enum { bytes: bytes @ (1 | 2 | 4 | 8), signed, .. } => {
            let ty = Type::Enumeration { id: stripped.id, bytes: bytes as u8, signed };
            Ok(Node { kind, ty, span })
        }
        Kind::Int { bytes, signed, .. } => match u8::try_from(bytes) {
            Ok(bytes @ (1 | 2 | 4 | 8)) => Ok(Node { kind, ty: Type::Integer { bytes, signed }, span }),
            _ => refuse("an integer of a width that cannot be read"),
        },
        Kind::Pointer(to) => match pointer_argument(btf, to) {
            Some((target, origin)) => Ok(Node { kind, ty: Type::Pointer { target, origin }, span }),
            None => refuse("a pointer that the kernel lets no program read here"),
        },
        _ => refuse("which is no integer and no pointer"),
    }
}

/// What a pointer argument points to and how the verifier takes it (kernel/bpf/btf.c: btf_ctx_access); none where it
/// refuses to load it.
pub fn pointer_argument(btf: &Btf, to: TypeId) -> Option<(Target, Origin)> {
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
