//! What the host finds out of the running kernel's kfuncs, compared with what was found in another way.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use porthole::kernel::kfunc::known;
use porthole::kernel::{Answer, KernelFacts, ProgramKind};
use porthole_tests::live::unless_root;

/// From which kinds of programs each kfunc may be called, as it was found in another way for a kernel of this version;
/// none where there is no such table.
fn expected(version: (u32, u32)) -> Option<BTreeMap<String, Vec<(ProgramKind, String)>>> {
    let path = format!("fixtures/kfuncs/{}.{}.tsv", version.0, version.1);
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).ok()?;
    let mut lines = text.lines().map(|line| line.split('\t'));
    let head: Vec<ProgramKind> = lines
        .next()
        .unwrap()
        .skip(1)
        .map(|code| ProgramKind::of_code(code).unwrap_or_else(|| panic!("{code}")))
        .collect();
    let row = |mut fields: std::str::Split<'_, char>| {
        (fields.next().unwrap().to_owned(), head.iter().copied().zip(fields.map(str::to_owned)).collect())
    };
    Some(lines.map(row).collect())
}

#[test]
fn root_who_may_call_is_what_was_found_in_another_way() {
    if unless_root() {
        return;
    }
    let facts = KernelFacts::running();
    let Some(expected) = expected(facts.version()) else {
        println!("skipped: no kernel of version {:?} was looked at", facts.version());
        return;
    };
    let (mut wrong, mut allowed, mut passed_over) = (Vec::new(), BTreeMap::new(), 0);
    for (name, kinds) in &expected {
        if facts.kfunc(name).unwrap().is_none() {
            passed_over += 1;
            continue;
        }
        for (kind, found) in kinds {
            let answer = facts.may_call(name, *kind);
            let right = match found.as_str() {
                "yes" => answer == Answer::Yes,
                _ => matches!(answer, Answer::No(_)),
            };
            if !right {
                wrong.push(format!("{name} from {}: {found} expected; {answer}", kind.code()));
            }
            let could = matches!(found.as_str(), "yes" | "sleepable");
            *allowed.entry(kind.code()).or_insert(0) += u32::from(could && right);
        }
    }
    println!(
        "{} kfuncs, {passed_over} of them not here; may be called, if they may sleep: {allowed:?}",
        expected.len()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(passed_over * 4 < expected.len(), "{passed_over} of {} are not here", expected.len());
}

/// Of the kernels that the table was made of.
#[test]
fn root_every_kfunc_of_this_kernel_is_in_the_table() {
    if unless_root() {
        return;
    }
    let facts = KernelFacts::running();
    let unknown: Vec<_> = facts.kfunc_names().unwrap().into_iter().filter(|name| known(name).is_none()).collect();
    if expected(facts.version()).is_none() && facts.version() != (6, 1) {
        println!("skipped: no kernel of version {:?} was looked at; not in the table: {unknown:?}", facts.version());
        return;
    }
    assert!(unknown.is_empty(), "{unknown:?}");
}

/// The host releases what plugins acquire, wherever they may.
#[test]
fn root_what_releases_is_callable_where_what_acquires_is() {
    if unless_root() {
        return;
    }
    let facts = KernelFacts::running();
    let mut compared = 0;
    for (acquires, releases) in [
        ("bpf_task_acquire", "bpf_task_release"),
        ("bpf_cgroup_acquire", "bpf_cgroup_release"),
        ("bpf_cpumask_create", "bpf_cpumask_release"),
        ("bpf_rcu_read_lock", "bpf_rcu_read_unlock"),
        ("bpf_iter_task_new", "bpf_iter_task_destroy"),
    ] {
        if facts.kfunc(acquires).unwrap().is_some() {
            let callers = facts.callers(acquires);
            assert_eq!(callers, facts.callers(releases), "{acquires}, {releases}");
            assert!(callers.values().any(|answer| *answer == Answer::Yes), "nobody may call {acquires}: {callers:?}");
            compared += 1;
        }
    }
    if compared == 0 {
        println!("skipped: this kernel has none of them");
    }
}
