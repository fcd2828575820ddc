//! Runs a plugin natively, without host and kernel: for `cargo test`.
//!
//! ```
//! use porthole_guest::prelude::*;
//! use porthole_guest::testing::{Run, Sent};
//!
//! #[derive(Event)]
//! #[probe(attach = "tracepoint:sched:sched_process_exit")]
//! struct Exit { pid: u32 }
//!
//! #[derive(Default)]
//! struct Exits;
//!
//! impl Plugin for Exits {
//!     type Event<'a> = Exit;
//!
//!     fn on(&mut self, exit: &Exit, out: &mut Output) {
//!         out.row(exit);
//!     }
//! }
//!
//! let mut run = Run::<Exits>::start(&[])?;
//! let sent = run.batch(|batch| batch.event("exit", 1_000, 0, &[("pid", 7u32.into())]))?;
//! assert_eq!(sent, [Sent::row("exit", Some(1_000), &[("pid", 7u32.into())])]);
//! # Ok::<(), String>(())
//! ```

use std::cell::RefCell;

pub use crate::bindings::porthole::trace::events::{FieldKind, FieldLayout, Schema};
pub use crate::bindings::porthole::trace::host::ValueResult as OwnedValue;
use crate::bindings::porthole::trace::host::{FramesParam, FramesResult, IpAddress, Level};
use crate::bindings::porthole::trace::{declarations::Step, events};
use crate::record::{CUT, HEADER, SCHEMA};
use crate::runtime::Runtime;
use crate::{Declaration, Event, FieldSpec, Kind, Plugin, Value};

/// What a plugin has sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Sent {
    /// A row.
    Row {
        /// Its name.
        name: String,
        /// Nanoseconds since boot.
        time_ns: Option<u64>,
        /// Names and values of its columns.
        columns: Vec<(String, OwnedValue)>,
    },
    /// Records forwarded, in one call.
    Forwarded(Vec<u8>),
    /// A line for the log.
    Log(Level, String),
    /// The wish to end the run.
    Finish(Result<(), String>),
}

impl Sent {
    /// A row, for comparison.
    pub fn row(name: &str, time_ns: Option<u64>, columns: &[(&str, Value<'_>)]) -> Sent {
        let columns = columns.iter().map(|(name, value)| ((*name).to_owned(), owned(value))).collect();
        Sent::Row { name: name.to_owned(), time_ns, columns }
    }
}

/// What the plugin declares with these arguments.
pub fn declare<P: Plugin>(args: &[&str]) -> Result<Declaration, String> {
    Runtime::<P>::default().declare(args.iter().map(|&arg| arg.to_owned()).collect())
}

/// A plugin that has started.
pub struct Run<P> {
    runtime: Runtime<P>,
    schemas: Vec<Schema>,
}

impl<P: Plugin> Run<P> {
    /// Starts a plugin with these arguments. Each expression is taken to have the type that the struct wants.
    pub fn start(args: &[&str]) -> Result<Run<P>, String> {
        let mut runtime = Runtime::<P>::default();
        let declaration = runtime.declare(args.iter().map(|&arg| arg.to_owned()).collect())?;
        let schemas = schemas::<P>(&declaration);
        runtime.start(schemas.clone())?;
        let run = Run { runtime, schemas };
        host::take();
        Ok(run)
    }

    /// Sends the plugin a batch of events, and gives what it sends.
    pub fn batch(&mut self, fill: impl FnOnce(&mut NewBatch<'_>)) -> Result<Vec<Sent>, String> {
        let batch = events::Batch { records: Vec::new(), count: 0, lost: 0 };
        let mut batch = NewBatch { schemas: &self.schemas, batch };
        fill(&mut batch);
        let batch = batch.batch;
        self.runtime.on_events(&batch)?;
        Ok(host::take())
    }

    /// Makes a tick, and gives what the plugin sends.
    pub fn tick(&mut self, n: u64) -> Result<Vec<Sent>, String> {
        self.runtime.on_tick(n)?;
        Ok(host::take())
    }

    /// Stops the plugin, and gives what it sends.
    pub fn stop(mut self) -> Vec<Sent> {
        self.runtime.stop();
        host::take()
    }
}

/// A batch being made.
pub struct NewBatch<'s> {
    schemas: &'s [Schema],
    batch: events::Batch,
}

impl NewBatch<'_> {
    /// Adds an event. Fields that are not given are absent.
    ///
    /// # Panics
    ///
    /// Where the plugin has no such probe, the probe's event no such field, or the value is not of the field's kind.
    pub fn event(&mut self, probe: &str, time_ns: u64, cpu: u16, fields: &[(&str, Value<'_>)]) {
        let schema = self.schemas.iter().find(|schema| schema.probe == probe);
        let schema = schema.unwrap_or_else(|| panic!("no probe `{probe}` is declared"));
        self.batch.records.extend(encode(schema, time_ns, cpu, fields));
        self.batch.count += 1;
    }

    /// As [`event`](Self::event), of an event for which a walk was cut short.
    ///
    /// # Panics
    ///
    /// As there.
    pub fn event_of_cut_walk(&mut self, probe: &str, time_ns: u64, cpu: u16, fields: &[(&str, Value<'_>)]) {
        let at = self.batch.records.len() + SCHEMA;
        self.event(probe, time_ns, cpu, fields);
        self.batch.records[at + 1] |= CUT.to_le_bytes()[1];
    }

    /// So many events were lost since the batch before.
    pub fn lost(&mut self, events: u64) {
        self.batch.lost = events;
    }
}

/// Lays out an event's fields in their order, each at the next offset that suits its alignment.
pub fn lay_out(id: u16, probe: &str, event: &str, fields: &[(&str, FieldKind)]) -> Schema {
    let mut size = HEADER as u32;
    let fields = fields
        .iter()
        .map(|(name, kind)| {
            let (bytes, alignment) = size_and_alignment(kind);
            let offset = size.next_multiple_of(alignment);
            size = offset + bytes;
            FieldLayout { name: (*name).to_owned(), kind: kind.clone(), offset }
        })
        .collect();
    Schema { id, probe: probe.to_owned(), name: event.to_owned(), size, fields }
}

/// A record of this schema. Fields that are not given are absent.
///
/// # Panics
///
/// Where there is no such field, or the value is not of the field's kind.
pub fn encode(schema: &Schema, time_ns: u64, cpu: u16, fields: &[(&str, Value<'_>)]) -> Vec<u8> {
    let mut record = vec![0; schema.size as usize];
    let mut presence = 0u64;
    for (name, value) in fields {
        let index = schema.fields.iter().position(|field| field.name == *name);
        let index = index.unwrap_or_else(|| panic!("event `{}` has no field `{name}`", schema.name));
        let FieldLayout { kind, offset, .. } = &schema.fields[index];
        let (at, (size, _)) = (*offset as usize, size_and_alignment(kind));
        let size = size as usize;
        let fixed = match (kind, value.clone()) {
            (_, Value::Absent) => continue,
            (FieldKind::Boolean, Value::Boolean(value)) => u128::from(value),
            (FieldKind::Text, Value::Text(text)) => append(&mut record, text.as_bytes(), false),
            (FieldKind::Text | FieldKind::Bytes, Value::Bytes(bytes)) => append(&mut record, bytes, false),
            (FieldKind::KernelSymbol, Value::KernelSymbol(address)) => address.into(),
            (FieldKind::UserSymbol, Value::UserSymbol((process, address))) => {
                u128::from(process) << 64 | u128::from(address)
            }
            (FieldKind::KernelStack, Value::KernelStack(frames)) => append_frames(&mut record, &frames),
            (FieldKind::UserStack, Value::UserStack((process, frames))) => {
                u128::from(process) << 32 | append_frames(&mut record, &frames)
            }
            (FieldKind::Address, Value::Address(address)) => {
                let (kind, octets) = match address {
                    IpAddress::Ipv4((a, b, c, d)) => (4, vec![a, b, c, d]),
                    IpAddress::Ipv6((a, b, c, d, e, f, g, h)) => {
                        (6, [a, b, c, d, e, f, g, h].into_iter().flat_map(u16::to_be_bytes).collect())
                    }
                };
                record[at] = kind;
                record[at + 4..at + 4 + octets.len()].copy_from_slice(&octets);
                presence |= 1 << index;
                continue;
            }
            (FieldKind::HardwareAddress, Value::HardwareAddress((a, b, c, d, e, f))) => {
                record[at..at + size].copy_from_slice(&[a, b, c, d, e, f]);
                presence |= 1 << index;
                continue;
            }
            (
                FieldKind::Signed(_) | FieldKind::Unsigned(_) | FieldKind::Flags(_) | FieldKind::KernelSymbol,
                Value::Unsigned(value),
            ) => value.into(),
            (FieldKind::Signed(_) | FieldKind::Unsigned(_) | FieldKind::Enumeration(_), Value::Signed(value)) => {
                value as u64 as u128
            }
            _ => panic!("field `{name}` takes no such value"),
        };
        record[at..at + size].copy_from_slice(&fixed.to_le_bytes()[..size]);
        presence |= 1 << index;
    }
    record.resize(record.len().next_multiple_of(8), 0);
    let length = record.len() as u32;
    record[0..4].copy_from_slice(&length.to_le_bytes());
    record[4..6].copy_from_slice(&schema.id.to_le_bytes());
    record[6..8].copy_from_slice(&cpu.to_le_bytes());
    record[8..16].copy_from_slice(&time_ns.to_le_bytes());
    record[16..24].copy_from_slice(&presence.to_le_bytes());
    record
}

/// Puts the bytes at the record's end; gives the slot that tells where they are, and whether there were more.
fn append(record: &mut Vec<u8>, bytes: &[u8], cut: bool) -> u128 {
    let slot = record.len() as u128 | (bytes.len() as u128) << 16 | u128::from(cut) << 31;
    record.extend_from_slice(bytes);
    slot
}

fn append_frames(record: &mut Vec<u8>, frames: &FramesParam<'_>) -> u128 {
    let bytes: Vec<u8> = frames.addresses.iter().flat_map(|address| address.to_le_bytes()).collect();
    append(record, &bytes, frames.cut)
}

fn size_and_alignment(kind: &FieldKind) -> (u32, u32) {
    match *kind {
        FieldKind::Boolean => (1, 1),
        FieldKind::Signed(width) | FieldKind::Unsigned(width) => (width.into(), width.into()),
        FieldKind::Enumeration(_) | FieldKind::Flags(_) | FieldKind::KernelSymbol => (8, 8),
        FieldKind::UserSymbol => (16, 8),
        FieldKind::Text | FieldKind::Bytes | FieldKind::KernelStack => (4, 4),
        FieldKind::UserStack => (8, 4),
        FieldKind::Address => (20, 4),
        FieldKind::HardwareAddress => (6, 2),
    }
}

/// The schemas of the probes that are declared, in their order.
fn schemas<P: Plugin>(declaration: &Declaration) -> Vec<Schema> {
    let specs = P::Event::probes();
    let schema = |(id, probe): (usize, &crate::Probe)| {
        let fields = specs.iter().find(|spec| spec.name == probe.name).map_or(&[][..], |spec| spec.fields);
        let fields: Vec<_> = fields.iter().map(|field| (field.name, natural_kind(field))).collect();
        let name =
            probe.body.iter().find_map(|step| if let Step::Emit(event) = step { Some(&*event.name) } else { None });
        lay_out(id as u16, &probe.name, name.unwrap_or_default(), &fields)
    };
    declaration.probes.iter().enumerate().map(schema).collect()
}

fn natural_kind(field: &FieldSpec) -> FieldKind {
    match field.kind {
        Kind::Boolean => FieldKind::Boolean,
        Kind::Signed(width) => FieldKind::Signed(width),
        Kind::Unsigned(width) => FieldKind::Unsigned(width),
        Kind::Text => FieldKind::Text,
        Kind::Bytes => FieldKind::Bytes,
        Kind::KernelSymbol => FieldKind::KernelSymbol,
        Kind::UserSymbol => FieldKind::UserSymbol,
        Kind::KernelStack => FieldKind::KernelStack,
        Kind::UserStack => FieldKind::UserStack,
        Kind::Address => FieldKind::Address,
        Kind::HardwareAddress => FieldKind::HardwareAddress,
    }
}

fn owned(value: &Value<'_>) -> OwnedValue {
    match *value {
        Value::Absent => OwnedValue::Absent,
        Value::Boolean(value) => OwnedValue::Boolean(value),
        Value::Signed(value) => OwnedValue::Signed(value),
        Value::Unsigned(value) => OwnedValue::Unsigned(value),
        Value::Float(value) => OwnedValue::Float(value),
        Value::Text(value) => OwnedValue::Text(value.to_owned()),
        Value::Bytes(value) => OwnedValue::Bytes(value.to_vec()),
        Value::KernelSymbol(address) => OwnedValue::KernelSymbol(address),
        Value::UserSymbol(address) => OwnedValue::UserSymbol(address),
        Value::KernelStack(ref frames) => OwnedValue::KernelStack(owned_frames(frames)),
        Value::UserStack((process, ref frames)) => OwnedValue::UserStack((process, owned_frames(frames))),
        Value::Address(value) => OwnedValue::Address(value),
        Value::HardwareAddress(value) => OwnedValue::HardwareAddress(value),
    }
}

fn owned_frames(frames: &FramesParam<'_>) -> FramesResult {
    FramesResult { addresses: frames.addresses.to_vec(), cut: frames.cut }
}

thread_local! {
    static SENT: RefCell<Vec<Sent>> = const { RefCell::new(Vec::new()) };
}

/// The host's functions: they keep what is sent by this thread.
pub(crate) mod host {
    use super::{Level, SENT, Sent, Value};

    pub(crate) fn row(name: &str, time: Option<u64>, columns: &[(&str, Value<'_>)]) {
        keep(Sent::row(name, time, columns));
    }

    pub(crate) fn forward(records: &[u8]) {
        keep(Sent::Forwarded(records.to_vec()));
    }

    pub(crate) fn log(level: Level, text: &str) {
        keep(Sent::Log(level, text.to_owned()));
    }

    /// Nothing is known of any address here.
    pub(crate) fn names(value: Value<'_>) -> Vec<String> {
        let addresses = match value {
            Value::KernelSymbol(ref address) | Value::UserSymbol((_, ref address)) => std::slice::from_ref(address),
            Value::KernelStack(ref frames) | Value::UserStack((_, ref frames)) => frames.addresses,
            _ => &[],
        };
        addresses.iter().map(|address| format!("{address:#x}")).collect()
    }

    pub(crate) fn finish(outcome: Result<(), &str>) {
        keep(Sent::Finish(outcome.map_err(str::to_owned)));
    }

    pub(crate) fn take() -> Vec<Sent> {
        SENT.take()
    }

    fn keep(sent: Sent) {
        SENT.with_borrow_mut(|all| all.push(sent));
    }
}
