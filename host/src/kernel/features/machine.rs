//! The running kernel's version, and the privileges of this process.

use std::fs;
use std::io;

use super::Answer;

/// A bit of `CapEff` (include/uapi/linux/capability.h).
#[derive(Debug, PartialEq, Eq)]
pub struct Capability {
    pub name: &'static str,
    bit: u32,
    pub needed_for: &'static str,
}

const CAP_BPF: Capability = Capability { name: "CAP_BPF", bit: 39, needed_for: "loading BPF programs and maps" };
const CAP_PERFMON: Capability =
    Capability { name: "CAP_PERFMON", bit: 38, needed_for: "reading kernel memory and attaching to tracepoints" };
pub const CAP_SYS_ADMIN: Capability = Capability {
    name: "CAP_SYS_ADMIN",
    bit: 21,
    needed_for: "tracefs where it is not mounted, and programs bound to modules",
};
pub const CAP_DAC_READ_SEARCH: Capability = Capability {
    name: "CAP_DAC_READ_SEARCH",
    bit: 2,
    needed_for: "tracefs alone, and only where its files are not this user's",
};

pub const TRACING: [Capability; 2] = [CAP_BPF, CAP_PERFMON];
pub const NAMED: [Capability; 4] = [CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN, CAP_DAC_READ_SEARCH];

/// The kernel's own number for what is not supported, which it is not to tell processes and does
/// (include/linux/errno.h).
const ENOTSUPP: i32 = 524;

/// The running kernel's version and what this process may do on it.
pub struct Machine {
    /// As in /proc/sys/kernel/osrelease.
    pub release: String,
    /// Major and minor; none where the release does not begin with them.
    pub version: Option<(u32, u32)>,
    /// `CapEff` of /proc/self/status; none where that cannot be read.
    pub capabilities: Option<u64>,
}

impl Machine {
    pub fn this() -> Machine {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Machine { version: parse_version(&release), capabilities: parse_capabilities(&status), release }
    }

    pub fn has(&self, capability: &Capability) -> bool {
        self.capabilities.is_some_and(|set| set & (1 << capability.bit) != 0)
    }

    /// Whether this process may do what the capability is for: CAP_SYS_ADMIN still implies the two that 5.8 split off
    /// it.
    pub fn may(&self, capability: &Capability) -> bool {
        self.has(capability) || TRACING.contains(capability) && self.has(&CAP_SYS_ADMIN)
    }

    pub fn may_trace(&self) -> bool {
        TRACING.iter().all(|capability| self.may(capability))
    }

    pub fn is_at_least(&self, version: (u32, u32)) -> Option<bool> {
        Some(self.version? >= version)
    }

    /// What the outcome of a trial says. `since` tells which kernels have the feature.
    pub fn judge(&self, outcome: io::Result<()>, since: &str) -> Answer {
        let Err(error) = outcome else { return Answer::Yes };
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) if !self.may_trace() => untried(),
            Some(libc::EPERM | libc::EACCES) => Answer::No(
                "refused in spite of CAP_BPF and CAP_PERFMON: by lockdown, a security module, or this kernel's build"
                    .to_owned(),
            ),
            Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP | ENOTSUPP) => {
                Answer::No(format!("this kernel does not know it: {since}"))
            }
            _ => Answer::Unknown(error.to_string()),
        }
    }
}

pub fn untried() -> Answer {
    Answer::Unknown("it cannot be tried without CAP_BPF and CAP_PERFMON".to_owned())
}

/// The leading `6.18` of `6.18.44-amd64`.
pub fn parse_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

pub fn parse_capabilities(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}
