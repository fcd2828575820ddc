//! The order in which a function's blocks are laid out.

use super::{BlockId, Function};

/// The blocks that can be reached, in reverse postorder: a block stands behind those that lead to it (loops aside), and
/// where a branch's `otherwise` has no earlier place, directly behind the branch. So the straight way needs no jumps.
pub fn build_order(function: &Function) -> Vec<BlockId> {
    let mut order = Vec::new();
    let mut seen = vec![false; function.blocks.len()];
    // A stack of its own instead of recursion: a function may have thousands of blocks in a row.
    let mut stack = vec![(BlockId(0), false)];
    while let Some((block, done)) = stack.pop() {
        if done {
            order.push(block);
            continue;
        }
        if std::mem::replace(&mut seen[block.0 as usize], true) {
            continue;
        }
        stack.push((block, true));
        // What is pushed first is visited last, finished last but for `block` itself, and so stands directly behind it.
        let before = stack.len();
        let next = function.blocks[block.0 as usize].end.successors();
        stack.extend(next.filter(|b| !seen[b.0 as usize]).map(|b| (b, false)));
        stack[before..].reverse();
    }
    order.reverse();
    order
}

#[cfg(test)]
mod tests {
    use super::super::{Cond, FunctionBuilder};
    use super::*;

    #[test]
    fn otherwise_follows_and_exits_come_last() {
        let mut b = FunctionBuilder::new("f", None, 1);
        let (exit, next, last, dead) = (b.block(), b.block(), b.block(), b.block());
        let x = b.parameter(0);
        b.branch(Cond::Eq, x, 0, exit, next);
        b.enter(next);
        b.branch(Cond::Eq, x, 1, exit, last);
        b.enter(last);
        b.ret(1);
        b.enter(exit);
        b.ret(0);
        b.enter(dead);
        b.ret(2);
        let order: Vec<u32> = build_order(&b.finish()).iter().map(|b| b.0).collect();
        assert_eq!(order, [0, next.0, last.0, exit.0]);
    }
}
