//! Where each virtual register is alive.
//!
//! A register is alive from where it is assigned to where it is read for the last time, over all paths.

use super::bits::{self, Rows};
use crate::ir::{BlockId, Function, Operation, OperationKind, Register, build_order};

/// What is known of a function's registers.
pub struct Liveness {
    /// The blocks that can be reached, those that lead to a block before it.
    pub order: Vec<BlockId>,
    pub has_loops: bool,
    /// By block: the registers alive at its start.
    live_in: Rows,
    /// By block: those alive at its end, before that is read.
    live_out: Rows,
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

/// By block, what each of its operations is needed for.
pub struct Needs {
    /// Where each block's begin, and the last ones end.
    starts: Vec<usize>,
    all: Vec<Need>,
}

impl Needs {
    /// All of them for nothing.
    pub fn nothing(function: &Function) -> Needs {
        let mut starts = vec![0];
        starts.extend(function.blocks.iter().scan(0, |sum, block| {
            *sum += block.operations.len();
            Some(*sum)
        }));
        let all = vec![Need::Nothing; starts[function.blocks.len()]];
        Needs { starts, all }
    }

    pub fn of(&self, block: BlockId) -> &[Need] {
        let at = block.0 as usize;
        &self.all[self.starts[at]..self.starts[at + 1]]
    }

    pub fn set(&mut self, block: BlockId, operation: usize, need: Need) {
        self.all[self.starts[block.0 as usize] + operation] = need;
    }
}

/// Analyses a function that [`crate::ir::check`] has accepted, going through its blocks from the last in their order to
/// the first, and through each from its end to its start. `visit` gets each operation, what it is needed for, and the
/// set of registers alive behind it, what it assigns among them; `entered`, those alive at a block's start.
pub fn analyse<'f>(
    function: &'f Function,
    mut visit: impl FnMut(BlockId, usize, &'f Operation, Need, &[u64]),
    mut entered: impl FnMut(BlockId, &[u64]),
) -> Liveness {
    let order = build_order(function);
    let has_loops = has_loops(function, &order);
    let [live_in, live_out] = [(); 2].map(|()| Rows::new(function.blocks.len(), function.registers as usize));
    let mut live = Liveness { order, has_loops, live_in, live_out };
    let mut alive = Vec::new();
    // Without loops one round tells all, as what a block leads to comes before it. With some, what is told of one round
    // is what the next finds unchanged.
    let mut settled = !has_loops;
    loop {
        let mut changed = false;
        for id in live.order.iter().rev() {
            let (at, body) = (id.0 as usize, &function.blocks[id.0 as usize]);
            for next in body.end.successors() {
                bits::add(live.live_out.row_mut(at), live.live_in.row(next.0 as usize));
            }
            alive.clear();
            alive.extend_from_slice(live.live_out.row(at));
            body.end.reads().for_each(|register| bits::insert(&mut alive, register.0));
            for (n, operation) in body.operations.iter().enumerate().rev() {
                let need = need(&operation.kind, &alive);
                if settled {
                    visit(*id, n, operation, need, &alive);
                }
                step(&operation.kind, need, &mut alive);
            }
            if settled {
                entered(*id, &alive);
            }
            if alive != live.live_in.row(at) {
                live.live_in.row_mut(at).copy_from_slice(&alive);
                changed = true;
            }
        }
        if settled {
            return live;
        }
        settled = !changed;
    }
}

fn has_loops(function: &Function, order: &[BlockId]) -> bool {
    let mut seen = vec![false; function.blocks.len()];
    order.iter().any(|id| {
        seen[id.0 as usize] = true;
        function.blocks[id.0 as usize].end.successors().any(|next| seen[next.0 as usize])
    })
}

impl Liveness {
    /// What is alive at the start of a block.
    pub fn into(&self, block: BlockId) -> impl Iterator<Item = Register> {
        bits::members(self.live_in.row(block.0 as usize)).map(Register)
    }

    /// What is alive at the end of a block, before that is read.
    pub fn out(&self, block: BlockId) -> impl Iterator<Item = Register> {
        bits::members(self.live_out.row(block.0 as usize)).map(Register)
    }
}

/// What an operation is needed for, where these are alive behind it.
fn need(kind: &OperationKind, alive: &[u64]) -> Need {
    match kind.writes() {
        Some(to) if bits::contains(alive, to.0) => Need::Value,
        _ if kind.is_pure() => Need::Nothing,
        _ => Need::Effect,
    }
}

/// Takes `alive` from behind an operation to before it.
fn step(kind: &OperationKind, need: Need, alive: &mut [u64]) {
    if need == Need::Nothing {
        return;
    }
    if let Some(to) = kind.writes() {
        bits::remove(alive, to.0);
    }
    kind.reads().for_each(|register| bits::insert(alive, register.0));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{AluOp, Cond, FunctionBuilder};

    #[test]
    fn a_register_is_alive_over_all_paths_and_no_longer() {
        let mut b = FunctionBuilder::new("f", None, 1);
        let x = b.parameter(0);
        let (body, done, sum) = (b.block(), b.block(), b.register());
        b.set(sum, 0);
        let unused = b.alu(AluOp::Add, x, 1);
        b.jump(body);
        b.enter(body);
        let next = b.alu(AluOp::Add, sum, x);
        b.copy(sum, next);
        b.branch(Cond::Lt, sum, 100, body, done);
        b.enter(done);
        b.ret(sum);
        let function = b.finish();
        let (mut at_start, mut needs) = (Vec::new(), Vec::new());
        analyse(
            &function,
            |_, _, operation, need, _| needs.push((operation.kind.writes(), need)),
            |_, alive| {
                at_start.push(bits::members(alive).map(Register).collect::<Vec<_>>());
            },
        );
        assert_eq!(at_start, [vec![sum], vec![x, sum], vec![x]]);
        assert!(needs.contains(&(Some(unused), Need::Nothing)));
        assert!(needs.contains(&(Some(next), Need::Value)));
    }
}
