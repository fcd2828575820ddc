//! Which BPF register each virtual register lives in: graph colouring, after Chaitin and Briggs.
//!
//! A call overwrites r0 to r5, so what is alive across one has r6 to r9 to live in, and everything else r0 to r9. The
//! former are coloured first. What has fewer neighbours than there are registers can be coloured whatever the others
//! get, so it is set aside; where nothing such is left, the web that costs least on the stack is set aside, too, and
//! goes there if indeed nothing is left for it. Then the function is rewritten (`spill`), and all starts again. What
//! has been made for that lives too shortly to be in the way, and never goes to the stack itself. r10 is the frame.
//!
//! Invariant: two registers that interfere never share a place.

use std::borrow::Cow;

use super::bits;
use super::frame::{Interval, Lives, frame};
use super::interference::{self, Graph};
use super::liveness::Needs;
use super::spill::{Home, spill};
use super::tidy::tidy;
use crate::bpf::Reg;
use crate::ir::{Block, BlockId, Function, Operation, OperationKind, Register, Slot, SlotId, Terminator};

/// What calls overwrite first, so that the others stay free for what needs them.
const ORDER: [Reg; 10] = [Reg::R1, Reg::R2, Reg::R3, Reg::R4, Reg::R5, Reg::R0, Reg::R6, Reg::R7, Reg::R8, Reg::R9];
/// All of them, as bits.
const ALL: u16 = 0b11_1111_1111;
/// Those that calls leave as they are: r6 to r9.
const SAVED: u16 = 0b11_1100_0000;

/// A function whose registers have places.
pub struct Allocation {
    /// The function, with what goes to the stack and comes from there.
    pub function: Function,
    pub needs: Needs,
    /// By virtual register; none for one that is never used.
    registers: Vec<Option<Reg>>,
    /// Offset from the frame of each of the function's slots.
    slots: Vec<i16>,
    /// Bytes of stack in all: it may come out larger than a frame can be.
    pub stack: u32,
}

impl Allocation {
    pub fn of(&self, register: Register) -> Reg {
        // What is never used is never asked for: operations without a use are left out.
        self.registers[register.0 as usize].unwrap_or(Reg::R0)
    }

    pub fn is_used(&self, register: Register) -> bool {
        self.registers[register.0 as usize].is_some()
    }

    pub fn slot(&self, slot: SlotId) -> i16 {
        self.slots[slot.0 as usize]
    }
}

/// Finds a place for everything.
pub fn allocate(function: Function) -> Option<Allocation> {
    let function = prepared(function);
    // Values that are kept in registers for some operations may be too many; those that are fetched for one never are.
    attempt(Cow::Borrowed(&function), true).or_else(|| attempt(Cow::Borrowed(&function), false))
}

fn attempt(mut function: Cow<'_, Function>, reuse: bool) -> Option<Allocation> {
    let (registers, own_slots) = (function.registers, function.slots.len());
    let mut spilled: Vec<Interval> = Vec::new();
    let mut on_stack = vec![false; registers as usize];
    let (mut graph, live) = interference::build(&function);
    let lives = Lives::of(&function, &live);
    loop {
        let short = |web: Register| web.0 >= registers || on_stack[web.0 as usize];
        let victims = match colour(&graph, &short) {
            Ok(registers) => {
                let (slots, stack) = frame(&function.slots[..own_slots], &lives, &spilled);
                let needs = graph.needs;
                return Some(Allocation { function: function.into_owned(), needs, registers, slots, stack });
            }
            Err(victims) => victims,
        };
        if victims.iter().any(|web| short(*web)) {
            return None;
        }
        let constants = constants(&function);
        let mut homes = vec![None; function.registers as usize];
        for web in victims {
            let members = &graph.of(web).members;
            let home = match constants[web.0 as usize] {
                Some(value) if members.len() == 1 => Home::Constant(value),
                _ => {
                    let alive = members.iter().map(|r| lives.registers[r.0 as usize]);
                    spilled.push(alive.fold(Interval::NONE, Interval::hull));
                    let slots = &mut function.to_mut().slots;
                    slots.push(Slot { bytes: 8, object: false });
                    Home::Slot(SlotId(slots.len() as u32 - 1))
                }
            };
            for member in members {
                on_stack[member.0 as usize] = true;
                homes[member.0 as usize] = Some(home);
            }
        }
        spill(function.to_mut(), &homes, reuse);
        graph = interference::build(&function).0;
    }
}

/// The function, tidied, and without what instructions cannot do in place: `x = a - x`, and going back to where
/// parameters come in.
fn prepared(mut function: Function) -> Function {
    tidy(&mut function);
    let mut registers = function.registers;
    for block in &mut function.blocks {
        if !block.operations.iter().any(|operation| not_in_place(&operation.kind).is_some()) {
            continue;
        }
        for mut operation in std::mem::take(&mut block.operations) {
            let copied = not_in_place(&operation.kind).map(|to| {
                let from = Register(registers);
                registers += 1;
                operation.kind.replace_write(from);
                Operation { kind: OperationKind::Copy { to, from }, reason: operation.reason }
            });
            block.operations.push(operation);
            block.operations.extend(copied);
        }
    }
    function.registers = registers;
    if function.blocks.iter().any(|b| b.end.successors().any(|to| to == BlockId(0))) {
        let moved = BlockId(function.blocks.len() as u32);
        let first = Block { operations: Vec::new(), end: Terminator::Jump(moved), end_reason: None };
        let body = std::mem::replace(&mut function.blocks[0], first);
        function.blocks.push(body);
        for block in function.blocks.iter_mut().skip(1) {
            block.end.replace_successors(|to| if to == BlockId(0) { moved } else { to });
        }
    }
    function
}

/// What is written by an operation that has it on its right, where it cannot be computed.
fn not_in_place(kind: &OperationKind) -> Option<Register> {
    match *kind {
        OperationKind::Alu { op, to, left, right, .. } => {
            (!interference::commutes(op) && right.register() == Some(to) && left != to).then_some(to)
        }
        _ => None,
    }
}

/// By register, the constant that it always is.
fn constants(function: &Function) -> Vec<Option<i64>> {
    let mut assigned = vec![0; function.registers as usize];
    let mut constants = vec![None; function.registers as usize];
    for operation in function.blocks.iter().flat_map(|b| &b.operations) {
        if let Some(to) = operation.kind.writes() {
            assigned[to.0 as usize] += 1;
            constants[to.0 as usize] = match operation.kind {
                OperationKind::Constant { value, .. } if assigned[to.0 as usize] == 1 => Some(value),
                _ => None,
            };
        }
    }
    constants
}

/// A register for each web, or the webs that have to go to the stack.
fn colour(graph: &Graph, short: &dyn Fn(Register) -> bool) -> Result<Vec<Option<Reg>>, Vec<Register>> {
    let count = graph.webs.len();
    let used: Vec<Register> = graph.roots().filter(|web| graph.of(*web).uses > 0).collect();
    let mut scan = Colouring { graph, registers: vec![None; count], taken: vec![0; count] };
    for crossing in [true, false] {
        let webs: Vec<Register> = used.iter().copied().filter(|web| graph.of(*web).crosses_call == crossing).collect();
        let victims = scan.colour(&webs, short);
        if !victims.is_empty() {
            return Err(victims);
        }
    }
    let of = |register| scan.registers[graph.web(register).0 as usize];
    Ok((0..count as u32).map(Register).map(of).collect())
}

struct Colouring<'a> {
    graph: &'a Graph,
    /// By the register that stands for a web.
    registers: Vec<Option<Reg>>,
    /// Those that its neighbours have, as bits.
    taken: Vec<u16>,
}

impl Colouring<'_> {
    /// Colours these webs; those that have to go to the stack.
    fn colour(&mut self, webs: &[Register], short: &dyn Fn(Register) -> bool) -> Vec<Register> {
        let mut set_aside = self.set_aside(webs, short);
        let mut victims = Vec::new();
        while let Some(web) = set_aside.pop() {
            match self.choose(web) {
                Some(reg) => {
                    self.registers[web.0 as usize] = Some(reg);
                    bits::members(self.graph.neighbours(web)).for_each(|n| self.taken[n as usize] |= bit(reg));
                }
                None => victims.push(web),
            }
        }
        victims
    }

    /// The webs in the order in which they are set aside; the last is to be coloured first.
    fn set_aside(&self, webs: &[Register], short: &dyn Fn(Register) -> bool) -> Vec<Register> {
        let mut waiting = vec![0; self.registers.len().div_ceil(64)];
        webs.iter().for_each(|web| bits::insert(&mut waiting, web.0));
        let mut degrees = vec![0; self.registers.len()];
        let mut room = vec![0; self.registers.len()];
        for web in webs {
            degrees[web.0 as usize] = bits::count_common(self.graph.neighbours(*web), &waiting);
            room[web.0 as usize] = self.free(*web).count_ones();
        }
        let mut easy: Vec<Register> =
            webs.iter().copied().filter(|w| degrees[w.0 as usize] < room[w.0 as usize]).collect();
        let mut order = Vec::new();
        let mut left: Vec<Register> = webs.to_vec();
        loop {
            let web = match easy.pop() {
                Some(web) if !bits::contains(&waiting, web.0) => continue,
                Some(web) => web,
                None => {
                    left.retain(|web| bits::contains(&waiting, web.0));
                    // The least use for the most neighbours: it is missed least, and in the way most.
                    let cost = |web: &Register| {
                        (short(*web), f64::from(self.graph.of(*web).uses) / f64::from(degrees[web.0 as usize]))
                    };
                    let Some(web) = left.iter().copied().min_by(|a, b| {
                        let ((short_a, a), (short_b, b)) = (cost(a), cost(b));
                        short_a.cmp(&short_b).then(a.total_cmp(&b))
                    }) else {
                        return order;
                    };
                    web
                }
            };
            bits::remove(&mut waiting, web.0);
            order.push(web);
            for other in bits::members(self.graph.neighbours(web)).filter(|n| bits::contains(&waiting, *n)) {
                let at = other as usize;
                if degrees[at] == room[at] {
                    easy.push(Register(other));
                }
                degrees[at] -= 1;
            }
        }
    }

    /// The registers that no neighbour has, as bits.
    fn free(&self, web: Register) -> u16 {
        let of = self.graph.of(web);
        let all = if of.crosses_call { SAVED } else { ALL };
        // Parameters are moved to their places as if all at once, by way of r0.
        let kept = if of.parameter { bit(Reg::R0) } else { 0 };
        all & !self.taken[web.0 as usize] & !kept
    }

    /// The register that saves most copies, among those that are free.
    fn choose(&self, web: Register) -> Option<Reg> {
        let (free, of) = (self.free(web), self.graph.of(web));
        let akin = of.akin.iter().filter_map(|r| self.registers[self.graph.web(*r).0 as usize]);
        let first = |set: u16| ORDER.into_iter().find(|reg| set & bit(*reg) != 0);
        let wanted = of.wanted.into_iter().chain(akin).find(|reg| free & bit(*reg) != 0);
        wanted.or_else(|| first(free & !self.wanted_by_neighbours(web))).or_else(|| first(free))
    }

    /// The registers in which neighbours without one yet would have their values, as bits.
    fn wanted_by_neighbours(&self, web: Register) -> u16 {
        let neighbours = bits::members(self.graph.neighbours(web)).map(Register);
        let without = neighbours.filter(|n| self.registers[n.0 as usize].is_none());
        without.filter_map(|n| self.graph.of(n).wanted).fold(0, |set, reg| set | bit(reg))
    }
}

fn bit(reg: Reg) -> u16 {
    1 << reg as u16
}
