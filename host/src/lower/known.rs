//! What has been found out on the way to where a program is, and need not be found out again.
//!
//! Where ways meet, that is known which is known on all of them.

use super::Lower;
use crate::ir::Register;
use crate::plan::Builtin;

/// Registers that hold what calls without arguments have given, and those that are not 0. There are few of either.
#[derive(Clone, Default)]
pub struct Known {
    values: Vec<(Answer, Register)>,
    /// Bound pointers that are not null, and what tells of bound values that they are there.
    there: Vec<Register>,
}

/// What a call answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Of(Builtin),
    /// Process and thread in one.
    PidTgid,
    /// User and group in one.
    UidGid,
}

impl Known {
    pub fn value(&self, answer: Answer) -> Option<Register> {
        self.values.iter().find(|(of, _)| *of == answer).map(|(_, register)| *register)
    }

    pub fn learn(&mut self, answer: Answer, register: Register) {
        self.values.push((answer, register));
    }

    pub fn is_there(&self, register: Register) -> bool {
        self.there.contains(&register)
    }

    pub fn learn_there(&mut self, register: Register) {
        self.there.push(register);
    }

    /// What is known here and there.
    pub fn common(mut self, other: &Known) -> Known {
        self.values.retain(|value| other.values.contains(value));
        self.there.retain(|register| other.there.contains(register));
        self
    }
}

impl Lower<'_> {
    /// Another way, on which this is known, comes in.
    pub fn meet(&mut self, other: &Known) {
        self.known = std::mem::take(&mut self.known).common(other);
    }
}
