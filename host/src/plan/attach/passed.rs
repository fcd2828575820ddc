//! Where a function of the kernel finds its arguments and leaves its result: the calling convention (System V ABI for
//! x86-64, 3.2.3), and what programs of fentry, fexit and lsm make of it.
//!
//! An integer or a pointer takes a register as long as there is one, and then 8 bytes of the stack. A structure that is
//! passed by value takes one or two registers where it has 16 bytes at most and they are all left; otherwise it is on
//! the stack as a whole, and what follows may still find registers. On the stack, arguments stand in their order behind
//! the return address. No structure of the kernel's holds floating-point numbers or has fields out of line, which would
//! change that.

use crate::kernel::{Btf, Function, Kind, TypeId};
use crate::plan::diagnostic::{Fault, Span};

/// The registers of the arguments in their order, by their names in `struct pt_regs`.
pub const ARGUMENTS: [&str; 6] = ["di", "si", "dx", "cx", "r8", "r9"];
/// The registers of the result.
pub const RESULTS: [&str; 2] = ["ax", "dx"];
/// Bytes of a structure that registers hold at most; fentry and fexit pass none that is larger
/// (arch/x86/net/bpf_jit_comp.c).
pub const MOST_BYTES: u32 = 16;
/// The highest N of `argN`. The kernel has functions with some twenty.
const LAST_NUMBER: u32 = 63;
/// Behind the return address, at the function's first instruction.
const STACK: u32 = 8;

/// Where an argument is when the function is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// In so many of [`ARGUMENTS`], from this one on.
    Registers { first: usize, count: usize },
    /// So many bytes behind where the stack pointer points to.
    Stack(u32),
}

/// Where the argument of that position is.
pub fn at_entry(btf: &Btf, function: &Function, position: usize) -> Option<Passed> {
    // A larger structure that is returned is written to where the first register points.
    let returned = structure_bytes(btf, function.result).is_some_and(|bytes| bytes > MOST_BYTES);
    let (mut used, mut stack) = (usize::from(returned), STACK);
    for (index, (_, ty)) in function.params.iter().enumerate() {
        let words = words(btf, *ty);
        let count = words as usize;
        let in_registers = words * 8 <= MOST_BYTES && used + count <= ARGUMENTS.len();
        let passed = if in_registers { Passed::Registers { first: used, count } } else { Passed::Stack(stack) };
        if index == position {
            return Some(passed);
        }
        match passed {
            Passed::Registers { .. } => used += count,
            Passed::Stack(_) => stack += words * 8,
        }
    }
    None
}

/// Where the argument of that number is, in a function whose arguments are all integers and pointers.
pub fn numbered(number: usize, span: Span) -> Result<Passed, Fault> {
    match u32::try_from(number) {
        Ok(_) if number < ARGUMENTS.len() => Ok(Passed::Registers { first: number, count: 1 }),
        Ok(position @ ..=LAST_NUMBER) => Ok(Passed::Stack(STACK + 8 * (position - ARGUMENTS.len() as u32))),
        _ => Err(Fault::new(span, format!("no function has so many arguments: `arg{LAST_NUMBER}` is the last"))),
    }
}

/// The 8-byte slot of the context of fentry, fexit and lsm in which this argument begins; of the position behind the
/// last, that of the result.
pub fn slot(btf: &Btf, function: &Function, position: usize) -> u32 {
    function.params.iter().take(position).map(|(_, ty)| words(btf, *ty)).sum()
}

/// Bytes of a structure that is passed by value; none of what is no structure.
pub fn structure_bytes(btf: &Btf, ty: TypeId) -> Option<u32> {
    match btf.kind(btf.strip(ty).id) {
        Kind::Struct { bytes, .. } | Kind::Union { bytes, .. } => Some(bytes),
        _ => None,
    }
}

/// How many times 8 bytes it takes.
fn words(btf: &Btf, ty: TypeId) -> u32 {
    match btf.kind(btf.strip(ty).id) {
        // None of a structure without fields.
        Kind::Struct { bytes, .. } | Kind::Union { bytes, .. } | Kind::Int { bytes, .. } => bytes.div_ceil(8),
        _ => 1,
    }
}
