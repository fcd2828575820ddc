//! Rows as columns under a heading.
//!
//! A heading is printed whenever the row is not like the one before it. Columns are as wide as the widest value that
//! they have held, up to a bound, so that most lines stand under each other without any row being held back.

use std::collections::HashMap;
use std::fmt::Write;

use super::escape::all as escape_all;
use super::{escape_terminal, flags, hardware_address};
use crate::plugin::{Row, Value};

/// Columns grow to this many characters; a longer value moves what is behind it.
const WIDEST: usize = 32;
/// Events whose widths are remembered at most: a plugin chooses their names.
const REMEMBERED: usize = 256;

/// The table of one plugin.
pub struct Table {
    plugin: Option<String>,
    start: u64,
    last: Option<(String, Vec<String>)>,
    widths: HashMap<String, Vec<usize>>,
}

impl Table {
    /// `plugin`: named in each row, where rows of several plugins mix. Times count from `start`, nanoseconds since
    /// boot.
    pub fn new(plugin: Option<String>, start: u64) -> Table {
        Table { plugin, start, last: None, widths: HashMap::new() }
    }

    /// Appends the row's line, and a heading before it where one is due.
    pub fn row(&mut self, row: &Row, to: &mut Vec<u8>) {
        let names: Vec<String> = row.columns.iter().map(|(name, _)| name.clone()).collect();
        if self.widths.len() >= REMEMBERED && !self.widths.contains_key(&row.name) {
            self.widths.clear();
        }
        let widths = self.widths.entry(row.name.clone()).or_default();
        widths.resize(names.len(), 0);
        let values: Vec<String> = row.columns.iter().map(|(_, value)| shown(value)).collect();
        for ((width, name), value) in widths.iter_mut().zip(&names).zip(&values) {
            *width = (*width).max(name.chars().count()).max(value.chars().count()).min(WIDEST);
        }
        // The rows of several plugins come from several tables, so there the heading would stand over others' rows:
        // names go into the row.
        let mut line = String::new();
        if let Some(plugin) = &self.plugin {
            let pairs = names.iter().zip(&values).map(|(n, v)| format!("{}={v}", escape_terminal(n)));
            let pairs: Vec<String> = pairs.collect();
            add(&mut line, format_args!("{} {plugin} {} {}", self.time(row.time), row.name, pairs.join(" ")));
        } else {
            let like = (row.name.clone(), names);
            if self.last.as_ref() != Some(&like) {
                let heading = like.1.iter().map(|n| escape_terminal(n).to_uppercase());
                add(&mut line, format_args!("{:>12}  {:<8}", "TIME", "EVENT"));
                columns(&mut line, heading, widths);
                self.last = Some(like);
            }
            add(&mut line, format_args!("{:>12}  {:<8}", self.time(row.time), row.name));
            let widths = self.widths.get(&row.name).map_or(&[][..], Vec::as_slice);
            columns(&mut line, values.into_iter(), widths);
            to.extend_from_slice(line.as_bytes());
            return;
        }
        line.push('\n');
        to.extend_from_slice(line.as_bytes());
    }

    fn time(&self, time: Option<u64>) -> String {
        match time {
            None => "-".to_owned(),
            Some(time) => {
                let since = time.abs_diff(self.start);
                let sign = if time < self.start { "-" } else { "" };
                format!("{sign}{}.{:06}", since / 1_000_000_000, since / 1000 % 1_000_000)
            }
        }
    }
}

fn columns(line: &mut String, values: impl Iterator<Item = String>, widths: &[usize]) {
    let from = line.len();
    for (value, width) in values.zip(widths) {
        add(line, format_args!("  {value:<width$}"));
    }
    let end = line[from..].trim_end().len();
    line.truncate(from + end);
    line.push('\n');
}

fn add(line: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = line.write_fmt(text);
}

fn shown(value: &Value) -> String {
    match value {
        Value::Absent => "-".to_owned(),
        Value::Boolean(value) => value.to_string(),
        Value::Signed(value) => value.to_string(),
        Value::Unsigned(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::Text(text) => escape_terminal(text),
        Value::Bytes(bytes) => escape_all(bytes),
        Value::Address(address) => address.to_string(),
        Value::HardwareAddress(octets) => hardware_address(*octets),
        Value::Flags { names, rest } if names.is_empty() && *rest == 0 => "0".to_owned(),
        Value::Flags { names, rest } => flags(names, *rest).join("|"),
        Value::Names(names) => escape_terminal(&names.join(" < ")),
        // Names stand in their place by now.
        Value::KernelSymbol(_) | Value::UserSymbol(..) | Value::KernelStack(_) | Value::UserStack(..) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(table: &mut Table, name: &str, columns: &[(&str, Value)]) -> String {
        let columns = columns.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect();
        let mut out = Vec::new();
        table.row(&Row { name: name.into(), time: Some(1_500_001_000), columns }, &mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn a_heading_stands_over_like_rows() {
        let mut table = Table::new(None, 1_000_000_000);
        let columns = [("pid", Value::Unsigned(7)), ("path", Value::Bytes(b"/a\xff".to_vec()))];
        assert_eq!(
            text(&mut table, "open", &columns),
            "        TIME  EVENT     PID  PATH\n    0.500001  open      7    /a\\xff\n"
        );
        assert_eq!(text(&mut table, "open", &columns), "    0.500001  open      7    /a\\xff\n");
        assert!(text(&mut table, "close", &columns).starts_with("        TIME"));
    }

    #[test]
    fn values_that_are_no_numbers() {
        let shown = [
            (Value::Bytes(b"\0\x01GET /\xc3\xa9\n\xff\\".to_vec()), "\\x00\\x01GET /é\\x0a\\xff\\\\"),
            (Value::Address("192.0.2.1".parse().expect("an address")), "192.0.2.1"),
            (Value::Address("::1".parse().expect("an address")), "::1"),
            (Value::HardwareAddress([0, 1, 2, 0xfd, 0xfe, 0xff]), "00:01:02:fd:fe:ff"),
            (Value::Flags { names: vec!["A".into(), "B".into()], rest: 0 }, "A|B"),
            (Value::Flags { names: vec!["A".into()], rest: 0x40 }, "A|0x40"),
            (Value::Flags { names: Vec::new(), rest: 0x40 }, "0x40"),
            (Value::Flags { names: Vec::new(), rest: 0 }, "0"),
        ];
        for (value, wanted) in shown {
            assert_eq!(super::shown(&value), wanted);
        }
    }

    #[test]
    fn several_plugins_name_themselves() {
        let mut table = Table::new(Some("p".into()), 0);
        assert_eq!(text(&mut table, "open", &[("pid", Value::Absent)]), "1.500001 p open pid=-\n");
    }
}
