//! Paths of open files, against what /proc says of them: files of several mounts, with names of all bytes, deep and
//! long ones, and what is no file at all.
//!
//! A system call that does nothing is passed a file's number, so that one program is asked for file after file: what is
//! passed to a call that takes no arguments the kernel keeps all the same.

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use porthole_tests::live::{probe, root_of_mounts, this_thread, trace, unless_root};
use porthole_tests::machine::Value;

/// Components of a path at most.
const STEPS: usize = 48;
/// The file whose number is passed.
const FILE: &str = "task.files.fdt.fd[args.regs.di]";

/// The system call.
fn ask(number: i32) {
    // SAFETY: the call takes nothing and changes nothing.
    unsafe { libc::syscall(libc::SYS_getppid, i64::from(number)) };
}

/// That it is this thread's.
fn when() -> String {
    format!("tid == {} && args.id == {}", this_thread(), libc::SYS_getppid)
}

/// The values of these expressions for each of the files.
fn values(files: &[OwnedFd], values: &[&str]) -> Vec<Vec<Value>> {
    let seen = trace(&probe(&["rawtracepoint:sys_enter"], &when(), values), || {
        files.iter().for_each(|file| ask(file.as_raw_fd()));
    });
    assert_eq!(seen.rows.len(), files.len(), "a record for each call");
    seen.rows
}

fn text(bytes: &[u8]) -> Value {
    Value::Text { bytes: bytes.to_vec(), cut: false }
}

fn cut(bytes: &[u8]) -> Value {
    Value::Text { bytes: bytes.to_vec(), cut: true }
}

/// What `path` gives where this process calls it so: from the root of all mounts, which is further up where this
/// process is in a chroot.
fn over_mounts(root: &str, path: &[u8]) -> Vec<u8> {
    if path == b"/" && !root.is_empty() { root.into() } else { [root.as_bytes(), path].concat() }
}

/// What /proc says.
fn link(file: &impl AsRawFd) -> Vec<u8> {
    let path = fs::read_link(format!("/proc/thread-self/fd/{}", file.as_raw_fd())).unwrap();
    path.into_os_string().into_vec()
}

/// A directory of this test's own, which goes with it.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("porthole-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What this thread has mounted there would keep it.
        for point in ["bound", "tmpfs", "nested/a"] {
            let point = CString::new(self.0.join(point).as_os_str().as_bytes()).unwrap();
            // SAFETY: the path ends in a 0, and outlives the call, which fails where nothing is mounted.
            unsafe { libc::umount2(point.as_ptr(), libc::MNT_DETACH) };
        }
        // Tests that fail leave it in any state.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn open(path: &Path) -> OwnedFd {
    File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).into()
}

fn create(path: &Path) -> OwnedFd {
    File::create(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).into()
}

/// Gives this thread mounts of its own.
fn own_mounts() {
    // SAFETY: this thread alone is changed, and ends with the test.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    mount(None, Path::new("/"), None, libc::MS_REC | libc::MS_PRIVATE);
}

fn mount(from: Option<&Path>, at: &Path, kind: Option<&str>, flags: libc::c_ulong) {
    let text = |bytes: &[u8]| CString::new(bytes).unwrap();
    let from = from.map_or_else(|| text(b"none"), |path| text(path.as_os_str().as_bytes()));
    let (at, kind) = (text(at.as_os_str().as_bytes()), kind.map(|kind| text(kind.as_bytes())));
    let kind = kind.as_ref().map_or(std::ptr::null(), |kind| kind.as_ptr());
    // SAFETY: all of them are texts that outlive the call, or null.
    let result = unsafe { libc::mount(from.as_ptr(), at.as_ptr(), kind, flags, std::ptr::null()) };
    assert_eq!(result, 0, "{at:?}: {}", io::Error::last_os_error());
}

#[test]
fn root_paths_are_those_that_proc_tells() {
    if unless_root() {
        return;
    }
    // Before this thread's mounts are others than the process's, from whose root it is no more seen.
    let (root, program) = (root_of_mounts(), std::env::current_exe().unwrap());
    own_mounts();
    let own = Directory::new("paths");
    let at = |name: &str| own.0.join(name);
    for name in ["tmpfs", "bound", "nested/a/b"] {
        fs::create_dir_all(at(name)).unwrap();
    }
    mount(None, &at("tmpfs"), Some("tmpfs"), 0);
    fs::create_dir_all(at("tmpfs/x/y")).unwrap();
    mount(Some(&at("tmpfs/x")), &at("bound"), None, libc::MS_BIND);
    mount(None, &at("nested/a"), Some("tmpfs"), 0);
    fs::create_dir_all(at("nested/a/c")).unwrap();
    mount(None, &at("nested/a/c"), Some("tmpfs"), 0);
    let odd = at("tmpfs").join(OsStr::from_bytes(b"\xff\xfe \n\t\"quoted\"\\ \x01"));
    let longest = at("tmpfs").join("n".repeat(255));
    let files = vec![
        open(Path::new("/")),
        open(Path::new("/proc")),
        open(Path::new("/proc/self/status")),
        open(Path::new("/proc/sys/kernel/osrelease")),
        open(Path::new("/dev/null")),
        open(Path::new("/sys/kernel/btf/vmlinux")),
        open(&program),
        create(&at("plain")),
        create(&at("tmpfs/in-tmpfs")),
        create(&at("tmpfs/x/y/below")),
        open(&at("bound/y/below")),
        open(&at("bound")),
        open(&at("tmpfs")),
        create(&at("nested/a/c/deep")),
        create(&odd),
        create(&longest),
    ];
    let paths: Vec<Vec<u8>> = files.iter().map(|file| over_mounts(&root, &link(file))).collect();
    assert!(paths.iter().any(|path| path.ends_with(b"/bound/y/below")), "{paths:?}");
    let by_file = format!("path({FILE})");
    let by_path = format!("path({FILE}.f_path, 4096)");
    let same = format!("path({FILE}) == path(&{FILE}.f_path)");
    for (row, path) in values(&files, &[&by_file, &by_path, &same]).iter().zip(&paths) {
        let shown = path.escape_ascii();
        assert_eq!(row[..], [text(path), text(path), Value::Boolean(true)], "{shown}");
    }
    // The dentry alone knows nothing of mounts.
    let below = values(&files[9..11], &[&format!("path({FILE}.f_path.dentry)")]);
    assert_eq!(below, [[text(b"/x/y/below")], [text(b"/x/y/below")]]);
}

#[test]
fn root_programs_and_directories_have_paths() {
    if unless_root() {
        return;
    }
    let file = open(Path::new("/"));
    let found = values(&[file], &["path(task.mm.exe_file)", "path(task.fs.pwd)", "path(task.fs.root)"]);
    let root = root_of_mounts();
    let expected = [std::env::current_exe().unwrap(), std::env::current_dir().unwrap(), PathBuf::from("/")]
        .map(|path| text(&over_mounts(&root, path.as_os_str().as_bytes())));
    assert_eq!(found, [expected]);
}

#[test]
fn root_long_paths_are_cut() {
    if unless_root() {
        return;
    }
    let own = Directory::new("long-paths");
    let mut path = own.0.clone();
    for depth in 0.. {
        path.push(format!("directory-{depth}"));
        if path.components().count() > STEPS + 14 {
            break;
        }
    }
    fs::create_dir_all(&path).unwrap();
    let deep = create(&path.join("file"));
    let shallow: PathBuf = path.components().take(20).collect();
    let shallow = create(&shallow.join("file"));
    let root = root_of_mounts();
    let [whole, short] = [&deep, &shallow].map(|file| over_mounts(&root, &link(file)));
    let [most, hundred] = ["", ", 100"].map(|most| format!("path({FILE}{most})"));
    let rows = values(&[deep, shallow], &[&most, &hundred]);
    let names: Vec<&[u8]> = whole.split(|b| *b == b'/').skip(1).collect();
    let end = names[names.len() - STEPS..].join(&b'/');
    assert_eq!(rows[0], [cut(&end), cut(&end[..100])]);
    assert_eq!(rows[1], [text(&short), cut(&short[..100])]);
}

/// What is in no directory has the name that the kernel gave it, of which /proc makes more.
#[test]
fn root_what_is_no_file_has_a_name() {
    if unless_root() {
        return;
    }
    let own = Directory::new("removed");
    let path = own.0.join("removed");
    let removed = create(&path);
    let there = link(&removed);
    fs::remove_file(&path).unwrap();
    assert_eq!(link(&removed), [&there[..], b" (deleted)"].concat());
    // SAFETY: a descriptor is made, which nobody else knows.
    let [event, memory] = unsafe { [libc::eventfd(0, 0), libc::memfd_create(c"mine".as_ptr(), 0)] }
        .map(|number| unsafe { OwnedFd::from_raw_fd(number) });
    let (socket, _other) = UnixStream::pair().unwrap();
    let (pipe, _writer) = io::pipe().unwrap();
    assert_eq!(link(&event), b"anon_inode:[eventfd]");
    assert_eq!(link(&memory), b"/memfd:mine (deleted)");
    let rows = values(
        &[removed, event, memory, pipe.into(), socket.into()],
        &[&format!("path({FILE})"), &format!("{FILE} == 0")],
    );
    let paths: Vec<&Value> = rows.iter().map(|row| &row[0]).collect();
    let there = over_mounts(&root_of_mounts(), &there);
    assert_eq!(paths[..4], [&text(&there), &text(b"[eventfd]"), &text(b"memfd:mine"), &text(b"")]);
    assert!(matches!(paths[4], Value::Text { bytes, cut: false } if !bytes.contains(&b'/')), "{paths:?}");
}

#[test]
fn root_what_is_not_open_has_no_path() {
    if unless_root() {
        return;
    }
    // Numbers are shared with the threads of other tests, so who asks gets a table of its own, in which the highest
    // number that there is room for from the start is not open.
    let (tell, told) = mpsc::channel();
    let (go, gone) = mpsc::channel::<()>();
    let asker = thread::spawn(move || {
        // None of the others' either: a copy would keep their programs attached.
        // SAFETY: this thread alone is changed; it owns none of them and ends with the test.
        let result = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_UNSHARE) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        tell.send(when()).unwrap();
        gone.recv().unwrap();
        ask(63);
    });
    let values = [format!("path({FILE})"), "path(task.mm.exe_file)".to_owned()];
    let declaration =
        probe(&["rawtracepoint:sys_enter"], &told.recv().unwrap(), &values.each_ref().map(String::as_str));
    let seen = trace(&declaration, || {
        go.send(()).unwrap();
        asker.join().unwrap();
    });
    assert!(matches!(&seen.rows[..], [row] if row[0] == Value::Absent && row[1] != Value::Absent), "{:?}", seen.rows);
}
