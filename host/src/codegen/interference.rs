//! Which virtual registers cannot share a place, and which had better.
//!
//! Two registers *interfere* where one is assigned while the other is alive and holds something else. Registers that
//! one copies to the other and that do not interfere are made one *web*, and the copy goes. What is alive across a call
//! cannot live in a register that calls overwrite.

use std::ops::Range;

use smallvec::SmallVec;

use super::liveness::{self, Liveness, Need, Needs};
use crate::bpf::Reg;
use crate::ir::{AluOp, BlockId, Function, Operand, OperationKind, Register};

/// Registers, seldom more than `N`.
pub type Few<const N: usize> = SmallVec<[Register; N]>;

/// The registers that arguments are passed in.
pub const ARGUMENTS: [Reg; 5] = [Reg::R1, Reg::R2, Reg::R3, Reg::R4, Reg::R5];
/// How much more often a loop's body is counted than what stands outside.
const LOOP: u32 = 8;

/// Webs by the register that stands for each.
pub struct Graph {
    parents: Vec<Register>,
    edges: Edges,
    pub webs: Vec<Web>,
    /// What operations are needed for.
    pub needs: Needs,
}

/// What is known of a web.
#[derive(Clone, Default)]
pub struct Web {
    pub members: Few<2>,
    /// How often it is read and assigned, more in loops.
    pub uses: u32,
    pub crosses_call: bool,
    /// A function's parameter.
    pub parameter: bool,
    /// The register in which its value is wanted, or comes.
    pub wanted: Option<Reg>,
    /// What it is computed from or what is computed from it by an instruction that works in place: a copy is saved
    /// where both share a register.
    pub akin: Few<2>,
}

impl Graph {
    /// The register that stands for the web.
    pub fn web(&self, mut register: Register) -> Register {
        while self.parents[register.0 as usize] != register {
            register = self.parents[register.0 as usize];
        }
        register
    }

    /// The webs, by the registers that stand for them.
    pub fn roots(&self) -> impl Iterator<Item = Register> + '_ {
        (0..self.parents.len() as u32).map(Register).filter(|r| self.parents[r.0 as usize] == *r)
    }

    pub fn of(&self, register: Register) -> &Web {
        &self.webs[register.0 as usize]
    }

    /// Whom a web cannot share a place with.
    pub fn neighbours(&self, webs: impl Iterator<Item = Register>) -> Neighbours {
        let mut all = Neighbours { places: vec![0..0; self.webs.len()], webs: Vec::new() };
        // A bit for each, so that they come in their order and each once.
        let mut set = vec![0u64; self.webs.len().div_ceil(64)];
        for web in webs {
            for other in self.edges(web) {
                let other = self.web(other).0;
                set[other as usize / 64] |= 1 << (other % 64);
            }
            let start = all.webs.len();
            for (word, base) in set.iter_mut().zip((0u32..).step_by(64)) {
                while *word != 0 {
                    all.webs.push(Register(base + word.trailing_zeros()));
                    *word &= *word - 1;
                }
            }
            all.places[web.0 as usize] = start..all.webs.len();
        }
        all
    }

    /// The registers that interfere with a web's members, some more than once.
    fn edges(&self, web: Register) -> impl Iterator<Item = Register> + '_ {
        self.of(web).members.iter().flat_map(|member| self.edges.of(*member)).copied()
    }

    /// Makes two webs one, unless they interfere.
    fn unite(&mut self, a: Register, b: Register) {
        let (a, b) = (self.web(a), self.web(b));
        let count = |web| self.of(web).members.iter().map(|member| self.edges.of(*member).len()).sum::<usize>();
        let (few, other) = if count(a) < count(b) { (a, b) } else { (b, a) };
        if a == b || self.edges(few).any(|r| self.web(r) == other) {
            return;
        }
        self.parents[few.0 as usize] = other;
        let web = std::mem::take(&mut self.webs[few.0 as usize]);
        let into = &mut self.webs[other.0 as usize];
        into.members.extend(web.members);
        into.uses += web.uses;
        into.crosses_call |= web.crosses_call;
        into.parameter |= web.parameter;
        into.wanted = into.wanted.or(web.wanted);
        into.akin.extend(web.akin);
    }
}

/// By register, those that it interferes with, some more than once: all in one piece.
struct Edges {
    /// Where each register's begin, and the last ones end.
    starts: Vec<u32>,
    ends: Vec<Register>,
}

impl Edges {
    fn new(registers: usize, pairs: &[(Register, Register)]) -> Edges {
        let mut starts = vec![0; registers + 1];
        let both = || pairs.iter().flat_map(|(a, b)| [(*a, *b), (*b, *a)]);
        both().for_each(|(one, _)| starts[one.0 as usize] += 1);
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        // Each is filled from its end, and what was its end becomes its start.
        let mut ends = vec![Register(0); sum as usize];
        for (one, other) in both() {
            let at = &mut starts[one.0 as usize];
            *at -= 1;
            ends[*at as usize] = other;
        }
        Edges { starts, ends }
    }

    fn of(&self, register: Register) -> &[Register] {
        let at = register.0 as usize;
        &self.ends[self.starts[at] as usize..self.starts[at + 1] as usize]
    }
}

/// By web, the webs that it cannot share a place with, in their order, each once.
pub struct Neighbours {
    places: Vec<Range<usize>>,
    webs: Vec<Register>,
}

impl Neighbours {
    pub fn of(&self, web: Register) -> &[Register] {
        &self.webs[self.places[web.0 as usize].clone()]
    }
}

/// Whether `a op b` is `b op a`.
pub fn commutes(op: AluOp) -> bool {
    matches!(op, AluOp::Add | AluOp::Mul | AluOp::And | AluOp::Or | AluOp::Xor)
}

/// Who interferes with whom; and where all registers are alive.
pub fn build(function: &Function) -> (Graph, Liveness) {
    let count = function.registers as usize;
    let mut crosses_call = vec![false; count];
    let mut pairs = Vec::new();
    let mut connect = |one: Register, other: Register| {
        if one != other {
            pairs.push((one, other));
        }
    };
    let mut needs = Needs::nothing(function);
    let mut at_entry = Vec::new();
    let live = liveness::analyse(
        function,
        |block, at, operation, need, alive| {
            let to = operation.kind.writes();
            if let OperationKind::Call { .. } = operation.kind {
                alive.iter().filter(|r| Some(*r) != to).for_each(|r| crosses_call[r.0 as usize] = true);
            }
            if let (Some(to), Need::Value) = (to, need) {
                let copied = if let OperationKind::Copy { from, .. } = operation.kind { Some(from) } else { None };
                alive.iter().filter(|r| Some(*r) != copied).for_each(|r| connect(to, r));
            }
            needs.set(block, at, need);
        },
        |block, alive| {
            if block == BlockId(0) {
                at_entry.extend(alive.iter());
            }
        },
    );
    for parameter in &function.parameters {
        at_entry.iter().for_each(|r| connect(*parameter, *r));
    }

    let mut webs: Vec<Web> = crosses_call
        .into_iter()
        .zip(0..)
        .map(|(crosses_call, n)| Web { members: Few::from_slice(&[Register(n)]), crosses_call, ..Web::default() })
        .collect();
    wants(function, &mut webs);
    let mut copies = Vec::new();
    let weights = weights(function, &live);
    for block in &live.order {
        let (body, weight) = (&function.blocks[block.0 as usize], weights[block.0 as usize]);
        body.end.reads().for_each(|r| webs[r.0 as usize].uses += weight);
        for (operation, need) in
            body.operations.iter().zip(needs.of(*block)).rev().filter(|(_, n)| **n != Need::Nothing)
        {
            let kind = &operation.kind;
            kind.reads().for_each(|r| webs[r.0 as usize].uses += weight);
            let Some(to) = kind.writes().filter(|_| *need == Need::Value) else { continue };
            webs[to.0 as usize].uses += weight;
            let mut akin = |from: Register| {
                webs[to.0 as usize].akin.push(from);
                webs[from.0 as usize].akin.push(to);
            };
            match kind {
                OperationKind::Copy { from, .. } => copies.push((to, *from)),
                OperationKind::Alu { op, left, right, .. } => {
                    akin(*left);
                    // The left operand is moved to where the result goes before the right one is read.
                    if let Some(right) = right.register().filter(|right| !commutes(*op) && right != left) {
                        connect(to, right);
                    }
                }
                // The value is moved to where the result goes before the address is read.
                OperationKind::Atomic { at, .. } => at.register().into_iter().for_each(|base| connect(to, base)),
                OperationKind::Extend { from, .. } | OperationKind::ByteSwap { from, .. } => akin(*from),
                _ => {}
            }
        }
    }
    let parents = (0..count as u32).map(Register).collect();
    let mut graph = Graph { parents, edges: Edges::new(count, &pairs), webs, needs };
    copies.iter().for_each(|(to, from)| graph.unite(*to, *from));
    (graph, live)
}

/// How often each block is taken to run.
fn weights(function: &Function, live: &Liveness) -> Vec<u32> {
    let mut position = vec![usize::MAX; function.blocks.len()];
    live.order.iter().zip(0..).for_each(|(block, at)| position[block.0 as usize] = at);
    let mut weights = vec![1; function.blocks.len()];
    for (block, at) in live.order.iter().zip(0..) {
        for head in function.blocks[block.0 as usize].end.successors().map(|b| position[b.0 as usize]) {
            // What goes back closes a loop, whose blocks stand between.
            for inside in live.order.get(head..=at).unwrap_or_default() {
                weights[inside.0 as usize] = LOOP;
            }
        }
    }
    weights
}

/// Notes in which register each value will be wanted, or comes.
fn wants(function: &Function, webs: &mut [Web]) {
    for (parameter, reg) in function.parameters.iter().zip(ARGUMENTS) {
        webs[parameter.0 as usize].wanted = Some(reg);
        webs[parameter.0 as usize].parameter = true;
    }
    let operations = || function.blocks.iter().flat_map(|b| &b.operations);
    for operation in operations() {
        if let OperationKind::Call { arguments, .. } = &operation.kind {
            for (argument, reg) in arguments.iter().zip(ARGUMENTS) {
                if let Operand::Register(register) = argument {
                    webs[register.0 as usize].wanted.get_or_insert(reg);
                }
            }
        }
    }
    // A value that is only changed on its way to a call is best made where the call wants it.
    for operation in function.blocks.iter().rev().flat_map(|b| b.operations.iter().rev()) {
        if let OperationKind::Alu { to, left: from, .. } | OperationKind::Copy { to, from } = &operation.kind
            && let Some(reg) = webs[to.0 as usize].wanted
        {
            webs[from.0 as usize].wanted.get_or_insert(reg);
        }
    }
    for operation in operations() {
        if let OperationKind::Call { to: Some(to), .. } = &operation.kind {
            webs[to.0 as usize].wanted.get_or_insert(Reg::R0);
        }
    }
}
