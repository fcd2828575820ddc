//! Call stacks: the addresses themselves, put where a text would be.
//!
//! The kernel would keep stacks for us and give a number for each (bpf_get_stackid). Two stacks may then share a
//! number, and one is lost; nobody knows when a stack is wanted no more; and who reads the number must ask for the
//! stack later. A record with the addresses in it is longer, and whole.

use super::held::Exit;
use super::text::Found;
use super::{Lower, helper};
use crate::ir::{Cond, Register};
use crate::plan::layout::CUT;
use crate::plan::{FRAMES, Memory};

/// Bytes of an address.
pub const FRAME: u32 = 8;
/// Of the process's, not of the kernel's (include/uapi/linux/bpf.h: BPF_F_USER_STACK).
const USER: i32 = 1 << 8;

impl Lower<'_> {
    /// Writes the addresses to `to`, where there is room for one more than are wanted: so a stack that is longer is
    /// told from one that just fits. The kernel stops at [`FRAMES`], and does not tell whether there were more: of so
    /// many, there were.
    pub fn stack_into(&mut self, of: Memory, to: Register, frames: u32, exit: &Exit) -> Found {
        let asked = (frames + 1).min(FRAMES) * FRAME;
        let flags = if of == Memory::User { USER } else { 0 };
        let context = self.context;
        let read = self.helper(helper::GET_STACK, &[context.into(), to.into(), (asked as i32).into(), flags.into()]);
        // A thread of the kernel's has no stack of a process.
        let absent = self.leave(exit);
        self.b.leave_if(Cond::Slt, read, 0, absent);
        let (length, cut) = (self.b.register(), self.b.register());
        let (long, fits, join) = (self.b.block(), self.b.block(), self.b.block());
        self.b.copy(length, read);
        self.b.branch(Cond::Gt, length, (asked - FRAME) as i32, long, fits);
        self.b.enter(fits);
        self.b.copy(cut, self.zero);
        self.b.jump(join);
        self.b.enter(long);
        self.b.set(length, i64::from(frames * FRAME));
        self.b.set(cut, i64::from(CUT));
        self.b.jump(join);
        self.b.enter(join);
        Found { length: self.bounded(length, frames * FRAME), cut }
    }
}
