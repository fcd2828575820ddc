//! Where on the stack each piece of memory lies: the function's own slots, and those that registers went to.
//!
//! One place serves several that are not alive together. A small frame is worth having: from 64 bytes on kernels since
//! 6.13 give a program a stack of its own in memory, and its register has to be saved around every call.
//!
//! Everything is alive over an interval of positions, operations being numbered in the order of the blocks. A slot is
//! from where it is named first to where it, or a register that holds an address in it, is for the last time; and where
//! that touches a loop, over all of it. So no path leads from one use to another but within the interval: paths go back
//! by loops alone.
//!
//! Invariant: no helper keeps an address that it is passed. What a kfunc returns may point into what it was passed.

use super::liveness::Liveness;
use crate::ir::{Base, Callee, Function, OperationKind, Register, Slot, SlotId};

/// How many slots are looked at one by one; others are alive everywhere. More than that many do not fit a frame.
const SLOTS: usize = 64;

/// Positions from the first to the last at which something is alive, both included; holes are not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    start: u32,
    end: u32,
}

impl Interval {
    pub const NONE: Interval = Interval { start: u32::MAX, end: 0 };
    const ALL: Interval = Interval { start: 0, end: u32::MAX };

    pub fn hull(self, other: Interval) -> Interval {
        Interval { start: self.start.min(other.start), end: self.end.max(other.end) }
    }

    fn touch(&mut self, at: u32) {
        *self = self.hull(Interval { start: at, end: at });
    }

    fn meets(self, other: Interval) -> bool {
        self.start <= other.end && other.start <= self.end
    }
}

/// Where everything is alive.
pub struct Lives {
    /// By register.
    pub registers: Vec<Interval>,
    /// By slot.
    slots: Vec<Interval>,
}

impl Lives {
    pub fn of(function: &Function, live: &Liveness) -> Lives {
        let mut registers = vec![Interval::NONE; function.registers as usize];
        let mut slots = vec![Interval::NONE; function.slots.len()];
        let mut blocks = vec![Interval::NONE; function.blocks.len()];
        let mut touch = |register: Register, at| registers[register.0 as usize].touch(at);
        let mut at = 0;
        function.parameters.iter().for_each(|parameter| touch(*parameter, 0));
        for id in &live.order {
            let block = &function.blocks[id.0 as usize];
            at += 1;
            blocks[id.0 as usize].touch(at);
            live.into(*id).for_each(|r| touch(r, at));
            for operation in &block.operations {
                at += 1;
                operation.kind.reads().chain(operation.kind.writes()).for_each(|r| touch(r, at));
                if let Some(slot) = named(&operation.kind) {
                    slots[slot.0 as usize].touch(at);
                }
            }
            at += 1;
            blocks[id.0 as usize].touch(at);
            block.end.reads().chain(live.out(*id)).for_each(|r| touch(r, at));
        }
        let pointing = pointing(function, live);
        for (held, interval) in pointing.held.iter().zip(&registers) {
            slots.iter_mut().take(SLOTS).enumerate().filter(|(n, _)| held & 1 << n != 0).for_each(|(_, slot)| {
                *slot = slot.hull(*interval);
            });
        }
        for (n, (slot, of)) in slots.iter_mut().zip(&function.slots).enumerate() {
            if n >= SLOTS || pointing.stored & 1 << n != 0 || of.object {
                *slot = Interval::ALL;
            }
        }
        cover_loops(function, live, &blocks, &mut slots);
        Lives { registers, slots }
    }
}

/// The slot that an operation names.
fn named(kind: &OperationKind) -> Option<SlotId> {
    match kind {
        OperationKind::AddressOf { slot, .. } => Some(*slot),
        OperationKind::Load { from: at, .. }
        | OperationKind::Store { to: at, .. }
        | OperationKind::Atomic { at, .. } => match at.base {
            Base::Slot(slot) => Some(slot),
            Base::Register { .. } => None,
        },
        _ => None,
    }
}

/// Slots as bits of a word.
struct Pointing {
    /// By register, those to which it may point.
    held: Vec<u64>,
    /// Those of which an address is in memory.
    stored: u64,
}

fn pointing(function: &Function, live: &Liveness) -> Pointing {
    let mut pointing = Pointing { held: vec![0; function.registers as usize], stored: 0 };
    let mut changed = !function.slots.is_empty();
    while changed {
        changed = false;
        for operation in live.order.iter().flat_map(|id| &function.blocks[id.0 as usize].operations) {
            let from = operation.kind.reads().fold(0, |slots, r| slots | pointing.held[r.0 as usize]);
            let given = match &operation.kind {
                OperationKind::AddressOf { slot, .. } if (slot.0 as usize) < SLOTS => 1 << slot.0,
                OperationKind::Copy { .. } | OperationKind::Alu { .. } => from,
                OperationKind::Call { callee: Callee::Kfunc(_) | Callee::Function(_), .. } => from,
                OperationKind::Store { value, .. } => {
                    pointing.stored |= value.register().map_or(0, |r| pointing.held[r.0 as usize]);
                    0
                }
                _ => 0,
            };
            if let Some(to) = operation.kind.writes() {
                let held = &mut pointing.held[to.0 as usize];
                // Without loops what is read has been assigned before.
                changed |= live.has_loops && given & !*held != 0;
                *held |= given;
            }
        }
    }
    pointing
}

/// Widens the intervals until each holds all of a loop that it holds some of.
fn cover_loops(function: &Function, live: &Liveness, blocks: &[Interval], slots: &mut [Interval]) {
    let mut loops = Vec::new();
    for id in &live.order {
        let from = blocks[id.0 as usize];
        for head in function.blocks[id.0 as usize].end.successors().map(|to| blocks[to.0 as usize]) {
            if head.start <= from.start {
                loops.push(head.hull(from));
            }
        }
    }
    for slot in slots.iter_mut().filter(|slot| **slot != Interval::NONE) {
        let mut before = Interval::NONE;
        while before != *slot {
            before = *slot;
            *slot = loops.iter().filter(|looped| looped.meets(before)).fold(before, |all, looped| all.hull(*looped));
        }
    }
}

/// Offsets of the function's own slots, and of one for each that went to the stack. Then the bytes of all.
pub fn frame(slots: &[Slot], lives: &Lives, spilled: &[Interval]) -> (Vec<i16>, u32) {
    let own = slots.iter().zip(&lives.slots).map(|(slot, interval)| (slot.bytes.next_multiple_of(8), *interval));
    let pieces: Vec<(u32, Interval)> = own.chain(spilled.iter().map(|interval| (8, *interval))).collect();
    let mut by_start: Vec<usize> = (0..pieces.len()).filter(|n| pieces[*n].1 != Interval::NONE).collect();
    by_start.sort_by_key(|n| (pieces[*n].1.start, *n));
    let mut offsets = vec![0; pieces.len()];
    // What is alive: where it begins and ends on the stack, in that order, and until when.
    let mut used: Vec<(u32, u32, u32)> = Vec::new();
    let mut stack = 0u32;
    for n in by_start {
        let (bytes, interval) = pieces[n];
        used.retain(|(_, _, end)| *end >= interval.start);
        let (mut at, mut index) = (0, 0);
        while let Some((begins, ends, _)) = used.get(index).filter(|(begins, ..)| *begins < at + bytes) {
            debug_assert!(*begins >= at, "pieces overlap");
            (at, index) = (*ends, index + 1);
        }
        used.insert(index, (at, at + bytes, interval.end));
        stack = stack.max(at + bytes);
        offsets[n] = offset(at + bytes);
    }
    (offsets, stack)
}

fn offset(stack: u32) -> i16 {
    // A frame that is too large is refused before these offsets are used.
    i16::try_from(stack).map_or(i16::MIN, |n| -n)
}

#[cfg(test)]
mod tests {
    use super::super::interference;
    use super::*;
    use crate::ir::{Address, AluOp, Cond, FunctionBuilder, Size, Space};

    fn frame_of(b: FunctionBuilder) -> (Vec<i16>, u32) {
        let function = b.finish();
        let (_, live) = interference::build(&function);
        frame(&function.slots, &Lives::of(&function, &live), &[])
    }

    #[test]
    fn what_is_not_alive_together_shares_a_place() {
        let mut b = FunctionBuilder::new("f", None, 1);
        let (early, late, held) = (b.slot(8), b.slot(16), b.slot(4));
        b.store(Address::slot(early, 0), 1, Size::B8);
        let address = b.address_of(held, 0);
        b.load(Address::slot(early, 0), Size::B8);
        b.store(Address::slot(late, 0), 1, Size::B8);
        let moved = b.alu(AluOp::Add, address, 1);
        let read = b.load(Address::at(moved, Space::Stack, 0), Size::B1);
        b.store(Address::slot(late, 8), read, Size::B8);
        b.ret(0);
        // The second of 16 bytes does not fit into the first's 8 with the third behind that.
        assert_eq!(frame_of(b), (vec![-8, -32, -16], 32));

        let mut b = FunctionBuilder::new("f", None, 1);
        let (early, late) = (b.slot(16), b.slot(8));
        b.store(Address::slot(early, 0), 1, Size::B8);
        b.store(Address::slot(late, 0), 1, Size::B8);
        b.ret(0);
        assert_eq!(frame_of(b), (vec![-16, -8], 16));
    }

    #[test]
    fn what_a_loop_uses_is_alive_all_through_it() {
        for looped in [false, true] {
            let mut b = FunctionBuilder::new("f", None, 1);
            let (x, first, second) = (b.parameter(0), b.slot(8), b.slot(8));
            let (body, done) = (b.block(), b.block());
            b.jump(body);
            b.enter(body);
            b.store(Address::slot(first, 0), 1, Size::B8);
            b.store(Address::slot(second, 0), 1, Size::B8);
            if looped {
                b.branch(Cond::Eq, x, 0, body, done);
            } else {
                b.jump(done);
            }
            b.enter(done);
            b.ret(0);
            assert_eq!(frame_of(b).1, if looped { 16 } else { 8 });
        }
    }

    #[test]
    fn objects_and_what_has_its_address_in_memory_keep_their_places() {
        let mut b = FunctionBuilder::new("f", None, 1);
        let (first, object, second, memory) = (b.slot(8), b.object(8), b.slot(8), b.slot(8));
        let address = b.address_of(first, 0);
        b.store(Address::slot(memory, 0), address, Size::B8);
        b.address_of(object, 0);
        b.store(Address::slot(second, 0), 1, Size::B8);
        b.ret(0);
        let (offsets, _) = frame_of(b);
        assert!(!offsets[2..].contains(&offsets[0]) && !offsets[2..].contains(&offsets[1]), "{offsets:?}");
    }
}
