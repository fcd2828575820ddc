//! Rows as columns under a heading.
//!
//! A heading is printed whenever the row is not like the one before it. Columns are as wide as the widest value that they have held, up to a bound,
//! so that most lines stand under each other without any row being held back.

use std::collections::HashMap;
use std::fmt::Write;

use super::{as_text, escape_bytes, escape_terminal};
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
    /// `plugin`: named in each row, where rows of several plugins mix. Times count from `start`, nanoseconds since boot.
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
        // The rows of several plugins come from several tables, so there the heading would stand over others' rows: names go into the row.
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
    match (as_text(value), value) {
        (Some(text), _) => escape_terminal(text),
        (None, Value::Absent) => "-".to_owned(),
        (None, Value::Boolean(value)) => value.to_string(),
        (None, Value::Signed(value)) => value.to_string(),
        (None, Value::Unsigned(value)) => value.to_string(),
        (None, Value::Float(value)) => value.to_string(),
        (None, Value::Bytes(bytes)) => escape_terminal(&escape_bytes(bytes)),
        (None, Value::Names(names)) => escape_terminal(&names.join(" < ")),
        // Names stand in their place by now.
        (
            None,
            Value::Text(_)
            | Value::KernelSymbol(_)
            | Value::UserSymbol(..)
            | Value::KernelStack(_)
            | Value::UserStack(..),
        ) => String::new(),
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
    fn several_plugins_name_themselves() {
        let mut table = Table::new(Some("p".into()), 0);
        assert_eq!(text(&mut table, "open", &[("pid", Value::Absent)]), "1.500001 p open pid=-\n");
    }
}
