//! Programs made fit for the interpreter.

use porthole::bpf::{Code, Kfunc, RawInsn, Target};

use super::GARBAGE;
use super::helpers::KFUNCS;

/// Bytes of a program's stack.
const STACK: i16 = 512;

/// One function's bytes as the interpreter takes them. The function's own instructions stay where they are, and what
/// replaces some of them stands behind:
///
/// * Maps are numbers.
/// * Kfuncs are helpers with numbers of our own.
/// * Helpers are called through functions that overwrite r1 to r5.
/// * A comparison with a negative constant that minds no signs becomes two that do, as rbpf does not extend the
///   constant's sign (RFC 9669, section 4.3, does) but in those. That the instruction itself is right is for the
///   disassembly in golden/compile to show.
///
/// In front stands what fills the stack.
pub fn linked(code: &Code, kfuncs: &[Kfunc]) -> Vec<u8> {
    let mut insns = code.insns.clone();
    for relocation in &code.relocations {
        let number = match relocation.target {
            Target::Map(map) => map.0,
            Target::Kfunc(kfunc) => {
                let name = kfuncs[kfunc.0 as usize].name.as_str();
                let known = KFUNCS.iter().find(|(of, _, _)| *of == name);
                known.unwrap_or_else(|| panic!("{name} is not there")).1
            }
            _ => panic!("{relocation:?} is not linked here"),
        };
        insns[relocation.slot as usize].src = 0;
        insns[relocation.slot as usize].imm = number as i32;
    }
    let end = insns.len();
    let mut at = 0;
    while at < end {
        let insn = insns[at];
        let behind = |insns: &[RawInsn]| insns.len() - at - 1;
        match insn.opcode {
            CALL => {
                insns[at] = RawInsn { src: 1, imm: behind(&insns) as i32, ..insn };
                insns.push(insn);
                insns.extend((1..=5).map(|dst| RawInsn {
                    opcode: MOV,
                    dst,
                    imm: GARBAGE.into(),
                    ..RawInsn::default()
                }));
                insns.push(RawInsn { opcode: EXIT, ..RawInsn::default() });
            }
            JEQ | JGT | JGE | JNE | JLT | JLE if insn.imm < 0 => {
                let jump = |off: isize| RawInsn { opcode: JA, off: off as i16, ..RawInsn::default() };
                let stub = behind(&insns) as isize;
                insns[at] = jump(stub);
                insns.extend(compared(insn));
                insns.push(jump(-stub - 3));
                insns.push(jump(isize::from(insn.off) - stub - 4));
            }
            _ => {}
        }
        at += if insn.opcode == WIDE { 2 } else { 1 };
    }
    let word = i32::from_ne_bytes([GARBAGE; 4]);
    let fill =
        (1..=STACK / 8).map(|n| RawInsn { opcode: STORE, dst: 10, off: -8 * n, imm: word, ..RawInsn::default() });
    let insns: Vec<RawInsn> = fill.chain(insns).collect();
    assert!(insns.len() <= i16::MAX as usize, "rbpf counts instructions in 16 bits, and these are {}", insns.len());
    insns.iter().flat_map(|insn| insn.to_bytes()).collect()
}

/// A comparison with a negative constant c, by two with signs; behind them is where to go if it does not hold, and then
/// where if it does.
fn compared(insn: RawInsn) -> [RawInsn; 2] {
    let jump = |opcode, imm, off| RawInsn { opcode, imm, off, ..insn };
    let c = insn.imm;
    // Without signs, what is negative is more than all that is not.
    let (first, off, second, other) = match insn.opcode {
        JEQ => (JSLT, 1, JSLE, c),
        JNE => (JSLT, 2, JSGT, c),
        JGT => (JSLE, 1, JSLT, 0),
        JGE => (JSLT, 1, JSLT, 0),
        JLT => (JSLT, 2, JSGE, 0),
        _ => (JSLE, 2, JSGE, 0),
    };
    [jump(first, c, off), jump(second, other, 1)]
}

// Opcodes (RFC 9669); those of jumps take a constant.
const WIDE: u8 = 0x18;
const STORE: u8 = 0x7a;
const MOV: u8 = 0xb7;
const JA: u8 = 0x05;
const JEQ: u8 = 0x15;
const JGT: u8 = 0x25;
const JGE: u8 = 0x35;
const JNE: u8 = 0x55;
const JLT: u8 = 0xa5;
const JLE: u8 = 0xb5;
const JSGT: u8 = 0x65;
const JSGE: u8 = 0x75;
const JSLT: u8 = 0xc5;
const JSLE: u8 = 0xd5;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
