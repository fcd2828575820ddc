//! `porthole list`.

use std::io::{BufRead, BufReader, pipe};
use std::process::{Child, Output, Stdio};

use porthole::kernel::{Answer, Feature, KernelFacts};
use serde_json::Value;

use super::{output, text};
use crate::e2e::{Directory, is_root, kernel, porthole, porthole_of_nobody, says};

fn list(arguments: &[&str]) -> Output {
    let mut command = porthole();
    command.arg("list").args(arguments);
    output(command)
}

#[track_caller]
fn lines(output: &Output) -> Vec<&str> {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).lines().collect()
}

#[test]
fn root_everything_is_listed_and_nothing_left_behind() {
    if !is_root() {
        return;
    }
    let output = kernel::leaving_nothing(|| list(&[]));
    let lines = lines(&output);
    assert!(lines.is_sorted() && lines.len() > 1000, "{}", lines.len());
    for point in ["iter:task", "profile:hz:99", "rawtracepoint:sched_switch", "tracepoint:syscalls:sys_enter_openat"] {
        assert!(lines.binary_search(&point).is_ok(), "{point}");
    }
    // Each kind that is missing is told once.
    let stderr = text(&output.stderr);
    for (kind, feature) in [("func:", "kprobe"), ("lsm:", "lsm"), ("hardware:", "hardware")] {
        let said = stderr.matches(&format!("this kernel does not offer {feature}: ")).count();
        assert_eq!(said == 0, lines.iter().any(|line| line.starts_with(kind)), "{kind}: {stderr}");
        assert!(said <= 1, "{stderr}");
    }
}

#[test]
fn root_arguments_are_listed_below_their_attach_point() {
    if !is_root() {
        return;
    }
    let output = list(&["-v", "t:syscalls:sys_enter_openat"]);
    assert_eq!(
        lines(&output),
        [
            "tracepoint:syscalls:sys_enter_openat",
            "    args.__syscall_nr : int",
            "    args.dfd : int",
            "    args.filename : const char __user *",
            "    args.flags : int",
            "    args.mode : umode_t",
        ]
    );
    assert!(output.stderr.is_empty());
}

#[test]
fn json_is_an_object_on_each_line() {
    let output = list(&["--json", "-v", "rt:sched_s*"]);
    let mut named = Vec::new();
    for line in lines(&output) {
        let object: Value = serde_json::from_str(line).unwrap();
        assert_eq!(object["kind"], "rawtracepoint");
        named.push(object["attach"].as_str().unwrap().to_owned());
        if object["attach"] == "rawtracepoint:sched_switch" {
            assert_eq!(object["args"][0], serde_json::json!({"expression": "args.preempt", "type": "bool"}));
        }
    }
    assert!(named.contains(&"rawtracepoint:sched_switch".to_owned()) && named.is_sorted(), "{named:?}");
    let short: Value = serde_json::from_str(lines(&list(&["--json", "rawtracepoint:sched_switch"]))[0]).unwrap();
    assert_eq!(short, serde_json::json!({"attach": "rawtracepoint:sched_switch", "kind": "rawtracepoint"}));
}

/// This machine's own programs.
#[test]
fn programs_and_libraries_are_listed_by_name() {
    let output = list(&["uprobe:libc:getpid"]);
    assert_eq!(lines(&output), ["uprobe:libc:getpid"]);
    let mut told = vec!["uretprobe:libc:getpid", "    retval : u64"];
    if KernelFacts::running().offers(Feature::UprobeSession) == Answer::Yes {
        told.push("    duration : u64");
    }
    assert_eq!(lines(&list(&["-v", "ur:libc:getpid"])), told);
}

/// What BTF tells is everybody's to read; the rest is said to be missing.
#[test]
fn without_root_it_lists_what_it_can_and_says_what_is_missing() {
    let directory = Directory::new("list");
    let output = match is_root() {
        true => {
            let mut command = porthole_of_nobody(&directory, &[]);
            command.arg("list");
            output(command)
        }
        false => list(&[]),
    };
    let lines = lines(&output);
    assert!(lines.contains(&"rawtracepoint:sched_switch") && lines.len() > 10_000, "{}", lines.len());
    assert!(lines.contains(&"func:vfs_read"), "whether it is offered cannot be told, so it is listed");
    says(text(&output.stderr), &["could not be told whether this kernel offers "]);
    says(text(&output.stderr), &["note: tracepoint attach points are missing: "]);
}

#[test]
fn what_matches_nothing_is_an_error() {
    for (pattern, message) in [
        ("rawtracepoint:no_such_*", "error: no attach point matches `rawtracepoint:no_such_*`\n"),
        ("kprob:x", "error: `kprob:x`: there is no kind of attach point named `kprob`; help: did you mean `kprobe`?\n"),
        ("uprobe:no_such:*", "error: `uprobe:no_such:*`: there is no program and no library `no_such`\n"),
    ] {
        let output = list(&[pattern]);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), ""), "{pattern}");
        says(text(&output.stderr), &[message]);
    }
}

/// `porthole list | head -1`
#[test]
fn a_reader_that_goes_away_is_no_error() {
    let (reader, writer) = pipe().expect("a pipe can be made");
    let mut command = porthole();
    command.args(["list", "rawtracepoint"]).stdout(writer).stderr(Stdio::piped());
    let child = command.spawn().expect("the host can be started");
    drop(command);
    let mut line = String::new();
    BufReader::with_capacity(64, reader).read_line(&mut line).expect("a pipe can be read");
    assert!(line.starts_with("rawtracepoint:"));
    let ended = Child::wait_with_output(child).unwrap();
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
}
