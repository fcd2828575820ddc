//! Files that are no plugins.

use std::fs;
use std::path::Path;

use crate::e2e::guest::Guest;
use crate::e2e::host::Run;
use crate::e2e::{Directory, binary, plugin, says};
use crate::{fails, hostile};

/// Runs a file of these bytes as a plugin.
fn fails_as_file(name: &str, contents: &[u8]) -> String {
    let directory = Directory::new("file");
    fails(Run::new(&directory.file(name, contents)))
}

#[test]
fn no_such_file() {
    let message = fails(Run::new(Path::new("/nowhere/at-all.wasm")));
    says(&message, &["error: at-all: /nowhere/at-all.wasm: cannot be read", "No such file"]);
}

#[test]
fn a_directory() {
    let directory = Directory::new("directory.wasm");
    says(&fails(Run::new(directory.path())), &["error: ", "-directory: ", "cannot be read", "not a regular file"]);
}

#[test]
fn not_wasm() {
    says(&fails_as_file("empty.wasm", b""), &["error: empty: ", "is not a WebAssembly component", "it is empty"]);
    says(
        &fails_as_file("text.wasm", b"(component)\n"),
        &["error: text: ", "is not a WebAssembly component", "it is text"],
    );
    let elf = fails(Run::new(binary()));
    says(&elf, &["error: porthole: ", "is not a WebAssembly component", "it is an ELF file"]);
}

#[test]
fn damaged_wasm() {
    let component = fs::read(plugin("hostile")).expect("it is built");
    let cut = fails_as_file("cut.wasm", &component[..component.len() / 2]);
    says(&cut, &["error: cut: ", "cut.wasm: cannot be compiled: "]);
}

#[test]
fn a_core_module() {
    let module = wat::parse_str("(module (func (export \"declare\")))").expect("it is valid");
    let message = fails_as_file("core.wasm", &module);
    says(&message, &["error: core: ", "is a core WebAssembly module, not a component", "wasm-component-ld"]);
}

#[test]
fn a_component_without_our_exports() {
    let component = wat::parse_str("(component)").expect("it is valid");
    let message = fails_as_file("other.wasm", &component);
    says(&message, &["error: other: ", "is not a plugin: it does not export porthole:trace/guest@0.1.0"]);
}

#[test]
fn another_version_of_the_contract() {
    let component = Guest::new().replace("porthole:trace@0.1.0", "porthole:trace@7.3.0").build();
    let message = fails_as_file("future.wasm", &component);
    says(&message, &["error: future: ", "porthole:trace/guest@7.3.0", "this host offers porthole:trace/guest@0.1.0"]);
}

#[test]
fn types_that_are_not_ours() {
    let component = Guest::new().replace("tick: option<u32>,", "tick: option<s32>,").build();
    says(&fails_as_file("typed.wasm", &component), &["error: typed: ", "does not fit the interface of its version"]);
}

#[test]
fn imports_that_the_host_does_not_offer() {
    let component = Guest::new().imports(
        "import acme:rockets/launch@1.0.0;",
        "package acme:rockets@1.0.0 { interface launch { go: func(); } }",
        r#"(import "acme:rockets/launch@1.0.0" "go" (func $go))"#,
    );
    let message = fails_as_file("rocket.wasm", &component.build());
    says(&message, &["error: rocket: ", "imports what this host does not offer: acme:rockets/launch@1.0.0"]);
}

#[test]
fn no_argument_that_the_plugin_knows() {
    says(&fails(hostile(&["--what"])), &["error: hostile: declare: unknown argument '--what'"]);
}

/// Every plugin that cannot run is told, not just the first.
#[test]
fn two_bad_plugins() {
    let run =
        Run::new(Path::new("/nowhere/one.wasm")).plugin(&plugin("hostile")).plugin(Path::new("/nowhere/two.wasm"));
    says(&fails(run), &["error: one: ", "error: two: "]);
}
