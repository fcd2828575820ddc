//! The command line: `check`, `list`, `kfuncs` and `doctor`, formats, exit codes, and where output goes.

mod e2e;

#[path = "cli/commands.rs"]
mod commands;
#[path = "cli/endings.rs"]
mod endings;
#[path = "cli/formats.rs"]
mod formats;
#[path = "cli/kfuncs.rs"]
mod kfuncs;
#[path = "cli/list.rs"]
mod list;

use std::process::{Command, Output, Stdio};

/// Runs it to its end.
fn output(mut command: Command) -> Output {
    command.stdin(Stdio::null()).output().expect("the host can be started")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("it is UTF-8")
}
