//! Whether a probe can be attached to one process alone.
//!
//! The kernel takes a process's number as that of a multi link for user memory (kernel/trace/bpf_trace.c:
//! bpf_uprobe_multi_link_attach). What it made of it has changed: until 6.9 it was one thread, in 6.10 and 6.11 all
//! that share the memory of a first thread that is still there, and from 6.12 on the process. So only that is used.

use std::fs;

/// The inode of the first pid namespace (include/linux/proc_ns.h: PROC_PID_INIT_INO). In every other the same number is
/// another process.
const FIRST_NAMESPACE: &str = "pid:[4026531836]";
/// The first kernel that means the process by its number.
const SINCE: (u32, u32) = (6, 12);

/// Whether the number is now that of a process, in the programs' eyes as in this process's, and the kernel attaches to
/// it as a whole.
pub fn can_be_alone(number: u32) -> bool {
    let namespace = fs::read_link("/proc/self/ns/pid");
    let is_first = namespace.is_ok_and(|namespace| namespace.as_os_str() == FIRST_NAMESPACE);
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let status = fs::read_to_string(format!("/proc/{number}/status")).unwrap_or_default();
    is_first && version(&release).is_some_and(|version| version >= SINCE) && is_alive(&status, number)
}

/// The first two numbers of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Whether this is the status of a process (not of a thread further on) whose first thread has not ended.
fn is_alive(status: &str, number: u32) -> bool {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let state = field("State:").and_then(|state| state.chars().next());
    field("Tgid:").is_some_and(|tgid| tgid.parse() == Ok(number)) && !matches!(state, None | Some('Z' | 'X'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases() {
        assert_eq!(version("6.18.44-fc-v669\n"), Some((6, 18)));
        assert_eq!(version("6.1.0-32-amd64"), Some((6, 1)));
        assert_eq!(version("7.2-rc1"), Some((7, 2)));
        assert_eq!(version(""), None);
        assert!((6, 2) < SINCE && (7, 0) > SINCE);
    }

    #[test]
    fn statuses() {
        let status = |state, tgid| format!("Name:\tsh\nState:\t{state}\nTgid:\t{tgid}\nNgid:\t0\nPid:\t12\n");
        assert!(is_alive(&status("S (sleeping)", 12), 12));
        assert!(!is_alive(&status("Z (zombie)", 12), 12), "its first thread has ended");
        assert!(!is_alive(&status("S (sleeping)", 11), 12), "a thread of another");
        assert!(!is_alive("", 12));
    }
}
