//! `porthole doctor`: all of it tried out, each with what to do about it.

use std::fs;
use std::io;

use super::machine::{Capability, Machine, NAMED, untried};
use super::{Answer, Feature, KPROBE, UPROBE, hardware_counters, probe_event, programs, security_file, trial};
use crate::kernel::{FactError, KernelFacts};

/// One line of `porthole doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub name: &'static str,
    pub answer: Answer,
    /// What to do about it; none where the answer is yes or says it, and where nothing is to be done, as for a kind of
    /// probe that this kernel lacks.
    pub advice: Option<String>,
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
    checks.extend(
        programs::TYPES.iter().map(|program| Check::without_advice(program.name, program.loads(&machine, facts))),
    );
    checks.push(tracepoint_event(&machine, facts));
    checks.push(Check::without_advice("attaching kprobes", probe_event(KPROBE)));
    checks.push(Check::without_advice("attaching uprobes", probe_event(UPROBE)));
    checks.push(Check::without_advice("counting the processor's events", hardware_counters(&machine)));
    checks.extend(BEYOND.map(|(name, feature)| Check::without_advice(name, facts.offers(feature))));
    checks
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
