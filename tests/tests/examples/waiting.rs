//! Processes that wait, and stand still meanwhile.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A shell that has been started by other programs or by none, and waits for the end of its standard input.
pub struct Waiting {
    child: Child,
    pub pid: u32,
}

impl Waiting {
    /// `by…` runs the shell, a copy of it that has a name of its own. It burns some CPU time, waits, and then ends with
    /// this code.
    pub fn start(by: &[&str], shell: &Path, code: u8) -> Waiting {
        let script = format!("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo; read x; exit {code}");
        let mut words = by.iter().map(AsRef::as_ref).chain([shell.as_os_str()]);
        let mut command = Command::new(words.next().expect("there is the shell"));
        command.args(words).arg("-c").arg(script);
        Waiting::of(command, shell)
    }

    /// Of any command that becomes, or begins, this program and prints something before it waits.
    pub fn of(mut command: Command, program: &Path) -> Waiting {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it can be started");
        let printed = child.stdout.as_mut().expect("it is a pipe");
        std::io::Read::read_exact(printed, &mut [0]).expect("it prints something");
        // What runs this program, of this process and its descendants: no other does.
        let file = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
        let runs = |pid: &u32| file(Path::new(&format!("/proc/{pid}/exe"))) == file(program);
        let pids = [child.id()].into_iter().chain(children(child.id()));
        let pid = pids.into_iter().find(runs).expect("it runs the program");
        let waiting = Waiting { child, pid };
        waiting.wait_until_it_sleeps();
        waiting
    }

    fn wait_until_it_sleeps(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !status(self.pid, "State").starts_with('S') {
            assert!(Instant::now() < deadline, "{} does not wait", self.pid);
            sleep(Duration::from_millis(1));
        }
    }

    /// Lets it end, and waits for that.
    pub fn end(mut self) -> ExitStatus {
        drop(self.child.stdin.take());
        self.child.wait().expect("it is a child")
    }

    /// Has this signal end it.
    pub fn kill(mut self, signal: libc::c_int) {
        let pid = libc::pid_t::try_from(self.pid).expect("a pid fits");
        // SAFETY: the call touches no memory; the process is this one's child, or waited for by a child, and has not
        // ended.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
        self.child.wait().expect("it is a child");
    }
}

/// A line of /proc/PID/status.
pub fn status(pid: u32, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_else(|error| panic!("{pid}: {error}"));
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().to_owned()
}

fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("it runs");
    text.split_whitespace().map(|pid| pid.parse().expect("a number")).collect()
}
