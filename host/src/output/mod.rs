//! Sinks: rows rendered and written.
//!
//! Each plugin's task renders its own rows and hands the bytes to one writer. The way there holds few of them: where stdout is read slowly, the
//! plugins wait, their rings fill, and the kernel counts what is lost. So nothing is dropped between a handler and the reader of the output.

mod escape;
mod json;
mod record;
mod text;

use std::io::{self, Write};

use clap::ValueEnum;
use tokio::sync::mpsc;

use crate::plan::layout::Schema;
use crate::plugin::{Emitted, Level, Row};
use crate::symbols::Symbols;
pub use escape::{bytes as escape_bytes, terminal as escape_terminal};
pub use json::line as json_line;

/// Chunks on their way to the writer at most.
const IN_FLIGHT: usize = 16;

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

/// Renders what one plugin sends.
pub struct Renderer {
    plugin: String,
    schemas: Vec<Schema>,
    sink: Sink,
    symbols: Symbols,
}

impl Renderer {
    /// `several`: whether rows of other plugins come between, so that each must name its plugin. `start` is when the run began, in nanoseconds
    /// since boot.
    pub fn new(plugin: &str, format: Format, schemas: Vec<Schema>, several: bool, start: u64) -> Renderer {
        let sink = match format {
            Format::Text => Sink::Text(text::Table::new(several.then(|| escape_terminal(plugin)), start)),
            Format::Json => Sink::Json { plugin: plugin.to_owned() },
        };
        Renderer { plugin: plugin.to_owned(), schemas, sink, symbols: Symbols::default() }
    }

    /// Rows and records as bytes for the writer; log lines go to stderr at once.
    pub fn render(&mut self, sent: Vec<Emitted>) -> Vec<u8> {
        let mut bytes = Vec::new();
        // Processes come and go, and load what they did not have.
        self.symbols.forget_processes();
        for item in sent {
            match item {
                Emitted::Row(mut row) => {
                    self.symbols.name(&mut row);
                    self.sink.row(&row, &mut bytes);
                }
                Emitted::Forward(records) => {
                    for mut row in record::rows(&records, &self.schemas) {
                        self.symbols.name(&mut row);
                        self.sink.row(&row, &mut bytes);
                    }
                }
                Emitted::Log { level, text } => log(&self.plugin, level, &text),
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
