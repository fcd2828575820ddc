//! Functions of the language.

use super::super::diagnostic::{Fault, Span, did_you_mean};
use super::super::familiar;
use super::super::syntax::Expr;
use super::super::{Access, Node, NodeKind, Origin, Type};
use super::{BUILTINS, Checked, Checker, STR_DEFAULT, STR_MAX, one};

impl Checker<'_> {
    pub(super) fn call(&self, name: &str, at: Span, arguments: &[Expr], span: Span) -> Checked<Node> {
        if name != "str" {
            return Err(one(self.unknown_function(name, at)));
        }
        let (pointer, max) = match arguments {
            [pointer] => (pointer, STR_DEFAULT),
            [pointer, max] => match self.value(max)?.kind {
                NodeKind::Constant(n) if (1..=i64::from(STR_MAX)).contains(&n) => (pointer, n as u32),
                _ => {
                    let message = format!("the number of bytes must be a constant from 1 to {STR_MAX}");
                    return Err(one(Fault::new(max.span, message)));
                }
            },
            _ => return Err(one(Fault::new(span, "`str` takes a pointer, and perhaps a number of bytes"))),
        };
        let value = self.value(pointer)?;
        match value.ty {
            Type::Pointer { origin, .. } => {
                let access = if origin == Origin::User { Access::User } else { Access::Kernel };
                let kind = NodeKind::Str { pointer: Box::new(value), access, array: false };
                Ok(Node { kind, ty: Type::Text { max }, span })
            }
            Type::Text { .. } => Err(one(Fault::new(pointer.span, "this is a text already").help("leave `str` away"))),
            ty => Err(one(Fault::new(pointer.span, format!("`str` takes a pointer, and this is {}", self.shown(&ty))))),
        }
    }

    fn unknown_function(&self, name: &str, at: Span) -> Fault {
        let fault = Fault::new(at, format!("there is no function `{name}`"));
        let is_value = BUILTINS.iter().any(|(n, _)| *n == name) || self.bindings.contains_key(name) || name == "comm";
        if is_value {
            return fault.help(format!("`{name}` is a value, without parentheses"));
        }
        let help = familiar::function(name).or_else(|| did_you_mean(name, ["str"]));
        fault.help(help.unwrap_or_else(|| "there is `str(pointer)`, and `str(pointer, bytes)`".to_owned()))
    }
}
