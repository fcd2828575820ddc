//! `examples/cgroups` beside the files of cgroups that the test makes, one below another.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::e2e::host::Run;
use crate::e2e::{Directory, is_root, plugin, unique};
use crate::waiting::Waiting;
use porthole::kernel::KernelFacts;
use porthole_tests::cgroups::Cgroups;

/// Bytes that one of the processes keeps: many times what CPUs hold.
const KEPT: i64 = 8 << 20;

/// Cgroups of the test's own: `a`, `a/b` and `a/b/c`.
struct Nested {
    name: String,
    cgroups: Cgroups,
    /// Whether the test has switched the memory controller on.
    switched: bool,
}

impl Nested {
    /// None, and says so, where there is no place for them or the kernel lacks what the plugin calls.
    fn new() -> Option<Nested> {
        if !is_root() {
            return None;
        }
        let facts = KernelFacts::running();
        for kfunc in ["bpf_iter_css_task_new", "bpf_task_under_cgroup"] {
            if facts.kfunc(kfunc).expect("facts").is_none() {
                println!("skipped: this kernel does not have {kfunc}");
                return None;
            }
        }
        let name = unique();
        let cgroups = Cgroups::new(&name)?;
        cgroups.make("b/c");
        Some(Nested { name, cgroups, switched: false })
    }

    /// Where the machine has the memory controller for cgroups of this version.
    fn count_memory(&mut self) {
        let control = self.control();
        let on = fs::read_to_string(&control).expect("it is there").split_whitespace().any(|name| name == "memory");
        self.switched = !on && fs::write(&control, "+memory").is_ok();
    }

    /// Where controllers are switched on for it: the root's.
    fn control(&self) -> PathBuf {
        self.cgroups.at("../cgroup.subtree_control")
    }

    fn at(&self, below: &str) -> PathBuf {
        self.cgroups.at(below)
    }

    fn id(&self, below: &str) -> u64 {
        self.cgroups.id(below)
    }

    /// A command that is executed in there, and is moved there by a shell.
    fn command(&self, below: &str, program: &Path) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(self.at(below).join("cgroup.procs")).arg(program);
        command
    }

    /// A shell that has burnt some time there, and waits.
    fn shell(&self, below: &str, shell: &Path) -> Waiting {
        self.shell_that(below, shell, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")
    }

    /// A shell that has done this there, and waits.
    fn shell_that(&self, below: &str, shell: &Path, does: &str) -> Waiting {
        let mut command = self.command(below, shell);
        command.args(["-c", &format!("{does}; echo; read x")]);
        Waiting::of(command, shell)
    }

    /// What a file of a cgroup's has behind this word.
    fn number(&self, below: &str, file: &str, word: &str) -> u64 {
        let text = fs::read_to_string(self.at(below).join(file)).expect("it is there");
        let line = text.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {word} in {text}")).parse().expect("a number")
    }

    fn lines(&self, below: &str, file: &str) -> usize {
        fs::read_to_string(self.at(below).join(file)).expect("it is there").lines().count()
    }
}

impl Drop for Nested {
    fn drop(&mut self) {
        if self.switched {
            let _ = fs::write(self.control(), "-memory");
        }
    }
}

/// A shell of a name that nothing else has.
fn own_shell(directory: &Directory) -> PathBuf {
    directory.copy_as(Path::new("/bin/sh"), unique())
}

#[test]
fn root_counts_of_nested_cgroups_are_those_of_their_files() {
    let Some(mut cgroups) = Nested::new() else { return };
    cgroups.count_memory();
    let directory = Directory::new("cgroups");
    let shell = own_shell(&directory);
    let file = directory.file("file", "");
    // Of several threads, as it says in tests/src/bin/subject.rs.
    let subject = Path::new(env!("CARGO_BIN_EXE_subject"));
    let mut command = cgroups.command("b", subject);
    command.args(["subject", "subject.test"]).arg(directory.path()).arg(&file).arg("/nowhere");
    command.env_clear().env("PORTHOLE_SUBJECT", "yes").process_group(0);
    let waiting = [
        Waiting::of(command, subject),
        cgroups.shell("b/c", &shell),
        cgroups.shell_that("b/c", &shell, &format!("kept=$(head -c {KEPT} /dev/zero | tr '\\0' x)")),
        cgroups.shell("b", &shell),
    ];

    let run = Run::new(&plugin("cgroups")).option("--allow-effects").args("--fresh --every 50");
    let host = run.arg("--cgroup").arg(format!("/{}", cgroups.name)).attach();
    host.wait_for_rows(3 * 3);
    let ended = host.interrupt().successful();
    let rows: Vec<Value> = ended.rows().into_iter().filter(|row| row["event"] == "cgroup").collect();
    assert!(rows.len() >= 9 && rows.len().is_multiple_of(3), "{rows:#?}");

    let threads = |below| cgroups.lines(below, "cgroup.threads");
    assert!(threads("b") > 3 && threads("b/c") == 2, "{} and {}", threads("b"), threads("b/c"));
    for (at, (below, path)) in [("", ""), ("b", "/b"), ("b/c", "/b/c")].into_iter().enumerate() {
        let in_all: usize = ["", "b", "b/c"][at..].iter().map(|below| threads(below)).sum();
        let expected = json!({
            "id": cgroups.id(below),
            "path": format!("/{}{path}", cgroups.name),
            "level": at + 1,
            "processes": cgroups.lines(below, "cgroup.procs"),
            "threads": threads(below),
            "descendants": cgroups.number(below, "cgroup.stat", "nr_descendants"),
            "threads_in_all": in_all,
            "cut": false,
            // All wait, so nothing has been used since.
            "cpu_us": cgroups.number(below, "cpu.stat", "usage_usec"),
        });
        let row = &rows[rows.len() - 3 + at]["fields"];
        for (name, value) in expected.as_object().expect("it is one") {
            assert_eq!(&row[name], value, "{name} of {row:#}");
        }
        assert_ne!(row["cpu_us"], 0, "{row:#}");
        let memory = fs::read_to_string(cgroups.at(below).join("memory.current")).ok();
        let memory = memory.map(|text| text.trim().parse::<i64>().expect("a number"));
        assert_eq!(row["memory"].is_null(), memory.is_none(), "{row:#}");
        if let Some(memory) = memory {
            assert!(memory >= KEPT, "{memory}");
            // Each CPU may give back what it holds for the cgroup (the kernel's mm/memcontrol.c: MEMCG_CHARGE_BATCH).
            let cpus = std::thread::available_parallelism().expect("it is known").get() as i64;
            let difference = row["memory"].as_i64().expect("a number") - memory;
            assert!(difference.abs() <= cpus * 64 * 4096, "{memory}: {row:#}");
        } else {
            println!("skipped: memory, which no controller counts here");
        }
    }
    let counts = ended.counts("cgroups", "cgroup");
    assert_eq!((counts.emitted, counts.delivered, counts.lost), (rows.len() as u64, rows.len() as u64, 0));
    for waiting in waiting {
        waiting.end();
    }
}

/// Chosen by its path and by its id.
#[test]
fn root_processes_are_told_the_cgroup_that_they_are_in() {
    let Some(cgroups) = Nested::new() else { return };
    let directory = Directory::new("cgroups");
    let shell = own_shell(&directory);
    let path = format!("/{}", cgroups.name);
    for (chosen, levels) in [
        (path.clone(), 0),
        (cgroups.id("").to_string(), 0),
        (format!("{path}/b"), 1),
        (cgroups.id("b").to_string(), 1),
        (format!("{path}/b/c/"), 2),
        ("1".to_owned(), -1),
    ] {
        let host = Run::new(&plugin("cgroups")).arg("--cgroup").arg(&chosen).attach();
        let outside = Waiting::start(&[], &shell, 0);
        let inside = ["", "b", "b/c"].map(|below| (below, cgroups.shell(below, &shell)));
        let pids = inside.each_ref().map(|(_, waiting)| waiting.pid);
        let outsider = outside.pid;
        outside.end();
        for (_, waiting) in inside {
            waiting.end();
        }
        let ended = host.interrupt().successful();
        let all = ended.rows();
        let row = |event: &str, pid: u32| {
            let found: Vec<&Value> =
                all.iter().filter(|row| row["event"] == event && row["fields"]["pid"] == pid).collect();
            // The shell that moves the process is one more program, of which no more is told than where it begins to be
            // there.
            found.last().map(|row| row["fields"].clone())
        };
        for (at, (below, pid)) in (0i32..).zip(["", "b", "b/c"].into_iter().zip(pids)) {
            for event in ["exec", "exit"] {
                let row = row(event, pid);
                if at < levels {
                    assert_eq!(row, None, "{chosen}");
                    continue;
                }
                let row = row.unwrap_or_else(|| panic!("{chosen}: no {event} of {pid} in {all:#?}"));
                assert_eq!(row["id"], cgroups.id(below), "{row:#}");
                assert_eq!(row["level"], at + 1);
                let name = cgroups.at(below);
                assert_eq!(
                    row["name"].as_str(),
                    name.components().next_back().and_then(|name| name.as_os_str().to_str())
                );
                // The cgroup right below the chosen one.
                let next = ["", "b", "b/c"].get((levels + 1) as usize).filter(|_| at > levels);
                assert_eq!(row["below_id"], next.map_or(Value::Null, |below| cgroups.id(below).into()), "{row:#}");
                let name =
                    next.map(|below| if below.is_empty() { cgroups.name.as_str() } else { &below[below.len() - 1..] });
                assert_eq!(row["below"].as_str(), name, "{row:#}");
            }
        }
        assert_eq!(row("exit", outsider).is_some(), levels < 0, "{chosen}");
    }
}

/// Nothing is brought up to date behind the user's back, and a path must be one.
#[test]
fn what_is_asked_of_cgroups_must_be_allowed_and_clear() {
    let check = |arguments: &[&str]| {
        let mut command = crate::e2e::porthole();
        let output =
            command.arg("check").arg(plugin("cgroups")).arg("--").args(arguments).output().expect("it is there");
        String::from_utf8(output.stderr).expect("messages are UTF-8")
    };
    crate::e2e::says(&check(&["--cgroup", "a/b"]), &["'a/b' is neither an id nor a path that begins with /"]);
    let told = check(&["--fresh"]);
    assert!(told.contains("and this run allows no effects"), "{told}");
}
