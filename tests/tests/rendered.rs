//! Values as they are shown, against what was done: each test does something whose values it knows, and looks at the
//! rows that the host makes of the records.

mod e2e;

use std::ffi::CString;

use porthole_tests::live::{probe, trace};
use serde_json::json;

use e2e::is_root;

/// The condition that only this thread meets.
fn mine() -> String {
    // SAFETY: it takes nothing and cannot fail.
    format!("tid == {}", unsafe { libc::syscall(libc::SYS_gettid) })
}

/// A path that leads nowhere.
fn nowhere() -> CString {
    CString::new("/nonexistent/porthole").unwrap()
}

#[test]
fn root_errors_and_system_calls_have_their_names() {
    if !is_root() {
        return;
    }
    let values = ["syscall(args.id)", "errno(args.ret)", "errno(args.ret) == \"ENOENT\""];
    let wanted = "syscall(args.id) in (\"openat\", \"unlink\", \"getppid\", \"kill\", \"statx\")";
    let declaration = probe(&["tracepoint:raw_syscalls:sys_exit"], &format!("{} && {wanted}", mine()), &values);
    let path = nowhere();
    // SAFETY: the path ends in a 0 and lives as long; a null that the kernel is to write to is an error to it.
    let made = unsafe {
        let mut made = Vec::new();
        let seen = trace(&declaration, || {
            libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), libc::O_RDONLY);
            libc::syscall(libc::SYS_unlink, path.as_ptr());
            made.push(libc::syscall(libc::SYS_getppid));
            libc::syscall(libc::SYS_kill, libc::getpid(), 1000);
            libc::syscall(libc::SYS_statx, -1, c"relative".as_ptr(), 0, 0, std::ptr::null_mut::<u8>());
        });
        (seen, made)
    };
    let (seen, parent) = made;
    assert_eq!(
        seen.shown(),
        [
            json!({"f0": "openat", "f1": "ENOENT", "f2": true}),
            json!({"f0": "unlink", "f1": "ENOENT", "f2": true}),
            json!({"f0": "getppid", "f1": parent[0], "f2": false}),
            json!({"f0": "kill", "f1": "EINVAL", "f2": false}),
            json!({"f0": "statx", "f1": "EBADF", "f2": false}),
        ]
    );
}

#[test]
fn root_signals_have_their_names() {
    if !is_root() {
        return;
    }
    let values = ["signal(args.sig)", "signal(args.sig) == SIGUSR1"];
    let declaration = probe(&["tracepoint:syscalls:sys_enter_tgkill"], &mine(), &values);
    let seen = trace(&declaration, || {
        for signal in [libc::SIGUSR1, libc::SIGKILL, 64] {
            // SAFETY: it takes numbers; no process has this one (/proc/sys/kernel/pid_max is 2^22 at most), so it
            // signals nobody.
            unsafe { libc::syscall(libc::SYS_tgkill, 1 << 22, 1 << 22, signal) };
        }
    });
    assert_eq!(
        seen.shown(),
        [json!({"f0": "SIGUSR1", "f1": true}), json!({"f0": "SIGKILL", "f1": false}), json!({"f0": 64, "f1": false}),]
    );
}
