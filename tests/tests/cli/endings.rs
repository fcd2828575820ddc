//! Ends of a run: by its reader, by a disk, by signals.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, PipeReader, pipe};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::e2e::host::{Host, Run};
use crate::e2e::kernel::{self, Objects};
use crate::e2e::load::{Trickle, getppid};
use crate::e2e::{is_root, plugin, porthole, says, unique};
use crate::text;

/// A host whose plugin prints a row for each of some calls that go on.
fn printing(stdout: impl Into<Stdio>) -> (Host, Trickle) {
    let comm = unique();
    let host = Run::new(&plugin("hostile")).arg("--comm").arg(&comm).stdout(stdout).attach();
    (host, Trickle::start(&comm))
}

fn first_line(reader: PipeReader) -> String {
    let mut line = String::new();
    BufReader::new(reader).read_line(&mut line).expect("a pipe can be read");
    line
}

/// `porthole run … | head -1`: the reader goes, and the run ends without a complaint.
#[test]
fn root_a_reader_that_goes_away_ends_the_run() {
    if !is_root() {
        return;
    }
    kernel::leaving_nothing(|| {
        let (reader, writer) = pipe().expect("a pipe can be made");
        let (host, _calls) = printing(writer);
        assert!(first_line(reader).starts_with("{\"plugin\":\"hostile\""));
        let ended = host.finish().successful();
        assert!(!ended.stderr.contains("error") && !ended.stderr.contains("panicked"), "{}", ended.stderr);
        assert!(ended.counts("hostile", "call").delivered >= 1);
    });
}

#[test]
fn root_a_full_disk_for_the_output_is_an_error() {
    if !is_root() {
        return;
    }
    kernel::leaving_nothing(|| {
        let full = OpenOptions::new().write(true).open("/dev/full").expect("it is there");
        let (host, _calls) = printing(full);
        let ended = host.finish();
        assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
        says(&ended.stderr, &["error: stdout cannot be written: No space left on device"]);
        ended.counts("hostile", "call");
    });
}

#[test]
fn root_check_list_and_doctor_to_a_pipe_or_disk_that_takes_nothing() {
    if !is_root() {
        return;
    }
    let path = plugin("hostile");
    let path = path.to_str().expect("a path that we have made");
    for arguments in [&["check", path][..], &["list", "rawtracepoint"], &["doctor"]] {
        let printing_to = |stdout: Stdio| {
            let mut command = porthole();
            command.args(arguments).stdout(stdout).stderr(Stdio::piped());
            command.spawn().and_then(Child::wait_with_output).expect("the host can be started")
        };
        let (reader, writer) = pipe().expect("a pipe can be made");
        drop(reader);
        let closed = printing_to(writer.into());
        assert!(closed.status.success() && closed.stderr.is_empty(), "{arguments:?}: {closed:?}");
        let full = printing_to(OpenOptions::new().write(true).open("/dev/full").expect("it is there").into());
        assert_eq!(full.status.code(), Some(1), "{arguments:?}");
        says(text(&full.stderr), &["error: stdout cannot be written: No space left on device"]);
    }
}

/// Where nobody reads the messages, the run goes on and ends as it should.
#[test]
fn root_a_closed_stderr_is_no_error() {
    if !is_root() {
        return;
    }
    let (reader, writer) = pipe().expect("a pipe can be made");
    drop(reader);
    let mut command = porthole();
    command.args(["run", "--duration=0.1"]).arg(plugin("calls")).stderr(writer);
    let output = output_of(command);
    assert!(output.status.success(), "{:?}", output.status);
    says(text(&output.stdout), &["total"]);
}

fn output_of(mut command: Command) -> Output {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    child.and_then(Child::wait_with_output).expect("the host can be started")
}

/// A host that prints rows of these calls to a pipe of one page that nobody reads, some 90 bytes each. `at_once`: it
/// finds all of them together, and not as they come.
fn stuck(calls: u64, at_once: bool) -> (Host, PipeReader) {
    let (reader, writer) = pipe().expect("a pipe can be made");
    // SAFETY: the call touches no memory.
    let bytes = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) };
    assert_eq!(bytes, 4096);
    let comm = unique();
    let host = Run::new(&plugin("hostile")).arg("--comm").arg(&comm).stdout(writer).attach();
    if at_once {
        host.signal(libc::SIGSTOP);
    }
    getppid(&comm, calls);
    host.signal(libc::SIGCONT);
    (host, reader)
}

/// Sends signals until it ends. Two that come too soon after one another are one.
fn interrupt_again(mut host: Host) {
    for _ in 0..1000 {
        if host.has_ended() {
            break;
        }
        host.signal(libc::SIGINT);
        sleep(Duration::from_millis(20));
    }
    let ended = host.finish();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    says(&ended.stderr, &["error: ended by a second signal"]);
}

/// Nobody reads the rows and nobody goes away, so the run cannot end in order; a second signal ends it all the same.
#[test]
fn root_a_second_signal_ends_a_run_that_hangs() {
    if !is_root() {
        return;
    }
    // More than fits into the pipe and the way there: the plugin waits to hand its rows over.
    let (host, _reader) = stuck(200_000, false);
    host.signal(libc::SIGINT);
    interrupt_again(host);
}

#[test]
fn root_a_second_signal_ends_a_host_that_waits_for_a_reader() {
    if !is_root() {
        return;
    }
    // More than the pipe holds, but less than is kept on the way there, in as few pieces, of which each takes some
    // milliseconds: the plugin ends, and the rows are still to be written.
    let (host, _reader) = stuck(200, true);
    let objects = Objects::of_process(host.pid());
    host.signal(libc::SIGINT);
    kernel::gone(&objects);
    interrupt_again(host);
}

/// Before anything is attached there is nothing to end in order: a signal ends the host at once.
#[test]
fn a_signal_while_plugins_declare() {
    let loops = || plugin("hostile");
    let run = Run::new(&loops()).plugin(&loops()).plugin(&loops()).plugin(&loops()).plugin(&loops());
    let mut host = run.args("--in declare --do loop").spawn();
    // The first has had its second, and the others have theirs before them.
    host.wait_for("error: hostile: declare was stopped");
    // Not SIGINT: that is ignored from the start where the tests run in the background of a shell.
    host.signal(libc::SIGTERM);
    let ended = host.finish();
    assert_eq!(ended.status.signal(), Some(libc::SIGTERM), "{}", ended.stderr);
}

/// Which programs a host holds can be told while it runs, so the tests that look for what is left are not blind.
#[test]
fn root_a_running_host_holds_programs() {
    if !is_root() {
        return;
    }
    let host = Run::new(&plugin("calls")).attach();
    let objects = Objects::of_process(host.pid());
    assert_eq!((objects.programs.len(), objects.links.len()), (1, 1), "{objects:?}");
    let all = Objects::all();
    assert!(objects.programs.is_subset(&all.programs) && objects.links.is_subset(&all.links));
    host.interrupt().successful();
}
