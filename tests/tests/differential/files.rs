//! Files, by stat(2) and /proc/self/fdinfo.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::*;

/// A directory of the test's own in memory: a file of an overlay has one inode for stat(2), and one or two others in
/// the kernel.
pub struct InMemory(pub PathBuf);

impl InMemory {
    pub fn new() -> InMemory {
        let path = Path::new("/dev/shm").join(format!("porthole-{}", e2e::unique()));
        fs::create_dir(&path).expect("there is memory");
        InMemory(path)
    }
}

impl Drop for InMemory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The lines of an fdinfo, `name: value`.
pub fn fdinfo(text: &str) -> HashMap<String, String> {
    let line = |line: &str| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
    text.lines().filter_map(line).collect()
}

/// What a descriptor's fdinfo says, of the file that this expression points to.
pub fn of_descriptor(file: &str, info: &HashMap<String, String>) -> Vec<Claim> {
    let flags = i64::from_str_radix(&info["flags"], 8).expect("octal") & !i64::from(libc::O_CLOEXEC);
    vec![
        claim("pos", &format!("{file}.f_pos"), &info["pos"]),
        // The flag belongs to the descriptor, not to the file.
        claim("flags", &format!("{file}.f_flags & ~O_CLOEXEC"), flags),
        claim("mnt_id", &format!("container_of({file}.f_path.mnt, struct mount, mnt).mnt_id"), &info["mnt_id"]),
        claim("ino", &format!("{file}.f_inode.i_ino"), &info["ino"]),
    ]
}

#[test]
fn root_files_are_what_stat_says() {
    if !e2e::is_root() {
        return;
    }
    let directory = InMemory::new();
    let path = directory.0.join("a file of the test's");
    fs::write(&path, vec![b'x'; 123_457]).expect("it can be written");
    for name in ["link", "another"] {
        fs::hard_link(&path, directory.0.join(name)).expect("it can be linked to");
    }
    chown(&path, Some(3_000_000_001), Some(70_000)).expect("this is root");
    let mut file = OpenOptions::new().write(true).custom_flags(libc::O_DSYNC | libc::O_NONBLOCK).open(&path).unwrap();
    let before_1970 = SystemTime::UNIX_EPOCH - Duration::new(86_400, 0) + Duration::from_nanos(123_456_789);
    let times = fs::FileTimes::new()
        .set_modified(before_1970)
        .set_accessed(SystemTime::UNIX_EPOCH + Duration::new(4_000_000_000, 7));
    file.set_times(times).expect("this is root");
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o4751)).expect("this is root");
    file.seek(SeekFrom::Start(5_000_000_000)).expect("a file has any place");
    // A device, whose number is not 0, and a file of another file system, whose name is in no directory.
    let device = File::open("/dev/zero").expect("it is there");
    // SAFETY: the name ends in a 0; the descriptor is new, and nobody else's.
    let unnamed = unsafe { File::from_raw_fd(libc::memfd_create(c"in memory".as_ptr(), 0)) };
    unnamed.set_len(77).expect("it is a file");

    let mut claims = Vec::new();
    for (file, name) in [(&file, "a file of the test's"), (&device, "zero"), (&unnamed, "memfd:in memory")] {
        let stat = file.metadata().expect("it is open");
        let opened = format!("task.files.fdt.fd[{}]", file.as_raw_fd());
        let of_inode = of_inode(&format!("{opened}.f_inode"), &stat).into_iter();
        // A device's inode is in a file system that has its own idea of what stat(2) says of sizes and times, and the
        // memory's of blocks.
        claims.extend(of_inode);
        let info = fdinfo(&fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).expect("procfs"));
        claims.extend(of_descriptor(&opened, &info));
        claims.push(claim("name", &format!("str({opened}.f_path.dentry.d_name.name)"), name));
    }
    let (path, when) = call();
    compare(ACCESS, &when, &claims, || access(&path));
}
