//! Random functions run in a user-space BPF interpreter and compared with what the IR means.

use std::collections::HashMap;

use super::*;
use crate::ir::{AluOp, BlockId, Callee, Cond, FunctionBuilder, Operand, OperationKind, Register, Terminator};

/// What the function returns, read straight off the IR.
fn interpret(function: &ir::Function, arguments: &[u64]) -> u64 {
    let mut values: HashMap<Register, u64> =
        function.parameters.iter().copied().zip(arguments.iter().copied()).collect();
    let mut block = BlockId(0);
    loop {
        let body = &function.blocks[block.0 as usize];
        for operation in &body.operations {
            let read = |operand: &Operand, values: &HashMap<Register, u64>| match operand {
                Operand::Register(r) => values[r],
                Operand::Constant(n) => *n as i64 as u64,
            };
            let (to, value) = match &operation.kind {
                OperationKind::Constant { to, value } => (*to, *value as u64),
                OperationKind::Copy { to, from } => (*to, values[from]),
                OperationKind::Alu { op, to, left, right, .. } => (*to, alu(*op, values[left], read(right, &values))),
                OperationKind::Extend { to, from, bits, signed } => {
                    let shift = 64 - bits;
                    let up = values[from] << shift;
                    (*to, if *signed { ((up as i64) >> shift) as u64 } else { up >> shift })
                }
                OperationKind::ByteSwap { to, from, bits } => (*to, values[from].swap_bytes() >> (64 - bits)),
                OperationKind::Call { to: Some(to), arguments, .. } => {
                    (*to, arguments.iter().fold(1, |sum, a| sum * 31 + read(a, &values) % 1000))
                }
                other => panic!("not in these tests: {other:?}"),
            };
            values.insert(to, value);
        }
        let operand = |operand: &Operand| match operand {
            Operand::Register(r) => values[r],
            Operand::Constant(n) => *n as i64 as u64,
        };
        block = match &body.end {
            Terminator::Jump(to) => *to,
            Terminator::Return(value) => return operand(value),
            Terminator::Branch { condition, left, right, then, otherwise, .. } => {
                if holds(*condition, values[left], operand(right)) { *then } else { *otherwise }
            }
        };
    }
}

fn alu(op: AluOp, a: u64, b: u64) -> u64 {
    match op {
        AluOp::Add => a.wrapping_add(b),
        AluOp::Sub => a.wrapping_sub(b),
        AluOp::Mul => a.wrapping_mul(b),
        AluOp::Div => a.checked_div(b).unwrap_or(0),
        AluOp::Mod => a.checked_rem(b).unwrap_or(a),
        AluOp::And => a & b,
        AluOp::Or => a | b,
        AluOp::Xor => a ^ b,
        AluOp::Lsh => a << (b & 63),
        AluOp::Rsh => a >> (b & 63),
        AluOp::Arsh => ((a as i64) >> (b & 63)) as u64,
    }
}

fn holds(condition: Cond, a: u64, b: u64) -> bool {
    let (sa, sb) = (a as i64, b as i64);
    match condition {
        Cond::Eq => a == b,
        Cond::Ne => a != b,
        Cond::Gt => a > b,
        Cond::Ge => a >= b,
        Cond::Lt => a < b,
        Cond::Le => a <= b,
        Cond::Sgt => sa > sb,
        Cond::Sge => sa >= sb,
        Cond::Slt => sa < sb,
        Cond::Sle => sa <= sb,
        Cond::Set => a & b != 0,
    }
}

/// A small generator of numbers, the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

const OPS: [AluOp; 9] =
    [AluOp::Add, AluOp::Sub, AluOp::Mul, AluOp::And, AluOp::Or, AluOp::Xor, AluOp::Lsh, AluOp::Rsh, AluOp::Arsh];
const CONDS: [Cond; 11] =
    [Cond::Eq, Cond::Ne, Cond::Gt, Cond::Ge, Cond::Lt, Cond::Le, Cond::Sgt, Cond::Sge, Cond::Slt, Cond::Sle, Cond::Set];

/// A function of many values alive at once, diamonds, calls, and registers that are assigned again.
fn random_function(random: &mut Random) -> ir::Function {
    let mut b = FunctionBuilder::new("f", None, 1);
    let mut values = vec![b.parameter(0)];
    for _ in 0..random.below(12) {
        let value = random.below(u64::MAX) as i64 >> random.below(60);
        values.push(b.constant(value));
    }
    for _ in 0..random.below(40) {
        let (left, right) = (random.pick(&values), random.pick(&values));
        match random.below(9) {
            0 => {
                let (then, otherwise, join, result) = (b.block(), b.block(), b.block(), b.register());
                b.branch(random.pick(&CONDS), left, right, then, otherwise);
                b.enter(then);
                b.copy(result, left);
                b.jump(join);
                b.enter(otherwise);
                b.alu_to(AluOp::Xor, result, right, random.below(1 << 30) as i32);
                b.jump(join);
                b.enter(join);
                values.push(result);
            }
            1 => {
                let arguments: Vec<Operand> = (0..random.below(6)).map(|_| random.pick(&values).into()).collect();
                values.push(b.call(Callee::Helper(1), &arguments));
            }
            2 => values.push(b.extend(left, random.pick(&[8, 16, 32]), random.below(2) == 0)),
            3 => b.alu_to(random.pick(&OPS), left, left, right),
            4 => values.push(b.alu(random.pick(&[AluOp::Div, AluOp::Mod]), left, right)),
            5 => values.push(b.alu(random.pick(&OPS), left, random.below(64) as i32)),
            6 => values.push(b.byte_swap(left, random.pick(&[16, 32, 64]))),
            _ => values.push(b.alu(random.pick(&OPS), left, right)),
        }
    }
    let mut sum = values[0];
    for value in &values[1..] {
        sum = b.alu(AluOp::Add, sum, *value);
    }
    b.ret(sum);
    b.finish()
}

/// The arguments as `Callee::Helper` above: rbpf passes all five registers, so what was not passed is told apart by
/// count.
fn run(code: &Code, argument: u64) -> u64 {
    // The interpreter passes a pointer to memory in r1; the argument is fetched from it first.
    let mut bytes = crate::bpf::RawInsn { opcode: 0x79, dst: 1, src: 1, off: 0, imm: 0 }.to_bytes().to_vec();
    bytes.extend(code.to_bytes());
    let mut vm = rbpf::EbpfVmMbuff::new(None).expect("an empty machine");
    vm.set_verifier(|_| Ok(())).expect("no verifier");
    vm.set_program(&bytes).expect("a program");
    for count in 0..6u32 {
        vm.register_helper(100 + count, HELPERS[count as usize]).expect("a helper");
    }
    let memory = argument.to_le_bytes();
    // r1 of this machine is the metadata buffer.
    vm.execute_program(&[], &memory).expect("runs")
}

type Helper = fn(u64, u64, u64, u64, u64) -> u64;

const HELPERS: [Helper; 6] = [
    |_, _, _, _, _| 1,
    |a, _, _, _, _| fold(&[a]),
    |a, b, _, _, _| fold(&[a, b]),
    |a, b, c, _, _| fold(&[a, b, c]),
    |a, b, c, d, _| fold(&[a, b, c, d]),
    |a, b, c, d, e| fold(&[a, b, c, d, e]),
];

fn fold(values: &[u64]) -> u64 {
    values.iter().fold(1, |sum, a| sum * 31 + a % 1000)
}

/// Calls name the helper by how many arguments they pass.
fn number_calls(function: &mut ir::Function) {
    for operation in function.blocks.iter_mut().flat_map(|b| &mut b.operations) {
        if let OperationKind::Call { callee, arguments, .. } = &mut operation.kind {
            *callee = Callee::Helper(100 + arguments.len() as u32);
        }
    }
}

#[test]
fn random_functions_compute_what_the_ir_says() {
    let seed = std::env::var("PORTHOLE_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0x9e37_79b9_7f4a_7c15);
    let mut random = Random(seed);
    let mut spilled = 0;
    for round in 0..3000 {
        let mut function = random_function(&mut random);
        number_calls(&mut function);
        let argument = random.below(u64::MAX);
        let module = Module { functions: vec![function], ..Module::default() };
        let program = generate(module.clone())
            .unwrap_or_else(|e| panic!("seed {seed}, round {round}: {e}\n{}", ir::text(&module)));
        let code = &program.functions[0].code;
        let (got, wanted) = (run(code, argument), interpret(&module.functions[0], &[argument]));
        assert_eq!(
            got,
            wanted,
            "seed {seed} (PORTHOLE_SEED), round {round}\n{}\n{}",
            ir::text(&module),
            crate::bpf::disassemble(code, &[])
        );
        spilled += u32::from(program.functions[0].stack > 0);
    }
    assert!(spilled > 500, "only {spilled} functions needed the stack: the test does not reach spills");
}

#[test]
fn a_frame_that_is_too_large_is_an_error() {
    let mut b = FunctionBuilder::new("f", None, 1);
    let x = b.parameter(0);
    let values: Vec<Register> = (0..80).map(|n| b.alu(AluOp::Add, x, n)).collect();
    let called = b.call(Callee::Helper(1), &[]);
    let sum = values.iter().fold(called, |sum, v| b.alu(AluOp::Add, sum, *v));
    b.ret(sum);
    let module = Module { functions: vec![b.finish()], ..Module::default() };
    assert!(matches!(generate(module.clone()), Err(CodegenError::Stack { bytes, .. }) if bytes > MAX_STACK));
}
