//! Where a plugin's output collects until the host takes it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::row::{Emitted, Level, Output};

/// Bytes of one log line at most, as wit/host.wit promises.
const LINE: usize = 4096;

/// What a plugin has sent. The plugin's functions and its stdout and stderr share one, so that all stays in order.
#[derive(Clone, Debug)]
pub struct Outbox(Arc<Mutex<Contents>>);

/// The plugin sent more in one call than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

#[derive(Debug)]
struct Contents {
    emitted: Output,
    /// Bytes that this call of a handler may still send.
    left: usize,
    limit: usize,
}

impl Outbox {
    /// For at most `limit` bytes per call of a handler.
    pub fn new(limit: usize) -> Outbox {
        Outbox(Arc::new(Mutex::new(Contents { emitted: Output::new(), left: limit, limit })))
    }

    /// Begins a call of a handler: it may send as much as any other.
    pub fn begin(&self) {
        let mut contents = self.lock();
        contents.left = contents.limit;
    }

    /// Adds one thing, or nothing where it is too large.
    pub fn push(&self, emitted: Emitted) -> Result<(), Full> {
        let mut contents = self.lock();
        contents.left = contents.left.checked_sub(emitted.size()).ok_or(Full)?;
        contents.emitted.push(emitted);
        Ok(())
    }

    /// Adds a log line, cut where it is too long.
    pub fn log(&self, level: Level, text: &str) -> Result<(), Full> {
        self.push(Emitted::Log { level, text: cut(text).to_owned() })
    }

    /// Everything sent since this was last called.
    pub fn take(&self) -> Output {
        std::mem::take(&mut self.lock().emitted)
    }

    /// Every change is one push or one number, which no panic can leave half done.
    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The start of `text` that fits into one log line and ends between two characters.
pub fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(LINE)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        let long = "ä".repeat(LINE);
        assert_eq!(cut(&long).len(), LINE);
        let odd = format!("x{long}");
        assert_eq!(cut(&odd).len(), LINE - 1);
    }

    #[test]
    fn each_call_has_its_own_limit() {
        let outbox = Outbox::new(200);
        let records = || Emitted::Forward(vec![0; 60]);
        assert_eq!(outbox.push(records()), Ok(()));
        assert_eq!(outbox.push(records()), Err(Full));
        outbox.begin();
        assert_eq!(outbox.push(records()), Ok(()));
        assert_eq!(outbox.take().len(), 2);
        assert_eq!(outbox.take().len(), 0);
    }

    #[test]
    fn what_is_empty_takes_room_too() {
        let outbox = Outbox::new(1 << 20);
        let sent = (0..1 << 20).take_while(|_| outbox.log(Level::Info, "").is_ok()).count();
        assert!(sent < 1 << 16, "{sent} lines");
    }
}
