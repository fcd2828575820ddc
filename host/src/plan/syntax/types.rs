//! Types by their C names, and what takes one: casts, `sizeof`, `offsetof`, `container_of`.
//!
//! `(` begins a cast where a word of C's types follows (`struct`, `unsigned`, …), or one name and then a word as
//! `__user`, or one name and then stars, or one name alone in the parentheses with something behind them that cannot
//! follow a value: `(x)(y)`, `(x)y`. Before `-`, `+`, `*` and `&`, which can, only the names of integers (`u32`,
//! `size_t`, all that ends in `_t`) make a cast.

use std::fmt;

use super::super::diagnostic::{Fault, Span};
use super::{Expr, ExprKind, Parser, TokenKind, node};

/// A type as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeName {
    pub base: TypeBase,
    /// Stars behind it.
    pub pointers: u32,
    /// `__user` stands somewhere.
    pub user: bool,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TypeBase {
    Struct(String),
    Union(String),
    Enum(String),
    /// C's own words (`unsigned long`), with one space between, or a typedef's name.
    Named(String),
    /// `typeof(expression)`
    Of(Box<Expr>),
}

impl fmt::Display for TypeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.base {
            TypeBase::Struct(name) => write!(f, "struct {name}")?,
            TypeBase::Union(name) => write!(f, "union {name}")?,
            TypeBase::Enum(name) => write!(f, "enum {name}")?,
            TypeBase::Named(name) => f.write_str(name)?,
            TypeBase::Of(_) => f.write_str("typeof(…)")?,
        }
        f.write_str(&" *".repeat(self.pointers as usize))?;
        f.write_str(if self.user { " __user" } else { "" })
    }
}

/// `a.b`: names with their spans.
pub type Path = Vec<(String, Span)>;

/// Words of which C puts several together to one type.
const SPECIFIERS: [&str; 6] = ["unsigned", "signed", "char", "short", "int", "long"];
/// Words that say nothing of how a value is read; but `__user` is kept.
const QUALIFIERS: [&str; 6] = ["const", "volatile", "restrict", "__user", "__rcu", "__kernel"];

/// Whether no value can begin with this word.
fn begins_type(word: &str) -> bool {
    SPECIFIERS.contains(&word)
        || QUALIFIERS.contains(&word)
        || matches!(word, "struct" | "union" | "enum" | "typeof" | "void" | "bool" | "_Bool")
}

/// Whether the name is likely one of a type, where it could as well be a value's.
fn is_integers_name(word: &str) -> bool {
    let bits = word.trim_start_matches("__").strip_prefix(['u', 's']);
    word.ends_with("_t") || matches!(bits, Some("8" | "16" | "32" | "64"))
}

impl Parser {
    /// Whether the `(` at hand begins a cast.
    pub(super) fn begins_cast(&self) -> bool {
        let TokenKind::Name(word) = self.ahead(1) else { return false };
        let is_qualified = matches!(self.ahead(2), TokenKind::Name(next) if QUALIFIERS.contains(&next.as_str()));
        if begins_type(word) || is_qualified {
            return true;
        }
        let stars = (2..).take_while(|n| *self.ahead(*n) == TokenKind::Symbol("*")).count();
        if *self.ahead(2 + stars) != TokenKind::Symbol(")") {
            return false;
        }
        match self.ahead(3 + stars) {
            _ if stars > 0 => true,
            TokenKind::Name(next) => !matches!(next.as_str(), "and" | "or" | "in"),
            TokenKind::Integer(_) | TokenKind::Text(_) | TokenKind::Symbol("(" | "~" | "!") => true,
            TokenKind::Symbol("-" | "+" | "*" | "&") => is_integers_name(word),
            _ => false,
        }
    }

    /// The token so many behind the one at hand; the end where there is none.
    fn ahead(&self, n: usize) -> &TokenKind {
        self.tokens.get(self.at + n).map_or(&TokenKind::End, |token| &token.kind)
    }

    pub(super) fn cast(&mut self) -> Result<Expr, Fault> {
        let start = self.next().span;
        let ty = self.type_name()?;
        self.expect(")", "behind the type")?;
        let value = self.nested(Self::unary)?;
        let (span, height) = (start.to(value.span), value.height);
        node(ExprKind::Cast { ty, value: Box::new(value) }, span, height)
    }

    pub(super) fn size_of(&mut self, start: Span) -> Result<Expr, Fault> {
        let is_type = match &self.peek().kind {
            TokenKind::Name(word) if begins_type(word) => true,
            TokenKind::Name(word) => match self.ahead(1) {
                TokenKind::Symbol(")") => is_integers_name(word),
                TokenKind::Symbol("*") => matches!(self.ahead(2), TokenKind::Symbol(")" | "*")),
                _ => false,
            },
            _ => false,
        };
        if is_type {
            let ty = self.type_name()?;
            let end = self.expect(")", "behind the type")?;
            return node(ExprKind::SizeOfType(ty), start.to(end), 0);
        }
        let value = self.nested(Self::expression)?;
        let end = self.expect(")", "behind the expression")?;
        let height = value.height;
        node(ExprKind::SizeOf(Box::new(value)), start.to(end), height)
    }

    pub(super) fn offset_of(&mut self, start: Span) -> Result<Expr, Fault> {
        let (ty, path, end) = self.member_of()?;
        node(ExprKind::OffsetOf { ty, path }, start.to(end), 0)
    }

    pub(super) fn container_of(&mut self, start: Span) -> Result<Expr, Fault> {
        let pointer = self.nested(Self::expression)?;
        self.expect(",", "behind the pointer")?;
        let (ty, path, end) = self.member_of()?;
        let height = pointer.height;
        node(ExprKind::ContainerOf { pointer: Box::new(pointer), ty, path }, start.to(end), height)
    }

    /// `type, a.b)`
    fn member_of(&mut self) -> Result<(TypeName, Path, Span), Fault> {
        let ty = self.type_name()?;
        self.expect(",", "behind the type")?;
        let mut path = vec![self.word("a field's name")?];
        while self.take(".") {
            path.push(self.word("a field's name")?);
        }
        let end = self.expect(")", "behind the field")?;
        Ok((ty, path, end))
    }

    fn word(&mut self, what: &str) -> Result<(String, Span), Fault> {
        let token = self.next();
        match token.kind {
            TokenKind::Name(name) => Ok((name, token.span)),
            other => Err(Fault::new(token.span, format!("expected {what}, found {}", other.shown()))),
        }
    }

    fn type_name(&mut self) -> Result<TypeName, Fault> {
        let (mut start, mut user) = (self.peek().span, false);
        self.qualifiers(&mut user);
        start = start.to(self.peek().span);
        let (word, mut end) = self.word("a type")?;
        let base = match word.as_str() {
            "struct" | "union" | "enum" => {
                let of = if word == "enum" { "the enumeration's name" } else { "the structure's name" };
                let (name, at) = self.word(of)?;
                end = at;
                match word.as_str() {
                    "struct" => TypeBase::Struct(name),
                    "union" => TypeBase::Union(name),
                    _ => TypeBase::Enum(name),
                }
            }
            "typeof" => {
                self.expect("(", "behind `typeof`")?;
                let of = self.nested(Self::expression)?;
                end = self.expect(")", "behind the expression")?;
                TypeBase::Of(Box::new(of))
            }
            _ => TypeBase::Named(self.specifiers(word, &mut end)),
        };
        self.qualifiers(&mut user);
        let mut pointers = 0;
        while self.peek().kind == TokenKind::Symbol("*") {
            end = self.next().span;
            pointers += 1;
            self.qualifiers(&mut user);
        }
        Ok(TypeName { base, pointers, user, span: start.to(end) })
    }

    fn qualifiers(&mut self, user: &mut bool) {
        while let TokenKind::Name(word) = &self.peek().kind {
            if !QUALIFIERS.contains(&word.as_str()) {
                return;
            }
            *user |= word == "__user";
            self.next();
        }
    }

    /// `unsigned long` and its like: `first`, and the words of C that go on.
    fn specifiers(&mut self, first: String, end: &mut Span) -> String {
        let mut name = first;
        if !SPECIFIERS.contains(&name.as_str()) {
            return name;
        }
        while let TokenKind::Name(word) = &self.peek().kind {
            if !SPECIFIERS.contains(&word.as_str()) {
                break;
            }
            name.push(' ');
            name.push_str(word);
            *end = self.next().span;
        }
        name
    }
}
