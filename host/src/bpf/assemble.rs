//! Instructions and labels to slots.

use std::collections::HashMap;

use super::insn::{Insn, Label, Operand, Target};
use super::raw::RawInsn;
use super::reason::ReasonId;

/// What a function's body is a list of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    Insn(Insn),
    /// The label means the instruction that follows.
    Bind(Label),
}

impl From<Insn> for Item {
    fn from(insn: Insn) -> Self {
        Self::Insn(insn)
    }
}

/// One function's instructions, with nothing left open but its relocations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Code {
    pub insns: Vec<RawInsn>,
    /// In the order of their slots.
    pub relocations: Vec<Relocation>,
    /// The slots where another reason begins, in their order. An instruction without a reason belongs to the reason
    /// before it.
    pub lines: Vec<(u32, ReasonId)>,
}

impl Code {
    /// The slots' bytes, as they stand in an object file.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.insns.iter().map(|insn| insn.to_bytes()).collect::<Vec<_>>().into_flattened()
    }
}

/// A slot that refers to something outside the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// The slot, or the first of two.
    pub slot: u32,
    pub target: Target,
}

/// Why a list of items is no function. Each is a fault of the code generator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssembleError {
    #[error("the function has no instructions")]
    Empty,
    #[error("a jump at slot {slot} goes to label {label}, which is bound nowhere")]
    UnknownLabel { slot: usize, label: u32 },
    #[error("label {label} is bound twice")]
    DuplicateLabel { label: u32 },
    #[error("a jump at slot {slot} goes {distance} slots far; 16 bits hold -32768 to 32767")]
    JumpTooFar { slot: usize, distance: i64 },
    #[error("control runs past the last instruction from slot {slot}")]
    FallsOffEnd { slot: usize },
    #[error("the instruction at slot {slot} writes the frame pointer")]
    WritesFramePointer { slot: usize },
}

/// Resolves the labels and encodes the instructions.
///
/// # Errors
///
/// See [`AssembleError`]. What only the verifier can tell, such as an unreachable instruction, is not looked for.
pub fn assemble(items: &[Item]) -> Result<Code, AssembleError> {
    let mut assembler = Assembler { labels: place_labels(items)?, code: Code::default() };
    for item in items {
        if let Item::Insn(insn) = item {
            assembler.push(insn)?;
        }
    }
    assembler.finish(items)
}

/// The slot that each label stands before.
fn place_labels(items: &[Item]) -> Result<HashMap<Label, usize>, AssembleError> {
    let mut labels = HashMap::new();
    let mut slot = 0;
    for item in items {
        match item {
            Item::Insn(insn) => slot += insn.slots(),
            Item::Bind(label) => {
                if labels.insert(*label, slot).is_some() {
                    return Err(AssembleError::DuplicateLabel { label: label.0 });
                }
            }
        }
    }
    Ok(labels)
}

struct Assembler {
    labels: HashMap<Label, usize>,
    code: Code,
}

impl Assembler {
    fn push(&mut self, insn: &Insn) -> Result<(), AssembleError> {
        let slot = self.code.insns.len();
        if insn.written() == Some(super::Reg::R10 as u8) {
            return Err(AssembleError::WritesFramePointer { slot });
        }
        self.note_reason(slot, insn.reason);
        let mut raw = insn.raw;
        let mut high = 0;
        match insn.operand {
            Operand::Nothing => {}
            Operand::Jump(label) => raw.off = self.distance(slot, label)?,
            Operand::High(imm) => high = imm,
            Operand::Relocated(target) => self.code.relocations.push(Relocation { slot: slot as u32, target }),
        }
        self.code.insns.push(raw);
        if raw.is_wide() {
            self.code.insns.push(RawInsn { imm: high, ..RawInsn::default() });
        }
        Ok(())
    }

    fn note_reason(&mut self, slot: usize, reason: Option<ReasonId>) {
        let Some(reason) = reason else { return };
        if self.code.lines.last().is_none_or(|&(_, last)| last != reason) {
            self.code.lines.push((slot as u32, reason));
        }
    }

    /// Jumps count from the instruction that follows.
    fn distance(&self, slot: usize, label: Label) -> Result<i16, AssembleError> {
        let target = *self.labels.get(&label).ok_or(AssembleError::UnknownLabel { slot, label: label.0 })?;
        let distance = target as i64 - (slot as i64 + 1);
        i16::try_from(distance).map_err(|_| AssembleError::JumpTooFar { slot, distance })
    }

    fn finish(self, items: &[Item]) -> Result<Code, AssembleError> {
        let end = self.code.insns.len();
        if end == 0 {
            return Err(AssembleError::Empty);
        }
        let last = items.iter().rev().find_map(|item| match item {
            Item::Insn(insn) => Some(insn),
            Item::Bind(_) => None,
        });
        if let Some(last) = last.filter(|last| !last.ends_flow()) {
            return Err(AssembleError::FallsOffEnd { slot: end - last.slots() });
        }
        let past_end = self.code.jumps().find(|&(_, target)| target == end);
        past_end.map_or(Ok(self.code), |(slot, _)| Err(AssembleError::FallsOffEnd { slot }))
    }
}

impl Code {
    /// Each instruction with its slot; of one that takes two slots, the first slot.
    pub(super) fn instructions(&self) -> impl Iterator<Item = (usize, RawInsn)> {
        let mut slot = 0;
        std::iter::from_fn(move || {
            let at = slot;
            let insn = *self.insns.get(at)?;
            slot += if insn.is_wide() { 2 } else { 1 };
            Some((at, insn))
        })
    }

    /// The slots that jump, and the slots that they jump to.
    pub(super) fn jumps(&self) -> impl Iterator<Item = (usize, usize)> {
        self.instructions()
            .filter(|(_, insn)| insn.is_jump())
            .filter_map(|(slot, insn)| Some((slot, (slot + 1).checked_add_signed(insn.off.into())?)))
    }
}
