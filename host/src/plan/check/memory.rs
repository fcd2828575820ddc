//! Memory that no argument leads to: the other of the two memories that an address may be in, and the kernel's own
//! variables.
//!
//! A variable that each CPU has of its own lies in that CPU's memory as far from its start as in every other's. The
//! kernel keeps the distances of these memories from one another in its array `__per_cpu_offset`, whose address
//! /proc/kallsyms tells. Where it names no variables (a kernel without CONFIG_KALLSYMS_ALL) there is a way round: the
//! scheduler's group of any thread leads to the run queue of each CPU, and that is such a variable itself.

use super::super::diagnostic::{Fault, Span, did_you_mean};
use super::super::pointer::target;
use super::super::syntax::{Expr, ExprKind};
use super::super::{Builtin, Node, NodeKind, Origin, Target, Type};
use super::places::{element, scalar_at};
use super::{Checked, Checker, Walk, both, one};
use crate::kernel::{FactError, Kind, TypeId, Variable};

/// The kernel's array of the distances of per-CPU memories (include/asm-generic/percpu.h).
const DISTANCES: &str = "__per_cpu_offset";
/// Each CPU's own entry of it (arch/x86/include/asm/percpu.h).
const OWN_DISTANCE: &str = "this_cpu_off";
/// Each CPU's run queue (kernel/sched/core.c).
const RUN_QUEUES: &str = "runqueues";
/// A misspelt symbol is looked for among those that begin with so many of its characters.
const SAME: usize = 3;

impl Checker<'_> {
    /// `user(pointer)` and `kernel(pointer)`: the same address and the same type, in that memory.
    pub(super) fn in_memory(&self, name: &str, origin: Origin, arguments: &[Expr], span: Span) -> Checked<Node> {
        let [pointer] = arguments else {
            return Err(one(Fault::new(span, format!("`{name}` takes a pointer, or an address"))));
        };
        let node = self.value(pointer)?;
        let target = match &node.ty {
            // What the kernel vouches for is the kernel's already.
            Type::Pointer { origin: Origin::Trusted, .. } if origin == Origin::Kernel => {
                return Ok(Node { span, ..node });
            }
            Type::Pointer { target, .. } => target.clone(),
            Type::Integer { .. } => Target::Unknown,
            ty => {
                let message = format!("`{name}` takes a pointer or an address, and this is {}", self.shown(ty));
                return Err(one(Fault::new(pointer.span, message)));
            }
        };
        let ty = Type::Pointer { target, origin };
        let kind = if node.ty == ty { node.kind } else { NodeKind::Cast(Box::new(node)) };
        Ok(Node { kind, ty, span })
    }

    /// `kaddr("name")`: a pointer to a variable or function of the kernel, with its type where BTF tells it.
    pub(super) fn kernel_address(&self, arguments: &[Expr], span: Span) -> Checked<Node> {
        let [name] = arguments else {
            return Err(one(Fault::new(span, "`kaddr` takes the name of a symbol of the kernel")));
        };
        let (name, at) = quoted(name, "kaddr")?;
        let target = match self.facts.variables(&name).unwrap_or_default()[..] {
            [Variable { per_cpu: Some(_), .. }, ..] => {
                let fault = Fault::new(at, format!("each CPU has a `{name}` of its own"));
                return Err(one(fault.help(format!("`this_cpu(\"{name}\")` or `per_cpu(\"{name}\", cpu)`"))));
            }
            [Variable { ty, .. }] => self.pointed_to(ty, span)?,
            _ => Target::Unknown,
        };
        let address = self.symbol(&name, at)?;
        Ok(pointer(constant(address as i64, span), target))
    }

    /// What a pointer to a variable points to: to its first element, if it is an array.
    fn pointed_to(&self, ty: TypeId, span: Span) -> Checked<Target> {
        let btf = self.btf(span)?;
        Ok(match btf.kind(btf.strip(ty).id) {
            Kind::Array { element, .. } => target(btf, element),
            _ => target(btf, ty),
        })
    }

    /// The address of a symbol of the kernel.
    fn symbol(&self, name: &str, at: Span) -> Checked<u64> {
        let Some(symbols) = self.facts.symbols() else {
            let fault = Fault::new(at, "the kernel's symbols are not known");
            return Err(one(fault.help("they are read from /proc/kallsyms")));
        };
        match symbols.addresses(name)[..] {
            [_] if symbols.are_hidden() => Err(one(Fault::new(at, "the kernel hides the addresses of its symbols")
                .help("root may see them where /proc/sys/kernel/kptr_restrict is 0 or 1"))),
            [address] => Ok(address),
            [] if !self.names_variables() => Err(one(no_variables(at).help(format!("`{name}` is not in it")))),
            [] => {
                let fault = Fault::new(at, format!("the kernel has no symbol `{name}`"));
                let prefix: String = name.chars().take(SAME).collect();
                let near = did_you_mean(name, symbols.all_beginning(&prefix));
                Err(one(fault.help(near.unwrap_or_else(|| "/proc/kallsyms lists them".to_owned()))))
            }
            ref all => Err(one(Fault::new(at, format!("the kernel has {} symbols `{name}`", all.len())))),
        }
    }

    /// `this_cpu("name")` and `per_cpu("name", cpu)`: a variable of which each CPU has its own.
    pub(super) fn per_cpu(&self, function: &str, arguments: &[Expr], span: Span) -> Checked<Walk> {
        let (name, cpu) = match (function, arguments) {
            ("this_cpu", [name]) => (name, Ok(this_cpu(span))),
            ("per_cpu", [name, cpu]) => (name, self.integer(cpu)),
            ("this_cpu", _) => return Err(one(Fault::new(span, "`this_cpu` takes the name of a per-CPU variable"))),
            _ => {
                let message = "`per_cpu` takes the name of a per-CPU variable, and the number of a CPU";
                return Err(one(Fault::new(span, message)));
            }
        };
        let variable = quoted(name, function).and_then(|(name, at)| {
            let (ty, offset) = self.per_cpu_variable(&name, at)?;
            // The address is that of the variable as the kernel was linked; no CPU has it there.
            Ok((ty, offset, if self.names_variables() { Some(self.symbol(&name, at)?) } else { None }))
        });
        let ((ty, offset, linked), cpu) = both(variable, cpu)?;
        let base = match linked {
            Some(address) => {
                let distance = pointer(self.per_cpu_distance(cpu, span)?, Target::Unknown);
                element(distance, constant(address as i64, span), 1, None)
            }
            None => self.beside_run_queue(offset, cpu, span)?,
        };
        Ok(Walk::Place { base, origin: Origin::Kernel, offset: 0, ty, bits: None })
    }

    /// `per_cpu_ptr(pointer, cpu)`: where a per-CPU pointer points to for that CPU.
    pub(super) fn per_cpu_pointer(&self, arguments: &[Expr], span: Span) -> Checked<Node> {
        let [of, cpu] = arguments else {
            return Err(one(Fault::new(span, "`per_cpu_ptr` takes a per-CPU pointer, and the number of a CPU")));
        };
        let (node, cpu) = both(self.walk(of).and_then(|walk| self.finish_per_cpu(walk, of.span)), self.integer(cpu))?;
        let Type::Pointer { target, origin: Origin::Kernel | Origin::Trusted } = &node.ty else {
            let message =
                format!("`per_cpu_ptr` takes a pointer of the kernel's, and this is {}", self.shown(&node.ty));
            return Err(one(Fault::new(of.span, message)));
        };
        let ty = Type::Pointer { target: target.clone(), origin: Origin::Kernel };
        Ok(Node { ty, span, ..element(node, self.per_cpu_distance(cpu, span)?, 1, None) })
    }

    /// The type of a per-CPU variable, and its distance from where a CPU's variables begin.
    fn per_cpu_variable(&self, name: &str, at: Span) -> Checked<(TypeId, u32)> {
        let no_facts = |error: FactError| one(Fault::new(at, error.to_string()));
        match self.facts.variables(name).map_err(no_facts)?[..] {
            [Variable { ty, per_cpu: Some(offset) }] => Ok((ty, offset)),
            [Variable { per_cpu: None, .. }, ..] => {
                let fault = Fault::new(at, format!("there is one `{name}` for all CPUs"));
                Err(one(fault.help(format!("`*kaddr(\"{name}\")`"))))
            }
            [] => {
                let fault = Fault::new(at, format!("this kernel's BTF has no per-CPU variable `{name}`"));
                let near = did_you_mean(name, self.facts.per_cpu_names().map_err(no_facts)?);
                let is_symbol = self.facts.symbols().is_some_and(|symbols| symbols.addresses(name).len() == 1);
                let there = is_symbol.then(|| format!("`kaddr(\"{name}\")` is a pointer to the symbol of that name"));
                Err(one(there.or(near).into_iter().fold(fault, Fault::help)))
            }
            ref all => Err(one(Fault::new(at, format!("the kernel has {} per-CPU variables `{name}`", all.len())))),
        }
    }

    /// How far a CPU's variables are from where the kernel was linked to have them; absent where there is no such CPU.
    fn per_cpu_distance(&self, cpu: Node, span: Span) -> Checked<Node> {
        let integer = Type::Integer { bytes: 8, signed: false };
        let at = if self.names_variables() {
            let all = pointer(constant(self.symbol(DISTANCES, span)? as i64, span), Target::Unknown);
            self.of_cpu(all, cpu, span)?
        } else {
            let own = self.facts.variables(OWN_DISTANCE).unwrap_or_default();
            let offset = own.iter().find_map(|variable| variable.per_cpu).ok_or_else(|| one(no_variables(span)))?;
            self.beside_run_queue(offset, cpu, span)?
        };
        Ok(scalar_at(at, Origin::Kernel, 8, integer, span))
    }

    /// The address of a CPU's variable that is so far from where its variables begin, by way of another of them.
    fn beside_run_queue(&self, offset: u32, cpu: Node, span: Span) -> Checked<Node> {
        let queue = self.run_queue(cpu, span).map_err(|_| one(no_variables(span)))?;
        let queues = self.facts.variables(RUN_QUEUES).unwrap_or_default();
        let from = queues.iter().find_map(|variable| variable.per_cpu).ok_or_else(|| one(no_variables(span)))?;
        Ok(element(queue, constant(i64::from(offset) - i64::from(from), span), 1, None))
    }

    /// A pointer to a CPU's run queue: `task.se.cfs_rq.tg.cfs_rq[cpu].rq`.
    fn run_queue(&self, cpu: Node, span: Span) -> Checked<Node> {
        let path = ["se", "cfs_rq", "tg", "cfs_rq"];
        let all =
            path.iter().try_fold(self.name("task", span)?, |walk, name| self.member_of(walk, name, span, span))?;
        let all = self.finish(all, span)?;
        let Type::Pointer { target: Target::Scalar(one_of_them), .. } = all.ty.clone() else { return Err(Vec::new()) };
        let of_cpu = scalar_at(self.of_cpu(all, cpu, span)?, Origin::Kernel, 8, *one_of_them, span);
        let queue = self.finish(self.member_of(Walk::Value(of_cpu), "rq", span, span)?, span)?;
        let is_queue = matches!(&queue.ty, Type::Pointer { target: Target::Type(_), .. });
        if is_queue { Ok(queue) } else { Err(Vec::new()) }
    }

    /// Help for the bare name of a variable of the kernel's.
    pub(super) fn kernels_own(&self, name: &str) -> Option<String> {
        match self.facts.variables(name).unwrap_or_default()[..] {
            [Variable { per_cpu: Some(_), .. }, ..] => Some(format!("each CPU has one: `this_cpu(\"{name}\")`")),
            _ if self.facts.symbols()?.addresses(name).len() == 1 => {
                Some(format!("`kaddr(\"{name}\")` is a pointer to the kernel's"))
            }
            _ => None,
        }
    }

    /// The element of a CPU in an array of 8 bytes for each.
    fn of_cpu(&self, all: Node, cpu: Node, span: Span) -> Checked<Node> {
        let cpus = self.facts.cpus();
        let cpus = cpus.ok_or_else(|| one(Fault::new(span, "it is not known how many CPUs there may be")))?;
        let is_there = match cpu.kind {
            NodeKind::Constant(cpu) => (0..i64::from(cpus)).contains(&cpu),
            ref kind => *kind == NodeKind::Builtin(Builtin::Cpu),
        };
        Ok(element(all, cpu, 8, if is_there { None } else { Some(cpus) }))
    }

    /// Whether the kernel's list of symbols has variables, such as this one, which every kernel for several CPUs has.
    fn names_variables(&self) -> bool {
        self.facts.symbols().is_some_and(|symbols| !symbols.addresses(DISTANCES).is_empty())
    }
}

/// A symbol's name, which stands in quotes: no name of the language can be taken for it, nor it for one.
fn quoted(expr: &Expr, function: &str) -> Checked<(String, Span)> {
    match &expr.kind {
        ExprKind::Text(name) => Ok((String::from_utf8_lossy(name).into_owned(), expr.span)),
        ExprKind::Name(name) => {
            Err(one(Fault::new(expr.span, "the symbol's name stands in quotes").help(format!("`\"{name}\"`"))))
        }
        _ => Err(one(Fault::new(expr.span, format!("`{function}` takes the name of a symbol, in quotes")))),
    }
}

fn no_variables(at: Span) -> Fault {
    Fault::new(at, "this kernel does not tell where its variables are")
        .help("its list of symbols (/proc/kallsyms) names functions only: it is built without CONFIG_KALLSYMS_ALL")
}

fn this_cpu(span: Span) -> Node {
    Node { kind: NodeKind::Builtin(Builtin::Cpu), ty: Type::Integer { bytes: 4, signed: false }, span }
}

fn constant(value: i64, span: Span) -> Node {
    Node { kind: NodeKind::Constant(value), ty: Type::Integer { bytes: 8, signed: false }, span }
}

/// A number as a pointer of the kernel's.
fn pointer(address: Node, target: Target) -> Node {
    let span = address.span;
    Node { kind: NodeKind::Cast(Box::new(address)), ty: Type::Pointer { target, origin: Origin::Kernel }, span }
}
