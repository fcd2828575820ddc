//! The calls of the contract, turned into those of [`Plugin`].

use crate::bindings::porthole::trace::events;
use crate::schema::Layouts;
use crate::{Args, Batch, Declaration, Event, Output, Plugin, event};

/// A plugin, and what is known of its events once it has started.
#[derive(Debug, Default)]
pub struct Runtime<P> {
    plugin: P,
    layouts: Layouts,
}

impl<P: Plugin> Runtime<P> {
    /// `guest.declare`: the events' probes, adjusted by the plugin.
    pub fn declare(&mut self, args: Vec<String>) -> Result<Declaration, String> {
        let mut args = Args::new(args);
        let mut declaration = event::declaration::<P::Event<'_>>();
        self.plugin.declare(&mut args, &mut declaration)?;
        args.finish()?;
        Ok(declaration)
    }

    /// `guest.start`: fails where a struct cannot hold what the kernel gives.
    pub fn start(&mut self, schemas: Vec<events::Schema>) -> Result<(), String> {
        self.layouts = Layouts::new(&P::Event::probes(), &schemas)?;
        self.plugin.start(&mut Output::default())
    }

    /// `guest.on-events`.
    pub fn on_events(&mut self, batch: &events::Batch) -> Result<(), String> {
        self.layouts.check(&batch.records, batch.count)?;
        let mut out = Output::new(&batch.records);
        let batch = Batch::new(&batch.records, batch.count, batch.lost, &self.layouts);
        let outcome = self.plugin.on_batch(&batch, &mut out);
        out.flush();
        outcome
    }

    /// `guest.on-tick`.
    pub fn on_tick(&mut self, n: u64) -> Result<(), String> {
        self.plugin.on_tick(n, &mut Output::default())
    }

    /// `guest.stop`.
    pub fn stop(&mut self) {
        self.plugin.stop(&mut Output::default());
    }
}
