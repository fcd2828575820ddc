//! Addresses that have names, and call stacks.

use crate::Value;
use crate::bindings::porthole::trace::host::FramesParam as Frames;
use crate::field::{Field, Kind};
use crate::record::{Cell, Record};

/// An address of the kernel. Rows show it by the name of what lies there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KernelSymbol(pub u64);

/// An address of a process's memory. Rows show it by the name of what lies there, as long as the process is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserSymbol {
    /// The process's number.
    pub process: u32,
    /// The address.
    pub address: u64,
}

/// The calls of the kernel that led to where the probe fired.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KernelStack {
    /// Where it goes on in each function, the innermost first.
    pub addresses: Vec<u64>,
    /// Whether there were more.
    pub cut: bool,
}

/// The calls of a process that led to where the probe fired.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserStack {
    /// The process's number.
    pub process: u32,
    /// Where it goes on in each function, the innermost first.
    pub addresses: Vec<u64>,
    /// Whether there were more.
    pub cut: bool,
}

impl<'a> Field<'a> for KernelSymbol {
    const KIND: Kind = Kind::KernelSymbol;

    fn read(record: Record<'a>, cell: Cell) -> KernelSymbol {
        KernelSymbol(record.integer(cell))
    }

    fn value(&self) -> Value<'_> {
        Value::KernelSymbol(self.0)
    }
}

impl<'a> Field<'a> for UserSymbol {
    const KIND: Kind = Kind::UserSymbol;

    fn read(record: Record<'a>, cell: Cell) -> UserSymbol {
        UserSymbol { address: record.integer(cell), process: process(record, cell, 8) }
    }

    fn value(&self) -> Value<'_> {
        Value::UserSymbol((self.process, self.address))
    }
}

impl<'a> Field<'a> for KernelStack {
    const KIND: Kind = Kind::KernelStack;

    fn read(record: Record<'a>, cell: Cell) -> KernelStack {
        let (addresses, cut) = addresses(record, cell);
        KernelStack { addresses, cut }
    }

    fn value(&self) -> Value<'_> {
        Value::KernelStack(Frames { addresses: &self.addresses, cut: self.cut })
    }
}

impl<'a> Field<'a> for UserStack {
    const KIND: Kind = Kind::UserStack;

    fn read(record: Record<'a>, cell: Cell) -> UserStack {
        let (addresses, cut) = addresses(record, cell);
        UserStack { process: process(record, cell, 4), addresses, cut }
    }

    fn value(&self) -> Value<'_> {
        Value::UserStack((self.process, Frames { addresses: &self.addresses, cut: self.cut }))
    }
}

/// The process's number, so many bytes behind where the field begins.
fn process(record: Record<'_>, cell: Cell, behind: usize) -> u32 {
    record.integer(Cell { offset: cell.offset + behind, width: 4, signed: false, ..cell }) as u32
}

fn addresses(record: Record<'_>, cell: Cell) -> (Vec<u64>, bool) {
    let (bytes, cut) = record.slot(cell);
    let (addresses, _) = bytes.as_chunks();
    (addresses.iter().map(|address| u64::from_le_bytes(*address)).collect(), cut)
}

macro_rules! values {
    ($($type:ty),*) => {$(
        impl<'v> From<&'v $type> for Value<'v> {
            fn from(value: &'v $type) -> Self {
                value.value()
            }
        }
    )*};
}

values!(KernelSymbol, UserSymbol, KernelStack, UserStack);
