//! Plugins on the running kernel: each event comes, once, with the right values, and goes to the plugin that asked for
//! it.

mod e2e;

#[path = "run/wasi.rs"]
mod wasi;

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use e2e::host::{Ended, Run};
use e2e::kernel::{self, Objects};
use e2e::load::{as_thread, getppid};
use e2e::{Directory, is_root, plugin, unique};

/// Opens these files in a thread with this comm; gives each one's path and what came of it: the descriptor, or the
/// error's number, negative.
fn open_all(comm: &str, paths: Vec<PathBuf>) -> Vec<(PathBuf, i64)> {
    let open = |path: PathBuf| {
        let result = match File::open(&path) {
            Ok(file) => i64::from(file.as_raw_fd()),
            Err(error) => -i64::from(error.raw_os_error().expect("it comes from the kernel")),
        };
        (path, result)
    };
    as_thread(comm, move || paths.into_iter().map(open).collect())
}

/// Rows of one event whose path lies in a directory.
fn rows_below(ended: &Ended, event: &str, directory: &Path) -> Vec<Value> {
    let below = |row: &Value| {
        let path = row["fields"]["path"].as_str();
        row["event"] == event && path.is_some_and(|path| Path::new(path).starts_with(directory))
    };
    ended.rows().into_iter().filter(below).collect()
}

#[test]
fn root_a_thousand_opens_give_a_thousand_rows() {
    if !is_root() {
        return;
    }
    let (files, comm) = (Directory::new("opens"), unique());
    let host = Run::new(&plugin("opens")).arg("--comm").arg(&comm).attach();
    // Every third file is not there.
    let path = |n: u32| {
        if n.is_multiple_of(3) { files.path().join(format!("none-{n}")) } else { files.file(&format!("{n}"), "") }
    };
    let opened = open_all(&comm, (0..1000).map(path).collect());
    let ended = host.interrupt().successful();

    let rows = rows_below(&ended, "open", files.path());
    let row = |row: &Value| {
        let fields = &row["fields"];
        assert_eq!(fields["pid"], std::process::id());
        assert_eq!(fields["comm"], comm);
        assert_eq!(fields["error"] == "ENOENT", fields["result"] == -2, "{row}");
        assert!(row["time_ns"].is_u64());
        (fields["path"].as_str().expect("a path").into(), fields["result"].as_i64().expect("a number"))
    };
    let traced: Vec<(PathBuf, i64)> = rows.iter().map(row).collect();
    assert_eq!(traced, opened, "one row for each, in their order");
    assert_eq!(traced.iter().filter(|(_, result)| *result == -2).count(), 334);
    let counts = ended.counts("opens", "enter");
    assert_eq!((counts.lost, counts.emitted), (0, counts.delivered));
}

#[test]
fn root_a_hundred_execs_give_a_hundred_rows() {
    if !is_root() {
        return;
    }
    let programs = Directory::new("execs");
    let host = Run::new(&plugin("execs")).arg("--pid").arg(std::process::id().to_string()).attach();
    let start = |n: u32| {
        let path = programs.path().join(format!("true-{n}"));
        symlink("/bin/true", &path).expect("the directory can be written");
        let mut child = Command::new(&path).spawn().expect("it can be executed");
        child.wait().expect("it is a child");
        (path, child.id())
    };
    let started: Vec<(PathBuf, u32)> = (0..100).map(start).collect();
    let ended = host.interrupt().successful();

    let row = |row: &Value| {
        let fields = &row["fields"];
        assert_eq!(fields["ppid"], std::process::id());
        let path = PathBuf::from(fields["path"].as_str().expect("a path"));
        assert_eq!(fields["comm"].as_str().map(OsStr::new), path.file_name());
        (path, u32::try_from(fields["pid"].as_u64().expect("a number")).expect("a pid"))
    };
    let mut traced: Vec<_> = rows_below(&ended, "exec", programs.path()).iter().map(row).collect();
    traced.sort_unstable_by_key(|(_, pid)| started.iter().position(|(_, other)| other == pid));
    assert_eq!(traced, started);
    let counts = ended.counts("execs", "exec");
    assert_eq!((counts.lost, counts.emitted), (0, counts.delivered));
}

#[test]
fn root_two_plugins_do_not_mix() {
    if !is_root() {
        return;
    }
    let (files, comm) = (Directory::new("two"), unique());
    let host = Run::new(&plugin("opens")).plugin(&plugin("calls")).arg("--comm").arg(&comm).attach();
    getppid(&comm, 500);
    let opened = open_all(&comm, (0..500).map(|n| files.file(&format!("{n}"), "")).collect());
    let ended = host.interrupt().successful();
    for row in ended.rows() {
        let expected = if row["plugin"] == "opens" { "open" } else { "total" };
        assert_eq!(row["event"], expected, "{row}");
    }
    let paths = rows_below(&ended, "open", files.path()).into_iter().map(|row| row["fields"]["path"].clone());
    let expected = opened.iter().map(|(path, _)| Value::from(path.to_str()));
    assert!(paths.eq(expected), "{}", ended.rows().len());
    assert_eq!(ended.counts("calls", "call").delivered, 500);
    assert_eq!(ended.counts("opens", "enter").delivered, ended.counts("opens", "exit").delivered);
}

/// The same plugin under two names: each has a ring and counters of its own.
#[test]
fn root_one_plugin_twice_gets_everything_twice() {
    if !is_root() {
        return;
    }
    let (copies, comm) = (Directory::new("twice"), unique());
    let component = fs::read(plugin("calls")).expect("it is built");
    let (one, two) = (copies.file("one.wasm", &component), copies.file("two.wasm", &component));
    let host = Run::new(&one).plugin(&two).arg("--comm").arg(&comm).arg("--rows").attach();
    getppid(&comm, 300);
    let ended = host.interrupt().successful();
    for name in ["one", "two"] {
        let of =
            |event: &str| ended.rows().into_iter().filter(|row| row["plugin"] == name && row["event"] == event).count();
        assert_eq!((of("call"), of("total")), (300, 1));
        assert_eq!(ended.counts(name, "call").delivered, 300);
    }
}

/// Other plugins do not run where one of them cannot.
#[test]
fn root_all_plugins_or_none() {
    if !is_root() {
        return;
    }
    // `opens` knows no --rows, and plugins share their arguments.
    let run = Run::new(&plugin("calls")).plugin(&plugin("opens")).args("--rows");
    let ended = kernel::leaving_nothing(|| run.finish());
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("error: opens: declare: ") && !ended.stderr.contains("Attached"), "{}", ended.stderr);
}

/// Its events come from all of them, and the account is of all together.
#[test]
fn root_one_probe_at_several_attach_points() {
    if !is_root() {
        return;
    }
    let (files, comm) = (Directory::new("several"), unique());
    let points = "tracepoint:syscalls:sys_enter_getppid,tracepoint:syscalls:sys_exit_getppid,tracepoint:syscalls:sys_enter_openat";
    let host = Run::new(&plugin("hostile")).arg("--attach").arg(points).arg("--comm").arg(&comm).attach();
    let objects = Objects::of_process(host.pid());
    assert_eq!((objects.programs.len(), objects.links.len()), (3, 3), "{objects:?}");
    getppid(&comm, 10);
    open_all(&comm, (0..5).map(|n| files.file(&format!("{n}"), "")).collect());
    let ended = host.interrupt().successful();
    let counts = ended.counts("hostile", "call");
    assert_eq!((counts.delivered, counts.lost), (10 + 10 + 5, 0));
    assert_eq!(ended.rows().len(), 25);
}

#[test]
fn root_a_path_that_is_not_utf8_is_escaped_without_loss() {
    if !is_root() {
        return;
    }
    let (files, comm) = (Directory::new("bytes"), unique());
    let name = OsStr::from_bytes(b"caf\xe9 \xff\\x\xc3\xa9\n");
    let host = Run::new(&plugin("opens")).arg("--comm").arg(&comm).attach();
    let opened = open_all(&comm, vec![files.path().join(name)]);
    let ended = host.interrupt().successful();
    let escaped = format!("{}/caf\\xe9 \\xff\\\\x\u{e9}\n", files.path().display());
    let rows = ended.rows();
    let paths: Vec<_> = rows.iter().filter_map(|row| row["fields"]["path"]["escaped"].as_str()).collect();
    assert_eq!(paths, [escaped]);
    assert_eq!(opened[0].1, -2);
}

/// A pointer to nothing: the field is absent, and the row comes all the same.
#[test]
fn root_a_path_that_cannot_be_read_is_null() {
    if !is_root() {
        return;
    }
    let comm = unique();
    let host = Run::new(&plugin("opens")).arg("--comm").arg(&comm).attach();
    let empty = CString::default();
    as_thread(&comm, move || {
        // SAFETY: the kernel refuses the first pointer, which is null, and reads the second, an empty text.
        unsafe {
            libc::open(std::ptr::null(), libc::O_RDONLY);
            libc::open(empty.as_ptr(), libc::O_RDONLY);
        }
    });
    let ended = host.interrupt().successful();
    let rows = ended.rows();
    let fields: Vec<_> = rows.iter().map(|row| (&row["fields"]["path"], &row["fields"]["error"])).collect();
    assert_eq!(fields.len(), 2, "{rows:?}");
    assert_eq!(fields[0], (&Value::Null, &"EFAULT".into()));
    assert_eq!(fields[1], (&"".into(), &"ENOENT".into()));
}

/// While the host runs, not only at its end; also where ticks come as often as batches do.
#[test]
fn root_events_come_at_once() {
    if !is_root() {
        return;
    }
    for tick in ["", "--tick 10", "--tick 13"] {
        let comm = unique();
        let host = Run::new(&plugin("calls")).args("--rows").args(tick).arg("--comm").arg(&comm).attach();
        for n in 1..=100 {
            getppid(&comm, 1);
            host.wait_for_rows(n);
        }
        host.interrupt().successful();
    }
}

/// A ring that is sent to and read at the same time, for seconds on end: were one wake-up lost, the rest would never
/// come.
#[test]
fn root_no_wake_up_is_lost_at_full_speed() {
    if !is_root() {
        return;
    }
    let (comm, calls) = (unique(), 1_000_000);
    let run = Run::new(&plugin("calls")).option("--ring-size=256M").args(&format!("--every {calls}"));
    let host = run.arg("--comm").arg(&comm).attach();
    for n in 1..=5 {
        getppid(&comm, calls);
        host.wait_for_rows(n);
    }
    let counts = host.interrupt().successful().counts("calls", "call");
    assert_eq!((counts.delivered, counts.lost), (5 * calls, 0));
}

#[test]
fn root_ctrl_c_drains_what_is_in_the_ring() {
    if !is_root() {
        return;
    }
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let comm = unique();
        let host = Run::new(&plugin("calls")).arg("--comm").arg(&comm).arg("--rows").attach();
        getppid(&comm, 20_000);
        host.signal(signal);
        let ended = host.finish().successful();
        assert_eq!(ended.rows().iter().filter(|row| row["event"] == "call").count(), 20_000);
        let total = ended.rows().pop().expect("stop() sends a row");
        assert_eq!((&total["event"], &total["fields"]["events"]), (&"total".into(), &20_000.into()));
    }
}

#[test]
fn root_nothing_is_left_behind() {
    if !is_root() {
        return;
    }
    kernel::leaving_nothing(|| {
        let host = Run::new(&plugin("opens")).plugin(&plugin("execs")).attach();
        let objects = Objects::of_process(host.pid());
        assert!(!objects.programs.is_empty(), "{objects:?}");
        host.interrupt().successful();
        kernel::gone(&objects);
    });
}

#[test]
fn root_kill_9_leaves_nothing_attached() {
    if !is_root() {
        return;
    }
    kernel::leaving_nothing(|| {
        let host = Run::new(&plugin("opens")).plugin(&plugin("execs")).attach();
        let objects = Objects::of_process(host.pid());
        // 4 + 4 tracepoints and 1 raw tracepoint.
        assert_eq!((objects.programs.len(), objects.links.len()), (9, 9), "{objects:?}");
        host.signal(libc::SIGKILL);
        assert_eq!(host.finish().status.code(), None);
        kernel::gone(&objects);
    });
}

#[test]
fn root_the_duration_ends_the_run() {
    if !is_root() {
        return;
    }
    let start = Instant::now();
    let ended = Run::new(&plugin("calls")).option("--duration=0.3").finish().successful();
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert_eq!(ended.rows().len(), 1, "the row of stop()");
}

#[test]
fn root_a_plugin_may_end_its_own_run() {
    if !is_root() {
        return;
    }
    for handler in ["start", "on-tick"] {
        let ended = Run::new(&plugin("hostile")).args(&format!("--do finish --in {handler}")).finish().successful();
        assert!(ended.report.is_some());
    }
}
