//! Whether bytes from a plugin are whole records of its own schemas.

use std::collections::HashMap;

use thiserror::Error;

use crate::plan::layout::{self, Schema};

/// What a check needs to know of a plugin's schemas, by their ids.
#[derive(Debug, Default)]
pub struct Shapes(HashMap<u16, Shape>);

#[derive(Debug)]
struct Shape {
    /// Bytes of the header and the fixed fields.
    size: usize,
    /// Offsets of the slots of text and bytes.
    slots: Vec<usize>,
}

/// Why bytes are not whole records.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    #[error("the record at byte {at} is cut off")]
    Truncated { at: usize },
    #[error("the record at byte {at} gives its length as {length}")]
    Length { at: usize, length: usize },
    #[error("the record at byte {at} names schema {id}, which is none of the plugin's")]
    Schema { at: usize, id: u16 },
    #[error("the record at byte {at} has a text or bytes field that lies outside of it")]
    Slot { at: usize },
}

impl Shapes {
    /// Of a plugin's schemas.
    pub fn new(schemas: &[Schema]) -> Shapes {
        Shapes(schemas.iter().map(|schema| (schema.id, Shape::new(schema))).collect())
    }

    /// Checks that `records` are whole records, so that they can be read without another look at their bounds.
    ///
    /// The bytes of a record's text and bytes fields lie behind its fixed fields and do not take more than there is,
    /// all together: no more can be rendered from a record than was in it.
    pub fn check(&self, records: &[u8]) -> Result<(), RecordError> {
        let mut at = 0;
        while at < records.len() {
            at += self.check_first(&records[at..], at)?;
        }
        Ok(())
    }

    /// Checks the record at the start of `bytes`, which is the one at byte `at` of all; returns its length.
    fn check_first(&self, bytes: &[u8], at: usize) -> Result<usize, RecordError> {
        if bytes.len() < layout::HEADER as usize {
            return Err(RecordError::Truncated { at });
        }
        let id = u16_at(bytes, layout::SCHEMA as usize) & !layout::WALK_CUT;
        let shape = self.0.get(&id).ok_or(RecordError::Schema { at, id })?;
        let length = u32_at(bytes, layout::LENGTH as usize) as usize;
        if !length.is_multiple_of(8) || length < shape.size || length > layout::MAX_RECORD as usize {
            return Err(RecordError::Length { at, length });
        }
        let record = bytes.get(..length).ok_or(RecordError::Truncated { at })?;
        if shape.slots_fit(record) { Ok(length) } else { Err(RecordError::Slot { at }) }
    }
}

impl Shape {
    fn new(schema: &Schema) -> Shape {
        let slots = schema.fields.iter().filter(|field| field.kind.has_slot()).map(|field| field.offset as usize);
        Shape { size: schema.size as usize, slots: slots.collect() }
    }

    fn slots_fit(&self, record: &[u8]) -> bool {
        let mut left = record.len() - self.size;
        self.slots.iter().all(|&slot| {
            let start = usize::from(u16_at(record, slot));
            let length = usize::from(u16_at(record, slot + 2) & !layout::CUT);
            let inside = length == 0 || (start >= self.size && start + length <= record.len() && length <= left);
            left -= length.min(left);
            inside
        })
    }
}

/// The little-endian u16 at `offset`, which the caller knows to be inside.
fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes([bytes[offset], bytes[offset + 1]])
}

/// The little-endian u32 at `offset`, which the caller knows to be inside.
fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes([bytes[offset], bytes[offset + 1], bytes[offset + 2], bytes[offset + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::layout::FieldKind;

    fn shapes() -> Shapes {
        let text = ["first", "second"].map(|name| (name.to_owned(), FieldKind::Text));
        Shapes::new(&[Schema::new(0, "p", "plain", []), Schema::new(1, "p", "texts", text)])
    }

    /// A record of `length` bytes with the given slots.
    fn record(id: u16, length: u32, slots: &[(u16, u16)]) -> Vec<u8> {
        let mut record = vec![0; length.max(layout::HEADER) as usize];
        record[0..4].copy_from_slice(&length.to_le_bytes());
        record[4..6].copy_from_slice(&id.to_le_bytes());
        for (i, (start, length)) in slots.iter().enumerate() {
            record[24 + 4 * i..][..2].copy_from_slice(&start.to_le_bytes());
            record[26 + 4 * i..][..2].copy_from_slice(&length.to_le_bytes());
        }
        record
    }

    #[test]
    fn whole_records_pass() {
        let batch =
            [record(0, 24, &[]), record(1, 48, &[(32, 10), (42, 6 | layout::CUT)]), record(1, 32, &[])].concat();
        assert_eq!(shapes().check(&batch), Ok(()));
        assert_eq!(shapes().check(&[]), Ok(()));
    }

    #[test]
    fn anything_else_is_refused() {
        let refused = |bytes: &[u8]| shapes().check(bytes).unwrap_err();
        assert_eq!(refused(&[0; 7]), RecordError::Truncated { at: 0 });
        assert_eq!(refused(&record(0, 32, &[])[..24]), RecordError::Truncated { at: 0 });
        assert_eq!(refused(&record(0, 0, &[])), RecordError::Length { at: 0, length: 0 });
        assert_eq!(refused(&record(0, 28, &[])), RecordError::Length { at: 0, length: 28 });
        assert_eq!(refused(&record(1, 24, &[])), RecordError::Length { at: 0, length: 24 });
        assert_eq!(refused(&record(0, 40_000, &[])), RecordError::Length { at: 0, length: 40_000 });
        let second = [record(0, 24, &[]), record(7, 24, &[])].concat();
        assert_eq!(refused(&second), RecordError::Schema { at: 24, id: 7 });
    }

    #[test]
    fn slots_lie_inside_and_do_not_share_bytes() {
        let refused = |slots: &[(u16, u16)]| shapes().check(&record(1, 48, slots)) == Err(RecordError::Slot { at: 0 });
        assert!(refused(&[(40, 9)]));
        assert!(refused(&[(65_535, 0x7fff)]));
        assert!(refused(&[(24, 4)]), "among the fixed fields");
        assert!(refused(&[(32, 16), (32, 16)]), "twice the same bytes");
    }
}
