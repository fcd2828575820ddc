//! `examples/lineage` beside /proc: ancestors, credentials, namespaces, program and end of processes of the test's own.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::e2e::host::Run;
use crate::e2e::{Directory, is_root, plugin, unique};
use crate::waiting::{Waiting, status};
use porthole::kernel::KernelFacts;

/// By what processes are started, and the signal that ends them; where there is none, they end by themselves.
const STARTED: [(&[&str], Option<i32>); 5] = [
    (&[], None),
    (&[], Some(libc::SIGKILL)),
    (&["setpriv", "--reuid=65534", "--regid=65533", "--clear-groups", "--inh-caps=-all"], None),
    (&["unshare", "--uts", "--ipc", "--net", "--mount", "--cgroup"], Some(libc::SIGTERM)),
    (&["unshare", "--pid", "--fork", "--user", "--map-root-user"], None),
];

#[test]
fn root_a_process_is_told_of_as_proc_does() {
    if !is_root() {
        return;
    }
    let facts = KernelFacts::running();
    if facts.kfunc("bpf_task_from_pid").expect("facts").is_none() {
        println!("skipped: this kernel does not have bpf_task_from_pid");
        return;
    }
    let by_vpid = facts.kfunc("bpf_task_from_vpid").expect("facts").is_some();
    let (directory, name) = (Directory::new("lineage"), unique());
    let shell = directory.copy_as(Path::new("/bin/sh"), &name);
    // Other users execute it.
    fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("it is ours");
    let host = Run::new(&plugin("lineage")).arg("--comm").arg(&name).attach();
    let mut expected = Vec::new();
    // The kernel refuses it below a changed root, as in the virtual machines.
    let users = Command::new("unshare").args(["--user", "true"]).output().expect("it is there").status.success();
    if !users {
        println!("skipped: no user namespace can be made here");
    }
    for (code, (by, signal)) in (10..).zip(STARTED) {
        let by: Vec<&str> = by.iter().copied().filter(|word| users || !word.contains("-user")).collect();
        let waiting = Waiting::start(&by, &shell, code);
        let pid = waiting.pid;
        expected.push((json!("exec"), pid, told(pid, &shell, by_vpid, [None, None])));
        let (code, signal) = match signal {
            Some(signal) => (None, Some(signal)),
            None => (Some(code), None),
        };
        let (mut fields, ancestors) = told(pid, &shell, by_vpid, [code.map(i32::from), signal]);
        fields["exe"] = exe_at_exit(shell.to_str());
        expected.push((json!("exit"), pid, (fields, ancestors)));
        match signal {
            Some(signal) => waiting.kill(signal),
            None => assert_eq!(waiting.end().code(), code.map(i32::from)),
        }
    }
    let ended = host.interrupt().successful();
    let rows = ended.rows();
    assert_eq!(rows.len(), expected.len(), "{rows:#?}");
    for (event, pid, (fields, ancestors)) in &expected {
        let found = |row: &&Value| row["event"] == *event && row["fields"]["pid"] == *pid;
        let row = rows.iter().find(found).unwrap_or_else(|| panic!("no {event} of {pid} in {rows:#?}"));
        for (name, value) in fields.as_object().expect("it is one") {
            let told = &row["fields"][name];
            assert!(told == value || name == "exe" && is_path(told, value), "{name} is not {value} of {row:#}");
        }
        let told = row["fields"]["lineage"].as_str().expect("a text");
        // Some machines keep their first process from being found by its number. What is told ends there.
        let without_first = ancestors.text_without_first();
        assert!(told == ancestors.text() || Some(told.to_owned()) == without_first, "{told}: not {}", ancestors.text());
    }
    let counts = ended.counts("lineage", "process");
    assert_eq!((counts.emitted, counts.delivered, counts.lost), (expected.len() as u64, expected.len() as u64, 0));
}

/// The last thread of a process need not be its first, which has given back most of what it had by then.
#[test]
fn root_whichever_thread_ends_last_tells_of_the_process() {
    if !is_root() {
        return;
    }
    if KernelFacts::running().kfunc("bpf_task_from_pid").expect("facts").is_none() {
        println!("skipped: this kernel does not have bpf_task_from_pid");
        return;
    }
    let (directory, name) = (Directory::new("lineage"), unique());
    let program = directory.copy_as(Path::new(env!("CARGO_BIN_EXE_subject")), &name);
    let file = directory.file("file", "");
    let host = Run::new(&plugin("lineage")).arg("--comm").arg(&name).attach();
    let mut namespaces = Vec::new();
    for _ in 0..20 {
        // Of several threads, as it says in tests/src/bin/subject.rs.
        let mut command = Command::new(&program);
        command.args(["thread", "subject.test"]).arg(directory.path()).arg(&file).arg("/nowhere");
        command.env_clear().env("PORTHOLE_SUBJECT", "yes").process_group(0);
        let waiting = Waiting::of(command, &program);
        namespaces.push((waiting.pid, namespace(waiting.pid, "mnt"), namespace(waiting.pid, "net")));
        waiting.end();
    }
    let rows = host.interrupt().successful().rows();
    for (pid, mnt, net) in namespaces {
        let found = |row: &&Value| row["event"] == "exit" && row["fields"]["pid"] == pid;
        let exits: Vec<&Value> = rows.iter().filter(found).map(|row| &row["fields"]).collect();
        let [row] = exits[..] else { panic!("{pid} ends once: {exits:#?}") };
        assert_eq!((&row["mnt_ns"], &row["net_ns"]), (&mnt.into(), &net.into()), "{row:#}");
        let exe = exe_at_exit(program.to_str());
        assert!(row["exe"] == exe || is_path(&row["exe"], &exe), "{row:#}");
    }
}

/// What is told of a program that ends: before Linux 6.16, it had let go of its memory when the tracepoint came.
fn exe_at_exit(exe: Option<&str>) -> Value {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("procfs is mounted");
    let numbers: Vec<u32> = release.split(['.', '-']).map_while(|number| number.parse().ok()).take(2).collect();
    if numbers < vec![6, 16] { Value::Null } else { exe.into() }
}

/// Whether it is this path, or has more in front, as where the tests run in a chroot: a probe tells paths from the root
/// of the mount namespace.
fn is_path(told: &Value, path: &Value) -> bool {
    told.as_str().zip(path.as_str()).is_some_and(|(told, path)| told.ends_with(path))
}

fn namespace(pid: u32, name: &str) -> u64 {
    let link = fs::read_link(format!("/proc/{pid}/ns/{name}")).expect("it runs");
    let text = link.to_str().expect("it is ASCII");
    let number = text.split_once('[').and_then(|(_, rest)| rest.strip_suffix(']'));
    number.expect("it has brackets").parse().expect("a number")
}

/// What /proc says of a process, by the names of the plugin's columns; and its ancestors.
fn told(pid: u32, shell: &Path, by_vpid: bool, [code, signal]: [Option<i32>; 2]) -> (Value, Ancestors) {
    let numbers = |name| -> Vec<u32> {
        status(pid, name).split_whitespace().map(|number| number.parse().expect("a number")).collect()
    };
    let (uid, gid, vpids) = (numbers("Uid"), numbers("Gid"), numbers("NSpid"));
    let mut fields = json!({
        "comm": fs::read_to_string(format!("/proc/{pid}/comm")).expect("it runs").trim_end(),
        // It runs this file, which `Waiting` has made sure of.
        "exe": shell.to_str(),
        "code": code,
        "signal": signal,
        "ppid": numbers("PPid")[0],
        "uid": uid[0],
        "gid": gid[0],
        "euid": uid[1],
        "egid": gid[1],
        "capabilities": status(pid, "CapEff"),
        "vpid": vpids.last(),
    });
    for name in ["pid", "mnt", "net", "user", "uts", "ipc", "cgroup"] {
        fields[format!("{name}_ns")] = namespace(pid, name).into();
    }
    // Of a namespace of its own, it is the first process.
    if vpids.len() > 1 {
        assert_eq!(vpids.last(), Some(&1), "{vpids:?}");
        fields["init_pid"] = if by_vpid { pid.into() } else { Value::Null };
        fields["init"] = if by_vpid { fields["comm"].clone() } else { Value::Null };
    }
    (fields, Ancestors::of(pid))
}

/// Names and numbers of a process's ancestors, the nearest first.
struct Ancestors(Vec<(String, u32)>);

impl Ancestors {
    /// As many as the plugin tells.
    fn of(pid: u32) -> Ancestors {
        let parent = |pid: u32| status(pid, "PPid").parse().ok().filter(|&parent: &u32| parent != 0);
        let all = std::iter::successors(parent(pid), |&pid| parent(pid));
        let comm = |pid| fs::read_to_string(format!("/proc/{pid}/comm")).expect("it runs").trim_end().to_owned();
        Ancestors(all.take(6).map(|pid| (comm(pid), pid)).collect())
    }

    fn text(&self) -> String {
        let each: Vec<String> = self.0.iter().map(|(comm, pid)| format!("{comm}({pid})")).collect();
        each.join(" < ")
    }

    /// Without process 1, where that is the last.
    fn text_without_first(&self) -> Option<String> {
        let (_, rest) = self.0.split_last().filter(|((_, pid), _)| *pid == 1)?;
        Some(Ancestors(rest.to_vec()).text())
    }
}
