//! What is kept on disk between runs: compiled components, and what trials have told of the running kernel.
//!
//! **The problem.** Compiling takes 30 ms for a small plugin and 20 s for a large one; loading the result takes 1 ms.
//! But what is loaded is machine code that runs in the host: whoever can write an entry can run anything as the host's
//! user, and wasmtime does not check it. And what the kernel has told is believed: whoever can write that can have the
//! host load what the kernel refuses.
//!
//! **The idea.** An entry is used only if nobody else could have written it: the directory and the file belong to the
//! host's user and nobody else may write to them. Both are checked on the open descriptors, and entries are opened
//! below that of the directory, so that nothing can be put in their place after the check. Against accidents (a full
//! disk, a crash half way, a bad sector) an entry carries a digest of its payload, and is written under another name
//! first.
//!
//! **Invariants.** No failure here fails a run: the worst that happens is that a component is compiled again, or the
//! kernel asked again. An entry's name depends on everything that what is in it depends on, so entries are never out of
//! date: at most more is known than one says. Those that have not been used for the longest go when all together are
//! too large.

use std::env;
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, Timestamps, UTIME_NOW};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// The first bytes of an entry.
const MAGIC: &[u8; 8] = b"PORTHOL1";
/// Bytes before the payload: the magic and the SHA-256 of the payload.
const HEADER: usize = MAGIC.len() + 32;
/// Bytes of all entries together at most.
const CAPACITY: u64 = 512 << 20;
/// What the names of files being written start with.
const TEMPORARY: &str = ".new-";
/// How old a file being written must be to be taken for one that a killed host has left.
const ABANDONED: Duration = Duration::from_secs(3600);

/// Where entries are kept unless the user says otherwise: `$XDG_CACHE_HOME/porthole`, else `~/.cache/porthole` (XDG
/// Base Directory Specification), else, for root without a home, `/var/cache/porthole`.
pub fn default_cache_dir() -> Option<PathBuf> {
    let variable = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    variable("XDG_CACHE_HOME")
        .or_else(|| variable("HOME").map(|home| home.join(".cache")))
        .or_else(|| rustix::process::geteuid().is_root().then(|| PathBuf::from("/var/cache")))
        .map(|base| base.join("porthole"))
}

/// A directory of entries that only the host's user can write to.
#[derive(Debug)]
pub struct Cache {
    directory: OwnedFd,
    /// Bytes of all entries together at most.
    capacity: u64,
}

/// The name of an entry: a digest of everything that it depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(String);

/// The contents of an entry whose digest is right.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry(Vec<u8>);

/// Why a directory or an entry is not used.
#[derive(Debug, Error)]
pub enum CacheError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it belongs to user {0}")]
    Foreign(u32),
    #[error("others may write to it (mode {0:o})")]
    Writable(u32),
    #[error("it is not a regular file")]
    NotAFile,
    #[error("it is damaged")]
    Damaged,
}

impl Key {
    /// Of what is fed to the digest, for this version of the host.
    pub fn of(feed: impl FnOnce(&mut Sha256)) -> Key {
        let mut digest = Sha256::new();
        feed(&mut digest);
        digest.update([0]);
        digest.update(env!("CARGO_PKG_VERSION"));
        Key(hexadecimal(&digest.finalize()))
    }
}

impl Entry {
    /// What was put in.
    pub fn payload(&self) -> &[u8] {
        &self.0[HEADER..]
    }
}

impl Cache {
    /// Opens the directory, and makes it if there is none.
    pub fn open(path: &Path) -> Result<Cache, CacheError> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let directory = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(io::Error::from)?;
        check_owner(&rustix::fs::fstat(&directory).map_err(io::Error::from)?)?;
        Ok(Cache { directory, capacity: CAPACITY })
    }

    /// The entry of this name, if there is one.
    ///
    /// # Errors
    ///
    /// If there is one that cannot or must not be used.
    pub fn get(&self, key: &Key) -> Result<Option<Entry>, CacheError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.directory, &key.0, flags, Mode::empty()) {
            Ok(file) => file,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(error) => return Err(io::Error::from(error).into()),
        };
        let stat = rustix::fs::fstat(&file).map_err(io::Error::from)?;
        check_owner(&stat)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(CacheError::NotAFile);
        }
        let mut file = File::from(file);
        let mut bytes = Vec::with_capacity(usize::try_from(stat.st_size).unwrap_or(0));
        file.read_to_end(&mut bytes)?;
        if !is_whole(&bytes) {
            return Err(CacheError::Damaged);
        }
        // Those that look oldest go first, so one in use must not. Where its time cannot be set it does; nothing else
        // is lost.
        let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let _ = rustix::fs::futimens(&file, &Timestamps { last_access: now, last_modification: now });
        Ok(Some(Entry(bytes)))
    }

    /// Adds an entry, or replaces it, and removes those that have not been used for the longest where all together are
    /// too large.
    pub fn put(&self, key: &Key, payload: &[u8]) -> io::Result<()> {
        let temporary = format!("{TEMPORARY}{}-{}", std::process::id(), key.0);
        let written = self
            .write(&temporary, payload)
            .and_then(|()| Ok(rustix::fs::renameat(&self.directory, &temporary, &self.directory, &key.0)?));
        if written.is_err() {
            // It may not even have been created.
            let _ = rustix::fs::unlinkat(&self.directory, &temporary, AtFlags::empty());
        }
        written?;
        self.trim(key)
    }

    fn write(&self, name: &str, payload: &[u8]) -> io::Result<()> {
        // One that a killed host of the same process id has left.
        let _ = rustix::fs::unlinkat(&self.directory, name, AtFlags::empty());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(&self.directory, name, flags, Mode::RUSR | Mode::WUSR)?);
        file.write_all(MAGIC)?;
        file.write_all(&Sha256::digest(payload))?;
        file.write_all(payload)
    }

    /// Removes the entries that have not been used for the longest, but not `keep`, until the rest fit, and what killed
    /// hosts have left.
    fn trim(&self, keep: &Key) -> io::Result<()> {
        let mut files = self.files()?;
        files.sort_by_key(|file| std::cmp::Reverse(file.modified));
        let abandoned = SystemTime::now() - ABANDONED;
        let mut total = 0;
        for file in files {
            let temporary = file.name.starts_with(TEMPORARY);
            total += file.size;
            if (temporary && file.modified < abandoned) || (!temporary && total > self.capacity && file.name != keep.0)
            {
                total -= file.size;
                rustix::fs::unlinkat(&self.directory, &file.name, AtFlags::empty())?;
            }
        }
        Ok(())
    }

    /// The files that this cache has made.
    fn files(&self) -> io::Result<Vec<FileInfo>> {
        let mut files = Vec::new();
        for entry in Dir::read_from(&self.directory)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            let is_key = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !is_key && !name.starts_with(TEMPORARY) {
                continue;
            }
            // Another host may have removed it by now.
            let Ok(stat) = rustix::fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            files.push(FileInfo::new(name, &stat));
        }
        Ok(files)
    }
}

struct FileInfo {
    name: String,
    size: u64,
    modified: SystemTime,
}

impl FileInfo {
    fn new(name: &str, stat: &Stat) -> FileInfo {
        let seconds =
            Duration::new(u64::try_from(stat.st_mtime).unwrap_or(0), u32::try_from(stat.st_mtime_nsec).unwrap_or(0));
        let modified = SystemTime::UNIX_EPOCH + seconds;
        FileInfo { name: name.to_owned(), size: u64::try_from(stat.st_size).unwrap_or(0), modified }
    }
}

/// Refuses what another user owns or may write to.
fn check_owner(stat: &Stat) -> Result<(), CacheError> {
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(CacheError::Foreign(stat.st_uid));
    }
    if stat.st_mode & 0o022 != 0 {
        return Err(CacheError::Writable(stat.st_mode & 0o7777));
    }
    Ok(())
}

fn is_whole(entry: &[u8]) -> bool {
    let Some((header, payload)) = entry.split_at_checked(HEADER) else { return false };
    let (magic, digest) = header.split_at(MAGIC.len());
    magic == MAGIC && digest == Sha256::digest(payload).as_slice()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A cache in a directory of its own, removed at the end.
    struct Scratch(Cache, PathBuf);

    impl Scratch {
        fn new(name: &str, capacity: u64) -> Scratch {
            let path = env::temp_dir().join(format!("porthole-cache-{}-{name}", std::process::id()));
            Scratch(Cache { capacity, ..Cache::open(&path).unwrap() }, path)
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<_> =
                fs::read_dir(&self.1).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }

        /// Makes an entry look as if last used so long ago.
        fn age(&self, name: &str, age: Duration) {
            File::open(self.1.join(name)).unwrap().set_modified(SystemTime::now() - age).unwrap();
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.1);
        }
    }

    fn key(digit: char) -> Key {
        Key(digit.to_string().repeat(64))
    }

    #[test]
    fn what_is_put_in_comes_out() {
        let scratch = Scratch::new("out", CAPACITY);
        assert_eq!(scratch.0.get(&key('a')).unwrap(), None);
        scratch.0.put(&key('a'), b"first").unwrap();
        scratch.0.put(&key('a'), b"second").unwrap();
        assert_eq!(scratch.0.get(&key('a')).unwrap().unwrap().payload(), b"second");
        assert_eq!(scratch.names(), [key('a').0]);
    }

    #[test]
    fn the_longest_unused_go_first() {
        let scratch = Scratch::new("oldest", 3 * (HEADER as u64 + 100));
        for digit in ['a', 'b', 'c'] {
            scratch.0.put(&key(digit), &[0; 100]).unwrap();
        }
        scratch.age(&key('a').0, Duration::from_secs(300));
        scratch.age(&key('b').0, Duration::from_secs(200));
        scratch.age(&key('c').0, Duration::from_secs(100));
        scratch.0.get(&key('a')).unwrap();
        scratch.0.put(&key('d'), &[0; 100]).unwrap();
        assert_eq!(scratch.names(), [key('a').0, key('c').0, key('d').0]);
        scratch.0.put(&key('e'), &[0; 1000]).unwrap();
        assert_eq!(scratch.names(), [key('e').0], "the new one stays, however large");
    }

    #[test]
    fn only_its_own_files_are_removed() {
        let scratch = Scratch::new("own", 0);
        let left = format!("{TEMPORARY}1-x");
        for name in ["readme", &left] {
            fs::write(scratch.1.join(name), "x").unwrap();
        }
        scratch.0.put(&key('a'), b"x").unwrap();
        assert_eq!(scratch.names(), [left.clone(), key('a').0, "readme".to_owned()], "another host may be writing it");
        scratch.age(&left, 2 * ABANDONED);
        scratch.0.put(&key('a'), b"x").unwrap();
        assert_eq!(scratch.names(), [key('a').0, "readme".to_owned()]);
    }

    #[test]
    fn links_are_not_followed() {
        let scratch = Scratch::new("links", CAPACITY);
        scratch.0.put(&key('a'), b"x").unwrap();
        std::os::unix::fs::symlink(key('a').0, scratch.1.join(key('b').0)).unwrap();
        assert!(scratch.0.get(&key('b')).is_err());
        fs::create_dir(scratch.1.join(key('c').0)).unwrap();
        assert!(matches!(scratch.0.get(&key('c')), Err(CacheError::NotAFile)));
    }

    #[test]
    fn keys_depend_on_all_that_is_fed() {
        let key = |text: &str| Key::of(|digest| digest.update(text));
        assert_eq!(key("a"), key("a"));
        assert_ne!(key("a"), key("b"));
    }

    /// On a real full disk: a file system of 64 KiB that only this thread sees.
    #[test]
    fn root_a_full_disk_leaves_no_file() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: mounting a file system needs root");
            return;
        }
        let full = || {
            let path = env::temp_dir().join(format!("porthole-cache-{}-full", std::process::id()));
            fs::create_dir(&path).unwrap();
            // SAFETY: of this thread alone, and nothing else runs in it.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.unwrap();
            let private = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
            rustix::mount::mount_change("/", private).unwrap();
            rustix::mount::mount("tmpfs", &path, "tmpfs", rustix::mount::MountFlags::empty(), Some(c"size=64k"))
                .unwrap();
            let cache = Cache::open(&path);
            let written = matches!(cache, Err(CacheError::Writable(_))).then(|| {
                // A new file system's root may be written by all.
                fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
                let cache = Cache::open(&path).unwrap();
                cache.put(&key('a'), &[0; 16 << 10]).unwrap();
                (cache.put(&key('b'), &[0; 128 << 10]), fs::read_dir(&path).unwrap().count())
            });
            rustix::mount::unmount(&path, rustix::mount::UnmountFlags::DETACH).unwrap();
            fs::remove_dir(&path).unwrap();
            let (result, files) = written.unwrap();
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::StorageFull);
            assert_eq!(files, 1);
        };
        std::thread::spawn(full).join().unwrap();
    }
}
