//! The account of a run: what became of every event, and what the run cost.

use std::fs;
use std::time::Instant;

use serde::Serialize;

use super::stages::{Stages, cpu_ms};
use crate::load::Counts;
use crate::plan::Plan;

/// What became of one plugin's events, and what its stages cost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Account {
    pub plugin: String,
    pub stages: Stages,
    pub probes: Vec<ProbeAccount>,
}

/// What became of one probe's events. At the end of a run `hits = filtered + emitted + lost`, and `emitted = delivered`
/// unless the plugin failed or finished by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProbeAccount {
    pub probe: String,
    /// How often it fired.
    pub hits: u64,
    /// How often a `when` was not true.
    pub filtered: u64,
    /// Events in the ring.
    pub emitted: u64,
    /// Events that a handler was given, and returned.
    pub delivered: u64,
    /// Events for which the ring had no room.
    pub lost: u64,
    /// Reads of memory that failed, through pointers other than null. Each has made a value absent; what became of the
    /// hit is counted above.
    pub faults: u64,
    /// How often the kernel did not run the probe, because a program ran already on that CPU. Not among the hits.
    pub missed: u64,
}

impl Account {
    pub fn new(plugin: &str, stages: Stages, plan: &Plan, counts: &[Counts], delivered: &[u64]) -> Account {
        let probes = plan.probes.iter().enumerate().map(|(i, probe)| {
            let counts = counts.get(i).copied().unwrap_or_default();
            ProbeAccount {
                probe: probe.name.clone(),
                hits: counts.hits,
                filtered: counts.filtered,
                emitted: counts.emitted,
                delivered: delivered.get(usize::from(probe.schema)).copied().unwrap_or_default(),
                lost: counts.lost,
                faults: counts.faults,
                missed: counts.missed,
            }
        });
        Account { plugin: plugin.to_owned(), stages, probes: probes.collect() }
    }
}

impl ProbeAccount {
    /// Whether every hit is accounted for, and every event that was sent has arrived.
    pub fn adds_up(&self) -> bool {
        self.hits == self.filtered + self.emitted + self.lost && self.emitted == self.delivered
    }
}

/// What this process has used.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Usage {
    /// Milliseconds of CPU time, user and system, all threads.
    pub cpu_ms: f64,
    /// Milliseconds since `since`.
    pub wall_ms: f64,
    /// Largest resident set so far, KiB.
    pub peak_rss_kib: u64,
}

impl Usage {
    /// As of now.
    pub fn since(since: Instant) -> Usage {
        Usage { cpu_ms: cpu_ms(), wall_ms: since.elapsed().as_secs_f64() * 1e3, peak_rss_kib: peak_rss_kib() }
    }
}

/// `VmHWM` of proc_pid_status(5). getrusage(2) would count the memory of whoever started this process, too.
fn peak_rss_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or_default()
}
