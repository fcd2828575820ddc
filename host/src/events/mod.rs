//! Ring buffer to batches.
//!
//! A plugin's ring is the only queue between its probes and its handlers: a handler that is slow makes the ring full,
//! and the kernel counts what finds no room. The kernel wakes the reader only for a record that finds the ring empty.
//! The reader then lingers for a moment, so that a batch gathers, and takes all there is: at most one wake-up per
//! batch, and none while nothing happens.
//!
//! A program that sends and the reader that has just taken the last record may each see the other's position as it was
//! a moment before: then the ring is not empty, and nobody is woken (kernel/bpf/ringbuf.c: bpf_ringbuf_commit). So the
//! reader never waits for a wake-up before it has looked whether there is something already. A ring that is full wakes
//! nobody at all, so to sleep on one would be to sleep for good.
//!
//! Names libbpf-rs, as `load` does, and nothing else of the host does.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use libbpf_rs::{AsRawLibbpf, MapCore, RingBuffer, RingBufferBuilder};
use libbpf_sys::{ring__avail_data_size, ring_buffer__ring};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use crate::plan::layout::{HEADER, LENGTH, MAX_RECORD, SCHEMA, WALK_CUT};

/// How long a batch gathers. Half of the 10 ms that an event waits at most, so that the other half is left for the
/// handler before.
const LINGER: Duration = Duration::from_millis(5);
/// Bytes of a batch at most.
pub const MAX_BATCH: usize = 1 << 20;
/// What the callback returns to stop libbpf from taking more: any negative number.
const FULL: i32 = -libc::ENOBUFS;

/// A ring could not be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    #[error("the ring buffer cannot be opened: {0}")]
    Open(libbpf_rs::Error),
    #[error("the ring buffer cannot be waited for: {0}")]
    Wait(#[from] io::Error),
    #[error("the ring buffer cannot be read: {0}")]
    Read(io::Error),
}

/// Whole records, one behind the other.
#[derive(Debug, Default)]
pub struct Batch {
    pub records: Vec<u8>,
    pub count: u32,
    /// How many of each schema, by its id.
    pub by_schema: Vec<u64>,
}

/// The reading end of a plugin's ring.
pub struct Ring {
    /// Before the ring: it must be forgotten by the reactor before its descriptor is closed.
    ready: AsyncFd<Epoll>,
    ring: RingBuffer<'static>,
    /// Until when a batch gathers whose wake-up has been taken: there is no other until the ring has been read.
    gathers: Option<Instant>,
    batch: Arc<Mutex<Batch>>,
}

/// libbpf's epoll descriptor, which the ring owns.
struct Epoll(RawFd);

impl AsRawFd for Epoll {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

impl Ring {
    /// Opens a ring buffer map. Must be called within a tokio runtime.
    pub fn new(map: &impl MapCore) -> Result<Ring, RingError> {
        let batch = Arc::new(Mutex::new(Batch::default()));
        let filled = Arc::clone(&batch);
        let mut builder = RingBufferBuilder::new();
        builder.add(map, move |record| lock(&filled).push(record)).map_err(RingError::Open)?;
        let ring = builder.build().map_err(RingError::Open)?;
        let epoll = Epoll(ring.epoll_fd());
        // SAFETY: the descriptor is the ring's, which is dropped behind `ready`, and it never changes.
        let ready = unsafe { AsyncFd::register_with_interest(epoll, Interest::READABLE) };
        let ready = ready.map_err(|e| RingError::Wait(e.into()))?;
        Ok(Ring { ready, ring, gathers: None, batch })
    }

    /// Waits until there may be records, and a moment longer. Dropped before it is ready, it goes on where it was when
    /// it is called again.
    pub async fn wait(&mut self) -> Result<(), RingError> {
        let until = match self.gathers {
            Some(until) => until,
            None => {
                if !self.has_records() {
                    // Cleared before the ring is read: a record that comes later than that finds the ring empty, and
                    // wakes again.
                    self.ready.readable().await?.clear_ready();
                }
                *self.gathers.insert(Instant::now() + LINGER)
            }
        };
        if Instant::now() < until {
            tokio::time::sleep_until(until).await;
        }
        self.gathers = None;
        Ok(())
    }

    /// Whether there are records now.
    fn has_records(&self) -> bool {
        // What the reader has taken is told before it is asked what is left; the programs' side does the same the other
        // way round.
        fence(Ordering::SeqCst);
        // SAFETY: the ring buffer manager is `self.ring`'s, and its first and only ring lives as long.
        let bytes = unsafe { ring__avail_data_size(ring_buffer__ring(self.ring.as_libbpf_object().as_ptr(), 0)) };
        bytes > 0
    }

    /// Takes what there is, up to [`MAX_BATCH`] bytes; an empty batch when there is nothing.
    pub fn take(&mut self, reuse: Batch) -> Result<Batch, RingError> {
        let mut emptied = reuse;
        emptied.clear();
        *lock(&self.batch) = emptied;
        let result = self.ring.consume_raw();
        let batch = std::mem::take(&mut *lock(&self.batch));
        // The record that fills a batch is in it, and libbpf has counted it as taken.
        if result < 0 && result != FULL {
            return Err(RingError::Read(io::Error::from_raw_os_error(-result)));
        }
        Ok(batch)
    }
}

impl Batch {
    /// Whether there may be more behind it in the ring.
    pub fn is_full(&self) -> bool {
        self.records.len() > MAX_BATCH - MAX_RECORD as usize
    }

    fn clear(&mut self) {
        self.records.clear();
        self.count = 0;
        self.by_schema.clear();
    }

    /// Adds a record; [`FULL`] where it should be the last.
    fn push(&mut self, record: &[u8]) -> i32 {
        // The ring's own header gives the length in multiples of 1; ours is a multiple of 8 and the same.
        debug_assert!(record.len() >= HEADER as usize && word(record, LENGTH) as usize == record.len());
        let schema = u16::from_le_bytes([record[SCHEMA as usize], record[SCHEMA as usize + 1]]);
        let schema = usize::from(schema & !WALK_CUT);
        if self.by_schema.len() <= schema {
            self.by_schema.resize(schema + 1, 0);
        }
        self.by_schema[schema] += 1;
        self.count += 1;
        self.records.extend_from_slice(record);
        if self.is_full() { FULL } else { 0 }
    }
}

fn word(record: &[u8], at: u32) -> u32 {
    let at = at as usize;
    u32::from_le_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]])
}

/// A panic while a record was added would leave the batch as it was before or behind it: whole.
fn lock(batch: &Mutex<Batch>) -> MutexGuard<'_, Batch> {
    batch.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
