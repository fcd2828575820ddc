//! A process of known properties for tests to trace: `subject COMM HOSTNAME DIRECTORY FILE PATH`.
//!
//! A thread of it, which is not its first, is given a property of nearly everything that
//! /proc/PID/{status,stat,limits,fdinfo} tells, none of them what a process has anyway. It prints its own number and
//! that of a descriptor of FILE, and then, for each byte of its standard input, asks once whether PATH can be accessed,
//! and prints a byte. In between it waits, and nothing of it changes. Needs root.

use std::error::Error;
use std::ffi::CString;
use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write, stdin, stdout};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::{env, io, mem, ptr, thread};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Threads beside the first one and the one that is traced.
const IDLE: usize = 3;

fn main() -> Result<()> {
    // In all threads, so that it waits for the process.
    block(libc::SIGALRM)?;
    for _ in 0..IDLE {
        thread::spawn(|| {
            loop {
                thread::park();
            }
        });
    }
    thread::spawn(traced).join().map_err(|_| "the thread has panicked")?
}

fn traced() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [comm, host, directory, file, path] = &arguments[..] else {
        return Err("usage: subject COMM HOSTNAME DIRECTORY FILE PATH".into());
    };
    let (comm, path) = (CString::new(comm.as_str())?, CString::new(path.as_str())?);
    env::set_current_dir(directory)?;
    let mut file = OpenOptions::new().read(true).append(true).custom_flags(libc::O_NOATIME).open(file)?;
    file.seek(SeekFrom::Start(5))?;
    as_root(host)?;
    signals()?;
    // The last: what is above needs what they take away.
    owners()?;
    // SAFETY: the name ends in a 0, and lives as long as the call.
    checked(unsafe { libc::prctl(libc::PR_SET_NAME, comm.as_ptr()) }.into())?;

    // SAFETY: the call touches no memory.
    let tid = unsafe { libc::gettid() };
    writeln!(stdout(), "{tid} {}", file.as_raw_fd())?;
    let mut byte = [0];
    while stdin().read(&mut byte)? == 1 {
        // SAFETY: the path ends in a 0, and lives as long as the call. It is not there.
        unsafe { libc::syscall(libc::SYS_access, path.as_ptr(), 0) };
        stdout().write_all(&byte)?;
        stdout().flush()?;
    }
    Ok(())
}

/// What root may have.
fn as_root(host: &str) -> Result<()> {
    // SAFETY: each call reads at most the structure or the bytes that it is given, and these live as long as it. The
    // page is nobody else's.
    unsafe {
        checked(libc::unshare(libc::CLONE_NEWUTS | libc::CLONE_NEWIPC).into())?;
        checked(libc::sethostname(host.as_ptr().cast(), host.len()).into())?;
        libc::umask(0o027);
        checked(libc::setpriority(libc::PRIO_PROCESS, 0, 7).into())?;
        let parameters = libc::sched_param { sched_priority: 0 };
        checked(libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters).into())?;
        let mut first: libc::cpu_set_t = mem::zeroed();
        libc::CPU_SET(0, &mut first);
        checked(libc::sched_setaffinity(0, size_of_val(&first), &raw const first).into())?;
        checked(libc::prctl(libc::PR_SET_TIMERSLACK, 123_456).into())?;
        checked(libc::personality(libc::SHORT_INODE as libc::c_ulong | libc::WHOLE_SECONDS as libc::c_ulong).into())?;
        let files = libc::rlimit { rlim_cur: 1234, rlim_max: 2345 };
        checked(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const files).into())?;
        let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let page = libc::mmap(ptr::null_mut(), 3 * 4096, prot, flags, -1, 0);
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error().into());
        }
        checked(libc::mlock(page, 3 * 4096).into())?;
    }
    Ok(())
}

/// One that is blocked and waits for the thread, one that waits for the process, one that is ignored, and one that is
/// caught.
fn signals() -> Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    block(libc::SIGUSR1)?;
    // SAFETY: no call reads memory, and the handler touches none.
    unsafe {
        checked(libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::gettid(), libc::SIGUSR1))?;
        checked(libc::kill(libc::getpid(), libc::SIGALRM).into())?;
        libc::signal(libc::SIGUSR2, libc::SIG_IGN);
        libc::signal(libc::SIGWINCH, nothing as *const () as libc::sighandler_t);
    }
    Ok(())
}

/// Lets a signal wait, in this thread and those that it makes.
fn block(signal: libc::c_int) -> Result<()> {
    // SAFETY: the set is plain bits, and lives as long as the calls.
    unsafe {
        let mut blocked: libc::sigset_t = mem::zeroed();
        checked(libc::sigaddset(&raw mut blocked, signal).into())?;
        checked(libc::pthread_sigmask(libc::SIG_BLOCK, &raw const blocked, ptr::null_mut()).into())?;
    }
    Ok(())
}

/// Users and groups that all differ, and capabilities that are permitted and not in effect.
fn owners() -> Result<()> {
    let groups = [4_200_011, 4_200_022, 4_200_033];
    // SAFETY: the groups live as long as the call, and no other call reads memory.
    unsafe {
        checked(libc::prctl(libc::PR_SET_KEEPCAPS, 1).into())?;
        checked(libc::setgroups(groups.len(), groups.as_ptr()).into())?;
        checked(libc::setresgid(4_100_001, 4_100_002, 4_100_003).into())?;
        checked(libc::setresuid(4_000_001, 4_000_002, 4_000_003).into())?;
        libc::setfsgid(4_100_001);
        libc::setfsuid(4_000_003);
        checked(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into())?;
    }
    Ok(())
}

fn checked(result: i64) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
