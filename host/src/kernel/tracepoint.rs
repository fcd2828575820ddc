//! Formats of tracepoints, as tracefs tells them in `events/SYSTEM/NAME/format` (Documentation/trace/events.rst).

use std::num::ParseIntError;

/// The record of one tracepoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracepointFormat {
    pub system: String,
    pub name: String,
    /// The `config` of `perf_event_open` for this tracepoint. It changes from boot to boot.
    pub id: u64,
    /// In the order of the format, without those that all tracepoints have (`common_type`, …).
    pub fields: Vec<TracepointField>,
}

/// One field of a tracepoint's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracepointField {
    pub name: String,
    /// The C type of the value, or of one element for arrays: `const char *`, `char`, `u8`. Spelled as the tracepoint's
    /// source does, so it may be a typedef, and its name need not be in BTF.
    pub c_type: String,
    /// Bytes from the start of the record.
    pub offset: u32,
    /// Bytes at `offset`: for a field of variable length those of its locator, 4.
    pub size: u32,
    pub signed: bool,
    /// Elements, for an array of fixed length; 0 for one that lasts to the end of the record (`unsigned long args[]`).
    pub array: Option<u32>,
    pub location: FieldLocation,
}

/// Where the bytes of a field lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldLocation {
    /// At the field's offset.
    Fixed,
    /// Variable length: at the field's offset is a `u32`, its low half the bytes' offset from the start of the record,
    /// its high half their number.
    DataLoc,
    /// As `DataLoc`, with the offset counted from the end of that `u32`.
    RelLoc,
}

/// Why a format is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    #[error("it has no line `{0}:`")]
    Missing(&'static str),
    #[error("`{text}` is not a number: {source}")]
    Number { text: String, source: ParseIntError },
    #[error("line {line}: {reason}: `{text}`")]
    Field { line: usize, reason: &'static str, text: String },
}

impl TracepointFormat {
    /// Parses the text of a `format` file.
    pub fn parse(system: &str, text: &str) -> Result<TracepointFormat, FormatError> {
        let name = value_of(text, "name").ok_or(FormatError::Missing("name"))?;
        let id = value_of(text, "ID").ok_or(FormatError::Missing("ID"))?;
        let id = id.parse().map_err(|source| FormatError::Number { text: id.to_owned(), source })?;
        let mut fields = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let Some(description) = line.trim_start().strip_prefix("field:") else { continue };
            let field = parse_field(description);
            let error = |reason| FormatError::Field { line: index + 1, reason, text: line.trim().to_owned() };
            fields.push(field.map_err(error)?);
        }
        fields.retain(|field| !field.name.starts_with("common_"));
        Ok(TracepointFormat { system: system.to_owned(), name: name.to_owned(), id, fields })
    }

    /// The field of that name.
    pub fn field(&self, name: &str) -> Option<&TracepointField> {
        self.fields.iter().find(|field| field.name == name)
    }
}

fn value_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim)
}

/// Parses what follows `field:`, as in `char comm[16]; offset:8; size:16; signed:0;` (with tabs between).
fn parse_field(description: &str) -> Result<TracepointField, &'static str> {
    let mut parts = description.split(';').map(str::trim);
    let declaration = parse_declaration(parts.next().unwrap_or_default())?;
    let (mut offset, mut size, mut signed) = (None, None, None);
    for (key, value) in parts.filter_map(|part| part.split_once(':')) {
        let place = match key {
            "offset" => &mut offset,
            "size" => &mut size,
            "signed" => &mut signed,
            _ => continue,
        };
        *place = Some(value.parse::<u32>().map_err(|_| "a number is expected behind the colon")?);
    }
    let size = size.ok_or("it has no size")?;
    let Declaration { name, c_type, length, location } = declaration;
    let array = match length {
        Length::One => None,
        Length::Elements(count) => Some(count),
        // A length that the kernel did not resolve to a number: the size tells it where elements are of one byte.
        Length::Unresolved if is_byte(c_type) => Some(size),
        Length::Unresolved => return Err("the length of the array is not a number"),
    };
    Ok(TracepointField {
        name: name.to_owned(),
        c_type: c_type.to_owned(),
        offset: offset.ok_or("it has no offset")?,
        size,
        signed: signed.is_some_and(|signed| signed != 0),
        array,
        location,
    })
}

struct Declaration<'a> {
    name: &'a str,
    c_type: &'a str,
    length: Length,
    location: FieldLocation,
}

enum Length {
    One,
    Elements(u32),
    Unresolved,
}

/// Parses a declaration such as `const char * filename`, `char comm[16]`, `__data_loc char[] name`.
///
/// It is a type, a name and perhaps a length. The type may be any text, so what is looked for is the name, from behind.
fn parse_declaration(text: &str) -> Result<Declaration<'_>, &'static str> {
    let (location, text) = match text.split_once(char::is_whitespace) {
        Some(("__data_loc", rest)) => (FieldLocation::DataLoc, rest.trim()),
        Some(("__rel_loc", rest)) => (FieldLocation::RelLoc, rest.trim()),
        _ => (FieldLocation::Fixed, text),
    };
    let (declared, length) = split_length(text)?;
    let start = declared.rfind(|c: char| !is_identifier(c)).map_or(0, |at| at + 1);
    let (c_type, name) = declared.split_at(start);
    if name.is_empty() {
        return Err("a name is expected at the end of the declaration");
    }
    // Of variable length, and of the odd kind `u8[6] mac`: the brackets stand behind the type.
    let (c_type, behind_type) = split_length(c_type.trim_end())?;
    if c_type.is_empty() {
        return Err("a type is expected in front of the name");
    }
    let length = match (location, length, behind_type) {
        (FieldLocation::DataLoc | FieldLocation::RelLoc, Length::One, _) => Length::One,
        (_, Length::One, behind_type) => behind_type,
        (_, behind_name, Length::One) => behind_name,
        _ => return Err("an array of arrays is not supported"),
    };
    Ok(Declaration { name, c_type, length, location })
}

/// Splits a length in brackets off the end. `[]` is of 0 elements.
fn split_length(text: &str) -> Result<(&str, Length), &'static str> {
    let Some(open) = text.strip_suffix(']') else { return Ok((text, Length::One)) };
    let (front, length) = open.rsplit_once('[').ok_or("a bracket is not opened")?;
    let length = match length.trim() {
        "" => Length::Elements(0),
        number => number.parse().map_or(Length::Unresolved, Length::Elements),
    };
    Ok((front.trim_end(), length))
}

fn is_identifier(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn is_byte(c_type: &str) -> bool {
    matches!(c_type, "char" | "signed char" | "unsigned char" | "u8" | "s8" | "__u8" | "__s8" | "uint8_t" | "int8_t")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declaration(text: &str, size: u32) -> Result<(String, String, Option<u32>, FieldLocation), &'static str> {
        let field = parse_field(&format!("{text};\toffset:8;\tsize:{size};\tsigned:1;"))?;
        assert_eq!((field.offset, field.size, field.signed), (8, size, true));
        Ok((field.c_type, field.name, field.array, field.location))
    }

    #[test]
    fn declarations() {
        use FieldLocation::{DataLoc, Fixed, RelLoc};
        let cases = [
            ("int __syscall_nr", 4, ("int", "__syscall_nr", None, Fixed)),
            ("unsigned long long  value", 8, ("unsigned long long", "value", None, Fixed)),
            ("const char * filename", 8, ("const char *", "filename", None, Fixed)),
            ("const char *filename", 8, ("const char *", "filename", None, Fixed)),
            ("const char *const * argv", 8, ("const char *const *", "argv", None, Fixed)),
            ("const struct cpumask * m", 8, ("const struct cpumask *", "m", None, Fixed)),
            ("enum zone_type zone", 4, ("enum zone_type", "zone", None, Fixed)),
            ("struct trace_entry ent", 8, ("struct trace_entry", "ent", None, Fixed)),
            ("void __seg_gs * ptr", 8, ("void __seg_gs *", "ptr", None, Fixed)),
            ("char comm[16]", 16, ("char", "comm", Some(16), Fixed)),
            ("char comm[TASK_COMM_LEN]", 16, ("char", "comm", Some(16), Fixed)),
            ("unsigned long args[6]", 48, ("unsigned long", "args", Some(6), Fixed)),
            ("u8 mac[6]", 6, ("u8", "mac", Some(6), Fixed)),
            ("u8[6] mac", 6, ("u8", "mac", Some(6), Fixed)),
            ("void * stack[ 8 ]", 64, ("void *", "stack", Some(8), Fixed)),
            ("unsigned long args[]", 0, ("unsigned long", "args", Some(0), Fixed)),
            ("__data_loc char[] name", 4, ("char", "name", None, DataLoc)),
            ("__data_loc __u8[] buf", 4, ("__u8", "buf", None, DataLoc)),
            ("__data_loc unsigned int[] lengths", 4, ("unsigned int", "lengths", None, DataLoc)),
            ("__data_loc cpumask_t cpumask", 4, ("cpumask_t", "cpumask", None, DataLoc)),
            ("__rel_loc char[] name", 4, ("char", "name", None, RelLoc)),
        ];
        for (text, size, (c_type, name, array, location)) in cases {
            assert_eq!(declaration(text, size), Ok((c_type.to_owned(), name.to_owned(), array, location)), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_declaration() {
        for text in [
            "",
            "int",
            "int *",
            "char comm]",
            "int (*callback)(void)",
            "unsigned long args[COUNT]",
            "u8[2] m[3]",
            "__data_loc x",
        ] {
            assert!(declaration(text, 8).is_err(), "{text}");
        }
    }

    #[test]
    fn a_whole_format() {
        let text = "name: sched_example\nID: 372\nformat:\n\
            \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
            \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\
            \n\
            \tfield:char comm[16];\toffset:8;\tsize:16;\tsigned:0;\n\
            \tfield:pid_t pid;\toffset:24;\tsize:4;\tsigned:1;\n\
            \n\
            print fmt: \"comm=%s field:%d\", REC->comm, REC->pid\n";
        let format = TracepointFormat::parse("sched", text).unwrap();
        assert_eq!((&*format.system, &*format.name, format.id), ("sched", "sched_example", 372));
        assert_eq!(format.fields.iter().map(|field| &*field.name).collect::<Vec<_>>(), ["comm", "pid"]);
        assert_eq!(format.field("pid").unwrap().offset, 24);
        assert!(format.field("common_pid").is_none());
    }

    #[test]
    fn errors_name_the_place() {
        let error = |text: &str| TracepointFormat::parse("s", text).unwrap_err().to_string();
        assert_eq!(error("ID: 1\n"), "it has no line `name:`");
        assert_eq!(error("name: x\n"), "it has no line `ID:`");
        assert_eq!(error("name: x\nID: y\n"), "`y` is not a number: invalid digit found in string");
        let field = "name: x\nID: 1\nformat:\n\tfield:int a;\toffset:0;\tsigned:1;\n";
        assert_eq!(error(field), "line 4: it has no size: `field:int a;\toffset:0;\tsigned:1;`");
    }
}
