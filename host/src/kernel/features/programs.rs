//! Types of programs, and what each is tried on.

use super::machine::Machine;
use super::{Answer, trial};
use crate::kernel::{Btf, KernelFacts, TypeId};

/// A program's type and attach type, as bpf(2) takes them.
pub type ProgramKind = (libbpf_sys::bpf_prog_type, libbpf_sys::bpf_attach_type);

/// A type of program, and what it is tried on.
pub struct ProgramType {
    pub name: &'static str,
    pub kind: ProgramKind,
    /// The type or function that a program of this type is bound to when it is loaded, if it is bound to one.
    target: Option<Target>,
    since: &'static str,
}

struct Target {
    name: &'static str,
    find: fn(&Btf, &str) -> Option<TypeId>,
}

/// A function that every kernel has, and that others call.
pub const FENTRY_TARGET: &str = "vfs_read";

pub const TYPES: [ProgramType; 7] = [
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

impl ProgramType {
    /// Whether a program of this type that does nothing loads.
    pub fn loads(&self, machine: &Machine, facts: &KernelFacts) -> Answer {
        let (program_type, attach_type) = self.kind;
        match (&self.target, facts.btf()) {
            (None, _) => machine.judge(trial::program(program_type, attach_type, TypeId::VOID), self.since),
            (Some(_), Err(_)) => Answer::No("it needs the kernel's types (BTF)".to_owned()),
            (Some(target), Ok(btf)) => match (target.find)(btf, target.name) {
                Some(id) => machine.judge(trial::program(program_type, attach_type, id), self.since),
                None => Answer::Unknown(format!("this kernel has no {} to try it on ({})", target.name, self.since)),
            },
        }
    }
}
