//! Bytes that are sent as they are, and addresses of networks, which are more than a register holds.
//!
//! Bytes (`buf`) are put where a text would be, and have a length as texts do; so all that is done with texts is done
//! with them. Addresses have as many bytes as their kind says. They are put where they are wanted at once: in the
//! record, in the scratch where a `bind` step keeps one, or on the stack to be compared. Where one is absent nothing
//! can be relied on there, so who wants it writes zeros on that way.
//!
//! What is written to the stack is made of the unknown zero, for the verifier remembers constants there, too.

use super::held::Exit;
use super::text::Found;
use super::{Local, Lower, helper};
use crate::ir::{Address, AluOp, BlockId, Cond, Operand, Register, Size, SlotId, Space};
use crate::plan::layout;
use crate::plan::{Access, Form, Node, NodeKind, Type};

/// Numbers of address families (include/linux/socket.h).
const AF_INET: i32 = 2;
const AF_INET6: i32 = 10;
/// Where an IP address's bytes stand in a record, behind what tells its kind.
const OCTETS_AT: u32 = 4;
/// Bytes of the stack for an address that is compared.
const ON_STACK: u32 = 24;

/// Where something is put together.
#[derive(Clone, Copy)]
pub enum Place {
    Stack(SlotId),
    Scratch(Register),
}

impl Place {
    pub fn at(self, offset: u32) -> Address {
        match self {
            Place::Stack(slot) => Address::slot(slot, offset as i32),
            Place::Scratch(base) => Address::at(base, Space::MapValue, offset as i32),
        }
    }
}

/// An address's place, and its bytes by what can be read and written at once there.
#[derive(Clone, Copy)]
pub struct Octets {
    place: Place,
    offset: u32,
    bytes: u32,
    unit: Size,
}

impl Octets {
    pub fn new(place: Place, offset: u32, ty: &Type) -> Octets {
        let (bytes, unit) = if *ty == Type::Mac { (6, Size::B2) } else { (20, Size::B4) };
        Octets { place, offset, bytes, unit }
    }

    fn at(self, offset: u32) -> Address {
        self.place.at(self.offset + offset)
    }

    /// Offsets of its parts, from the one given.
    fn parts(self, from: u32) -> impl Iterator<Item = u32> {
        (from..self.bytes).step_by(self.unit.bytes() as usize)
    }
}

impl Lower<'_> {
    /// Reads bytes to `to`, where there is room for as many as the type says.
    pub fn bytes_into(
        &mut self,
        node: &Node,
        (pointer, access, length): (&Node, Access, Option<&Node>),
        to: Register,
        exit: &Exit,
    ) -> Found {
        let max = super::text::max(node);
        let (size, found) = match length {
            None => (Operand::Constant(max as i32), self.all(max)),
            Some(length) => {
                let found = self.length(length, max, exit);
                (found.length.into(), found)
            }
        };
        let from = self.value(pointer, exit);
        self.explain_node(node);
        let root = self.root(pointer, from, false);
        let failed = self.helper(read_by(access), &[to.into(), size, from.into()]);
        self.leave_if_failed(Cond::Ne, failed, 0, root, exit);
        found
    }

    /// A length that is known only now: none below 0, and cut at `max`.
    fn length(&mut self, node: &Node, max: u32, exit: &Exit) -> Found {
        let number = self.value(node, exit);
        let (length, cut) = (self.fresh(number), self.b.constant(0));
        if !matches!(node.ty.integer(), Some((8, false))) {
            let absent = self.leave(exit);
            self.b.leave_if(Cond::Slt, length, 0, absent);
        }
        self.cut_to(length, cut, max);
        Found { length: self.settled(length), cut }
    }

    /// Puts an address to its place; goes to `exit` where it is absent.
    pub fn octets_into(&mut self, node: &Node, to: Octets, exit: &Exit) {
        let depth = self.depth();
        self.octets_read_into(node, to, exit);
        self.release_to(depth);
    }

    fn octets_read_into(&mut self, node: &Node, to: Octets, exit: &Exit) {
        self.explain_node(node);
        match &node.kind {
            NodeKind::Ipv4(value) => {
                let value = self.value(value, exit);
                self.b.store(to.at(OCTETS_AT), value, Size::B4);
                self.complete_ip(to, layout::V4);
            }
            NodeKind::Octets { pointer, access, form } => {
                let family = match form {
                    Form::Family(family) => {
                        let family = self.value(family, exit);
                        Some(self.fresh(family))
                    }
                    _ => None,
                };
                let from = self.value(pointer, exit);
                self.explain_node(node);
                let root = self.root(pointer, from, false);
                let read = |l: &mut Self, offset: u32, bytes: i32| {
                    let target = l.address_in(to.place, to.offset + offset);
                    let failed = l.helper(read_by(*access), &[target.into(), bytes.into(), from.into()]);
                    l.leave_if_failed(Cond::Ne, failed, 0, root, exit);
                };
                let ip = |l: &mut Self, kind: u8| {
                    read(l, OCTETS_AT, if kind == layout::V4 { 4 } else { 16 });
                    l.complete_ip(to, kind);
                };
                match (form, family) {
                    (Form::Mac, _) => read(self, 0, 6),
                    (Form::V4, _) => ip(self, layout::V4),
                    (Form::V6, _) | (Form::Family(_), None) => ip(self, layout::V6),
                    (Form::Family(_), Some(family)) => {
                        let (v4, other, v6, join) = (self.b.block(), self.b.block(), self.b.block(), self.b.block());
                        self.b.branch(Cond::Eq, family, AF_INET, v4, other);
                        self.b.enter(other);
                        let absent = self.leave(exit);
                        self.b.branch(Cond::Eq, family, AF_INET6, v6, absent);
                        for (block, kind) in [(v4, layout::V4), (v6, layout::V6)] {
                            self.b.enter(block);
                            ip(self, kind);
                            self.b.jump(join);
                        }
                        self.b.enter(join);
                    }
                }
            }
            NodeKind::Local(local) => {
                let Local::Octets { at, present } = self.locals[*local as usize] else { return };
                self.need(present, exit);
                let from = self.scratch_at(at);
                for part in to.parts(0) {
                    let value = self.b.load(Address::at(from, Space::MapValue, part as i32), to.unit);
                    self.b.store(to.at(part), value, to.unit);
                }
            }
            NodeKind::Conditional { condition, then, otherwise } => self.either(condition, exit, |l, first| {
                l.octets_into(if first { then } else { otherwise }, to, exit);
            }),
            // Nothing else is an address.
            _ => {}
        }
    }

    /// What stands around the bytes of an IP address: which kind it is, and zeros behind an IPv4 address.
    fn complete_ip(&mut self, to: Octets, kind: u8) {
        let kind_of = self.b.alu(AluOp::Add, self.zero, i32::from(kind));
        self.b.store(to.at(0), kind_of, to.unit);
        if kind == layout::V4 {
            self.clear_octets(to, 2 * OCTETS_AT);
        }
    }

    /// Zeros from that byte on.
    pub fn clear_octets(&mut self, to: Octets, from: u32) {
        for part in to.parts(from) {
            self.b.store(to.at(part), self.zero, to.unit);
        }
    }

    pub fn address_in(&mut self, place: Place, offset: u32) -> Register {
        match place {
            Place::Stack(slot) => self.b.address_of(slot, offset),
            Place::Scratch(base) => self.b.alu(AluOp::Add, base, offset as i32),
        }
    }

    /// Goes to `yes` where an address is one of these.
    pub fn octets_in(&mut self, node: &Node, set: &[Vec<u8>], yes: BlockId, no: BlockId, exit: &Exit) {
        let before = self.octets_used;
        let value = self.take_octets(&node.ty);
        self.octets_into(node, value, exit);
        for (n, wanted) in set.iter().enumerate() {
            let next = if n + 1 == set.len() { no } else { self.b.block() };
            for part in value.parts(0) {
                let found = self.b.load(value.at(part), value.unit);
                let mut word = [0; 4];
                let bytes = wanted.get(part as usize..(part + value.unit.bytes()) as usize).unwrap_or_default();
                word[..bytes.len()].copy_from_slice(bytes);
                // Without a sign, which a constant beyond 31 bits would have.
                let word = u32::from_le_bytes(word);
                let word = match i32::try_from(word) {
                    Ok(word) => Operand::Constant(word),
                    Err(_) => self.b.constant(word.into()).into(),
                };
                self.b.leave_if(Cond::Ne, found, word, next);
            }
            self.b.jump(yes);
            if next != no {
                self.b.enter(next);
            }
        }
        if set.is_empty() {
            self.b.jump(no);
        }
        self.octets_used = before;
    }

    /// Goes to `yes` where two addresses are the same.
    pub fn same_octets(&mut self, left: &Node, right: &Node, yes: BlockId, no: BlockId, exit: &Exit) {
        let before = self.octets_used;
        let (first, second) = (self.take_octets(&left.ty), self.take_octets(&right.ty));
        self.octets_into(left, first, exit);
        self.octets_into(right, second, exit);
        for part in first.parts(0) {
            let found = self.b.load(first.at(part), first.unit);
            let other = self.b.load(second.at(part), second.unit);
            self.b.leave_if(Cond::Ne, found, other, no);
        }
        self.b.jump(yes);
        self.octets_used = before;
    }

    /// A place on the stack for an address that is compared, until `octets_used` is what it was before: what decides
    /// between two addresses may compare others.
    fn take_octets(&mut self, ty: &Type) -> Octets {
        let slot = match self.octets.get(self.octets_used) {
            Some(slot) => *slot,
            None => {
                self.octets.push(self.b.slot(ON_STACK));
                self.octets[self.octets_used]
            }
        };
        self.octets_used += 1;
        Octets::new(Place::Stack(slot), 0, ty)
    }
}

pub fn read_by(access: Access) -> u32 {
    if access == Access::User { helper::PROBE_READ_USER } else { helper::PROBE_READ_KERNEL }
}
