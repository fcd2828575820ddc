//! Records as they come: bytes, laid out as `wit/events.wit` says.

/// Bytes of a record's header.
pub(crate) const HEADER: usize = 24;
pub(crate) const SCHEMA: usize = 4;
const CPU: usize = 6;
const TIME: usize = 8;
const PRESENCE: usize = 16;
/// The bit of a slot's length that tells that the value was cut, and of a schema's id that tells it of a walk.
pub(crate) const CUT: u16 = 0x8000;

/// One record of a batch: a header and the fields of one event.
///
/// Reading never panics: what lies outside of the record reads as 0, or empty. (A panic would pull its message's
/// formatting into the component, and the offsets have been checked when the plugin started.)
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    bytes: &'a [u8],
}

/// Where a field is in the records of its event, and how wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Bytes from the start of the record.
    pub(crate) offset: usize,
    /// The field's bit among the presence bits.
    pub(crate) presence: u64,
    /// Bytes of an integer.
    pub(crate) width: u8,
    /// Whether an integer has a sign.
    pub(crate) signed: bool,
}

impl<'a> Record<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Record<'a> {
        Record { bytes }
    }

    /// The record's bytes, header included.
    pub fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The id of the record's schema.
    pub(crate) fn schema(self) -> u16 {
        u16::from_le_bytes(self.array(SCHEMA)) & !CUT
    }

    /// Whether a walk (`count(tasks(), …)` and the like) has been cut short for this record: what it gave is what it
    /// had come to.
    pub fn walk_was_cut(self) -> bool {
        u16::from_le_bytes(self.array(SCHEMA)) & CUT != 0
    }

    /// The CPU on which the probe fired.
    pub fn cpu(self) -> u16 {
        u16::from_le_bytes(self.array(CPU))
    }

    /// When the probe fired, in nanoseconds since boot (CLOCK_BOOTTIME).
    pub fn time_ns(self) -> u64 {
        u64::from_le_bytes(self.array(TIME))
    }

    /// Whether the field has a value.
    pub fn is_present(self, cell: Cell) -> bool {
        u64::from_le_bytes(self.array(PRESENCE)) & cell.presence != 0
    }

    /// The bits of an integer, sign-extended or zero-extended as the kernel's type is.
    pub fn integer(self, cell: Cell) -> u64 {
        match (cell.width, cell.signed) {
            (1, false) => u8::from_le_bytes(self.array(cell.offset)).into(),
            (1, true) => i8::from_le_bytes(self.array(cell.offset)) as u64,
            (2, false) => u16::from_le_bytes(self.array(cell.offset)).into(),
            (2, true) => i16::from_le_bytes(self.array(cell.offset)) as u64,
            (4, false) => u32::from_le_bytes(self.array(cell.offset)).into(),
            (4, true) => i32::from_le_bytes(self.array(cell.offset)) as u64,
            _ => u64::from_le_bytes(self.array(cell.offset)),
        }
    }

    /// The bytes of a text or bytes field, and whether the value was longer and has been cut.
    pub fn slot(self, cell: Cell) -> (&'a [u8], bool) {
        let [o0, o1, n0, n1] = self.array(cell.offset);
        let (offset, length) = (u16::from_le_bytes([o0, o1]), u16::from_le_bytes([n0, n1]));
        let (start, count) = (usize::from(offset), usize::from(length & !CUT));
        (self.bytes.get(start..start + count).unwrap_or_default(), length & CUT != 0)
    }

    /// The first byte of a field of several, and so many of those behind it, from the one at `at` on.
    pub(crate) fn octets<const N: usize>(self, cell: Cell, at: usize) -> (u8, [u8; N]) {
        let [first] = self.array(cell.offset);
        (first, self.array(cell.offset.saturating_add(at)))
    }

    fn array<const N: usize>(self, offset: usize) -> [u8; N] {
        self.bytes.get(offset..).and_then(|bytes| bytes.first_chunk()).copied().unwrap_or([0; N])
    }
}

/// The records of a batch, each with its offset from the batch's start. Ends before the first that is not whole.
#[derive(Clone, Debug)]
pub(crate) struct Records<'a> {
    batch: &'a [u8],
    at: usize,
}

impl<'a> Records<'a> {
    pub(crate) fn new(batch: &'a [u8]) -> Records<'a> {
        Records { batch, at: 0 }
    }

    /// The record at this offset; none where there is no whole one.
    pub(crate) fn at(batch: &'a [u8], offset: usize) -> Option<Record<'a>> {
        let rest = batch.get(offset..)?;
        let length = u32::from_le_bytes(*rest.first_chunk()?) as usize;
        if length < HEADER || !length.is_multiple_of(8) {
            return None;
        }
        rest.get(..length).map(Record::new)
    }

    /// Offset of the record that comes next.
    pub(crate) fn offset(&self) -> usize {
        self.at
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = (usize, Record<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let record = Self::at(self.batch, self.at)?;
        let offset = self.at;
        self.at += record.bytes.len();
        Some((offset, record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(offset: usize, width: u8, signed: bool) -> Cell {
        Cell { offset, presence: 1, width, signed }
    }

    /// A record made by hand: 4 bytes of 0xff, a slot of the 3 bytes behind it, cut.
    #[rustfmt::skip]
    const RECORD: [u8; 40] = [
        40, 0, 0, 0,  7, 0,  3, 0,
        0x15, 0xcd, 0x5b, 0x07, 0, 0, 0, 0,
        0b101, 0, 0, 0, 0, 0, 0, 0,
        0xff, 0xff, 0xff, 0xff,  32, 0, 3, 0x80,
        b'a', b'b', 0xe9, 0, 0, 0, 0, 0,
    ];

    #[test]
    fn header_integers_and_slots_are_read_at_their_offsets() {
        let record = Record::new(&RECORD);
        assert_eq!((record.schema(), record.cpu(), record.time_ns()), (7, 3, 123_456_789));
        assert_eq!(record.integer(cell(24, 4, false)), 0xffff_ffff);
        assert_eq!(record.integer(cell(24, 4, true)) as i64, -1);
        assert_eq!(record.integer(cell(24, 2, true)) as i64, -1);
        assert_eq!(record.integer(cell(24, 1, true)) as i64, -1);
        assert_eq!(record.integer(cell(24, 1, false)), 255);
        assert_eq!(record.slot(cell(28, 4, false)), (&b"ab\xe9"[..], true));
        assert!(record.is_present(Cell { presence: 4, ..cell(0, 4, false) }));
        assert!(!record.is_present(Cell { presence: 2, ..cell(0, 4, false) }));
    }

    #[test]
    fn outside_of_the_record_is_nothing() {
        let record = Record::new(&RECORD);
        assert_eq!(record.integer(cell(36, 8, false)), 0);
        assert_eq!(record.integer(cell(usize::MAX, 8, false)), 0);
        let mut bytes = RECORD;
        bytes[28] = 39;
        assert_eq!(Record::new(&bytes).slot(cell(28, 4, false)), (&b""[..], true));
    }

    #[test]
    fn a_batch_ends_before_the_first_record_that_is_not_whole() {
        let batch = [&RECORD[..], &RECORD[..], &RECORD[..39]].concat();
        let mut records = Records::new(&batch);
        assert_eq!(records.by_ref().map(|(offset, _)| offset).collect::<Vec<_>>(), [0, 40]);
        assert_eq!(records.offset(), 80);
        assert!(Records::at(&[8, 0, 0, 0, 0, 0, 0, 0], 0).is_none());
        assert!(Records::at(&[25; 64], 0).is_none());
    }
}
