//! The BPF programs and links that the kernel holds.
//!
//! Other tests, and anybody else on the machine, load programs at the same time. What a host leaves behind is told from
//! theirs by what holds it: theirs is held by a descriptor of a living process, and what has been left behind by none.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use libbpf_sys::{bpf_link_get_next_id, bpf_prog_get_next_id};
use porthole_tests::live::patience;

/// Programs and links, by their ids. An id is not used again soon: the kernel counts on until it has come round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objects {
    pub programs: BTreeSet<u32>,
    pub links: BTreeSet<u32>,
}

impl Objects {
    /// All that the kernel has. Needs CAP_SYS_ADMIN.
    pub fn all() -> Objects {
        Objects { programs: ids(bpf_prog_get_next_id), links: ids(bpf_link_get_next_id) }
    }

    /// Those that a process holds descriptors of; none where it has ended. As proc_pid_fdinfo(5) tells them.
    pub fn of_process(pid: u32) -> Objects {
        let mut objects = Objects::default();
        objects.add_descriptors(Path::new(&format!("/proc/{pid}/fdinfo")));
        objects
    }

    pub fn is_empty(&self) -> bool {
        self.programs.is_empty() && self.links.is_empty()
    }

    /// Those that others hold: all processes but this one, which makes no BPF objects.
    fn held() -> Objects {
        let mut objects = Objects::default();
        for process in fs::read_dir("/proc").expect("procfs is mounted").flatten() {
            let pid = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
            if pid.is_some_and(|pid| pid != std::process::id()) {
                objects.add_descriptors(&process.path().join("fdinfo"));
            }
        }
        objects
    }

    fn add_descriptors(&mut self, directory: &Path) {
        // A process or a descriptor may have gone by now.
        for descriptor in fs::read_dir(directory).into_iter().flatten().flatten() {
            let text = fs::read_to_string(descriptor.path()).unwrap_or_default();
            let number = |name: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(name));
                line.and_then(|rest| rest.trim().parse::<u32>().ok())
            };
            self.programs.extend(number("prog_id:"));
            self.links.extend(number("link_id:"));
        }
    }

    fn without(&self, others: &Objects) -> Objects {
        Objects {
            programs: self.programs.difference(&others.programs).copied().collect(),
            links: self.links.difference(&others.links).copied().collect(),
        }
    }

    fn both(&self, others: &Objects) -> Objects {
        Objects {
            programs: self.programs.intersection(&others.programs).copied().collect(),
            links: self.links.intersection(&others.links).copied().collect(),
        }
    }
}

/// Does `work`, and makes sure that the kernel holds nothing more for it when it is done.
pub fn leaving_nothing<T>(work: impl FnOnce() -> T) -> T {
    let before = Objects::all();
    let result = work();
    // In this order: what somebody makes in between is not among what there is.
    let left = Objects::all().without(&before).without(&Objects::held());
    gone(&left);
    result
}

/// Makes sure that these are gone: the kernel frees programs and links a grace period or more after the last descriptor
/// has gone.
pub fn gone(objects: &Objects) {
    let deadline = Instant::now() + patience();
    let mut left = objects.clone();
    while !left.is_empty() {
        assert!(Instant::now() < deadline, "left in the kernel: {left:?}");
        sleep(Duration::from_millis(20));
        left = Objects::all().both(&left);
    }
}

fn ids(next: unsafe extern "C" fn(u32, *mut u32) -> libc::c_int) -> BTreeSet<u32> {
    let mut ids = BTreeSet::new();
    let mut id = 0;
    loop {
        let after = id;
        // SAFETY: it writes one u32, to `id`, and keeps no pointer.
        let result = unsafe { next(after, &mut id) };
        match -result {
            0 => ids.insert(id),
            libc::ENOENT => return ids,
            error => panic!("BPF objects cannot be listed: {}", std::io::Error::from_raw_os_error(error)),
        };
    }
}
