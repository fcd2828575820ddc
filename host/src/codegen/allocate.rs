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

use super::frame::{Interval, Lives, frame};
use super::interference::{self, Graph, Neighbours, Web};
use super::liveness::Needs;
use super::spill::{Home, spill};
use super::tidy::tidy;
use crate::bpf::Reg;
use crate::ir::{Block, BlockId, Function, Operation, OperationKind, Register, Slot, SlotId, Terminator};

/// Alive across calls.
const SAVED: [Reg; 4] = [Reg::R6, Reg::R7, Reg::R8, Reg::R9];
/// What calls overwrite first, so that the others stay free for what needs them.
const ALL: [Reg; 10] = [Reg::R1, Reg::R2, Reg::R3, Reg::R4, Reg::R5, Reg::R0, Reg::R6, Reg::R7, Reg::R8, Reg::R9];

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
    let neighbours = graph.neighbours(used.iter().copied());
    let mut scan = Colouring { graph, neighbours, registers: vec![None; count], taken: vec![0; count] };
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
    neighbours: Neighbours,
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
                    self.neighbours.of(web).iter().for_each(|n| self.taken[n.0 as usize] |= 1 << reg as u16);
                }
                None => victims.push(web),
            }
        }
        victims
    }

    /// The webs in the order in which they are set aside; the last is to be coloured first.
    fn set_aside(&self, webs: &[Register], short: &dyn Fn(Register) -> bool) -> Vec<Register> {
        let mut waiting = vec![false; self.registers.len()];
        webs.iter().for_each(|web| waiting[web.0 as usize] = true);
        let mut degrees = vec![0; self.registers.len()];
        let mut room = vec![0; self.registers.len()];
        for web in webs {
            degrees[web.0 as usize] = self.neighbours.of(*web).iter().filter(|n| waiting[n.0 as usize]).count();
            room[web.0 as usize] = self.free(*web).count();
        }
        let mut easy: Vec<Register> =
            webs.iter().copied().filter(|w| degrees[w.0 as usize] < room[w.0 as usize]).collect();
        let mut order = Vec::new();
        let mut left: Vec<Register> = webs.to_vec();
        loop {
            let web = match easy.pop() {
                Some(web) if !waiting[web.0 as usize] => continue,
                Some(web) => web,
                None => {
                    left.retain(|web| waiting[web.0 as usize]);
                    // The least use for the most neighbours: it is missed least, and in the way most.
                    let cost = |web: &Register| {
                        (short(*web), f64::from(self.graph.of(*web).uses) / degrees[web.0 as usize] as f64)
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
            waiting[web.0 as usize] = false;
            order.push(web);
            for other in self.neighbours.of(web).iter().filter(|n| waiting[n.0 as usize]) {
                let at = other.0 as usize;
                if degrees[at] == room[at] {
                    easy.push(*other);
                }
                degrees[at] -= 1;
            }
        }
    }

    /// The registers that no neighbour has, those first that are taken first.
    fn free(&self, web: Register) -> impl Iterator<Item = Reg> + Clone {
        let &Web { crosses_call, parameter, .. } = self.graph.of(web);
        let all: &[Reg] = if crosses_call { &SAVED } else { &ALL };
        let taken = self.taken[web.0 as usize];
        // Parameters are moved to their places as if all at once, by way of r0.
        all.iter().copied().filter(move |reg| taken & 1 << *reg as u16 == 0 && !(parameter && *reg == Reg::R0))
    }

    /// The register that saves most copies, among those that are free.
    fn choose(&self, web: Register) -> Option<Reg> {
        let mut free = self.free(web);
        let of = self.graph.of(web);
        let akin = of.akin.iter().filter_map(|r| self.registers[self.graph.web(*r).0 as usize]);
        let is_free = |reg: &Reg| free.clone().any(|free| free == *reg);
        let neighbours = self.neighbours.of(web).iter();
        let others = neighbours
            .filter(|n| self.registers[n.0 as usize].is_none())
            .filter_map(|n| self.graph.of(*n).wanted)
            .fold(0u16, |set, reg| set | 1 << reg as u16);
        of.wanted
            .into_iter()
            .chain(akin)
            .find(is_free)
            .or_else(|| free.clone().find(|reg| others & 1 << *reg as u16 == 0))
            .or_else(|| free.next())
    }
}
