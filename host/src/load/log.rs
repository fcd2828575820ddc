//! What libbpf says while it works, and the verifier's log in it.

use std::cell::RefCell;

use libbpf_rs::{PrintLevel, set_print};

/// Lines of the verifier's log shown at most: its end is where it says what it refuses.
const SHOWN: usize = 40;

thread_local! {
    /// What libbpf has said in this thread since `capture` began; none outside of it.
    static CAPTURED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `work` and returns with it what libbpf said meanwhile, in this thread.
pub fn capture<T>(work: impl FnOnce() -> T) -> (T, String) {
    set_print(Some((PrintLevel::Info, heard)));
    CAPTURED.set(Some(String::new()));
    let result = work();
    (result, CAPTURED.take().unwrap_or_default())
}

/// libbpf calls this in the thread that called libbpf.
fn heard(level: PrintLevel, text: String) {
    let captured = CAPTURED.with_borrow_mut(|captured| captured.as_mut().map(|c| c.push_str(&text)));
    if captured.is_none() {
        tracing::debug!("libbpf {level:?}: {}", text.trim_end());
    }
}

/// Whether the log is that of a verifier that refused a program.
pub fn is_refusal(log: &str) -> bool {
    log.contains("-- BEGIN PROG LOAD LOG --")
}

/// The last lines.
pub fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.trim_end().lines().collect();
    lines[lines.len().saturating_sub(SHOWN)..].join("\n")
}
