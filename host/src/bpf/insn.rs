//! One instruction, and the constructors that spell it.

use std::fmt;

use super::raw::{self, RawInsn};
use super::reason::ReasonId;

/// A register. Helpers and subprograms take arguments in `R1` to `R5` and answer in `R0`; they keep `R6` to `R9`; `R10`
/// is the frame pointer and cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reg {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    R10,
}

impl fmt::Display for Reg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", *self as u8)
    }
}

/// How much of a register an operation works on. A 32-bit operation clears the upper half of its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Width {
    W32,
    W64,
}

/// Size of a load or a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Size {
    B1,
    B2,
    B4,
    B8,
}

impl Size {
    /// The size in bytes.
    pub fn bytes(self) -> u32 {
        match self {
            Self::B1 => 1,
            Self::B2 => 2,
            Self::B4 => 4,
            Self::B8 => 8,
        }
    }

    /// The size of this many bytes, if an instruction can move that many at once.
    pub fn from_bytes(bytes: u32) -> Option<Self> {
        match bytes {
            1 => Some(Self::B1),
            2 => Some(Self::B2),
            4 => Some(Self::B4),
            8 => Some(Self::B8),
            _ => None,
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::B4 => 0x00,
            Self::B2 => 0x08,
            Self::B1 => 0x10,
            Self::B8 => 0x18,
        }
    }
}

/// Arithmetic on `dst` and a second operand, with the result in `dst`.
///
/// `Div` and `Mod` are unsigned; by a zero in a register they give 0 and the dividend, by an immediate zero the
/// verifier refuses them, as it does shifts by an immediate of the width or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AluOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    And,
    Or,
    Xor,
    Lsh,
    Rsh,
    /// Shift right that keeps the sign.
    Arsh,
}

impl AluOp {
    fn code(self) -> u8 {
        match self {
            Self::Add => 0x00,
            Self::Sub => 0x10,
            Self::Mul => 0x20,
            Self::Div => 0x30,
            Self::Or => 0x40,
            Self::And => 0x50,
            Self::Lsh => 0x60,
            Self::Rsh => 0x70,
            Self::Mod => 0x90,
            Self::Xor => 0xa0,
            Self::Arsh => 0xc0,
        }
    }
}

/// When a jump is taken. `Gt` to `Le` compare unsigned, `Sgt` to `Sle` signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cond {
    Eq,
    Ne,
    Gt,
    Ge,
    Lt,
    Le,
    Sgt,
    Sge,
    Slt,
    Sle,
    /// The operands have a bit in common.
    Set,
}

impl Cond {
    fn code(self) -> u8 {
        match self {
            Self::Eq => 0x10,
            Self::Gt => 0x20,
            Self::Ge => 0x30,
            Self::Set => 0x40,
            Self::Ne => 0x50,
            Self::Sgt => 0x60,
            Self::Sge => 0x70,
            Self::Lt => 0xa0,
            Self::Le => 0xb0,
            Self::Slt => 0xc0,
            Self::Sle => 0xd0,
        }
    }
}

/// A place that jumps go to; one function's labels are its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(pub u32);

/// Index of a map in the object that the code becomes part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MapIndex(pub u32);

/// Index of a function in the object that the code becomes part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionIndex(pub u32);

/// Index of a kernel function in the object that the code becomes part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KfuncIndex(pub u32);

/// What an instruction refers to that has no number before the code is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    Map(MapIndex),
    /// A place in the object's read-only data, in bytes from its start.
    Data(u32),
    Function(FunctionIndex),
    Kfunc(KfuncIndex),
}

/// One instruction, and the reason why it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn {
    /// The first slot, complete but for what `operand` adds.
    pub(super) raw: RawInsn,
    pub(super) operand: Operand,
    pub(super) reason: Option<ReasonId>,
}

/// What the first slot of an instruction leaves open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operand {
    Nothing,
    Jump(Label),
    /// The `imm` of a second slot.
    High(i32),
    Relocated(Target),
}

impl Insn {
    /// `dst = src`
    pub fn mov(width: Width, dst: Reg, src: Reg) -> Self {
        Self::register(alu_class(width) | raw::MOV, dst, src)
    }

    /// `dst = imm`, sign-extended to the width.
    pub fn mov_imm(width: Width, dst: Reg, imm: i32) -> Self {
        Self::immediate(alu_class(width) | raw::MOV, dst, imm)
    }

    /// `dst = imm`, of any 64 bits, in two slots.
    pub fn load_imm64(dst: Reg, imm: i64) -> Self {
        // The halves of the immediate, each as its bits.
        let (low, high) = (imm as i32, (imm >> 32) as i32);
        Self::from_raw(RawInsn { opcode: raw::LD_IMM64, dst: dst as u8, imm: low, ..RawInsn::default() })
            .with(Operand::High(high))
    }

    /// `dst =` the map, as helpers take it.
    pub fn load_map(dst: Reg, map: MapIndex) -> Self {
        Self::relocated(raw::LD_IMM64, dst as u8, raw::PSEUDO_MAP_FD, 0, Target::Map(map))
    }

    /// `dst =` the address of byte `offset` of the object's read-only data.
    pub fn load_data(dst: Reg, offset: u32) -> Self {
        // libbpf finds the place in the immediate, and puts the map there that it makes of the data.
        Self::relocated(raw::LD_IMM64, dst as u8, 0, offset as i32, Target::Data(offset))
    }

    /// `dst = dst op src`
    pub fn alu(op: AluOp, width: Width, dst: Reg, src: Reg) -> Self {
        Self::register(alu_class(width) | op.code(), dst, src)
    }

    /// `dst = dst op imm`, with `imm` sign-extended to the width.
    pub fn alu_imm(op: AluOp, width: Width, dst: Reg, imm: i32) -> Self {
        Self::immediate(alu_class(width) | op.code(), dst, imm)
    }

    /// `dst = -dst`
    pub fn neg(width: Width, dst: Reg) -> Self {
        Self::immediate(alu_class(width) | raw::NEG, dst, 0)
    }

    /// `dst =` its low `bits` bits turned from the machine's byte order to big-endian (or back), zero-extended.
    ///
    /// # Panics
    ///
    /// If `bits` is not 16, 32 or 64: no such instruction exists.
    pub fn to_be(dst: Reg, bits: u32) -> Self {
        assert!(matches!(bits, 16 | 32 | 64), "no byte swap of {bits} bits");
        Self::immediate(raw::ALU | raw::END | raw::SRC_REG, dst, bits as i32)
    }

    /// `dst = *(size *)(base + off)`, zero-extended.
    pub fn load(size: Size, dst: Reg, base: Reg, off: i16) -> Self {
        Self::memory(raw::LDX | raw::MEM | size.code(), dst, base, off, 0)
    }

    /// `*(size *)(base + off) = src`
    pub fn store(size: Size, base: Reg, off: i16, src: Reg) -> Self {
        Self::memory(raw::STX | raw::MEM | size.code(), base, src, off, 0)
    }

    /// `*(size *)(base + off) = imm`, with `imm` sign-extended or cut to the size.
    pub fn store_imm(size: Size, base: Reg, off: i16, imm: i32) -> Self {
        Self::memory(raw::ST | raw::MEM | size.code(), base, Reg::R0, off, imm)
    }

    /// `*(width *)(base + off) += src`, atomically, without giving the old value.
    pub fn atomic_add(width: Width, base: Reg, off: i16, src: Reg) -> Self {
        let size = match width {
            Width::W32 => Size::B4,
            Width::W64 => Size::B8,
        };
        Self::memory(raw::STX | raw::ATOMIC | size.code(), base, src, off, i32::from(AluOp::Add.code()))
    }

    /// `src` and `*(u64 *)(base + off)` change places, atomically.
    pub fn atomic_exchange(base: Reg, off: i16, src: Reg) -> Self {
        Self::memory(raw::STX | raw::ATOMIC | Size::B8.code(), base, src, off, raw::EXCHANGE)
    }

    /// `goto label`
    pub fn jump(label: Label) -> Self {
        Self::from_raw(RawInsn { opcode: raw::JMP | raw::JA, ..RawInsn::default() }).with(Operand::Jump(label))
    }

    /// `if dst cond src goto label`
    pub fn jump_if(cond: Cond, width: Width, dst: Reg, src: Reg, label: Label) -> Self {
        Self::register(jump_class(width) | cond.code(), dst, src).with(Operand::Jump(label))
    }

    /// `if dst cond imm goto label`, with `imm` sign-extended to the width.
    pub fn jump_if_imm(cond: Cond, width: Width, dst: Reg, imm: i32, label: Label) -> Self {
        Self::immediate(jump_class(width) | cond.code(), dst, imm).with(Operand::Jump(label))
    }

    /// Calls helper `id` (`BPF_FUNC_*`).
    pub fn call_helper(id: u32) -> Self {
        // The field is signed, the ids are not; both are the same bits.
        Self::from_raw(RawInsn { opcode: raw::JMP | raw::CALL, imm: id as i32, ..RawInsn::default() })
    }

    /// Calls a function of the same object.
    pub fn call_function(function: FunctionIndex) -> Self {
        Self::relocated(raw::JMP | raw::CALL, 0, raw::PSEUDO_CALL, -1, Target::Function(function))
    }

    /// Calls a function of the kernel.
    pub fn call_kfunc(kfunc: KfuncIndex) -> Self {
        Self::relocated(raw::JMP | raw::CALL, 0, raw::PSEUDO_KFUNC_CALL, -1, Target::Kfunc(kfunc))
    }

    /// Leaves the function; the result is in `r0`.
    pub fn exit() -> Self {
        Self::from_raw(RawInsn { opcode: raw::JMP | raw::EXIT, ..RawInsn::default() })
    }

    /// The same instruction, there for this reason.
    #[must_use]
    pub fn because(self, reason: ReasonId) -> Self {
        Self { reason: Some(reason), ..self }
    }

    /// Slots that the instruction takes: 1 or 2.
    pub fn slots(&self) -> usize {
        if self.raw.is_wide() { 2 } else { 1 }
    }

    /// The register that the instruction changes by its own field, leaving out what a call does to `r0` to `r5`.
    pub(super) fn written(&self) -> Option<u8> {
        if self.raw.class() == raw::STX && self.raw.imm == raw::EXCHANGE {
            return Some(self.raw.src);
        }
        matches!(self.raw.class(), raw::LD | raw::LDX | raw::ALU | raw::ALU64).then_some(self.raw.dst)
    }

    /// Whether control never goes on to the instruction that follows.
    pub(super) fn ends_flow(&self) -> bool {
        self.raw.class() == raw::JMP && matches!(self.raw.operation(), raw::JA | raw::EXIT)
    }

    fn register(opcode: u8, dst: Reg, src: Reg) -> Self {
        Self::memory(opcode | raw::SRC_REG, dst, src, 0, 0)
    }

    fn immediate(opcode: u8, dst: Reg, imm: i32) -> Self {
        Self::from_raw(RawInsn { opcode, dst: dst as u8, imm, ..RawInsn::default() })
    }

    fn memory(opcode: u8, dst: Reg, src: Reg, off: i16, imm: i32) -> Self {
        Self::from_raw(RawInsn { opcode, dst: dst as u8, src: src as u8, off, imm })
    }

    fn relocated(opcode: u8, dst: u8, src: u8, imm: i32, target: Target) -> Self {
        Self::from_raw(RawInsn { opcode, dst, src, off: 0, imm }).with(Operand::Relocated(target))
    }

    fn from_raw(raw: RawInsn) -> Self {
        Self { raw, operand: Operand::Nothing, reason: None }
    }

    fn with(self, operand: Operand) -> Self {
        Self { operand, ..self }
    }
}

fn alu_class(width: Width) -> u8 {
    match width {
        Width::W32 => raw::ALU,
        Width::W64 => raw::ALU64,
    }
}

fn jump_class(width: Width) -> u8 {
    match width {
        Width::W32 => raw::JMP32,
        Width::W64 => raw::JMP,
    }
}
