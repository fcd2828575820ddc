//! What a pointer points to, and what the verifier knows of that.

use super::{Names, Origin, Target, Type};
use crate::kernel::{Btf, Kind, TypeId};

/// Stars of a type at most.
pub const MAX_POINTERS: u32 = 8;

/// What the verifier knows of what a pointer points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trust {
    /// Nothing: it may be gone.
    Nothing,
    /// That it does not go while the program runs, as RCU protects it.
    Rcu,
    /// That it is alive: somebody holds a reference.
    Full,
}

/// What a pointer to this type points to.
pub fn target(btf: &Btf, to: TypeId) -> Target {
    shallow_target(btf, to, MAX_POINTERS)
}

/// Pointers that are followed so deep only: damaged BTF may hold one that points to itself.
fn shallow_target(btf: &Btf, to: TypeId, depth: u32) -> Target {
    let id = btf.strip(to).id;
    let scalar = |ty| Target::Scalar(Box::new(ty));
    match btf.kind(id) {
        Kind::Int { bool: true, .. } => scalar(Type::Boolean),
        Kind::Int { bytes: 1, .. } => Target::Char,
        Kind::Int { bytes: bytes @ (2 | 4 | 8), signed, .. } => scalar(Type::Integer { bytes: bytes as u8, signed }),
        Kind::Enum { bytes: bytes @ (1 | 2 | 4 | 8), signed, .. } => {
            scalar(Type::Enumeration { names: Names::Kernel(id), bytes: bytes as u8, signed })
        }
        Kind::Struct { .. } | Kind::Union { .. } | Kind::Forward { .. } => Target::Type(id),
        Kind::Pointer(inner) if depth > 0 && !btf.strip(inner).tags.percpu => {
            let origin = if btf.strip(inner).tags.user { Origin::User } else { Origin::Kernel };
            scalar(Type::Pointer { target: shallow_target(btf, inner, depth - 1), origin })
        }
        _ => Target::Unknown,
    }
}
