//! The BPF instruction set: instructions, labels, assembler, disassembly.
//!
//! An [`Insn`] is one instruction, made by a constructor that reads as assembly; jumps name a [`Label`], and each
//! instruction can carry the [`Reason`] why it is there. [`assemble()`] turns a list of them into [`Code`]: slots of 8
//! bytes, what must be relocated, and where the reason changes. [`disassemble()`] prints that.
//!
//! The set is what `-mcpu=v3` names: RFC 9669 without the signed division, sign-extending moves and loads, byte swaps
//! and 32-bit jump offsets that came with Linux 6.6. Nothing here knows of probes, of Wasm or of ELF.

mod assemble;
mod disassemble;
mod helper;
mod insn;
mod kfunc;
mod raw;
mod reason;

pub use assemble::{AssembleError, Code, Item, Relocation, assemble};
pub use disassemble::{Names, disassemble, disassemble_named};
pub use helper::helper_name;
pub use insn::{AluOp, Cond, FunctionIndex, Insn, KfuncIndex, Label, MapIndex, Reg, Size, Target, Width};
pub use kfunc::{CType, Kfunc};
pub use raw::RawInsn;
pub use reason::{Reason, ReasonId};

#[cfg(test)]
mod tests;
