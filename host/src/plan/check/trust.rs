//! Which pointers the verifier vouches for, and how others become ones that it does.
//!
//! A direct load takes any pointer that the verifier has a type for. A kfunc wants more: that what it points to is
//! alive. The verifier knows that of some pointers (kernel/bpf/verifier.c: is_trusted_reg, is_rcu_reg) and of what a
//! few members lead to from there (BTF_TYPE_SAFE_RCU and its like). A task or cgroup that a pointer of another kind
//! points to is looked up anew by its number, which gives one of its own.

use std::sync::Arc;

use super::super::diagnostic::{Fault, Span};
use super::super::kfunc::{Argument, Call, Found, Gives};
use super::super::pointer::Trust;
use super::super::prototype::Prototype;
use super::super::{Access, Builtin, Node, NodeKind, Origin, Target, Type};
use super::{Checked, Checker, one};
use crate::bpf;
use crate::kernel::kfunc::known;
use crate::kernel::{Answer, TypeId};

/// Members through which trust is kept, on all kernels: only since 6.17 is the cgroup of a `cgroup_subsys_state` among
/// them.
const KEPT: [(&str, &str, Trust); 15] = [
    ("task_struct", "cpus_ptr", Trust::Rcu),
    ("task_struct", "cgroups", Trust::Rcu),
    ("task_struct", "real_parent", Trust::Rcu),
    ("task_struct", "group_leader", Trust::Rcu),
    ("css_set", "dfl_cgrp", Trust::Rcu),
    ("cgroup", "kn", Trust::Rcu),
    ("mm_struct", "exe_file", Trust::Rcu),
    ("sk_buff", "sk", Trust::Rcu),
    ("request_sock", "sk", Trust::Rcu),
    ("file", "f_inode", Trust::Full),
    ("dentry", "d_inode", Trust::Full),
    ("linux_binprm", "file", Trust::Full),
    ("socket", "sk", Trust::Full),
    ("vm_area_struct", "vm_file", Trust::Full),
    ("vm_area_struct", "vm_mm", Trust::Full),
];

/// How what may be gone is looked up: the structure, the members that lead to its number, and what finds it.
const FOUND_BY: [(&str, &[&str], &str); 2] =
    [("task_struct", &["pid"], "bpf_task_from_pid"), ("cgroup", &["kn", "id"], "bpf_cgroup_from_id")];

/// What makes a pointer that RCU protects one that is held.
const ACQUIRED_BY: [(&str, &str); 3] =
    [("task_struct", "bpf_task_acquire"), ("cgroup", "bpf_cgroup_acquire"), ("bpf_cpumask", "bpf_cpumask_acquire")];

impl Checker<'_> {
    /// What the verifier knows of what this points to.
    pub(super) fn trust(&self, node: &Node) -> Trust {
        let trusted = matches!(node.ty, Type::Pointer { origin: Origin::Trusted, .. });
        match &node.kind {
            NodeKind::Builtin(Builtin::Task) | NodeKind::Found(_) => Trust::Full,
            NodeKind::Kfunc(call) if matches!(call.gives, Gives::Owned { .. }) => Trust::Full,
            NodeKind::Argument { index, access: Access::Direct } if trusted => self.attach.vouches_for(*index),
            NodeKind::Item(depth) => self.items.borrow().get(*depth as usize).map_or(Trust::Nothing, |item| item.trust),
            NodeKind::Local(local) if trusted => self.trusted.get(*local as usize).copied().unwrap_or(Trust::Nothing),
            NodeKind::Load { base, offset, bytes: 8, bits: None, .. } if self.trust(base) > Trust::Nothing => {
                self.kept(base, *offset)
            }
            NodeKind::Address { base, .. } => self.trust(base),
            _ => Trust::Nothing,
        }
    }

    fn kept(&self, base: &Node, offset: u32) -> Trust {
        let Type::Pointer { target: Target::Type(id), .. } = base.ty else { return Trust::Nothing };
        let Ok(btf) = self.facts.btf() else { return Trust::Nothing };
        let name = btf.tag(id);
        let member = |field| btf.member(id, field).is_some_and(|m| m.bit_offset == offset * 8 && m.bit_size.is_none());
        let kept = KEPT.iter().find(|(structure, field, _)| *structure == name && member(field));
        kept.map_or(Trust::Nothing, |(.., trust)| *trust)
    }

    /// The pointer as one that may be passed where so much trust is wanted.
    pub(super) fn trusted(&self, node: Node, wanted: Trust, takes: &str, span: Span) -> Checked<Node> {
        let Type::Pointer { target: Target::Type(id), origin } = node.ty else {
            return Err(one(Fault::new(
                span,
                format!("{takes} takes a pointer, and this is {}", self.shown(&node.ty)),
            )));
        };
        let has = self.trust(&node);
        if has >= wanted {
            return Ok(directly(node));
        }
        let name = self.btf(span)?.tag(id);
        if has == Trust::Rcu
            && let Some((_, by)) = ACQUIRED_BY.iter().find(|(structure, _)| *structure == name)
            && let Some((acquire, may_be_null)) = self.callable_here(by)
            && let Some(release) = self.uses.releasing(self.facts).get(&id).cloned()
        {
            let ty = Type::Pointer { target: Target::Type(id), origin: Origin::Trusted };
            let call = Call {
                function: acquire,
                arguments: vec![Argument::Pointer(directly(node))],
                gives: Gives::Owned { release, may_be_null },
                sleeps: false,
                rcu: false,
            };
            return Ok(Node { kind: NodeKind::Kfunc(Box::new(call)), ty, span });
        }
        if origin != Origin::User
            && let Some(found) = self.found(&name, id, &node, span)
        {
            return Ok(found);
        }
        let message = match has {
            Trust::Nothing => {
                format!("{takes} takes a pointer that the kernel vouches for, and this one was read from memory")
            }
            _ => format!(
                "{takes} takes a pointer to what is held, and of this the kernel knows only that it is not gone yet"
            ),
        };
        let mut fault = Fault::new(span, message);
        if let Some((_, _, by)) = FOUND_BY.iter().find(|(structure, ..)| *structure == name) {
            fault = fault.help(format!("`{by}` would look it up, and cannot be called here"));
        }
        Err(one(fault.help(
            "`task`, what `rawtracepoint` and most of `lsm` have in `args`, and what a kfunc has given are such pointers",
        )))
    }

    fn found(&self, name: &str, id: TypeId, node: &Node, span: Span) -> Option<Node> {
        let (_, members, by) = FOUND_BY.iter().find(|(structure, ..)| *structure == name)?;
        let btf = self.facts.btf().ok()?;
        let (mut at, mut path, mut bytes) = (id, Vec::new(), 0);
        for member in *members {
            let found = btf.member(at, member)?;
            path.push(found.bit_offset / 8);
            bytes = super::places::size_of(btf, found.ty)?;
            at = super::super::prototype::points_to_structure(btf, found.ty).unwrap_or(found.ty);
        }
        let (find, _) = self.callable_here(by)?;
        let release = self.uses.releasing(self.facts).get(&id).cloned()?;
        let ty = Type::Pointer { target: Target::Type(id), origin: Origin::Trusted };
        let found = Found { pointer: node.clone(), path, bytes: u8::try_from(bytes).ok()?, find, release };
        Some(Node { kind: NodeKind::Found(Box::new(found)), ty, span })
    }

    /// A kfunc that the compiler calls by itself, where it may be called here; and whether it may give null.
    pub(super) fn callable_here(&self, name: &str) -> Option<(Arc<bpf::Kfunc>, bool)> {
        known(name)?;
        let kfunc = self.facts.kfunc(name).ok()??;
        let kind = self.attach.program_kind(false);
        if matches!(self.facts.may_call(name, kind), Answer::No(_)) {
            return None;
        }
        let function = Prototype::of(self.facts.btf().ok()?, &kfunc).callable()?;
        Some((Arc::new(function), kfunc.flags.ret_null()))
    }
}

/// The pointer as one that is loaded by instructions, so that the verifier knows what it is.
fn directly(node: Node) -> Node {
    let Node { kind, ty, span } = node;
    let (kind, ty) = match (kind, ty) {
        (NodeKind::Load { base, offset, bytes, bits, .. }, Type::Pointer { target, .. }) => (
            NodeKind::Load { base: Box::new(directly(*base)), offset, bytes, bits, access: Access::Direct },
            Type::Pointer { target, origin: Origin::Trusted },
        ),
        (NodeKind::Address { base, offset }, ty) => (NodeKind::Address { base: Box::new(directly(*base)), offset }, ty),
        other => other,
    };
    Node { kind, ty, span }
}
