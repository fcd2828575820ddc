//! Which virtual registers cannot share a place, and which had better.
//!
//! Two registers *interfere* where one is assigned while the other is alive and holds something else. Registers that
//! one copies to the other and that do not interfere are made one *web*, and the copy goes. What is alive across a call
//! cannot live in a register that calls overwrite.

use smallvec::{SmallVec, smallvec};

use super::bits::{self, Rows};
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
    /// By the register that stands for a web, the webs that it cannot share a place with. What stands there for other
    /// registers is not kept up.
    interfering: Rows,
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
    pub fn neighbours(&self, web: Register) -> &[u64] {
        self.interfering.row(web.0 as usize)
    }

    /// Makes two webs one, unless they interfere.
    fn unite(&mut self, a: Register, b: Register) {
        let (a, b) = (self.web(a), self.web(b));
        if a == b || bits::contains(self.neighbours(a), b.0) {
            return;
        }
        let count = |web| bits::count(self.neighbours(web));
        let (few, other) = if count(a) < count(b) { (a, b) } else { (b, a) };
        let neighbours: Few<16> = bits::members(self.neighbours(few)).map(Register).collect();
        for neighbour in neighbours {
            let row = self.interfering.row_mut(neighbour.0 as usize);
            bits::remove(row, few.0);
            bits::insert(row, other.0);
        }
        self.interfering.add(other.0 as usize, few.0 as usize);
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

/// Whether `a op b` is `b op a`.
pub fn commutes(op: AluOp) -> bool {
    matches!(op, AluOp::Add | AluOp::Mul | AluOp::And | AluOp::Or | AluOp::Xor)
}

/// Who interferes with whom; and where all registers are alive.
pub fn build(function: &Function) -> (Graph, Liveness) {
    let count = function.registers as usize;
    let mut interfering = Rows::new(count, count);
    let mut crossing = Rows::new(1, count);
    let mut needs = Needs::nothing(function);
    let mut at_entry = Vec::new();
    let live = liveness::analyse(
        function,
        |block, at, operation, need, alive| {
            let to = operation.kind.writes();
            if let OperationKind::Call { .. } = operation.kind {
                bits::add_but(crossing.row_mut(0), alive, to.map(|to| to.0));
            }
            if let (Some(to), Need::Value) = (to, need) {
                let copied = if let OperationKind::Copy { from, .. } = operation.kind { Some(from.0) } else { None };
                bits::add_but(interfering.row_mut(to.0 as usize), alive, copied);
            }
            needs.set(block, at, need);
        },
        |block, alive| {
            if block == BlockId(0) {
                at_entry.extend_from_slice(alive);
            }
        },
    );
    for parameter in &function.parameters {
        bits::add(interfering.row_mut(parameter.0 as usize), &at_entry);
    }
    let crosses_call = |n| bits::contains(crossing.row(0), n);
    let web = |n| Web { members: smallvec![Register(n)], crosses_call: crosses_call(n), ..Web::default() };
    let mut webs: Vec<Web> = (0..function.registers).map(web).collect();
    wants(function, &mut webs);
    let mut copies = Vec::new();
    let mut connect = |one: Register, other: Register| bits::insert(interfering.row_mut(one.0 as usize), other.0);
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
    interfering.mirror();
    let mut graph = Graph { parents, interfering, webs, needs };
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
