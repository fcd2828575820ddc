//! The time that reading takes.
//!
//! How much there is to read for a name is decided by the traced process, and how long it takes by the machine: neither
//! is the plugin's doing, which must not be ended for it. So reading does not count as the plugin's time. It has a
//! measure of its own instead, for each batch: when that is used up nothing more is read.

use std::time::{Duration, Instant};

/// For one batch: far more than any machine takes for what is read of well-meaning processes. What has been begun is
/// read to its end, for which the bounds on its bytes see to.
const MOST: Duration = Duration::from_secs(10);

/// What has been read in a batch, by its time.
#[derive(Default)]
pub struct Reading {
    spent: Duration,
}

impl Reading {
    /// Begins a batch.
    pub fn begin(&mut self) {
        self.spent = Duration::ZERO;
    }

    /// Reads, unless the time is used up.
    pub fn read<T>(&mut self, read: impl FnOnce() -> T) -> Option<T> {
        (self.spent < MOST).then(|| self.read_anyway(read))
    }

    /// Reads what is read once, and then never again.
    pub fn read_anyway<T>(&mut self, read: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let done = read();
        self.spent += begun.elapsed();
        done
    }

    /// The time that it has taken in this batch.
    pub fn spent(&self) -> Duration {
        self.spent
    }

    #[cfg(test)]
    pub fn use_up(&mut self) {
        self.spent = MOST;
    }
}
