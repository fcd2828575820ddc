//! What kfuncs acquire is given back: 100,000 times, and nothing is left.
//!
//! The problem: a leak of one reference shows nowhere for a long time. So each acquiring kfunc is called 100,000 times
//! by one thread, with the value bound, used, and left by way of a `when` that is false nine times of ten; and then the
//! kernel's own counts are asked. A task's, a file's and a key's are numbers that expressions read. A cgroup that has
//! been removed stays among the dying as long as anybody holds it, and with it a hierarchy of version 1. Masks and
//! keyrings of the system are memory, which /proc/slabinfo counts by object: of what the whole machine has of all small
//! sizes, so nothing else is done here meanwhile, and a tenth as many objects as there were events are left to the
//! others.
//!
//! That these counts would show a leak is shown beside it: the numbers are one higher while it is held, and a cgroup in
//! which a process has ended is there until that is reaped.
//!
//! What there is once and stays is acquired and counted nowhere (`bpf_get_root_mem_cgroup`, `scx_bpf_get_*`): of that
//! it is shown that 100,000 times take no memory. Where no scheduler made of BPF runs, `scx_bpf_task_cgroup` gives the
//! root, which is counted neither.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::mem;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use porthole::declare::Declaration;
use porthole::kernel::kfunc::ProgramKind;
use porthole::kernel::{Answer, KernelFacts};
use porthole_tests::cgroups::Cgroups;
use porthole_tests::declaration;
use porthole_tests::live::{self, listing, patience, this_thread, trace, unless_root};
use porthole_tests::machine::Value;

/// One test at a time: what one has in memory another would count.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

const EVENTS: u64 = 100_000;
const GETPPID: &str = "tracepoint:syscalls:sys_enter_getppid";
/// Objects of all small sizes that come and go meanwhile at most; a leak would be [`EVENTS`] of them.
const OTHERS: i64 = (EVENTS / 10) as i64;

fn call(times: u64) {
    for _ in 0..times {
        // SAFETY: it takes nothing and changes nothing.
        unsafe { libc::syscall(libc::SYS_getppid) };
    }
}

/// Whether tracepoints may call all of these; says which one they may not.
fn has(kfuncs: &[&str]) -> bool {
    may_call(ProgramKind::Tracepoint, kfuncs)
}

fn may_call(kind: ProgramKind, kfuncs: &[&str]) -> bool {
    let facts = KernelFacts::running();
    let lacking = kfuncs.iter().find(|name| facts.may_call(name, kind) != Answer::Yes);
    if let Some(lacking) = lacking {
        println!(
            "skipped: this kernel does not let {} call {lacking}: {:?}",
            kind.name(),
            facts.may_call(lacking, kind)
        );
    }
    lacking.is_none()
}

/// Calls the kfunc so often: bound, used by a condition that seldom holds, by an expression that is absent, and by the
/// event.
fn acquire(kfuncs: &[&str], value: &str, used: &str) {
    acquire_at(GETPPID, kfuncs, value, used, || call(EVENTS));
}

/// The same at another attach point, where `work` makes as many events.
fn acquire_at(attach: &str, kfuncs: &[&str], value: &str, used: &str, work: impl FnOnce()) {
    let seen = trace(&acquiring(attach, kfuncs, value, used), work);
    assert!(seen.counts.hits >= EVENTS, "{:?}", seen.counts);
    assert!(seen.counts.emitted + seen.counts.lost > EVENTS / 50, "it is seldom come to the end: {:?}", seen.counts);
    assert!(seen.counts.filtered > EVENTS / 2, "it is seldom left: {:?}", seen.counts);
    assert!(seen.rows.iter().all(|row| row[0] != Value::Absent), "{value} gives nothing");
}

fn acquiring(attach: &str, kfuncs: &[&str], value: &str, used: &str) -> Declaration {
    let tid = this_thread();
    let text = format!(
        "probe p\nattach {attach}\nwhen tid == {tid}\nbind v = {value}\nbind gone = v ? 1 / ({used} - {used}) : 0\nwhen nsecs / 1000 % 10 == 0 && {used} >= 0\nemit e\n  used = {used}\n  again = {value} == v\n"
    );
    listing(kfuncs.iter().copied(), declaration::parse(&text).unwrap_or_else(|e| panic!("{e}")))
}

/// A number that this thread's own event has.
fn read(value: &str) -> i64 {
    let probe = live::probe(&[GETPPID], &format!("tid == {}", this_thread()), &[value]);
    number(&trace(&probe, || call(1)).rows[0])
}

/// A number that an event has while this value is held.
fn held(attach: &str, kfuncs: &[&str], value: &str, count: &str, work: impl FnOnce()) -> i64 {
    let bound =
        format!("probe p\nattach {attach}\nwhen tid == {}\nbind v = {value}\nemit e\n  n = {count}\n", this_thread());
    number(&trace(&listing(kfuncs.iter().copied(), declaration::parse(&bound).unwrap()), work).rows[0])
}

fn number(row: &[Value]) -> i64 {
    match row {
        [Value::Signed(number)] => *number,
        [Value::Unsigned(number)] => *number as i64,
        other => panic!("{other:?}"),
    }
}

#[test]
fn root_tasks_are_given_back() {
    let _alone = alone();
    if unless_root() {
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
        let before = read(COUNT);
        assert_eq!(held(GETPPID, &[kfunc], value, COUNT, || call(1)), before + 1, "{value}: it is not counted");
        acquire(&[kfunc], value, "v.tgid");
        assert_eq!(read(COUNT), before, "{kfunc}");
    }
}

fn dying(root: &Path) -> u64 {
    let text = fs::read_to_string(root.join("cgroup.stat")).unwrap();
    text.lines().find_map(|line| line.strip_prefix("nr_dying_descendants ")).unwrap().parse().unwrap()
}

/// Waits until no cgroup is dying; how many are, where that takes too long.
fn until_none_is_dying(root: &Path) -> u64 {
    let begun = Instant::now();
    loop {
        let now = dying(root);
        if now == 0 || begun.elapsed() > patience() {
            return now;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn root_cgroups_are_given_back() {
    let _alone = alone();
    if unless_root() {
        return;
    }
    // One of its own around them, whose count nobody else changes.
    let Some(cgroups) = Cgroups::new(&format!("porthole-leaks-{}", std::process::id())) else { return };
    let root = cgroups.path();
    // One that is held is told as dying.
    cgroups.make("held");
    let mut holds = ended_in(&cgroups.at("held"));
    assert_eq!(dying(root), 1, "a cgroup that is held is not told as dying");
    holds.wait().unwrap();
    assert_eq!(until_none_is_dying(root), 0);
    // Its memory is counted apart, where the machine has a controller for that which nothing else has taken.
    let control = |at: &Path, what: &str| fs::write(at.join("cgroup.subtree_control"), what).is_ok();
    let above = root.parent().unwrap();
    let had = fs::read_to_string(above.join("cgroup.subtree_control")).unwrap().contains("memory");
    let counts_memory = control(above, "+memory") && control(root, "+memory");
    for (n, (kfuncs, value, used)) in [
        (&["bpf_cgroup_from_id"][..], "bpf_cgroup_from_id(#)", "v.level"),
        (&["bpf_cgroup_from_id", "bpf_cgroup_acquire"], "bpf_cgroup_acquire(bpf_cgroup_from_id(#))", "v.level"),
        (
            &["bpf_cgroup_from_id", "bpf_cgroup_ancestor"],
            "bpf_cgroup_ancestor(bpf_cgroup_from_id(#), bpf_cgroup_from_id(#).level)",
            "v.level",
        ),
        (
            &["bpf_cgroup_from_id", "bpf_get_mem_cgroup"],
            "bpf_get_mem_cgroup(&bpf_cgroup_from_id(#).self)",
            "v.css.cgroup.level",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        if !has(kfuncs) {
            continue;
        }
        if kfuncs.contains(&"bpf_get_mem_cgroup") && !counts_memory {
            println!("skipped: no memory is counted for cgroups of version 2");
            continue;
        }
        let name = n.to_string();
        let id = cgroups.make(&name);
        acquire(kfuncs, &value.replace('#', &id.to_string()), used);
        fs::remove_dir(cgroups.at(&name)).unwrap();
        assert_eq!(until_none_is_dying(root), 0, "{value}: it is held by somebody");
    }
    if has(&["scx_bpf_task_cgroup"]) {
        // The cgroup that this process is in: so it is put into one that can go.
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
        let enter = |cgroup: &Path| fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string()).unwrap();
        cgroups.make("own");
        enter(&cgroups.at("own"));
        acquire(&["scx_bpf_task_cgroup"], "scx_bpf_task_cgroup(task)", "v.level");
        enter(&above.join(own));
        fs::remove_dir(cgroups.at("own")).unwrap();
        assert_eq!(until_none_is_dying(root), 0, "scx_bpf_task_cgroup: it is held by somebody");
    }
    if counts_memory && !had {
        control(above, "-memory");
    }
}

/// A process that has ended in a cgroup, which it holds until somebody asks how it ended. The cgroup has been removed.
fn ended_in(cgroup: &Path) -> Child {
    let mut child = Command::new("sleep").arg("100").spawn().unwrap();
    fs::write(cgroup.join("cgroup.procs"), child.id().to_string()).unwrap();
    child.kill().unwrap();
    let begun = Instant::now();
    while fs::remove_dir(cgroup).is_err() {
        assert!(begun.elapsed() < patience(), "the process does not end");
        thread::sleep(Duration::from_millis(10));
    }
    child
}

/// A hierarchy of version 1 that counts nothing, and which only this test has.
struct Hierarchy {
    name: String,
    at: PathBuf,
}

impl Hierarchy {
    /// None, and says so, where the kernel has none of version 1.
    fn new(name: &str) -> Option<Hierarchy> {
        let name = format!("porthole-{name}-{}", std::process::id());
        let at = std::env::temp_dir().join(&name);
        fs::create_dir(&at).unwrap();
        let hierarchy = Hierarchy { name, at };
        let mounted = hierarchy.mount();
        mounted.map_err(|error| println!("skipped: no cgroups of version 1: {error}")).ok().map(|()| hierarchy)
    }

    fn mount(&self) -> io::Result<()> {
        let options = CString::new(format!("none,name={}", self.name))?;
        // SAFETY: all of them are texts that outlive the call.
        let result = unsafe {
            libc::mount(c"none".as_ptr(), self.path().as_ptr(), c"cgroup".as_ptr(), 0, options.as_ptr().cast())
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn path(&self) -> CString {
        CString::new(self.at.as_os_str().as_bytes()).unwrap()
    }

    /// Its number, by which the kernel knows it; none where it is gone.
    fn id(&self) -> Option<String> {
        let all = fs::read_to_string("/proc/self/cgroup").unwrap();
        let named = format!(":name={}:", self.name);
        all.lines().find_map(|line| Some(line.split_once(&named)?.0.to_owned()))
    }

    /// Whether it goes when it is unmounted, which it does where nobody holds a cgroup of it any more. The last one may
    /// be given back a moment later, and then it must be unmounted once more.
    fn goes(&self, within: Duration) -> bool {
        let begun = Instant::now();
        loop {
            // SAFETY: the path ends in a 0, and outlives the call.
            assert_eq!(unsafe { libc::umount2(self.path().as_ptr(), 0) }, 0, "{}", io::Error::last_os_error());
            thread::sleep(Duration::from_millis(100));
            if self.id().is_none() {
                return true;
            }
            self.mount().unwrap();
            if begun.elapsed() > within {
                return false;
            }
        }
    }
}

impl Drop for Hierarchy {
    fn drop(&mut self) {
        // SAFETY: the path ends in a 0, and outlives the call, which fails where nothing is mounted.
        unsafe { libc::umount2(self.path().as_ptr(), 0) };
        let _ = fs::remove_dir(&self.at);
    }
}

#[test]
fn root_cgroups_of_version_1_are_given_back() {
    let _alone = alone();
    if unless_root() {
        return;
    }
    if !has(&["bpf_task_get_cgroup1"]) {
        return;
    }
    let Some(hierarchy) = Hierarchy::new("leaks") else { return };
    let cgroup = hierarchy.at.join("a");
    fs::create_dir(&cgroup).unwrap();
    let mut holds = ended_in(&cgroup);
    assert!(!hierarchy.goes(Duration::from_millis(500)), "a hierarchy goes though a cgroup of it is held");
    holds.wait().unwrap();
    // This thread's cgroup there.
    fs::create_dir(&cgroup).unwrap();
    let tid = this_thread().to_string();
    fs::write(cgroup.join("tasks"), &tid).unwrap();
    let value = format!("bpf_task_get_cgroup1(task, {})", hierarchy.id().unwrap());
    acquire(&["bpf_task_get_cgroup1"], &value, "v.level");
    fs::write(hierarchy.at.join("tasks"), &tid).unwrap();
    fs::remove_dir(&cgroup).unwrap();
    assert!(hierarchy.goes(patience()), "{value}: it is held by somebody");
}

/// What this process executes. Kernels let only LSM programs ask for it.
#[test]
fn root_files_are_given_back() {
    let _alone = alone();
    if unless_root() {
        return;
    }
    const KFUNC: &str = "bpf_get_task_exe_file";
    const ATTACH: &str = "lsm:file_open";
    if !may_call(ProgramKind::Lsm, &[KFUNC]) {
        return;
    }
    let open = |times| (0..times).for_each(|_| drop(File::open("/dev/null").unwrap()));
    let btf = KernelFacts::running();
    let btf = btf.btf().unwrap();
    // Since Linux 6.13 it is of a type of its own.
    let is_new = btf.member(btf.structure("file").unwrap(), "f_ref").is_some();
    let count = format!("task.mm.exe_file.{}.counter", if is_new { "f_ref.refcnt" } else { "f_count" });
    let value = format!("{KFUNC}(task)");
    let before = read(&count);
    assert_eq!(held(ATTACH, &[KFUNC], &value, &count, || open(1)), before + 1, "it is not counted");
    acquire_at(ATTACH, &[KFUNC], &value, "v.f_flags", || open(EVENTS));
    assert_eq!(read(&count), before);
}

/// A key of this thread's own. Who looks one up may sleep: so it is done at an iterator, over all symbols of the
/// kernel, of which there are that many.
#[test]
fn root_keys_are_given_back() {
    let _alone = alone();
    if unless_root() {
        return;
    }
    const KFUNC: &str = "bpf_lookup_user_key";
    const ATTACH: &str = "iter:ksym";
    if !may_call(ProgramKind::IterSleepable, &[KFUNC]) {
        return;
    }
    if KernelFacts::running().btf().unwrap().function("bpf_iter_ksym").is_none() {
        println!("skipped: this kernel has no iterator ksym");
        return;
    }
    // SAFETY: all of them are texts, and as many bytes as is said.
    let key = unsafe {
        let (kind, name, ring) = (c"user".as_ptr(), c"porthole-leaks".as_ptr(), libc::KEY_SPEC_THREAD_KEYRING);
        libc::syscall(libc::SYS_add_key, kind, name, c"x".as_ptr(), 1usize, ring)
    };
    if key < 0 {
        println!("skipped: no key can be made: {}", io::Error::last_os_error());
        return;
    }
    // proc(5): its number in hexadecimal, flags, and how often it is used.
    let usage = || {
        let keys = fs::read_to_string("/proc/keys").unwrap();
        let mut of_key = keys.lines().map(str::split_whitespace).map(|mut words| (words.next(), words.nth(1)));
        let usage = of_key.find(|(number, _)| *number == Some(&format!("{key:08x}"))).and_then(|(_, usage)| usage);
        usage.unwrap_or_else(|| panic!("{key:x} is not in\n{keys}")).parse::<i64>().unwrap()
    };
    let before = usage();
    let value = format!("{KFUNC}({key}, 0)");
    const COUNT: &str = "v.key.usage.refs.counter";
    assert_eq!(held(ATTACH, &[KFUNC], &value, COUNT, || {}), before + 1, "it is not counted");
    acquire_at(ATTACH, &[KFUNC], &value, "v.key.serial", || {});
    assert_eq!(usage(), before);
}

/// Does this on each of the CPUs that this thread may run on.
fn on_each_cpu(work: impl Fn()) {
    let set = |set: &libc::cpu_set_t| {
        // SAFETY: it reads a set of its size.
        assert_eq!(unsafe { libc::sched_setaffinity(0, size_of_val(set), set) }, 0);
    };
    // SAFETY: all zeroes are an empty set.
    let empty: libc::cpu_set_t = unsafe { mem::zeroed() };
    let mut all = empty;
    // SAFETY: it writes a set of its size.
    assert_eq!(unsafe { libc::sched_getaffinity(0, size_of_val(&all), &raw mut all) }, 0);
    for cpu in 0..libc::CPU_SETSIZE as usize {
        // SAFETY: the CPU is one of those that a set has room for, here and below.
        if unsafe { libc::CPU_ISSET(cpu, &all) } {
            let mut one = empty;
            unsafe { libc::CPU_SET(cpu, &mut one) };
            set(&one);
            work();
        }
    }
    set(&all);
}

/// Objects of all small sizes, as the kernel counts them; none where it does not tell.
fn objects() -> Option<i64> {
    let text = fs::read_to_string("/proc/slabinfo").ok()?;
    let of = |line: &str| line.split_whitespace().nth(1)?.parse::<i64>().ok();
    Some(text.lines().filter(|line| line.starts_with("kmalloc-")).filter_map(of).sum())
}

#[test]
fn root_memory_is_given_back() {
    let _alone = alone();
    if unless_root() {
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
        (&["scx_bpf_get_idle_cpumask", "bpf_cpumask_weight"], "scx_bpf_get_idle_cpumask()", "bpf_cpumask_weight(v)"),
        (&["scx_bpf_get_idle_smtmask", "bpf_cpumask_weight"], "scx_bpf_get_idle_smtmask()", "bpf_cpumask_weight(v)"),
        (
            &["scx_bpf_get_idle_cpumask_node", "bpf_cpumask_weight"],
            "scx_bpf_get_idle_cpumask_node(0)",
            "bpf_cpumask_weight(v)",
        ),
        (
            &["scx_bpf_get_idle_smtmask_node", "bpf_cpumask_weight"],
            "scx_bpf_get_idle_smtmask_node(0)",
            "bpf_cpumask_weight(v)",
        ),
        (&["bpf_get_root_mem_cgroup"], "bpf_get_root_mem_cgroup()", "v.css.cgroup.level"),
        (
            &["scx_bpf_get_possible_cpumask", "bpf_cpumask_weight"],
            "scx_bpf_get_possible_cpumask()",
            "bpf_cpumask_weight(v)",
        ),
        (
            &["scx_bpf_get_online_cpumask", "bpf_cpumask_weight"],
            "scx_bpf_get_online_cpumask()",
            "bpf_cpumask_weight(v)",
        ),
    ] {
        if !has(kfuncs) {
            continue;
        }
        // What is given back goes through RCU, and what comes while the kernel waits for that (kernel/bpf/memalloc.c)
        // waits on each CPU until the next is given back there.
        let next = acquiring(GETPPID, kfuncs, value, used);
        let settle = || {
            trace(&next, || on_each_cpu(|| call(1)));
            thread::sleep(Duration::from_millis(100));
        };
        settle();
        let Some(before) = objects() else {
            println!("skipped: /proc/slabinfo cannot be read");
            return;
        };
        acquire(kfuncs, value, used);
        let begun = Instant::now();
        let mut more = objects().unwrap() - before;
        while more > OTHERS && begun.elapsed() < patience() {
            settle();
            more = objects().unwrap() - before;
        }
        assert!(more <= OTHERS, "{value}: {more} more objects than before");
    }
}
