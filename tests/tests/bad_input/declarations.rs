//! Declarations that are refused before anything is loaded. Most need the facts of the kernel, which are root's to
//! read.

use crate::e2e::{is_root, says};
use crate::{fails, hostile};

#[test]
fn root_an_unknown_tracepoint() {
    if !is_root() {
        return;
    }
    let refused = |point: &str| fails(hostile(&["--attach", point]));
    let message = refused("tracepoint:syscalls:sys_enter_getppidd");
    says(&message, &["error: hostile: ", "probe `call`, attach: ", "^", "did you mean `sys_enter_getppid`"]);
    let message = refused("tracepoint:syscall:sys_enter_getppid");
    says(&message, &["probe `call`, attach: ", "`syscall`", "^^^^^^^\n", "did you mean `syscalls`"]);
    let message = refused("rawtracepoint:sched_swich");
    says(&message, &["probe `call`, attach: ", "^^^^^^^^^^^\n", "did you mean `sched_switch`"]);
}

#[test]
fn root_a_kind_of_attach_point_that_is_not_there_yet() {
    if !is_root() {
        return;
    }
    let refused = |point: &str| fails(hostile(&["--attach", point]));
    says(&refused("interval:s:1"), &["probe `call`, attach: ", "`interval` are not there yet", "^^^^^^^^\n"]);
    says(
        &refused("fentri:vfs_read"),
        &["probe `call`, attach: ", "no kind of attach point named `fentri`", "^^^^^^\n"],
    );
    says(&refused("tracepoint:../..:x"), &["probe `call`, attach: ", "`../..` can be no name of a tracepoint"]);
    says(&refused(""), &["probe `call`, attach: "]);
}

#[test]
fn root_an_unknown_field() {
    if !is_root() {
        return;
    }
    let refused = |point: &str, value: &str| fails(hostile(&["--attach", point, "--value", value]));
    let message = refused("tracepoint:syscalls:sys_enter_openat", "str(args.filenme)");
    let place = "probe `call`, field `value`: ";
    says(&message, &["error: hostile: ", place, "filenme", "  |          ^^^^^^^\n", "did you mean `filename`"]);
    let message = refused("rawtracepoint:sched_process_exec", "task.real_parnt.tgid");
    says(&message, &[place, "real_parnt", "  |      ^^^^^^^^^^\n", "did you mean `real_parent`"]);
}

#[test]
fn root_an_unknown_identifier() {
    if !is_root() {
        return;
    }
    let message = fails(hostile(&["--value", "pidd + 1"]));
    says(
        &message,
        &["error: hostile: ", "probe `call`, field `value`: ", "  | pidd + 1\n  | ^^^^\n", "did you mean `pid`"],
    );
}

#[test]
fn root_an_unknown_operator() {
    if !is_root() {
        return;
    }
    let refused = |condition: &str| fails(hostile(&["--when", condition]));
    let message = refused("pid and 3");
    says(&message, &["error: hostile: ", "probe `call`, step 1 (when): ", "  | pid and 3\n  |     ^^^\n", "`&&`"]);
    says(&refused("pid === 3"), &["probe `call`, step 1 (when): ", "  | pid === 3\n", "^"]);
    says(&refused("pid ** 2"), &["probe `call`, step 1 (when): ", "  | pid ** 2\n", "^"]);
    says(&refused("pid @ 2"), &["probe `call`, step 1 (when): ", "  | pid @ 2\n  |     ^\n"]);
}

#[test]
fn root_all_faults_are_reported_together() {
    if !is_root() {
        return;
    }
    let message = fails(hostile(&["--when", "nothing == 1", "--value", "pid +"]));
    says(&message, &["error: hostile: its declaration has 2 faults:\n", "when", "nothing", "^^^^^^^\n"]);
    says(&message, &["field `value`: ", "  | pid +\n  |      ^\n"]);
}

#[test]
fn no_probes() {
    says(&fails(hostile(&["--probes", "0"])), &["error: hostile: ", "the declaration: it has no probe"]);
}

#[test]
fn ten_thousand_probes() {
    let message = fails(hostile(&["--probes", "10000"]));
    says(&message, &["error: hostile: ", "the declaration: it has 10000 probes, and 256 is the most"]);
}

#[test]
fn root_an_expression_of_a_megabyte() {
    if !is_root() {
        return;
    }
    let message = fails(hostile(&["--value-bytes", "1000000"]));
    says(&message, &["error: hostile: ", "probe `call`, field `value`: ", "1000001 bytes, and 4096 is the most"]);
    assert!(message.len() < 4096, "a message of {} bytes", message.len());
}

#[test]
fn root_parentheses_ten_thousand_deep() {
    if !is_root() {
        return;
    }
    let message = fails(hostile(&["--value-depth", "10000"]));
    says(&message, &["error: hostile: ", "probe `call`, field `value`: "]);
    assert!(message.len() < 4096, "a message of {} bytes", message.len());
    // Within the bound on length, beyond the one on depth.
    let message = fails(hostile(&["--value-depth", "1000"]));
    says(&message, &["probe `call`, field `value`: ", "deeper than 64 levels"]);
}

#[test]
fn root_duplicate_names() {
    if !is_root() {
        return;
    }
    let refused = |what: &str| fails(hostile(&["--twice", what]));
    says(&refused("probe"), &["error: hostile: ", "two probes are named `call`"]);
    says(&refused("field"), &["probe `call`, event `call`: two fields are named `pid`"]);
    says(&refused("bind"), &["probe `call`, ", "`mine`", "bound"]);
}

#[test]
fn root_a_name_that_is_none() {
    if !is_root() {
        return;
    }
    says(&fails(hostile(&["--name", "a-b"])), &["error: hostile: ", "a probe named `a-b`: ", "no identifier"]);
}
