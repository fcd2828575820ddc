//! Operations spelt as instructions, with the places that `allocate` chose.
//!
//! What lives on the stack is fetched into r0 (or r5, where two are needed) just before it is used, and stored just behind where it is computed. Both are
//! free between any two operations, so no operation has to know of its neighbours.

use super::allocate::{ARGUMENTS, Place, Places};
use super::liveness::{Liveness, Need};
use crate::bpf::{AluOp, Cond, FunctionIndex, Insn, Item, Label, MapIndex, ReasonId, Reg, Size, Width};
use crate::ir::{Address, AtomicOp, Base, BlockId, Callee, Function, Operand, OperationKind, Register, Terminator};

/// The first register to compute in.
const FIRST: Reg = Reg::R0;
/// The second.
const SECOND: Reg = Reg::R5;
const FRAME: Reg = Reg::R10;

/// The function as instructions and labels; a label's number is its block's.
pub fn emit(function: &Function, live: &Liveness, places: &Places) -> Vec<Item> {
    let mut emitter = Emitter { places, items: Vec::new(), reason: None };
    emitter.parameters(function);
    for (at, block) in live.order.iter().enumerate() {
        let body = &function.blocks[block.0 as usize];
        emitter.items.push(Item::Bind(Label(block.0)));
        for (operation, need) in body.operations.iter().zip(&live.needs[at]).filter(|(_, n)| **n != Need::Nothing) {
            emitter.reason = operation.reason;
            emitter.operation(&operation.kind, *need);
        }
        emitter.reason = body.end_reason;
        emitter.terminator(&body.end, live.order.get(at + 1).copied());
    }
    emitter.items
}

struct Emitter<'a> {
    places: &'a Places,
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

    fn mov(&mut self, to: Reg, from: Reg) {
        if to != from {
            self.push(Insn::mov(Width::W64, to, from));
        }
    }

    /// A register that holds the value: its own, or `scratch` filled from the stack.
    fn read(&mut self, register: Register, scratch: Reg) -> Reg {
        match self.places.of(register) {
            Place::Register(reg) => reg,
            Place::Stack(at) => {
                self.push(Insn::load(Size::B8, scratch, FRAME, at));
                scratch
            }
        }
    }

    /// The register to compute a value in, to be followed by `written`.
    fn target(&self, register: Register) -> Reg {
        match self.places.of(register) {
            Place::Register(reg) => reg,
            Place::Stack(_) => FIRST,
        }
    }

    /// The value of `register` is in `reg`.
    fn written(&mut self, register: Register, reg: Reg) {
        match self.places.of(register) {
            Place::Register(place) => self.mov(place, reg),
            Place::Stack(at) => self.push(Insn::store(Size::B8, FRAME, at, reg)),
        }
    }

    fn parameters(&mut self, function: &Function) {
        let arguments: Vec<(Reg, Reg)> = function
            .parameters
            .iter()
            .zip(ARGUMENTS)
            .filter_map(|(register, from)| match self.places.of(*register) {
                Place::Register(to) => Some((to, from)),
                Place::Stack(at) => {
                    self.push(Insn::store(Size::B8, FRAME, at, from));
                    None
                }
            })
            .collect();
        self.move_together(arguments);
    }

    fn operation(&mut self, kind: &OperationKind, need: Need) {
        match kind {
            OperationKind::Constant { to, value } => {
                let reg = self.target(*to);
                self.constant(reg, *value);
                self.written(*to, reg);
            }
            OperationKind::Copy { to, from } => {
                let from = self.read(*from, FIRST);
                self.written(*to, from);
            }
            OperationKind::Alu { op, width, to, left, right } => self.alu(*op, *width, *to, *left, *right),
            OperationKind::Extend { to, from, bits, signed } => self.extend(*to, *from, *bits, *signed),
            OperationKind::Load { to, from, size } => {
                let (base, offset) = self.address(*from, FIRST);
                let reg = self.target(*to);
                self.push(Insn::load(*size, reg, base, offset));
                self.written(*to, reg);
            }
            OperationKind::Store { to, value, size } => {
                let (base, offset) = self.address(*to, FIRST);
                match value {
                    Operand::Constant(value) => self.push(Insn::store_imm(*size, base, offset, *value)),
                    Operand::Register(register) => {
                        let value = self.read(*register, SECOND);
                        self.push(Insn::store(*size, base, offset, value));
                    }
                }
            }
            OperationKind::Atomic { op, to, at, value } => {
                let (base, offset) = self.address(*at, FIRST);
                let value = self.read(*value, SECOND);
                match op {
                    AtomicOp::Add => self.push(Insn::atomic_add(Width::W64, base, offset, value)),
                    AtomicOp::Exchange => {
                        self.mov(SECOND, value);
                        self.push(Insn::atomic_exchange(base, offset, SECOND));
                        if need == Need::Value {
                            self.written(*to, SECOND);
                        }
                    }
                }
            }
            OperationKind::AddressOf { to, slot, offset } => {
                let reg = self.target(*to);
                self.mov(reg, FRAME);
                let offset = i32::from(self.places.slot(slot.0)) + *offset as i32;
                self.push(Insn::alu_imm(AluOp::Add, Width::W64, reg, offset));
                self.written(*to, reg);
            }
            OperationKind::MapAddress { to, map } => {
                let reg = self.target(*to);
                self.push(Insn::load_map(reg, MapIndex(map.0)));
                self.written(*to, reg);
            }
            OperationKind::Call { to, callee, arguments } => {
                self.arguments(arguments);
                self.push(match callee {
                    Callee::Helper(id) => Insn::call_helper(*id),
                    Callee::Function(id) => Insn::call_function(FunctionIndex(id.0)),
                });
                if let Some(to) = to.filter(|_| need == Need::Value) {
                    self.written(to, FIRST);
                }
            }
        }
    }

    fn address(&mut self, address: Address, scratch: Reg) -> (Reg, i16) {
        // The IR's check has seen that offsets fit.
        match address.base {
            Base::Slot(slot) => (FRAME, self.places.slot(slot.0) + address.offset as i16),
            Base::Register { register, .. } => (self.read(register, scratch), address.offset as i16),
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
        let target = self.target(to);
        match right {
            Operand::Constant(value) => {
                let left = self.read(left, target);
                self.mov(target, left);
                self.push(Insn::alu_imm(op, width, target, value));
                self.written(to, target);
            }
            Operand::Register(right) => {
                let right_reg = self.read(right, SECOND);
                let left_reg = self.read(left, FIRST);
                // The result may share its register with the right operand, which must not be overwritten before it is used.
                let reg = if target == right_reg && left_reg != target { FIRST } else { target };
                self.mov(reg, left_reg);
                self.push(Insn::alu(op, width, reg, right_reg));
                self.written(to, reg);
            }
        }
    }

    fn extend(&mut self, to: Register, from: Register, bits: u32, signed: bool) {
        let from = self.read(from, FIRST);
        let reg = self.target(to);
        if signed {
            let shift = 64 - bits as i32;
            self.mov(reg, from);
            self.push(Insn::alu_imm(AluOp::Lsh, Width::W64, reg, shift));
            self.push(Insn::alu_imm(AluOp::Arsh, Width::W64, reg, shift));
        } else if bits == 32 {
            self.push(Insn::mov(Width::W32, reg, from));
        } else {
            self.mov(reg, from);
            self.push(Insn::alu_imm(AluOp::And, Width::W64, reg, (1 << bits) - 1));
        }
        self.written(to, reg);
    }

    fn arguments(&mut self, arguments: &[Operand]) {
        let mut moves = Vec::new();
        for (argument, to) in arguments.iter().zip(ARGUMENTS) {
            if let Operand::Register(register) = argument
                && let Place::Register(from) = self.places.of(*register)
            {
                moves.push((to, from));
            }
        }
        self.move_together(moves);
        // What needs no register as its source comes last: by now no source can be overwritten.
        for (argument, to) in arguments.iter().zip(ARGUMENTS) {
            match argument {
                Operand::Constant(value) => self.constant(to, i64::from(*value)),
                Operand::Register(register) => {
                    if let Place::Stack(at) = self.places.of(*register) {
                        self.push(Insn::load(Size::B8, to, FRAME, at));
                    }
                }
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
                    // Only cycles are left: park one source, and its place becomes free.
                    let (_, parked) = moves[0];
                    self.mov(FIRST, parked);
                    moves.iter_mut().filter(|(_, from)| *from == parked).for_each(|(_, from)| *from = FIRST);
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
                let left = self.read(*left, FIRST);
                match right {
                    Operand::Constant(value) => {
                        self.push(Insn::jump_if_imm(condition, *width, left, *value, Label(to.0)))
                    }
                    Operand::Register(right) => {
                        let right = self.read(*right, SECOND);
                        self.push(Insn::jump_if(condition, *width, left, right, Label(to.0)));
                    }
                }
                self.jump(rest, next);
            }
            Terminator::Return(value) => {
                match value {
                    Operand::Constant(value) => self.constant(Reg::R0, i64::from(*value)),
                    Operand::Register(register) => {
                        let from = self.read(*register, Reg::R0);
                        self.mov(Reg::R0, from);
                    }
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
