//! What is left of attach points whose programs are gone: perf events that do nothing any more.
//!
//! The problem: when the last perf event of a tracepoint is closed, the kernel waits for two grace periods, some 30 ms,
//! and holds a mutex of all trace events meanwhile (kernel/trace/trace_event_perf.c: perf_trace_event_unreg). So a
//! hundred tracepoints take seconds, however many threads close them.
//!
//! The idea: a program is taken off its event in microseconds, and from then on nothing fires; nobody need wait for the
//! rest. When all plugins have ended, the events are left to a child, which closes them by ending. Where there can be
//! no child they are closed here, one after the other.
//!
//! Linux 7.2 keeps the program, which no longer fires, until the event is closed; so nothing that may take long comes
//! between the end of the plugins and that child.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Perf events without programs. Dropping them closes them, which may take a while.
#[derive(Debug, Default)]
#[must_use = "dropping it waits for the kernel"]
pub struct Leftover(Vec<OwnedFd>);

impl Leftover {
    pub(super) fn new(events: Vec<OwnedFd>) -> Leftover {
        Leftover(events)
    }

    pub fn add(&mut self, mut other: Leftover) {
        self.0.append(&mut other.0);
    }

    /// Leaves them to a child process that ends by itself once they are closed. For when this process has little left
    /// to do: nobody waits for the child.
    pub fn leave_behind(self) {
        if self.0.is_empty() {
            return;
        }
        let mut kept: Vec<RawFd> = self.0.iter().map(AsRawFd::as_raw_fd).collect();
        kept.sort_unstable();
        // SAFETY: the child makes nothing but system calls, which is all that a child of a process with threads may do,
        // and never returns.
        unsafe {
            if libc::fork() == 0 {
                close_all_but(&kept);
                libc::_exit(0);
            }
        }
    }
}

/// Closes all other descriptors: who reads this process's output waits for all copies of it to be closed.
///
/// # Safety
/// Nothing that owns a descriptor may be used afterwards.
unsafe fn close_all_but(kept: &[RawFd]) {
    let mut from: libc::c_uint = 0;
    for &fd in kept {
        let fd = fd.unsigned_abs();
        if fd > from {
            // SAFETY: as the caller promises.
            unsafe { libc::syscall(libc::SYS_close_range, from, fd - 1, 0) };
        }
        from = fd + 1;
    }
    // SAFETY: as the caller promises.
    unsafe { libc::syscall(libc::SYS_close_range, from, libc::c_uint::MAX, 0) };
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// The child keeps nothing else open, or who reads this process's output would wait for it.
    #[test]
    fn what_is_left_behind_is_closed_in_the_end() {
        let (mut end, begin) = std::io::pipe().unwrap();
        let (mut kept_end, kept) = std::io::pipe().unwrap();
        Leftover::new(vec![kept.into()]).leave_behind();
        drop(begin);
        let mut all = Vec::new();
        assert_eq!(end.read_to_end(&mut all).unwrap(), 0);
        assert_eq!(kept_end.read_to_end(&mut all).unwrap(), 0);
    }
}
