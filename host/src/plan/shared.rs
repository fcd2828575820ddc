//! Programs that serve many functions.
//!
//! Where the kernel has links of one program to many functions (kprobe.multi), the attach points of a probe at which
//! its body is the same share a program: a pattern that matches a thousand functions is then a few programs and links,
//! and comes and goes in a fraction of a second; with a perf event for each, closing alone takes tens of milliseconds
//! each.
//!
//! Such a program is called by ftrace, which from Linux 6.14 on saves no more registers than a function's arguments and
//! results are in. So a body that reads registers by their names stays with perf events, which save all.
//!
//! Programs at both entry and return (`session.rs`) have such links alone, also at one function. So have, from that
//! version on, those at returns: the kernel notes the calls that it follows on a stack of each task, while for perf
//! events it has room for 10 at once or two for each CPU, and loses the returns of others.

use super::{AttachPoint, Builtin, FunctionKind, KernelFunction, NodeKind, PlanStep, PointPlan, ProbePlan, Type};
use crate::kernel::{Answer, Feature, KernelFacts};

/// Lets attach points of one probe share programs, where that can be, and there are several or such a link is better
/// for one, too.
pub fn share(points: &mut [PointPlan], facts: &KernelFacts) {
    let mut several: Vec<usize> = (0..points.len()).filter(|&at| can_share(&points[at])).collect();
    if several.is_empty() {
        // What the kernel offers is tried out, and costs something.
        return;
    }
    let multi = facts.offers(Feature::KprobeMulti) == Answer::Yes;
    if several.len() < 2 || !multi {
        several.retain(|&at| points[at].session.is_some() || multi && loses_no_return(&points[at], facts));
    }
    let mut first_of: Vec<usize> = Vec::new();
    for at in several {
        fetch_number(&mut points[at]);
        let as_at = |&&first: &&usize| is_same(&points[first], &points[at]);
        let first = first_of.iter().find(as_at).copied().unwrap_or(at);
        if first == at {
            first_of.push(at);
        }
        points[at].shares = Some(first);
    }
}

/// Whether such a link follows all calls, which a perf event does not. Where it is not known that ftrace reaches the
/// function, a perf event may be all that there is.
fn loses_no_return(point: &PointPlan, facts: &KernelFacts) -> bool {
    let Some(function) = probed(point).filter(|function| function.kind == FunctionKind::Kretprobe) else {
        return false;
    };
    let on_stack = || {
        let btf = facts.btf().ok()?;
        // Before, it was the pool of places for returns.
        Some(!btf.member_names(btf.structure("fprobe")?).iter().any(|member| member == "rethook"))
    };
    on_stack() == Some(true) && facts.is_traceable(&function.name) == Some(true)
}

/// Where a field is the attach point's name, its number is asked for when the program runs: the link keeps it for each
/// function (a cookie).
fn fetch_number(point: &mut PointPlan) {
    for step in &mut point.steps {
        let PlanStep::Emit(fields) = step else { continue };
        for field in fields {
            if let (NodeKind::Constant(_), Type::Point(_)) = (&field.node.kind, &field.node.ty) {
                field.node.kind = NodeKind::Builtin(Builtin::Point);
            }
        }
    }
}

fn can_share(point: &PointPlan) -> bool {
    let is_named = |function: &KernelFunction| function.module.is_none() || point.session.is_some();
    !point.reads_registers && probed(point).is_some_and(|function| function.offset == 0 && is_named(function))
}

fn probed(point: &PointPlan) -> Option<&KernelFunction> {
    point.function().filter(|function| matches!(function.kind, FunctionKind::Kprobe | FunctionKind::Kretprobe))
}

fn is_same(one: &PointPlan, other: &PointPlan) -> bool {
    let kind = |point| probed(point).map(|function| function.kind);
    kind(one) == kind(other)
        && one.session.is_some() == other.session.is_some()
        && one.locals == other.locals
        && one.steps == other.steps
}

impl PointPlan {
    /// The function of the kernel at which it is.
    pub fn function(&self) -> Option<&KernelFunction> {
        if let AttachPoint::Function(function) = &self.attach { Some(function) } else { None }
    }

    /// The section of its program in the object.
    pub fn section(&self) -> String {
        match (self.shares, probed(self)) {
            (Some(_), Some(_)) if self.session.is_some() => "kprobe.session".to_owned(),
            (Some(_), Some(function)) => format!("{}.multi", function.kind.name()),
            _ if self.sleeps => {
                // As libbpf marks it, behind the kind.
                let section = self.kind_section();
                let (kind, rest) = section.split_at(section.find('/').unwrap_or(section.len()));
                format!("{kind}.s{rest}")
            }
            _ => self.kind_section(),
        }
    }

    fn kind_section(&self) -> String {
        match &self.attach {
            AttachPoint::User(_) if self.session.is_some() => "uprobe.session".to_owned(),
            AttachPoint::Function(function) if self.session.is_some() => {
                format!("fsession/{}", function.qualified_name())
            }
            attach => attach.section(),
        }
    }
}

impl ProbePlan {
    /// The attach points that have programs of their own, which may serve others, too.
    pub fn programs(&self) -> impl Iterator<Item = (usize, &PointPlan)> {
        let points = self.points.iter().enumerate();
        points.filter(|(at, point)| point.shares.is_none_or(|first| first == *at))
    }

    /// All attach points that the program of this one serves.
    pub fn served_by(&self, at: usize) -> impl Iterator<Item = &PointPlan> {
        let points = self.points.iter().enumerate();
        points.filter(move |(other, point)| *other == at || point.shares == Some(at)).map(|(_, point)| point)
    }
}
