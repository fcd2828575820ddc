//! Names of numbers: those that the kernel's enumerations have, and those of numbers that no enumeration knows.

use super::{constants, syscalls};
use crate::kernel::{KernelFacts, Kind, TypeId};

/// Whose names an enumeration's values have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Names {
    /// An enumeration of the kernel's.
    Kernel(TypeId),
    /// What a call returns that failed: minus an error number.
    Errors,
    Signals,
    SystemCalls,
}

/// Second names of numbers that go by another.
const ALIASES: [&str; 5] = ["EDEADLOCK", "ENOTSUP", "EWOULDBLOCK", "SIGIOT", "SIGPOLL"];

impl Names {
    /// Each value with its name. Of several names for one value the first is shown.
    pub fn values(self, facts: &KernelFacts) -> Vec<(i64, String)> {
        match self {
            Names::Kernel(id) => match facts.btf().map(|btf| btf.kind(id)) {
                Ok(Kind::Enum { values, .. }) => values.into_iter().map(|(name, value)| (value, name)).collect(),
                _ => Vec::new(),
            },
            Names::Errors => from_table("E").into_iter().map(|(value, name)| (-value, name)).collect(),
            Names::Signals => from_table("SIG"),
            Names::SystemCalls => syscalls::names().map(|(number, name)| (number, name.to_owned())).collect(),
        }
    }

    /// What they are names of, in words.
    pub fn shown(self, facts: &KernelFacts) -> String {
        match self {
            Names::Kernel(id) => {
                facts.btf().map_or_else(|_| "an enumeration".to_owned(), |btf| format!("`{}`", btf.c_name(id)))
            }
            Names::Errors => "an error number".to_owned(),
            Names::Signals => "a signal".to_owned(),
            Names::SystemCalls => "a system call".to_owned(),
        }
    }

    /// That this is none of the names.
    pub fn unknown(self, name: &str, facts: &KernelFacts) -> String {
        match self {
            Names::Kernel(_) => format!("{} has no `{name}`", self.shown(facts)),
            Names::Errors => format!("there is no error `{name}`"),
            Names::Signals => format!("there is no signal `{name}`"),
            Names::SystemCalls => format!("there is no system call `{name}`"),
        }
    }
}

fn from_table(prefix: &str) -> Vec<(i64, String)> {
    let mut all: Vec<(i64, String)> = constants::from(prefix).map(|(name, value)| (value, name.to_owned())).collect();
    all.sort_by_key(|(value, name)| (ALIASES.contains(&name.as_str()), *value));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_shown_by_the_name_that_it_is_known_by() {
        let facts = KernelFacts::from_dir(std::path::Path::new("/nowhere"));
        let shown = |names: Names, value| names.values(&facts).into_iter().find(|(n, _)| *n == value).map(|(_, n)| n);
        assert_eq!(shown(Names::Errors, -2).as_deref(), Some("ENOENT"));
        assert_eq!(shown(Names::Errors, -11).as_deref(), Some("EAGAIN"));
        assert_eq!(shown(Names::Errors, -95).as_deref(), Some("EOPNOTSUPP"));
        assert_eq!(shown(Names::Errors, -512).as_deref(), Some("ERESTARTSYS"));
        assert_eq!(shown(Names::Errors, 2), None);
        assert_eq!(shown(Names::Signals, 6).as_deref(), Some("SIGABRT"));
        assert_eq!(shown(Names::Signals, 64), None);
        assert_eq!(shown(Names::SystemCalls, 257).as_deref(), Some("openat"));
        assert_eq!(shown(Names::SystemCalls, 400), None);
        assert_eq!(shown(Names::Kernel(TypeId::VOID), 0), None);
        // No two numbers of one kind have the same first name, and all are in the range that the kernel gives them.
        let errors = Names::Errors.values(&facts);
        assert!(errors.iter().all(|(value, _)| (-4095..0).contains(value)), "{errors:?}");
        assert!(Names::Signals.values(&facts).iter().all(|(value, _)| (1..32).contains(value)));
    }
}
