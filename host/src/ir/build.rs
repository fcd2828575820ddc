//! Building a function block by block.

use super::{
    Address, AluOp, AtomicOp, Base, Block, BlockId, Callee, Cond, Function, MapId, Operand, Operation, OperationKind,
    ReasonId, Register, Size, Slot, SlotId, Space, Terminator, Width,
};

/// A function under construction. Operations go to the end of the current block; a block is closed by `jump`, `branch`
/// or `ret`, and the next is chosen by [`FunctionBuilder::enter`].
pub struct FunctionBuilder {
    function: Function,
    open: Vec<Option<Vec<Operation>>>,
    current: BlockId,
    reason: Option<ReasonId>,
    operations: usize,
}

impl FunctionBuilder {
    /// A function with so many parameters, positioned in its first block.
    pub fn new(name: impl Into<String>, section: Option<String>, parameters: u32) -> FunctionBuilder {
        let function = Function {
            name: name.into(),
            section,
            parameters: (0..parameters).map(Register).collect(),
            blocks: Vec::new(),
            registers: parameters,
            slots: Vec::new(),
        };
        let mut builder =
            FunctionBuilder { function, open: Vec::new(), current: BlockId(0), reason: None, operations: 0 };
        builder.current = builder.block();
        builder
    }

    pub fn parameter(&self, index: usize) -> Register {
        self.function.parameters[index]
    }

    /// A new register, not assigned yet.
    pub fn register(&mut self) -> Register {
        self.function.registers += 1;
        Register(self.function.registers - 1)
    }

    /// A new piece of the stack.
    pub fn slot(&mut self, bytes: u32) -> SlotId {
        self.push_slot(Slot { bytes, object: false })
    }

    /// A new piece of the stack for an object of the verifier's.
    pub fn object(&mut self, bytes: u32) -> SlotId {
        self.push_slot(Slot { bytes, object: true })
    }

    fn push_slot(&mut self, slot: Slot) -> SlotId {
        self.function.slots.push(slot);
        SlotId(self.function.slots.len() as u32 - 1)
    }

    /// A new block, to be entered later.
    pub fn block(&mut self) -> BlockId {
        let end = Terminator::Return(Operand::Constant(0));
        self.function.blocks.push(Block { operations: Vec::new(), end, end_reason: None });
        self.open.push(Some(Vec::new()));
        BlockId(self.open.len() as u32 - 1)
    }

    /// Goes on in a block that is not closed.
    pub fn enter(&mut self, block: BlockId) {
        self.current = block;
    }

    /// Why the operations to come are there.
    pub fn because(&mut self, reason: Option<ReasonId>) {
        self.reason = reason;
    }

    /// What [`FunctionBuilder::because`] was told last.
    pub fn reason(&self) -> Option<ReasonId> {
        self.reason
    }

    /// How many operations there are, the ends of blocks included.
    pub fn operations(&self) -> usize {
        self.operations
    }

    /// The function, where every block that was made has been closed or is never reached.
    pub fn finish(self) -> Function {
        self.function
    }

    fn push(&mut self, kind: OperationKind) {
        let reason = self.reason;
        if let Some(operations) = &mut self.open[self.current.0 as usize] {
            operations.push(Operation { kind, reason });
            self.operations += 1;
        }
    }

    fn close(&mut self, end: Terminator) {
        let at = self.current.0 as usize;
        // Code behind a jump is never reached: the first end stands.
        if let Some(operations) = self.open[at].take() {
            self.function.blocks[at] = Block { operations, end, end_reason: self.reason };
            self.operations += 1;
        }
    }

    pub fn jump(&mut self, to: BlockId) {
        self.close(Terminator::Jump(to));
    }

    pub fn branch(
        &mut self,
        condition: Cond,
        left: Register,
        right: impl Into<Operand>,
        then: BlockId,
        otherwise: BlockId,
    ) {
        let (width, right) = (Width::W64, right.into());
        self.close(Terminator::Branch { condition, width, left, right, then, otherwise });
    }

    /// Goes to `then` where the condition holds, and on in a new block where not.
    pub fn leave_if(&mut self, condition: Cond, left: Register, right: impl Into<Operand>, then: BlockId) {
        let next = self.block();
        self.branch(condition, left, right, then, next);
        self.enter(next);
    }

    pub fn ret(&mut self, value: impl Into<Operand>) {
        self.close(Terminator::Return(value.into()));
    }

    pub fn constant(&mut self, value: i64) -> Register {
        let to = self.register();
        self.push(OperationKind::Constant { to, value });
        to
    }

    pub fn set(&mut self, to: Register, value: i64) {
        self.push(OperationKind::Constant { to, value });
    }

    pub fn copy(&mut self, to: Register, from: Register) {
        self.push(OperationKind::Copy { to, from });
    }

    pub fn alu(&mut self, op: AluOp, left: Register, right: impl Into<Operand>) -> Register {
        let to = self.register();
        self.alu_to(op, to, left, right);
        to
    }

    pub fn alu_to(&mut self, op: AluOp, to: Register, left: Register, right: impl Into<Operand>) {
        self.push(OperationKind::Alu { op, width: Width::W64, to, left, right: right.into() });
    }

    pub fn extend(&mut self, from: Register, bits: u32, signed: bool) -> Register {
        let to = self.register();
        self.push(OperationKind::Extend { to, from, bits, signed });
        to
    }

    pub fn byte_swap(&mut self, from: Register, bits: u32) -> Register {
        let to = self.register();
        self.push(OperationKind::ByteSwap { to, from, bits });
        to
    }

    pub fn load(&mut self, from: Address, size: Size) -> Register {
        let to = self.register();
        self.push(OperationKind::Load { to, from, size });
        to
    }

    pub fn store(&mut self, to: Address, value: impl Into<Operand>, size: Size) {
        self.push(OperationKind::Store { to, value: value.into(), size });
    }

    /// What was there before; nothing to be read, for an addition.
    pub fn atomic(&mut self, op: AtomicOp, at: Address, value: Register) -> Register {
        let to = self.register();
        self.push(OperationKind::Atomic { op, to, at, value });
        to
    }

    pub fn address_of(&mut self, slot: SlotId, offset: u32) -> Register {
        let to = self.register();
        self.push(OperationKind::AddressOf { to, slot, offset });
        to
    }

    pub fn map_address(&mut self, map: MapId) -> Register {
        let to = self.register();
        self.push(OperationKind::MapAddress { to, map });
        to
    }

    pub fn data_address(&mut self, offset: u32) -> Register {
        let to = self.register();
        self.push(OperationKind::DataAddress { to, offset });
        to
    }

    /// A call of which nobody wants the result.
    pub fn run(&mut self, callee: Callee, arguments: &[Operand]) {
        self.push(OperationKind::Call { to: None, callee, arguments: arguments.to_vec() });
    }

    pub fn call(&mut self, callee: Callee, arguments: &[Operand]) -> Register {
        let to = self.register();
        self.push(OperationKind::Call { to: Some(to), callee, arguments: arguments.to_vec() });
        to
    }
}

impl Address {
    /// In a piece of the stack.
    pub fn slot(slot: SlotId, offset: i32) -> Address {
        Address { base: Base::Slot(slot), offset }
    }

    /// Behind a pointer.
    pub fn at(register: Register, space: Space, offset: i32) -> Address {
        Address { base: Base::Register { register, space }, offset }
    }
}
