//! Registers moved to the stack: each use fetches the value just before, into a register of its own, and each
//! assignment stores it just behind.
//!
//! The result is a function like any other, of registers that live shortly; so nothing after this has to know of the
//! stack.

use crate::ir::{Address, BlockId, Function, Operand, Operation, OperationKind, ReasonId, Register, Size, SlotId};

/// What has been fetched is used again so many operations later at most.
const REUSED: usize = 6;

/// Where the registers go that find no place.
#[derive(Clone, Copy)]
pub enum Home {
    Slot(SlotId),
    /// It is this constant, which is made anew wherever it is used.
    Constant(i64),
}

/// Rewrites the function so that registers which have a home live there instead. Where `reuse` is set, what has been
/// fetched is kept for the next few operations.
pub fn spill(function: &mut Function, homes: &[Option<Home>], reuse: bool) {
    let blocks = std::mem::take(&mut function.blocks);
    let parameters = function.parameters.clone();
    let mut registers = function.registers;
    for (mut block, at) in blocks.into_iter().zip(0..) {
        let done = Vec::with_capacity(block.operations.len() * 2);
        let mut rewriter = Rewriter { homes, reuse, registers: &mut registers, done, kept: Vec::new(), reason: None };
        if BlockId(at) == BlockId(0) {
            rewriter.parameters(&parameters);
        }
        for operation in block.operations {
            rewriter.reason = operation.reason;
            rewriter.operation(operation.kind);
        }
        rewriter.reason = block.end_reason;
        block.end.replace_reads(|register| rewriter.fetched(register));
        block.operations = rewriter.done;
        function.blocks.push(block);
    }
    function.registers = registers;
}

struct Rewriter<'a> {
    /// By register; none for one that has no home, and for those that are made here.
    homes: &'a [Option<Home>],
    reuse: bool,
    registers: &'a mut u32,
    done: Vec<Operation>,
    /// What has been fetched or stored: whose value, the register that holds it, and where that was last used.
    kept: Vec<(Register, Register, usize)>,
    reason: Option<ReasonId>,
}

impl Rewriter<'_> {
    fn push(&mut self, kind: OperationKind) {
        self.done.push(Operation { kind, reason: self.reason });
    }

    fn home(&self, register: Register) -> Option<Home> {
        self.homes.get(register.0 as usize).copied().flatten()
    }

    fn fresh(&mut self) -> Register {
        *self.registers += 1;
        Register(*self.registers - 1)
    }

    /// A parameter keeps its register, and is stored from there.
    fn parameters(&mut self, parameters: &[Register]) {
        for parameter in parameters {
            if let Some(Home::Slot(slot)) = self.home(*parameter) {
                self.store(slot, (*parameter).into());
            }
        }
    }

    fn store(&mut self, slot: SlotId, value: Operand) {
        self.push(OperationKind::Store { to: Address::slot(slot, 0), value, size: Size::B8 });
    }

    /// The register that holds the value.
    fn fetched(&mut self, register: Register) -> Register {
        let Some(home) = self.home(register) else { return register };
        let now = self.done.len();
        if let Some(kept) = self.kept.iter_mut().find(|(of, _, last)| *of == register && now - *last <= REUSED) {
            kept.2 = now;
            return kept.1;
        }
        let to = self.fresh();
        self.fetch(to, home);
        self.keep(register, to);
        to
    }

    fn fetch(&mut self, to: Register, home: Home) {
        self.push(match home {
            Home::Slot(slot) => OperationKind::Load { to, from: Address::slot(slot, 0), size: Size::B8 },
            Home::Constant(value) => OperationKind::Constant { to, value },
        });
    }

    fn keep(&mut self, of: Register, by: Register) {
        self.kept.retain(|(register, ..)| *register != of);
        if self.reuse {
            self.kept.push((of, by, self.done.len()));
        }
    }

    /// No copy is left of what has been fetched: it would be made one with what it is copied to, and live as long.
    fn copy(&mut self, to: Register, from: Register) {
        match (self.home(to), self.home(from)) {
            // It is there already.
            (Some(Home::Slot(slot)), Some(Home::Slot(same))) if slot == same => {}
            (Some(Home::Slot(slot)), _) => {
                let from = self.fetched(from);
                self.store(slot, from.into());
                self.kept.retain(|(register, ..)| *register != to);
            }
            (_, Some(home)) => self.fetch(to, home),
            _ => self.push(OperationKind::Copy { to, from }),
        }
    }

    fn operation(&mut self, mut kind: OperationKind) {
        if let OperationKind::Copy { to, from } = kind {
            return self.copy(to, from);
        }
        if !kind.reads().chain(kind.writes()).any(|register| self.home(register).is_some()) {
            if let OperationKind::Call { .. } = kind {
                self.kept.clear();
            }
            return self.push(kind);
        }
        let mut seen: Vec<(Register, Register)> = Vec::new();
        kind.replace_reads(|register| match seen.iter().find(|(of, _)| *of == register) {
            Some((_, by)) => *by,
            None => {
                let by = self.fetched(register);
                seen.push((register, by));
                by
            }
        });
        if let OperationKind::Call { .. } = kind {
            self.kept.clear();
        }
        let home = kind.writes().and_then(|to| Some((to, self.home(to)?)));
        match (home, &kind) {
            (None, _) => self.push(kind),
            // Made where it is used.
            (Some((_, Home::Constant(_))), _) => {}
            (Some((to, Home::Slot(slot))), OperationKind::Constant { value, .. }) if i32::try_from(*value).is_ok() => {
                self.store(slot, Operand::Constant(*value as i32));
                self.kept.retain(|(register, ..)| *register != to);
            }
            (Some((to, Home::Slot(slot))), _) => {
                let by = self.fresh();
                kind.replace_write(by);
                self.push(kind);
                self.store(slot, by.into());
                self.keep(to, by);
            }
        }
    }
}
