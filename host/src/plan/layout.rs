//! The layout of a record: one description for the code that writes it in the kernel and for those who read it.
//!
//! The bytes are specified in `wit/events.wit`; this is that page as constants and types.

use serde::{Deserialize, Serialize};

/// Bytes of a record's header.
pub const HEADER: u32 = 24;
/// Offset of the record's length, u32.
pub const LENGTH: u32 = 0;
/// Offset of the schema's id, u16.
pub const SCHEMA: u32 = 4;
/// The bit of the schema's id that tells that a walk has been cut short for this record.
pub const WALK_CUT: u16 = 0x8000;
/// Offset of the CPU, u16.
pub const CPU: u32 = 6;
/// Offset of the time, u64 nanoseconds since boot.
pub const TIME: u32 = 8;
/// Offset of the presence bits, u64.
pub const PRESENCE: u32 = 16;
/// Fields of an event at most: one presence bit each.
pub const MAX_FIELDS: usize = 64;
/// The bit of a slot's length that tells that the value was cut.
pub const CUT: u16 = 0x8000;
/// Bytes of one record at most: it is put together in a value of a per-CPU map, which has 32 KiB at most
/// (kernel/bpf/arraymap.c: PCPU_MIN_UNIT_SIZE).
pub const MAX_RECORD: u32 = 20 * 1024;

/// How records of one event are laid out: `schema` of the WIT interface `events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    pub id: u16,
    /// The probe that sends the event.
    pub probe: String,
    /// The event's name.
    pub name: String,
    /// Bytes of the header and the fixed fields.
    pub size: u32,
    pub fields: Vec<FieldLayout>,
}

/// Where a field is, and what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldLayout {
    pub name: String,
    pub kind: FieldKind,
    /// Bytes from the start of the record.
    pub offset: u32,
}

/// What a field's bytes mean: `field-kind` of the WIT interface `events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FieldKind {
    Boolean,
    /// Two's complement, so many bytes.
    Signed(u8),
    Unsigned(u8),
    /// 8 bytes signed, with the names the values may have.
    Enumeration(Vec<(i64, String)>),
    /// 8 bytes unsigned, with the names that its bits have.
    Flags(Vec<Flag>),
    Text,
    Bytes,
    Address,
    HardwareAddress,
    KernelSymbol,
    UserSymbol,
    KernelStack,
    UserStack,
}

/// A name of bits: `flag` of the WIT interface `events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flag {
    pub name: String,
    /// The bits that it speaks of.
    pub mask: u64,
    /// What they are where it is meant.
    pub value: u64,
}

/// The first number of an [`FieldKind::Address`] that is IPv4.
pub const V4: u8 = 4;
/// The first number of one that is IPv6.
pub const V6: u8 = 6;

/// The names of the bits that are set, and the bits that have none.
///
/// A name is told where its bits are as it says and have not been told by one before: so `O_SYNC` hides `O_DSYNC`,
/// which is a part of it.
pub fn told(flags: &[Flag], value: u64) -> (Vec<&str>, u64) {
    let mut rest = value;
    let mut names = Vec::new();
    for flag in flags {
        if value & flag.mask == flag.value && rest & flag.value == flag.value {
            names.push(flag.name.as_str());
            rest &= !flag.value;
        }
    }
    (names, rest)
}

impl FieldKind {
    /// Whether its bytes begin with a slot, which tells where the rest of it is.
    pub fn has_slot(&self) -> bool {
        matches!(self, FieldKind::Text | FieldKind::Bytes | FieldKind::KernelStack | FieldKind::UserStack)
    }

    /// Bytes among the fixed fields, and their alignment.
    pub fn size_align(&self) -> (u32, u32) {
        match self {
            FieldKind::Boolean => (1, 1),
            FieldKind::Signed(n) | FieldKind::Unsigned(n) => (u32::from(*n), u32::from(*n)),
            FieldKind::Enumeration(_) | FieldKind::Flags(_) | FieldKind::KernelSymbol => (8, 8),
            FieldKind::UserSymbol => (16, 8),
            FieldKind::Text | FieldKind::Bytes | FieldKind::KernelStack => (4, 4),
            FieldKind::UserStack => (8, 4),
            FieldKind::Address => (20, 4),
            FieldKind::HardwareAddress => (6, 2),
        }
    }
}

/// A field's kind in words.
pub fn kind_name(kind: &FieldKind) -> String {
    match kind {
        FieldKind::Boolean => "boolean".to_owned(),
        FieldKind::Signed(n) => format!("signed {} bits", u32::from(*n) * 8),
        FieldKind::Unsigned(n) => format!("unsigned {} bits", u32::from(*n) * 8),
        FieldKind::Enumeration(_) => "enumeration".to_owned(),
        FieldKind::Flags(_) => "flags".to_owned(),
        FieldKind::Text => "text".to_owned(),
        FieldKind::Bytes => "bytes".to_owned(),
        FieldKind::Address => "IP address".to_owned(),
        FieldKind::HardwareAddress => "hardware address".to_owned(),
        FieldKind::KernelSymbol => "kernel address".to_owned(),
        FieldKind::UserSymbol => "user address".to_owned(),
        FieldKind::KernelStack => "kernel stack".to_owned(),
        FieldKind::UserStack => "user stack".to_owned(),
    }
}

/// Bytes of the header and of fields of these kinds.
pub fn fixed_size<'a>(kinds: impl Iterator<Item = &'a FieldKind>) -> u32 {
    kinds.map(FieldKind::size_align).fold(HEADER, |end, (size, align)| end.next_multiple_of(align) + size)
}

impl Schema {
    /// Lays out fields in the order declared, each at the next offset that suits its alignment.
    pub fn new(id: u16, probe: &str, name: &str, fields: impl IntoIterator<Item = (String, FieldKind)>) -> Schema {
        let mut end = HEADER;
        let fields = fields
            .into_iter()
            .map(|(name, kind)| {
                let (size, align) = kind.size_align();
                let offset = end.next_multiple_of(align);
                end = offset + size;
                FieldLayout { name, kind, offset }
            })
            .collect();
        Schema { id, probe: probe.to_owned(), name: name.to_owned(), size: end, fields }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_aligned_in_the_order_declared() {
        let schema = Schema::new(
            3,
            "p",
            "e",
            [
                ("flag".to_owned(), FieldKind::Boolean),
                ("wide".to_owned(), FieldKind::Unsigned(8)),
                ("text".to_owned(), FieldKind::Text),
                ("small".to_owned(), FieldKind::Signed(2)),
                ("from".to_owned(), FieldKind::Address),
                ("card".to_owned(), FieldKind::HardwareAddress),
                ("bits".to_owned(), FieldKind::Flags(Vec::new())),
            ],
        );
        let offsets: Vec<u32> = schema.fields.iter().map(|f| f.offset).collect();
        assert_eq!(offsets, [24, 32, 40, 44, 48, 68, 80]);
        assert_eq!(schema.size, 88);
        assert_eq!(fixed_size(schema.fields.iter().map(|f| &f.kind)), 88);
    }
}
