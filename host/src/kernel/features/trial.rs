//! The trials. Each makes one thing and closes it.

use std::ffi::{c_int, c_ulong};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use libbpf_sys::{
    bpf_attach_type, bpf_func_id, bpf_insn, bpf_link_create_opts, bpf_prog_load_opts, bpf_prog_type, perf_event_attr,
};

use crate::kernel::TypeId;

/// A program that is loaded for trial and let go at once.
pub struct Trial {
    pub program_type: bpf_prog_type,
    pub attach_type: bpf_attach_type,
    /// What it is bound to, [`TypeId::VOID`] for nothing.
    pub target: TypeId,
    pub sleepable: bool,
    /// The types of the module that it is bound to, or whose kfuncs it calls: they are number 1 to its calls.
    pub module: Option<OwnedFd>,
}

impl Trial {
    /// The same, of a program that is bound to a function of this module or calls a kfunc of it; none: of the kernel
    /// itself.
    pub fn calling(self, module: Option<&str>) -> io::Result<Trial> {
        Ok(Trial { module: module.map(types_of_module).transpose()?, ..self })
    }

    /// Whether the kernel accepts these instructions as such a program.
    pub fn load(&self, instructions: &[bpf_insn]) -> io::Result<()> {
        loaded(self, instructions).map(drop)
    }
}

/// `r0 = 0; exit`.
pub const RETURN_ZERO: [bpf_insn; 2] = [instruction(0xb7), instruction(0x95)];
/// For programs that may sleep (BPF_F_SLEEPABLE of include/uapi/linux/bpf.h).
const SLEEPABLE: u32 = 1 << 4;

pub fn array_map() -> io::Result<()> {
    map(libbpf_sys::BPF_MAP_TYPE_ARRAY, size_of::<u32>(), 1)
}

pub fn ring_buffer() -> io::Result<()> {
    // The size is a power of two and of whole pages, which are of 64 KiB at most.
    map(libbpf_sys::BPF_MAP_TYPE_RINGBUF, 0, 64 * 1024)
}

/// Loads a program that returns 0. `target` is the type or function that it is bound to, `void` for none.
pub fn program(program_type: bpf_prog_type, attach_type: bpf_attach_type, target: TypeId) -> io::Result<()> {
    loaded(&Trial { program_type, attach_type, target, sleepable: false, module: None }, &RETURN_ZERO).map(drop)
}

/// The same, and attaches it to what it is bound to.
pub fn attached(program_type: bpf_prog_type, attach_type: bpf_attach_type, target: TypeId) -> io::Result<()> {
    let trial = Trial { program_type, attach_type, target, sleepable: false, module: None };
    let program = loaded(&trial, &RETURN_ZERO)?;
    // SAFETY: null stands for no name, which a program that is bound needs none of.
    owned(unsafe { libbpf_sys::bpf_raw_tracepoint_open(ptr::null(), program.as_raw_fd()) }).map(drop)
}

/// Attaches a program that does nothing to what it cannot be attached to.
pub fn link_to_nothing(attach_type: bpf_attach_type) -> io::Result<()> {
    let program_type = libbpf_sys::BPF_PROG_TYPE_KPROBE;
    let trial = Trial { program_type, attach_type, target: TypeId::VOID, sleepable: false, module: None };
    let program = loaded(&trial, &RETURN_ZERO)?;
    let mut name = c"there_is_no_function_of_this_name".as_ptr();
    let offset = 0;
    let mut options = bpf_link_create_opts { sz: size_of::<bpf_link_create_opts>() as u64, ..Default::default() };
    if matches!(attach_type, libbpf_sys::BPF_TRACE_UPROBE_MULTI | libbpf_sys::BPF_TRACE_UPROBE_SESSION) {
        options.__bindgen_anon_1.uprobe_multi.path = c"/".as_ptr();
        options.__bindgen_anon_1.uprobe_multi.offsets = &raw const offset;
        options.__bindgen_anon_1.uprobe_multi.cnt = 1;
    } else {
        options.__bindgen_anon_1.kprobe_multi.cnt = 1;
        options.__bindgen_anon_1.kprobe_multi.syms = &raw mut name;
    }
    // SAFETY: the options and what they point to outlive the call, which keeps none of it.
    owned(unsafe { libbpf_sys::bpf_link_create(program.as_raw_fd(), 0, attach_type, &raw const options) }).map(drop)
}

pub fn loaded(trial: &Trial, instructions: &[bpf_insn]) -> io::Result<OwnedFd> {
    // The first is what calls of the kernel's own kfuncs mean, and is not looked at.
    let module = trial.module.as_ref().map_or(0, AsRawFd::as_raw_fd);
    let types = [0, module];
    let mut options = bpf_prog_load_opts {
        sz: size_of::<bpf_prog_load_opts>() as libbpf_sys::size_t,
        expected_attach_type: trial.attach_type,
        attach_btf_id: trial.target.number(),
        attach_btf_obj_fd: if trial.target.is_of_module() { module as u32 } else { 0 },
        prog_flags: if trial.sleepable { SLEEPABLE } else { 0 },
        fd_array: if trial.module.is_some() { types.as_ptr() } else { ptr::null() },
        ..Default::default()
    };
    // SAFETY: the instructions, the licence and the options with what they point to outlive the call, which keeps
    // none of them.
    let result = unsafe {
        libbpf_sys::bpf_prog_load(
            trial.program_type,
            ptr::null(),
            c"GPL".as_ptr(),
            instructions.as_ptr(),
            instructions.len() as libbpf_sys::size_t,
            &mut options,
        )
    };
    owned(result)
}

/// The types of the module of that name, from among all that the kernel has.
pub fn types_of_module(name: &str) -> io::Result<OwnedFd> {
    let failed = |result: c_int| io::Error::from_raw_os_error(-result);
    let mut id = 0;
    loop {
        // SAFETY: the call writes the next number where the pointer leads, and keeps none of it.
        let result = unsafe { libbpf_sys::bpf_btf_get_next_id(id, &raw mut id) };
        if result < 0 {
            return Err(failed(result));
        }
        // SAFETY: no pointer is passed.
        let types = match owned(unsafe { libbpf_sys::bpf_btf_get_fd_by_id(id) }) {
            Ok(types) => types,
            // Gone meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => continue,
            Err(error) => return Err(error),
        };
        let mut called = [0_u8; 64];
        let mut info = libbpf_sys::bpf_btf_info {
            name: called.as_mut_ptr() as u64,
            name_len: called.len() as u32,
            ..Default::default()
        };
        let mut bytes = size_of_val(&info) as u32;
        // SAFETY: the kernel writes `bytes` bytes of the information, and as many of the name as are there; both
        // outlive the call.
        let result =
            unsafe { libbpf_sys::bpf_obj_get_info_by_fd(types.as_raw_fd(), (&raw mut info).cast(), &raw mut bytes) };
        if result < 0 {
            return Err(failed(result));
        }
        if info.kernel_btf != 0 && called.split(|byte| *byte == 0).next() == Some(name.as_bytes()) {
            return Ok(types);
        }
    }
}

/// Whether a tracepoint program may call the helper.
pub fn helper(helper: bpf_func_id) -> io::Result<bool> {
    // SAFETY: no pointer but null, which the call takes for no options.
    let result =
        unsafe { libbpf_sys::libbpf_probe_bpf_helper(libbpf_sys::BPF_PROG_TYPE_TRACEPOINT, helper, ptr::null()) };
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result > 0) }
}

/// Opens the perf event of a tracepoint, for all processes on one CPU, as attaching does.
pub fn tracepoint_event(id: u64) -> io::Result<()> {
    event(libbpf_sys::PERF_TYPE_TRACEPOINT, id)
}

/// Opens a counter of the processor's cycles on one CPU.
pub fn hardware_event() -> io::Result<()> {
    event(libbpf_sys::PERF_TYPE_HARDWARE, u64::from(libbpf_sys::PERF_COUNT_HW_CPU_CYCLES))
}

fn event(kind: u32, config: u64) -> io::Result<()> {
    const ANY_PROCESS: c_int = -1;
    const FIRST_CPU: c_int = 0;
    const NO_GROUP: c_int = -1;
    let attributes =
        perf_event_attr { type_: kind, size: size_of::<perf_event_attr>() as u32, config, ..Default::default() };
    // SAFETY: perf_event_open(2) reads `size` bytes of the attributes, which outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            ANY_PROCESS,
            FIRST_CPU,
            NO_GROUP,
            c_ulong::from(libbpf_sys::PERF_FLAG_FD_CLOEXEC),
        )
    };
    // The call returns -1 or a descriptor, which is an int; the error is in errno.
    if result < 0 { Err(io::Error::last_os_error()) } else { owned(result as c_int).map(drop) }
}

fn map(map_type: libbpf_sys::bpf_map_type, value_bytes: usize, entries: u32) -> io::Result<()> {
    // SAFETY: null stands for no name and no options.
    let result = unsafe {
        libbpf_sys::bpf_map_create(map_type, ptr::null(), value_bytes as u32, value_bytes as u32, entries, ptr::null())
    };
    owned(result).map(drop)
}

/// libbpf's result as a descriptor: not negative, or an errno negated.
fn owned(result: c_int) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    // SAFETY: the call that made it hands the descriptor over, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}

const fn instruction(code: u8) -> bpf_insn {
    // SAFETY: the struct is made of integers only, for which zero is a value.
    let mut instruction: bpf_insn = unsafe { std::mem::zeroed() };
    instruction.code = code;
    instruction
}
