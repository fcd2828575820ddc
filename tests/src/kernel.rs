//! The kernel, through libbpf's lowest layer: what the verifier has to do for a program, and programs run once without
//! being attached.
//!
//! `porthole::load` is what the host loads with. A refusal costs there what a long log costs, and of success it does
//! not say how dear it was; tests that load thousands of programs want both to be cheap.

use std::ffi::{CStr, c_void};
use std::io;
use std::ptr::{self, NonNull};
use std::slice;

use libbpf_sys as sys;

/// Bytes of a program's log: what it is refused for, and the verifier's statistics.
const LOG: usize = 1 << 20;
/// BPF_LOG_STATS of include/linux/bpf_verifier.h.
const STATISTICS: u32 = 4;

/// What the verifier said of one program.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub program: String,
    /// Instructions that it went through, over all paths; none where it did not come so far.
    pub processed: Option<u64>,
    /// The end of its log.
    pub log: String,
}

/// Programs that are loaded.
pub struct Object(NonNull<sys::bpf_object>);

impl Object {
    /// Loads an object file. What the verifier said comes with it, of the programs that were reached.
    pub fn load(bytes: &[u8]) -> (io::Result<Object>, Vec<Verdict>) {
        quiet();
        // SAFETY: the bytes outlive the call, which copies what it keeps.
        let object = unsafe { sys::bpf_object__open_mem(bytes.as_ptr().cast(), bytes.len() as u64, ptr::null()) };
        let Some(object) = NonNull::new(object) else { return (Err(io::Error::last_os_error()), Vec::new()) };
        let object = Object(object);
        let mut logs = Vec::new();
        for program in object.programs() {
            let mut log = vec![0u8; LOG];
            // SAFETY: the log lives, and stays where it is, until the object has been loaded; nothing is logged
            // afterwards.
            unsafe {
                sys::bpf_program__set_log_level(program, STATISTICS);
                sys::bpf_program__set_log_buf(program, log.as_mut_ptr().cast(), log.len() as u64);
            }
            logs.push((name(program), log));
        }
        // SAFETY: the object is open.
        let result = unsafe { sys::bpf_object__load(object.0.as_ptr()) };
        let verdicts = logs.into_iter().map(|(program, log)| verdict(program, &log)).collect();
        let loaded = if result == 0 { Ok(object) } else { Err(io::Error::from_raw_os_error(-result)) };
        (loaded, verdicts)
    }

    /// Runs a program once in the kernel, without anything being attached, on these arguments of a raw tracepoint
    /// (BPF_PROG_TEST_RUN).
    ///
    /// # Errors
    /// What the kernel says.
    pub fn run(&self, program: usize, arguments: &[u64]) -> io::Result<()> {
        let mut options = sys::bpf_test_run_opts {
            sz: size_of::<sys::bpf_test_run_opts>() as u64,
            ctx_in: arguments.as_ptr().cast(),
            ctx_size_in: size_of_val(arguments) as u32,
            ..sys::bpf_test_run_opts::default()
        };
        // SAFETY: the object is loaded, and the arguments outlive the call.
        let result =
            unsafe { sys::bpf_prog_test_run_opts(sys::bpf_program__fd(self.programs()[program]), &raw mut options) };
        if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-result)) }
    }

    /// Empties the ring of events.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn records(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut records: Vec<Vec<u8>> = Vec::new();
        // SAFETY: the object is loaded; `keep` writes to `records` during `consume` alone, which outlive the ring.
        unsafe {
            let map = sys::bpf_object__find_map_fd_by_name(self.0.as_ptr(), c"events".as_ptr());
            let ring = sys::ring_buffer__new(map, Some(keep), (&raw mut records).cast(), ptr::null());
            let ring = NonNull::new(ring).ok_or_else(io::Error::last_os_error)?;
            let result = sys::ring_buffer__consume(ring.as_ptr());
            sys::ring_buffer__free(ring.as_ptr());
            if result < 0 {
                return Err(io::Error::from_raw_os_error(-result));
            }
        }
        Ok(records)
    }

    fn programs(&self) -> Vec<*mut sys::bpf_program> {
        let mut programs = Vec::new();
        let mut last = ptr::null_mut();
        loop {
            // SAFETY: the object is open, and the program is one of it, or null for the first.
            last = unsafe { sys::bpf_object__next_program(self.0.as_ptr(), last) };
            if last.is_null() {
                return programs;
            }
            programs.push(last);
        }
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: it is open, and nothing of it is used any more.
        unsafe { sys::bpf_object__close(self.0.as_ptr()) }
    }
}

/// Keeps a record.
unsafe extern "C" fn keep(records: *mut c_void, data: *mut c_void, bytes: u64) -> i32 {
    // SAFETY: libbpf passes what was given to `ring_buffer__new`, and a record of so many bytes.
    unsafe { (*records.cast::<Vec<Vec<u8>>>()).push(slice::from_raw_parts(data.cast(), bytes as usize).to_vec()) };
    0
}

/// libbpf says nothing on its own.
fn quiet() {
    // SAFETY: no function is passed, which is how it is told to be quiet.
    unsafe { sys::libbpf_set_print(None) };
}

fn name(program: *mut sys::bpf_program) -> String {
    // SAFETY: the program is one of an open object; its name ends in a 0 and lives as long as that.
    unsafe { CStr::from_ptr(sys::bpf_program__name(program)) }.to_string_lossy().into_owned()
}

fn verdict(program: String, log: &[u8]) -> Verdict {
    let end = log.iter().position(|b| *b == 0).unwrap_or(log.len());
    let log = String::from_utf8_lossy(&log[..end]);
    let processed = log.lines().rev().find_map(|line| line.strip_prefix("processed ")?.split(' ').next()?.parse().ok());
    let lines: Vec<&str> = log.lines().collect();
    Verdict { program, processed, log: lines[lines.len().saturating_sub(12)..].join("\n") }
}
