//! Names of the kernel's constants: its enumerations', from BTF, and macros, from a table.

use super::super::constants;
use super::super::diagnostic::{Fault, Span, did_you_mean};
use super::super::{Names, Node, NodeKind, Type};
use super::{Checked, Checker, one};
use crate::kernel::Kind;

/// A misspelt constant is looked for among those that begin with so many of its characters.
const SAME: usize = 3;

impl Checker<'_> {
    pub(super) fn constant(&self, name: &str, span: Span) -> Checked<Node> {
        if let Some(value) = constants::value(name) {
            let ty = Type::Integer { bytes: 8, signed: true };
            return Ok(Node { kind: NodeKind::Constant(value), ty, span });
        }
        // Where there are no types, the name is as unknown as any other.
        let unknown = || one(self.unknown_name(name, span));
        let btf = self.facts.btf().map_err(|_| unknown())?;
        let all = btf.enumerators(name);
        let &(id, value) = all.first().ok_or_else(unknown)?;
        if let Some((other, differs)) = all.iter().find(|(_, v)| *v != value) {
            let (first, second) = (btf.c_name(id), btf.c_name(*other));
            let message = format!("`{name}` is {value} in `{first}` and {differs} in `{second}`");
            return Err(one(Fault::new(span, message).help("write the number that is meant")));
        }
        match btf.kind(id) {
            Kind::Enum { bytes: bytes @ (1 | 2 | 4 | 8), signed, .. } => {
                let ty = Type::Enumeration { names: Names::Kernel(id), bytes: bytes as u8, signed };
                Ok(Node { kind: NodeKind::Constant(value), ty, span })
            }
            _ => Err(unknown()),
        }
    }

    /// The value that has this name in an enumeration.
    pub(super) fn named_value(&self, names: Names, name: &[u8], span: Span) -> Checked<i64> {
        let name = String::from_utf8_lossy(name);
        let all = names.values(self.facts);
        all.iter().find(|(_, n)| *n == name).map(|(value, _)| *value).ok_or_else(|| {
            let fault = Fault::new(span, names.unknown(&name, self.facts));
            one(match did_you_mean(&name, all.iter().map(|(_, n)| n.as_str())) {
                Some(help) => fault.help(help),
                None => fault,
            })
        })
    }

    /// Help for what looks like a constant and is none.
    pub(super) fn near_constant(&self, name: &str) -> Option<String> {
        let is_upper = name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
        let prefix = name.get(..SAME.min(name.len() - 1)).filter(|prefix| is_upper && !prefix.is_empty())?;
        let mut near: Vec<&str> = constants::names().filter(|n| n.starts_with(prefix)).collect();
        if let Ok(btf) = self.facts.btf() {
            near.extend(btf.enumerators_from(prefix));
        }
        did_you_mean(name, near)
    }
}
