//! Which virtual registers cannot share a place, and which had better.
//!
//! Two registers *interfere* where one is assigned while the other is alive and holds something else. Registers that one copies to the other and that do not interfere
//! are made one *web*, and the copy goes. What is alive across a call cannot live in a register that calls overwrite.

use smallvec::SmallVec;

use super::liveness::{Liveness, Need};
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
    /// By register; where one has been made part of another's web, the latter has them.
    edges: Vec<Few<8>>,
    pub webs: Vec<Web>,
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
    /// What it is computed from or what is computed from it by an instruction that works in place: a copy is saved where both share a register.
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

    /// The webs that this one cannot share a place with, sorted, each once.
    pub fn neighbours(&self, web: Register) -> Few<8> {
        let mut all: Few<8> = self.edges[web.0 as usize].iter().map(|r| self.web(*r)).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    fn connect(&mut self, a: Register, b: Register) {
        if a != b {
            self.edges[a.0 as usize].push(b);
            self.edges[b.0 as usize].push(a);
        }
    }

    /// Makes two webs one, unless they interfere.
    fn unite(&mut self, a: Register, b: Register) {
        let (a, b) = (self.web(a), self.web(b));
        let (few, other) =
            if self.edges[a.0 as usize].len() < self.edges[b.0 as usize].len() { (a, b) } else { (b, a) };
        if a == b || self.edges[few.0 as usize].iter().any(|r| self.web(*r) == other) {
            return;
        }
        self.parents[few.0 as usize] = other;
        let edges = std::mem::take(&mut self.edges[few.0 as usize]);
        self.edges[other.0 as usize].extend(edges);
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

/// Whether `a op b` is `b op a`.
pub fn commutes(op: AluOp) -> bool {
    matches!(op, AluOp::Add | AluOp::Mul | AluOp::And | AluOp::Or | AluOp::Xor)
}

/// Who interferes with whom.
pub fn build(function: &Function, live: &Liveness) -> Graph {
    let count = function.registers as usize;
    let weights = weights(function, live);
    let mut webs = vec![Web::default(); count];
    wants(function, &mut webs);
    webs.iter_mut().zip(0..).for_each(|(web, n)| web.members.push(Register(n)));
    let mut graph = Graph { parents: (0..count as u32).map(Register).collect(), edges: vec![Few::new(); count], webs };
    let mut copies = Vec::new();
    let mut at_entry = Vec::new();
    live.walk(
        function,
        |block, _, operation, need, alive| {
            let weight = weights[block.0 as usize];
            let kind = &operation.kind;
            if need == Need::Nothing {
                return;
            }
            kind.reads().for_each(|r| graph.webs[r.0 as usize].uses += weight);
            let to = kind.writes();
            if let OperationKind::Call { .. } = kind {
                alive.iter().filter(|r| Some(*r) != to).for_each(|r| graph.webs[r.0 as usize].crosses_call = true);
            }
            let Some(to) = to.filter(|_| need == Need::Value) else { return };
            graph.webs[to.0 as usize].uses += weight;
            let copied = if let OperationKind::Copy { from, .. } = kind { Some(*from) } else { None };
            alive.iter().filter(|r| Some(*r) != copied).for_each(|r| graph.connect(to, r));
            match kind {
                OperationKind::Copy { from, .. } => copies.push((to, *from)),
                OperationKind::Alu { op, left, right, .. } => {
                    graph.webs[to.0 as usize].akin.push(*left);
                    graph.webs[left.0 as usize].akin.push(to);
                    // The left operand is moved to where the result goes before the right one is read.
                    if let Some(right) = right.register().filter(|right| !commutes(*op) && right != left) {
                        graph.connect(to, right);
                    }
                }
                // The value is moved to where the result goes before the address is read.
                OperationKind::Atomic { at, .. } => at.register().into_iter().for_each(|base| graph.connect(to, base)),
                OperationKind::Extend { from, .. } | OperationKind::ByteSwap { from, .. } => {
                    graph.webs[to.0 as usize].akin.push(*from);
                    graph.webs[from.0 as usize].akin.push(to);
                }
                _ => {}
            }
        },
        |block, alive| {
            if block == BlockId(0) {
                at_entry.extend(alive.iter());
            }
        },
    );
    for block in &live.order {
        for register in function.blocks[block.0 as usize].end.reads() {
            graph.webs[register.0 as usize].uses += weights[block.0 as usize];
        }
    }
    for parameter in &function.parameters {
        at_entry.iter().for_each(|r| graph.connect(*parameter, *r));
    }
    // Each pair has been noted as often as it was seen.
    graph.edges.iter_mut().for_each(|edges| {
        edges.sort_unstable();
        edges.dedup();
    });
    copies.iter().for_each(|(to, from)| graph.unite(*to, *from));
    graph
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
