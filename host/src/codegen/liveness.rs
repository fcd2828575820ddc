//! Where each virtual register is alive.
//!
//! Operations are numbered in the order in which they are laid out. Each number has two positions: `2n`, where the operation reads, and `2n + 1`,
//! where it writes; so a register that is read for the last time by the operation that writes another can share its place. A register's
//! *interval* is the smallest range of positions that holds all of its life, over all paths; holes in it are not used.

use crate::ir::{BlockId, Function, OperationKind, Register, build_order};

/// A set of registers.
#[derive(Clone, PartialEq, Eq)]
struct Set(Vec<u64>);

impl Set {
    fn new(registers: u32) -> Set {
        Set(vec![0; (registers as usize).div_ceil(64)])
    }

    fn insert(&mut self, register: Register) {
        self.0[register.0 as usize / 64] |= 1 << (register.0 % 64);
    }

    fn remove(&mut self, register: Register) {
        self.0[register.0 as usize / 64] &= !(1 << (register.0 % 64));
    }

    fn contains(&self, register: Register) -> bool {
        self.0[register.0 as usize / 64] & (1 << (register.0 % 64)) != 0
    }

    fn add(&mut self, other: &Set) {
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a |= b);
    }

    fn iter(&self) -> impl Iterator<Item = Register> {
        self.0.iter().zip(0u32..).flat_map(|(word, n)| {
            (0..64).filter(move |bit| word & (1 << bit) != 0).map(move |bit| Register(n * 64 + bit))
        })
    }
}

/// Positions from the first write to the last read, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    pub start: u32,
    pub end: u32,
    /// Whether a call happens while it is alive.
    pub crosses_call: bool,
}

/// What is known of a function's registers.
pub struct Liveness {
    /// The blocks in the order in which they are laid out.
    pub order: Vec<BlockId>,
    /// By register; none for one that is never used.
    pub intervals: Vec<Option<Interval>>,
    /// For each block of the order, what each of its operations is needed for.
    pub needs: Vec<Vec<Need>>,
}

/// What an operation is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// For nothing: it can go.
    Nothing,
    /// For what it does; the register that it assigns, if any, is never read.
    Effect,
    /// For the register that it assigns.
    Value,
}

/// Analyses a function that [`crate::ir::check`] has accepted.
pub fn analyse(function: &Function) -> Liveness {
    let order = build_order(function);
    let live_out = live_out(function, &order);
    let mut intervals = vec![None; function.registers as usize];
    let mut needs = Vec::new();
    let mut calls = Vec::new();
    for parameter in &function.parameters {
        touch(&mut intervals, *parameter, 1);
    }
    // Number 0 is the function's entry, where parameters are written.
    let mut number = 1;
    for block in &order {
        let body = &function.blocks[block.0 as usize];
        let end = number + body.operations.len() as u32;
        let mut live = live_out[block.0 as usize].clone();
        for register in live.iter() {
            touch(&mut intervals, register, 2 * end + 1);
        }
        for register in body.end.reads() {
            live.insert(register);
            touch(&mut intervals, register, 2 * end);
        }
        let mut block_needs = vec![Need::Nothing; body.operations.len()];
        for (i, operation) in body.operations.iter().enumerate().rev() {
            let at = number + i as u32;
            block_needs[i] = step(&operation.kind, &mut live);
            if block_needs[i] == Need::Nothing {
                continue;
            }
            if let OperationKind::Call { .. } = operation.kind {
                calls.push(2 * at);
            }
            if let (Need::Value, Some(register)) = (block_needs[i], operation.kind.writes()) {
                touch(&mut intervals, register, 2 * at + 1);
            }
            for register in operation.kind.reads() {
                touch(&mut intervals, register, 2 * at);
            }
        }
        for register in live.iter() {
            touch(&mut intervals, register, 2 * number - 1);
        }
        needs.push(block_needs);
        number = end + 1;
    }
    calls.sort_unstable();
    for interval in intervals.iter_mut().flatten() {
        let next = calls.partition_point(|call| *call <= interval.start);
        interval.crosses_call = calls.get(next).is_some_and(|call| *call < interval.end);
    }
    Liveness { order, intervals, needs }
}

/// Takes `live` from behind an operation to before it.
fn step(kind: &OperationKind, live: &mut Set) -> Need {
    let need = match kind.writes() {
        Some(to) if live.contains(to) => Need::Value,
        _ if kind.is_pure() => return Need::Nothing,
        _ => Need::Effect,
    };
    if let Some(to) = kind.writes() {
        live.remove(to);
    }
    for register in kind.reads() {
        live.insert(register);
    }
    need
}

/// The registers alive at the end of each block.
fn live_out(function: &Function, order: &[BlockId]) -> Vec<Set> {
    let mut live_in = vec![Set::new(function.registers); function.blocks.len()];
    let mut live_out = live_in.clone();
    let mut changed = true;
    while changed {
        changed = false;
        for block in order.iter().rev() {
            let at = block.0 as usize;
            let body = &function.blocks[at];
            let mut live = Set::new(function.registers);
            for next in body.end.successors() {
                live.add(&live_in[next.0 as usize]);
            }
            live_out[at] = live.clone();
            body.end.reads().for_each(|r| live.insert(r));
            for operation in body.operations.iter().rev() {
                step(&operation.kind, &mut live);
            }
            if live != live_in[at] {
                live_in[at] = live;
                changed = true;
            }
        }
    }
    live_out
}

fn touch(intervals: &mut [Option<Interval>], register: Register, at: u32) {
    let interval = intervals[register.0 as usize].get_or_insert(Interval { start: at, end: at, crosses_call: false });
    interval.start = interval.start.min(at);
    interval.end = interval.end.max(at);
}
