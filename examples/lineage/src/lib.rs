//! Processes when they begin a program and when they end: where they come from, what they may do, what they see of the
//! machine.
//!
//! All of it is read at the moment itself, in the kernel. From one ancestor to the next leads a pid, and from the pid
//! to its task a kernel function, whose result the host gives back; the handler only puts what it is sent into words.

use std::collections::VecDeque;
use std::fmt::Write;

use porthole_guest::prelude::*;

/// Where nothing else is asked for, so many ancestors are told; the struct has as many.
const LEVELS: usize = 6;

/// A process has begun a program, or its last thread ends. The tracepoints (the kernel's include/trace/events/sched.h)
/// fire in the process itself.
///
/// The exit status is that of wait(2) (the kernel's kernel/exit.c: wait_task_zombie): of all threads together where one
/// of them has ended all (`SIGNAL_GROUP_EXIT`, 4), otherwise that of the first thread.
///
/// What threads give back when they end is read of this one, `args.p`: it need not be the first, which may have ended
/// before.
///
/// The path is bound in front of the ancestors: the verifier goes through what stands behind them once for each that
/// may not be there, and a path is long.
#[derive(Event)]
#[probe(
    attach = ["rawtracepoint:sched_process_exec", "rawtracepoint:sched_process_exit"],
    kfuncs = ["bpf_task_from_pid", "bpf_task_from_vpid?"],
    when = "ends_with(probe, \"exec\") || args.p.signal.live.counter == 0",
    bind(
        process = "args.p.group_leader",
        id = "process.thread_pid",
        cred = "process.real_cred",
        exe = "path(args.p.mm.exe_file)",
        p1 = "bpf_task_from_pid(process.real_parent.tgid)",
        p2 = "bpf_task_from_pid(p1.real_parent.tgid)",
        p3 = "bpf_task_from_pid(p2.real_parent.tgid)",
        p4 = "bpf_task_from_pid(p3.real_parent.tgid)",
        p5 = "bpf_task_from_pid(p4.real_parent.tgid)",
        p6 = "bpf_task_from_pid(p5.real_parent.tgid)",
        init = "bpf_task_from_vpid(1)"
    )
)]
struct Process<'a> {
    #[expr("ends_with(probe, \"exit\")")]
    ended: bool,
    pid: u32,
    #[expr("process.start_boottime")]
    started: u64,
    #[expr("process.real_parent.tgid")]
    ppid: i32,
    #[expr("process.comm")]
    comm: Comm,
    exe: Option<Text<'a>>,
    #[expr(
        "ends_with(probe, \"exit\") ? (process.signal.flags & 4 ? process.signal.group_exit_code : process.exit_code) : 0"
    )]
    status: i64,

    #[expr("cred.uid.val")]
    uid: u32,
    #[expr("cred.gid.val")]
    gid: u32,
    #[expr("cred.euid.val")]
    euid: u32,
    #[expr("cred.egid.val")]
    egid: u32,
    /// The set has had several types in C, all of 64 bits.
    #[expr("*(u64 *)&cred.cap_effective")]
    capabilities: u64,

    /// The process's number in its own pid namespace.
    #[expr("id.numbers[id.level].nr")]
    vpid: i32,
    #[expr("id.numbers[id.level].ns.ns.inum")]
    pid_ns: Option<u32>,
    #[expr("args.p.nsproxy.mnt_ns.ns.inum")]
    mnt_ns: Option<u32>,
    #[expr("args.p.nsproxy.net_ns.ns.inum")]
    net_ns: Option<u32>,
    #[expr("args.p.nsproxy.uts_ns.ns.inum")]
    uts_ns: Option<u32>,
    #[expr("args.p.nsproxy.ipc_ns.ns.inum")]
    ipc_ns: Option<u32>,
    #[expr("args.p.nsproxy.cgroup_ns.ns.inum")]
    cgroup_ns: Option<u32>,
    #[expr("cred.user_ns.ns.inum")]
    user_ns: Option<u32>,
    /// Process 1 of that namespace: of a container, its first.
    #[expr("init.tgid")]
    init_pid: Option<i32>,
    #[expr("init.comm")]
    init_comm: Comm,

    #[expr("p1.tgid")]
    p1_pid: Option<i32>,
    #[expr("p1.comm")]
    p1_comm: Comm,
    #[expr("p2.tgid")]
    p2_pid: Option<i32>,
    #[expr("p2.comm")]
    p2_comm: Comm,
    #[expr("p3.tgid")]
    p3_pid: Option<i32>,
    #[expr("p3.comm")]
    p3_comm: Comm,
    #[expr("p4.tgid")]
    p4_pid: Option<i32>,
    #[expr("p4.comm")]
    p4_comm: Comm,
    #[expr("p5.tgid")]
    p5_pid: Option<i32>,
    #[expr("p5.comm")]
    p5_comm: Comm,
    #[expr("p6.tgid")]
    p6_pid: Option<i32>,
    #[expr("p6.comm")]
    p6_comm: Comm,
}

/// So many ends of processes are kept in mind, a great many more than CPUs.
const ENDED: usize = 1024;

struct Lineage {
    levels: usize,
    /// Processes that have ended of late, by pid and start: several threads at their end may each find that none is
    /// left.
    ended: VecDeque<(u32, u64)>,
}

impl Default for Lineage {
    fn default() -> Lineage {
        Lineage { levels: LEVELS, ended: VecDeque::new() }
    }
}

impl Plugin for Lineage {
    type Event<'a> = Process<'a>;

    fn declare(&mut self, args: &mut Args, declaration: &mut Declaration) -> Result<(), String> {
        if let Some(pid) = args.value::<u32>("--pid")? {
            declaration.when(&format!("pid == {pid} || args.p.real_parent.tgid == {pid}"));
        }
        if let Some(comm) = args.value::<String>("--comm")? {
            declaration.when(&format!("args.p.group_leader.comm == {}", quote(&comm)));
        }
        if let Some(levels) = args.value("--levels")? {
            if levels > LEVELS {
                return Err(format!("--levels: at most {LEVELS}"));
            }
            self.levels = levels;
        }
        Ok(())
    }

    fn on(&mut self, process: &Process, out: &mut Output) {
        let Process { pid, uid, gid, euid, egid, .. } = *process;
        if process.ended && !self.is_new((pid, process.started)) {
            return;
        }
        let lineage = process.lineage(self.levels);
        let ending = process.ended.then(|| Ending::of(process.status));
        out.new_row(if process.ended { "exit" } else { "exec" })
            .column("pid", pid)
            .column("comm", &process.comm)
            .column("exe", process.exe)
            .column("code", ending.and_then(Ending::code))
            .column("signal", ending.and_then(Ending::signal))
            .column("ppid", process.ppid)
            .column("lineage", &lineage)
            .column("uid", uid)
            .column("gid", gid)
            .column("euid", euid)
            .column("egid", egid)
            .column("capabilities", &format!("{:016x}", process.capabilities))
            .column("vpid", process.vpid)
            .column("init_pid", process.init_pid)
            .column("init", process.init_pid.map(|_| Value::from(&process.init_comm)))
            .column("pid_ns", process.pid_ns)
            .column("mnt_ns", process.mnt_ns)
            .column("net_ns", process.net_ns)
            .column("user_ns", process.user_ns)
            .column("uts_ns", process.uts_ns)
            .column("ipc_ns", process.ipc_ns)
            .column("cgroup_ns", process.cgroup_ns)
            .send();
    }
}

impl Lineage {
    /// Whether this process's end has not been told yet.
    fn is_new(&mut self, process: (u32, u64)) -> bool {
        if self.ended.contains(&process) {
            return false;
        }
        if self.ended.len() == ENDED {
            self.ended.pop_front();
        }
        self.ended.push_back(process);
        true
    }
}

impl Process<'_> {
    /// `make(17) < bash(9)`: the nearest first, up to one that is not there.
    fn lineage(&self, levels: usize) -> String {
        let ancestors = [
            (self.p1_pid, self.p1_comm),
            (self.p2_pid, self.p2_comm),
            (self.p3_pid, self.p3_comm),
            (self.p4_pid, self.p4_comm),
            (self.p5_pid, self.p5_comm),
            (self.p6_pid, self.p6_comm),
        ];
        let mut text = String::new();
        for (pid, comm) in ancestors.iter().take(levels) {
            let Some(pid) = pid else { break };
            let between = if text.is_empty() { "" } else { " < " };
            let _ = write!(text, "{between}{comm}({pid})");
        }
        text
    }
}

/// How a process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Code(i64),
    Signal(i64),
}

impl Ending {
    /// Of a status as wait(2) gives it. Its bit 7 tells of a core dump.
    fn of(status: i64) -> Ending {
        match status & 0x7f {
            0 => Ending::Code(status >> 8 & 0xff),
            signal => Ending::Signal(signal),
        }
    }

    fn code(self) -> Option<i64> {
        if let Ending::Code(code) = self { Some(code) } else { None }
    }

    fn signal(self) -> Option<i64> {
        if let Ending::Signal(signal) = self { Some(signal) } else { None }
    }
}

porthole_guest::register!(Lineage);

#[cfg(test)]
mod tests {
    use super::*;
    use porthole_guest::Step;
    use porthole_guest::testing::{OwnedValue, Run, Sent, declare};

    fn columns(sent: &Sent) -> (&str, &[(String, OwnedValue)]) {
        let Sent::Row { name, columns, .. } = sent else { panic!("{sent:?}") };
        (name, columns)
    }

    fn column<'s>(sent: &'s Sent, name: &str) -> &'s OwnedValue {
        let found = columns(sent).1.iter().find(|(column, _)| column == name);
        &found.unwrap_or_else(|| panic!("no {name} in {sent:?}")).1
    }

    #[test]
    fn arguments_become_conditions() {
        let declaration = declare::<Lineage>(&["--pid", "7", "--comm", "ls"]).expect("the arguments are good");
        let body = &declaration.probes[0].body;
        assert_eq!(body[0], Step::When("args.p.group_leader.comm == \"ls\"".into()));
        assert_eq!(body[1], Step::When("pid == 7 || args.p.real_parent.tgid == 7".into()));
        assert!(declare::<Lineage>(&["--levels", "7"]).is_err());
    }

    #[test]
    fn one_kfunc_is_needed_and_one_is_not() {
        let declaration = declare::<Lineage>(&[]).expect("there is nothing wrong");
        let listed: Vec<_> = declaration.kfuncs.iter().map(|kfunc| (&*kfunc.name, kfunc.required)).collect();
        assert_eq!(listed, [("bpf_task_from_pid", true), ("bpf_task_from_vpid", false)]);
    }

    #[test]
    fn ancestors_stand_in_a_line_up_to_the_first_that_is_not_there() {
        let ancestors = [
            ("p1_pid", 17i32.into()),
            ("p1_comm", "make".into()),
            ("p2_pid", 9i32.into()),
            ("p2_comm", "bash".into()),
            ("p4_pid", 3i32.into()),
        ];
        for (levels, lineage) in
            [("0", ""), ("1", "make(17)"), ("2", "make(17) < bash(9)"), ("6", "make(17) < bash(9)")]
        {
            let mut run = Run::<Lineage>::start(&["--levels", levels]).expect("it starts");
            let sent = run.batch(|batch| batch.event("process", 1, 0, &ancestors)).expect("the batch is good");
            assert_eq!(columns(&sent[0]).0, "exec");
            assert_eq!(column(&sent[0], "lineage"), &OwnedValue::Text(lineage.to_owned()));
            assert_eq!(column(&sent[0], "code"), &OwnedValue::Absent);
        }
    }

    #[test]
    fn an_end_is_a_code_or_a_signal() {
        let mut run = Run::<Lineage>::start(&[]).expect("it starts");
        // As wait(2) has them: exit code 3, SIGKILL, and SIGSEGV with a core dump.
        for (started, (status, code, signal)) in
            (1u64..).zip([(0x300, Some(3), None), (9, None, Some(9)), (0x8b, None, Some(11))])
        {
            let fields = [("ended", true.into()), ("started", started.into()), ("status", i64::from(status).into())];
            let sent = run.batch(|batch| batch.event("process", 1, 0, &fields)).expect("the batch is good");
            let number = |value: Option<i64>| value.map_or(OwnedValue::Absent, OwnedValue::Signed);
            assert_eq!(columns(&sent[0]).0, "exit");
            assert_eq!(column(&sent[0], "code"), &number(code));
            assert_eq!(column(&sent[0], "signal"), &number(signal));
        }
    }

    #[test]
    fn an_end_is_told_once() {
        let mut run = Run::<Lineage>::start(&[]).expect("it starts");
        let mut rows = |pid: u32, started: u64| {
            let fields = [("ended", true.into()), ("pid", pid.into()), ("started", started.into())];
            run.batch(|batch| batch.event("process", 1, 0, &fields)).expect("the batch is good").len()
        };
        assert_eq!([rows(7, 1), rows(7, 1), rows(8, 1), rows(7, 2), rows(7, 1)], [1, 0, 1, 1, 0]);
        for pid in 0..2 * ENDED as u32 {
            assert_eq!(rows(pid, 3), 1);
        }
        assert_eq!(run.stop(), []);
    }
}
