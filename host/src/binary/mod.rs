//! Programs and libraries of the machine: where probes in user memory can fire.
//!
//! [`Binaries`] finds the file that a name stands for, and [`Binary`] is what such a file says of itself: its functions
//! by name, where in the file an address lies, and its static markers (USDT). Files are read whole and not mapped:
//! another process may shorten one at any time.
//!
//! Planning reaches all this through [`KernelFacts`](crate::kernel::KernelFacts), and so through a directory that
//! stands for the machine in tests.

mod elf;
mod find;
mod mangled;
mod names;
pub mod registers;
mod usdt;

use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

pub use names::{Found, Function};
pub use usdt::{Argument, Marker, Memory, Operand};

use find::Root;

/// Bytes of a file at most. Programs of the largest browsers have some hundred MiB, with all their symbols.
const MAX_FILE: u64 = 2 << 30;

/// Why nothing can be said of a file.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BinaryError {
    #[error("there is no program and no library `{target}`")]
    Unknown {
        target: String,
        /// Names of libraries that there are.
        libraries: Vec<String>,
    },
    #[error("`{target}` is neither an absolute path nor a name")]
    Relative { target: String },
    #[error("several libraries are named so: {}", .paths.join(", "))]
    Several { paths: Vec<String> },
    #[error("{path} cannot be read: {source}")]
    Unreadable { path: String, source: Arc<io::Error> },
    #[error("{path} is no program and no library: {why}")]
    NotElf { path: String, why: &'static str },
    #[error("{path} is damaged: {reason}")]
    Damaged { path: String, reason: String },
}

/// The programs and libraries of one machine. Each file is read on first use, and then remembered.
pub struct Binaries {
    root: Root,
    known: Mutex<HashMap<String, Result<Arc<Binary>, BinaryError>>>,
}

impl Binaries {
    /// Those of this machine.
    pub fn running() -> Binaries {
        Binaries { root: Root::machine(), known: Mutex::default() }
    }

    /// Those of a machine whose `/` this directory stands for.
    pub fn below(directory: PathBuf) -> Binaries {
        Binaries { root: Root::below(directory), known: Mutex::default() }
    }

    /// What `target` stands for: an absolute path, a library by its name with or without what follows `.so`, or a
    /// program by its name.
    pub fn get(&self, target: &str) -> Result<Arc<Binary>, BinaryError> {
        // A panic elsewhere cannot leave the map half-written: each insertion is one call.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(target.to_owned()).or_insert_with(|| self.open(target).map(Arc::new)).clone()
    }

    fn open(&self, target: &str) -> Result<Binary, BinaryError> {
        let path = self.root.find(target)?;
        let file = self.root.real(&path);
        Binary::read(path, file, MAX_FILE)
    }
}

/// What a program or library says of itself.
#[derive(Debug)]
pub struct Binary {
    /// As users know it.
    pub path: String,
    /// The file itself.
    pub file: PathBuf,
    segments: Vec<Segment>,
    functions: names::Functions,
    markers: Vec<Marker>,
}

/// A part of the file that is loaded into memory.
#[derive(Clone, Copy, Debug)]
struct Segment {
    address: u64,
    /// Bytes that come from the file.
    size: u64,
    offset: u64,
    executable: bool,
}

impl Binary {
    /// What `file`, which users know as `path`, says of itself; it may have so many bytes.
    pub fn read(path: String, file: PathBuf, most: u64) -> Result<Binary, BinaryError> {
        let bytes = find::read(&file, most).map_err(|source| match source.kind() {
            io::ErrorKind::InvalidInput => {
                BinaryError::NotElf { path: path.clone(), why: "it is no regular file, or too large" }
            }
            _ => BinaryError::Unreadable { path: path.clone(), source: Arc::new(source) },
        })?;
        elf::read(path, file, &bytes)
    }

    /// Bytes of memory that it takes, about, where nothing but [`Binary::name_at`] is asked of it.
    pub fn size(&self) -> usize {
        self.functions.size() + self.markers.iter().map(Marker::size).sum::<usize>()
    }

    /// The function of that name, as the file or as a source in C++ or Rust writes it.
    pub fn function(&self, name: &str) -> Found {
        self.functions.find(name)
    }

    /// The names of its functions, as sources write them: for suggestions.
    pub fn function_names(&self) -> Vec<String> {
        self.functions.names()
    }

    /// A name for each of its functions by which [`Binary::function`] finds it and no other, of so many bytes at most;
    /// sorted.
    pub fn findable_names(&self, longest: usize) -> Vec<String> {
        self.functions.findable(longest)
    }

    /// Its static markers, in the order of the file.
    pub fn markers(&self) -> &[Marker] {
        &self.markers
    }

    /// Where in the file the instruction at this address is; none where the file has no instructions for it.
    pub fn code_offset(&self, address: u64) -> Option<u64> {
        offset(self.segments.iter().filter(|s| s.executable), address)
    }

    /// The address of what lies there in the file.
    pub fn address(&self, offset: u64) -> Option<u64> {
        self.segments.iter().find_map(|s| {
            let inside = offset.checked_sub(s.offset).filter(|inside| *inside < s.size)?;
            s.address.checked_add(inside)
        })
    }

    /// The function in which this address is, as sources name it, and the bytes from where it begins.
    pub fn name_at(&self, address: u64) -> Option<(Cow<'_, str>, u64)> {
        self.functions.at(address)
    }

    /// Where in the file what lies at this address is.
    pub fn file_offset(&self, address: u64) -> Option<u64> {
        offset(self.segments.iter(), address)
    }
}

fn offset<'a>(mut segments: impl Iterator<Item = &'a Segment>, address: u64) -> Option<u64> {
    segments.find_map(|s| {
        let inside = address.checked_sub(s.address).filter(|inside| *inside < s.size)?;
        s.offset.checked_add(inside)
    })
}
