//! Why an instruction is there, in the words of whoever asked for it.

/// A place in the text that an instruction was made from.
///
/// The disassembly prints it, and BTF line information takes it into the kernel, so that the verifier's log speaks of
/// the expression instead of a register.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reason {
    /// What holds the text, such as `opens:enter`. The verifier prints only what follows the last `/`.
    pub file: String,
    /// Line in `file`. Line information holds 22 bits of it.
    pub line: u32,
    /// Column in `file`. Line information holds 10 bits of it.
    pub column: u32,
    /// The text itself, such as `args.flags & O_CREAT`.
    pub text: String,
}

/// Index into the table of [`Reason`]s that belongs to what is being compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReasonId(pub u32);
