//! What can go wrong with a plugin, in its user's terms.
//!
//! A message stands behind the plugin's name, which whoever tells it puts there. Texts of the plugin's in it are
//! escaped, so that they cannot speak to the terminal, nor look like messages of the host.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use crate::plan::Shown;

/// Why a plugin could not be loaded, or what ended it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PluginError {
    /// The Wasm engine could not be set up.
    #[error("the Wasm engine cannot be set up: {0}")]
    Engine(String),

    /// There is no such file, or it cannot be read.
    #[error("{}: cannot be read: {source}", shown(path))]
    Read { path: PathBuf, source: io::Error },

    /// The file is not Wasm at all.
    #[error("{}: is not a WebAssembly component: it {looks}", shown(path))]
    NotWasm {
        path: PathBuf,
        /// What it is instead: "is empty", "is an ELF file", …
        looks: &'static str,
    },

    /// The file is a core Wasm module; a plugin is a component.
    #[error(
        "{}: is a core WebAssembly module, not a component; with Rust, set `linker = \"wasm-component-ld\"` for the target in \
         .cargo/config.toml and build again; for other languages, `wasm-tools component new` makes a component of a module",
        shown(path)
    )]
    CoreModule { path: PathBuf },

    /// The file starts like a component, but is damaged, or uses what the engine does not support.
    #[error("{}: cannot be compiled: {}", shown(path), Shown(reason))]
    Compile { path: PathBuf, reason: String },

    /// A component, but not a plugin.
    #[error("{}: is not a plugin: it does not export {missing}", shown(path))]
    NoGuest { path: PathBuf, missing: &'static str },

    /// A plugin for another version of the interface.
    #[error("{}: was built for {}; this host offers {offered}", shown(path), Shown(found))]
    Version { path: PathBuf, found: String, offered: String },

    /// The component imports what this host does not offer.
    #[error("{}: imports what this host does not offer: {}", shown(path), Shown(&imports.join(", ")))]
    Imports {
        path: PathBuf,
        /// All of them.
        imports: Vec<String>,
    },

    /// Names and version are ours, but the types are not.
    #[error("{}: does not fit the interface of its version: {}", shown(path), Shown(reason))]
    Interface { path: PathBuf, reason: String },

    /// A handler trapped: it broke a rule of Wasm or of one of the host's functions, or gave up.
    #[error("trap in {handler}: {}{}", Shown(message), backtrace.as_ref().map(|frames| format!("\n{frames}")).unwrap_or_default())]
    Trap {
        plugin: String,
        handler: Handler,
        message: String,
        /// The innermost Wasm functions, one a line.
        backtrace: Option<String>,
    },

    /// A handler took longer than it may.
    #[error("{handler} was stopped: it ran for longer than {} s", limit.as_secs_f64())]
    Deadline { plugin: String, handler: Handler, limit: Duration },

    /// A handler wanted more memory than the plugin may have, and did not cope without.
    #[error("{handler} ran out of memory: the plugin may have {} KiB", limit >> 10)]
    OutOfMemory {
        plugin: String,
        handler: Handler,
        /// Bytes.
        limit: usize,
    },

    /// One call of a handler sent more rows and log lines than it may.
    #[error("{handler} sent more than {} KiB of rows and log lines in one call", limit >> 10)]
    OutputLimit {
        plugin: String,
        handler: Handler,
        /// Bytes.
        limit: usize,
    },

    /// A handler returned an error; this is its own text.
    #[error("{handler}: {}", Shown(message))]
    Returned { plugin: String, handler: Handler, message: String },

    /// A call of a plugin that an earlier error, or an abandoned call, has ended.
    #[error("has ended")]
    Ended { plugin: String },
}

/// The calls in which a plugin's code runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handler {
    /// Instantiation: the start functions of its modules.
    Instantiate,
    Declare,
    Start,
    OnEvents,
    OnTick,
    Stop,
}

impl fmt::Display for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Handler::Instantiate => "instantiation",
            Handler::Declare => "declare",
            Handler::Start => "start",
            Handler::OnEvents => "on-events",
            Handler::OnTick => "on-tick",
            Handler::Stop => "stop",
        })
    }
}

/// A path as messages have it.
pub fn shown(path: &Path) -> String {
    Shown(&path.to_string_lossy()).to_string()
}
