//! Handlers that trap, loop, fail, and take more than they may.

use crate::e2e::guest::{Guest, on_events};
use crate::e2e::host::Run;
use crate::e2e::load::{Trickle, getppid};
use crate::e2e::{Directory, is_root, plugin, says, unique, wasi_plugin};
use crate::{does, fails, hostile, message};

/// Those that run when probes are attached. `declare` runs before, and needs no root.
const ATTACHED: [&str; 4] = ["start", "on-events", "on-tick", "stop"];

#[test]
fn a_trap_when_it_is_instantiated() {
    let directory = Directory::new("start");
    let guest = Guest::new().items("(func $bad unreachable) (start $bad)").build();
    let message = fails(Run::new(&directory.file("bad.wasm", guest)));
    says(&message, &["error: bad: trap in instantiation: ", "unreachable", "in bad"]);
}

#[test]
fn a_trap_in_declare() {
    says(&does("trap", "declare"), &["error: hostile: trap in declare: ", "unreachable"]);
}

#[test]
fn root_a_trap() {
    if !is_root() {
        return;
    }
    for handler in ATTACHED {
        says(&does("trap", handler), &[&format!("error: hostile: trap in {handler}: "), "unreachable"]);
    }
}

#[test]
fn declare_loops_forever() {
    says(&does("loop", "declare"), &["error: hostile: declare was stopped: it ran for longer than 1 s"]);
}

#[test]
fn root_a_loop_without_end() {
    if !is_root() {
        return;
    }
    for handler in ATTACHED {
        says(&does("loop", handler), &[&format!("error: hostile: {handler} was stopped: it ran for longer than 1 s")]);
    }
}

#[test]
fn declare_allocates_without_end() {
    says(&does("allocate", "declare"), &["error: hostile: declare ran out of memory: the plugin may have 65536 KiB"]);
}

#[test]
fn root_allocation_without_end() {
    if !is_root() {
        return;
    }
    for handler in ATTACHED {
        says(&does("allocate", handler), &[&format!("error: hostile: {handler} ran out of memory: "), "65536 KiB"]);
    }
}

#[test]
fn the_memory_limit_can_be_set() {
    let run = hostile(&["--in", "declare", "--do", "allocate"]).option("--memory-limit=4M");
    says(&fails(run), &["ran out of memory", "4096 KiB"]);
}

#[test]
fn declare_floods_the_output() {
    says(
        &does("flood", "declare"),
        &["error: hostile: declare sent more than 8192 KiB of rows and log lines in one call"],
    );
}

#[test]
fn root_output_without_end() {
    if !is_root() {
        return;
    }
    for handler in ATTACHED {
        says(&does("flood", handler), &[&format!("error: hostile: {handler} sent more than 8192 KiB")]);
    }
}

#[test]
fn declare_returns_an_error() {
    says(&does("fail", "declare"), &["error: hostile: declare: as it was told to"]);
}

#[test]
fn root_an_error_returned() {
    if !is_root() {
        return;
    }
    // `stop` cannot return one.
    for handler in ["start", "on-events", "on-tick"] {
        says(&does("fail", handler), &[&format!("error: hostile: {handler}: as it was told to")]);
    }
}

#[test]
fn root_a_plugin_ends_its_run_as_failed() {
    if !is_root() {
        return;
    }
    for handler in ["start", "on-events", "on-tick"] {
        says(&does("give-up", handler), &["error: hostile: as it was told to"]);
    }
}

/// What a program says before it gives up is often the only hint. With WASI it says so on stderr.
#[test]
fn root_last_words_are_told() {
    if !is_root() {
        return;
    }
    for handler in ["declare", "on-tick"] {
        let run = Run::new(&wasi_plugin("hostile")).args("--do panic --text alas --in").arg(handler);
        let ended = run.finish();
        assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
        says(&ended.stderr, &["hostile: warning: alas\n", &format!("error: hostile: trap in {handler}: ")]);
    }
}

/// The account of a run that failed still says where each hit went.
#[test]
fn root_a_failed_run_has_an_account() {
    if !is_root() {
        return;
    }
    let comm = unique();
    let _events = Trickle::start(&comm);
    let ended = hostile(&["--in", "on-events", "--do", "trap", "--comm", &comm]).finish();
    message(&ended);
    let counts = ended.counts("hostile", "call");
    assert!(counts.hits >= 1 && counts.emitted >= 1, "{counts:?}");
    assert_eq!(counts.delivered, 0, "the handler did not return");
}

/// A plugin that fails takes no other one with it.
#[test]
fn root_others_go_on() {
    if !is_root() {
        return;
    }
    let (directory, comm) = (Directory::new("others"), unique());
    let trapping = directory.file("trapping.wasm", on_events("unreachable"));
    let mut host = Run::new(&plugin("calls")).plugin(&trapping).args("--rows --comm").arg(&comm).attach();
    getppid(&comm, 1);
    host.wait_for("error: trapping: ");
    getppid(&comm, 99);
    let ended = host.interrupt();
    says(&message(&ended), &["trap in on-events", "calls"]);
    assert_eq!(ended.rows().len(), 100 + 1, "a row for each call, and the total");
}
