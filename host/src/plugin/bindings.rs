//! The WIT world `plugin` as Rust types and traits, generated.

#![allow(missing_docs, reason = "generated; wit/ documents it")]

wasmtime::component::bindgen!({
    world: "plugin",
    path: "../wit",
    imports: { default: trappable },
    exports: { default: async },
    ownership: Borrowing { duplicate_if_necessary: true },
});
