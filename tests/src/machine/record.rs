//! Records read back, by the rules of `wit/events.wit`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use porthole::plan::layout::{self, FieldKind, Schema};

/// A field's value in a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Absent,
    Boolean(bool),
    Signed(i64),
    Unsigned(u64),
    /// A value of an enumeration, and its name if it has one.
    Enumeration(i64, Option<String>),
    Text {
        bytes: Vec<u8>,
        cut: bool,
    },
    /// An address of the kernel.
    Kernel(u64),
    /// A process, and an address of its memory.
    User(u32, u64),
    Stack {
        process: Option<u32>,
        addresses: Vec<u64>,
        cut: bool,
    },
    Bytes {
        bytes: Vec<u8>,
        cut: bool,
    },
    Address(IpAddr),
    HardwareAddress([u8; 6]),
    /// Bits, the names of those that are set, and the others.
    Flags(u64, Vec<String>, u64),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Absent => f.write_str("absent"),
            Value::Boolean(value) => write!(f, "{value}"),
            Value::Signed(value) => write!(f, "{value}"),
            Value::Unsigned(value) => write!(f, "{value}"),
            Value::Enumeration(_, Some(name)) => f.write_str(name),
            Value::Enumeration(value, None) => write!(f, "{value}"),
            Value::Kernel(address) => write!(f, "{address:#x}"),
            Value::User(process, address) => write!(f, "{address:#x} of {process}"),
            Value::Stack { process, addresses, cut } => {
                let addresses: Vec<String> = addresses.iter().map(|address| format!("{address:#x}")).collect();
                write!(f, "{}{}", addresses.join(" < "), if *cut { " < …" } else { "" })?;
                process.map_or(Ok(()), |process| write!(f, " of {process}"))
            }
            Value::Text { bytes, cut } | Value::Bytes { bytes, cut } => {
                write!(f, "\"{}\"{}", bytes.escape_ascii(), if *cut { "…" } else { "" })
            }
            Value::Address(address) => write!(f, "{address}"),
            Value::HardwareAddress(octets) => f.write_str(&octets.map(|octet| format!("{octet:02x}")).join(":")),
            Value::Flags(_, names, 0) if names.is_empty() => f.write_str("0"),
            Value::Flags(_, names, rest) => {
                let rest = (*rest != 0).then(|| format!("{rest:#x}"));
                f.write_str(&names.iter().cloned().chain(rest).collect::<Vec<_>>().join("|"))
            }
        }
    }
}

/// Reads a record, and checks it: its length, that texts do not share bytes, and that what belongs to no value is 0.
pub fn decode(schema: &Schema, record: &[u8]) -> Vec<(String, Value)> {
    let length = u32_at(record, layout::LENGTH) as usize;
    assert!(length == record.len() && length.is_multiple_of(8) && length >= schema.size as usize, "length {length}");
    assert!(length <= layout::MAX_RECORD as usize, "{length} bytes are more than a record can have");
    let presence = u64_at(record, layout::PRESENCE);
    assert_eq!(presence >> 1 >> schema.fields.len().saturating_sub(1), 0, "presence of fields that are not there");
    let mut used = vec![false; length];
    used[..layout::HEADER as usize].fill(true);
    let mut texts_end = schema.size.next_multiple_of(8) as usize;
    let mut fields = Vec::new();
    for (bit, field) in schema.fields.iter().enumerate() {
        let (size, _) = field.kind.size_align();
        let at = field.offset as usize..(field.offset + size) as usize;
        used[at.clone()].fill(true);
        let bytes = &record[at];
        if presence & 1 << bit == 0 {
            assert!(bytes.iter().all(|b| *b == 0), "field {} is absent, and its bytes are {bytes:?}", field.name);
            fields.push((field.name.clone(), Value::Absent));
            continue;
        }
        let mut wide = [0; 8];
        wide.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        let word = u64::from_le_bytes(wide);
        let mut tail = |slot: &[u8]| {
            let (start, length) = (u16_at(slot, 0) as usize, u16_at(slot, 2));
            let (cut, length) = (length & layout::CUT != 0, usize::from(length & !layout::CUT));
            assert!(
                start >= texts_end,
                "what belongs to {} begins at {start}, in another that ends at {texts_end}",
                field.name
            );
            texts_end = start + length;
            used[start..start + length].fill(true);
            (record[start..start + length].to_vec(), cut)
        };
        let value = match field.kind {
            FieldKind::Boolean => {
                assert!(word <= 1, "field {} is the boolean {word}", field.name);
                Value::Boolean(word == 1)
            }
            FieldKind::Unsigned(_) => Value::Unsigned(word),
            FieldKind::Signed(bytes) => {
                let shift = 64 - 8 * u32::from(bytes);
                Value::Signed((word as i64) << shift >> shift)
            }
            FieldKind::Enumeration(ref names) => {
                let value = word as i64;
                let name = names.iter().find(|(n, _)| *n == value).map(|(_, name)| name.clone());
                Value::Enumeration(value, name)
            }
            FieldKind::Flags(ref flags) => {
                // As wit/events.wit tells it, in words of its own.
                let (mut names, mut told) = (Vec::new(), 0);
                for flag in flags {
                    if word & flag.mask == flag.value && told & flag.value == 0 {
                        names.push(flag.name.clone());
                        told |= flag.value;
                    }
                }
                Value::Flags(word, names, word & !told)
            }
            FieldKind::Address => {
                assert_eq!(bytes[1..4], [0; 3], "the padding of {}", field.name);
                let octets: [u8; 16] = array(bytes, 4);
                match bytes[0] {
                    4 => {
                        assert_eq!(octets[4..], [0; 12], "behind the IPv4 address {}", field.name);
                        Value::Address(IpAddr::from([octets[0], octets[1], octets[2], octets[3]]))
                    }
                    6 => Value::Address(Ipv6Addr::from(octets).into()),
                    other => panic!("field {} is an address of kind {other}", field.name),
                }
            }
            FieldKind::HardwareAddress => Value::HardwareAddress(array(bytes, 0)),
            FieldKind::Text => {
                let (bytes, cut) = tail(bytes);
                Value::Text { bytes, cut }
            }
            FieldKind::Bytes => {
                let (bytes, cut) = tail(bytes);
                Value::Bytes { bytes, cut }
            }
            FieldKind::KernelSymbol => Value::Kernel(word),
            FieldKind::UserSymbol => {
                assert_eq!(u32_at(bytes, 12), 0, "padding");
                Value::User(u32_at(bytes, 8), u64_at(bytes, 0))
            }
            FieldKind::KernelStack | FieldKind::UserStack => {
                let (addresses, cut) = tail(bytes);
                assert!(addresses.len().is_multiple_of(8), "{} has bytes that are no address", field.name);
                let addresses = addresses.chunks(8).map(|bytes| u64_at(bytes, 0)).collect();
                let process = (field.kind == FieldKind::UserStack).then(|| u32_at(bytes, 4));
                Value::Stack { process, addresses, cut }
            }
        };
        fields.push((field.name.clone(), value));
    }
    let stray = (0..length).find(|i| !used[*i] && record[*i] != 0);
    assert_eq!(stray, None, "a byte that belongs to nothing is not 0: {record:?}");
    fields
}

pub fn u16_at(bytes: &[u8], at: u32) -> u16 {
    u16::from_le_bytes(array(bytes, at))
}

pub fn u32_at(bytes: &[u8], at: u32) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

pub fn u64_at(bytes: &[u8], at: u32) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

fn array<const N: usize>(bytes: &[u8], at: u32) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at as usize..][..N]);
    array
}
