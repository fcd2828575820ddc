//! Porthole: a tracing host. Plugins are WebAssembly components that declare what they want to see of the kernel; the
//! host compiles the declaration to BPF, loads it, and feeds the events back into the plugin's handlers.
//!
//! The modules are the stages that data goes through, in this order; ARCHITECTURE.md is the map.

pub mod binary;
pub mod bpf;
pub mod cache;
pub mod codegen;
pub mod compile;
pub mod declare;
pub mod events;
pub mod ir;
pub mod kernel;
pub mod list;
pub mod load;
pub mod lower;
pub mod objfile;
pub mod output;
pub mod plan;
pub mod plugin;
pub mod run;
pub mod symbols;
