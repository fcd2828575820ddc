//! How long a handler may take.
//!
//! A handler takes time in three ways: its Wasm runs, inside a poll of its future; a host function works for it, inside
//! a poll too; or it waits in a host function (a WASI sleep), between two polls. All count. What does not count is the
//! time after the ticker interrupted it and before tokio polls it again: that belongs to other tasks, and on a loaded
//! machine it can be long. The two kinds of waiting look the same from outside, so the interruption leaves a mark. So
//! does work of the host: of a poll without it that lasts for long, the process was stopped. And what the host reads to
//! find names is measured elsewhere ([`crate::symbols`]): how long that takes is up to others.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::ticker::TICK;

/// A poll ends at the next tick, or soon after it where the host copies data. Where it took longer without a host
/// function that works, the process was stopped under it (Ctrl-Z, a paused machine), and the plugin shall not be
/// charged for that.
const LONGEST_POLL: Duration = TICK.saturating_mul(10);

/// What a poll leaves for who charges for it.
#[derive(Clone, Debug, Default)]
pub struct Marks(Arc<Left>);

#[derive(Debug, Default)]
struct Left {
    /// The ticker has interrupted running Wasm.
    interrupted: AtomicBool,
    /// Nanoseconds in which host functions have worked.
    worked: AtomicU64,
    /// Nanoseconds that do not count.
    excused: AtomicU64,
}

/// The handler has used up its time.
#[derive(Debug)]
pub struct Elapsed;

impl Marks {
    /// To be called where Wasm is interrupted, before its future returns pending.
    pub fn interrupted(&self) {
        self.0.interrupted.store(true, Ordering::Relaxed);
    }

    /// A host function has worked for so long.
    pub fn worked(&self, time: Duration) {
        add(&self.0.worked, time);
    }

    /// So much of the time is measured elsewhere.
    pub fn excused(&self, time: Duration) {
        add(&self.0.excused, time);
    }

    fn take_interrupted(&self) -> bool {
        self.0.interrupted.swap(false, Ordering::Relaxed)
    }

    pub(super) fn take_worked(&self) -> Duration {
        Duration::from_nanos(self.0.worked.swap(0, Ordering::Relaxed))
    }

    pub(super) fn take_excused(&self) -> Duration {
        Duration::from_nanos(self.0.excused.swap(0, Ordering::Relaxed))
    }
}

fn add(nanoseconds: &AtomicU64, time: Duration) {
    nanoseconds.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// Runs `call` until it has taken `limit`. It must then be given up for good: what it was doing is half done, unless
/// its last poll took too long.
pub async fn run<F: Future>(call: F, limit: Duration, marks: &Marks) -> Result<F::Output, Elapsed> {
    let mut call = pin!(call);
    let mut budget = Budget { left: limit, waiting: None, timer: None };
    marks.take_interrupted();
    marks.take_worked();
    marks.take_excused();
    poll_fn(|cx| {
        budget.resume();
        let start = Instant::now();
        let polled = call.as_mut().poll(cx);
        let (worked, excused) = (marks.take_worked(), marks.take_excused());
        budget.charge(worked + start.elapsed().saturating_sub(worked + excused).min(LONGEST_POLL));
        if budget.left.is_zero() {
            return Poll::Ready(Err(Elapsed));
        }
        if let Poll::Ready(output) = polled {
            return Poll::Ready(Ok(output));
        }
        if marks.take_interrupted() {
            return Poll::Pending;
        }
        budget.wait(cx).map(|()| Err(Elapsed))
    })
    .await
}

struct Budget {
    left: Duration,
    /// Since when the call has been waiting in a host function.
    waiting: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Budget {
    fn charge(&mut self, time: Duration) {
        self.left = self.left.saturating_sub(time);
    }

    /// Charges for a wait that is over.
    fn resume(&mut self) {
        if let Some(since) = self.waiting.take() {
            self.charge(since.elapsed());
        }
    }

    /// Begins a wait; ready when it has lasted for all that is left.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        let end = now + self.left;
        self.waiting = Some(now);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
        timer.as_mut().reset(end);
        timer.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(100);

    #[tokio::test]
    async fn waiting_counts() {
        let marks = Marks::default();
        assert!(run(sleep(LIMIT / 10), LIMIT, &marks).await.is_ok());
        assert!(run(sleep(LIMIT * 2), LIMIT, &marks).await.is_err());
    }

    #[tokio::test]
    async fn waits_add_up() {
        let call = async {
            for _ in 0..10 {
                sleep(LIMIT / 5).await;
            }
        };
        let start = Instant::now();
        assert!(run(call, LIMIT, &Marks::default()).await.is_err());
        assert!(start.elapsed() >= LIMIT);
    }

    #[tokio::test]
    async fn time_of_others_after_an_interruption_does_not_count() {
        let marks = Marks::default();
        let call = async {
            for _ in 0..10 {
                marks.interrupted();
                sleep(LIMIT / 5).await;
            }
        };
        assert!(run(call, LIMIT, &marks).await.is_ok());
    }

    #[tokio::test]
    async fn work_of_the_host_counts_in_full() {
        let marks = Marks::default();
        let work = || {
            std::thread::sleep(2 * LONGEST_POLL);
            marks.worked(2 * LONGEST_POLL);
        };
        let limit = LONGEST_POLL + LONGEST_POLL / 2;
        // The last thing that a handler does, and something in between.
        assert!(run(async { work() }, limit, &marks).await.is_err());
        let call = async {
            work();
            sleep(LIMIT / 10).await;
        };
        assert!(run(call, limit, &marks).await.is_err());
        assert!(run(async { work() }, 100 * limit, &marks).await.is_ok());
    }

    #[tokio::test]
    async fn what_is_measured_elsewhere_does_not_count() {
        let marks = Marks::default();
        let call = async {
            std::thread::sleep(LIMIT);
            marks.excused(LIMIT);
        };
        assert!(run(call, LIMIT / 2, &marks).await.is_ok());
    }

    #[tokio::test]
    async fn time_in_which_the_process_was_stopped_does_not_count() {
        let stopped = async { std::thread::sleep(2 * LONGEST_POLL) };
        assert!(run(stopped, LONGEST_POLL + LONGEST_POLL / 2, &Marks::default()).await.is_ok());
    }
}
