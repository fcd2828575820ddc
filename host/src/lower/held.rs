//! What a program must give back to the kernel, on every way out.
//!
//! The problem: a value that a kfunc has acquired must be released exactly once on each path, and an iterator that was
//! begun must be destroyed; the verifier refuses a program that forgets it on one. Expressions leave in the middle,
//! wherever something is absent, and a plugin knows nothing of it.
//!
//! The idea: what is held stands on a stack, in the order in which it was acquired. An [`Exit`] remembers how much was
//! held where it was made. Who jumps to it from where more is held goes through blocks that release the rest, the last
//! first, one block for each held value and place to go to: so paths that leave from the same depth share them. They
//! are written behind all else.
//!
//! Invariant: a block that is jumped to by way of [`Lower::leave`] or [`Lower::releasing`] finds held just what was
//! held where it was made.

use std::cell::RefCell;

use super::Lower;
use super::known::Known;
use crate::ir::{BlockId, CType, Callee, Cond, Kfunc, KfuncId, ReasonId, Register, SlotId};
use crate::plan::Node;

/// Where an absent value goes, and whether any does.
pub struct Exit {
    block: BlockId,
    /// What is known on all ways there, if there are any.
    known: RefCell<Option<Known>>,
    /// How much is held there.
    depth: usize,
}

impl Exit {
    pub fn to(block: BlockId, depth: usize) -> Exit {
        Exit { block, known: RefCell::new(None), depth }
    }

    pub fn depth(&self) -> usize {
        self.depth
    }

    /// The block, for a jump to it from where this is known: for [`Lower::leave`] alone, as a jump right there would
    /// forget what is held.
    fn take(&self, known: &Known) -> BlockId {
        let mut on_all = self.known.borrow_mut();
        *on_all = Some(on_all.take().map_or_else(|| known.clone(), |others| others.common(known)));
        self.block
    }

    pub fn block(&self) -> BlockId {
        self.block
    }

    pub fn used(&self) -> bool {
        self.known.borrow().is_some()
    }

    /// What is known there.
    pub fn known(&self) -> Known {
        self.known.borrow().clone().unwrap_or_default()
    }
}

/// Something to be given back.
#[derive(Clone, Copy)]
pub struct Held {
    /// Tells it from others that are held at the same depth at other times.
    number: u32,
    what: What,
    /// The kfunc that gives it back.
    by: KfuncId,
    reason: Option<ReasonId>,
}

#[derive(Clone, Copy)]
enum What {
    /// A pointer, and whether it may be null on the way.
    Pointer { register: Register, may_be_null: bool },
    /// An iterator on the stack.
    Iterator(SlotId),
    /// An RCU section.
    Section,
}

/// What is held, and the blocks that release it.
#[derive(Default)]
pub struct Holding {
    held: Vec<Held>,
    numbers: u32,
    /// The registers of bound values that may be null.
    unknown: Vec<Register>,
    /// What the verifier goes through, up to where it was counted last, and what had been written by then.
    pub paths: usize,
    counted: usize,
    /// Blocks that release one and go on, in the order in which they were asked for.
    leaving: Vec<(Held, BlockId, BlockId)>,
}

impl Holding {
    /// How many bound values are held on some paths and null on others.
    pub fn unknown(&self) -> u32 {
        self.unknown.len() as u32
    }

    /// Where the program goes on from here, the value in this register is not null.
    pub fn is_there(&mut self, register: Register) {
        self.unknown.retain(|known| *known != register);
        for held in &mut self.held {
            if let What::Pointer { register: of, may_be_null } = &mut held.what
                && *of == register
            {
                *may_be_null = false;
                self.numbers += 1;
                held.number = self.numbers;
            }
        }
    }
}

impl Lower<'_> {
    /// An exit to this block from what is computed from here on.
    pub fn exit_to(&self, block: BlockId) -> Exit {
        Exit::to(block, self.depth())
    }

    /// How much is held.
    pub fn depth(&self) -> usize {
        self.holding.held.len()
    }

    /// The block to jump to where a value is absent.
    pub fn leave(&mut self, exit: &Exit) -> BlockId {
        let target = exit.take(&self.known);
        self.releasing(exit.depth(), target)
    }

    /// The block to jump to for the end of a hit that is filtered.
    pub fn filter(&mut self) -> BlockId {
        let filtered = self.filtered;
        self.releasing(0, filtered)
    }

    /// A block that releases what is held above this depth, and goes on to `target`.
    pub fn releasing(&mut self, depth: usize, target: BlockId) -> BlockId {
        let mut to = target;
        for index in depth..self.depth() {
            let held = self.holding.held[index];
            let known = self.holding.leaving.iter().rev().find(|(h, _, next)| h.number == held.number && *next == to);
            to = match known {
                Some((_, block, _)) => *block,
                None => {
                    let block = self.b.block();
                    self.holding.leaving.push((held, block, to));
                    block
                }
            };
        }
        to
    }

    /// Counts what has been written since it was counted last, as often as the bound values that may be null make the
    /// verifier go through it. Loops over texts that are compared, and over the names of a path, are gone through again
    /// and again.
    pub fn count_paths(&mut self) {
        let written = self.b.operations() + self.compared as usize * 8;
        let since = written - self.holding.counted;
        let doubled = 1usize << self.holding.unknown().min(usize::BITS / 2);
        self.holding.paths = self.holding.paths.saturating_add(since.saturating_mul(doubled));
        self.holding.counted = written;
    }

    /// From here on, this pointer is to be released.
    pub fn hold(&mut self, register: Register, by: KfuncId, may_be_null: bool) {
        self.push_held(What::Pointer { register, may_be_null }, by);
    }

    /// From here on, this iterator is to be destroyed.
    pub fn hold_iterator(&mut self, slot: SlotId, by: KfuncId) {
        self.push_held(What::Iterator(slot), by);
    }

    /// Opens an RCU section, where the program may sleep and the expression needs one. All other programs run in one
    /// anyhow.
    pub fn open_section(&mut self, node: &Node) {
        if self.body.sleeps && node.needs_rcu() {
            let [open, close] = ["bpf_rcu_read_lock", "bpf_rcu_read_unlock"].map(|name| Kfunc {
                name: name.to_owned(),
                parameters: Vec::new(),
                result: CType::Void,
            });
            let (open, close) = (self.kfunc_id(&open), self.kfunc_id(&close));
            self.b.run(Callee::Kfunc(open), &[]);
            self.push_held(What::Section, close);
        }
    }

    /// Closes the RCU section that was opened at this depth, whatever is held beside it.
    pub fn close_section(&mut self, depth: usize) {
        if let Some(Held { what: What::Section, by, .. }) = self.holding.held.get(depth).copied() {
            self.holding.held.remove(depth);
            self.b.run(Callee::Kfunc(by), &[]);
        }
    }

    fn push_held(&mut self, what: What, by: KfuncId) {
        self.holding.numbers += 1;
        let (number, reason) = (self.holding.numbers, self.b.reason());
        self.holding.held.push(Held { number, what, by, reason });
    }

    /// What is held above this depth is one value that a `bind` step keeps: from here on in this register, and 0 there
    /// where it is absent.
    pub fn keep_held(&mut self, depth: usize, register: Register, may_be_absent: bool) {
        self.holding.numbers += 1;
        if let Some(Held { number, what: What::Pointer { register: of, may_be_null }, .. }) =
            self.holding.held.get_mut(depth)
        {
            (*number, *of) = (self.holding.numbers, register);
            *may_be_null |= may_be_absent;
            if *may_be_null {
                self.holding.unknown.push(register);
            }
        }
    }

    /// Releases what is held above this depth, the last first.
    pub fn release_to(&mut self, depth: usize) {
        let reason = self.b.reason();
        while self.depth() > depth {
            if let Some(held) = self.holding.held.pop() {
                self.give_back(held);
            }
        }
        self.b.because(reason);
    }

    fn give_back(&mut self, held: Held) {
        self.b.because(held.reason);
        let pointer = match held.what {
            What::Section => return self.b.run(Callee::Kfunc(held.by), &[]),
            What::Iterator(slot) => self.b.address_of(slot, 0),
            What::Pointer { register, may_be_null: false } => register,
            What::Pointer { register, may_be_null: true } => {
                let done = self.b.block();
                self.b.leave_if(Cond::Eq, register, 0, done);
                self.b.run(Callee::Kfunc(held.by), &[register.into()]);
                self.b.jump(done);
                return self.b.enter(done);
            }
        };
        self.b.run(Callee::Kfunc(held.by), &[pointer.into()]);
    }

    /// Writes the blocks that release on the way out.
    pub fn write_ways_out(&mut self) {
        for (held, block, to) in std::mem::take(&mut self.holding.leaving) {
            self.b.enter(block);
            self.give_back(held);
            self.b.jump(to);
        }
    }
}
