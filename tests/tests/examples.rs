//! The examples that are about processes and cgroups, on the running kernel: what their rows say is what /proc and the cgroups' own files say.

mod e2e;

#[path = "examples/cgroups.rs"]
mod cgroups;
#[path = "examples/lineage.rs"]
mod lineage;
#[path = "examples/waiting.rs"]
mod waiting;
