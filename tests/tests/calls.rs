//! Calls of kernel functions in expressions, and walks: loaded, fired, and compared with what is known beforehand.
//!
//! Each kfunc that a plugin may call at a tracepoint stands in [`CALLS`], with what its call gives. What a kernel does
//! not have is left out there, and told.

mod e2e;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use porthole::compile::compile;
use porthole::declare::KfuncUse;
use porthole::kernel::kfunc::{ProgramKind, Usage, known};
use porthole::kernel::{Answer, KernelFacts};
use porthole::load::{LoadError, load};
use porthole::objfile;
use porthole::plan::{Policy, plan_under};
use porthole_tests::cgroups::Cgroups;
use porthole_tests::declaration;
use porthole_tests::kernel::Object;
use porthole_tests::live::{self, listing, this_thread, trace, unless_root};
use porthole_tests::machine::Value;

use e2e::kernel;

/// One test at a time: some compare what a walk of this process's memory gives with the kernel's sums, and another's
/// thread would change it between.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

const ACCESS: &str = "tracepoint:syscalls:sys_enter_access";

/// What a call gives, where that is known beforehand.
enum Gives {
    Is(&'static str),
    /// A value on some machines, and none on others.
    Anything,
    /// The program ends there.
    Nothing,
}

use Gives::{Anything, Is, Nothing};

/// Kfuncs that are listed beside the one which is called, for what it is passed or to look at what it gives.
const BESIDE: [&str; 4] = ["bpf_cpumask_create", "bpf_cpumask_test_cpu", "bpf_cpumask_weight", "bpf_cgroup_from_id"];

/// A kfunc, an expression that calls it, and what that gives where this thread calls access(2) with `/nowhere`.
#[rustfmt::skip]
const CALLS: &[(&str, &str, Gives)] = &[
    ("bpf_cgroup_acquire", "bpf_cgroup_acquire(task.cgroups.dfl_cgrp) == task.cgroups.dfl_cgrp", Is("true")),
    ("bpf_cgroup_ancestor", "bpf_cgroup_ancestor(task.cgroups.dfl_cgrp, 0).level", Is("0")),
    ("bpf_cgroup_ancestor", "bpf_cgroup_ancestor(task.cgroups.dfl_cgrp, 4000).level", Is("absent")),
    ("bpf_cgroup_from_id", "bpf_cgroup_from_id(cgroup).kn.id == cgroup", Is("true")),
    ("bpf_cgroup_read_xattr", "bpf_cgroup_read_xattr(task.cgroups.dfl_cgrp, \"user.porthole-none\")", Is("absent")),
    ("bpf_cpumask_acquire", "bpf_cpumask_weight(bpf_cpumask_acquire(bpf_cpumask_create()))", Is("0")),
    ("bpf_cpumask_and", "bpf_cpumask_and(bpf_cpumask_create(), task.cpus_ptr, task.cpus_ptr)", Is("true")),
    ("bpf_cpumask_any_and_distribute", "bpf_cpumask_test_cpu(bpf_cpumask_any_and_distribute(task.cpus_ptr, task.cpus_ptr), task.cpus_ptr)", Is("true")),
    ("bpf_cpumask_any_distribute", "bpf_cpumask_test_cpu(bpf_cpumask_any_distribute(task.cpus_ptr), task.cpus_ptr)", Is("true")),
    ("bpf_cpumask_clear", "bpf_cpumask_clear(bpf_cpumask_create())", Is("true")),
    ("bpf_cpumask_clear_cpu", "bpf_cpumask_clear_cpu(1, bpf_cpumask_create())", Is("true")),
    ("bpf_cpumask_copy", "bpf_cpumask_copy(bpf_cpumask_create(), task.cpus_ptr)", Is("true")),
    ("bpf_cpumask_create", "bpf_cpumask_weight(bpf_cpumask_create())", Is("0")),
    ("bpf_cpumask_empty", "bpf_cpumask_empty(task.cpus_ptr)", Is("false")),
    ("bpf_cpumask_empty", "bpf_cpumask_empty(bpf_cpumask_create())", Is("true")),
    ("bpf_cpumask_equal", "bpf_cpumask_equal(task.cpus_ptr, task.cpus_ptr)", Is("true")),
    ("bpf_cpumask_equal", "bpf_cpumask_equal(task.cpus_ptr, bpf_cpumask_create())", Is("false")),
    ("bpf_cpumask_first", "bpf_cpumask_test_cpu(bpf_cpumask_first(task.cpus_ptr), task.cpus_ptr)", Is("true")),
    ("bpf_cpumask_first_and", "bpf_cpumask_test_cpu(bpf_cpumask_first_and(task.cpus_ptr, task.cpus_ptr), task.cpus_ptr)", Is("true")),
    ("bpf_cpumask_first_zero", "bpf_cpumask_first_zero(bpf_cpumask_create())", Is("0")),
    ("bpf_cpumask_full", "bpf_cpumask_full(bpf_cpumask_create())", Is("false")),
    ("bpf_cpumask_intersects", "bpf_cpumask_intersects(task.cpus_ptr, task.cpus_ptr)", Is("true")),
    ("bpf_cpumask_or", "bpf_cpumask_or(bpf_cpumask_create(), task.cpus_ptr, task.cpus_ptr)", Is("true")),
    ("bpf_cpumask_populate", "bpf_cpumask_populate(bpf_cpumask_create(), 3, 8)", Is("0")),
    ("bpf_cpumask_set_cpu", "bpf_cpumask_set_cpu(0, bpf_cpumask_create())", Is("true")),
    ("bpf_cpumask_setall", "bpf_cpumask_setall(bpf_cpumask_create())", Is("true")),
    ("bpf_cpumask_subset", "bpf_cpumask_subset(bpf_cpumask_create(), task.cpus_ptr)", Is("true")),
    ("bpf_cpumask_test_and_clear_cpu", "bpf_cpumask_test_and_clear_cpu(0, bpf_cpumask_create())", Is("false")),
    ("bpf_cpumask_test_and_set_cpu", "bpf_cpumask_test_and_set_cpu(0, bpf_cpumask_create())", Is("false")),
    ("bpf_cpumask_test_cpu", "bpf_cpumask_test_cpu(cpu, task.cpus_ptr)", Is("true")),
    ("bpf_cpumask_weight", "bpf_cpumask_weight(task.cpus_ptr) == task.nr_cpus_allowed", Is("true")),
    ("bpf_cpumask_xor", "bpf_cpumask_xor(bpf_cpumask_create(), task.cpus_ptr, task.cpus_ptr)", Is("true")),
    ("bpf_dynptr_adjust", "bpf_dynptr_adjust(\"abcd\", 1, 3)", Is("0")),
    ("bpf_dynptr_adjust", "bpf_dynptr_adjust(\"abcd\", 3, 1)", Is("-22")),
    ("bpf_dynptr_clone", "bpf_dynptr_clone(\"abcd\")", Is("0")),
    ("bpf_dynptr_copy", "bpf_dynptr_copy(\"abcd\", 0, \"efgh\", 0, 2)", Is("0")),
    ("bpf_dynptr_is_null", "bpf_dynptr_is_null(\"abcd\")", Is("false")),
    ("bpf_dynptr_is_rdonly", "bpf_dynptr_is_rdonly(\"abcd\")", Is("false")),
    ("bpf_dynptr_memset", "bpf_dynptr_memset(\"abcd\", 0, 2, 65)", Is("0")),
    ("bpf_dynptr_size", "bpf_dynptr_size(str(args.filename))", Is("8")),
    ("bpf_dynptr_slice", "str(bpf_dynptr_slice(\"abcdef\", 1, 3), 5)", Is("\"bcdef\"")),
    ("bpf_get_kmem_cache", "str(bpf_get_kmem_cache(task).name)", Is("\"task_struct\"")),
    ("bpf_lookup_system_key", "bpf_lookup_system_key(1).key != 0", Anything),
    ("bpf_probe_read_kernel_dynptr", "bpf_probe_read_kernel_dynptr(0, 4, &task.comm)", Is("\"root\"")),
    ("bpf_probe_read_kernel_str_dynptr", "bpf_probe_read_kernel_str_dynptr(0, 40, &task.comm)", Is("\"root_each_kfunc\"")),
    ("bpf_probe_read_user_dynptr", "bpf_probe_read_user_dynptr(0, 4, args.filename)", Is("\"/now\"")),
    ("bpf_probe_read_user_str_dynptr", "bpf_probe_read_user_str_dynptr(0, 40, args.filename)", Is("\"/nowhere\"")),
    ("bpf_probe_read_user_str_dynptr", "bpf_probe_read_user_str_dynptr(0, 4, args.filename)", Is("\"/now\"…")),
    ("bpf_rdonly_cast", "bpf_rdonly_cast((u64)task, \"task_struct\").tgid == pid", Is("true")),
    ("bpf_send_signal_task", "bpf_send_signal_task(task, 0, PIDTYPE_PID, 0)", Is("0")),
    ("bpf_strcasecmp", "bpf_strcasecmp(\"ABC\", \"abc\")", Is("0")),
    ("bpf_strchr", "bpf_strchr(\"abc\", 'c')", Is("2")),
    ("bpf_strchrnul", "bpf_strchrnul(\"abc\", 'x')", Is("3")),
    ("bpf_strcmp", "bpf_strcmp(str(args.filename), \"/nowhere\")", Is("0")),
    ("bpf_strcspn", "bpf_strcspn(\"abc\", \"c\")", Is("2")),
    ("bpf_strlen", "bpf_strlen(&task.comm)", Is("15")),
    ("bpf_strlen", "bpf_strlen(str(args.filename))", Is("8")),
    ("bpf_strnchr", "bpf_strnchr(\"abc\", 3, 'c')", Is("2")),
    ("bpf_strnlen", "bpf_strnlen(\"abc\", 2)", Is("2")),
    ("bpf_strnstr", "bpf_strnstr(\"abc\", \"bc\", 3)", Is("1")),
    ("bpf_strrchr", "bpf_strrchr(\"abcabc\", 'b')", Is("4")),
    ("bpf_strspn", "bpf_strspn(\"aab\", \"a\")", Is("2")),
    ("bpf_strstr", "bpf_strstr(\"abc\", \"bc\")", Is("1")),
    ("bpf_strcasestr", "bpf_strcasestr(\"aBC\", \"bc\")", Is("1")),
    ("bpf_strncasecmp", "bpf_strncasecmp(\"ABC\", \"abd\", 2)", Is("0")),
    ("bpf_strncasestr", "bpf_strncasestr(\"aBC\", \"bc\", 3)", Is("1")),
    ("bpf_task_acquire", "bpf_task_acquire(task) == task", Is("true")),
    ("bpf_task_acquire", "bpf_task_acquire(task.real_parent).tgid == task.real_parent.tgid", Is("true")),
    ("bpf_task_from_pid", "bpf_task_from_pid(task.pid).comm", Is("\"root_each_kfunc\"")),
    ("bpf_task_from_pid", "bpf_task_from_pid(-5).comm", Is("absent")),
    ("bpf_task_from_vpid", "bpf_task_from_vpid(tid) == task", Anything),
    ("bpf_task_get_cgroup1", "bpf_task_get_cgroup1(task, 1).level >= 0", Anything),
    ("bpf_task_under_cgroup", "bpf_task_under_cgroup(task, task.cgroups.dfl_cgrp)", Is("1")),
    ("bpf_throw", "bpf_throw(0)", Nothing),
    ("css_rstat_updated", "css_rstat_updated(&bpf_cgroup_from_id(cgroup).self, 0)", Is("true")),
    ("cgroup_rstat_updated", "cgroup_rstat_updated(bpf_cgroup_from_id(cgroup), 0)", Is("true")),
];

fn has(facts: &KernelFacts, kfunc: &str) -> bool {
    facts.kfunc(kfunc).expect("facts").is_some()
}

fn may_call(facts: &KernelFacts, kfunc: &str, kind: ProgramKind) -> bool {
    has(facts, kfunc) && facts.may_call(kfunc, kind) == Answer::Yes
}

/// Calls access(2).
fn access() {
    // SAFETY: the path ends in a 0.
    unsafe { libc::syscall(libc::SYS_access, c"/nowhere".as_ptr(), libc::F_OK) };
}

fn shown(value: &Value) -> String {
    match value {
        Value::Absent => "absent".to_owned(),
        Value::Boolean(value) => value.to_string(),
        Value::Signed(value) => value.to_string(),
        Value::Unsigned(value) => value.to_string(),
        Value::Text { bytes, cut } => {
            format!("{:?}{}", String::from_utf8_lossy(bytes), if *cut { "…" } else { "" })
        }
        other => format!("{other:?}"),
    }
}

#[test]
fn root_each_kfunc_gives_what_it_should() {
    let _alone = alone();
    if unless_root() {
        return;
    }
    let facts = KernelFacts::running();
    let (mut called, mut lacking) = (BTreeSet::new(), BTreeSet::new());
    for (kfunc, expression, gives) in CALLS {
        if !may_call(&facts, kfunc, ProgramKind::Tracepoint) {
            lacking.insert(*kfunc);
            continue;
        }
        called.insert(*kfunc);
        let beside = BESIDE.into_iter().filter(|name| has(&facts, name));
        let probe = live::probe(&[ACCESS], &format!("tid == {}", this_thread()), &[*expression]);
        let seen = trace(&listing(beside.chain([*kfunc]), probe), access);
        let values: Vec<String> = seen.rows.iter().flatten().map(shown).collect();
        match (gives, &values[..]) {
            (Is(value), [got]) => assert_eq!(got, value, "{expression}"),
            (Anything, [_]) | (Nothing, []) => {}
            (_, got) => panic!("{expression}: {got:?}"),
        }
    }
    if !lacking.is_empty() {
        println!("skipped: this kernel does not let tracepoints call {lacking:?}");
    }
    // Those of the tests below, as far as they call them on this kernel.
    called.extend(SLEEPING.iter().map(|(kfunc, ..)| *kfunc).filter(|kfunc| sleeps_here(&facts, kfunc)));
    called.extend(
        ELSEWHERE
            .iter()
            .map(|(kfuncs, ..)| *kfuncs)
            .filter(|kfuncs| elsewhere_lacks(&facts, kfuncs).is_none())
            .flat_map(|kfuncs| kfuncs.split(' ')),
    );
    let callable = |name: &String| {
        known(name).is_some_and(|known| known.usage == Usage::Call)
            && ProgramKind::ALL.into_iter().any(|kind| may_call(&facts, name, kind))
    };
    let untested: Vec<String> = facts
        .kfunc_names()
        .unwrap()
        .into_iter()
        .filter(callable)
        .filter(|name| !called.contains(name.as_str()))
        .collect();
    // The calls were chosen among what Linux 6.18 and older ones have.
    if facts.version() > (6, 18) {
        println!("skipped: kfuncs this newer kernel has, which no test calls: {untested:?}");
    } else {
        assert!(untested.is_empty(), "plugins may call them, and no test does: {untested:?}");
    }
    println!("{} kfuncs were called", called.len());
}

/// Walks and what surrounds them: each is true.
#[rustfmt::skip]
const TRUTHS: &[&str] = &[
    "count(tasks()) > 3 && count(tasks()) <= count(threads())",
    "count(tasks(), t, t.tgid == task.tgid) == 1",
    "count(threads(), t, t.tgid == task.tgid) == count(threads(task))",
    "any(tasks(), t, t.tgid == task.tgid) && !any(tasks(), t, t.tgid == -7)",
    "all(threads(task), t, t.tgid == task.tgid) && !all(tasks(), t, t.tgid == task.tgid)",
    "first(threads(task), t, t.pid == task.pid, t.tgid) == pid",
    "first(threads(task), t, t.pid == task.pid, t.comm) == comm",
    "first(threads(task), t, t.pid == task.pid, t) == task",
    "sum(numbers(1, 11), n, n) == 55 && count(numbers(3, 3)) == 0",
    "max(numbers(-5, 11), n, n) == 10 && min(numbers(-5, 11), n, n % 2 == 0, n) == -4",
    "max(numbers(-5, -2), n, n) == -3",
    "sum(numbers(0, 4), n, count(numbers(0, 10), m, m < n)) == 6",
    "sum(numbers(0, 3), n, 6 / n) == 9",
    "count(vmas(task)) == task.mm.map_count",
    "sum(vmas(task), v, v.vm_end - v.vm_start) >> 12 == task.mm.total_vm",
    "any(vmas(task, task.mm.start_code), v, v.vm_start == task.mm.start_code || v.vm_start < task.mm.end_code)",
    "count(ancestors(task.cgroups.dfl_cgrp)) == task.cgroups.dfl_cgrp.level + 1",
    "count(children(bpf_cgroup_ancestor(task.cgroups.dfl_cgrp, 0))) == count(descendants(bpf_cgroup_ancestor(task.cgroups.dfl_cgrp, 0)), d, d.cgroup.level == 1)",
    "first(ancestors(task.cgroups.dfl_cgrp), c, c.cgroup.level == 0, c.cgroup.kn.id) == bpf_cgroup_ancestor(task.cgroups.dfl_cgrp, 0).kn.id",
    "count(ancestors(task.cgroups.dfl_cgrp), c, bpf_task_under_cgroup(task, c.cgroup) == 1) == task.cgroups.dfl_cgrp.level + 1",
    "bpf_task_acquire(task.real_parent.real_parent).tgid == task.real_parent.real_parent.tgid",
    "bpf_task_under_cgroup(bpf_task_from_pid(task.pid), bpf_cgroup_from_id(cgroup)) == 1",
    "(bpf_task_from_pid(-9) ? 1 : 2) == 2 && (bpf_task_from_pid(task.pid) ? 1 : 2) == 1",
    "(cpu < 4096 ? bpf_task_from_pid(task.pid) : bpf_task_from_pid(-9)).tgid == pid",
    "(cpu < 4096 ? bpf_task_from_pid(task.pid) : task).tgid == pid && (cpu > 4096 ? bpf_task_from_pid(1) : task) == task",
    "!bpf_task_from_pid(-9) && bpf_task_from_pid(task.pid) != 0",
    "bpf_task_from_pid(task.pid).real_parent.comm == task.real_parent.comm",
    "count(threads(task), t, bpf_task_acquire(t).pid == t.pid) == count(threads(task))",
];

/// The same of cgroups `$a`, in which there are `$a/b`, `$a/c` and `$a/b/d`.
#[rustfmt::skip]
const OF_CGROUPS: &[&str] = &[
    "count(children(bpf_cgroup_from_id($a))) == 2",
    "count(children(bpf_cgroup_from_id($b)), c, c.cgroup.kn.id == $d) == 1 && count(children(bpf_cgroup_from_id($d))) == 0",
    "count(descendants(bpf_cgroup_from_id($a))) == 4",
    "first(descendants(bpf_cgroup_from_id($a)), d, true, d.cgroup.kn.id) == $a",
    "any(descendants(bpf_cgroup_from_id($a)), d, d.cgroup.kn.id == $d) && !any(children(bpf_cgroup_from_id($a)), c, c.cgroup.kn.id == $d)",
    "all(descendants(bpf_cgroup_from_id($a)), d, d.cgroup.kn.id in ($a, $b, $c, $d))",
    "sum(descendants(bpf_cgroup_from_id($a)), d, d.cgroup.level - bpf_cgroup_from_id($a).level) == 4",
    "count(ancestors(bpf_cgroup_from_id($d)), c, c.cgroup.kn.id in ($a, $b, $d)) == 3 && !any(ancestors(bpf_cgroup_from_id($d)), c, c.cgroup.kn.id == $c)",
];

const OF_TRUTHS: [&str; 9] = [
    "bpf_cgroup_ancestor",
    "bpf_cgroup_from_id",
    "bpf_iter_bits_new",
    "bpf_iter_css_new",
    "bpf_iter_num_new",
    "bpf_iter_task_new",
    "bpf_iter_task_vma_new",
    "bpf_task_acquire",
    "bpf_task_from_pid",
];

#[test]
fn root_walks_find_what_is_there() {
    let _alone = alone();
    if unless_root() {
        return;
    }
    let facts = KernelFacts::running();
    if let Some(lacking) = OF_TRUTHS.iter().find(|name| !has(&facts, name)) {
        println!("skipped: this kernel does not have {lacking}");
        return;
    }
    let mut truths: Vec<String> = TRUTHS.iter().map(|truth| (*truth).to_owned()).collect();
    // Numbers of a thread and its process lie one behind the other.
    let (tid, pid) = (this_thread(), std::process::id());
    truths.push(format!("count(bits(&task.pid, 1), n, n < 32) == {}", tid.count_ones()));
    truths.push(format!("count(bits(&task.pid, 1)) == {}", tid.count_ones() + pid.count_ones()));
    truths.push(format!("sum(bits(&task.pid, 1), n, n < 32, 1 << n) == {tid}"));
    // They go when the test ends.
    let cgroups = Cgroups::new(&format!("porthole-calls-{pid}"));
    if let Some(cgroups) = &cgroups {
        let ids = ["", "b", "c", "b/d"].map(|below| cgroups.make(below).to_string());
        let named = |truth: &&str| {
            ["$a", "$b", "$c", "$d"]
                .iter()
                .zip(&ids)
                .fold((*truth).to_owned(), |truth, (name, id)| truth.replace(name, id))
        };
        truths.extend(OF_CGROUPS.iter().map(named));
    }
    for truth in &truths {
        let probe = live::probe(&[ACCESS], &format!("tid == {tid}"), &[truth]);
        let seen = trace(&listing(OF_TRUTHS.into_iter().chain(["bpf_task_under_cgroup"]), probe), access);
        assert_eq!(seen.rows, [[Value::Boolean(true)]], "{truth}");
    }
}

/// What a walk counts is what /proc has: the process is this one, and its threads and areas stand still.
#[test]
fn root_walks_agree_with_proc() {
    let _alone = alone();
    if unless_root() {
        return;
    }
    let kfuncs = ["bpf_iter_task_new", "bpf_iter_task_vma_new"];
    let facts = KernelFacts::running();
    if let Some(lacking) = kfuncs.iter().find(|name| !has(&facts, name)) {
        println!("skipped: this kernel does not have {lacking}");
        return;
    }
    let values = ["count(threads(task))", "count(vmas(task))", "sum(vmas(task), v, v.vm_end - v.vm_start)"];
    let probe = live::probe(&[ACCESS], &format!("tid == {}", this_thread()), &values);
    let mut truth = Vec::new();
    let seen = trace(&listing(kfuncs, probe), || {
        // Its own memory may change what it measures: until nothing does.
        let read = || {
            let maps = fs::read_to_string("/proc/self/maps").unwrap();
            // The last area of all is the kernel's, and no vma.
            let areas: Vec<u64> = maps.lines().filter(|line| !line.ends_with("[vsyscall]")).map(bytes_of).collect();
            let threads = fs::read_dir("/proc/self/task").unwrap().count();
            [threads as u64, areas.len() as u64, areas.iter().sum()]
        };
        for _ in 0..20 {
            let before = read();
            access();
            truth.push((before, read()));
        }
    });
    let rows: Vec<[u64; 3]> = seen.rows.iter().map(|row| [0, 1, 2].map(|n| number(&row[n]))).collect();
    assert_eq!(rows.len(), truth.len());
    let still: Vec<_> = rows.iter().zip(&truth).filter(|(_, (before, after))| before == after).collect();
    assert!(!still.is_empty(), "nothing stood still: {truth:?}");
    for (row, (before, _)) in still {
        assert_eq!(row, before);
    }
}

fn bytes_of(line: &str) -> u64 {
    let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
    u64::from_str_radix(end, 16).unwrap() - u64::from_str_radix(start, 16).unwrap()
}

fn number(value: &Value) -> u64 {
    match value {
        Value::Unsigned(number) => *number,
        Value::Signed(number) => *number as u64,
        other => panic!("{other:?}"),
    }
}

/// A walk that is longer than its bound ends there, and the record tells so.
#[test]
fn root_a_walk_ends_at_its_bound_and_says_so() {
    let _alone = alone();
    if unless_root() {
        return;
    }
    if !has(&KernelFacts::running(), "bpf_iter_num_new") {
        println!("skipped: this kernel does not have bpf_iter_num_new");
        return;
    }
    let when = format!("tid == {}", this_thread());
    for (count, expected, cut) in [(1000, 1000, false), (1 << 14, 1 << 14, false), (100_000, 1 << 14, true)] {
        let probe = live::probe(&[ACCESS], &when, &[&format!("count(numbers(0, {count}))"), "1"]);
        let seen = trace(&listing(["bpf_iter_num_new"], probe), access);
        assert_eq!(seen.rows, [[Value::Unsigned(expected), Value::Signed(1)]]);
        let shown = seen.shown();
        assert_eq!(shown[0].get("walk_cut").is_some(), cut, "{shown:?}");
    }
    // All walks of a hit share it.
    let walks = ["count(numbers(0, 10000))", "count(numbers(0, 10000))"];
    let seen = trace(&listing(["bpf_iter_num_new"], live::probe(&[ACCESS], &when, &walks)), access);
    assert_eq!(seen.rows, [[Value::Unsigned(10000), Value::Unsigned((1 << 14) - 10000)]]);
}

/// What a test before a walk tells of a number must not bound what grows in the walk, or the verifier follows step
/// after step.
#[test]
fn root_walks_load_behind_any_test() {
    let _alone = alone();
    if unless_root() {
        return;
    }
    let facts = KernelFacts::running();
    if let Some(lacking) = ["bpf_iter_num_new", "bpf_iter_task_new"].into_iter().find(|name| !has(&facts, name)) {
        println!("skipped: this kernel does not have {lacking}");
        return;
    }
    for before in [
        "bind a = first(numbers(0, 9), n, n > 3, n)\nwhen a - 7 == 0",
        "bind a = min(numbers(0, 9), n, n > pid, n)\nwhen !(a - 1)",
        "bind a = count(numbers(0, pid))\nwhen !(a - 3)",
        "bind a = any(numbers(0, 9), n, n == tid)\nwhen a + 1 == 1",
        "bind a = all(numbers(0, 9), n, n == tid)\nwhen !a",
        "bind a = first(numbers(0, 9), n, n > 3, comm)\nwhen a == \"cat\"",
        "bind a = pid == 7 || tid == 8\nwhen a - 1 == 0",
        "bind a = pid == 7 && tid == 8\nbind b = a ? count(numbers(0, 7)) : count(numbers(0, 8))\nwhen !a",
        "bind a = cpu < 3 ? count(numbers(0, 7)) : 0\nwhen !a",
        "bind a = first(tasks(), t, t.pid != 0, t)\nwhen !container_of(a, struct task_struct, pid)",
        "bind a = first(tasks(), t, t.pid != 0, (u64)t.real_parent)\nwhen !(a + 5)",
    ] {
        let walks = "count(numbers(0, 50), n, count(numbers(0, n), m, m == a2) == 3)";
        let text = format!(
            "kfunc bpf_iter_num_new\nkfunc bpf_iter_task_new\nprobe p\nattach {ACCESS}\n{before}\nbind a2 = count(numbers(0, 5), n, n != pid)\nemit e\n  v = {walks}\n  w = sum(numbers(0, 9), n, max(numbers(0, n), m, m))\n  x = first(threads(), t, t.user_cpus_ptr != 0, t)\n  z = pid\n"
        );
        let plan = plan_under(&declaration::parse(&text).unwrap(), &facts, &Policy::default());
        let plan = plan.unwrap_or_else(|e| panic!("{e}"));
        let (loaded, verdicts) = Object::load(&compile(&plan, "test", 1 << 16).unwrap().bytes);
        assert!(loaded.is_ok(), "{text}{verdicts:#?}");
        // Without a test before it is some 500.
        assert!(verdicts[0].processed.is_some_and(|gone| gone < 5000), "{text}{verdicts:?}");
    }
}

/// What calls and walks need of the stack they need for a while only, however many there are.
#[test]
fn root_a_record_full_of_calls_loads() {
    let _alone = alone();
    if unless_root() {
        return;
    }
    let facts = KernelFacts::running();
    let kfuncs =
        ["bpf_dynptr_size", "bpf_cpumask_populate", "bpf_cpumask_create", "bpf_iter_num_new", "bpf_iter_task_new"];
    if let Some(lacking) = kfuncs.iter().find(|name| !has(&facts, name)) {
        println!("skipped: this kernel does not have {lacking}");
        return;
    }
    let of_kind = |n: u64| match n % 4 {
        0 => (format!("bpf_dynptr_size(\"{}\")", "x".repeat(n as usize + 1)), Value::Unsigned(n + 1)),
        1 => (format!("count(numbers(0, {n}))"), Value::Unsigned(n)),
        2 => (format!("bpf_cpumask_populate(bpf_cpumask_create(), {n}, 8)"), Value::Signed(0)),
        _ => ("any(threads(task), t, t.pid == tid)".to_owned(), Value::Boolean(true)),
    };
    let (values, expected): (Vec<String>, Vec<Value>) = (0..64).map(of_kind).unzip();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    let probe = live::probe(&[ACCESS], &format!("tid == {}", this_thread()), &values);
    let seen = trace(&listing(kfuncs, probe), access);
    assert_eq!(seen.rows, [expected]);
}

/// A kfunc that may sleep, a call of it where this process calls getenv(3) with `PORTHOLE_X`, and what that gives.
#[rustfmt::skip]
const SLEEPING: &[(&str, &str, &str)] = &[
    ("bpf_copy_from_user_str", "bpf_copy_from_user_str(64, arg0, 0)", "\"PORTHOLE_X\""),
    ("bpf_copy_from_user_str", "bpf_copy_from_user_str(8, arg0, 0)", "\"PORTHOLE\"…"),
    ("bpf_copy_from_user_str", "bpf_copy_from_user_str(64, 9, 0)", "absent"),
    ("bpf_copy_from_user_dynptr", "bpf_copy_from_user_dynptr(0, 4, arg0)", "\"PORT\""),
    ("bpf_copy_from_user_str_dynptr", "bpf_copy_from_user_str_dynptr(0, 40, arg0)", "\"PORTHOLE_X\""),
    ("bpf_copy_from_user_task_str", "bpf_copy_from_user_task_str(64, arg0, task, 0)", "\"PORTHOLE_X\""),
    ("bpf_copy_from_user_task_dynptr", "bpf_copy_from_user_task_dynptr(0, 4, arg0, task)", "\"PORT\""),
    ("bpf_copy_from_user_task_str_dynptr", "bpf_copy_from_user_task_str_dynptr(0, 40, arg0, task)", "\"PORTHOLE_X\""),
];

fn sleeps_here(facts: &KernelFacts, kfunc: &str) -> bool {
    may_call(facts, kfunc, ProgramKind::UprobeSleepable)
}

/// Kfuncs that may sleep are called from programs that may.
#[test]
fn root_sleeping_kfuncs_read_what_is_not_in_memory_yet() {
    let _alone = alone();
    if unless_root() {
        return;
    }
    let facts = KernelFacts::running();
    for (kfunc, expression, value) in SLEEPING {
        if !sleeps_here(&facts, kfunc) {
            println!("skipped: this kernel does not let uprobes call {kfunc}");
            continue;
        }
        let probe = live::probe(&["uprobe:libc:getenv"], &format!("tid == {}", this_thread()), &[expression]);
        let seen = trace(&listing([*kfunc], probe), || {
            // SAFETY: the name ends in a 0, and nothing changes the environment meanwhile that the result could matter
            // to.
            unsafe { libc::getenv(c"PORTHOLE_X".as_ptr()) };
        });
        assert_eq!(seen.rows.iter().flatten().map(shown).collect::<Vec<_>>(), [*value], "{expression}");
    }
}

/// Programs of other kinds, which are loaded: a kfunc, where, a condition, and a value.
#[rustfmt::skip]
const ELSEWHERE: &[(&str, &str, &str, &str)] = &[
    ("css_rstat_flush", "iter:cgroup", "args.cgroup.level == 0", "css_rstat_flush(&args.cgroup.self)"),
    ("cgroup_rstat_flush", "iter:cgroup", "args.cgroup.level == 0", "cgroup_rstat_flush(args.cgroup)"),
    ("cgroup_rstat_updated", "iter:cgroup", "args.cgroup.level == 0", "cgroup_rstat_updated(args.cgroup, 0)"),
    ("bpf_path_d_path", "lsm:file_open", "true", "bpf_path_d_path(&args.file.f_path, 256)"),
    ("bpf_get_file_xattr", "lsm:file_open", "true", "bpf_get_file_xattr(args.file, \"user.porthole-none\")"),
    ("bpf_get_dentry_xattr", "lsm:inode_getxattr", "true", "bpf_get_dentry_xattr(args.dentry, \"user.porthole-none\")"),
    ("bpf_get_task_exe_file", "lsm:file_open", "true", "bpf_get_task_exe_file(task).f_flags"),
    ("bpf_iter_css_task_new", "iter:cgroup", "true", "count(css_tasks(args.cgroup))"),
    ("bpf_iter_css_new", "iter:cgroup", "true", "count(descendants(args.cgroup), d, d.cgroup.level == args.cgroup.level + 1)"),
    ("css_rstat_flush bpf_cgroup_from_id bpf_task_under_cgroup", "iter:task", "css_rstat_flush(&bpf_cgroup_from_id(cgroup).self)", "bpf_task_under_cgroup(args.task, args.task.cgroups.dfl_cgrp)"),
    ("bpf_copy_from_user_task_str scx_bpf_cpu_curr", "iter:task", "bpf_copy_from_user_task_str(8, 0, args.task, 0) != \"x\"", "scx_bpf_cpu_curr(0).pid"),
    ("bpf_map_sum_elem_count", "iter:bpf_map", "true", "bpf_map_sum_elem_count(args.map)"),
    ("bpf_task_acquire", "iter:task_file", "true", "bpf_task_acquire(args.task).tgid"),
    ("bpf_sock_destroy", "iter:tcp", "args.uid == 4711", "bpf_sock_destroy(args.sk_common)"),
    ("bpf_lookup_user_key", "iter:task", "true", "bpf_lookup_user_key(1, 0).key"),
    ("bpf_task_from_pid", "rawtracepoint:sched_switch", "true", "bpf_task_from_pid(args.next.pid).comm"),
    ("bpf_task_acquire", "rawtracepoint:sched_switch", "true", "bpf_task_acquire(args.next).comm"),
    ("bpf_task_from_pid", "profile:hz:97", "true", "bpf_task_from_pid(task.pid).comm"),
    ("bpf_task_acquire", "profile:hz:97", "true", "bpf_task_acquire(task)"),
    ("bpf_iter_task_new", "profile:hz:97", "any(tasks(), t, t.tgid == 1)", "(bool)first(tasks(), t, t.tgid == 1, t)"),
    ("bpf_strlen", "uprobe:libc:getenv", "true", "bpf_strlen(str(arg0))"),
    ("bpf_iter_task_new", "uprobe:libc:getenv", "true", "count(tasks())"),
    ("bpf_copy_from_user_str bpf_iter_task_new", "uprobe:libc:getenv", "bpf_copy_from_user_str(5, arg0, 0) == \"PORTH\"", "count(tasks(), t, t.tgid == pid)"),
];

/// What may sleep beside what RCU protects: kernels that have sections for it load it, and for others all places are
/// refused.
#[test]
fn root_what_rcu_protects_beside_what_may_sleep() {
    let _alone = alone();
    if unless_root() {
        return;
    }
    let facts = KernelFacts::running();
    let kfuncs = ["cgroup_rstat_flush", "cgroup_rstat_updated"];
    if let Some(lacking) = kfuncs.iter().find(|name| !has(&facts, name)) {
        println!("skipped: this kernel does not have {lacking}");
        return;
    }
    let updated = "cgroup_rstat_updated(task.cgroups.dfl_cgrp, 0)";
    let mut declaration = listing(kfuncs, live::probe(&["iter:cgroup"], "cgroup_rstat_flush(args.cgroup)", &[updated]));
    // Also in front of what sleeps.
    declaration.probes[0].body.insert(0, declaration::bind("before", updated));
    let planned = plan_under(&declaration, &facts, &Policy { effects: true });
    if has(&facts, "bpf_rcu_read_lock") {
        let plan = planned.unwrap_or_else(|e| panic!("{e}"));
        load(&compile(&plan, "test", 1 << 16).expect("it is small")).map(drop).unwrap_or_else(|e| panic!("{e}"));
    } else {
        let told = planned.expect_err("it cannot be loaded").to_string();
        assert_eq!(told.matches("RCU protects this").count(), 2, "{told}");
        assert_eq!(told.matches(&format!("  | {updated}\n")).count(), 2, "{told}");
    }
}

/// Which of these this kernel does not have, or lets no program call.
fn elsewhere_lacks<'a>(facts: &KernelFacts, kfuncs: &'a str) -> Option<&'a str> {
    kfuncs.split(' ').find(|name| !ProgramKind::ALL.into_iter().any(|kind| may_call(facts, name, kind)))
}

#[test]
fn root_kfuncs_load_in_programs_of_other_kinds() {
    let _alone = alone();
    if unless_root() {
        return;
    }
    let facts = KernelFacts::running();
    for (kfuncs, attach, condition, expression) in ELSEWHERE {
        if let Some(lacking) = kfuncs.split(' ').find(|name| !has(&facts, name)) {
            println!("skipped: this kernel does not have {lacking}");
            continue;
        }
        let declaration = listing(kfuncs.split(' '), live::probe(&[attach], condition, &[expression]));
        if let Some(refused) = elsewhere_lacks(&facts, kfuncs) {
            // Where a kind of programs cannot be loaded at all, it is not known, and nothing is refused for it.
            if facts.callers(refused).values().all(|answer| matches!(answer, Answer::No(_))) {
                let told =
                    plan_under(&declaration, &facts, &Policy { effects: true }).expect_err(expression).to_string();
                assert!(told.contains(&format!("`{refused}` cannot be called at ")), "{told}");
            }
            println!("skipped: this kernel lets no programs call {refused}");
            continue;
        }
        let plan = plan_under(&declaration, &facts, &Policy { effects: true }).unwrap_or_else(|e| panic!("{e}"));
        let (loaded, verdicts) = Object::load(&compile(&plan, "test", 1 << 16).unwrap().bytes);
        assert!(loaded.is_ok(), "{attach}: {expression}: {verdicts:#?}");
    }
}

/// docs/kfuncs.md: its examples have the values that it says, and its declarations load.
#[test]
fn root_documented_calls_give_what_the_page_says() {
    let _alone = alone();
    if unless_root() {
        return;
    }
    let facts = KernelFacts::running();
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/kfuncs.md")).unwrap();
    let (mut rows, mut within) = (0, false);
    for line in page.lines() {
        within = line.starts_with("| at `") || within && line.starts_with('|');
        let Some(row) = line.strip_prefix("| `").filter(|_| within) else { continue };
        let cells: Vec<&str> =
            row.trim_end_matches('|').split(" | ").map(|cell| cell.trim().trim_matches('`')).collect();
        let [expression, value, listed] = cells[..] else { panic!("{line}") };
        rows += 1;
        if let Some(lacking) = listed.split(' ').find(|name| !has(&facts, name)) {
            println!("skipped: this kernel does not have {lacking}");
            continue;
        }
        let probe = live::probe(&[ACCESS], &format!("tid == {}", this_thread()), &[expression]);
        let seen = trace(&listing(listed.split(' '), probe), access);
        let values: Vec<String> = seen.rows.iter().flatten().map(shown).collect();
        assert_eq!(values, [value.replace('`', "")], "{expression}");
    }
    assert!(rows >= 20, "{rows} examples");
    let blocks: Vec<&str> =
        page.split("```declaration\n").skip(1).filter_map(|rest| Some(rest.split_once("```")?.0)).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        let declaration = declaration::parse(block).unwrap_or_else(|e| panic!("{e}"));
        if let Some(lacking) = declaration.kfuncs.iter().find(|listed| !has(&facts, &listed.name)) {
            println!("skipped: this kernel does not have {}", lacking.name);
            continue;
        }
        let plan = plan_under(&declaration, &facts, &Policy::default()).unwrap_or_else(|e| panic!("{e}"));
        let (loaded, verdicts) = Object::load(&compile(&plan, "test", 1 << 16).unwrap().bytes);
        assert!(loaded.is_ok(), "{block}: {verdicts:#?}");
    }
}

/// What a kernel lacks is absent where the declaration is prepared for that, and the rest goes on.
#[test]
fn root_what_a_kernel_lacks_is_absent() {
    let _alone = alone();
    if unless_root() {
        return;
    }
    let facts = KernelFacts::running();
    // Known to the table, or not; and not of this kernel.
    let known = [
        "bpf_strcasestr",
        "bpf_probe_read_kernel_str_dynptr",
        "bpf_task_from_vpid",
        "bpf_cgroup_from_id",
        "cgroup_rstat_flush",
    ];
    let lacking: Vec<&str> = known.into_iter().chain(["bpf_not_a_kfunc"]).filter(|name| !has(&facts, name)).collect();
    let calls: Vec<String> = lacking.iter().map(|name| format!("{name}(1, tid)")).collect();
    let values: Vec<&str> = calls.iter().map(String::as_str).chain(["1"]).collect();
    let mut declaration = live::probe(&[ACCESS], &format!("tid == {}", this_thread()), &values);
    let optional = |name: &&str| KfuncUse { name: (*name).to_owned(), required: false, claim: None };
    declaration.kfuncs = lacking.iter().map(optional).collect();
    let seen = trace(&declaration, access);
    let (last, others) = seen.rows[0].split_last().unwrap();
    assert_eq!(*last, Value::Signed(1));
    assert!(others.iter().all(|value| *value == Value::Absent), "{others:?}");
}

/// Facts of the recorded kernel, in which `bpf_task_from_pid` and `bpf_task_release` have names that the host's table
/// does not know.
fn renamed() -> KernelFacts {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    KernelFacts::from_dir(MADE.get_or_init(make_renamed))
}

fn make_renamed() -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/kernel-6.18");
    let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernel-renamed");
    let rename = |bytes: Vec<u8>| {
        let mut bytes = bytes;
        for (old, new) in [
            (&b"bpf_task_from_pid"[..], &b"bpf_task_from_pit"[..]),
            (b"bpf_task_release", b"bpf_task_releasa"),
            (b"bpf_iter_num_new", b"bpf_iter_num_nex"),
        ] {
            let places: Vec<usize> =
                bytes.windows(old.len()).enumerate().filter(|(_, w)| *w == old).map(|(at, _)| at).collect();
            assert!(!places.is_empty());
            places.into_iter().for_each(|at| bytes[at..at + new.len()].copy_from_slice(new));
        }
        bytes
    };
    fs::create_dir_all(to.join("btf")).unwrap();
    fs::create_dir_all(to.join("events/sched/sched_switch")).unwrap();
    for file in ["btf/vmlinux", "kfuncs"] {
        fs::write(to.join(file), rename(fs::read(from.join(file)).unwrap())).unwrap();
    }
    fs::copy(from.join("events/sched/sched_switch/format"), to.join("events/sched/sched_switch/format")).unwrap();
    to
}

/// A kfunc that the host does not know is owned as the plugin claims, or refused with what is wrong with the claim.
#[test]
fn claims_stand_in_for_the_table() {
    let facts = renamed();
    let under = |listed: &str, effects: bool| {
        let probe = "probe p\nattach tracepoint:sched:sched_switch\nemit e\n  t = bpf_task_from_pit(1).tgid\n";
        plan_under(&declaration::parse(&format!("kfunc {listed}\n{probe}")).unwrap(), &facts, &Policy { effects })
    };
    let planned = |listed: &str| under(listed, true);
    let plan = planned("bpf_task_from_pit owned=bpf_task_releasa null").unwrap_or_else(|e| panic!("{e}"));
    let compiled = compile(&plan, "test", 1 << 16).unwrap();
    assert_eq!(compiled.claimed, ["bpf_task_from_pit"]);
    let called: Vec<&str> = compiled.object.kfuncs.iter().map(|kfunc| kfunc.name.as_str()).collect();
    assert_eq!(called, ["bpf_task_from_pit", "bpf_task_releasa"], "it is released as claimed");
    // Not owned: an address, which nothing releases.
    let compiled = compile(&planned("bpf_task_from_pit plain").unwrap(), "test", 1 << 16).unwrap();
    assert_eq!(compiled.object.kfuncs.len(), 1);
    for (listed, message) in [
        ("bpf_task_from_pit", "the host does not know what it does with what it gives"),
        ("bpf_task_from_pit owned=bpf_task_releese", "this kernel has no such kfunc"),
        ("bpf_task_from_pit owned=bpf_cgroup_release", "which does not release what it gives"),
        ("bpf_task_from_pit owned=bpf_task_acquire", "which does not release what it gives"),
        ("bpf_task_from_pit sleeps", "may sleep, and programs at this attach point must not"),
    ] {
        let told = planned(listed).expect_err(listed).to_string();
        assert!(told.contains(message), "{told}");
    }
    let told = under("bpf_task_from_pit plain", false).expect_err("what it changes is not known").to_string();
    assert!(told.contains("the host does not know what it changes, and this run allows no effects"), "{told}");
}

/// A module's kfunc is one that the host does not know. Its types are the module's and the kernel's.
#[test]
fn kfuncs_of_modules_are_called_as_claimed() {
    let facts = KernelFacts::from_dir(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/kernel-6.18"));
    let planned = |listed: &str, value: &str, effects: bool| {
        let text = format!("{listed}probe p\nattach rawtracepoint:sched_switch\nemit e\n  f = {value}\n");
        plan_under(&declaration::parse(&text).unwrap(), &facts, &Policy { effects })
    };
    let listed = "kfunc booth_get owned=booth_put null\nkfunc booth_sold plain\n";
    let value = "booth_sold(booth_get(task)) + booth_get(args.next).keeper.tgid";
    let compiled = compile(&planned(listed, value, true).unwrap_or_else(|e| panic!("{e}")), "test", 1 << 16).unwrap();
    assert_eq!(compiled.claimed, ["booth_get", "booth_sold"]);
    let called: Vec<&str> = compiled.object.kfuncs.iter().map(|kfunc| kfunc.name.as_str()).collect();
    assert_eq!(called, ["booth_get", "booth_put", "booth_sold"]);
    for (listed, value, effects, message) in [
        (listed, value, false, "the host does not know what it changes"),
        ("kfunc booth_get\n", "booth_get(task)", true, "the host does not know what it does with what it gives"),
        ("kfunc booth_git plain\n", "booth_git(task)", true, "did you mean `booth_get` or `booth_put`?"),
        (listed, "booth_sold(booth_get(args.preempt))", true, "a pointer to `struct task_struct` is wanted"),
        (listed, "booth_sold(task)", true, "struct booth"),
        // Its argument is a number, by which the kernel finds its own types alone.
        (
            "kfunc bpf_rdonly_cast\n",
            "bpf_rdonly_cast(task, \"booth\") == 0",
            true,
            "the name of a structure of the kernel itself is wanted",
        ),
    ] {
        let told = planned(listed, value, effects).expect_err(value).to_string();
        assert!(told.contains(message), "{told}");
    }
}

/// What is thrown is what the program returns, which the verifier bounds in programs of some kinds.
#[test]
fn nothing_but_zero_is_thrown() {
    let facts = KernelFacts::from_dir(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/kernel-6.18"));
    let planned = |value: &str| {
        let text =
            format!("kfunc bpf_throw\nprobe p\nattach rawtracepoint:sched_switch\nemit e\n  f = bpf_throw({value})\n");
        plan_under(&declaration::parse(&text).unwrap(), &facts, &Policy { effects: true })
    };
    assert!(planned("0").is_ok());
    let told = planned("args.next.tgid").expect_err("it may be anything").to_string();
    assert!(told.contains("what is thrown is what the program returns, and that is 0"), "{told}");
}

/// A walk by an iterator that the kernel lacks is absent, where the declaration is prepared for that.
#[test]
fn walks_that_a_kernel_lacks_are_absent() {
    let planned = |listed: &str| {
        let probe = "probe p\nattach tracepoint:sched:sched_switch\nemit e\n  n = count(numbers(0, 3))\n  any = any(numbers(0, 3), n, n)\n";
        plan_under(&declaration::parse(&format!("kfunc {listed}\n{probe}")).unwrap(), &renamed(), &Policy::default())
    };
    let plan = planned("bpf_iter_num_new?").unwrap_or_else(|e| panic!("{e}"));
    assert!(plan.kfuncs[0].missing);
    assert!(compile(&plan, "test", 1 << 16).unwrap().object.kfuncs.is_empty(), "nothing is called");
    let told = planned("bpf_iter_num_new").expect_err("it is required").to_string();
    assert!(told.starts_with("kfunc `bpf_iter_num_new`: this kernel does not have it"), "{told}");
}

/// A program that the kernel refuses for a wrong claim is told as that, and nothing is left loaded.
#[test]
fn root_a_wrong_claim_is_told() {
    let _alone = alone();
    if unless_root() {
        return;
    }
    let facts = KernelFacts::running();
    if !has(&facts, "bpf_task_from_pid") {
        println!("skipped: this kernel does not have bpf_task_from_pid");
        return;
    }
    // Planned for a kernel in which it has another name, that the host does not know, and loaded under its own.
    let text = "kfunc bpf_task_from_pit plain\nprobe p\nattach tracepoint:sched:sched_switch\nemit e\n  t = bpf_task_from_pit(1)\n";
    let plan = plan_under(&declaration::parse(text).unwrap(), &renamed(), &Policy { effects: true })
        .unwrap_or_else(|e| panic!("{e}"));
    let mut compiled = compile(&plan, "test", 1 << 16).unwrap();
    compiled.object.kfuncs[0].name = "bpf_task_from_pid".to_owned();
    compiled.bytes = objfile::write(&compiled.object).unwrap();
    match kernel::leaving_nothing(|| load(&compiled).err()) {
        Some(LoadError::Claimed { kfuncs, .. }) => assert_eq!(kfuncs, ["bpf_task_from_pit"]),
        other => panic!("{:?}", other.map(|e| e.to_string())),
    }
}
