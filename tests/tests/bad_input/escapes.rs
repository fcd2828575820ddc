//! A plugin's texts never reach the terminal as they are: an escape sequence could hide what the host says, and a line
//! break could forge it.

use crate::e2e::host::{Ended, Run};
use crate::e2e::load::getppid;
use crate::e2e::{Directory, is_root, plugin, porthole, says, unique, wasi_plugin};
use crate::{fails, hostile};

/// Clears the screen, goes to the start of the line, begins another, and turns what follows around.
const EVIL: &str = "x\u{1b}[2J\r\nerror: forged\u{202e}";

/// Nothing that a terminal obeys, and no line that the plugin has made up.
#[track_caller]
fn tame(text: &str) {
    let obeyed = text.chars().find(|&c| (c.is_control() && c != '\n') || c == '\u{202e}');
    assert_eq!(obeyed, None, "{text:?}");
    assert!(!text.lines().any(|line| line.starts_with("error: forged")), "{text}");
}

/// What it said and printed, which must be tame.
#[track_caller]
fn tamed(ended: &Ended) -> String {
    let all = [&ended.stderr, std::str::from_utf8(&ended.stdout).expect("it is UTF-8")].concat();
    tame(&all);
    all
}

#[test]
fn errors_returned() {
    let message = fails(hostile(&["--in", "declare", "--do", "fail", "--text", EVIL]));
    tame(&message);
    says(&message, &["error: hostile: declare: x\\u{1b}[2J", "forged"]);
}

#[test]
fn root_errors_at_the_end() {
    if !is_root() {
        return;
    }
    for (deed, begin) in
        [("fail", "start: x\\u{1b}[2J"), ("give-up", "x\\u{1b}[2J"), ("name", "trap in start: row: `x\\u{1b}[2J")]
    {
        let message = fails(hostile(&["--in", "start", "--do", deed, "--text", EVIL]));
        tame(&message);
        says(&message, &[&format!("error: hostile: {begin}"), "forged"]);
    }
}

#[test]
fn root_log_lines() {
    if !is_root() {
        return;
    }
    let run = hostile(&["--in", "start", "--do", "log", "--text", EVIL]).option("--duration=0.1");
    says(&tamed(&run.finish().successful()), &["hostile: warning: x\\u{1b}[2J\\r\\nerror: forged"]);
}

/// Its lines break where it says so, and each stands behind the plugin's name.
#[test]
fn root_standard_error() {
    if !is_root() {
        return;
    }
    let run = Run::new(&wasi_plugin("hostile")).args("--in start --do panic --text").arg(EVIL);
    says(&tamed(&run.finish()), &["hostile: warning: x\\u{1b}[2J\\r\n", "hostile: warning: error: forged"]);
}

#[test]
fn root_rows() {
    if !is_root() {
        return;
    }
    let run = || hostile(&["--in", "start", "--do", "row", "--text", EVIL]).option("--duration=0.1");
    // The column's name, and the value.
    says(&tamed(&run().text().finish().successful()), &["X\\U{1B}[2J", "x\\u{1b}[2J"]);
    // Where there are several, a row names its plugin.
    let several = tamed(&run().plugin(&plugin("hostile")).text().finish().successful());
    says(&several, &["hostile said x\\u{1b}[2J", "=x\\u{1b}[2J"]);
    // JSON has escapes of its own, with which nothing is lost.
    let ended = run().finish().successful();
    assert!(!ended.stdout.contains(&0x1b) && !ended.stdout.contains(&b'\r'), "{:?}", ended.stdout);
    assert_eq!(ended.rows()[0]["fields"][EVIL], EVIL);
}

/// The name of a plugin is that of its file, which anybody may have named.
#[test]
fn root_names_of_files() {
    if !is_root() {
        return;
    }
    let (directory, comm) = (Directory::new("escape"), unique());
    let evil = directory.file(&format!("{EVIL}.wasm"), std::fs::read(plugin("hostile")).expect("it is built"));
    let run = |arguments: &str| Run::new(&evil).args(arguments).arg("--comm").arg(&comm).text();
    says(&tamed(&run("--in declare --do fail").finish()), &["error: x\\u{1b}[2J"]);
    says(&tamed(&run("--in start --do log").option("--duration=0.1").finish()), &["\nx\\u{1b}[2J\\r\\nerror: forged"]);
    let host = run("").plugin(&plugin("calls")).attach();
    getppid(&comm, 1);
    let ended = host.interrupt().successful();
    // The row, and the account.
    says(&tamed(&ended), &["x\\u{1b}[2J", "x\\u{1b}[2J"]);
    let damaged = directory.file(&format!("{EVIL}.wasm"), "text");
    says(&tamed(&Run::new(&damaged).finish()), &["error: x", "is not a WebAssembly component"]);
}

#[test]
fn root_expressions() {
    if !is_root() {
        return;
    }
    let condition = format!("comm == \"{}\"\n&& pid == 1", "\u{1b}[2J\u{202e}");
    let check = |arguments: &[&str]| {
        let mut command = porthole();
        command.arg("check").arg(plugin("hostile")).arg("--").args(arguments);
        command.output().expect("the host can be started")
    };
    let good = check(&["--when", &condition]);
    assert!(good.status.success(), "{good:?}");
    let shown = String::from_utf8(good.stdout).expect("it is UTF-8");
    tame(&shown);
    // Among the steps, and as the reason of instructions.
    says(&shown, &["when comm == \"\\u{1b}[2J", "; hostile:call:1 comm == \"\\u{1b}[2J"]);
    assert!(!shown.lines().any(|line| line.starts_with("&&")), "{shown}");

    let bad = check(&["--when", &condition.replace("pid", "pidd"), "--name", EVIL, "--attach", EVIL]);
    assert_eq!(bad.status.code(), Some(1));
    let message = String::from_utf8(bad.stderr).expect("it is UTF-8");
    tame(&message);
    says(&message, &["error: hostile: "]);
}

/// A warning of the host's about a path of the user's.
#[test]
fn root_paths_in_warnings() {
    if !is_root() {
        return;
    }
    let directory = Directory::new("warning");
    let file = directory.file(EVIL, "in the way");
    let run = hostile(&[]).option("--duration=0.1").option("--cache-dir").option(file.as_os_str());
    let ended = run.finish().successful();
    says(&tamed(&ended), &["compile cache"]);
}
