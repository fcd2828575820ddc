//! The order in which blocks are laid out.

use crate::ir::{BlockId, Function, Terminator};

/// The blocks that can be reached, each with the one behind it that it goes to, where that has no place yet: so the
/// straight way needs no jumps, and what a branch's `then` leaves it for stands behind it. (The order of
/// [`crate::ir::build_order`] puts a block behind all that lead to it, the ways out of the straight one among them, and
/// would have the straight way jump over these.)
pub fn layout(function: &Function) -> Vec<BlockId> {
    let mut order = Vec::new();
    let mut placed = vec![false; function.blocks.len()];
    let mut left = std::collections::VecDeque::from([BlockId(0)]);
    while let Some(start) = left.pop_front() {
        let mut next = Some(start);
        while let Some(block) = next.filter(|b| !std::mem::replace(&mut placed[b.0 as usize], true)) {
            order.push(block);
            next = match function.blocks[block.0 as usize].end {
                Terminator::Jump(to) => Some(to),
                Terminator::Branch { then, otherwise, .. } => {
                    left.push_back(then);
                    left.push_back(otherwise);
                    Some(if placed[otherwise.0 as usize] { then } else { otherwise })
                }
                Terminator::Return(_) => None,
            };
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Cond, FunctionBuilder};

    #[test]
    fn the_straight_way_comes_first() {
        let mut b = FunctionBuilder::new("f", None, 1);
        let (exit, next, join, dead) = (b.block(), b.block(), b.block(), b.block());
        let x = b.parameter(0);
        b.branch(Cond::Eq, x, 0, exit, next);
        b.enter(exit);
        b.jump(join);
        b.enter(next);
        b.jump(join);
        b.enter(join);
        b.ret(1);
        b.enter(dead);
        b.ret(2);
        assert_eq!(layout(&b.finish()), [BlockId(0), next, join, exit]);
    }
}
