//! From which kinds of programs the running kernel lets a kfunc be called, asked of its verifier.
//!
//! **The problem.** No list that a kernel shows says which kinds of programs may call a kfunc. Its sets of kfuncs are
//! in memory that nobody can name, and which set is open to which kind has changed with every few versions. So a
//! program that calls it is loaded, and what the kernel says to it is the answer. But a call needs arguments, and a
//! kernel that refuses those says no, too. The words that it refuses with differ from version to version, and are not
//! looked at.
//!
//! **The idea.** What the verifier checks first of a call is whether it is allowed (check_kfunc_call in
//! kernel/bpf/verifier.c): a kfunc that is not open to this kind of program, one that may sleep where programs must
//! not, and one that is destructive for who may not reboot the machine, are refused with EACCES. Only then it looks at
//! the arguments. So these are chosen to be refused with another error wherever they are refused: all five are a
//! pointer to 512 bytes of zeros on the stack. That is no number, no struct of the kernel's, no map, no function, no
//! constant text and no context, for each of which the error is EINVAL; and where memory, an iterator or a dynptr that
//! is still to be made is wanted, it is one, so that the next argument is looked at. What only memory out of bounds and
//! null are refused with, EACCES, cannot come of it. A call whose arguments are all accepted is accepted, or the
//! program is refused at its end, with EINVAL, for what it has not given back.
//!
//! EINVAL might as well come of something before that: of a name that is no kfunc, or a kfunc that was not built. So a
//! second program goes with the first, which is the same but never comes to the call: it branches round it on a
//! condition that the verifier knows. It must be accepted. All that is checked of a call wherever it stands is then in
//! order, and with it that programs of this kind can be loaded at all.
//!
//! | the call | the program that never comes to it | |
//! |---|---|---|
//! | EACCES | not tried | not allowed, if a program without the call is accepted |
//! | accepted, EINVAL, EFAULT | accepted | allowed |
//! | accepted, EINVAL, EFAULT | refused | not allowed: no program can call it |
//! | another error | not tried | could not tell |
//!
//! EFAULT is what 7.2 answers to `__bpf_trap`, behind all that is asked here.
//!
//! One kfunc has a rule of its own among the checks of its arguments: `bpf_iter_css_task_new` refuses, at its first
//! argument and with EINVAL, all programs but iterators, LSM programs and those that may sleep. There null as the
//! second argument, which is refused with EACCES, tells whether the first one passed.
//!
//! Before 6.2 what may sleep is refused only behind the arguments, so there the table is asked
//! ([`super::Flags::sleepable`]).
//!
//! **Invariants.** Nothing is attached or run, so no kfunc is ever called by a trial. A table of what each of three
//! kernels was found to answer, made in another way, is compared with this on those kernels (tests/tests/kfuncs.rs).

use std::io;

use libbpf_sys::bpf_insn;

use super::super::features::Trial;
use super::super::{Btf, TypeId};
use super::ProgramKind;

/// What the kernel said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    Refused,
    /// Why it could not be tried.
    Untried(String),
}

/// The kfunc that only some kinds of programs may call by a rule of its own.
const RESTRICTED: &str = "bpf_iter_css_task_new";

/// Bytes of the stack that arguments point to: all that there are.
const STACK: i16 = 512;

/// Whether a program of this kind may call it. Two programs are loaded at most, or three.
pub fn may_call(name: &str, kfunc: TypeId, from: ProgramKind, btf: &Btf) -> Verdict {
    let trial = match bound(from, btf) {
        Ok(trial) => trial.calling(btf.module_of(kfunc)),
        Err(missing) => return Verdict::Untried(format!("this kernel has no {missing} to try it on")),
    };
    let trial = match trial {
        Ok(trial) => trial,
        Err(error) => return Verdict::Untried(format!("the types of its module cannot be had: {error}")),
    };
    let refusal = |program: &[bpf_insn]| match trial.load(program) {
        Ok(()) => Ok(None),
        Err(error) => match error.raw_os_error() {
            Some(number @ (libc::EACCES | libc::EINVAL | libc::EFAULT)) => Ok(Some(number)),
            _ => Err(Verdict::Untried(untried(&error))),
        },
    };
    let outcome = || -> Result<Verdict, Verdict> {
        if refusal(&calling(kfunc, &[]))? == Some(libc::EACCES) {
            return match refusal(&return_zero())? {
                None => Ok(Verdict::Refused),
                Some(number) => Err(Verdict::Untried(untried(&io::Error::from_raw_os_error(number)))),
            };
        }
        // `r2 = 0`.
        let null_as_second = instruction(0xb7, 2, 0, 0, 0);
        let only_argued_about = refusal(&passing_by(kfunc))?.is_none();
        let passes = name != RESTRICTED || refusal(&calling(kfunc, &[null_as_second]))? == Some(libc::EACCES);
        Ok(if only_argued_about && passes { Verdict::Allowed } else { Verdict::Refused })
    };
    outcome().unwrap_or_else(|untried| untried)
}

/// Whether a program that may sleep is taken at the hook, where one that must not is. Both do nothing.
pub fn may_sleep_at(hook: TypeId) -> bool {
    let taken = |sleepable| {
        let (program_type, attach_type) = (libbpf_sys::BPF_PROG_TYPE_LSM, libbpf_sys::BPF_LSM_MAC);
        Trial { program_type, attach_type, target: hook, sleepable, module: None }.load(&return_zero()).is_ok()
    };
    taken(true) || !taken(false)
}

fn untried(error: &io::Error) -> String {
    format!("no program of this kind can be loaded here: {error}")
}

/// A program of that kind, bound to something that every kernel has which offers the kind. The error is what this one
/// lacks.
fn bound(from: ProgramKind, btf: &Btf) -> Result<Trial, &'static str> {
    use ProgramKind as Kind;
    let (program_type, attach_type, target) = match from {
        Kind::Tracepoint => (libbpf_sys::BPF_PROG_TYPE_TRACEPOINT, 0, None),
        Kind::PerfEvent => (libbpf_sys::BPF_PROG_TYPE_PERF_EVENT, 0, None),
        Kind::Kprobe | Kind::UprobeSleepable => (libbpf_sys::BPF_PROG_TYPE_KPROBE, 0, None),
        Kind::Tracing => {
            (libbpf_sys::BPF_PROG_TYPE_TRACING, libbpf_sys::BPF_TRACE_RAW_TP, Some("btf_trace_sched_switch"))
        }
        // A function that is there to be traced, and marked as one where programs may sleep.
        Kind::FentrySleepable => {
            (libbpf_sys::BPF_PROG_TYPE_TRACING, libbpf_sys::BPF_TRACE_FENTRY, Some("bpf_fentry_test1"))
        }
        Kind::Iter | Kind::IterSleepable => {
            (libbpf_sys::BPF_PROG_TYPE_TRACING, libbpf_sys::BPF_TRACE_ITER, Some("bpf_iter_task"))
        }
        Kind::Lsm | Kind::LsmSleepable => {
            (libbpf_sys::BPF_PROG_TYPE_LSM, libbpf_sys::BPF_LSM_MAC, Some("bpf_lsm_file_open"))
        }
    };
    let find = |name: &'static str| btf.function(name).or_else(|| btf.typedef(name)).ok_or(name);
    let target = target.map_or(Ok(TypeId::VOID), find)?;
    Ok(Trial { program_type, attach_type, target, sleepable: from.may_sleep(), module: None })
}

/// `r0 = 0; exit`.
fn return_zero() -> [bpf_insn; 2] {
    [instruction(0xb7, 0, 0, 0, 0), instruction(0x95, 0, 0, 0, 0)]
}

/// Calls it with pointers to the stack, or with what `setting` makes of them.
fn calling(kfunc: TypeId, setting: &[bpf_insn]) -> Vec<bpf_insn> {
    // `*(u64 *)(r10 - 8) = 0`, and so on.
    let mut program: Vec<_> = (1..=STACK / 8).map(|slot| instruction(0x7a, 10, 0, -8 * slot, 0)).collect();
    for argument in 1..=5 {
        // `r1 = r10; r1 += -512`, and so on.
        program.extend([instruction(0xbf, argument, 10, 0, 0), instruction(0x07, argument, 0, 0, -i32::from(STACK))]);
    }
    program.extend(setting);
    program.push(call(kfunc));
    program.extend(return_zero());
    program
}

/// Has the call, and never comes to it.
fn passing_by(kfunc: TypeId) -> Vec<bpf_insn> {
    // `r0 = 0; if r0 != 0 goto the call; r0 = 0; exit`.
    let mut program = vec![return_zero()[0], instruction(0x55, 0, 0, 2, 0)];
    program.extend(return_zero());
    program.push(call(kfunc));
    program.extend(return_zero());
    program
}

/// BPF_PSEUDO_KFUNC_CALL of include/uapi/linux/bpf.h: the function is one of the kernel's own types, or of the module's
/// that [`Trial`] has.
fn call(kfunc: TypeId) -> bpf_insn {
    instruction(0x85, 0, 2, i16::from(kfunc.is_of_module()), kfunc.number().cast_signed())
}

fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> bpf_insn {
    let mut instruction = bpf_insn { code, off: offset, imm: immediate, ..Default::default() };
    instruction.set_dst_reg(to);
    instruction.set_src_reg(from);
    instruction
}
