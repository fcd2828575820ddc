//! What planning and compiling cost: `compile-cost [ROUNDS]` prints a Markdown table, medians of CPU time.
//!
//! The declaration has 50 probes at 50 attach points, each with a filter and eight fields that walk the kernel's
//! structures. The kernel's types and formats are read anew in each round; *facts* is what a first plan of one empty
//! probe costs, which reads them, and *plan* what the whole declaration costs on top. For a release build. Needs root
//! for tracefs alone, and loads nothing.

use std::error::Error;
use std::{env, process::ExitCode};

use porthole::compile::compile;
use porthole::declare::Declaration;
use porthole::kernel::KernelFacts;
use porthole::plan::plan;
use porthole_tests::declaration;

const PROBES: usize = 50;
const ROUNDS: usize = 21;
const RING: u32 = 1 << 20;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compile-cost: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let rounds = env::args().nth(1).map_or(Ok(ROUNDS), |n| n.parse())?;
    let (warm_up, declaration) = (
        declaration::parse("probe p\nattach tracepoint:sched:sched_switch\nemit e\n  pid = task.pid\n")?,
        of_probes()?,
    );
    let mut costs = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..rounds {
        let facts = KernelFacts::running();
        costs[0].push(timed(|| plan(&warm_up, &facts))?.1);
        let (planned, cost) = timed(|| plan(&declaration, &facts))?;
        costs[1].push(cost);
        let (_, cost) = timed(|| compile(&planned, "bench", RING))?;
        costs[2].push(cost);
    }
    println!("| {PROBES} probes | CPU |\n|---|---|");
    for (stage, mut costs) in ["facts", "plan", "compile"].into_iter().zip(costs) {
        costs.sort_by(f64::total_cmp);
        let (least, median, most) = (costs[0], costs[costs.len() / 2], costs[costs.len() - 1]);
        println!("| {stage} | {median:.1} ms ({least:.1} to {most:.1}) |");
    }
    Ok(())
}

/// Probes as plugins have them, at tracepoints that every kernel has.
fn of_probes() -> Result<Declaration, String> {
    const AT: [(&str, &str); 5] = [
        ("tracepoint:syscalls:sys_enter_openat", "str(args.filename)"),
        ("tracepoint:syscalls:sys_exit_read", "args.ret"),
        ("tracepoint:sched:sched_process_exit", "args.prio"),
        ("rawtracepoint:sched_switch", "args.next.mm.total_vm"),
        ("rawtracepoint:sched_process_exec", "str(args.bprm.filename)"),
    ];
    let mut text = String::new();
    for i in 0..PROBES {
        let (attach, own) = AT[i % AT.len()];
        text += &format!(
            "probe p{i}\nattach {attach}\nbind parent = task.real_parent\nwhen pid != 1 && comm != \"bench{i}\"\nemit e{i}\n  \
             pid = pid\n  comm = comm\n  ppid = parent.tgid\n  parent = parent.comm\n  uid = task.cred.uid.val\n  \
             cgroup = cgroup\n  pidns = task.nsproxy.pid_ns_for_children.ns.inum\n  own = {own}\n"
        );
    }
    declaration::parse(&text)
}

/// The result, and the CPU time of this thread in milliseconds.
fn timed<T, E: ToString>(work: impl FnOnce() -> Result<T, E>) -> Result<(T, f64), String> {
    let begun = cpu_ms();
    let result = work().map_err(|e| e.to_string())?;
    Ok((result, cpu_ms() - begun))
}

fn cpu_ms() -> f64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes the one structure that it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut now) };
    now.tv_sec as f64 * 1e3 + now.tv_nsec as f64 / 1e6
}
