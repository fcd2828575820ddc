//! Typed expressions.

use super::arithmetic;
use super::bits::FlagNames;
use super::kfunc::{Argument, Call, Found, Walk};
use super::named::Names;
use super::{PointName, Span};
use crate::kernel::TypeId;

/// A typed expression. Integers, booleans and pointers are 64 bits wide while they are computed with, whatever their
/// type says; they are sign- or zero-extended when they are read. Any node may be absent, which makes each node that
/// uses it absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub kind: NodeKind,
    pub ty: Type,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeKind {
    Constant(i64),
    Builtin(Builtin),
    /// So many bytes of the program's context, extended as the type says.
    Context {
        offset: u32,
        bytes: u8,
    },
    /// A pointer or integer argument of a program whose context is arguments (tp_btf, fentry, fexit, lsm): always read
    /// as 8 bytes, then narrowed as the type says. `access` is how it is read from among the arguments, not how what it
    /// points to is.
    Argument {
        index: u32,
        access: Access,
    },
    /// An argument of the traced function by its slot (none: what it returns), as a helper gives it: a pointer that is
    /// a plain number to the verifier.
    Fetched {
        argument: Option<u32>,
    },
    Local(u32),
    /// `bytes` at `base + offset`, extended as the type says. `bits`: only so many bits from that bit on (a bit field).
    Load {
        base: Box<Node>,
        offset: u32,
        bytes: u8,
        bits: Option<(u8, u8)>,
        access: Access,
    },
    /// `base + offset`, absent where base is null.
    Address {
        base: Box<Node>,
        offset: u32,
    },
    /// `base + index * scale`, absent where base is null, or where the index is not below `count`.
    Element {
        base: Box<Node>,
        index: Box<Node>,
        scale: u32,
        count: Option<u32>,
    },
    /// The address of these bytes of the program's context.
    ContextAddress {
        offset: u32,
    },
    /// The address of 16 bytes in which these two words of the program's context stand one behind the other.
    Gathered {
        offsets: [u32; 2],
    },
    /// A function of the kernel is called.
    Kfunc(Box<Call>),
    /// The pointer as one that the verifier vouches for.
    Found(Box<Found>),
    /// The object at hand of the walk that stands in so many others.
    Item(u32),
    Walk(Box<Walk>),
    /// What this kernel does not have.
    Absent,
    /// The value as the type says: its lowest bytes, extended, or all of them as a pointer.
    Cast(Box<Node>),
    /// The value's lowest bytes, as many as the type has (2, 4 or 8), in the opposite order.
    ByteSwap(Box<Node>),
    /// 1 where the value is 0, and 0 otherwise.
    Not(Box<Node>),
    Complement(Box<Node>),
    Negate(Box<Node>),
    /// Both operands are integers, booleans or (comparisons only) pointers.
    Arithmetic {
        op: arithmetic::Op,
        unsigned: bool,
        left: Box<Node>,
        right: Box<Node>,
    },
    /// The right is computed only where the left is not 0.
    And(Box<Node>, Box<Node>),
    /// The right is computed only where the left is 0.
    Or(Box<Node>, Box<Node>),
    Conditional {
        condition: Box<Node>,
        then: Box<Node>,
        otherwise: Box<Node>,
    },
    /// Whether the value is one of these.
    In {
        value: Box<Node>,
        set: Vec<i64>,
    },
    /// Whether the text is, or holds, one of these.
    Match {
        text: Box<Node>,
        how: Match,
        with: Vec<Vec<u8>>,
    },
    /// Whether two texts are the same.
    SameText(Box<Node>, Box<Node>),
    /// Whether an IP or hardware address is one of these, each as it stands in a record.
    OctetsIn {
        value: Box<Node>,
        set: Vec<Vec<u8>>,
    },
    /// Whether two addresses of one kind are the same.
    SameOctets(Box<Node>, Box<Node>),
    Literal(Vec<u8>),
    /// The thread's name.
    Comm,
    /// The text behind a pointer, up to the first 0 byte and at most as the type says. `array`: an array that may be
    /// full and then has no 0 byte, so reaching its end does not cut it.
    Str {
        pointer: Box<Node>,
        access: Access,
        array: bool,
    },
    /// The path of a file: at most as many bytes as the type says. `at` is where a `struct path` lies, or a
    /// `struct dentry`.
    Path {
        at: Box<Node>,
        way: Directories,
    },
    /// The addresses of the calls that led here, the innermost first; as many as the type says.
    Stack(Memory),
    /// A text in the program's context: an array that may be full.
    ContextText {
        offset: u32,
    },
    /// A text that a u32 of the context locates: its low 16 bits are the offset, from the context's start or
    /// (`relative`) from behind the u32.
    LocatedText {
        offset: u32,
        relative: bool,
    },
    /// The bytes behind a pointer: as many as the type says, or as `length` does, and at most as the type says.
    Bytes {
        pointer: Box<Node>,
        access: Access,
        length: Option<Box<Node>>,
    },
    /// The IPv4 address that an integer's lowest 4 bytes are, in the order in which they stand in memory.
    Ipv4(Box<Node>),
    /// The IP or hardware address behind a pointer.
    Octets {
        pointer: Box<Node>,
        access: Access,
        form: Form,
    },
}

/// What lies behind a pointer to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// 4 bytes.
    V4,
    /// 16 bytes.
    V6,
    /// What this number of an address family says, and nothing where it is neither.
    Family(Box<Node>),
    /// 6 bytes.
    Mac,
}

impl Node {
    /// The process without which this is not true: the number that `pid` is compared with, here or in what must be true
    /// as well.
    pub(super) fn process(&self) -> Option<u32> {
        const PID: NodeKind = NodeKind::Builtin(Builtin::Pid);
        let number = match &self.kind {
            NodeKind::Arithmetic { op: arithmetic::Op::Equal, left, right, .. } => match (&left.kind, &right.kind) {
                (&PID, NodeKind::Constant(number)) | (NodeKind::Constant(number), &PID) => *number,
                _ => return None,
            },
            NodeKind::In { value, set } if value.kind == PID => match set[..] {
                [number] => number,
                _ => return None,
            },
            NodeKind::And(left, right) => return left.process().or_else(|| right.process()),
            _ => return None,
        };
        u32::try_from(number).ok()
    }
}

/// Where a walk up the directories finds what it needs: bytes from where the kernel's structures begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Directories {
    /// In a `struct dentry`: the directory that it is in, and the characters of its name.
    pub parent: u32,
    pub name: u32,
    /// None for a walk that begins at a dentry, and ends where its file system does.
    pub mounts: Option<Mounts>,
}

/// What leads from one file system to that in which it is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mounts {
    /// In a `struct path`: the `struct vfsmount *` and the `struct dentry *`.
    pub mount: u32,
    pub dentry: u32,
    /// In a `struct vfsmount`: the dentry that is its root.
    pub root: u32,
    /// Of the `struct vfsmount` in the `struct mount` around it.
    pub inside: u32,
    /// From the `struct vfsmount` to members of the `struct mount`: that in which it is mounted, and the dentry there.
    pub outer: i32,
    pub point: i32,
}

impl Node {
    /// Whether this holds of the node, or of one that it is made of.
    pub fn any(&self, holds: &dyn Fn(&Node) -> bool) -> bool {
        let of_arguments =
            |arguments: &[Argument]| arguments.iter().any(|a| a.node().is_some_and(|node| node.any(holds)));
        holds(self)
            || match &self.kind {
                NodeKind::Load { base, .. } | NodeKind::Address { base, .. } => base.any(holds),
                NodeKind::Cast(a)
                | NodeKind::ByteSwap(a)
                | NodeKind::Not(a)
                | NodeKind::Complement(a)
                | NodeKind::Negate(a)
                | NodeKind::In { value: a, .. }
                | NodeKind::Match { text: a, .. }
                | NodeKind::Str { pointer: a, .. }
                | NodeKind::OctetsIn { value: a, .. }
                | NodeKind::Ipv4(a)
                | NodeKind::Path { at: a, .. } => a.any(holds),
                NodeKind::Arithmetic { left, right, .. }
                | NodeKind::And(left, right)
                | NodeKind::Or(left, right)
                | NodeKind::SameText(left, right)
                | NodeKind::SameOctets(left, right)
                | NodeKind::Element { base: left, index: right, .. } => left.any(holds) || right.any(holds),
                NodeKind::Bytes { pointer, length, .. } => {
                    pointer.any(holds) || length.as_ref().is_some_and(|length| length.any(holds))
                }
                NodeKind::Octets { pointer, form: Form::Family(family), .. } => pointer.any(holds) || family.any(holds),
                NodeKind::Octets { pointer, .. } => pointer.any(holds),
                NodeKind::Conditional { condition, then, otherwise } => {
                    condition.any(holds) || then.any(holds) || otherwise.any(holds)
                }
                NodeKind::Kfunc(call) => of_arguments(&call.arguments),
                NodeKind::Found(found) => found.pointer.any(holds),
                NodeKind::Walk(walk) => {
                    of_arguments(&walk.over.arguments)
                        || walk.condition.iter().chain(&walk.value).any(|node| node.any(holds))
                }
                NodeKind::Constant(_)
                | NodeKind::Builtin(_)
                | NodeKind::Context { .. }
                | NodeKind::Argument { .. }
                | NodeKind::Fetched { .. }
                | NodeKind::Local(_)
                | NodeKind::ContextAddress { .. }
                | NodeKind::Gathered { .. }
                | NodeKind::Item(_)
                | NodeKind::Absent
                | NodeKind::Literal(_)
                | NodeKind::Comm
                | NodeKind::Stack(_)
                | NodeKind::ContextText { .. }
                | NodeKind::LocatedText { .. } => false,
            }
    }

    /// Whether a kfunc that may sleep is called for it.
    pub fn sleeps(&self) -> bool {
        self.any(&|node| matches!(&node.kind, NodeKind::Kfunc(call) if call.sleeps))
    }

    /// Whether it uses what only RCU protects: what some members lead to, what some walks give, and kfuncs that ask for
    /// it.
    pub fn needs_rcu(&self) -> bool {
        self.any(&|node| match &node.kind {
            NodeKind::Walk(walk) => walk.over.rcu,
            NodeKind::Kfunc(call) => call.rcu,
            NodeKind::Load { access: Access::Direct, .. } => {
                matches!(node.ty, Type::Pointer { origin: Origin::Trusted, .. })
            }
            _ => false,
        })
    }

    /// Bound pointers that are not null where this is true.
    pub fn never_null_where_true(&self) -> Vec<u32> {
        match &self.kind {
            NodeKind::Local(local) => vec![*local],
            NodeKind::And(left, right) => [left.never_null_where_true(), right.never_null_where_true()].concat(),
            NodeKind::Arithmetic { op: arithmetic::Op::NotEqual, left, right, .. } => match (&left.kind, &right.kind) {
                (NodeKind::Local(local), NodeKind::Constant(0)) => vec![*local],
                _ => Vec::new(),
            },
            _ => Vec::new(),
        }
    }
}

/// How a text is compared with one that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Match {
    Is,
    StartsWith,
    EndsWith,
    Contains,
}

impl Match {
    pub fn holds(self, text: &[u8], with: &[u8]) -> bool {
        match self {
            Match::Is => text == with,
            Match::StartsWith => text.starts_with(with),
            Match::EndsWith => text.ends_with(with),
            Match::Contains => with.is_empty() || text.windows(with.len()).any(|part| part == with),
        }
    }
}

/// What an expression is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// So many bytes (1, 2, 4 or 8) hold any value of it.
    Integer {
        bytes: u8,
        signed: bool,
    },
    Boolean,
    /// An integer whose values have names.
    Enumeration {
        names: Names,
        bytes: u8,
        signed: bool,
    },
    /// The number of one of the probe's attach points, which is shown by a name.
    Point(PointName),
    Pointer {
        target: Target,
        origin: Origin,
    },
    /// At most so many bytes; longer texts are cut.
    Text {
        max: u32,
    },
    /// An address that is shown by the name of what lies there.
    Symbol(Memory),
    /// At most so many addresses; longer stacks are cut.
    Stack {
        of: Memory,
        frames: u32,
    },
    /// At most so many bytes, of which any may be 0.
    Bytes {
        max: u32,
    },
    /// An unsigned integer whose bits have names.
    Flags {
        names: FlagNames,
        bytes: u8,
    },
    /// An IP address, of either kind.
    Ip,
    /// A hardware address of 6 bytes.
    Mac,
}

impl Type {
    /// Bytes at most of what is of no fixed size, and stands behind the fixed fields of a record.
    pub fn tail(&self) -> Option<u32> {
        match *self {
            Type::Text { max } | Type::Bytes { max } => Some(max),
            Type::Stack { frames, .. } => Some(8 * frames),
            _ => None,
        }
    }

    /// Bytes and signedness of an integer.
    pub fn integer(&self) -> Option<(u8, bool)> {
        match *self {
            Type::Integer { bytes, signed } | Type::Enumeration { bytes, signed, .. } => Some((bytes, signed)),
            Type::Flags { bytes, .. } => Some((bytes, false)),
            _ => None,
        }
    }

    /// Whether it is a number to compute with.
    pub fn is_number(&self) -> bool {
        *self == Type::Boolean || self.integer().is_some()
    }

    /// Bytes at most of what has a length of its own: a text, or bytes.
    pub fn most_bytes(&self) -> Option<u32> {
        match *self {
            Type::Text { max } | Type::Bytes { max } => Some(max),
            _ => None,
        }
    }

    /// Whether it is an address of a network's, which is more than a register holds.
    pub fn is_octets(&self) -> bool {
        matches!(self, Type::Ip | Type::Mac)
    }
}

/// Whose addresses they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    Kernel,
    User,
}

/// What a pointer points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `void`, or something that the kernel's BTF does not tell.
    Unknown,
    Char,
    /// A structure or union. Not a typedef, nor qualified.
    Type(TypeId),
    /// An integer other than a character, a boolean, or a pointer.
    Scalar(Box<Type>),
}

/// Where a pointer comes from, which decides how what it points to may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The verifier knows it and allows direct loads (arguments of tp_btf, `task`).
    Trusted,
    /// A kernel address found by a walk.
    Kernel,
    /// An address in the process's memory.
    User,
}

/// How memory is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// By a load instruction that the verifier checks by BTF; null is tested before it.
    Direct,
    /// bpf_probe_read_kernel: a fault makes the value absent.
    Kernel,
    /// bpf_probe_read_user: likewise.
    User,
}

/// Values that need no argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Builtin {
    /// The process id: the thread group's.
    Pid,
    /// The thread id.
    Tid,
    Uid,
    Gid,
    Cpu,
    /// Nanoseconds since boot (CLOCK_BOOTTIME).
    Nsecs,
    /// The id of the thread's cgroup v2.
    Cgroup,
    /// `struct task_struct *` of the running thread.
    Task,
    /// The number of the attach point, in a program that serves several.
    Point,
    /// Nanoseconds between a function's entry and its return.
    Duration,
}
