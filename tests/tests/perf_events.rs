//! Clocks, software events, hardware counters and watchpoints: that they fire where they should, as often as they
//! should.

mod e2e;

use std::collections::BTreeSet;
use std::fs;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use e2e::host::{Ended, Run};
use e2e::load::as_thread;
use e2e::{is_root, plugin, says, unique};

/// A host with the plugin that emits these fields at this attach point, of threads with this comm.
fn traced(attach: &str, comm: &str, fields: &str) -> Run {
    let run = Run::new(&plugin("hostile")).arg("--attach").arg(attach).arg("--comm").arg(comm);
    run.arg("--fields").arg(fields)
}

/// The fields of each row, after a look at the account.
fn fields(ended: &Ended) -> Vec<Value> {
    let rows: Vec<Value> = ended.rows().into_iter().map(|row| row["fields"].clone()).collect();
    let counts = ended.counts("hostile", "call");
    assert_eq!((counts.lost, counts.emitted, counts.delivered), (0, rows.len() as u64, rows.len() as u64));
    rows
}

fn number(row: &Value, name: &str) -> u64 {
    row[name].as_u64().unwrap_or_else(|| panic!("no number {name} in {row}"))
}

/// The calling thread's number.
fn tid() -> u64 {
    // SAFETY: the call touches no memory.
    u64::try_from(unsafe { libc::gettid() }).expect("a tid is positive")
}

/// Keeps the calling thread on one CPU, and tells which.
fn stay() -> u64 {
    // SAFETY: the set is plain bits, all zeroes an empty one; the calls read and write it and nothing else.
    unsafe {
        let cpu = usize::try_from(libc::sched_getcpu()).expect("a CPU has a number");
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        assert_eq!(libc::sched_setaffinity(0, size_of_val(&set), &raw const set), 0);
        cpu as u64
    }
}

#[test]
fn root_a_clock_samples_who_is_busy() {
    if !is_root() {
        return;
    }
    let (comm, begun) = (unique(), Instant::now());
    let host = traced("profile:hz:99", &comm, "tid = tid; on = cpu; period = args.sample_period").attach();
    let (busy, cpu) = as_thread(&comm, || {
        let (until, cpu) = (Instant::now() + Duration::from_secs(1), stay());
        while Instant::now() < until {
            black_box(cpu);
        }
        (tid(), cpu)
    });
    let ended = host.interrupt().successful();
    let rows = fields(&ended);
    for row in &rows {
        assert_eq!((number(row, "tid"), number(row, "period")), (busy, 1_000_000_000 / 99), "{row}");
    }
    // It may have got little of its CPU; more than one CPU's clock it cannot have got.
    let most = 99.0 * begun.elapsed().as_secs_f64() + 2.0;
    assert!(!rows.is_empty() && rows.len() as f64 <= most, "{} samples", rows.len());
    assert!(rows.iter().filter(|row| number(row, "on") == cpu).count() >= rows.len() - 1, "it stays on CPU {cpu}");
}

#[test]
fn root_each_page_fault_is_an_event_with_its_address() {
    const PAGES: usize = 100;
    if !is_root() {
        return;
    }
    let comm = unique();
    let host = traced("software:page-faults:1", &comm, "tid = tid; at = args.addr").attach();
    let (thread, base, size) = as_thread(&comm, || {
        // SAFETY: a new mapping, which nobody else knows, is made, written to within its bounds, and removed.
        unsafe {
            let size = usize::try_from(libc::sysconf(libc::_SC_PAGESIZE)).expect("a page has a size");
            let (length, flags) = (PAGES * size, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            let base = libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
            assert_ne!(base, libc::MAP_FAILED);
            // One fault must bring one page.
            libc::madvise(base, length, libc::MADV_NOHUGEPAGE);
            for page in 0..PAGES {
                base.cast::<u8>().add(page * size).write_volatile(1);
            }
            libc::munmap(base, length);
            (tid(), base as u64, size as u64)
        }
    });
    let ended = host.interrupt().successful();
    let rows = fields(&ended);
    assert!(rows.iter().all(|row| number(row, "tid") == thread));
    let touched: BTreeSet<u64> = rows.iter().map(|row| number(row, "at") & !(size - 1)).collect();
    let missing: Vec<u64> = (0..PAGES as u64).filter(|page| !touched.contains(&(base + page * size))).collect();
    assert!(missing.is_empty(), "pages whose faults were not seen: {missing:?}");
}

#[test]
fn root_each_context_switch_is_an_event_of_who_leaves() {
    if !is_root() {
        return;
    }
    let comm = unique();
    let host = traced("software:cs:1", &comm, "tid = tid").attach();
    let (thread, switches) = as_thread(&comm, || {
        let before = switches();
        (0..50).for_each(|_| sleep(Duration::from_millis(1)));
        (tid(), switches() - before)
    });
    let rows = fields(&host.interrupt().successful());
    assert!(rows.iter().all(|row| number(row, "tid") == thread));
    assert!(switches > 0 && rows.len() as u64 >= switches, "{} rows of {switches} switches", rows.len());
}

/// How often the kernel says that this thread has left its CPU. On a slow machine a sleep may be over before it has
/// begun.
fn switches() -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").expect("procfs is mounted");
    let counts = status.lines().filter_map(|line| line.split_once("_ctxt_switches:"));
    counts.map(|(_, count)| count.trim().parse::<u64>().expect("it is a number")).sum()
}

/// In one process and in all, in threads that were there and that are made later.
#[test]
fn root_a_watchpoint_sees_each_write() {
    if !is_root() {
        return;
    }
    static WATCHED: AtomicU64 = AtomicU64::new(0);
    let address = format!("watchpoint:{:#x}:8:w", WATCHED.as_ptr() as u64);
    for attach in [address.clone(), format!("{address}:pid={}", std::process::id())] {
        let comm = unique();
        let host = traced(&attach, &comm, "tid = tid; at = args.addr").attach();
        let thread = as_thread(&comm, || {
            (0..23).for_each(|n| WATCHED.store(n, Ordering::Relaxed));
            black_box(WATCHED.load(Ordering::Relaxed));
            tid()
        });
        WATCHED.store(99, Ordering::Relaxed);
        let rows = fields(&host.interrupt().successful());
        assert_eq!(rows.len(), 23, "{attach}");
        for row in rows {
            assert_eq!((number(&row, "tid"), number(&row, "at")), (thread, WATCHED.as_ptr() as u64), "{attach}");
        }
    }
}

#[test]
fn root_what_the_machine_lacks_is_said() {
    if !is_root() {
        return;
    }
    let run = |attach: &str| Run::new(&plugin("hostile")).option("--duration=0.2").arg("--attach").arg(attach).finish();
    let ended = run("hardware:cycles:1000000");
    if ended.status.success() {
        println!("skipped: this machine has hardware counters");
    } else {
        says(
            &ended.stderr,
            &["hardware:cpu-cycles:1000000 cannot be attached to: this machine has no such hardware counter"],
        );
    }
    let ended = run("watchpoint:0x1000:8:w:pid=2147483647");
    says(
        &ended.stderr,
        &["watchpoint:0x1000:8:w:pid=2147483647 cannot be attached to: there is no process 2147483647"],
    );
}

/// Each of them attaches, and adds up; most need not happen in so short a time.
#[test]
fn root_each_software_event_attaches() {
    if !is_root() {
        return;
    }
    for event in [
        "alignment-faults",
        "cgroup-switches",
        "context-switches",
        "cpu-clock",
        "cpu-migrations",
        "emulation-faults",
        "major-faults",
        "minor-faults",
        "page-faults",
        "task-clock",
    ] {
        let run = Run::new(&plugin("hostile")).option("--duration=0.1");
        let ended = run.arg("--attach").arg(format!("software:{event}")).finish().successful();
        let counts = ended.counts("hostile", "call");
        assert_eq!(counts.emitted, counts.delivered, "{event}: {counts:?}");
        println!("{event}: {}", counts.hits);
    }
}
