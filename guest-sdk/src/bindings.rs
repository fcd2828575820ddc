//! What `wit-bindgen` makes of `wit/`: the types and calls of the contract, with the contract's own documentation.
//!
//! The rest of the crate is made of these; a plugin seldom needs them itself.

#![expect(missing_docs, reason = "generated: a tuple of two modules has no doc comment in WIT")]

wit_bindgen::generate!({
    path: "../wit",
    world: "plugin",
    // Imports take references: a row is sent without a copy of its names and texts.
    ownership: Borrowing { duplicate_if_necessary: true },
    additional_derives: [Clone, PartialEq],
    // The exports are made in the plugin's crate, by `register!`.
    pub_export_macro: true,
    export_macro_name: "export_plugin",
    default_bindings_module: "porthole_guest::bindings",
});
