//! Texts: read into memory of the program, with their length, and compared there.

use super::fault::Root;
use super::held::Exit;
use super::{Local, Lower, helper, path, stack};
use crate::ir::{Address, AluOp, BlockId, Cond, Operand, Register, Size, Space};
use crate::plan::kfunc::Argument;
use crate::plan::layout::CUT;
use crate::plan::{Access, COMM, Form, Match, Node, NodeKind, Type};

/// Bytes of an IP address in a record.
const ADDRESS: u32 = 20;

/// A text that has been read.
#[derive(Clone, Copy)]
pub struct Found {
    /// Bytes, at most as many as the type says; the verifier knows that.
    pub length: Register,
    /// [`CUT`], or 0.
    pub cut: Register,
}

/// Whether this is a text, or what else is of no fixed size.
pub fn is_tail(node: &Node) -> bool {
    node.ty.tail().is_some()
}

/// Bytes at most of a text, of bytes or a stack.
pub fn max(node: &Node) -> u32 {
    node.ty.tail().unwrap_or(0)
}

/// Bytes that reading a text may write: its terminating 0, and one more byte to see whether it was cut; of a path a
/// whole name more. Or those of an address.
pub fn room(node: &Node) -> u32 {
    match &node.kind {
        NodeKind::Path { .. } => path::room(max(node)),
        NodeKind::Stack(_) => max(node) + stack::FRAME,
        NodeKind::Conditional { then, otherwise, .. } => room(then).max(room(otherwise)),
        _ if node.ty.is_octets() => ADDRESS,
        _ => (max(node) + 2).max(COMM),
    }
}

/// Whether computing the node needs memory that is too large for the stack.
pub fn needs_scratch(node: &Node) -> bool {
    match &node.kind {
        NodeKind::SameText(left, right) => literal_and_comm(left, right).is_none(),
        NodeKind::SameOctets(left, right) => needs_scratch(left) || needs_scratch(right),
        NodeKind::OctetsIn { value, .. } | NodeKind::Ipv4(value) => needs_scratch(value),
        NodeKind::Octets { pointer, form: Form::Family(family), .. } => needs_scratch(family) || needs_scratch(pointer),
        NodeKind::Octets { pointer, .. } => needs_scratch(pointer),
        NodeKind::In { value, .. } => needs_scratch(value),
        NodeKind::Match { text, how, .. } => !is_on_stack(text, *how),
        NodeKind::Not(a)
        | NodeKind::Complement(a)
        | NodeKind::Negate(a)
        | NodeKind::ByteSwap(a)
        | NodeKind::Cast(a) => needs_scratch(a),
        NodeKind::Load { base, .. } | NodeKind::Address { base, .. } => needs_scratch(base),
        NodeKind::Arithmetic { left, right, .. }
        | NodeKind::And(left, right)
        | NodeKind::Or(left, right)
        | NodeKind::Element { base: left, index: right, .. } => needs_scratch(left) || needs_scratch(right),
        NodeKind::Conditional { condition, then, otherwise } => {
            needs_scratch(condition) || needs_scratch(then) || needs_scratch(otherwise)
        }
        NodeKind::Local(_) => is_tail(node) || node.ty.is_octets(),
        NodeKind::Literal(_)
        | NodeKind::Str { .. }
        | NodeKind::Path { .. }
        | NodeKind::Stack(_)
        | NodeKind::ContextText { .. }
        | NodeKind::LocatedText { .. }
        | NodeKind::Bytes { .. } => true,
        // A name in a record is small, and a `bind` step reserves for itself.
        NodeKind::Comm => false,
        NodeKind::Constant(_)
        | NodeKind::Builtin(_)
        | NodeKind::Context { .. }
        | NodeKind::ContextAddress { .. }
        | NodeKind::Gathered { .. }
        | NodeKind::Argument { .. }
        | NodeKind::Item(_)
        | NodeKind::Absent
        | NodeKind::Fetched { .. } => false,
        NodeKind::Found(found) => needs_scratch(&found.pointer),
        NodeKind::Kfunc(call) => call.arguments.iter().any(passes_memory),
        NodeKind::Walk(walk) => {
            walk.over.arguments.iter().any(passes_memory) || walk.condition.iter().chain(&walk.value).any(needs_scratch)
        }
    }
}

fn passes_memory(argument: &Argument) -> bool {
    match argument {
        Argument::Number(node) | Argument::Pointer(node) | Argument::Word(node) => needs_scratch(node),
        Argument::Text(_) | Argument::Dynptr(_) => true,
        Argument::Written | Argument::WrittenDynptr | Argument::WrittenBytes => true,
        Argument::Fixed(_) | Argument::NewDynptr => false,
    }
}

/// Whether this is done with the thread's name on the stack.
fn is_on_stack(text: &Node, how: Match) -> bool {
    text.kind == NodeKind::Comm && matches!(how, Match::Is | Match::StartsWith)
}

/// A comparison of the thread's name with a literal needs 16 bytes of stack and two loads.
fn literal_and_comm<'a>(left: &'a Node, right: &'a Node) -> Option<&'a [u8]> {
    match (&left.kind, &right.kind) {
        (NodeKind::Literal(text), NodeKind::Comm) | (NodeKind::Comm, NodeKind::Literal(text)) => Some(text),
        _ => None,
    }
}

impl Lower<'_> {
    /// Reads a text to `to`, where there is [`room`] for it; goes to `exit` where it is absent.
    pub fn text_into(&mut self, node: &Node, to: Register, space: Space, exit: &Exit) -> Found {
        let depth = self.depth();
        let found = self.text_read_into(node, to, space, exit);
        self.release_to(depth);
        found
    }

    fn text_read_into(&mut self, node: &Node, to: Register, space: Space, exit: &Exit) -> Found {
        self.explain_node(node);
        match &node.kind {
            NodeKind::Literal(text) => {
                self.write_literal(text, to, space);
                self.found(text.len() as i64)
            }
            NodeKind::Comm => self.comm_into(to, space),
            NodeKind::Str { pointer, access, array } => {
                let from = self.value(pointer, exit);
                self.explain_node(node);
                let root = self.root(pointer, from, false);
                self.str_into(to, from, max(node), (*access, root), *array, exit)
            }
            NodeKind::Stack(of) => self.stack_into(*of, to, max(node) / stack::FRAME, exit),
            NodeKind::Path { at, way } => self.path_into(at, way, (to, space), max(node), exit),
            NodeKind::ContextText { offset } => {
                let from = self.b.alu(AluOp::Add, self.context, *offset as i32);
                self.str_into(to, from, max(node), (Access::Kernel, Root::Sound), true, exit)
            }
            NodeKind::LocatedText { offset, relative } => {
                let word = self.b.load(Address::at(self.context, Space::Context, *offset as i32), Size::B4);
                let mut at = self.b.alu(AluOp::And, word, 0xffff);
                if *relative {
                    at = self.b.alu(AluOp::Add, at, *offset as i32 + 4);
                }
                let from = self.b.alu(AluOp::Add, self.context, at);
                self.str_into(to, from, max(node), (Access::Kernel, Root::Sound), false, exit)
            }
            NodeKind::Bytes { pointer, access, length } => {
                self.bytes_into(node, (pointer, *access, length.as_deref()), to, exit)
            }
            NodeKind::Local(local) => self.copy_local(*local, to, exit),
            NodeKind::Conditional { condition, then, otherwise } => {
                let result = Found { length: self.b.register(), cut: self.b.register() };
                self.either(condition, exit, |l, first| {
                    let found = l.text_into(if first { then } else { otherwise }, to, space, exit);
                    l.b.copy(result.length, found.length);
                    l.b.copy(result.cut, found.cut);
                });
                Found { length: self.bounded(result.length, max(node)), ..result }
            }
            NodeKind::Kfunc(call) => self.kfunc_text(call, node, to, exit),
            NodeKind::Walk(walk) => self.walk_to_text(walk, node, to, space, exit),
            NodeKind::Absent => {
                self.is_absent(exit);
                self.found(0)
            }
            // Nothing else is a text.
            _ => self.found(0),
        }
    }

    fn found(&mut self, length: i64) -> Found {
        Found { length: self.b.constant(length), cut: self.b.constant(0) }
    }

    /// What is there in full or not at all. Were its length a number that the verifier knows, what comes behind it in
    /// the record were at another known place for each set of fields that are absent, and each set a path of its own.
    pub fn all(&mut self, max: u32) -> Found {
        let length = self.b.constant(max.into());
        Found { length: self.bounded(length, max), cut: self.b.constant(0) }
    }

    fn write_literal(&mut self, text: &[u8], to: Register, space: Space) {
        for (chunk, at) in chunks(text) {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            let value = self.b.constant(i64::from_le_bytes(bytes));
            self.b.store(Address::at(to, space, at as i32), value, chunk_size(chunk));
        }
    }

    /// `from` is read up to its first 0 byte. One byte more than wanted is asked for, and one for the 0 that the helper
    /// puts at the end: so a text that was longer is told from one that just fits. Of an array nothing lies behind its
    /// last byte that would belong to it.
    fn str_into(
        &mut self,
        to: Register,
        from: Register,
        max: u32,
        (access, root): (Access, Root),
        array: bool,
        exit: &Exit,
    ) -> Found {
        let id = if access == Access::User { helper::PROBE_READ_USER_STR } else { helper::PROBE_READ_KERNEL_STR };
        let asked = max as i32 + if array { 1 } else { 2 };
        let read = self.helper(id, &[to.into(), asked.into(), from.into()]);
        // For an empty text of user memory, older kernels (6.12) answer 0 and not 1: the length is then -1, and becomes
        // 0 without a branch.
        let user = access == Access::User;
        self.leave_if_failed(Cond::Slt, read, i32::from(!user), root, exit);
        let length = self.b.register();
        self.b.alu_to(AluOp::Sub, length, read, 1);
        if user {
            let empty = self.b.alu(AluOp::Rsh, length, 63);
            self.b.alu_to(AluOp::Add, length, length, empty);
            if array {
                // Never so; the verifier knows by it that the length has bounds.
                let absent = self.leave(exit);
                self.b.leave_if(Cond::Gt, length, max as i32, absent);
            }
        }
        let cut = self.b.constant(0);
        if !array {
            self.cut_to(length, cut, max);
        }
        Found { length: self.settled(length), cut }
    }

    /// Makes a length one of at most `max`, and marks what was longer as cut.
    pub fn cut_to(&mut self, length: Register, cut: Register, max: u32) {
        // The verifier goes on behind a branch first, and what it has seen with a length of 0 to `max` it need not see
        // again with one of `max`.
        let (long, fits, join) = (self.b.block(), self.b.block(), self.b.block());
        self.b.branch(Cond::Gt, length, max as i32, long, fits);
        self.b.enter(fits);
        self.b.jump(join);
        self.b.enter(long);
        self.b.set(length, i64::from(max));
        self.b.set(cut, i64::from(CUT));
        self.b.jump(join);
        self.b.enter(join);
    }

    /// A length that is at most `max`, of which the verifier knows that and nothing more, on whatever path it has come.
    pub fn bounded(&mut self, length: Register, max: u32) -> Register {
        let length = self.fresh(length);
        // It never is.
        let filtered = self.filter();
        self.b.leave_if(Cond::Gt, length, max as i32, filtered);
        self.settled(length)
    }

    /// The value in a register of its own, made behind what has been learned of it: one that has been put to the stack
    /// before that is as unknown as it was, to verifiers before 6.8, when it comes back.
    pub fn settled(&mut self, value: Register) -> Register {
        self.b.alu(AluOp::Add, value, 0)
    }

    /// The length is found 8 bytes at a time: the marks of the first word that has a 0 tell it.
    fn comm_into(&mut self, to: Register, space: Space) -> Found {
        self.helper(helper::GET_CURRENT_COMM, &[to.into(), (COMM as i32).into()]);
        let (ones, tops) = (self.b.constant(0x0101_0101_0101_0101), self.b.constant(0x8080_8080_8080_8080u64 as i64));
        let (marks, before) = (self.b.register(), self.b.register());
        let (second, join) = (self.b.block(), self.b.block());
        self.mark_zeroes(marks, Address::at(to, space, 0), [ones, tops]);
        self.b.set(before, 0);
        self.b.branch(Cond::Eq, marks, 0, second, join);
        self.b.enter(second);
        self.mark_zeroes(marks, Address::at(to, space, 8), [ones, tops]);
        self.b.set(before, 8);
        self.b.jump(join);
        self.b.enter(join);
        // The bits up to the lowest mark, moved so that what is left is the bytes before: one bit of each is counted.
        let less = self.b.alu(AluOp::Sub, marks, 1);
        let up_to = self.b.alu(AluOp::Xor, less, marks);
        let below = self.b.alu(AluOp::Rsh, up_to, 8);
        let by_bytes = self.b.alu(AluOp::And, below, ones);
        let sum = self.b.alu(AluOp::Mul, by_bytes, ones);
        let count = self.b.alu(AluOp::Rsh, sum, 56);
        // It cannot be more than 7, as the name always ends in a 0; the verifier cannot know that.
        let count = self.b.alu(AluOp::And, count, 7);
        let mut length = self.b.alu(AluOp::Add, count, before);
        if space != Space::Stack {
            // What stands behind it is found by it. Below 8 on one path and above on the other, the verifier would keep
            // apart all that, and again with each name.
            length = self.bounded(length, COMM - 1);
        }
        Found { length, cut: self.b.constant(0) }
    }

    /// The top bit of each byte that is 0, and perhaps of bytes above the lowest such.
    fn mark_zeroes(&mut self, marks: Register, at: Address, [ones, tops]: [Register; 2]) {
        let word = self.b.load(at, Size::B8);
        let less = self.b.alu(AluOp::Sub, word, ones);
        let inverse = self.b.alu(AluOp::Xor, word, -1);
        let both = self.b.alu(AluOp::And, less, inverse);
        self.b.alu_to(AluOp::And, marks, both, tops);
    }

    fn copy_local(&mut self, local: u32, to: Register, exit: &Exit) -> Found {
        let Local::Text { at, length, cut, present } = self.locals[local as usize] else { return self.found(0) };
        self.need(present, exit);
        let from = self.scratch_at(at);
        // A kernel address that cannot fault: the helper is a copy of a length that is not constant.
        let arguments: [Operand; 3] = [to.into(), length.into(), from.into()];
        self.helper(helper::PROBE_READ_KERNEL, &arguments);
        Found { length, cut }
    }

    /// Goes to `yes` where two texts are the same.
    pub fn same_text(&mut self, left: &Node, right: &Node, yes: BlockId, no: BlockId, exit: &Exit) {
        match (&left.kind, &right.kind) {
            (NodeKind::Literal(text), _) => self.text_matches(right, Match::Is, &[text], yes, no, exit),
            (_, NodeKind::Literal(text)) => self.text_matches(left, Match::Is, &[text], yes, no, exit),
            _ => self.same_bytes(left, right, yes, no, exit),
        }
    }

    /// Goes to `yes` where the text is, or holds, one of these. It is read once.
    pub fn text_matches(&mut self, node: &Node, how: Match, with: &[&[u8]], yes: BlockId, no: BlockId, exit: &Exit) {
        if is_on_stack(node, how) {
            return self.comm_matches(how, with, yes, no);
        }
        let longest = with.iter().map(|text| text.len() as u32).max().unwrap_or(0);
        // One byte more than the longest has is enough to see that a text is longer.
        let enough = match how {
            Match::Is => longest + 1,
            Match::StartsWith => longest.max(1),
            Match::EndsWith | Match::Contains => u32::MAX,
        };
        let node = match &node.kind {
            NodeKind::Str { .. } => Node { ty: Type::Text { max: max(node).min(enough) }, ..node.clone() },
            _ => node.clone(),
        };
        let before = self.scratch.used;
        let (to, found) = self.text_to_look_at(&node, exit);
        for (n, text) in with.iter().enumerate() {
            let next = if n + 1 == with.len() { no } else { self.b.block() };
            if text.len() as u32 > max(&node) {
                self.b.jump(next);
            } else {
                self.text_matches_one(to, found.length, max(&node), how, text, yes, next);
            }
            if next != no {
                self.b.enter(next);
            }
        }
        self.release(before);
    }

    /// A text in the scratch, for nothing to be written there: a bound one is where it is kept.
    fn text_to_look_at(&mut self, node: &Node, exit: &Exit) -> (Register, Found) {
        if let NodeKind::Local(local) = node.kind
            && let Local::Text { at, length, cut, present } = self.locals[local as usize]
        {
            self.need(present, exit);
            return (self.scratch_at(at), Found { length, cut });
        }
        let at = self.reserve(room(node));
        let to = self.scratch_at(at);
        (to, self.text_into(node, to, Space::MapValue, exit))
    }

    #[expect(clippy::too_many_arguments, reason = "a text in its parts, and what is looked for")]
    fn text_matches_one(
        &mut self,
        to: Register,
        length: Register,
        max: u32,
        how: Match,
        with: &[u8],
        yes: BlockId,
        no: BlockId,
    ) {
        // Nothing is at every place, so the first will do.
        let how = if how == Match::Contains && with.is_empty() { Match::StartsWith } else { how };
        let length = self.fresh(length);
        let wanted = with.len() as i32;
        let differs = if how == Match::Is { Cond::Ne } else { Cond::Lt };
        self.b.leave_if(differs, length, wanted, no);
        let from = match how {
            Match::Is | Match::StartsWith => to,
            Match::EndsWith | Match::Contains => {
                // It never is longer; of a fresh copy the verifier does not know that.
                self.b.leave_if(Cond::Gt, length, max as i32, no);
                let last = self.b.alu(AluOp::Sub, length, wanted);
                if how == Match::Contains {
                    return self.look_for(to, last, max, with, yes, no);
                }
                self.b.alu(AluOp::Add, to, last)
            }
        };
        for (chunk, at) in chunks(with) {
            self.leave_unless_equal(Address::at(from, Space::MapValue, at as i32), chunk, no);
        }
        self.b.jump(yes);
    }

    /// Looks at each place up to the last where there is room for it. The verifier follows the loop round by round.
    fn look_for(&mut self, to: Register, last: Register, max: u32, with: &[u8], yes: BlockId, no: BlockId) {
        let pieces = chunks(with);
        self.compared += (max + 1 - with.len() as u32) * 4 * (1 + pieces.len() as u32);
        let (head, body, next) = (self.b.block(), self.b.block(), self.b.block());
        let index = self.b.constant(0);
        self.b.jump(head);
        self.b.enter(head);
        // See `same_bytes` for the order of the two.
        self.b.branch(Cond::Lt, last, index, no, body);
        self.b.enter(body);
        let from = self.b.alu(AluOp::Add, to, index);
        // The first piece tells nearly always. Behind it all are looked at together: with a way on for each, the
        // verifier has so many to follow that it forgets which it has been, and follows them all.
        let mut pieces = pieces.into_iter();
        if let Some((chunk, _)) = pieces.next() {
            self.leave_unless_equal(Address::at(from, Space::MapValue, 0), chunk, next);
        }
        let mut differs = None;
        for (chunk, at) in pieces {
            let loaded = self.b.load(Address::at(from, Space::MapValue, at as i32), chunk_size(chunk));
            let wanted = self.wanted(chunk);
            let difference = self.b.alu(AluOp::Xor, loaded, wanted);
            differs = Some(differs.map_or(difference, |others| self.b.alu(AluOp::Or, others, difference)));
        }
        if let Some(differs) = differs {
            self.b.leave_if(Cond::Ne, differs, 0, next);
        }
        self.b.jump(yes);
        self.b.enter(next);
        self.b.alu_to(AluOp::Add, index, index, 1);
        self.b.jump(head);
    }

    fn comm_matches(&mut self, how: Match, with: &[&[u8]], yes: BlockId, no: BlockId) {
        let mut with: Vec<&[u8]> = with.to_vec();
        with.retain(|text| text.len() < COMM as usize);
        if with.is_empty() {
            return self.b.jump(no);
        }
        let slot = *self.comm.get_or_insert_with(|| self.b.slot(COMM));
        let to = self.b.address_of(slot, 0);
        self.b.store(Address::slot(slot, 0), 0, Size::B8);
        self.b.store(Address::slot(slot, 8), 0, Size::B8);
        self.helper(helper::GET_CURRENT_COMM, &[to.into(), (COMM as i32).into()]);
        for (n, text) in with.iter().enumerate() {
            let next = if n + 1 == with.len() { no } else { self.b.block() };
            let mut padded = [0; COMM as usize];
            padded[..text.len()].copy_from_slice(text);
            // A name ends in a 0, and no literal holds one.
            let compared = if how == Match::Is { &padded[..] } else { text };
            for (chunk, at) in chunks(compared) {
                self.leave_unless_equal(Address::slot(slot, at as i32), chunk, next);
            }
            self.b.jump(yes);
            if next != no {
                self.b.enter(next);
            }
        }
    }

    fn leave_unless_equal(&mut self, at: Address, chunk: &[u8], no: BlockId) {
        let loaded = self.b.load(at, chunk_size(chunk));
        let wanted = self.wanted(chunk);
        self.b.leave_if(Cond::Ne, loaded, wanted, no);
    }

    /// What is loaded where this is.
    fn wanted(&mut self, chunk: &[u8]) -> Operand {
        let mut bytes = [0; 8];
        bytes[..chunk.len()].copy_from_slice(chunk);
        let value = i64::from_le_bytes(bytes);
        match i32::try_from(value) {
            Ok(value) => Operand::Constant(value),
            Err(_) => self.b.constant(value).into(),
        }
    }

    /// Two texts that are known only when the probe fires: their lengths, then 8 bytes at a time, with zeros behind
    /// each text.
    fn same_bytes(&mut self, left: &Node, right: &Node, yes: BlockId, no: BlockId, exit: &Exit) {
        let before = self.scratch.used;
        let (left_at, right_at) = (self.reserve(room(left) + 8), self.reserve(room(right) + 8));
        let left_to = self.scratch_at(left_at);
        let found_left = self.text_into(left, left_to, Space::MapValue, exit);
        let right_to = self.scratch_at(right_at);
        let found_right = self.text_into(right, right_to, Space::MapValue, exit);
        let [length, other] = [found_left.length, found_right.length].map(|length| self.fresh(length));
        self.b.leave_if(Cond::Ne, length, other, no);
        for (to, found) in [(left_to, &found_left), (right_to, &found_right)] {
            let end = self.b.alu(AluOp::Add, to, found.length);
            self.b.store(Address::at(end, Space::MapValue, 0), 0, Size::B8);
        }
        // The verifier follows the loop round by round, so its bound must be plain to it: the shorter of the two.
        let most = max(left).min(max(right));
        self.compared += most;
        self.b.leave_if(Cond::Gt, length, most as i32, no);
        let (head, body, next) = (self.b.block(), self.b.block(), self.b.block());
        let index = self.b.constant(0);
        self.b.jump(head);
        self.b.enter(head);
        // Verifiers before 6.8 know where this leads only if what they know for certain, the index, stands on the
        // right.
        self.b.branch(Cond::Le, length, index, yes, body);
        self.b.enter(body);
        let [left_word, right_word] = [left_to, right_to].map(|to| {
            let at = self.b.alu(AluOp::Add, to, index);
            self.b.load(Address::at(at, Space::MapValue, 0), Size::B8)
        });
        self.b.branch(Cond::Ne, left_word, right_word, no, next);
        self.b.enter(next);
        self.b.alu_to(AluOp::Add, index, index, 8);
        self.b.jump(head);
        self.release(before);
    }
}

/// The text in pieces of 8, 4, 2 and 1 bytes, with their offsets.
fn chunks(text: &[u8]) -> Vec<(&[u8], usize)> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let left = text.len() - at;
        let size = [8, 4, 2, 1].into_iter().find(|n| *n <= left).unwrap_or(1);
        pieces.push((&text[at..at + size], at));
        at += size;
    }
    pieces
}

fn chunk_size(chunk: &[u8]) -> Size {
    Size::from_bytes(chunk.len() as u32).unwrap_or(Size::B1)
}
