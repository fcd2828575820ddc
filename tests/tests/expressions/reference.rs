//! What an expression is worth, read off its syntax tree: an evaluator that knows no BTF, no IR and no instruction, and
//! shares no arithmetic with the compiler: it computes with the numbers that 64 bits stand for, and cuts what comes of
//! it to 64 bits.

use std::collections::HashMap;

use porthole::plan::arithmetic::Op;
use porthole::plan::syntax::{BinaryOp, Expr, ExprKind, TypeBase, TypeName, UnaryOp};

/// A name's or a path's value, absent or not, and whether it is an unsigned number of 64 bits.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    pub value: Option<i64>,
    pub unsigned: bool,
}

/// What names and paths (`args.x`, `task.pid`, …) are worth.
pub struct Scope {
    pub known: HashMap<String, Known>,
    pub comm: &'static str,
}

impl Scope {
    /// Names the value of an expression; where it is a pointer, these members of what it points to as well.
    pub fn bind(&mut self, name: &str, expr: &Expr, members: &[&str]) {
        for member in members {
            let value = self.place(expr).and_then(|place| self.known[&format!("{place}.{member}")].value);
            let unsigned = self.known[&format!("{}.{member}", path(expr))].unsigned;
            self.known.insert(format!("{name}.{member}"), Known { value, unsigned });
        }
        let known = Known { value: self.evaluate(expr), unsigned: self.is_unsigned(expr) };
        self.known.insert(name.to_owned(), known);
    }

    /// The expression's value; none where it is absent.
    pub fn evaluate(&self, expr: &Expr) -> Option<i64> {
        match &expr.kind {
            ExprKind::Integer(value) => Some(*value as i64),
            ExprKind::Name(name) if kernel_constant(name).is_some() => kernel_constant(name),
            ExprKind::Name(_) | ExprKind::Field { .. } => self.place(expr).and_then(|place| self.known[&place].value),
            ExprKind::Unary { op, value } => {
                let value = self.evaluate(value)?;
                Some(match op {
                    UnaryOp::Not => i64::from(value == 0),
                    UnaryOp::Complement => !value,
                    UnaryOp::Negate => value.wrapping_neg(),
                    UnaryOp::Plus => value,
                    UnaryOp::Dereference | UnaryOp::AddressOf => panic!("{expr:?} has no reference"),
                })
            }
            ExprKind::Cast { ty, value } if ty.pointers == 0 => {
                let value = self.evaluate(value)?;
                Some(match integer(ty) {
                    (1, true) => i64::from(value as i8),
                    (1, false) => i64::from(value as u8),
                    (2, true) => i64::from(value as i16),
                    (2, false) => i64::from(value as u16),
                    (4, true) => i64::from(value as i32),
                    (4, false) => i64::from(value as u32),
                    (0, _) => i64::from(value != 0),
                    _ => value,
                })
            }
            ExprKind::Cast { value, .. } => self.evaluate(value),
            ExprKind::Binary { op: BinaryOp::And, left, right, .. } => match self.evaluate(left)? {
                0 => Some(0),
                _ => Some(i64::from(self.evaluate(right)? != 0)),
            },
            ExprKind::Binary { op: BinaryOp::Or, left, right, .. } => match self.evaluate(left)? {
                0 => Some(i64::from(self.evaluate(right)? != 0)),
                _ => Some(1),
            },
            ExprKind::Binary { op: BinaryOp::Arithmetic(op), left, right, .. } => {
                if let Some(same) = self.same_text(left, right) {
                    return Some(i64::from(same == (*op == Op::Equal)));
                }
                let unsigned = self.computes_unsigned(*op, left, right);
                compute(*op, unsigned, self.evaluate(left)?, self.evaluate(right)?)
            }
            ExprKind::In { value, set } => {
                if value.kind == ExprKind::Name("comm".to_owned()) {
                    return Some(i64::from(set.iter().any(|member| literal(member) == self.comm.as_bytes())));
                }
                let value = self.evaluate(value)?;
                Some(i64::from(set.iter().any(|member| self.evaluate(member) == Some(value))))
            }
            ExprKind::Call { name, arguments, .. } => {
                let with = std::str::from_utf8(literal(&arguments[1])).expect("ASCII");
                Some(i64::from(match name.as_str() {
                    "starts_with" => self.comm.starts_with(with),
                    "ends_with" => self.comm.ends_with(with),
                    _ => self.comm.contains(with),
                }))
            }
            ExprKind::Conditional { condition, then, otherwise } => {
                self.evaluate(if self.evaluate(condition)? != 0 { then } else { otherwise })
            }
            _ => panic!("{expr:?} has no reference"),
        }
    }

    /// Whether the expression is an unsigned number of 64 bits, whatever its value.
    pub fn is_unsigned(&self, expr: &Expr) -> bool {
        match &expr.kind {
            ExprKind::Integer(value) => i64::try_from(*value).is_err(),
            ExprKind::Name(name) if kernel_constant(name).is_some() => false,
            ExprKind::Name(_) | ExprKind::Field { .. } => self.known[&path(expr)].unsigned,
            ExprKind::Unary { op: UnaryOp::Not, .. } => false,
            // -9223372036854775808 is a signed number.
            ExprKind::Unary { op: UnaryOp::Negate, value } if self.constant(value) == Some(i64::MIN) => false,
            ExprKind::Unary { value, .. } => self.is_unsigned(value),
            ExprKind::Binary { op: BinaryOp::Arithmetic(op), left, right, .. } if !gives_boolean(*op) => {
                self.computes_unsigned(*op, left, right)
            }
            ExprKind::Conditional { then, otherwise, .. } => self.is_unsigned(then) || self.is_unsigned(otherwise),
            ExprKind::Cast { ty, .. } => ty.pointers > 0 || integer(ty) == (8, false),
            _ => false,
        }
    }

    fn computes_unsigned(&self, op: Op, left: &Expr, right: &Expr) -> bool {
        let shift = matches!(op, Op::ShiftLeft | Op::ShiftRight);
        self.is_unsigned(left) || (!shift && self.is_unsigned(right))
    }

    /// The value of an expression that names nothing.
    fn constant(&self, expr: &Expr) -> Option<i64> {
        match &expr.kind {
            ExprKind::Name(name) if kernel_constant(name).is_some() => kernel_constant(name),
            ExprKind::Name(name) => matches!(name.as_str(), "true" | "false").then(|| i64::from(name == "true")),
            ExprKind::Field { .. } => None,
            ExprKind::Integer(value) => Some(*value as i64),
            ExprKind::Unary { value, .. } | ExprKind::Cast { value, .. } => {
                self.constant(value).and(self.evaluate(expr))
            }
            ExprKind::Binary { left, right, .. } => {
                self.constant(left).and(self.constant(right)).and_then(|_| self.evaluate(expr))
            }
            ExprKind::Conditional { condition, .. } => self.constant(condition).and(self.evaluate(expr)),
            _ => None,
        }
    }

    /// The path by which a name or field is known, the right pointer chosen where one is chosen; none where that is
    /// absent.
    fn place(&self, expr: &Expr) -> Option<String> {
        match &expr.kind {
            ExprKind::Cast { value, .. } => self.place(value),
            ExprKind::Field { base, name, .. } => Some(format!("{}.{name}", self.place(base)?)),
            ExprKind::Conditional { condition, then, otherwise } => {
                self.place(if self.evaluate(condition)? != 0 { then } else { otherwise })
            }
            _ => Some(path(expr)),
        }
    }

    /// Whether the thread's name is the text, where that is asked.
    fn same_text(&self, left: &Expr, right: &Expr) -> Option<bool> {
        match (&left.kind, &right.kind) {
            (ExprKind::Name(name), ExprKind::Text(text)) if name == "comm" => Some(text == self.comm.as_bytes()),
            _ => None,
        }
    }
}

fn literal(expr: &Expr) -> &[u8] {
    match &expr.kind {
        ExprKind::Text(text) => text,
        other => panic!("{other:?} is no text"),
    }
}

/// A path that has the expression's type: of two pointers, the first.
fn path(expr: &Expr) -> String {
    match &expr.kind {
        ExprKind::Conditional { then, .. } => path(then),
        ExprKind::Cast { value, .. } => path(value),
        ExprKind::Name(name) => name.clone(),
        ExprKind::Field { base, name, .. } => format!("{}.{name}", path(base)),
        other => panic!("{other:?} is no path"),
    }
}

/// The constants that the generator writes (include/uapi/linux/net.h, include/uapi/asm-generic, include/linux/pm.h).
fn kernel_constant(name: &str) -> Option<i64> {
    Some(match name {
        "SS_CONNECTED" => 3,
        "O_CREAT" => 0o100,
        "EINVAL" => 22,
        "RPM_INVALID" => -1,
        _ => return None,
    })
}

/// Bytes and signedness of a type as the generator writes it; a boolean has none.
fn integer(ty: &TypeName) -> (u8, bool) {
    let name = match &ty.base {
        TypeBase::Named(name) => name,
        // Its constants are not negative, so it is an unsigned int.
        TypeBase::Enum(_) => return (4, false),
        _ => panic!("{ty} has no reference"),
    };
    match name.as_str() {
        "u8" => (1, false),
        "s8" | "signed char" => (1, true),
        "u16" | "unsigned short" => (2, false),
        "short" => (2, true),
        "u32" | "unsigned" => (4, false),
        "int" => (4, true),
        "u64" | "unsigned long" => (8, false),
        "long" => (8, true),
        "bool" => (0, false),
        other => panic!("{other} has no reference"),
    }
}

fn gives_boolean(op: Op) -> bool {
    use Op::{Equal, Greater, GreaterEqual, Less, LessEqual, NotEqual};
    matches!(op, Equal | NotEqual | Less | LessEqual | Greater | GreaterEqual)
}

/// What an operator makes of two values of 64 bits; none: absent.
fn compute(op: Op, unsigned: bool, left: i64, right: i64) -> Option<i64> {
    let number = |bits: i64| if unsigned { i128::from(bits.cast_unsigned()) } else { i128::from(bits) };
    let (a, b) = (number(left), number(right));
    let count = right.rem_euclid(64);
    let result = match op {
        Op::BitOr => i128::from(left | right),
        Op::BitXor => i128::from(left ^ right),
        Op::BitAnd => i128::from(left & right),
        Op::Equal => i128::from(left == right),
        Op::NotEqual => i128::from(left != right),
        Op::Less => i128::from(a < b),
        Op::LessEqual => i128::from(a <= b),
        Op::Greater => i128::from(a > b),
        Op::GreaterEqual => i128::from(a >= b),
        Op::ShiftLeft => a << count,
        Op::ShiftRight => a >> count,
        Op::Add => a + b,
        Op::Subtract => a - b,
        // Its lowest 64 bits are right whether it fits or not.
        Op::Multiply => a.wrapping_mul(b),
        Op::Divide => a.checked_div(b)?,
        Op::Remainder => a.checked_rem(b)?,
    };
    Some(result as i64)
}
