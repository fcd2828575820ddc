//! Reads that fail, and the count of them.
//!
//! The problem: a helper says that a read has failed, and not why. Null is no fault, it is how lists end, and yet it is
//! tested nowhere: an address near it reads as badly as any other, so the way on which all goes well need not ask.
//!
//! The idea: what has failed is looked at where that costs nothing, behind the jump. There the pointer is fetched once
//! more from where it came from: the word that it was read into (so what is read through it goes to another word), or
//! the program's context. Only a pointer that came from neither stays in its register meanwhile.

use super::held::Exit;
use super::value::is_number;
use super::{Counter, Lower};
use crate::ir::{Address, BlockId, Cond, Register, Size, SlotId, Space};
use crate::plan::{Access, Builtin, Node, NodeKind, Span, Type};

/// Where a pointer can be had again that was read through, to see whether it was null.
#[derive(Clone, Copy)]
pub enum Root {
    /// It was not.
    Sound,
    /// In the word that it was read into.
    Word(SlotId),
    /// In the program's context.
    Context(i32),
    /// The register holds as many bytes more. `fresh`: what is learned of it must not be learned of the register.
    Register { register: Register, offset: i32, fresh: bool },
}

/// Places to go to where a read has failed: each counts, and goes on to where an absent value goes.
#[derive(Default)]
pub struct Faults(Vec<(BlockId, BlockId)>);

impl Lower<'_> {
    /// Where a pointer came from that is `value`. `guarded`: null has been tested, unless it is a plain number to the
    /// verifier.
    pub fn root(&self, pointer: &Node, value: Register, guarded: bool) -> Root {
        self.root_behind(pointer, value, 0, guarded)
    }

    fn root_behind(&self, pointer: &Node, value: Register, offset: u32, guarded: bool) -> Root {
        match &pointer.kind {
            NodeKind::Address { base, offset: more } => self.root_behind(base, value, offset + more, true),
            _ if guarded && !is_number(pointer) => Root::Sound,
            // An integer that was loaded directly is in no word; of a pointer that is no base, `value` makes a number
            // by a helper.
            NodeKind::Load { access: Access::Direct, .. } if !matches!(pointer.ty, Type::Pointer { .. }) => {
                Root::Register { register: value, offset: offset as i32, fresh: false }
            }
            NodeKind::Load { bytes: 8, bits: None, .. } | NodeKind::Fetched { .. } => Root::Word(self.last_word),
            NodeKind::Argument { access: Access::Kernel | Access::User, .. } if is_wide(&pointer.ty) => {
                Root::Word(self.last_word)
            }
            NodeKind::Argument { index, access: Access::Direct } if is_wide(&pointer.ty) => {
                Root::Context(*index as i32 * 8)
            }
            NodeKind::Context { offset, bytes: 8 } => Root::Context(*offset as i32),
            NodeKind::Cast(inner) if is_wide(&inner.ty) => self.root_behind(inner, value, offset, false),
            NodeKind::Constant(1..) | NodeKind::Constant(..=-1) => Root::Sound,
            NodeKind::Element { .. }
            | NodeKind::ContextAddress { .. }
            | NodeKind::Gathered { .. }
            | NodeKind::Item(_)
            | NodeKind::Found(_)
            | NodeKind::Builtin(Builtin::Task) => Root::Sound,
            _ => Root::Register { register: value, offset: offset as i32, fresh: self.lives_on(pointer) },
        }
    }

    /// The word to read into through such a pointer: another than the one in which the pointer still is.
    pub fn word_beside(&mut self, root: Root) -> SlotId {
        let beside = match root {
            Root::Word(word) if word == self.word => *self.other_word.get_or_insert_with(|| self.b.slot(8)),
            _ => self.word,
        };
        self.last_word = beside;
        beside
    }

    /// Goes to `exit` where a helper has failed, by way of the count unless that was for null.
    pub fn leave_if_failed(&mut self, condition: Cond, failed: Register, least: i32, root: Root, exit: &Exit) {
        let absent = self.leave(exit);
        let fault = self.fault(absent);
        if let Root::Sound = root {
            return self.b.leave_if(condition, failed, least, fault);
        }
        let (why, next) = (self.b.block(), self.b.block());
        self.b.branch(condition, failed, least, why, next);
        self.b.enter(why);
        let (pointer, null) = match root {
            Root::Sound => (failed, 0),
            Root::Word(word) => (self.b.load(Address::slot(word, 0), Size::B8), 0),
            Root::Context(at) => (self.b.load(Address::at(self.context, Space::Context, at), Size::B8), 0),
            Root::Register { register, offset, fresh: true } => (self.fresh(register), offset),
            Root::Register { register, offset, fresh: false } => (register, offset),
        };
        self.b.branch(Cond::Eq, pointer, null, absent, fault);
        self.b.enter(next);
    }

    /// The block that counts a fault and goes on to `absent`.
    fn fault(&mut self, absent: BlockId) -> BlockId {
        let known = self.faults.0.iter().rev().find(|(exit, _)| *exit == absent);
        if let Some((_, fault)) = known {
            return *fault;
        }
        let fault = self.b.block();
        self.faults.0.push((absent, fault));
        fault
    }

    /// Writes the blocks that count.
    pub fn count_faults(&mut self) {
        self.explain(0, &self.body.attach.to_string(), Span::default());
        for (absent, fault) in std::mem::take(&mut self.faults.0) {
            self.b.enter(fault);
            self.count(Counter::Faults);
            self.b.jump(absent);
        }
    }
}

/// Whether a value of this type is all 8 bytes of what it was made from.
fn is_wide(ty: &Type) -> bool {
    matches!(ty, Type::Pointer { .. } | Type::Integer { bytes: 8, .. })
}
