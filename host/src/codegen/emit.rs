//! Operations spelt as instructions, with the registers that `allocate` chose.
//!
//! Most operations are one instruction. An instruction that computes works in place, so the left operand is moved to
//! the result's register first; by the graph of `interference` that is never the right operand's, unless the two can be
//! exchanged.

use super::allocate::Allocation;
use super::interference::{ARGUMENTS, commutes};
use super::layout::layout;
use super::liveness::Need;
use crate::bpf::{AluOp, Cond, FunctionIndex, Insn, Item, KfuncIndex, Label, MapIndex, ReasonId, Reg, Size, Width};
use crate::ir::{Address, AtomicOp, Base, BlockId, Callee, Operand, OperationKind, Register, Terminator};

const FRAME: Reg = Reg::R10;
/// Where calls answer. No argument is passed in it, so arguments can be exchanged by way of it.
const ANSWER: Reg = Reg::R0;

/// The function as instructions and labels; a label's number is its block's.
pub fn emit(allocation: &Allocation) -> Vec<Item> {
    let function = &allocation.function;
    let operations: usize = function.blocks.iter().map(|block| block.operations.len()).sum();
    let mut emitter = Emitter { places: allocation, items: Vec::with_capacity(operations * 2), reason: None };
    emitter.parameters();
    let order = layout(function);
    for (at, block) in order.iter().enumerate() {
        let body = &function.blocks[block.0 as usize];
        emitter.items.push(Item::Bind(Label(block.0)));
        let needed = body.operations.iter().zip(allocation.needs.of(*block)).filter(|(_, n)| **n != Need::Nothing);
        for (operation, need) in needed {
            emitter.reason = operation.reason;
            emitter.operation(&operation.kind, *need);
        }
        emitter.reason = body.end_reason;
        emitter.terminator(&body.end, order.get(at + 1).copied());
    }
    emitter.items
}

struct Emitter<'a> {
    places: &'a Allocation,
    items: Vec<Item>,
    reason: Option<ReasonId>,
}

impl Emitter<'_> {
    fn push(&mut self, insn: Insn) {
        self.items.push(Item::Insn(match self.reason {
            Some(reason) => insn.because(reason),
            None => insn,
        }));
    }

    fn of(&self, register: Register) -> Reg {
        self.places.of(register)
    }

    fn mov(&mut self, to: Reg, from: Reg) {
        if to != from {
            self.push(Insn::mov(Width::W64, to, from));
        }
    }

    fn parameters(&mut self) {
        let parameters = self.places.function.parameters.iter().zip(ARGUMENTS);
        let used = parameters.filter(|(register, _)| self.places.is_used(**register));
        let moves = used.map(|(register, from)| (self.of(*register), from)).collect();
        self.move_together(moves);
    }

    fn operation(&mut self, kind: &OperationKind, need: Need) {
        match kind {
            OperationKind::Constant { to, value } => self.constant(self.of(*to), *value),
            OperationKind::Copy { to, from } => self.mov(self.of(*to), self.of(*from)),
            OperationKind::Alu { op, width, to, left, right } => self.alu(*op, *width, *to, *left, *right),
            OperationKind::Extend { to, from, bits, signed } => {
                self.extend(self.of(*to), self.of(*from), *bits, *signed)
            }
            OperationKind::ByteSwap { to, from, bits } => {
                self.mov(self.of(*to), self.of(*from));
                // The machine is little-endian.
                self.push(Insn::to_be(self.of(*to), *bits));
            }
            OperationKind::Load { to, from, size } => {
                let (base, offset) = self.address(*from);
                self.push(Insn::load(*size, self.of(*to), base, offset));
            }
            OperationKind::Store { to, value, size } => {
                let (base, offset) = self.address(*to);
                self.push(match value {
                    Operand::Constant(value) => Insn::store_imm(*size, base, offset, *value),
                    Operand::Register(register) => Insn::store(*size, base, offset, self.of(*register)),
                });
            }
            OperationKind::Atomic { op, to, at, value } => {
                let (base, offset) = self.address(*at);
                let value = self.of(*value);
                match op {
                    AtomicOp::Add => self.push(Insn::atomic_add(Width::W64, base, offset, value)),
                    // The instruction puts what was there into the register that it stores, so that must be the
                    // result's own.
                    AtomicOp::Exchange if need == Need::Value => {
                        self.mov(self.of(*to), value);
                        self.push(Insn::atomic_exchange(base, offset, self.of(*to)));
                    }
                    AtomicOp::Exchange => self.push(Insn::store(Size::B8, base, offset, value)),
                }
            }
            OperationKind::AddressOf { to, slot, offset } => {
                let reg = self.of(*to);
                self.mov(reg, FRAME);
                let offset = i32::from(self.places.slot(*slot)) + *offset as i32;
                self.push(Insn::alu_imm(AluOp::Add, Width::W64, reg, offset));
            }
            OperationKind::MapAddress { to, map } => self.push(Insn::load_map(self.of(*to), MapIndex(map.0))),
            OperationKind::DataAddress { to, offset } => self.push(Insn::load_data(self.of(*to), *offset)),
            OperationKind::Call { to, callee, arguments } => {
                self.arguments(arguments);
                self.push(match callee {
                    Callee::Helper(id) => Insn::call_helper(*id),
                    Callee::Kfunc(id) => Insn::call_kfunc(KfuncIndex(id.0)),
                    Callee::Function(id) => Insn::call_function(FunctionIndex(id.0)),
                });
                if let Some(to) = to.filter(|_| need == Need::Value) {
                    self.mov(self.of(to), ANSWER);
                }
            }
        }
    }

    fn address(&self, address: Address) -> (Reg, i16) {
        // The IR's check has seen that offsets fit.
        match address.base {
            Base::Slot(slot) => (FRAME, self.places.slot(slot) + address.offset as i16),
            Base::Register { register, .. } => (self.of(register), address.offset as i16),
        }
    }

    fn constant(&mut self, reg: Reg, value: i64) {
        match i32::try_from(value) {
            Ok(value) => self.push(Insn::mov_imm(Width::W64, reg, value)),
            Err(_) => match u32::try_from(value) {
                // A move of 32 bits clears the upper half.
                Ok(value) => self.push(Insn::mov_imm(Width::W32, reg, value as i32)),
                Err(_) => self.push(Insn::load_imm64(reg, value)),
            },
        }
    }

    fn alu(&mut self, op: AluOp, width: Width, to: Register, left: Register, right: Operand) {
        let (to, left) = (self.of(to), self.of(left));
        match right {
            Operand::Constant(value) => {
                self.mov(to, left);
                self.push(Insn::alu_imm(op, width, to, value));
            }
            Operand::Register(right) => {
                let right = self.of(right);
                let exchanged = to == right && to != left && commutes(op);
                let (left, right) = if exchanged { (right, left) } else { (left, right) };
                self.mov(to, left);
                self.push(Insn::alu(op, width, to, right));
            }
        }
    }

    fn extend(&mut self, to: Reg, from: Reg, bits: u32, signed: bool) {
        if signed {
            let shift = 64 - bits as i32;
            self.mov(to, from);
            self.push(Insn::alu_imm(AluOp::Lsh, Width::W64, to, shift));
            self.push(Insn::alu_imm(AluOp::Arsh, Width::W64, to, shift));
        } else if bits == 32 {
            self.push(Insn::mov(Width::W32, to, from));
        } else {
            self.mov(to, from);
            self.push(Insn::alu_imm(AluOp::And, Width::W64, to, (1 << bits) - 1));
        }
    }

    fn arguments(&mut self, arguments: &[Operand]) {
        let with_place = || arguments.iter().zip(ARGUMENTS);
        let moves = with_place().filter_map(|(argument, to)| Some((to, self.of(argument.register()?)))).collect();
        self.move_together(moves);
        // By now no source can be overwritten.
        for (argument, to) in with_place() {
            if let Operand::Constant(value) = argument {
                self.constant(to, i64::from(*value));
            }
        }
    }

    /// Moves `(to, from)` as if all happened at once. No two go to the same register.
    fn move_together(&mut self, mut moves: Vec<(Reg, Reg)>) {
        moves.retain(|(to, from)| to != from);
        while !moves.is_empty() {
            match moves.iter().position(|(to, _)| moves.iter().all(|(_, from)| from != to)) {
                Some(free) => {
                    let (to, from) = moves.swap_remove(free);
                    self.mov(to, from);
                }
                None => {
                    // Only cycles are left, so all that was wanted of r0 has been fetched: park one source there, and
                    // its place becomes free.
                    let (_, parked) = moves[0];
                    self.mov(ANSWER, parked);
                    moves.iter_mut().filter(|(_, from)| *from == parked).for_each(|(_, from)| *from = ANSWER);
                }
            }
        }
    }

    fn terminator(&mut self, end: &Terminator, next: Option<BlockId>) {
        match end {
            Terminator::Jump(to) => self.jump(*to, next),
            Terminator::Branch { condition, width, left, right, then, otherwise } => {
                let (condition, to, rest) = match inverse(*condition) {
                    Some(inverse) if Some(*then) == next => (inverse, *otherwise, *then),
                    _ => (*condition, *then, *otherwise),
                };
                let (left, label) = (self.of(*left), Label(to.0));
                self.push(match right {
                    Operand::Constant(value) => Insn::jump_if_imm(condition, *width, left, *value, label),
                    Operand::Register(right) => Insn::jump_if(condition, *width, left, self.of(*right), label),
                });
                self.jump(rest, next);
            }
            Terminator::Return(value) => {
                match value {
                    Operand::Constant(value) => self.constant(ANSWER, i64::from(*value)),
                    Operand::Register(register) => self.mov(ANSWER, self.of(*register)),
                }
                self.push(Insn::exit());
            }
        }
    }

    fn jump(&mut self, to: BlockId, next: Option<BlockId>) {
        if Some(to) != next {
            self.push(Insn::jump(Label(to.0)));
        }
    }
}

/// The condition that holds just where this one does not.
fn inverse(condition: Cond) -> Option<Cond> {
    Some(match condition {
        Cond::Eq => Cond::Ne,
        Cond::Ne => Cond::Eq,
        Cond::Gt => Cond::Le,
        Cond::Ge => Cond::Lt,
        Cond::Lt => Cond::Ge,
        Cond::Le => Cond::Gt,
        Cond::Sgt => Cond::Sle,
        Cond::Sge => Cond::Slt,
        Cond::Slt => Cond::Sge,
        Cond::Sle => Cond::Sgt,
        Cond::Set => return None,
    })
}
