//! Tracing plugins for Porthole, in Rust.
//!
//! A plugin says what it wants to see of the kernel, and handles what was seen. Here a struct is both:
//! `#[derive(Event)]` makes the declaration of a probe from its attributes, and the decoding of the probe's events from
//! its fields. A whole plugin, which prints a row for each file that is opened to be created (64 is `O_CREAT`):
//!
//! ```
//! use porthole_guest::prelude::*;
//!
//! #[derive(Event)]
//! #[probe(attach = "tracepoint:syscalls:sys_enter_openat", when = "args.flags & 64")]
//! struct Create<'a> {
//!     pid: u32,
//!     comm: Comm,
//!     #[expr("str(args.filename)")]
//!     path: Text<'a>,
//! }
//!
//! #[derive(Default)]
//! struct Creates;
//!
//! impl Plugin for Creates {
//!     type Event<'a> = Create<'a>;
//!
//!     fn on(&mut self, create: &Create, out: &mut Output) {
//!         out.row(create);
//!     }
//! }
//!
//! porthole_guest::register!(Creates);
//! ```
//!
//! # Building
//!
//! A plugin is a `cdylib`, built for `wasm32-unknown-unknown` with the component linker that comes with Rust:
//!
//! ```toml
//! # Cargo.toml
//! [lib]
//! crate-type = ["cdylib"]
//!
//! [profile.release]
//! lto = true
//! codegen-units = 1
//! opt-level = "s"
//! panic = "abort"
//! strip = true
//!
//! # .cargo/config.toml
//! [target.wasm32-unknown-unknown]
//! linker = "wasm-component-ld"
//! ```
//!
//! `cargo build --release --target wasm32-unknown-unknown` then gives a component of some 45 KB. `wasm32-wasip2` works
//! too, without the `.cargo/config.toml`; such a component is twice as large.
//!
//! # Events
//!
//! A field's name is also its expression, in Porthole's language, unless `#[expr("…")]` gives another. Its type must
//! hold what the expression gives in the kernel without loss; `start` compares the two once and fails with a message
//! that names event, field and both types. From then on an event is read at fixed offsets, without allocation. The
//! types that a field may have stand at [`Field`].
//!
//! A value that could not be read (a null was walked through) is *absent*: `None` where the field is an `Option`,
//! otherwise the type's default: 0, `false`, empty.
//!
//! The attributes of the derive macro stand at [`Event`](macro@Event). A plugin with several kinds of events puts them
//! into an enum:
//!
//! ```
//! # use porthole_guest::prelude::*;
//! # use std::collections::HashMap;
//! #[derive(Event)]
//! #[probe(attach = "tracepoint:syscalls:sys_enter_fsync")]
//! struct Enter { tid: u32 }
//!
//! #[derive(Event)]
//! #[probe(attach = "tracepoint:syscalls:sys_exit_fsync")]
//! struct Exit { tid: u32, comm: Comm }
//!
//! #[derive(Event)]
//! enum Fsync { Enter(Enter), Exit(Exit) }
//!
//! #[derive(Default)]
//! struct Fsyncs { began: HashMap<u32, u64> }
//!
//! impl Plugin for Fsyncs {
//!     type Event<'a> = Fsync;
//!
//!     fn on(&mut self, event: &Fsync, out: &mut Output) {
//!         match event {
//!             Fsync::Enter(enter) => {
//!                 self.began.insert(enter.tid, out.time_ns());
//!             }
//!             Fsync::Exit(exit) => {
//!                 let Some(began) = self.began.remove(&exit.tid) else { return };
//!                 let took = out.time_ns().saturating_sub(began);
//!                 out.new_row("fsync").column("comm", &exit.comm).column("took_ns", took).send();
//!             }
//!         }
//!     }
//! }
//! # porthole_guest::register!(Fsyncs);
//! ```
//!
//! # Testing
//!
//! A plugin's crate also builds natively. There [`testing`] runs it without host and kernel, so that `cargo test`
//! covers its handlers.

#![warn(missing_docs)]

// The derive macro names this crate by its full path, here too.
extern crate self as porthole_guest;

mod args;
pub mod bindings;
mod declaration;
mod event;
mod field;
mod output;
mod plugin;
mod record;
mod runtime;
mod schema;
mod symbol;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
mod text;

pub use args::Args;
pub use bindings::porthole::trace::declarations::{Declaration, Probe, Step};
pub use bindings::porthole::trace::host::{Level, ValueParam as Value};
pub use declaration::quote;
pub use event::{Event, FieldSpec, KfuncSpec, ProbeSpec, StepSpec};
pub use field::{Bytes, Comm, Field, Kind, Mac, Text};
pub use output::{NewRow, Output};
pub use plugin::{Batch, Plugin};
pub use porthole_guest_derive::Event;
pub use record::{Cell, Record};
pub use symbol::{KernelStack, KernelSymbol, UserStack, UserSymbol};

/// What nearly each plugin uses.
pub mod prelude {
    pub use crate::{Args, Batch, Bytes, Comm, Declaration, Event, Level, Mac, Output, Plugin, Text, Value, quote};
    pub use crate::{KernelStack, KernelSymbol, UserStack, UserSymbol};
    pub use std::net::IpAddr;
}

/// What the macros need of this crate, and nobody else.
#[doc(hidden)]
pub mod private {
    pub use crate::bindings::exports::porthole::trace::guest::{Batch, Declaration, Guest, Schema};
    pub use crate::runtime::Runtime;
}

/// Makes the plugin of this type what the component exports. Once in a crate; the type is a [`Plugin`].
#[macro_export]
macro_rules! register {
    ($plugin:ty) => {
        const _: () = {
            use $crate::private::{Batch, Declaration, Guest, Runtime, Schema};

            ::std::thread_local! {
                static RUNTIME: ::std::cell::RefCell<Runtime<$plugin>> = ::std::cell::RefCell::default();
            }

            struct Exports;

            impl Guest for Exports {
                fn declare(args: ::std::vec::Vec<::std::string::String>) -> Result<Declaration, ::std::string::String> {
                    RUNTIME.with_borrow_mut(|runtime| runtime.declare(args))
                }

                fn start(schemas: ::std::vec::Vec<Schema>) -> Result<(), ::std::string::String> {
                    RUNTIME.with_borrow_mut(|runtime| runtime.start(schemas))
                }

                fn on_events(batch: Batch) -> Result<(), ::std::string::String> {
                    RUNTIME.with_borrow_mut(|runtime| runtime.on_events(&batch))
                }

                fn on_tick(n: u64) -> Result<(), ::std::string::String> {
                    RUNTIME.with_borrow_mut(|runtime| runtime.on_tick(n))
                }

                fn stop() {
                    RUNTIME.with_borrow_mut(|runtime| runtime.stop())
                }
            }

            #[cfg(target_family = "wasm")]
            const _: () = {
        $crate::bindings::export_plugin!(Exports with_types_in $crate::bindings);
            };

            // Natively nothing is exported; this keeps the compiler from finding the plugin unused.
            #[cfg(not(target_family = "wasm"))]
            const _: Exports = Exports;
        };
    };
}

/// The examples of the documentation compile.
#[cfg(doctest)]
mod documentation {
    #[doc = include_str!("../README.md")]
    mod guest_sdk {}
    #[doc = include_str!("../../README.md")]
    mod readme {}
    #[doc = include_str!("../../docs/plugins.md")]
    mod plugins {}
}
