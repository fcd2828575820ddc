//! Functions of the language.

use super::super::bounds::{STR_DEFAULT, STR_MAX};
use super::super::diagnostic::{Fault, Span, did_you_mean};
use super::super::familiar;
use super::super::syntax::{Expr, ExprKind};
use super::super::{Access, AttachPoint, Match, Names, Node, NodeKind, Origin, Type};
use super::operators::matching;
use super::types::converted;
use super::{BUILTINS, Checked, Checker, both, one, walk};

/// Functions whose arguments are expressions.
#[rustfmt::skip]
const FUNCTIONS: &[&str] = &[
    "str", "path", "reg", "starts_with", "ends_with", "contains", "errno", "signal", "syscall", "bswap", "ntohs", "ntohl",
    "user", "kernel", "kaddr", "this_cpu", "per_cpu", "per_cpu_ptr", "ksym", "usym", "kstack", "ustack", "buf", "ntop", "mac", "flags",
];

/// Those that take types, which the parser reads.
const OF_TYPES: [&str; 3] = ["sizeof", "offsetof", "container_of"];

pub(super) fn is_function(name: &str) -> bool {
    FUNCTIONS.contains(&name) || OF_TYPES.contains(&name)
}

impl Checker<'_> {
    pub(super) fn call(&self, name: &str, at: Span, arguments: &[Expr], span: Span) -> Checked<Node> {
        let how = match name {
            "str" => return self.str(arguments, span),
            "path" => return self.path(arguments, span),
            "ksym" | "usym" => return self.symbol_of(name, arguments, span),
            "kstack" | "ustack" => return self.stack(name, arguments, span),
            "buf" => return self.buf(arguments, span),
            "ntop" => return self.ntop(arguments, span),
            "mac" => return self.mac(arguments, span),
            "flags" => return self.flags(arguments, span),
            "reg" => return self.register(arguments, span),
            "user" => return self.in_memory("user", Origin::User, arguments, span),
            "kernel" => return self.in_memory("kernel", Origin::Kernel, arguments, span),
            "kaddr" => return self.kernel_address(arguments, span),
            "per_cpu_ptr" => return self.per_cpu_pointer(arguments, span),
            "errno" => return self.named_number(name, Names::Errors, arguments, span),
            "signal" => return self.named_number(name, Names::Signals, arguments, span),
            "syscall" => return self.named_number(name, Names::SystemCalls, arguments, span),
            "bswap" | "ntohs" | "ntohl" => return self.swapped(name, arguments, span),
            "starts_with" => Match::StartsWith,
            "ends_with" => Match::EndsWith,
            "contains" => Match::Contains,
            word => {
                if let Some(called) = self.kfunc(word, at, arguments, span) {
                    return called;
                }
                return match walk::asked(word) {
                    Some(asked) => self.walked(word, asked, arguments, span),
                    None => Err(one(self.unknown_function(word, at))),
                };
            }
        };
        let [text, with] = arguments else {
            return Err(one(Fault::new(span, format!("`{name}` takes a text and what is looked for"))));
        };
        let (text, with) = both(self.value(text), self.value(with))?;
        if let (Type::Point(name), NodeKind::Literal(part)) = (&text.ty, &with.kind) {
            return self.matching_point(*name, &text, how, &[(part.clone(), with.span)], span);
        }
        if !matches!(text.ty, Type::Text { .. } | Type::Bytes { .. } | Type::Point(_)) {
            let fault = Fault::new(text.span, format!("`{name}` takes a text, and this is {}", self.shown(&text.ty)));
            return Err(one(match text.ty {
                Type::Pointer { .. } => fault.help("`str(pointer)` reads the text behind a pointer"),
                _ => fault,
            }));
        }
        match with.kind {
            NodeKind::Literal(with) => Ok(matching(text, how, vec![with], span)),
            _ => Err(one(Fault::new(with.span, "what is looked for must be a text in quotes"))),
        }
    }

    fn str(&self, arguments: &[Expr], span: Span) -> Checked<Node> {
        let (pointer, max) = match arguments {
            [pointer] => (pointer, STR_DEFAULT),
            [pointer, max] => (pointer, self.most_bytes(max)?),
            _ => return Err(one(Fault::new(span, "`str` takes a pointer, and perhaps a number of bytes"))),
        };
        let value = self.value(pointer)?;
        match value.ty {
            // What registers hold there has no type; what it points to is the process's own.
            Type::Integer { bytes: 8, .. } if matches!(self.attach, AttachPoint::User(_)) => {
                let kind = NodeKind::Str { pointer: Box::new(value), access: Access::User, array: false };
                Ok(Node { kind, ty: Type::Text { max }, span })
            }
            Type::Pointer { origin, .. } => {
                let access = if origin == Origin::User { Access::User } else { Access::Kernel };
                let kind = NodeKind::Str { pointer: Box::new(value), access, array: false };
                Ok(Node { kind, ty: Type::Text { max }, span })
            }
            Type::Text { .. } => Err(one(Fault::new(pointer.span, "this is a text already").help("leave `str` away"))),
            ty => Err(one(Fault::new(pointer.span, format!("`str` takes a pointer, and this is {}", self.shown(&ty))))),
        }
    }

    /// How many bytes of a text are wanted.
    pub(super) fn most_bytes(&self, max: &Expr) -> Checked<u32> {
        match self.value(max)?.kind {
            NodeKind::Constant(n) if (1..=i64::from(STR_MAX)).contains(&n) => Ok(n as u32),
            _ => {
                let message = format!("the number of bytes must be a constant from 1 to {STR_MAX}");
                Err(one(Fault::new(max.span, message)))
            }
        }
    }

    /// An integer whose values have names.
    fn named_number(&self, function: &str, names: Names, arguments: &[Expr], span: Span) -> Checked<Node> {
        let [value] = arguments else {
            return Err(one(Fault::new(span, format!("`{function}` takes one integer"))));
        };
        let value = self.integer(value)?;
        let (bytes, signed) = value.ty.integer().unwrap_or((1, false));
        // An error is negative; where a register holds it, its type knows of no sign.
        let signed = signed || names == Names::Errors;
        Ok(converted(value, Type::Enumeration { names, bytes, signed }, span))
    }

    /// `bswap`, and what takes a number of 2 or 4 bytes from the order that networks have.
    fn swapped(&self, function: &str, arguments: &[Expr], span: Span) -> Checked<Node> {
        let [value] = arguments else {
            return Err(one(Fault::new(span, format!("`{function}` takes one integer"))));
        };
        let value = self.integer(value)?;
        let bytes = match function {
            "ntohs" => 2,
            "ntohl" => 4,
            _ => value.ty.integer().map_or(1, |(bytes, _)| bytes),
        };
        let ty = Type::Integer { bytes, signed: false };
        let kind = match value.kind {
            _ if bytes == 1 => return Ok(converted(value, ty, span)),
            NodeKind::Constant(n) => {
                NodeKind::Constant(((n as u64).swap_bytes() >> (64 - 8 * u32::from(bytes))) as i64)
            }
            kind => NodeKind::ByteSwap(Box::new(Node { kind, ..value })),
        };
        Ok(Node { kind, ty, span })
    }

    fn register(&self, arguments: &[Expr], span: Span) -> Checked<Node> {
        let node = match arguments {
            [Expr { kind: ExprKind::Text(name), span: at, .. }] => {
                self.reads_registers.set(true);
                self.registers_are_told(span)?;
                self.attach.register(&String::from_utf8_lossy(name), self.facts, *at)
            }
            _ => Err(Fault::new(span, "`reg` takes the name of a register as a text").help("`reg(\"ip\")`")),
        };
        node.map(|node| Node { span, ..node }).map_err(one)
    }

    fn unknown_function(&self, name: &str, at: Span) -> Fault {
        let fault = Fault::new(at, format!("there is no function `{name}`"));
        let is_value = BUILTINS.iter().any(|(n, _)| *n == name)
            || self.bindings.contains_key(name)
            || matches!(name, "comm" | "args");
        if is_value {
            return fault.help(format!("`{name}` is a value, without parentheses"));
        }
        if let Some(fault) = self.not_listed(name, at) {
            return fault;
        }
        if let Some(help) = did_you_mean(name, self.uses.names()) {
            return fault.help(help);
        }
        let help = familiar::function(name).or_else(|| did_you_mean(name, FUNCTIONS.iter().copied().chain(OF_TYPES)));
        fault.help(help.unwrap_or_else(|| {
            let all: Vec<String> = FUNCTIONS.iter().map(|name| format!("`{name}`")).collect();
            format!("there are {}, `sizeof`, `offsetof` and `container_of`", all.join(", "))
        }))
    }
}
