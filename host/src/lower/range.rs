//! Between which bounds a value lies, as far as its expression tells.
//!
//! Division is unsigned in the instruction set, and that of signed values takes seven instructions more, unless neither
//! side can be negative. Much of what is divided cannot be, without its type saying so: arithmetic gives signed values
//! of 64 bits, made of ids, sizes and differences of these.

use super::{Local, Lower};
use crate::plan::arithmetic::Op;
use crate::plan::{Node, NodeKind, Type};

/// The least and the most that a value can be, taken as a signed number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    least: i64,
    most: i64,
}

impl Range {
    const ALL: Range = Range { least: i64::MIN, most: i64::MAX };

    pub fn is_not_negative(self) -> bool {
        self.least >= 0
    }

    /// What a type holds that is extended to 64 bits.
    fn of_type(ty: &Type) -> Range {
        match ty.integer() {
            Some((bytes, false)) if bytes < 8 => Range { least: 0, most: (1 << (8 * bytes)) - 1 },
            Some((bytes, true)) if bytes < 8 => {
                let most = (1 << (8 * bytes - 1)) - 1;
                Range { least: -most - 1, most }
            }
            _ if *ty == Type::Boolean => Range { least: 0, most: 1 },
            _ => Range::ALL,
        }
    }

    /// The range of an operation that is largest and smallest where its operands are; all, where it wraps.
    fn corners(self, other: Range, op: impl Fn(i64, i64) -> Option<i64>) -> Range {
        let corners =
            [(self.least, other.least), (self.least, other.most), (self.most, other.least), (self.most, other.most)]
                .map(|(a, b)| op(a, b));
        let mut range = Range { least: i64::MAX, most: i64::MIN };
        for corner in corners {
            let Some(corner) = corner else { return Range::ALL };
            range = range.hull(Range { least: corner, most: corner });
        }
        range
    }

    fn hull(self, other: Range) -> Range {
        Range { least: self.least.min(other.least), most: self.most.max(other.most) }
    }

    /// Of operations of which the result is signed, or the same either way.
    fn of(op: Op, left: Range, right: Range) -> Range {
        match op {
            Op::Add => left.corners(right, i64::checked_add),
            Op::Subtract => left.corners(right, i64::checked_sub),
            Op::Multiply => left.corners(right, i64::checked_mul),
            Op::Divide if right.least > 0 => left.corners(right, i64::checked_div),
            Op::Remainder if right.least > 0 => {
                let most = right.most - 1;
                Range { least: left.least.clamp(-most, 0), most: left.most.clamp(0, most) }
            }
            Op::BitAnd if right.is_not_negative() => Range { least: 0, most: right.most },
            Op::BitAnd if left.is_not_negative() => Range { least: 0, most: left.most },
            _ => Range::ALL,
        }
    }
}

impl Lower<'_> {
    pub fn range(&self, node: &Node) -> Range {
        match &node.kind {
            NodeKind::Constant(value) => Range { least: *value, most: *value },
            NodeKind::Local(local) => match self.locals.get(*local as usize) {
                Some(Local::Value { range, .. }) => *range,
                _ => Range::of_type(&node.ty),
            },
            NodeKind::Arithmetic { op, unsigned, left, right } if !op.is_comparison() => {
                let (left, right) = (self.range(left), self.range(right));
                // What is not negative is the same number without a sign.
                if *unsigned && !(left.is_not_negative() && right.is_not_negative()) {
                    return Range::ALL;
                }
                Range::of(*op, left, right)
            }
            NodeKind::Conditional { then, otherwise, .. } => self.range(then).hull(self.range(otherwise)),
            _ => Range::of_type(&node.ty),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::arithmetic::evaluate;

    #[test]
    fn what_is_computed_lies_within() {
        let ends = [i64::MIN, -1_000_003, -7, -1, 0, 1, 5, 255, u32::MAX.into(), i64::MAX];
        let ranges = || ends.iter().flat_map(|&least| ends.iter().map(move |&most| Range { least, most }));
        for op in [Op::Add, Op::Subtract, Op::Multiply, Op::Divide, Op::Remainder, Op::BitAnd, Op::BitOr, Op::ShiftLeft]
        {
            for left in ranges().filter(|r| r.least <= r.most) {
                for right in ranges().filter(|r| r.least <= r.most) {
                    let range = Range::of(op, left, right);
                    for a in ends.iter().filter(|n| (left.least..=left.most).contains(n)) {
                        for b in ends.iter().filter(|n| (right.least..=right.most).contains(n)) {
                            let Some(value) = evaluate(op, false, *a, *b) else { continue };
                            assert!((range.least..=range.most).contains(&value), "{a} {op:?} {b} = {value}: {range:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn bounds_are_narrow() {
        let (id, some) = (Range { least: 0, most: u32::MAX.into() }, |n| Range { least: n, most: n });
        let scaled = Range::of(Op::Multiply, id, some(1000));
        assert_eq!(Range::of(Op::Divide, scaled, some(7)), Range { least: 0, most: i64::from(u32::MAX) * 1000 / 7 });
        assert_eq!(Range::of(Op::Remainder, Range::ALL, some(10)), Range { least: -9, most: 9 });
        assert_eq!(Range::of(Op::Subtract, some(5), id), Range { least: 5 - i64::from(u32::MAX), most: 5 });
        assert_eq!(Range::of(Op::BitAnd, Range::ALL, some(15)), Range { least: 0, most: 15 });
        assert_eq!(Range::of(Op::Add, some(i64::MAX), id), Range::ALL);
    }
}
