//! How long a handler may take.
//!
//! A handler takes time in two ways: its Wasm runs, inside a poll of its future, or it waits in a host function (a WASI sleep), between
//! two polls. Both count. What does not count is the time after the ticker interrupted it and before tokio polls it again: that belongs
//! to other tasks, and on a loaded machine it can be long. The two kinds of waiting look the same from outside, so the interruption
//! leaves a mark.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::ticker::TICK;

/// A poll ends at the next tick, or soon after it where the host copies data. Where it took longer, the process was stopped under
/// it (Ctrl-Z, a paused machine), and the plugin shall not be charged for that.
const LONGEST_POLL: Duration = TICK.saturating_mul(10);

/// The mark that the ticker has interrupted running Wasm.
#[derive(Clone, Debug, Default)]
pub struct Interrupted(Arc<AtomicBool>);

/// The handler has used up its time.
#[derive(Debug)]
pub struct Elapsed;

impl Interrupted {
    /// To be called where Wasm is interrupted, before its future returns pending.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// Runs `call` until it has taken `limit`. It must then be given up for good: what it was doing is half done.
pub async fn run<F: Future>(call: F, limit: Duration, interrupted: &Interrupted) -> Result<F::Output, Elapsed> {
    let mut call = pin!(call);
    let mut budget = Budget { left: limit, waiting: None, timer: None };
    interrupted.take();
    poll_fn(|cx| {
        budget.resume();
        let start = Instant::now();
        if let Poll::Ready(output) = call.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        budget.charge(start.elapsed().min(LONGEST_POLL));
        if budget.left.is_zero() {
            return Poll::Ready(Err(Elapsed));
        }
        if interrupted.take() {
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
        let interrupted = Interrupted::default();
        assert!(run(sleep(LIMIT / 10), LIMIT, &interrupted).await.is_ok());
        assert!(run(sleep(LIMIT * 2), LIMIT, &interrupted).await.is_err());
    }

    #[tokio::test]
    async fn waits_add_up() {
        let call = async {
            for _ in 0..10 {
                sleep(LIMIT / 5).await;
            }
        };
        let start = Instant::now();
        assert!(run(call, LIMIT, &Interrupted::default()).await.is_err());
        assert!(start.elapsed() >= LIMIT);
    }

    #[tokio::test]
    async fn time_of_others_after_an_interruption_does_not_count() {
        let interrupted = Interrupted::default();
        let call = async {
            for _ in 0..10 {
                interrupted.set();
                sleep(LIMIT / 5).await;
            }
        };
        assert!(run(call, LIMIT, &interrupted).await.is_ok());
    }
}
