//! From an attach point as written to what it stands for: one by its name, or for a pattern all that can be attached
//! to.
//!
//! Patterns are another plugin's to write, so what they cost is counted over a whole declaration: each list of names is
//! read once, the names that patterns are compared with are bounded, and so are those for which a better name is looked
//! for.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use super::module::{self, Module};
use super::pattern::{Glob, is_wild};
use super::{AttachPoint, FunctionKind, Spec, function, no_facts, resolve};
use crate::kernel::{FactError, KernelFacts};
use crate::plan::bounds::MAX_ATTACH_POINTS;
use crate::plan::diagnostic::{Fault, Span, did_you_mean, few};

/// Names that all patterns of a declaration are compared with at most, not counting those that begin otherwise.
pub const MAX_COMPARED_NAMES: usize = 1 << 22;
/// Faults of a declaration for which a better name is looked for: no more are shown.
const MAX_SUGGESTIONS: usize = 50;
/// Characters at least that names must have in common to be worth showing.
const SAME: usize = 2;

/// A name in the text of an attach point, which may be a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub text: String,
    pub at: Span,
}

impl Name {
    pub fn is_wild(&self) -> bool {
        is_wild(&self.text)
    }

    pub fn glob(&self) -> Result<Glob, Fault> {
        Glob::parse(&self.text, self.at)
    }

    /// This name in the place of a pattern.
    pub fn instead(&self, text: &str) -> Name {
        Name { text: text.to_owned(), at: self.at }
    }
}

/// Functions of modules that have been asked for.
type OfModules = HashMap<(FunctionKind, String), Rc<Vec<String>>>;

/// Looks up the attach points of one declaration.
pub struct Search<'a> {
    pub facts: &'a KernelFacts,
    tracepoints: OnceCell<Result<Vec<(String, String)>, FactError>>,
    raw_tracepoints: OnceCell<Result<Vec<String>, FactError>>,
    /// Of fentry and fexit, of kprobe and kretprobe, of `func`, and of lsm.
    functions: [OnceCell<Result<Vec<String>, FactError>>; 4],
    of_modules: RefCell<OfModules>,
    compared: Cell<usize>,
    suggested: Cell<usize>,
}

impl<'a> Search<'a> {
    pub fn new(facts: &'a KernelFacts) -> Search<'a> {
        Search {
            facts,
            tracepoints: OnceCell::new(),
            raw_tracepoints: OnceCell::new(),
            functions: Default::default(),
            of_modules: RefCell::default(),
            compared: Cell::new(0),
            suggested: Cell::new(0),
        }
    }

    /// Every tracepoint as (system, name), sorted.
    pub fn tracepoints(&self) -> Result<&[(String, String)], &FactError> {
        self.tracepoints.get_or_init(|| self.facts.tracepoint_names()).as_deref()
    }

    pub fn raw_tracepoints(&self) -> Result<&[String], &FactError> {
        self.raw_tracepoints.get_or_init(|| self.facts.raw_tracepoint_names()).as_deref()
    }

    /// Every function that can be attached to so, sorted.
    pub fn functions(&self, kind: FunctionKind) -> Result<&[String], &FactError> {
        let family = match kind {
            FunctionKind::Fentry | FunctionKind::Fexit => 0,
            FunctionKind::Kprobe | FunctionKind::Kretprobe => 1,
            FunctionKind::Func => 2,
            FunctionKind::Lsm => 3,
        };
        self.functions[family].get_or_init(|| function::names(kind, self.facts)).as_deref()
    }

    /// Every function of a module that can be attached to so, sorted.
    pub fn functions_of(&self, kind: FunctionKind, module: &Module) -> Result<Rc<Vec<String>>, Fault> {
        let key = (kind, module.name.clone());
        if let Some(known) = self.of_modules.borrow().get(&key) {
            return Ok(Rc::clone(known));
        }
        module::loaded(module, self.facts)?;
        let names = function::names_of_module(kind, &module.name, self.facts).map_err(|error| no_facts(&error))?;
        let names = Rc::new(names);
        self.of_modules.borrow_mut().insert(key, Rc::clone(&names));
        Ok(names)
    }

    /// As [`did_you_mean`], for as many faults as anyone reads.
    pub fn did_you_mean<'n>(&self, name: &str, candidates: impl IntoIterator<Item = &'n str>) -> Option<String> {
        self.suggested.set(self.suggested.get() + 1);
        if self.suggested.get() > MAX_SUGGESTIONS { None } else { did_you_mean(name, candidates) }
    }

    /// Those of the names that a pattern takes.
    pub fn matching<T: AsRef<str>>(&self, pattern: &Name, all: impl IntoIterator<Item = T>) -> Result<Vec<T>, Fault> {
        self.matching_by(pattern, all, |name| name.as_ref())
    }

    /// The same of things that have names.
    pub fn matching_by<T>(
        &self,
        pattern: &Name,
        all: impl IntoIterator<Item = T>,
        name: impl Fn(&T) -> &str,
    ) -> Result<Vec<T>, Fault> {
        let glob = pattern.glob()?;
        let mut found = Vec::new();
        for one in all {
            if name(&one).starts_with(&glob.beginning) {
                self.compare(pattern.at)?;
                if glob.matches(name(&one)) {
                    found.push(one);
                }
            }
        }
        Ok(found)
    }

    fn compare(&self, at: Span) -> Result<(), Fault> {
        self.compared.set(self.compared.get() + 1);
        if self.compared.get() <= MAX_COMPARED_NAMES {
            return Ok(());
        }
        let message = format!(
            "the declaration's patterns have been compared with {MAX_COMPARED_NAMES} names, and that is the most"
        );
        Err(Fault::new(at, message).help("use fewer patterns, or write more in front of their first wildcard"))
    }

    /// The fault of a pattern that takes none of these names. `what` they are: "tracepoint of `sched`".
    pub fn nothing<'n>(&self, pattern: &Name, what: &str, names: impl IntoIterator<Item = &'n str>) -> Fault {
        let fault = Fault::new(pattern.at, format!("no {what} matches this"));
        let near = pattern.glob().ok().and_then(|glob| self.near(&glob.beginning, names));
        match near {
            Some(near) => fault.help(near),
            None => fault,
        }
    }

    /// Names that begin as nearly so as there are any.
    fn near<'n>(&self, beginning: &str, names: impl IntoIterator<Item = &'n str>) -> Option<String> {
        self.suggested.set(self.suggested.get() + 1);
        if self.suggested.get() > MAX_SUGGESTIONS {
            return None;
        }
        let names: Vec<&str> = names.into_iter().collect();
        let common = |name: &str| name.bytes().zip(beginning.bytes()).take_while(|(a, b)| a == b).count();
        let best = names.iter().map(|name| common(name)).max()?;
        let near: Vec<&str> = names.iter().copied().filter(|name| common(name) == best).collect();
        match beginning.get(..best) {
            Some(same) if best >= SAME => Some(format!("with `{same}` begin {}", few(&quoted(&near)))),
            _ => Some(format!("there are {}", few(&quoted(&names)))),
        }
    }
}

fn quoted(names: &[impl AsRef<str>]) -> Vec<String> {
    names.iter().map(|name| format!("`{}`", name.as_ref())).collect()
}

/// The fault of a pattern that matches so many names, and nothing that can be attached to.
pub fn none_of(at: Span, names: usize) -> Fault {
    match names {
        1 => Fault::new(at, "the one name that it matches cannot be attached to"),
        n => Fault::new(at, format!("none of the {n} names that it matches can be attached to")),
    }
}

/// What an attach point as written stands for, before it is looked at closely.
pub struct Meant {
    pub specs: Vec<Spec>,
    /// Where the pattern stands, if it is one: what cannot be attached to is left out then.
    pattern: Option<Span>,
}

impl Meant {
    pub fn one(spec: &Spec) -> Meant {
        Meant { specs: vec![spec.clone()], pattern: None }
    }

    /// What a pattern takes. `names` are what messages call them.
    pub fn several(at: Span, specs: Vec<Spec>, names: &[impl AsRef<str>]) -> Result<Meant, Fault> {
        if names.len() > MAX_ATTACH_POINTS {
            let message = format!("it matches {} names, and {MAX_ATTACH_POINTS} is the most", names.len());
            return Err(Fault::new(at, message).help(format!("among them are {}", few(&quoted(names)))));
        }
        Ok(Meant { specs, pattern: Some(at) })
    }

    /// The attach points, those of each name together: a marker may be several.
    pub fn find(&self, search: &Search<'_>) -> Result<Vec<Vec<AttachPoint>>, Fault> {
        let (mut found, mut left_out) = (Vec::new(), None);
        for spec in &self.specs {
            match resolve(spec, search) {
                Ok(points) => found.push(points),
                Err(fault) if self.pattern.is_some() => left_out = left_out.or(Some(fault)),
                Err(fault) => return Err(fault),
            }
        }
        match (self.pattern, left_out) {
            (Some(at), Some(fault)) if found.is_empty() => Err(none_of(at, self.specs.len()).help(fault.message)),
            _ => Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::time::Instant;

    use super::super::{expand, members, parse};
    use super::*;
    use crate::declare::{Declaration, Event, Probe, Step};
    use crate::plan::plan;

    const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/kernel-6.18");

    /// The attach points that a text stands for.
    fn found(text: &str, search: &Search<'_>) -> Result<Vec<String>, String> {
        let mut found = Vec::new();
        for text in members(text) {
            let points = parse(&text).and_then(|spec| expand(&spec, search)?.find(search));
            found.extend(points.map_err(|fault| fault.message)?.into_iter().flatten().map(|p| p.to_string()));
        }
        Ok(found)
    }

    #[test]
    fn patterns_take_what_the_kernel_has() {
        let facts = KernelFacts::from_dir(Path::new(RECORDED));
        let search = Search::new(&facts);
        for (text, expected) in [
            (
                "tracepoint:syscalls:sys_enter_open*",
                vec!["syscalls:sys_enter_open", "syscalls:sys_enter_openat", "syscalls:sys_enter_openat2"],
            ),
            ("t:s[ck]*:{kfree,sched_wake}*", vec!["skb:kfree_skb", "sched:sched_wakeup"]),
            ("tracepoint:*:sys_exit_open", vec!["syscalls:sys_exit_open"]),
            ("tracepoint:raw_*:*", vec!["raw_syscalls:sys_enter"]),
            ("tracepoint:sys*:sys_enter_getp?id", vec!["syscalls:sys_enter_getppid"]),
        ] {
            let expected: Vec<String> = expected.iter().map(|name| format!("tracepoint:{name}")).collect();
            assert_eq!(found(text, &search), Ok(expected), "{text}");
        }
        for (text, expected) in [
            ("rt:sched_s*", vec!["rawtracepoint:sched_switch"]),
            ("kprobe:vfs_{read,write}", vec!["kprobe:vfs_read", "kprobe:vfs_write"]),
            ("k:vfs_[ow]*", vec!["kprobe:vfs_open", "kprobe:vfs_write"]),
            ("fentry:vfs_wri?e", vec!["fentry:vfs_write"]),
            ("{f,fr}:vfs_read", vec!["fentry:vfs_read", "fexit:vfs_read"]),
            ("func:vfs_w*", vec!["fentry:vfs_write"]),
            // Not `init_once`, of which there are many.
            ("kprobe:*io*", vec!["kprobe:__io_uring_free", "kprobe:io_issue_sqe", "kprobe:mmap_region"]),
            ("lsm:*open", vec!["lsm:file_open"]),
            ("profile:hz:{1,10}", vec!["profile:hz:1", "profile:hz:10"]),
            ("u:kiosk:open_*", vec!["uprobe:kiosk:open_kiosk"]),
            (
                "uprobe:kiosk:kiosk::Order::*",
                vec!["uprobe:kiosk:kiosk::Order::add(double)", "uprobe:kiosk:kiosk::Order::add(int)"],
            ),
            ("ur:kiosk:*sell", vec!["uretprobe:kiosk:kiosk::sell"]),
            ("usdt:kiosk:*:closed", vec!["usdt:kiosk:booth:closed", "usdt:kiosk:kiosk:closed"]),
        ] {
            assert_eq!(found(text, &search), Ok(expected.iter().map(|e| (*e).to_owned()).collect()), "{text}");
        }
    }

    /// A kernel that is the recorded one but for these files.
    fn made(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("porthole-{name}-{}", std::process::id()));
        for (path, text) in files {
            fs::create_dir_all(directory.join(path).parent().unwrap()).unwrap();
            fs::write(directory.join(path), text).unwrap();
        }
        fs::create_dir_all(directory.join("events")).unwrap();
        let _ = std::os::unix::fs::symlink(format!("{RECORDED}/btf"), directory.join("btf"));
        directory
    }

    #[test]
    fn functions_that_take_no_program_are_left_out() {
        let names =
            ["vfs_read", "vfs_write", "vfs_open", "vfs_init", "vfs_part.isra.0", "vfs_part.cold", "__pfx_vfs_read"];
        let mut kallsyms = String::new();
        for (name, address) in names.iter().zip((16_u64..).step_by(16)) {
            let _ = writeln!(kallsyms, "{:x} t {name}", if *name == "vfs_init" { 0x1010 } else { address });
        }
        kallsyms.push_str("1000 T _sinittext\n1100 T _einittext\n5 t vfs_of_a_module\t[module]\n");
        let blacklist = "0x10-0x20\tvfs_open\n";
        let directory = made("kept", &[("kallsyms", &kallsyms), ("kprobes/blacklist", blacklist)]);
        let facts = KernelFacts::from_dir(&directory);
        let kprobes = found("kprobe:*vfs_*", &Search::new(&facts)).unwrap();
        assert_eq!(kprobes, ["kprobe:vfs_part.isra.0", "kprobe:vfs_read", "kprobe:vfs_write"]);
        assert_eq!(found("fentry:vfs_o*", &Search::new(&facts)).unwrap(), ["fentry:vfs_open"]);

        let traceable = "vfs_read\nvfs_open\nvfs_of_a_module [module]\n__ftrace_invalid_address___16\n";
        fs::write(directory.join("available_filter_functions"), traceable).unwrap();
        let facts = KernelFacts::from_dir(&directory);
        assert_eq!(found("kprobe:*", &Search::new(&facts)).unwrap(), ["kprobe:vfs_read"]);
        assert_eq!(
            found("fentry:vfs_{r,w,o}*", &Search::new(&facts)).unwrap_err(),
            "no function of this kernel matches this"
        );
        fs::remove_dir_all(directory).unwrap();
    }

    fn declared(attach: impl IntoIterator<Item = String>) -> Declaration {
        let body = vec![Step::Emit(Event { name: "e".to_owned(), fields: Vec::new() })];
        let probes = attach.into_iter().enumerate().map(|(n, attach)| Probe {
            name: format!("p{n}"),
            attach: vec![attach],
            body: body.clone(),
        });
        Declaration { probes: probes.collect(), ..Declaration::default() }
    }

    /// What such a kernel says of a declaration of 256 probes, and that it says so soon.
    fn refused(facts: &KernelFacts, attach: impl Fn(usize) -> String) -> Vec<String> {
        let declaration = declared((0..256).map(attach));
        let start = Instant::now();
        let refused = plan(&declaration, facts).unwrap_err().0.iter().map(ToString::to_string).collect();
        // In a build for tests, on a machine that is busy.
        assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
        refused
    }

    #[test]
    fn hostile_patterns_are_bounded() {
        let kernel = |functions: usize| {
            let line = |n: usize| format!("{:x} t {}_function_{n}\n", 16 + n * 16, ["tcp", "vfs", "__x64_sys"][n % 3]);
            made(&format!("of-{functions}"), &[("kallsyms", &(0..functions).map(line).collect::<String>())])
        };
        let (large, small) = (kernel(18_000), kernel(1500));
        let facts = KernelFacts::from_dir(&large);
        let matches = |text: &str| found(text, &Search::new(&facts));
        assert_eq!(matches("kprobe:vfs_*").unwrap_err(), "it matches 6000 names, and 1024 is the most");
        let some = ["kprobe:tcp_function_102", "kprobe:tcp_function_105", "kprobe:tcp_function_108"];
        assert_eq!(matches("kprobe:tcp_function_10?").unwrap(), some);
        // Each is compared with all names.
        let faults = refused(&facts, |n| format!("kprobe:*{n}x"));
        assert!(faults[255].contains("have been compared with 4194304 names, and that is the most"), "{}", faults[255]);
        // Each matches less than is allowed, and all of them more.
        let faults = refused(&facts, |n| format!("kprobe:tcp_function_{}*", 10 + n % 90));
        assert!(faults[0].starts_with("the declaration: with all that its patterns match it has more than 1024"));
        // Each is not there, and a better name is looked for.
        let facts = KernelFacts::from_dir(&small);
        let faults = refused(&facts, |n| format!("kprobe:tcp_fnuction_{n}"));
        assert!(faults[0].contains("did you mean") && !faults[255].contains("did you mean"), "{}", faults[0]);
        let faults = refused(&facts, |n| format!("kprobe:tcp_fnuction_{n}*"));
        assert!(faults[0].contains("with `tcp_f` begin `tcp_function_0`"), "{}", faults[0]);
        [large, small].into_iter().for_each(|directory| fs::remove_dir_all(directory).unwrap());
    }
}
