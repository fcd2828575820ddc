//! A row as a JSON object on a line of its own: `{"plugin":…,"event":…,"time_ns":…,"fields":{…}}`.
//!
//! Integers are exact, absent is null, floats that JSON has no number for are strings, and text and bytes that are not
//! UTF-8 are `{"escaped":"…"}`: backslashes doubled and every byte that is not UTF-8 as `\xNN`. Addresses are strings,
//! and flags a list of names, behind which what has none is a hexadecimal number in a string. A column name that comes
//! twice gets a number behind its second coming. Characters that a terminal obeys are written as JSON's `\uNNNN`.

use std::collections::HashMap;
use std::io;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::ser::Formatter;

use super::{escape_bytes, flags, hardware_address};
use crate::plan::is_unsafe;
use crate::plugin::{Row, Value};

/// Appends the row's line.
pub fn row(plugin: &str, row: &Row, to: &mut Vec<u8>) {
    line(&Line { plugin, row }, to);
}

/// Appends a value as one line of JSON.
pub fn line(value: &impl Serialize, to: &mut Vec<u8>) {
    let before = to.len();
    // Serialising into memory fails only where a map's key is no string, and all of ours are.
    let mut serializer = serde_json::Serializer::with_formatter(&mut *to, Tame);
    if value.serialize(&mut serializer).is_err() {
        to.truncate(before);
        return;
    }
    to.push(b'\n');
}

/// JSON as serde_json has it, with characters that a terminal obeys written as `\uNNNN`.
struct Tame;

impl Formatter for Tame {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| is_unsafe(*c)) {
            // None of them is beyond U+FFFF.
            write!(writer, "{}\\u{:04x}", &rest[..at], u32::from(c))?;
            rest = &rest[at + c.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
}

struct Line<'a> {
    plugin: &'a str,
    row: &'a Row,
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("plugin", self.plugin)?;
        map.serialize_entry("event", &self.row.name)?;
        map.serialize_entry("time_ns", &self.row.time)?;
        map.serialize_entry("fields", &Fields(&self.row.columns))?;
        map.end()
    }
}

struct Fields<'a>(&'a [(String, Value)]);

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        let mut seen: HashMap<&str, u32> = HashMap::new();
        for (name, value) in self.0 {
            let times = seen.entry(name).and_modify(|n| *n += 1).or_insert(1);
            match *times {
                1 => map.serialize_entry(name, &Json(value))?,
                n => map.serialize_entry(&format!("{name}#{n}"), &Json(value))?,
            }
        }
        map.end()
    }
}

struct Json<'a>(&'a Value);

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Absent => serializer.serialize_none(),
            Value::Boolean(value) => serializer.serialize_bool(*value),
            Value::Signed(value) => serializer.serialize_i64(*value),
            Value::Unsigned(value) => serializer.serialize_u64(*value),
            Value::Float(value) if value.is_finite() => serializer.serialize_f64(*value),
            Value::Float(value) => serializer.collect_str(value),
            Value::Text(text) => serializer.serialize_str(text),
            Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => serializer.serialize_str(text),
                Err(_) => {
                    let mut map = serializer.serialize_map(Some(1))?;
                    map.serialize_entry("escaped", &escape_bytes(bytes))?;
                    map.end()
                }
            },
            Value::Address(address) => serializer.collect_str(address),
            Value::HardwareAddress(octets) => serializer.serialize_str(&hardware_address(*octets)),
            Value::Flags { names, rest } => serializer.collect_seq(flags(names, *rest)),
            Value::Names(names) => serializer.collect_seq(names),
            // Names stand in their place by now.
            Value::KernelSymbol(_) | Value::UserSymbol(..) | Value::KernelStack(_) | Value::UserStack(..) => {
                serializer.serialize_none()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_exact() {
        let columns = [
            ("a", Value::Signed(i64::MIN)),
            ("b", Value::Unsigned(u64::MAX)),
            ("c", Value::Absent),
            ("d", Value::Text("x\"\u{1b}\u{9b}\u{7f}é\u{202e}".into())),
            ("e", Value::Bytes(b"/\xff\\".to_vec())),
            ("e", Value::Bytes(b"ok".to_vec())),
            ("f", Value::Float(f64::NAN)),
            ("g", Value::Boolean(true)),
            ("h", Value::Address("2001:db8::1".parse().expect("an address"))),
            ("i", Value::HardwareAddress([0x52, 0x54, 0, 0xab, 0xcd, 0xef])),
            ("j", Value::Flags { names: vec!["O_WRONLY".into(), "O_CREAT".into()], rest: 0x4000_0000 }),
            ("k", Value::Flags { names: Vec::new(), rest: 0 }),
        ];
        let columns = columns.map(|(n, v)| (n.to_owned(), v)).to_vec();
        let mut line = Vec::new();
        row("p", &Row { name: "e".into(), time: Some(7), columns }, &mut line);
        let wanted = r#"{"plugin":"p","event":"e","time_ns":7,"fields":{"a":-9223372036854775808,"b":18446744073709551615,"c":null,"d":"x\"\u001b\u009b\u007fé\u202e","e":{"escaped":"/\\xff\\\\"},"e#2":"ok","f":"NaN","g":true,"h":"2001:db8::1","i":"52:54:00:ab:cd:ef","j":["O_WRONLY","O_CREAT","0x40000000"],"k":[]}}"#;
        assert_eq!(String::from_utf8(line).expect("UTF-8"), format!("{wanted}\n"));
    }
}
