//! Iterators: made once, and walked as often as somebody likes.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};

use libbpf_rs::ProgramMut;
use libbpf_sys::{
    BPF_CGROUP_ITER_DESCENDANTS_PRE, BPF_TRACE_ITER, bpf_iter_create, bpf_iter_link_info, bpf_link_create,
    bpf_link_create_opts,
};

use super::LoadError;
use crate::plan::Iter;

/// What the kernel keeps of what is printed in one `read` is 32 KiB; a program that prints more is called again for the
/// same object (kernel/bpf/bpf_iter.c: bpf_seq_read). Half of it leaves room for all that one object can print.
const MOST: usize = 16 * 1024;

/// A program that is called for each object when a walk goes over them.
pub struct Iterated {
    link: OwnedFd,
    /// The attach point, for messages.
    at: String,
    /// Events between two pauses of a walk: the ring has room for them.
    events: usize,
}

/// One way from the first object to the last.
pub struct Walk {
    iterator: File,
    at: String,
    buffer: Vec<u8>,
}

impl Iterated {
    /// `room`: how many events the ring has room for at once.
    pub fn new(program: &ProgramMut<'_>, iter: &Iter, at: String, room: usize) -> io::Result<Iterated> {
        let mut info = bpf_iter_link_info::default();
        let mut options = bpf_link_create_opts { sz: size_of::<bpf_link_create_opts>() as u64, ..Default::default() };
        if iter.kind == "cgroup" {
            // Of the whole hierarchy, as no cgroup is named (kernel/bpf/cgroup_iter.c: bpf_iter_attach_cgroup).
            info.cgroup.order = BPF_CGROUP_ITER_DESCENDANTS_PRE;
            options.iter_info = &raw mut info;
            options.iter_info_len = size_of::<bpf_iter_link_info>() as u32;
        }
        // SAFETY: the options, and what they point to, outlive the call, which keeps neither.
        let link = unsafe { bpf_link_create(program.as_fd().as_raw_fd(), 0, BPF_TRACE_ITER, &raw const options) };
        Ok(Iterated { link: made(link)?, at, events: room.clamp(1, MOST) })
    }

    /// A walk that stands before the first object.
    pub fn walk(&self) -> Result<Walk, LoadError> {
        // SAFETY: it takes a descriptor, which is open, and makes another.
        let iterator = made(unsafe { bpf_iter_create(self.link.as_raw_fd()) });
        let iterator = iterator.map_err(|source| LoadError::Attach { at: self.at.clone(), source })?;
        Ok(Walk { iterator: iterator.into(), at: self.at.clone(), buffer: vec![0; self.events] })
    }
}

/// The descriptor that a call of libbpf has made, or the error that it returned.
fn made(result: i32) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    // SAFETY: the call has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}

impl Walk {
    /// Goes on until there are as many events as the ring has room for, or very many objects have given none; false
    /// where the last object has been passed. Blocks for as long as that takes.
    pub fn go_on(&mut self) -> Result<bool, LoadError> {
        match self.iterator.read(&mut self.buffer) {
            Ok(printed) => Ok(printed > 0),
            // After a million objects without an event the kernel takes a break.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(true),
            Err(source) => Err(LoadError::Walk { at: self.at.clone(), source }),
        }
    }
}
