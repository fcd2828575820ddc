//! The example `files`: what it says of files that are opened, renamed and removed, against stat(2) and the kernel's
//! list of mounts.

mod e2e;

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use porthole::kernel::kfunc::ProgramKind;
use porthole::kernel::{Answer, Feature, KernelFacts};
use porthole_tests::live::{mount_of, root_of_mounts};
use serde_json::{Value, json};

use e2e::host::{Ended, Run};
use e2e::load::as_thread;
use e2e::{Directory, is_root, plugin, porthole, says, unique};

const SIZE: usize = 4711;
const OWNER: u32 = 4712;
const ORIGIN: &str = "https://example.com/a?b=c";

/// What a file or directory is, as the kernel tells it otherwise: number, size and owner by stat(2), device and type of
/// the file system by the list of mounts. An overlay has numbers of its own for stat(2): none there.
#[derive(Clone, Debug)]
struct Truth {
    inode: Option<u64>,
    size: u64,
    owner: u32,
    major: u64,
    minor: u64,
    fs: String,
}

impl Truth {
    fn of(file: &File) -> Truth {
        let stat = file.metadata().expect("it is open");
        let mount = mount_of(file);
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").expect("procfs is mounted");
        let of_mount = |line: &&str| line.split(' ').next() == Some(&mount);
        // proc_pid_mountinfo(5): number, parent, device, root, mount point, options, fields in no number, a dash, type.
        let line = mounts.lines().find(of_mount).expect("the mount is there");
        let (major, minor) = line.split(' ').nth(2).and_then(|device| device.split_once(':')).expect("a device");
        let number = |text: &str| text.parse::<u64>().expect("a number");
        let (major, minor) = (number(major), number(minor));
        let fs = line.split(" - ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a type").to_owned();
        let inode = (fs != "overlay").then(|| {
            assert_eq!(stat.dev(), libc::makedev(major as u32, minor as u32), "{line}");
            stat.ino()
        });
        if inode.is_none() {
            println!("skipped: numbers of files of an overlay");
        }
        Truth { inode, size: stat.len(), owner: stat.uid(), major, minor, fs }
    }

    /// Looks at the columns that a row has of it.
    fn told(&self, row: &Value, columns: &[&str]) {
        let fields = &row["fields"];
        for column in columns {
            let expected = match *column {
                "inode" => self.inode.map_or_else(|| fields["inode"].clone(), Value::from),
                "size" => self.size.into(),
                "owner" => self.owner.into(),
                "major" => self.major.into(),
                "minor" => self.minor.into(),
                "fs" => self.fs.clone().into(),
                other => panic!("{other}"),
            };
            assert_eq!(fields[column], expected, "{column} of {row}");
        }
    }
}

const OF_DIRECTORY: [&str; 4] = ["inode", "major", "minor", "fs"];
const OF_FILE: [&str; 6] = ["inode", "size", "owner", "major", "minor", "fs"];

fn text(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no 0 is in it")
}

fn mount_tmpfs(at: &Path) {
    // SAFETY: all of them are texts that outlive the calls, or null; this thread alone gets mounts of its own.
    let result = unsafe {
        libc::unshare(libc::CLONE_NEWNS);
        let private = libc::MS_REC | libc::MS_PRIVATE;
        libc::mount(c"none".as_ptr(), c"/".as_ptr(), std::ptr::null(), private, std::ptr::null());
        libc::mount(c"none".as_ptr(), text(at).as_ptr(), c"tmpfs".as_ptr(), 0, std::ptr::null())
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

/// What was done in one directory, and what is true of it.
struct Done {
    directory: Truth,
    file: Truth,
    /// Whether the file could be given the attribute.
    has_origin: bool,
}

/// Makes a file here, opens it, and renames and removes it by a name that begins at an open directory, and by one that
/// begins at the root.
fn work(at: &Path) -> Done {
    let directory = File::open(at).expect("it is there");
    let (a, b, c) = (at.join("a"), at.join("b"), at.join("c"));
    fs::write(&a, [b'x'; SIZE]).expect("the directory can be written");
    chown(&a, Some(OWNER), None).expect("this is root");
    let path = text(&a);
    // SAFETY: the texts end in a 0, and the value is as long as is said.
    let set = unsafe {
        let name = c"user.xdg.origin.url";
        libc::setxattr(path.as_ptr(), name.as_ptr(), ORIGIN.as_ptr().cast(), ORIGIN.len(), 0)
    };
    let file = File::open(&a).expect("it is there");
    let number = directory.as_raw_fd();
    // SAFETY: the names end in a 0, and the directory is open.
    unsafe {
        assert_eq!(libc::renameat(number, c"a".as_ptr(), number, c"b".as_ptr()), 0);
        fs::rename(&b, &c).expect("it is there");
        assert_eq!(libc::unlinkat(number, c"none".as_ptr(), 0), -1);
        assert_eq!(libc::unlinkat(number, c"c".as_ptr(), 0), 0);
    }
    fs::create_dir(at.join("d")).expect("the directory can be written");
    fs::remove_dir(at.join("d")).expect("it is empty");
    Done { directory: Truth::of(&directory), file: Truth::of(&file), has_origin: set == 0 }
}

/// Rows of these events, in their order.
fn rows<'r>(rows: &'r [Value], event: &str, select: impl Fn(&Value) -> bool) -> Vec<&'r Value> {
    rows.iter().filter(|row| row["event"] == event && select(&row["fields"])).collect()
}

fn ran(option: &str, probes: &[&str]) -> (Ended, Directory, [Done; 2]) {
    let (own, comm) = (Directory::new("files"), unique());
    for name in ["root", "tmpfs"] {
        fs::create_dir(own.path().join(name)).expect("it is ours");
    }
    let host = Run::new(&plugin("files")).args(option).arg("--comm").arg(&comm).attach();
    let at = own.path().to_owned();
    let done = as_thread(&comm, move || {
        mount_tmpfs(&at.join("tmpfs"));
        ["root", "tmpfs"].map(|name| work(&at.join(name)))
    });
    assert_eq!(done[1].file.fs, "tmpfs");
    assert_ne!((done[0].file.major, done[0].file.minor), (done[1].file.major, done[1].file.minor));
    let ended = host.interrupt().successful();
    for probe in probes {
        let counts = ended.counts("files", probe);
        assert_eq!((counts.lost, counts.emitted), (0, counts.delivered), "{probe}");
    }
    (ended, own, done)
}

#[test]
fn root_files_are_what_stat_tells() {
    if !is_root() {
        return;
    }
    let (ended, own, done) = ran("", &["opened", "changed"]);
    let (all, root) = (ended.rows(), root_of_mounts());
    for (name, done) in ["root", "tmpfs"].into_iter().zip(&done) {
        let at = own.path().join(name);
        let path = |name: &str| at.join(name).display().to_string();
        let here = format!("{root}{}", at.display());

        // Opened by fs::write, and then as it has become.
        let [made, opened] = rows(&all, "opened", |fields| fields["path"] == format!("{here}/a"))[..] else {
            panic!("{all:#?}")
        };
        assert_eq!((&made["fields"]["size"], &made["fields"]["owner"]), (&json!(0), &json!(0)));
        done.file.told(opened, &OF_FILE);
        let [directory] = rows(&all, "opened", |fields| fields["path"] == here)[..] else { panic!("{all:#?}") };
        done.directory.told(directory, &OF_DIRECTORY);

        let from = |directory: &str, path: &str| {
            let of = |fields: &Value| fields["directory"] == directory && fields["path"].as_str() == Some(path);
            rows(&all, "changed", of)
        };
        // The directory's own number, where the name begins there; the C library's call has another name than the
        // system call on some machines.
        for (call, name, to, result) in [
            ("renameat", "a", json!("b"), json!(0)),
            ("unlinkat", "none", Value::Null, json!("ENOENT")),
            ("unlinkat", "c", Value::Null, json!(0)),
        ] {
            let [row] = from(&here, name)[..] else { panic!("{name}: {all:#?}") };
            let fields = &row["fields"];
            assert!(fields["call"].as_str().is_some_and(|told| told.starts_with(call)), "{row}");
            assert_eq!((&fields["to"], &fields["result"]), (&to, &result), "{row}");
            done.directory.told(row, &OF_DIRECTORY);
        }
        for (name, to) in [("b", json!(path("c"))), ("d", Value::Null)] {
            let [row] = from(if root.is_empty() { "/" } else { &root }, &path(name))[..] else {
                panic!("{name}: {all:#?}")
            };
            assert_eq!((&row["fields"]["to"], &row["fields"]["result"]), (&to, &json!(0)), "{row}");
        }
    }
}

/// Whether a program at `lsm:file_open` may call it.
fn may_call(facts: &KernelFacts, kfunc: &str) -> bool {
    let is_there = facts.kfunc(kfunc).is_ok_and(|found| found.is_some());
    is_there && facts.may_call(kfunc, ProgramKind::LsmSleepable) == Answer::Yes
}

#[test]
fn root_hooks_tell_of_files_before_they_change() {
    if !is_root() {
        return;
    }
    let facts = KernelFacts::running();
    if let Answer::No(why) = facts.offers(Feature::Lsm) {
        println!("skipped: this kernel has no lsm: {why}");
        return;
    }
    let (ended, own, done) = ran("--lsm", &["open", "remove", "rename"]);
    let (all, root) = (ended.rows(), root_of_mounts());
    let reads_origin = may_call(&facts, "bpf_get_file_xattr");
    let reads_own_path = may_call(&facts, "bpf_path_d_path");
    for (lacking, what) in [(!reads_origin, "bpf_get_file_xattr"), (!reads_own_path, "bpf_path_d_path")] {
        if lacking {
            println!("skipped: this kernel does not have {what}");
        }
    }
    for (name, done) in ["root", "tmpfs"].into_iter().zip(&done) {
        let at = own.path().join(name);
        let path = at.join("a").display().to_string();
        // Those of this file system: an overlay opens, renames and removes a file of another one beneath it, at the
        // same hooks.
        let here =
            |fields: &Value| (&fields["major"], &fields["minor"]) == (&done.file.major.into(), &done.file.minor.into());
        let this = |fields: &Value| here(fields) && fields["path"] == format!("{root}{path}");
        let [_, open] = rows(&all, "open", this)[..] else { panic!("{all:#?}") };
        done.file.told(open, &OF_FILE);
        let fields = &open["fields"];
        assert_eq!(fields["own_path"], if reads_own_path { json!(path) } else { Value::Null }, "{open}");
        assert_eq!(
            fields["origin"],
            if reads_origin && done.has_origin { json!(ORIGIN) } else { Value::Null },
            "{open}"
        );

        // The file itself, whatever it is called by now; paths begin at the root of its file system.
        let of = |what: &str| rows(&all, "change", |fields| fields["what"] == what && here(fields));
        let [first, second] = of("rename")[..] else { panic!("{all:#?}") };
        let [unlinked] = of("unlink")[..] else { panic!("{all:#?}") };
        let [directory] = of("rmdir")[..] else { panic!("{all:#?}") };
        for (row, name, to) in
            [(first, "/a", Some("/b")), (second, "/b", Some("/c")), (unlinked, "/c", None), (directory, "/d", None)]
        {
            let ends =
                |column: &str, with: &str| row["fields"][column].as_str().is_some_and(|path| path.ends_with(with));
            assert!(ends("path", name), "{row}");
            assert!(to.map_or(row["fields"]["to"].is_null(), |to| ends("to", to)), "{row}");
            if done.file.fs == "tmpfs" {
                assert_eq!(row["fields"]["path"], name, "{row}");
            }
        }
        for row in [first, second, unlinked] {
            done.file.told(row, &OF_FILE);
            assert_eq!(row["fields"]["links"], 1, "{row}");
        }
    }
}

/// Where programs of security modules cannot be loaded, they are compiled all the same.
#[test]
fn hooks_compile_on_this_kernel() {
    let checked = porthole().arg("check").arg(plugin("files")).args(["--", "--lsm"]).output().expect("it can be run");
    let (stdout, stderr) = (String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
    assert!(checked.status.success(), "{stderr}");
    says(&stdout, &["program open_0 in lsm", "program remove_0 in lsm/inode_unlink:\n"]);
    says(&stdout, &["program remove_1 in lsm/inode_rmdir:\n", "program rename_0 in lsm/inode_rename:\n"]);
    says(
        &stdout,
        &["probe open\n", "own_path = bpf_path_d_path(&args.file.f_path, 256) : text of at most 256 bytes\n"],
    );
    says(&stdout, &["origin = bpf_get_file_xattr(args.file, \"user.xdg.origin.url\") : text of at most 256 bytes\n"]);
    // A call that may sleep makes the program one that may: `lsm.s`.
    let facts = KernelFacts::running();
    let sleeps = facts.kfunc("bpf_get_file_xattr").is_ok_and(|found| found.is_some());
    says(
        &stdout,
        &[if sleeps { "program open_0 in lsm.s/file_open:\n" } else { "program open_0 in lsm/file_open:\n" }],
    );
}
