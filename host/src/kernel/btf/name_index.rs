//! Type ids by name, over all of a kernel's BTF.
//!
//! The problem: BTF has no index of its names, and btf-rs's memory-mapped backend reads all 126,690 types for each name
//! asked (1 ms), while its other backend parses everything first (200 ms). A plugin asks dozens of names.
//!
//! The idea: one pass over the raw types that keeps only (hash of the name, type id), sorted into buckets by counting.
//! It costs 2 ms and 1.5 MiB for a kernel's 71,000 named types, after which a name costs a microsecond.
//!
//! The index answers with candidates: two names may share a hash, so who asks compares the names.
//!
//! The layout of the bytes is that of include/uapi/linux/btf.h.

use std::ops::Range;

/// Hashes are 32 bits wide; their upper bits choose the bucket.
const BUCKET_BITS: u32 = 16;
const BUCKETS: usize = 1 << BUCKET_BITS;

/// The bytes of `struct btf_header` that are read. Later kernels append to it: 24 bytes until 7.2.4, then 32.
const HEADER_BYTES: usize = 24;
/// `struct btf_type`, which begins every type.
const TYPE_BYTES: usize = 12;
const MAGIC: u16 = 0xeb9f;

pub(super) struct NameIndex {
    /// Where each bucket begins in `entries`, and behind the last one its end.
    starts: Vec<u32>,
    entries: Vec<Entry>,
    /// Ids of all enumerations, with names or without.
    enumerations: Vec<u32>,
    /// Bytes of all names, from which those of modules are counted on.
    strings: usize,
}

#[derive(Clone, Copy)]
struct Entry {
    hash: u32,
    id: u32,
}

impl NameIndex {
    /// Indexes the names of a stand-alone BTF of this machine's byte order. The error says what is wrong with the
    /// bytes.
    pub(super) fn new(btf: &[u8]) -> Result<NameIndex, &'static str> {
        let (types, strings) = sections(btf)?;
        let (named, enumerations) = named_types(types, strings)?;
        Ok(NameIndex { enumerations, strings: strings.len(), ..NameIndex::bucketed(&named) })
    }

    /// The names of the typedefs that a module's BTF adds to this one, as far as they begin so. Some 50 µs.
    pub(super) fn added_typedefs(&self, module: &[u8], prefix: &str) -> Result<Vec<String>, &'static str> {
        let (types, strings) = sections(module)?;
        let mut names = Vec::new();
        for ty in each(types) {
            let (name, info) = ty?;
            let Some(at) = name.checked_sub(self.strings).filter(|_| kind(info) == TYPEDEF) else { continue };
            let name = strings.get(at..).ok_or("a name lies outside of the strings")?;
            let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
            if let Some(rest) = name.strip_prefix(prefix.as_bytes()) {
                names.push(String::from_utf8_lossy(rest).into_owned());
            }
        }
        Ok(names)
    }

    /// All enumerations, in ascending order.
    pub(super) fn enumerations(&self) -> &[u32] {
        &self.enumerations
    }

    /// Types that may be called `name`, in ascending order: all that are, and seldom one that is not.
    pub(super) fn candidates(&self, name: &str) -> impl Iterator<Item = u32> {
        let hash = hash(name.as_bytes());
        let bucket = bucket(hash);
        let range = self.starts[bucket] as usize..self.starts[bucket + 1] as usize;
        self.entries[range].iter().filter(move |entry| entry.hash == hash).map(|entry| entry.id)
    }

    fn bucketed(unsorted: &[Entry]) -> NameIndex {
        let mut starts = vec![0_u32; BUCKETS + 1];
        for entry in unsorted {
            starts[bucket(entry.hash) + 1] += 1;
        }
        for bucket in 0..BUCKETS {
            starts[bucket + 1] += starts[bucket];
        }
        let mut next = starts.clone();
        let mut entries = vec![Entry { hash: 0, id: 0 }; unsorted.len()];
        for &entry in unsorted {
            let place = &mut next[bucket(entry.hash)];
            entries[*place as usize] = entry;
            *place += 1;
        }
        NameIndex { starts, entries, enumerations: Vec::new(), strings: 0 }
    }
}

fn bucket(hash: u32) -> usize {
    (hash >> (u32::BITS - BUCKET_BITS)) as usize
}

/// The types that have names, and the ids of all enumerations.
fn named_types(types: &[u8], strings: &[u8]) -> Result<(Vec<Entry>, Vec<u32>), &'static str> {
    let mut entries = Vec::with_capacity(types.len() / 40);
    let mut enumerations = Vec::new();
    for (ty, id) in each(types).zip(1..) {
        let (name, info) = ty?;
        if ENUMERATIONS.contains(&kind(info)) {
            enumerations.push(id);
        }
        if name != 0 {
            entries.push(Entry { hash: hash(strings.get(name..).ok_or("a name lies outside of the strings")?), id });
        }
    }
    Ok((entries, enumerations))
}

/// Where the name of each type is, and its `info` word; behind an error there is nothing.
fn each(types: &[u8]) -> impl Iterator<Item = Result<(usize, u32), &'static str>> {
    let mut rest = Some(types);
    std::iter::from_fn(move || {
        let types = rest.take().filter(|types| !types.is_empty())?;
        let mut next = || {
            let name = word(types, 0).ok_or("a type is cut off")? as usize;
            let info = word(types, 4).ok_or("a type is cut off")?;
            let bytes = type_bytes(info).ok_or("a type is of unknown kind")?;
            rest = Some(types.get(bytes..).ok_or("a type is cut off")?);
            Ok((name, info))
        };
        Some(next())
    })
}

const TYPEDEF: u32 = 8;
/// Of 32 bits and of 64.
const ENUMERATIONS: [u32; 2] = [6, 19];

fn kind(info: u32) -> u32 {
    (info >> 24) & 0x1f
}

fn sections(btf: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    let magic = btf.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes));
    if magic != Some(MAGIC) {
        return Err(if magic == Some(MAGIC.swap_bytes()) { "it is of the other byte order" } else { "it is not BTF" });
    }
    if btf.len() < HEADER_BYTES {
        return Err("the header is cut off");
    }
    let field = |offset| word(btf, offset).map(|value| value as usize);
    let section = |offset| -> Option<&[u8]> { btf.get(span(field(4)?, field(offset)?, field(offset + 4)?)?) };
    Ok((section(8).ok_or("the types are cut off")?, section(16).ok_or("the strings are cut off")?))
}

fn span(header: usize, offset: usize, bytes: usize) -> Option<Range<usize>> {
    let start = header.checked_add(offset)?;
    Some(start..start.checked_add(bytes)?)
}

/// The bytes that a type takes, from its `info` word: bits 0–15 count what follows `struct btf_type`, bits 24–28 are
/// the kind.
fn type_bytes(info: u32) -> Option<usize> {
    let count = (info & 0xffff) as usize;
    let tail = match kind(info) {
        // Pointer, forward, typedef, volatile, const, restrict, function, float, type tag.
        2 | 7..=12 | 16 | 18 => 0,
        // Integer, variable, declaration tag.
        1 | 14 | 17 => 4,
        // Array.
        3 => 12,
        // Struct, union, data section, 64-bit enum.
        4 | 5 | 15 | 19 => 12 * count,
        // Enum, prototype.
        6 | 13 => 8 * count,
        _ => return None,
    };
    Some(TYPE_BYTES + tail)
}

fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// The hash of a name that ends at the first NUL, or with the bytes. Eight bytes at a time: the search for the end and
/// the hash are one loop, which halves the time of the index. Rotate, xor, multiply, as in FxHash.
fn hash(mut name: &[u8]) -> u32 {
    let mut state = 0_u64;
    let mut mix = |word: u64| state = (state.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    while let Some((chunk, rest)) = name.split_first_chunk() {
        let word = u64::from_le_bytes(*chunk);
        let Some(before_nul) = mask_before_nul(word) else {
            mix(word);
            name = rest;
            continue;
        };
        mix(word & before_nul);
        return (state >> 32) as u32;
    }
    let mut last = [0; 8];
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    last[..end].copy_from_slice(&name[..end]);
    mix(u64::from_le_bytes(last));
    (state >> 32) as u32
}

/// The bits of the bytes in front of the first zero byte of a little-endian word, none where it has no zero byte.
fn mask_before_nul(word: u64) -> Option<u64> {
    const LOW: u64 = u64::from_le_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_le_bytes([0x80; 8]);
    // The lowest bit set marks the first zero byte; those above it may be wrong.
    let zeros = word.wrapping_sub(LOW) & !word & HIGH;
    (zeros != 0).then(|| ((zeros & zeros.wrapping_neg()) >> 7).wrapping_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_ends_at_nul() {
        for length in 0..40 {
            let name = vec![b'a'; length];
            for tail in [&b"\0"[..], b"\0b", b"\0other_name_that_follows"] {
                assert_eq!(hash(&[&name, tail].concat()), hash(&name), "{length} bytes before {tail:?}");
            }
            assert_ne!(hash(&name), hash(&[&name[..], b"a"].concat()), "{length} bytes");
        }
        assert_ne!(hash("é\0".as_bytes()), hash(b"\0"), "bytes over 0x7f are not zero");
    }

    #[test]
    fn damaged_bytes_are_errors() {
        let header = |header_bytes: u32, sections: [u32; 4]| {
            let mut bytes = vec![0x9f, 0xeb, 1, 0];
            bytes.extend(
                [header_bytes, sections[0], sections[1], sections[2], sections[3]]
                    .into_iter()
                    .flat_map(u32::to_le_bytes),
            );
            bytes
        };
        let error = |bytes: &[u8]| NameIndex::new(bytes).err();
        assert_eq!(error(b""), Some("it is not BTF"));
        assert_eq!(error(b"\x7fELF"), Some("it is not BTF"));
        assert_eq!(error(&[0xeb, 0x9f, 1, 0]), Some("it is of the other byte order"));
        assert_eq!(error(&[0x9f, 0xeb, 1, 0]), Some("the header is cut off"));
        assert_eq!(error(&header(24, [0, 1, 0, 0])), Some("the types are cut off"));
        assert_eq!(error(&header(24, [0, 0, 0, u32::MAX])), Some("the strings are cut off"));
        assert_eq!(error(&header(u32::MAX, [u32::MAX, u32::MAX, 0, 0])), Some("the types are cut off"));
        assert_eq!(error(&header(24, [0, 0, 0, 0])), None);
    }
}
