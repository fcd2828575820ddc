//! Instructions as the kernel reads them: slots of 8 bytes (RFC 9669, section 3; the kernel's `struct bpf_insn`).

/// One slot. An instruction is one slot, or two for a 64-bit immediate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RawInsn {
    pub opcode: u8,
    /// Destination register, 0 to 10.
    pub dst: u8,
    /// Source register, 0 to 10; for calls and 64-bit immediates one of the `PSEUDO_*` kinds.
    pub src: u8,
    pub off: i16,
    pub imm: i32,
}

impl RawInsn {
    /// Bytes of a slot.
    pub const SIZE: usize = 8;

    /// The slot in little-endian byte order.
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let [off0, off1] = self.off.to_le_bytes();
        let [imm0, imm1, imm2, imm3] = self.imm.to_le_bytes();
        [self.opcode, self.src << 4 | self.dst & 0xf, off0, off1, imm0, imm1, imm2, imm3]
    }

    /// The slot that [`Self::to_bytes`] gave these bytes for.
    pub fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        let [opcode, regs, off0, off1, imm0, imm1, imm2, imm3] = bytes;
        Self {
            opcode,
            dst: regs & 0xf,
            src: regs >> 4,
            off: i16::from_le_bytes([off0, off1]),
            imm: i32::from_le_bytes([imm0, imm1, imm2, imm3]),
        }
    }

    /// Class of the opcode: its low three bits.
    pub(super) fn class(self) -> u8 {
        self.opcode & 0x07
    }

    /// Operation of an arithmetic or jump opcode: its high four bits.
    pub(super) fn operation(self) -> u8 {
        self.opcode & 0xf0
    }

    /// Whether an arithmetic or jump opcode takes its second operand from a register.
    pub(super) fn takes_register(self) -> bool {
        self.opcode & SRC_REG != 0
    }

    /// Whether a second slot follows that belongs to this one.
    pub(super) fn is_wide(self) -> bool {
        self.opcode == LD_IMM64
    }

    /// Whether `off` says how many slots to jump.
    pub(super) fn is_jump(self) -> bool {
        matches!(self.class(), JMP | JMP32) && !matches!(self.operation(), CALL | EXIT)
    }
}

// Classes.
pub(super) const LD: u8 = 0x00;
pub(super) const LDX: u8 = 0x01;
pub(super) const ST: u8 = 0x02;
pub(super) const STX: u8 = 0x03;
pub(super) const ALU: u8 = 0x04;
pub(super) const JMP: u8 = 0x05;
pub(super) const JMP32: u8 = 0x06;
pub(super) const ALU64: u8 = 0x07;

/// Arithmetic and jumps: the second operand is the register `src`, not `imm`.
pub(super) const SRC_REG: u8 = 0x08;

// Operations of ALU and ALU64 that have no operator of their own in `AluOp`.
pub(super) const NEG: u8 = 0x80;
pub(super) const MOV: u8 = 0xb0;
pub(super) const END: u8 = 0xd0;

// Operations of JMP and JMP32 that are no condition.
pub(super) const JA: u8 = 0x00;
pub(super) const CALL: u8 = 0x80;
pub(super) const EXIT: u8 = 0x90;

// Modes of loads and stores.
pub(super) const MEM: u8 = 0x60;
pub(super) const ATOMIC: u8 = 0xc0;
/// The `imm` of an exchange: BPF_XCHG, which has BPF_FETCH in it.
pub(super) const EXCHANGE: i32 = 0xe1;

/// Loads a 64-bit immediate; the only instruction of two slots.
pub(super) const LD_IMM64: u8 = LD | 0x18;

// Kinds of 64-bit immediate and of call, in `src` (BPF_PSEUDO_* in include/uapi/linux/bpf.h).
pub(super) const PSEUDO_MAP_FD: u8 = 1;
pub(super) const PSEUDO_CALL: u8 = 1;
pub(super) const PSEUDO_KFUNC_CALL: u8 = 2;
