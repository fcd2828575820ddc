//! How many things may be, and how long.

/// Probes of a declaration at most.
pub const MAX_PROBES: usize = 256;
/// Attach points of a declaration at most.
pub const MAX_ATTACH_POINTS: usize = 1024;
/// Bytes of an attach point's text at most.
pub const MAX_ATTACH_LENGTH: usize = 256;
/// Steps of a body at most.
pub const MAX_STEPS: usize = 128;
/// Bytes of all expressions at most, each counted once for each attach point of its probe: as often it is checked and
/// compiled.
pub const MAX_TEXT: usize = 1 << 20;
/// Bytes of a name at most.
pub const MAX_NAME: usize = 64;
/// Milliseconds between ticks.
pub const TICK: std::ops::RangeInclusive<u32> = 10..=86_400_000;
/// Bytes of `str(pointer)` at most, where no other number is given.
pub const STR_DEFAULT: u32 = 256;
/// Bytes of `str(pointer, n)` at most.
pub const STR_MAX: u32 = 4096;
/// Bytes of `path(file)` at most, where no other number is given.
pub const PATH_DEFAULT: u32 = 1024;
/// Addresses of a call stack at most: as many as the kernel collects (include/uapi/linux/perf_event.h:
/// PERF_MAX_STACK_DEPTH).
pub const FRAMES: u32 = 127;
/// Bytes of `buf(pointer, length)` at most, where the length is known only when the probe fires and no bound is given.
pub const BUF_DEFAULT: u32 = 256;
/// Bytes of any `buf` at most.
pub const BUF_MAX: u32 = 4096;
/// Bytes of a thread's name, its terminating 0 included (include/linux/sched.h: TASK_COMM_LEN).
pub const COMM: u32 = 16;
