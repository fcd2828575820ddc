//! Where plugins come from: the Wasm engine, and components compiled and checked.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wasmtime::component::Linker;
use wasmtime::{Config, Engine, OptLevel};

use super::bindings;
use super::compiled;
use super::contract;
use super::error::{PluginError, shown};
use super::host::{self, State};
use super::ticker::Ticker;
use crate::cache::{Cache, CacheError, Key};

/// Bytes of a component's file at most. The largest that we know of, JavaScript's, have 12 MB.
const COMPONENT: u64 = 256 << 20;

/// The Wasm engine: one per process, made once.
pub struct Runtime {
    engine: Engine,
    cache: Option<Cache>,
    ticker: Arc<Ticker>,
}

/// How to set up a [`Runtime`].
#[derive(Clone, Debug, Default)]
pub struct RuntimeOptions {
    /// Where compiled components are kept; none: they are compiled each time. See [`crate::cache::default_cache_dir`].
    pub cache: Option<PathBuf>,
}

/// A plugin compiled and checked, ready to be instantiated. Cheap to clone.
#[derive(Clone)]
pub struct Component {
    name: Arc<str>,
    path: Arc<Path>,
    instance: wasmtime::component::InstancePre<State>,
}

impl Runtime {
    /// Sets up the engine. A cache that cannot be used is a warning, not an error.
    pub fn new(options: &RuntimeOptions) -> Result<Runtime, PluginError> {
        let failed = |error: &dyn std::fmt::Display| PluginError::Engine(error.to_string());
        let engine = Engine::new(&config()).map_err(|error| failed(&format!("{error:#}")))?;
        let ticker = Ticker::start(engine.clone()).map_err(|error| failed(&error))?;
        let cache = options.cache.as_deref().and_then(open_cache);
        Ok(Runtime { engine, cache, ticker: Arc::new(ticker) })
    }

    /// Reads and compiles a component, or takes it from the cache, and checks that it is a plugin that this host can
    /// run.
    ///
    /// Compiling takes from 30 ms to 20 s, on all processors, and blocks the caller.
    pub fn load(&self, path: &Path) -> Result<Component, PluginError> {
        let bytes = read(path).map_err(|source| PluginError::Read { path: path.to_owned(), source })?;
        check_component(path, &bytes)?;
        let component = self.compile(path, &bytes)?;
        let wasi = contract::check(path, &component)?;
        let instance = self.link(&component, wasi).map_err(|error| mismatch(path, &component, &error))?;
        let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy();
        Ok(Component { name: name.into(), path: path.into(), instance })
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(super) fn ticker(&self) -> &Arc<Ticker> {
        &self.ticker
    }

    fn compile(&self, path: &Path, bytes: &[u8]) -> Result<wasmtime::component::Component, PluginError> {
        let Some(cache) = &self.cache else { return self.compile_anew(path, bytes) };
        let key = compiled::key(&self.engine, bytes);
        if let Some(component) = self.cached(cache, &key, path) {
            return Ok(component);
        }
        let component = self.compile_anew(path, bytes)?;
        let stored = component.serialize().map_err(io::Error::other).and_then(|compiled| cache.put(&key, &compiled));
        if let Err(error) = stored {
            tracing::warn!("{}: cannot be kept in the compile cache: {error}", shown(path));
        }
        Ok(component)
    }

    fn compile_anew(&self, path: &Path, bytes: &[u8]) -> Result<wasmtime::component::Component, PluginError> {
        wasmtime::component::Component::from_binary(&self.engine, bytes)
            .map_err(|error| PluginError::Compile { path: path.to_owned(), reason: format!("{error:#}") })
    }

    fn cached(&self, cache: &Cache, key: &Key, path: &Path) -> Option<wasmtime::component::Component> {
        let refused = |error: &dyn std::fmt::Display| {
            tracing::warn!("{}: is compiled again: its entry in the compile cache is not used: {error}", shown(path));
        };
        let entry = cache.get(key).inspect_err(|error| refused(error)).ok()??;
        // SAFETY: the bytes must come from `Component::serialize` unaltered. Only this user can have written the entry,
        // only this module writes entries of such names, and its digest is right.
        let component = unsafe { wasmtime::component::Component::deserialize(&self.engine, entry.payload()) };
        component.inspect_err(|error| refused(&format!("{error:#}"))).ok()
    }

    fn link(
        &self,
        component: &wasmtime::component::Component,
        wasi: bool,
    ) -> wasmtime::Result<wasmtime::component::InstancePre<State>> {
        let mut linker = Linker::new(&self.engine);
        host::add_to_linker(&mut linker)?;
        if wasi {
            wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        }
        let instance = linker.instantiate_pre(component)?;
        bindings::PluginIndices::new(&instance)?;
        Ok(instance)
    }
}

impl Component {
    /// The plugin's name: that of its file without the extension.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn instance(&self) -> &wasmtime::component::InstancePre<State> {
        &self.instance
    }

    /// The error for exports whose types are not ours.
    pub(super) fn mismatch(&self, error: &wasmtime::Error) -> PluginError {
        mismatch(&self.path, self.instance.component(), error)
    }
}

/// The error for a component whose names and versions are ours, so that what does not fit is a function or a type.
fn mismatch(path: &Path, component: &wasmtime::component::Component, error: &wasmtime::Error) -> PluginError {
    let path = path.to_owned();
    match contract::other_version(component) {
        Some((found, offered)) => PluginError::Version { path, found, offered },
        None => PluginError::Interface { path, reason: format!("{error:#}") },
    }
}

fn config() -> Config {
    let mut config = Config::new();
    config
        .cranelift_opt_level(OptLevel::Speed)
        .epoch_interruption(true)
        .parallel_compilation(true)
        // Traps name functions, not places in them, and no debugger unwinds Wasm here: without both, entries of the
        // cache are smaller.
        .generate_address_map(false)
        .native_unwind_info(false)
        .wasm_memory64(false);
    config
}

fn open_cache(path: &Path) -> Option<Cache> {
    let refused = |error: &CacheError| {
        tracing::warn!("compiled components are not kept: {} cannot be used as compile cache: {error}", shown(path));
    };
    Cache::open(path).inspect_err(refused).ok()
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Not opened unless it is a file: opening a FIFO would wait for its writer.
    let size = fs::metadata(path).and_then(|metadata| match metadata.is_file() {
        true => Ok(metadata.len()),
        false => Err(io::Error::other("it is not a regular file")),
    })?;
    if size > COMPONENT {
        return Err(io::Error::other(format!(
            "it has {} MiB, and at most {} MiB are read",
            size >> 20,
            COMPONENT >> 20
        )));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(COMPONENT).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Tells from the first bytes whether this is a component at all.
///
/// Both kinds of Wasm begin with `\0asm`; then come a u16 version and a u16 layer, 0 for modules and 1 for components
/// (component-model, design/mvp/Binary.md).
fn check_component(path: &Path, bytes: &[u8]) -> Result<(), PluginError> {
    let path = path.to_owned();
    match bytes {
        [0, b'a', b's', b'm', _, _, 1, 0, ..] => Ok(()),
        [0, b'a', b's', b'm', _, _, 0, 0, ..] => Err(PluginError::CoreModule { path }),
        _ => Err(PluginError::NotWasm { path, looks: describe(bytes) }),
    }
}

/// What a file that is not Wasm seems to be.
fn describe(bytes: &[u8]) -> &'static str {
    match bytes {
        [] => "is empty",
        [0, b'a', b's', b'm', ..] => "starts like WebAssembly but is cut off or of an unknown kind",
        [0x7f, b'E', b'L', b'F', ..] => "is an ELF file",
        [b'#', b'!', ..] => "is a script",
        [0x1f, 0x8b, ..] => "is compressed with gzip",
        [b'P', b'K', 3, 4, ..] => "is a zip archive",
        [b'(', ..] => "is text, perhaps WebAssembly text; a tool such as `wasm-tools parse` makes a binary of it",
        _ if is_text(bytes) => "is text",
        _ => "is data of another kind",
    }
}

/// Whether the start of a file is UTF-8 without control characters.
fn is_text(bytes: &[u8]) -> bool {
    let start = &bytes[..bytes.len().min(1024)];
    let text = match str::from_utf8(start) {
        Ok(text) => text,
        // A character cut in two at the end of the start is no fault.
        Err(error) if error.error_len().is_none() => return is_text(&start[..error.valid_up_to()]),
        Err(_) => return false,
    };
    !text.is_empty() && text.chars().all(|c| !c.is_control() || c.is_ascii_whitespace())
}
