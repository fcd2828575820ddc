//! What this kernel and the privileges of this process allow: for `porthole doctor`, and to say what is missing when a
//! load fails.
//!
//! Versions and configurations tell little about a kernel with backports, lockdown or a seccomp filter around it. So
//! each feature is tried: a map is made, a program of two instructions is loaded, an event is opened, and let go at
//! once. Nothing is attached.
//!
//! A trial can fail for want of privileges, of memory or for a reason nobody thought of; hence the three answers of
//! [`Answer`].
//!
//! Trials need no object file, so they call libbpf's lowest layer directly. This is the one place outside of `load` and
//! `events` that names libbpf, and the one in `kernel` that calls C: all of it in [`trial`].

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use super::tracefs::mount_detached;
use super::{Btf, FactError, KernelFacts, TypeId};

/// Whether a feature is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Yes,
    /// It is not, and why: since which version or with which configuration it would be.
    No(String),
    /// Could not be told, and why.
    Unknown(String),
}

/// One line of `porthole doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub name: &'static str,
    pub answer: Answer,
    /// What to do about it; none where the answer is yes or says it, and where nothing is to be done, as for a kind of
    /// probe that this kernel lacks.
    pub advice: Option<String>,
}

/// A way to attach that not every kernel offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Feature {
    /// Programs at the entry and the exit of functions, through ftrace's calls.
    Fentry,
    /// The same at functions some of whose arguments are on the stack.
    FentryOnStack,
    /// One program at both the entry and the exit of a function, with 8 bytes for each call.
    Fsession,
    /// Breakpoints, or what the kernel makes of them.
    Kprobe,
    /// One program at the entries or returns of many functions, through ftrace's calls.
    KprobeMulti,
    /// The same at both entry and return, with 8 bytes for each call.
    KprobeSession,
    /// One program at many places of programs and libraries.
    UprobeMulti,
    /// The same at both entry and return, with 8 bytes for each call.
    UprobeSession,
    /// Programs at the hooks of security modules.
    Lsm,
    /// Counters of the processor's events.
    Hardware,
    /// Programs bound to types that modules add: their functions, by fentry and fexit, and their raw tracepoints.
    ModuleTypes,
}

impl Feature {
    pub const ALL: [Feature; 11] = [
        Feature::Fentry,
        Feature::FentryOnStack,
        Feature::Fsession,
        Feature::Kprobe,
        Feature::KprobeMulti,
        Feature::KprobeSession,
        Feature::UprobeMulti,
        Feature::UprobeSession,
        Feature::Lsm,
        Feature::Hardware,
        Feature::ModuleTypes,
    ];

    /// As it is written in front of an attach point.
    pub fn name(self) -> &'static str {
        match self {
            Feature::Fentry => "fentry",
            Feature::FentryOnStack => "fentry with more than 6 arguments",
            Feature::Fsession => "fsession",
            Feature::Kprobe => "kprobe",
            Feature::KprobeMulti => "kprobe.multi",
            Feature::KprobeSession => "kprobe.session",
            Feature::UprobeMulti => "uprobe.multi",
            Feature::UprobeSession => "uprobe.session",
            Feature::Lsm => "lsm",
            Feature::Hardware => "hardware",
            Feature::ModuleTypes => "types of modules",
        }
    }
}

/// Whether the running kernel offers it to this process. [`KernelFacts::offers`] remembers it.
pub(super) fn offered(feature: Feature, facts: &KernelFacts) -> Answer {
    let machine = Machine::this();
    let loads = |wanted: ProgramKind| match PROGRAM_TYPES.iter().find(|program| program.kind == wanted) {
        Some(program) => program_check(&machine, facts, program).answer,
        None => Answer::Unknown("there is no trial of it".to_owned()),
    };
    match feature {
        Feature::Fentry => loads((libbpf_sys::BPF_PROG_TYPE_TRACING, libbpf_sys::BPF_TRACE_FENTRY)),
        Feature::FentryOnStack => match facts.offers(Feature::Fentry) {
            Answer::Yes => fentry_on_stack(&machine, facts),
            answer => answer,
        },
        Feature::Fsession => match facts.offers(Feature::Fentry) {
            Answer::Yes => fsession(&machine, facts),
            answer => answer,
        },
        Feature::Kprobe => match loads((libbpf_sys::BPF_PROG_TYPE_KPROBE, 0)) {
            Answer::Yes => kprobe_event().answer,
            answer => answer,
        },
        Feature::KprobeMulti => links(&machine, libbpf_sys::BPF_TRACE_KPROBE_MULTI, "since 5.18, with CONFIG_FPROBE"),
        Feature::KprobeSession => {
            links(&machine, libbpf_sys::BPF_TRACE_KPROBE_SESSION, "since 6.10, with CONFIG_FPROBE")
        }
        Feature::UprobeMulti => links(&machine, libbpf_sys::BPF_TRACE_UPROBE_MULTI, "since 6.6"),
        Feature::UprobeSession => links(&machine, libbpf_sys::BPF_TRACE_UPROBE_SESSION, "since 6.13"),
        Feature::Lsm => match loads((libbpf_sys::BPF_PROG_TYPE_LSM, libbpf_sys::BPF_LSM_MAC)) {
            Answer::Yes => lsm_is_active(),
            answer => answer,
        },
        Feature::Hardware => hardware_counters(&machine),
        // kernel/bpf/syscall.c: bpf_btf_get_fd_by_id.
        Feature::ModuleTypes if machine.has(&CAP_SYS_ADMIN) => Answer::Yes,
        Feature::ModuleTypes => Answer::No("it takes CAP_SYS_ADMIN".to_owned()),
    }
}

/// Links of one program to many places. Tried on a function that there is not, or a directory: what a kernel says that
/// has no such links comes before what is wrong with those.
fn links(machine: &Machine, attach_type: libbpf_sys::bpf_attach_type, since: &str) -> Answer {
    match trial::link_to_nothing(attach_type) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOENT | libc::EBADF)) => Answer::Yes,
        outcome => machine.judge(outcome, since),
    }
}

/// The kernel finds out how a function's arguments are passed when a program is attached: so one is, which does
/// nothing, for a moment.
fn fentry_on_stack(machine: &Machine, facts: &KernelFacts) -> Answer {
    const MANY_ARGUMENTS: &str = "do_mmap";
    match facts.function(MANY_ARGUMENTS) {
        Ok(Some(function)) if function.params.len() > 6 => {
            let outcome = trial::attached(libbpf_sys::BPF_PROG_TYPE_TRACING, libbpf_sys::BPF_TRACE_FENTRY, function.id);
            machine.judge(outcome, "it is there since 6.6")
        }
        _ => Answer::Unknown(format!("this kernel has no {MANY_ARGUMENTS} of more than 6 arguments to try it on")),
    }
}

/// Tried on the function that fentry is tried on.
fn fsession(machine: &Machine, facts: &KernelFacts) -> Answer {
    let (program_type, attach_type) = (libbpf_sys::BPF_PROG_TYPE_TRACING, libbpf_sys::BPF_TRACE_FSESSION);
    match facts.function(FENTRY_TARGET) {
        Ok(Some(function)) => machine.judge(trial::program(program_type, attach_type, function.id), "since 7.0"),
        _ => Answer::Unknown(format!("this kernel has no {FENTRY_TARGET} to try it on")),
    }
}

/// Whether a program can be bound to this function of the kernel or a module, as `fentry` or `fexit` or to the hook
/// that it stands for: a program that does nothing is.
pub fn binds(feature: Feature, exit: bool, function: TypeId, module: Option<&str>) -> io::Result<()> {
    let (program_type, attach_type) = match (feature, exit) {
        (Feature::Lsm, _) => (libbpf_sys::BPF_PROG_TYPE_LSM, libbpf_sys::BPF_LSM_MAC),
        (_, false) => (libbpf_sys::BPF_PROG_TYPE_TRACING, libbpf_sys::BPF_TRACE_FENTRY),
        (_, true) => (libbpf_sys::BPF_PROG_TYPE_TRACING, libbpf_sys::BPF_TRACE_FEXIT),
    };
    let trial = Trial { program_type, attach_type, target: function, sleepable: false, module: None };
    trial.calling(module)?.load(&trial::RETURN_ZERO)
}

/// A program that is loaded for trial and let go at once.
pub(super) struct Trial {
    pub program_type: libbpf_sys::bpf_prog_type,
    pub attach_type: libbpf_sys::bpf_attach_type,
    /// What it is bound to, [`TypeId::VOID`] for nothing.
    pub target: TypeId,
    pub sleepable: bool,
    /// The types of the module that it is bound to, or whose kfuncs it calls: they are number 1 to its calls.
    pub module: Option<OwnedFd>,
}

impl Trial {
    /// The same, of a program that is bound to a function of this module or calls a kfunc of it; none: of the kernel
    /// itself.
    pub fn calling(self, module: Option<&str>) -> io::Result<Trial> {
        Ok(Trial { module: module.map(trial::types_of_module).transpose()?, ..self })
    }

    /// Whether the kernel accepts these instructions as such a program.
    pub fn load(&self, instructions: &[libbpf_sys::bpf_insn]) -> io::Result<()> {
        trial::loaded(self, instructions).map(drop)
    }
}

/// Major and minor version of the running kernel; none where its release does not begin with them.
pub(super) fn running_version() -> Option<(u32, u32)> {
    Machine::this().version
}

/// What the kernel may be told by on this boot and with these privileges: trials of another boot, kernel or
/// capabilities tell nothing. None where some of it cannot be read.
pub(super) fn trials_hold_for() -> Option<String> {
    let machine = Machine::this();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    (!machine.release.is_empty()).then_some(())?;
    Some(format!("{} {} {:x}", boot.trim(), machine.release, machine.capabilities?))
}

/// Hooks call BPF only where BPF is among the security modules that the kernel was started with; else programs load and
/// never fire.
fn lsm_is_active() -> Answer {
    match security_file("lsm") {
        Ok(list) if list.trim().split(',').any(|module| module == "bpf") => Answer::Yes,
        Ok(list) => Answer::No(format!(
            "BPF is not among the security modules that are active ({}); boot with `lsm={0},bpf`",
            list.trim()
        )),
        // It loads, and whether it fires cannot be told.
        Err(error) => Answer::Unknown(format!("/sys/kernel/security/lsm cannot be read: {error}")),
    }
}

/// What makes attaching quick, or gives probes what they have nowhere else.
const BEYOND: [(&str, Feature); 5] = [
    ("many functions at once (kprobe.multi)", Feature::KprobeMulti),
    ("many places at once (uprobe.multi)", Feature::UprobeMulti),
    ("`duration` at fexit (fsession)", Feature::Fsession),
    ("`duration` at kretprobe (kprobe.session)", Feature::KprobeSession),
    ("`duration` at uretprobe (uprobe.session)", Feature::UprobeSession),
];

/// Tries everything out. Takes some 100 ms: the kernel waits for a grace period after the trial event.
pub fn checks(facts: &KernelFacts) -> Vec<Check> {
    let machine = Machine::this();
    let mut checks = vec![kernel_version(&machine)];
    checks.extend(NAMED.iter().map(|capability| capability_check(&machine, capability)));
    checks.extend([bpf_system_call(), lockdown(), memory_limit(&machine), kernel_types(facts), tracefs(facts)]);
    checks.extend([ring_buffer(&machine), kernel_reads(&machine), user_reads(&machine)]);
    checks.extend(PROGRAM_TYPES.iter().map(|program_type| program_check(&machine, facts, program_type)));
    checks.extend([tracepoint_event(&machine, facts), kprobe_event()]);
    checks.push(probe_event("attaching uprobes", "uprobe", "CONFIG_UPROBE_EVENTS"));
    checks.push(Check::without_advice("counting the processor's events", hardware_counters(&machine)));
    checks.extend(BEYOND.map(|(name, feature)| Check::without_advice(name, facts.offers(feature))));
    checks
}

/// The capabilities that this process lacks to load and attach programs (capabilities(7)); empty where it has all.
/// CAP_SYS_ADMIN stands for both. What tracefs asks for is not among them: not every plugin needs it, and where it
/// cannot be read the error says so.
pub fn missing_privileges() -> Vec<&'static str> {
    let machine = Machine::this();
    TRACING.iter().filter(|capability| !machine.may(capability)).map(|capability| capability.name).collect()
}

impl Check {
    /// A check whose advice holds where the answer is no. Where it could not be told, the answer says what stood in the
    /// way.
    fn new(name: &'static str, answer: Answer, advice: impl Into<String>) -> Check {
        let advice = matches!(answer, Answer::No(_)).then(|| advice.into());
        Check { name, answer, advice }
    }

    /// A check whose answer says all that there is to say.
    fn without_advice(name: &'static str, answer: Answer) -> Check {
        Check { name, answer, advice: None }
    }
}

/// A bit of `CapEff` (include/uapi/linux/capability.h).
#[derive(Debug, PartialEq, Eq)]
struct Capability {
    name: &'static str,
    bit: u32,
    needed_for: &'static str,
}

const CAP_BPF: Capability = Capability { name: "CAP_BPF", bit: 39, needed_for: "loading BPF programs and maps" };
const CAP_PERFMON: Capability =
    Capability { name: "CAP_PERFMON", bit: 38, needed_for: "reading kernel memory and attaching to tracepoints" };
const CAP_SYS_ADMIN: Capability = Capability {
    name: "CAP_SYS_ADMIN",
    bit: 21,
    needed_for: "tracefs where it is not mounted, and programs bound to modules",
};
const CAP_DAC_READ_SEARCH: Capability = Capability {
    name: "CAP_DAC_READ_SEARCH",
    bit: 2,
    needed_for: "tracefs alone, and only where its files are not this user's",
};

const TRACING: [Capability; 2] = [CAP_BPF, CAP_PERFMON];
const NAMED: [Capability; 4] = [CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN, CAP_DAC_READ_SEARCH];

/// The kernel's own number for what is not supported, which it is not to tell processes and does
/// (include/linux/errno.h).
const ENOTSUPP: i32 = 524;

/// The running kernel's version and what this process may do on it.
struct Machine {
    /// As in /proc/sys/kernel/osrelease.
    release: String,
    /// Major and minor; none where the release does not begin with them.
    version: Option<(u32, u32)>,
    /// `CapEff` of /proc/self/status; none where that cannot be read.
    capabilities: Option<u64>,
}

impl Machine {
    fn this() -> Machine {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Machine { version: parse_version(&release), capabilities: parse_capabilities(&status), release }
    }

    fn has(&self, capability: &Capability) -> bool {
        self.capabilities.is_some_and(|set| set & (1 << capability.bit) != 0)
    }

    /// Whether this process may do what the capability is for: CAP_SYS_ADMIN still implies the two that 5.8 split off
    /// it.
    fn may(&self, capability: &Capability) -> bool {
        self.has(capability) || TRACING.contains(capability) && self.has(&CAP_SYS_ADMIN)
    }

    fn may_trace(&self) -> bool {
        TRACING.iter().all(|capability| self.may(capability))
    }

    fn is_at_least(&self, version: (u32, u32)) -> Option<bool> {
        Some(self.version? >= version)
    }

    /// What the outcome of a trial says. `since` tells which kernels have the feature.
    fn judge(&self, outcome: io::Result<()>, since: &str) -> Answer {
        let Err(error) = outcome else { return Answer::Yes };
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) if !self.may_trace() => untried(),
            Some(libc::EPERM | libc::EACCES) => Answer::No(
                "refused in spite of CAP_BPF and CAP_PERFMON: by lockdown, a security module, or this kernel's build"
                    .to_owned(),
            ),
            Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP | ENOTSUPP) => {
                Answer::No(format!("this kernel does not know it: {since}"))
            }
            _ => Answer::Unknown(error.to_string()),
        }
    }
}

fn untried() -> Answer {
    Answer::Unknown("it cannot be tried without CAP_BPF and CAP_PERFMON".to_owned())
}

/// The leading `6.18` of `6.18.44-amd64`.
fn parse_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn parse_capabilities(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn kernel_version(machine: &Machine) -> Check {
    let answer = match machine.is_at_least((5, 8)) {
        Some(true) => Answer::Yes,
        Some(false) => Answer::No(format!("this is {}; the BPF ring buffer is there since 5.8", machine.release)),
        None => Answer::Unknown(format!("/proc/sys/kernel/osrelease reads `{}`", machine.release)),
    };
    Check::new("kernel 5.8 or later", answer, "run a newer kernel")
}

fn capability_check(machine: &Machine, capability: &'static Capability) -> Check {
    let answer = match machine.capabilities {
        None => Answer::Unknown("/proc/self/status has no CapEff".to_owned()),
        Some(_) if machine.may(capability) => Answer::Yes,
        Some(_) => Answer::No(format!("this process lacks it; it is needed for {}", capability.needed_for)),
    };
    Check::new(capability.name, answer, format!("run as root, or with {}", capability.name))
}

fn bpf_system_call() -> Check {
    let answer = match trial::array_map() {
        Ok(()) => Answer::Yes,
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Answer::No("CONFIG_BPF_SYSCALL is off".to_owned()),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            Answer::No("refused: for want of CAP_BPF, or by the seccomp filter of a container".to_owned())
        }
        Err(error) => Answer::Unknown(error.to_string()),
    };
    Check::new("bpf() system call", answer, "run as root; in a container, allow bpf() in its seccomp profile")
}

fn lockdown() -> Check {
    let answer = match lockdown_mode() {
        Ok(mode) if mode == "confidentiality" => {
            Answer::No("its mode is confidentiality, which forbids to read kernel memory".to_owned())
        }
        Ok(_) => Answer::Yes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Answer::Yes,
        Err(error) => {
            Answer::Unknown(format!("/sys/kernel/security is not mounted and cannot be mounted privately: {error}"))
        }
    };
    Check::new("kernel lockdown allows tracing", answer, "boot with lockdown=integrity or without lockdown")
}

/// `none`, `integrity` or `confidentiality`. Not found where the kernel has no lockdown.
fn lockdown_mode() -> io::Result<String> {
    let text = security_file("lockdown")?;
    // The mode in force stands in brackets: `none [integrity] confidentiality`.
    let mode = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    Ok(mode.map_or("none", |(mode, _)| mode).to_owned())
}

/// A file of securityfs. Not found where the kernel has no such file.
fn security_file(name: &str) -> io::Result<String> {
    match fs::read_to_string(format!("/sys/kernel/security/{name}")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Either there is none, or securityfs is not mounted.
            let root = mount_detached("securityfs")?;
            let file = rustix::fs::openat(&root, name, rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty())?;
            io::read_to_string(fs::File::from(file))
        }
        other => other,
    }
}

fn memory_limit(machine: &Machine) -> Check {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock).maximum;
    let answer = match (machine.is_at_least((5, 11)), limit) {
        (Some(true), _) | (_, None) => Answer::Yes,
        (_, Some(bytes)) => {
            Answer::No(format!("before 5.11 BPF memory counts as locked, and at most {} KiB may be", bytes / 1024))
        }
    };
    Check::new("memory for BPF maps", answer, "run `ulimit -l unlimited` first")
}

fn kernel_types(facts: &KernelFacts) -> Check {
    Check::without_advice("kernel types (BTF)", fact_answer(facts.btf()))
}

fn tracefs(facts: &KernelFacts) -> Check {
    Check::without_advice("tracefs", fact_answer(facts.tracepoint_systems()))
}

/// The message of a [`FactError`] says what to do.
fn fact_answer<T>(fact: Result<T, FactError>) -> Answer {
    fact.map_or_else(|error| Answer::No(error.to_string()), |_| Answer::Yes)
}

fn ring_buffer(machine: &Machine) -> Check {
    Check::new("BPF ring buffer", machine.judge(trial::ring_buffer(), "it is there since 5.8"), "run a newer kernel")
}

fn kernel_reads(machine: &Machine) -> Check {
    let answer = helper_answer(machine, libbpf_sys::BPF_FUNC_probe_read_kernel);
    Check::new("reading kernel memory", answer, "see kernel lockdown above")
}

fn user_reads(machine: &Machine) -> Check {
    let answer = helper_answer(machine, libbpf_sys::BPF_FUNC_probe_read_user_str);
    Check::new("reading user memory", answer, "run a newer kernel")
}

fn helper_answer(machine: &Machine, helper: libbpf_sys::bpf_func_id) -> Answer {
    // libbpf looks for a refusal in the verifier's log, and takes a refusal without log for a helper that is there.
    if !machine.may_trace() {
        return untried();
    }
    match trial::helper(helper) {
        Ok(true) => Answer::Yes,
        Ok(false) if !machine.may_trace() => untried(),
        Ok(false) => {
            Answer::No("the helper is there since 5.5, and lockdown in mode confidentiality takes it away".to_owned())
        }
        Err(error) => Answer::Unknown(error.to_string()),
    }
}

/// A program's type and attach type, as bpf(2) takes them.
type ProgramKind = (libbpf_sys::bpf_prog_type, libbpf_sys::bpf_attach_type);

/// A type of program, and what it is tried on.
struct ProgramType {
    name: &'static str,
    kind: ProgramKind,
    /// The type or function that a program of this type is bound to when it is loaded, if it is bound to one.
    target: Option<Target>,
    since: &'static str,
}

struct Target {
    name: &'static str,
    find: fn(&Btf, &str) -> Option<TypeId>,
}

/// A function that every kernel has, and that others call.
const FENTRY_TARGET: &str = "vfs_read";

const PROGRAM_TYPES: [ProgramType; 7] = [
    ProgramType {
        name: "tracepoint programs",
        kind: (libbpf_sys::BPF_PROG_TYPE_TRACEPOINT, 0),
        target: None,
        since: "since 4.7, with CONFIG_BPF_EVENTS",
    },
    ProgramType {
        name: "raw tracepoint programs",
        kind: (libbpf_sys::BPF_PROG_TYPE_RAW_TRACEPOINT, 0),
        target: None,
        since: "since 4.17, with CONFIG_BPF_EVENTS",
    },
    ProgramType {
        name: "typed raw tracepoint programs (tp_btf)",
        kind: (libbpf_sys::BPF_PROG_TYPE_TRACING, libbpf_sys::BPF_TRACE_RAW_TP),
        target: Some(Target { name: "btf_trace_sched_switch", find: Btf::typedef }),
        since: "since 5.5, with CONFIG_DEBUG_INFO_BTF",
    },
    ProgramType {
        name: "function entry programs (fentry)",
        kind: (libbpf_sys::BPF_PROG_TYPE_TRACING, libbpf_sys::BPF_TRACE_FENTRY),
        target: Some(Target { name: FENTRY_TARGET, find: Btf::function }),
        since: "since 5.5, with CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS",
    },
    ProgramType {
        name: "kprobe and uprobe programs",
        kind: (libbpf_sys::BPF_PROG_TYPE_KPROBE, 0),
        target: None,
        since: "since 4.1, with CONFIG_BPF_EVENTS",
    },
    ProgramType {
        name: "LSM programs",
        kind: (libbpf_sys::BPF_PROG_TYPE_LSM, libbpf_sys::BPF_LSM_MAC),
        target: Some(Target { name: "bpf_lsm_file_open", find: Btf::function }),
        since: "since 5.7, with CONFIG_BPF_LSM",
    },
    ProgramType {
        name: "perf event programs",
        kind: (libbpf_sys::BPF_PROG_TYPE_PERF_EVENT, 0),
        target: None,
        since: "since 4.9, with CONFIG_BPF_EVENTS",
    },
];

fn program_check(machine: &Machine, facts: &KernelFacts, program: &ProgramType) -> Check {
    let (program_type, attach_type) = program.kind;
    let answer = match (&program.target, facts.btf()) {
        (None, _) => machine.judge(trial::program(program_type, attach_type, TypeId::VOID), program.since),
        (Some(_), Err(_)) => Answer::No("it needs the kernel's types (BTF)".to_owned()),
        (Some(target), Ok(btf)) => match (target.find)(btf, target.name) {
            Some(id) => machine.judge(trial::program(program_type, attach_type, id), program.since),
            None => Answer::Unknown(format!("this kernel has no {} to try it on ({})", target.name, program.since)),
        },
    };
    Check::without_advice(program.name, answer)
}

fn tracepoint_event(machine: &Machine, facts: &KernelFacts) -> Check {
    let answer = match facts.tracepoint("sched", "sched_process_exit") {
        Ok(Some(format)) => machine.judge(trial::tracepoint_event(format.id), "it needs CONFIG_PERF_EVENTS"),
        Ok(None) => Answer::Unknown("this kernel has no sched:sched_process_exit to try it on".to_owned()),
        Err(_) => Answer::Unknown("it needs tracefs".to_owned()),
    };
    let paranoid = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap_or_default();
    let advice = format!("run with CAP_PERFMON (perf_event_paranoid is {})", paranoid.trim());
    Check::new("attaching to tracepoints", answer, advice)
}

fn hardware_counters(machine: &Machine) -> Answer {
    match trial::hardware_event() {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
            Answer::No("the processor has no counters, or a virtual machine does not pass them on".to_owned())
        }
        outcome => machine.judge(outcome, "it needs CONFIG_PERF_EVENTS"),
    }
}

fn kprobe_event() -> Check {
    probe_event("attaching kprobes", "kprobe", "CONFIG_KPROBE_EVENTS")
}

fn probe_event(name: &'static str, source: &str, config: &str) -> Check {
    let path = format!("/sys/bus/event_source/devices/{source}/type");
    let answer = match fs::metadata(&path) {
        Ok(_) => Answer::Yes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Answer::No(format!("this kernel has no {source} events: since 4.17, with {config}"))
        }
        Err(error) => Answer::Unknown(format!("{path}: {error}")),
    };
    Check::without_advice(name, answer)
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Yes => f.write_str("yes"),
            Answer::No(why) => write!(f, "no: {why}"),
            Answer::Unknown(why) => write!(f, "could not tell: {why}"),
        }
    }
}

/// The trials. Each makes one thing and closes it.
mod trial {
    use std::ffi::{c_int, c_ulong};
    use std::io;
    use std::mem::size_of;
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    use std::ptr;

    use libbpf_sys::{
        bpf_attach_type, bpf_func_id, bpf_insn, bpf_link_create_opts, bpf_prog_load_opts, bpf_prog_type,
        perf_event_attr,
    };

    use super::{Trial, TypeId};

    /// `r0 = 0; exit`.
    pub(super) const RETURN_ZERO: [bpf_insn; 2] = [instruction(0xb7), instruction(0x95)];
    /// For programs that may sleep (BPF_F_SLEEPABLE of include/uapi/linux/bpf.h).
    const SLEEPABLE: u32 = 1 << 4;

    pub(super) fn array_map() -> io::Result<()> {
        map(libbpf_sys::BPF_MAP_TYPE_ARRAY, size_of::<u32>(), 1)
    }

    pub(super) fn ring_buffer() -> io::Result<()> {
        // The size is a power of two and of whole pages, which are of 64 KiB at most.
        map(libbpf_sys::BPF_MAP_TYPE_RINGBUF, 0, 64 * 1024)
    }

    /// Loads a program that returns 0. `target` is the type or function that it is bound to, `void` for none.
    pub(super) fn program(program_type: bpf_prog_type, attach_type: bpf_attach_type, target: TypeId) -> io::Result<()> {
        loaded(&Trial { program_type, attach_type, target, sleepable: false, module: None }, &RETURN_ZERO).map(drop)
    }

    /// The same, and attaches it to what it is bound to.
    pub(super) fn attached(
        program_type: bpf_prog_type,
        attach_type: bpf_attach_type,
        target: TypeId,
    ) -> io::Result<()> {
        let trial = Trial { program_type, attach_type, target, sleepable: false, module: None };
        let program = loaded(&trial, &RETURN_ZERO)?;
        // SAFETY: null stands for no name, which a program that is bound needs none of.
        owned(unsafe { libbpf_sys::bpf_raw_tracepoint_open(ptr::null(), program.as_raw_fd()) }).map(drop)
    }

    /// Attaches a program that does nothing to what it cannot be attached to.
    pub(super) fn link_to_nothing(attach_type: bpf_attach_type) -> io::Result<()> {
        let program_type = libbpf_sys::BPF_PROG_TYPE_KPROBE;
        let trial = Trial { program_type, attach_type, target: TypeId::VOID, sleepable: false, module: None };
        let program = loaded(&trial, &RETURN_ZERO)?;
        let mut name = c"there_is_no_function_of_this_name".as_ptr();
        let offset = 0;
        let mut options = bpf_link_create_opts { sz: size_of::<bpf_link_create_opts>() as u64, ..Default::default() };
        if matches!(attach_type, libbpf_sys::BPF_TRACE_UPROBE_MULTI | libbpf_sys::BPF_TRACE_UPROBE_SESSION) {
            options.__bindgen_anon_1.uprobe_multi.path = c"/".as_ptr();
            options.__bindgen_anon_1.uprobe_multi.offsets = &raw const offset;
            options.__bindgen_anon_1.uprobe_multi.cnt = 1;
        } else {
            options.__bindgen_anon_1.kprobe_multi.cnt = 1;
            options.__bindgen_anon_1.kprobe_multi.syms = &raw mut name;
        }
        // SAFETY: the options and what they point to outlive the call, which keeps none of it.
        owned(unsafe { libbpf_sys::bpf_link_create(program.as_raw_fd(), 0, attach_type, &raw const options) }).map(drop)
    }

    pub(super) fn loaded(trial: &Trial, instructions: &[bpf_insn]) -> io::Result<OwnedFd> {
        // The first is what calls of the kernel's own kfuncs mean, and is not looked at.
        let module = trial.module.as_ref().map_or(0, AsRawFd::as_raw_fd);
        let types = [0, module];
        let mut options = bpf_prog_load_opts {
            sz: size_of::<bpf_prog_load_opts>() as libbpf_sys::size_t,
            expected_attach_type: trial.attach_type,
            attach_btf_id: trial.target.number(),
            attach_btf_obj_fd: if trial.target.is_of_module() { module as u32 } else { 0 },
            prog_flags: if trial.sleepable { SLEEPABLE } else { 0 },
            fd_array: if trial.module.is_some() { types.as_ptr() } else { ptr::null() },
            ..Default::default()
        };
        // SAFETY: the instructions, the licence and the options with what they point to outlive the call, which keeps
        // none of them.
        let result = unsafe {
            libbpf_sys::bpf_prog_load(
                trial.program_type,
                ptr::null(),
                c"GPL".as_ptr(),
                instructions.as_ptr(),
                instructions.len() as libbpf_sys::size_t,
                &mut options,
            )
        };
        owned(result)
    }

    /// The types of the module of that name, from among all that the kernel has.
    pub(super) fn types_of_module(name: &str) -> io::Result<OwnedFd> {
        let failed = |result: c_int| io::Error::from_raw_os_error(-result);
        let mut id = 0;
        loop {
            // SAFETY: the call writes the next number where the pointer leads, and keeps none of it.
            let result = unsafe { libbpf_sys::bpf_btf_get_next_id(id, &raw mut id) };
            if result < 0 {
                return Err(failed(result));
            }
            // SAFETY: no pointer is passed.
            let types = match owned(unsafe { libbpf_sys::bpf_btf_get_fd_by_id(id) }) {
                Ok(types) => types,
                // Gone meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => continue,
                Err(error) => return Err(error),
            };
            let mut called = [0_u8; 64];
            let mut info = libbpf_sys::bpf_btf_info {
                name: called.as_mut_ptr() as u64,
                name_len: called.len() as u32,
                ..Default::default()
            };
            let mut bytes = size_of_val(&info) as u32;
            // SAFETY: the kernel writes `bytes` bytes of the information, and as many of the name as are there; both
            // outlive the call.
            let result = unsafe {
                libbpf_sys::bpf_obj_get_info_by_fd(types.as_raw_fd(), (&raw mut info).cast(), &raw mut bytes)
            };
            if result < 0 {
                return Err(failed(result));
            }
            if info.kernel_btf != 0 && called.split(|byte| *byte == 0).next() == Some(name.as_bytes()) {
                return Ok(types);
            }
        }
    }

    /// Whether a tracepoint program may call the helper.
    pub(super) fn helper(helper: bpf_func_id) -> io::Result<bool> {
        // SAFETY: no pointer but null, which the call takes for no options.
        let result =
            unsafe { libbpf_sys::libbpf_probe_bpf_helper(libbpf_sys::BPF_PROG_TYPE_TRACEPOINT, helper, ptr::null()) };
        if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result > 0) }
    }

    /// Opens the perf event of a tracepoint, for all processes on one CPU, as attaching does.
    pub(super) fn tracepoint_event(id: u64) -> io::Result<()> {
        event(libbpf_sys::PERF_TYPE_TRACEPOINT, id)
    }

    /// Opens a counter of the processor's cycles on one CPU.
    pub(super) fn hardware_event() -> io::Result<()> {
        event(libbpf_sys::PERF_TYPE_HARDWARE, u64::from(libbpf_sys::PERF_COUNT_HW_CPU_CYCLES))
    }

    fn event(kind: u32, config: u64) -> io::Result<()> {
        const ANY_PROCESS: c_int = -1;
        const FIRST_CPU: c_int = 0;
        const NO_GROUP: c_int = -1;
        let attributes =
            perf_event_attr { type_: kind, size: size_of::<perf_event_attr>() as u32, config, ..Default::default() };
        // SAFETY: perf_event_open(2) reads `size` bytes of the attributes, which outlive the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw const attributes,
                ANY_PROCESS,
                FIRST_CPU,
                NO_GROUP,
                c_ulong::from(libbpf_sys::PERF_FLAG_FD_CLOEXEC),
            )
        };
        // The call returns -1 or a descriptor, which is an int; the error is in errno.
        if result < 0 { Err(io::Error::last_os_error()) } else { owned(result as c_int).map(drop) }
    }

    fn map(map_type: libbpf_sys::bpf_map_type, value_bytes: usize, entries: u32) -> io::Result<()> {
        // SAFETY: null stands for no name and no options.
        let result = unsafe {
            libbpf_sys::bpf_map_create(
                map_type,
                ptr::null(),
                value_bytes as u32,
                value_bytes as u32,
                entries,
                ptr::null(),
            )
        };
        owned(result).map(drop)
    }

    /// libbpf's result as a descriptor: not negative, or an errno negated.
    fn owned(result: c_int) -> io::Result<OwnedFd> {
        if result < 0 {
            return Err(io::Error::from_raw_os_error(-result));
        }
        // SAFETY: the call that made it hands the descriptor over, and nobody else knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(result) })
    }

    const fn instruction(code: u8) -> bpf_insn {
        // SAFETY: the struct is made of integers only, for which zero is a value.
        let mut instruction: bpf_insn = unsafe { std::mem::zeroed() };
        instruction.code = code;
        instruction
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(parse_version("6.18.44-amd64"), Some((6, 18)));
        assert_eq!(parse_version("5.8-rc1"), Some((5, 8)));
        assert_eq!(parse_version("linux"), None);
        assert_eq!(parse_version(""), None);
    }

    #[test]
    fn capabilities() {
        let machine = |set: u64| Machine {
            release: String::new(),
            version: None,
            capabilities: parse_capabilities(&format!("Name:\tx\nCapEff:\t{set:016x}\nCapBnd:\t0\n")),
        };
        assert!(!machine(0).may_trace());
        assert!(!machine(1 << 39).may_trace());
        assert!(machine(1 << 39 | 1 << 38).may_trace());
        assert!(machine(1 << 21).may_trace());
        assert!(!machine(1 << 39 | 1 << 38).may(&CAP_SYS_ADMIN));
        assert!(!machine(1 << 21).may(&CAP_DAC_READ_SEARCH));
        assert_eq!(parse_capabilities("Name:\tx\n"), None);
    }

    #[test]
    fn refusals_without_privileges_tell_nothing() {
        let machine =
            |capabilities| Machine { release: String::new(), version: None, capabilities: Some(capabilities) };
        let refused = || Err(io::Error::from_raw_os_error(libc::EPERM));
        assert!(matches!(machine(0).judge(refused(), ""), Answer::Unknown(_)));
        assert!(matches!(machine(1 << 21).judge(refused(), ""), Answer::No(_)));
        assert_eq!(machine(0).judge(Ok(()), ""), Answer::Yes);
        let unknown = Err(io::Error::from_raw_os_error(libc::EINVAL));
        assert_eq!(machine(0).judge(unknown, "since 9.9").to_string(), "no: this kernel does not know it: since 9.9");
    }

    #[test]
    fn root_what_tracing_needs_is_there() {
        assert_eq!(missing_privileges(), Vec::<&str>::new());
        let checks = checks(&KernelFacts::running());
        for needed in [
            "kernel 5.8 or later",
            "CAP_BPF",
            "CAP_PERFMON",
            "bpf() system call",
            "kernel types (BTF)",
            "tracefs",
            "BPF ring buffer",
            "reading kernel memory",
            "reading user memory",
            "tracepoint programs",
            "typed raw tracepoint programs (tp_btf)",
            "attaching to tracepoints",
        ] {
            let check = checks.iter().find(|check| check.name == needed).unwrap();
            assert_eq!(check.answer, Answer::Yes, "{needed}");
            assert_eq!(check.advice, None, "{needed}");
        }
        for check in &checks {
            println!("{:40} {}", check.name, check.answer);
        }
    }
}
