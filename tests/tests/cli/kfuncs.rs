//! `porthole kfuncs`.

use std::fs;
use std::path::Path;
use std::process::Output;

use porthole::kernel::KernelFacts;
use serde_json::Value;

use super::{output, text};
use crate::e2e::{Directory, is_root, kernel, porthole, porthole_of_nobody, says};

/// Keeps what it has tried in that directory.
fn kfuncs(directory: &Directory, arguments: &[&str]) -> Output {
    let mut command = porthole();
    command.env("XDG_CACHE_HOME", directory.path().join("cache")).arg("kfuncs").args(arguments);
    output(command)
}

#[track_caller]
fn lines(output: &Output) -> Vec<&str> {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).lines().collect()
}

fn objects(output: &Output) -> Vec<Value> {
    lines(output).into_iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Kernels before 6.2 have no task to ask for.
fn has_tasks(directory: &Directory) -> bool {
    let there = kfuncs(directory, &["bpf_task_from_pid"]).status.success();
    if !there {
        eprintln!("skipped: this kernel has no bpf_task_from_pid");
    }
    there
}

/// As the documentation shows it; LSM programs may call it, too, where there are any, and later kernels trust every
/// argument.
#[test]
fn root_a_kfunc_is_printed_as_documented() {
    let directory = Directory::new("kfuncs-documented");
    if !is_root() || !has_tasks(&directory) {
        return;
    }
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/kfuncs.md")).unwrap();
    let (_, shown) = page.split_once("$ sudo porthole kfuncs task_from_pid\n").unwrap();
    let (shown, _) = shown.split_once("```").unwrap();
    let output = kfuncs(&directory, &["task_from_pid"]);
    let printed = lines(&output).join("\n").replace("; iter; lsm", "; iter").replace(", trusted_args", "");
    assert!(output.stderr.is_empty() && (printed + "\n").starts_with(shown), "{}", text(&output.stdout));
}

#[test]
fn root_all_are_listed_and_nothing_left_behind() {
    if !is_root() {
        return;
    }
    let directory = Directory::new("kfuncs-all");
    let first = kernel::leaving_nothing(|| kfuncs(&directory, &["--json"]));
    let objects = objects(&first);
    let own: Vec<_> = objects.iter().filter(|object| object["module"].is_null()).collect();
    assert!(own.len() >= 14, "{}", own.len());
    for object in own {
        let name = object["name"].as_str().unwrap();
        assert!(object["prototype"].as_str().unwrap().contains(&format!("{name}(")), "{object}");
        assert_eq!(object["from"].as_array().unwrap().len(), 10, "{object}");
        assert_eq!(
            object["why"].is_null(),
            matches!(object["callable"].as_str().unwrap(), "yes" | "claimed"),
            "{object}"
        );
    }
    // What was tried is kept, and tells the same.
    let kept = fs::read_dir(directory.path().join("cache/porthole")).unwrap().count();
    assert_eq!(kept, 1);
    assert_eq!(text(&kfuncs(&directory, &["--json"]).stdout), text(&first.stdout));
}

#[test]
fn root_what_may_not_call_is_told_with_the_reason() {
    let directory = Directory::new("kfuncs-why");
    if !is_root() || !has_tasks(&directory) {
        return;
    }
    let output = kfuncs(&directory, &["-v", "bpf_copy_from_user_str"]);
    if KernelFacts::running().kfunc("bpf_copy_from_user_str").unwrap().is_some() {
        assert!(output.status.success(), "{}", text(&output.stderr));
        says(text(&output.stdout), &["from: ", "sleepable ", "it may sleep, and these programs must not"]);
    } else {
        println!("skipped: this kernel does not have bpf_copy_from_user_str");
    }
    let release = kfuncs(&directory, &["bpf_task_release"]);
    says(text(&release.stdout), &["plugins: need not call it: the host releases what a call has acquired"]);
    let iterator = objects(&kfuncs(&directory, &["--json", "bpf_iter_css_task_new"])).remove(0);
    let may = |kind: &str| {
        let from = iterator["from"].as_array().unwrap();
        let found = from.iter().find(|from| from["kinds"][0] == kind && from["sleepable"] == false);
        found.unwrap()["may"].as_str().unwrap().to_owned()
    };
    assert_eq!((may("iter").as_str(), may("tracepoint").as_str()), ("yes", "no"), "{iterator}");
}

#[test]
fn without_root_prototypes_and_flags_are_told() {
    let directory = Directory::new("kfuncs-nobody");
    let output = if is_root() {
        let mut command = porthole_of_nobody(&directory, &[]);
        command.args(["kfuncs", "rstat_updated"]);
        output(command)
    } else {
        kfuncs(&directory, &["rstat_updated"])
    };
    says(text(&output.stdout), &["rstat_updated(struct cgroup", "flags: "]);
    says(text(&output.stdout), &["from: could not tell: it cannot be tried without CAP_BPF and CAP_PERFMON"]);
    says(text(&output.stderr), &["note: which probes may call them could not be told"]);
}

#[test]
fn what_matches_nothing_is_an_error() {
    let directory = Directory::new("kfuncs-none");
    for (pattern, message) in [
        ("no_such", "error: no kfunc of this kernel matches `no_such`\n"),
        ("bpf_[a", "error: `bpf_[a`: `[` begins a set of characters, and no `]` ends it\n"),
    ] {
        let output = kfuncs(&directory, &[pattern]);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), ""), "{pattern}");
        assert_eq!(text(&output.stderr), message);
    }
}
