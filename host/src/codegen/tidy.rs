//! What front ends need not care for: constants become operands, factors and divisors that are powers of two shifts and
//! masks, and what is extended only to be stored, in as many bytes or fewer, is stored as it was.
//!
//! Only registers that are assigned once are looked through: such a one holds the same wherever it can be read. What
//! becomes useless by this is left out later, as it is read nowhere.

use crate::ir::{AluOp, Function, Operand, OperationKind, Register, Size, Terminator, Width};

/// What a register always holds.
#[derive(Clone, Copy)]
enum Known {
    Nothing,
    Constant(i64),
    /// The lowest bits of a register that is assigned once itself, extended.
    Extended {
        from: Register,
        bits: u32,
    },
}

pub fn tidy(function: &mut Function) {
    let known = Known::of(function);
    for block in &mut function.blocks {
        for operation in &mut block.operations {
            known.operation(&mut operation.kind);
        }
        if let Terminator::Return(value) = &mut block.end {
            known.operand(value);
        }
    }
}

struct Table(Vec<Known>);

impl Known {
    fn of(function: &Function) -> Table {
        let mut assigned = vec![0; function.registers as usize];
        let mut known = vec![Known::Nothing; function.registers as usize];
        let operations = || function.blocks.iter().flat_map(|b| &b.operations);
        let written = operations().filter_map(|o| o.kind.writes());
        function.parameters.iter().copied().chain(written).for_each(|r| assigned[r.0 as usize] += 1);
        let once = |register: Register| assigned[register.0 as usize] == 1;
        for operation in operations() {
            match operation.kind {
                OperationKind::Constant { to, value } if once(to) => known[to.0 as usize] = Known::Constant(value),
                OperationKind::Extend { to, from, bits, .. } if once(to) && once(from) => {
                    known[to.0 as usize] = Known::Extended { from, bits };
                }
                _ => {}
            }
        }
        Table(known)
    }
}

impl Table {
    fn at(&self, operand: Operand) -> Known {
        operand.register().map_or(Known::Nothing, |register| self.0[register.0 as usize])
    }

    /// A register that holds a constant which fits an instruction becomes that.
    fn operand(&self, operand: &mut Operand) {
        if let Known::Constant(value) = self.at(*operand)
            && let Ok(value) = i32::try_from(value)
        {
            *operand = Operand::Constant(value);
        }
    }

    fn operation(&self, kind: &mut OperationKind) {
        match kind {
            OperationKind::Store { value, size, .. } => match self.at(*value) {
                // The lowest bytes are all that counts.
                Known::Constant(constant) if *size != Size::B8 => *value = Operand::Constant(constant as i32),
                Known::Constant(_) => self.operand(value),
                Known::Extended { from, bits } if bits >= 8 * size.bytes() => *value = Operand::Register(from),
                _ => {}
            },
            OperationKind::Call { arguments, .. } => arguments.iter_mut().for_each(|a| self.operand(a)),
            OperationKind::Alu { op, width: Width::W64, to, left, right } => {
                let mut constant = *right;
                self.operand(&mut constant);
                if let Operand::Constant(value) = constant
                    && fits(*op, value)
                {
                    *right = constant;
                    by_shifts(op, right);
                    if let (AluOp::Or | AluOp::Xor | AluOp::Lsh | AluOp::Rsh | AluOp::Arsh, Operand::Constant(0)) =
                        (*op, *right)
                    {
                        *kind = OperationKind::Copy { to: *to, from: *left };
                    }
                }
            }
            _ => {}
        }
    }
}

/// By a power of two, shifts and masks give the same, of unsigned values.
fn by_shifts(op: &mut AluOp, right: &mut Operand) {
    if let Operand::Constant(value @ 1..) = *right
        && value.count_ones() == 1
    {
        (*op, *right) = match op {
            AluOp::Mul => (AluOp::Lsh, Operand::Constant(value.trailing_zeros() as i32)),
            AluOp::Div => (AluOp::Rsh, Operand::Constant(value.trailing_zeros() as i32)),
            AluOp::Mod => (AluOp::And, Operand::Constant(value - 1)),
            _ => return,
        };
    }
}

/// Whether the verifier takes the instruction.
fn fits(op: AluOp, value: i32) -> bool {
    match op {
        AluOp::Div | AluOp::Mod => value != 0,
        AluOp::Lsh | AluOp::Rsh | AluOp::Arsh => (0..64).contains(&value),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Address, FunctionBuilder};

    #[test]
    fn constants_and_what_is_extended_to_be_stored() {
        let mut b = FunctionBuilder::new("f", None, 1);
        let (x, slot) = (b.parameter(0), b.slot(16));
        let (one, extended) = (b.constant(1), b.extend(x, 32, true));
        let least = b.constant(i64::MIN);
        b.store(Address::slot(slot, 0), extended, Size::B4);
        b.store(Address::slot(slot, 8), extended, Size::B8);
        b.store(Address::slot(slot, 8), least, Size::B8);
        b.store(Address::slot(slot, 8), least, Size::B4);
        let sum = b.alu(AluOp::Sub, x, one);
        b.alu_to(AluOp::Sub, sum, sum, least);
        let [quotient, rest, product] = [AluOp::Div, AluOp::Mod, AluOp::Mul].map(|op| b.alu(op, x, 16));
        b.alu(AluOp::Div, quotient, 12);
        b.alu(AluOp::Sub, rest, product);
        b.ret(one);
        let mut function = b.finish();
        tidy(&mut function);
        let stored =
            |o: &crate::ir::Operation| if let OperationKind::Store { value, .. } = o.kind { Some(value) } else { None };
        let operations = &function.blocks[0].operations;
        let stored: Vec<Operand> = operations.iter().filter_map(stored).collect();
        assert_eq!(stored, [x.into(), extended.into(), least.into(), 0.into()]);
        let computed = |o: &crate::ir::Operation| {
            if let OperationKind::Alu { op, right, .. } = o.kind { Some((op, right)) } else { None }
        };
        let computed: Vec<(AluOp, Operand)> = operations.iter().filter_map(computed).collect();
        assert_eq!(
            computed,
            [
                (AluOp::Sub, 1.into()),
                (AluOp::Sub, least.into()),
                (AluOp::Rsh, 4.into()),
                (AluOp::And, 15.into()),
                (AluOp::Lsh, 4.into()),
                (AluOp::Div, 12.into()),
                (AluOp::Sub, product.into()),
            ]
        );
        assert_eq!(function.blocks[0].end, Terminator::Return(1.into()));
    }
}
