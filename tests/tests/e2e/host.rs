//! `porthole run` as a process: started, watched, ended.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use porthole_tests::live::patience;
use serde_json::Value;

use super::{Directory, porthole};

/// A host to be started.
pub struct Run {
    command: Command,
    format: &'static str,
    stdout: Option<Stdio>,
    report: Option<PathBuf>,
    options: Vec<OsString>,
    plugins: Vec<PathBuf>,
    arguments: Vec<OsString>,
}

/// A host that runs. Killed when dropped.
pub struct Host {
    child: Child,
    stdout: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
    stderr: Receiver<String>,
    /// What has come from `stderr`.
    messages: String,
    directory: Directory,
}

/// A host that has ended.
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
    /// What `--report` has written, where the run got so far.
    pub report: Option<Value>,
}

/// What became of a probe's hits, as the report tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub hits: u64,
    pub filtered: u64,
    pub emitted: u64,
    pub delivered: u64,
    pub lost: u64,
    pub faults: u64,
    pub missed: u64,
}

impl Run {
    /// Of one plugin; rows come as JSON.
    pub fn new(plugin: &Path) -> Run {
        let (command, plugins) = (porthole(), vec![plugin.to_owned()]);
        Run { command, format: "json", stdout: None, report: None, options: Vec::new(), plugins, arguments: Vec::new() }
    }

    /// Rows come as text.
    pub fn text(self) -> Run {
        Run { format: "text", ..self }
    }

    /// Rows go there, and [`Ended::stdout`] is empty.
    pub fn stdout(self, stdout: impl Into<Stdio>) -> Run {
        Run { stdout: Some(stdout.into()), ..self }
    }

    /// The report goes there, and [`Ended::report`] is none.
    pub fn report(self, path: &Path) -> Run {
        Run { report: Some(path.to_owned()), ..self }
    }

    /// One more plugin.
    pub fn plugin(mut self, plugin: &Path) -> Run {
        self.plugins.push(plugin.to_owned());
        self
    }

    /// An option of the host's.
    pub fn option(mut self, option: impl Into<OsString>) -> Run {
        self.options.push(option.into());
        self
    }

    /// Arguments of the plugins', separated by spaces.
    pub fn args(self, arguments: &str) -> Run {
        arguments.split_whitespace().fold(self, Run::arg)
    }

    /// One argument of the plugins'.
    pub fn arg(mut self, argument: impl Into<OsString>) -> Run {
        self.arguments.push(argument.into());
        self
    }

    /// The host started by this command.
    pub fn by(self, command: Command) -> Run {
        Run { command, ..self }
    }

    /// Run by another program: `program… porthole run …`.
    pub fn under(mut self, program: &[&str]) -> Run {
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).arg(self.command.get_program());
        for (name, value) in self.command.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        self.command = command;
        self
    }

    /// Starts it.
    pub fn spawn(mut self) -> Host {
        let directory = Directory::new("report");
        // The host may run as another user.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).expect("it is ours");
        let report = self.report.unwrap_or_else(|| report(&directory));
        self.command.arg("run").arg("--format").arg(self.format).args(self.options);
        self.command.arg("--report").arg(report).args(self.plugins).arg("--").args(self.arguments);
        self.command.stdin(Stdio::null()).stdout(self.stdout.unwrap_or_else(Stdio::piped)).stderr(Stdio::piped());
        let mut child = self.command.spawn().expect("the host can be started");
        // Its descriptors of what the host writes to are not needed any more, and would keep a pipe open.
        drop(self.command);
        let stderr = child.stderr.take().expect("it is a pipe");
        let written = Arc::new(Mutex::new(Vec::new()));
        let reader = child.stdout.take().map(|stdout| read_all(stdout, Arc::clone(&written)));
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n') {
                let line = String::from_utf8(line.expect("a pipe can be read")).expect("messages are UTF-8");
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Host { child, stdout: written, reader, stderr: receiver, messages: String::new(), directory }
    }

    /// Starts it, and waits until its probes are attached.
    pub fn attach(self) -> Host {
        let mut host = self.spawn();
        host.wait_for("Attached ");
        host
    }

    /// Runs it to its own end.
    pub fn finish(self) -> Ended {
        self.spawn().finish()
    }
}

impl Host {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line on stderr that starts so.
    pub fn wait_for(&mut self, start: &str) -> String {
        let deadline = Instant::now() + patience();
        loop {
            match self.stderr.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.keep(&line);
                    if line.starts_with(start) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("no line `{start}…` came:\n{}", self.messages),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("the host has ended before `{start}…`:\n{}", self.messages)
                }
            }
        }
    }

    /// Waits until it has printed so many rows.
    pub fn wait_for_rows(&self, rows: usize) {
        let deadline = Instant::now() + patience();
        loop {
            let printed = lock(&self.stdout).iter().filter(|&&byte| byte == b'\n').count();
            if printed >= rows {
                return;
            }
            assert!(Instant::now() < deadline, "{printed} rows came, not {rows}");
            sleep(Duration::from_millis(1));
        }
    }

    /// Sends it a signal. It must not have ended as far as this test knows.
    pub fn signal(&self, signal: libc::c_int) {
        let pid = libc::pid_t::try_from(self.pid()).expect("a pid fits");
        // SAFETY: the call touches no memory; the child has not been waited for, so the pid is still its own.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    /// Ctrl-C, and waits for its end.
    pub fn interrupt(self) -> Ended {
        self.signal(libc::SIGINT);
        self.finish()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is a child").is_some()
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Ended {
        let deadline = Instant::now() + patience();
        let status = loop {
            match self.child.try_wait().expect("it is a child") {
                Some(status) => break status,
                None if Instant::now() < deadline => sleep(Duration::from_millis(5)),
                None => panic!("the host does not end"),
            }
        };
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader does not panic");
        }
        let stdout = std::mem::take(&mut *lock(&self.stdout));
        while let Ok(line) = self.stderr.recv() {
            self.keep(&line);
        }
        let report = fs::read(report(&self.directory)).ok().filter(|text| !text.is_empty());
        let report = report.map(|text| serde_json::from_slice(&text).expect("the report is JSON"));
        Ended { status, stdout, stderr: std::mem::take(&mut self.messages), report }
    }

    fn keep(&mut self, line: &str) {
        self.messages.push_str(line);
        self.messages.push('\n');
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It has ended already, but where a test fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// Makes sure that all went well, and gives what was run.
    pub fn successful(self) -> Ended {
        assert!(self.status.success(), "{}: {}", self.status, self.stderr);
        self
    }

    /// Each row, as JSON.
    pub fn rows(&self) -> Vec<Value> {
        let lines = self.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).expect("each line of stdout is JSON")).collect()
    }

    /// The account of one probe, after a look at whether it adds up.
    pub fn counts(&self, plugin: &str, probe: &str) -> Counts {
        let report = self.report.as_ref().expect("the run has written a report");
        let of = |list: &Value, key: &str, name: &str| {
            let found = list.as_array().and_then(|items| items.iter().find(|item| item[key] == name));
            found.cloned().unwrap_or_else(|| panic!("no {key} {name} in {report}"))
        };
        let probe = of(&of(&report["plugins"], "plugin", plugin)["probes"], "probe", probe);
        let number = |name: &str| probe[name].as_u64().unwrap_or_else(|| panic!("no number {name} in {probe}"));
        let counts = Counts {
            hits: number("hits"),
            filtered: number("filtered"),
            emitted: number("emitted"),
            delivered: number("delivered"),
            lost: number("lost"),
            faults: number("faults"),
            missed: number("missed"),
        };
        assert_eq!(counts.hits, counts.filtered + counts.emitted + counts.lost, "{counts:?}");
        counts
    }
}

fn read_all(mut from: impl Read + Send + 'static, to: Arc<Mutex<Vec<u8>>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buffer = [0; 1 << 16];
        loop {
            match from.read(&mut buffer).expect("a pipe can be read") {
                0 => return,
                n => lock(&to).extend_from_slice(&buffer[..n]),
            }
        }
    })
}

fn lock(bytes: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    bytes.lock().expect("the reader does not panic")
}

fn report(directory: &Directory) -> PathBuf {
    directory.path().join("report.json")
}
