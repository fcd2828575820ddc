//! The section `.BTF.ext`: which function and which line each instruction belongs to.
//!
//! A header, then the two tables. Each table is the size of its records, then for each executable section its name, the
//! number of records, and the records in the order of their offsets (Documentation/bpf/btf.rst, ".BTF.ext section").

/// Where a function begins.
pub(super) struct FuncInfo {
    /// Bytes from the start of the section.
    pub(super) offset: u32,
    /// Id of the BTF function.
    pub(super) ty: u32,
}

/// Where a line begins.
#[derive(Clone, Copy)]
pub(super) struct LineInfo {
    /// Bytes from the start of the section.
    pub(super) offset: u32,
    /// Offset of the file's name in the BTF's strings.
    pub(super) file: u32,
    /// Offset of the line's text in the BTF's strings.
    pub(super) text: u32,
    pub(super) line: u32,
    pub(super) column: u32,
}

/// What there is to tell of one executable section.
pub(super) struct SectionInfo {
    /// Offset of the section's name in the BTF's strings.
    pub(super) name: u32,
    pub(super) functions: Vec<FuncInfo>,
    pub(super) lines: Vec<LineInfo>,
}

/// The content of a `.BTF.ext` section.
pub(super) fn encode(sections: &[SectionInfo]) -> Vec<u8> {
    let functions = table(8, sections, |section| section.functions.iter().map(FuncInfo::record).collect());
    let lines = table(16, sections, |section| section.lines.iter().map(LineInfo::record).collect());
    let mut bytes = Vec::new();
    bytes.extend(MAGIC.to_le_bytes());
    bytes.extend([VERSION, NO_FLAGS]);
    let (functions_size, lines_size) = (functions.len() as u32, lines.len() as u32);
    // The header's size; then where each table starts after the header, and its size. The third, of CO-RE relocations,
    // is empty.
    for word in [HEADER_SIZE, 0, functions_size, functions_size, lines_size, functions_size + lines_size, 0] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(functions);
    bytes.extend(lines);
    bytes
}

const MAGIC: u16 = 0xeb9f;
const VERSION: u8 = 1;
const NO_FLAGS: u8 = 0;
const HEADER_SIZE: u32 = 32;

fn table<const N: usize>(
    record_size: u32,
    sections: &[SectionInfo],
    records: impl Fn(&SectionInfo) -> Vec<[u32; N]>,
) -> Vec<u8> {
    let mut words = vec![record_size];
    for section in sections {
        let records = records(section);
        words.extend([section.name, records.len() as u32]);
        words.extend(records.into_iter().flatten());
    }
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

impl FuncInfo {
    fn record(&self) -> [u32; 2] {
        [self.offset, self.ty]
    }
}

impl LineInfo {
    /// A line number has 22 bits and a column 10; larger ones become the largest.
    fn record(&self) -> [u32; 4] {
        let line = self.line.min((1 << 22) - 1);
        let column = self.column.min((1 << 10) - 1);
        [self.offset, self.file, self.text, line << 10 | column]
    }
}
