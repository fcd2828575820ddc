//! Functions by name: as the file has it, and as sources in C++ and Rust do.
//!
//! A name of a hundred bytes can stand for one of many gigabytes, because it says by a letter what it has said before.
//! So names as sources have them are bounded, each and together, and a function whose name would be longer goes by the
//! one that the file has: cut it would be no name, and might be another function's.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::fmt::{self, Write};
use std::sync::OnceLock;

use cpp_demangle::{DemangleOptions, Symbol as CppSymbol};
use rustc_demangle::Demangle;

use super::mangled;

/// Bytes of a name as sources write it at most.
const LONGEST: usize = 4096;
/// Bytes of all such names of a file at most. The largest browsers have some hundred MiB.
const ALL: usize = 256 << 20;

/// A function in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Function {
    pub address: u64,
    /// Bytes; 0 where the file does not say.
    pub size: u64,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Function(Function),
    /// A resolver that picks one of several functions when the program starts (STT_GNU_IFUNC): what is called by the
    /// name is never there.
    Indirect,
    /// Several functions, each with a name that is its own, or with its address.
    Several(Vec<String>),
    Nothing,
}

/// A function as the file names it.
#[derive(Clone, Debug)]
pub struct Named {
    pub name: String,
    pub function: Function,
    pub indirect: bool,
    /// A place in assembly that nothing says to be a function.
    pub label: bool,
}

/// All functions of a file.
#[derive(Debug, Default)]
pub struct Functions {
    named: Vec<Named>,
    /// Of each its name in the source, where that is another. Read on first use: about a microsecond for each.
    demangled: OnceLock<Vec<Option<Demangled>>>,
    /// Numbers of functions by their addresses, one for each. Made on first use.
    sorted: OnceLock<Vec<usize>>,
}

impl Functions {
    pub fn new(named: Vec<Named>) -> Functions {
        Functions { named, demangled: OnceLock::new(), sorted: OnceLock::new() }
    }

    /// Bytes of memory that they take, about, without names as sources write them.
    pub fn size(&self) -> usize {
        let names: usize = self.named.iter().map(|function| function.name.len()).sum();
        names + self.named.len() * (size_of::<Named>() + size_of::<usize>())
    }

    pub fn find(&self, name: &str) -> Found {
        let exact: Vec<&Named> = self.named.iter().filter(|f| f.name == name).collect();
        if !exact.is_empty() {
            return decide(&exact);
        }
        let called = self.all().filter(|(_, d)| d.is_some_and(|d| d.matches(name))).map(|(f, _)| f);
        decide(&called.collect::<Vec<_>>())
    }

    /// Names by which [`Functions::find`] finds exactly one function: of each function the shortest of those that
    /// sources and the file have for it. Sorted. Without functions of which no name is theirs alone, and without
    /// labels.
    pub fn findable(&self, longest: usize) -> Vec<String> {
        let names: Vec<(&Named, Option<&Demangled>)> = self.all().collect();
        let mut raw: HashMap<&str, Owner> = HashMap::new();
        let mut written: HashMap<&str, Owner> = HashMap::new();
        for (function, demangled) in &names {
            raw.entry(&function.name).or_default().add(function);
            for name in demangled.iter().flat_map(|d| [&d.short, &d.whole]) {
                written.entry(name).or_default().add(function);
            }
        }
        // A name that the file has is found before any that a source has.
        let is_alone = |name: &str| raw.get(name).or_else(|| written.get(name)).is_some_and(Owner::is_one);
        let best = |(function, demangled): &(&Named, Option<&Demangled>)| {
            let names = demangled.iter().flat_map(|d| [&d.short, &d.whole]).chain([&function.name]);
            names.into_iter().find(|name| name.len() <= longest && is_alone(name)).cloned()
        };
        names
            .iter()
            .filter(|(function, _)| !function.label)
            .filter_map(best)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// The function in which this address is, as sources name it, and the bytes from where it begins.
    pub fn at(&self, address: u64) -> Option<(Cow<'_, str>, u64)> {
        let sorted = self.sorted.get_or_init(|| {
            let mut sorted: Vec<usize> = (0..self.named.len()).collect();
            // Of several names the one that is most likely called so in a source.
            let worse = |n: &usize| {
                let Named { name, function, label, .. } = &self.named[*n];
                (function.address, *label, function.size == 0, name.starts_with('_'), name.len(), name)
            };
            sorted.sort_by(|a, b| worse(a).cmp(&worse(b)));
            sorted.dedup_by_key(|n| self.named[*n].function.address);
            sorted
        });
        let behind = sorted.partition_point(|n| self.named[*n].function.address <= address);
        let number = *sorted.get(behind.checked_sub(1)?)?;
        let Named { name, function, .. } = &self.named[number];
        let inside = address - function.address;
        if function.size > 0 && inside >= function.size {
            return None;
        }
        // Of this function alone: a stack has few of a file's.
        Some((short(name).map_or(Cow::Borrowed(name), Cow::Owned), inside))
    }

    /// Names as sources write them.
    pub fn names(&self) -> Vec<String> {
        let names = self.all().map(|(f, demangled)| demangled.map_or_else(|| f.name.clone(), |d| d.short.clone()));
        names.collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn all(&self) -> impl Iterator<Item = (&Named, Option<&Demangled>)> {
        let demangled = self.demangled.get_or_init(|| all_demangled(&self.named, ALL));
        self.named.iter().zip(demangled.iter().map(Option::as_ref))
    }
}

/// The functions that one name stands for.
#[derive(Default)]
struct Owner {
    address: Option<u64>,
    several: bool,
    indirect: bool,
}

impl Owner {
    fn add(&mut self, function: &Named) {
        let address = self.address.get_or_insert(function.function.address);
        self.several |= *address != function.function.address;
        self.indirect |= function.indirect;
    }

    fn is_one(&self) -> bool {
        !self.several && !self.indirect
    }
}

/// One function, if all names are of one address.
fn decide(found: &[&Named]) -> Found {
    let Some(first) = found.first() else { return Found::Nothing };
    if found.iter().all(|f| f.function.address == first.function.address) {
        return if first.indirect { Found::Indirect } else { Found::Function(first.function) };
    }
    let mut functions: Vec<String> = found
        .iter()
        .map(|f| {
            let name = demangled(&f.name).map_or_else(|| f.name.clone(), |d| d.whole);
            format!("`{name}` at {:#x}", f.function.address)
        })
        .collect();
    functions.sort();
    functions.dedup();
    Found::Several(functions)
}

/// A name as the source has it.
#[derive(Debug)]
struct Demangled {
    /// With what the name alone does not tell: C++'s parameters, Rust's hash. As the file has it, where that would be
    /// too long.
    whole: String,
    /// Without it.
    short: String,
}

impl Demangled {
    fn matches(&self, name: &str) -> bool {
        self.whole == name || self.short == name
    }
}

/// The names of all functions as sources write them, as far as they have no more than so many bytes together.
fn all_demangled(named: &[Named], most: usize) -> Vec<Option<Demangled>> {
    let mut left = most;
    let bounded = |function: &Named| {
        let demangled = demangled(&function.name)?;
        left = left.checked_sub(demangled.whole.len() + demangled.short.len())?;
        Some(demangled)
    };
    named.iter().map(bounded).collect()
}

fn demangled(name: &str) -> Option<Demangled> {
    let short = short(name)?;
    Some(Demangled { whole: whole(name).unwrap_or_else(|| name.to_owned()), short })
}

fn whole(name: &str) -> Option<String> {
    written(name, |rust, to| write!(to, "{rust}"), DemangleOptions::new())
}

fn short(name: &str) -> Option<String> {
    written(name, |rust, to| write!(to, "{rust:#}"), DemangleOptions::new().no_params().no_return_type())
}

/// The name as its language has it, where it is of one that is known, and not too long.
fn written(
    name: &str,
    rust: impl FnOnce(Demangle<'_>, &mut Bounded) -> fmt::Result,
    cpp: DemangleOptions,
) -> Option<String> {
    let mut written = Bounded(String::new());
    // Old Rust names are C++ names by their form, so Rust is asked first.
    match rustc_demangle::try_demangle(name) {
        Ok(demangled) => rust(demangled, &mut written).ok()?,
        Err(_) if mangled::is_readable(name) => {
            CppSymbol::new(name).ok()?.structured_demangle(&mut written, &cpp).ok()?;
        }
        Err(_) => return None,
    }
    Some(written.0)
}

/// A text of at most [`LONGEST`] bytes. Who writes more is told so, and ends.
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > LONGEST {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn functions() -> Functions {
        let names = [
            "main",
            "alias_of_main",
            "twice",
            "twice",
            "_ZN4shop5Order3addEi",
            "_ZN4shop5Order3addEd",
            "_ZN4shop5closeEv",
            "_ZN5plant4grow17h0123456789abcdefE",
            "_RNvCs4fqI2P2rA04_5plant6wither",
            "memcpy",
        ];
        let addresses = [0x10, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80, 0x90];
        let named = |(name, address): (&str, u64)| Named {
            name: name.to_owned(),
            function: Function { address, size: 8 },
            indirect: name == "memcpy",
            label: false,
        };
        Functions::new(names.into_iter().zip(addresses).map(named).collect())
    }

    #[test]
    fn names_find_functions() {
        let functions = functions();
        for (name, address) in [
            ("main", 0x10),
            ("alias_of_main", 0x10),
            ("_ZN4shop5closeEv", 0x60),
            ("shop::close()", 0x60),
            ("shop::close", 0x60),
            ("shop::Order::add(int)", 0x40),
            ("plant::grow", 0x70),
            ("plant::grow::h0123456789abcdef", 0x70),
            ("plant::wither", 0x80),
        ] {
            assert_eq!(functions.find(name), Found::Function(Function { address, size: 8 }), "{name}");
        }
        assert_eq!(functions.find("memcpy"), Found::Indirect);
        assert_eq!(functions.find("grow"), Found::Nothing);
    }

    #[test]
    fn several_are_told_apart() {
        let several = |name: &str| match functions().find(name) {
            Found::Several(names) => names,
            other => panic!("{other:?}"),
        };
        assert_eq!(several("twice"), ["`twice` at 0x20", "`twice` at 0x30"]);
        assert_eq!(
            several("shop::Order::add"),
            ["`shop::Order::add(double)` at 0x50", "`shop::Order::add(int)` at 0x40"]
        );
    }

    #[test]
    fn each_listed_name_finds_one_function() {
        let functions = functions();
        let names = functions.findable(255);
        assert_eq!(
            names,
            [
                "alias_of_main",
                "main",
                "plant::grow",
                "plant::wither",
                "shop::Order::add(double)",
                "shop::Order::add(int)",
                "shop::close"
            ]
        );
        for name in &names {
            assert!(matches!(functions.find(name), Found::Function(_)), "{name}");
        }
        assert!(!functions.findable(12).iter().any(|name| name.contains("Order")));
    }

    #[test]
    fn names_are_listed_as_sources_write_them() {
        let names = functions().names();
        for name in ["main", "shop::Order::add", "plant::grow", "plant::wither"] {
            assert!(names.iter().any(|n| n == name), "{name}: {names:?}");
        }
    }

    /// Types in C++'s form, each of which has the one before it twice. So many names stand in front of them.
    fn doubled_cpp(levels: usize, before: usize) -> String {
        let number = |n: usize| match n {
            0 => "S_".to_owned(),
            n => format!("S{}_", char::from_digit(n as u32 - 1, 36).unwrap().to_ascii_uppercase()),
        };
        let level = |n| format!("{}I{1}{1}E", number(before), number(before + n));
        format!("4PairIiE{}", (1..levels).map(level).collect::<String>())
    }

    /// The same in Rust's form: a tuple of what stands inside, and of that once more, by the place where it begins: a
    /// number to the base 62, less one.
    fn doubled_rust(levels: usize) -> String {
        let digit = |n: usize| char::from(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"[n]);
        (0..levels).rev().fold("l".to_owned(), |inside, n| format!("T{inside}B{}_E", digit(8 + n)))
    }

    #[test]
    fn names_that_would_be_too_long_stay_as_the_file_has_them() {
        let cpp = |levels| format!("_Z4lastI{}Evv", doubled_cpp(levels, 1));
        let rust = |levels| format!("_RINvC1a1b{}E", doubled_rust(levels));
        for (short, long) in [(cpp(4), cpp(34)), (rust(4), rust(40))] {
            let names = demangled(&short).unwrap_or_else(|| panic!("{short}"));
            assert!((30..1000).contains(&names.short.len()), "{}", names.short);
            assert!(demangled(&long).is_none(), "{long}");
            let function = Function { address: 0x10, size: 8 };
            let named = Named { name: long.clone(), function, indirect: false, label: false };
            let functions = Functions::new(vec![named]);
            assert_eq!(functions.at(0x12), Some((Cow::Borrowed(&*long), 2)));
            assert_eq!(functions.find(&long), Found::Function(function));
            assert_eq!(functions.names(), [long]);
        }
        // What is too long is what stands behind the name.
        let parameters = format!("_Z4last{}", doubled_cpp(34, 0));
        let names = demangled(&parameters).unwrap();
        assert_eq!((names.short.as_str(), names.whole), ("last", parameters));
    }

    #[test]
    fn names_are_whole_up_to_the_bound() {
        let name = |length: usize| format!("_ZN1a{length}{}E", "b".repeat(length));
        let short = "a::".len();
        assert_eq!(demangled(&name(LONGEST - short)).map(|names| names.short.len()), Some(LONGEST));
        assert!(demangled(&name(LONGEST - short + 1)).is_none());
    }

    #[test]
    fn all_names_of_a_file_are_bounded() {
        let named = |n: usize| Named {
            name: format!("_ZN4shop3abcEv{n}"),
            function: Function { address: n as u64, size: 1 },
            indirect: false,
            label: false,
        };
        let mut functions: Vec<Named> = (0..3).map(named).collect();
        functions.iter_mut().for_each(|function| function.name.truncate("_ZN4shop3abcEv".len()));
        let each = "shop::abc()".len() + "shop::abc".len();
        let known = |most| all_demangled(&functions, most).iter().flatten().count();
        assert_eq!([known(3 * each), known(3 * each - 1), known(each), known(0)], [3, 2, 1, 0]);
    }
}
