//! System calls that libbpf-rs has no name for.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use libbpf_sys::{PERF_FLAG_FD_CLOEXEC, PERF_TYPE_TRACEPOINT, bpf_prog_info, perf_event_attr};

/// `MEMBARRIER_CMD_GLOBAL` of include/uapi/linux/membarrier.h.
const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
/// Longer than any RCU grace period of a machine that is well, for kernels without membarrier(2).
const GRACE: Duration = Duration::from_millis(200);

/// A perf event of a tracepoint, not enabled. It is opened here and not by libbpf, which reads the number from tracefs by itself and finds
/// none where that is not mounted.
pub fn open_tracepoint(id: u64) -> io::Result<OwnedFd> {
    let attributes = perf_event_attr {
        type_: PERF_TYPE_TRACEPOINT,
        size: size_of::<perf_event_attr>() as u32,
        config: id,
        ..Default::default()
    };
    open(&attributes)
}

/// A perf event of all processes, not enabled. A BPF program of a tracepoint's or a uprobe's event fires on every CPU, whatever CPU the event is opened for.
pub fn open(attributes: &perf_event_attr) -> io::Result<OwnedFd> {
    let (any_process, first_cpu, no_group) = (-1, 0, -1);
    // SAFETY: perf_event_open(2) reads `size` bytes of the attributes, and what they point to; both outlive the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            std::ptr::from_ref(attributes),
            any_process,
            first_cpu,
            no_group,
            libc::c_ulong::from(PERF_FLAG_FD_CLOEXEC),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has made this descriptor, which fits an int, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

/// How often the kernel skipped the program because one ran already on that CPU.
pub fn recursion_misses(program: BorrowedFd<'_>) -> io::Result<u64> {
    // SAFETY: the structure is integers only, and all zeroes asks for no arrays.
    let mut info: bpf_prog_info = unsafe { zeroed() };
    let mut size = size_of::<bpf_prog_info>() as u32;
    // SAFETY: the kernel writes at most `size` bytes to `info`, which outlives the call.
    let result = unsafe { libbpf_sys::bpf_prog_get_info_by_fd(program.as_raw_fd(), &raw mut info, &raw mut size) };
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(info.recursion_misses) }
}

/// Waits until every program that ran when this was called has ended. Closing the link of a raw tracepoint does not wait for that;
/// membarrier(2) does, as its global command is an RCU grace period (kernel/sched/membarrier.c).
pub fn wait_for_programs() {
    // SAFETY: the command has no further arguments, and touches no memory.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result < 0 {
        std::thread::sleep(GRACE);
    }
}
