//! The account: every hit is filtered, emitted or lost, and what is emitted is delivered, to the last one.

mod e2e;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use e2e::guest::{OK, on_events};
use e2e::host::Run;
use e2e::load::{as_thread, getppid};
use e2e::{Directory, is_root, plugin, unique};

#[test]
fn root_filtered_events_are_counted() {
    if !is_root() {
        return;
    }
    let (comm, other) = (unique(), unique());
    let host = Run::new(&plugin("calls")).arg("--comm").arg(&comm).attach();
    getppid(&comm, 700);
    getppid(&other, 5000);
    let ended = host.interrupt().successful();
    let counts = ended.counts("calls", "call");
    assert_eq!((counts.emitted, counts.delivered, counts.lost), (700, 700, 0));
    assert!(counts.filtered >= 5000, "{counts:?}");
}

/// A handler of 10 µs and more for each event, and a ring of some thousand: most events are lost, and none of them
/// silently.
#[test]
fn root_a_slow_handler_loses_events_and_the_account_adds_up() {
    if !is_root() {
        return;
    }
    let comm = unique();
    let slow = Run::new(&plugin("calls")).option("--ring-size=64K").args("--spin 20000 --comm").arg(&comm);
    let host = slow.attach();
    let calls = 200_000;
    getppid(&comm, calls);
    let ended = host.interrupt().successful();
    let counts = ended.counts("calls", "call");
    assert!(counts.lost > 0, "{counts:?}");
    assert_eq!(counts.emitted + counts.lost, calls);
    assert_eq!(counts.emitted, counts.delivered);
    // The plugin's own count, and the sum of what `batch.lost()` told it.
    let total = &ended.rows()[0]["fields"];
    assert_eq!(total["events"], counts.delivered, "{total}");
    assert_eq!(total["sum"], counts.delivered * u64::from(std::process::id()));
    assert_eq!(total["lost"], counts.lost);
}

/// Records that no ring has room for: not one event arrives to tell of the loss.
#[test]
fn root_a_handler_learns_of_losses_without_events() {
    if !is_root() {
        return;
    }
    let comm = unique();
    let run = Run::new(&plugin("hostile")).option("--ring-size=4K").args("--do count --in stop --comm").arg(&comm);
    let openat = "tracepoint:syscalls:sys_enter_openat";
    let host = run.arg("--attach").arg(openat).arg("--value").arg("str(args.filename, 4096)").attach();
    let long = "x".repeat(4095);
    as_thread(&comm, move || (0..7).for_each(|_| assert!(File::open(&long).is_err(), "no path is so long")));
    let ended = host.interrupt().successful();
    let counts = ended.counts("hostile", "call");
    assert_eq!((counts.emitted, counts.lost), (0, 7));
    assert_eq!(ended.rows()[0]["fields"], serde_json::json!({ "events": 0, "lost": 7 }));
}

/// One plugin's slowness is nobody else's loss.
#[test]
fn root_a_slow_plugin_loses_only_its_own_events() {
    if !is_root() {
        return;
    }
    let (directory, comm) = (Directory::new("slow"), unique());
    // 0.1 s or so for each batch, and 1 s is allowed.
    let spin = "(local.set $i (i32.const 50000000)) (loop $l (br_if $l (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))";
    let slow = directory.file("slow.wasm", on_events(&format!("{spin} (i32.const {OK})")));
    let run = Run::new(&plugin("calls")).plugin(&slow).option("--ring-size=64K").args("--rows --comm").arg(&comm);
    let host = run.attach();
    // Never more at once than a ring has room for, and then only when the quick one has got them all.
    let (bursts, calls) = (50, 500);
    for burst in 1..=bursts {
        getppid(&comm, calls);
        host.wait_for_rows((burst * calls) as usize);
    }
    let ended = host.interrupt().successful();
    let (quick, slow) = (ended.counts("calls", "call"), ended.counts("slow", "call"));
    assert_eq!((quick.delivered, quick.lost), (bursts * calls, 0));
    assert!(slow.lost > 0, "{slow:?}");
    assert!(slow.emitted + slow.lost >= bursts * calls);
    assert_eq!(slow.emitted, slow.delivered);
}

/// Nobody reads the rows until all is over: the plugin waits, its ring fills, and what finds no room is counted.
#[test]
fn root_a_reader_that_is_slow_makes_no_event_vanish() {
    if !is_root() {
        return;
    }
    let comm = unique();
    let (mut reader, writer) = std::io::pipe().expect("a pipe can be made");
    let run = Run::new(&plugin("calls")).option("--ring-size=64K").args("--rows --comm").arg(&comm);
    let host = run.stdout(writer).attach();
    let calls = 100_000;
    getppid(&comm, calls);
    host.signal(libc::SIGINT);
    let mut printed = String::new();
    reader.read_to_string(&mut printed).expect("rows are UTF-8");
    let ended = host.finish().successful();
    let counts = ended.counts("calls", "call");
    assert!(counts.lost > 0, "{counts:?}");
    assert_eq!(counts.emitted + counts.lost, calls, "{counts:?}");
    assert_eq!(counts.emitted, counts.delivered);
    let rows = printed.lines().filter(|row| row.contains(r#""event":"call""#)).count();
    assert_eq!(rows as u64, counts.delivered);
}

#[test]
fn root_the_report_tells_what_the_run_cost() {
    if !is_root() {
        return;
    }
    let ended = Run::new(&plugin("opens")).plugin(&plugin("execs")).option("--duration=0.1").finish().successful();
    let report = ended.report.as_ref().expect("there is a report");
    for name in ["startup_cpu_ms", "startup_wall_ms", "cpu_ms", "wall_ms"] {
        let value = report[name].as_f64().unwrap_or_else(|| panic!("no {name} in {report}"));
        assert!(value > 0.0, "{name}: {value}");
    }
    assert!(
        report["wall_ms"].as_f64() >= report["startup_wall_ms"].as_f64().map(|startup| startup + 100.0),
        "{report}"
    );
    assert!(report["cpu_ms"].as_f64() >= report["startup_cpu_ms"].as_f64(), "{report}");
    // More than a page, less than the machine.
    assert!(report["peak_rss_kib"].as_u64().is_some_and(|kib| (1000..1 << 30).contains(&kib)), "{report}");
    let plugins = report["plugins"].as_array().map(Vec::as_slice);
    let Some([opens, execs]) = plugins else { panic!("{report}") };
    assert_eq!((&opens["plugin"], &execs["plugin"]), (&"opens".into(), &"execs".into()));
    assert_eq!(probes(opens), ["enter", "enter_creat", "exit"]);
    assert_eq!(probes(execs), ["exec"]);
    let expected = ["probe", "hits", "filtered", "emitted", "delivered", "lost", "faults", "missed"];
    let mut names: Vec<_> = execs["probes"][0].as_object().expect("it is an object").keys().collect();
    names.sort_by_key(|name| expected.iter().position(|other| other == name));
    assert_eq!(names, expected);
}

fn probes(plugin: &Value) -> Vec<&str> {
    plugin["probes"].as_array().into_iter().flatten().filter_map(|probe| probe["probe"].as_str()).collect()
}

#[test]
fn root_a_report_that_cannot_be_written_is_told_before_anything_is_attached() {
    if !is_root() {
        return;
    }
    let run = |report: &str| {
        let run = Run::new(&plugin("calls")).report(Path::new(report)).option("--duration=0.1").finish();
        assert_eq!(run.status.code(), Some(1), "{}", run.stderr);
        run.stderr
    };
    let message = run("/nowhere/report.json");
    assert!(message.contains("error: /nowhere/report.json cannot be written: No such file"), "{message}");
    assert!(!message.contains("Attached"), "{message}");
    // That there is no room shows only at the end.
    let message = run("/dev/full");
    assert!(message.contains("error: /dev/full cannot be written: No space left"), "{message}");
}

/// While a host runs, SIGUSR1 asks for it.
#[test]
fn root_the_account_can_be_asked_for() {
    if !is_root() {
        return;
    }
    let comm = unique();
    let mut host = Run::new(&plugin("calls")).arg("--comm").arg(&comm).attach();
    for sum in [1000, 2000] {
        getppid(&comm, 1000);
        host.signal(libc::SIGUSR1);
        let line = host.wait_for("calls ");
        let numbers: Vec<u64> = line.split_whitespace().skip(2).map(|word| word.parse().expect("a number")).collect();
        let [hits, filtered, emitted, delivered, lost, _missed] = numbers[..] else { panic!("{line}") };
        assert_eq!((emitted, delivered, lost), (sum, sum, 0));
        assert_eq!(hits, filtered + emitted + lost);
    }
    assert_eq!(host.interrupt().successful().counts("calls", "call").delivered, 2000);
}

/// The account on stderr is the report's.
#[test]
fn root_the_account_is_printed() {
    if !is_root() {
        return;
    }
    let comm = unique();
    let host = Run::new(&plugin("calls")).arg("--comm").arg(&comm).attach();
    getppid(&comm, 1234);
    let ended = host.interrupt().successful();
    let counts = ended.counts("calls", "call");
    let lines: Vec<Vec<&str>> = ended.stderr.lines().map(|line| line.split_whitespace().collect()).collect();
    let heading = ["PLUGIN", "PROBE", "HITS", "FILTERED", "EMITTED", "DELIVERED", "LOST", "MISSED"];
    let at = lines.iter().position(|line| line[..] == heading).expect("the account has a heading");
    let numbers = [counts.hits, counts.filtered, 1234, 1234, 0, counts.missed].map(|number| number.to_string());
    assert_eq!(lines[at + 1][..2], ["calls", "call"]);
    assert_eq!(lines[at + 1][2..], numbers);
}

/// Reads through pointers into memory that is not there are counted, and null is none of them.
#[test]
fn root_reads_that_fail_are_counted() {
    if !is_root() {
        return;
    }
    let comm = unique();
    let run = Run::new(&plugin("hostile")).args("--do count --in stop --comm").arg(&comm);
    let openat = "tracepoint:syscalls:sys_enter_openat";
    let mut host = run.arg("--attach").arg(openat).arg("--value").arg("str(args.filename)").attach();
    as_thread(&comm, || {
        // SAFETY: a new page, which nothing else uses, is made and given back.
        let gone = unsafe {
            let (prot, flags) = (libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            let page = libc::mmap(std::ptr::null_mut(), 4096, prot, flags, -1, 0);
            libc::munmap(page, 4096);
            page
        };
        for (path, times) in [(gone.cast_const().cast(), 7), (std::ptr::null(), 20), (c"/nowhere".as_ptr(), 100)] {
            for _ in 0..times {
                // SAFETY: the kernel looks at the path for itself, and says so where there is none.
                let file = unsafe { libc::openat(libc::AT_FDCWD, path, libc::O_RDONLY) };
                assert_eq!(file, -1);
            }
        }
    });
    host.signal(libc::SIGUSR1);
    let line = host.wait_for("hostile ");
    assert_eq!(line.split_whitespace().next_back(), Some("7"), "{line}");
    let ended = host.interrupt().successful();
    let counts = ended.counts("hostile", "call");
    assert_eq!((counts.emitted, counts.delivered, counts.faults), (127, 127, 7));
    assert!(ended.stderr.contains(" MISSED  FAULTS\n"), "{}", ended.stderr);
}
