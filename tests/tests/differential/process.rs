//! A process, by /proc/PID: `subject` (tests/src/bin/subject.rs) has known properties, and waits while they are read.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::files::{InMemory, fdinfo, of_descriptor};
use super::*;

/// Nanoseconds of a tick, as /proc counts them (USER_HZ).
const TICK: u64 = 10_000_000;
const HOST: &str = "porthole-host";
const PAGE: u64 = 4096;

/// The process, which goes when this is dropped.
struct Subject {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    tid: u32,
    fd: u32,
}

impl Subject {
    fn start(program: &Path, comm: &str, directory: &Path, file: &Path, path: &str) -> Subject {
        let mut command = Command::new(program);
        command.args([comm, HOST]).arg(directory).arg(file).arg(path).env_clear().env("PORTHOLE_SUBJECT", "yes");
        let piped = command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = piped.spawn().expect("it is a program");
        let (to, mut from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut line = String::new();
        from.read_line(&mut line).expect("it can be read from");
        let numbers: Vec<u32> = line.split_whitespace().map(|n| n.parse().expect("a number")).collect();
        let [tid, fd] = numbers[..] else { panic!("it has not come so far: {line}") };
        Subject { child, to, from, tid, fd }
    }

    /// Has it call once.
    fn call(&mut self) {
        self.to.write_all(b"x").expect("it reads");
        self.from.read_exact(&mut [0]).expect("it answers");
    }

    /// What is below /proc/PID.
    fn of_process(&self, name: &str) -> PathBuf {
        Path::new("/proc").join(self.child.id().to_string()).join(name)
    }

    /// What is below /proc/PID/task/TID.
    fn of_thread(&self, name: &str) -> PathBuf {
        self.of_process("task").join(self.tid.to_string()).join(name)
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A cgroup of the test's own, which goes when this is dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    /// None where no cgroup v2 is mounted.
    fn new() -> Option<Cgroup> {
        let mounts = text(Path::new("/proc/self/mountinfo"));
        // MOUNT PARENT DEVICE ROOT PLACE OPTIONS … - TYPE …
        let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?.split(' ').nth(4)?;
        let path = Path::new(mount).join(format!("porthole-{}", e2e::unique()));
        fs::create_dir(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Some(Cgroup(path))
    }

    fn add(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("it takes a process");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Its last process may still be ending.
        for _ in 0..200 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// What is true of the process now. Claims whose names end in `…` are of numbers that grow while it runs.
fn truths(subject: &Subject, program: &Path, comm: &str, directory: &Path) -> Vec<Claim> {
    let mut claims = of_status(subject);
    claims.extend(of_stat(subject, comm));
    claims.extend(of_namespaces(subject));
    claims.extend(of_memory(subject));
    claims.extend(of_rest(subject));

    let exe = fs::read_link(subject.of_process("exe")).expect("it runs");
    assert_eq!(exe, program);
    let inode = "task.mm.exe_file.f_inode";
    claims.extend(of_inode(inode, &fs::metadata(subject.of_process("exe")).expect("it is there")));
    let name = |path: &Path| path.file_name().expect("it has a name").to_str().expect("UTF-8").to_owned();
    claims.push(claim("exe", "str(task.mm.exe_file.f_path.dentry.d_name.name)", name(&exe)));
    let parent = name(exe.parent().expect("it is in a directory"));
    claims.push(claim("exe's directory", "str(task.mm.exe_file.f_path.dentry.d_parent.d_name.name)", parent));
    let cwd = fs::read_link(subject.of_process("cwd")).expect("it is somewhere");
    assert_eq!(cwd, directory);
    // /proc tells paths from the reader's root, and a probe from that of the mount namespace, which has more in front
    // where this process is in a chroot.
    for (name, file, link) in [("exe", "task.mm.exe_file", &exe), ("cwd", "task.fs.pwd", &cwd)] {
        claims.push(claim(name, &format!("ends_with(path({file}), \"{}\")", link.display()), true));
    }
    claims.push(claim("cwd", "str(task.fs.pwd.dentry.d_name.name)", name(&cwd)));
    claims
        .extend(of_inode("task.fs.pwd.dentry.d_inode", &fs::metadata(subject.of_process("cwd")).expect("it is there")));

    let info = fdinfo(&text(&subject.of_process(&format!("fdinfo/{}", subject.fd))));
    claims.extend(of_descriptor(&format!("task.files.fdt.fd[{}]", subject.fd), &info));
    claims
}

/// /proc/PID/task/TID/status.
fn of_status(subject: &Subject) -> Vec<Claim> {
    let text = text(&subject.of_thread("status"));
    let lines: HashMap<&str, Vec<&str>> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name, value.split_whitespace().collect()))
        .collect();
    let mut claims = Vec::new();
    let mut add = |name: &str, n: usize, radix: u32, expression: &str| {
        let word = lines.get(name.trim_end_matches('…')).unwrap_or_else(|| panic!("no {name} in\n{text}"))[n];
        let truth = u64::from_str_radix(&word.replace(',', ""), radix).unwrap_or_else(|e| panic!("{name} {word}: {e}"));
        claims.push(claim(name, expression, truth));
    };
    for expression in ["task.fs.umask", "(task.fs.umask | 0) & 0xffff"] {
        add("Umask", 0, 8, expression);
    }
    for expression in ["pid", "task.tgid", "task.group_leader.pid", "task.signal.pids[PIDTYPE_TGID].numbers[0].nr"] {
        add("Tgid", 0, 10, expression);
    }
    for expression in ["tid", "task.pid", "task.thread_pid.numbers[task.thread_pid.level].nr"] {
        add("Pid", 0, 10, expression);
    }
    for expression in ["task.real_parent.tgid", "task.parent.tgid", "task.group_leader.real_parent.tgid"] {
        add("PPid", 0, 10, expression);
    }
    for (n, id) in ["", "e", "s", "fs"].into_iter().enumerate() {
        for cred in ["cred", "real_cred"] {
            add("Uid", n, 10, &format!("task.{cred}.{id}uid.val"));
            add("Gid", n, 10, &format!("task.{cred}.{id}gid.val"));
        }
    }
    add("Uid", 0, 10, "uid");
    add("Gid", 0, 10, "gid");
    for n in 0..3 {
        add("Groups", n, 10, &format!("task.cred.group_info.gid[{n}].val"));
    }
    add("FDSize", 0, 10, "task.files.fdt.max_fds");
    add("VmPeak", 0, 10, "(task.mm.hiwater_vm > task.mm.total_vm ? task.mm.hiwater_vm : task.mm.total_vm) * 4");
    add("VmSize", 0, 10, "task.mm.total_vm * 4");
    add("VmLck", 0, 10, "task.mm.locked_vm * 4");
    add("VmPin", 0, 10, "task.mm.pinned_vm.counter * 4");
    add("VmData", 0, 10, "task.mm.data_vm * 4");
    add("VmStk", 0, 10, "task.mm.stack_vm * 4");
    add("VmPTE…", 0, 10, "task.mm.pgtables_bytes.counter / 1024");
    add("Threads", 0, 10, "task.signal.nr_threads");
    add("SigPnd", 0, 16, "task.pending.signal.sig[0]");
    add("ShdPnd", 0, 16, "task.signal.shared_pending.signal.sig[0]");
    add("SigBlk", 0, 16, "task.blocked.sig[0]");
    for (name, what) in [
        ("CapInh", "inheritable"),
        ("CapPrm", "permitted"),
        ("CapEff", "effective"),
        ("CapBnd", "bset"),
        ("CapAmb", "ambient"),
    ] {
        let set = format!("task.cred.cap_{what}");
        add(name, 0, 16, &format!("{set}.val else (u64){set}.cap[1] << 32 | {set}.cap[0]"));
    }
    add("NoNewPrivs", 0, 10, "task.atomic_flags & 1");
    add("Seccomp", 0, 10, "task.seccomp.mode");
    add("Cpus_allowed", 0, 16, "task.cpus_mask.bits[0]");
    add("voluntary_ctxt_switches…", 0, 10, "task.nvcsw");
    add("nonvoluntary_ctxt_switches…", 0, 10, "task.nivcsw");
    let groups = lines["Groups"].len();
    claims.push(claim("Groups", "task.cred.group_info.ngroups", groups));
    claims.push(claim("Name", "comm", lines["Name"].join(" ")));
    // A bit for each signal, in two halves: 64 of them are more than an expression holds.
    for (name, holds) in [("SigIgn", "== 1"), ("SigCgt", "> 1")] {
        let truth = u64::from_str_radix(lines[name][0], 16).expect("a mask");
        for first in [0, 32] {
            let bit = |n: u32| format!("(u64)((u64)task.sighand.action[{n}].sa.sa_handler {holds}) << {n}");
            let half = (first..first + 32).map(bit).collect::<Vec<_>>().join(" | ");
            claims.push(claim(name, &half, truth & 0xffff_ffff << first));
        }
    }
    claims
}

/// /proc/PID/task/TID/stat, by the numbers of proc_pid_stat(5).
fn of_stat(subject: &Subject, comm: &str) -> Vec<Claim> {
    let text = text(&subject.of_thread("stat"));
    let (front, behind) = text.rsplit_once(')').expect("the name stands in parentheses");
    let words: Vec<&str> = behind.split_whitespace().collect();
    // The first behind the name is the third.
    let word = |n: usize| words[n - 3];
    let claim = |name: &str, expression: &str, n: usize| claim(name, expression, word(n));
    let group = |kind: &str| format!("task.signal.pids[{kind}].numbers[task.signal.pids[{kind}].level].nr");
    vec![
        super::claim("comm", "task.comm", front.split_once('(').expect("in parentheses").1),
        super::claim("comm", "comm", comm),
        claim("ppid", "task.real_parent.tgid", 4),
        claim("pgrp", &group("PIDTYPE_PGID"), 5),
        claim("session", &group("PIDTYPE_SID"), 6),
        claim("flags", "task.flags", 9),
        claim("minflt…", "task.min_flt", 10),
        claim("majflt…", "task.maj_flt", 12),
        // MAX_RT_PRIO and DEFAULT_PRIO of include/linux/sched/prio.h.
        claim("priority", "task.prio - 100", 18),
        claim("nice", "task.static_prio - 120", 19),
        claim("num_threads", "task.signal.nr_threads", 20),
        claim("starttime", &format!("task.start_boottime / {TICK}"), 22),
        claim("vsize", &format!("task.mm.total_vm * {PAGE}"), 23),
        claim("rsslim", "task.signal.rlim[5].rlim_cur", 25),
        claim("startcode", "task.mm.start_code", 26),
        claim("endcode", "task.mm.end_code", 27),
        claim("startstack", "task.mm.start_stack", 28),
        claim("exit_signal", "task.exit_signal", 38),
        claim("processor", "cpu", 39),
        claim("processor", "task.thread_info.cpu", 39),
        claim("rt_priority", "task.rt_priority", 40),
        claim("policy", "task.policy", 41),
        claim("start_data", "task.mm.start_data", 45),
        claim("end_data", "task.mm.end_data", 46),
        claim("start_brk", "task.mm.start_brk", 47),
        claim("arg_start", "task.mm.arg_start", 48),
        claim("arg_end", "task.mm.arg_end", 49),
        claim("env_start", "task.mm.env_start", 50),
        claim("env_end", "task.mm.env_end", 51),
        claim("exit_code", "task.exit_code", 52),
    ]
}

/// /proc/PID/task/TID/ns, whose links are `KIND:[INODE]`.
fn of_namespaces(subject: &Subject) -> Vec<Claim> {
    let number = |kind: &str| {
        let link = fs::read_link(subject.of_thread(&format!("ns/{kind}"))).unwrap_or_else(|e| panic!("{kind}: {e}"));
        let link = link.to_str().expect("UTF-8").to_owned();
        link.trim_start_matches(|c: char| !c.is_ascii_digit()).trim_end_matches(']').to_owned()
    };
    let kinds = [
        ("uts", "uts_ns"),
        ("ipc", "ipc_ns"),
        ("mnt", "mnt_ns"),
        ("net", "net_ns"),
        ("cgroup", "cgroup_ns"),
        ("time", "time_ns"),
        ("pid_for_children", "pid_ns_for_children"),
    ];
    let of = |(kind, member): (&str, &str)| claim(kind, &format!("task.nsproxy.{member}.ns.inum"), number(kind));
    let mut claims: Vec<Claim> = kinds.into_iter().map(of).collect();
    claims.push(claim("user", "task.cred.user_ns.ns.inum", number("user")));
    claims.push(claim("nodename", "task.nsproxy.uts_ns.name.nodename", HOST));
    claims.push(claim("sysname", "task.nsproxy.uts_ns.name.sysname", "Linux"));
    let release = text(Path::new("/proc/sys/kernel/osrelease"));
    claims.push(claim("release", "task.nsproxy.uts_ns.name.release", release.trim_end()));
    claims
}

/// What the process's own memory holds: its arguments and its environment.
fn of_memory(subject: &Subject) -> Vec<Claim> {
    let mut claims = Vec::new();
    let mut at = 0;
    for (n, argument) in text(&subject.of_process("cmdline")).split_terminator('\0').enumerate() {
        claims.push(claim(
            &format!("argument {n}"),
            &format!("str(user((char *)(task.mm.arg_start + {at})))"),
            argument,
        ));
        at += argument.len() + 1;
    }
    let environment = text(&subject.of_process("environ"));
    let first = environment.split('\0').next().unwrap_or_default();
    assert_eq!(first, "PORTHOLE_SUBJECT=yes");
    claims.push(claim("environment", "str(user((char *)task.mm.env_start))", first));
    claims
}

/// Files with a number or two.
fn of_rest(subject: &Subject) -> Vec<Claim> {
    let limits = text(&subject.of_process("limits"));
    let limit = |name: &str, n: usize| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).expect("a limit");
        line.split_whitespace().nth(n).expect("a number").to_owned()
    };
    let word = |path: PathBuf| text(&path).trim().to_owned();
    // Only where a thread is looked up by its own number.
    let slack = Path::new("/proc").join(subject.tid.to_string()).join("timerslack_ns");
    let personality = u32::from_str_radix(&word(subject.of_thread("personality")), 16).expect("hexadecimal");
    let mut claims = vec![
        claim("Max open files", "task.signal.rlim[7].rlim_cur", limit("Max open files", 0)),
        claim("Max open files", "task.signal.rlim[7].rlim_max", limit("Max open files", 1)),
        claim("Max stack size", "task.signal.rlim[3].rlim_cur", limit("Max stack size", 0)),
        claim("oom_score_adj", "task.signal.oom_score_adj", word(subject.of_process("oom_score_adj"))),
        claim("timerslack_ns", "task.timer_slack_ns", word(slack)),
        claim("personality", "task.personality", personality),
    ];
    match fs::read_to_string(subject.of_thread("io")) {
        Ok(text) => {
            let all = fdinfo(&text);
            for name in ["rchar", "wchar", "syscr", "syscw"] {
                claims.push(claim(&format!("{name}…"), &format!("task.ioac.{name}"), &all[name]));
            }
        }
        Err(error) => println!("skipped: this kernel counts no bytes of threads: {error}"),
    }
    claims
}

#[test]
fn root_a_process_is_what_proc_says() {
    if !e2e::is_root() {
        return;
    }
    let (directory, comm) = (InMemory::new(), e2e::unique());
    let [program, file, working] = ["subject", "file", "here"].map(|name| directory.0.join(name));
    // By another process: what this one has open for writing cannot be executed.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_subject")).arg(&program).status().expect("cp is there");
    assert!(copied.success());
    fs::write(&file, "some bytes").expect("it can be written");
    fs::create_dir(&working).expect("it is new");
    let (path, when) = call();
    let cgroup = Cgroup::new();
    let mut subject = Subject::start(&program, &comm, &working, &file, &path);
    fs::write(subject.of_process("oom_score_adj"), "321").expect("this is root");
    if let Some(cgroup) = &cgroup {
        cgroup.add(subject.child.id());
    }
    let when = format!("tid == {} && {when}", subject.tid);

    let mut before = truths(&subject, &program, &comm, &working);
    match &cgroup {
        Some(cgroup) => before.extend(of_cgroup(&subject, cgroup)),
        None => println!("skipped: no cgroup v2 is mounted"),
    }
    let told = events(ACCESS, &when, &before, || subject.call());
    let after = truths(&subject, &program, &comm, &working);
    println!("{} values compared", before.len());
    assert!(before.len() >= 150, "too few: {}", before.len());

    let mut faults = Vec::new();
    for (n, (claim, told)) in before.iter().zip(&told).enumerate() {
        let Claim { name, expressions, truth } = claim;
        let later = after.get(n).map_or(truth, |later| &later.truth);
        let holds = if name.ends_with('…') {
            let [first, value, last] = [truth, told, later].map(|n| n.parse::<u64>().expect("a number"));
            (first..=last).contains(&value)
        } else {
            assert_eq!(truth, later, "{name} has changed by itself");
            told == truth
        };
        if !holds {
            faults.push(format!("{name}: {} is {told}, and {truth} (later {later}) is true", expressions[0]));
        }
    }
    drop(subject);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// /proc/PID/cgroup, and the inode of what it names.
fn of_cgroup(subject: &Subject, cgroup: &Cgroup) -> Vec<Claim> {
    let text = text(&subject.of_process("cgroup"));
    let path = text.lines().find_map(|line| line.strip_prefix("0::")).expect("a cgroup v2");
    let name = cgroup.0.file_name().expect("it has a name").to_str().expect("UTF-8");
    assert!(path.ends_with(name), "{path}");
    let id = fs::metadata(&cgroup.0).expect("it is there").ino();
    vec![
        claim("cgroup", "cgroup", id),
        claim("cgroup", "task.cgroups.dfl_cgrp.kn.id", id),
        claim("cgroup's name", "str(task.cgroups.dfl_cgrp.kn.name)", name),
        claim("cgroup's depth", "task.cgroups.dfl_cgrp.level", path.matches('/').count()),
    ]
}
