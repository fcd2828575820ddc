//! Names of bits: what `flags(x, "O_")` has shown.
//!
//! The problem: names of flags are not all one bit each. `O_RDONLY` is 0, and meant where the two bits of `O_ACCMODE`
//! are; `O_SYNC` is `O_DSYNC` and one bit more; `S_IRWXU` only sums up three others; and one bit may have two names.
//!
//! The idea: each name says which bits it speaks of (its mask) and what they are where it is meant (its value). The
//! reader of a record goes through the names in their order, so the order decides: what contains another name stands
//! before it. What sums up others is left out.

use std::cmp::Reverse;
use std::collections::HashSet;

use super::constants;
use super::layout::Flag;
use crate::kernel::{KernelFacts, Kind, TypeId};

/// Which names bits have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FlagNames {
    /// Constants that begin with one of these: macros, or else the enumerations' own. None stands there twice.
    Begin(Box<[Box<str>]>),
    /// The constants of an enumeration of the kernel's.
    Of(TypeId),
}

/// Different beginnings of names that `flags` takes at most: for each, all constants that there are may be gone
/// through.
pub const MAX_BEGINNINGS: usize = 8;

/// Macros that are the mask of a number of several bits, which has one value of several; and the enumeration that names
/// those, where they are no macros.
const MASKS: [(&str, Option<&str>); 4] =
    [("MAP_TYPE", None), ("O_ACCMODE", None), ("SOCK_TYPE_MASK", Some("sock_type")), ("S_IFMT", None)];

/// Names that give way to another for the same bit.
const SECOND: [&str; 7] = ["AT_EACCESS", "MS_ASYNC", "MS_INVALIDATE", "MS_SYNC", "MSG_EOF", "O_NDELAY", "O_RSYNC"];

impl FlagNames {
    /// Of constants that begin with what stands between `|`. The error is how many beginnings there are, where they are
    /// too many.
    pub fn beginning(text: &str) -> Result<FlagNames, usize> {
        let mut seen = HashSet::new();
        let parts = text.split('|').map(str::trim).filter(|part| !part.is_empty() && seen.insert(*part));
        let beginnings: Box<[Box<str>]> = parts.map(Box::from).collect();
        if beginnings.len() > MAX_BEGINNINGS { Err(beginnings.len()) } else { Ok(FlagNames::Begin(beginnings)) }
    }

    /// The names, in the order in which a reader goes through them.
    pub fn flags(&self, facts: &KernelFacts) -> Vec<Flag> {
        flags(&self.constants(facts), facts)
    }

    /// All constants that have such names, and their enumerations; macros have none.
    pub fn constants(&self, facts: &KernelFacts) -> Vec<(String, u64, Option<TypeId>)> {
        let btf = facts.btf();
        match self {
            FlagNames::Of(id) => of_enumeration(*id, facts),
            FlagNames::Begin(beginnings) => {
                let mut all = Vec::new();
                for beginning in beginnings {
                    let macros = constants::from(beginning).filter(|(_, value)| *value >= 0);
                    let before = all.len();
                    all.extend(macros.map(|(name, value)| (name.to_owned(), value as u64, None)));
                    if let (true, Ok(btf)) = (all.len() == before, &btf) {
                        let of_name = |name| btf.enumerators(name).iter().map(move |(id, value)| (name, *id, *value));
                        let found = btf.enumerators_from(beginning).flat_map(of_name);
                        all.extend(
                            found.map(|(name, id, value)| (name.to_owned(), bits_of(id, value, facts), Some(id))),
                        );
                    }
                }
                all
            }
        }
    }
}

fn of_enumeration(id: TypeId, facts: &KernelFacts) -> Vec<(String, u64, Option<TypeId>)> {
    match facts.btf().map(|btf| btf.kind(id)) {
        Ok(Kind::Enum { values, .. }) => {
            values.into_iter().map(|(name, value)| (name, bits_of(id, value, facts), Some(id))).collect()
        }
        _ => Vec::new(),
    }
}

/// The bits of an enumeration's value, as many as its type has.
fn bits_of(id: TypeId, value: i64, facts: &KernelFacts) -> u64 {
    match facts.btf().map(|btf| btf.kind(id)) {
        Ok(Kind::Enum { bytes: bytes @ 1..8, .. }) => value as u64 & !(u64::MAX << (8 * bytes)),
        _ => value as u64,
    }
}

fn flags(constants: &[(String, u64, Option<TypeId>)], facts: &KernelFacts) -> Vec<Flag> {
    let named: Vec<(&str, u64)> = constants.iter().map(|(name, value, _)| (name.as_str(), *value)).collect();
    let masks: Vec<(u64, Option<&str>)> = MASKS
        .iter()
        .filter_map(|(mask, of)| named.iter().find(|(name, _)| name == mask).map(|(_, value)| (*value, *of)))
        .collect();
    let single: u64 = named.iter().map(|(_, value)| *value).filter(|value| value.is_power_of_two()).sum_bits();
    let mut flags: Vec<Flag> = Vec::new();
    for (name, value) in &named {
        let mask = match masks.iter().find(|(mask, _)| value & !mask == 0) {
            Some((mask, _)) => *mask,
            None if *value == 0 => u64::MAX,
            // It sums up others.
            None if !value.is_power_of_two() && value & !single == 0 => continue,
            None => *value,
        };
        flags.push(Flag { name: (*name).to_owned(), mask, value: *value });
    }
    for (mask, of) in masks {
        let id = of.and_then(|name| facts.btf().ok()?.enumeration(name));
        let values = id.map(|id| of_enumeration(id, facts)).unwrap_or_default();
        flags.extend(values.into_iter().map(|(name, value, _)| Flag { name, mask, value }));
    }
    flags.sort_by_key(|flag| SECOND.contains(&flag.name.as_str()));
    let mut seen = HashSet::new();
    flags.retain(|flag| seen.insert((flag.mask, flag.value)));
    flags.sort_by_key(|flag| (flag.mask.trailing_zeros(), Reverse(flag.mask.count_ones()), flag.value));
    flags
}

/// The bits that are set in any of some numbers.
trait SumBits {
    fn sum_bits(self) -> u64;
}

impl<T: Iterator<Item = u64>> SumBits for T {
    fn sum_bits(self) -> u64 {
        self.fold(0, |bits, value| bits | value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::layout::told;

    fn shown(names: &FlagNames, value: u64) -> String {
        let recorded = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/kernel-6.18");
        let facts = KernelFacts::from_dir(std::path::Path::new(recorded));
        let flags = names.flags(&facts);
        let (names, rest) = told(&flags, value);
        format!("{} {rest:#x}", names.join("|"))
    }

    #[test]
    fn names_are_told_by_what_they_speak_of() {
        let cases = [
            ("O_", 0, "O_RDONLY 0x0"),
            ("O_", 1, "O_WRONLY 0x0"),
            ("O_", 3, "O_ACCMODE 0x0"),
            ("O_", 0o2101, "O_WRONLY|O_CREAT|O_APPEND 0x0"),
            ("O_", 0x80000, "O_RDONLY|O_CLOEXEC 0x0"),
            ("O_", 0x4000_0042, "O_RDWR|O_CREAT 0x40000000"),
            // One bit more than O_DSYNC, and the other one alone, which has no name.
            ("O_", 0x10_1000, "O_RDONLY|O_SYNC 0x0"),
            ("O_", 0x1000, "O_RDONLY|O_DSYNC 0x0"),
            ("O_", 0x10_0000, "O_RDONLY 0x100000"),
            ("O_", 0x41_0002, "O_RDWR|O_TMPFILE 0x0"),
            ("O_", 0x1_0800, "O_RDONLY|O_NONBLOCK|O_DIRECTORY 0x0"),
            ("PROT_", 0, "PROT_NONE 0x0"),
            ("PROT_", 5, "PROT_READ|PROT_EXEC 0x0"),
            ("MAP_", 0x22, "MAP_PRIVATE|MAP_ANONYMOUS 0x0"),
            ("MAP_", 3, "MAP_SHARED_VALIDATE 0x0"),
            ("MAP_", 7, " 0x7"),
            ("S_", 0o100_644, "S_IROTH|S_IRGRP|S_IWUSR|S_IRUSR|S_IFREG 0x0"),
            ("S_", 0o40_755, "S_IXOTH|S_IROTH|S_IXGRP|S_IRGRP|S_IXUSR|S_IWUSR|S_IRUSR|S_IFDIR 0x0"),
            // Of the names of types, which no macros are, the recorded kernel has none.
            ("SOCK_", 0x80001, "SOCK_CLOEXEC 0x1"),
            ("CLONE_", 0x4111, "CLONE_VM|CLONE_VFORK 0x11"),
            ("MS_", 0x21, "MS_RDONLY|MS_REMOUNT 0x0"),
            ("MS_ASYNC|MS_INVALIDATE | MS_SYNC", 6, "MS_INVALIDATE|MS_SYNC 0x0"),
            ("AT_", 0x200, "AT_REMOVEDIR 0x0"),
            ("I_DIRTY_", 0x33, "I_DIRTY_SYNC|I_DIRTY_DATASYNC 0x3"),
            ("NOTHING_", 5, " 0x5"),
            ("MNT_", 0, " 0x0"),
        ];
        for (beginning, value, wanted) in cases {
            assert_eq!(shown(&FlagNames::beginning(beginning).unwrap(), value), wanted, "{beginning} {value:#x}");
        }
    }

    #[test]
    fn beginnings_are_counted_once() {
        let parts = |text: &str| match FlagNames::beginning(text) {
            Ok(FlagNames::Begin(parts)) => Ok(parts.join(" ")),
            other => Err(other.unwrap_err()),
        };
        assert_eq!(parts("O_| S_|O_||S_ |O_"), Ok("O_ S_".into()));
        assert_eq!(parts(&"O_|".repeat(1000)), Ok("O_".into()));
        assert_eq!(parts("A|B|C|D|E|F|G|H|A"), Ok("A B C D E F G H".into()));
        assert_eq!(parts("A|B|C|D|E|F|G|H|I|A"), Err(9));
    }

    #[test]
    fn no_bit_is_told_twice_and_none_is_lost() {
        let recorded = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/kernel-6.18");
        let facts = KernelFacts::from_dir(std::path::Path::new(recorded));
        for beginning in ["O_", "MAP_", "S_", "SOCK_", "MS_", "MSG_", "CLONE_", "PROT_", "AT_", "F_", "SA_", "SS_"] {
            let flags = FlagNames::beginning(beginning).unwrap().flags(&facts);
            assert!(flags.len() > 1, "{beginning}");
            for n in 0..4096u64 {
                let value = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (n % 64);
                let (names, rest) = told(&flags, value);
                let values = names.iter().map(|name| flags.iter().find(|f| f.name == *name).unwrap().value);
                let bits = values.clone().sum_bits();
                assert_eq!(
                    values.clone().map(u64::count_ones).sum::<u32>(),
                    bits.count_ones(),
                    "{beginning} {value:#x}"
                );
                assert_eq!((bits | rest, bits & rest), (value, 0), "{beginning} {value:#x}");
            }
        }
    }
}
