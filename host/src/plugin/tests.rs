//! Plugins that do as they should, and plugins that do not.

use std::fs;
use std::future::{Future, poll_fn};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::declare::{Declaration, Event, Field, Probe, Step};
use crate::plan::layout::{FieldKind, Schema};

use super::testing::{DATA, Guest, OK, words};
use super::*;

/// A directory of its own for a test, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("porthole-plugin-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Loads these bytes without a cache.
fn load(bytes: impl AsRef<[u8]>) -> Result<(Runtime, Component), PluginError> {
    let scratch = Scratch::new();
    let path = scratch.write("guest.wasm", bytes);
    let runtime = Runtime::new(&RuntimeOptions::default())?;
    let component = runtime.load(&path)?;
    Ok((runtime, component))
}

fn refused(bytes: impl AsRef<[u8]>) -> PluginError {
    load(bytes).err().expect("the component is refused")
}

const SHORT: Limits = Limits { handler: Duration::from_millis(200), memory: 4 << 20, output: 64 << 10 };

async fn instantiate(guest: &Guest) -> Result<Plugin, PluginError> {
    let (runtime, component) = load(guest.build())?;
    Plugin::instantiate(&runtime, &component, SHORT).await
}

/// The error of a plugin's first tick.
async fn tick_fails(guest: Guest) -> PluginError {
    let mut plugin = instantiate(&guest).await.unwrap();
    let error = plugin.on_tick(1).await.unwrap_err();
    assert!(matches!(plugin.on_tick(2).await, Err(PluginError::Ended { .. })), "the plugin goes on after {error}");
    assert!(matches!(plugin.stop().await, Err(PluginError::Ended { .. })));
    error
}

/// The message of a trap in a plugin's first tick.
async fn tick_traps(guest: Guest) -> String {
    match tick_fails(guest).await {
        PluginError::Trap { plugin, handler: Handler::OnTick, message, .. } if plugin == "guest" => message,
        other => panic!("{other:?}"),
    }
}

/// A handler's body that first does this.
fn and_ok(body: &str) -> String {
    format!("{body} (i32.const {OK})")
}

fn info(text: &str) -> Emitted {
    Emitted::Log { level: Level::Info, text: text.to_owned() }
}

// What a good plugin does.

/// A plugin whose declaration has one probe, `tracepoint:a:b`, that emits event `e` with the field `f` = `pid` where
/// `tgid` is.
fn declares() -> Guest {
    let text = |offset: u32, length: u32| [DATA + offset, length];
    // result: ok; declaration: kfuncs, maps, probes, tick (some 250)
    let result = [&[0, 0, 0, 0, 0][..], &[DATA + 128, 1, 1, 250]].concat();
    let probe = [&text(64, 1)[..], &[DATA + 160, 1, DATA + 176, 2]].concat();
    // when(tgid), emit(e: f = pid); a step is a word of case and 7 of payload
    let steps = [&[1][..], &text(68, 4), &[0; 5], &[3], &text(72, 1), &[DATA + 240, 1]].concat();
    let field = [text(76, 1), text(80, 3)].concat();
    Guest::new()
        .declare(&format!("(i32.const {DATA})"))
        .data(DATA, &words(&result))
        .data(DATA + 64, b"p\0\0\0tgide\0\0\0f\0\0\0pid\0tracepoint:a:b")
        .data(DATA + 128, &words(&probe))
        .data(DATA + 160, &words(&text(84, 14)))
        .data(DATA + 176, &words(&steps))
        .data(DATA + 240, &words(&field))
}

#[tokio::test]
async fn a_declaration_arrives_as_plain_data() {
    let mut plugin = instantiate(&declares()).await.unwrap();
    let declaration = plugin.declare(&[]).await.unwrap();
    let fields = vec![Field { name: "f".to_owned(), value: "pid".to_owned() }];
    let body = vec![Step::When("tgid".to_owned()), Step::Emit(Event { name: "e".to_owned(), fields })];
    let probes = vec![Probe { name: "p".to_owned(), attach: vec!["tracepoint:a:b".to_owned()], body }];
    assert_eq!(declaration, Declaration { probes, tick: Some(250), ..Declaration::default() });
}

#[tokio::test]
async fn arguments_reach_declare() {
    // Logs its second argument.
    let log = "(call $log (i32.const 1) (i32.load offset=8 (local.get $args)) (i32.load offset=12 (local.get $args)))";
    let mut plugin = instantiate(&Guest::new().declare(&and_ok(log))).await.unwrap();
    plugin.declare(&["--pid".to_owned(), "123".to_owned()]).await.unwrap();
    assert_eq!(plugin.take_output(), [info("123")]);
}

#[tokio::test]
async fn schemas_reach_start() {
    // Logs the second name of the first field of the second schema; a schema has 32 bytes, a field layout 24, a name
    // 16.
    let log = "
        (local.set $p (i32.load offset=12 (i32.load offset=56 (local.get $schemas))))
        (call $log (i32.const 1) (i32.load offset=24 (local.get $p)) (i32.load offset=28 (local.get $p)))";
    let mut plugin = instantiate(&Guest::new().start(&and_ok(log))).await.unwrap();
    let names = vec![(0, "zero".to_owned()), (1, "one".to_owned())];
    let schemas =
        [Schema::new(0, "p", "a", []), Schema::new(1, "p", "b", [("f".to_owned(), FieldKind::Enumeration(names))])];
    plugin.start(&schemas).await.unwrap();
    assert_eq!(plugin.take_output(), [info("one")]);
}

#[tokio::test]
async fn records_are_forwarded_in_order_with_rows_and_logs() {
    let body = and_ok(&format!(
        "(call $log (i32.const 2) (i32.const {DATA}) (i32.const 3))
         (call $forward (local.get $records) (local.get $records_len))
         (call $row (i32.const {DATA}) (i32.const 3) (i32.const 1) (local.get $lost) (i32.const {}) (i32.const 2))",
        DATA + 16
    ));
    // Two columns: a = text "abc", and the empty name = unsigned 7. A column has 40 bytes: name, case, payload.
    let columns = [DATA, 1, 5, 0, DATA, 3, 0, 0, 0, 0, 0, 0, 3, 0, 7, 0, 0, 0, 0, 0];
    let guest = Guest::new().on_events(&body).data(DATA, b"abc").data(DATA + 16, &words(&columns));
    let mut plugin = instantiate(&guest).await.unwrap();
    plugin.start(&[Schema::new(0, "p", "e", [])]).await.unwrap();
    let record = words(&[24, 0, 0, 0, 0, 0]);
    plugin.on_events(&record, 1, 5).await.unwrap();
    let columns = vec![("a".to_owned(), Value::Text("abc".to_owned())), (String::new(), Value::Unsigned(7))];
    let row = Row { name: "abc".to_owned(), time: Some(5), columns };
    let log = Emitted::Log { level: Level::Warning, text: "abc".to_owned() };
    assert_eq!(plugin.take_output(), [log, Emitted::Forward(record), Emitted::Row(row)]);
}

#[tokio::test]
async fn the_first_outcome_counts() {
    let body = and_ok(&format!(
        "(call $finish (i32.const 1) (i32.const {DATA}) (i32.const 3)) (call $finish (i32.const 0) (i32.const 0) (i32.const 0))"
    ));
    let mut plugin = instantiate(&Guest::new().on_tick(&body).data(DATA, b"bad")).await.unwrap();
    assert_eq!(plugin.finished(), None);
    plugin.on_tick(1).await.unwrap();
    assert_eq!(plugin.finished(), Some(&Err("bad".to_owned())));
    plugin.stop().await.unwrap();
    assert!(matches!(plugin.on_tick(2).await, Err(PluginError::Ended { .. })));
}

#[tokio::test]
async fn thousands_of_calls_leave_nothing_behind() {
    let mut plugin = instantiate(&Guest::new()).await.unwrap();
    let records = vec![0; 64 << 10];
    for _ in 0..5000 {
        plugin.on_events(&records, 1, 0).await.unwrap();
    }
}

#[tokio::test]
async fn plugins_can_be_owned_by_tasks() {
    let mut plugin = instantiate(&Guest::new()).await.unwrap();
    tokio::spawn(async move { plugin.on_tick(1).await }).await.unwrap().unwrap();
}

// What is refused when it is loaded.

#[test]
fn files_that_cannot_be_read() {
    let scratch = Scratch::new();
    let runtime = Runtime::new(&RuntimeOptions::default()).unwrap();
    let message = |path: &Path| match runtime.load(path) {
        Err(error @ PluginError::Read { .. }) => error.to_string(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("loaded"),
    };
    let missing = scratch.0.join("missing.wasm");
    assert_eq!(
        message(&missing),
        format!("{}: cannot be read: No such file or directory (os error 2)", missing.display())
    );
    assert!(message(&scratch.0).ends_with("it is not a regular file"));
    assert!(message(Path::new("/dev/zero")).ends_with("it is not a regular file"));
}

#[test]
fn files_that_are_not_wasm() {
    let looks = |bytes: &[u8]| match refused(bytes) {
        PluginError::NotWasm { looks, .. } => looks,
        other => panic!("{other}"),
    };
    assert_eq!(looks(b""), "is empty");
    assert_eq!(looks(b"hello"), "is text");
    assert_eq!(looks("é".repeat(513).as_bytes()), "is text");
    assert_eq!(looks(b"#!/bin/sh\n"), "is a script");
    assert_eq!(looks(b"\x7fELF\x02\x01\x01"), "is an ELF file");
    assert_eq!(looks(b"\0asm\x01"), "starts like WebAssembly but is cut off or of an unknown kind");
    assert_eq!(looks(&[0xff; 100]), "is data of another kind");
    assert!(looks(b"(module)").starts_with("is text, perhaps"));
    let error = refused(b"\0asm\x01").to_string();
    assert!(error.contains("guest.wasm: is not a WebAssembly component: it starts like"), "{error}");
}

#[test]
fn core_modules() {
    let error = refused(wat::parse_str("(module)").unwrap());
    assert!(matches!(error, PluginError::CoreModule { .. }));
    let message = error.to_string();
    assert!(message.contains("wasm-component-ld") && message.contains("wasm-tools component new"), "{message}");
}

#[test]
fn damaged_components() {
    let mut bytes = Guest::new().build();
    bytes.truncate(bytes.len() / 2);
    assert!(matches!(refused(&bytes), PluginError::Compile { .. }));
    assert!(matches!(refused(b"\0asm\x0d\0\x01\0junk"), PluginError::Compile { .. }));
}

#[test]
fn components_that_are_not_plugins() {
    let error = refused(wat::parse_str("(component)").unwrap());
    assert!(matches!(error, PluginError::NoGuest { .. }));
    assert!(error.to_string().contains("porthole:trace/guest@0.1.0"), "{error}");
}

#[test]
fn plugins_of_another_version() {
    match refused(Guest::new().replace("package porthole:trace@0.1.0", "package porthole:trace@0.2.0").build()) {
        PluginError::Version { found, offered, .. } => {
            assert_eq!(
                (found.as_str(), offered.as_str()),
                ("porthole:trace/guest@0.2.0", "porthole:trace/guest@0.1.0")
            );
        }
        other => panic!("{other}"),
    }
}

#[test]
fn plugins_of_a_later_version_that_need_nothing_new() {
    load(Guest::new().replace("package porthole:trace@0.1.0", "package porthole:trace@0.1.3").build()).unwrap();
}

#[test]
fn all_imports_that_are_not_offered_are_listed() {
    let packages = "
        package wasi:http@0.2.0 { interface types { get: func(); } }
        package other:thing@1.0.0 { interface x { type t = u8; y: func() -> t; } interface only-types { type t = u8; } }
    ";
    let wit = "import wasi:http/types@0.2.0; import other:thing/x@1.0.0; import other:thing/only-types@1.0.0; import lone: func();";
    let items = r#"
        (import "wasi:http/types@0.2.0" "get" (func $get))
        (import "other:thing/x@1.0.0" "y" (func $y (result i32)))
        (import "$root" "lone" (func $lone))
    "#;
    let guest = Guest::new().imports(wit, packages, items).stop("(call $get) (drop (call $y)) (call $lone)");
    match refused(guest.build()) {
        PluginError::Imports { mut imports, .. } => {
            imports.sort();
            assert_eq!(imports, ["lone", "other:thing/x@1.0.0", "wasi:http/types@0.2.0"]);
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn types_that_are_not_ours() {
    let import = Guest::new().replace("clear-map: func(name: string)", "clear-map: func(name: list<u8>)");
    assert!(matches!(refused(import.build()), PluginError::Interface { .. }));
    let export = Guest::new().replace("tick: option<u32>,", "tick: option<s32>,");
    match instantiate(&export).await {
        Err(error @ PluginError::Interface { .. }) => assert!(error.to_string().contains("guest.wasm"), "{error}"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("instantiated"),
    }
}

// What ends a plugin.

#[tokio::test]
async fn traps_name_the_handler_and_the_functions() {
    let guest =
        Guest::new().items("(func $deep unreachable) (func $less (call $deep))").on_tick(&and_ok("(call $less)"));
    let error = tick_fails(guest).await;
    let message = error.to_string();
    assert!(message.starts_with("trap in on-tick: wasm `unreachable` instruction executed"), "{message}");
    assert!(message.contains("in deep\n    in less"), "{message}");
}

#[tokio::test]
async fn traps_of_every_handler() {
    let of = |error: PluginError| match error {
        PluginError::Trap { handler, .. } => handler,
        other => panic!("{other}"),
    };
    let trap = "unreachable";
    let (guest, bad) = (Guest::new, "(func $bad unreachable) (start $bad)");
    assert_eq!(of(instantiate(&guest().items(bad)).await.err().unwrap()), Handler::Instantiate);
    assert_eq!(
        of(instantiate(&guest().declare(trap)).await.unwrap().declare(&[]).await.unwrap_err()),
        Handler::Declare
    );
    assert_eq!(of(instantiate(&guest().start(trap)).await.unwrap().start(&[]).await.unwrap_err()), Handler::Start);
    assert_eq!(
        of(instantiate(&guest().on_events(trap)).await.unwrap().on_events(&[], 0, 0).await.unwrap_err()),
        Handler::OnEvents
    );
    assert_eq!(of(instantiate(&guest().on_tick(trap)).await.unwrap().on_tick(1).await.unwrap_err()), Handler::OnTick);
    assert_eq!(of(instantiate(&guest().stop(trap)).await.unwrap().stop().await.unwrap_err()), Handler::Stop);
}

#[tokio::test]
async fn errors_returned() {
    let result = words(&[1, DATA + 16, 6]);
    let guest = Guest::new().data(DATA, &result).data(DATA + 16, b"so sad").on_tick(&format!("(i32.const {DATA})"));
    let error = tick_fails(guest).await;
    assert!(matches!(&error, PluginError::Returned { handler: Handler::OnTick, message, .. } if message == "so sad"));
    assert_eq!(error.to_string(), "on-tick: so sad");
}

#[tokio::test]
async fn endless_recursion() {
    let message = tick_traps(Guest::new().items("(func $f (call $f) (call $f))").on_tick(&and_ok("(call $f)"))).await;
    assert!(message.contains("call stack exhausted"), "{message}");
}

#[tokio::test]
async fn bad_addresses() {
    for address in [-1, 0x7fff_ffff, 1 << 20] {
        let load = format!("(drop (i32.load (i32.const {address})))");
        assert!(tick_traps(Guest::new().on_tick(&and_ok(&load))).await.contains("out of bounds memory access"));
        let log = format!("(call $log (i32.const 0) (i32.const {address}) (i32.const 10))");
        assert!(tick_traps(Guest::new().on_tick(&and_ok(&log))).await.contains("out of bounds"));
        assert!(tick_traps(Guest::new().on_tick(&format!("(i32.const {address})"))).await.contains("pointer"));
    }
}

#[tokio::test]
async fn endless_loops_end() {
    let start = Instant::now();
    let error = tick_fails(Guest::new().on_tick(&and_ok("(loop $l (br $l))"))).await;
    assert!(
        matches!(error, PluginError::Deadline { handler: Handler::OnTick, limit, .. } if limit == SHORT.handler),
        "{error}"
    );
    let took = start.elapsed();
    assert!(took >= SHORT.handler, "{took:?}");
}

#[tokio::test]
async fn endless_start_functions_and_declarations_end() {
    let error = instantiate(&Guest::new().items("(func $f (loop $l (br $l))) (start $f)")).await.err().unwrap();
    assert!(matches!(error, PluginError::Deadline { handler: Handler::Instantiate, .. }), "{error}");
    let mut plugin = instantiate(&Guest::new().declare(&and_ok("(loop $l (br $l))"))).await.unwrap();
    let error = plugin.declare(&[]).await.unwrap_err();
    assert!(matches!(error, PluginError::Deadline { handler: Handler::Declare, .. }), "{error}");
}

/// Both on one thread: what the loop leaves to others is seen by how often another task's timer fires meanwhile.
#[tokio::test]
async fn endless_loops_leave_time_to_others() {
    let (runtime, component) = load(Guest::new().on_tick(&and_ok("(loop $l (br $l))")).build()).unwrap();
    // Long enough for some turns on a machine that is busy, too.
    let limits = Limits { handler: Duration::from_secs(1), ..SHORT };
    let mut plugin = Plugin::instantiate(&runtime, &component, limits).await.unwrap();
    let others = tokio::spawn(async {
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert!(matches!(plugin.on_tick(1).await, Err(PluginError::Deadline { .. })));
    assert!(others.is_finished());
}

#[tokio::test]
async fn two_busy_plugins_take_turns() {
    let count = "(loop $l
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $l (i32.lt_u (local.get $i) (i32.const 100000000))))";
    let (runtime, component) = load(Guest::new().on_tick(&and_ok(count)).build()).unwrap();
    let limits = Limits { handler: Duration::from_secs(20), ..SHORT };
    let mut one = Plugin::instantiate(&runtime, &component, limits).await.unwrap();
    let mut other = Plugin::instantiate(&runtime, &component, limits).await.unwrap();
    // One behind the other, the first would be done before the other had been begun.
    let (mut first, mut second) = (pin!(one.on_tick(1)), pin!(other.on_tick(1)));
    let mut turns = [0; 2];
    poll_fn(|context| {
        turns[0] += 1;
        if first.as_mut().poll(context).map(|ended| ended.unwrap()).is_ready() {
            return Poll::Ready(());
        }
        turns[1] += 1;
        second.as_mut().poll(context).map(|ended| ended.unwrap())
    })
    .await;
    assert!(turns.iter().all(|turns| *turns > 2), "{turns:?}");
}

#[tokio::test]
async fn a_call_given_up_ends_the_plugin() {
    let mut plugin = instantiate(&Guest::new().on_tick(&and_ok("(loop $l (br $l))"))).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(50), plugin.on_tick(1)).await.is_err());
    assert!(matches!(plugin.on_tick(2).await, Err(PluginError::Ended { .. })));
    drop(plugin);
}

#[tokio::test]
async fn memory_is_bounded() {
    let grow =
        |pages: u32| format!("(if (i32.eq (memory.grow (i32.const {pages})) (i32.const -1)) (then unreachable))");
    let mut plugin = instantiate(&Guest::new().on_tick(&and_ok(&grow(32)))).await.unwrap();
    plugin.on_tick(1).await.unwrap();
    let error = tick_fails(Guest::new().on_tick(&and_ok(&grow(63)))).await;
    assert!(matches!(error, PluginError::OutOfMemory { handler: Handler::OnTick, limit, .. } if limit == SHORT.memory));
    assert_eq!(error.to_string(), "on-tick ran out of memory: the plugin may have 4096 KiB");
    let error = instantiate(&Guest::new().memory("65")).await.err().unwrap();
    assert!(matches!(error, PluginError::OutOfMemory { handler: Handler::Instantiate, .. }), "{error}");
    let table = "(table $t 0 funcref)";
    let grow = "(if (i32.eq (table.grow $t (ref.null func) (i32.const 100000000)) (i32.const -1)) (then unreachable))";
    let error = tick_fails(Guest::new().items(table).on_tick(&and_ok(grow))).await;
    assert!(matches!(error, PluginError::OutOfMemory { .. }), "{error}");
}

#[tokio::test]
async fn memory_refused_and_coped_with_is_no_error() {
    let mut plugin =
        instantiate(&Guest::new().on_tick(&and_ok("(drop (memory.grow (i32.const 1000)))"))).await.unwrap();
    plugin.on_tick(1).await.unwrap();
    plugin.on_tick(2).await.unwrap();
}

#[tokio::test]
async fn output_is_bounded() {
    let forever = |call: &str| and_ok(&format!("(loop $l {call} (br $l))"));
    let row =
        format!("(call $row (i32.const {DATA}) (i32.const 1) (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0))");
    for call in [&row, "(call $log (i32.const 0) (i32.const 0) (i32.const 0))"] {
        let error = tick_fails(Guest::new().data(DATA, b"x").on_tick(&forever(call))).await;
        assert!(
            matches!(error, PluginError::OutputLimit { handler: Handler::OnTick, limit, .. } if limit == SHORT.output)
        );
    }
}

#[tokio::test]
async fn what_was_sent_before_the_end_is_kept() {
    let body = format!("(call $log (i32.const 1) (i32.const {DATA}) (i32.const 4)) unreachable");
    let mut plugin = instantiate(&Guest::new().data(DATA, b"last").on_tick(&body)).await.unwrap();
    plugin.on_tick(1).await.unwrap_err();
    assert_eq!(plugin.take_output(), [info("last")]);
}

#[tokio::test]
async fn rules_of_the_host_functions() {
    let tick = |call: &str| Guest::new().data(DATA, b"a-b").on_tick(&and_ok(call));
    let row = |length: u32, columns: u32| {
        tick(&format!(
            "(call $row (i32.const {DATA}) (i32.const {length}) (i32.const 0) (i64.const 0) (i32.const 4096) (i32.const {columns}))"
        ))
    };
    assert!(tick_traps(row(3, 0)).await.contains("`a-b` is not an identifier"));
    assert!(tick_traps(row(0, 0)).await.contains("is not an identifier"));
    assert!(tick_traps(row(1, 257)).await.contains("257 columns"));
    let forward = format!("(call $forward (i32.const {DATA}) (i32.const 3))");
    assert!(tick_traps(tick(&forward)).await.contains("before `start`"));
    let clear = format!("(call $clear_map (i32.const {DATA}) (i32.const 3))");
    assert_eq!(tick_traps(tick(&clear)).await, "unknown map `a-b`");
    let read = format!("(call $read_map (i32.const {DATA}) (i32.const 1) (i32.const 10) (i32.const {OK}))");
    assert_eq!(tick_traps(tick(&read)).await, "unknown map `a`");
    let set = format!(
        "(call $set_map (i32.const {DATA}) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0) (i64.const 0) (i64.const 0) {} (i32.const {OK}))",
        "(i32.const 0)".repeat(7)
    );
    assert_eq!(tick_traps(tick(&set)).await, "unknown map `a`");
}

#[tokio::test]
async fn names_are_bounded() {
    // Of a stack of 127 frames, of a process that there is not, 517 times.
    let body = and_ok(
        "(loop $l
           (call $names (i32.const 10) (i64.const 0xffffffff) (i64.const 8192) (i32.const 127) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 512))
           (global.set $heap (i32.const 65536))
           (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 517))))",
    );
    let (runtime, component) = load(Guest::new().on_tick(&body).build()).unwrap();
    let patient = Limits { handler: Duration::from_secs(60), ..SHORT };
    let mut plugin = Plugin::instantiate(&runtime, &component, patient).await.unwrap();
    let error = plugin.on_tick(1).await.unwrap_err();
    assert!(error.to_string().contains("names: more than 65536 names in one call"), "{error}");
}

#[tokio::test]
async fn addresses_of_which_nothing_is_known_are_their_own_names() {
    // Case 8: process and address; the list and its only text are logged.
    let body = and_ok(
        "(call $names (i32.const 8) (i64.const 0xffffffff) (i64.const 4660) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 512))
         (call $log (i32.const 1) (i32.load (i32.load (i32.const 512))) (i32.load offset=4 (i32.load (i32.const 512))))",
    );
    let mut plugin = instantiate(&Guest::new().on_tick(&body)).await.unwrap();
    plugin.on_tick(1).await.unwrap();
    assert_eq!(plugin.take_output(), [Emitted::Log { level: Level::Info, text: "0x1234".to_owned() }]);
}

#[tokio::test]
async fn bytes_that_are_no_records_are_not_forwarded() {
    let forward = and_ok("(call $forward (local.get $records) (local.get $records_len))");
    let mut plugin = instantiate(&Guest::new().on_events(&forward)).await.unwrap();
    plugin.start(&[Schema::new(0, "p", "e", [])]).await.unwrap();
    let error = plugin.on_events(&[1; 24], 1, 0).await.unwrap_err();
    assert!(error.to_string().contains("forward: the record at byte 0 names schema 257"), "{error}");
    assert_eq!(plugin.take_output(), []);
}

// What would make the host allocate more than the plugin has.

/// Writes `count` pairs of `address` and `length`, each a string or list, from [`DATA`]` + 1 MiB` on. Memory has then 2
/// MiB.
fn aliases(count: u32, address: u32, length: u32) -> String {
    format!(
        "(drop (memory.grow (i32.const 30)))
         (loop $l
           (i32.store (i32.add (i32.const 0x100000) (i32.shl (local.get $i) (i32.const 3))) (i32.const {address}))
           (i32.store offset=4 (i32.add (i32.const 0x100000) (i32.shl (local.get $i) (i32.const 3))) (i32.const {length}))
           (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const {count}))))"
    )
}

#[tokio::test]
async fn a_declaration_of_one_string_many_times() {
    // One probe with 100,000 attach points of 512 KiB each.
    let result = words(&[0, 0, 0, 0, 0, DATA + 64, 1, 0, 0]);
    let probe = words(&[0, 0, 0x10_0000, 100_000, 0, 0]);
    let body = aliases(100_000, 0x2_0000, 0x8_0000) + &format!("(i32.const {DATA})");
    let guest = Guest::new().declare(&body).data(DATA, &result).data(DATA + 64, &probe);
    let before = peak_memory();
    let error = instantiate(&guest).await.unwrap().declare(&[]).await.unwrap_err();
    assert!(matches!(error, PluginError::Trap { handler: Handler::Declare, .. }));
    assert!(error.to_string().contains("too much data"), "{error}");
    assert!(peak_memory() - before < 512 << 10, "the host's memory grew with it");
}

#[tokio::test]
async fn a_row_of_one_string_many_times() {
    // 200 columns whose names are 512 KiB each; a column has 40 bytes, of which the name is the first pair.
    let row = format!(
        "(call $row (i32.const {DATA}) (i32.const 1) (i32.const 0) (i64.const 0) (i32.const 0x100000) (i32.const 200))"
    );
    let guest = Guest::new().data(DATA, b"x").on_tick(&and_ok(&(aliases(1000, 0x2_0000, 0x8_0000) + &row)));
    let message = tick_traps(guest).await;
    assert!(message.contains("too much data"), "{message}");
}

/// The process's peak memory, in KiB.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

// WASI.

const WASI: &str = "
    package wasi:io@0.2.0 {
        interface poll { resource pollable { block: func(); } }
        interface error { resource error; }
        interface streams {
            use error.{error};
            variant stream-error { last-operation-failed(error), closed }
            resource output-stream { blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>; }
        }
    }
    package wasi:clocks@0.2.0 {
        interface monotonic-clock { use wasi:io/poll@0.2.0.{pollable}; subscribe-duration: func(when: u64) -> pollable; }
    }
    package wasi:cli@0.2.0 {
        interface stdout { use wasi:io/streams@0.2.0.{output-stream}; get-stdout: func() -> output-stream; }
        interface stderr { use wasi:io/streams@0.2.0.{output-stream}; get-stderr: func() -> output-stream; }
        interface exit { exit: func(status: result); }
        interface environment {
            get-environment: func() -> list<tuple<string, string>>;
            get-arguments: func() -> list<string>;
        }
    }
    package wasi:filesystem@0.2.0 {
        interface types { resource descriptor; }
        interface preopens { use types.{descriptor}; get-directories: func() -> list<tuple<descriptor, string>>; }
    }
    package wasi:random@0.2.0 { interface random { get-random-bytes: func(len: u64) -> list<u8>; } }
";

/// A plugin with some of WASI's functions, whose `on-tick` does this.
fn wasi_guest(body: &str) -> Guest {
    let wit = "
        import wasi:cli/stdout@0.2.0; import wasi:cli/stderr@0.2.0; import wasi:cli/exit@0.2.0; import wasi:cli/environment@0.2.0;
        import wasi:filesystem/preopens@0.2.0; import wasi:random/random@0.2.0; import wasi:clocks/monotonic-clock@0.2.0;
    ";
    let items = r#"
        (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))
        (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush"
          (func $write (param i32 i32 i32 i32)))
        (import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration" (func $sleep (param i64) (result i32)))
        (import "wasi:cli/stdout@0.2.0" "get-stdout" (func $stdout (result i32)))
        (import "wasi:cli/stderr@0.2.0" "get-stderr" (func $stderr (result i32)))
        (import "wasi:cli/exit@0.2.0" "exit" (func $exit (param i32)))
        (import "wasi:cli/environment@0.2.0" "get-environment" (func $environment (param i32)))
        (import "wasi:cli/environment@0.2.0" "get-arguments" (func $arguments (param i32)))
        (import "wasi:filesystem/preopens@0.2.0" "get-directories" (func $directories (param i32)))
        (import "wasi:random/random@0.2.0" "get-random-bytes" (func $random (param i64 i32)))
    "#;
    Guest::new().imports(wit, WASI, items).on_tick(&and_ok(body))
}

#[tokio::test]
async fn wasi_is_empty() {
    // Traps unless each list has the length 0.
    let empty = |function: &str| {
        format!("(call ${function} (i32.const {DATA})) (if (i32.load offset=4 (i32.const {DATA})) (then unreachable))")
    };
    let body = empty("environment") + &empty("arguments") + &empty("directories");
    instantiate(&wasi_guest(&body)).await.unwrap().on_tick(1).await.unwrap();
}

#[tokio::test]
async fn stdout_and_stderr_become_log_lines() {
    let write = |stream: &str, offset: u32, length: u32| {
        format!(
            "(call $write (call ${stream}) (i32.const {}) (i32.const {length}) (i32.const {DATA}))",
            DATA + 64 + offset
        )
    };
    // "one\ntwo\nth" and "oops" on stderr in between; then "ree" without an end.
    let body = write("stdout", 0, 10) + &write("stderr", 13, 5) + &write("stdout", 10, 3);
    let mut plugin = instantiate(&wasi_guest(&body).data(DATA + 64, b"one\ntwo\nthreeoops\n")).await.unwrap();
    plugin.on_tick(1).await.unwrap();
    let warning = Emitted::Log { level: Level::Warning, text: "oops".to_owned() };
    assert_eq!(plugin.take_output(), [info("one"), info("two"), warning]);
    plugin.stop().await.unwrap();
    assert_eq!(plugin.take_output(), [info("three")]);
}

#[tokio::test]
async fn stdout_is_bounded() {
    let body = format!(
        "(local.set $p (call $stdout)) (loop $l (call $write (local.get $p) (i32.const 0) (i32.const 4096) (i32.const {DATA})) (br $l))"
    );
    let error = tick_fails(wasi_guest(&body)).await;
    assert!(matches!(error, PluginError::OutputLimit { handler: Handler::OnTick, .. }), "{error}");
}

#[tokio::test]
async fn sleeping_counts_as_running() {
    let sleep = |nanoseconds: u64| wasi_guest(&format!("(call $block (call $sleep (i64.const {nanoseconds})))"));
    instantiate(&sleep(1_000_000)).await.unwrap().on_tick(1).await.unwrap();
    let start = Instant::now();
    for nanoseconds in [60_000_000_000, u64::MAX] {
        let error = tick_fails(sleep(nanoseconds)).await;
        assert!(matches!(error, PluginError::Deadline { handler: Handler::OnTick, .. }), "{error}");
    }
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn naps_without_end_end() {
    let error = tick_fails(wasi_guest("(loop $l (call $block (call $sleep (i64.const 100000))) (br $l))")).await;
    let ended = matches!(error, PluginError::Deadline { .. }) || error.to_string().contains("handle");
    assert!(ended, "{error}");
}

#[tokio::test]
async fn host_resources_are_bounded() {
    let message = tick_traps(wasi_guest("(loop $l (drop (call $sleep (i64.const 1))) (br $l))")).await;
    assert!(message.contains("resource") || message.contains("handle") || message.contains("full"), "{message}");
    let message = tick_traps(wasi_guest(&format!("(call $random (i64.const 100000000) (i32.const {DATA}))"))).await;
    assert!(message.contains("exceeds limit"), "{message}");
}

#[tokio::test]
async fn exit_is_a_trap() {
    assert_eq!(tick_traps(wasi_guest("(call $exit (i32.const 1))")).await, "it called exit with status 1");
}

// The compile cache.

fn cached(scratch: &Scratch) -> Runtime {
    Runtime::new(&RuntimeOptions { cache: Some(scratch.0.join("cache")) }).unwrap()
}

/// The only entry of a cache.
fn entry(scratch: &Scratch) -> PathBuf {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(scratch.0.join("cache")).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(entries.len(), 1, "{entries:?}");
    entries.remove(0)
}

#[test]
fn components_are_compiled_once() {
    let scratch = Scratch::new();
    let guest = scratch.write("guest.wasm", Guest::new().build());
    cached(&scratch).load(&guest).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&scratch.0.join("cache")), 0o700);
    assert_eq!(mode(&entry(&scratch)), 0o600);
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    let first = inode(&entry(&scratch));
    assert_eq!(cached(&scratch).load(&guest).unwrap().name(), "guest");
    assert_eq!(inode(&entry(&scratch)), first, "written again");
}

#[test]
fn damaged_entries_are_replaced() {
    let scratch = Scratch::new();
    let guest = scratch.write("guest.wasm", Guest::new().build());
    cached(&scratch).load(&guest).unwrap();
    let whole = fs::read(entry(&scratch)).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for damaged in [&flipped[..], &whole[..whole.len() - 1], &whole[..7], &[]] {
        fs::write(entry(&scratch), damaged).unwrap();
        cached(&scratch).load(&guest).unwrap();
        assert!(fs::read(entry(&scratch)).unwrap() == whole);
    }
}

#[test]
fn what_others_may_write_is_not_used() {
    let scratch = Scratch::new();
    let guest = scratch.write("guest.wasm", Guest::new().build());
    let cache = scratch.0.join("cache");
    let set_mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    fs::create_dir(&cache).unwrap();
    set_mode(&cache, 0o777);
    cached(&scratch).load(&guest).unwrap();
    assert_eq!(fs::read_dir(&cache).unwrap().count(), 0);
    set_mode(&cache, 0o700);
    cached(&scratch).load(&guest).unwrap();
    set_mode(&entry(&scratch), 0o620);
    cached(&scratch).load(&guest).unwrap();
    assert_eq!(fs::metadata(entry(&scratch)).unwrap().permissions().mode() & 0o777, 0o600, "written again");
}

#[test]
fn a_cache_that_cannot_be_written_is_no_error() {
    let scratch = Scratch::new();
    let guest = scratch.write("guest.wasm", Guest::new().build());
    let runtime = cached(&scratch);
    fs::remove_dir(scratch.0.join("cache")).unwrap();
    runtime.load(&guest).unwrap();
    scratch.write("cache", "a file");
    cached(&scratch).load(&guest).unwrap();
}
