//! IR to BPF.
//!
//! Thin layers: what can be said shorter (`tidy`), where each virtual register is alive (`liveness`), which cannot
//! share a place (`interference`), which register each lives in (`allocate`) or what goes to the stack for it
//! (`spill`), where on the stack everything lies (`frame`), in which order blocks stand (`layout`), how each operation
//! is spelt (`emit`), and bytes (the assembler of [`crate::bpf`]). Nothing here knows of ELF, or of what the functions
//! are for.

mod allocate;
mod bits;
mod emit;
mod frame;
mod interference;
mod layout;
mod liveness;
mod spill;
mod tidy;

use crate::bpf::{AssembleError, Code, assemble};
use crate::ir::{self, CheckError, Kfunc, Map, Module, Reason};

/// Bytes of stack of one function at most (include/linux/filter.h: MAX_BPF_STACK).
pub const MAX_STACK: u32 = 512;

/// Instructions and what they refer to; ready to be written to an object file.
#[derive(Clone, Debug)]
pub struct Program {
    pub functions: Vec<Function>,
    pub maps: Vec<Map>,
    pub kfuncs: Vec<Kfunc>,
    pub data: Vec<u8>,
    pub reasons: Vec<Reason>,
}

/// A function as BPF instructions.
#[derive(Clone, Debug)]
pub struct Function {
    pub name: String,
    /// The ELF section of an entry program; none: a subprogram.
    pub section: Option<String>,
    pub parameters: u8,
    pub code: Code,
    /// Bytes of stack.
    pub stack: u32,
}

/// Why a module cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodegenError {
    /// A fault of the front end.
    #[error(transparent)]
    Ir(#[from] CheckError),
    /// More values are alive at once than registers and stack hold.
    #[error("function `{function}` needs {bytes} bytes of stack, and {MAX_STACK} is the most")]
    Stack { function: String, bytes: u32 },
    /// A fault of this stage: an operation's values found no registers.
    #[error("function `{function}`: there are not enough registers")]
    Registers { function: String },
    /// The code is too long for a jump, or a fault of this stage.
    #[error("function `{function}`: {error}")]
    Assemble { function: String, error: AssembleError },
}

/// Compiles a module.
pub fn generate(module: Module) -> Result<Program, CodegenError> {
    ir::check(&module)?;
    let Module { functions, maps, kfuncs, data, reasons } = module;
    let functions = functions.into_iter().map(function).collect::<Result<_, _>>()?;
    Ok(Program { functions, maps, kfuncs, data, reasons })
}

fn function(function: ir::Function) -> Result<Function, CodegenError> {
    let (name, section, parameters) =
        (function.name.clone(), function.section.clone(), function.parameters.len() as u8);
    let Some(allocation) = allocate::allocate(function) else {
        return Err(CodegenError::Registers { function: name });
    };
    let stack = allocation.stack;
    if stack > MAX_STACK {
        return Err(CodegenError::Stack { function: name, bytes: stack });
    }
    let items = emit::emit(&allocation);
    match assemble(&items) {
        Ok(code) => Ok(Function { name, section, parameters, code, stack }),
        Err(error) => Err(CodegenError::Assemble { function: name, error }),
    }
}

#[cfg(test)]
mod tests;
