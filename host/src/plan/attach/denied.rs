//! Functions that are in the kernel's lists and yet take no program. A pattern leaves them out; who names one is told
//! by the kernel.
//!
//! One of them among a hundred would make the load of all fail, or their attaching.

use super::FunctionKind;
use crate::kernel::KernelFacts;

/// What fentry and fexit programs themselves run through (kernel/bpf/verifier.c: btf_id_deny, of all versions and
/// configurations).
const UNDER_TRAMPOLINES: [&str; 9] = [
    "___migrate_enable",
    "__migrate_enable",
    "__rcu_read_lock",
    "__rcu_read_unlock",
    "migrate_disable",
    "migrate_enable",
    "preempt_count_add",
    "preempt_count_sub",
    "rcu_read_unlock_strict",
];

/// Functions that never return (kernel/bpf/verifier.c: noreturn_deny).
const NEVER_RETURN: [&str; 13] = [
    "__ia32_sys_exit",
    "__ia32_sys_exit_group",
    "__kunit_abort",
    "__module_put_and_kthread_exit",
    "__x64_sys_exit",
    "__x64_sys_exit_group",
    "do_exit",
    "do_group_exit",
    "kthread_complete_and_exit",
    "kthread_exit",
    "kunit_try_catch_throw",
    "make_task_dead",
    "rewind_stack_and_make_dead",
];

/// Hooks of security modules that give back more than whether they allow it (kernel/bpf/bpf_lsm.c:
/// bpf_lsm_disabled_hooks, of all versions).
const NOT_FOR_BPF: [&str; 13] = [
    "audit_rule_match",
    "file_alloc_security",
    "getprocattr",
    "getselfattr",
    "inode_copy_up_xattr",
    "inode_getsecurity",
    "inode_listsecurity",
    "inode_need_killpriv",
    "ismaclabel",
    "key_getsecurity",
    "setprocattr",
    "vm_enough_memory",
    "xfrm_decode_session",
];

/// Whether a program of this kind cannot be attached to the function.
pub fn is_denied(kind: FunctionKind, name: &str, facts: &KernelFacts) -> bool {
    if kind == FunctionKind::Lsm {
        return NOT_FOR_BPF.contains(&name);
    }
    let returns = matches!(kind, FunctionKind::Fexit | FunctionKind::Kretprobe);
    // `func` may become a fentry.
    let trampoline = matches!(kind, FunctionKind::Fentry | FunctionKind::Fexit | FunctionKind::Func);
    (trampoline && UNDER_TRAMPOLINES.contains(&name))
        || (returns && NEVER_RETURN.contains(&name))
        || facts.symbols().is_some_and(|symbols| symbols.is_gone(name))
        || facts.is_traceable(name) == Some(false)
        || (!matches!(kind, FunctionKind::Fentry | FunctionKind::Fexit) && facts.is_kept_from_kprobes(name))
}
