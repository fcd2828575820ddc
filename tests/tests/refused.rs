//! What becomes of a program that the verifier refuses. There should be none, so one is broken on purpose.

mod e2e;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use porthole::bpf::{RawInsn, ReasonId};
use porthole::compile::{Compiled, compile};
use porthole::kernel::KernelFacts;
use porthole::load::{LoadError, Refusal, load};
use porthole::objfile;
use porthole::plan::plan;
use porthole_tests::declaration;

use e2e::{Directory, is_root, says};

const DECLARATION: &str = "\
probe sound
attach rawtracepoint:sched_switch
emit e
  pid = pid
probe broken
attach rawtracepoint:sched_wakeup
attach rawtracepoint:sched_wakeup_new
when uid == 12345
emit e
  tid = tid
  comm = comm
";

/// A program whose instructions for `text` read memory that no program may read.
fn broken(text: &str) -> Compiled {
    let declaration = declaration::parse(DECLARATION).unwrap();
    let plan = plan(&declaration, &KernelFacts::running()).unwrap_or_else(|e| panic!("{e}"));
    let mut compiled = compile(&plan, "plugin", 1 << 16).unwrap();
    let object = &mut compiled.object;
    // In the last of the programs.
    let code = &mut object.functions.last_mut().unwrap().code;
    let of_text = |id: ReasonId| object.reasons[id.0 as usize].text == text;
    let (slot, _) = code.lines.iter().find(|(_, id)| of_text(*id)).unwrap_or_else(|| panic!("no {text}"));
    let first = *slot as usize;
    // `r0 = *(u64 *)(r10 + 8)`: above the stack.
    code.insns[first] = RawInsn { opcode: 0x79, dst: 0, src: 10, off: 8, imm: 0 };
    compiled.bytes = objfile::write(object).unwrap();
    compiled
}

fn refusal(text: &str) -> Refusal {
    match load(&broken(text)) {
        Err(LoadError::Refused(refusal)) => *refusal,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it is loaded"),
    }
}

#[test]
fn root_a_refusal_names_the_expression_and_is_saved() {
    if !is_root() {
        return;
    }
    for text in ["uid == 12345", "tid", "comm"] {
        let refusal = refusal(text);
        assert_eq!(refusal.expression(), Some(text));
        let message = refusal.to_string();
        says(
            &message,
            &[&format!("the kernel's verifier refused what `{text}` became, at rawtracepoint:sched_wakeup_new\n")],
        );
        says(&message, &["invalid", "processed "]);

        let directory = Directory::new("refused");
        let places = vec![directory.path().join("state/porthole")];
        let declaration = declaration::parse(DECLARATION).unwrap();
        let path = refusal.save(&declaration, &places).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::metadata(&places[0]).unwrap().mode() & 0o7777, 0o700);
        let report = fs::read_to_string(&path).unwrap();
        says(
            &report,
            &["bug of Porthole", "addresses", "porthole  0.", "kernel    Linux version ", "program   broken_1 at "],
        );
        says(&report, &[&format!("refused   `{text}` (plugin:broken:"), "instruction "]);
        says(
            &report,
            &["==== declaration\n{", "\"name\": \"sound\"", "rawtracepoint:sched_wakeup_new", "uid == 12345"],
        );
        says(
            &report,
            &["==== program\nprogram broken_1 in tp_btf/sched_wakeup_new:\n", "exit\n", "==== log\n", "processed "],
        );
        assert!(!report.contains("program sound_0 in"), "the others were not refused");

        // Once more: there is one already, which stays as it is.
        fs::write(&path, "kept").unwrap();
        assert_eq!(refusal.save(&declaration, &places).unwrap(), path);
        assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
    }
}

/// Whatever stands in the way, nothing is overwritten, no link is followed, and the run only says that there is no
/// file.
#[test]
fn root_a_report_that_cannot_be_saved() {
    if !is_root() {
        return;
    }
    let refusal = refusal("tid");
    let declaration = declaration::parse(DECLARATION).unwrap();
    let directory = Directory::new("refused");
    let file = directory.file("file", "");
    let error = refusal.save(&declaration, &[PathBuf::from("/proc/none"), file.join("below")]).unwrap_err();
    says(&error.to_string(), &[&format!("{}: ", file.join("below").display()), "Not a directory"]);
    assert!(refusal.save(&declaration, &[]).is_err());

    // The next place is taken, and a link in the way is not followed.
    let places = [PathBuf::from("/proc/none"), directory.path().to_owned()];
    let path = refusal.save(&declaration, &places).unwrap();
    let victim = directory.file("victim", "precious");
    fs::remove_file(&path).unwrap();
    symlink(&victim, &path).unwrap();
    let other = refusal.save(&declaration, &places).unwrap();
    assert!(other != path && fs::symlink_metadata(&other).unwrap().is_file());
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");

    // Another user's file of that name is not taken for ours.
    fs::remove_file(&other).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, "not ours").unwrap();
    std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
    assert_ne!(refusal.save(&declaration, &places).unwrap(), path);

    // There is an end to how many are kept.
    let full = Directory::new("full");
    fs::set_permissions(full.path(), Permissions::from_mode(0o700)).unwrap();
    for n in 0..32 {
        full.file(&format!("refused-{n}.txt"), "");
    }
    let error = refusal.save(&declaration, &[full.path().to_owned()]).unwrap_err();
    says(&error.to_string(), &["it holds 32 reports already"]);
}

/// As `run` says it.
#[test]
fn root_a_run_tells_where_the_report_is() {
    if !is_root() {
        return;
    }
    let directory = Directory::new("state");
    let places = [directory.path().to_owned()];
    let declaration = declaration::parse(DECLARATION).unwrap();
    let Err(error) = porthole::run::load_reporting(&broken("comm"), &declaration, &places) else {
        panic!("it is loaded")
    };
    let message = error.to_string();
    let start =
        format!("this is a bug of porthole, please report it with the file {}/refused-", directory.path().display());
    assert!(message.starts_with(&start), "{message}");
    says(&message, &[".txt: the kernel's verifier refused what `comm` became, at rawtracepoint:sched_wakeup_new\n"]);
}
