//! Perf events: clocks, software events, hardware counters and watchpoints. The program's context is a
//! `struct bpf_perf_event_data`.
//!
//! All of them are a counter of the kernel's that fires each time it has gone on by a *period*; they differ in what is
//! counted. So a text is read into what is counted and the period, and what it leaves out is filled in: two texts that
//! mean the same print the same.

use std::fmt;

use super::Spec;
use crate::kernel::KernelFacts;
use crate::plan::diagnostic::{Fault, Span, did_you_mean};
use crate::plan::{Node, NodeKind, Type};

/// The kernel's clocks fire no more often than every so many nanoseconds, whatever they are told (kernel/events/core.c:
/// perf_swevent_start_hrtimer).
const SHORTEST: u64 = 10_000;
/// perf_event_open(2) takes no period with the highest bit set.
const LONGEST: u64 = i64::MAX as u64;
const NANOSECONDS: u64 = 1_000_000_000;

/// A perf event that fires programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PerfEvent {
    pub counted: Counted,
    /// How much is counted between two firings: nanoseconds of a clock, or events.
    pub period: u64,
    /// The attach point's text, with nothing left out.
    text: String,
}

/// What a perf event counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// By its number in `enum perf_sw_ids` of include/uapi/linux/perf_event.h.
    Software(u64),
    /// By its number in `enum perf_hw_id`.
    Hardware(u64),
    /// Accesses to so many bytes of memory from this address on, by one process or by any.
    Access { address: u64, length: u64, mode: Mode, process: Option<u32> },
}

/// Which accesses: `HW_BREAKPOINT_*` of include/uapi/linux/hw_breakpoint.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Read = 1,
    Write = 2,
    ReadWrite = 3,
    Execute = 4,
}

/// A counter of the kernel's.
struct Counter {
    name: &'static str,
    /// What perf or bpftrace also call it; empty where they don't.
    alias: &'static str,
    number: u64,
    /// The period where none is given: as bpftrace has it, but for `task-clock`.
    period: u64,
}

const fn counter(name: &'static str, alias: &'static str, number: u64, period: u64) -> Counter {
    Counter { name, alias, number, period }
}

impl Counter {
    fn is_named(&self, name: &str) -> bool {
        !name.is_empty() && (self.name == name || self.alias == name)
    }
}

const CPU_CLOCK: u64 = 0;
const TASK_CLOCK: u64 = 1;
const CONTEXT_SWITCHES: u64 = 3;
const CPU_MIGRATIONS: u64 = 4;
const CGROUP_SWITCHES: u64 = 11;

/// Without `dummy`, which never happens, and `bpf-output`, which only programs make.
const SOFTWARE: [Counter; 10] = [
    counter("alignment-faults", "", 7, 1),
    counter("cgroup-switches", "", CGROUP_SWITCHES, 1),
    counter("context-switches", "cs", CONTEXT_SWITCHES, 1000),
    counter("cpu-clock", "cpu", CPU_CLOCK, 1_000_000),
    counter("cpu-migrations", "migrations", CPU_MIGRATIONS, 1),
    counter("emulation-faults", "", 8, 1),
    counter("major-faults", "", 6, 1),
    counter("minor-faults", "", 5, 100),
    counter("page-faults", "faults", 2, 100),
    counter("task-clock", "", TASK_CLOCK, 1_000_000),
];

const HARDWARE: [Counter; 10] = [
    counter("backend-stalls", "stalled-cycles-backend", 8, 1_000_000),
    counter("branch-instructions", "branches", 4, 100_000),
    counter("branch-misses", "", 5, 100_000),
    counter("bus-cycles", "", 6, 100_000),
    counter("cache-misses", "", 3, 1_000_000),
    counter("cache-references", "", 2, 1_000_000),
    counter("cpu-cycles", "cycles", 0, 1_000_000),
    counter("frontend-stalls", "stalled-cycles-frontend", 7, 1_000_000),
    counter("instructions", "", 1, 1_000_000),
    counter("ref-cycles", "", 9, 1_000_000),
];

/// The names of the events of one of the two kinds that have names.
pub fn names(kind: &str) -> Vec<&'static str> {
    let counters = if kind == "hardware" { &HARDWARE } else { &SOFTWARE };
    counters.iter().map(|counter| counter.name).collect()
}

const PROFILE_FORM: &str =
    "it is written `profile:hz:99`, or with a time between, `profile:ms:10`; the units are hz, s, ms and us";
const WATCHPOINT_FORM: &str = "it is written `watchpoint:ADDRESS:LENGTH:MODE`, such as `watchpoint:0x7ffe10:8:w`, and `:pid=PID` behind it watches one process only";

impl fmt::Display for PerfEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Reads an attach point of one of these kinds; none where `kind` is none of them. `parts` are what stands behind it,
/// each with its place.
pub fn parse(kind: &str, parts: &[(&str, Span)], whole: Span) -> Option<Result<Spec, Fault>> {
    let event = match kind {
        "profile" | "p" => profile(parts, whole),
        "software" | "s" => counted("software", &SOFTWARE, Counted::Software, parts, whole),
        "hardware" | "h" => counted("hardware", &HARDWARE, Counted::Hardware, parts, whole),
        "watchpoint" | "w" => watchpoint(parts, whole),
        _ => return None,
    };
    Some(event.map(Spec::Perf))
}

fn profile(parts: &[(&str, Span)], whole: Span) -> Result<PerfEvent, Fault> {
    let [(unit, unit_at), (count, at)] = parts else {
        return Err(Fault::new(whole, "`profile` takes a unit and a number").help(PROFILE_FORM));
    };
    let n = number(count, *at)?;
    let period = match *unit {
        "hz" => NANOSECONDS.checked_div(n),
        "s" => n.checked_mul(NANOSECONDS),
        "ms" => n.checked_mul(1_000_000),
        "us" => n.checked_mul(1000),
        _ => return Err(Fault::new(*unit_at, format!("`{unit}` is no unit of time")).help(PROFILE_FORM)),
    };
    let period = clock_period(period, *at)?;
    Ok(PerfEvent { counted: Counted::Software(CPU_CLOCK), period, text: format!("profile:{unit}:{n}") })
}

fn clock_period(period: Option<u64>, at: Span) -> Result<u64, Fault> {
    period.filter(|p| (SHORTEST..=LONGEST).contains(p)).ok_or_else(|| {
        let message = "the kernel's clocks fire at most every 10 us, and at least every 292 years";
        Fault::new(at, message).help("that is `hz` up to 100000, and `us` from 10 on")
    })
}

fn counted(
    kind: &str,
    counters: &[Counter],
    counted: fn(u64) -> Counted,
    parts: &[(&str, Span)],
    whole: Span,
) -> Result<PerfEvent, Fault> {
    let listed = || format!("there are {}", counters.iter().map(|c| c.name).collect::<Vec<_>>().join(", "));
    let (name, at, count) = match parts {
        [(name, at)] => (*name, *at, None),
        [(name, at), (count, count_at)] => (*name, *at, Some((*count, *count_at)).filter(|(c, _)| !c.is_empty())),
        _ => {
            let message = format!("`{kind}` takes an event, and how many of them it takes to fire: `{kind}:EVENT:N`");
            return Err(Fault::new(whole, message).help(listed()));
        }
    };
    let Some(known) = counters.iter().find(|c| c.is_named(name)) else {
        let near = did_you_mean(name, counters.iter().flat_map(|c| [c.name, c.alias]).filter(|n| !n.is_empty()));
        let other = [("software", &SOFTWARE), ("hardware", &HARDWARE)]
            .into_iter()
            .find(|(_, of)| of.iter().any(|c| c.is_named(name)));
        let other = other.map(|(kind, _)| format!("there is `{kind}:{name}`"));
        let fault = Fault::new(at, format!("there is no {kind} event `{name}`"));
        return Err(fault.help(other.or(near).unwrap_or_else(listed)));
    };
    let counted = counted(known.number);
    let is_clock = matches!(counted, Counted::Software(CPU_CLOCK | TASK_CLOCK));
    let period = match count {
        None => known.period,
        Some((count, at)) => match number(count, at)? {
            n if is_clock => {
                clock_period(Some(n), at).map_err(|fault| fault.help(format!("`{name}` counts nanoseconds")))?
            }
            n if (1..=LONGEST).contains(&n) => n,
            _ => return Err(Fault::new(at, "it fires each time so many events have happened: from 1 to 2^63 - 1")),
        },
    };
    Ok(PerfEvent { counted, period, text: format!("{kind}:{}:{period}", known.name) })
}

fn watchpoint(parts: &[(&str, Span)], whole: Span) -> Result<PerfEvent, Fault> {
    let (parts, process) = match parts.split_last() {
        Some(((last, at), first)) if last.starts_with("pid=") => {
            let pid = last.trim_start_matches("pid=").parse::<i32>().ok().and_then(|pid| u32::try_from(pid).ok());
            let pid = pid.filter(|pid| *pid > 0);
            (first, Some(pid.ok_or_else(|| Fault::new(*at, "a process's number is expected behind `pid=`"))?))
        }
        _ => (parts, None),
    };
    let [(address, address_at), (length, length_at), (mode, mode_at)] = parts else {
        return Err(Fault::new(whole, "`watchpoint` takes an address, a length and a mode").help(WATCHPOINT_FORM));
    };
    if address.contains('+') {
        let fault = Fault::new(*address_at, "addresses by a function's arguments are not there yet");
        return Err(fault.help(WATCHPOINT_FORM));
    }
    let address = number(address, *address_at)?;
    let length = number(length, *length_at)?;
    if ![1, 2, 4, 8].contains(&length) {
        return Err(Fault::new(*length_at, "the processor watches 1, 2, 4 or 8 bytes"));
    }
    if !address.is_multiple_of(length) {
        let message = format!("the address must be a multiple of the length, {length}");
        return Err(Fault::new(*address_at, message).help("watch fewer bytes, or use two watchpoints"));
    }
    let mode = access(mode, length, *mode_at)?;
    let of = process.map(|pid| format!(":pid={pid}")).unwrap_or_default();
    let text = format!("watchpoint:{address:#x}:{length}:{}{of}", mode.letters());
    Ok(PerfEvent { counted: Counted::Access { address, length, mode, process }, period: 1, text })
}

/// x86 knows neither what is only read, nor instructions of several lengths (arch/x86/kernel/hw_breakpoint.c:
/// arch_build_bp_info).
fn access(mode: &str, length: u64, at: Span) -> Result<Mode, Fault> {
    let x86 = cfg!(target_arch = "x86_64");
    match mode {
        "r" if x86 => {
            Err(Fault::new(at, "this processor cannot watch reads alone").help("`rw` watches reads and writes"))
        }
        "r" => Ok(Mode::Read),
        "w" => Ok(Mode::Write),
        "rw" | "wr" => Ok(Mode::ReadWrite),
        "x" if x86 && length != 8 => Err(Fault::new(at, "execution is watched with the length 8")
            .help("it is the address that counts: the instruction's first byte")),
        "x" => Ok(Mode::Execute),
        _ => Err(Fault::new(at, format!("`{mode}` is no way of access"))
            .help("there are `w` (write), `rw` (read or write) and `x` (execute)")),
    }
}

impl Mode {
    fn letters(self) -> &'static str {
        match self {
            Mode::Read => "r",
            Mode::Write => "w",
            Mode::ReadWrite => "rw",
            Mode::Execute => "x",
        }
    }
}

fn number(text: &str, at: Span) -> Result<u64, Fault> {
    let digits = text.replace('_', "");
    let number = match digits.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => digits.parse(),
    };
    number.map_err(|_| Fault::new(at, format!("`{text}` is not a number")))
}

impl PerfEvent {
    /// The fields of `args`: those that mean something here.
    pub fn argument_names(&self) -> &'static [&'static str] {
        // Clocks, switches and counters have no address.
        match self.counted {
            Counted::Software(CPU_CLOCK | TASK_CLOCK | CONTEXT_SWITCHES | CPU_MIGRATIONS | CGROUP_SWITCHES)
            | Counted::Hardware(_) => &["sample_period"],
            Counted::Software(_) | Counted::Access { .. } => &["sample_period", "addr"],
        }
    }

    /// `args.name`; none where there is no such field here.
    pub fn argument(&self, name: &str, facts: &KernelFacts, span: Span) -> Option<Result<Node, Fault>> {
        self.argument_names().contains(&name).then(|| context_field(name, facts, span))
    }
}

/// A field of the context, which begins with the registers, as many as the architecture has.
fn context_field(name: &str, facts: &KernelFacts, span: Span) -> Result<Node, Fault> {
    const CONTEXT: &str = "bpf_perf_event_data";
    let btf = facts.btf().map_err(|error| Fault::new(span, error.to_string()))?;
    let member = btf.structure(CONTEXT).and_then(|context| btf.member(context, name));
    let member = member.ok_or_else(|| Fault::new(span, format!("this kernel's BTF has no `struct {CONTEXT}`")))?;
    let kind = NodeKind::Context { offset: member.bit_offset / 8, bytes: 8 };
    Ok(Node { kind, ty: Type::Integer { bytes: 8, signed: false }, span })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::attach;

    fn parsed(text: &str) -> PerfEvent {
        match attach::parse(text) {
            Ok(Spec::Perf(event)) => event,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn texts_and_periods() {
        for (text, shown, counted, period) in [
            ("profile:hz:99", "profile:hz:99", Counted::Software(0), 10_101_010),
            ("p:ms:10", "profile:ms:10", Counted::Software(0), 10_000_000),
            ("profile:us:50", "profile:us:50", Counted::Software(0), 50_000),
            ("profile:s:1_0", "profile:s:10", Counted::Software(0), 10_000_000_000),
            ("software:faults:1", "software:page-faults:1", Counted::Software(2), 1),
            ("s:page-faults", "software:page-faults:100", Counted::Software(2), 100),
            ("software:cs:", "software:context-switches:1000", Counted::Software(3), 1000),
            ("software:cpu", "software:cpu-clock:1000000", Counted::Software(0), 1_000_000),
            ("hardware:cycles:5", "hardware:cpu-cycles:5", Counted::Hardware(0), 5),
            ("h:branches", "hardware:branch-instructions:100000", Counted::Hardware(4), 100_000),
        ] {
            let event = parsed(text);
            assert_eq!((event.to_string().as_str(), event.counted, event.period), (shown, counted, period), "{text}");
        }
    }

    #[test]
    fn watchpoints() {
        let watched = |mode, process| Counted::Access { address: 0x1000, length: 8, mode, process };
        assert_eq!(parsed("watchpoint:0x1000:8:w").counted, watched(Mode::Write, None));
        assert_eq!(parsed("w:4096:8:rw:pid=17").counted, watched(Mode::ReadWrite, Some(17)));
        assert_eq!(parsed("w:4096:8:wr:pid=17").to_string(), "watchpoint:0x1000:8:rw:pid=17");
    }

    #[test]
    fn addresses_are_where_they_mean_something() {
        assert_eq!(parsed("profile:hz:99").argument_names(), ["sample_period"]);
        assert_eq!(parsed("software:page-faults").argument_names(), ["sample_period", "addr"]);
        assert_eq!(parsed("watchpoint:8:8:w").argument_names(), ["sample_period", "addr"]);
    }
}
