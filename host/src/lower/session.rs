//! Programs that are called at both the entry and the return of a function.
//!
//! The kernel leaves out a program where it must not run, and counts that (`missed`). An entry that was left out has
//! kept no time. From Linux 6.14 on its return is left out, too; before, and at fexit, it comes, and finds a 0: whoever
//! takes the time leaves one, as the kernel may use the place again without clearing it (kernel/trace/bpf_trace.c:
//! kprobe_multi_link_prog_run). Then it is no hit, as it is none on later kernels.

use super::held::Exit;
use super::known::Known;
use super::{Counter, Lower};
use crate::bpf::Kfunc;
use crate::ir::{Address, AluOp, Callee, Cond, Operand, Register, Size, Space};
use crate::plan::{Builtin, Session};

impl Lower<'_> {
    /// All that is done at the entry, which ends there; goes on at the return.
    pub fn begin(&mut self, session: &Session) {
        let (entered, returned) = (self.b.block(), self.b.block());
        let answer = self.of_session(&session.is_return);
        let is_return = self.b.extend(answer, 8, false);
        self.b.branch(Cond::Ne, is_return, 0, returned, entered);
        self.b.enter(entered);
        if let Some(condition) = &session.condition {
            self.renew_zero();
            self.prepare(condition);
            let unwanted = self.b.block();
            self.go_on_where(&condition.node, unwanted, &Exit::to(unwanted, 0));
            self.keep_time(session);
            self.b.enter(unwanted);
            self.count(Counter::Hits);
            self.count(Counter::Filtered);
            // The kernel leaves the return alone.
            self.b.ret(1);
        } else {
            self.keep_time(session);
        }
        self.b.enter(returned);
        self.known = Known::default();
        let kept = Address::at(self.of_session(&session.cookie), Space::MapValue, 0);
        self.begun = self.b.load(kept, Size::B8);
        self.b.store(kept, 0, Size::B8);
        let (left_out, hit) = (self.b.block(), self.b.block());
        self.b.branch(Cond::Eq, self.begun, 0, left_out, hit);
        self.b.enter(left_out);
        self.b.ret(0);
        self.b.enter(hit);
    }

    fn keep_time(&mut self, session: &Session) {
        let kept = self.of_session(&session.cookie);
        let now = self.builtin(Builtin::Nsecs);
        self.b.store(Address::at(kept, Space::MapValue, 0), now, Size::B8);
        self.b.ret(0);
    }

    /// What has passed since the entry.
    pub fn duration(&mut self) -> Register {
        let now = self.builtin(Builtin::Nsecs);
        self.b.alu(AluOp::Sub, now, self.begun)
    }

    /// What such a kfunc gives, which some kernels pass the context.
    fn of_session(&mut self, kfunc: &Kfunc) -> Register {
        let context = Operand::from(self.context);
        let arguments = &[context][..kfunc.parameters.len().min(1)];
        let callee = self.kfunc_id(kfunc);
        self.b.call(Callee::Kfunc(callee), arguments)
    }
}
