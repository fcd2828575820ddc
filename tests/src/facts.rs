//! Kernels for tests: one that was recorded, and one with tracepoints made for the purpose.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use porthole::kernel::{Feature, KernelFacts};

/// The recorded kernel's directory.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/kernel-6.18")
}

/// The recorded kernel.
pub fn recorded() -> KernelFacts {
    KernelFacts::from_dir(&directory())
}

/// The recorded kernel, if it did not offer these features, whose names stand between commas. `directory` is written
/// to.
///
/// # Panics
/// Where the directory cannot be written.
pub fn lacking(features: &str, directory: &Path) -> KernelFacts {
    let lacks = |feature: &Feature| features.split(", ").any(|name| name == feature.name());
    let offered: Vec<&str> = Feature::ALL.iter().filter(|feature| !lacks(feature)).map(|f| f.name()).collect();
    assert_eq!(offered.len() + features.split(", ").count(), Feature::ALL.len(), "{features}");
    let directory = directory.join(format!("without-{}", features.replace(|c: char| !c.is_ascii_alphanumeric(), "-")));
    let made = || {
        fs::create_dir_all(&directory)?;
        for name in ["btf", "events", "kallsyms", "possible", "root"] {
            match symlink(self::directory().join(name), directory.join(name)) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        fs::write(directory.join("features"), offered.join("\n"))
    };
    made().unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    KernelFacts::from_dir(&directory)
}

/// The types of the recorded kernel, no symbols, and two tracepoints: `tracepoint:made:all`, whose fields are
/// [`FIELDS`], and `tracepoint:syscalls:sys_enter_made`, whose fields are [`ARGUMENTS`]. `directory` is written to.
///
/// # Panics
/// Where the directory cannot be written.
pub fn made(directory: &Path) -> KernelFacts {
    // Another process may have the same files mapped: they are replaced, never changed.
    let write = |path: &str, bytes: &[u8]| {
        let (path, new) = (directory.join(path), directory.join(format!("new-{}", std::process::id())));
        let parent = path.parent().unwrap_or(directory);
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&new, bytes))
            .and_then(|()| fs::rename(&new, &path))
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    };
    let types = self::directory().join("btf/vmlinux");
    write("btf/vmlinux", &fs::read(&types).unwrap_or_else(|e| panic!("{}: {e}", types.display())));
    write("possible", b"0-3\n");
    write("events/made/all/format", format("all", &FIELDS).as_bytes());
    write("events/syscalls/sys_enter_made/format", format("sys_enter_made", &ARGUMENTS).as_bytes());
    KernelFacts::from_dir(directory)
}

/// A field of a made tracepoint.
pub struct Field {
    /// As the format declares it.
    pub declared: &'static str,
    pub name: &'static str,
    pub offset: usize,
    pub size: usize,
    pub signed: bool,
}

/// Bytes of the made tracepoint's record, without texts of variable length.
pub const RECORD: usize = 112;

/// The made tracepoint's fields: integers of every width, pointers, and texts.
pub const FIELDS: [Field; 15] = [
    field("u8 u8", "u8", 8, 1, false),
    field("s8 s8", "s8", 9, 1, true),
    field("u16 u16", "u16", 10, 2, false),
    field("s16 s16", "s16", 12, 2, true),
    field("bool b", "b", 14, 1, false),
    field("u32 u32", "u32", 16, 4, false),
    field("s32 s32", "s32", 20, 4, true),
    field("u64 u64", "u64", 24, 8, false),
    field("s64 s64", "s64", 32, 8, true),
    field("struct task_struct * p", "p", 40, 8, false),
    field("const char * s", "s", 48, 8, false),
    field("char name[10]", "name", 56, 10, false),
    field("__data_loc char[] located", "located", 68, 4, false),
    field("__rel_loc char[] relative", "relative", 72, 4, false),
    field("char wide[32]", "wide", 80, 32, false),
];

/// The arguments of the made system call: each in 8 bytes, as all system calls' are.
pub const ARGUMENTS: [Field; 6] = [
    field("const char * s", "s", 16, 8, false),
    field("struct task_struct * p", "p", 24, 8, false),
    field("int fd", "fd", 32, 8, false),
    field("umode_t mode", "mode", 40, 8, false),
    field("size_t count", "count", 48, 8, false),
    field("long offset", "offset", 56, 8, false),
];

const fn field(declared: &'static str, name: &'static str, offset: usize, size: usize, signed: bool) -> Field {
    Field { declared, name, offset, size, signed }
}

fn format(name: &str, fields: &[Field]) -> String {
    let mut text = format!("name: {name}\nID: 4242\nformat:\n");
    for Field { declared, offset, size, signed, .. } in fields {
        let signed = u8::from(*signed);
        text.push_str(&format!("\tfield:{declared};\toffset:{offset};\tsize:{size};\tsigned:{signed};\n"));
    }
    text.push_str("\nprint fmt: \"\"\n");
    text
}
