//! Hand-written plugins for tests: handlers in Wasm text, made into a component of our WIT world.
//!
//! This file uses nothing of this crate, so that another crate's tests can include it by `#[path]`.
//!
//! Handlers follow the canonical ABI (component-model, design/mvp/CanonicalABI.md): strings and lists are a pointer and
//! a length, and a handler returns the address of its `result`: 1 byte, 0 for ok, and at offset 4 the payload. Memory
//! starts with 128 KiB. Its bytes are 0 up to [`DATA`], so [`OK`] is the address of a result that is ok (for `declare`:
//! of an empty declaration); up to 64 KiB it is the test's; behind that is the heap, from which the arguments come,
//! emptied when a handler begins. Each handler has two locals for free use, `$i` and `$p`, both i32.

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Address of a result that is ok, unless the test writes there.
pub const OK: u32 = 1024;
/// From here to 64 KiB memory is the test's own, initially 0.
pub const DATA: u32 = 2048;

/// The sources of our WIT package as one text.
const CONTRACT: &str = concat!(
    include_str!("../../../wit/world.wit"),
    include_str!("../../../wit/declarations.wit"),
    include_str!("../../../wit/events.wit"),
    include_str!("../../../wit/guest.wit"),
    include_str!("../../../wit/host.wit"),
);
/// The functions of the interface `host`, under their own names.
const HOST: &str = r#"
    (import "porthole:trace/host@0.1.0" "row" (func $row (param i32 i32 i32 i64 i32 i32)))
    (import "porthole:trace/host@0.1.0" "forward" (func $forward (param i32 i32)))
    (import "porthole:trace/host@0.1.0" "log" (func $log (param i32 i32 i32)))
    (import "porthole:trace/host@0.1.0" "finish" (func $finish (param i32 i32 i32)))
    (import "porthole:trace/host@0.1.0" "read-map" (func $read_map (param i32 i32 i32 i32)))
    (import "porthole:trace/host@0.1.0" "clear-map" (func $clear_map (param i32 i32)))
    (import "porthole:trace/host@0.1.0" "set-map" (func $set_map (param i32 i32 i32 i32 i32 i64 i64 i32 i32 i32 i32 i32 i32 i32 i32)))
    (import "porthole:trace/host@0.1.0" "names" (func $names (param i32 i64 i64 i32 i32 i32 i32 i32 i32 i32 i32)))
"#;
/// What each handler begins with.
const BEGIN: &str = "(local $i i32) (local $p i32) (global.set $heap (i32.const 65536))";
/// What the host calls to make room for arguments.
const REALLOC: &str = r#"
    (global $heap (mut i32) (i32.const 65536))
    (func (export "cabi_realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
      (local $block i32)
      (local.set $block (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
      (global.set $heap (i32.add (local.get $block) (local.get $size)))
      (loop $more
        (if (i32.gt_u (global.get $heap) (i32.shl (memory.size) (i32.const 16)))
          (then
            (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable))
            (br $more))))
      (local.get $block))
"#;

/// A plugin in the making. Without more it declares nothing and does nothing.
#[derive(Clone)]
pub struct Guest {
    contract: String,
    world: String,
    imports: String,
    memory: String,
    items: String,
    declare: String,
    start: String,
    on_events: String,
    on_tick: String,
    stop: String,
}

impl Default for Guest {
    fn default() -> Guest {
        let ok = format!("(i32.const {OK})");
        Guest {
            contract: CONTRACT.to_owned(),
            world: "plugin".to_owned(),
            imports: HOST.to_owned(),
            memory: "2".to_owned(),
            items: String::new(),
            declare: ok.clone(),
            start: ok.clone(),
            on_events: ok.clone(),
            on_tick: ok,
            stop: String::new(),
        }
    }
}

impl Guest {
    pub fn new() -> Guest {
        Guest::default()
    }

    /// The body of `declare`: `$args`, `$args_len`; returns the address of a `result<declaration, string>`.
    pub fn declare(self, body: &str) -> Guest {
        Guest { declare: body.to_owned(), ..self }
    }

    /// The body of `start`: `$schemas`, `$schemas_len`; returns the address of a `result<_, string>`.
    pub fn start(self, body: &str) -> Guest {
        Guest { start: body.to_owned(), ..self }
    }

    /// The body of `on-events`: `$records`, `$records_len`, `$count`, `$lost` (i64); returns the address of a
    /// `result<_, string>`.
    pub fn on_events(self, body: &str) -> Guest {
        Guest { on_events: body.to_owned(), ..self }
    }

    /// The body of `on-tick`: `$n` (i64); returns the address of a `result<_, string>`.
    pub fn on_tick(self, body: &str) -> Guest {
        Guest { on_tick: body.to_owned(), ..self }
    }

    /// The body of `stop`.
    pub fn stop(self, body: &str) -> Guest {
        Guest { stop: body.to_owned(), ..self }
    }

    /// More items of the module: functions, globals, tables.
    pub fn items(self, items: &str) -> Guest {
        Guest { items: self.items + items, ..self }
    }

    /// Bytes of memory from `address` on.
    pub fn data(self, address: u32, bytes: &[u8]) -> Guest {
        let escaped: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
        self.items(&format!("(data (i32.const {address}) \"{escaped}\")\n"))
    }

    /// Memory of another size: pages at first, and at most.
    pub fn memory(self, limits: &str) -> Guest {
        Guest { memory: limits.to_owned(), ..self }
    }

    /// Further imports: as WIT (`import wasi:x/y@0.2.0;`), as the WIT packages behind them, and as items of the module.
    pub fn imports(mut self, wit: &str, packages: &str, items: &str) -> Guest {
        self.contract += &format!("world test {{ include plugin; {wit} }}\n{packages}");
        self.world = "test".to_owned();
        self.imports += items;
        self
    }

    /// With another contract: `from` in our WIT files, and in the module's names, replaced by `to`.
    pub fn replace(mut self, from: &str, to: &str) -> Guest {
        assert!(self.contract.contains(from), "nothing to replace: {from}");
        self.contract = self.contract.replace(from, to);
        self
    }

    /// The component's bytes.
    pub fn build(&self) -> Vec<u8> {
        let mut resolve = Resolve::default();
        let package = resolve.push_str("contract.wit", &self.contract).expect("the WIT is valid");
        let world = resolve.select_world(&[package], Some(&self.world)).expect("the world exists");
        let version = resolve.packages[package].name.version.as_ref().expect("the package has a version").to_string();
        let text = self.module().replace("@0.1.0", &format!("@{version}"));
        let mut module = wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("the world can be encoded");
        let mut encoder =
            ComponentEncoder::default().validate(true).module(&module).expect("the module fits the world");
        encoder.encode().expect("the module can be made a component")
    }

    /// The core module alone, as text.
    pub fn module(&self) -> String {
        let Guest { imports, memory, items, declare, start, on_events, on_tick, stop, .. } = self;
        format!(
            r#"(module
    {imports}
    (memory (export "memory") {memory})
    {REALLOC}
    {items}
    (func (export "porthole:trace/guest@0.1.0#declare") (param $args i32) (param $args_len i32) (result i32)
      {BEGIN} {declare})
    (func (export "porthole:trace/guest@0.1.0#start") (param $schemas i32) (param $schemas_len i32) (result i32)
      {BEGIN} {start})
    (func (export "porthole:trace/guest@0.1.0#on-events")
      (param $records i32) (param $records_len i32) (param $count i32) (param $lost i64) (result i32)
      {BEGIN} {on_events})
    (func (export "porthole:trace/guest@0.1.0#on-tick") (param $n i64) (result i32)
      {BEGIN} {on_tick})
    (func (export "porthole:trace/guest@0.1.0#stop")
      {BEGIN} {stop}))"#
        )
    }
}

/// Little-endian bytes of words, for [`Guest::data`].
pub fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
