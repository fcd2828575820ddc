//! Where each virtual register is alive.
//!
//! A register is alive from where it is assigned to where it is read for the last time, over all paths. Most registers
//! live and die within one block, so sets that go from block to block hold only the others, the *global* ones: a
//! function of thousands of registers has few of these.

use crate::ir::{BlockId, Function, Operation, OperationKind, Register, build_order};

/// A set of global registers for each block, by their numbers among these: all in one piece.
struct Sets {
    words: usize,
    bits: Vec<u64>,
}

impl Sets {
    fn new(blocks: usize, globals: usize) -> Sets {
        let words = globals.div_ceil(64);
        Sets { words, bits: vec![0; blocks * words] }
    }

    fn of(&self, block: BlockId) -> &[u64] {
        &self.bits[block.0 as usize * self.words..][..self.words]
    }

    fn of_mut(&mut self, block: BlockId) -> &mut [u64] {
        &mut self.bits[block.0 as usize * self.words..][..self.words]
    }

    fn members(&self, block: BlockId) -> impl Iterator<Item = u32> {
        self.of(block).iter().zip(0u32..).flat_map(|(word, n)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros();
                left &= left.wrapping_sub(1);
                (bit < 64).then_some(n * 64 + bit)
            })
        })
    }
}

/// The registers alive at one place; it costs as much as it holds.
pub struct Alive {
    members: Vec<Register>,
    /// By register: its index among the members, and something else where it is none.
    at: Vec<u32>,
}

impl Alive {
    fn new(registers: u32) -> Alive {
        Alive { members: Vec::new(), at: vec![0; registers as usize] }
    }

    pub fn contains(&self, register: Register) -> bool {
        self.members.get(self.at[register.0 as usize] as usize) == Some(&register)
    }

    pub fn iter(&self) -> impl Iterator<Item = Register> + '_ {
        self.members.iter().copied()
    }

    fn insert(&mut self, register: Register) {
        if !self.contains(register) {
            self.at[register.0 as usize] = self.members.len() as u32;
            self.members.push(register);
        }
    }

    fn remove(&mut self, register: Register) {
        if self.contains(register) {
            let at = self.at[register.0 as usize];
            self.members.swap_remove(at as usize);
            if let Some(moved) = self.members.get(at as usize) {
                self.at[moved.0 as usize] = at;
            }
        }
    }
}

/// What is known of a function's registers.
pub struct Liveness {
    /// The blocks that can be reached, those that lead to a block before it.
    pub order: Vec<BlockId>,
    pub has_loops: bool,
    /// By block: the global registers alive at its start.
    live_in: Sets,
    /// By block: the global registers alive at its end.
    live_out: Sets,
    /// The global registers.
    globals: Vec<Register>,
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
/// registers alive behind it, what it assigns among them; `entered`, the registers alive at a block's start.
pub fn analyse<'f>(
    function: &'f Function,
    mut visit: impl FnMut(BlockId, usize, &'f Operation, Need, &Alive),
    mut entered: impl FnMut(BlockId, &Alive),
) -> Liveness {
    let order = build_order(function);
    let globals = globals(function);
    let mut number = vec![None; function.registers as usize];
    globals.iter().zip(0u32..).for_each(|(register, n)| number[register.0 as usize] = Some(n));
    let [live_in, live_out] = [(); 2].map(|()| Sets::new(function.blocks.len(), globals.len()));
    let mut set = vec![0; live_in.words];
    let has_loops = has_loops(function, &order);
    let mut live = Liveness { order, has_loops, live_in, live_out, globals };
    let mut alive = Alive::new(function.registers);
    // Without loops one round tells all, as what a block leads to comes before it. With some, what is told of one round
    // is what the next finds unchanged.
    let mut settled = !has_loops;
    loop {
        let mut changed = false;
        for id in live.order.iter().rev() {
            let body = &function.blocks[id.0 as usize];
            for next in body.end.successors() {
                live.live_out.of_mut(*id).iter_mut().zip(live.live_in.of(next)).for_each(|(a, b)| *a |= b);
            }
            live.at_end(*id, function, &mut alive);
            for (at, operation) in body.operations.iter().enumerate().rev() {
                if settled {
                    visit(*id, at, operation, need(&operation.kind, &alive), &alive);
                }
                step(&operation.kind, &mut alive);
            }
            if settled {
                entered(*id, &alive);
            }
            set.fill(0);
            alive.iter().filter_map(|r| number[r.0 as usize]).for_each(|n| set[n as usize / 64] |= 1u64 << (n % 64));
            if set != live.live_in.of(*id) {
                live.live_in.of_mut(*id).copy_from_slice(&set);
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

/// The registers that are read in a block before they are assigned there.
fn globals(function: &Function) -> Vec<Register> {
    let mut found = vec![false; function.registers as usize];
    let mut assigned_in = vec![usize::MAX; function.registers as usize];
    for (body, at) in function.blocks.iter().zip(0..) {
        let read = |register: Register, assigned_in: &[usize], found: &mut [bool]| {
            found[register.0 as usize] |= assigned_in[register.0 as usize] != at;
        };
        for operation in &body.operations {
            operation.kind.reads().for_each(|r| read(r, &assigned_in, &mut found));
            if let Some(to) = operation.kind.writes() {
                assigned_in[to.0 as usize] = at;
            }
        }
        body.end.reads().for_each(|r| read(r, &assigned_in, &mut found));
    }
    (0..function.registers).map(Register).filter(|r| found[r.0 as usize]).collect()
}

impl Liveness {
    /// Makes `alive` what is alive before the end of a block is read.
    fn at_end(&self, block: BlockId, function: &Function, alive: &mut Alive) {
        alive.members.clear();
        for global in self.live_out.members(block) {
            alive.insert(self.globals[global as usize]);
        }
        function.blocks[block.0 as usize].end.reads().for_each(|register| alive.insert(register));
    }

    /// What is alive at the start of a block and not only within it.
    pub fn into(&self, block: BlockId) -> impl Iterator<Item = Register> {
        self.live_in.members(block).map(|n| self.globals[n as usize])
    }

    /// What is alive at the end of a block.
    pub fn out(&self, block: BlockId) -> impl Iterator<Item = Register> {
        self.live_out.members(block).map(|n| self.globals[n as usize])
    }
}

/// What an operation is needed for, where these are alive behind it.
fn need(kind: &OperationKind, alive: &Alive) -> Need {
    match kind.writes() {
        Some(to) if alive.contains(to) => Need::Value,
        _ if kind.is_pure() => Need::Nothing,
        _ => Need::Effect,
    }
}

/// Takes `alive` from behind an operation to before it.
fn step(kind: &OperationKind, alive: &mut Alive) {
    if need(kind, alive) == Need::Nothing {
        return;
    }
    if let Some(to) = kind.writes() {
        alive.remove(to);
    }
    for register in kind.reads() {
        alive.insert(register);
    }
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
                let mut registers: Vec<Register> = alive.iter().collect();
                registers.sort();
                at_start.push(registers);
            },
        );
        assert_eq!(at_start, [vec![sum], vec![x, sum], vec![x]]);
        assert!(needs.contains(&(Some(unused), Need::Nothing)));
        assert!(needs.contains(&(Some(next), Need::Value)));
    }
}
