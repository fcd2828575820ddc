//! What `porthole list` prints of the running kernel can be pasted into a declaration: it attaches, and each argument
//! is accepted.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use porthole::compile::compile;
use porthole::kernel::KernelFacts;
use porthole::list::{Arguments, list};
use porthole::load::load;
use porthole::plan::plan;
use porthole_tests::declaration;

const RING: u32 = 1 << 16;

/// Some of these, spread over all.
fn sample(points: Vec<String>, count: usize) -> Vec<String> {
    let step = points.len().div_ceil(count).max(1);
    points.into_iter().step_by(step).collect()
}

fn points(pattern: &str, facts: &KernelFacts) -> Vec<String> {
    list(Some(pattern), facts).unwrap_or_else(|e| panic!("{e}")).points
}

/// With each argument that can be read as a field, the attach point is accepted, loaded and attached to.
#[test]
fn root_what_is_listed_attaches_with_all_its_arguments() {
    let facts = KernelFacts::running();
    let mut arguments = Arguments::new(&facts);
    let (mut faults, mut attached) = (Vec::new(), 0);
    // Each kind that can be attached to without being called for; what counts needs no sample.
    for (kind, count) in
        [("tracepoint", 60), ("rawtracepoint", 40), ("iter", 15), ("software", 10), ("profile", 4), ("hardware", 3)]
    {
        let mut probes = Vec::new();
        for (attach, n) in sample(points(kind, &facts), count).iter().zip(0..) {
            let told = arguments.of(attach).unwrap_or_else(|fault| panic!("{attach}: {fault:?}"));
            let fields = told.iter().filter(|a| a.refused.is_none()).enumerate().take(60);
            let fields: Vec<(String, &str)> = fields.map(|(i, a)| (format!("f{i}"), a.expression.as_str())).collect();
            let fields = fields.iter().map(|(name, expression)| (name.as_str(), *expression));
            let mut one = declaration::of_fields(attach, fields);
            one.probes[0].name = format!("p{n}");
            probes.push(one);
        }
        println!("{kind}: {}", probes.len());
        for some in probes.chunks(20) {
            let mut all = some[0].clone();
            all.probes = some.iter().flat_map(|one| one.probes.clone()).collect();
            let result = plan(&all, &facts).map_err(|e| e.to_string()).and_then(|plan| {
                let compiled = compile(&plan, "list", RING).map_err(|e| e.to_string())?;
                let mut attached = load(&compiled).and_then(|l| l.attach(&plan)).map_err(|e| e.to_string())?;
                attached.detach();
                Ok(attached.points())
            });
            match result {
                Ok(points) => attached += points,
                Err(error) => faults.push(format!("{kind}: {error}")),
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(attached > 100, "{attached}");
}

/// This machine's types and functions with every kind offered, for kinds that the running kernel lacks.
fn offering_all(directory: &Path) -> KernelFacts {
    let _ = fs::remove_dir_all(directory);
    fs::create_dir_all(directory.join("btf")).unwrap();
    symlink("/sys/kernel/btf/vmlinux", directory.join("btf/vmlinux")).unwrap();
    symlink("/proc/kallsyms", directory.join("kallsyms")).unwrap();
    fs::create_dir(directory.join("events")).unwrap();
    KernelFacts::from_dir(directory)
}

/// Each listed function is found again, and of some each argument that is printed is accepted.
#[test]
fn root_functions_that_are_listed_are_accepted() {
    let facts = offering_all(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("listed"));
    let mut arguments = Arguments::new(&facts);
    let mut expressions = 0;
    for kind in ["fentry", "fexit", "kprobe", "kretprobe", "func", "lsm"] {
        let all = points(kind, &facts);
        println!("{kind}: {}", all.len());
        assert!(all.len() > if kind == "lsm" { 100 } else { 20_000 }, "{kind}: {}", all.len());
        for attach in sample(all, 700) {
            let told = arguments.of(&attach).unwrap_or_else(|fault| panic!("{attach}: {fault:?}"));
            let fields = told.iter().filter(|a| a.refused.is_none()).enumerate();
            let fields: Vec<(String, &str)> = fields.map(|(i, a)| (format!("f{i}"), a.expression.as_str())).collect();
            expressions += fields.len();
            let one = declaration::of_fields(&attach, fields.iter().map(|(n, e)| (n.as_str(), *e)));
            plan(&one, &facts).unwrap_or_else(|e| panic!("{attach}: {e}"));
        }
    }
    assert!(expressions > 5_000, "{expressions}");
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one timespec, which outlives it.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) }, 0);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec.unsigned_abs() as u32)
}

/// With all functions of this kernel, though not its tracepoints. How long it takes is told (`--nocapture`).
#[test]
fn root_time_of_listing_everything() {
    let facts = offering_all(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("quick"));
    let begun = cpu_time();
    let listed = list(None, &facts).unwrap().points.len();
    let took = cpu_time() - begun;
    println!("{listed} attach points in {took:?}");
    assert!(listed > 20_000);
}
