//! Expressions typed against one attach point.
//!
//! The problem: `args.p.real_parent.tgid` names things of three kinds (an argument, a pointer in a structure, an
//! integer in another), and only BTF and the tracepoint's format tell which. The idea: while a path is walked it is a
//! *place*, an address with a type (`base + offset`); it becomes a *value* only where one is needed, and there the type
//! decides how it is read (an integer is loaded, an array of characters is a text, a structure as a whole is a fault).
//! So a walk through embedded structures costs no instruction, and each pointer on the way is one read.
//!
//! Invariants: a [`Node`] that leaves here has operands of the types its kind asks for. Constants are folded. Every
//! fault names what would work.

mod bytes;
mod calls;
mod flags;
mod kfunc;
mod memory;
mod names;
mod network;
mod operators;
mod path;
mod places;
mod symbols;
mod trust;
mod types;
mod walk;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use super::attach::Value;
use super::bounds::COMM;
use super::diagnostic::{Fault, Span, did_you_mean};
use super::familiar;
use super::pointer::Trust;
use super::points::Points;
use super::session;
use super::syntax::{Expr, ExprKind, UnaryOp};
use super::uses::Uses;
use super::{AttachPoint, Builtin, Names, Node, NodeKind, Origin, PointName, Target, Type};
use crate::kernel::{Btf, KernelFacts, TypeId};
pub use kfunc::MAX_SEARCHED;
use walk::Item;
pub use walk::MAX_NESTED_WALKS;

/// The structure behind `task`.
const TASK: &str = "task_struct";

/// Names that a `bind` step cannot take. Not `path` or `flags`: what is read of an argument is often called so, and
/// what stands in front of parentheses is a function anyway.
#[rustfmt::skip]
pub const RESERVED: &[&str] = &[
    "pid", "tid", "uid", "gid", "comm", "cpu", "nsecs", "cgroup", "task", "args", "str", "retval", "duration", "probe", "func",
    "ctx", "reg", "kstack", "ustack", "true", "false", "sizeof", "null", "offsetof", "container_of", "typeof", "in",
    "struct", "union", "enum", "unsigned", "signed", "char", "short", "int", "long", "void", "bool", "const",
    "starts_with", "ends_with", "contains",
    "user", "kernel", "kaddr", "this_cpu", "per_cpu", "per_cpu_ptr",
];

const BUILTINS: [(&str, Builtin); 9] = [
    ("pid", Builtin::Pid),
    ("tid", Builtin::Tid),
    ("uid", Builtin::Uid),
    ("gid", Builtin::Gid),
    ("cpu", Builtin::Cpu),
    ("nsecs", Builtin::Nsecs),
    ("cgroup", Builtin::Cgroup),
    ("task", Builtin::Task),
    ("duration", Builtin::Duration),
];

type Checked<T> = Result<T, Vec<Fault>>;

/// Types the expressions of one body at one attach point, in the order of its steps.
pub struct Checker<'a> {
    facts: &'a KernelFacts,
    attach: &'a AttachPoint,
    /// All attach points of the probe.
    points: &'a Points,
    /// Which of them it is.
    number: i64,
    /// What `bind` steps named; none where the value was faulty, which has been told.
    bindings: HashMap<String, (u32, Option<Type>)>,
    /// How far the verifier trusts each of them, by its number.
    trusted: Vec<Trust>,
    /// The objects at hand of the walks that the expression at hand stands in.
    items: RefCell<Vec<Item>>,
    /// The kfuncs that the declaration lists.
    uses: &'a Uses,
    reads_registers: Cell<bool>,
    measures: Cell<bool>,
    walks: Cell<bool>,
    sleeps: Cell<bool>,
}

/// A path while it is walked.
enum Walk {
    Value(Node),
    /// What lies at `base + offset`. `base` is a pointer.
    Place {
        base: Node,
        origin: Origin,
        offset: u32,
        ty: TypeId,
        bits: Option<(u32, u32)>,
    },
    /// `args`, of which only fields are values.
    Arguments,
}

impl From<Value> for Walk {
    fn from(value: Value) -> Walk {
        match value {
            Value::Node(node) => Walk::Value(node),
            Value::Structure { base, offset, ty } => {
                Walk::Place { base, origin: Origin::Kernel, offset, ty, bits: None }
            }
        }
    }
}

impl<'a> Checker<'a> {
    /// `number` is that of `attach` among the probe's attach points.
    pub fn new(
        facts: &'a KernelFacts,
        attach: &'a AttachPoint,
        points: &'a Points,
        number: i64,
        uses: &'a Uses,
    ) -> Checker<'a> {
        Checker {
            facts,
            attach,
            points,
            number,
            bindings: HashMap::new(),
            trusted: Vec::new(),
            items: RefCell::default(),
            uses,
            reads_registers: Cell::new(false),
            measures: Cell::new(false),
            walks: Cell::new(false),
            sleeps: Cell::new(false),
        }
    }

    /// How many values have been bound.
    pub fn locals(&self) -> u32 {
        self.bindings.len() as u32
    }

    /// Whether they ask how long a function took.
    pub fn measures(&self) -> bool {
        self.measures.get()
    }

    /// Whether `reg()` has been read.
    pub fn reads_registers(&self) -> bool {
        self.reads_registers.get()
    }

    /// Whether something is called that may sleep.
    pub fn sleeps(&self) -> bool {
        self.sleeps.get()
    }

    /// Whether something has been walked over.
    pub fn walks(&self) -> bool {
        self.walks.get()
    }

    /// Names a value for the expressions to come: none where it was faulty.
    pub fn bind(&mut self, name: &str, value: Option<&Node>) -> u32 {
        let local = self.bindings.len() as u32;
        self.trusted.push(value.map_or(Trust::Nothing, |node| self.trust(node)));
        self.bindings.insert(name.to_owned(), (local, value.map(|node| node.ty.clone())));
        local
    }

    /// The expression as a value of any type.
    pub fn value(&self, expr: &Expr) -> Checked<Node> {
        let walk = self.walk(expr)?;
        self.finish(walk, expr.span)
    }

    /// Refuses an expression that would sleep where it must not.
    pub fn awake(&self, node: Node) -> Checked<Node> {
        if !self.sleeps.get() || !node.sleeps() || !node.needs_rcu() {
            return Ok(node);
        }
        let fault = Fault::new(node.span, "this may sleep while it uses what RCU protects, which would be gone then");
        Err(one(fault.help("a `bind` step for one of the two, and an expression of its own for the other")))
    }

    /// Whether what RCU protects can be used here: in programs that may sleep it takes sections of their own, which not
    /// all kernels have.
    pub fn has_sections(&self) -> Result<(), Fault> {
        if !self.sleeps.get() || self.facts.kfunc("bpf_rcu_read_lock").is_ok_and(|found| found.is_some()) {
            return Ok(());
        }
        let message = "RCU protects this, and where something else in the probe may sleep, this kernel cannot keep it (bpf_rcu_read_lock, since Linux 6.2)";
        Err(Fault::new(Span::default(), message).help("a probe of its own for what may sleep"))
    }

    /// The expression as something that is 0 or not.
    pub fn condition(&self, expr: &Expr) -> Checked<Node> {
        let node = self.value(expr)?;
        match node.ty {
            Type::Text { .. } => {
                Err(one(Fault::new(expr.span, "a text is neither true nor false").help("compare it: `… == \"…\"`")))
            }
            Type::Point(_) | Type::Bytes { .. } | Type::Ip | Type::Mac => Err(self.no_condition(&node)),
            Type::Symbol(_) | Type::Stack { .. } => Err(self.only_sent(&node)),
            _ => Ok(node),
        }
    }

    fn no_condition(&self, node: &Node) -> Vec<Fault> {
        let verb = if let Type::Bytes { .. } = node.ty { "are" } else { "is" };
        let message = format!("{} {verb} neither true nor false", self.shown(&node.ty));
        let help = if node.ty.is_octets() { "" } else { ", `starts_with(…, \"…\")`" };
        one(Fault::new(node.span, message).help(format!("compare it: `… == \"…\"`{help}")))
    }

    fn walk(&self, expr: &Expr) -> Checked<Walk> {
        let span = expr.span;
        match &expr.kind {
            ExprKind::Integer(value) => Ok(Walk::Value(Node {
                kind: NodeKind::Constant(*value as i64),
                ty: Type::Integer { bytes: 8, signed: i64::try_from(*value).is_ok() },
                span,
            })),
            ExprKind::Text(bytes) => {
                let ty = Type::Text { max: bytes.len() as u32 };
                Ok(Walk::Value(Node { kind: NodeKind::Literal(bytes.clone()), ty, span }))
            }
            ExprKind::Name(name) => self.name(name, span),
            ExprKind::Field { base, name, at } => self.field(base, name, *at),
            ExprKind::Index { base, index } => self.index(base, index),
            ExprKind::Call { name, arguments, .. } if matches!(name.as_str(), "this_cpu" | "per_cpu") => {
                self.per_cpu(name, arguments, span)
            }
            ExprKind::Call { name, at, arguments } => self.call(name, *at, arguments, span).map(Walk::Value),
            ExprKind::Unary { op: UnaryOp::Dereference, value } => self.dereference(value, span),
            ExprKind::Unary { op: UnaryOp::AddressOf, value } => self.address_of(value, span).map(Walk::Value),
            ExprKind::Unary { op, value } => self.unary(*op, value, span).map(Walk::Value),
            ExprKind::Cast { ty, value } => self.cast(ty, value, span).map(Walk::Value),
            ExprKind::SizeOfType(ty) => self.size_of_type(ty, span).map(Walk::Value),
            ExprKind::SizeOf(value) => self.size_of(value, span).map(Walk::Value),
            ExprKind::OffsetOf { ty, path } => self.offset_of(ty, path, span).map(Walk::Value),
            ExprKind::ContainerOf { pointer, ty, path } => self.container_of(pointer, ty, path, span).map(Walk::Value),
            ExprKind::Binary { op, at, left, right } => self.binary(*op, *at, left, right, span).map(Walk::Value),
            ExprKind::In { value, set } => self.is_in(value, set, span).map(Walk::Value),
            ExprKind::Conditional { condition, then, otherwise } => {
                self.conditional(condition, then, otherwise, span).map(Walk::Value)
            }
        }
    }

    fn name(&self, name: &str, span: Span) -> Checked<Walk> {
        if let Some((local, ty)) = self.bindings.get(name) {
            // A faulty binding has been told where it stands; what uses it says nothing more.
            let ty = ty.clone().ok_or_else(Vec::new)?;
            return Ok(Walk::Value(Node { kind: NodeKind::Local(*local), ty, span }));
        }
        if let Some(item) = self.item(name, span) {
            return Ok(Walk::Value(item));
        }
        let integer = |bytes, signed| Type::Integer { bytes, signed };
        let ty = match name {
            "args" => return Ok(Walk::Arguments),
            "comm" => {
                return Ok(Walk::Value(Node { kind: NodeKind::Comm, ty: Type::Text { max: COMM - 1 }, span }));
            }
            "true" | "false" => {
                let kind = NodeKind::Constant(i64::from(name == "true"));
                return Ok(Walk::Value(Node { kind, ty: Type::Boolean, span }));
            }
            "probe" => return Ok(Walk::Value(self.point(PointName::Probe, span))),
            "func" if self.attach.function().is_some() => {
                return Ok(Walk::Value(self.point(PointName::Function, span)));
            }
            "func" => {
                let fault = Fault::new(span, "this attach point is at no function that has a name");
                return Err(one(fault.help("`probe` is the attach point's own name")));
            }
            "kstack" | "ustack" => return self.stack(name, &[], span).map(Walk::Value),
            "pid" | "tid" | "uid" | "gid" | "cpu" => integer(4, false),
            "nsecs" | "cgroup" => integer(8, false),
            "duration" => {
                self.measure(span)?;
                integer(8, false)
            }
            "task" => {
                let btf = self.btf(span)?;
                let id = btf.structure(TASK).ok_or_else(|| one(Fault::new(span, "BTF has no struct task_struct")))?;
                Type::Pointer { target: Target::Type(id), origin: Origin::Trusted }
            }
            _ => {
                return match self.attach.name(name, self.facts, span) {
                    Some(here) => here.map(Walk::from).map_err(one),
                    None => self.constant(name, span).map(Walk::Value),
                };
            }
        };
        let builtin = BUILTINS.iter().find(|(n, _)| *n == name).map(|(_, b)| *b);
        let builtin = builtin.ok_or_else(|| one(self.unknown_name(name, span)))?;
        Ok(Walk::Value(Node { kind: NodeKind::Builtin(builtin), ty, span }))
    }

    /// `probe`, `func`. A program that served several attach points would read the number instead.
    fn point(&self, name: PointName, span: Span) -> Node {
        Node { kind: NodeKind::Constant(self.number), ty: Type::Point(name), span }
    }

    fn measure(&self, span: Span) -> Checked<()> {
        session::offered(self.attach, self.facts, span).map_err(one)?;
        self.measures.set(true);
        self.registers_are_told(span)
    }

    /// Programs at both entry and return of the kernel's functions are called by ftrace, which does not save all
    /// registers.
    fn registers_are_told(&self, span: Span) -> Checked<()> {
        let is_by_ftrace = matches!(self.attach, AttachPoint::Function(_)) && self.measures.get();
        if !(is_by_ftrace && self.reads_registers.get()) {
            return Ok(());
        }
        let fault = Fault::new(
            span,
            "at `kretprobe`, `duration` and `reg` do not go together: where the entry is traced, too, not all registers are kept",
        );
        Err(one(fault.help("two probes can have one each")))
    }

    fn unknown_name(&self, name: &str, span: Span) -> Fault {
        let fault = Fault::new(span, format!("unknown name `{name}`"));
        if self.attach.argument_names().iter().any(|a| a == name) {
            return fault.help(format!("there is `args.{name}`"));
        }
        if let Some(help) = familiar::name(name) {
            return fault.help(help);
        }
        if calls::is_function(name) || self.uses.get(name).is_some() || walk::asked(name).is_some() {
            return Fault::new(span, format!("`{name}` is a function, and takes what it works on in parentheses"));
        }
        if let Some(help) = self.kernels_own(name).or_else(|| self.near_constant(name)) {
            return fault.help(help);
        }
        let known = BUILTINS.iter().map(|(n, _)| *n).chain(["comm", "args", "probe"]);
        let bound = self.bindings.keys().map(String::as_str);
        match did_you_mean(name, known.chain(bound)) {
            Some(help) => fault.help(help),
            None => fault
                .help("there are pid, tid, uid, gid, comm, cpu, nsecs, cgroup, task, args and what `bind` steps name"),
        }
    }

    /// `args.name`.
    fn argument(&self, name: &str, at: Span) -> Checked<Walk> {
        match self.attach.argument(name, self.facts, at) {
            Some(argument) => argument.map(Walk::from).map_err(one),
            None => Err(one(self.unknown_argument(name, at))),
        }
    }

    fn unknown_argument(&self, name: &str, at: Span) -> Fault {
        let names = self.attach.argument_names();
        let fault = Fault::new(at, format!("`args` has no field `{name}` here"));
        if let AttachPoint::User(_) = self.attach {
            return fault.help("arguments have numbers here: `arg0`, `arg1`, …");
        }
        match did_you_mean(name, names.iter().map(String::as_str)) {
            Some(help) => fault.help(help),
            None if name.starts_with("common_") => {
                fault.help("what all formats have is left out; `tid`, `cpu` and the like say the same")
            }
            None if names.is_empty() => fault.help("this attach point has no arguments"),
            None => fault.help(format!("it has {}", listed(&names))),
        }
    }

    fn btf(&self, span: Span) -> Checked<&'a Btf> {
        self.facts.btf().map_err(|error| one(Fault::new(span, error.to_string())))
    }

    /// A type in words, with its article.
    fn shown(&self, ty: &Type) -> String {
        match ty {
            Type::Integer { bytes, signed } => {
                format!(
                    "{} integer of {} bits",
                    if *signed { "a signed" } else { "an unsigned" },
                    u32::from(*bytes) * 8
                )
            }
            Type::Boolean => "a boolean".to_owned(),
            Type::Enumeration { names: names @ Names::Kernel(_), .. } => {
                format!("a value of {}", names.shown(self.facts))
            }
            Type::Enumeration { names, .. } => names.shown(self.facts),
            Type::Text { .. } => "a text".to_owned(),
            Type::Symbol(_) => "an address with its name".to_owned(),
            Type::Stack { .. } => "a call stack".to_owned(),
            Type::Bytes { .. } => "bytes".to_owned(),
            Type::Flags { bytes, .. } => format!("flags of {} bits", u32::from(*bytes) * 8),
            Type::Ip => "an IP address".to_owned(),
            Type::Mac => "a hardware address".to_owned(),
            Type::Point(PointName::Probe) => "the name of an attach point".to_owned(),
            Type::Point(PointName::Function) => "the name of a function".to_owned(),
            Type::Pointer { target, origin } => {
                let of = if *origin == Origin::User { "a user pointer" } else { "a pointer" };
                match (target, self.facts.btf()) {
                    (Target::Char, _) => format!("{of} to char"),
                    (Target::Type(id), Ok(btf)) => format!("{of} to `{}`", btf.c_name(*id)),
                    (Target::Scalar(ty), _) => format!("{of} to {}", self.shown(ty)),
                    _ => of.to_owned(),
                }
            }
        }
    }
}

/// Both results, or the faults of both.
fn both<T, U>(a: Checked<T>, b: Checked<U>) -> Checked<(T, U)> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (Err(mut a), Err(b)) => {
            a.extend(b);
            Err(a)
        }
        (Err(faults), _) | (_, Err(faults)) => Err(faults),
    }
}

fn one(fault: Fault) -> Vec<Fault> {
    vec![fault]
}

/// "a, b, c", the first dozen.
fn listed(names: &[String]) -> String {
    let mut text = names.iter().take(12).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > 12 {
        text.push_str(&format!(" and {} more", names.len() - 12));
    }
    text
}
