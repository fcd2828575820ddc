//! Calls of kernel functions, and walks by the kernel's iterators.
//!
//! What a call acquires is held until nothing of the expression needs it any more (`held`), or, where a `bind` step
//! names it, until the program ends.
//!
//! **Walks.** An open-coded iterator lives on the stack between `new` and `destroy`, and the verifier follows the loop
//! round its `next` until a round teaches it nothing new. So what grows in the loop begins as a number that it does not
//! know (a zero of its own, for of what shares one a test of the one tells of the other), and no test in the loop
//! teaches it a bound of what lives on: each step begins with the zero anew. How long a walk may take is bounded by our
//! own count of steps, for all walks of a hit together: what is beyond is left out, and marked in the record.

use super::fault::Root;
use super::held::Exit;
use super::{Counter, Lower, helper, text};
use crate::ir::{Address, AluOp, BlockId, Callee, Cond, Kfunc, KfuncId, Operand, Register, Size, SlotId, Space};
use crate::plan::kfunc::{Argument, Call, Does, Found, Gives, Length, Over, Walk};
use crate::plan::layout;
use crate::plan::{Access, Node, Type};

/// Steps that all walks of one hit make at most.
pub const MAX_STEPS: i32 = 1 << 14;

/// Bytes of a dynptr (struct bpf_dynptr of include/uapi/linux/bpf.h).
const DYNPTR: u32 = 16;

impl Lower<'_> {
    /// Calls a kfunc; what it gives, if that is a value of 64 bits.
    pub fn kfunc(&mut self, call: &Call, node: &Node, exit: &Exit) -> Register {
        if call.gives == Gives::End {
            return self.thrown(call, node, exit);
        }
        let value = self.called(call, node, None, exit);
        match &call.gives {
            Gives::End => value,
            Gives::Nothing => self.b.alu(AluOp::Add, self.zero, 1),
            Gives::Owned { release, may_be_null } => {
                let release = self.kfunc_id(release);
                self.hold(value, release, *may_be_null);
                value
            }
            Gives::Address => self.forgotten(value),
            // What a function of the kernel leaves above its result is anybody's.
            Gives::Number | Gives::Text(_) => match (node.ty.integer(), &node.ty) {
                (Some((bytes, signed)), _) if bytes < 8 => self.b.extend(value, u32::from(bytes) * 8, signed),
                (_, Type::Boolean) => self.b.extend(value, 8, false),
                _ => value,
            },
        }
    }

    /// Ends the program by a kfunc, when all that is held has been given back and the hit is counted. Nothing comes
    /// behind.
    fn thrown(&mut self, call: &Call, node: &Node, exit: &Exit) -> Register {
        let arguments: Vec<Operand> =
            call.arguments.iter().map(|argument| self.number_or_pointer(argument, exit)).collect();
        self.explain_node(node);
        let (end, never) = (self.b.block(), self.b.block());
        let to = self.releasing(0, end);
        self.b.jump(to);
        self.b.enter(end);
        self.count(Counter::Filtered);
        self.leave_lane();
        let id = self.kfunc_id(&call.function);
        self.b.run(Callee::Kfunc(id), &arguments);
        self.b.ret(0);
        self.b.enter(never);
        self.zero
    }

    /// Calls a kfunc that writes a text, to `to`, where there is room for it.
    pub fn kfunc_text(&mut self, call: &Call, node: &Node, to: Register, exit: &Exit) -> text::Found {
        let max = text::max(node);
        let value = self.called(call, node, Some((to, max)), exit);
        // An `int` at most.
        let returned = self.b.extend(value, 32, true);
        let absent = self.leave(exit);
        self.b.leave_if(Cond::Slt, returned, 0, absent);
        let (length, cut) = (self.b.register(), self.b.constant(0));
        match call.gives {
            Gives::Text(Length::Returned) => self.b.copy(length, returned),
            Gives::Text(Length::Terminated) => {
                // Of an empty text that may be 0 or 1.
                self.b.alu_to(AluOp::Sub, length, returned, 1);
                let empty = self.b.alu(AluOp::Rsh, length, 63);
                self.b.alu_to(AluOp::Add, length, length, empty);
            }
            _ => return self.all(max),
        }
        self.cut_to(length, cut, max);
        text::Found { length: self.settled(length), cut }
    }

    /// Calls a kfunc; what it returns. What was held for its arguments is given back. `written` is where it writes, and
    /// how much of that counts.
    fn called(&mut self, call: &Call, node: &Node, written: Option<(Register, u32)>, exit: &Exit) -> Register {
        let (depth, used) = (self.depth(), self.scratch.used);
        let mut slots = Vec::new();
        let arguments = self.passed(call, written, &mut slots, exit);
        self.explain_node(node);
        let id = self.kfunc_id(&call.function);
        let value = if call.gives == Gives::Nothing {
            self.b.run(Callee::Kfunc(id), &arguments);
            self.zero
        } else {
            self.b.call(Callee::Kfunc(id), &arguments)
        };
        self.release_to(depth);
        self.release(used);
        slots.into_iter().for_each(|slot| self.spare_slot(slot));
        value
    }

    /// A piece of the stack for an object, which is to be given back by [`Lower::spare_slot`].
    pub fn take_slot(&mut self, bytes: u32) -> (u32, SlotId) {
        let spare = self.spare.get_mut(&bytes).and_then(Vec::pop);
        (bytes, spare.unwrap_or_else(|| self.b.object(bytes)))
    }

    pub fn spare_slot(&mut self, (bytes, slot): (u32, SlotId)) {
        self.spare.entry(bytes).or_default().push(slot);
    }

    /// What is passed; the pieces of the stack that must last until the call is over.
    fn passed(
        &mut self,
        call: &Call,
        written: Option<(Register, u32)>,
        slots: &mut Vec<(u32, SlotId)>,
        exit: &Exit,
    ) -> Vec<Operand> {
        // One byte more tells whether a text was cut, and another takes the 0 behind it.
        let room = |max: u32| if call.gives == Gives::Text(Length::Terminated) { max + 2 } else { max };
        let mut passed: Vec<Operand> = Vec::new();
        for argument in &call.arguments {
            passed.push(match argument {
                Argument::Number(_) | Argument::Pointer(_) => self.number_or_pointer(argument, exit),
                Argument::Text(node) => {
                    let (to, length) = self.text_for_call(node, exit);
                    let end = self.b.alu(AluOp::Add, to, length);
                    self.b.store(Address::at(end, Space::MapValue, 0), 0, Size::B1);
                    to.into()
                }
                Argument::Fixed(text) => self.fixed(text).into(),
                Argument::Word(node) => {
                    let number = self.value(node, exit);
                    let (bytes, slot) = self.take_slot(8);
                    slots.push((bytes, slot));
                    self.b.store(Address::slot(slot, 0), number, Size::B8);
                    self.b.address_of(slot, 0).into()
                }
                Argument::Dynptr(node) => {
                    let (to, length) = self.text_for_call(node, exit);
                    self.dynptr(to, length.into(), slots).into()
                }
                Argument::NewDynptr => {
                    let (bytes, slot) = self.take_slot(DYNPTR);
                    slots.push((bytes, slot));
                    self.b.address_of(slot, 0).into()
                }
                Argument::Written => written.map_or(0.into(), |(to, _)| to.into()),
                Argument::WrittenDynptr => match written {
                    Some((to, max)) => self.dynptr(to, (room(max) as i32).into(), slots).into(),
                    None => 0.into(),
                },
                Argument::WrittenBytes => written.map_or(0, |(_, max)| room(max) as i32).into(),
            });
        }
        passed
    }

    fn number_or_pointer(&mut self, argument: &Argument, exit: &Exit) -> Operand {
        match argument {
            Argument::Pointer(node) => self.guarded(node, exit).into(),
            Argument::Number(node) if matches!(node.ty, Type::Pointer { .. }) => self.plain(node, exit).into(),
            Argument::Number(node) => self.operand(node, exit),
            // The checker passes nothing else.
            _ => 0.into(),
        }
    }

    /// A text in the scratch, with room for a byte behind it, and its length.
    fn text_for_call(&mut self, node: &Node, exit: &Exit) -> (Register, Register) {
        let at = self.reserve(text::room(node) + 1);
        let to = self.scratch_at(at);
        let found = self.text_into(node, to, Space::MapValue, exit);
        (to, self.bounded(found.length, text::max(node)))
    }

    /// The address of a dynptr to so many bytes of the scratch.
    fn dynptr(&mut self, to: Register, bytes: Operand, slots: &mut Vec<(u32, SlotId)>) -> Register {
        let (size, slot) = self.take_slot(DYNPTR);
        slots.push((size, slot));
        let at = self.b.address_of(slot, 0);
        self.b.run(Callee::Helper(helper::DYNPTR_FROM_MEM), &[to.into(), bytes, 0.into(), at.into()]);
        self.b.address_of(slot, 0)
    }

    /// The address of a text, with a 0 behind it, among what nothing can change.
    fn fixed(&mut self, text: &[u8]) -> Register {
        let data = &mut self.module.data;
        let wanted = [text, b"\0"].concat();
        let found = data.windows(wanted.len()).position(|part| part == wanted);
        let offset = found.unwrap_or_else(|| {
            data.extend_from_slice(&wanted);
            data.len() - wanted.len()
        });
        self.b.data_address(offset as u32)
    }

    /// Something is absent for certain. What would come behind is never reached, and need not be known to the verifier.
    pub fn is_absent(&mut self, exit: &Exit) {
        let absent = self.leave(exit);
        self.b.jump(absent);
        let never = self.b.block();
        self.b.enter(never);
    }

    /// The pointer, found anew by the number of what it points to.
    pub fn found_pointer(&mut self, found: &Found, node: &Node, exit: &Exit) -> Register {
        let pointer = self.plain(&found.pointer, exit);
        let tested = if self.lives_on(&found.pointer) { self.fresh(pointer) } else { pointer };
        let absent = self.leave(exit);
        self.b.leave_if(Cond::Eq, tested, 0, absent);
        let (mut at, last) = (pointer, found.path.len().saturating_sub(1));
        for (n, offset) in found.path.iter().enumerate() {
            let from = self.b.alu(AluOp::Add, at, *offset as i32);
            let bytes = if n == last { found.bytes } else { 8 };
            let root = Root::Register { register: at, offset: 0, fresh: true };
            at = self.probe(from, bytes, Access::Kernel, root, exit);
        }
        self.explain_node(node);
        let (find, release) = (self.kfunc_id(&found.find), self.kfunc_id(&found.release));
        let value = self.b.call(Callee::Kfunc(find), &[at.into()]);
        let absent = self.leave(exit);
        self.b.leave_if(Cond::Eq, value, 0, absent);
        self.hold(value, release, false);
        let number = self.forgotten(value);
        let differs = self.leave(exit);
        self.b.leave_if(Cond::Ne, number, pointer, differs);
        value
    }

    pub fn kfunc_id(&mut self, kfunc: &Kfunc) -> KfuncId {
        let kfuncs = &mut self.module.kfuncs;
        let known = kfuncs.iter().position(|known| known.name == kfunc.name);
        let at = known.unwrap_or_else(|| {
            kfuncs.push(kfunc.clone());
            kfuncs.len() - 1
        });
        KfuncId(at as u32)
    }

    /// Walks, and gives what the walk is for: a number.
    pub fn walk(&mut self, walk: &Walk, node: &Node, exit: &Exit) -> Register {
        let (result, seen) = (self.unknown_zero(), self.unknown_zero());
        if walk.does == Does::All {
            self.b.alu_to(AluOp::Add, result, result, 1);
        }
        self.each(walk, node, exit, |l, (next, done), absent| l.take(walk, (result, seen), (next, done), absent));
        if matches!(walk.does, Does::First | Does::Max | Does::Min) {
            self.leave_unless(seen, exit);
        }
        result
    }

    /// The text of the first object that counts, read to `to`.
    pub fn walk_to_text(&mut self, walk: &Walk, node: &Node, to: Register, space: Space, exit: &Exit) -> text::Found {
        let result = text::Found { length: self.unknown_zero(), cut: self.unknown_zero() };
        let seen = self.unknown_zero();
        self.each(walk, node, exit, |l, (_, done), absent| {
            let Some(value) = &walk.value else { return };
            let found = l.text_into(value, to, space, absent);
            l.b.copy(result.length, found.length);
            l.b.copy(result.cut, found.cut);
            l.b.alu_to(AluOp::Add, seen, l.zero, 1);
            l.b.jump(done);
        });
        self.leave_unless(seen, exit);
        text::Found { length: self.bounded(result.length, text::max(node)), ..result }
    }

    /// Goes to `exit` where nothing was seen.
    fn leave_unless(&mut self, seen: Register, exit: &Exit) {
        let (seen, absent) = (self.fresh(seen), self.leave(exit));
        self.b.leave_if(Cond::Eq, seen, 0, absent);
    }

    /// Does `body` for each object for which the walk's condition holds, or does not, where the walk asks whether it
    /// holds for all. The blocks that it is passed are where the next step begins, and where the walk ends; the exit is
    /// for values that are absent, and leads to the next step.
    fn each(&mut self, walk: &Walk, node: &Node, exit: &Exit, body: impl FnOnce(&mut Self, (BlockId, BlockId), &Exit)) {
        let depth = self.depth();
        let done = self.b.block();
        let (next, slot) = self.walked_step(&walk.over, node, done, exit);
        let absent = self.exit_to(next);
        let known = self.known.clone();
        let counted = self.b.block();
        match &walk.condition {
            Some(condition) if walk.does == Does::All => {
                let counted_absent = self.exit_to(counted);
                self.branch_on(condition, next, counted, &counted_absent);
            }
            Some(condition) => self.branch_on(condition, counted, next, &absent),
            None => self.b.jump(counted),
        }
        self.b.enter(counted);
        body(self, (next, done), &absent);
        self.known = known;
        self.items.pop();
        self.b.enter(done);
        self.release_to(depth);
        self.spare_slot(slot);
    }

    /// What is done with an object that counts.
    fn take(
        &mut self,
        walk: &Walk,
        (result, seen): (Register, Register),
        (next, done): (BlockId, BlockId),
        exit: &Exit,
    ) {
        let taken = walk.value.as_ref().map(|value| {
            let unsigned = matches!(value.ty.integer(), Some((8, false)));
            (self.plain(value, exit), unsigned)
        });
        match (walk.does, taken) {
            (Does::Count, _) => self.b.alu_to(AluOp::Add, result, result, 1),
            (Does::Any, _) => {
                self.b.alu_to(AluOp::Add, result, self.zero, 1);
                return self.b.jump(done);
            }
            (Does::All, _) => {
                self.b.copy(result, self.zero);
                return self.b.jump(done);
            }
            (Does::Sum, Some((taken, _))) => self.b.alu_to(AluOp::Add, result, result, taken),
            (Does::First, Some((taken, _))) => {
                self.b.copy(result, taken);
                self.b.alu_to(AluOp::Add, seen, self.zero, 1);
                return self.b.jump(done);
            }
            (Does::Max | Does::Min, Some((taken, unsigned))) => {
                let (better, other) = (self.b.block(), self.b.block());
                let before = self.fresh(seen);
                self.b.leave_if(Cond::Eq, before, 0, better);
                let condition = match (walk.does, unsigned) {
                    (Does::Max, true) => Cond::Gt,
                    (Does::Max, false) => Cond::Sgt,
                    (_, true) => Cond::Lt,
                    (_, false) => Cond::Slt,
                };
                let (new, old) = (self.fresh(taken), self.fresh(result));
                self.b.branch(condition, new, old, better, other);
                self.b.enter(better);
                // Of what is known of one value nothing must be learned of all.
                self.b.alu_to(AluOp::Add, result, taken, self.zero);
                self.b.alu_to(AluOp::Add, seen, self.zero, 1);
                self.b.jump(next);
                self.b.enter(other);
            }
            _ => {}
        }
        self.b.jump(next);
    }

    /// Begins a walk, and stands in it with the next object at hand, which is the last of `items`; the block to jump to
    /// for the next step. `done` is where it ends, with the iterator still held.
    fn walked_step(&mut self, over: &Over, node: &Node, done: BlockId, exit: &Exit) -> (BlockId, (u32, SlotId)) {
        let (used, steps) = (self.scratch.used, self.walked);
        let (bytes, slot) = self.take_slot(over.bytes.next_multiple_of(8));
        let passed: Vec<Operand> =
            over.arguments.iter().map(|argument| self.number_or_pointer(argument, exit)).collect();
        self.explain_node(node);
        let start = match (over.below, passed.first()) {
            (Some(parent), Some(Operand::Register(start))) => Some((parent, self.forgotten(*start))),
            _ => None,
        };
        let iterator = self.b.address_of(slot, 0);
        let (new, next, destroy) = (self.kfunc_id(&over.new), self.kfunc_id(&over.next), self.kfunc_id(&over.destroy));
        let arguments: Vec<Operand> = [iterator.into()].into_iter().chain(passed).collect();
        self.b.run(Callee::Kfunc(new), &arguments);
        self.release(used);
        self.hold_iterator(slot, destroy);
        let forgets = self.unknown_zero();
        self.b.alu_to(AluOp::Add, steps, steps, forgets);
        let head = self.b.block();
        self.b.jump(head);
        self.b.enter(head);
        self.renew_zero();
        let iterator = self.b.address_of(slot, 0);
        let object = self.b.call(Callee::Kfunc(next), &[iterator.into()]);
        self.b.leave_if(Cond::Eq, object, 0, done);
        let (long, goes_on) = (self.b.block(), self.b.block());
        let so_far = self.fresh(steps);
        self.b.branch(Cond::Ge, so_far, MAX_STEPS, long, goes_on);
        self.b.enter(long);
        self.b.alu_to(AluOp::Add, self.walks_cut, self.zero, i32::from(layout::WALK_CUT));
        self.b.jump(done);
        self.b.enter(goes_on);
        self.b.alu_to(AluOp::Add, steps, steps, 1);
        if let Some((parent, start)) = start {
            let passed_over = self.exit_to(head);
            let from = self.b.alu(AluOp::Add, object, parent as i32);
            let parent = self.probe(from, 8, Access::Kernel, Root::Sound, &passed_over);
            self.b.leave_if(Cond::Ne, parent, start, head);
        }
        let item = match over.number {
            None => object,
            Some((bytes, signed)) => {
                let size = Size::from_bytes(bytes.into()).unwrap_or(Size::B8);
                let value = self.b.load(Address::at(object, Space::Trusted, 0), size);
                if bytes < 8 { self.b.extend(value, u32::from(bytes) * 8, signed) } else { value }
            }
        };
        self.items.push(item);
        (head, (bytes, slot))
    }
}
