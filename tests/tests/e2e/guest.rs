//! Plugins written by hand, for what the Rust ones cannot do: plugins of one run share their arguments, so one of two
//! can only misbehave by itself.

#[path = "../../../host/src/plugin/testing.rs"]
mod testing;

use testing::words;
pub use testing::{DATA, Guest, OK};

/// A plugin that sees each call of getppid on the machine, whatever its arguments are. `body` is what it does with a
/// batch, as [`Guest::on_events`] takes it.
pub fn on_events(body: &str) -> Vec<u8> {
    const POINT: &str = "tracepoint:syscalls:sys_enter_getppid";
    // Laid out by the canonical ABI: the result, the probe, its attach point, its step and the event's name.
    let [result, probe, attach, step, name, point] = [0, 64, 128, 192, 256, 320].map(|offset| DATA + offset);
    let (ok, emit, none) = (0, 3, [0, 0]);
    Guest::new()
        .declare(&format!("(i32.const {result})"))
        .data(result, &words(&[ok, none[0], none[1], none[0], none[1], probe, 1, 0, 0]))
        .data(probe, &words(&[name, 4, attach, 1, step, 1]))
        .data(attach, &words(&[point, POINT.len() as u32]))
        .data(step, &words(&[emit, name, 4, none[0], none[1]]))
        .data(name, b"call")
        .data(point, POINT.as_bytes())
        .on_events(body)
        .build()
}
