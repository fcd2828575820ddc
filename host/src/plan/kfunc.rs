//! Calls of kernel functions (kfuncs), checked; and walks over what the kernel's iterators give.

use std::sync::Arc;

use super::Node;
use crate::bpf::Kfunc;

/// A call: what the function is passed, and what becomes of what it returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub function: Arc<Kfunc>,
    pub arguments: Vec<Argument>,
    pub gives: Gives,
    /// Whether it may sleep, so that nothing around it may hold off what waits for RCU.
    pub sleeps: bool,
    /// Whether it must be called within an RCU section.
    pub rcu: bool,
}

/// What a kernel function is passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument {
    Number(Node),
    /// A pointer that the verifier knows and trusts; the call is absent where it is null.
    Pointer(Node),
    /// Where something else is written to: the address of a text of the program's own, with a 0 behind it.
    Text(Node),
    /// The address of a text that nothing can change.
    Fixed(Vec<u8>),
    /// The address of 8 bytes that hold this number.
    Word(Node),
    /// A dynptr to the bytes of a text, made for the call.
    Dynptr(Node),
    /// A dynptr that the call makes, and nobody looks at.
    NewDynptr,
    /// Where the text is to be written that the call gives.
    Written,
    /// A dynptr to there.
    WrittenDynptr,
    /// How many bytes may be written there.
    WrittenBytes,
}

impl Argument {
    /// The expression that it is made of.
    pub fn node(&self) -> Option<&Node> {
        match self {
            Argument::Number(node)
            | Argument::Pointer(node)
            | Argument::Text(node)
            | Argument::Word(node)
            | Argument::Dynptr(node) => Some(node),
            Argument::Fixed(_)
            | Argument::NewDynptr
            | Argument::Written
            | Argument::WrittenDynptr
            | Argument::WrittenBytes => None,
        }
    }
}

/// What a call is as a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gives {
    /// It returns nothing: 1, for that it has been called.
    Nothing,
    /// What it returns, extended as the node's type says.
    Number,
    /// A pointer that is the program's own until this function releases it. `may_be_null`: or null, and then nothing is
    /// owned.
    Owned { release: Arc<Kfunc>, may_be_null: bool },
    /// An address, of which the verifier vouches for nothing.
    Address,
    /// Nothing: the program ends there, and the hit counts as filtered.
    End,
    /// What it has written; absent where it returns less than 0.
    Text(Length),
}

/// How long a text is that a kfunc has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// As many bytes as were asked for.
    Asked,
    /// As it returns.
    Returned,
    /// As it returns, which counts a 0 behind the text.
    Terminated,
}

/// A pointer that the verifier does not vouch for, made one that it does: what the kernel has by the number that lies
/// behind it is acquired, and is absent where that is something else by now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub pointer: Node,
    /// Offsets to read at, one after the other, each but the last of a pointer.
    pub path: Vec<u32>,
    /// Bytes of the number.
    pub bytes: u8,
    pub find: Arc<Kfunc>,
    pub release: Arc<Kfunc>,
}

/// A walk over objects of the kernel's, a bounded number of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    pub over: Over,
    pub does: Does,
    /// Which of them count; all, where there is none.
    pub condition: Option<Node>,
    /// What is taken of those.
    pub value: Option<Node>,
    /// How many walks it stands in.
    pub depth: u32,
}

/// What is walked over, by an iterator of the kernel's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Over {
    pub new: Arc<Kfunc>,
    pub next: Arc<Kfunc>,
    pub destroy: Arc<Kfunc>,
    /// Bytes of the iterator, which lies on the stack.
    pub bytes: u32,
    /// Whether it must be walked within an RCU section.
    pub rcu: bool,
    /// What `new` is passed behind the iterator.
    pub arguments: Vec<Argument>,
    /// Offset of the pointer in an object that must be to where the walk began (what `new` is passed first): others are
    /// passed over.
    pub below: Option<u32>,
    /// Bytes of an integer that `next` points to; none: what it returns is the object itself.
    pub number: Option<(u8, bool)>,
}

/// What a walk gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    /// How many there are.
    Count,
    /// Whether there is one.
    Any,
    /// Whether there is none for which the condition does not hold.
    All,
    /// The value of the first; absent where there is none.
    First,
    /// The sum of the values that are not absent.
    Sum,
    /// The greatest value; absent where there is none.
    Max,
    /// The least.
    Min,
}
