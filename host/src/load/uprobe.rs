//! Links to places in programs and libraries.
//!
//! A perf event for each place works on every kernel, but closing one waits for the kernel, and they wait for one
//! another: 17 s for a hundred. A multi link (Linux 6.6) has all places of a program in one link, and links are closed
//! side by side: 0.2 s. So that is taken where it is there. A program must be loaded for the one or the other.
//!
//! A multi link can be one of a single process: its places are then left alone in all others, which pay nothing. (A
//! perf event can be, too, but is closed to a process's threads when the first of them ends.)

use std::ffi::CString;
use std::fs;
use std::io;
use std::mem::size_of;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::OnceLock;

use libbpf_rs::{Link, OpenProgramMut, ProgramAttachType, ProgramMut, UprobeMultiOpts};
use libbpf_sys::perf_event_attr;

use super::perf::open_everywhere;
use super::process;
use crate::kernel::{Answer, Feature, KernelFacts};
use crate::plan::{Location, PointPlan, UserKind, UserPoint};

/// The sections of programs that are for such places; those of the second may sleep.
const SECTIONS: [&str; 2] = ["uprobe", "uprobe.s"];

const ANY_PROCESS: i32 = -1;

/// Makes the program one for multi links, where the kernel has them.
pub fn prepare(program: &mut OpenProgramMut<'_>) {
    static MULTI: OnceLock<Answer> = OnceLock::new();
    let is_one = SECTIONS.iter().any(|section| program.section() == *section);
    if is_one && *MULTI.get_or_init(|| KernelFacts::running().offers(Feature::UprobeMulti)) == Answer::Yes {
        program.set_attach_type(ProgramAttachType::TraceUprobeMulti);
    }
}

/// Attaches a program to all places of a point: of all processes, or of the one that it asks for, where it is certain
/// that no hit there is lost by that.
pub fn attach(program: &ProgramMut<'_>, point: &UserPoint, body: &PointPlan) -> io::Result<Vec<Link>> {
    let session = body.session.is_some();
    if session || matches!(program.attach_type(), ProgramAttachType::TraceUprobeMulti) {
        if let Some(process) = body.process().filter(|process| process::can_be_alone(*process)) {
            match attach_multi(program, point, process as i32, session) {
                // It has ended since; the number may become another's.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                link => return Ok(vec![link?]),
            }
        }
        return Ok(vec![attach_multi(program, point, ANY_PROCESS, session)?]);
    }
    let events = Events::new()?;
    point
        .locations
        .iter()
        .map(|location| super::attach_event(program, events.open(point, *location)?).map_err(io::Error::other))
        .collect()
}

fn attach_multi(program: &ProgramMut<'_>, point: &UserPoint, process: i32, session: bool) -> io::Result<Link> {
    let options = UprobeMultiOpts {
        // The kernel has 64 bits, and so has this machine.
        offsets: point.locations.iter().map(|l| l.offset as usize).collect(),
        ref_ctr_offsets: point.locations.iter().map(|l| l.semaphore.unwrap_or(0) as usize).collect(),
        retprobe: point.kind == UserKind::Return && !session,
        session,
        ..UprobeMultiOpts::default()
    };
    program.attach_uprobe_multi_with_opts(process, &point.file, "", options).map_err(io::Error::other)
}

/// The kind of perf event for such places: a number that the kernel gives out at boot, and how it takes what it must
/// know of them.
struct Events {
    type_: u32,
    return_bit: u32,
    semaphore_bit: u32,
}

/// Where the kernel tells of the kind.
const PMU: &str = "/sys/bus/event_source/devices/uprobe";

impl Events {
    fn new() -> io::Result<Events> {
        let read = |name: &str| fs::read_to_string(format!("{PMU}/{name}"));
        let odd = |what: &str| io::Error::other(format!("{PMU}/{what} is not understood"));
        let bit = |name: &str| -> io::Result<u32> {
            let text = read(name)?;
            let bits = text.trim().strip_prefix("config:").and_then(|bits| bits.split('-').next());
            bits.and_then(|bit| bit.parse().ok()).filter(|bit| *bit < 64).ok_or_else(|| odd(name))
        };
        Ok(Events {
            type_: read("type")?.trim().parse().map_err(|_| odd("type"))?,
            return_bit: bit("format/retprobe")?,
            semaphore_bit: bit("format/ref_ctr_offset")?,
        })
    }

    /// A perf event of one place in all processes, not enabled. While it is open the marker's semaphore counts one
    /// more.
    fn open(&self, point: &UserPoint, location: Location) -> io::Result<OwnedFd> {
        let path = CString::new(point.file.as_os_str().as_bytes())?;
        let size = size_of::<perf_event_attr>() as u32;
        let mut attributes = perf_event_attr { type_: self.type_, size, ..Default::default() };
        if point.kind == UserKind::Return {
            attributes.config |= 1 << self.return_bit;
        }
        if let Some(semaphore) = location.semaphore {
            let semaphore = u32::try_from(semaphore).map_err(|_| io::Error::other("its semaphore is beyond 4 GiB"))?;
            attributes.config |= u64::from(semaphore) << self.semaphore_bit;
        }
        attributes.__bindgen_anon_3.uprobe_path = path.as_ptr() as u64;
        attributes.__bindgen_anon_4.probe_offset = location.offset;
        open_everywhere(&attributes)
    }
}
