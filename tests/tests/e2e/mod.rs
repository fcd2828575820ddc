//! What the end-to-end tests share: the host as a process, loads that are easy to tell from the rest of the machine,
//! and what BPF the kernel holds.
//!
//! These tests run the host's binary and real plugins, as a user does. They build the binary themselves; `make guests`
//! builds the plugins.

// Each test binary includes this module and uses a part of it.
#![allow(dead_code, unused_imports)]

pub mod guest;
pub mod host;
pub mod kernel;
pub mod load;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The host, with a cache of its own, so that no test depends on the user's.
pub fn porthole() -> Command {
    let mut command = Command::new(binary());
    command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR")).env_remove("PORTHOLE_LOG").env_remove("RUST_BACKTRACE");
    command
}

/// The host run by `nobody` with these capabilities, as setpriv(1) has them, in a directory where everybody can read
/// it.
pub fn porthole_of_nobody(directory: &Directory, capabilities: &[&str]) -> Command {
    let host = directory.copy(binary());
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    let capabilities: String = capabilities.iter().map(|capability| format!("+{capability},")).collect();
    if let Some(set) = capabilities.strip_suffix(',') {
        command.args([format!("--inh-caps={set}"), format!("--ambient-caps={set}")]);
    }
    command.arg(host).env_remove("XDG_CACHE_HOME").env("HOME", directory.path());
    command
}

/// The host run by root, without these capabilities.
pub fn porthole_without(capabilities: &[&str]) -> Command {
    let sets: Vec<String> = capabilities.iter().map(|capability| format!("-{capability}")).collect();
    let set = sets.join(",");
    let mut command = Command::new("setpriv");
    command.args([format!("--bounding-set={set}"), format!("--inh-caps={set}")]).arg(binary());
    command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    command
}

/// The host's binary, of the sources as they are now: for tests, cargo builds only binaries of their own package. Where
/// nothing can be built, as in a virtual machine, the variable `PORTHOLE_TEST_HOST` names one that is there.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(built) = env::var_os("PORTHOLE_TEST_HOST") {
            return built.into();
        }
        let directory = profile();
        let profile = match directory.file_name().and_then(|name| name.to_str()) {
            None | Some("debug") => "dev",
            Some(name) => name,
        };
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        // All of the workspace, or its crates would be built with other features than for the tests, all over again.
        cargo.args(["build", "--quiet", "--locked", "--workspace", "--bin", "porthole", "--profile", profile]);
        cargo
            .arg("--target-dir")
            .arg(directory.parent().expect("it is below target"))
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        assert!(cargo.status().expect("cargo runs the tests, so it is there").success(), "the host does not build");
        directory.join("porthole")
    })
}

/// A plugin of `examples/` or `tests/guests/`.
pub fn plugin(name: &str) -> PathBuf {
    component("wasm32-unknown-unknown", name)
}

/// A plugin of `tests/guests/`, built for a target with WASI.
pub fn wasi_plugin(name: &str) -> PathBuf {
    component("wasm32-wasip2", name)
}

fn component(target: &str, name: &str) -> PathBuf {
    let path = profile().join(format!("../{target}/release/{name}.wasm"));
    path.canonicalize().unwrap_or_else(|error| panic!("{}: {error}: `make guests` builds it", path.display()))
}

/// `target/debug`, or the like.
fn profile() -> PathBuf {
    let test = env::current_exe().expect("the test has a path");
    test.ancestors().nth(2).expect("the test is in target/PROFILE/deps").to_owned()
}

/// Whether the kernel part of a test can run; says why where it cannot.
pub fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("procfs is mounted");
    let root = status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"));
    if !root {
        eprintln!("skipped: tracing needs root");
    }
    root
}

/// A directory of the test's own, removed at the end.
pub struct Directory(PathBuf);

impl Directory {
    /// With `name` in its path, for messages.
    pub fn new(name: &str) -> Directory {
        let path = env::temp_dir().join(format!("porthole-{}-{name}", unique()));
        fs::create_dir(&path).expect("the temporary directory can be written");
        Directory(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file, and gives its path.
    pub fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, contents).expect("the file can be written");
        path
    }

    /// Copies a file into it, and gives its path.
    pub fn copy(&self, file: &Path) -> PathBuf {
        self.copy_as(file, file.file_name().expect("it is a file"))
    }

    /// Copies a file into it under another name, and gives its path.
    pub fn copy_as(&self, file: &Path, name: impl AsRef<Path>) -> PathBuf {
        let copy = self.path().join(name);
        // By another process: a program that this one has open for writing, or a child of it for a moment, cannot be
        // executed.
        let copied = Command::new("cp").arg(file).arg(&copy).status().expect("cp is there");
        assert!(copied.success(), "{} cannot be copied", file.display());
        copy
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What no other thread of the machine has in its name: for comms (15 bytes at most) and paths.
pub fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("t{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Each of these must be there, in this order.
#[track_caller]
pub fn says(message: &str, parts: &[&str]) {
    let mut rest = message;
    for part in parts {
        let Some((_, behind)) = rest.split_once(part) else { panic!("no `{part}` in (the rest of)\n{message}") };
        rest = behind;
    }
}
