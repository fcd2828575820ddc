//! The directory `events` of a tracefs: one that is mounted, or a private mount of it.
//!
//! Machines that nobody traces often have no tracefs mounted. Then it is mounted *detached*: a mount that has no place
//! in the tree of files, is reached through its descriptor only, and goes away with it. So nothing on the system
//! changes.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::FactError;

/// An open directory of tracepoints, `SYSTEM/NAME/format`.
pub(super) struct Events {
    directory: OwnedFd,
    /// For messages: the path, or what the directory is if it has none.
    shown: String,
}

impl Events {
    /// The running kernel's: of a mounted tracefs that this process may read, else of a private mount.
    pub(super) fn running() -> Result<Events, FactError> {
        Events::mounted().unwrap_or_else(Events::private)
    }

    /// Those below `root`, which need not be a tracefs.
    pub(super) fn below(root: &Path) -> Result<Events, FactError> {
        let path = root.join("events");
        let shown = path.display().to_string();
        match openat(CWD, &path, DIRECTORY, Mode::empty()) {
            Ok(directory) => Ok(Events { directory, shown }),
            Err(source) => Err(FactError::Tracepoints { path: shown, source: Arc::new(source.into()) }),
        }
    }

    /// The text of a tracepoint's `format`; none where there is no such tracepoint.
    pub(super) fn format(&self, system: &str, name: &str) -> Result<Option<String>, FactError> {
        if !is_file_name(system) || !is_file_name(name) {
            return Ok(None);
        }
        let path = format!("{system}/{name}/format");
        let file = match openat(&self.directory, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(self.error(&path, error.into())),
        };
        let mut text = String::new();
        (&file).read_to_string(&mut text).map_err(|error| self.error(&path, error))?;
        Ok(Some(text))
    }

    /// The text of `available_filter_functions`, which stands beside the directory.
    pub(super) fn traceable_functions(&self) -> io::Result<String> {
        let path = "../available_filter_functions";
        let file = openat(&self.directory, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        io::read_to_string(File::from(file))
    }

    /// Events that users have made of functions and of other events, as (system, name).
    pub(super) fn made(&self) -> Vec<(String, String)> {
        let open = openat(&self.directory, "../dynamic_events", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let text = open.ok().and_then(|file| io::read_to_string(File::from(file)).ok()).unwrap_or_default();
        made_events(&text)
    }

    /// The systems, sorted.
    pub(super) fn systems(&self) -> Result<Vec<String>, FactError> {
        self.directories_in(".")
    }

    /// The tracepoints of a system, sorted.
    pub(super) fn names(&self, system: &str) -> Result<Vec<String>, FactError> {
        self.directories_in(system)
    }

    /// None where no tracefs is mounted, an error where some are and this process may read none of them.
    fn mounted() -> Option<Result<Events, FactError>> {
        // Without /proc there is nothing to learn about mounts, so the private one is tried.
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let mut refused = None;
        for path in tracefs_mounts(&mounts) {
            let events = path.join("events");
            match openat(CWD, &events, DIRECTORY, Mode::empty()) {
                Ok(directory) => return Some(Ok(Events { directory, shown: events.display().to_string() })),
                // Something is mounted over it, or debugfs has no tracefs in it.
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) => refused = Some(FactError::TracefsUnreadable { path, source: Arc::new(error.into()) }),
            }
        }
        refused.map(Err)
    }

    fn private() -> Result<Events, FactError> {
        let error = |source: Errno| FactError::NoTracefs { source: Arc::new(source.into()) };
        let root = mount_detached("tracefs").map_err(error)?;
        let directory = openat(&root, "events", DIRECTORY, Mode::empty()).map_err(error)?;
        Ok(Events { directory, shown: "a private mount of tracefs".to_owned() })
    }

    fn directories_in(&self, path: &str) -> Result<Vec<String>, FactError> {
        let error = |source: Errno| self.error(path, source.into());
        let directory = openat(&self.directory, path, DIRECTORY, Mode::empty()).map_err(error)?;
        let mut names = Vec::new();
        for entry in Dir::new(directory).map_err(error)? {
            let entry = entry.map_err(error)?;
            // Names of systems and tracepoints are C identifiers; one that is not UTF-8 could not be asked for.
            let Ok(name) = entry.file_name().to_str() else { continue };
            if entry.file_type() == FileType::Directory && is_file_name(name) {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn error(&self, path: &str, source: io::Error) -> FactError {
        FactError::Tracepoints { path: format!("{}/{path}", self.shown), source: Arc::new(source) }
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Mounts a file system of the kernel's own, read-only, at no place: the descriptor is its root directory and its only
/// owner. Needs CAP_SYS_ADMIN (fsopen(2), fsmount(2)).
pub(super) fn mount_detached(file_system: &str) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(file_system, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Which functions take no kprobe: `kprobes/blacklist` of debugfs, from a private mount of it.
pub(super) fn kprobes_blacklist() -> io::Result<String> {
    let root = mount_detached("debugfs")?;
    let file = openat(&root, "kprobes/blacklist", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    io::read_to_string(File::from(file))
}

/// Where tracefs may be found, from the text of /proc/self/mounts: its own mounts first, then those that debugfs makes
/// on access.
fn tracefs_mounts(mounts: &str) -> Vec<PathBuf> {
    let of_type = |wanted: &'static str| {
        mounts.lines().filter_map(move |line| {
            let mut words = line.split(' ').skip(1);
            let path = words.next()?;
            (words.next()? == wanted).then(|| PathBuf::from(unescaped(path)))
        })
    };
    of_type("tracefs").chain(of_type("debugfs").map(|path| path.join("tracing"))).collect()
}

/// A path of /proc/self/mounts, in which blanks and backslashes are three octal digits behind a backslash
/// (proc_pid_mounts(5)).
fn unescaped(path: &str) -> String {
    [(r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", r"\")]
        .iter()
        .fold(path.to_owned(), |path, (escape, character)| path.replace(escape, character))
}

/// The events of a file `dynamic_events`: `p:kprobes/myprobe vfs_read …`, `r8:…`, `s:synthetic/latency u64 …`.
fn made_events(text: &str) -> Vec<(String, String)> {
    let event = |line: &str| {
        let (_, named) = line.split_whitespace().next()?.split_once(':')?;
        let (system, name) = named.split_once('/')?;
        Some((system.to_owned(), name.to_owned()))
    };
    text.lines().filter_map(event).collect()
}

/// Names come from plugins: one with a slash must not lead out of the directory.
fn is_file_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_tracefs() {
        let mounts = "debugfs /sys/kernel/debug debugfs rw 0 0\n\
            tracefs /mnt/a\\040b tracefs rw,relatime 0 0\n\
            tracefs /tracefs ext4 rw 0 0\n\
            bad line\n";
        assert_eq!(tracefs_mounts(mounts), [Path::new("/mnt/a b"), Path::new("/sys/kernel/debug/tracing")]);
        assert!(tracefs_mounts("").is_empty());
    }

    #[test]
    fn events_that_users_made() {
        let text =
            "p:kprobes/mine vfs_read file=%di\nr8:kprobes/other do_exit\ns:synthetic/latency u64 lat; pid_t pid\n\nx\n";
        let names = made_events(text);
        let named = |system: &str, name: &str| (system.to_owned(), name.to_owned());
        assert_eq!(names, [named("kprobes", "mine"), named("kprobes", "other"), named("synthetic", "latency")]);
    }

    #[test]
    fn names_stay_inside() {
        for name in ["", ".", "..", "a/b", "/", "a\0"] {
            assert!(!is_file_name(name), "{name:?}");
        }
        assert!(is_file_name("sys_enter_openat") && is_file_name("intel-sst"));
    }

    #[test]
    fn root_private_mount_is_a_tracefs_that_nobody_sees() {
        let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let events = Events::private().unwrap();
        let format = events.format("sched", "sched_switch").unwrap().unwrap();
        assert!(format.starts_with("name: sched_switch\n"));
        assert!(events.systems().unwrap().iter().any(|system| system == "syscalls"));
        assert!(events.names("sched").unwrap().iter().any(|name| name == "sched_switch"));
        assert_eq!(events.format("sched", "no_such_tracepoint").unwrap(), None);
        assert_eq!(events.format("..", "events").unwrap(), None);
        assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
    }
}
