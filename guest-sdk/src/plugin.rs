//! What a plugin is.

use std::collections::BinaryHeap;
use std::marker::PhantomData;

use crate::record::{Record, Records};
use crate::schema::Layouts;
use crate::{Args, Declaration, Event, Output};

/// A plugin: what it wants to see, and what it does with it. [`register!`](crate::register!) makes it the component's
/// export.
///
/// The host calls one method at a time. One that panics, returns an error, runs for more than a second or needs more
/// than the plugin's memory (64 MiB unless the run says otherwise) ends the plugin's run.
pub trait Plugin: Default {
    /// What [`on`](Self::on) handles: a struct or an enum that derives [`Event`](macro@crate::Event).
    type Event<'a>: Event<'a>;

    /// Called for each event.
    fn on(&mut self, event: &Self::Event<'_>, out: &mut Output<'_>);

    /// Called once, first: looks at the plugin's arguments and adjusts the declaration, which holds the event's probes.
    ///
    /// Arguments that are not taken out of `args` end the run with an error, as an error returned does.
    fn declare(&mut self, args: &mut Args, declaration: &mut Declaration) -> Result<(), String> {
        let _ = (args, declaration);
        Ok(())
    }

    /// Called once, when all probes are attached, before any event.
    fn start(&mut self, out: &mut Output<'_>) -> Result<(), String> {
        let _ = out;
        Ok(())
    }

    /// Called with what the host sends at once; calls [`on`](Self::on) for each event unless it is written otherwise.
    ///
    /// To write it otherwise is of use where events must be seen in the order of time, or where loss matters.
    fn on_batch<'a>(&mut self, batch: &Batch<'a, Self>, out: &mut Output<'a>) -> Result<(), String> {
        batch.for_each(out, |event, out| self.on(event, out));
        Ok(())
    }

    /// Called at the interval that [`Declaration::tick`] asks for; `n` counts the ticks due, from 1.
    fn on_tick(&mut self, n: u64, out: &mut Output<'_>) -> Result<(), String> {
        let _ = (n, out);
        Ok(())
    }

    /// Called once, last, after the last event; not after an error.
    fn stop(&mut self, out: &mut Output<'_>) {
        let _ = out;
    }
}

/// The events that the host sends at once.
pub struct Batch<'a, P: ?Sized> {
    records: &'a [u8],
    count: u32,
    lost: u64,
    layouts: &'a Layouts,
    plugin: PhantomData<fn(P)>,
}

impl<'a, P: Plugin> Batch<'a, P> {
    /// Of records that [`Layouts::check`] has found sound.
    pub(crate) fn new(records: &'a [u8], count: u32, lost: u64, layouts: &'a Layouts) -> Batch<'a, P> {
        Batch { records, count, lost, layouts, plugin: PhantomData }
    }

    /// How many events there are.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many events of this plugin, of all probes together, were lost in the kernel since the batch before.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Handles the events as they came: in the order of time on each CPU, but in no certain order between CPUs.
    pub fn for_each(&self, out: &mut Output<'a>, mut handle: impl FnMut(&P::Event<'a>, &mut Output<'a>)) {
        for (offset, record) in Records::new(self.records) {
            self.one(offset, record, out, &mut handle);
        }
    }

    /// Handles the events in the order of time. Events of the next batch may still be older than some of this one's.
    pub fn for_each_by_time(&self, out: &mut Output<'a>, mut handle: impl FnMut(&P::Event<'a>, &mut Output<'a>)) {
        let mut order: Vec<(u64, usize)> =
            Records::new(self.records).map(|(offset, record)| (record.time_ns(), offset)).collect();
        // Each offset is there once: events of one time keep their order. Most batches are in order; for those that are
        // not, a heap takes 4 KB less of code than `sort_unstable`.
        if !order.is_sorted() {
            order = BinaryHeap::from(order).into_sorted_vec();
        }
        for (_, offset) in order {
            if let Some(record) = Records::at(self.records, offset) {
                self.one(offset, record, out, &mut handle);
            }
        }
    }

    fn one(
        &self,
        offset: usize,
        record: Record<'a>,
        out: &mut Output<'a>,
        handle: &mut impl FnMut(&P::Event<'a>, &mut Output<'a>),
    ) {
        let Some(layout) = self.layouts.of(record) else { return };
        out.handle(offset, record);
        if let Some(event) = P::Event::decode(layout.probe, &layout.cells, record) {
            handle(&event, out);
        }
    }
}
