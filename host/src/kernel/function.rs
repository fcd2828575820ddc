//! Functions of the kernel: their prototypes from BTF, and from the kernel's lists which of them are there and can be
//! traced.
//!
//! BTF, /proc/kallsyms and ftrace's list do not name the same functions. BTF has prototypes, also of functions that the
//! compiler has put into their callers everywhere (inlined) or of which it made variants (`name.isra.0`); kallsyms has
//! every function that is there, those of modules and of BPF programs too, and some names twice; ftrace's list has
//! those that begin with a call that a tracer can be put into. The lists are read when first asked for, and where one
//! cannot be read nothing is known, which refuses nothing.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::OnceLock;

use super::{Btf, FactError, KernelFacts, Kind, TypeId, tracefs};

/// A function and its prototype.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its type in BTF.
    pub id: TypeId,
    pub params: Vec<(String, TypeId)>,
    pub result: TypeId,
    /// Whether it ends in `...`.
    pub variadic: bool,
}

impl KernelFacts {
    /// The function `name` of the kernel's own BTF. Parameters that have no name there are `arg0`, `arg1`, … by their
    /// position.
    pub fn function(&self, name: &str) -> Result<Option<Function>, FactError> {
        let btf = self.btf()?;
        let Some(id) = btf.function(name) else { return Ok(None) };
        let Kind::Function { proto, .. } = btf.kind(id) else { return Ok(None) };
        Ok(Function::new(btf, id, proto))
    }

    /// The function `name` that a module adds.
    pub fn function_of_module(&self, module: &str, name: &str) -> Result<Option<Function>, FactError> {
        let btf = self.btf()?;
        let Some(id) = btf.function_of_module(module, name) else { return Ok(None) };
        let Kind::Function { proto, .. } = btf.kind(id) else { return Ok(None) };
        Ok(Function::new(btf, id, proto))
    }

    /// Every function of BTF by its name, with its type and its prototype. Of several of one name it is the first, as
    /// [`KernelFacts::function`] has it. Reads all types (about 10 ms).
    pub fn functions(&self) -> Result<BTreeMap<String, (TypeId, TypeId)>, FactError> {
        let mut all = self.btf()?.functions();
        // The last of a name is the one that stays.
        all.reverse();
        Ok(all.into_iter().map(|(name, id, proto)| (name, (id, proto))).collect())
    }

    /// The name of every function of BTF that begins with `prefix`, without it: for suggestions. Reads all types (about
    /// 10 ms).
    pub fn function_names(&self, prefix: &str) -> Result<Vec<String>, FactError> {
        Ok(self.btf()?.function_names(prefix))
    }

    /// What kallsyms tells; none where it cannot be read. The first call takes about 50 ms.
    pub fn symbols(&self) -> Option<&Symbols> {
        self.symbols.get_or_init(|| Symbols::new(std::fs::read_to_string(&self.kallsyms).ok()?)).as_ref()
    }

    /// Whether ftrace can put a call into the function; none where its list cannot be read.
    pub fn is_traceable(&self, name: &str) -> Option<bool> {
        Some(self.traceable()?.binary_search_by(|known| known.as_str().cmp(name)).is_ok())
    }

    /// Whether ftrace's list of functions can be read.
    pub fn knows_traceable(&self) -> bool {
        self.traceable().is_some()
    }

    fn traceable(&self) -> Option<&Vec<String>> {
        let read = || {
            let text = self.events().ok()?.traceable_functions().ok()?;
            let names = text.lines().map(|line| line.split([' ', '\t']).next().unwrap_or_default().to_owned());
            let mut names: Vec<String> = names.collect();
            names.sort_unstable();
            (!names.is_empty()).then_some(names)
        };
        self.traceable.get_or_init(read).as_ref()
    }

    /// Whether the kernel is known to take no kprobe there: its list says so (NOKPROBE_SYMBOL).
    pub fn is_kept_from_kprobes(&self, name: &str) -> bool {
        let read = || {
            let text = match &self.events_root {
                None => tracefs::kprobes_blacklist(),
                Some(root) => std::fs::read_to_string(root.join("kprobes/blacklist")),
            };
            // `0xffffffff81000000-0xffffffff81000010\tname`
            text.unwrap_or_default().lines().filter_map(|line| Some(line.split_once('\t')?.1.to_owned())).collect()
        };
        self.kept_from_kprobes.get_or_init(read).contains(name)
    }
}

impl Function {
    /// None where `proto` is no prototype. Parameters that have no name are `arg0`, `arg1`, … by their position.
    pub fn new(btf: &Btf, id: TypeId, proto: TypeId) -> Option<Function> {
        let Kind::Prototype { mut params, result } = btf.kind(proto) else { return None };
        let variadic = params.last().is_some_and(|(name, ty)| name.is_empty() && *ty == TypeId::VOID);
        params.truncate(params.len() - usize::from(variadic));
        for ((name, _), position) in params.iter_mut().zip(0..) {
            if name.is_empty() {
                *name = format!("arg{position}");
            }
        }
        Some(Function { id, params, result, variadic })
    }
}

/// Name and module of a function that is one of a module.
fn in_module(entry: &str) -> Option<(&str, &str)> {
    let (name, module) = entry.split_once('\t')?;
    let module = module.strip_prefix('[')?.strip_suffix(']')?;
    // Not modules: what BPF and ftrace make while the kernel runs.
    (module != "bpf" && !module.starts_with("__builtin")).then_some((name, module))
}

/// What /proc/kallsyms names.
pub struct Symbols {
    text: String,
    /// Of each function its name, and behind a tab its module in brackets; sorted.
    functions: Vec<Range<usize>>,
    /// The functions of each module, sorted; made when first asked for.
    by_module: OnceLock<HashMap<String, Vec<Range<usize>>>>,
    /// Of all that is the kernel's own, functions and variables; sorted, and made when first asked for.
    all: OnceLock<Vec<Range<usize>>>,
    /// The addresses of what ran at boot only; none where they are hidden.
    at_boot: OnceLock<Option<Range<u64>>>,
}

impl Symbols {
    /// None where there are none: of a kernel that hides them.
    fn new(text: String) -> Option<Symbols> {
        let mut functions = Vec::new();
        let mut start = 0;
        for line in text.split_inclusive('\n') {
            // `ffffffff814b9be0 T name`, and behind it perhaps `\t[module]`.
            let mut words = line.trim_end().splitn(3, ' ');
            if let (Some(_), Some("T" | "t" | "W" | "w"), Some(name)) = (words.next(), words.next(), words.next()) {
                let at = start + line.trim_end().len() - name.len();
                functions.push(at..at + name.len());
            }
            start += line.len();
        }
        functions.sort_unstable_by(|a, b| text[a.clone()].cmp(&text[b.clone()]));
        (!functions.is_empty()).then_some(Symbols {
            text,
            functions,
            by_module: OnceLock::new(),
            all: OnceLock::new(),
            at_boot: OnceLock::new(),
        })
    }

    /// How many functions of the kernel itself have that name: static ones of several files may share it.
    pub fn count(&self, name: &str) -> usize {
        self.beginning(name).filter(|entry| *entry == name).count()
    }

    /// The modules that have a function of that name, sorted; one that has several comes as often.
    pub fn modules(&self, name: &str) -> impl Iterator<Item = &str> {
        self.beginning(name).filter_map(move |entry| in_module(entry).filter(|(own, _)| *own == name)).map(|(_, of)| of)
    }

    /// The names of a module's functions, sorted; one that several have comes as often.
    pub fn functions_of(&self, module: &str) -> Vec<&str> {
        let functions = self.by_module().get(module).into_iter().flatten();
        functions.map(|range| &self.text[range.clone()]).collect()
    }

    /// The modules that have functions, sorted.
    pub fn all_modules(&self) -> Vec<&str> {
        let mut modules: Vec<&str> = self.by_module().keys().map(String::as_str).collect();
        modules.sort_unstable();
        modules
    }

    fn by_module(&self) -> &HashMap<String, Vec<Range<usize>>> {
        self.by_module.get_or_init(|| {
            let mut modules: HashMap<String, Vec<Range<usize>>> = HashMap::new();
            for range in &self.functions {
                let Some((name, module)) = in_module(&self.text[range.clone()]) else { continue };
                let name = range.start..range.start + name.len();
                match modules.get_mut(module) {
                    Some(functions) => functions.push(name),
                    None => _ = modules.insert(module.to_owned(), vec![name]),
                }
            }
            modules
        })
    }

    /// What the compiler has made of the function: `name.isra.0`, `name.constprop.0`, `name.part.0`, `name.cold`.
    pub fn variants(&self, name: &str) -> Vec<&str> {
        let variants = self.beginning(name).filter(|entry| entry[name.len()..].starts_with('.'));
        variants.filter(|entry| !entry.contains('\t') && !entry.ends_with(".cold")).collect()
    }

    /// Whether the function ran at boot and its memory has been given away since (`__init`); false where addresses are
    /// hidden.
    pub fn is_gone(&self, name: &str) -> bool {
        let read = || Some(self.address_of("_sinittext")?..self.address_of("_einittext")?);
        let Some(at_boot) = self.at_boot.get_or_init(read) else { return false };
        self.address_of(name).is_some_and(|address| at_boot.contains(&address))
    }

    fn address_of(&self, function: &str) -> Option<u64> {
        let at = self.functions.partition_point(|range| &self.text[range.clone()] < function);
        let range = self.functions.get(at).filter(|range| self.text[(*range).clone()] == *function)?;
        self.address(range)
    }

    /// Names of the kernel's own functions, sorted; one that several have comes as often.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.functions.iter().map(|range| &self.text[range.clone()]).filter(|entry| !entry.contains('\t'))
    }

    fn beginning(&self, with: &str) -> impl Iterator<Item = &str> {
        let first = self.functions.partition_point(|range| &self.text[range.clone()] < with);
        let rest = self.functions[first..].iter().map(|range| &self.text[range.clone()]);
        rest.take_while(move |entry| entry.starts_with(with))
    }

    /// The addresses that a name of the kernel itself stands for: static functions and variables of several files may
    /// share it.
    pub fn addresses(&self, name: &str) -> Vec<u64> {
        let all = self.all();
        let first = all.partition_point(|range| &self.text[range.clone()] < name);
        let named = all[first..].iter().take_while(|range| &self.text[(*range).clone()] == name);
        named.filter_map(|range| self.address(range)).collect()
    }

    /// Whether the kernel hides all addresses (`kernel.kptr_restrict`).
    pub fn are_hidden(&self) -> bool {
        // Only what each CPU has of its own may begin at 0, and there are functions beside that.
        self.functions.iter().take(64).all(|range| self.address(range) == Some(0))
    }

    /// The names of all that is the kernel's own and begins so.
    pub fn all_beginning<'a>(&'a self, with: &'a str) -> impl Iterator<Item = &'a str> {
        let all = self.all();
        let first = all.partition_point(|range| &self.text[range.clone()] < with);
        let names = all[first..].iter().map(|range| &self.text[range.clone()]);
        names.take_while(move |name| name.starts_with(with))
    }

    fn all(&self) -> &[Range<usize>] {
        self.all.get_or_init(|| {
            let mut all = Vec::new();
            let mut start = 0;
            for line in self.text.split_inclusive('\n') {
                let entry = line.trim_end();
                // A module's names have its own behind a tab.
                if let Some(name) = entry.splitn(3, ' ').nth(2).filter(|name| !name.contains('\t')) {
                    let end = start + entry.len();
                    all.push(end - name.len()..end);
                }
                start += line.len();
            }
            all.sort_unstable_by(|a, b| self.text[a.clone()].cmp(&self.text[b.clone()]));
            all
        })
    }

    /// What stands in front of the name: the address and a letter.
    fn address(&self, name: &Range<usize>) -> Option<u64> {
        let line = self.text[..name.start].rfind('\n').map_or(0, |end| end + 1);
        u64::from_str_radix(self.text[line..name.start].split(' ').next()?, 16).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols() {
        let text = "ffffffff81000000 T vfs_read\nffffffff81000010 t x\n0000000000000000 D data\n0000000000000000 t x\n\
            0000000000000000 t do_it.isra.0\n0000000000000000 t do_it.cold\n0000000000000000 t ext4_x\t[ext4]\n\
            0000000000000000 t p\t[bpf]\nbroken\n";
        let symbols = Symbols::new(text.to_owned()).unwrap();
        assert_eq!(["vfs_read", "x", "data", "ext4_x", "do_it"].map(|n| symbols.count(n)), [1, 2, 0, 0, 0]);
        let modules = |name: &str| symbols.modules(name).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(["ext4_x", "ext4_", "p", "x"].map(modules), [vec!["ext4".to_owned()], vec![], vec![], vec![]]);
        assert_eq!((symbols.functions_of("ext4"), symbols.functions_of("bpf")), (vec!["ext4_x"], vec![]));
        assert_eq!(symbols.variants("do_it"), ["do_it.isra.0"]);
        assert_eq!(symbols.names().collect::<Vec<_>>(), ["do_it.cold", "do_it.isra.0", "vfs_read", "x", "x"]);
        assert!(Symbols::new("0 D data\n".to_owned()).is_none());
        assert_eq!(symbols.addresses("vfs_read"), [0xffff_ffff_8100_0000]);
        assert_eq!(symbols.addresses("x"), [0xffff_ffff_8100_0010, 0]);
        assert_eq!(
            [symbols.addresses("data"), symbols.addresses("ext4_x"), symbols.addresses("dat")],
            [vec![0], vec![], vec![]]
        );
        assert_eq!(symbols.all_beginning("d").collect::<Vec<_>>(), ["data", "do_it.cold", "do_it.isra.0"]);
    }

    #[test]
    fn what_ran_at_boot_is_gone() {
        let text = "10 T vfs_read\n100 T _sinittext\n110 T start_kernel\n120 T _einittext\n120 T after\n";
        let symbols = Symbols::new(text.to_owned()).unwrap();
        assert_eq!(
            ["vfs_read", "start_kernel", "after", "none"].map(|n| symbols.is_gone(n)),
            [false, true, false, false]
        );
        let hidden = Symbols::new(text.replace("10 ", "0 ").replace("100 ", "0 ").replace("120 ", "0 ")).unwrap();
        assert!(!hidden.is_gone("start_kernel"));
    }

    #[test]
    fn root_functions_of_this_machine() {
        let facts = KernelFacts::running();
        let btf = facts.btf().unwrap();
        let function = facts.function("vfs_read").unwrap().unwrap();
        let params: Vec<_> = function.params.iter().map(|(name, ty)| format!("{} {name}", btf.c_name(*ty))).collect();
        assert_eq!(params, ["struct file * file", "char * buf", "size_t count", "loff_t * pos"]);
        assert_eq!((btf.c_name(function.result).as_str(), function.variadic), ("ssize_t", false));
        assert!(facts.function("_printk").unwrap().unwrap().variadic);
        assert!(facts.function("vfs_raed").unwrap().is_none());
        assert!(facts.function_names("").unwrap().len() > 10_000);
        assert!(facts.function_names("bpf_lsm_").unwrap().iter().any(|name| name == "file_open"));
        assert_eq!(facts.symbols().unwrap().count("vfs_read"), 1);
        assert_ne!(facts.is_traceable("vfs_read"), Some(false));
    }
}
