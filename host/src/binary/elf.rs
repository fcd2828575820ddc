//! An ELF file: its segments, functions and markers.
//!
//! The problem: a plugin may ask for the names of any process, and that process decides which files it has mapped. In
//! ELF all is told by numbers of places, so a small file can say the same bytes many times over: a million symbols
//! whose names are one long text, a thousand sections that are one.
//!
//! The idea: whatever could be said several times is counted, and all that is read of one kind is at most as long as
//! the file. A file that goes beyond has been made to, and is taken for damaged. So time and memory follow from the
//! bytes that a file really has.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::path::PathBuf;

use object::LittleEndian;
use object::elf::{self, FileHeader64, SHN_UNDEF};
use object::read::SectionIndex;
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader, SectionTable, Sym};

use super::names::{Function, Functions, Named};
use super::usdt::{self, Marker};
use super::{Binary, BinaryError, Segment};

type Header = FileHeader64<LittleEndian>;
type Sections<'a> = SectionTable<'a, Header>;

/// Bytes of a symbol's name at most. The longest that compilers make of templates have some thousand; what has a longer
/// one has none.
const MAX_NAME: usize = 4096;
/// Parts of a file that are loaded at most; linkers make a handful. Each symbol is looked for in all of them.
const MAX_SEGMENTS: usize = 256;
/// Functions of a file at most, of which each takes some 100 bytes of memory. Browsers with all their symbols have a
/// million.
const MAX_FUNCTIONS: usize = 4 << 20;

/// Reads a program or library for x86-64.
pub fn read(path: String, file: PathBuf, bytes: &[u8]) -> Result<Binary, BinaryError> {
    if let Some(why) = foreign(bytes) {
        return Err(BinaryError::NotElf { path, why });
    }
    match contents(bytes) {
        Ok((segments, functions, markers)) => {
            Ok(Binary { path, file, segments, functions: Functions::new(functions), markers })
        }
        Err(Damage(reason)) => Err(BinaryError::Damaged { path, reason }),
    }
}

/// Why a file is nothing that a probe could be put into.
fn foreign(bytes: &[u8]) -> Option<&'static str> {
    if bytes.starts_with(b"#!") {
        return Some("it is a script; give the program that runs it");
    }
    if !bytes.starts_with(&elf::ELFMAG) {
        return Some("it is no ELF file");
    }
    // e_ident[EI_CLASS], e_ident[EI_DATA], then e_type at 16 and e_machine at 18.
    let half = |at: usize| bytes.get(at..at + 2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    if bytes.get(4) != Some(&elf::ELFCLASS64) || half(18) != Some(elf::EM_X86_64) {
        return Some("it is not for x86-64");
    }
    if !matches!(half(16), Some(elf::ET_EXEC | elf::ET_DYN)) {
        return Some("it has not been linked");
    }
    None
}

/// What is wrong with a file.
#[derive(Debug)]
struct Damage(String);

impl From<&str> for Damage {
    fn from(reason: &str) -> Damage {
        Damage(reason.to_owned())
    }
}

impl From<object::read::Error> for Damage {
    fn from(error: object::read::Error) -> Damage {
        Damage(error.to_string())
    }
}

type Read<T> = Result<T, Damage>;
type Contents = (Vec<Segment>, Vec<Named>, Vec<Marker>);

fn contents(bytes: &[u8]) -> Read<Contents> {
    let endian = LittleEndian;
    let header = Header::parse(bytes)?;
    let loaded = header.program_headers(endian, bytes)?.iter().filter(|s| s.p_type(endian) == elf::PT_LOAD);
    let segments: Vec<Segment> = loaded
        .take(MAX_SEGMENTS + 1)
        .map(|s| Segment {
            address: s.p_vaddr(endian),
            size: s.p_filesz(endian),
            offset: s.p_offset(endian),
            executable: s.p_flags(endian) & elf::PF_X != 0,
        })
        .collect();
    if segments.len() > MAX_SEGMENTS {
        return Err(format!("{MAX_SEGMENTS} parts that are loaded are the most").as_str().into());
    }
    let sections = header.sections(endian, bytes)?;
    let mut functions = Vec::new();
    let mut names = Names::of(bytes);
    for table in [elf::SHT_SYMTAB, elf::SHT_DYNSYM] {
        add_functions(&sections, bytes, table, &segments, &mut names, &mut functions)?;
    }
    let markers = markers(header, &sections, bytes)?;
    Ok((segments, functions, markers))
}

/// Reads names, of which all together are at most as long as the file.
struct Names {
    left: Bytes,
    /// Functions that may still have one.
    functions: usize,
}

impl Names {
    fn of(file: &[u8]) -> Names {
        Names { left: Bytes::of(file), functions: MAX_FUNCTIONS }
    }

    /// The name that begins there; none where it is too long, or does not end.
    fn read<'a>(&mut self, strings: &'a [u8], at: u32) -> Read<Option<&'a [u8]>> {
        let Some(rest) = strings.get(at as usize..) else { return Ok(None) };
        let rest = &rest[..rest.len().min(MAX_NAME + 1)];
        let length = rest.iter().position(|byte| *byte == 0);
        self.left.take(length.unwrap_or(rest.len()), "its names are longer together than the file")?;
        Ok(length.map(|length| &rest[..length]))
    }
}

/// Bytes that may still be read of a file.
struct Bytes(usize);

impl Bytes {
    fn of(file: &[u8]) -> Bytes {
        Bytes(file.len())
    }

    fn take(&mut self, bytes: usize, otherwise: &'static str) -> Read<()> {
        self.0 = self.0.checked_sub(bytes).ok_or(otherwise)?;
        Ok(())
    }
}

/// The functions of one symbol table that lie in the file.
fn add_functions(
    sections: &Sections<'_>,
    bytes: &[u8],
    table: u32,
    segments: &[Segment],
    names: &mut Names,
    functions: &mut Vec<Named>,
) -> Read<()> {
    let endian = LittleEndian;
    let symbols = sections.symbols(endian, bytes, table)?;
    let strings = strings(sections, bytes, symbols.string_section())?;
    // Not what the versions are called, of which a file can have more than it has bytes.
    let versions = if table == elf::SHT_DYNSYM { sections.gnu_versym(endian, bytes)? } else { None };
    let versions = versions.map_or(&[][..], |(versions, _)| versions);
    for (index, symbol) in symbols.enumerate() {
        // Labels in assembly have no type.
        if symbol.st_shndx(endian) == SHN_UNDEF
            || !matches!(symbol.st_type(), elf::STT_FUNC | elf::STT_GNU_IFUNC | elf::STT_NOTYPE)
        {
            continue;
        }
        let address = symbol.st_value(endian);
        let executable = segments.iter().filter(|s| s.executable);
        if super::offset(executable, address).is_none() {
            continue;
        }
        // An old version of a function, kept for programs that were linked with it, is not what its name means now.
        if versions.get(index.0).is_some_and(|version| version.0.get(endian) & elf::VERSYM_HIDDEN != 0) {
            continue;
        }
        let Some(name) = names.read(strings, symbol.st_name(endian))? else { continue };
        let Ok(name) = std::str::from_utf8(name) else { continue };
        // Linkers write `name@@VERSION` for the version that a name means now.
        let name = name.split_once("@@").map_or(name, |(name, _)| name);
        if !name.is_empty() {
            names.functions = names.functions.checked_sub(1).ok_or("it has too many functions")?;
            let function = Function { address, size: symbol.st_size(endian) };
            let indirect = symbol.st_type() == elf::STT_GNU_IFUNC;
            let label = symbol.st_type() == elf::STT_NOTYPE;
            functions.push(Named { name: name.to_owned(), function, indirect, label });
        }
    }
    Ok(())
}

fn markers(header: &Header, sections: &Sections<'_>, bytes: &[u8]) -> Read<Vec<Marker>> {
    let endian = LittleEndian;
    if sections.is_empty() {
        return Ok(Vec::new());
    }
    let section_names = strings(sections, bytes, header.section_strings_index(endian, bytes)?)?;
    let (mut names, mut left) = (Names::of(bytes), Bytes::of(bytes));
    let (mut base, mut notes) = (None, Vec::new());
    for section in sections.iter() {
        match names.read(section_names, section.sh_name(endian))? {
            Some(b".stapsdt.base") => base = base.or(Some(section.sh_addr(endian))),
            Some(b".note.stapsdt") => notes.push(section),
            _ => {}
        }
    }
    let addresses = Addresses { sections, bytes, known: OnceCell::new() };
    let address_of = |name: &str| addresses.of(name);
    let mut markers = Vec::new();
    for section in notes {
        let Some(mut notes) = section.notes(endian, bytes)? else { continue };
        left.take(section.data(endian, bytes)?.len(), "its notes are longer together than the file")?;
        while let Some(note) = notes.next()? {
            if note.name() == usdt::NOTE_NAME && note.n_type(endian) == usdt::NOTE_TYPE {
                markers.extend(usdt::marker(note.desc(), base, &address_of));
            }
        }
    }
    Ok(markers)
}

/// Addresses by name, of data too. Most markers ask for none, so that they are read on first use.
struct Addresses<'a> {
    sections: &'a Sections<'a>,
    bytes: &'a [u8],
    known: OnceCell<HashMap<&'a [u8], u64>>,
}

impl<'a> Addresses<'a> {
    /// The address of what a name stands for, where the file says.
    fn of(&self, name: &str) -> Option<u64> {
        self.known.get_or_init(|| self.read().unwrap_or_default()).get(name.as_bytes()).copied()
    }

    fn read(&self) -> Read<HashMap<&'a [u8], u64>> {
        let endian = LittleEndian;
        let (mut names, mut known) = (Names::of(self.bytes), HashMap::new());
        for table in [elf::SHT_SYMTAB, elf::SHT_DYNSYM] {
            let symbols = self.sections.symbols(endian, self.bytes, table)?;
            let strings = strings(self.sections, self.bytes, symbols.string_section())?;
            for symbol in symbols.iter().filter(|symbol| symbol.st_shndx(endian) != SHN_UNDEF) {
                if let Some(name) = names.read(strings, symbol.st_name(endian))? {
                    known.entry(name).or_insert(symbol.st_value(endian));
                }
            }
        }
        Ok(known)
    }
}

/// The texts of a section; none where there is no such section.
fn strings<'a>(sections: &Sections<'_>, bytes: &'a [u8], index: SectionIndex) -> Read<&'a [u8]> {
    match index {
        SectionIndex(0) => Ok(&[]),
        index => Ok(sections.section(index)?.data(LittleEndian, bytes)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the text of names lies in [`file`]: behind the header, a segment and four sections.
    const TEXT: usize = 64 + 56 + 4 * 64;

    /// A program of one segment and the sections that are given, each as its name's place, type, offset, size and link.
    /// The first section is there already.
    fn file(contents: &[u8], sections: &[[u64; 5]]) -> Vec<u8> {
        let header = |segments: u16, sections: usize| {
            let mut header = b"\x7fELF\x02\x01\x01".to_vec();
            header.resize(16, 0);
            header.extend([elf::ET_DYN, elf::EM_X86_64].map(u16::to_le_bytes).concat());
            header.extend(1u32.to_le_bytes());
            header.extend([0, 64, 64 + 56].map(u64::to_le_bytes).concat());
            header.extend(0u32.to_le_bytes());
            header.extend([64, 56, segments, 64, sections as u16, 1].map(u16::to_le_bytes).concat());
            header
        };
        let mut bytes = header(1, sections.len() + 1);
        bytes.extend([elf::PT_LOAD, elf::PF_X].map(u32::to_le_bytes).concat());
        bytes.extend([0, 0, 0, 0x1000, 0x1000, 0x1000].map(u64::to_le_bytes).concat());
        bytes.resize(64 + 56 + 64, 0);
        for [name, kind, offset, size, link] in sections {
            bytes.extend([*name as u32, *kind as u32].map(u32::to_le_bytes).concat());
            bytes.extend([0, 0, *offset, *size].map(u64::to_le_bytes).concat());
            bytes.extend([*link as u32, 0].map(u32::to_le_bytes).concat());
            bytes.extend([4, 24].map(u64::to_le_bytes).concat());
        }
        bytes.resize(TEXT.max(bytes.len()), 0);
        bytes.extend_from_slice(contents);
        bytes
    }

    /// A program whose functions have the names that begin at these places of the text.
    fn program(text: &[u8], names: &[u32]) -> Vec<u8> {
        let symbols = text.len().next_multiple_of(8);
        let mut contents = text.to_vec();
        contents.resize(symbols + 24, 0);
        for (name, address) in names.iter().zip(0x100u64..) {
            contents.extend(name.to_le_bytes());
            contents.extend([elf::STT_FUNC, 0, 1, 0]);
            contents.extend([address, 1].map(u64::to_le_bytes).concat());
        }
        let (text_at, symbols_at) = (TEXT as u64, (TEXT + symbols) as u64);
        let texts = [0, elf::SHT_STRTAB.into(), text_at, text.len() as u64, 0];
        let table = [0, elf::SHT_SYMTAB.into(), symbols_at, 24 * (names.len() as u64 + 1), 1];
        file(&contents, &[texts, table])
    }

    fn read(bytes: &[u8]) -> Result<Binary, BinaryError> {
        super::read("/x".into(), "/x".into(), bytes)
    }

    #[test]
    fn names_that_are_too_long_are_none() {
        let letters = "f".repeat(MAX_NAME + 1);
        let text = format!("\0{letters}{}last", "\0".repeat(4 * MAX_NAME));
        // Of the longest that is let through, of one letter more, and of one that never ends.
        let found = read(&program(text.as_bytes(), &[2, 1, text.len() as u32 - 4])).unwrap();
        assert_eq!(found.function_names(), [&letters[1..]]);
        assert_eq!(found.name_at(0x100).map(|(name, _)| name.into_owned()), Some(letters[1..].to_owned()));
        assert_eq!([found.name_at(0x101), found.name_at(0x102)], [None, None]);
    }

    #[test]
    fn names_are_no_longer_together_than_the_file() {
        let text = format!("\0{}\0", "f".repeat(4000));
        let names = |count: usize| vec![1; count];
        // Each name takes 4000 bytes of those that the file has, and adds 24 to them.
        assert_eq!(read(&program(text.as_bytes(), &names(1))).unwrap().functions.names().len(), 1);
        let damaged = read(&program(text.as_bytes(), &names(100_000))).unwrap_err();
        assert_eq!(damaged.to_string(), "/x is damaged: its names are longer together than the file");
        // Names that are left out for their length have been read, too.
        let text = [b'f'; 8192];
        assert!(matches!(read(&program(&text, &names(100_000))), Err(BinaryError::Damaged { .. })));
    }

    #[test]
    fn notes_are_no_longer_together_than_the_file() {
        let mut note = [8, 24 + 6, usdt::NOTE_TYPE].map(u32::to_le_bytes).concat();
        note.extend(b"stapsdt\0");
        note.extend([0x100, 0, 0].map(u64::to_le_bytes).concat());
        note.extend(b"p\0n\0\0\0\0\0");
        let names = b"\0.note.stapsdt\0";
        let program = |sections: usize| {
            let at = TEXT.max(64 + 56 + 64 * (sections + 2)) as u64;
            let contents = [names.as_slice(), &[0], &note.repeat(100)].concat();
            let section = [1, elf::SHT_NOTE.into(), at + 16, 100 * note.len() as u64, 0];
            let mut all = vec![[0, elf::SHT_STRTAB.into(), at, names.len() as u64, 0]];
            all.resize(sections + 1, section);
            file(&contents, &all)
        };
        let found = read(&program(1)).unwrap();
        assert_eq!(found.markers().len(), 100);
        assert_eq!((found.markers()[99].provider.as_str(), found.markers()[99].name.as_str()), ("p", "n"));
        let damaged = read(&program(2)).unwrap_err();
        assert_eq!(damaged.to_string(), "/x is damaged: its notes are longer together than the file");
    }

    #[test]
    fn functions_are_bounded() {
        let bytes = program(b"\0f\0", &[1; 4]);
        let header = Header::parse(bytes.as_slice()).unwrap();
        let sections = header.sections(LittleEndian, bytes.as_slice()).unwrap();
        let segments = contents(&bytes).unwrap().0;
        let read = |functions: usize| {
            let (mut names, mut found) = (Names { functions, ..Names::of(&bytes) }, Vec::new());
            add_functions(&sections, &bytes, elf::SHT_SYMTAB, &segments, &mut names, &mut found).map(|()| found.len())
        };
        assert_eq!(read(4).unwrap(), 4);
        assert_eq!(read(3).unwrap_err().0, "it has too many functions");
    }

    #[test]
    fn segments_are_bounded() {
        let mut bytes = program(b"\0f\0", &[1]);
        let segment = bytes[64..64 + 56].to_vec();
        let at = bytes.len().next_multiple_of(8);
        bytes.resize(at, 0);
        bytes.extend(segment.repeat(MAX_SEGMENTS + 1));
        bytes[32..40].copy_from_slice(&(at as u64).to_le_bytes());
        let mut of = |count: usize| {
            bytes[56..58].copy_from_slice(&(count as u16).to_le_bytes());
            read(&bytes).map(|found| found.function_names())
        };
        assert_eq!(of(MAX_SEGMENTS).unwrap(), ["f"]);
        assert_eq!(
            of(MAX_SEGMENTS + 1).unwrap_err().to_string(),
            "/x is damaged: 256 parts that are loaded are the most"
        );
    }
}
