//! Cgroups of version 2 of a test's own.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

/// A cgroup with those below it. They go with it at the end, however the test ends, and so do the processes that are
/// still in there.
pub struct Cgroups(PathBuf);

impl Cgroups {
    /// One of this name right below the root; none, and says so, where cgroups of version 2 are mounted nowhere.
    ///
    /// # Panics
    /// Where it cannot be made.
    pub fn new(name: &str) -> Option<Cgroups> {
        let mounts = fs::read_to_string("/proc/mounts").expect("procfs is mounted");
        let mount = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|words| words[2] == "cgroup2");
        let Some(mount) = mount else {
            println!("skipped: cgroups of version 2 are mounted nowhere");
            return None;
        };
        let cgroups = Cgroups(Path::new(mount[1]).join(name));
        fs::create_dir(&cgroups.0).expect("cgroups can be made");
        Some(cgroups)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// One below it, or itself, which has no name here.
    pub fn at(&self, below: &str) -> PathBuf {
        self.0.join(below)
    }

    /// Makes one below, and those between; its id.
    ///
    /// # Panics
    /// Where it cannot be made.
    pub fn make(&self, below: &str) -> u64 {
        fs::create_dir_all(self.at(below)).expect("cgroups can be made");
        self.id(below)
    }

    /// # Panics
    /// Where it is not there.
    pub fn id(&self, below: &str) -> u64 {
        fs::metadata(self.at(below)).expect("it is there").ino()
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

fn remove(cgroup: &Path) {
    for below in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if below.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&below.path());
        }
    }
    // Whoever is still in there was started by a test that has failed.
    for pid in fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default().lines() {
        if let Ok(pid) = pid.parse() {
            // SAFETY: the call touches no memory.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }
    // A process leaves its cgroup a moment behind its end.
    for _ in 0..200 {
        if fs::remove_dir(cgroup).is_ok() {
            break;
        }
        sleep(Duration::from_millis(10));
    }
}
