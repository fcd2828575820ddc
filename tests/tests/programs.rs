//! What the compiler accepts, the verifier accepts: whole programs at the edge of the compiler's bounds.
//!
//! The bounds are there because the verifier has some. Each shape is a program of n parts; the largest n that is
//! accepted is looked for and loaded. Each part must cost the verifier about the same: where what it knows of one part
//! makes it go through all that stands behind once more, the cost doubles with each, and a program within all bounds is
//! refused in the end.

use porthole::compile::compile;
use porthole::declare::{Declaration, KfuncUse, Step};
use porthole::kernel::KernelFacts;
use porthole::load::{check_privileges, load};
use porthole::plan::plan;
use porthole_tests::declaration::{self, bind};
use porthole_tests::kernel::Object;

const RING: u32 = 1 << 16;
const SWITCH: &str = "rawtracepoint:sched_switch";
const OPENAT: &str = "tracepoint:syscalls:sys_enter_openat";

/// A shape: its name, where it fires, the most parts it could have, and how it is made.
type Shape = (&'static str, &'static str, usize, fn(usize) -> Parts);

/// Steps, and the values of fields.
type Parts = (Vec<Step>, Vec<String>);
const GETENV: &str = "uprobe:libc:getenv";

const SHAPES: [Shape; 60] = [
    ("sums", OPENAT, 64, |n| (vec![], vec![chain("nsecs", "+", 256); n])),
    ("conditions", OPENAT, 127, |n| (vec![Step::When(chain("nsecs", "||", 250)); n], vec![])),
    ("unlike conditions", OPENAT, 127, |n| (whens(n, |i| format!("tid % {} != {}", i + 2, i)), vec![])),
    ("sums of conditions", OPENAT, 64, |n| (vec![], vec![chain("(tid>gid)", "+", 100); n])),
    ("divisions", OPENAT, 64, |n| (vec![], vec![chain("(tid-9)", "/", 20); n])),
    ("choices", OPENAT, 64, |n| (vec![], vec![chain("tid", "?1:", 60); n])),
    ("absent values", OPENAT, 30, absent),
    ("bound numbers", OPENAT, 30, |n| twice(n, |i| format!("nsecs * {i}"), "b# > 5", "b# < 6")),
    ("bound texts", OPENAT, 30, |n| {
        twice(n, |i| format!("str(args.filename, {})", 20 + i), "b# == \"abc\"", "b# == \"abd\"")
    }),
    ("bound pointers", SWITCH, 30, |n| twice(n, |_| "args.prev.real_parent".to_owned(), "b#.pid", "b#.tgid")),
    ("vouched pointers", SWITCH, 30, |n| {
        twice(n, |i| format!("cpu > {i} ? args.prev : args.next"), "b#.pid", "b#.tgid")
    }),
    ("variables of CPUs", SWITCH, 64, |n| (vec![], vec!["per_cpu(\"runqueues\", pid).nr_running".to_owned(); n])),
    ("tests of variables", SWITCH, 127, |n| (whens(n, |i| format!("this_cpu(\"runqueues\").cpu != {i}")), vec![])),
    ("reads of addresses", OPENAT, 64, |n| {
        (vec![], (0..n).map(|i| format!("*(int *)(nsecs + {i}) + *(u8 *)user(nsecs * {i})")).collect())
    }),
    ("ranges", OPENAT, 64, |n| {
        (vec![], (0..n).map(|i| format!("(pid > {i}) + (uid > {i}) + (gid > {i}) + (cpu > {i})")).collect())
    }),
    ("names", OPENAT, 127, |n| (vec![Step::When(chain("comm!=\"exactly-15-byte\"", "&&", 40)); n], vec![])),
    ("texts and literals", OPENAT, 120, |n| {
        (with_text(whens(n, |_| chain("a!=\"exactly-15-byte\"", "&&", 20))), vec![])
    }),
    ("texts and texts", OPENAT, 250, |n| {
        (vec![bind("a", "str(args.filename)"), Step::When(chain("a==a", "&&", n))], vec![])
    }),
    ("bytes of many lengths", OPENAT, 64, |n| {
        (vec![], (0..n).map(|i| format!("buf(task.io_context, {})", 20 + i * i % 300)).collect())
    }),
    ("bound bytes", OPENAT, 30, |n| {
        twice(n, |i| format!("buf(task.io_context, {})", 20 + i * i % 300), "b# == \"abc\"", "b#")
    }),
    ("bytes as many as there are", OPENAT, 64, |n| (vec![], vec!["buf(args.filename, uid)".to_owned(); n])),
    ("addresses of networks", OPENAT, 64, |n| {
        (
            vec![],
            (0..n)
                .map(|i| {
                    format!("tid > {i} ? ntop(task.io_context.refcount.counter) : ntop(AF_INET6, task.io_context)")
                })
                .collect(),
        )
    }),
    ("long texts", OPENAT, 20, |n| (vec![], vec!["str(args.filename,4096)==str(args.filename,4096)".to_owned(); n])),
    ("texts", OPENAT, 64, |n| (vec![], vec!["str(args.filename)".to_owned(); n])),
    ("texts of many lengths", OPENAT, 40, |n| {
        (vec![], (0..n).map(|i| format!("str(args.filename, {})", 20 + i)).collect())
    }),
    ("chosen texts", OPENAT, 40, |n| {
        (
            vec![],
            (0..n)
                .map(|i| format!("tid > {i} ? str(args.filename, {}) : str(args.filename, {})", 20 + i, 90 - i))
                .collect(),
        )
    }),
    ("bound names", SWITCH, 40, |n| {
        twice(n, |i| if i % 2 == 0 { "comm" } else { "args.prev.comm" }.to_owned(), "b# == \"a\"", "b#")
    }),
    ("elements", SWITCH, 64, |n| (vec![], vec![chain("args.prev.comm[cpu]", "+", 20); n])),
    ("bound elements", SWITCH, 30, |n| twice(n, |i| format!("cpu + {i}"), "args.prev.comm[b#]", "args.next.comm[b#]")),
    ("casts", SWITCH, 64, |n| (vec![], vec![chain("((struct task_struct *)(u64)args.prev).pid", "+", 20); n])),
    ("sets", OPENAT, 64, |n| (vec![], vec![format!("pid in ({})", list(200, |i| i.to_string())); n])),
    ("unlike sets", SWITCH, 64, |n| {
        (whens(n, |i| format!("args.prev.pid in ({})", list(40, |j| (i * j).to_string()))), vec![])
    }),
    ("absent values behind a compared condition", OPENAT, 30, |n| {
        let (steps, fields) = absent(n);
        ([vec![Step::When("(pid ? (tid < gid) == 5 : uid > 1) || cgroup".to_owned())], steps].concat(), fields)
    }),
    ("sets of texts", OPENAT, 60, |n| {
        (with_text(whens(n, |i| format!("a in ({})", list(10, |j| format!("\"text number {}\"", i + j))))), vec![])
    }),
    ("beginnings and ends", OPENAT, 120, |n| {
        (with_text(whens(n, |i| format!("starts_with(a, \"/usr/lib/{i}\") || ends_with(a, \".so.{i}\")"))), vec![])
    }),
    ("searches", OPENAT, 60, |n| (with_text(whens(n, |i| format!("contains(a, \"lib{i}.so\")"))), vec![])),
    ("long searches", OPENAT, 60, |n| (vec![], vec!["contains(str(args.filename, 1900), \"x\")".to_owned(); n])),
    ("searches for long texts", OPENAT, 60, |n| {
        let field = |i| format!("contains(str(args.filename, 300), \"{}\") ? comm : \"{i}\"", "long".repeat(33));
        (vec![], (0..n).map(field).collect())
    }),
    ("walks", SWITCH, 64, |n| (vec![], vec![chain(WALK, "+", 10); n])),
    ("paths", SWITCH, 64, |n| (vec![], vec!["path(args.prev.mm.exe_file)".to_owned(); n])),
    ("bound paths", SWITCH, 30, |n| {
        twice(n, |i| format!("path(args.next.fs.pwd, {})", 200 + i), "b# == \"/usr\"", "starts_with(b#, \"/\")")
    }),
    ("chosen paths", SWITCH, 40, |n| {
        let path = |i| format!("tid > {i} ? path(args.prev.fs.pwd, {}) : path(args.next.mm.exe_file, 90)", 20 + i);
        (vec![], (0..n).map(path).collect())
    }),
    ("paths in user code", GETENV, 40, |n| (vec![], vec!["path(task.fs.pwd.dentry, 500)".to_owned(); n])),
    ("stacks", OPENAT, 64, |n| (vec![], (0..n).map(|i| format!("{}stack({})", ["k", "u"][i % 2], 20 + i)).collect())),
    ("whole stacks", SWITCH, 64, |n| (vec![], (0..n).map(|i| ["kstack", "ustack"][i % 2].to_owned()).collect())),
    ("sums of reads", SWITCH, 64, |n| (vec![], vec!["args.prev.pid + args.next.tgid".to_owned(); n])),
    ("choices of numbers", SWITCH, 64, |n| (vec![], vec!["pid && tid ? 3 : 0".to_owned(); n])),
    ("choices by names", SWITCH, 64, |n| (vec![], vec!["comm == \"a\" ? pid + 1 : 0".to_owned(); n])),
    ("narrow choices", SWITCH, 64, |n| {
        (vec![], vec!["(u32)(pid && tid ? 3 : 0) + (pid && uid ? (u32)1 : 0)".to_owned(); n])
    }),
    ("pointers", SWITCH, 64, |n| (vec![], vec!["args.prev.real_parent.real_parent".to_owned(); n])),
    ("chosen pointers", SWITCH, 64, |n| (vec![], vec!["args.prev.prio & 1 ? args.prev : args.next".to_owned(); n])),
    ("flags and errors", SWITCH, 64, |n| {
        (
            vec![],
            (0..n)
                .map(|i| ["flags(args.prev.exit_code, \"O_\")", "errno(args.prev.exit_code)"][i % 2].to_owned())
                .collect(),
        )
    }),
    ("bound choices", SWITCH, 30, |n| twice(n, |i| format!("pid && tid > {i} ? 3 : 0"), "b# + 1", "b#")),
    ("bound sums of reads", SWITCH, 20, |n| {
        twice(n, |i| format!("args.prev.pid + args.next.tgid + {i}"), "b# > 5", "b#")
    }),
    ("symbols", SWITCH, 64, |n| {
        (
            vec![],
            (0..n)
                .map(|i| ["ksym(args.prev.real_parent)", "usym(args.prev.mm.start_code)"][i % 2].to_owned())
                .collect(),
        )
    }),
    ("stacks in user code", GETENV, 64, |n| {
        (vec![], (0..n).map(|i| format!("{}stack(50)", ["k", "u"][i % 2])).collect())
    }),
    ("conditions in user code", GETENV, 127, |n| (vec![Step::When(chain("arg0", "||", 250)); n], vec![])),
    ("texts in user code", GETENV, 64, |n| (vec![], vec!["str(arg0)".to_owned(); n])),
    ("chosen texts in user code", GETENV, 40, |n| {
        (vec![], (0..n).map(|i| format!("arg1 > {i} ? str(arg0, {}) : str(arg2, {})", 20 + i, 90 - i)).collect())
    }),
    ("walks", SWITCH, 64, |n| (vec![], vec![chain(WALK, "+", 10); n])),
];

/// The kfuncs that shapes call.
const KFUNCS: [&str; 9] = [
    "bpf_task_from_pid",
    "bpf_task_acquire",
    "bpf_cgroup_acquire",
    "bpf_strlen",
    "bpf_probe_read_user_dynptr",
    "bpf_dynptr_slice",
    "bpf_iter_task_new",
    "bpf_iter_task_vma_new",
    "bpf_iter_num_new",
];

/// Shapes of calls and walks.
const CALLING: [Shape; 13] = [
    ("bytes of kfuncs", OPENAT, 64, |n| {
        (
            vec![],
            (0..n).map(|i| format!("bpf_probe_read_user_dynptr(0, {}, task.io_context)", 20 + i * i % 300)).collect(),
        )
    }),
    ("bound bytes of kfuncs", OPENAT, 30, |n| {
        twice(
            n,
            |i| format!("bpf_probe_read_user_dynptr(0, {}, task.io_context)", 20 + i * i % 300),
            "b# == \"abc\"",
            "b#",
        )
    }),
    ("slices in walks in user code", GETENV, 20, |n| {
        let slice = "bpf_dynptr_slice(str(arg0, 17), 0, 2)";
        (vec![], (0..n).map(|i| format!("count(tasks(), t, (bool){slice} + {i})")).collect())
    }),
    ("held values", SWITCH, 30, |n| twice(n, |i| format!("bpf_task_from_pid({i})"), "b#.comm", "b#.pid")),
    ("held values behind `when`", SWITCH, 60, |n| {
        let steps = |i| [bind(&format!("b{i}"), &format!("bpf_task_from_pid({i})")), Step::When(format!("b{i}"))];
        ((0..n).flat_map(steps).collect(), (0..n).rev().map(|i| format!("b{i}.comm")).collect())
    }),
    ("held values and paths", SWITCH, 8, |n| {
        let (steps, _) = twice(n, |i| format!("bpf_task_from_pid({i})"), "", "");
        (steps, vec!["path(args.prev.mm.exe_file)".to_owned(); n])
    }),
    ("held values and names", SWITCH, 30, |n| {
        twice(n, |i| format!("bpf_task_from_pid({i})"), "b#.pid == 1 ? comm : b#.comm", "comm")
    }),
    ("found pointers", OPENAT, 64, |n| {
        (vec![], (0..n).map(|i| format!("bpf_task_acquire(task.real_parent.parent).pid + {i}")).collect())
    }),
    ("walks of tasks", OPENAT, 64, |n| {
        (vec![], (0..n).map(|i| format!("count(tasks(), t, t.real_parent.tgid == pid + {i})")).collect())
    }),
    ("walks for objects", OPENAT, 30, |n| {
        twice(n, |i| format!("first(tasks(), t, t.tgid == {i}, t)"), "(bool)b#", "b#.comm")
    }),
    ("walks in walks", OPENAT, 30, |n| {
        let walk = |i| format!("sum(threads(), t, count(vmas(t), v, v.vm_start > {i} * tid) / (t.pid % 7))");
        (vec![], (0..n).map(walk).collect())
    }),
    ("calls in walks", OPENAT, 60, |n| {
        (vec![], (0..n).map(|i| format!("max(numbers(0, {i}), m, bpf_task_from_pid(m).real_parent.tgid)")).collect())
    }),
    ("texts of kfuncs", OPENAT, 64, |n| {
        (vec![], (0..n).map(|i| format!("bpf_strlen(str(args.filename, {})) + bpf_strlen(comm)", 20 + i)).collect())
    }),
];

/// Of what is held each value doubles the verifier's work: it is there on one path and not on the other, and is to be
/// given back on the one alone. So there are bounds of their number.
const DOUBLING: [&str; 3] = ["held values", "held values and paths", "held values and names"];

const WALK: &str = "args.prev.real_parent.real_parent.real_parent.real_parent.tgid";

/// n bound values that may be absent, each used twice.
fn absent(n: usize) -> Parts {
    (
        (0..n).map(|i| bind(&format!("b{i}"), "1000/tid")).collect(),
        (0..n).map(|i| format!("b{i}/(b{}+1)", n - 1 - i)).collect(),
    )
}

/// n bound values, each used first in one way and then, the last first, in another.
fn twice(n: usize, value: impl Fn(usize) -> String, first: &str, then: &str) -> Parts {
    let binds = (0..n).map(|i| bind(&format!("b{i}"), &value(i))).collect();
    let used = |i: usize, how: &str| how.replace('#', &i.to_string());
    (binds, (0..n).map(|i| used(i, first)).chain((0..n).rev().map(|i| used(i, then))).collect())
}

fn chain(part: &str, by: &str, times: usize) -> String {
    vec![part; times].join(by)
}

fn list(n: usize, member: impl Fn(usize) -> String) -> String {
    (0..n).map(member).collect::<Vec<_>>().join(", ")
}

fn whens(n: usize, condition: impl Fn(usize) -> String) -> Vec<Step> {
    (0..n).map(|i| Step::When(condition(i))).collect()
}

fn with_text(steps: Vec<Step>) -> Vec<Step> {
    [vec![bind("a", "str(args.filename)")], steps].concat()
}

fn declared((name, attach, _, parts): &Shape, n: usize) -> Declaration {
    let (steps, fields) = parts(n);
    let names: Vec<String> = (0..fields.len()).map(|n| format!("f{n}")).collect();
    let fields = names.iter().map(String::as_str).zip(fields.iter().map(String::as_str));
    let mut declaration = declaration::of_fields(attach, fields);
    declaration.probes[0].body.splice(0..0, steps);
    if CALLING.iter().any(|(calling, ..)| calling == name) {
        let listed = |name: &&str| KfuncUse { name: (*name).to_owned(), required: false, claim: None };
        declaration.kfuncs = KFUNCS.iter().map(listed).collect();
    }
    declaration
}

/// The most parts that are accepted.
fn most(shape: &Shape, facts: &KernelFacts) -> usize {
    let accepted = |n| plan(&declared(shape, n), facts).is_ok_and(|plan| compile(&plan, "test", RING).is_ok());
    let (mut yes, mut no) = (0, shape.2 + 1);
    while no - yes > 1 {
        let n = usize::midpoint(yes, no);
        *(if accepted(n) { &mut yes } else { &mut no }) = n;
    }
    yes
}

/// Whether programs can be loaded at all; where not, it is said.
fn privileged() -> bool {
    let checked = check_privileges();
    if let Err(error) = &checked {
        println!("skipped: {error}");
    }
    checked.is_ok()
}

#[test]
fn root_the_largest_programs_load() {
    if !privileged() {
        return;
    }
    let facts = KernelFacts::running();
    largest(&SHAPES, &facts);
}

#[test]
fn root_the_largest_programs_that_call_load() {
    if !privileged() {
        return;
    }
    let facts = KernelFacts::running();
    let lacking: Vec<&str> = KFUNCS.into_iter().filter(|name| facts.kfunc(name).unwrap().is_none()).collect();
    // A walk does not name what it walks by.
    if let Some(lacking) = lacking.iter().find(|name| name.starts_with("bpf_iter_")) {
        println!("skipped: this kernel does not have {lacking}");
        return;
    }
    let can_be = |shape: &&Shape| {
        let text = declaration::text(&declared(shape, 1).probes[0]);
        let lacking = lacking.iter().find(|name| text.contains(*name));
        lacking.iter().for_each(|lacking| println!("skipped: {}: this kernel does not have {lacking}", shape.0));
        lacking.is_none()
    };
    largest(&CALLING.iter().filter(can_be).copied().collect::<Vec<_>>(), &facts);
}

/// Instructions that the verifier goes through, over all paths, for so many parts.
fn gone_through(shape: &Shape, n: usize, facts: &KernelFacts) -> u64 {
    let plan = plan(&declared(shape, n), facts).unwrap();
    let (loaded, verdicts) = Object::load(&compile(&plan, "test", RING).unwrap().bytes);
    assert!(loaded.is_ok(), "{n} of {}: {verdicts:?}", shape.0);
    verdicts[0].processed.expect("the verifier has gone through it")
}

/// Loads the largest program of each shape.
fn largest(shapes: &[Shape], facts: &KernelFacts) {
    for shape in shapes {
        let n = most(shape, facts);
        assert!(n > 0, "{}: not even one", shape.0);
        let plan = plan(&declared(shape, n), facts).unwrap();
        let compiled = compile(&plan, "test", RING).unwrap();
        println!(
            "{}: {n} of {} at most, {} instructions",
            shape.0,
            shape.2,
            compiled.object.functions[0].code.insns.len()
        );
        if let Err(error) = load(&compiled) {
            panic!("{n} of {}: {error}", shape.0);
        }
        if n >= 2 && !DOUBLING.contains(&shape.0) {
            let (half, whole) = (gone_through(shape, n / 2, facts), gone_through(shape, n, facts));
            assert!(whole < 3 * half, "{}: {half} instructions gone through for {}, {whole} for {n}", shape.0, n / 2);
        }
    }
}
