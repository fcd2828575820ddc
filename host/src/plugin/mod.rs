//! The Wasm side of the host: plugins are loaded, confined and called here.
//!
//! [`Runtime::load`] makes a [`Component`] of a file, [`Plugin::instantiate`] makes a [`Plugin`] of that, and its
//! methods are the plugin's handlers. What goes in and out is plain data ([`crate::declare::Declaration`],
//! [`crate::plan::layout::Schema`], records, [`Row`]), so that a plugin can later live in a process of its own.
//!
//! A plugin is not trusted. It may loop, allocate, trap, send without end and lie about its own data; what that can
//! cost the host is bounded by [`Limits`], and all that comes of it is a [`PluginError`].
//!
//! Invariants: only this module names wasmtime. A plugin's code runs nowhere but in `instance::Confined::run`, so no
//! limit can be forgotten. Nothing of the machine is within a plugin's reach: no files, no network, no environment.

mod bindings;
mod budget;
mod compiled;
mod contract;
mod convert;
mod error;
mod host;
mod instance;
mod limits;
mod outbox;
mod records;
mod refusal;
mod row;
mod runtime;
mod ticker;
mod wasi;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use error::{Handler, PluginError};
pub use instance::Plugin;
pub use limits::Limits;
pub use row::{Emitted, Frames, Level, Output, Row, Value};
pub use runtime::{Component, Runtime, RuntimeOptions};
