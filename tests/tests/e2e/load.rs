//! System calls that a test makes itself, in a thread whose comm nothing else on the machine has, so that a probe can
//! ask for just these.

use std::hint::black_box;
use std::os::unix::process::parent_id;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle, sleep};
use std::time::Duration;

/// Runs `work` in a thread with this comm.
pub fn as_thread<T: Send + 'static>(comm: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    assert!(comm.len() <= 15, "a comm has at most 15 bytes: {comm}");
    let thread = Builder::new().name(comm.to_owned()).spawn(work).expect("a thread can be made");
    thread.join().expect("the load does not panic")
}

/// Calls getppid so many times, as fast as it can.
pub fn getppid(comm: &str, calls: u64) {
    as_thread(comm, move || {
        for _ in 0..calls {
            black_box(parent_id());
        }
    });
}

/// A thread that calls getppid every few milliseconds until this is dropped.
pub struct Trickle {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Trickle {
    pub fn start(comm: &str) -> Trickle {
        let ended = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ended);
        let calls = move || {
            while !seen.load(Ordering::Relaxed) {
                black_box(parent_id());
                sleep(Duration::from_millis(5));
            }
        };
        let thread = Builder::new().name(comm.to_owned()).spawn(calls).expect("a thread can be made");
        Trickle { ended, thread: Some(thread) }
    }
}

impl Drop for Trickle {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
