//! Joins the entry of a system call with its exit, by thread.
//!
//! The problem: a thread is in one system call at a time, so its entry and the exit behind it belong together. But
//! batches bring events in order only per CPU, and a thread may migrate between the two. So the exit may come first,
//! within a batch or even one batch earlier.
//!
//! The idea: each batch is handled in the order of time, which settles what came in one batch. An exit without an entry
//! waits until the end of the next batch, in case the entry comes there. An entry waits for as long as its call takes:
//! a thread may block in `open` (of a FIFO, over a network) for hours.
//!
//! Invariants: a thread has at most one half waiting, either an entry or an exit; an exit is joined with an entry of an
//! earlier time only; each half is joined once or counted as unmatched once. When events were lost, an entry that waits
//! may have lost its exit, and would be joined with that of a later call: all that waits is dropped. (That leaves the
//! calls within the batch of which some events were lost, which nothing tells apart.)

use std::collections::HashMap;

use porthole_guest::prelude::Comm;

/// Entries that may wait at a time. Beyond it there are exits that never come, and the older entries make room. With
/// paths of 256 bytes, the host's default, this is some 25 MiB.
const MAX_ENTRIES: usize = 64 * 1024;
/// Exits that may wait at a time. They are few: threads that have just migrated, or were in a call when the probes were
/// attached.
const MAX_EXITS: usize = 1024;

/// What an entry tells.
pub struct Entered {
    pub time_ns: u64,
    pub pid: u32,
    pub comm: Comm,
    /// None where the kernel could not read it.
    pub path: Option<Box<[u8]>>,
}

/// An entry and its exit.
pub struct Joined {
    pub entered: Entered,
    pub exit_ns: u64,
    pub result: i64,
}

/// Halves that wait for the other.
#[derive(Default)]
pub struct Pending {
    /// Entries by thread, in two generations: once the young one is full, the old one is dropped and the young one
    /// becomes the old one.
    young: HashMap<u32, Entered>,
    old: HashMap<u32, Entered>,
    exits: Vec<EarlyExit>,
    batch: u64,
    unmatched: u64,
}

/// An exit that came before its entry, in this batch.
struct EarlyExit {
    tid: u32,
    time_ns: u64,
    result: i64,
    batch: u64,
}

impl Pending {
    /// A batch comes, before which so many events were lost.
    pub fn begin_batch(&mut self, lost: u64) {
        self.batch += 1;
        let (batch, before) = (self.batch, self.waiting());
        if lost == 0 {
            self.exits.retain(|exit| exit.batch + 1 >= batch);
        } else {
            self.young.clear();
            self.old.clear();
            self.exits.clear();
        }
        self.unmatched += before - self.waiting();
    }

    /// An entry: joined with an exit that came too early, or waiting from now on.
    pub fn enter(&mut self, tid: u32, entered: Entered) -> Option<Joined> {
        if let Some(at) = self.exits.iter().position(|exit| exit.tid == tid) {
            let exit = self.exits.swap_remove(at);
            if exit.time_ns >= entered.time_ns {
                return Some(Joined { entered, exit_ns: exit.time_ns, result: exit.result });
            }
            self.unmatched += 1;
        }
        if self.young.len() >= MAX_ENTRIES / 2 {
            self.unmatched += self.old.len() as u64;
            self.old = std::mem::take(&mut self.young);
        }
        let replaced = self.take_entry(tid);
        self.unmatched += u64::from(replaced.is_some());
        self.young.insert(tid, entered);
        None
    }

    /// An exit: joined with the thread's entry, or waiting for it until the end of the next batch.
    pub fn exit(&mut self, tid: u32, time_ns: u64, result: i64) -> Option<Joined> {
        if let Some(entered) = self.take_entry(tid) {
            return Some(Joined { entered, exit_ns: time_ns, result });
        }
        // An earlier exit of the thread is without an entry for good.
        let earlier = self.exits.iter().position(|exit| exit.tid == tid);
        if let Some(at) = earlier.or((self.exits.len() >= MAX_EXITS).then_some(0)) {
            self.exits.swap_remove(at);
            self.unmatched += 1;
        }
        self.exits.push(EarlyExit { tid, time_ns, result, batch: self.batch });
        None
    }

    /// Halves that were given up, or still wait.
    pub fn unmatched(&self) -> u64 {
        self.unmatched + self.waiting()
    }

    fn take_entry(&mut self, tid: u32) -> Option<Entered> {
        self.young.remove(&tid).or_else(|| self.old.remove(&tid))
    }

    fn waiting(&self) -> u64 {
        (self.young.len() + self.old.len() + self.exits.len()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entered(time_ns: u64) -> Entered {
        Entered { time_ns, pid: 1, comm: Comm::default(), path: None }
    }

    #[test]
    fn memory_is_bounded_and_what_makes_room_is_counted() {
        let mut pending = Pending::default();
        let count = 2 * MAX_ENTRIES as u32 + 5;
        for tid in 0..count {
            assert!(pending.enter(tid, entered(u64::from(tid))).is_none());
            assert!(pending.waiting() <= MAX_ENTRIES as u64);
        }
        assert_eq!(pending.unmatched(), u64::from(count));
        let exits = 2 * MAX_EXITS as u32;
        for tid in count..count + exits {
            assert!(pending.exit(tid, 0, 0).is_none());
        }
        assert_eq!(pending.exits.len(), MAX_EXITS);
        assert_eq!(pending.unmatched(), u64::from(count + exits));
        // The newest are still there, the oldest are not.
        assert!(pending.exit(count - 1, u64::MAX, 0).is_some());
        assert!(pending.exit(0, u64::MAX, 0).is_none());
    }

    #[test]
    fn an_exit_that_is_older_than_the_entry_belongs_to_another_call() {
        let mut pending = Pending::default();
        assert!(pending.exit(1, 10, 0).is_none());
        assert!(pending.enter(1, entered(11)).is_none());
        let joined = pending.exit(1, 12, 5).expect("the entry waits");
        assert_eq!((joined.entered.time_ns, joined.exit_ns, joined.result), (11, 12, 5));
        assert_eq!(pending.unmatched(), 1);
    }
}
