//! The types that an event's fields may have.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::Value;
use crate::bindings::porthole::trace::events::FieldKind;
use crate::bindings::porthole::trace::host::IpAddress;
use crate::record::{Cell, Record};

/// A type that a field of an event may have:
///
/// | type | holds |
/// |---|---|
/// | `u8` `u16` `u32` `u64` | unsigned integers of at most its width, `bool`; `u64` also flags, and addresses that have names |
/// | `i8` `i16` `i32` `i64` | signed integers of at most its width, narrower unsigned ones, `bool`; `i64` also values of kernel enumerations |
/// | `bool` | `bool` |
/// | [`Text<'a>`](Text) | text, in place |
/// | [`Comm`] | text of at most 16 bytes, such as a thread's name; what is longer is cut |
/// | `String` | text, copied; what is not UTF-8 in it becomes U+FFFD |
/// | `&'a [u8]`, `Vec<u8>` | bytes or text |
/// | [`Bytes<'a>`](Bytes) | the same, in place, with whether they were cut |
/// | [`std::net::IpAddr`] | an IP address |
/// | [`Mac`] | a hardware address |
/// | [`KernelSymbol`] [`UserSymbol`] | an address, which rows show by the name of what lies there; `u64` holds the number alone |
/// | [`KernelStack`] [`UserStack`] | the calls that led to the probe |
/// | `Option<T>` | what `T` holds, or `None` where it is absent |
///
/// [`KernelSymbol`]: crate::KernelSymbol
/// [`UserSymbol`]: crate::UserSymbol
/// [`KernelStack`]: crate::KernelStack
/// [`UserStack`]: crate::UserStack
#[diagnostic::on_unimplemented(
    message = "an event's field cannot be of type `{Self}`",
    label = "not a type for an event's field",
    note = "there are u8 to u64, i8 to i64, bool, Text<'a>, Comm, String, &'a [u8], Vec<u8>, Bytes<'a>, IpAddr, Mac, KernelSymbol, UserSymbol, KernelStack, UserStack, and Option of each"
)]
pub trait Field<'a>: Sized {
    /// What the type can hold.
    const KIND: Kind;

    /// The field at its place in a record. Where it is absent its bytes are 0, which is the type's default.
    fn read(record: Record<'a>, cell: Cell) -> Self;

    /// The value as a column of a row.
    fn value(&self) -> Value<'_>;
}

/// What a type can hold; widths are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// True or false.
    Boolean,
    /// Integers of at most this width, two's complement.
    Signed(u8),
    /// Integers of at most this width.
    Unsigned(u8),
    /// Text.
    Text,
    /// Bytes, and text as bytes.
    Bytes,
    /// An address of the kernel.
    KernelSymbol,
    /// An address of a process.
    UserSymbol,
    /// Calls of the kernel.
    KernelStack,
    /// Calls of a process.
    UserStack,
    /// An IP address.
    Address,
    /// A hardware address.
    HardwareAddress,
}

impl Kind {
    /// Whether all values of the kernel's kind can be held without loss.
    pub(crate) fn holds(self, given: &FieldKind) -> bool {
        match (self, given) {
            (Kind::Boolean | Kind::Signed(_) | Kind::Unsigned(_), FieldKind::Boolean) => true,
            (Kind::Signed(width), FieldKind::Signed(given)) => *given <= width,
            (Kind::Signed(width), FieldKind::Unsigned(given)) => *given < width,
            (Kind::Signed(width), FieldKind::Enumeration(_)) => width == 8,
            (Kind::Unsigned(width), FieldKind::Unsigned(given)) => *given <= width,
            (Kind::Unsigned(width), FieldKind::Flags(_) | FieldKind::KernelSymbol | FieldKind::UserSymbol) => {
                width == 8
            }
            (Kind::KernelSymbol, FieldKind::KernelSymbol) | (Kind::UserSymbol, FieldKind::UserSymbol) => true,
            (Kind::KernelStack, FieldKind::KernelStack) | (Kind::UserStack, FieldKind::UserStack) => true,
            (Kind::Text | Kind::Bytes, FieldKind::Text) => true,
            (Kind::Bytes, FieldKind::Bytes) => true,
            (Kind::Address, FieldKind::Address) => true,
            (Kind::HardwareAddress, FieldKind::HardwareAddress) => true,
            _ => false,
        }
    }

    /// As Rust's type is called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Boolean => "bool",
            Kind::Signed(width) => integer_name(true, width),
            Kind::Unsigned(width) => integer_name(false, width),
            Kind::Text => "text",
            Kind::Bytes => "bytes",
            Kind::KernelSymbol => "KernelSymbol",
            Kind::UserSymbol => "UserSymbol",
            Kind::KernelStack => "KernelStack",
            Kind::UserStack => "UserStack",
            Kind::Address => "an IP address",
            Kind::HardwareAddress => "a hardware address",
        }
    }
}

/// What an integer of this width is called in Rust.
pub(crate) fn integer_name(signed: bool, width: u8) -> &'static str {
    match (signed, width) {
        (true, 1) => "i8",
        (true, 2) => "i16",
        (true, 4) => "i32",
        (true, _) => "i64",
        (false, 1) => "u8",
        (false, 2) => "u16",
        (false, 4) => "u32",
        (false, _) => "u64",
    }
}

macro_rules! integer_fields {
    ($($type:ident: $kind:ident($width:literal), $value:ident;)*) => {$(
        impl<'a> Field<'a> for $type {
            const KIND: Kind = Kind::$kind($width);

            // The schema has been checked: no bits are cut off.
            fn read(record: Record<'a>, cell: Cell) -> $type {
                record.integer(cell) as $type
            }

            fn value(&self) -> Value<'_> {
                Value::$value((*self).into())
            }
        }

        impl From<$type> for Value<'_> {
            fn from(value: $type) -> Self {
                Value::$value(value.into())
            }
        }
    )*};
}

integer_fields! {
    u8: Unsigned(1), Unsigned;
    u16: Unsigned(2), Unsigned;
    u32: Unsigned(4), Unsigned;
    u64: Unsigned(8), Unsigned;
    i8: Signed(1), Signed;
    i16: Signed(2), Signed;
    i32: Signed(4), Signed;
    i64: Signed(8), Signed;
}

impl<'a> Field<'a> for bool {
    const KIND: Kind = Kind::Boolean;

    fn read(record: Record<'a>, cell: Cell) -> bool {
        record.integer(cell) != 0
    }

    fn value(&self) -> Value<'_> {
        Value::Boolean(*self)
    }
}

/// Text of an event, in place: no copy, and not necessarily UTF-8.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Text<'a> {
    bytes: &'a [u8],
    cut: bool,
}

impl<'a> Text<'a> {
    /// The bytes as the kernel has them, without a terminating 0.
    pub fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The text, where it is UTF-8.
    pub fn to_str(self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes).ok()
    }

    /// The text, with U+FFFD for what is not UTF-8. Copies only then.
    pub fn to_str_lossy(self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.bytes)
    }

    /// Whether the text was longer, and has been cut.
    pub fn is_cut(self) -> bool {
        self.cut
    }
}

impl<'a> Field<'a> for Text<'a> {
    const KIND: Kind = Kind::Text;

    fn read(record: Record<'a>, cell: Cell) -> Text<'a> {
        let (bytes, cut) = record.slot(cell);
        Text { bytes, cut }
    }

    fn value(&self) -> Value<'_> {
        text_or_bytes(self.bytes)
    }
}

/// A thread's name (`TASK_COMM_LEN` in the kernel's include/linux/sched.h), or any text of at most 16 bytes, held in
/// place.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Comm {
    bytes: [u8; 16],
    length: u8,
}

impl Comm {
    /// The first 16 bytes.
    pub fn new(name: &[u8]) -> Comm {
        let mut bytes = [0; 16];
        let name = name.get(..bytes.len()).unwrap_or(name);
        if let Some(start) = bytes.get_mut(..name.len()) {
            start.copy_from_slice(name);
        }
        Comm { bytes, length: name.len() as u8 }
    }

    /// The name's bytes, without a terminating 0.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }

    /// The name, where it is UTF-8.
    pub fn to_str(&self) -> Option<&str> {
        std::str::from_utf8(self.as_bytes()).ok()
    }

    /// The name, with U+FFFD for what is not UTF-8.
    pub fn to_str_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.as_bytes())
    }
}

impl<'a> Field<'a> for Comm {
    const KIND: Kind = Kind::Text;

    fn read(record: Record<'a>, cell: Cell) -> Comm {
        Comm::new(record.slot(cell).0)
    }

    fn value(&self) -> Value<'_> {
        text_or_bytes(self.as_bytes())
    }
}

macro_rules! text_traits {
    ($($type:ty),*) => {$(
        impl PartialEq<str> for $type {
            fn eq(&self, other: &str) -> bool {
                self.as_bytes() == other.as_bytes()
            }
        }

        impl PartialEq<&str> for $type {
            fn eq(&self, other: &&str) -> bool {
                *self == **other
            }
        }

        /// As [`to_str_lossy`](Self::to_str_lossy).
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.to_str_lossy())
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.to_str_lossy(), f)
            }
        }
    )*};
}

text_traits!(Text<'_>, Comm);

impl<'a> Field<'a> for String {
    const KIND: Kind = Kind::Text;

    fn read(record: Record<'a>, cell: Cell) -> String {
        Text::read(record, cell).to_str_lossy().into_owned()
    }

    fn value(&self) -> Value<'_> {
        Value::Text(self)
    }
}

impl<'a> Field<'a> for &'a [u8] {
    const KIND: Kind = Kind::Bytes;

    fn read(record: Record<'a>, cell: Cell) -> &'a [u8] {
        record.slot(cell).0
    }

    fn value(&self) -> Value<'_> {
        Value::Bytes(self)
    }
}

impl<'a> Field<'a> for Vec<u8> {
    const KIND: Kind = Kind::Bytes;

    fn read(record: Record<'a>, cell: Cell) -> Vec<u8> {
        record.slot(cell).0.to_vec()
    }

    fn value(&self) -> Value<'_> {
        Value::Bytes(self)
    }
}

/// Bytes of an event, in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Bytes<'a> {
    bytes: &'a [u8],
    cut: bool,
}

impl<'a> Bytes<'a> {
    /// The bytes as they were in memory.
    pub fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Whether there were more, and they have been cut.
    pub fn is_cut(self) -> bool {
        self.cut
    }
}

impl<'a> Field<'a> for Bytes<'a> {
    const KIND: Kind = Kind::Bytes;

    fn read(record: Record<'a>, cell: Cell) -> Bytes<'a> {
        let (bytes, cut) = record.slot(cell);
        Bytes { bytes, cut }
    }

    fn value(&self) -> Value<'_> {
        Value::Bytes(self.bytes)
    }
}

/// Absent, it is `0.0.0.0`.
impl<'a> Field<'a> for IpAddr {
    const KIND: Kind = Kind::Address;

    fn read(record: Record<'a>, cell: Cell) -> IpAddr {
        const V6: u8 = 6;
        let (kind, octets): (u8, [u8; 16]) = record.octets(cell, 4);
        let [a, b, c, d, ..] = octets;
        if kind == V6 { Ipv6Addr::from(octets).into() } else { Ipv4Addr::new(a, b, c, d).into() }
    }

    fn value(&self) -> Value<'_> {
        (*self).into()
    }
}

/// A hardware address (MAC, EUI-48), shown as `52:54:00:12:34:56`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl<'a> Field<'a> for Mac {
    const KIND: Kind = Kind::HardwareAddress;

    fn read(record: Record<'a>, cell: Cell) -> Mac {
        Mac(record.octets(cell, 0).1)
    }

    fn value(&self) -> Value<'_> {
        (*self).into()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mac([a, b, c, d, e, g]) = self;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'a, T: Field<'a>> Field<'a> for Option<T> {
    const KIND: Kind = T::KIND;

    fn read(record: Record<'a>, cell: Cell) -> Option<T> {
        record.is_present(cell).then(|| T::read(record, cell))
    }

    fn value(&self) -> Value<'_> {
        self.as_ref().map_or(Value::Absent, T::value)
    }
}

impl From<bool> for Value<'_> {
    fn from(value: bool) -> Self {
        Value::Boolean(value)
    }
}

impl From<IpAddr> for Value<'_> {
    fn from(value: IpAddr) -> Self {
        Value::Address(match value {
            IpAddr::V4(address) => {
                let [a, b, c, d] = address.octets();
                IpAddress::Ipv4((a, b, c, d))
            }
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h] = address.segments();
                IpAddress::Ipv6((a, b, c, d, e, f, g, h))
            }
        })
    }
}

impl From<Mac> for Value<'_> {
    fn from(Mac([a, b, c, d, e, f]): Mac) -> Self {
        Value::HardwareAddress((a, b, c, d, e, f))
    }
}

impl<'v> From<Bytes<'v>> for Value<'v> {
    fn from(value: Bytes<'v>) -> Self {
        Value::Bytes(value.bytes)
    }
}

impl From<f64> for Value<'_> {
    fn from(value: f64) -> Self {
        Value::Float(value)
    }
}

impl<'v> From<&'v str> for Value<'v> {
    fn from(value: &'v str) -> Self {
        Value::Text(value)
    }
}

impl<'v> From<&'v String> for Value<'v> {
    fn from(value: &'v String) -> Self {
        Value::Text(value)
    }
}

/// Always bytes, also where they are UTF-8. [`Text`] and [`Comm`] become text where they are.
impl<'v> From<&'v [u8]> for Value<'v> {
    fn from(value: &'v [u8]) -> Self {
        Value::Bytes(value)
    }
}

impl<'v> From<Text<'v>> for Value<'v> {
    fn from(value: Text<'v>) -> Self {
        text_or_bytes(value.bytes)
    }
}

impl<'v> From<&'v Comm> for Value<'v> {
    fn from(value: &'v Comm) -> Self {
        text_or_bytes(value.as_bytes())
    }
}

impl<'v, T: Into<Value<'v>>> From<Option<T>> for Value<'v> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Absent, T::into)
    }
}

impl<'v> Value<'v> {
    /// Text where the bytes are UTF-8, otherwise bytes.
    pub fn text_or_bytes(bytes: &'v [u8]) -> Value<'v> {
        text_or_bytes(bytes)
    }
}

fn text_or_bytes(bytes: &[u8]) -> Value<'_> {
    std::str::from_utf8(bytes).map_or(Value::Bytes(bytes), Value::Text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_holds_what_it_can_without_loss() {
        use FieldKind as Given;
        let given = [
            Given::Boolean,
            Given::Signed(4),
            Given::Signed(8),
            Given::Unsigned(4),
            Given::Unsigned(8),
            Given::Enumeration(Vec::new()),
            Given::Text,
            Given::Bytes,
            Given::Address,
            Given::KernelSymbol,
            Given::UserStack,
            Given::Flags(Vec::new()),
            Given::HardwareAddress,
        ];
        let held = |kind: Kind| given.iter().map(|g| if kind.holds(g) { 'y' } else { '.' }).collect::<String>();
        assert_eq!(held(Kind::Boolean), "y............");
        assert_eq!(held(Kind::Unsigned(2)), "y............");
        assert_eq!(held(Kind::Unsigned(4)), "y..y.........");
        assert_eq!(held(Kind::Unsigned(8)), "y..yy....y.y.");
        assert_eq!(held(Kind::KernelSymbol), ".........y...");
        assert_eq!(held(Kind::KernelStack), ".............");
        assert_eq!(held(Kind::UserStack), "..........y..");
        assert_eq!(held(Kind::Signed(4)), "yy...........");
        assert_eq!(held(Kind::Signed(8)), "yyyy.y.......");
        assert_eq!(held(Kind::Text), "......y......");
        assert_eq!(held(Kind::Bytes), "......yy.....");
        assert_eq!(held(Kind::Address), "........y....");
        assert_eq!(held(Kind::HardwareAddress), "............y");
    }

    #[test]
    fn a_comm_is_at_most_16_bytes() {
        assert_eq!(Comm::new(b"0123456789abcdefg"), "0123456789abcdef");
        assert_eq!(Comm::new(b"sh"), "sh");
        assert_eq!(Comm::new(b"sh").to_str(), Some("sh"));
        assert_eq!(Comm::default().as_bytes(), b"");
    }

    #[test]
    fn what_is_not_utf8_goes_as_bytes() {
        assert_eq!(Value::from(&Comm::new(b"caf\xe9")), Value::Bytes(b"caf\xe9"));
        assert_eq!(Value::from(&Comm::new("café".as_bytes())), Value::Text("café"));
        assert_eq!(Value::from(None::<u8>), Value::Absent);
        assert_eq!(Value::from(Some(-1i32)), Value::Signed(-1));
        assert_eq!(Comm::new(b"caf\xe9").to_string(), "caf\u{fffd}");
    }

    #[test]
    fn addresses_go_as_what_they_are() {
        assert_eq!(Value::from(IpAddr::from([192, 0, 2, 1])), Value::Address(IpAddress::Ipv4((192, 0, 2, 1))));
        let v6 = IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]);
        assert_eq!(Value::from(v6), Value::Address(IpAddress::Ipv6((0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))));
        let mac = Mac([0x52, 0x54, 0, 0x0a, 0xbc, 0xff]);
        assert_eq!(Value::from(mac), Value::HardwareAddress((0x52, 0x54, 0, 0x0a, 0xbc, 0xff)));
        assert_eq!(mac.to_string(), "52:54:00:0a:bc:ff");
    }
}
