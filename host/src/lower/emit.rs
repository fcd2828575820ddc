//! The `emit` step: a record put together and sent.
//!
//! A record without texts but the thread's name is small and of fixed size: it is put together on the stack. Every
//! other one is put together in the program's scratch, its texts one behind the other, and sent with its true length.
//! Either way one helper copies it into the ring, and wakes the consumer only where that has caught up.

use super::bytes::{Octets, Place};
use super::held::Exit;
use super::text;
use super::{Counter, EVENTS, Lower, helper};
use crate::ir::{Address, AluOp, Cond, Operand, Register, Size, Space};
use crate::plan::layout::{self, FieldKind, FieldLayout, Schema};
use crate::plan::{Builtin, COMM, Memory, Node, NodeKind, PointPlan, Span, Type, Typed};

/// Bytes of a record that is put together on the stack at most: half of what a program has.
const ON_STACK: u32 = 256;

/// Bytes of scratch that a record of this body needs: none for one that fits on the stack.
pub fn record_room(schema: &Schema, body: &PointPlan) -> u32 {
    let texts: u32 = body.fields().iter().filter(|f| text::is_tail(&f.node)).map(|f| text::room(&f.node)).sum();
    // Up to 7 bytes of padding behind the last text are cleared by one store of 8.
    schema.size.next_multiple_of(8) + texts + 8
}

/// Whether a record of these fields is put together on the stack.
pub fn fits_stack(schema: &Schema, fields: &[Typed]) -> bool {
    stack_size(schema, fields).is_some()
}

/// Bytes of the record, where it fits on the stack.
fn stack_size(schema: &Schema, fields: &[Typed]) -> Option<u32> {
    let names = fields.iter().filter(|f| f.node.kind == NodeKind::Comm).count();
    let others = fields.iter().filter(|f| text::is_tail(&f.node)).count() - names;
    let size = schema.size.next_multiple_of(8) + COMM * names as u32;
    (others == 0 && size <= ON_STACK).then_some(size)
}

impl Lower<'_> {
    pub fn emit(&mut self, fields: &[Typed]) {
        let schema = self.schema;
        let event = format!("emit {}", schema.name);
        let step = self.body.steps.len() as u32;
        self.explain(step, &event, Span::default());
        let fixed = stack_size(schema, fields);
        let place = match fixed {
            Some(size) => Place::Stack(self.b.slot(size)),
            None => {
                self.open_scratch();
                Place::Scratch(self.scratch_at(0))
            }
        };
        self.clear_padding(place);

        // All bits are set, and that of an absent field is cleared: what is there is what happens most.
        let all = fields.iter().fold(0u64, |bits, _| bits << 1 | 1) as i64;
        let presence = self.b.constant(all);
        let mut some_absent = false;
        // Where the next text goes; of the first that is known.
        let texts = schema.size.next_multiple_of(8);
        let (cursor, mut first) = (self.b.constant(i64::from(texts)), Some(texts));
        let mut fixed_cursor = texts;
        for (bit, (field, typed)) in schema.fields.iter().zip(fields).enumerate() {
            self.prepare(typed);
            let (absent, join) = (self.b.block(), self.b.block());
            let (exit, depth) = (self.exit_to(absent), self.depth());
            self.open_section(&typed.node);
            match place {
                Place::Stack(slot) if text::is_tail(&typed.node) => {
                    // Linux 6.1 leaves what is behind the name as it was, and all of it is sent.
                    self.b.store(Address::slot(slot, fixed_cursor as i32), 0, Size::B8);
                    self.b.store(Address::slot(slot, fixed_cursor as i32 + 8), 0, Size::B8);
                    let to = self.b.address_of(slot, fixed_cursor);
                    let found = self.text_into(&typed.node, to, Space::Stack, &exit);
                    let up = self.b.alu(AluOp::Lsh, found.length, 16);
                    let slot_value = self.b.alu(AluOp::Or, up, fixed_cursor as i32);
                    self.b.store(place.at(field.offset), slot_value, Size::B4);
                    fixed_cursor += COMM;
                }
                Place::Scratch(base) if text::is_tail(&typed.node) => {
                    let at = first.take().map_or(cursor.into(), |at| Operand::Constant(at as i32));
                    self.emit_text(typed, field, base, (at, cursor), &exit);
                }
                _ if typed.node.ty.is_octets() => {
                    self.octets_into(&typed.node, Octets::new(place, field.offset, &typed.node.ty), &exit);
                }
                _ => {
                    let size = field_size(&field.kind);
                    if !self.read_to(&typed.node, place, (field.offset, size.bytes()), &exit) {
                        let mut value = self.seen(&typed.node, &exit);
                        let may_be_absent = exit.used() && size == Size::B8;
                        if matches!(place, Place::Stack(_)) && tells_paths_apart(&typed.node, may_be_absent) {
                            value = self.fresh(value);
                        }
                        self.b.store(place.at(field.offset), value, size);
                    }
                }
            }
            self.close_section(depth);
            match typed.node.ty {
                // Whose addresses they are.
                Type::Symbol(Memory::User) => {
                    let process = self.builtin(Builtin::Pid);
                    let process = if exit.used() { self.fresh(process) } else { process };
                    self.b.store(place.at(field.offset + 8), process, Size::B8);
                }
                Type::Stack { of: Memory::User, .. } => {
                    let process = self.builtin(Builtin::Pid);
                    self.b.store(place.at(field.offset + 4), process, Size::B4);
                }
                _ => {}
            }
            self.b.jump(join);
            if exit.used() {
                self.b.enter(exit.block());
                if typed.node.ty.is_octets() {
                    self.clear_octets(Octets::new(place, field.offset, &typed.node.ty), 0);
                } else {
                    self.clear(place, field);
                }
                self.mark_absent(presence, bit);
                self.b.jump(join);
                self.meet(&exit.known());
                some_absent = true;
            }
            self.b.enter(join);
        }
        let presence = match i32::try_from(all) {
            Ok(all) if !some_absent => Operand::Constant(all),
            _ => presence.into(),
        };

        self.explain(step, &event, Span::default());
        let length = match (fixed, place) {
            (Some(size), _) => Operand::Constant(size as i32),
            (None, Place::Scratch(base)) => self.finish_texts(base, cursor).into(),
            (None, Place::Stack(_)) => Operand::Constant(0),
        };
        self.send(place, length, presence);
    }

    /// Writes 0 to where the field is: in words of the stack one that the verifier does not know. Before Linux 6.8 it
    /// remembers of those in which bounds they are, and takes a path on which a field is there, and one on which it is
    /// not, for two from there on.
    fn clear(&mut self, place: Place, field: &FieldLayout) {
        let (size, align) = field.kind.size_align();
        let unit = Size::from_bytes(align).unwrap_or(Size::B8);
        let is_word = matches!(place, Place::Stack(_)) && unit == Size::B8;
        let zero = if is_word { self.zero.into() } else { Operand::Constant(0) };
        for at in (0..size).step_by(align as usize) {
            self.b.store(place.at(field.offset + at), zero, unit);
        }
    }

    /// Clears the words that fields do not fill.
    fn clear_padding(&mut self, place: Place) {
        for word in (layout::HEADER..self.schema.size).step_by(8) {
            let inside = |f: &FieldLayout| {
                let end = f.offset + f.kind.size_align().0;
                end.min(word + 8).saturating_sub(f.offset.max(word))
            };
            if self.schema.fields.iter().map(inside).sum::<u32>() < 8 {
                self.b.store(place.at(word), 0, Size::B8);
            }
        }
    }

    /// Puts a text to where `at` says, which is what the cursor holds.
    fn emit_text(
        &mut self,
        typed: &Typed,
        field: &FieldLayout,
        base: Register,
        (at, cursor): (Operand, Register),
        exit: &Exit,
    ) {
        let to = self.b.alu(AluOp::Add, base, at);
        let found = self.text_into(&typed.node, to, Space::MapValue, exit);
        let length = self.b.alu(AluOp::Or, found.length, found.cut);
        let up = self.b.alu(AluOp::Lsh, length, 16);
        let slot = self.b.alu(AluOp::Or, up, at);
        self.b.store(Address::at(base, Space::MapValue, field.offset as i32), slot, Size::B4);
        self.b.alu_to(AluOp::Add, cursor, cursor, found.length);
    }

    fn mark_absent(&mut self, presence: Register, bit: usize) {
        let others = !(1i64 << bit);
        match i32::try_from(others) {
            Ok(others) => self.b.alu_to(AluOp::And, presence, presence, others),
            Err(_) => {
                let others = self.b.constant(others);
                self.b.alu_to(AluOp::And, presence, presence, others);
            }
        }
    }

    /// Clears the padding behind the last text; the record's length.
    fn finish_texts(&mut self, base: Register, cursor: Register) -> Register {
        let end = self.b.alu(AluOp::Add, base, cursor);
        self.b.store(Address::at(end, Space::MapValue, 0), 0, Size::B8);
        let up = self.b.alu(AluOp::Add, cursor, 7);
        self.b.alu(AluOp::And, up, -8)
    }

    fn send(&mut self, place: Place, length: Operand, presence: Operand) {
        self.release_to(0);
        self.b.store(place.at(layout::LENGTH), length, Size::B4);
        let schema = i32::from(self.schema.id);
        let schema = if self.body.walks {
            self.b.alu(AluOp::Or, self.walks_cut, schema).into()
        } else {
            Operand::Constant(schema)
        };
        self.b.store(place.at(layout::SCHEMA), schema, Size::B2);
        let cpu = self.builtin(Builtin::Cpu);
        self.b.store(place.at(layout::CPU), cpu, Size::B2);
        let time = self.builtin(Builtin::Nsecs);
        self.b.store(place.at(layout::TIME), time, Size::B8);
        self.b.store(place.at(layout::PRESENCE), presence, Size::B8);

        let ring = self.b.map_address(EVENTS);
        let data = match place {
            Place::Stack(slot) => self.b.address_of(slot, 0),
            Place::Scratch(base) => base,
        };
        let failed = self.helper(helper::RINGBUF_OUTPUT, &[ring.into(), data.into(), length, 0.into()]);
        self.tell_reader();
        let (lost, emitted) = (self.b.block(), self.b.block());
        self.b.branch(Cond::Ne, failed, 0, lost, emitted);
        for (block, counter) in [(emitted, Counter::Emitted), (lost, Counter::Lost)] {
            self.b.enter(block);
            self.count(counter);
            self.leave_lane();
            self.b.ret(0);
        }
    }
}

/// Whether verifiers before 6.8 would tell two paths apart by what is on the stack of such a value: its bounds or,
/// where there is none, a 0; or numbers that are chosen from.
pub fn tells_paths_apart(node: &Node, may_be_absent: bool) -> bool {
    node.ty.is_number() && (may_be_absent && !is_any(node) || chooses(node))
}

fn chooses(node: &Node) -> bool {
    match &node.kind {
        NodeKind::Conditional { .. } => true,
        NodeKind::Arithmetic { left, right, .. } => chooses(left) || chooses(right),
        NodeKind::Cast(a) | NodeKind::Negate(a) | NodeKind::Complement(a) | NodeKind::ByteSwap(a) => chooses(a),
        _ => false,
    }
}

/// Whether the verifier knows nothing of such a value anyway: 8 bytes that are read, a helper's answer, or what has
/// been bound and may be absent.
fn is_any(node: &Node) -> bool {
    let is_wide = matches!(node.ty, Type::Integer { bytes: 8, .. } | Type::Pointer { .. });
    match node.kind {
        NodeKind::Load { bytes: 8, bits: None, .. } | NodeKind::Context { bytes: 8, .. } => true,
        NodeKind::Argument { .. } | NodeKind::Fetched { .. } => is_wide,
        NodeKind::Builtin(Builtin::Nsecs | Builtin::Cgroup | Builtin::Duration) | NodeKind::Local(_) => true,
        _ => false,
    }
}

fn field_size(kind: &FieldKind) -> Size {
    Size::from_bytes(kind.size_align().0).unwrap_or(Size::B8)
}
