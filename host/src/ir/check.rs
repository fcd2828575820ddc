//! What a module must obey, tested before code is generated from it. A fault found here is one of the front end's,
//! never of a user's.

use super::{Address, Base, Callee, Function, Module, OperationKind, Register, Space, build_order};

/// Bytes of stack of one function at most (include/linux/filter.h: MAX_BPF_STACK).
const MAX_STACK: u32 = 512;

/// A rule that a module breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("function `{function}`: {message}")]
pub struct CheckError {
    pub function: String,
    pub message: String,
}

/// Tests that every index is in bounds, every register assigned on all paths before it is read, every call within 5
/// arguments, every offset encodable, and that nothing is written to memory that is read only.
pub fn check(module: &Module) -> Result<(), CheckError> {
    module.functions.iter().try_for_each(|function| {
        Checker { module, function }.run().map_err(|message| CheckError { function: function.name.clone(), message })
    })
}

struct Checker<'a> {
    module: &'a Module,
    function: &'a Function,
}

impl Checker<'_> {
    fn run(&self) -> Result<(), String> {
        if self.function.blocks.is_empty() {
            return Err("it has no block".to_owned());
        }
        if self.function.parameters.len() > 5 {
            return Err("it has more than 5 parameters".to_owned());
        }
        let stack: u32 = self.function.slots.iter().map(|s| s.bytes.next_multiple_of(8)).sum();
        if stack > MAX_STACK {
            return Err(format!("its slots need {stack} bytes of {MAX_STACK}"));
        }
        for (block, at) in self.function.blocks.iter().zip(0..) {
            for operation in &block.operations {
                self.operation(&operation.kind).map_err(|e| format!("block {at}: {e}: {:?}", operation.kind))?;
            }
            if let Some(to) = block.end.successors().find(|b| b.0 as usize >= self.function.blocks.len()) {
                return Err(format!("block {at} goes to block {}, which is not there", to.0));
            }
        }
        self.assigned()
    }

    fn operation(&self, kind: &OperationKind) -> Result<(), String> {
        match kind {
            OperationKind::Load { from, size, .. } => self.address(*from, size.bytes()),
            OperationKind::Atomic { at, .. } => match at.base {
                Base::Register { space: Space::MapValue, .. } => self.address(*at, 8),
                _ => Err("only what maps hold is shared".to_owned()),
            },
            OperationKind::Store { to, size, .. } => {
                if let Base::Register { space: Space::Context | Space::Trusted, .. } = to.base {
                    return Err("this memory is read only".to_owned());
                }
                self.address(*to, size.bytes())
            }
            OperationKind::AddressOf { slot, offset, .. } => match self.function.slots.get(slot.0 as usize) {
                Some(s) if *offset < s.bytes => Ok(()),
                _ => Err("outside of the slot".to_owned()),
            },
            OperationKind::MapAddress { map, .. } if map.0 as usize >= self.module.maps.len() => {
                Err("no such map".to_owned())
            }
            OperationKind::DataAddress { offset, .. } if *offset as usize >= self.module.data.len() => {
                Err("outside of the data".to_owned())
            }
            OperationKind::Call { arguments, .. } if arguments.len() > 5 => Err("more than 5 arguments".to_owned()),
            OperationKind::Call { callee: Callee::Kfunc(id), arguments, .. } => {
                match self.module.kfuncs.get(id.0 as usize) {
                    Some(kfunc) if kfunc.parameters.len() == arguments.len() => Ok(()),
                    Some(_) => Err("a kfunc of other parameters".to_owned()),
                    None => Err("no such kfunc".to_owned()),
                }
            }
            OperationKind::Call { callee: Callee::Function(id), arguments, .. } => {
                match self.module.functions.get(id.0 as usize) {
                    Some(f) if f.section.is_none() && f.parameters.len() == arguments.len() => Ok(()),
                    Some(_) => Err("not a subprogram, or of other parameters".to_owned()),
                    None => Err("no such function".to_owned()),
                }
            }
            OperationKind::Extend { bits, .. } if !matches!(bits, 8 | 16 | 32) => Err("8, 16 or 32 bits".to_owned()),
            OperationKind::ByteSwap { bits, .. } if !matches!(bits, 16 | 32 | 64) => {
                Err("16, 32 or 64 bits".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn address(&self, address: Address, bytes: u32) -> Result<(), String> {
        match address.base {
            Base::Slot(slot) => match self.function.slots.get(slot.0 as usize) {
                Some(s) if u32::try_from(address.offset).is_ok_and(|o| o + bytes <= s.bytes) => Ok(()),
                _ => Err("outside of the slot".to_owned()),
            },
            Base::Register { .. } if i16::try_from(address.offset).is_err() => Err("offset of over 16 bits".to_owned()),
            Base::Register { .. } => Ok(()),
        }
    }

    /// Every register read has been assigned on all paths to there.
    fn assigned(&self) -> Result<(), String> {
        let words = (self.function.registers as usize).div_ceil(64);
        // By block, as bits, what has been assigned on all paths to its start that have been gone; at first that is
        // all.
        let mut at_entry = vec![u64::MAX; self.function.blocks.len() * words];
        at_entry[..words].fill(0);
        let mut known = vec![0; words];
        for parameter in &self.function.parameters {
            self.exists(*parameter, 0)?;
            at_entry[parameter.0 as usize / 64] |= 1 << (parameter.0 % 64);
        }
        let order = build_order(self.function);
        let mut waits = vec![false; self.function.blocks.len()];
        waits[0] = true;
        let mut reached = waits.clone();
        while waits.contains(&true) {
            for id in &order {
                let at = id.0 as usize;
                if !std::mem::take(&mut waits[at]) {
                    continue;
                }
                let block = &self.function.blocks[at];
                known.copy_from_slice(&at_entry[at * words..][..words]);
                for operation in &block.operations {
                    for register in operation.kind.reads() {
                        self.readable(&known, register, at)?;
                    }
                    if let Some(to) = operation.kind.writes() {
                        self.exists(to, at)?;
                        known[to.0 as usize / 64] |= 1 << (to.0 % 64);
                    }
                }
                for register in block.end.reads() {
                    self.readable(&known, register, at)?;
                }
                for next in block.end.successors() {
                    let next = next.0 as usize;
                    let entry = &mut at_entry[next * words..][..words];
                    waits[next] |= !std::mem::replace(&mut reached[next], true);
                    for (old, new) in entry.iter_mut().zip(&known) {
                        waits[next] |= *old & !new != 0;
                        *old &= new;
                    }
                }
            }
        }
        Ok(())
    }

    fn readable(&self, known: &[u64], register: Register, block: usize) -> Result<(), String> {
        self.exists(register, block)?;
        if known[register.0 as usize / 64] & 1 << (register.0 % 64) == 0 {
            return Err(format!("block {block}: v{} is read where it may not have been assigned", register.0));
        }
        Ok(())
    }

    fn exists(&self, register: Register, block: usize) -> Result<(), String> {
        if register.0 < self.function.registers {
            Ok(())
        } else {
            Err(format!("block {block}: no register v{}", register.0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BlockId, Cond, FunctionBuilder, SlotId};
    use super::*;

    fn refused(build: impl FnOnce(&mut FunctionBuilder)) -> String {
        let mut builder = FunctionBuilder::new("f", None, 1);
        build(&mut builder);
        let module = Module { functions: vec![builder.finish()], ..Module::default() };
        check(&module).expect_err("accepted").message
    }

    #[test]
    fn rules() {
        let unassigned = refused(|b| {
            let (yes, no, r) = (b.block(), b.block(), b.register());
            let x = b.parameter(0);
            b.branch(Cond::Eq, x, 0, yes, no);
            b.enter(yes);
            b.set(r, 1);
            b.jump(no);
            b.enter(no);
            b.ret(r);
        });
        assert!(unassigned.contains("may not have been assigned"), "{unassigned}");
        assert!(refused(|b| b.jump(BlockId(9))).contains("not there"));
        let outside = refused(|b| {
            let slot = b.slot(8);
            b.store(Address::slot(slot, 4), 0, super::super::Size::B8);
            b.ret(0);
        });
        assert!(outside.contains("outside of the slot"), "{outside}");
        let missing = refused(|b| {
            b.address_of(SlotId(3), 0);
            b.ret(0);
        });
        assert!(missing.contains("outside of the slot"), "{missing}");
        let context = refused(|b| {
            let x = b.parameter(0);
            b.store(Address::at(x, Space::Context, 0), 0, super::super::Size::B8);
            b.ret(0);
        });
        assert!(context.contains("read only"), "{context}");
    }
}
