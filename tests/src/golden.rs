//! Golden files: what goes in, and below it what must come out.
//!
//! A file is one or more cases, each begun by a line `==== what it shows`. A case is its input, then sections begun by
//! a line `---- name`. With the environment variable `PORTHOLE_BLESS` set, the sections are written anew from what does
//! come out; the inputs stay as they are.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Set to write what comes out into the files.
pub const BLESS: &str = "PORTHOLE_BLESS";

/// A named part of what comes out.
pub struct Section {
    pub name: &'static str,
    pub text: String,
}

/// One case of a file.
struct Case {
    title: String,
    input: String,
    expected: String,
}

/// Compares every file of a directory with what `produce` makes of its inputs, and panics with all differences.
///
/// # Panics
/// Where anything differs, and where the directory cannot be read or holds no case.
pub fn check(directory: &Path, produce: impl Fn(&str) -> Vec<Section>) {
    let bless = env::var_os(BLESS).is_some();
    let (mut differences, mut cases) = (String::new(), 0);
    for path in files(directory) {
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut blessed = String::new();
        for case in split(&text) {
            cases += 1;
            let sections = produce(&case.input);
            let actual: String = sections.iter().map(|s| format!("---- {}\n{}\n", s.name, trimmed(&s.text))).collect();
            if actual != case.expected {
                let name = path.file_name().unwrap_or_default().display();
                let _ = write!(differences, "\n{name}: {}\n{}", case.title, diff(&case.expected, &actual));
            }
            let _ = write!(blessed, "==== {}\n{}{actual}", case.title, case.input);
            blessed.push('\n');
        }
        if bless {
            fs::write(&path, blessed.trim_end().to_owned() + "\n")
                .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
    }
    assert!(cases > 0, "{} holds no case", directory.display());
    let heading = "golden files differ (-: the file, +: what came out); if that is what was meant, run again with";
    assert!(bless || differences.is_empty(), "{heading} {BLESS}=1\n{differences}");
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let mut files: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "txt"));
    files.sort();
    files
}

/// The cases of a file. Blank lines at the end of a case are of no account.
fn split(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut in_sections = false;
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("==== ") {
            cases.push(Case { title: title.to_owned(), input: String::new(), expected: String::new() });
            in_sections = false;
            continue;
        }
        let Some(case) = cases.last_mut() else { continue };
        in_sections |= line.starts_with("---- ");
        let part = if in_sections { &mut case.expected } else { &mut case.input };
        part.push_str(line);
        part.push('\n');
    }
    for case in &mut cases {
        case.input = trimmed(&case.input) + "\n";
        case.expected = trimmed(&case.expected);
        if !case.expected.is_empty() {
            case.expected.push('\n');
        }
    }
    cases
}

/// Without spaces at the ends of lines, and without blank lines at the end of all: editors take them away.
fn trimmed(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n").trim_end().to_owned()
}

/// The lines of both, those of only one marked, with two lines around each difference.
fn diff(old: &str, new: &str) -> String {
    const AROUND: usize = 2;
    let lines = compared(&old.lines().collect::<Vec<_>>(), &new.lines().collect::<Vec<_>>());
    let changed: Vec<usize> = (0..lines.len()).filter(|i| lines[*i].0 != ' ').collect();
    let mut out = String::new();
    let mut skipped = false;
    for (i, (mark, line)) in lines.iter().enumerate() {
        if changed.iter().any(|c| c.abs_diff(i) <= AROUND) {
            let _ = writeln!(out, "{}{mark}{line}", if skipped { " …\n" } else { "" });
            skipped = false;
        } else {
            skipped = true;
        }
    }
    out
}

/// Each line with its mark, by a longest common subsequence.
fn compared<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(char, &'a str)> {
    // common[i][j]: lines that old[i..] and new[j..] have in common.
    let mut common = vec![vec![0u32; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            let longest = common[i + 1][j].max(common[i][j + 1]);
            common[i][j] = if old[i] == new[j] { common[i + 1][j + 1] + 1 } else { longest };
        }
    }
    let (mut i, mut j, mut out) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            out.push((' ', old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            out.push(('-', old[i]));
            i += 1;
        } else {
            out.push(('+', new[j]));
            j += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_shown_with_what_is_around_them() {
        let old = "a\nb\nc\nd\ne\nf\ng\n";
        assert_eq!(diff(old, &old.replace('e', "x")), " …\n c\n d\n-e\n+x\n f\n g\n");
        assert_eq!(diff("", "a\n"), "+a\n");
    }

    #[test]
    fn files_are_split_into_cases() {
        let cases = split("==== one\nin\n\n---- s\nout\n\n==== two\nin\n");
        assert_eq!(cases.len(), 2);
        assert_eq!((cases[0].input.as_str(), cases[0].expected.as_str()), ("in\n", "---- s\nout\n"));
        assert_eq!(cases[1].expected, "");
    }
}
