//! What each stage of a plugin's run cost.

use std::time::Instant;

use serde::Serialize;

/// CPU and wall time of each stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Stages {
    /// The component found in the cache or compiled, instantiated, and asked what it wants.
    pub declare: Cost,
    /// The declaration checked against the kernel. The first plugin of a run reads the kernel's types here.
    pub plan: Cost,
    /// From the plan to an object file.
    pub compile: Cost,
    /// Maps made, programs checked by the verifier.
    pub load: Cost,
    pub attach: Cost,
    /// The programs stopped, and waited for.
    pub detach: Cost,
}

/// Milliseconds. CPU time is that of the whole process, so of whatever ran at the same time, too; work that the kernel
/// does elsewhere is not in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    pub cpu_ms: f64,
    pub wall_ms: f64,
}

/// Runs from its making.
pub(super) struct Stopwatch {
    cpu_ms: f64,
    begun: Instant,
}

impl Stopwatch {
    pub(super) fn start() -> Stopwatch {
        Stopwatch { cpu_ms: cpu_ms(), begun: Instant::now() }
    }

    pub(super) fn stop(self) -> Cost {
        Cost { cpu_ms: cpu_ms() - self.cpu_ms, wall_ms: self.begun.elapsed().as_secs_f64() * 1e3 }
    }
}

/// CPU time of this process, user and system, all threads.
pub(super) fn cpu_ms() -> f64 {
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    cpu.tv_sec as f64 * 1e3 + cpu.tv_nsec as f64 / 1e6
}
