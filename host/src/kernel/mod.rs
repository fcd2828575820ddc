//! Facts of the running kernel, as one value.
//!
//! Everything that planning may know of a kernel comes through [`KernelFacts`]: its types ([`Btf`]), the formats of its
//! tracepoints ([`TracepointFormat`]) and the arguments of its raw tracepoints ([`RawTracepoint`]). The stages behind
//! it do no I/O; give them the facts of a directory ([`KernelFacts::from_dir`]) and they plan for that kernel without
//! root.
//!
//! Facts are read on first use and remembered for the life of the value: a plugin pays for what it asks, and asks twice
//! for nothing.
//!
//! [`features`] is apart from that: it tries things out and says what this kernel and these privileges allow.
//!
//! No other module names btf-rs or reads /sys/kernel.

mod btf;
pub mod features;
mod function;
pub mod kfunc;
mod tracefs;
mod tracepoint;
mod variable;

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

pub use btf::{Btf, Kind, MemberAt, Stripped, Tags, TypeId};
pub use features::{Answer, Feature};
pub use function::{Function, Symbols};
pub use kfunc::{Kfunc, ProgramKind};
pub use tracepoint::{FieldLocation, FormatError, TracepointField, TracepointFormat};
pub use variable::Variable;

use crate::binary::{Binaries, Binary, BinaryError};
use tracefs::Events;

/// Why a fact cannot be had. Each message says what to do about it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FactError {
    #[error(
        "no kernel type information (BTF) at {}: {source}; the kernel must be built with CONFIG_DEBUG_INFO_BTF=y \
         (distributions' kernels from 5.8 on mostly are)", path.display()
    )]
    NoBtf { path: PathBuf, source: Arc<io::Error> },
    #[error("the kernel type information (BTF) at {} cannot be read: {reason}", path.display())]
    BadBtf { path: PathBuf, reason: String },
    #[error(
        "tracefs is not mounted, and a private mount of it failed: {source}; run `mount -t tracefs tracefs /sys/kernel/tracing` \
         as root, or run as root (CAP_SYS_ADMIN and CAP_DAC_READ_SEARCH are enough)"
    )]
    NoTracefs { source: Arc<io::Error> },
    #[error(
        "tracefs at {} cannot be read: {source}; by default only root may: run as root (CAP_DAC_READ_SEARCH is enough), \
         or open it to a group with `mount -o remount,gid=GROUP,mode=750 {}`", path.display(), path.display()
    )]
    TracefsUnreadable { path: PathBuf, source: Arc<io::Error> },
    #[error("the tracepoint directory {path} cannot be read: {source}")]
    Tracepoints { path: String, source: Arc<io::Error> },
    #[error("the format of tracepoint {system}:{name} is not understood: {source}")]
    Format { system: String, name: String, source: FormatError },
}

/// A raw tracepoint that can be attached to as `tp_btf`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawTracepoint {
    pub name: String,
    /// Name and type of each argument, without the `void *__data` that leads every prototype of the kernel.
    pub params: Vec<(String, TypeId)>,
    /// Whether a module has it.
    pub of_module: bool,
}

type Formats = HashMap<(String, String), Option<Arc<TracepointFormat>>>;

/// Everything the planner may know of a kernel. The only door to it.
pub struct KernelFacts {
    btf_path: PathBuf,
    /// The directory that stands for tracefs; none for the running kernel's own.
    events_root: Option<PathBuf>,
    kallsyms: PathBuf,
    btf: OnceLock<Result<Btf, FactError>>,
    events: OnceLock<Result<Events, FactError>>,
    formats: Mutex<Formats>,
    symbols: OnceLock<Option<Symbols>>,
    per_cpu: OnceLock<Result<variable::PerCpu, FactError>>,
    cpus: OnceLock<Option<u32>>,
    /// What ftrace can trace, sorted.
    traceable: OnceLock<Option<Vec<String>>>,
    kept_from_kprobes: OnceLock<HashSet<String>>,
    features: Mutex<HashMap<Feature, Answer>>,
    kfuncs: kfunc::State,
    binaries: Binaries,
}

impl KernelFacts {
    /// The facts of the running kernel: /sys/kernel/btf/vmlinux and tracefs. Nothing is read yet.
    ///
    /// A tracefs that is mounted nowhere is mounted privately, seen by this process alone.
    pub fn running() -> KernelFacts {
        KernelFacts::new(PathBuf::from("/sys/kernel/btf/vmlinux"), None, Binaries::running())
    }

    /// Keeps in that folder, until the next boot, what had to be tried out on the running kernel
    /// ([`KernelFacts::may_call`]); none: nowhere.
    pub fn remembering_in(self, folder: Option<PathBuf>) -> KernelFacts {
        KernelFacts { kfuncs: kfunc::State::new(folder), ..self }
    }

    /// The facts of a kernel kept in a directory: `btf/vmlinux` and `events/SYSTEM/NAME/format`, as below /sys/kernel
    /// and in tracefs; `kallsyms` and `available_filter_functions`, as in /proc and in tracefs; `kprobes/blacklist`, as
    /// in debugfs; `possible`, which CPUs there may be, as in /sys/devices/system/cpu; and `features`, which names the
    /// [`Feature`]s that it offers, one on a line. Without that file it offers all, and without the lists of functions
    /// nothing more is known of them than BTF tells. `kfuncs` tells the kernel's version (`kernel 6.18`) and which
    /// kinds of programs may call its kfuncs (`bpf_task_from_pid: tracepoint tracing`, by [`ProgramKind::code`]).
    /// `root/` holds the machine's programs and libraries.
    pub fn from_dir(path: &Path) -> KernelFacts {
        KernelFacts::new(path.join("btf/vmlinux"), Some(path.to_path_buf()), Binaries::below(path.join("root")))
    }

    fn new(btf_path: PathBuf, events_root: Option<PathBuf>, binaries: Binaries) -> KernelFacts {
        let kallsyms =
            events_root.as_ref().map_or_else(|| PathBuf::from("/proc/kallsyms"), |root| root.join("kallsyms"));
        KernelFacts {
            btf_path,
            events_root,
            kallsyms,
            btf: OnceLock::new(),
            events: OnceLock::new(),
            formats: Mutex::default(),
            symbols: OnceLock::new(),
            per_cpu: OnceLock::new(),
            cpus: OnceLock::new(),
            traceable: OnceLock::new(),
            kept_from_kprobes: OnceLock::new(),
            features: Mutex::default(),
            kfuncs: kfunc::State::new(None),
            binaries,
        }
    }

    /// The program or library that `target` stands for, as [`Binaries::get`] finds it.
    pub fn binary(&self, target: &str) -> Result<Arc<Binary>, BinaryError> {
        self.binaries.get(target)
    }

    /// The kernel's types. The first call takes about 5 ms.
    pub fn btf(&self) -> Result<&Btf, FactError> {
        let read = || Ok(Btf::from_file(&self.btf_path)?.with_modules_beside(&self.btf_path));
        self.btf.get_or_init(read).as_ref().map_err(Clone::clone)
    }

    /// The format of the tracepoint `system:name`; none where the kernel has no such tracepoint.
    pub fn tracepoint(&self, system: &str, name: &str) -> Result<Option<Arc<TracepointFormat>>, FactError> {
        let key = (system.to_owned(), name.to_owned());
        if let Some(known) = self.formats().get(&key) {
            return Ok(known.clone());
        }
        let format = match self.events()?.format(system, name)? {
            None => None,
            Some(text) => {
                let error = |source| FactError::Format { system: system.to_owned(), name: name.to_owned(), source };
                Some(Arc::new(TracepointFormat::parse(system, &text).map_err(error)?))
            }
        };
        self.formats().insert(key, format.clone());
        Ok(format)
    }

    /// Every tracepoint as (system, name), sorted. Walks some 2,000 directories: for suggestions and wildcards.
    ///
    /// Without events that have formats as tracepoints do, and to which no program can be attached: those of ftrace
    /// itself, and what users have made.
    pub fn tracepoint_names(&self) -> Result<Vec<(String, String)>, FactError> {
        let events = self.events()?;
        let made = events.made();
        let mut names = Vec::new();
        for system in events.systems()?.into_iter().filter(|system| system != "ftrace") {
            names.extend(events.names(&system)?.into_iter().map(|name| (system.clone(), name)));
        }
        names.retain(|name| !made.contains(name));
        Ok(names)
    }

    /// Every system of tracepoints (`sched`, `syscalls`, …), sorted. Reads one directory.
    pub fn tracepoint_systems(&self) -> Result<Vec<String>, FactError> {
        self.events()?.systems()
    }

    /// The raw tracepoint `name` with the names and types of its arguments; none where neither the kernel itself nor a
    /// module has it.
    ///
    /// `tp_btf` programs attach to the typedef `btf_trace_NAME`, so a tracepoint exists if that does
    /// (bpf_check_attach_target in kernel/bpf/verifier.c). Its prototype names no argument; those of the functions that
    /// the tracepoint macros make beside it do (include/linux/tracepoint.h).
    pub fn raw_tracepoint(&self, name: &str) -> Result<Option<RawTracepoint>, FactError> {
        let btf = self.btf()?;
        let Some(typedef) = btf.typedef(&format!("{RAW_TRACEPOINT_TYPEDEF}{name}")) else { return Ok(None) };
        let Some(unnamed) = btf.prototype_of(typedef) else { return Ok(None) };
        let function = |name: String| match btf.module_of(typedef) {
            None => btf.function(&name),
            Some(module) => btf.function_of_module(module, &name),
        };
        let named = NAMED_PROTOTYPES
            .iter()
            .filter_map(|prefix| btf.prototype_of(function(format!("{prefix}{name}"))?))
            .find(|params| params.len() == unnamed.len() && params.iter().all(|(name, _)| !name.is_empty()));
        let params = named.unwrap_or_else(|| numbered(unnamed));
        let (name, params) = (name.to_owned(), params.into_iter().skip(1).collect());
        Ok(Some(RawTracepoint { name, params, of_module: typedef.is_of_module() }))
    }

    /// The name of every raw tracepoint, sorted: for suggestions and wildcards. Reads all type names (about 10 ms).
    pub fn raw_tracepoint_names(&self) -> Result<Vec<String>, FactError> {
        let mut names = self.btf()?.typedef_names(RAW_TRACEPOINT_TYPEDEF);
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// Whether the kernel offers this: tried out once on the running one.
    pub fn offers(&self, feature: Feature) -> Answer {
        let known = self.features.lock().unwrap_or_else(PoisonError::into_inner).get(&feature).cloned();
        if let Some(known) = known {
            return known;
        }
        let answer = match &self.events_root {
            None => features::offered(feature, self),
            Some(root) => match std::fs::read_to_string(root.join("features")) {
                Ok(list) if !list.lines().any(|line| line == feature.name()) => {
                    Answer::No("the recorded kernel does not offer it".to_owned())
                }
                _ => Answer::Yes,
            },
        };
        self.features.lock().unwrap_or_else(PoisonError::into_inner).insert(feature, answer.clone());
        answer
    }

    fn events(&self) -> Result<&Events, FactError> {
        let open = || match &self.events_root {
            None => Events::running(),
            Some(root) => Events::below(root),
        };
        self.events.get_or_init(open).as_ref().map_err(Clone::clone)
    }

    fn formats(&self) -> std::sync::MutexGuard<'_, Formats> {
        // A panic elsewhere cannot leave the map half-written: each insertion is one call.
        self.formats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const RAW_TRACEPOINT_TYPEDEF: &str = "btf_trace_";

/// Functions whose prototypes are the raw tracepoint's with names, best first: the compiler may have dropped one or the
/// other.
const NAMED_PROTOTYPES: [&str; 3] = ["__traceiter_", "__probestub_", "__bpf_trace_"];

/// Names for parameters that have none. The leading `__data` is not counted.
fn numbered(params: Vec<(String, TypeId)>) -> Vec<(String, TypeId)> {
    let name = |position: usize| position.checked_sub(1).map_or_else(|| "__data".to_owned(), |n| format!("arg{n}"));
    params.into_iter().enumerate().map(|(position, (_, ty))| (name(position), ty)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded() -> KernelFacts {
        KernelFacts::from_dir(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/kernel-6.18")))
    }

    fn params(facts: &KernelFacts, raw_tracepoint: &str) -> Vec<String> {
        let btf = facts.btf().unwrap();
        let params = facts.raw_tracepoint(raw_tracepoint).unwrap().unwrap().params;
        params.iter().map(|(name, ty)| format!("{name}: {}", btf.c_name(*ty))).collect()
    }

    /// Every stage may hold the facts and ask from any thread.
    #[test]
    fn facts_are_shared_between_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<KernelFacts>();
    }

    #[test]
    fn tracepoints() {
        let facts = recorded();
        let openat = facts.tracepoint("syscalls", "sys_enter_openat").unwrap().unwrap();
        let fields = openat
            .fields
            .iter()
            .map(|field| format!("{} {} @{}", field.c_type, field.name, field.offset))
            .collect::<Vec<_>>();
        assert_eq!(
            fields,
            ["int __syscall_nr @8", "int dfd @16", "const char * filename @24", "int flags @32", "umode_t mode @40"]
        );
        let again = facts.tracepoint("syscalls", "sys_enter_openat").unwrap().unwrap();
        assert!(Arc::ptr_eq(&openat, &again), "a format is read once");
        assert_eq!(facts.tracepoint("syscalls", "sys_enter_opennat").unwrap(), None);
        assert_eq!(facts.tracepoint("no_such_system", "sys_enter_openat").unwrap(), None);
        assert_eq!(facts.tracepoint("../events/sched", "sched_switch").unwrap(), None);
        let name = facts.tracepoint("net", "netif_receive_skb").unwrap().unwrap().field("name").unwrap().clone();
        assert_eq!((&*name.c_type, name.location, name.array), ("char", FieldLocation::DataLoc, None));
    }

    #[test]
    fn names_for_suggestions() {
        let facts = recorded();
        let names = facts.tracepoint_names().unwrap();
        assert!(names.is_sorted());
        assert!(names.contains(&("skb".to_owned(), "kfree_skb".to_owned())));
        assert!(facts.tracepoint_systems().unwrap().contains(&"sched".to_owned()));
        let raw = facts.raw_tracepoint_names().unwrap();
        assert!(raw.is_sorted());
        assert!(raw.contains(&"sched_switch".to_owned()));
    }

    #[test]
    fn raw_tracepoints() {
        let facts = recorded();
        assert_eq!(
            params(&facts, "sched_switch"),
            ["preempt: bool", "prev: struct task_struct *", "next: struct task_struct *", "prev_state: unsigned int"]
        );
        assert_eq!(params(&facts, "sys_enter"), ["regs: struct pt_regs *", "id: long int"]);
        assert_eq!(facts.raw_tracepoint("sched_swich").unwrap(), None);
    }

    #[test]
    fn parameters_without_names_are_numbered() {
        let params = vec![(String::new(), TypeId(1)), (String::new(), TypeId(2)), (String::new(), TypeId(3))];
        let names = numbered(params).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names, ["__data", "arg0", "arg1"]);
    }

    #[test]
    fn what_is_missing_is_said() {
        let facts = KernelFacts::from_dir(Path::new("/no/such/directory"));
        let error = facts.btf().unwrap_err().to_string();
        assert!(error.contains("/no/such/directory/btf/vmlinux") && error.contains("CONFIG_DEBUG_INFO_BTF"), "{error}");
        assert!(matches!(facts.tracepoint("sched", "sched_switch"), Err(FactError::Tracepoints { .. })));
        assert!(matches!(facts.raw_tracepoint("sched_switch"), Err(FactError::NoBtf { .. })));
    }

    #[test]
    fn root_every_tracepoint_of_this_machine_parses() {
        let facts = KernelFacts::running();
        let names = facts.tracepoint_names().unwrap();
        assert!(names.len() > 500, "{} tracepoints", names.len());
        let mut fields = 0;
        for (system, name) in &names {
            let format =
                facts.tracepoint(system, name).unwrap().unwrap_or_else(|| panic!("{system}:{name} has no format"));
            assert_eq!((&format.system, &format.name), (system, name));
            for field in &format.fields {
                assert!(field.location == FieldLocation::Fixed || field.size == 4, "{system}:{name} {field:?}");
                let element = field.array.and_then(|count| field.size.checked_rem(count));
                assert_eq!(element.unwrap_or(0), 0, "{system}:{name} {field:?}");
            }
            fields += format.fields.len();
        }
        assert!(fields > names.len(), "{fields} fields");
    }

    #[test]
    fn root_every_raw_tracepoint_of_this_machine_has_its_parameters() {
        let facts = KernelFacts::running();
        let btf = facts.btf().unwrap();
        let names = facts.raw_tracepoint_names().unwrap();
        assert!(names.len() > 300, "{} raw tracepoints", names.len());
        let mut unnamed = Vec::new();
        for name in &names {
            let typedef = btf.typedef(&format!("{RAW_TRACEPOINT_TYPEDEF}{name}")).unwrap();
            let prototype = btf.prototype_of(typedef).unwrap();
            let RawTracepoint { params, .. } = facts.raw_tracepoint(name).unwrap().unwrap();
            assert_eq!(params.len() + 1, prototype.len(), "{name}");
            assert!(params.iter().all(|(name, _)| !name.is_empty()), "{name}");
            if params.first().is_some_and(|(name, _)| name == "arg0") {
                unnamed.push(name);
            }
        }
        assert!(unnamed.len() * 20 < names.len(), "without names: {unnamed:?}");
    }
}
