//! What kfuncs acquire is given back: 100,000 times, and nothing is left.
//!
//! The problem: a leak of one reference shows nowhere for a long time. So each acquiring kfunc is called 100,000 times by one thread, with the value bound, used, and left by way of a `when`
//! that is false nine times of ten; and then the kernel's own counts are asked. A task's is a number that expressions read. A cgroup that has been removed stays among the dying as long
//! as anybody holds it. Masks and keys are memory, which /proc/slabinfo counts by object.
//!
//! That these counts would show a leak is shown beside it: the task's is one higher while it is held, and a cgroup in which a process has ended is dying until that is reaped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use porthole::declare::{Declaration, KfuncUse};
use porthole::kernel::kfunc::ProgramKind;
use porthole::kernel::{Answer, KernelFacts};
use porthole::load::check_privileges;
use porthole_tests::declaration;
use porthole_tests::live::{self, trace};
use porthole_tests::machine::Value;

const EVENTS: u64 = 100_000;
const GETPPID: &str = "tracepoint:syscalls:sys_enter_getppid";
/// Objects of all small sizes that come and go meanwhile at most; a leak would be [`EVENTS`] of them.
const OTHERS: i64 = (EVENTS / 2) as i64;

fn this_thread() -> i64 {
    // SAFETY: it takes nothing and cannot fail.
    unsafe { libc::syscall(libc::SYS_gettid) }
}

fn call(times: u64) {
    for _ in 0..times {
        // SAFETY: it takes nothing and changes nothing.
        unsafe { libc::syscall(libc::SYS_getppid) };
    }
}

/// Whether tracepoints may call all of these; says which one they may not.
fn has(kfuncs: &[&str]) -> bool {
    let facts = KernelFacts::running();
    let lacking = kfuncs.iter().find(|name| facts.may_call(name, ProgramKind::Tracepoint) != Answer::Yes);
    if let Some(lacking) = lacking {
        println!("skipped: this kernel does not let tracepoints call {lacking}");
    }
    lacking.is_none()
}

fn listing(kfuncs: &[&str], declaration: Declaration) -> Declaration {
    let listed = |name: &&str| KfuncUse { name: (*name).to_owned(), required: true, claim: None };
    Declaration { kfuncs: kfuncs.iter().map(listed).collect(), ..declaration }
}

/// Calls the kfunc so often: bound, used by a condition that seldom holds, by an expression that is absent, and by the event.
fn acquire(kfuncs: &[&str], value: &str, used: &str) {
    let tid = this_thread();
    let text = format!(
        "probe p\nattach {GETPPID}\nwhen tid == {tid}\nbind v = {value}\nbind gone = v ? 1 / ({used} - {used}) : 0\nwhen nsecs / 1000 % 10 == 0 && {used} >= 0\nemit e\n  used = {used}\n  again = {value} == v\n"
    );
    let seen = trace(&listing(kfuncs, declaration::parse(&text).unwrap_or_else(|e| panic!("{e}"))), || call(EVENTS));
    assert!(seen.counts.hits >= EVENTS, "{:?}", seen.counts);
    assert!(seen.counts.emitted + seen.counts.lost > EVENTS / 50, "it is seldom come to the end: {:?}", seen.counts);
    assert!(seen.counts.filtered > EVENTS / 2, "it is seldom left: {:?}", seen.counts);
    assert!(seen.rows.iter().all(|row| row[0] != Value::Absent), "{value} gives nothing");
}

/// A value that this thread's own event has.
fn read(kfuncs: &[&str], value: &str) -> i64 {
    let probe = live::probe(&[GETPPID], &format!("tid == {}", this_thread()), &[value]);
    match trace(&listing(kfuncs, probe), || call(1)).rows[0][..] {
        [Value::Signed(number)] => number,
        [Value::Unsigned(number)] => number as i64,
        ref other => panic!("{value}: {other:?}"),
    }
}

#[test]
fn root_tasks_are_given_back() {
    if let Err(error) = check_privileges() {
        println!("skipped: {error}");
        return;
    }
    const COUNT: &str = "task.rcu_users.refs.counter";
    for (kfunc, value) in [
        ("bpf_task_acquire", "bpf_task_acquire(task)"),
        ("bpf_task_from_pid", "bpf_task_from_pid(task.pid)"),
        ("bpf_task_from_vpid", "bpf_task_from_vpid(task.thread_pid.numbers[task.thread_pid.level].nr)"),
    ] {
        if !has(&[kfunc]) {
            continue;
        }
        let before = read(&[], COUNT);
        // While it is held, it counts.
        let bound = format!(
            "probe p\nattach {GETPPID}\nwhen tid == {}\nbind v = {value}\nemit e\n  n = {COUNT}\n",
            this_thread()
        );
        let seen = trace(&listing(&[kfunc], declaration::parse(&bound).unwrap()), || call(1));
        assert_eq!(seen.rows, [[Value::Signed(before + 1)]], "{value}: a task that is held is not counted");
        acquire(&[kfunc], value, "v.tgid");
        assert_eq!(read(&[], COUNT), before, "{kfunc}");
    }
}

/// Where cgroups of version 2 are mounted.
fn cgroups() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?;
    Some(PathBuf::from(line.split(' ').nth(1)?))
}

fn dying(root: &Path) -> u64 {
    let text = fs::read_to_string(root.join("cgroup.stat")).unwrap();
    text.lines().find_map(|line| line.strip_prefix("nr_dying_descendants ")).unwrap().parse().unwrap()
}

/// Waits until no cgroup is dying; how many are, where that takes too long.
fn until_none_is_dying(root: &Path) -> u64 {
    let patience: u64 = std::env::var("PORTHOLE_TEST_PATIENCE").ok().and_then(|s| s.parse().ok()).unwrap_or(20);
    let begun = Instant::now();
    loop {
        let now = dying(root);
        if now == 0 || begun.elapsed() > Duration::from_secs(patience) {
            return now;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn root_cgroups_are_given_back() {
    use std::os::unix::fs::MetadataExt;

    if let Err(error) = check_privileges() {
        println!("skipped: {error}");
        return;
    }
    let Some(root) = cgroups() else {
        println!("skipped: no cgroups of version 2 are mounted");
        return;
    };
    // One of its own around them, whose count nobody else changes.
    let root = root.join(format!("porthole-leaks-{}", std::process::id()));
    fs::create_dir(&root).unwrap();
    let name = |n: usize| root.join(n.to_string());
    // One that is held is told as dying: by a process that has ended in it, until somebody asks how it ended.
    fs::create_dir(name(0)).unwrap();
    let mut child = Command::new("sleep").arg("100").spawn().unwrap();
    fs::write(name(0).join("cgroup.procs"), child.id().to_string()).unwrap();
    child.kill().unwrap();
    let begun = Instant::now();
    while fs::remove_dir(name(0)).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the process does not end");
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(dying(&root), 1, "a cgroup that is held is not told as dying");
    child.wait().unwrap();
    assert_eq!(until_none_is_dying(&root), 0);
    for (n, (kfuncs, value)) in [
        (&["bpf_cgroup_from_id"][..], "bpf_cgroup_from_id(#)"),
        (&["bpf_cgroup_from_id", "bpf_cgroup_acquire"], "bpf_cgroup_acquire(bpf_cgroup_from_id(#))"),
        (
            &["bpf_cgroup_from_id", "bpf_cgroup_ancestor"],
            "bpf_cgroup_ancestor(bpf_cgroup_from_id(#), bpf_cgroup_from_id(#).level)",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        if !has(kfuncs) {
            continue;
        }
        let directory = name(n + 1);
        fs::create_dir(&directory).unwrap();
        let id = fs::metadata(&directory).unwrap().ino();
        acquire(kfuncs, &value.replace('#', &id.to_string()), "v.level");
        fs::remove_dir(&directory).unwrap();
        assert_eq!(until_none_is_dying(&root), 0, "{value}: it is held by somebody");
    }
    fs::remove_dir(&root).unwrap();
}

/// Objects of all small sizes, as the kernel counts them; none where it does not tell.
fn objects() -> Option<i64> {
    let text = fs::read_to_string("/proc/slabinfo").ok()?;
    let of = |line: &str| line.split_whitespace().nth(1)?.parse::<i64>().ok();
    Some(text.lines().filter(|line| line.starts_with("kmalloc-")).filter_map(of).sum())
}

#[test]
fn root_memory_is_given_back() {
    if let Err(error) = check_privileges() {
        println!("skipped: {error}");
        return;
    }
    for (kfuncs, value, used) in [
        (&["bpf_cpumask_create", "bpf_cpumask_weight"][..], "bpf_cpumask_create()", "bpf_cpumask_weight(v)"),
        (
            &["bpf_cpumask_create", "bpf_cpumask_acquire", "bpf_cpumask_weight"],
            "bpf_cpumask_acquire(bpf_cpumask_create())",
            "bpf_cpumask_weight(v)",
        ),
        (&["bpf_lookup_system_key"], "bpf_lookup_system_key(1)", "(v.has_ref + 0)"),
    ] {
        if !has(kfuncs) {
            continue;
        }
        let Some(before) = objects() else {
            println!("skipped: /proc/slabinfo cannot be read");
            return;
        };
        acquire(kfuncs, value, used);
        // What is freed goes through RCU.
        let begun = Instant::now();
        while objects().unwrap() - before > OTHERS && begun.elapsed() < Duration::from_secs(20) {
            thread::sleep(Duration::from_millis(100));
        }
        let more = objects().unwrap() - before;
        assert!(more <= OTHERS, "{value}: {more} more objects than before");
    }
}
