//! Records as rows, by their schemas.
//!
//! The records have been checked: whole, of these schemas, with slots inside them. Rows that plugins send of their
//! events' fields look as records would.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::plan::layout::{self, CUT, FieldKind, Flag, LENGTH, PRESENCE, SCHEMA, Schema, TIME, WALK_CUT};
use crate::plugin::{Frames, Row, Value};

/// The first record as a row, and its length.
pub fn first(records: &[u8], schemas: &[Schema]) -> Option<(Row, usize)> {
    let length = number(records, LENGTH, 4) as usize;
    let record = records.get(..length).filter(|record| !record.is_empty())?;
    let schema = schemas.get(usize::from(number(record, SCHEMA, 2) as u16 & !WALK_CUT))?;
    Some((row(record, schema), length))
}

fn row(record: &[u8], schema: &Schema) -> Row {
    let presence = number(record, PRESENCE, 8);
    let columns = schema.fields.iter().zip(0..).map(|(field, bit)| {
        let value = if presence & (1 << bit) == 0 { Value::Absent } else { value(record, &field.kind, field.offset) };
        (field.name.clone(), value)
    });
    // What a row tells by its values alone would not tell that one of them is no more than a lower bound.
    let cut = number(record, SCHEMA, 2) as u16 & WALK_CUT != 0;
    let cut = cut.then(|| ("walk_cut".to_owned(), Value::Boolean(true)));
    let columns = columns.chain(cut).collect();
    Row { name: schema.name.clone(), time: Some(number(record, TIME, 8)), columns }
}

fn value(record: &[u8], kind: &FieldKind, at: u32) -> Value {
    match kind {
        FieldKind::Boolean => Value::Boolean(number(record, at, 1) != 0),
        FieldKind::Unsigned(bytes) => Value::Unsigned(number(record, at, *bytes)),
        FieldKind::Signed(bytes) => Value::Signed(signed(record, at, *bytes)),
        FieldKind::Enumeration(names) => enumerated(names, signed(record, at, 8)),
        FieldKind::Flags(names) => flagged(names, number(record, at, 8)),
        FieldKind::Text => {
            String::from_utf8(marked(record, at)).map_or_else(|e| Value::Bytes(e.into_bytes()), Value::Text)
        }
        FieldKind::Bytes => Value::Bytes(marked(record, at)),
        FieldKind::Address => Value::Address(address(record, at)),
        FieldKind::HardwareAddress => Value::HardwareAddress(octets(record, at)),
        FieldKind::KernelSymbol => Value::KernelSymbol(number(record, at, 8)),
        FieldKind::UserSymbol => Value::UserSymbol(number(record, at + 8, 4) as u32, number(record, at, 8)),
        FieldKind::KernelStack => Value::KernelStack(frames(record, at)),
        FieldKind::UserStack => Value::UserStack(number(record, at + 4, 4) as u32, frames(record, at)),
    }
}

fn enumerated(names: &[(i64, String)], value: i64) -> Value {
    let name = names.iter().find(|(n, _)| *n == value).map(|(_, name)| name.clone());
    name.map_or(Value::Signed(value), Value::Text)
}

fn flagged(names: &[Flag], value: u64) -> Value {
    let (names, rest) = layout::told(names, value);
    Value::Flags { names: names.into_iter().map(str::to_owned).collect(), rest }
}

/// The fields of events whose values have names.
pub struct Named {
    /// By event and field, the numbers of a schema and of a field in it.
    fields: HashMap<String, HashMap<String, (usize, usize)>>,
}

impl Named {
    pub fn of(schemas: &[Schema]) -> Named {
        // None where probes that share an event do not agree.
        let mut all: HashMap<(&str, &str), Option<(usize, usize)>> = HashMap::new();
        for (schema, of) in schemas.iter().zip(0..) {
            for (field, at) in schema.fields.iter().zip(0..) {
                let place = all.entry((&schema.name, &field.name)).or_insert(Some((of, at)));
                *place = place.filter(|(of, at)| schemas[*of].fields[*at].kind == field.kind);
            }
        }
        let mut fields: HashMap<String, HashMap<String, (usize, usize)>> = HashMap::new();
        for ((event, field), place) in all {
            if let Some((of, at)) = place
                && let FieldKind::Enumeration(_) | FieldKind::Flags(_) = schemas[of].fields[at].kind
            {
                fields.entry(event.to_owned()).or_default().insert(field.to_owned(), (of, at));
            }
        }
        Named { fields }
    }

    /// Shows the numbers of a row that has the name of an event by their names, in columns that have the names of its
    /// fields.
    pub fn show(&self, row: &mut Row, schemas: &[Schema]) {
        let Some(fields) = self.fields.get(&row.name) else { return };
        for (column, value) in &mut row.columns {
            let number = match value {
                Value::Signed(number) => *number,
                Value::Unsigned(number) => *number as i64,
                _ => continue,
            };
            match fields.get(column).map(|(of, at)| &schemas[*of].fields[*at].kind) {
                Some(FieldKind::Enumeration(names)) => *value = enumerated(names, number),
                Some(FieldKind::Flags(names)) => *value = flagged(names, number as u64),
                _ => {}
            }
        }
    }
}

/// What a slot leads to, and whether it has been cut.
fn slot(record: &[u8], at: u32) -> (&[u8], bool) {
    let (start, length) = (number(record, at, 2) as usize, number(record, at + 2, 2) as u16);
    (record.get(start..start + usize::from(length & !CUT)).unwrap_or_default(), length & CUT != 0)
}

fn frames(record: &[u8], at: u32) -> Frames {
    let (bytes, cut) = slot(record, at);
    let addresses = bytes.chunks_exact(8).map(|frame| number(frame, 0, 8)).collect();
    Frames { addresses, cut }
}

/// The bytes of a text or bytes field, with a mark where they were cut.
fn marked(record: &[u8], at: u32) -> Vec<u8> {
    let (bytes, cut) = slot(record, at);
    let mut bytes = bytes.to_vec();
    if cut {
        bytes.extend_from_slice("…".as_bytes());
    }
    bytes
}

fn address(record: &[u8], at: u32) -> IpAddr {
    match number(record, at, 1) as u8 {
        layout::V4 => Ipv4Addr::from(octets(record, at + 4)).into(),
        _ => Ipv6Addr::from(octets(record, at + 4)).into(),
    }
}

fn octets<const N: usize>(record: &[u8], at: u32) -> [u8; N] {
    let mut octets = [0; N];
    let from = record.get(at as usize..).unwrap_or_default();
    from.iter().zip(&mut octets).for_each(|(from, to)| *to = *from);
    octets
}

/// Bytes that are not there read as 0.
fn number(record: &[u8], at: u32, bytes: u8) -> u64 {
    let mut value = [0; 8];
    let from = record.get(at as usize..at as usize + usize::from(bytes)).unwrap_or_default();
    value[..from.len()].copy_from_slice(from);
    u64::from_le_bytes(value)
}

fn signed(record: &[u8], at: u32, bytes: u8) -> i64 {
    let shift = 64 - 8 * u32::from(bytes);
    ((number(record, at, bytes) << shift) as i64) >> shift
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::layout::HEADER;

    #[test]
    fn values_of_enumerations_are_named() {
        let names = vec![(1, "ONE".to_owned()), (-1, "BAD".to_owned()), (1, "ALSO_ONE".to_owned())];
        let kind = FieldKind::Enumeration(names);
        let shown = |number: i64| value(&number.to_le_bytes(), &kind, 0);
        assert_eq!([shown(1), shown(-1)], [Value::Text("ONE".into()), Value::Text("BAD".into())]);
        assert_eq!(shown(1 << 40), Value::Signed(1 << 40));
    }

    #[test]
    fn rows_of_an_event_are_shown_as_its_records_are() {
        let letters = || FieldKind::Enumeration(vec![(1, "ONE".to_owned()), (-1, "BAD".to_owned())]);
        let bits = FieldKind::Flags(vec![Flag { mask: 4, value: 4, name: "FOUR".to_owned() }]);
        let fields = [("n", letters()), ("bits", bits), ("pid", FieldKind::Unsigned(4)), ("mixed", letters())];
        let fields = fields.map(|(name, kind)| (name.to_owned(), kind));
        let other = [("mixed".to_owned(), FieldKind::Unsigned(8))];
        let schemas = [Schema::new(0, "p", "e", fields), Schema::new(1, "q", "e", other)];
        let named = Named::of(&schemas);
        let shown = |event: &str, columns: &[(&str, Value)]| {
            let columns = columns.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
            let mut row = Row { name: event.to_owned(), time: None, columns };
            named.show(&mut row, &schemas);
            row.columns.into_iter().map(|(_, value)| value).collect::<Vec<_>>()
        };
        let one = Value::Unsigned(1);
        let row = [("bits", Value::Unsigned(6)), ("n", one.clone()), ("pid", one.clone()), ("mixed", one.clone())];
        let bits = Value::Flags { names: vec!["FOUR".to_owned()], rest: 2 };
        assert_eq!(shown("e", &row), [bits, Value::Text("ONE".into()), one.clone(), one.clone()]);
        assert_eq!(shown("e", &[("n", Value::Signed(-1))]), [Value::Text("BAD".into())]);
        assert_eq!(shown("e", &[("n", Value::Signed(7)), ("n", Value::Absent)]), [Value::Signed(7), Value::Absent]);
        assert_eq!(shown("f", &[("n", one.clone())]), [one]);
    }

    #[test]
    fn a_walk_that_was_cut_short_is_told() {
        let schema = Schema::new(0, "p", "e", [("n".to_owned(), FieldKind::Unsigned(8))]);
        let mut record = vec![0; 32];
        (record[0], record[16], record[HEADER as usize]) = (32, 1, 7);
        let columns = |record: &[u8]| first(record, std::slice::from_ref(&schema)).unwrap().0.columns;
        assert_eq!(columns(&record), [("n".to_owned(), Value::Unsigned(7))]);
        record[SCHEMA as usize + 1] = 0x80;
        let cut = ("walk_cut".to_owned(), Value::Boolean(true));
        assert_eq!(columns(&record), [("n".to_owned(), Value::Unsigned(7)), cut]);
    }

    #[test]
    fn a_record_becomes_a_row() {
        let fields = [
            ("n".to_owned(), FieldKind::Signed(2)),
            ("t".to_owned(), FieldKind::Text),
            ("gone".to_owned(), FieldKind::Unsigned(4)),
            ("a".to_owned(), FieldKind::Address),
        ];
        let schema = Schema::new(0, "p", "e", fields);
        let mut record = vec![0; 64];
        record.extend_from_slice(b"abc\0\0\0\0\0");
        record[0] = 72;
        record[8] = 9;
        record[16] = 0b1011;
        record[HEADER as usize..][..2].copy_from_slice(&(-5i16).to_le_bytes());
        record[schema.fields[1].offset as usize..][..4].copy_from_slice(&[64, 0, 3, 0x80]);
        record[schema.fields[3].offset as usize] = 4;
        record[schema.fields[3].offset as usize + 4..][..4].copy_from_slice(&[127, 0, 0, 1]);
        let (row, length) = first(&record, std::slice::from_ref(&schema)).unwrap();
        assert_eq!(length, record.len());
        assert_eq!(row.time, Some(9));
        let values: Vec<&Value> = row.columns.iter().map(|(_, v)| v).collect();
        assert_eq!(
            values,
            [
                &Value::Signed(-5),
                &Value::Text("abc…".into()),
                &Value::Absent,
                &Value::Address(Ipv4Addr::LOCALHOST.into())
            ]
        );
    }
}
