//! Programs that the kernel calls at both the entry and the return of a function (sessions), for probes that ask by
//! `duration` how long it took.
//!
//! The problem: when a function returns, nobody knows any more when it was entered. Two probes and a handler find out,
//! by two events for each call.
//!
//! The idea: for a program that is called at both, the kernel keeps 8 bytes for each call under way, as long as that
//! is. At the entry the program puts the time there, and at the return `duration` is what has passed since. Where its
//! first step is about the process alone and does not hold, the program tells the kernel so at the entry, and that
//! return never comes; it is counted as a hit that was filtered, as it would be at the return. What else the entry may
//! do, it does not: hits, faults and records are the return's.
//!
//! Other probes at returns have programs that are called there alone: to ask for their filters at the entry was
//! measured, and gains nothing (ARCHITECTURE.md).

use std::sync::Arc;

use super::diagnostic::{Fault, Span};
use super::prototype::Prototype;
use super::{AttachPoint, Builtin, FunctionKind, KernelFunction, Node, NodeKind, PlanStep, Typed, UserKind};
use crate::bpf::Kfunc;
use crate::kernel::{Answer, Feature, KernelFacts, Symbols};

/// What a program needs that is called at both entry and return.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// The kfunc that tells a return from an entry.
    pub is_return: Arc<Kfunc>,
    /// The kfunc that gives the 8 bytes of the call.
    pub cookie: Arc<Kfunc>,
    /// What is the same at both, and must hold.
    pub condition: Option<Typed>,
}

impl Session {
    /// That of a body with these steps; none where the kernel lacks a kfunc for it.
    pub(super) fn of(attach: &AttachPoint, steps: &[PlanStep], facts: &KernelFacts) -> Option<Session> {
        // Programs at fentry and fexit cannot tell the kernel that a return is not wanted.
        let can_ask = !matches!(attach, AttachPoint::Function(function) if function.kind == FunctionKind::Fexit);
        let condition = match steps.first() {
            Some(PlanStep::When(condition)) if can_ask => {
                of_the_process(&condition.node).map(|node| Typed { node, ..condition.clone() })
            }
            _ => None,
        };
        let kfunc = |name| {
            let kfunc = facts.kfunc(name).ok()??;
            Some(Arc::new(Prototype::of(facts.btf().ok()?, &kfunc).callable()?))
        };
        Some(Session { is_return: kfunc("bpf_session_is_return")?, cookie: kfunc("bpf_session_cookie")?, condition })
    }
}

/// Whether a program at both entry and return can be here.
pub(super) fn offered(attach: &AttachPoint, facts: &KernelFacts, span: Span) -> Result<(), Fault> {
    let only_there = |at: String| {
        Fault::new(span, "`duration` is there at `fexit`, `kretprobe` and `uretprobe` alone")
            .help(format!("`{at}` has it"))
    };
    let (feature, instead) = match attach {
        AttachPoint::Function(function) => match function.kind {
            FunctionKind::Lsm => return Err(no_call(span)),
            FunctionKind::Kretprobe if is_one_of_many(function, facts) => {
                let message = format!(
                    "several functions are named `{}`, and `duration` is told of one by its name",
                    function.name
                );
                return Err(Fault::new(span, message).help("a handler can subtract the `nsecs` of two events"));
            }
            FunctionKind::Kretprobe => (Feature::KprobeSession, ["kprobe", "kretprobe"]),
            FunctionKind::Fexit => (Feature::Fsession, ["fentry", "fexit"]),
            _ => return Err(only_there(format!("kretprobe:{}", function.qualified_name()))),
        },
        AttachPoint::User(point) => match point.kind {
            UserKind::Return => (Feature::UprobeSession, ["uprobe", "uretprobe"]),
            UserKind::Entry => return Err(only_there("uretprobe:TARGET:FUNCTION".to_owned())),
            UserKind::Marker => return Err(no_call(span)),
        },
        _ => return Err(no_call(span)),
    };
    let why = match facts.offers(feature) {
        Answer::Yes if Session::of(attach, &[], facts).is_some() => return Ok(()),
        Answer::Yes => "BTF does not tell of its kfuncs".to_owned(),
        Answer::No(why) | Answer::Unknown(why) => why,
    };
    let fault =
        Fault::new(span, format!("`duration` takes {}, which this kernel does not offer: {why}", feature.name()));
    if let (Feature::Fsession, Answer::Yes, AttachPoint::Function(function)) =
        (feature, facts.offers(Feature::KprobeSession), attach)
        && !is_one_of_many(function, facts)
    {
        return Err(fault.help(format!("`kretprobe:{}` has it", function.qualified_name())));
    }
    if let Some(lacking) = attach.feature().filter(|feature| facts.offers(*feature) != Answer::Yes) {
        return Err(fault.help(format!("it does not offer {} at all; `porthole doctor` tells why", lacking.name())));
    }
    let [entry, end] = instead;
    Err(fault.help(format!("a handler can subtract the `nsecs` of an event at `{entry}` from those of one at `{end}`")))
}

/// Whether the name alone does not tell the function, of a module: the kernel looks for it in itself first, and then in
/// all modules.
fn is_one_of_many(function: &KernelFunction, facts: &KernelFacts) -> bool {
    let all = |symbols: &Symbols| symbols.count(&function.name) + symbols.modules(&function.name).count();
    function.module.is_some() && facts.symbols().is_none_or(|symbols| all(symbols) != 1)
}

fn no_call(span: Span) -> Fault {
    let fault = Fault::new(span, "`duration` is how long a function took, and nothing returns here");
    fault.help("`fexit`, `kretprobe` and `uretprobe` have it; a handler can subtract the `nsecs` of two events")
}

/// Of what must be true, all that is about the process alone, which stays the same as long as a function is called.
fn of_the_process(condition: &Node) -> Option<Node> {
    if let NodeKind::And(left, right) = &condition.kind {
        return match (of_the_process(left), of_the_process(right)) {
            (Some(left), Some(right)) => {
                Some(Node { kind: NodeKind::And(Box::new(left), Box::new(right)), ..condition.clone() })
            }
            (left, right) => left.or(right),
        };
    }
    let is_one = is_of_the_process(condition) && !matches!(condition.kind, NodeKind::Constant(_));
    is_one.then(|| condition.clone())
}

fn is_of_the_process(node: &Node) -> bool {
    match &node.kind {
        NodeKind::Constant(_) | NodeKind::Builtin(Builtin::Pid) => true,
        NodeKind::Not(a) | NodeKind::Cast(a) => is_of_the_process(a),
        NodeKind::In { value, .. } => is_of_the_process(value),
        NodeKind::Arithmetic { left, right, .. } | NodeKind::And(left, right) | NodeKind::Or(left, right) => {
            is_of_the_process(left) && is_of_the_process(right)
        }
        _ => false,
    }
}
