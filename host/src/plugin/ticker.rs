//! The clock by which running Wasm is interrupted.
//!
//! Compiled Wasm compares the engine's epoch with its store's deadline at each loop and function entry, and calls the
//! host when the epoch has reached it. A thread moves the epoch on, every [`TICK`] while handlers run. When none has
//! run for a while the thread sleeps until one does, so that a host at rest is not woken.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, thread};

use wasmtime::Engine;

/// How often running Wasm is interrupted.
pub const TICK: Duration = Duration::from_millis(10);

/// Ticks without a handler after which the thread sleeps. Waking it costs a system call, so not after the first one.
const IDLE_TICKS: u32 = 20;

/// The thread that moves an engine's epoch on. It ends when this is dropped.
pub struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// While this lives, the epoch moves on.
pub struct Running(Arc<Ticker>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Handlers running now.
    running: usize,
    /// Ticks since a handler last began.
    idle: u32,
    asleep: bool,
    stopped: bool,
}

impl Ticker {
    /// Starts the thread.
    pub fn start(engine: Engine) -> io::Result<Ticker> {
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new() });
        let thread = thread::Builder::new().name("epoch".to_owned()).stack_size(128 << 10).spawn({
            let shared = Arc::clone(&shared);
            move || shared.tick(&engine)
        })?;
        Ok(Ticker { shared, thread: Some(thread) })
    }

    /// Keeps the epoch moving until the guard is dropped.
    pub fn run(self: &Arc<Ticker>) -> Running {
        let mut state = self.shared.lock();
        state.running += 1;
        state.idle = 0;
        if state.asleep {
            state.asleep = false;
            self.shared.changed.notify_one();
        }
        Running(Arc::clone(self))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.shared.lock().running -= 1;
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // Its only panic would be a bug, and then there is nothing left to stop.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn tick(&self, engine: &Engine) {
        let mut state = self.lock();
        while !state.stopped {
            if state.running == 0 && state.idle >= IDLE_TICKS {
                state.asleep = true;
                state =
                    self.changed.wait_while(state, |s| s.asleep && !s.stopped).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.idle = state.idle.saturating_add(1);
            let wait = self.changed.wait_timeout_while(state, TICK, |s| !s.stopped);
            (state, _) = wait.unwrap_or_else(PoisonError::into_inner);
            engine.increment_epoch();
        }
    }

    /// The state is plain counters, which no panic can leave half changed.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn sleeps_when_idle_and_wakes_for_a_handler() {
        let ticker = Arc::new(Ticker::start(Engine::default()).unwrap());
        let until = Instant::now() + Duration::from_secs(10);
        while !ticker.shared.lock().asleep {
            assert!(Instant::now() < until, "the thread never slept");
            thread::sleep(TICK);
        }
        let running = ticker.run();
        assert!(!ticker.shared.lock().asleep);
        thread::sleep(TICK * 3 * IDLE_TICKS);
        assert!(!ticker.shared.lock().asleep, "asleep while a handler runs");
        drop(running);
    }
}
