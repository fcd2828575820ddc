//! Slots to text, in the form of the verifier's log.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};

use super::assemble::Code;
use super::helper::helper_name;
use super::insn::Target;
use super::raw::{self, RawInsn};
use super::reason::{Reason, ReasonId};

/// What the targets of relocations are called; one that has no name here is printed by its number.
#[derive(Clone, Copy, Debug, Default)]
pub struct Names<'a> {
    pub maps: &'a [&'a str],
    pub functions: &'a [&'a str],
    pub kfuncs: &'a [&'a str],
}

/// One line for each instruction, `slot: text`; a line `L1:` before each that is jumped to; a line `; file:line text`
/// before each run of instructions with the same reason. The same code gives the same text.
pub fn disassemble(code: &Code, reasons: &[Reason]) -> String {
    disassemble_named(code, reasons, &Names::default())
}

/// As [`disassemble`], with maps, functions and kfuncs by name.
pub fn disassemble_named(code: &Code, reasons: &[Reason], names: &Names<'_>) -> String {
    let lister = Lister::new(code, reasons, names);
    code.instructions().fold(String::new(), |mut text, (slot, insn)| {
        // Writing to a string cannot fail.
        let _ = lister.list(&mut text, slot, insn);
        text
    })
}

struct Lister<'a> {
    code: &'a Code,
    reasons: &'a [Reason],
    names: &'a Names<'a>,
    lines: BTreeMap<usize, ReasonId>,
    targets: BTreeMap<usize, Target>,
    /// Number of the label before a slot, from 1.
    labels: BTreeMap<usize, usize>,
}

impl<'a> Lister<'a> {
    fn new(code: &'a Code, reasons: &'a [Reason], names: &'a Names<'a>) -> Self {
        let jumped_to: BTreeSet<usize> = code.jumps().map(|(_, target)| target).collect();
        Self {
            code,
            reasons,
            names,
            lines: code.lines.iter().map(|&(slot, reason)| (slot as usize, reason)).collect(),
            targets: code.relocations.iter().map(|relocation| (relocation.slot as usize, relocation.target)).collect(),
            labels: jumped_to.into_iter().zip(1..).collect(),
        }
    }

    fn list(&self, out: &mut String, slot: usize, insn: RawInsn) -> fmt::Result {
        if let Some(reason) = self.lines.get(&slot) {
            self.reason(out, *reason)?;
        }
        if let Some(label) = self.labels.get(&slot) {
            writeln!(out, "L{label}:")?;
        }
        write!(out, "{slot:4}: ")?;
        match insn.class() {
            raw::ALU | raw::ALU64 => alu(out, insn),
            raw::JMP | raw::JMP32 => self.jump(out, slot, insn),
            raw::LD if insn.is_wide() => self.wide(out, slot, insn),
            _ => memory(out, insn),
        }?;
        out.write_char('\n')
    }

    fn reason(&self, out: &mut String, id: ReasonId) -> fmt::Result {
        match self.reasons.get(id.0 as usize) {
            Some(Reason { file, line, text, .. }) => writeln!(out, "; {file}:{line} {text}"),
            None => writeln!(out, "; reason {}", id.0),
        }
    }

    fn wide(&self, out: &mut String, slot: usize, insn: RawInsn) -> fmt::Result {
        write!(out, "r{} = ", insn.dst)?;
        if let Some(target) = self.targets.get(&slot) {
            self.target(out, *target)
        } else {
            let high = self.code.insns.get(slot + 1).map_or(0, |second| second.imm);
            write!(out, "0x{:x} ll", u64::from(high as u32) << 32 | u64::from(insn.imm as u32))
        }
    }

    fn target(&self, out: &mut String, target: Target) -> fmt::Result {
        match target {
            Target::Map(map) => named(out, "map", self.names.maps, map.0),
            Target::Data(offset) => write!(out, "data+{offset}"),
            Target::Function(function) => named(out, "function", self.names.functions, function.0),
            Target::Kfunc(kfunc) => named(out, "kfunc", self.names.kfuncs, kfunc.0),
        }
    }

    fn jump(&self, out: &mut String, slot: usize, insn: RawInsn) -> fmt::Result {
        match insn.operation() {
            raw::CALL => return self.call(out, slot, insn),
            raw::EXIT => return out.write_str("exit"),
            raw::JA => {}
            operation => {
                let r = register_letter(insn.class() == raw::JMP);
                write!(out, "if {r}{} {} ", insn.dst, condition(operation))?;
                if insn.takes_register() { write!(out, "{r}{} ", insn.src) } else { write!(out, "0x{:x} ", insn.imm) }?;
            }
        }
        write!(out, "goto {:+}", insn.off)?;
        match (slot + 1).checked_add_signed(insn.off.into()).and_then(|target| self.labels.get(&target)) {
            Some(label) => write!(out, " <L{label}>"),
            None => Ok(()),
        }
    }

    fn call(&self, out: &mut String, slot: usize, insn: RawInsn) -> fmt::Result {
        out.write_str("call ")?;
        if let Some(target) = self.targets.get(&slot) {
            return self.target(out, *target);
        }
        match helper_name(insn.imm as u32) {
            Some(name) => write!(out, "bpf_{name}#{}", insn.imm),
            None => write!(out, "unknown#{}", insn.imm),
        }
    }
}

fn named(out: &mut String, what: &str, names: &[&str], index: u32) -> fmt::Result {
    match names.get(index as usize) {
        Some(name) => write!(out, "{what} {name}"),
        None => write!(out, "{what} #{index}"),
    }
}

fn alu(out: &mut String, insn: RawInsn) -> fmt::Result {
    let (dst, r) = (insn.dst, register_letter(insn.class() == raw::ALU64));
    match insn.operation() {
        raw::NEG => return write!(out, "{r}{dst} = -{r}{dst}"),
        raw::END => return write!(out, "r{dst} = be{} r{dst}", insn.imm),
        raw::MOV => write!(out, "{r}{dst} = "),
        operation => write!(out, "{r}{dst} {}= ", operator(operation)),
    }?;
    if insn.takes_register() { write!(out, "{r}{}", insn.src) } else { write!(out, "{}", insn.imm) }
}

fn memory(out: &mut String, insn: RawInsn) -> fmt::Result {
    let RawInsn { dst, src, off, imm, opcode } = insn;
    let size = match opcode & 0x18 {
        0x00 => "u32",
        0x08 => "u16",
        0x10 => "u8",
        _ => "u64",
    };
    match (opcode & 0xe0, insn.class()) {
        (raw::MEM, raw::LDX) => write!(out, "r{dst} = *({size} *)(r{src} {off:+})"),
        (raw::MEM, raw::STX) => write!(out, "*({size} *)(r{dst} {off:+}) = r{src}"),
        (raw::MEM, raw::ST) => write!(out, "*({size} *)(r{dst} {off:+}) = {imm}"),
        (raw::ATOMIC, raw::STX) if imm == 0 => write!(out, "lock *({size} *)(r{dst} {off:+}) += r{src}"),
        (raw::ATOMIC, raw::STX) if imm == raw::EXCHANGE => {
            write!(out, "r{src} = atomic64_xchg(({size} *)(r{dst} {off:+}), r{src})")
        }
        _ => write!(out, "unknown opcode 0x{opcode:02x}"),
    }
}

/// The verifier writes the lower half of `r1` as `w1`.
fn register_letter(whole: bool) -> char {
    if whole { 'r' } else { 'w' }
}

fn operator(operation: u8) -> &'static str {
    match operation {
        0x00 => "+",
        0x10 => "-",
        0x20 => "*",
        0x30 => "/",
        0x40 => "|",
        0x50 => "&",
        0x60 => "<<",
        0x70 => ">>",
        0x90 => "%",
        0xa0 => "^",
        0xc0 => "s>>",
        _ => "?",
    }
}

fn condition(operation: u8) -> &'static str {
    match operation {
        0x10 => "==",
        0x20 => ">",
        0x30 => ">=",
        0x40 => "&",
        0x50 => "!=",
        0x60 => "s>",
        0x70 => "s>=",
        0xa0 => "<",
        0xb0 => "<=",
        0xc0 => "s<",
        0xd0 => "s<=",
        _ => "?",
    }
}
