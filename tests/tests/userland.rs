//! Probes in programs and libraries, against what those programs did.

mod e2e;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use porthole::declare::Step;
use porthole::kernel::{Answer, Feature, KernelFacts};
use porthole::plan::{AttachPoint, plan};
use porthole_tests::facts;
use porthole_tests::live::{probe, this_thread, trace};
use porthole_tests::machine::Value;

use e2e::{Directory, is_root};

/// The program of `fixtures/user/shop.c`.
fn shop(directory: &Directory) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/user/shop.c");
    let program = directory.path().join("shop");
    let compiled = Command::new("cc").args(["-O2", "-o"]).args([&program, &source]).status().expect("cc is there");
    assert!(compiled.success());
    program
}

/// What a run of it prints.
fn run(program: &Path, calls: u32) -> String {
    let output = Command::new(program).arg(calls.to_string()).output().expect("the program runs");
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn text(text: &str) -> Value {
    Value::Text { bytes: text.as_bytes().to_vec(), cut: false }
}

#[test]
fn places_are_found_in_the_file() {
    let facts = facts::recorded();
    for (attach, offsets) in [
        ("uprobe:kiosk:open_kiosk", vec![0xb9]),
        ("u:/usr/bin/kiosk:open_kiosk+1", vec![0xba]),
        ("uprobe:kiosk:0x4000bc", vec![0xbc]),
        ("uprobe:kiosk:kiosk::Order::add(int)", vec![0xbf]),
        ("uprobe:kiosk:_ZN5kiosk5Order3addEd", vec![0xc2]),
        ("uretprobe:kiosk:kiosk::sell", vec![0xc5]),
        ("ur:kiosk:kiosk::count", vec![0xc8]),
        ("usdt:kiosk:kiosk:sale", vec![0xcd, 0xcf, 0xce]),
        ("usdt:kiosk:booth:closed", vec![0xd1]),
    ] {
        let plan = plan(&probe(&[attach], "true", &["pid"]), &facts).unwrap_or_else(|e| panic!("{e}"));
        let places = plan.probes[0].points.iter().flat_map(|point| match &point.attach {
            AttachPoint::User(point) => point.locations.iter().map(|l| l.offset).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        });
        assert_eq!(places.collect::<Vec<_>>(), offsets, "{attach}");
    }
}

#[test]
fn root_calls_of_another_process_have_their_arguments() {
    if !is_root() {
        return;
    }
    let directory = Directory::new("calls");
    let program = shop(&directory);
    let attach = format!("uprobe:{}:weigh", program.display());
    #[rustfmt::skip]
    let values = [
        "arg0", "arg1 & 0xffffffff", "arg4", "str(arg5)", "comm", "reg(\"di\") == arg0", "str(arg4)", "*(u32 *)arg5", "arg6",
        "str(arg7)",
        "reg(\"ip\")",
    ];
    let seen = trace(&probe(&[&attach], "arg0 % 2 == 0", &values), || {
        run(&program, 100);
    });
    assert_eq!((seen.counts.hits, seen.counts.filtered, seen.counts.lost), (100, 50, 0));
    assert_eq!(seen.rows.len(), 50);
    for (n, row) in seen.rows.iter().enumerate() {
        let expected = [
            Value::Unsigned(2 * n as u64),
            Value::Unsigned(u64::from((-2i32).cast_unsigned())),
            Value::Unsigned(0),
            text("plum"),
            text("shop"),
            Value::Boolean(true),
            Value::Absent,
            Value::Unsigned(u64::from(u32::from_le_bytes(*b"plum"))),
            Value::Unsigned(3 * 2 * n as u64),
            text("fig"),
        ];
        assert_eq!(row[..10], expected);
        // Programs are loaded page by page, so the last three digits are those of the file.
        let Value::Unsigned(ip) = row[10] else { panic!("{row:?}") };
        assert_eq!(ip % 0x1000, symbol(&program, "weigh") % 0x1000);
    }
}

/// The address that nm(1) tells.
fn symbol(program: &Path, name: &str) -> u64 {
    let output = Command::new("nm").arg(program).output().expect("nm is there");
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find(|line| line.ends_with(&format!(" {name}"))).expect("the symbol is there");
    u64::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap()
}

#[test]
fn root_an_address_is_a_place_too() {
    if !is_root() {
        return;
    }
    let directory = Directory::new("addresses");
    let program = shop(&directory);
    let address = symbol(&program, "weigh");
    let by_address = format!("uprobe:{}:{address:#x}", program.display());
    let in_decimals = format!("uprobe:{}:{address}", program.display());
    let seen = trace(&probe(&[&by_address, &in_decimals], "true", &["arg0"]), || {
        run(&program, 10);
    });
    assert_eq!(seen.counts.emitted, 20);
}

/// Each instruction of a function, as a place in it and by its address, in a program that is moved about in memory and
/// in one that is not.
#[test]
fn root_each_instruction_of_a_function_is_a_place() {
    if !is_root() {
        return;
    }
    let directory = Directory::new("instructions");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/user/shop.c");
    for (name, option) in [("moved", "-pie"), ("fixed", "-no-pie")] {
        let program = directory.path().join(name);
        let compiled = Command::new("cc").args(["-O2", option, "-o"]).args([&program, &source]).status().unwrap();
        assert!(compiled.success());
        let start = symbol(&program, "weigh");
        let mut objdump = Command::new("objdump");
        let listing = objdump.args(["-d", "--no-show-raw-insn", "--disassemble=weigh"]).arg(&program).output();
        let listing = String::from_utf8(listing.expect("objdump is there").stdout).unwrap();
        let addresses = listing.lines().filter_map(|line| line.trim().split_once(":\t"));
        let addresses: Vec<u64> = addresses.map(|(address, _)| u64::from_str_radix(address, 16).unwrap()).collect();
        assert!(addresses.len() > 3 && addresses[0] == start, "{listing}");
        let file = program.display();
        let points: Vec<String> = addresses
            .iter()
            .flat_map(|at| [format!("uprobe:{file}:weigh+{}", at - start), format!("uprobe:{file}:{at:#x}")])
            .chain([format!("uprobe:{file}:weigh+{:#x}", addresses[1] - start)])
            .collect();
        let points: Vec<&str> = points.iter().map(String::as_str).collect();
        let seen = trace(&probe(&points, "true", &["reg(\"ip\") & 0xfff"]), || {
            run(&program, 10);
        });
        // Each twice, and the second once more. What is behind a branch not all calls come by.
        let mut hits = std::collections::BTreeMap::new();
        for row in &seen.rows {
            let Value::Unsigned(at) = row[0] else { panic!("{row:?}") };
            *hits.entry(at).or_insert(0) += 1;
        }
        let at = |n: usize| addresses[n] & 0xfff;
        assert_eq!((hits[&at(0)], hits[&at(1)]), (20, 30), "{name}: {hits:?}\n{listing}");
        let known: Vec<u64> = addresses.iter().map(|address| address & 0xfff).collect();
        assert!(hits.keys().all(|at| known.contains(at)), "{name}: {hits:?}\n{listing}");
    }
}

#[test]
fn root_returns_have_their_values() {
    if !is_root() {
        return;
    }
    let directory = Directory::new("returns");
    let program = shop(&directory);
    let attach = format!("uretprobe:{}:weigh", program.display());
    let mut printed = String::new();
    let seen = trace(&probe(&[&attach], "true", &["retval"]), || printed = run(&program, 200));
    let sum = seen.rows.iter().fold(0u64, |sum, row| match row[0] {
        Value::Unsigned(value) => sum.wrapping_add(value),
        _ => panic!("{row:?}"),
    });
    assert_eq!(seen.rows.len(), 200);
    assert_eq!(printed, format!("0 {sum}"), "the program added up what its function gave");
}

/// What is known of the length of a call: it took no less and no more, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Took {
    inside: u64,
    outside: u64,
}

/// Calls itself so many times, and gives how many.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn porthole_test_nested(depth: u64, calls: &mut [Took; 9]) -> u64 {
    let begun = boot_time();
    std::thread::sleep(Duration::from_millis(1));
    if depth > 0 {
        measured(depth - 1, calls);
    }
    calls[depth as usize].inside = boot_time() - begun;
    std::hint::black_box(depth)
}

fn measured(depth: u64, calls: &mut [Took; 9]) {
    let begun = boot_time();
    assert_eq!(porthole_test_nested(depth, calls), depth);
    calls[depth as usize].outside = boot_time() - begun;
}

/// As `nsecs` has it.
fn boot_time() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes to the structure alone.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) }, 0);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// Calls within calls, in several threads at once: each has its own time.
#[test]
fn root_a_return_tells_how_long_the_call_took() {
    if !is_root() {
        return;
    }
    let offered = KernelFacts::running().offers(Feature::UprobeSession);
    if offered != Answer::Yes {
        println!("skipped: uprobe.session: {offered}");
        return;
    }
    let own = std::env::current_exe().unwrap();
    let attach = format!("uretprobe:{}:porthole_test_nested", own.display());
    let pid = std::process::id();
    let work = || {
        std::thread::scope(|scope| {
            let threads = [(); 3].map(|()| {
                scope.spawn(|| {
                    let mut calls = [Took::default(); 9];
                    (0..5).for_each(|_| measured(8, &mut calls));
                    (this_thread(), calls)
                })
            });
            threads.map(|thread| thread.join().unwrap())
        })
    };
    for (when, emitted) in [
        (format!("pid == {pid}"), 135),
        (format!("pid == {pid} && retval == 3"), 15),
        (format!("!(pid != {pid}) && duration >= 1000000 && (pid == {pid} || retval == 0)"), 135),
        ("duration < 1000000".to_owned(), 0),
        // Those are told at the entry.
        (format!("pid != {pid}"), 0),
        (format!("pid in (0, {pid}) && pid / 2 == 0"), 0),
    ] {
        let mut threads = Vec::new();
        let declaration = probe(&[&attach], &when, &["tid", "retval", "duration", "duration - duration", "nsecs"]);
        let seen = trace(&declaration, || threads.extend(work()));
        let counts = seen.counts;
        assert_eq!(
            (counts.hits, counts.emitted, counts.filtered, counts.lost),
            (135, emitted, 135 - emitted, 0),
            "{when}"
        );
        for (thread, calls) in threads {
            // Of five calls of a kind the last is remembered.
            for (depth, took) in calls.iter().enumerate() {
                let of = [Value::Unsigned(thread as u64), Value::Unsigned(depth as u64)];
                let Some(row) = seen.rows.iter().rfind(|row| row[..2] == of) else { continue };
                let Value::Unsigned(duration) = row[2] else { panic!("{row:?}") };
                assert!((took.inside..=took.outside).contains(&duration), "{duration} {took:?}, {depth} deep: {when}");
                assert_eq!(row[3], Value::Unsigned(0));
            }
        }
    }
}

/// Calls itself so many times.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn porthole_test_deep(depth: u64) -> u64 {
    if depth == 0 { 0 } else { std::hint::black_box(porthole_test_deep(depth - 1) + 1) }
}

/// So many, as the documentation says (kernel/events/uprobes.c: MAX_URETPROBE_DEPTH); and all again, when those have
/// returned.
#[test]
fn root_returns_of_calls_within_calls_are_followed_64_deep() {
    if !is_root() {
        return;
    }
    let own = std::env::current_exe().unwrap();
    let attach = format!("uretprobe:{}:porthole_test_deep", own.display());
    for depth in [63, 99] {
        let seen = trace(&probe(&[&attach], "true", &["retval"]), || {
            (0..3).for_each(|_| assert_eq!(porthole_test_deep(depth), depth));
        });
        assert_eq!(seen.counts.emitted, 3 * 64, "{depth} deep");
    }
}

/// Called by its name in the test's own file.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn porthole_test_called(first: u64, second: i64) -> u64 {
    std::hint::black_box(first.wrapping_add(second.cast_unsigned()))
}

#[test]
fn root_a_probe_can_be_of_one_process() {
    if !is_root() {
        return;
    }
    let own = std::env::current_exe().unwrap();
    let attach = format!("uprobe:{}:porthole_test_called", own.display());
    let when = format!("pid == {}", std::process::id());
    let seen = trace(&probe(&[&attach], &when, &["arg0", "arg1", "pid"]), || {
        for n in 0..50 {
            porthole_test_called(n, -1);
        }
    });
    assert_eq!(seen.rows.len(), 50);
    for (row, n) in seen.rows.iter().zip(0..) {
        let pid = Value::Unsigned(u64::from(std::process::id()));
        assert_eq!(row[..], [Value::Unsigned(n), Value::Unsigned(u64::MAX), pid]);
    }
    // No process has that number.
    let other = trace(&probe(&[&attach], "pid == 0x7fffffff", &["arg0"]), || {
        porthole_test_called(1, 1);
    });
    assert_eq!((other.rows.len(), other.counts.filtered), (0, 1));
}

/// Called by nobody but the next two tests.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn porthole_test_alone(n: u64) -> u64 {
    std::hint::black_box(n + 1)
}

/// Calls of two processes, and of two threads of one of them: those of the other are filtered, or from Linux 6.12 on no
/// hits at all.
#[test]
fn root_only_the_process_that_is_asked_for_is_hit() {
    if !is_root() {
        return;
    }
    let directory = Directory::new("alone");
    let own = std::env::current_exe().unwrap();
    let entry = format!("uprobe:{}:porthole_test_alone", own.display());
    let exit = format!("uretprobe:{}:porthole_test_alone", own.display());
    let call = |times| (0..times).for_each(|n| assert_eq!(porthole_test_alone(n), n + 1));
    let (pid, ready) = (std::process::id(), directory.path().join("ready"));
    let is_filtered_by_kernel = {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let mut numbers = release.split(['.', '-']).map(|n| n.parse::<u32>().unwrap_or(0));
        (numbers.next(), numbers.next()) >= (Some(6), Some(12))
            && fs::read_link("/proc/self/ns/pid").unwrap().as_os_str() == "pid:[4026531836]"
    };
    for (when, points) in [
        (format!("pid == {pid}"), vec![entry.as_str()]),
        (format!("{pid} == pid && arg0 >= 0"), vec![entry.as_str()]),
        (format!("comm != \"\" && pid in ({pid})"), vec![entry.as_str(), exit.as_str()]),
    ] {
        let seen = trace(&probe(&points, &when, &["tid"]), || {
            let mut other = Command::new(&own)
                .args(["--exact", "calls_its_function", "--include-ignored"])
                .env("PORTHOLE_TEST_CALLS", "30")
                .stdout(fs::File::create(&ready).unwrap())
                .spawn()
                .unwrap();
            call(7);
            std::thread::scope(|scope| drop(scope.spawn(|| call(5))));
            assert!(other.wait().unwrap().success());
        });
        let calls = 12 * points.len() as u64;
        let others = if is_filtered_by_kernel { 0 } else { 30 * points.len() as u64 };
        assert_eq!((seen.counts.emitted, seen.counts.filtered, seen.counts.lost), (calls, others, 0), "{when}");
        let threads: std::collections::HashSet<_> = seen.rows.iter().map(|row| format!("{row:?}")).collect();
        assert_eq!(threads.len(), 2, "all threads of the process");
    }
}

/// What the other process of the test above does. By itself it does nothing.
#[test]
fn calls_its_function() {
    let calls = std::env::var("PORTHOLE_TEST_CALLS").map_or(0, |calls| calls.parse().unwrap());
    (0..calls).for_each(|n| assert_eq!(porthole_test_alone(n), n + 1));
}

#[test]
fn a_process_is_told_by_the_first_step() {
    let facts = facts::recorded();
    for (when, process) in [
        ("pid == 4711", Some(4711)),
        ("4711 == pid", Some(4711)),
        ("pid == 4711 && uid == 0", Some(4711)),
        ("uid == 0 && (comm == \"x\" && 4711 == pid)", Some(4711)),
        ("pid in (4711)", Some(4711)),
        ("pid == 4700 + 11", Some(4711)),
        ("pid in (4711, 4712)", None),
        ("pid == 4711 || uid == 0", None),
        ("!(pid == 4711)", None),
        ("pid != 4711", None),
        ("tid == 4711", None),
        ("pid == tid", None),
        ("pid == -4711", None),
        ("pid == 4711 ? true : false", None),
    ] {
        let plan = plan(&probe(&["uprobe:kiosk:open_kiosk"], when, &["pid"]), &facts).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(plan.probes[0].points[0].process(), process, "{when}");
    }
    // Only the first step: what stands in front of it is computed for all.
    let mut later = probe(&["uprobe:kiosk:open_kiosk"], "pid == 4711", &["pid"]);
    later.probes[0].body.insert(0, Step::When("uid == 0".to_owned()));
    assert_eq!(plan(&later, &facts).unwrap().probes[0].points[0].process(), None);
}

#[test]
fn root_libraries_are_found_by_name() {
    if !is_root() {
        return;
    }
    for (library, name) in [("libc", "PORTHOLE_A"), ("libc.so.6", "PORTHOLE_B")] {
        let attach = format!("uprobe:{library}:getenv");
        let when = format!("str(arg0) == \"{name}\"");
        let seen = trace(&probe(&[&attach], &when, &["str(arg0)", "pid"]), || {
            let wanted = std::ffi::CString::new(name).unwrap();
            for _ in 0..7 {
                // SAFETY: the text ends in a 0, and no other thread of the test changes the environment.
                let found = unsafe { libc::getenv(wanted.as_ptr()) };
                // The compiler knows the function, and calls it once for what is asked often and used nowhere.
                std::hint::black_box(found);
            }
        });
        assert_eq!(seen.rows, vec![vec![text(name), Value::Unsigned(u64::from(std::process::id()))]; 7]);
    }
}

#[test]
fn root_demangled_names_are_found() {
    if !is_root() {
        return;
    }
    let own = std::env::current_exe().unwrap();
    let attach = format!("uprobe:{}:userland::plain_rust", own.display());
    let seen = trace(&probe(&[&attach], "true", &["arg0"]), || {
        for n in 0..5 {
            plain_rust(n);
        }
    });
    assert_eq!(seen.rows, (0..5).map(|n| vec![Value::Unsigned(n)]).collect::<Vec<_>>());
}

#[inline(never)]
fn plain_rust(n: u64) {
    std::hint::black_box(n);
}

#[test]
fn root_markers_have_their_arguments_at_each_place() {
    if !is_root() {
        return;
    }
    let directory = Directory::new("markers");
    let program = shop(&directory);
    assert_eq!(run(&program, 5).split(' ').next(), Some("0"), "nobody looks");
    let attach = format!("usdt:{}:shop:sale", program.display());
    let mut printed = String::new();
    let seen = trace(&probe(&[&attach], "true", &["arg0", "str(arg1)"]), || printed = run(&program, 100));
    assert_eq!(printed.split(' ').next(), Some("100"), "the semaphore said that somebody looks");
    assert_eq!(seen.rows.len(), 200);
    for (n, pair) in seen.rows.chunks(2).enumerate() {
        assert_eq!(pair[0], [Value::Signed(n as i64), text("apple")]);
        assert_eq!(pair[1], [Value::Signed(-(n as i64)), text("pear")]);
    }
    assert_eq!(run(&program, 5).split(' ').next(), Some("0"), "nobody looks any more");
}

/// One of two places lacks the further arguments, so they are read where the names of the marker's other place are cut
/// out of the file.
#[test]
fn root_markers_arguments_are_read_from_wherever_they_are() {
    if !is_root() {
        return;
    }
    let directory = Directory::new("operands");
    let program = shop(&directory);
    // The second place's note is given another name: `give` is then no `sale`.
    let mut bytes = fs::read(&program).unwrap();
    let at = bytes.windows(10).rposition(|w| w == b"shop\0sale\0").unwrap();
    let first = bytes.windows(10).position(|w| w == b"shop\0sale\0").unwrap();
    assert_ne!(at, first);
    let operands = |at: usize| bytes[at + 10..].split(|b| *b == 0).next().unwrap().split(|b| *b == b' ').count();
    let short = if operands(at) == 2 { at } else { first };
    bytes[short + 5..short + 9].copy_from_slice(b"gift");
    let changed = directory.file("changed", &bytes);
    assert!(Command::new("chmod").arg("755").arg(&changed).status().unwrap().success());
    let attach = format!("usdt:{}:sale", changed.display());
    let values = ["arg0", "arg2", "arg3", "arg4", "arg5"];
    let seen = trace(&probe(&[&attach], "true", &values), || {
        run(&changed, 300);
    });
    assert_eq!(seen.rows.len(), 300);
    for (row, n) in seen.rows.iter().zip(0i64..) {
        let price = [7, 70, 700, 7000][n as usize & 3];
        let expected = [
            Value::Signed(n),
            Value::Signed(-7),
            Value::Signed(price),
            Value::Signed(999 - n),
            Value::Unsigned(n.cast_unsigned() & 255),
        ];
        assert_eq!(row[..], expected);
    }
}

/// Links that are closed side by side. Perf events would wait for one another: 17 s for a hundred.
#[test]
fn root_each_of_a_hundred_probes_has_a_link() {
    if !is_root() {
        return;
    }
    let facts = KernelFacts::running();
    let multi = facts.offers(Feature::UprobeMulti);
    if multi != Answer::Yes {
        println!("skipped: uprobe.multi: {multi}");
        return;
    }
    let library = facts.binary("libc").unwrap();
    let names = library.function_names();
    let points: Vec<String> = names
        .iter()
        .filter(|name| name.starts_with("get") || name.starts_with("pthread_"))
        .map(|name| format!("uprobe:libc:{name}"))
        .filter(|attach| plan(&probe(&[attach], "pid == 0", &["pid"]), &facts).is_ok())
        .take(100)
        .collect();
    assert_eq!(points.len(), 100);
    let points: Vec<&str> = points.iter().map(String::as_str).collect();
    // Those of other tests are not among them, which attach a few at a time.
    let links = || {
        let descriptors = fs::read_dir("/proc/self/fdinfo").unwrap().flatten();
        let told = descriptors.filter_map(|descriptor| fs::read_to_string(descriptor.path()).ok());
        told.filter(|text| text.lines().any(|line| line == "link_type:\tuprobe_multi")).count()
    };
    let mut attached = 0;
    let seen = trace(&probe(&points, "pid == 0", &["pid"]), || attached = links());
    println!("attached in {:?}, detached in {:?}", seen.attaching, seen.detaching);
    assert!((100..150).contains(&attached), "{attached} links");
}
