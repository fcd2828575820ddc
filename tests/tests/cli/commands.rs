//! What is asked for, and what is shown.

use std::path::Path;
use std::process::{Command, Output};

use porthole::kernel::KernelFacts;

use crate::e2e::{Directory, is_root, kernel, plugin, porthole, porthole_of_nobody, porthole_without, says};
use crate::{output, text};

fn porthole_with(arguments: &[&str]) -> Output {
    let mut command = porthole();
    command.args(arguments);
    output(command)
}

/// `check` of this plugin by the host that the command runs.
fn check(mut host: Command, plugin: &Path, arguments: &[&str]) -> Output {
    host.arg("check").arg(plugin).arg("--").args(arguments);
    output(host)
}

/// What it printed, if all went well.
#[track_caller]
fn successful(output: &Output) -> &str {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn root_check_shows_types_records_and_programs() {
    if !is_root() {
        return;
    }
    let output = kernel::leaving_nothing(|| check(porthole(), &plugin("opens"), &["--pid", "1"]));
    let shown = successful(&output);
    says(
        shown,
        &[
            "probe enter\n",
            "  at tracepoint:syscalls:sys_enter_openat2\n",
            "    when pid == 1\n",
            "    bind args.filename : user pointer to char\n",
            "    emit enter\n",
            "      tid = tid : u32\n",
            "      path = str(file) : text of at most ",
        ],
    );
    says(shown, &["probe exit\n", "      result = args.ret : s64\n"]);
    says(
        shown,
        &[
            "record enter (enter), schema 0, 40 bytes and its texts\n",
            "     24  tid: unsigned 32 bits\n",
            "path: text\n",
        ],
    );
    says(
        shown,
        &[
            "program enter_0 in tracepoint/syscalls/sys_enter_openat:\n",
            "   0: r6 = r1\n",
            "; opens:enter:1 pid == 1\n",
            "call bpf_get_current_pid_tgid#14\n",
            "call bpf_probe_read_user_str#114\n",
            "exit\n",
        ],
    );
    let again = check(porthole(), &plugin("opens"), &["--pid", "1"]);
    assert_eq!(successful(&again), shown, "the same every time");
}

/// Without the capabilities to load anything it says the same, so it loads nothing.
#[test]
fn root_check_loads_nothing() {
    if !is_root() {
        return;
    }
    let full = check(porthole(), &plugin("execs"), &[]);
    let without = check(porthole_without(&["bpf", "perfmon", "sys_admin"]), &plugin("execs"), &[]);
    assert_eq!(successful(&without), successful(&full));
}

/// What BTF tells is everybody's to read, so a plugin of raw tracepoints can be checked without root. (Tracepoints'
/// formats are root's.)
#[test]
fn check_needs_no_root_where_the_facts_can_be_read() {
    let directory = Directory::new("nobody");
    let output = match is_root() {
        true => check(porthole_of_nobody(&directory, &[]), &directory.copy(&plugin("execs")), &[]),
        false => check(porthole(), &plugin("execs"), &[]),
    };
    says(
        successful(&output),
        &["probe exec\n", "  at rawtracepoint:sched_process_exec\n", "record exec (exec), schema 0"],
    );
}

#[test]
fn root_check_tells_faults_as_run_does() {
    if !is_root() {
        return;
    }
    let output = check(porthole(), &plugin("hostile"), &["--value", "pidd"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    says(text(&output.stderr), &["error: hostile: ", "probe `call`, field `value`: ", "^^^^", "did you mean `pid`"]);
    let output = check(porthole(), Path::new("/nowhere/x.wasm"), &[]);
    assert_eq!(output.status.code(), Some(1));
    says(text(&output.stderr), &["error: x: /nowhere/x.wasm: cannot be read: No such file"]);
}

/// Each line of `doctor` is a question and one of three answers, or the advice to the line before.
#[track_caller]
fn is_answered(shown: &str) {
    for line in shown.lines().filter(|line| !line.trim_start().starts_with("-> ")) {
        let answered = line.ends_with("  yes") || line.contains("  no: ") || line.contains("  could not tell: ");
        assert!(answered, "no answer in `{line}`");
    }
}

#[test]
fn root_doctor_answers_each_question() {
    if !is_root() {
        return;
    }
    let output = kernel::leaving_nothing(|| porthole_with(&["doctor"]));
    let shown = successful(&output);
    is_answered(shown);
    let answer = |question: &str| shown.lines().find(|line| line.starts_with(question)).expect(question);
    // What the other tests here need, so it must be there.
    for question in ["CAP_BPF ", "kernel types (BTF) ", "tracefs ", "BPF ring buffer ", "attaching to tracepoints "] {
        assert!(answer(question).ends_with("  yes"), "{shown}");
    }
}

#[test]
fn doctor_without_privileges_says_what_to_do() {
    let output = match is_root() {
        true => {
            let mut doctor = porthole_without(&["bpf", "perfmon", "sys_admin"]);
            doctor.arg("doctor");
            output(doctor)
        }
        false => porthole_with(&["doctor"]),
    };
    let shown = successful(&output);
    is_answered(shown);
    says(shown, &["CAP_BPF ", "  no: ", "\n", "  -> run as root, or with CAP_BPF\n"]);
}

#[test]
fn wrong_usage_exits_with_2() {
    let wrong: [&[&str]; 16] = [
        &[],
        &["trace"],
        &["run"],
        &["run", "--what", "x.wasm"],
        &["run", "--format=xml", "x.wasm"],
        &["run", "--duration=soon", "x.wasm"],
        &["run", "--duration=0", "x.wasm"],
        &["run", "--ring-size=3", "x.wasm"],
        &["run", "--memory-limit=1", "x.wasm"],
        &["run", "--cache-dir=/tmp", "--no-cache", "x.wasm"],
        &["run", "--format=json", "--format=text", "x.wasm"],
        &["check"],
        &["check", "x.wasm", "y.wasm"],
        &["list", "--format=json"],
        &["list", "x", "y"],
        &["doctor", "x.wasm"],
    ];
    for arguments in wrong {
        let output = porthole_with(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        says(text(&output.stderr), &["--help"]);
    }
}

#[test]
fn help_tells_commands_and_options() {
    says(successful(&porthole_with(&["--help"])), &["run ", "check ", "list ", "doctor "]);
    let options = [
        "<PLUGIN.wasm>",
        "--format",
        "--duration",
        "--report",
        "--ring-size",
        "--memory-limit",
        "--cache-dir",
        "--no-cache",
    ];
    says(successful(&porthole_with(&["run", "--help"])), &options);
    says(successful(&porthole_with(&["check", "--help"])), &["<PLUGIN.wasm>", "--cache-dir"]);
    says(successful(&porthole_with(&["--version"])), &["porthole "]);
}

const SIGNAL: &str = "bpf_send_signal_task";
const SENDS: &str = "bpf_send_signal_task(task, 0, PIDTYPE_PID, 0) == 0 && bpf_send_signal_task(task.real_parent, 0, PIDTYPE_PID, 0) == 0";

#[test]
fn root_effects_are_refused_unless_the_run_allows_them() {
    if !is_root() {
        return;
    }
    if KernelFacts::running().kfunc(SIGNAL).unwrap().is_none() {
        println!("skipped: this kernel does not have {SIGNAL}");
        return;
    }
    let arguments = ["--kfunc", SIGNAL, "--when", SENDS];
    for command in ["check", "run"] {
        let refused = kernel::leaving_nothing(|| {
            let mut host = porthole();
            host.arg(command).arg(plugin("calls")).arg("--").args(arguments);
            output(host)
        });
        assert!(!refused.status.success());
        let told = "kfunc `bpf_send_signal_task`: it sends a signal to a process or thread, which may end it, and this run allows no effects";
        says(text(&refused.stderr), &[told, "--allow-effects"]);
    }
    let mut allowed = porthole();
    allowed.args(["check", "--allow-effects"]).arg(plugin("calls")).arg("--").args(arguments);
    let allowed = output(allowed);
    says(
        successful(&allowed),
        &["kfunc bpf_send_signal_task; it sends a signal to a process or thread, which may end it\n"],
    );
    // To hold what the second call is passed.
    says(successful(&allowed), &["called by the host itself: bpf_task_acquire, bpf_task_release\n"]);
}

#[test]
fn root_check_says_what_this_kernel_lacks() {
    if !is_root() {
        return;
    }
    let arguments = ["--kfunc", "bpf_no_such_kfunc", "--when", "bpf_no_such_kfunc(1) == 2"];
    let required = check(porthole(), &plugin("calls"), &arguments);
    says(text(&required.stderr), &["kfunc `bpf_no_such_kfunc`: this kernel has no such kfunc\n"]);
    let optional = check(porthole(), &plugin("calls"), &[&["--optional"], &arguments[..]].concat());
    says(
        successful(&optional),
        &["kfunc bpf_no_such_kfunc, which this kernel does not have: what calls it is absent\n"],
    );
}
