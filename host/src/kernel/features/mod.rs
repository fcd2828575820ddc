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

mod checks;
mod machine;
mod programs;
mod trial;

use std::fmt;
use std::fs;
use std::io;

use super::tracefs::mount_detached;
use super::{KernelFacts, TypeId};
pub use checks::{Check, checks};
use machine::{CAP_SYS_ADMIN, Machine, TRACING};
use programs::{FENTRY_TARGET, ProgramKind};
pub(super) use trial::Trial;

/// Whether a feature is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Yes,
    /// It is not, and why: since which version or with which configuration it would be.
    No(String),
    /// Could not be told, and why.
    Unknown(String),
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
    let loads = |wanted: ProgramKind| match programs::TYPES.iter().find(|program| program.kind == wanted) {
        Some(program) => program.loads(&machine, facts),
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
            Answer::Yes => probe_event(KPROBE),
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

/// The capabilities that this process lacks to load and attach programs (capabilities(7)); empty where it has all.
/// CAP_SYS_ADMIN stands for both. What tracefs asks for is not among them: not every plugin needs it, and where it
/// cannot be read the error says so.
pub fn missing_privileges() -> Vec<&'static str> {
    let machine = Machine::this();
    TRACING.iter().filter(|capability| !machine.may(capability)).map(|capability| capability.name).collect()
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

fn hardware_counters(machine: &Machine) -> Answer {
    match trial::hardware_event() {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
            Answer::No("the processor has no counters, or a virtual machine does not pass them on".to_owned())
        }
        outcome => machine.judge(outcome, "it needs CONFIG_PERF_EVENTS"),
    }
}

/// A source of events, by its name in /sys, and what a kernel is built with that has it.
const KPROBE: (&str, &str) = ("kprobe", "CONFIG_KPROBE_EVENTS");
const UPROBE: (&str, &str) = ("uprobe", "CONFIG_UPROBE_EVENTS");

fn probe_event((source, config): (&str, &str)) -> Answer {
    let path = format!("/sys/bus/event_source/devices/{source}/type");
    match fs::metadata(&path) {
        Ok(_) => Answer::Yes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Answer::No(format!("this kernel has no {source} events: since 4.17, with {config}"))
        }
        Err(error) => Answer::Unknown(format!("{path}: {error}")),
    }
}

#[cfg(test)]
mod tests;
