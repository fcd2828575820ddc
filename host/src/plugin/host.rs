//! What a plugin may call: the interface `host`, and the state behind it.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use wasmtime::component::HasSelf;
use wasmtime_wasi::{WasiCtxView, WasiView};

use super::bindings::porthole::trace::host::{self, Entry};
use super::budget::Marks;
use super::limits::{Limits, Memory};
use super::outbox::{Full, Outbox, cut};
use super::records::Shapes;
use super::refusal::{COLUMNS, NAME, NAMES, Refusal};
use super::row::{Emitted, Frames, Level, Row, Value};
use super::wasi::Shell;
use crate::plan::FRAMES;
use crate::symbols::Symbols;

/// A plugin's state outside of its own memory.
pub struct State {
    pub memory: Memory,
    pub outbox: Outbox,
    pub marks: Marks,
    /// The shapes of the plugin's records; none before `start`.
    pub shapes: Option<Shapes>,
    /// What the plugin gave to `finish`.
    pub finished: Option<Result<(), String>>,
    pub symbols: Symbols,
    /// Names that the plugin has asked for in this call.
    pub named: usize,
    /// Made when it is first used; most plugins never do.
    wasi: Option<Box<Shell>>,
}

impl State {
    /// Of a plugin that has these limits.
    pub fn new(limits: &Limits) -> State {
        State {
            memory: Memory::new(limits.memory),
            outbox: Outbox::new(limits.output),
            marks: Marks::default(),
            shapes: None,
            finished: None,
            symbols: Symbols::default(),
            named: 0,
            wasi: None,
        }
    }

    /// Logs what the plugin wrote to stdout or stderr without ending the line.
    pub fn finish_lines(&self) -> Result<(), Full> {
        self.wasi.as_ref().map_or(Ok(()), |wasi| wasi.finish_lines())
    }
}

/// Offers the interface `host`.
pub fn add_to_linker(linker: &mut wasmtime::component::Linker<State>) -> wasmtime::Result<()> {
    host::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi.get_or_insert_with(|| Box::new(Shell::new(&self.outbox))).view()
    }
}

impl host::Host for State {
    fn row(&mut self, name: String, time: Option<u64>, columns: Vec<(String, host::Value)>) -> wasmtime::Result<()> {
        if !is_identifier(&name) {
            return Err(Refusal::Name(cut(&name).to_owned()).into());
        }
        if columns.len() > COLUMNS {
            return Err(Refusal::Columns(columns.len()).into());
        }
        let columns = columns.into_iter().map(|(name, value)| (name, value.into())).collect();
        Ok(self.outbox.push(Emitted::Row(Row { name, time, columns })).map_err(Refusal::from)?)
    }

    fn forward(&mut self, records: Vec<u8>) -> wasmtime::Result<()> {
        let shapes = self.shapes.as_ref().ok_or(Refusal::NotStarted)?;
        shapes.check(&records).map_err(Refusal::Record)?;
        Ok(self.outbox.push(Emitted::Forward(records)).map_err(Refusal::from)?)
    }

    fn names(&mut self, value: host::Value) -> wasmtime::Result<Vec<String>> {
        let value = value.into();
        self.named += Symbols::count(&value);
        if self.named > NAMES {
            return Err(Refusal::Names.into());
        }
        let (begun, read) = (Instant::now(), self.symbols.reading());
        let names = self.symbols.names(&value);
        let read = self.symbols.reading() - read;
        self.marks.worked(begun.elapsed().saturating_sub(read));
        self.marks.excused(read);
        Ok(names)
    }

    fn log(&mut self, level: host::Level, text: String) -> wasmtime::Result<()> {
        Ok(self.outbox.log(level.into(), &text).map_err(Refusal::from)?)
    }

    fn finish(&mut self, outcome: Result<(), String>) -> wasmtime::Result<()> {
        // The first one counts: what comes after it may be its own clean-up.
        self.finished.get_or_insert(outcome.map_err(|text| cut(&text).to_owned()));
        Ok(())
    }

    fn read_map(&mut self, name: String, _limit: u32) -> wasmtime::Result<Vec<Entry>> {
        unknown_map(&name)
    }

    fn clear_map(&mut self, name: String) -> wasmtime::Result<()> {
        unknown_map(&name)
    }

    fn set_map(
        &mut self,
        name: String,
        _key: Vec<host::Value>,
        _value: host::Value,
    ) -> wasmtime::Result<Result<(), String>> {
        unknown_map(&name)
    }
}

impl From<host::Level> for Level {
    fn from(level: host::Level) -> Level {
        match level {
            host::Level::Debug => Level::Debug,
            host::Level::Info => Level::Info,
            host::Level::Warning => Level::Warning,
            host::Level::Error => Level::Error,
        }
    }
}

impl From<host::Value> for Value {
    fn from(value: host::Value) -> Value {
        match value {
            host::Value::Absent => Value::Absent,
            host::Value::Boolean(value) => Value::Boolean(value),
            host::Value::Signed(value) => Value::Signed(value),
            host::Value::Unsigned(value) => Value::Unsigned(value),
            host::Value::Float(value) => Value::Float(value),
            host::Value::Text(value) => Value::Text(value),
            host::Value::Bytes(value) => Value::Bytes(value),
            host::Value::KernelSymbol(address) => Value::KernelSymbol(address),
            host::Value::UserSymbol((process, address)) => Value::UserSymbol(process, address),
            host::Value::KernelStack(frames) => Value::KernelStack(frames.into()),
            host::Value::UserStack((process, frames)) => Value::UserStack(process, frames.into()),
            host::Value::Address(host::IpAddress::Ipv4((a, b, c, d))) => {
                Value::Address(Ipv4Addr::new(a, b, c, d).into())
            }
            host::Value::Address(host::IpAddress::Ipv6((a, b, c, d, e, f, g, h))) => {
                Value::Address(Ipv6Addr::new(a, b, c, d, e, f, g, h).into())
            }
            host::Value::HardwareAddress((a, b, c, d, e, f)) => Value::HardwareAddress([a, b, c, d, e, f]),
        }
    }
}

impl From<host::Frames> for Frames {
    fn from(frames: host::Frames) -> Frames {
        let host::Frames { mut addresses, cut } = frames;
        let longer = addresses.len() > FRAMES as usize;
        addresses.truncate(FRAMES as usize);
        Frames { addresses, cut: cut || longer }
    }
}

/// No map can be declared in this version.
fn unknown_map<T>(name: &str) -> wasmtime::Result<T> {
    Err(Refusal::UnknownMap(cut(name).to_owned()).into())
}

fn is_identifier(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    name.len() <= NAME
        && name.bytes().next().is_some_and(letter)
        && name.bytes().all(|byte| letter(byte) || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers() {
        for good in ["a", "_", "opens", "Open_2", &"x".repeat(64)] {
            assert!(is_identifier(good), "{good}");
        }
        for bad in ["", "2a", "a-b", "ä", "a b", "a\n", &"x".repeat(65)] {
            assert!(!is_identifier(bad), "{bad}");
        }
    }

    #[test]
    fn finding_names_is_work_and_reading_is_not() {
        let mut state = State::new(&Limits::default());
        let frames = host::Frames { addresses: vec![0x1000; 3], cut: false };
        let stack = host::Value::UserStack((u32::MAX, frames));
        assert_eq!(host::Host::names(&mut state, stack).unwrap(), ["0x1000"; 3]);
        let read = state.marks.take_excused();
        assert_eq!(read, state.symbols.reading());
        assert!(!state.marks.take_worked().is_zero() && !read.is_zero());
        assert_eq!(state.named, 3);
    }
}
