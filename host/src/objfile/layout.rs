//! Which section each function is in, and where.

use super::{Object, Role};
use crate::bpf::RawInsn;

/// The section of subprograms; libbpf knows it by this name.
const SUBPROGRAMS: &str = ".text";

/// The executable sections, `.text` first if there are subprograms, then in the order in which functions name them.
pub(super) struct Layout<'a> {
    pub(super) sections: Vec<Section<'a>>,
}

/// An executable section.
pub(super) struct Section<'a> {
    pub(super) name: &'a str,
    pub(super) functions: Vec<Placed>,
    /// Slots in all functions together.
    slots: usize,
}

/// A function's place in its section.
#[derive(Clone, Copy)]
pub(super) struct Placed {
    /// Index in [`Object::functions`].
    pub(super) function: usize,
    first_slot: usize,
}

impl<'a> Layout<'a> {
    pub(super) fn of(object: &'a Object) -> Self {
        let mut layout = Self { sections: Vec::new() };
        let is_subprogram = |role: &Role| matches!(role, Role::Subprogram { .. });
        if object.functions.iter().any(|function| is_subprogram(&function.role)) {
            layout.section(SUBPROGRAMS);
        }
        for (index, function) in object.functions.iter().enumerate() {
            let section = layout.section(match &function.role {
                Role::Entry { section } => section,
                Role::Subprogram { .. } => SUBPROGRAMS,
            });
            section.functions.push(Placed { function: index, first_slot: section.slots });
            section.slots += function.code.insns.len();
        }
        layout
    }

    fn section(&mut self, name: &'a str) -> &mut Section<'a> {
        let index = self.sections.iter().position(|section| section.name == name).unwrap_or_else(|| {
            self.sections.push(Section { name, functions: Vec::new(), slots: 0 });
            self.sections.len() - 1
        });
        &mut self.sections[index]
    }
}

impl Placed {
    /// Where a slot of the function is, in bytes from the start of the section.
    pub(super) fn offset(self, slot: u32) -> u64 {
        ((self.first_slot + slot as usize) * RawInsn::SIZE) as u64
    }
}
