//! Patterns on this machine: hundreds of attach points at once, and which of them fired.

mod e2e;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::hint::black_box;
use std::os::unix::process::parent_id;

use porthole::compile::compile;
use porthole::kernel::{Answer, Feature, KernelFacts};
use porthole::load::load;
use porthole::plan::plan;
use porthole_tests::live::{probe, trace};
use porthole_tests::machine::Value;

use e2e::load::as_thread;
use e2e::{is_root, unique};

/// The condition that a thread has this name.
fn of(comm: &str) -> String {
    format!("comm == \"{comm}\"")
}

fn name(value: &Value) -> &str {
    match value {
        Value::Enumeration(_, Some(name)) => name,
        other => panic!("{other:?}"),
    }
}

/// Calls of several kinds, none of which anything else makes in a thread like this.
fn calls(counts: [u32; 5]) {
    let path = CString::new("/none/such").unwrap();
    // SAFETY: they take numbers, and a path that lives until they return.
    let call = |number, path: *const libc::c_char| unsafe { libc::syscall(number, libc::AT_FDCWD, path, 0) };
    let kinds = [libc::SYS_getppid, libc::SYS_getuid, libc::SYS_openat, libc::SYS_unlinkat, libc::SYS_lseek];
    for (number, count) in kinds.into_iter().zip(counts) {
        for _ in 0..count {
            black_box(call(number, path.as_ptr()));
        }
    }
}

const NAMES: [&str; 5] = ["getppid", "getuid", "openat", "unlinkat", "lseek"];

#[test]
fn root_every_system_call_is_told_by_its_name() {
    if !is_root() {
        return;
    }
    let comm = unique();
    let times = [70, 1, 23, 5, 11];
    let fields = ["probe", "contains(probe, \"uid\")", "probe in (\"tracepoint:syscalls:sys_enter_getppid\")"];
    let declaration = probe(&["tracepoint:syscalls:sys_enter_*"], &of(&comm), &fields);
    let seen = trace(&declaration, || as_thread(&comm, move || calls(times)));
    println!("attached in {:?}, detached in {:?}", seen.attaching, seen.detaching);
    let mut by_name: BTreeMap<&str, u32> = BTreeMap::new();
    for row in &seen.rows {
        let name = name(&row[0]).strip_prefix("tracepoint:syscalls:sys_enter_").unwrap();
        *by_name.entry(name).or_default() += 1;
        assert_eq!(row[1], Value::Boolean(name.contains("uid")), "{name}");
        assert_eq!(row[2], Value::Boolean(name == "getppid"), "{name}");
    }
    assert_eq!(NAMES.map(|name| by_name.get(name).copied().unwrap_or_default()), times, "{by_name:?}");
    assert_eq!(seen.counts.emitted as usize, seen.rows.len());
    assert_eq!(seen.counts.lost, 0);
}

#[test]
fn root_both_ends_of_some_calls_by_lists() {
    if !is_root() {
        return;
    }
    let comm = unique();
    let attach = ["tracepoint:syscalls:sys_{enter,exit}_{getppid,unlink*}", "tracepoint:syscalls:sys_enter_unlinkat"];
    let seen = trace(&probe(&attach, &of(&comm), &["probe"]), || as_thread(&comm, || calls([3, 1, 1, 4, 1])));
    let mut by_name: BTreeMap<&str, u32> = BTreeMap::new();
    seen.rows.iter().for_each(|row| *by_name.entry(name(&row[0])).or_default() += 1);
    let expected = [("enter_getppid", 3), ("enter_unlinkat", 4), ("exit_getppid", 3), ("exit_unlinkat", 4)];
    let expected = expected.map(|(name, times)| (format!("tracepoint:syscalls:sys_{name}"), times));
    let told: Vec<(String, u32)> = by_name.into_iter().map(|(name, times)| (name.to_owned(), times)).collect();
    assert_eq!(told, expected);
}

/// One program for several functions, where the kernel links it to all of them, and one for each where not: either way
/// it is told which of them it was.
#[test]
fn root_functions_that_share_a_program_are_told_by_their_names() {
    let facts = KernelFacts::running();
    if !is_root() {
        return;
    }
    if let Answer::No(why) = facts.offers(Feature::Kprobe) {
        println!("skipped: this kernel has no kprobe: {why}");
        return;
    }
    let comm = unique();
    // Calls without arguments have no place for a tracer.
    let attach = ["kprobe:__x64_sys_{openat,unlinkat,lseek}"];
    for fields in [&["probe", "func"][..], &["probe", "func", "reg(\"ip\") > 4095", "starts_with(func, \"__x64\")"]] {
        let times = [0, 0, 4, 5, 11];
        let seen = trace(&probe(&attach, &of(&comm), fields), || as_thread(&comm, move || calls(times)));
        println!("attached in {:?}, detached in {:?}", seen.attaching, seen.detaching);
        let mut by_name: BTreeMap<&str, u32> = BTreeMap::new();
        for row in &seen.rows {
            let function = name(&row[1]).strip_prefix("__x64_sys_").unwrap();
            assert_eq!(name(&row[0]), format!("kprobe:__x64_sys_{function}"));
            *by_name.entry(function).or_default() += 1;
        }
        assert_eq!(NAMES.map(|name| by_name.get(name).copied().unwrap_or_default()), times, "{by_name:?}");
    }
}

/// A pattern of raw tracepoints, and one of a program's functions, whose `func` is the function.
#[test]
fn root_patterns_of_other_kinds_fire() {
    if !is_root() {
        return;
    }
    let comm = unique();
    let raw = probe(&["rawtracepoint:sys_{enter,exit}"], &of(&comm), &["probe"]);
    let seen = trace(&raw, || as_thread(&comm, || calls([50, 0, 0, 0, 0])));
    let count = |wanted: &str| seen.rows.iter().filter(|row| name(&row[0]) == wanted).count();
    assert!(count("rawtracepoint:sys_enter") >= 50 && count("rawtracepoint:sys_exit") >= 50);

    // libc's functions are called by this process's own name for them.
    let path = fs::read_to_string("/proc/self/maps").unwrap();
    let libc = path.lines().find_map(|line| line.split_whitespace().nth(5).filter(|f| f.contains("/libc.so"))).unwrap();
    let of_libc = probe(&[&format!("uprobe:{libc}:getp[pg]*")], &of(&comm), &["func", "starts_with(func, \"getpp\")"]);
    let seen = trace(&of_libc, || {
        as_thread(&comm, || {
            (0..9).for_each(|_| _ = black_box(parent_id()));
            // SAFETY: it takes a number.
            (0..4).for_each(|_| _ = black_box(unsafe { libc::getpgid(0) }));
        });
    });
    let count = |wanted: &str, begins: bool| {
        let is = |row: &&Vec<Value>| name(&row[0]) == wanted && row[1] == Value::Boolean(begins);
        seen.rows.iter().filter(is).count()
    };
    assert_eq!((count("getppid", true), count("getpgid", false)), (9, 4), "{:?}", seen.rows);
}

/// A program that is taken off its event fires no more, though the event is still open: it is closed later.
#[test]
fn root_nothing_fires_once_it_is_detached() {
    if !is_root() {
        return;
    }
    let comm = unique();
    let declaration = probe(&["tracepoint:syscalls:sys_enter_{getppid,getuid}"], &of(&comm), &["pid"]);
    let plan = plan(&declaration, &KernelFacts::running()).unwrap();
    let loaded = load(&compile(&plan, "test", 1 << 16).unwrap()).unwrap_or_else(|e| panic!("{e}"));
    let mut attached = loaded.attach(&plan).unwrap_or_else(|e| panic!("{e}"));
    let work = || as_thread(&comm, || calls([70, 7, 0, 0, 0]));
    work();
    attached.detach();
    let before = attached.counts(1).unwrap()[0];
    assert_eq!(before.emitted, 77, "{before:?}");
    work();
    assert_eq!(attached.counts(1).unwrap()[0].hits, before.hits);
}
