//! What programs of iterators do that no others do.
//!
//! An iterator runs as fast as the kernel can walk, and the ring is read by the very task that has the walk go on. So a
//! walk must pause before the ring is full, and the kernel has it pause when the program has *printed* as much as the
//! reader asked for in one `read` (kernel/bpf/bpf_iter.c: bpf_seq_read). Each event therefore prints one byte, which
//! nobody looks at, and the reader asks for as many as the ring has room for.

use super::{Lower, helper};
use crate::ir::{Address, Cond, Size, Space};
use crate::plan::AttachPoint;

/// `seq` and `seq_num` in `struct bpf_iter_meta` of include/linux/bpf.h, of three fields with 8 bytes each.
const SEQ: i32 = 0;
const SEQ_NUM: i32 = 16;

impl Lower<'_> {
    /// Ends the program where the kernel calls it behind the last object: that is no hit.
    pub fn leave_behind_the_last(&mut self) {
        let AttachPoint::Iter(iter) = &self.body.attach else { return };
        let object = self.b.load(Address::at(self.context, Space::Context, iter.object as i32 * 8), Size::B8);
        let (end, some) = (self.b.block(), self.b.block());
        self.b.leave_if(Cond::Eq, object, 0, end);
        if let Some(again) = iter.again {
            let field = |l: &mut Self, base, offset| l.b.load(Address::at(base, Space::Trusted, offset), Size::B8);
            let mod_end = field(self, object, again.pos_mod_end as i32);
            let behind_own = self.b.block();
            self.b.branch(Cond::Eq, mod_end, 0, some, behind_own);
            self.b.enter(behind_own);
            let pos = field(self, object, again.pos as i32);
            let meta = self.b.load(Address::at(self.context, Space::Context, 0), Size::B8);
            let number = field(self, meta, SEQ_NUM);
            self.b.leave_if(Cond::Ne, pos, number, end);
        }
        self.b.jump(some);
        self.b.enter(end);
        self.b.ret(0);
        self.b.enter(some);
    }

    /// Prints the byte that stands for an event.
    pub fn tell_reader(&mut self) {
        let AttachPoint::Iter(_) = self.body.attach else { return };
        let meta = self.b.load(Address::at(self.context, Space::Context, 0), Size::B8);
        let seq = self.b.load(Address::at(meta, Space::Trusted, SEQ), Size::B8);
        self.b.store(Address::slot(self.word, 0), 0, Size::B8);
        let byte = self.b.address_of(self.word, 0);
        self.helper(helper::SEQ_WRITE, &[seq.into(), byte.into(), 1.into()]);
    }
}
