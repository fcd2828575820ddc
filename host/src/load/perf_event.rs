//! Perf events attached: one for each CPU, or for each thread of a process that is watched.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use libbpf_rs::{Link, ProgramMut, num_possible_cpus};
use libbpf_sys::{PERF_TYPE_BREAKPOINT, PERF_TYPE_HARDWARE, PERF_TYPE_SOFTWARE, perf_event_attr};

use super::perf;
use crate::plan::{Counted, PerfEvent};

/// Any process, or any CPU, in the arguments of perf_event_open(2).
const ANY: i32 = -1;

/// Attaches the program to all events that make up `event`.
pub fn attach(program: &ProgramMut<'_>, event: &PerfEvent) -> io::Result<Vec<Link>> {
    let opened = open(event).map_err(|error| explained(event, error))?;
    let mut links = Vec::new();
    for event in opened {
        links.push(program.attach_perf_event(event.as_raw_fd()).map_err(io::Error::other)?);
        // The link has taken the descriptor over, and closes it.
        std::mem::forget(event);
    }
    Ok(links)
}

fn open(event: &PerfEvent) -> io::Result<Vec<OwnedFd>> {
    let mut attributes = attributes(event);
    if let Counted::Access { process: Some(pid), .. } = event.counted {
        // Threads that are yet to be made count, processes do not.
        attributes.set_inherit(1);
        attributes.set_inherit_thread(1);
        return of_threads(pid, &attributes);
    }
    let mut opened = Vec::new();
    for cpu in 0..num_possible_cpus().map_err(io::Error::other)? {
        match perf::open(&attributes, ANY, cpu as i32) {
            Ok(event) => opened.push(event),
            // The CPU is offline, or is none at all.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) && cpu > 0 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(opened)
}

fn of_threads(pid: u32, attributes: &perf_event_attr) -> io::Result<Vec<OwnedFd>> {
    let gone = || io::Error::other(format!("there is no process {pid}"));
    let mut opened = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task")).map_err(|_| gone())?.flatten() {
        let Some(tid) = thread.file_name().to_str().and_then(|tid| tid.parse().ok()) else { continue };
        match perf::open(attributes, tid, ANY) {
            Ok(event) => opened.push(event),
            // It has ended since.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            Err(error) => return Err(error),
        }
    }
    if opened.is_empty() { Err(gone()) } else { Ok(opened) }
}

fn attributes(event: &PerfEvent) -> perf_event_attr {
    let mut attributes = perf_event_attr { size: size_of::<perf_event_attr>() as u32, ..Default::default() };
    attributes.__bindgen_anon_1.sample_period = event.period;
    match event.counted {
        Counted::Software(number) => (attributes.type_, attributes.config) = (PERF_TYPE_SOFTWARE, number),
        Counted::Hardware(number) => (attributes.type_, attributes.config) = (PERF_TYPE_HARDWARE, number),
        Counted::Access { address, length, mode, .. } => {
            attributes.type_ = PERF_TYPE_BREAKPOINT;
            attributes.bp_type = mode as u32;
            attributes.__bindgen_anon_3.bp_addr = address;
            attributes.__bindgen_anon_4.bp_len = length;
        }
    }
    attributes
}

/// The kernel's answer in the user's terms, where its number says something else than it means.
fn explained(event: &PerfEvent, error: io::Error) -> io::Error {
    let why = match (event.counted, error.raw_os_error()) {
        (Counted::Hardware(_), Some(libc::ENOENT | libc::EOPNOTSUPP | libc::ENODEV | libc::EINVAL)) => {
            "this machine has no such hardware counter, as many virtual machines have none; `profile` and `software` work without"
        }
        (Counted::Access { .. }, Some(libc::ENOSPC)) => {
            "all of the processor's watchpoints are taken; it has four or so for each CPU"
        }
        (Counted::Access { .. }, Some(libc::EINVAL)) => "the processor cannot watch this address in this way",
        (Counted::Access { .. }, Some(libc::ENOENT | libc::EOPNOTSUPP)) => "this machine has no watchpoints",
        _ => return error,
    };
    io::Error::other(format!("{why} ({error})"))
}
