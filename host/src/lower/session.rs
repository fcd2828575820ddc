//! Programs that are called at both the entry and the return of a function.

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
    }

    fn keep_time(&mut self, session: &Session) {
        let kept = self.of_session(&session.cookie);
        let now = self.builtin(Builtin::Nsecs);
        self.b.store(Address::at(kept, Space::MapValue, 0), now, Size::B8);
        self.b.ret(0);
    }

    /// What has passed since the entry.
    pub fn duration(&mut self) -> Register {
        // Where there is no session, the checker takes no `duration`.
        let Some(session) = &self.body.session else { return self.b.constant(0) };
        let now = self.builtin(Builtin::Nsecs);
        let kept = self.of_session(&session.cookie);
        let begun = self.b.load(Address::at(kept, Space::MapValue, 0), Size::B8);
        self.b.alu(AluOp::Sub, now, begun)
    }

    /// What such a kfunc gives, which some kernels pass the context.
    fn of_session(&mut self, kfunc: &Kfunc) -> Register {
        let context = Operand::from(self.context);
        let arguments = &[context][..kfunc.parameters.len().min(1)];
        let callee = self.kfunc_id(kfunc);
        self.b.call(Callee::Kfunc(callee), arguments)
    }
}
