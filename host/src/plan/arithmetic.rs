//! What the operators mean: the one definition that the checker folds constants with, that the tests compare generated
//! code with, and that docs/expressions.md tells in words.
//!
//! All values are 64 bits. An operation is *unsigned* where an operand is an unsigned 64-bit value; anything narrower
//! fits a signed 64-bit value and is computed as one. Sums, differences and products wrap. A shift's count is taken
//! modulo 64; `>>` of an unsigned value brings in zeroes, of a signed one copies of its sign. Division truncates
//! towards zero; by zero it is absent; the smallest value by -1 wraps to itself, remainder 0.

/// A binary operation on integers. Comparisons give 0 or 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    BitOr,
    BitXor,
    BitAnd,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    ShiftLeft,
    ShiftRight,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl Op {
    pub fn is_comparison(self) -> bool {
        matches!(self, Op::Equal | Op::NotEqual | Op::Less | Op::LessEqual | Op::Greater | Op::GreaterEqual)
    }
}

/// The value of `a op b`; none: absent.
pub fn evaluate(op: Op, unsigned: bool, a: i64, b: i64) -> Option<i64> {
    let (ua, ub) = (a as u64, b as u64);
    let compare = |signed: bool, without: bool| Some(i64::from(if unsigned { without } else { signed }));
    match op {
        Op::BitOr => Some(a | b),
        Op::BitXor => Some(a ^ b),
        Op::BitAnd => Some(a & b),
        Op::Equal => Some(i64::from(a == b)),
        Op::NotEqual => Some(i64::from(a != b)),
        Op::Less => compare(a < b, ua < ub),
        Op::LessEqual => compare(a <= b, ua <= ub),
        Op::Greater => compare(a > b, ua > ub),
        Op::GreaterEqual => compare(a >= b, ua >= ub),
        Op::ShiftLeft => Some(a << (b & 63)),
        Op::ShiftRight if unsigned => Some((ua >> (b & 63)) as i64),
        Op::ShiftRight => Some(a >> (b & 63)),
        Op::Add => Some(a.wrapping_add(b)),
        Op::Subtract => Some(a.wrapping_sub(b)),
        Op::Multiply => Some(a.wrapping_mul(b)),
        Op::Divide | Op::Remainder if b == 0 => None,
        Op::Divide if unsigned => Some((ua / ub) as i64),
        Op::Divide => Some(a.wrapping_div(b)),
        Op::Remainder if unsigned => Some((ua % ub) as i64),
        Op::Remainder => Some(a.wrapping_rem(b)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corners() {
        let all = |op, unsigned, a, b| evaluate(op, unsigned, a, b);
        assert_eq!(all(Op::Divide, false, i64::MIN, -1), Some(i64::MIN));
        assert_eq!(all(Op::Remainder, false, i64::MIN, -1), Some(0));
        assert_eq!(all(Op::Divide, false, -7, 2), Some(-3));
        assert_eq!(all(Op::Remainder, false, -7, 2), Some(-1));
        assert_eq!(all(Op::Divide, true, -1, 2), Some(i64::MAX));
        assert_eq!(all(Op::Divide, true, 1, 0), None);
        assert_eq!(all(Op::ShiftLeft, false, 1, 65), Some(2));
        assert_eq!(all(Op::ShiftRight, false, -8, 1), Some(-4));
        assert_eq!(all(Op::ShiftRight, true, -8, 60), Some(15));
        assert_eq!(all(Op::Less, true, -1, 0), Some(0));
        assert_eq!(all(Op::Less, false, -1, 0), Some(1));
    }
}
