//! The examples that are about processes, cgroups and time, on the running kernel: what their rows say is what /proc
//! and the cgroups' own files say, and what was measured.

mod e2e;

#[path = "examples/cgroups.rs"]
mod cgroups;
#[path = "examples/latency.rs"]
mod latency;
#[path = "examples/lineage.rs"]
mod lineage;
#[path = "examples/waiting.rs"]
mod waiting;
