//! Privileges, disks and caches that are not as they should be.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;

use crate::e2e::host::{Ended, Run};
use crate::e2e::{Directory, is_root, plugin, porthole_of_nobody, porthole_without, says};
use crate::{fails, hostile};

/// Who lacks privileges is told which: all of them, and none that would not help.
#[test]
fn root_without_capabilities() {
    if !is_root() {
        return;
    }
    // Execs needs no tracefs.
    let without = |capabilities: &[&str]| fails(Run::new(&plugin("execs")).by(porthole_without(capabilities)));
    let message = without(&["bpf", "perfmon", "sys_admin"]);
    says(&message, &["error: execs: ", "CAP_BPF and CAP_PERFMON are missing", "porthole doctor"]);
    says(&without(&["bpf", "sys_admin"]), &["error: execs: ", "refuses BPF: CAP_BPF is missing"]);
    says(&without(&["perfmon", "sys_admin"]), &["error: execs: ", "refuses BPF: CAP_PERFMON is missing"]);
}

#[test]
fn root_as_nobody() {
    if !is_root() {
        return;
    }
    let directory = Directory::new("nobody");
    // Where the declaration needs tracefs, that is told first, and then what else is missing.
    let hostile = Run::new(&directory.copy(&plugin("hostile"))).by(porthole_of_nobody(&directory, &[]));
    let message = fails(hostile);
    says(
        &message,
        &["error: hostile: ", "probe `call`, attach: ", "tracefs", "CAP_DAC_READ_SEARCH", "tracepoint:syscalls:"],
    );
    says(&message, &["error: hostile: ", "CAP_BPF and CAP_PERFMON are missing"]);
    let execs = Run::new(&directory.copy(&plugin("execs"))).by(porthole_of_nobody(&directory, &[]));
    says(&fails(execs), &["error: execs: ", "CAP_BPF and CAP_PERFMON are missing"]);
}

/// The two capabilities that are asked for do.
#[test]
fn root_as_nobody_with_capabilities() {
    if !is_root() {
        return;
    }
    let directory = Directory::new("capable");
    let execs = Run::new(&directory.copy(&plugin("execs"))).by(porthole_of_nobody(&directory, &["bpf", "perfmon"]));
    execs.option("--duration=0.1").finish().successful();
}

/// Where there is no more room, nothing is kept, and the run is none the worse.
#[test]
fn root_a_full_disk_for_the_cache() {
    if !is_root() {
        return;
    }
    // A file system of 64 KiB, which only this host sees.
    let disk = Directory::new("full");
    let mount = "mount -t tmpfs -o size=64k,mode=700 tmpfs \"$0\" && \"$@\" && echo left: >&2 && ls -A \"$0\" >&2";
    let path = disk.path().to_str().expect("a path that we have made");
    let run = Run::new(&plugin("calls")).under(&["unshare", "--mount", "sh", "-c", mount, path]);
    let ended = run.option("--duration=0.1").option("--cache-dir").option(path).finish().successful();
    says(&ended.stderr, &["calls.wasm: cannot be kept in the compile cache: No space left", "Attached"]);
    assert!(ended.stderr.ends_with("left:\n"), "a part of what could not be written: {}", ended.stderr);
    assert_eq!(ended.rows().len(), 1, "the total");
}

/// A cache of the test's own, and runs that use it.
struct Cache(Directory);

impl Cache {
    fn new(name: &str) -> Cache {
        let cache = Cache(Directory::new(name));
        cache.set_mode(0o700);
        cache
    }

    fn run(&self) -> Ended {
        let run = hostile(&[]).option("--duration=0.1").option("--cache-dir").option(self.0.path());
        run.finish().successful()
    }

    fn set_mode(&self, mode: u32) {
        fs::set_permissions(self.0.path(), Permissions::from_mode(mode)).expect("it is ours");
    }

    fn entries(&self) -> Vec<PathBuf> {
        fs::read_dir(self.0.path()).expect("it is there").map(|entry| entry.expect("it can be read").path()).collect()
    }
}

#[test]
fn root_a_damaged_cache_entry_is_made_anew() {
    if !is_root() {
        return;
    }
    let cache = Cache::new("damaged");
    cache.run();
    let entries = cache.entries();
    let [entry] = &entries[..] else { panic!("{entries:?}") };
    let whole = fs::read(entry).expect("it is ours");
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for damaged in [&flipped[..], &whole[..whole.len() / 2], &[]] {
        fs::write(entry, damaged).expect("it is ours");
        says(&cache.run().stderr, &["hostile.wasm: is compiled again: ", "it is damaged", "Attached"]);
        assert!(fs::read(entry).expect("it is ours") == whole, "the entry is whole again");
    }
    assert!(!cache.run().stderr.contains("compiled again"));
}

#[test]
fn root_a_cache_that_others_may_write_to_is_not_used() {
    if !is_root() {
        return;
    }
    let cache = Cache::new("writable");
    cache.set_mode(0o777);
    says(&cache.run().stderr, &["cannot be used as compile cache: others may write to it (mode 777)", "Attached"]);
    assert_eq!(cache.entries(), Vec::<PathBuf>::new());
}

#[test]
fn root_a_cache_of_somebody_else_is_not_used() {
    if !is_root() {
        return;
    }
    let cache = Cache::new("foreign");
    chown(cache.0.path(), Some(65534), None).expect("root may");
    says(&cache.run().stderr, &["cannot be used as compile cache: it belongs to user 65534", "Attached"]);
    assert_eq!(cache.entries(), Vec::<PathBuf>::new());
}

/// The directory is ours, but what stands in it was somebody else's to write: machine code that must not run.
#[test]
fn root_an_entry_of_somebody_else_is_not_used() {
    if !is_root() {
        return;
    }
    let cache = Cache::new("entry");
    cache.run();
    let entries = cache.entries();
    let [entry] = &entries[..] else { panic!("{entries:?}") };
    chown(entry, Some(65534), None).expect("root may");
    says(&cache.run().stderr, &["is compiled again: ", "it belongs to user 65534", "Attached"]);
}
