//! The text of an expression to its tree.
//!
//! The grammar is C's, without assignment: from the loosest, `?:`, `||`, `&&`, `|`, `^`, `&`, `== !=`, `< <= > >=` and
//! `in`, `<< >>`, `+ -`, `* / %`, unary `! ~ - + * &` and casts, and behind a value `.name`, `->name`, `[index]`,
//! `(arguments)`.
//!
//! C's `(a)(b)` and `(a) - b` are casts or not by what `a` is declared as. Here the text alone decides: [`types`] tells
//! how.
//!
//! The text comes from a plugin, so it is hostile: length, nesting and the tree's height are bounded, and nothing here
//! recurses deeper than [`MAX_NESTING`] levels of the text.

mod token;
mod types;

use super::arithmetic::Op;
use super::diagnostic::{Fault, Span};
use super::familiar;
use token::{Token, TokenKind, tokenize};
pub use types::{Path, TypeBase, TypeName};

/// Bytes of an expression at most.
pub const MAX_LENGTH: usize = 4096;
/// Parentheses, unary operators and conditionals inside one another at most.
pub const MAX_NESTING: u32 = 64;
/// Height of the tree at most: a long chain of `||` is high, although it does not nest.
pub const MAX_HEIGHT: u32 = 256;

/// A node of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expr {
    pub kind: ExprKind,
    pub span: Span,
    /// 1 for a leaf.
    height: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExprKind {
    /// An integer, or a character's code.
    Integer(u64),
    Text(Vec<u8>),
    Name(String),
    /// `base.name` and `base->name`; the span is the name's.
    Field {
        base: Box<Expr>,
        name: String,
        at: Span,
    },
    Index {
        base: Box<Expr>,
        index: Box<Expr>,
    },
    Call {
        name: String,
        at: Span,
        arguments: Vec<Expr>,
    },
    Unary {
        op: UnaryOp,
        value: Box<Expr>,
    },
    Cast {
        ty: TypeName,
        value: Box<Expr>,
    },
    SizeOfType(TypeName),
    SizeOf(Box<Expr>),
    /// `offsetof(type, a.b)`; fields of fields.
    OffsetOf {
        ty: TypeName,
        path: Path,
    },
    /// `container_of(pointer, type, a.b)`.
    ContainerOf {
        pointer: Box<Expr>,
        ty: TypeName,
        path: Path,
    },
    /// The span is the operator's.
    Binary {
        op: BinaryOp,
        at: Span,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    /// `value in (a, b)`
    In {
        value: Box<Expr>,
        set: Vec<Expr>,
    },
    Conditional {
        condition: Box<Expr>,
        then: Box<Expr>,
        otherwise: Box<Expr>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnaryOp {
    /// `!`
    Not,
    /// `~`
    Complement,
    /// `-`
    Negate,
    /// `+`
    Plus,
    /// `*`
    Dereference,
    /// `&`
    AddressOf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryOp {
    /// `||`
    Or,
    /// `&&`
    And,
    /// What takes two values.
    Arithmetic(Op),
}

impl BinaryOp {
    /// As it is written.
    pub fn text(self) -> &'static str {
        BINARY.iter().find(|(op, ..)| *op == self).map_or("?", |(_, text, _)| text)
    }
}

/// Operators with their precedence: the higher, the tighter.
const BINARY: [(BinaryOp, &str, u8); 18] = [
    (BinaryOp::Or, "||", 1),
    (BinaryOp::And, "&&", 2),
    (BinaryOp::Arithmetic(Op::BitOr), "|", 3),
    (BinaryOp::Arithmetic(Op::BitXor), "^", 4),
    (BinaryOp::Arithmetic(Op::BitAnd), "&", 5),
    (BinaryOp::Arithmetic(Op::Equal), "==", 6),
    (BinaryOp::Arithmetic(Op::NotEqual), "!=", 6),
    (BinaryOp::Arithmetic(Op::Less), "<", 7),
    (BinaryOp::Arithmetic(Op::LessEqual), "<=", 7),
    (BinaryOp::Arithmetic(Op::Greater), ">", 7),
    (BinaryOp::Arithmetic(Op::GreaterEqual), ">=", 7),
    (BinaryOp::Arithmetic(Op::ShiftLeft), "<<", 8),
    (BinaryOp::Arithmetic(Op::ShiftRight), ">>", 8),
    (BinaryOp::Arithmetic(Op::Add), "+", 9),
    (BinaryOp::Arithmetic(Op::Subtract), "-", 9),
    (BinaryOp::Arithmetic(Op::Multiply), "*", 10),
    (BinaryOp::Arithmetic(Op::Divide), "/", 10),
    (BinaryOp::Arithmetic(Op::Remainder), "%", 10),
];

/// How tight `in` binds: as `<`.
const IN: u8 = 7;

/// Reads one expression. The first fault ends the reading: what follows it would be guesswork.
pub fn parse(text: &str) -> Result<Expr, Fault> {
    if text.len() > MAX_LENGTH {
        return Err(Fault::new(
            Span::new(0, 0),
            format!("the expression has {} bytes, and {MAX_LENGTH} is the most", text.len()),
        ));
    }
    let mut parser = Parser { tokens: tokenize(text)?, at: 0, nesting: 0 };
    if parser.peek().kind == TokenKind::End {
        return Err(Fault::new(Span::new(0, text.len()), "the expression is empty"));
    }
    let expr = parser.expression()?;
    match &parser.peek().kind {
        TokenKind::End => Ok(expr),
        TokenKind::Symbol("=") => {
            let at = parser.peek().span;
            let help = match text.as_bytes().get(at.end as usize) {
                Some(b'~') => familiar::operator("matches"),
                _ => Some("`==` compares; a `bind` step names a value"),
            };
            Err(Fault::new(at, "an expression cannot assign").help(help.unwrap_or_default()))
        }
        TokenKind::Symbol(")") => Err(Fault::new(parser.peek().span, "this `)` closes nothing")),
        other => {
            let fault = Fault::new(parser.peek().span, format!("expected an operator, found {}", other.shown()));
            let help = match (parser.before(), other) {
                (Some(TokenKind::Name(name)), _) if name == "not" => Some("`!` negates"),
                (_, TokenKind::Name(name)) => familiar::operator(name),
                (_, TokenKind::Symbol("~")) => familiar::operator("matches"),
                _ => None,
            };
            Err(match help {
                Some(help) => fault.help(help),
                None => fault,
            })
        }
    }
}

/// Whether `text` can name a probe, an event, a field or a binding.
pub fn is_identifier(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    nesting: u32,
}

impl Parser {
    fn peek(&self) -> &Token {
        // The last token is `End`, and `next` never moves beyond it.
        &self.tokens[self.at]
    }

    /// The token before the next one.
    fn before(&self) -> Option<&TokenKind> {
        self.at.checked_sub(1).map(|at| &self.tokens[at].kind)
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    fn take(&mut self, symbol: &str) -> bool {
        let found = matches!(self.peek().kind, TokenKind::Symbol(s) if s == symbol);
        if found {
            self.next();
        }
        found
    }

    fn expect(&mut self, symbol: &str, why: &str) -> Result<Span, Fault> {
        let token = self.peek().clone();
        if self.take(symbol) {
            return Ok(token.span);
        }
        Err(Fault::new(token.span, format!("expected `{symbol}` {why}, found {}", token.kind.shown())))
    }

    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        if self.nesting == MAX_NESTING {
            return Err(Fault::new(self.peek().span, format!("the expression nests deeper than {MAX_NESTING} levels"))
                .help("`bind` steps name parts of it"));
        }
        self.nesting += 1;
        let result = read(self);
        self.nesting -= 1;
        result
    }

    fn expression(&mut self) -> Result<Expr, Fault> {
        let condition = self.binary(1)?;
        if !self.take("?") {
            return Ok(condition);
        }
        let then = self.nested(Self::expression)?;
        self.expect(":", "between the two values of `?:`")?;
        let otherwise = self.nested(Self::expression)?;
        let span = condition.span.to(otherwise.span);
        let height = condition.height.max(then.height).max(otherwise.height);
        let kind = ExprKind::Conditional {
            condition: Box::new(condition),
            then: Box::new(then),
            otherwise: Box::new(otherwise),
        };
        node(kind, span, height)
    }

    /// Operators of at least this precedence.
    fn binary(&mut self, lowest: u8) -> Result<Expr, Fault> {
        let mut left = self.unary()?;
        loop {
            if lowest <= IN && matches!(&self.peek().kind, TokenKind::Name(name) if name == "in") {
                left = self.is_in(left)?;
                continue;
            }
            let TokenKind::Symbol(symbol) = self.peek().kind else { break };
            let Some((op, _, precedence)) = BINARY.iter().find(|(_, s, p)| *s == symbol && *p >= lowest) else { break };
            let at = self.next().span;
            // One level for each precedence, of which there are 10: no need to count it as nesting.
            let right = self.binary(precedence + 1)?;
            let span = left.span.to(right.span);
            let height = left.height.max(right.height);
            left = node(ExprKind::Binary { op: *op, at, left: Box::new(left), right: Box::new(right) }, span, height)?;
        }
        Ok(left)
    }

    fn is_in(&mut self, value: Expr) -> Result<Expr, Fault> {
        self.next();
        self.expect("(", "behind `in`")
            .map_err(|fault| fault.help("a set is constants in parentheses: `pid in (1, 2)`"))?;
        let (mut set, mut height) = (Vec::new(), value.height);
        loop {
            let member = self.nested(Self::expression)?;
            height = height.max(member.height);
            set.push(member);
            if !self.take(",") {
                break;
            }
        }
        let end = self.expect(")", "behind the values")?;
        let span = value.span.to(end);
        node(ExprKind::In { value: Box::new(value), set }, span, height)
    }

    fn unary(&mut self) -> Result<Expr, Fault> {
        let token = self.peek().clone();
        let op = match token.kind {
            TokenKind::Symbol("!") => UnaryOp::Not,
            TokenKind::Symbol("~") => UnaryOp::Complement,
            TokenKind::Symbol("-") => UnaryOp::Negate,
            TokenKind::Symbol("+") => UnaryOp::Plus,
            TokenKind::Symbol("*") => UnaryOp::Dereference,
            TokenKind::Symbol("&") => UnaryOp::AddressOf,
            TokenKind::Symbol("(") if self.begins_cast() => return self.cast(),
            _ => return self.postfix(),
        };
        self.next();
        let value = self.nested(Self::unary)?;
        let (span, height) = (token.span.to(value.span), value.height);
        node(ExprKind::Unary { op, value: Box::new(value) }, span, height)
    }

    fn postfix(&mut self) -> Result<Expr, Fault> {
        let mut base = self.primary()?;
        loop {
            if self.take(".") || self.take("->") {
                let token = self.next();
                let TokenKind::Name(name) = token.kind else {
                    let found = token.kind.shown();
                    return Err(Fault::new(token.span, format!("expected a field's name, found {found}")));
                };
                let (span, height) = (base.span.to(token.span), base.height);
                base = node(ExprKind::Field { base: Box::new(base), name, at: token.span }, span, height)?;
            } else if self.take("[") {
                let index = self.nested(Self::expression)?;
                let end = self.expect("]", "behind the index")?;
                let (span, height) = (base.span.to(end), base.height.max(index.height));
                base = node(ExprKind::Index { base: Box::new(base), index: Box::new(index) }, span, height)?;
            } else {
                return Ok(base);
            }
        }
    }

    fn primary(&mut self) -> Result<Expr, Fault> {
        let token = self.next();
        match token.kind {
            TokenKind::Integer(value) => node(ExprKind::Integer(value), token.span, 0),
            TokenKind::Text(value) => node(ExprKind::Text(value), token.span, 0),
            TokenKind::Name(name) if self.take("(") => match name.as_str() {
                "sizeof" => self.size_of(token.span),
                "offsetof" => self.offset_of(token.span),
                "container_of" => self.container_of(token.span),
                _ => self.call(name, token.span),
            },
            TokenKind::Name(name) if matches!(name.as_str(), "struct" | "union" | "enum") => {
                Err(Fault::new(token.span, format!("a type is no value; `({name} …)` in parentheses casts")))
            }
            TokenKind::Name(name) => node(ExprKind::Name(name), token.span, 0),
            TokenKind::Symbol("(") => {
                let mut inner = self.nested(Self::expression)?;
                let listed = matches!(self.peek().kind, TokenKind::Symbol(","));
                let end = self.expect(")", "behind the expression").map_err(|fault| match listed {
                    true => fault.help("an expression is one value; an event has a field for each"),
                    false => fault,
                })?;
                inner.span = token.span.to(end);
                Ok(inner)
            }
            other => {
                let fault = Fault::new(token.span, format!("expected a value, found {}", other.shown()));
                let twice = |symbol| {
                    let last = &self.tokens[..self.at.min(self.tokens.len() - 1)];
                    last.iter().rev().take(2).filter(|token| token.kind == TokenKind::Symbol(symbol)).count() == 2
                };
                Err(match other {
                    TokenKind::Symbol("/") if token.span.start == 0 => fault.help("a condition stands without slashes"),
                    TokenKind::Symbol("=") => fault.help("`==` compares, and nothing can be assigned to"),
                    TokenKind::Symbol(">") => fault.help("`!=` is true where two values differ"),
                    TokenKind::Symbol(":") => fault.help("`a ? b : c` has three values"),
                    TokenKind::End if twice("+") || twice("-") => fault.help("nothing can be counted up or down"),
                    _ => fault,
                })
            }
        }
    }

    fn call(&mut self, name: String, at: Span) -> Result<Expr, Fault> {
        let mut arguments = Vec::new();
        let mut height = 0;
        if !matches!(self.peek().kind, TokenKind::Symbol(")")) {
            loop {
                let argument = self.nested(Self::expression)?;
                height = height.max(argument.height);
                arguments.push(argument);
                if !self.take(",") {
                    break;
                }
            }
        }
        let end = self.expect(")", "behind the arguments")?;
        node(ExprKind::Call { name, at, arguments }, at.to(end), height)
    }
}

fn node(kind: ExprKind, span: Span, below: u32) -> Result<Expr, Fault> {
    if below == MAX_HEIGHT {
        return Err(Fault::new(span, format!("the expression has more than {MAX_HEIGHT} operators in a row"))
            .help("`bind` steps name parts of it"));
    }
    Ok(Expr { kind, span, height: below + 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree with all its parentheses.
    fn full(expr: &Expr) -> String {
        match &expr.kind {
            ExprKind::Integer(n) => n.to_string(),
            ExprKind::Text(t) => format!("{:?}", String::from_utf8_lossy(t)),
            ExprKind::Name(name) => name.clone(),
            ExprKind::Field { base, name, .. } => format!("{}.{name}", full(base)),
            ExprKind::Index { base, index } => format!("{}[{}]", full(base), full(index)),
            ExprKind::Call { name, arguments, .. } => {
                format!("{name}({})", arguments.iter().map(full).collect::<Vec<_>>().join(", "))
            }
            ExprKind::Unary { op, value } => format!("({op:?} {})", full(value)),
            ExprKind::Cast { ty, value } => format!("(({ty}) {})", full(value)),
            ExprKind::SizeOfType(ty) => format!("sizeof({ty})"),
            ExprKind::SizeOf(value) => format!("sizeof({})", full(value)),
            ExprKind::OffsetOf { ty, path } => format!("offsetof({ty}, {})", path_of(path)),
            ExprKind::ContainerOf { pointer, ty, path } => {
                format!("container_of({}, {ty}, {})", full(pointer), path_of(path))
            }
            ExprKind::Binary { op, left, right, .. } => format!("({} {} {})", full(left), op.text(), full(right)),
            ExprKind::In { value, set, .. } => {
                format!("({} in {})", full(value), set.iter().map(full).collect::<Vec<_>>().join(" "))
            }
            ExprKind::Conditional { condition, then, otherwise } => {
                format!("({} ? {} : {})", full(condition), full(then), full(otherwise))
            }
        }
    }

    fn path_of(path: &[(String, Span)]) -> String {
        path.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(".")
    }

    #[test]
    fn casts_are_told_from_parentheses() {
        for (text, tree) in [
            ("(u32)x", "((u32) x)"),
            ("(struct sock *)a.b.c", "((struct sock *) a.b.c)"),
            ("((const struct sock *)a)->b", "((struct sock *) a).b"),
            ("(unsigned   long int)-x", "((unsigned long int) (Negate x))"),
            ("(char __user * const *)x + 1", "(((char * * __user) x) + 1)"),
            ("(size_t)-x", "((size_t) (Negate x))"),
            ("(x)-y", "(x - y)"),
            ("(x)*y", "(x * y)"),
            ("(x)(y)", "((x) y)"),
            ("(x *)y", "((x *) y)"),
            ("(x * y)", "(x * y)"),
            ("(x)", "x"),
            ("(x) == 1", "(x == 1)"),
            ("(int)x * 2", "(((int) x) * 2)"),
            ("(u8)(u16)x", "((u8) ((u16) x))"),
            ("(typeof(a.b))c", "((typeof(…)) c)"),
            ("*a.b + **c", "((Dereference a.b) + (Dereference (Dereference c)))"),
            ("&a.b == c & d", "(((AddressOf a.b) == c) & d)"),
            ("sizeof(struct sock) + sizeof(a.b)", "(sizeof(struct sock) + sizeof(a.b))"),
            ("sizeof(u32)", "sizeof(u32)"),
            ("offsetof(struct sock, a.b)", "offsetof(struct sock, a.b)"),
            ("container_of(a, struct sock, b)->c", "container_of(a, struct sock, b).c"),
        ] {
            assert_eq!(parse(text).map(|e| full(&e)).map_err(|e| e.message), Ok(tree.to_owned()), "{text}");
        }
    }

    #[test]
    fn precedence_is_that_of_c() {
        for (text, tree) in [
            ("1+2*3", "(1 + (2 * 3))"),
            ("a - b - c", "((a - b) - c)"),
            (
                "a || b && c | d ^ e & f == g < h << i + j * k",
                "(a || (b && (c | (d ^ (e & (f == (g < (h << (i + (j * k))))))))))",
            ),
            ("a ? b : c ? d : e", "(a ? b : (c ? d : e))"),
            ("!a.b->c == -1", "((Not a.b.c) == (Negate 1))"),
            ("str(args.x, 0x10) != \"a\\x41\\n\"", "(str(args.x, 16) != \"aA\\n\")"),
            ("~0 & 'a' | 017 | 0b11 | 1_000ul", "(((((Complement 0) & 97) | 15) | 3) | 1000)"),
            ("a[1].b", "a[1].b"),
            ("!a & b + 1 in (1, 2 | 3) == c", "((Not a) & (((b + 1) in 1 (2 | 3)) == c))"),
            ("a in (1) in (0)", "((a in 1) in 0)"),
            ("(a) in (1)", "(a in 1)"),
            ("(a)", "a"),
        ] {
            assert_eq!(parse(text).map(|e| full(&e)).map_err(|e| e.message), Ok(tree.to_owned()), "{text}");
        }
    }

    #[test]
    fn faults_are_placed() {
        for (text, start, end, message) in [
            ("", 0, 0, "the expression is empty"),
            ("  ", 0, 2, "the expression is empty"),
            ("a +", 3, 3, "expected a value, found the end"),
            ("a b", 2, 3, "expected an operator, found `b`"),
            ("a = 1", 2, 3, "an expression cannot assign"),
            ("(a", 2, 2, "expected `)` behind the expression, found the end"),
            ("a)", 1, 2, "this `)` closes nothing"),
            ("1x", 0, 2, "`1x` is not a number"),
            ("99999999999999999999", 0, 20, "99999999999999999999 does not fit in 64 bits"),
            ("\"abc", 0, 4, "the closing quote is missing"),
            ("'ab'", 0, 4, "a character in `'` is exactly one byte"),
            ("a # b", 2, 3, "`#` is no part of an expression"),
            ("a.1", 2, 3, "expected a field's name, found the number 1"),
            ("@x", 0, 1, "maps (`@name`) are not there yet"),
            ("(struct *)x", 8, 9, "expected the structure's name, found `*`"),
            ("(int", 4, 4, "expected `)` behind the type, found the end"),
            ("offsetof(struct a)", 17, 18, "expected `,` behind the type, found `)`"),
        ] {
            let error = parse(text).expect_err(text);
            assert_eq!((error.span, error.message.as_str()), (Span::new(start, end), message), "{text}");
        }
    }

    #[test]
    fn bounds_hold() {
        assert!(parse(&"(".repeat(4000)).expect_err("nesting").message.contains("deeper than 64"));
        assert!(parse(&"!".repeat(4000)).expect_err("nesting").message.contains("deeper than 64"));
        assert!(parse(&"x".repeat(1 << 20)).expect_err("length").message.contains("4096 is the most"));
        assert!(parse(&vec!["x"; 1000].join("+")).expect_err("height").message.contains("more than 256"));
        assert!(parse(&vec!["x"; 200].join("||")).is_ok());
        assert!(parse(&format!("{}x{}", "(".repeat(60), ")".repeat(60))).is_ok());
    }
}
