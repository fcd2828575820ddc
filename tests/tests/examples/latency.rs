//! `examples/latency` at functions of this test, which know how long they take.

use std::time::Duration;

use porthole::kernel::{Answer, Feature, KernelFacts};
use serde_json::Value;

use crate::e2e::host::Run;
use crate::e2e::{is_root, plugin};

/// Of a call, in microseconds.
const NAP: u64 = 3000;

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn porthole_test_nap(times: u64) -> u64 {
    std::hint::black_box(nap(times))
}

/// The same, for another test.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn porthole_test_doze(times: u64) -> u64 {
    std::hint::black_box(nap(times) + 1) - 1
}

fn nap(times: u64) -> u64 {
    std::thread::sleep(Duration::from_micros(NAP * times));
    times
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn porthole_test_quick(n: u64) -> u64 {
    std::hint::black_box(n + 1)
}

/// Where it is not to be had, that is said.
fn has_duration() -> bool {
    let offered = KernelFacts::running().offers(Feature::UprobeSession);
    if is_root() && offered != Answer::Yes {
        println!("skipped: uprobe.session: {offered}");
    }
    is_root() && offered == Answer::Yes
}

/// Of the functions of this test.
fn at(what: &str) -> String {
    format!("uretprobe:{}:porthole_test_{what}", std::env::current_exe().expect("it is a program").display())
}

#[test]
fn root_calls_are_summed_up() {
    if !has_duration() {
        return;
    }
    let pid = std::process::id();
    let host = Run::new(&plugin("latency")).args(&format!("--pid {pid}")).arg(at("{nap,quick}")).attach();
    let begun = std::time::Instant::now();
    let naps = [1, 2, 1, 4, 1].map(|times| porthole_test_nap(times));
    (0..1000).for_each(|n| assert_eq!(porthole_test_quick(n), n + 1));
    let took = begun.elapsed().as_nanos() as u64;
    let ended = host.interrupt().successful();
    let rows = ended.rows();
    let of = |what: &str| {
        let row = rows.iter().find(|row| row["fields"]["function"] == at(what).as_str());
        let fields = &row.unwrap_or_else(|| panic!("{rows:?}"))["fields"];
        ["calls", "mean", "p50", "p90", "p99", "max"].map(|column| fields[column].as_u64().expect(column))
    };
    let [calls, mean, p50, p90, p99, max] = of("nap");
    assert_eq!(calls, naps.len() as u64);
    assert!(p50 >= NAP * 1000 && p50 <= p90 && p90 <= p99 && p99 <= max, "{rows:?}");
    assert!(max >= 4 * NAP * 1000 && max <= took, "{rows:?}");
    assert!(mean >= naps.iter().sum::<u64>() * NAP * 1000 / calls && mean * calls <= took, "{rows:?}");
    let [calls, _, p50, p90, p99, max] = of("quick");
    assert_eq!((calls, rows.len()), (1000, 2));
    assert!(p50 <= p90 && p90 <= p99 && p99 <= max && max <= took, "{rows:?}");
    assert_eq!(ended.counts("latency", "call").emitted, 1005);
}

#[test]
fn root_calls_that_took_long_have_rows() {
    if !has_duration() {
        return;
    }
    let over = 2 * NAP;
    let host = Run::new(&plugin("latency")).args(&format!("--over {over}")).arg(at("doze")).attach();
    let naps = [1, 2, 1, 5, 3].map(|times| porthole_test_doze(times));
    let rows = host.interrupt().successful().rows();
    let took = |row: &Value| row["fields"]["duration"].as_u64().expect("a number");
    let long = naps.into_iter().filter(|times| *times >= 2);
    // Those that were to be short may have been long, where the machine was busy.
    assert!(rows.len() >= long.clone().count() && rows.len() <= naps.len(), "{rows:?}");
    assert!(rows.iter().all(|row| took(row) > over * 1000 && row["fields"]["pid"] == std::process::id()), "{rows:?}");
    let mut told = rows.iter().map(took);
    for times in long {
        assert!(told.any(|took| took >= times * NAP * 1000), "{times}: {rows:?}");
    }
}
