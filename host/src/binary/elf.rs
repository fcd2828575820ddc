//! An ELF file: its segments, functions and markers.

use std::path::PathBuf;

use object::LittleEndian;
use object::elf::{self, FileHeader64, SHN_UNDEF};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader, SectionTable, Sym};

use super::names::{Function, Functions, Named};
use super::usdt::{self, Marker};
use super::{Binary, BinaryError, Segment};

type Header = FileHeader64<LittleEndian>;
type Sections<'a> = SectionTable<'a, Header>;

/// Reads a program or library for x86-64.
pub fn read(path: String, file: PathBuf, bytes: &[u8]) -> Result<Binary, BinaryError> {
    if let Some(why) = foreign(bytes) {
        return Err(BinaryError::NotElf { path, why });
    }
    match contents(bytes) {
        Ok((segments, functions, markers)) => {
            Ok(Binary { path, file, segments, functions: Functions::new(functions), markers })
        }
        Err(error) => Err(BinaryError::Damaged { path, reason: error.to_string() }),
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

type Contents = (Vec<Segment>, Vec<Named>, Vec<Marker>);

fn contents(bytes: &[u8]) -> object::Result<Contents> {
    let endian = LittleEndian;
    let header = Header::parse(bytes)?;
    let loaded = header.program_headers(endian, bytes)?.iter().filter(|s| s.p_type(endian) == elf::PT_LOAD);
    let segments: Vec<Segment> = loaded
        .map(|s| Segment {
            address: s.p_vaddr(endian),
            size: s.p_filesz(endian),
            offset: s.p_offset(endian),
            executable: s.p_flags(endian) & elf::PF_X != 0,
        })
        .collect();
    let sections = header.sections(endian, bytes)?;
    let mut functions = Vec::new();
    for table in [elf::SHT_SYMTAB, elf::SHT_DYNSYM] {
        add_functions(&sections, bytes, table, &segments, &mut functions)?;
    }
    let markers = markers(&sections, bytes)?;
    Ok((segments, functions, markers))
}

/// The functions of one symbol table that lie in the file.
fn add_functions(
    sections: &Sections<'_>,
    bytes: &[u8],
    table: u32,
    segments: &[Segment],
    functions: &mut Vec<Named>,
) -> object::Result<()> {
    let endian = LittleEndian;
    let symbols = sections.symbols(endian, bytes, table)?;
    let versions = if table == elf::SHT_DYNSYM { sections.versions(endian, bytes)? } else { None };
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
        if versions.as_ref().is_some_and(|versions| versions.version_index(endian, index).is_hidden()) {
            continue;
        }
        let Ok(name) = std::str::from_utf8(symbol.name(endian, symbols.strings())?) else { continue };
        // Linkers write `name@@VERSION` for the version that a name means now.
        let name = name.split_once("@@").map_or(name, |(name, _)| name);
        if !name.is_empty() {
            let function = Function { address, size: symbol.st_size(endian) };
            let indirect = symbol.st_type() == elf::STT_GNU_IFUNC;
            let label = symbol.st_type() == elf::STT_NOTYPE;
            functions.push(Named { name: name.to_owned(), function, indirect, label });
        }
    }
    Ok(())
}

fn markers(sections: &Sections<'_>, bytes: &[u8]) -> object::Result<Vec<Marker>> {
    let endian = LittleEndian;
    let base = sections.section_by_name(endian, b".stapsdt.base").map(|(_, section)| section.sh_addr(endian));
    let address_of = |name: &str| symbol(sections, bytes, name);
    let mut markers = Vec::new();
    for section in sections.iter().filter(|s| s.sh_type(endian) == elf::SHT_NOTE) {
        if sections.section_name(endian, section)? != b".note.stapsdt" {
            continue;
        }
        let Some(mut notes) = section.notes(endian, bytes)? else { continue };
        while let Some(note) = notes.next()? {
            if note.name() == usdt::NOTE_NAME && note.n_type(endian) == usdt::NOTE_TYPE {
                markers.extend(usdt::marker(note.desc(), base, &address_of));
            }
        }
    }
    Ok(markers)
}

/// The address of what a name stands for, where the file says.
fn symbol(sections: &Sections<'_>, bytes: &[u8], name: &str) -> Option<u64> {
    let endian = LittleEndian;
    [elf::SHT_SYMTAB, elf::SHT_DYNSYM].into_iter().find_map(|table| {
        let symbols = sections.symbols(endian, bytes, table).ok()?;
        let named = |s: &&elf::Sym64<LittleEndian>| {
            s.st_shndx(endian) != SHN_UNDEF && s.name(endian, symbols.strings()).is_ok_and(|n| n == name.as_bytes())
        };
        symbols.iter().find(named).map(|s| s.st_value(endian))
    })
}
