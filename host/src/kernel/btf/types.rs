//! What a type is: its number, and what BTF tells of it.

/// A type of one [`super::Btf`], and of no other. 0 is `void`.
///
/// What modules add is numbered from where the kernel's own types end, by each module anew. So the bits above
/// [`TypeId::NUMBER_BITS`] tell whose it is: 0 for the kernel itself, else which module's, in the order of their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(pub u32);

impl TypeId {
    pub const VOID: TypeId = TypeId(0);

    /// Bits of a type's number (include/uapi/linux/btf.h: BTF_MAX_TYPE).
    pub(super) const NUMBER_BITS: u32 = 20;

    pub(super) fn of_module(module: usize, number: u32) -> TypeId {
        TypeId((module as u32 + 1) << TypeId::NUMBER_BITS | number)
    }

    /// Its number in the BTF of the kernel, or of its module: what the kernel knows it by.
    pub fn number(self) -> u32 {
        self.0 & ((1 << TypeId::NUMBER_BITS) - 1)
    }

    /// Whether a module adds it.
    pub fn is_of_module(self) -> bool {
        self.module().is_some()
    }

    /// Which of the modules it is of; none: of the kernel itself.
    pub(super) fn module(self) -> Option<usize> {
        (self.0 >> TypeId::NUMBER_BITS).checked_sub(1).map(|module| module as usize)
    }
}

/// One type, exactly as BTF has it: nothing is skipped, referred types are ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Void,
    Int {
        name: String,
        bytes: u32,
        signed: bool,
        /// Plain `char`: text rather than a number. (`u8`, an `unsigned char`, is a number.)
        char: bool,
        bool: bool,
    },
    Pointer(TypeId),
    Array {
        element: TypeId,
        count: u32,
    },
    /// The name is empty where the struct has none.
    Struct {
        name: String,
        bytes: u32,
    },
    Union {
        name: String,
        bytes: u32,
    },
    /// A value of an unsigned 64-bit enum above `i64::MAX` wraps round.
    Enum {
        name: String,
        bytes: u32,
        signed: bool,
        values: Vec<(String, i64)>,
    },
    /// A struct or union that is declared and not defined.
    Forward {
        name: String,
        union: bool,
    },
    Typedef {
        name: String,
        to: TypeId,
    },
    Const(TypeId),
    Volatile(TypeId),
    Restrict(TypeId),
    /// `__attribute__((btf_type_tag("name")))`, such as `user`, on the type that a pointer points to.
    TypeTag {
        name: String,
        to: TypeId,
    },
    Function {
        name: String,
        proto: TypeId,
    },
    /// A last parameter without name and of type `void` stands for `...`.
    Prototype {
        params: Vec<(String, TypeId)>,
        result: TypeId,
    },
    Float {
        bytes: u32,
    },
    Variable {
        name: String,
        ty: TypeId,
    },
    /// Variables that lie in one piece of memory, and where: bytes from its start.
    Section {
        name: String,
        variables: Vec<(TypeId, u32)>,
    },
    /// Declaration tags, which no expression can reach, and ids that are not of this BTF.
    Other,
}

/// A type without typedefs, qualifiers and type tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stripped {
    pub id: TypeId,
    pub tags: Tags,
}

/// Type tags met on the way (include/linux/compiler_types.h). Only kernels built with clang, or GCC from 16 on, have
/// them in their BTF.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    /// `__user`: the pointer is into user memory.
    pub user: bool,
    /// `__rcu`: the pointer is read under RCU.
    pub rcu: bool,
    /// `__percpu`: the pointer is an offset into per-CPU memory.
    pub percpu: bool,
}

impl Tags {
    pub(super) fn add(&mut self, name: &str) {
        match name {
            "user" => self.user = true,
            "rcu" => self.rcu = true,
            "percpu" => self.percpu = true,
            _ => {}
        }
    }
}
