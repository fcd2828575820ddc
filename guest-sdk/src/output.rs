//! What a plugin sends: rows, records forwarded, logs, its end.

use std::ops::Range;

#[cfg(target_family = "wasm")]
use crate::bindings::porthole::trace::host;
use crate::record::Record;
#[cfg(not(target_family = "wasm"))]
use crate::testing::host;
use crate::{Event, Level, Value};

/// Where a plugin's results go, and what is known of the event that is being handled.
///
/// What one call of the host makes a plugin send is bounded: at most 8 MiB of rows and logs; a plugin that sends more
/// is ended.
#[derive(Debug, Default)]
pub struct Output<'a> {
    /// The batch being handled; empty outside.
    records: &'a [u8],
    /// The event being handled, and its offset in the batch.
    current: Option<(usize, Record<'a>)>,
    /// Records forwarded and not sent yet: a part of the batch, as long as they lie side by side, …
    adjacent: Range<usize>,
    /// … and before it those that did not.
    collected: Vec<u8>,
}

impl<'a> Output<'a> {
    pub(crate) fn new(records: &'a [u8]) -> Output<'a> {
        Output { records, ..Output::default() }
    }

    /// When the event being handled happened, in nanoseconds since boot (CLOCK_BOOTTIME); 0 where none is handled.
    pub fn time_ns(&self) -> u64 {
        self.current.map_or(0, |(_, record)| record.time_ns())
    }

    /// The CPU on which the event being handled happened; 0 where none is handled.
    pub fn cpu(&self) -> u16 {
        self.current.map_or(0, |(_, record)| record.cpu())
    }

    /// Whether a walk (`count(tasks(), …)` and the like) was cut short for the event being handled: its values are what
    /// the walk had come to.
    pub fn walk_was_cut(&self) -> bool {
        self.current.is_some_and(|(_, record)| record.walk_was_cut())
    }

    /// Sends a row of the event's fields, with its name, and the time of the event being handled.
    pub fn row<'e>(&mut self, event: &impl Event<'e>) {
        NewRow { name: event.name(), time: self.time(), columns: event.columns(), out: self }.send();
    }

    /// Begins a row of other columns, with the time of the event being handled. The name is an identifier of at most 64
    /// bytes.
    ///
    /// ```
    /// # use porthole_guest::prelude::*;
    /// # fn slow(out: &mut Output, path: Text) {
    /// out.new_row("slow").column("path", path).column("took_ns", 12u64).send();
    /// # }
    /// ```
    pub fn new_row<'r>(&'r mut self, name: &'r str) -> NewRow<'r, 'a> {
        NewRow { name, time: self.time(), columns: Vec::with_capacity(8), out: self }
    }

    /// Sends the event being handled just as it came, as a row of all its fields: the quickest way, for a plugin that
    /// only chooses. The host is called once for many events. Rows and events forwarded stay in the order in which they
    /// were sent.
    pub fn forward(&mut self) {
        let Some((offset, record)) = self.current else { return };
        let record = offset..offset + record.as_bytes().len();
        if self.adjacent.end == record.start && !self.adjacent.is_empty() {
            self.adjacent.end = record.end;
        } else {
            self.collect();
            self.adjacent = record;
        }
    }

    /// Sends a line to the plugin's log, which the host shows on stderr. It is cut behind 4096 bytes.
    pub fn log(&mut self, level: Level, text: &str) {
        host::log(level, text);
    }

    /// The names of an address or of a stack's frames, as rows show them: for a handler that goes by them. In
    /// [tests](crate::testing) each address is its own name.
    pub fn names<'v>(&self, value: impl Into<Value<'v>>) -> Vec<String> {
        host::names(value.into())
    }

    /// Ends the plugin's run when the present call returns.
    pub fn finish(&mut self) {
        host::finish(Ok(()));
    }

    /// Ends the plugin's run when the present call returns, as failed; the user is told the reason.
    pub fn fail(&mut self, reason: &str) {
        host::finish(Err(reason));
    }

    /// From here on, this is the event being handled.
    pub(crate) fn handle(&mut self, offset: usize, record: Record<'a>) {
        self.current = Some((offset, record));
    }

    /// Sends what has been forwarded.
    pub(crate) fn flush(&mut self) {
        if self.collected.is_empty() {
            let records = self.records.get(self.adjacent.clone()).unwrap_or_default();
            if !records.is_empty() {
                host::forward(records);
            }
            self.adjacent = 0..0;
        } else {
            self.collect();
            host::forward(&self.collected);
            self.collected.clear();
        }
    }

    fn collect(&mut self) {
        self.collected.extend_from_slice(self.records.get(self.adjacent.clone()).unwrap_or_default());
        self.adjacent = 0..0;
    }

    fn time(&self) -> Option<u64> {
        self.current.map(|(_, record)| record.time_ns())
    }
}

/// A row being made. It goes out with [`send`](Self::send).
#[must_use = "a row goes out with `send()`"]
pub struct NewRow<'r, 'a> {
    out: &'r mut Output<'a>,
    name: &'r str,
    time: Option<u64>,
    columns: Vec<(&'r str, Value<'r>)>,
}

impl<'r> NewRow<'r, '_> {
    /// Adds a column, behind the others: an integer, `bool`, `f64`, text, bytes, or an `Option` of these. At most 256.
    pub fn column(mut self, name: &'r str, value: impl Into<Value<'r>>) -> Self {
        self.columns.push((name, value.into()));
        self
    }

    /// Gives the row another time than that of the event being handled: nanoseconds since boot.
    pub fn at(mut self, time_ns: u64) -> Self {
        self.time = Some(time_ns);
        self
    }

    /// Sends the row.
    pub fn send(self) {
        self.out.flush();
        host::row(self.name, self.time, &self.columns);
    }
}
