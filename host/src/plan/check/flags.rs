//! `flags`: numbers whose bits are shown by their names.

use std::collections::BTreeMap;

use super::super::bits::{FlagNames, MAX_BEGINNINGS};
use super::super::diagnostic::{Fault, Span, did_you_mean};
use super::super::syntax::{Expr, ExprKind};
use super::super::together::MAX_VALUE_NAMES;
use super::super::{Node, Type};
use super::types::converted;
use super::{Checked, Checker, both, listed, one};
use crate::kernel::{Kind, TypeId};

impl Checker<'_> {
    /// `flags(x, "O_")`, `flags(x, "enum NAME")`
    pub(super) fn flags(&self, arguments: &[Expr], span: Span) -> Checked<Node> {
        let [value, Expr { kind: ExprKind::Text(names), span: at, .. }] = arguments else {
            let fault = Fault::new(span, "`flags` takes an integer, and how the names of its bits begin");
            return Err(one(fault.help("`flags(args.flags, \"O_\")`, `flags(x, \"enum NAME\")`")));
        };
        let (value, names) = both(self.integer(value), self.flag_names(&String::from_utf8_lossy(names), *at))?;
        let bytes = value.ty.integer().map_or(1, |(bytes, _)| bytes);
        Ok(converted(value, Type::Flags { names, bytes }, span))
    }

    fn flag_names(&self, text: &str, at: Span) -> Checked<FlagNames> {
        if let Some(name) = text.strip_prefix("enum ") {
            return self.flags_of(name.trim(), at);
        }
        let names = FlagNames::beginning(text).map_err(|count| {
            let message = format!("these are {count} beginnings of names, and {MAX_BEGINNINGS} is the most");
            one(Fault::new(at, message).help("a beginning that several names share stands for them all"))
        })?;
        let constants = names.constants(self.facts);
        if constants.is_empty() {
            let fault = Fault::new(at, format!("no constant's name begins with `{text}`"));
            return Err(one(fault.help("such as `\"O_\"`, `\"MAP_\"` and `\"CLONE_\"`, or `\"enum NAME\"`")));
        }
        self.of_one_meaning(&constants, at)?;
        self.bounded(names, at)
    }

    /// The constants of an enumeration.
    fn flags_of(&self, name: &str, at: Span) -> Checked<FlagNames> {
        let btf = self.btf(at)?;
        let Some(id) = btf.enumeration(name) else {
            let fault = Fault::new(at, format!("this kernel's BTF has no enumeration `{name}`"));
            let prefix = name.get(..3.min(name.len())).unwrap_or_default();
            return Err(one(match did_you_mean(name, btf.tags_from(prefix)) {
                Some(help) => fault.help(help),
                None => fault,
            }));
        };
        self.bounded(FlagNames::Of(id), at)
    }

    /// Several enumerations may have names that begin alike: then no bit may have two of different ones.
    fn of_one_meaning(&self, constants: &[(String, u64, Option<TypeId>)], at: Span) -> Checked<()> {
        let btf = self.btf(at);
        let mut first: BTreeMap<u64, (&str, TypeId)> = BTreeMap::new();
        for (name, value, id) in constants {
            let Some(id) = *id else { continue };
            match first.get(value) {
                Some((other, of)) if *of != id && other != name => {
                    let message = format!("`{other}` and `{name}`, of two enumerations, are the same bits");
                    let named = |id| match btf.as_ref().map(|btf| btf.kind(id)) {
                        Ok(Kind::Enum { name, .. }) if !name.is_empty() => Some(format!("`\"enum {name}\"`")),
                        _ => None,
                    };
                    let named: Vec<String> = [*of, id].into_iter().filter_map(named).collect();
                    let help = "begin with more of the name".to_owned();
                    let help =
                        if named.is_empty() { help } else { format!("{help}, or say which: {}", listed(&named)) };
                    return Err(one(Fault::new(at, message).help(help)));
                }
                Some(_) => {}
                None => {
                    first.insert(*value, (name, id));
                }
            }
        }
        Ok(())
    }

    fn bounded(&self, names: FlagNames, at: Span) -> Checked<FlagNames> {
        match names.flags(self.facts).len() {
            count if count > MAX_VALUE_NAMES => {
                let message = format!("these are {count} names, and {MAX_VALUE_NAMES} is the most");
                Err(one(Fault::new(at, message).help("begin with more of the name")))
            }
            _ => Ok(names),
        }
    }
}
