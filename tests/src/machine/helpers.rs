//! What the kernel does for a program when it calls.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use super::record::u32_at;
use super::{Space, World};

/// -EFAULT, as helpers return it.
const FAULT: u64 = -14i64 as u64;

/// What helpers know of the program that runs: they are plain functions, so it is kept for their thread.
pub struct Run {
    pub world: Rc<World>,
    pub context: Range<u64>,
    /// Where the values of each map are.
    pub maps: [Range<u64>; 3],
    /// Bytes of one value of each map.
    pub strides: [usize; 3],
    /// What was sent.
    pub records: Vec<Vec<u8>>,
}

thread_local! {
    static RUN: RefCell<Option<Run>> = const { RefCell::new(None) };
}

impl Run {
    /// Runs the program; what it sent.
    pub fn during(self, program: impl FnOnce()) -> Vec<Vec<u8>> {
        RUN.set(Some(self));
        program();
        RUN.take().map(|run| run.records).unwrap_or_default()
    }
}

fn with<T>(f: impl FnOnce(&mut Run) -> T) -> T {
    RUN.with_borrow_mut(|run| f(run.as_mut().expect("a program runs")))
}

type Helper = fn(u64, u64, u64, u64, u64) -> u64;

/// By their numbers in include/uapi/linux/bpf.h.
pub const HELPERS: [(u32, Helper); 14] = [
    (1, |map, key, _, _, _| {
        let key = u64::from(u32_at(&own(key, 4), 0));
        with(|run| {
            let (values, stride) = (&run.maps[map as usize], run.strides[map as usize] as u64);
            let value = values.start + key * stride;
            if value + stride <= values.end { value } else { 0 }
        })
    }),
    (8, |_, _, _, _, _| with(|run| run.world.cpu.into())),
    (14, |_, _, _, _, _| with(|run| u64::from(run.world.pid) << 32 | u64::from(run.world.tid))),
    (15, |_, _, _, _, _| with(|run| u64::from(run.world.gid) << 32 | u64::from(run.world.uid))),
    (16, |to, size, _, _, _| {
        let mut name = with(|run| run.world.comm.as_bytes().to_vec());
        name.resize(size as usize, 0);
        store(to, &name);
        0
    }),
    (67, |_, to, size, flags, _| {
        assert!(size > 0 && size.is_multiple_of(8) && matches!(flags, 0 | 0x100), "size {size}, flags {flags:#x}");
        let stack = with(|run| if flags == 0 { Some(run.world.calls) } else { run.world.calls_of_process });
        store(to, &vec![0; size as usize]);
        let Some(stack) = stack else { return FAULT };
        let bytes: Vec<u8> = stack.iter().take(127).flat_map(|address| address.to_le_bytes()).collect();
        let bytes = &bytes[..bytes.len().min(size as usize)];
        store(to, bytes);
        bytes.len() as u64
    }),
    (80, |_, _, _, _, _| with(|run| run.world.cgroup)),
    (112, |to, size, from, _, _| read(to, size, user(from, size))),
    (113, |to, size, from, _, _| read(to, size, kernel(from, size))),
    (114, |to, size, from, _, _| read_text(to, size, user(from, size))),
    (115, |to, size, from, _, _| read_text(to, size, kernel(from, size))),
    (125, |_, _, _, _, _| with(|run| run.world.nsecs)),
    (130, |_, data, size, _, _| {
        if with(|run| run.world.full) {
            return -11i64 as u64;
        }
        let record = own(data, size);
        with(|run| run.records.push(record));
        0
    }),
    (158, |_, _, _, _, _| with(|run| run.world.task)),
];

/// By their names, with numbers that no helper has.
pub const KFUNCS: [(&str, u32, Helper); 2] = [
    ("bpf_session_is_return", 10_001, |_, _, _, _, _| with(|run| run.world.is_return.into())),
    ("bpf_session_cookie", 10_002, |_, _, _, _, _| with(|run| run.world.kept_at())),
];

/// bpf_probe_read_*: what cannot be read is filled with 0.
fn read(to: u64, size: u64, from: Option<Vec<u8>>) -> u64 {
    match from.as_ref().and_then(|bytes| bytes.get(..size as usize)) {
        Some(bytes) => {
            store(to, bytes);
            0
        }
        None => {
            store(to, &vec![0; size as usize]);
            FAULT
        }
    }
}

/// bpf_probe_read_*_str: at most so many bytes, the last of them 0; how many they are.
fn read_text(to: u64, size: u64, from: Option<Vec<u8>>) -> u64 {
    let text = from.and_then(|bytes| {
        // The kernel reads the last byte too, and then puts the 0 over it. A text that runs on to where memory ends
        // faults there.
        let size = size as usize;
        let end = bytes.iter().take(size).position(|b| *b == 0).or((bytes.len() >= size).then_some(size - 1))?;
        Some([&bytes[..end], &[0]].concat())
    });
    match text {
        Some(text) => {
            store(to, &text);
            text.len() as u64
        }
        None => {
            store(to, &vec![0; size as usize]);
            FAULT
        }
    }
}

/// Bytes of the process's memory: as many, or fewer where it ends sooner.
fn user(address: u64, size: u64) -> Option<Vec<u8>> {
    // None at all can be had anywhere in a process's half of the addresses.
    if size == 0 {
        return (address >> 63 == 0).then(Vec::new);
    }
    with(|run| run.world.memory.from(Space::User, address).map(|bytes| first(bytes, size)))
}

/// The same of the kernel's: what the test has put there, the context, and map values.
fn kernel(address: u64, size: u64) -> Option<Vec<u8>> {
    // None at all can be had anywhere but in a process's half, of which the machine's own memory is a part.
    if size == 0 {
        return (address >= 4096).then(Vec::new);
    }
    with(|run| {
        if let Some(bytes) = run.world.memory.from(Space::Kernel, address) {
            return Some(first(bytes, size));
        }
        let range = run.maps.iter().chain([&run.context]).find(|range| range.contains(&address))?;
        Some(own(address, size.min(range.end - address)))
    })
}

fn first(bytes: &[u8], size: u64) -> Vec<u8> {
    bytes[..bytes.len().min(size as usize)].to_vec()
}

/// Bytes of the program's own memory.
fn own(address: u64, size: u64) -> Vec<u8> {
    let from = std::ptr::with_exposed_provenance::<u8>(address as usize);
    // SAFETY: the address is one that the program computed of its stack, its context or a map's value, all alive while
    // it runs. A program that computes a wrong one is the fault that is looked for, and ends the test in one way or the
    // other.
    unsafe { std::slice::from_raw_parts(from, size as usize) }.to_vec()
}

fn store(address: u64, bytes: &[u8]) {
    let scratch = with(|run| run.maps[2].clone());
    let end = address + bytes.len() as u64;
    assert!(!scratch.contains(&address) || end <= scratch.end, "a helper writes behind the program's scratch");
    let to = std::ptr::with_exposed_provenance_mut::<u8>(address as usize);
    // SAFETY: as in `own`; nothing else holds the memory while the program runs.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) }
}
