//! Functions of the kernel that programs call by name (kfuncs).

/// A function of the kernel, with the prototype that the caller takes it to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kfunc {
    pub name: String,
    /// At most 5. libbpf compares these and the result with the running kernel's BTF, by their kinds; see [`CType`].
    pub parameters: Vec<CType>,
    pub result: CType,
}

/// A type of C, as far as libbpf looks at it when it compares prototypes (`bpf_core_types_are_compat`): the sizes of
/// integers and the names and members of what a pointer points to make no difference, qualifiers and typedefs are
/// looked through.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CType {
    Void,
    Int {
        bytes: u8,
        signed: bool,
    },
    Bool,
    Enum(String),
    Struct(String),
    Union(String),
    /// A struct that the kernel's BTF declares but does not define.
    Forward(String),
    Pointer(Box<CType>),
}
