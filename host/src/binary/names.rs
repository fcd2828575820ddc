//! Functions by name: as the file has it, and as sources in C++ and Rust do.

use std::collections::{BTreeSet, HashMap};
use std::sync::OnceLock;

use cpp_demangle::{DemangleOptions, Symbol as CppSymbol};

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
    /// A resolver that picks one of several functions when the program starts (STT_GNU_IFUNC): what is called by the name is never there.
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

    pub fn find(&self, name: &str) -> Found {
        let exact: Vec<&Named> = self.named.iter().filter(|f| f.name == name).collect();
        if !exact.is_empty() {
            return decide(&exact);
        }
        let called = self.all().filter(|(_, d)| d.is_some_and(|d| d.matches(name))).map(|(f, _)| f);
        decide(&called.collect::<Vec<_>>())
    }

    /// Names by which [`Functions::find`] finds exactly one function: of each function the shortest of those that sources and the file have for it. Sorted. Without
    /// functions of which no name is theirs alone, and without labels.
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
    pub fn at(&self, address: u64) -> Option<(&str, u64)> {
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
        let demangled = self.demangled.get_or_init(|| self.named.iter().map(|f| demangled(&f.name)).collect());
        Some((demangled[number].as_ref().map_or(name, |demangled| &demangled.short), inside))
    }

    /// Names as sources write them.
    pub fn names(&self) -> Vec<String> {
        let names = self.all().map(|(f, demangled)| demangled.map_or_else(|| f.name.clone(), |d| d.short.clone()));
        names.collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn all(&self) -> impl Iterator<Item = (&Named, Option<&Demangled>)> {
        let demangled = self.demangled.get_or_init(|| self.named.iter().map(|f| demangled(&f.name)).collect());
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
    /// With what the name alone does not tell: C++'s parameters, Rust's hash.
    whole: String,
    /// Without it.
    short: String,
}

impl Demangled {
    fn matches(&self, name: &str) -> bool {
        self.whole == name || self.short == name
    }
}

fn demangled(name: &str) -> Option<Demangled> {
    // Old Rust names are C++ names by their form, so Rust is asked first.
    if let Ok(rust) = rustc_demangle::try_demangle(name) {
        return Some(Demangled { whole: rust.to_string(), short: format!("{rust:#}") });
    }
    if !name.starts_with("_Z") {
        return None;
    }
    let symbol = CppSymbol::new(name).ok()?;
    let whole = symbol.demangle().ok()?;
    let short = symbol.demangle_with_options(&DemangleOptions::new().no_params().no_return_type()).ok()?;
    Some(Demangled { whole, short })
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
}
