//! Arguments that the verifier types by BTF, and how it takes them.

use crate::kernel::{Btf, Kind, TypeId};
use crate::plan::diagnostic::{Fault, Span};
use crate::plan::pointer::target;
use crate::plan::{Access, Names, Node, NodeKind, Origin, Target, Type};

/// An argument of a program whose context is its arguments, 8 bytes each, which the verifier types by BTF
/// (kernel/bpf/btf.c: btf_ctx_access).
pub fn argument(btf: &Btf, name: &str, index: u32, ty: TypeId, span: Span) -> Result<Node, Fault> {
    let stripped = btf.strip(ty);
    let kind = NodeKind::Argument { index, access: Access::Direct };
    let refuse = |why: &str| Err(Fault::new(span, format!("`{name}` is `{}`, {why}", btf.c_name(ty))));
    match btf.kind(stripped.id) {
        Kind::Int { bool: true, .. } => Ok(Node { kind, ty: Type::Boolean, span }),
        Kind::Enum { bytes: bytes @ (1 | 2 | 4 | 8), signed, .. } => {
            let ty = Type::Enumeration { names: Names::Kernel(stripped.id), bytes: bytes as u8, signed };
            Ok(Node { kind, ty, span })
        }
        Kind::Int { bytes, signed, .. } => match u8::try_from(bytes) {
            Ok(bytes @ (1 | 2 | 4 | 8)) => Ok(Node { kind, ty: Type::Integer { bytes, signed }, span }),
            _ => refuse("an integer of a width that cannot be read"),
        },
        Kind::Pointer(to) => {
            let (target, origin, access) = pointer_argument(btf, to);
            let kind = NodeKind::Argument { index, access };
            Ok(Node { kind, ty: Type::Pointer { target, origin }, span })
        }
        _ => refuse("which is no integer and no pointer"),
    }
}

/// What a pointer argument points to, where it comes from, and how it is read.
///
/// The verifier (kernel/bpf/btf.c: btf_ctx_access) lets a program load pointers to structures, to integers and to
/// `void`, and no others: older kernels (6.12) not even those to `const void`. The arguments lie in kernel memory, so
/// the others are read as any kernel memory is.
pub fn pointer_argument(btf: &Btf, to: TypeId) -> (Target, Origin, Access) {
    let stripped = btf.strip(to);
    let target = target(btf, to);
    let walked = if stripped.tags.user { Origin::User } else { Origin::Kernel };
    match btf.kind(stripped.id) {
        Kind::Struct { .. } | Kind::Union { .. } if stripped.tags.user || stripped.tags.percpu => {
            (target, walked, Access::Direct)
        }
        Kind::Struct { .. } | Kind::Union { .. } => (target, Origin::Trusted, Access::Direct),
        Kind::Int { .. } => (target, walked, Access::Direct),
        Kind::Void if to == TypeId::VOID => (target, walked, Access::Direct),
        _ => (target, walked, Access::Kernel),
    }
}
