//! Functions of the kernel that BPF programs may call (kfuncs).
//!
//! What is known of one has three sources. Its prototype comes from the running kernel's BTF, which marks kfuncs by a
//! declaration tag (`bpf_kfunc`). Its flags, which say how its arguments and result are owned, come from a table
//! ([`mod@known`]): no kernel shows them. From which kinds of programs it may be called is asked of the running kernel
//! by [`trial`], and kept until the next boot ([`answers`]).

mod answers;
mod known;
mod module;
mod trial;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

pub use known::{Flags, Known, Usage, Version, all_known, known};
pub use module::ModuleKfunc;

use super::{Answer, FactError, Function, KernelFacts, Kind, TypeId, features};
use answers::Answers;
use trial::Verdict;

/// The declaration tag of kfuncs. Kernels before 6.10, and such as were built with pahole before 1.27, have none.
const TAG: &str = "bpf_kfunc";

/// A kfunc of the running kernel, or of one of its modules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kfunc {
    pub name: String,
    /// Its type in BTF.
    pub id: TypeId,
    pub params: Vec<(String, TypeId)>,
    pub result: TypeId,
    /// As the table has them for this kernel's version; none are set where the table does not know the kfunc.
    pub flags: Flags,
}

/// A kind of programs, as far as the kernel tells them apart when it is asked who may call a kfunc.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProgramKind {
    Tracepoint,
    /// tp_btf, fentry and fexit.
    Tracing,
    PerfEvent,
    /// kprobe and uprobe alike.
    Kprobe,
    Iter,
    Lsm,
    FentrySleepable,
    UprobeSleepable,
    IterSleepable,
    LsmSleepable,
}

impl ProgramKind {
    pub const ALL: [ProgramKind; 10] = [
        ProgramKind::Tracepoint,
        ProgramKind::Tracing,
        ProgramKind::PerfEvent,
        ProgramKind::Kprobe,
        ProgramKind::Iter,
        ProgramKind::Lsm,
        ProgramKind::FentrySleepable,
        ProgramKind::UprobeSleepable,
        ProgramKind::IterSleepable,
        ProgramKind::LsmSleepable,
    ];

    /// The kinds of attach points whose programs are of this kind.
    pub fn name(self) -> &'static str {
        match self {
            ProgramKind::Tracepoint => "tracepoint",
            ProgramKind::Tracing => "rawtracepoint, fentry, fexit",
            ProgramKind::PerfEvent => "profile, software, hardware, watchpoint",
            ProgramKind::Kprobe => "kprobe, kretprobe, uprobe, uretprobe, usdt",
            ProgramKind::Iter => "iter",
            ProgramKind::Lsm => "lsm",
            ProgramKind::FentrySleepable => "sleepable fentry, fexit",
            ProgramKind::UprobeSleepable => "sleepable uprobe, uretprobe, usdt",
            ProgramKind::IterSleepable => "sleepable iter",
            ProgramKind::LsmSleepable => "sleepable lsm",
        }
    }

    /// A word for it, as files have it; libbpf marks what may sleep alike.
    pub fn code(self) -> &'static str {
        match self {
            ProgramKind::Tracepoint => "tracepoint",
            ProgramKind::Tracing => "tracing",
            ProgramKind::PerfEvent => "perf_event",
            ProgramKind::Kprobe => "kprobe",
            ProgramKind::Iter => "iter",
            ProgramKind::Lsm => "lsm",
            ProgramKind::FentrySleepable => "fentry.s",
            ProgramKind::UprobeSleepable => "uprobe.s",
            ProgramKind::IterSleepable => "iter.s",
            ProgramKind::LsmSleepable => "lsm.s",
        }
    }

    /// The kind that [`ProgramKind::code`] gives the word for.
    pub fn of_code(code: &str) -> Option<ProgramKind> {
        ProgramKind::ALL.into_iter().find(|kind| kind.code() == code)
    }

    pub fn may_sleep(self) -> bool {
        use ProgramKind as Kind;
        matches!(self, Kind::FentrySleepable | Kind::UprobeSleepable | Kind::IterSleepable | Kind::LsmSleepable)
    }
}

/// What [`KernelFacts`] remembers of kfuncs.
pub(super) struct State {
    version: OnceLock<Version>,
    /// The functions that are kfuncs.
    ids: OnceLock<Result<BTreeSet<TypeId>, FactError>>,
    answers: Mutex<Answers>,
    /// What a recorded kernel is said to answer.
    recorded: OnceLock<Option<Recorded>>,
    modules: OnceLock<Vec<ModuleKfunc>>,
    /// Of hooks of security modules, whether programs may sleep there.
    hooks: Mutex<HashMap<TypeId, bool>>,
}

/// The file `kfuncs` of a recorded kernel: `kernel 6.18`, and then lines of a name and the codes of the kinds that may
/// call it.
struct Recorded {
    version: Version,
    callers: HashMap<String, Vec<ProgramKind>>,
}

impl State {
    /// `answers` are kept in that folder; none: nowhere.
    pub fn new(answers: Option<PathBuf>) -> State {
        State {
            version: OnceLock::new(),
            ids: OnceLock::new(),
            answers: Mutex::new(Answers::kept_in(answers)),
            recorded: OnceLock::new(),
            modules: OnceLock::new(),
            hooks: Mutex::default(),
        }
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        // A panic elsewhere cannot leave it half-written: each insertion is one call.
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first version on which kfuncs that give a reference can be called. What may be null is tested before it is
/// released; a pointer that has been tested already an older verifier takes for one that may be null still
/// (`reg_type_not_null` of kernel/bpf/verifier.c knew no pointers to the kernel's structures), and misses the release
/// where it would be: "Unreleased reference".
const ACQUIRING: Version = (6, 5);

impl KernelFacts {
    /// The kfunc `name`; none where the kernel has no such kfunc, be there a function of that name or not. It is a
    /// module's where neither the kernel itself has it nor the table knows it as one that plugins or the host call:
    /// those are the kernel's own, and not worth reading all modules for.
    pub fn kfunc(&self, name: &str) -> Result<Option<Kfunc>, FactError> {
        let ids = self.kfunc_ids()?;
        let btf = self.btf()?;
        let is_function = |id: &TypeId| matches!(btf.kind(*id), Kind::Function { .. });
        let own = btf.find(name).into_iter().filter(is_function).find(|id| ids.contains(id));
        let may_be_in_module = known(name).is_none_or(|known| matches!(known.usage, Usage::No(_)));
        let id = match own {
            None if may_be_in_module => self.kfunc_of_module(name)?,
            own => own,
        };
        let Some(id) = id else { return Ok(None) };
        let Kind::Function { proto, .. } = btf.kind(id) else { return Ok(None) };
        let Some(Function { params, result, .. }) = Function::new(btf, id, proto) else { return Ok(None) };
        let flags = known(name).map(|known| known.flags(self.version())).unwrap_or_default();
        Ok(Some(Kfunc { name: name.to_owned(), id, params, result, flags }))
    }

    /// The names of all kfuncs of the kernel itself, sorted.
    pub fn kfunc_names(&self) -> Result<Vec<String>, FactError> {
        let btf = self.btf()?;
        let name = |id: &TypeId| if let Kind::Function { name, .. } = btf.kind(*id) { Some(name) } else { None };
        let names: BTreeSet<String> = self.kfunc_ids()?.iter().filter_map(name).collect();
        Ok(names.into_iter().collect())
    }

    /// Whether a program of that kind may call the kfunc `name`. What has been asked since the machine was booted is
    /// not tried again.
    pub fn may_call(&self, name: &str, from: ProgramKind) -> Answer {
        let answer = self.asked(name, from);
        self.kfuncs.answers().keep();
        answer
    }

    /// The same for all kinds.
    pub fn callers(&self, name: &str) -> BTreeMap<ProgramKind, Answer> {
        self.callers_of_all([name]).remove(0)
    }

    /// The same for many, whose answers are kept together.
    pub fn callers_of_all<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Vec<BTreeMap<ProgramKind, Answer>> {
        let of_one = |name| ProgramKind::ALL.into_iter().map(|kind| (kind, self.asked(name, kind))).collect();
        let answers = names.into_iter().map(of_one).collect();
        self.kfuncs.answers().keep();
        answers
    }

    /// Whether programs may sleep at a hook of security modules: some are called where nobody may
    /// (kernel/bpf/bpf_lsm.c: sleepable_lsm_hooks). Where it cannot be tried, it is left to loading.
    pub fn may_sleep_at(&self, hook: TypeId) -> bool {
        if self.events_root.is_some() || !features::missing_privileges().is_empty() {
            return true;
        }
        // A panic elsewhere cannot leave it half-written: each insertion is one call.
        let mut hooks = self.kfuncs.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        *hooks.entry(hook).or_insert_with(|| trial::may_sleep_at(hook))
    }

    /// The kernel's major and minor version, as the table of kfuncs is asked by.
    pub fn version(&self) -> Version {
        // Where it cannot be read, as a recorded kernel's that does not say, the newest is meant.
        let newest = || known::versions().last().copied().unwrap_or_default();
        let read = || match &self.events_root {
            None => features::running_version().unwrap_or_else(newest),
            Some(root) => self.recorded(root).map_or_else(newest, |recorded| recorded.version),
        };
        *self.kfuncs.version.get_or_init(read)
    }

    fn asked(&self, name: &str, from: ProgramKind) -> Answer {
        let kfunc = match self.kfunc(name) {
            Ok(Some(kfunc)) => kfunc,
            Ok(None) => return Answer::No("this kernel has no such kfunc".to_owned()),
            Err(error) => return Answer::Unknown(error.to_string()),
        };
        if self.version() < ACQUIRING && kfunc.flags.acquire() {
            return Answer::No(
                "it gives a reference, and what this kernel's verifier makes of those is not relied on".to_owned(),
            );
        }
        match self.verdict(&kfunc, from) {
            Verdict::Allowed => Answer::Yes,
            Verdict::Untried(why) => Answer::Unknown(why),
            Verdict::Refused => Answer::No(match () {
                () if kfunc.flags.sleepable() && !from.may_sleep() => {
                    "it may sleep, and these programs must not".to_owned()
                }
                () => "this kernel does not let these programs call it".to_owned(),
            }),
        }
    }

    fn verdict(&self, kfunc: &Kfunc, from: ProgramKind) -> Verdict {
        if let Some(root) = &self.events_root {
            let Some(recorded) = self.recorded(root) else {
                return Verdict::Untried("the recorded kernel does not tell".to_owned());
            };
            let callers = recorded.callers.get(&kfunc.name);
            let allowed = callers.is_some_and(|callers| callers.contains(&from));
            return if allowed { Verdict::Allowed } else { Verdict::Refused };
        }
        let btf = match self.btf() {
            Ok(btf) => btf,
            Err(error) => return Verdict::Untried(error.to_string()),
        };
        // A module may be another one by the next time.
        let kept = btf.module_of(kfunc.id).is_none();
        if let Some(known) = self.kfuncs.answers().get(&kfunc.name, from).filter(|_| kept) {
            return if known { Verdict::Allowed } else { Verdict::Refused };
        }
        if !features::missing_privileges().is_empty() {
            return Verdict::Untried("it cannot be tried without CAP_BPF and CAP_PERFMON".to_owned());
        }
        // There the trial cannot tell: see `trial`.
        let untold = self.version() < (6, 2) && kfunc.flags.sleepable() && !from.may_sleep();
        let verdict = if untold { Verdict::Refused } else { trial::may_call(&kfunc.name, kfunc.id, from, btf) };
        match verdict {
            Verdict::Allowed | Verdict::Refused if kept => {
                self.kfuncs.answers().insert(&kfunc.name, from, verdict == Verdict::Allowed);
            }
            _ => {}
        }
        verdict
    }

    fn kfunc_ids(&self) -> Result<&BTreeSet<TypeId>, FactError> {
        let read = || {
            let btf = self.btf()?;
            let tagged = btf.tagged(TAG);
            if !tagged.is_empty() {
                return Ok(tagged.into_iter().collect());
            }
            let here = all_known().iter().filter(|known| known.may_be_in(self.version()));
            Ok(here.filter_map(|known| btf.function(known.name)).collect())
        };
        self.kfuncs.ids.get_or_init(read).as_ref().map_err(Clone::clone)
    }

    fn recorded(&self, root: &Path) -> Option<&Recorded> {
        let read = || Recorded::parse(&std::fs::read_to_string(root.join("kfuncs")).ok()?);
        self.kfuncs.recorded.get_or_init(read).as_ref()
    }
}

impl Recorded {
    fn parse(text: &str) -> Option<Recorded> {
        let mut lines = text.lines();
        let version = known::version(lines.next()?.strip_prefix("kernel ")?)?;
        let callers = lines.filter_map(|line| {
            let (name, kinds) = line.split_once(':')?;
            Some((name.to_owned(), kinds.split_whitespace().filter_map(ProgramKind::of_code).collect()))
        });
        Some(Recorded { version, callers: callers.collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded() -> KernelFacts {
        KernelFacts::from_dir(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/kernel-6.18")))
    }

    #[test]
    fn kfuncs_of_a_kernel() {
        let facts = recorded();
        let btf = facts.btf().unwrap();
        let Kfunc { name, id, params, result, flags } = facts.kfunc("bpf_task_from_pid").unwrap().unwrap();
        assert_eq!((name.as_str(), btf.function(&name)), ("bpf_task_from_pid", Some(id)));
        assert_eq!(
            params.iter().map(|(name, ty)| (name.as_str(), btf.c_name(*ty))).collect::<Vec<_>>(),
            [("pid", "s32".to_owned())]
        );
        assert_eq!(
            (btf.c_name(result).as_str(), flags.to_string().as_str()),
            ("struct task_struct *", "acquire ret_null")
        );
        assert_eq!(
            btf.prototype(id).unwrap().1,
            "struct task_struct *bpf_task_from_pid(s32 pid)",
            "as the table has it: {}",
            known("bpf_task_from_pid").unwrap().prototype
        );
        assert!(facts.kfunc("bpf_task_form_pid").unwrap().is_none());
        assert!(
            btf.function("vfs_read").is_some() && facts.kfunc("vfs_read").unwrap().is_none(),
            "a function, no kfunc"
        );
    }

    /// What the recorded kernel is said to answer is of its kfuncs, and its types have them as the table does.
    #[test]
    fn the_recorded_kernel_is_consistent() {
        let facts = recorded();
        let btf = facts.btf().unwrap();
        assert_eq!(facts.version(), (6, 18));
        let names = facts.kfunc_names().unwrap();
        assert!(names.len() > 100 && names.is_sorted(), "{}", names.len());
        let Some(recorded) = facts.recorded(facts.events_root.as_deref().unwrap()) else { panic!() };
        let of_modules = facts.module_kfuncs().unwrap().iter().map(|kfunc| kfunc.name.clone());
        let all: BTreeSet<_> = names.iter().cloned().chain(of_modules).collect();
        assert_eq!(recorded.callers.keys().cloned().collect::<BTreeSet<_>>(), all);
        for name in &names {
            let known = known(name).unwrap_or_else(|| panic!("{name}"));
            let kfunc = facts.kfunc(name).unwrap().unwrap();
            assert!(known.may_be_in((6, 18)), "{name}");
            let params = btf.prototype(kfunc.id).unwrap().1.matches(',').count();
            // Later versions have other types, and fewer arguments that the verifier fills in.
            assert!(params.abs_diff(known.prototype.matches(',').count()) <= 2, "{name}: {}", known.prototype);
        }
    }

    #[test]
    fn who_may_call() {
        let facts = recorded();
        let may = |name: &str, from| facts.may_call(name, from).to_string();
        assert_eq!(may("bpf_task_from_pid", ProgramKind::Tracepoint), "yes");
        assert_eq!(
            may("bpf_task_from_pid", ProgramKind::Kprobe),
            "no: this kernel does not let these programs call it"
        );
        assert_eq!(may("bpf_copy_from_user_str", ProgramKind::Kprobe), "no: it may sleep, and these programs must not");
        assert_eq!(may("bpf_copy_from_user_str", ProgramKind::UprobeSleepable), "yes");
        assert_eq!(may("bpf_task_form_pid", ProgramKind::Iter), "no: this kernel has no such kfunc");
        let callers = facts.callers("bpf_strlen");
        assert_eq!(callers.len(), ProgramKind::ALL.len());
        assert!(callers.values().all(|answer| *answer == Answer::Yes), "{callers:?}");
    }

    #[test]
    fn kinds_of_programs() {
        for kind in ProgramKind::ALL {
            assert_eq!(ProgramKind::of_code(kind.code()), Some(kind));
            assert_eq!(kind.may_sleep(), kind.name().starts_with("sleepable"), "{kind:?}");
        }
        assert_eq!(ProgramKind::of_code("freplace"), None);
    }

    /// What is kept is made up here, and believed.
    #[test]
    fn root_what_is_kept_is_not_tried_again() {
        let folder = std::env::temp_dir().join(format!("porthole-kept-{}", std::process::id()));
        let facts = || KernelFacts::running().remembering_in(Some(folder.clone()));
        let (name, from) = ("bpf_task_from_pid", ProgramKind::Tracepoint);
        if facts().kfunc(name).unwrap().is_none() {
            eprintln!("skipped: this kernel has no {name}");
            return;
        }
        let mut answers = Answers::kept_in(Some(folder.clone()));
        assert_eq!(answers.get(name, from), None);
        answers.insert(name, from, false);
        answers.keep();
        let made_up = facts().may_call(name, from);
        let tried = facts().may_call(name, ProgramKind::Iter);
        let kept = Answers::kept_in(Some(folder.clone())).get(name, ProgramKind::Iter);
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(matches!(made_up, Answer::No(_)), "it was tried");
        assert_eq!((tried, kept), (Answer::Yes, Some(true)));
        assert_eq!(facts().may_call(name, from), Answer::Yes, "the folder is gone");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn root_kfuncs_of_this_machine() {
        let facts = KernelFacts::running();
        let names = facts.kfunc_names().unwrap();
        println!("{} kfuncs in Linux {:?}", names.len(), facts.version());
        assert!(names.len() >= 42, "{names:?}");
        for name in &names {
            let kfunc = facts.kfunc(name).unwrap().unwrap_or_else(|| panic!("{name}"));
            assert!(facts.btf().unwrap().prototype(kfunc.id).is_some(), "{name}");
            match known(name) {
                Some(known) => assert_eq!(kfunc.flags, known.flags(facts.version()), "{name}"),
                None => println!("not in the table: {name}"),
            }
        }
    }
}
