//! What a plugin or its user may do wrong. Each ends with exit code 1 and a message that names the plugin and the
//! place, and leaves nothing in the kernel.

mod e2e;

#[path = "bad_input/declarations.rs"]
mod declarations;
#[path = "bad_input/escapes.rs"]
mod escapes;
#[path = "bad_input/files.rs"]
mod files;
#[path = "bad_input/handlers.rs"]
mod handlers;
#[path = "bad_input/surroundings.rs"]
mod surroundings;

use e2e::host::{Ended, Run};
use e2e::load::Trickle;
use e2e::{is_root, kernel, plugin, unique};

/// Runs it to its end, which must be a failure that leaves nothing; gives what it said.
fn fails(run: Run) -> String {
    let ended = if is_root() { kernel::leaving_nothing(|| run.finish()) } else { run.finish() };
    message(&ended)
}

/// What a run that has failed said.
fn message(ended: &Ended) -> String {
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    ended.stderr.clone()
}

/// Runs `hostile` with these arguments.
fn hostile(arguments: &[&str]) -> Run {
    arguments.iter().fold(Run::new(&plugin("hostile")), |run, argument| run.arg(argument))
}

/// Runs `hostile` so that it does its deed in this handler, with events for it to see.
fn does(deed: &str, handler: &str) -> String {
    let comm = unique();
    let _events = Trickle::start(&comm);
    let run = hostile(&["--do", deed, "--in", handler, "--comm", &comm]);
    fails(if handler == "stop" { run.option("--duration=0.1") } else { run })
}
