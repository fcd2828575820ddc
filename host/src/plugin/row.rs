//! What a plugin sends: rows, records and log lines, as plain data that knows no Wasm.

use std::net::IpAddr;

/// What a plugin sent, in the order in which it did.
pub type Output = Vec<Emitted>;

/// One thing that a plugin sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Emitted {
    /// A row, from `row`.
    Row(Row),
    /// Whole records of the plugin's own schemas, checked, from `forward`.
    Forward(Vec<u8>),
    /// A line for the plugin's log: from `log`, or written to its stdout (info) or stderr (warning).
    Log { level: Level, text: String },
}

/// One row of output.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The event's name, or any other identifier of at most 64 bytes.
    pub name: String,
    /// Nanoseconds since boot.
    pub time: Option<u64>,
    /// At most 256, in the plugin's order. Their names are the plugin's own text: not checked, not unique.
    pub columns: Vec<(String, Value)>,
}

/// A value in a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// There is none: a null was walked through, or a read failed.
    Absent,
    Boolean(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(String),
    /// Bytes, or text that is not UTF-8.
    Bytes(Vec<u8>),
    Address(IpAddr),
    HardwareAddress([u8; 6]),
    /// Names of the bits that are set, and those bits that have none.
    Flags {
        names: Vec<String>,
        rest: u64,
    },
    /// An address of the kernel.
    KernelSymbol(u64),
    /// A process, and an address of its memory.
    UserSymbol(u32, u64),
    KernelStack(Frames),
    /// A process, and its calls.
    UserStack(u32, Frames),
    /// Names that have been found: of a stack's frames.
    Names(Vec<String>),
}

/// The addresses of calls, the innermost first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frames {
    pub addresses: Vec<u64>,
    /// Whether there were more.
    pub cut: bool,
}

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Debug,
    Info,
    Warning,
    Error,
}

impl Emitted {
    /// Bytes of the host's memory that this takes, about.
    pub(super) fn size(&self) -> usize {
        size_of::<Emitted>()
            + match self {
                Emitted::Row(row) => row.size(),
                Emitted::Forward(records) => records.len(),
                Emitted::Log { text, .. } => text.len(),
            }
    }
}

impl Row {
    fn size(&self) -> usize {
        let column = |(name, value): &(String, Value)| size_of::<(String, Value)>() + name.len() + value.size();
        self.name.len() + self.columns.iter().map(column).sum::<usize>()
    }
}

impl Value {
    /// Bytes behind the value itself.
    fn size(&self) -> usize {
        match self {
            Value::Text(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            Value::KernelStack(frames) | Value::UserStack(_, frames) => size_of_val(&frames.addresses[..]),
            Value::Names(names) | Value::Flags { names, .. } => {
                names.iter().map(|name| size_of::<String>() + name.len()).sum()
            }
            _ => 0,
        }
    }
}
