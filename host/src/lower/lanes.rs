//! Programs that may be interrupted by themselves.
//!
//! The problem: at a place in a user's program the kernel runs ours in the thread that came by, and lets another thread
//! take the CPU meanwhile, which may come by the same place (kernel/trace/trace_uprobe.c, bpf_uprobe_multi_link_attach;
//! there is no guard against recursion there). Then the program runs twice on one CPU, and what is per CPU is not its
//! own.
//!
//! The idea: counters are added to by one instruction. The scratch has some *lanes* of each program, and the program
//! takes one that is free before it does anything else, and gives it back on each way out. Where none is free, because
//! so many threads were put aside half-way on this CPU, the hit is lost, and counted.

use super::{COUNTERS_END, Counter, Lower, SCRATCH, emit, text};
use crate::ir::{Address, AluOp, AtomicOp, Cond, Register, Size, Space};
use crate::plan::layout::Schema;
use crate::plan::{AttachPoint, PlanStep, PointPlan};

/// Lanes of a program on each CPU.
pub const LANES: u32 = 4;

/// A lane that has been taken.
#[derive(Clone, Copy)]
pub struct Lane {
    /// Where its mark is, in bytes from the first; a number that the verifier does not know.
    mark: Register,
    /// Its part of the scratch.
    pub base: Register,
}

/// Whether the kernel may run a program at this point while the same one runs on the same CPU.
pub fn is_reentered(body: &PointPlan) -> bool {
    match body.attach {
        AttachPoint::User(_) => true,
        // Only one thread walks.
        AttachPoint::Iter(_) => false,
        _ => body.sleeps,
    }
}

/// How many entries of the scratch a program has, if it has any.
pub fn entries(body: &PointPlan) -> u32 {
    if is_reentered(body) { LANES } else { 1 }
}

/// Whether any step of the body needs scratch.
fn needs_scratch(body: &PointPlan, schema: &Schema) -> bool {
    body.steps.iter().any(|step| match step {
        PlanStep::Bind { value, .. } => {
            text::is_tail(&value.node) || value.node.ty.is_octets() || text::needs_scratch(&value.node)
        }
        PlanStep::When(condition) => text::needs_scratch(&condition.node),
        PlanStep::Emit(fields) => {
            !emit::fits_stack(schema, fields) || fields.iter().any(|f| text::needs_scratch(&f.node))
        }
    })
}

impl Lower<'_> {
    /// Adds one to a counter that nobody else on this CPU can be adding to, or so that it does not matter.
    pub fn add_one(&mut self, at: Address) {
        if is_reentered(self.body) {
            let one = self.b.constant(1);
            self.b.atomic(AtomicOp::Add, at, one);
        } else {
            let old = self.b.load(at, Size::B8);
            let new = self.b.alu(AluOp::Add, old, 1);
            self.b.store(at, new, Size::B8);
        }
    }

    /// Takes a lane, if the program needs scratch and must not take that of others.
    pub fn take_lane(&mut self) -> Option<Lane> {
        if !is_reentered(self.body) || !needs_scratch(self.body, self.schema) {
            return None;
        }
        let (mark, base) = (self.b.register(), self.b.register());
        let taken = self.b.block();
        for lane in 0..LANES {
            let (free, next) = (self.b.block(), self.b.block());
            let one = self.b.constant(1);
            let at = Address::at(self.counters, Space::MapValue, COUNTERS_END + 8 * lane as i32);
            let before = self.b.atomic(AtomicOp::Exchange, at, one);
            self.b.branch(Cond::Eq, before, 0, free, next);
            self.b.enter(free);
            let value = self.map_value(SCRATCH, self.program.scratch + lane);
            self.b.copy(base, value);
            self.b.alu_to(AluOp::Add, mark, self.zero, 8 * lane as i32);
            self.b.jump(taken);
            self.b.enter(next);
        }
        self.count(Counter::Lost);
        self.b.ret(0);
        self.b.enter(taken);
        Some(Lane { mark, base })
    }

    /// Gives the lane back: the last thing on each way out.
    pub fn leave_lane(&mut self) {
        let Some(lane) = self.lane else { return };
        // The verifier must see that it stays within the marks.
        let inside = self.b.alu(AluOp::And, lane.mark, 8 * (LANES as i32 - 1));
        let at = self.b.alu(AluOp::Add, self.counters, inside);
        self.b.store(Address::at(at, Space::MapValue, COUNTERS_END), 0, Size::B8);
    }
}
