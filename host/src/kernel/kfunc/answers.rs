//! What trials have told, in memory and on disk.
//!
//! An answer holds until the machine is booted again, and for who has the same capabilities: the entry's name depends
//! on the boot, the kernel's release and them ([`features::trials_hold_for`]), so what is found on disk holds.
//! [`crate::cache`] sees to it that nobody else could have written it, that it is whole, and that hosts which write at
//! the same time leave one or the other of what they write. What is lost so is tried again.

use std::collections::HashMap;
use std::path::PathBuf;

use sha2::Digest;

use super::super::features;
use super::ProgramKind;
use crate::cache::{Cache, Key};

pub struct Answers {
    known: HashMap<(String, ProgramKind), bool>,
    kept: Kept,
    /// Whether there are answers that are not kept yet.
    new: bool,
}

/// Where they are kept.
enum Kept {
    Nowhere,
    /// In that folder, which has not been opened yet.
    Folder(PathBuf),
    Entry(Cache, Key),
}

impl Answers {
    pub fn kept_in(folder: Option<PathBuf>) -> Answers {
        Answers { known: HashMap::new(), kept: folder.map_or(Kept::Nowhere, Kept::Folder), new: false }
    }

    /// Whether such a program may call the kfunc; none where it has not been asked.
    pub fn get(&mut self, kfunc: &str, from: ProgramKind) -> Option<bool> {
        self.open();
        self.known.get(&(kfunc.to_owned(), from)).copied()
    }

    pub fn insert(&mut self, kfunc: &str, from: ProgramKind, allowed: bool) {
        self.new = true;
        self.known.insert((kfunc.to_owned(), from), allowed);
    }

    /// Writes down what is new. Where that fails it is tried again by the next host.
    pub fn keep(&mut self) {
        let Kept::Entry(cache, key) = &self.kept else { return };
        if !std::mem::take(&mut self.new) {
            return;
        }
        // What others have found meanwhile.
        let before = cache.get(key).ok().flatten().map(|entry| read(entry.payload())).unwrap_or_default();
        for (question, answer) in before {
            self.known.entry(question).or_insert(answer);
        }
        if let Err(error) = cache.put(key, written(&self.known).as_bytes()) {
            tracing::debug!("what kfuncs may be called is not kept: {error}");
            self.kept = Kept::Nowhere;
        }
    }

    fn open(&mut self) {
        let folder = match std::mem::replace(&mut self.kept, Kept::Nowhere) {
            Kept::Folder(folder) => folder,
            open => return self.kept = open,
        };
        let Some(held_for) = features::trials_hold_for() else { return };
        let key = Key::of(|digest| {
            digest.update("kfuncs ");
            digest.update(&held_for);
        });
        match Cache::open(&folder) {
            Ok(cache) => {
                // One that is damaged, or that others could have written, is replaced by what is found out anew.
                let entry = cache.get(&key).ok().flatten();
                self.known.extend(entry.map(|entry| read(entry.payload())).unwrap_or_default());
                self.kept = Kept::Entry(cache, key);
            }
            Err(error) => {
                tracing::debug!("what kfuncs may be called is not kept in {}: {error}", folder.display());
            }
        }
    }
}

/// A line for each kfunc and kind: `bpf_task_from_pid tracepoint yes`.
fn written(known: &HashMap<(String, ProgramKind), bool>) -> String {
    let line = |((kfunc, from), allowed): (&(String, ProgramKind), &bool)| {
        format!("{kfunc} {} {}\n", from.code(), if *allowed { "yes" } else { "no" })
    };
    let mut lines: Vec<String> = known.iter().map(line).collect();
    lines.sort_unstable();
    lines.concat()
}

fn read(payload: &[u8]) -> HashMap<(String, ProgramKind), bool> {
    let text = std::str::from_utf8(payload).unwrap_or_default();
    let answer = |line: &str| {
        let (question, allowed) = line.rsplit_once(' ')?;
        let (kfunc, from) = question.split_once(' ')?;
        Some(((kfunc.to_owned(), ProgramKind::of_code(from)?), allowed == "yes"))
    };
    text.lines().filter_map(answer).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    /// A folder of its own, removed at the end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            Scratch(std::env::temp_dir().join(format!("porthole-answers-{}-{name}", std::process::id())))
        }

        fn open(&self) -> Answers {
            Answers::kept_in(Some(self.0.clone()))
        }

        fn entry(&self) -> PathBuf {
            let mut files = fs::read_dir(&self.0).unwrap().map(|file| file.unwrap().path());
            let entry = files.next().unwrap();
            assert_eq!(files.next(), None);
            entry
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn keep(answers: &mut Answers, kfunc: &str, allowed: bool) {
        assert_eq!(answers.get(kfunc, ProgramKind::Iter), None);
        answers.insert(kfunc, ProgramKind::Iter, allowed);
        answers.keep();
    }

    #[test]
    fn what_is_kept_is_there_for_the_next() {
        let scratch = Scratch::new("next");
        let mut first = scratch.open();
        keep(&mut first, "a", true);
        keep(&mut first, "b", false);
        let mut second = scratch.open();
        assert_eq!(["a", "b", "c"].map(|kfunc| second.get(kfunc, ProgramKind::Iter)), [Some(true), Some(false), None]);
        assert_eq!(second.get("a", ProgramKind::Tracepoint), None, "of another kind of programs");
    }

    #[test]
    fn hosts_at_the_same_time_add_to_one_another() {
        let scratch = Scratch::new("both");
        let (mut one, mut other) = (scratch.open(), scratch.open());
        assert_eq!((one.get("a", ProgramKind::Iter), other.get("b", ProgramKind::Iter)), (None, None));
        keep(&mut one, "a", true);
        keep(&mut other, "b", true);
        let mut third = scratch.open();
        assert_eq!(["a", "b"].map(|kfunc| third.get(kfunc, ProgramKind::Iter)), [Some(true), Some(true)]);
    }

    #[test]
    fn what_is_damaged_or_others_can_write_is_not_believed() {
        let scratch = Scratch::new("damaged");
        let spoil: [fn(&Path); 3] = [
            |entry| fs::write(entry, "a iter yes\n").unwrap(),
            |entry| fs::write(entry, &fs::read(entry).unwrap()[..50]).unwrap(),
            |entry| fs::set_permissions(entry, fs::Permissions::from_mode(0o666)).unwrap(),
        ];
        for spoil in spoil {
            keep(&mut scratch.open(), "a", true);
            spoil(&scratch.entry());
            keep(&mut scratch.open(), "a", false);
            assert_eq!(scratch.open().get("a", ProgramKind::Iter), Some(false), "it is replaced");
            fs::remove_file(scratch.entry()).unwrap();
        }
        keep(&mut scratch.open(), "a", true);
        fs::set_permissions(&scratch.0, fs::Permissions::from_mode(0o777)).unwrap();
        keep(&mut scratch.open(), "a", false);
    }

    #[test]
    fn without_a_folder_nothing_is_kept() {
        let mut answers = Answers::kept_in(None);
        keep(&mut answers, "a", true);
        assert_eq!(answers.get("a", ProgramKind::Iter), Some(true));
        let mut nowhere = Answers::kept_in(Some(PathBuf::from("/proc/no/such/folder")));
        keep(&mut nowhere, "a", true);
    }

    #[test]
    fn lines() {
        let known = read(b"a tracepoint yes\nb iter.s no\nbroken\nc freplace yes\n");
        assert_eq!(written(&known), "a tracepoint yes\nb iter.s no\n");
    }
}
