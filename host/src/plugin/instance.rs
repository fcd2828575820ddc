//! A plugin that runs: one instance of a component, and the calls of its handlers.

use std::sync::Arc;

use wasmtime::{Engine, Store, UpdateDeadline, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::declare::Declaration;
use crate::plan::layout::Schema;
use crate::symbols::Symbols;

use super::bindings;
use super::bindings::porthole::trace::events::Batch;
use super::budget::{self, Elapsed};
use super::convert;
use super::error::{Handler, PluginError};
use super::host::State;
use super::limits::Limits;
use super::outbox::cut;
use super::records::Shapes;
use super::refusal::Refusal;
use super::row::Output;
use super::runtime::{Component, Runtime};
use super::ticker::Ticker;

/// Bytes that one call between plugin and host may make the host copy out of the plugin's memory. Its strings may all
/// be the same bytes, so without a bound a plugin of 64 MiB could fill the host's memory.
const COPIED: usize = 32 << 20;
/// Handles of resources (WASI's streams and pollables) that a plugin may hold.
const HANDLES: usize = 4096;
/// Wasm functions named in a trap's backtrace.
const FRAMES: usize = 8;

/// An instance of a plugin. One task owns it and calls one handler at a time.
///
/// A handler may take as long as [`Limits::handler`]; meanwhile it gives way to other tasks every 10 ms. An error of
/// any handler ends the plugin: later calls return [`PluginError::Ended`]. So does dropping the future of a handler
/// before it is ready.
pub struct Plugin {
    guest: bindings::Plugin,
    confined: Confined,
}

/// A store in which code runs only within its limits.
struct Confined {
    plugin: Arc<str>,
    store: Store<State>,
    limits: Limits,
    ticker: Arc<Ticker>,
    /// Whether code may run: not while a call is under way, nor after one has failed or was given up.
    ready: bool,
}

impl Plugin {
    /// Instantiates a component: its memories are made and its start functions run.
    ///
    /// # Panics
    ///
    /// If the component is of another runtime. This and the handlers, outside of a tokio runtime whose timer is
    /// enabled.
    pub async fn instantiate(runtime: &Runtime, component: &Component, limits: Limits) -> Result<Plugin, PluginError> {
        let mut confined = Confined {
            plugin: component.name().into(),
            store: new_store(runtime.engine(), &limits),
            limits,
            ticker: Arc::clone(runtime.ticker()),
            ready: true,
        };
        let instantiate = async |store: &mut Store<State>| component.instance().instantiate_async(store).await;
        let instance = confined.run(Handler::Instantiate, instantiate).await?;
        let guest =
            bindings::Plugin::new(&mut confined.store, &instance).map_err(|error| component.mismatch(&error))?;
        Ok(Plugin { guest, confined })
    }

    /// Asks the plugin what it wants to see, given its own arguments. Nothing in the answer has been checked.
    pub async fn declare(&mut self, args: &[String]) -> Result<Declaration, PluginError> {
        let guest = self.guest.porthole_trace_guest();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let declare = async |store: &mut Store<State>| guest.call_declare(store, &args).await;
        let declared = self.confined.run(Handler::Declare, declare).await?;
        self.confined.returned(Handler::Declare, declared).map(Declaration::from)
    }

    /// Tells the plugin that its probes are attached, and how its records are laid out.
    pub async fn start(&mut self, schemas: &[Schema]) -> Result<(), PluginError> {
        self.confined.store.data_mut().shapes = Some(Shapes::new(schemas));
        let names: Vec<_> = schemas.iter().map(convert::names).collect();
        let fields: Vec<_> = schemas.iter().zip(&names).map(|(schema, names)| convert::fields(schema, names)).collect();
        let schemas: Vec<_> =
            schemas.iter().zip(&fields).map(|(schema, fields)| convert::schema(schema, fields)).collect();
        let guest = self.guest.porthole_trace_guest();
        let start = async |store: &mut Store<State>| guest.call_start(store, &schemas).await;
        let started = self.confined.run(Handler::Start, start).await?;
        self.confined.returned(Handler::Start, started)
    }

    /// Hands over a batch: `count` whole records, one behind the other; `lost` events did not come since the batch
    /// before.
    pub async fn on_events(&mut self, records: &[u8], count: u32, lost: u64) -> Result<(), PluginError> {
        let guest = self.guest.porthole_trace_guest();
        let batch = Batch { records, count, lost };
        let on_events = async |store: &mut Store<State>| guest.call_on_events(store, batch).await;
        let handled = self.confined.run(Handler::OnEvents, on_events).await?;
        self.confined.returned(Handler::OnEvents, handled)
    }

    /// Tells the plugin that its `n`th tick is due.
    pub async fn on_tick(&mut self, n: u64) -> Result<(), PluginError> {
        let guest = self.guest.porthole_trace_guest();
        let on_tick = async |store: &mut Store<State>| guest.call_on_tick(store, n).await;
        let handled = self.confined.run(Handler::OnTick, on_tick).await?;
        self.confined.returned(Handler::OnTick, handled)
    }

    /// Tells the plugin that nothing more will come. This ends it.
    pub async fn stop(&mut self) -> Result<(), PluginError> {
        let guest = self.guest.porthole_trace_guest();
        let stop = async |store: &mut Store<State>| guest.call_stop(store).await;
        let stopped = self.confined.run(Handler::Stop, stop).await;
        self.confined.end();
        stopped
    }

    /// What the plugin has sent since this was last called, in order. After an error, what it sent before that.
    pub fn take_output(&mut self) -> Output {
        self.confined.store.data().outbox.take()
    }

    /// What finds the names of addresses for the plugin, and for what it has sent. What it has found in a call of a
    /// handler holds until the next.
    pub fn symbols(&mut self) -> &mut Symbols {
        &mut self.confined.store.data_mut().symbols
    }

    /// What the plugin gave to `finish`, once it has: its run shall end.
    pub fn finished(&self) -> Option<&Result<(), String>> {
        self.confined.store.data().finished.as_ref()
    }
}

impl Confined {
    /// Runs code of the plugin until it is done, or breaks a limit.
    async fn run<T>(
        &mut self,
        handler: Handler,
        call: impl AsyncFnOnce(&mut Store<State>) -> wasmtime::Result<T>,
    ) -> Result<T, PluginError> {
        if !self.ready {
            return Err(PluginError::Ended { plugin: self.plugin.to_string() });
        }
        self.ready = false;
        let state = self.store.data_mut();
        state.outbox.begin();
        state.symbols.begin();
        state.named = 0;
        state.memory.take_exceeded();
        let marks = state.marks.clone();
        self.store.set_epoch_deadline(1);
        let running = self.ticker.run();
        let result = budget::run(call(&mut self.store), self.limits.handler, &marks).await;
        drop(running);
        match result {
            Ok(Ok(output)) => {
                self.ready = true;
                Ok(output)
            }
            Ok(Err(error)) => Err(self.fail(handler, &error)),
            Err(Elapsed) => {
                self.end();
                Err(PluginError::Deadline { plugin: self.plugin.to_string(), handler, limit: self.limits.handler })
            }
        }
    }

    /// What a handler returned. An error ends the plugin.
    fn returned<T>(&mut self, handler: Handler, result: Result<T, String>) -> Result<T, PluginError> {
        result.map_err(|message| {
            self.end();
            PluginError::Returned { plugin: self.plugin.to_string(), handler, message: cut(&message).to_owned() }
        })
    }

    /// Runs nothing more, and logs what the plugin last wrote, often the reason of its end.
    fn end(&mut self) {
        self.ready = false;
        // Only where the plugin has sent as much as it may is there no room left for its last words.
        let _ = self.store.data().finish_lines();
    }

    /// Why a call failed.
    fn fail(&mut self, handler: Handler, error: &wasmtime::Error) -> PluginError {
        self.end();
        let plugin = self.plugin.to_string();
        if let Some(Refusal::Output) = error.downcast_ref() {
            return PluginError::OutputLimit { plugin, handler, limit: self.limits.output };
        }
        if self.store.data_mut().memory.take_exceeded() {
            return PluginError::OutOfMemory { plugin, handler, limit: self.limits.memory };
        }
        PluginError::Trap { plugin, handler, message: message(error), backtrace: backtrace(error) }
    }
}

fn new_store(engine: &Engine, limits: &Limits) -> Store<State> {
    let mut store = Store::new(engine, State::new(limits));
    store.limiter(|state| &mut state.memory);
    store.set_hostcall_fuel(COPIED);
    store.set_max_component_handles(HANDLES);
    store.epoch_deadline_callback(|store| {
        store.data().marks.interrupted();
        // tokio's own way to yield, not wasmtime's: after it, tokio looks at its timers and descriptors before it comes
        // back.
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
    });
    store
}

/// What went wrong, without where.
fn message(error: &wasmtime::Error) -> String {
    match error.downcast_ref::<I32Exit>() {
        Some(I32Exit(status)) => format!("it called exit with status {status}"),
        None => {
            let cause = error.root_cause().to_string();
            cut(cause.strip_prefix("wasm trap: ").unwrap_or(&cause)).to_owned()
        }
    }
}

/// The innermost functions of the plugin, one a line, where the trap was in Wasm.
fn backtrace(error: &wasmtime::Error) -> Option<String> {
    let frames = error.downcast_ref::<WasmBacktrace>()?.frames().iter().take(FRAMES);
    let lines = frames.map(|frame| match frame.func_name() {
        Some(name) => format!("    in {}", name.chars().take(128).collect::<String>().escape_debug()),
        None => format!("    in function {}", frame.func_index()),
    });
    Some(lines.collect::<Vec<_>>().join("\n"))
}
