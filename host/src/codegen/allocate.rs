//! Which BPF register or stack slot each virtual register lives in: linear scan over the intervals, without splitting.
//!
//! A call overwrites r0 to r5, so what is alive across one goes to r6 to r9 or to the stack, and everything else may also have r1 to r4. r0 and r5 belong to no virtual
//! register: the emitter computes in them with what lives on the stack. r10 is the frame.
//!
//! Invariant: two registers whose intervals overlap never share a place.

use super::liveness::{Interval, Liveness};
use crate::bpf::Reg;
use crate::ir::{Function, Operand, OperationKind, Register};

/// Alive across calls.
const SAVED: [Reg; 4] = [Reg::R6, Reg::R7, Reg::R8, Reg::R9];
/// Lost by a call.
const PASSING: [Reg; 4] = [Reg::R1, Reg::R2, Reg::R3, Reg::R4];
/// The registers that arguments are passed in.
pub const ARGUMENTS: [Reg; 5] = [Reg::R1, Reg::R2, Reg::R3, Reg::R4, Reg::R5];

/// Where a virtual register lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Register(Reg),
    /// 8 bytes at this offset from the frame.
    Stack(i16),
}

/// Where everything lives.
pub struct Places {
    /// By virtual register; none for one that is never used.
    registers: Vec<Option<Place>>,
    /// Offset from the frame of each of the function's own slots.
    slots: Vec<i16>,
    /// Bytes of stack in all.
    pub stack: u32,
}

impl Places {
    pub fn of(&self, register: Register) -> Place {
        // What is never used is never asked for: operations without a use are left out.
        self.registers[register.0 as usize].unwrap_or(Place::Register(Reg::R0))
    }

    pub fn slot(&self, slot: u32) -> i16 {
        self.slots[slot as usize]
    }
}

/// Finds a place for everything. `stack` may come out larger than a frame can be.
pub fn allocate(function: &Function, live: &Liveness) -> Places {
    let mut stack = 0u32;
    let slots = function.slots.iter().map(|slot| {
        stack += slot.bytes.next_multiple_of(8);
        offset(stack)
    });
    let slots = slots.collect();
    let mut scan = Scan { hints: hints(function), active: Vec::new(), places: vec![None; live.intervals.len()] };
    let mut by_start: Vec<(Register, Interval)> =
        live.intervals.iter().zip(0..).filter_map(|(i, n)| i.map(|i| (Register(n), i))).collect();
    by_start.sort_by_key(|(register, interval)| (interval.start, *register));
    let mut spilled = Vec::new();
    for (register, interval) in &by_start {
        if let Some(victim) = scan.place(*register, *interval) {
            spilled.push(victim);
        }
    }
    let mut registers: Vec<Option<Place>> = scan.places.into_iter().map(|r| r.map(Place::Register)).collect();
    for (register, at) in share(spilled, &mut stack) {
        registers[register.0 as usize] = Some(Place::Stack(at));
    }
    Places { registers, slots, stack }
}

fn offset(stack: u32) -> i16 {
    // A frame that is too large is refused before these offsets are used.
    i16::try_from(stack).map_or(i16::MIN, |n| -n)
}

struct Scan {
    /// By virtual register.
    hints: Vec<Option<Reg>>,
    active: Vec<(Register, Interval, Reg)>,
    places: Vec<Option<Reg>>,
}

impl Scan {
    /// Gives `register` a place; returns what has to live on the stack for it.
    fn place(&mut self, register: Register, interval: Interval) -> Option<(Register, Interval)> {
        self.active.retain(|(_, other, _)| other.end >= interval.start);
        let taken = |reg: &Reg| self.active.iter().any(|(_, _, r)| r == reg);
        let passing: &[Reg] = if interval.crosses_call { &[] } else { &PASSING };
        let hint = self.hints[register.0 as usize];
        let fits = |reg: &Reg| passing.contains(reg) || SAVED.contains(reg);
        let free = hint
            .filter(|reg| fits(reg) && !taken(reg))
            .or_else(|| passing.iter().chain(&SAVED).find(|reg| !taken(reg)).copied());
        if let Some(reg) = free {
            self.assign(register, interval, reg);
            return None;
        }
        // The one whose life ends last goes to the stack: it would be in the way for longest.
        let longest = self
            .active
            .iter()
            .enumerate()
            .filter(|(_, (_, other, reg))| fits(reg) && other.end > interval.end)
            .max_by_key(|(_, (_, other, _))| other.end)
            .map(|(i, _)| i);
        let Some(longest) = longest else { return Some((register, interval)) };
        let (victim, life, reg) = self.active.swap_remove(longest);
        self.places[victim.0 as usize] = None;
        self.assign(register, interval, reg);
        Some((victim, life))
    }

    fn assign(&mut self, register: Register, interval: Interval, reg: Reg) {
        self.places[register.0 as usize] = Some(reg);
        self.active.push((register, interval, reg));
    }
}

/// The register in which a value will be wanted, or comes.
fn hints(function: &Function) -> Vec<Option<Reg>> {
    let mut hints = vec![None; function.registers as usize];
    for operation in function.blocks.iter().flat_map(|b| &b.operations) {
        if let OperationKind::Call { arguments, .. } = &operation.kind {
            for (argument, reg) in arguments.iter().zip(ARGUMENTS) {
                if let Operand::Register(register) = argument {
                    hints[register.0 as usize].get_or_insert(reg);
                }
            }
        }
    }
    // A value that is only changed on its way to a call is best made where the call wants it.
    for operation in function.blocks.iter().rev().flat_map(|b| b.operations.iter().rev()) {
        if let OperationKind::Alu { to, left: from, .. } | OperationKind::Copy { to, from } = &operation.kind
            && let Some(reg) = hints[to.0 as usize]
        {
            hints[from.0 as usize].get_or_insert(reg);
        }
    }
    hints
}

/// Stack slots for what found no register; one slot serves several whose intervals do not overlap.
fn share(mut spilled: Vec<(Register, Interval)>, stack: &mut u32) -> Vec<(Register, i16)> {
    spilled.sort_by_key(|(register, interval)| (interval.start, *register));
    let mut used: Vec<(i16, u32)> = Vec::new();
    let mut places = Vec::new();
    for (register, interval) in spilled {
        let at = match used.iter_mut().find(|(_, end)| *end < interval.start) {
            Some((at, end)) => {
                *end = interval.end;
                *at
            }
            None => {
                *stack += 8;
                used.push((offset(*stack), interval.end));
                offset(*stack)
            }
        };
        places.push((register, at));
    }
    places
}
