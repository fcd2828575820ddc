//! Operators: what they may join, and what comes of it. Constants are folded.

use super::super::arithmetic::{self, Op};
use super::super::constants;
use super::super::diagnostic::{Fault, Span};
use super::super::kfunc::Gives;
use super::super::syntax::{BinaryOp, Expr, ExprKind, UnaryOp};
use super::super::{Match, Names, Node, NodeKind, Origin, PointName, Target, Type};
use super::symbols::is_only_sent;
use super::{Checked, Checker, both, one};

/// What can be done with texts.
const OF_TEXTS: &str = "texts can be compared, and searched by `contains` and its like; all else is for handlers";

impl Checker<'_> {
    pub(super) fn unary(&self, op: UnaryOp, value: &Expr, span: Span) -> Checked<Node> {
        if op == UnaryOp::Not {
            let value = self.condition(value)?;
            if let NodeKind::Constant(n) = value.kind {
                return Ok(Node { kind: NodeKind::Constant(i64::from(n == 0)), ty: Type::Boolean, span });
            }
            return Ok(Node { kind: NodeKind::Not(Box::new(value)), ty: Type::Boolean, span });
        }
        let value = self.integer(value)?;
        let ty = Type::Integer { bytes: 8, signed: !is_unsigned(&value.ty) };
        let kind = match (op, value.kind) {
            (UnaryOp::Plus, kind @ NodeKind::Constant(_)) => kind,
            // How a value is read follows from its type, so a type cannot just be replaced by a wider one: add 0.
            (UnaryOp::Plus, kind) => {
                let zero = Node { kind: NodeKind::Constant(0), ty: ty.clone(), span };
                return Ok(integers(Op::Add, Node { kind, ..value }, zero, span));
            }
            (UnaryOp::Complement, NodeKind::Constant(n)) => NodeKind::Constant(!n),
            (UnaryOp::Negate, NodeKind::Constant(n)) => {
                // -9223372036854775808 is written as the negation of a number that is unsigned by itself.
                let ty = if n == i64::MIN { Type::Integer { bytes: 8, signed: true } } else { ty };
                return Ok(Node { kind: NodeKind::Constant(n.wrapping_neg()), ty, span });
            }
            (UnaryOp::Complement, kind) => NodeKind::Complement(Box::new(Node { kind, ..value })),
            (_, kind) => NodeKind::Negate(Box::new(Node { kind, ..value })),
        };
        Ok(Node { kind, ty, span })
    }

    /// A value to compute with.
    pub(super) fn integer(&self, expr: &Expr) -> Checked<Node> {
        let node = self.value(expr)?;
        match node.ty {
            ref ty if ty.is_number() => Ok(node),
            ref ty => {
                let fault = Fault::new(expr.span, format!("{} cannot be computed with", self.shown(ty)));
                Err(one(if matches!(ty, Type::Text { .. }) { fault.help(OF_TEXTS) } else { fault }))
            }
        }
    }

    pub(super) fn binary(&self, op: BinaryOp, at: Span, left: &Expr, right: &Expr, span: Span) -> Checked<Node> {
        let BinaryOp::Arithmetic(op) = op else {
            let (left, right) = both(self.condition(left), self.condition(right))?;
            return Ok(logical(op == BinaryOp::And, left, right, span));
        };
        let (left_node, right_node) = both(self.value(left), self.value(right))?;
        self.operation((op, at), (left, left_node), (right, right_node), span)
    }

    /// An operation on two values. It is apart from `binary`, of which there are as many at once as operators in a row.
    fn operation(
        &self,
        (op, at): (Op, Span),
        (left, left_node): (&Expr, Node),
        (right, right_node): (&Expr, Node),
        span: Span,
    ) -> Checked<Node> {
        if op.is_comparison() {
            both(self.with_its_sign(&left_node, right), self.with_its_sign(&right_node, left))?;
        }
        let names = |node, beside| if is_equality(op) { self.by_name(node, beside) } else { Ok(None) };
        let (left_named, right_named) = both(names(&left_node, &right_node), names(&right_node, &left_node))?;
        let (left_node, right_node) = (left_named.unwrap_or(left_node), right_named.unwrap_or(right_node));
        if let Some(compared) = self.points_compared(op, at, &left_node, &right_node, span) {
            return compared;
        }
        if let Some(node) = [&left_node, &right_node].into_iter().find(|node| is_only_sent(&node.ty)) {
            return Err(self.only_sent(node));
        }
        if let Some(compared) = self.addresses_compared(op, at, &left_node, &right_node, span) {
            return compared;
        }
        match (&left_node.ty, &right_node.ty) {
            (a, b) if a.most_bytes().is_some() && b.most_bytes().is_some() => {
                self.texts(op, at, left_node, right_node, span)
            }
            (text, other) | (other, text) if text.most_bytes().is_some() => {
                Err(one(self.text_and_other(op, at, text, other)))
            }
            (Type::Pointer { .. }, _) | (_, Type::Pointer { .. }) => {
                if !is_equality(op) {
                    let message = "pointers can be compared by `==` and `!=`, and not be computed with";
                    return Err(one(Fault::new(at, message).help("`.` follows them, and `str()` reads text")));
                }
                let (left, right) = (Box::new(left_node), Box::new(right_node));
                let kind = NodeKind::Arithmetic { op, unsigned: true, left, right };
                Ok(Node { kind, ty: Type::Boolean, span })
            }
            _ => Ok(integers(op, left_node, right_node, span)),
        }
    }

    /// A text in quotes beside a value of an enumeration is a name of it.
    fn by_name(&self, node: &Node, beside: &Node) -> Checked<Option<Node>> {
        match (&beside.ty, &node.kind) {
            (Type::Enumeration { names, .. }, NodeKind::Literal(name)) => {
                let value = self.named_value(*names, name, node.span)?;
                Ok(Some(Node { kind: NodeKind::Constant(value), ty: beside.ty.clone(), span: node.span }))
            }
            _ => Ok(None),
        }
    }

    /// Refuses what never holds: that a call returns an error number as it is.
    fn with_its_sign(&self, beside: &Node, expr: &Expr) -> Checked<()> {
        match (&beside.ty, &expr.kind) {
            (Type::Enumeration { names: Names::Errors, .. }, ExprKind::Name(name))
                if name.starts_with('E') && constants::value(name).is_some() =>
            {
                let fault = Fault::new(expr.span, "a call that failed returns minus the error number");
                Err(one(fault.help(format!("`-{name}`, or `\"{name}\"`"))))
            }
            _ => Ok(()),
        }
    }

    fn text_and_other(&self, op: Op, at: Span, text: &Type, other: &Type) -> Fault {
        let text = self.shown(text);
        if !op.is_comparison() {
            return Fault::new(at, format!("{text} cannot be computed with")).help(OF_TEXTS);
        }
        let fault = Fault::new(at, format!("{text} cannot be compared with {}", self.shown(other)));
        match other {
            Type::Pointer { .. } => fault.help("`str(pointer)` reads the text behind a pointer"),
            Type::Flags { .. } => fault.help("`flags & O_CREAT` tells whether a bit is set"),
            _ => fault.help("a text to compare with stands in double quotes: `comm == \"1\"`"),
        }
    }

    fn texts(&self, op: Op, at: Span, left: Node, right: Node, span: Span) -> Checked<Node> {
        if !op.is_comparison() {
            let message = format!("{} cannot be computed with", self.shown(&left.ty));
            return Err(one(Fault::new(at, message).help(OF_TEXTS)));
        }
        if !is_equality(op) {
            let what = if let Type::Text { .. } = left.ty { "texts" } else { "bytes" };
            return Err(one(Fault::new(at, format!("{what} can be compared by `==` and `!=` only"))));
        }
        let same = match (&left.kind, &right.kind) {
            (NodeKind::Literal(a), NodeKind::Literal(b)) => NodeKind::Constant(i64::from(a == b)),
            _ => NodeKind::SameText(Box::new(left), Box::new(right)),
        };
        let same = Node { kind: same, ty: Type::Boolean, span };
        if op == Op::Equal {
            return Ok(same);
        }
        let kind = match same.kind {
            NodeKind::Constant(n) => NodeKind::Constant(1 - n),
            _ => NodeKind::Not(Box::new(same)),
        };
        Ok(Node { kind, ty: Type::Boolean, span })
    }

    /// `probe == "text"`, either way round; none where neither side is the name of an attach point.
    fn points_compared(&self, op: Op, at: Span, left: &Node, right: &Node, span: Span) -> Option<Checked<Node>> {
        match (&left.ty, &right.ty) {
            (Type::Point(name), _) => Some(self.compared_point(op, at, *name, left, right, span)),
            (_, Type::Point(name)) => Some(self.compared_point(op, at, *name, right, left, span)),
            _ => None,
        }
    }

    fn compared_point(
        &self,
        op: Op,
        at: Span,
        name: PointName,
        point: &Node,
        with: &Node,
        span: Span,
    ) -> Checked<Node> {
        let shown = self.shown(&point.ty);
        if !op.is_comparison() {
            return Err(one(Fault::new(at, format!("{shown} cannot be computed with"))));
        }
        let NodeKind::Literal(text) = &with.kind else {
            let fault = Fault::new(at, format!("{shown} can be compared with texts in quotes only"));
            return Err(one(fault.help("`… == \"…\"`, `… in (\"…\", \"…\")`, `starts_with(…, \"…\")`")));
        };
        if !matches!(op, Op::Equal | Op::NotEqual) {
            return Err(one(Fault::new(at, format!("{shown} can be compared by `==` and `!=` only"))));
        }
        let is = self.matching_point(name, point, Match::Is, &[(text.clone(), with.span)], span)?;
        if op == Op::Equal {
            return Ok(is);
        }
        let kind = match is.kind {
            NodeKind::Constant(n) => NodeKind::Constant(1 - n),
            _ => NodeKind::Not(Box::new(is)),
        };
        Ok(Node { kind, ty: Type::Boolean, span })
    }

    /// Whether the attach point is one of those whose name is, or holds, one of these texts. A text that is so of none
    /// is a mistake.
    pub(super) fn matching_point(
        &self,
        name: PointName,
        point: &Node,
        how: Match,
        with: &[(Vec<u8>, Span)],
        span: Span,
    ) -> Checked<Node> {
        let (mut set, mut faults) = (Vec::new(), Vec::new());
        for (text, at) in with {
            let numbers = self.points.matching(name, how, text);
            if numbers.is_empty() {
                faults.push(self.no_point(name, how, text, *at));
            }
            set.extend_from_slice(&numbers);
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(within(point.clone(), set, span))
    }

    fn no_point(&self, name: PointName, how: Match, text: &[u8], at: Span) -> Fault {
        let what = match name {
            PointName::Probe => "attach point of this probe",
            PointName::Function => "function that this probe is attached to",
        };
        let how = match how {
            Match::Is => "is named so",
            Match::StartsWith => "has a name that begins so",
            Match::EndsWith => "has a name that ends so",
            Match::Contains => "has this in its name",
        };
        Fault::new(at, format!("no {what} {how}")).help(self.points.suggestion(name, text))
    }

    /// `value in (a, b)`
    pub(super) fn is_in(&self, value: &Expr, set: &[Expr], span: Span) -> Checked<Node> {
        let mut faults = Vec::new();
        let mut keep = |node: Checked<Node>| node.map_err(|mut found| faults.append(&mut found)).ok();
        let value = keep(self.value(value));
        let member = |expr: &Expr| match &value {
            Some(value) => {
                self.with_its_sign(value, expr)?;
                let node = self.value(expr)?;
                Ok(self.by_name(&node, value)?.unwrap_or(node))
            }
            None => self.value(expr),
        };
        let members: Vec<Node> = set.iter().filter_map(|expr| keep(member(expr))).collect();
        let Some(value) = value.filter(|_| members.len() == set.len()) else { return Err(faults) };
        if is_only_sent(&value.ty) {
            return Err(self.only_sent(&value));
        }
        let is_text = value.ty.most_bytes().is_some() || value.ty.is_octets() || matches!(value.ty, Type::Point(_));
        let (mut numbers, mut texts) = (Vec::new(), Vec::new());
        for member in members {
            match (member.kind, &member.ty) {
                (NodeKind::Literal(text), _) if is_text => texts.push((text, member.span)),
                (NodeKind::Constant(number), _) if !is_text => numbers.push(number),
                (NodeKind::Literal(_), ty) | (NodeKind::Constant(_), ty) => {
                    let (is, of) = (self.shown(&value.ty), self.shown(ty));
                    faults.push(Fault::new(member.span, format!("{is} cannot be {of}")));
                }
                _ => {
                    let fault = Fault::new(member.span, "the values behind `in` must be constants");
                    faults.push(fault.help("`==` and `||` compare with what is not known before"));
                }
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        if let Type::Point(name) = value.ty {
            return self.matching_point(name, &value, Match::Is, &texts, span);
        }
        if value.ty.is_octets() {
            let texts: Vec<(&Vec<u8>, Span)> = texts.iter().map(|(text, at)| (text, *at)).collect();
            return self.within_addresses(&value, &texts, span);
        }
        if is_text {
            return Ok(matching(value, Match::Is, texts.into_iter().map(|(text, _)| text).collect(), span));
        }
        Ok(within(value, numbers, span))
    }

    pub(super) fn conditional(&self, condition: &Expr, then: &Expr, otherwise: &Expr, span: Span) -> Checked<Node> {
        let condition = self.condition(condition);
        let (then_node, otherwise_node) = match both(self.value(then), self.value(otherwise)) {
            Ok(values) => values,
            Err(mut faults) => {
                faults.splice(0..0, condition.err().unwrap_or_default());
                return Err(faults);
            }
        };
        let condition = condition?;
        // Which of the two is owned is not known behind the choice: what is chosen is the address, and what it points
        // to is released before.
        let (then_node, otherwise_node) = (unowned(then_node), unowned(otherwise_node));
        let ty = match (&then_node.ty, &otherwise_node.ty) {
            (a, b) if a == b => a.clone(),
            (Type::Text { max: a }, Type::Text { max: b }) => Type::Text { max: *a.max(b) },
            (Type::Stack { of, frames: a }, Type::Stack { of: other, frames: b }) if of == other => {
                Type::Stack { of: *of, frames: *a.max(b) }
            }
            (Type::Bytes { max: a } | Type::Text { max: a }, Type::Bytes { max: b } | Type::Text { max: b }) => {
                Type::Bytes { max: *a.max(b) }
            }
            (Type::Pointer { target: a, origin: from_a }, Type::Pointer { target: b, origin: from_b })
                if (*from_a == Origin::User) == (*from_b == Origin::User) =>
            {
                let target = if a == b { a.clone() } else { Target::Unknown };
                Type::Pointer { target, origin: if from_a == from_b { *from_a } else { Origin::Kernel } }
            }
            (a, b) if a.is_number() && b.is_number() => {
                Type::Integer { bytes: 8, signed: !(is_unsigned(a) || is_unsigned(b)) }
            }
            (a, b) => {
                let message =
                    format!("the two values of `?:` do not go together: {} and {}", self.shown(a), self.shown(b));
                return Err(
                    one(Fault::new(span, message).help("both must be numbers, texts, or pointers of one kind")),
                );
            }
        };
        if let NodeKind::Constant(n) = condition.kind {
            let chosen = if n != 0 { &then_node } else { &otherwise_node };
            // How a value is read follows from its own type, which need not be that of both.
            if chosen.ty == ty || matches!(chosen.kind, NodeKind::Constant(_)) {
                return Ok(Node { kind: chosen.kind.clone(), ty, span });
            }
        }
        let (condition, then, otherwise) = (Box::new(condition), Box::new(then_node), Box::new(otherwise_node));
        Ok(Node { kind: NodeKind::Conditional { condition, then, otherwise }, ty, span })
    }
}

/// A pointer to what would have to be released, as the address alone.
fn unowned(node: Node) -> Node {
    let owned = match &node.kind {
        NodeKind::Kfunc(call) => matches!(call.gives, Gives::Owned { .. }),
        NodeKind::Found(_) => true,
        _ => false,
    };
    match &node.ty {
        Type::Pointer { target, .. } if owned => {
            let ty = Type::Pointer { target: target.clone(), origin: Origin::Kernel };
            Node { span: node.span, kind: NodeKind::Cast(Box::new(node)), ty }
        }
        _ => node,
    }
}

fn is_equality(op: Op) -> bool {
    matches!(op, Op::Equal | Op::NotEqual)
}

/// `left && right`, or `left || right`.
fn logical(is_and: bool, left: Node, right: Node, span: Span) -> Node {
    let known = match (&left.kind, &right.kind) {
        (NodeKind::Constant(n), _) if (*n == 0) == is_and => Some(i64::from(!is_and)),
        (NodeKind::Constant(_), NodeKind::Constant(m)) => Some(i64::from(*m != 0)),
        _ => None,
    };
    let (left, right) = (Box::new(left), Box::new(right));
    let kind = match known {
        Some(known) => NodeKind::Constant(known),
        None if is_and => NodeKind::And(left, right),
        None => NodeKind::Or(left, right),
    };
    Node { kind, ty: Type::Boolean, span }
}

/// Whether the value is one of these.
fn within(value: Node, mut set: Vec<i64>, span: Span) -> Node {
    set.sort_unstable();
    set.dedup();
    let kind = match value.kind {
        NodeKind::Constant(n) => NodeKind::Constant(i64::from(set.contains(&n))),
        _ => NodeKind::In { value: Box::new(value), set },
    };
    Node { kind, ty: Type::Boolean, span }
}

fn is_unsigned(ty: &Type) -> bool {
    ty.integer() == Some((8, false))
}

/// Whether a text is or holds one of these; decided here where it is a literal.
pub(super) fn matching(text: Node, how: Match, with: Vec<Vec<u8>>, span: Span) -> Node {
    let kind = match &text.kind {
        NodeKind::Literal(text) => NodeKind::Constant(i64::from(with.iter().any(|with| how.holds(text, with)))),
        _ => NodeKind::Match { text: Box::new(text), how, with },
    };
    Node { kind, ty: Type::Boolean, span }
}

fn integers(op: Op, left: Node, right: Node, span: Span) -> Node {
    // A shift has the type of what is shifted; the count says nothing of it.
    let unsigned = match op {
        Op::ShiftLeft | Op::ShiftRight => is_unsigned(&left.ty),
        _ => is_unsigned(&left.ty) || is_unsigned(&right.ty),
    };
    let ty = if op.is_comparison() { Type::Boolean } else { Type::Integer { bytes: 8, signed: !unsigned } };
    if let (NodeKind::Constant(a), NodeKind::Constant(b)) = (&left.kind, &right.kind)
        && let Some(value) = arithmetic::evaluate(op, unsigned, *a, *b)
    {
        return Node { kind: NodeKind::Constant(value), ty, span };
    }
    Node { kind: NodeKind::Arithmetic { op, unsigned, left: Box::new(left), right: Box::new(right) }, ty, span }
}
