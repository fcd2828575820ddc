//! Integers, booleans and pointers, and what branches on them.

use super::bytes::{Place, read_by};
use super::fault::Root;
use super::held::Exit;
use super::known::Answer;
use super::{Local, Lower, helper, lanes};
use crate::ir::{Address, AluOp, BlockId, Callee, Cond, Operand, Register, Size, Space};
use crate::plan::arithmetic::Op;
use crate::plan::kfunc::Gives;
use crate::plan::{Access, Builtin, Node, NodeKind, Origin, Type};

impl Lower<'_> {
    /// The node's value in 64 bits; goes to `exit` where it is absent. What had to be held for it is released, unless
    /// the value is a pointer to that.
    pub fn value(&mut self, node: &Node, exit: &Exit) -> Register {
        let depth = self.depth();
        let value = self.computed(node, exit);
        if self.depth() > depth && self.is_plain(node) {
            self.release_to(depth);
        }
        value
    }

    fn computed(&mut self, node: &Node, exit: &Exit) -> Register {
        self.explain_node(node);
        match &node.kind {
            NodeKind::Constant(value) => self.b.constant(*value),
            NodeKind::Builtin(builtin) => self.builtin(*builtin),
            NodeKind::Context { offset, bytes } => {
                let value = self.b.load(Address::at(self.context, Space::Context, *offset as i32), size(*bytes));
                self.extended(value, &node.ty, *bytes)
            }
            NodeKind::Argument { index, access } => {
                let offset = *index as i32 * 8;
                let value = match access {
                    Access::Direct => self.b.load(Address::at(self.context, Space::Context, offset), Size::B8),
                    Access::Kernel | Access::User => {
                        let from = self.b.alu(AluOp::Add, self.context, offset);
                        self.probe(from, 8, *access, Root::Sound, exit)
                    }
                };
                match (node.ty.integer(), &node.ty) {
                    (Some((bytes, signed)), _) if bytes < 8 => self.b.extend(value, u32::from(bytes) * 8, signed),
                    (_, Type::Boolean) => self.b.extend(value, 8, false),
                    _ => value,
                }
            }
            NodeKind::Fetched { argument } => self.fetched(*argument),
            NodeKind::Local(local) => self.local(*local, exit),
            NodeKind::Load { base, offset, bytes, bits, access } => {
                // A pointer that is no base is wanted as a number.
                let access = if let Type::Pointer { .. } = node.ty { probed(*access) } else { *access };
                let value = self.read(base, *offset, *bytes, access, exit);
                match bits {
                    None => self.extended(value, &node.ty, *bytes),
                    Some((first, count)) => {
                        let signed = matches!(node.ty.integer(), Some((_, true)));
                        self.bit_field(value, *first, *count, signed)
                    }
                }
            }
            NodeKind::Address { base, offset } => {
                let pointer = self.guarded(base, exit);
                self.b.alu(AluOp::Add, pointer, *offset as i32)
            }
            NodeKind::Element { base, index, scale, count } => self.element(base, index, *scale, *count, exit),
            NodeKind::Kfunc(call) => self.kfunc(call, node, exit),
            NodeKind::Found(found) => self.found_pointer(found, node, exit),
            NodeKind::Item(depth) => self.items[*depth as usize],
            NodeKind::Walk(walk) => self.walk(walk, node, exit),
            NodeKind::Absent => {
                self.is_absent(exit);
                self.b.constant(0)
            }
            NodeKind::ContextAddress { offset } => self.b.alu(AluOp::Add, self.context, *offset as i32),
            NodeKind::Gathered { offsets } => self.gathered(*offsets),
            NodeKind::Cast(inner) => {
                let value = self.plain(inner, exit);
                match node.ty.integer() {
                    Some((bytes, signed)) if bytes < 8 => self.b.extend(value, u32::from(bytes) * 8, signed),
                    _ => value,
                }
            }
            NodeKind::ByteSwap(inner) => {
                let value = self.value(inner, exit);
                let bits = node.ty.integer().map_or(64, |(bytes, _)| u32::from(bytes) * 8);
                self.b.byte_swap(value, bits)
            }
            NodeKind::Complement(value) => {
                let value = self.value(value, exit);
                self.b.alu(AluOp::Xor, value, -1)
            }
            NodeKind::Negate(value) => {
                let value = self.value(value, exit);
                let zero = self.b.constant(0);
                self.b.alu(AluOp::Sub, zero, value)
            }
            NodeKind::Arithmetic { op, unsigned, left, right } if !op.is_comparison() => {
                self.arithmetic(*op, *unsigned, left, right, exit)
            }
            NodeKind::Conditional { condition, then, otherwise } => {
                let result = self.b.register();
                self.either(condition, exit, |l, first| {
                    let value = l.value(if first { then } else { otherwise }, exit);
                    l.b.copy(result, value);
                });
                result
            }
            NodeKind::Not(_)
            | NodeKind::And(..)
            | NodeKind::Or(..)
            | NodeKind::Arithmetic { .. }
            | NodeKind::In { .. }
            | NodeKind::Match { .. }
            | NodeKind::OctetsIn { .. }
            | NodeKind::SameOctets(..)
            | NodeKind::SameText(..) => {
                let result = self.b.register();
                self.either(node, exit, |l, holds| l.b.alu_to(AluOp::Add, result, l.zero, i32::from(holds)));
                result
            }
            // Texts, bytes and addresses have no value of 64 bits; the checker never asks for one.
            NodeKind::Literal(_)
            | NodeKind::Bytes { .. }
            | NodeKind::Ipv4(_)
            | NodeKind::Octets { .. }
            | NodeKind::Comm
            | NodeKind::Str { .. }
            | NodeKind::Path { .. }
            | NodeKind::Stack(_)
            | NodeKind::ContextText { .. }
            | NodeKind::LocatedText { .. } => self.b.constant(0),
        }
    }

    /// Goes to `yes` where the node is not 0, to `no` where it is, and to `exit` where it is absent.
    pub fn branch_on(&mut self, node: &Node, yes: BlockId, no: BlockId, exit: &Exit) {
        self.explain_node(node);
        match &node.kind {
            NodeKind::Constant(value) => self.b.jump(if *value != 0 { yes } else { no }),
            NodeKind::Not(inner) => self.branch_on(inner, no, yes, exit),
            NodeKind::And(left, right) => {
                let next = self.b.block();
                self.branch_on(left, next, no, exit);
                self.apart(next, |l| l.branch_on(right, yes, no, exit));
            }
            NodeKind::Or(left, right) => {
                let next = self.b.block();
                self.branch_on(left, yes, next, exit);
                self.apart(next, |l| l.branch_on(right, yes, no, exit));
            }
            NodeKind::Arithmetic { op, unsigned, left, right } if op.is_comparison() => {
                let left = self.tested(left, exit);
                let right = match right.kind {
                    NodeKind::Constant(_) => self.operand(right, exit),
                    _ => self.tested(right, exit).into(),
                };
                self.explain_node(node);
                self.b.branch(condition(*op, *unsigned), left, right, yes, no);
            }
            NodeKind::SameText(left, right) => self.same_text(left, right, yes, no, exit),
            NodeKind::SameOctets(left, right) => self.same_octets(left, right, yes, no, exit),
            NodeKind::OctetsIn { value, set } => self.octets_in(value, set, yes, no, exit),
            NodeKind::Match { text, how, with } => {
                let with: Vec<&[u8]> = with.iter().map(Vec::as_slice).collect();
                self.text_matches(text, *how, &with, yes, no, exit);
            }
            NodeKind::In { value, set } => {
                let number = self.plain(value, exit);
                let number = if self.lives_on(value) { self.fresh(number) } else { number };
                for member in set {
                    let member = match i32::try_from(*member) {
                        Ok(member) => Operand::Constant(member),
                        Err(_) => self.b.constant(*member).into(),
                    };
                    self.b.leave_if(Cond::Eq, number, member, yes);
                }
                self.b.jump(no);
            }
            _ => {
                let value = self.tested(node, exit);
                self.b.branch(Cond::Ne, value, 0, yes, no);
            }
        }
    }

    /// The node's value, to be tested.
    fn tested(&mut self, node: &Node, exit: &Exit) -> Register {
        let value = self.seen(node, exit);
        if self.lives_on(node) { self.fresh(value) } else { value }
    }

    /// The node's value, to be looked at once: of a pointer to what is held for that alone, the number is enough.
    pub fn seen(&mut self, node: &Node, exit: &Exit) -> Register {
        let depth = self.depth();
        let value = self.value(node, exit);
        if self.depth() == depth {
            return value;
        }
        let number = self.forgotten(value);
        self.release_to(depth);
        number
    }

    /// Whether the node's register, or one that the verifier knows to be as far from it as a constant says, is used
    /// again. Pointers that the verifier keeps an eye on are left out: it must learn whether they are null, and adds no
    /// unknown number to them.
    pub fn lives_on(&self, node: &Node) -> bool {
        match &node.kind {
            NodeKind::Local(_) => self.is_plain(node),
            NodeKind::Builtin(builtin) => *builtin != Builtin::Task,
            NodeKind::Arithmetic { op: Op::Add | Op::Subtract, left, right, .. } => {
                self.lives_on(left) || self.lives_on(right)
            }
            NodeKind::Conditional { then, otherwise, .. } => {
                self.is_plain(node) && (self.lives_on(then) || self.lives_on(otherwise))
            }
            NodeKind::Cast(inner) => self.is_plain(inner) && self.lives_on(inner),
            // Made of the unknown zero: whoever learns what it is knows that zero from there on.
            NodeKind::Not(_)
            | NodeKind::And(..)
            | NodeKind::Or(..)
            | NodeKind::In { .. }
            | NodeKind::Match { .. }
            | NodeKind::OctetsIn { .. }
            | NodeKind::SameOctets(..)
            | NodeKind::SameText(..)
            | NodeKind::Walk(_) => true,
            NodeKind::Kfunc(call) => call.gives == Gives::Nothing,
            NodeKind::Arithmetic { op, .. } => op.is_comparison(),
            _ => false,
        }
    }

    /// Whether the node's value is a plain number to the verifier, on all paths.
    pub fn is_plain(&self, node: &Node) -> bool {
        let Type::Pointer { origin, .. } = node.ty else { return true };
        match &node.kind {
            NodeKind::Local(local) => matches!(self.locals[*local as usize], Local::Value { plain: true, .. }),
            NodeKind::Conditional { then, otherwise, .. } => self.is_plain(then) && self.is_plain(otherwise),
            NodeKind::Argument { .. } => origin != Origin::Trusted,
            // `value` reads what it loads by a helper.
            NodeKind::Load { .. } | NodeKind::Context { .. } | NodeKind::Fetched { .. } => true,
            // What a walk gives is no object of its own any more.
            NodeKind::Cast(_) | NodeKind::Element { .. } | NodeKind::Absent | NodeKind::Walk(_) => true,
            NodeKind::Kfunc(call) => !matches!(call.gives, Gives::Owned { .. }),
            _ => false,
        }
    }

    /// The node's value as a plain number to the verifier: what it takes for a pointer goes through memory, whose
    /// contents it does not keep in mind.
    pub fn plain(&mut self, node: &Node, exit: &Exit) -> Register {
        let depth = self.depth();
        let value = self.value(node, exit);
        if self.is_plain(node) {
            return value;
        }
        let number = self.forgotten(value);
        self.release_to(depth);
        number
    }

    /// The pointer as a number that the verifier knows nothing of.
    pub fn forgotten(&mut self, pointer: Register) -> Register {
        if lanes::is_reentered(self.body) {
            // What is per CPU another thread may write to in between: by way of the thread's own stack, of which a
            // helper reads numbers. It puts them where the pointer was: left there, one into a dynptr would make each
            // step of a walk a new one to the verifier.
            let (bytes, slot) = self.take_slot(8);
            self.b.store(Address::slot(slot, 0), pointer, Size::B8);
            let (into, from) = (self.b.address_of(slot, 0), self.b.address_of(slot, 0));
            self.b.run(Callee::Helper(helper::PROBE_READ_KERNEL), &[into.into(), 8.into(), from.into()]);
            let number = self.b.load(Address::slot(slot, 0), Size::B8);
            self.spare_slot((bytes, slot));
            return number;
        }
        let at = Address::at(self.counters, Space::MapValue, super::FORGET_AT);
        self.b.store(at, pointer, Size::B8);
        self.b.load(at, Size::B8)
    }

    fn element(&mut self, base: &Node, index: &Node, scale: u32, count: Option<u32>, exit: &Exit) -> Register {
        let value = self.plain(base, exit);
        if let Some(null) = null_at(base) {
            let tested = if self.lives_on(base) { self.fresh(value) } else { value };
            let absent = self.leave(exit);
            self.b.leave_if(Cond::Eq, tested, null as i32, absent);
        }
        if let NodeKind::Constant(index) = index.kind
            && count.is_none()
            && let Some(distance) = index.checked_mul(scale.into()).and_then(|n| i32::try_from(n).ok())
        {
            return self.b.alu(AluOp::Add, value, distance);
        }
        let number = self.value(index, exit);
        if let Some(count) = count {
            let tested = if self.lives_on(index) { self.fresh(number) } else { number };
            let count = match i32::try_from(count) {
                Ok(count) => Operand::Constant(count),
                Err(_) => self.b.constant(count.into()).into(),
            };
            let absent = self.leave(exit);
            self.b.leave_if(Cond::Ge, tested, count, absent);
        }
        let distance = if scale == 1 { number } else { self.b.alu(AluOp::Mul, number, scale as i32) };
        self.b.alu(AluOp::Add, value, distance)
    }

    /// Does `arm(true)` where the condition holds and `arm(false)` where not, and goes on behind both.
    pub fn either(&mut self, condition: &Node, exit: &Exit, mut arm: impl FnMut(&mut Self, bool)) {
        let (yes, no, join) = (self.b.block(), self.b.block(), self.b.block());
        self.branch_on(condition, yes, no, exit);
        for (block, holds) in [(yes, true), (no, false)] {
            self.apart(block, |l| {
                arm(l, holds);
                l.b.jump(join);
            });
        }
        self.b.enter(join);
    }

    /// Goes on in `block`, which not all ways go through: what is found out there is not known behind it.
    pub fn apart(&mut self, block: BlockId, body: impl FnOnce(&mut Self)) {
        let known = self.known.clone();
        self.b.enter(block);
        body(self);
        self.known = known;
    }

    /// A value as the right side of an instruction.
    pub fn operand(&mut self, node: &Node, exit: &Exit) -> Operand {
        match node.kind {
            NodeKind::Constant(value) => match i32::try_from(value) {
                Ok(value) => Operand::Constant(value),
                Err(_) => self.value(node, exit).into(),
            },
            _ => self.value(node, exit).into(),
        }
    }

    pub fn builtin(&mut self, builtin: Builtin) -> Register {
        if let Some(known) = self.known.value(Answer::Of(builtin)) {
            return known;
        }
        let value = match builtin {
            Builtin::Pid | Builtin::Tid => {
                let both = self.halves(Answer::PidTgid, helper::GET_CURRENT_PID_TGID);
                self.half(both, builtin == Builtin::Pid)
            }
            Builtin::Uid | Builtin::Gid => {
                let both = self.halves(Answer::UidGid, helper::GET_CURRENT_UID_GID);
                self.half(both, builtin == Builtin::Gid)
            }
            Builtin::Cpu => self.helper(helper::GET_SMP_PROCESSOR_ID, &[]),
            Builtin::Nsecs => self.helper(helper::KTIME_GET_BOOT_NS, &[]),
            Builtin::Cgroup => self.helper(helper::GET_CURRENT_CGROUP_ID, &[]),
            Builtin::Task => self.helper(helper::GET_CURRENT_TASK_BTF, &[]),
            Builtin::Duration => self.duration(),
            Builtin::Point => self.helper(helper::GET_ATTACH_COOKIE, &[self.context.into()]),
        };
        self.known.learn(Answer::Of(builtin), value);
        value
    }

    /// What a call gives of which two values are the halves.
    fn halves(&mut self, answer: Answer, helper: u32) -> Register {
        if let Some(known) = self.known.value(answer) {
            return known;
        }
        let both = self.helper(helper, &[]);
        self.known.learn(answer, both);
        both
    }

    fn half(&mut self, both: Register, upper: bool) -> Register {
        if upper { self.b.alu(AluOp::Rsh, both, 32) } else { self.b.extend(both, 32, false) }
    }

    fn local(&mut self, local: u32, exit: &Exit) -> Register {
        match self.locals[local as usize] {
            Local::Value { value, present, .. } | Local::Text { length: value, present, .. } => {
                self.need(present, exit);
                value
            }
            // An address has no value of 64 bits.
            Local::Octets { .. } => self.b.constant(0),
        }
    }

    /// Goes to `exit` where a bound value is absent.
    pub fn need(&mut self, present: Option<Register>, exit: &Exit) {
        if let Some(present) = present.filter(|present| !self.known.is_there(*present)) {
            let tested = self.fresh(present);
            let absent = self.leave(exit);
            self.b.leave_if(Cond::Eq, tested, 0, absent);
            self.known.learn_there(present);
        }
    }

    /// What the traced function was passed, or returns, out of the verifier's sight. The helpers fail at no program
    /// that the checker lets use them.
    fn fetched(&mut self, argument: Option<u32>) -> Register {
        // Verifiers before 6.3 want memory that a helper writes to have been written to.
        self.b.store(Address::slot(self.word, 0), 0, Size::B8);
        let (context, to) = (self.context, self.b.address_of(self.word, 0));
        match argument {
            Some(slot) => self.helper(helper::GET_FUNC_ARG, &[context.into(), (slot as i32).into(), to.into()]),
            None => self.helper(helper::GET_FUNC_RET, &[context.into(), to.into()]),
        };
        self.last_word = self.word;
        self.b.load(Address::slot(self.word, 0), Size::B8)
    }

    /// Words of the context that are to be read as if they stood side by side. They are put there each time: it costs
    /// less than to know whether they are there already.
    fn gathered(&mut self, offsets: [u32; 2]) -> Register {
        let slot = *self.gathered.entry(offsets).or_insert_with(|| self.b.slot(16));
        for (offset, at) in offsets.into_iter().zip([0, 8]) {
            let word = self.b.load(Address::at(self.context, Space::Context, offset as i32), Size::B8);
            self.b.store(Address::slot(slot, at), word, Size::B8);
        }
        self.b.address_of(slot, 0)
    }

    /// `bytes` at `base + offset`, zero-extended.
    fn read(&mut self, base: &Node, offset: u32, bytes: u8, access: Access, exit: &Exit) -> Register {
        let pointer = self.guarded(base, exit);
        if access == Access::Direct {
            let (pointer, offset) = match i16::try_from(offset) {
                Ok(offset) => (pointer, i32::from(offset)),
                Err(_) => (self.b.alu(AluOp::Add, pointer, offset as i32), 0),
            };
            return self.b.load(Address::at(pointer, Space::Trusted, offset), size(bytes));
        }
        let (from, root) = self.source(base, pointer, offset);
        self.probe(from, bytes, access, root, exit)
    }

    /// Reads the value straight to where it is wanted, in as many bytes, if it is one that a helper reads.
    pub fn read_to(&mut self, node: &Node, place: Place, (offset, bytes): (u32, u32), exit: &Exit) -> bool {
        let NodeKind::Load { base, offset: at, bytes: read, bits: None, access } = &node.kind else { return false };
        let access = if let Type::Pointer { .. } = node.ty { probed(*access) } else { *access };
        if access == Access::Direct || u32::from(*read) != bytes {
            return false;
        }
        let depth = self.depth();
        self.explain_node(node);
        let pointer = self.guarded(base, exit);
        let (from, root) = self.source(base, pointer, *at);
        let to = self.address_in(place, offset);
        self.probe_to(to, from, *read, access, root, exit);
        self.release_to(depth);
        true
    }

    /// What lies behind a pointer, and where that came from.
    fn source(&mut self, base: &Node, pointer: Register, offset: u32) -> (Register, Root) {
        let from = if offset == 0 { pointer } else { self.b.alu(AluOp::Add, pointer, offset as i32) };
        (from, self.root(base, pointer, true))
    }

    /// `bytes` read by a helper, which a fault makes absent.
    pub fn probe(&mut self, from: Register, bytes: u8, access: Access, root: Root, exit: &Exit) -> Register {
        let word = self.word_beside(root);
        let to = self.b.address_of(word, 0);
        self.probe_to(to, from, bytes, access, root, exit);
        self.b.load(Address::slot(word, 0), size(bytes))
    }

    fn probe_to(&mut self, to: Register, from: Register, bytes: u8, access: Access, root: Root, exit: &Exit) {
        let failed = self.helper(read_by(access), &[to.into(), i32::from(bytes).into(), from.into()]);
        self.leave_if_failed(Cond::Ne, failed, 0, root, exit);
    }

    /// A pointer that may be added to. The verifier forbids that with one that may be null, and knows of each pointer
    /// that came from the context or by a direct load whether it may.
    pub fn guarded(&mut self, pointer: &Node, exit: &Exit) -> Register {
        let value = match &pointer.kind {
            NodeKind::Load { base, offset, bytes, access: Access::Direct, .. } => {
                self.explain_node(pointer);
                self.read(base, *offset, *bytes, Access::Direct, exit)
            }
            _ => self.value(pointer, exit),
        };
        if !never_null(pointer) && !is_number(pointer) && !self.known.is_there(value) {
            let tested = if self.lives_on(pointer) { self.fresh(value) } else { value };
            let absent = self.leave(exit);
            self.b.leave_if(Cond::Eq, tested, 0, absent);
            if let NodeKind::Local(_) = pointer.kind {
                self.known.learn_there(value);
            }
        }
        value
    }

    /// `count` bits of the value from the bit `first` on.
    fn bit_field(&mut self, value: Register, first: u8, count: u8, signed: bool) -> Register {
        let (first, count) = (i32::from(first), i32::from(count));
        if signed || count > 31 {
            let up = self.b.alu(AluOp::Lsh, value, 64 - first - count);
            return self.b.alu(if signed { AluOp::Arsh } else { AluOp::Rsh }, up, 64 - count);
        }
        let down = if first == 0 { value } else { self.b.alu(AluOp::Rsh, value, first) };
        self.b.alu(AluOp::And, down, ((1i64 << count) - 1) as i32)
    }

    fn extended(&mut self, value: Register, ty: &Type, bytes: u8) -> Register {
        match ty.integer() {
            Some((_, true)) if bytes < 8 => self.b.extend(value, u32::from(bytes) * 8, true),
            _ => value,
        }
    }

    fn arithmetic(&mut self, op: Op, unsigned: bool, left: &Node, right: &Node, exit: &Exit) -> Register {
        let node_left = self.value(left, exit);
        if let (Op::Divide | Op::Remainder, false) = (op, unsigned) {
            let [left_positive, right_positive] = [left, right].map(|side| self.range(side).is_not_negative());
            // Of what is not negative, the signed quotient is the unsigned one.
            if !(left_positive && right_positive) {
                let right = self.divisor(right, exit);
                return self.divide_signed(op, node_left, right, right_positive);
            }
        }
        let right = match op {
            Op::Divide | Op::Remainder => self.divisor(right, exit),
            Op::ShiftLeft | Op::ShiftRight => match self.operand(right, exit) {
                // An immediate count of 64 and more is no valid instruction.
                Operand::Constant(count) => Operand::Constant(count & 63),
                Operand::Register(count) => self.b.alu(AluOp::And, count, 63).into(),
            },
            _ => self.operand(right, exit),
        };
        let op = match op {
            Op::BitOr => AluOp::Or,
            Op::BitXor => AluOp::Xor,
            Op::BitAnd => AluOp::And,
            Op::ShiftLeft => AluOp::Lsh,
            Op::ShiftRight if unsigned => AluOp::Rsh,
            Op::ShiftRight => AluOp::Arsh,
            Op::Subtract => AluOp::Sub,
            Op::Multiply => AluOp::Mul,
            Op::Divide => AluOp::Div,
            Op::Remainder => AluOp::Mod,
            // Comparisons are branches: `value` sends them elsewhere.
            _ => AluOp::Add,
        };
        self.b.alu(op, node_left, right)
    }

    /// A divisor that is not 0.
    fn divisor(&mut self, node: &Node, exit: &Exit) -> Operand {
        if let NodeKind::Constant(1..) | NodeKind::Constant(..=-1) = node.kind {
            return self.operand(node, exit);
        }
        let value = self.value(node, exit);
        let tested = if self.lives_on(node) { self.fresh(value) } else { value };
        let absent = self.leave(exit);
        self.b.leave_if(Cond::Eq, tested, 0, absent);
        value.into()
    }

    /// The instruction set before -mcpu=v4 divides without signs: divide the amounts, then put the sign back.
    /// `positive`: the divisor is known not to be negative.
    fn divide_signed(&mut self, op: Op, left: Register, right: Operand, positive: bool) -> Register {
        let (left_amount, left_sign) = self.amount(left);
        let (right_amount, sign) = match right {
            right if positive => (right, left_sign),
            Operand::Constant(value) => {
                // A register: the amount of the least value is no operand.
                let amount = self.b.constant(i64::from(value).abs());
                (amount.into(), self.b.alu(AluOp::Xor, left_sign, -1))
            }
            Operand::Register(right) => {
                let (amount, right_sign) = self.amount(right);
                (amount.into(), self.b.alu(AluOp::Xor, left_sign, right_sign))
            }
        };
        // A remainder has the sign of what is divided.
        let (op, sign) = if op == Op::Remainder { (AluOp::Mod, left_sign) } else { (AluOp::Div, sign) };
        let result = self.b.alu(op, left_amount, right_amount);
        let flipped = self.b.alu(AluOp::Xor, result, sign);
        self.b.alu(AluOp::Sub, flipped, sign)
    }

    /// The amount of a signed value, and its sign: 0 or -1.
    fn amount(&mut self, value: Register) -> (Register, Register) {
        let sign = self.b.alu(AluOp::Arsh, value, 63);
        let flipped = self.b.alu(AluOp::Xor, value, sign);
        (self.b.alu(AluOp::Sub, flipped, sign), sign)
    }

    /// Makes the node the reason of the operations to come.
    pub fn explain_node(&mut self, node: &Node) {
        self.explain_part(self.source, node.span);
    }
}

/// How to read what a direct load would give a type of its own.
fn probed(access: Access) -> Access {
    if access == Access::Direct { Access::Kernel } else { access }
}

/// Whether the verifier knows that this pointer is not null.
fn never_null(pointer: &Node) -> bool {
    matches!(
        pointer.kind,
        NodeKind::Builtin(Builtin::Task)
            | NodeKind::Address { .. }
            | NodeKind::ContextAddress { .. }
            | NodeKind::Gathered { .. }
            | NodeKind::Item(_)
            | NodeKind::Found(_)
    )
}

/// What the pointer's value is where a null was followed on the way to it; none where that cannot be, or has been
/// tested.
fn null_at(pointer: &Node) -> Option<u32> {
    match &pointer.kind {
        NodeKind::Address { base, offset } => Some(null_at(base).filter(|_| is_number(base))? + offset),
        NodeKind::Cast(inner) if matches!(inner.kind, NodeKind::Address { .. } | NodeKind::Constant(_)) => {
            null_at(inner)
        }
        NodeKind::Element { .. } | NodeKind::Constant(1..) | NodeKind::Constant(..=-1) => None,
        _ if never_null(pointer) => None,
        _ => Some(0),
    }
}

/// Whether this pointer is a plain number to the verifier.
pub fn is_number(pointer: &Node) -> bool {
    match &pointer.kind {
        NodeKind::Load { access, .. } => *access != Access::Direct,
        NodeKind::Context { .. }
        | NodeKind::Fetched { .. }
        | NodeKind::Cast(_)
        | NodeKind::Element { .. }
        | NodeKind::Walk(_)
        | NodeKind::Absent => true,
        NodeKind::Kfunc(call) => !matches!(call.gives, Gives::Owned { .. }),
        NodeKind::Argument { .. } => matches!(pointer.ty, Type::Pointer { origin: Origin::Kernel | Origin::User, .. }),
        _ => false,
    }
}

fn size(bytes: u8) -> Size {
    // The checker lets only 1, 2, 4 and 8 through.
    Size::from_bytes(u32::from(bytes)).unwrap_or(Size::B8)
}

fn condition(op: Op, unsigned: bool) -> Cond {
    match (op, unsigned) {
        (Op::NotEqual, _) => Cond::Ne,
        (Op::Less, true) => Cond::Lt,
        (Op::Less, false) => Cond::Slt,
        (Op::LessEqual, true) => Cond::Le,
        (Op::LessEqual, false) => Cond::Sle,
        (Op::Greater, true) => Cond::Gt,
        (Op::Greater, false) => Cond::Sgt,
        (Op::GreaterEqual, true) => Cond::Ge,
        (Op::GreaterEqual, false) => Cond::Sge,
        _ => Cond::Eq,
    }
}
