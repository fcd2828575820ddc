//! Sinks: rows rendered and written.
//!
//! Each plugin's task renders its own rows and hands the bytes to one writer. The way there holds few of them: where
//! stdout is read slowly, the plugins wait, their rings fill, and the kernel counts what is lost. So nothing is dropped
//! between a handler and the reader of the output.
//!
//! What a handler has sent can become far more bytes than it was, and take long to be named: it is rendered piece by
//! piece, and between two of them others have their turn.

mod escape;
mod json;
mod record;
mod text;

use std::io::{self, Write};
use std::time::{Duration, Instant};
use std::vec;

use clap::ValueEnum;
use tokio::sync::mpsc;

use crate::plan::layout::Schema;
use crate::plugin::{Emitted, Level, Row};
use crate::symbols::Symbols;
pub use escape::{bytes as escape_bytes, terminal as escape_terminal};
pub use json::line as json_line;

/// Chunks on their way to the writer at most.
const IN_FLIGHT: usize = 16;

/// Bytes behind which a piece of output ends, and how long it may take.
const PIECE: usize = 1 << 20;
const PIECE_TIME: Duration = Duration::from_millis(10);

/// How rows look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns under a heading, for reading
    #[default]
    Text,
    /// One JSON object per row
    Json,
}

/// The way to the writer.
#[derive(Clone)]
pub struct Output(mpsc::Sender<Vec<u8>>);

/// The reader of the output has gone away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the output is closed")]
pub struct Closed;

/// Starts the thread that writes to `to`. It ends, with the first error, when every [`Output`] has been dropped.
pub fn writer(mut to: impl Write + Send + 'static) -> (Output, std::thread::JoinHandle<io::Result<()>>) {
    let (sender, mut receiver) = mpsc::channel::<Vec<u8>>(IN_FLIGHT);
    let thread = std::thread::spawn(move || {
        while let Some(chunk) = receiver.blocking_recv() {
            to.write_all(&chunk)?;
            if receiver.is_empty() {
                to.flush()?;
            }
        }
        to.flush()
    });
    (Output(sender), thread)
}

impl Output {
    /// Hands bytes over; waits while the writer is behind.
    pub async fn write(&self, bytes: Vec<u8>) -> Result<(), Closed> {
        self.0.send(bytes).await.map_err(|_| Closed)
    }

    /// Returns when the writer has gone away.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

/// What a plugin has sent, as far as it has not been rendered.
#[derive(Default)]
pub struct Sent {
    items: vec::IntoIter<Emitted>,
    /// Of the item before them: records, and where the first of them begins that has not been rendered.
    records: (Vec<u8>, usize),
}

impl From<Vec<Emitted>> for Sent {
    fn from(items: Vec<Emitted>) -> Sent {
        Sent { items: items.into_iter(), records: Default::default() }
    }
}

impl Sent {
    /// Whether all of it has been rendered.
    pub fn is_empty(&self) -> bool {
        self.items.len() == 0 && self.records.0.len() <= self.records.1
    }

    /// The next row. Log lines in front of it go to stderr.
    fn row(&mut self, plugin: &str, schemas: &[Schema]) -> Option<Row> {
        loop {
            let (records, at) = &mut self.records;
            if let Some((row, length)) = record::first(&records[*at..], schemas) {
                *at += length;
                return Some(row);
            }
            self.records = Default::default();
            match self.items.next()? {
                Emitted::Row(row) => return Some(row),
                Emitted::Forward(records) => self.records = (records, 0),
                Emitted::Log { level, text } => log(plugin, level, &text),
            }
        }
    }
}

/// Renders what one plugin sends.
pub struct Renderer {
    plugin: String,
    schemas: Vec<Schema>,
    named: record::Named,
    sink: Sink,
}

impl Renderer {
    /// `several`: whether rows of other plugins come between, so that each must name its plugin. `start` is when the
    /// run began, in nanoseconds since boot.
    pub fn new(plugin: &str, format: Format, schemas: Vec<Schema>, several: bool, start: u64) -> Renderer {
        let sink = match format {
            Format::Text => Sink::Text(text::Table::new(several.then(|| escape_terminal(plugin)), start)),
            Format::Json => Sink::Json { plugin: plugin.to_owned() },
        };
        Renderer { plugin: plugin.to_owned(), named: record::Named::of(&schemas), schemas, sink }
    }

    /// The next piece of rows and records as bytes for the writer; log lines go to stderr at once.
    pub fn render(&mut self, sent: &mut Sent, symbols: &mut Symbols) -> Vec<u8> {
        let (mut bytes, begun) = (Vec::new(), Instant::now());
        while let Some(mut row) = sent.row(&self.plugin, &self.schemas) {
            self.named.show(&mut row, &self.schemas);
            symbols.name(&mut row);
            self.sink.row(&row, &mut bytes);
            if bytes.len() >= PIECE || begun.elapsed() >= PIECE_TIME {
                break;
            }
        }
        bytes
    }
}

enum Sink {
    Text(text::Table),
    Json { plugin: String },
}

impl Sink {
    fn row(&mut self, row: &Row, to: &mut Vec<u8>) {
        match self {
            Sink::Text(table) => table.row(row, to),
            Sink::Json { plugin } => json::row(plugin, row, to),
        }
    }
}

/// The log lines of what a plugin has sent, on stderr, where there is no [`Renderer`] for the rest.
pub fn logs(plugin: &str, sent: Vec<Emitted>) {
    for item in sent {
        if let Emitted::Log { level, text } = item {
            log(plugin, level, &text);
        }
    }
}

/// One line on stderr.
fn log(plugin: &str, level: Level, text: &str) {
    let level = match level {
        Level::Debug => "debug: ",
        Level::Info => "",
        Level::Warning => "warning: ",
        Level::Error => "error: ",
    };
    // Where stderr is closed, nobody is there to be told.
    let _ = writeln!(io::stderr(), "{}: {level}{}", escape_terminal(plugin), escape_terminal(text));
}

/// A hardware address as it is written.
fn hardware_address(octets: [u8; 6]) -> String {
    octets.map(|octet| format!("{octet:02x}")).join(":")
}

/// The names of bits, and behind them as a number those that have none.
fn flags(names: &[String], rest: u64) -> Vec<String> {
    let rest = (rest != 0).then(|| format!("{rest:#x}"));
    names.iter().cloned().chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::Value;

    #[test]
    fn pieces_are_bounded_and_nothing_is_dropped() {
        let row = |n: u64| {
            let columns =
                vec![("n".to_owned(), Value::Unsigned(n)), ("t".to_owned(), Value::Text("x".repeat(1 << 16)))];
            Emitted::Row(Row { name: "r".to_owned(), time: None, columns })
        };
        let schemas = vec![Schema::new(0, "p", "e", [])];
        let record = [24u32.to_le_bytes(), [0; 4]].concat();
        let records = [record, vec![0; 16]].concat();
        let forwarded = Emitted::Forward(records.repeat(3));
        let mut sent: Vec<Emitted> = (0..100).map(row).collect();
        sent.insert(50, forwarded.clone());
        sent.push(forwarded);
        let mut sent = Sent::from(sent);
        let mut renderer = Renderer::new("p", Format::Json, schemas, false, 0);
        let mut lines = Vec::new();
        while !sent.is_empty() {
            let piece = renderer.render(&mut sent, &mut Symbols::default());
            assert!(piece.len() < PIECE + (1 << 17), "{}", piece.len());
            lines.extend(piece);
        }
        let rows =
            serde_json::Deserializer::from_slice(&lines).into_iter::<serde_json::Value>().map(|row| row.unwrap());
        let told: Vec<String> = rows.map(|row| format!("{}{}", row["event"], row["fields"]["n"])).collect();
        let (row, event) = (|n: u64| format!("\"r\"{n}"), || ["\"e\"null"; 3].map(str::to_owned));
        let wanted = (0..50).map(row).chain(event()).chain((50..100).map(row)).chain(event());
        assert_eq!(told, wanted.collect::<Vec<_>>());
    }
}
