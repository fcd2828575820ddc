//! System calls that libbpf-rs has no name for.

use std::ffi::CString;
use std::fs;
use std::io;
use std::mem::{offset_of, size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use libbpf_sys::{PERF_FLAG_FD_CLOEXEC, PERF_TYPE_TRACEPOINT, bpf_link_info, bpf_prog_info, perf_event_attr};

/// `MEMBARRIER_CMD_GLOBAL` of include/uapi/linux/membarrier.h.
const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
/// Longer than any RCU grace period of a machine that is well, for kernels without membarrier(2).
const GRACE: Duration = Duration::from_millis(200);

/// A perf event of a tracepoint, not enabled. It is opened here and not by libbpf, which reads the number from tracefs
/// by itself and finds none where that is not mounted.
pub fn open_tracepoint(id: u64) -> io::Result<OwnedFd> {
    let attributes = perf_event_attr {
        type_: PERF_TYPE_TRACEPOINT,
        size: size_of::<perf_event_attr>() as u32,
        config: id,
        ..Default::default()
    };
    open_everywhere(&attributes)
}

/// Where the kernel tells the number of its events of kprobes.
const KPROBE_TYPE: &str = "/sys/bus/event_source/devices/kprobe/type";
/// The bit of `config` that asks for an event at the function's return (kernel/events/core.c:
/// PERF_PROBE_CONFIG_IS_RETPROBE).
const AT_RETURN: u64 = 1;

/// A perf event of a function's entry (or of `offset` bytes behind it) or of its return, not enabled. It needs no
/// tracefs, and goes with its descriptor.
pub fn open_kprobe(function: &str, offset: u64, at_return: bool) -> io::Result<OwnedFd> {
    let number = fs::read_to_string(KPROBE_TYPE)?;
    let number = number.trim().parse().map_err(|_| io::Error::other(format!("{KPROBE_TYPE} holds no number")))?;
    let name = CString::new(function)?;
    let mut attributes = perf_event_attr {
        type_: number,
        size: size_of::<perf_event_attr>() as u32,
        config: if at_return { AT_RETURN } else { 0 },
        ..Default::default()
    };
    attributes.__bindgen_anon_3.kprobe_func = name.as_ptr() as u64;
    attributes.__bindgen_anon_4.probe_offset = offset;
    open_everywhere(&attributes).map_err(|error| explained(error, offset))
}

/// What the kernel means by an error of a kprobe (kernel/kprobes.c: check_kprobe_address_safe;
/// kernel/trace/trace_kprobe.c).
fn explained(error: io::Error, offset: u64) -> io::Error {
    let meant = match error.raw_os_error() {
        Some(libc::ENOENT) => "the kernel has no such function, or not so many bytes of it",
        Some(libc::EINVAL) => "the kernel forbids probes there (its list of those is kprobes/blacklist in debugfs)",
        Some(libc::EADDRNOTAVAIL) => "the kernel has several functions of that name",
        Some(libc::EILSEQ) if offset > 0 => "no instruction begins at that offset",
        _ => return error,
    };
    io::Error::new(error.kind(), format!("{meant} ({error})"))
}

/// Opens an event for all processes. A BPF program of a tracepoint's or a kprobe's event fires on every CPU, whatever
/// CPU the event is opened for.
pub fn open_everywhere(attributes: &perf_event_attr) -> io::Result<OwnedFd> {
    let (any_process, first_cpu) = (-1, 0);
    open(attributes, any_process, first_cpu)
}

/// A perf event, of a thread (-1: of all) on a CPU (-1: on all).
pub fn open(attributes: &perf_event_attr, thread: libc::pid_t, cpu: libc::c_int) -> io::Result<OwnedFd> {
    const NO_GROUP: libc::c_int = -1;
    let flags = libc::c_ulong::from(PERF_FLAG_FD_CLOEXEC);
    // SAFETY: perf_event_open(2) reads `size` bytes of the attributes and what they point to, all of which outlive the
    // call.
    let fd = unsafe {
        libc::syscall(libc::SYS_perf_event_open, std::ptr::from_ref(attributes), thread, cpu, NO_GROUP, flags)
    };
    if fd < 0 {
        let error = io::Error::last_os_error();
        return Err(forbidden(error, || fs::read_to_string(PARANOID).ok()?.trim().parse().ok()));
    }
    // SAFETY: the call has made this descriptor, which fits an int, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

/// How much of perf's events the kernel keeps from those without privileges. Debian's and Android's kernels know a
/// level more, 3, at which they keep all of it from all but CAP_SYS_ADMIN, be there CAP_PERFMON or not.
const PARANOID: &str = "/proc/sys/kernel/perf_event_paranoid";
const FROM_ALL: i32 = 3;

/// Says why an event is not allowed, where it is for that level.
fn forbidden(error: io::Error, level: impl FnOnce() -> Option<i32>) -> io::Error {
    if error.raw_os_error() != Some(libc::EACCES) || level().is_none_or(|level| level < FROM_ALL) {
        return error;
    }
    let meant = "this kernel wants CAP_SYS_ADMIN for it, unless `sysctl kernel.perf_event_paranoid=2` is set";
    io::Error::new(error.kind(), format!("{meant} ({error})"))
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

/// How many calls of functions the kernel has not followed, by what it tells of this link: for want of a place to keep
/// their returns (kernel/kprobes.c, kernel/trace/fprobe.c: nmissed), or as they were in another kprobe. None where it
/// does not tell, as before Linux 6.7.
pub fn link_misses(link: BorrowedFd<'_>) -> io::Result<Option<u64>> {
    /// Bytes of the structure on kernels that tell. (What they tell of multi links ends before, where older ones have
    /// other things.)
    const TOLD: usize = offset_of!(bpf_link_info, __bindgen_anon_1) + 40;
    // SAFETY: the structure is integers only, and all zeroes asks for no arrays.
    let mut info: bpf_link_info = unsafe { zeroed() };
    let mut size = size_of::<bpf_link_info>() as u32;
    // SAFETY: the kernel writes at most `size` bytes to `info`, which outlives the call.
    let result = unsafe { libbpf_sys::bpf_link_get_info_by_fd(link.as_raw_fd(), &raw mut info, &raw mut size) };
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    if (size as usize) < TOLD {
        return Ok(None);
    }
    // SAFETY: each part is integers, which all zeroes are, too; the kernel has written that of the link's type.
    let (multi, event) = unsafe { (info.__bindgen_anon_1.kprobe_multi, info.__bindgen_anon_1.perf_event) };
    Ok(Some(match (info.type_, event.type_) {
        (libbpf_sys::BPF_LINK_TYPE_KPROBE_MULTI, _) => multi.missed,
        (
            libbpf_sys::BPF_LINK_TYPE_PERF_EVENT,
            libbpf_sys::BPF_PERF_EVENT_KPROBE | libbpf_sys::BPF_PERF_EVENT_KRETPROBE,
        ) => {
            // SAFETY: as above.
            unsafe { event.__bindgen_anon_1.kprobe.missed }
        }
        _ => 0,
    }))
}

/// Waits until every program that ran when this was called has ended. Closing the link of a raw tracepoint does not
/// wait for that; membarrier(2) does, as its global command is an RCU grace period (kernel/sched/membarrier.c).
pub fn wait_for_programs() {
    // SAFETY: the command has no further arguments, and touches no memory.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result < 0 {
        std::thread::sleep(GRACE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_forbids_events_is_said() {
        let told = |number, level| forbidden(io::Error::from_raw_os_error(number), || level).to_string();
        assert_eq!(
            told(libc::EACCES, Some(3)),
            "this kernel wants CAP_SYS_ADMIN for it, unless `sysctl kernel.perf_event_paranoid=2` is set (Permission denied (os error 13))"
        );
        for (number, level) in [(libc::EACCES, Some(2)), (libc::EACCES, None), (libc::EPERM, Some(3))] {
            assert_eq!(told(number, level), io::Error::from_raw_os_error(number).to_string());
        }
    }
}
