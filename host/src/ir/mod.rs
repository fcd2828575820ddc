//! The intermediate representation: what the front ends speak and the code generator reads.
//!
//! A [`Module`] is functions, maps and reasons. A [`Function`] is blocks over virtual registers of 64 bits; a register
//! may be assigned more than once (this is not SSA: a front end that has variables, as a Wasm function has, needs no
//! renaming). Memory is reached through an [`Address`] whose [`Space`] says what kind of memory it is; memory that may
//! fault (a kernel address found by a walk, user memory) is reached only by the helpers that may fail, so it has no
//! space here. Every operation can carry the reason why it is there.
//!
//! Nothing here knows of probes, of declarations, of Wasm, or of how BPF encodes an instruction. What a module must
//! obey is in [`mod@check`]; its text form is made by [`mod@text`].

mod build;
mod check;
mod order;
mod text;

pub use crate::bpf::{AluOp, CType, Cond, Kfunc, Reason, ReasonId, Size, Width};
pub use build::FunctionBuilder;
pub use check::{CheckError, check};
pub use order::build_order;
pub use text::text;

/// What is compiled into one object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Module {
    pub functions: Vec<Function>,
    pub maps: Vec<Map>,
    /// Functions of the kernel that the functions call by name.
    pub kfuncs: Vec<Kfunc>,
    /// Bytes that nothing can change.
    pub data: Vec<u8>,
    /// What [`ReasonId`]s index.
    pub reasons: Vec<Reason>,
}

/// A map that the functions name by its index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    /// A C identifier of at most 15 bytes: the kernel keeps no more.
    pub name: String,
    pub kind: MapKind,
    /// Bytes; 0 for a ring buffer.
    pub key_size: u32,
    /// Bytes; 0 for a ring buffer.
    pub value_size: u32,
    /// Entries at most; bytes, for a ring buffer: a power of two, and a multiple of the page size.
    pub max_entries: u32,
}

/// The kinds of map that front ends use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapKind {
    RingBuffer,
    /// A value for each CPU, by index.
    PerCpuArray,
}

/// Index into [`Module::maps`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MapId(pub u32);

/// Index into [`Module::kfuncs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KfuncId(pub u32);

/// Index into [`Module::functions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FunctionId(pub u32);

/// A function.
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    /// A C identifier.
    pub name: String,
    /// The ELF section, which tells libbpf what program this is; none: a subprogram that others call.
    pub section: Option<String>,
    /// At most 5. An entry program has one, its context.
    pub parameters: Vec<Register>,
    /// The first is where it starts.
    pub blocks: Vec<Block>,
    /// How many virtual registers there are.
    pub registers: u32,
    /// Memory of the function's own, alive as long as it runs.
    pub slots: Vec<Slot>,
}

/// A virtual register: 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Register(pub u32);

/// Index into [`Function::blocks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub u32);

/// Index into [`Function::slots`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SlotId(pub u32);

/// A piece of the stack, aligned to 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    pub bytes: u32,
    /// What the verifier knows a piece of the stack as (a dynptr, an iterator): nothing else may ever be written to
    /// where it is.
    pub object: bool,
}

/// Operations in a row, and where to go from there.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    pub operations: Vec<Operation>,
    pub end: Terminator,
    /// Why the block ends so.
    pub end_reason: Option<ReasonId>,
}

/// What is done, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    pub kind: OperationKind,
    pub reason: Option<ReasonId>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum OperationKind {
    Constant {
        to: Register,
        value: i64,
    },
    Copy {
        to: Register,
        from: Register,
    },
    /// `to = left op right`. Of 32 bits, the upper half of the result is 0. Division and remainder are unsigned; by
    /// zero they give 0 and `left`.
    Alu {
        op: AluOp,
        width: Width,
        to: Register,
        left: Register,
        right: Operand,
    },
    /// The lowest `bits` (8, 16 or 32), sign- or zero-extended to 64.
    Extend {
        to: Register,
        from: Register,
        bits: u32,
        signed: bool,
    },
    /// The lowest `bits` (16, 32 or 64) with their bytes in the opposite order, zero-extended to 64.
    ByteSwap {
        to: Register,
        from: Register,
        bits: u32,
    },
    /// Zero-extended.
    Load {
        to: Register,
        from: Address,
        size: Size,
    },
    Store {
        to: Address,
        value: Operand,
        size: Size,
    },
    /// On 8 bytes, as one: nobody sees them half-way. `to` is what was there before.
    Atomic {
        op: AtomicOp,
        to: Register,
        at: Address,
        value: Register,
    },
    /// The address itself, as a pointer.
    AddressOf {
        to: Register,
        slot: SlotId,
        offset: u32,
    },
    /// The map itself, as helpers take it.
    MapAddress {
        to: Register,
        map: MapId,
    },
    /// The address of what stands at this offset in [`Module::data`].
    DataAddress {
        to: Register,
        offset: u32,
    },
    Call {
        to: Option<Register>,
        callee: Callee,
        arguments: Vec<Operand>,
    },
}

/// What an atomic operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtomicOp {
    /// Adds; its `to` is not assigned.
    Add,
    Exchange,
}

/// What is called. Registers that hold values before the call hold them after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callee {
    /// A helper of the kernel, by its number in include/uapi/linux/bpf.h.
    Helper(u32),
    /// A function of the kernel.
    Kfunc(KfuncId),
    /// A subprogram.
    Function(FunctionId),
}

/// A register, or a constant that fits an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    Register(Register),
    Constant(i32),
}

impl From<Register> for Operand {
    fn from(register: Register) -> Operand {
        Operand::Register(register)
    }
}

impl From<i32> for Operand {
    fn from(value: i32) -> Operand {
        Operand::Constant(value)
    }
}

/// Where in memory: `base + offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    pub base: Base,
    pub offset: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    Slot(SlotId),
    Register { register: Register, space: Space },
}

/// Kinds of memory that instructions may reach, which the verifier has to know in the register by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// The program's context: read only.
    Context,
    /// A map's value.
    MapValue,
    /// A structure of the kernel that the verifier knows by BTF: read only.
    Trusted,
    /// The stack, by a pointer computed from [`OperationKind::AddressOf`].
    Stack,
}

/// How a block ends.
#[derive(Clone, Debug, PartialEq)]
pub enum Terminator {
    Jump(BlockId),
    Branch { condition: Cond, width: Width, left: Register, right: Operand, then: BlockId, otherwise: BlockId },
    Return(Operand),
}

impl Terminator {
    /// Where it may go.
    pub fn successors(&self) -> impl Iterator<Item = BlockId> + use<> {
        let (a, b) = match self {
            Terminator::Jump(to) => (Some(*to), None),
            Terminator::Branch { then, otherwise, .. } => (Some(*then), Some(*otherwise)),
            Terminator::Return(_) => (None, None),
        };
        a.into_iter().chain(b)
    }

    /// Puts another register in place of each that it reads.
    pub fn replace_reads(&mut self, mut by: impl FnMut(Register) -> Register) {
        match self {
            Terminator::Jump(_) => {}
            Terminator::Branch { left, right, .. } => {
                *left = by(*left);
                right.replace(by);
            }
            Terminator::Return(value) => value.replace(by),
        }
    }

    /// Puts another block in place of each that it may go to.
    pub fn replace_successors(&mut self, by: impl Fn(BlockId) -> BlockId) {
        match self {
            Terminator::Jump(to) => *to = by(*to),
            Terminator::Branch { then, otherwise, .. } => (*then, *otherwise) = (by(*then), by(*otherwise)),
            Terminator::Return(_) => {}
        }
    }

    /// The registers that it reads.
    pub fn reads(&self) -> impl Iterator<Item = Register> + use<> {
        let (a, b) = match self {
            Terminator::Jump(_) => (None, None),
            Terminator::Branch { left, right, .. } => (Some(*left), right.register()),
            Terminator::Return(value) => (value.register(), None),
        };
        a.into_iter().chain(b)
    }
}

impl Operand {
    fn replace(&mut self, by: impl FnOnce(Register) -> Register) {
        if let Operand::Register(register) = self {
            *register = by(*register);
        }
    }

    pub fn register(self) -> Option<Register> {
        match self {
            Operand::Register(register) => Some(register),
            Operand::Constant(_) => None,
        }
    }
}

impl Address {
    fn replace(&mut self, by: impl FnOnce(Register) -> Register) {
        if let Base::Register { register, .. } = &mut self.base {
            *register = by(*register);
        }
    }

    pub fn register(self) -> Option<Register> {
        match self.base {
            Base::Register { register, .. } => Some(register),
            Base::Slot(_) => None,
        }
    }
}

impl OperationKind {
    /// The register that it assigns.
    pub fn writes(&self) -> Option<Register> {
        match self {
            OperationKind::Constant { to, .. }
            | OperationKind::Copy { to, .. }
            | OperationKind::Alu { to, .. }
            | OperationKind::Extend { to, .. }
            | OperationKind::ByteSwap { to, .. }
            | OperationKind::Load { to, .. }
            | OperationKind::AddressOf { to, .. }
            | OperationKind::MapAddress { to, .. }
            | OperationKind::DataAddress { to, .. } => Some(*to),
            OperationKind::Store { .. } | OperationKind::Atomic { op: AtomicOp::Add, .. } => None,
            OperationKind::Atomic { to, .. } => Some(*to),
            OperationKind::Call { to, .. } => *to,
        }
    }

    /// The registers that it reads.
    pub fn reads(&self) -> impl Iterator<Item = Register> {
        let mut arguments: &[Operand] = &[];
        let (first, second) = match self {
            OperationKind::Constant { .. }
            | OperationKind::AddressOf { .. }
            | OperationKind::MapAddress { .. }
            | OperationKind::DataAddress { .. } => (None, None),
            OperationKind::Copy { from, .. }
            | OperationKind::Extend { from, .. }
            | OperationKind::ByteSwap { from, .. } => (Some(*from), None),
            OperationKind::Alu { left, right, .. } => (Some(*left), right.register()),
            OperationKind::Load { from, .. } => (from.register(), None),
            OperationKind::Atomic { at, value, .. } => (at.register(), Some(*value)),
            OperationKind::Store { to, value, .. } => (to.register(), value.register()),
            OperationKind::Call { arguments: all, .. } => {
                arguments = all;
                (None, None)
            }
        };
        first.into_iter().chain(second).chain(arguments.iter().filter_map(|argument| argument.register()))
    }

    /// Puts another register in place of each that it reads.
    pub fn replace_reads(&mut self, mut by: impl FnMut(Register) -> Register) {
        match self {
            OperationKind::Constant { .. }
            | OperationKind::AddressOf { .. }
            | OperationKind::MapAddress { .. }
            | OperationKind::DataAddress { .. } => {}
            OperationKind::Copy { from, .. }
            | OperationKind::Extend { from, .. }
            | OperationKind::ByteSwap { from, .. } => *from = by(*from),
            OperationKind::Alu { left, right, .. } => {
                *left = by(*left);
                right.replace(by);
            }
            OperationKind::Load { from, .. } => from.replace(by),
            OperationKind::Atomic { at, value, .. } => {
                at.replace(&mut by);
                *value = by(*value);
            }
            OperationKind::Store { to, value, .. } => {
                to.replace(&mut by);
                value.replace(by);
            }
            OperationKind::Call { arguments, .. } => arguments.iter_mut().for_each(|a| a.replace(&mut by)),
        }
    }

    /// Puts another register in place of the one that it assigns.
    pub fn replace_write(&mut self, by: Register) {
        match self {
            OperationKind::Constant { to, .. }
            | OperationKind::Copy { to, .. }
            | OperationKind::Alu { to, .. }
            | OperationKind::Extend { to, .. }
            | OperationKind::ByteSwap { to, .. }
            | OperationKind::Load { to, .. }
            | OperationKind::AddressOf { to, .. }
            | OperationKind::MapAddress { to, .. }
            | OperationKind::DataAddress { to, .. }
            | OperationKind::Atomic { to, .. } => *to = by,
            OperationKind::Store { .. } => {}
            OperationKind::Call { to, .. } => *to = Some(by),
        }
    }

    /// Whether it does nothing but assign its register, so that it can go where nobody reads that.
    pub fn is_pure(&self) -> bool {
        !matches!(self, OperationKind::Store { .. } | OperationKind::Atomic { .. } | OperationKind::Call { .. })
    }
}
