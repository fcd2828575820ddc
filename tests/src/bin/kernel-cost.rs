//! What the compiler's programs cost in the kernel, beside the same probes in C, compiled by clang:
//! `kernel-cost [ROUNDS]` prints a Markdown table.
//!
//! bench/kernel-cost/probes.txt has twelve probes as a plugin declares them, probes.c the same by hand, for
//! `clang -O2`: same attach points, filters, fields, counters, and records, which are compared byte by byte. kfuncs.txt
//! and kfuncs.c have probes that call kernel functions. For each program the table has what the kernel says of it:
//!
//! * *verified*: the instructions that the verifier went through, over all paths,
//! * *xlated* and *jited*: bytes of the program as the kernel has rewritten it, and as machine code,
//! * *ns*: the time of one run, by the kernel's own account (BPF_ENABLE_STATS), the median of the rounds. The two take
//!   turns, so that a machine whose speed drifts treats them alike. The load is getppid(2) in a loop, or access(2)
//!   where the probe is about a path.
//!
//! each as `ours / clang's`, and at the end of each table the median of the ratios. Programs run in the kernel, so how
//! this was built makes no difference to them. Needs root; says so, and does nothing, where there is no clang.

use std::error::Error;
use std::ffi::{CString, c_void};
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::ptr::{self, NonNull};
use std::{env, fs, io, mem, slice};

use libbpf_sys as sys;
use porthole::compile::compile;
use porthole::kernel::KernelFacts;
use porthole::plan::{AttachPoint, Plan, plan};
use porthole_tests::declaration;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Bytes of each ring buffer: more than one turn's records.
const RING: u32 = 1 << 24;
/// Calls between two looks at the ring.
const CALLS: u32 = 20_000;
/// How often that is done before it is the other's turn.
const TURNS: u32 = 5;
const ROUNDS: usize = 9;
/// The header's CPU and time, which differ from run to run.
const OF_THE_RUN: std::ops::Range<usize> = 6..16;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kernel-cost: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let rounds = env::args().nth(1).map_or(Ok(ROUNDS), |n| n.parse())?;
    let Ok(clang) = Command::new("clang").arg("--version").output() else {
        println!("kernel-cost: skipped: there is no clang to compare with (Debian: apt-get install clang)");
        return Ok(());
    };
    porthole::load::check_privileges()?;
    stay_on_one_cpu()?;
    // SAFETY: the call takes no pointer; it returns a descriptor that nobody else knows, or less than 0.
    let _statistics = unsafe { OwnedFd::from_raw_fd(checked(sys::bpf_enable_stats(sys::BPF_STATS_RUN_TIME))?) };
    println!(
        "Linux {}, {}\n",
        kernel_release()?,
        String::from_utf8_lossy(&clang.stdout).lines().next().unwrap_or("clang")
    );
    let facts = KernelFacts::running();
    for probes in ["probes", "kfuncs"] {
        compare(probes, &facts, rounds)?;
    }
    Ok(())
}

/// Prints the table of these probes.
fn compare(probes: &str, facts: &KernelFacts, rounds: usize) -> Result<()> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/kernel-cost").join(probes);
    let declaration = declaration::parse(&fs::read_to_string(file.with_extension("txt"))?)?;
    let plan = plan(&declaration, facts).map_err(|e| e.to_string())?;
    let ours = Object::load(&compile(&plan, "bench", RING)?.bytes)?;
    let theirs = Object::load(&compiled_by_clang(&file.with_extension("c"))?)?;
    println!("| probe | verified | xlated | jited | ns |\n|---|---|---|---|---|");
    let mut ratios = vec![Vec::new(); 4];
    for probe in &plan.probes {
        let at = &probe.points[0].attach;
        let sides = [ours.program(&format!("{}_0", probe.name))?, theirs.program(&probe.name)?];
        let figures = measure(&plan, at, &probe.name, [&ours, &theirs], sides, rounds)?;
        let cells: Vec<String> = figures.iter().map(|[a, b]| format!("{a} / {b}")).collect();
        println!("| {} | {} |", probe.name, cells.join(" | "));
        ratios.iter_mut().zip(figures).for_each(|(all, [a, b])| all.push(a as f64 / b as f64));
    }
    let medians: Vec<String> = ratios.into_iter().map(|all| format!("{:.2}", median(all))).collect();
    println!("| median of ratios | {} |\n", medians.join(" | "));
    Ok(())
}

/// Verified instructions, bytes xlated and jited, and ns per run: ours and clang's.
fn measure(
    plan: &Plan,
    at: &AttachPoint,
    probe: &str,
    objects: [&Object; 2],
    programs: [Program; 2],
    rounds: usize,
) -> Result<[[u64; 2]; 4]> {
    let call = load_of(plan, probe);
    let mut times = [Vec::new(), Vec::new()];
    let mut records = [None, None];
    for _ in 0..rounds {
        for side in 0..2 {
            let (before, link) = (programs[side].info()?, programs[side].attach(at)?);
            for _ in 0..TURNS {
                (0..CALLS).for_each(|_| call());
                let record = objects[side].drain()?;
                records[side] = records[side].take().or(record);
            }
            drop(link);
            let after = programs[side].info()?;
            let runs = after.run_cnt - before.run_cnt;
            if runs < u64::from(CALLS * TURNS) {
                return Err(format!("{probe}: it ran {runs} times only").into());
            }
            times[side].push((after.run_time_ns - before.run_time_ns) as f64 / runs as f64);
        }
    }
    if records[0] != records[1] {
        return Err(format!("{probe}: the records differ: {records:02x?}").into());
    }
    let [a, b] = [programs[0].info()?, programs[1].info()?];
    let [ours, theirs] = times.map(|t| median(t).round() as u64);
    Ok([
        [a.verified_insns.into(), b.verified_insns.into()],
        [a.xlated_prog_len.into(), b.xlated_prog_len.into()],
        [a.jited_prog_len.into(), b.jited_prog_len.into()],
        [ours, theirs],
    ])
}

/// The system call that makes the probe fire.
fn load_of(plan: &Plan, probe: &str) -> fn() {
    let about_path = plan.probes.iter().any(|p| p.name == probe && p.points[0].attach.to_string().ends_with("access"));
    // SAFETY: getppid(2) cannot fail, and access(2) reads a text that ends in a 0.
    match about_path {
        true => || unsafe { assert_eq!(libc::syscall(libc::SYS_access, c"/nonexistent/file".as_ptr(), 4), -1) },
        false => || unsafe { assert!(libc::syscall(libc::SYS_getppid) > 0) },
    }
}

fn compiled_by_clang(source: &Path) -> Result<Vec<u8>> {
    let object = env::temp_dir().join(format!("kernel-cost-{}.o", std::process::id()));
    let flags = ["-O2", "-g", "-mcpu=v3", "-target", "bpf", "-Wall", "-Werror", "-c"];
    let status = Command::new("clang").args(flags).arg(source).arg("-o").arg(&object).status()?;
    let bytes = fs::read(&object);
    let _ = fs::remove_file(&object);
    if !status.success() {
        return Err(format!("clang: {status}").into());
    }
    Ok(bytes?)
}

/// An object that is loaded, and its ring.
struct Object {
    object: NonNull<sys::bpf_object>,
    ring: NonNull<sys::ring_buffer>,
    /// The first record since `drain`.
    seen: Box<Option<Vec<u8>>>,
}

impl Object {
    fn load(bytes: &[u8]) -> Result<Object> {
        // SAFETY: the bytes outlive the call, which copies what it keeps; the object is not closed before the process
        // ends.
        let object = unsafe { sys::bpf_object__open_mem(bytes.as_ptr().cast(), bytes.len() as u64, ptr::null()) };
        let object = NonNull::new(object).ok_or_else(io::Error::last_os_error)?;
        let mut seen = Box::new(None);
        // SAFETY: the object is open; `seen` lives in a box for as long as the ring is asked, and nowhere else
        // meanwhile.
        let ring = unsafe {
            checked(sys::bpf_object__load(object.as_ptr()))?;
            let map = checked(sys::bpf_object__find_map_fd_by_name(object.as_ptr(), c"events".as_ptr()))?;
            sys::ring_buffer__new(map, Some(note), (&raw mut *seen).cast(), ptr::null())
        };
        let ring = NonNull::new(ring).ok_or_else(io::Error::last_os_error)?;
        Ok(Object { object, ring, seen })
    }

    fn program(&self, name: &str) -> Result<Program> {
        let c_name = CString::new(name)?;
        // SAFETY: the object is open, and the name ends in a 0.
        let program = unsafe { sys::bpf_object__find_program_by_name(self.object.as_ptr(), c_name.as_ptr()) };
        Ok(Program(NonNull::new(program).ok_or_else(|| format!("there is no program `{name}`"))?))
    }

    /// Empties the ring; its first record, but for what differs from run to run.
    fn drain(&self) -> Result<Option<Vec<u8>>> {
        let seen: *const Option<Vec<u8>> = &raw const *self.seen;
        // SAFETY: the ring is open; `note` writes to `seen` during the call, and nobody while it is read here.
        unsafe {
            checked(sys::ring_buffer__consume(self.ring.as_ptr()))?;
            Ok((*seen).clone())
        }
    }
}

/// Notes the first record.
unsafe extern "C" fn note(seen: *mut c_void, data: *mut c_void, bytes: u64) -> i32 {
    // SAFETY: libbpf passes what was given to `ring_buffer__new`, and a record of so many bytes.
    unsafe {
        let seen: *mut Option<Vec<u8>> = seen.cast();
        if (*seen).is_none() {
            let mut record = slice::from_raw_parts(data.cast::<u8>(), bytes as usize).to_vec();
            record[OF_THE_RUN].fill(0);
            *seen = Some(record);
        }
    }
    0
}

#[derive(Clone, Copy)]
struct Program(NonNull<sys::bpf_program>);

impl Program {
    fn info(self) -> Result<sys::bpf_prog_info> {
        let mut info = sys::bpf_prog_info::default();
        let mut bytes = mem::size_of_val(&info) as u32;
        // SAFETY: the program is loaded; the kernel writes at most `bytes` of the structure.
        unsafe {
            let fd = checked(sys::bpf_program__fd(self.0.as_ptr()))?;
            checked(sys::bpf_prog_get_info_by_fd(fd, &raw mut info, &raw mut bytes))?;
        }
        Ok(info)
    }

    fn attach(self, at: &AttachPoint) -> Result<Link> {
        // SAFETY: the program is loaded; a perf event's descriptor belongs to the link from here on.
        let link = unsafe {
            match at {
                AttachPoint::Tracepoint(format) => {
                    sys::bpf_program__attach_perf_event(self.0.as_ptr(), tracepoint(format.id)?)
                }
                _ => sys::bpf_program__attach(self.0.as_ptr()),
            }
        };
        Ok(Link(NonNull::new(link).ok_or_else(io::Error::last_os_error)?))
    }
}

/// What fires, until it is dropped.
struct Link(NonNull<sys::bpf_link>);

impl Drop for Link {
    fn drop(&mut self) {
        // SAFETY: it is open, and nobody uses it any more.
        unsafe { sys::bpf_link__destroy(self.0.as_ptr()) };
    }
}

/// A perf event of a tracepoint.
fn tracepoint(id: u64) -> Result<i32> {
    let attributes = sys::perf_event_attr {
        type_: sys::PERF_TYPE_TRACEPOINT,
        size: mem::size_of::<sys::perf_event_attr>() as u32,
        config: id,
        ..Default::default()
    };
    // SAFETY: perf_event_open(2) reads `size` bytes of the attributes.
    Ok(checked(unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const attributes, -1, 0, -1, 0) } as i32)?)
}

fn stay_on_one_cpu() -> Result<()> {
    // SAFETY: the set is plain bits, and the kernel reads as many bytes as it is told.
    unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        libc::CPU_SET(0, &mut set);
        checked(libc::sched_setaffinity(0, mem::size_of_val(&set), &raw const set))?;
    }
    Ok(())
}

fn kernel_release() -> Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned())
}

fn checked(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}
