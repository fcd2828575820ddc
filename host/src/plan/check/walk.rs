//! Walks over what the kernel's iterators give: `count(tasks(), t, t.state == 0)`.
//!
//! Each names what is walked over, a name for the object at hand, and what is asked of each. The name means something
//! in what stands behind it alone.

use super::super::diagnostic::{Fault, Span, did_you_mean};
use super::super::kfunc::{self, Argument, Does, Over};
use super::super::pointer::{Trust, target};
use super::super::syntax::{Expr, ExprKind};
use super::super::uses::Used;
use super::super::{Node, NodeKind, Origin, Target, Type};
use super::types::meaning_of;
use super::{Checked, Checker, RESERVED, Walk, both, one};
use crate::kernel::kfunc::known;
use crate::kernel::{Answer, Kind};

/// Walks inside one another at most.
pub const MAX_NESTED_WALKS: usize = 2;

/// What is done with the objects: the word, and whether a value is taken of each.
const WALKS: [(&str, Does, bool); 7] = [
    ("count", Does::Count, false),
    ("any", Does::Any, false),
    ("all", Does::All, false),
    ("first", Does::First, true),
    ("sum", Does::Sum, true),
    ("max", Does::Max, true),
    ("min", Does::Min, true),
];

/// What can be walked over: the word, the iterator, what is passed to it, and how far the verifier trusts what it
/// gives.
struct Source {
    word: &'static str,
    iterator: &'static str,
    takes: &'static [Takes],
    /// As it is called.
    form: &'static str,
    trust: Trust,
}

/// What `new` of an iterator is passed.
#[derive(Clone, Copy)]
enum Takes {
    Null,
    /// A constant of the kernel's, by its name.
    Named(&'static str),
    Zero,
    /// A pointer to a task.
    Task,
    /// A pointer to a thread, of whose process the first is passed: a walk over threads begins where it is told.
    Leader,
    /// A pointer to a cgroup or to what it is of a controller.
    Css,
    Number,
    Address,
}

#[rustfmt::skip]
const SOURCES: [Source; 12] = [
    Source { word: "tasks", iterator: "task", takes: &[Takes::Null, Takes::Named("BPF_TASK_ITER_ALL_PROCS")], form: "tasks()", trust: Trust::Rcu },
    Source { word: "threads", iterator: "task", takes: &[Takes::Null, Takes::Named("BPF_TASK_ITER_ALL_THREADS")], form: "threads()", trust: Trust::Rcu },
    Source { word: "threads", iterator: "task", takes: &[Takes::Leader, Takes::Named("BPF_TASK_ITER_PROC_THREADS")], form: "threads(task)", trust: Trust::Rcu },
    Source { word: "vmas", iterator: "task_vma", takes: &[Takes::Task, Takes::Zero], form: "vmas(task)", trust: Trust::Full },
    Source { word: "vmas", iterator: "task_vma", takes: &[Takes::Task, Takes::Number], form: "vmas(task, address)", trust: Trust::Full },
    Source { word: "descendants", iterator: "css", takes: &[Takes::Css, Takes::Named("BPF_CGROUP_ITER_DESCENDANTS_PRE")], form: "descendants(cgroup)", trust: Trust::Rcu },
    Source { word: "ancestors", iterator: "css", takes: &[Takes::Css, Takes::Named("BPF_CGROUP_ITER_ANCESTORS_UP")], form: "ancestors(cgroup)", trust: Trust::Rcu },
    Source { word: CHILDREN, iterator: "css", takes: &[Takes::Css, Takes::Named("BPF_CGROUP_ITER_DESCENDANTS_PRE")], form: "children(cgroup)", trust: Trust::Rcu },
    Source { word: "css_tasks", iterator: "css_task", takes: &[Takes::Css, Takes::Zero], form: "css_tasks(cgroup)", trust: Trust::Full },
    Source { word: "css_tasks", iterator: "css_task", takes: &[Takes::Css, Takes::Number], form: "css_tasks(cgroup, flags)", trust: Trust::Full },
    Source { word: "numbers", iterator: "num", takes: &[Takes::Number, Takes::Number], form: "numbers(from, to)", trust: Trust::Nothing },
    Source { word: "bits", iterator: "bits", takes: &[Takes::Address, Takes::Number], form: "bits(address, words)", trust: Trust::Nothing },
];

/// Of the descendants those right below: kernels before 7.x have no iterator for them alone.
const CHILDREN: &str = "children";

/// An object at hand.
pub struct Item {
    name: String,
    ty: Type,
    pub trust: Trust,
}

/// What the word asks of a walk, if it is such a word.
pub(super) fn asked(word: &str) -> Option<(Does, bool)> {
    WALKS.iter().find(|(known, ..)| *known == word).map(|(_, does, value)| (*does, *value))
}

impl Source {
    /// How many of its arguments are written.
    fn written(&self) -> usize {
        self.takes.iter().filter(|t| !matches!(t, Takes::Null | Takes::Named(_) | Takes::Zero)).count()
    }
}

impl Checker<'_> {
    /// Whether there are objects at hand.
    pub(super) fn is_in_walk(&self) -> bool {
        !self.items.borrow().is_empty()
    }

    /// The object at hand of this name.
    pub(super) fn item(&self, name: &str, span: Span) -> Option<Node> {
        let items = self.items.borrow();
        let depth = items.iter().rposition(|item| item.name == name)?;
        Some(Node { kind: NodeKind::Item(depth as u32), ty: items[depth].ty.clone(), span })
    }

    pub(super) fn walked(
        &self,
        word: &str,
        (does, valued): (Does, bool),
        arguments: &[Expr],
        span: Span,
    ) -> Checked<Node> {
        let form = if valued {
            format!("`{word}(tasks(), t, condition, value)`")
        } else {
            format!("`{word}(tasks(), t, condition)`")
        };
        let (over, rest) = match arguments {
            [over] if does == Does::Count => (over, None),
            [over, name, condition] => (over, Some((name, condition, None))),
            [over, name, condition, value] if valued => (over, Some((name, condition, Some(value)))),
            _ => {
                let message = format!("`{word}` takes what is walked over, a name for each, and what is asked of it");
                let fault = Fault::new(span, message).help(form);
                return Err(one(match arguments.first().map(|over| &over.kind) {
                    Some(ExprKind::Call { .. }) => fault,
                    // As bpftrace's aggregations are written.
                    _ => fault.help("maps are not there yet"),
                }));
            }
        };
        if self.items.borrow().len() >= MAX_NESTED_WALKS {
            return Err(one(Fault::new(span, format!("walks stand at most {MAX_NESTED_WALKS} deep in one another"))));
        }
        if self.is_missing(over) {
            // Of the objects' types this kernel says nothing.
            let ty = match does {
                Does::Any | Does::All => Type::Boolean,
                _ => Type::Integer { bytes: 8, signed: false },
            };
            return Ok(Node { kind: NodeKind::Absent, ty, span });
        }
        let (over, item) = self.over(over)?;
        let depth = self.items.borrow().len() as u32;
        self.walks.set(true);
        let (condition, value) = match rest {
            None => (None, None),
            Some((name, asked, value)) => {
                let name = self.item_name(name)?;
                self.items.borrow_mut().push(Item { name, ..item });
                // With three arguments, what takes values takes the last for one.
                let found = match (value, valued) {
                    (Some(value), _) => {
                        both(self.condition(asked), self.taken(does, value)).map(|(c, v)| (Some(c), Some(v)))
                    }
                    (None, true) => self.taken(does, asked).map(|value| (None, Some(value))),
                    (None, false) => self.condition(asked).map(|condition| (Some(condition), None)),
                };
                self.items.borrow_mut().pop();
                found?
            }
        };
        let ty = match (does, &value) {
            (Does::Any | Does::All, _) => Type::Boolean,
            (Does::Count, _) | (_, None) => Type::Integer { bytes: 8, signed: false },
            (Does::First, Some(value)) => match &value.ty {
                Type::Pointer { target, origin: Origin::Trusted } => {
                    Type::Pointer { target: target.clone(), origin: Origin::Kernel }
                }
                ty => ty.clone(),
            },
            (_, Some(value)) => {
                let unsigned = matches!(value.ty.integer(), Some((8, false)));
                Type::Integer { bytes: 8, signed: !unsigned }
            }
        };
        let walk = kfunc::Walk { over, does, condition, value, depth };
        Ok(Node { kind: NodeKind::Walk(Box::new(walk)), ty, span })
    }

    fn taken(&self, does: Does, value: &Expr) -> Checked<Node> {
        if does == Does::First { self.value(value) } else { self.integer(value) }
    }

    fn item_name(&self, expr: &Expr) -> Checked<String> {
        let ExprKind::Name(name) = &expr.kind else {
            let fault = Fault::new(expr.span, "a name for the object at hand is wanted here");
            return Err(one(fault.help("`count(tasks(), t, t.pid > 1)`")));
        };
        let taken = RESERVED.contains(&name.as_str())
            || self.bindings.contains_key(name)
            || self.items.borrow().iter().any(|item| item.name == *name);
        if taken {
            return Err(one(Fault::new(expr.span, format!("`{name}` means something already"))));
        }
        Ok(name.clone())
    }

    /// What is walked over, and what an object of it is.
    fn over(&self, expr: &Expr) -> Checked<(Over, Item)> {
        let forms = || SOURCES.iter().map(|source| format!("`{}`", source.form)).collect::<Vec<_>>().join(", ");
        let ExprKind::Call { name, at, arguments } = &expr.kind else {
            let fault = Fault::new(expr.span, "this is nothing that can be walked over");
            return Err(one(fault.help(format!("there are {}", forms()))));
        };
        let named: Vec<&Source> = SOURCES.iter().filter(|source| source.word == name).collect();
        if named.is_empty() {
            let fault = Fault::new(*at, format!("`{name}` is nothing that can be walked over"));
            let near = did_you_mean(name, SOURCES.iter().map(|source| source.word));
            return Err(one(fault.help(near.unwrap_or_else(|| format!("there are {}", forms())))));
        }
        let Some(source) = named.iter().find(|source| source.written() == arguments.len()) else {
            let forms: Vec<String> = named.iter().map(|source| format!("`{}`", source.form)).collect();
            let fault = Fault::new(expr.span, format!("it is written {}", forms.join(" or ")));
            return Err(one(fault));
        };
        let [new, next, destroy] =
            ["new", "next", "destroy"].map(|what| format!("bpf_iter_{}_{what}", source.iterator));
        self.listed_iterator(&new, *at)?;
        let (mut passed, mut faults, mut written) = (Vec::new(), Vec::new(), arguments.iter());
        for takes in source.takes {
            match self.passed_to_iterator(*takes, source, &mut written, expr.span) {
                Ok(argument) => passed.push(argument),
                Err(found) => faults.extend(found),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let function = |name: &str| {
            self.callable_here(name)
                .map(|(function, _)| function)
                .ok_or_else(|| one(Fault::new(*at, format!("`{name}` cannot be called here"))))
        };
        let btf = self.btf(*at)?;
        let bytes =
            btf.structure(&format!("bpf_iter_{}", source.iterator)).and_then(|id| super::places::size_of(btf, id));
        let given = self.facts.kfunc(&next).ok().flatten().and_then(|next| meaning_of(btf, next.result));
        let (Some(bytes), Some(Type::Pointer { target, .. })) = (bytes, given) else {
            return Err(one(Fault::new(*at, "what this kernel's iterator gives is not known")));
        };
        let (number, ty) = match target {
            Target::Scalar(ty) => match ty.integer() {
                Some((bytes, signed)) => (Some((bytes, signed)), *ty),
                None => return Err(one(Fault::new(*at, "what this kernel's iterator gives is not known"))),
            },
            target => (None, Type::Pointer { target, origin: Origin::Trusted }),
        };
        let below = match (source.word == CHILDREN, &ty) {
            (true, Type::Pointer { target: Target::Type(id), .. }) => {
                Some(self.find_member(*id, "parent", *at)?.bit_offset / 8)
            }
            _ => None,
        };
        let over = Over {
            below,
            new: function(&new)?,
            next: function(&next)?,
            destroy: function(&destroy)?,
            bytes,
            arguments: passed,
            number,
            rcu: source.trust == Trust::Rcu,
        };
        Ok((over, Item { name: String::new(), ty, trust: source.trust }))
    }

    /// Whether this is walked over by an iterator that this kernel lacks, which the declaration is prepared for.
    fn is_missing(&self, expr: &Expr) -> bool {
        let ExprKind::Call { name, .. } = &expr.kind else { return false };
        let source = SOURCES.iter().find(|source| source.word == name);
        source.is_some_and(|source| {
            matches!(self.uses.get(&format!("bpf_iter_{}_new", source.iterator)), Some(Used::Missing(_)))
        })
    }

    /// An iterator is listed by the function that makes it.
    fn listed_iterator(&self, new: &str, at: Span) -> Checked<()> {
        match self.uses.get(new) {
            Some(Used::Here(_)) => {}
            Some(Used::Faulty) => return Err(Vec::new()),
            // Told before.
            Some(Used::Missing(_)) => return Err(Vec::new()),
            None => {
                let fault = Fault::new(at, format!("this walks by `{new}`, which the declaration does not list"));
                return Err(one(fault.help(format!("add `{new}` to its `kfuncs`"))));
            }
        }
        if let Answer::No(_) = self.facts.may_call(new, self.attach.program_kind(false)) {
            return Err(one(self.not_from_here(new, at)));
        }
        known(new).map(|_| ()).ok_or_else(Vec::new)
    }

    fn passed_to_iterator<'e>(
        &self,
        takes: Takes,
        source: &Source,
        written: &mut impl Iterator<Item = &'e Expr>,
        span: Span,
    ) -> Checked<Argument> {
        let number = |value| {
            let ty = Type::Integer { bytes: 8, signed: true };
            Ok(Argument::Number(Node { kind: NodeKind::Constant(value), ty, span }))
        };
        let mut next = || written.next().ok_or_else(Vec::new);
        match takes {
            Takes::Null | Takes::Zero => number(0),
            Takes::Named(name) => match self.btf(span)?.enumerators(name).first() {
                Some((_, value)) => number(*value),
                None => Err(one(Fault::new(span, format!("this kernel's iterator does not know `{name}`")))),
            },
            Takes::Number => self.integer(next()?).map(Argument::Number),
            Takes::Address => {
                let expr = next()?;
                let node = self.value(expr)?;
                match node.ty {
                    Type::Pointer { .. } => Ok(Argument::Number(node)),
                    ref ty => {
                        let message = format!("`{}` takes an address, and this is {}", source.word, self.shown(ty));
                        Err(one(Fault::new(expr.span, message)))
                    }
                }
            }
            Takes::Task | Takes::Leader => {
                let expr = next()?;
                let node = self.pointed(expr)?;
                let node = self.pointer_to("task_struct", Trust::Rcu, node, source, expr.span)?;
                if let Takes::Task = takes {
                    return Ok(Argument::Pointer(node));
                }
                let leader = self.member_of(Walk::Value(node), "group_leader", expr.span, expr.span)?;
                let leader = self.finish(leader, expr.span)?;
                self.trusted(leader, Trust::Full, "`threads`", expr.span).map(Argument::Pointer)
            }
            Takes::Css => {
                let expr = next()?;
                let node = self.pointed(expr)?;
                let btf = self.btf(span)?;
                let of_cgroup = |id| btf.tag(id) == "cgroup";
                match node.ty {
                    // A cgroup has what it is as such at a place of its own.
                    Type::Pointer { target: Target::Type(id), .. } if of_cgroup(id) => {
                        let cgroup = self.pointer_to("cgroup", Trust::Full, node, source, expr.span)?;
                        let member = self.find_member(id, "self", expr.span)?;
                        let ty = Type::Pointer { target: target(btf, member.ty), origin: Origin::Trusted };
                        let offset = member.bit_offset / 8;
                        if offset == 0 {
                            return Ok(Argument::Pointer(cgroup));
                        }
                        let kind = NodeKind::Address { base: Box::new(cgroup), offset };
                        Ok(Argument::Pointer(Node { kind, ty, span: expr.span }))
                    }
                    _ => self
                        .pointer_to("cgroup_subsys_state", Trust::Full, node, source, expr.span)
                        .map(Argument::Pointer),
                }
            }
        }
    }

    fn pointer_to(&self, structure: &str, trust: Trust, node: Node, source: &Source, span: Span) -> Checked<Node> {
        let btf = self.btf(span)?;
        let is_it = matches!(node.ty, Type::Pointer { target: Target::Type(id), .. }
            if matches!(btf.kind(id), Kind::Struct { .. }) && btf.tag(id) == structure);
        if !is_it {
            let message = format!(
                "`{}` takes a pointer to `struct {structure}`, and this is {}",
                source.word,
                self.shown(&node.ty)
            );
            return Err(one(Fault::new(span, message)));
        }
        self.trusted(node, trust, &format!("`{}`", source.word), span)
    }
}
