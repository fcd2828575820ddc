//! What is to be listed: a glob over whole attach points, of the form that declarations have.

use super::{EACH_ONCE, ListError, OF_FILES};
use crate::plan::{self, Glob, KINDS, Span, is_wild};

/// Patterns at most that one with lists stands for.
const MOST: usize = 64;

/// A pattern as it is meant.
#[derive(Debug)]
pub struct Pattern {
    text: String,
    pub of: Wanted,
    /// None where all is wanted.
    glob: Option<Glob>,
}

/// Where to look.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted {
    Kinds(Vec<&'static str>),
    /// A program or library.
    File {
        kind: &'static str,
        target: String,
    },
}

impl Pattern {
    /// All that the kernel has.
    pub fn everything() -> Pattern {
        Pattern { text: String::new(), of: Wanted::Kinds(EACH_ONCE.to_vec()), glob: None }
    }

    /// The patterns that one stands for: lists (`{a,b}`) are divided first.
    pub fn parse_all(text: &str) -> Result<Vec<Pattern>, ListError> {
        members(text)?.iter().map(|text| Pattern::parse(text)).collect()
    }

    fn parse(text: &str) -> Result<Pattern, ListError> {
        let (of, glob) = Pattern::meant(text)?;
        Ok(Pattern { text: text.to_owned(), of, glob: Some(parse(text, &glob)?) })
    }

    /// Where to look, and for what.
    fn meant(text: &str) -> Result<(Wanted, String), ListError> {
        let pattern = |of, glob| Ok((of, glob));
        let refused = |message: &str| Err(ListError::Pattern { text: text.to_owned(), message: message.to_owned() });
        let Some((word, rest)) = text.split_once(':') else {
            return match KINDS.into_iter().find(|kind| *kind == text) {
                Some(_) => Pattern::meant(&format!("{text}:*")),
                // Anywhere in any of them.
                None => pattern(Wanted::Kinds(EACH_ONCE.to_vec()), format!("*{text}*")),
            };
        };
        if is_wild(word) {
            let glob = match Glob::parse(word, Span::default()) {
                Ok(glob) => glob,
                Err(fault) => return refused(&fault.message),
            };
            let listed = |kind: &&str| glob.matches(kind) && !OF_FILES.contains(kind) && *kind != "watchpoint";
            return pattern(Wanted::Kinds(KINDS.into_iter().filter(listed).collect()), text.to_owned());
        }
        let kind = match plan::kind(word) {
            Ok(kind) => kind,
            Err(fault) => return refused(&[&[fault.message][..], &fault.notes].concat().join("; ")),
        };
        let glob = format!("{kind}:{rest}");
        if kind == "watchpoint" {
            return refused("a watchpoint can be at any address: `watchpoint:ADDRESS:LENGTH:MODE`");
        }
        if !OF_FILES.contains(&kind) {
            return pattern(Wanted::Kinds(vec![kind]), glob);
        }
        let (target, name) = rest.split_once(':').unwrap_or((rest, "*"));
        if target.is_empty() || is_wild(target) {
            return refused(&format!("it takes the name of a program or library: `{kind}:libc:*`"));
        }
        // A marker may be named without its provider.
        let any_provider = if kind == "usdt" && !name.contains(':') { "*:" } else { "" };
        let glob = format!("{kind}:{target}:{any_provider}{name}");
        pattern(Wanted::File { kind, target: target.to_owned() }, glob)
    }

    pub fn matches(&self, point: &str) -> bool {
        self.glob.as_ref().is_none_or(|glob| glob.matches(point))
    }

    pub fn refused(&self, message: &str) -> ListError {
        ListError::Pattern { text: self.text.clone(), message: message.to_owned() }
    }
}

/// Names that a pattern without kinds is looked for in, anywhere.
pub fn anywhere(text: &str) -> Result<Vec<Glob>, ListError> {
    members(text)?.iter().map(|member| parse(text, &format!("*{member}*"))).collect()
}

/// What its lists stand for.
fn members(text: &str) -> Result<Vec<String>, ListError> {
    match plan::count(text) {
        ..=MOST => Ok(plan::members(text)),
        count => {
            let message = format!("its lists stand for {count} patterns, and {MOST} is the most");
            Err(ListError::Pattern { text: text.to_owned(), message })
        }
    }
}

fn parse(text: &str, glob: &str) -> Result<Glob, ListError> {
    Glob::parse(glob, Span::default())
        .map_err(|fault| ListError::Pattern { text: text.to_owned(), message: fault.message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to_look() {
        let of = Pattern::meant;
        let kinds = |kinds: &[&'static str], glob: &str| Ok((Wanted::Kinds(kinds.to_vec()), glob.to_owned()));
        let file =
            |kind, target: &str, glob: &str| Ok((Wanted::File { kind, target: target.to_owned() }, glob.to_owned()));
        assert_eq!(of("sched"), kinds(&EACH_ONCE, "*sched*"));
        assert_eq!(of("kprobe"), kinds(&["kprobe"], "kprobe:*"));
        assert_eq!(of("k:vfs_*"), kinds(&["kprobe"], "kprobe:vfs_*"));
        assert_eq!(of("k*probe:vfs_*"), kinds(&["kprobe", "kretprobe"], "k*probe:vfs_*"));
        assert_eq!(
            of("*:vfs_*").unwrap().0,
            kinds(
                &[
                    "tracepoint",
                    "rawtracepoint",
                    "fentry",
                    "fexit",
                    "kprobe",
                    "kretprobe",
                    "func",
                    "lsm",
                    "profile",
                    "software",
                    "hardware",
                    "iter"
                ],
                ""
            )
            .unwrap()
            .0
        );
        assert_eq!(of("u:libc:mem*"), file("uprobe", "libc", "uprobe:libc:mem*"));
        assert_eq!(of("ur:/bin/sh"), file("uretprobe", "/bin/sh", "uretprobe:/bin/sh:*"));
        assert_eq!(of("uprobe:x:a::b*"), file("uprobe", "x", "uprobe:x:a::b*"));
        assert_eq!(of("usdt:libc:mem*"), file("usdt", "libc", "usdt:libc:*:mem*"));
        assert_eq!(of("usdt:libc:libc:mem*"), file("usdt", "libc", "usdt:libc:libc:mem*"));
        for (text, message) in [
            ("kprob:x", "`kprob:x`: there is no kind of attach point named `kprob`; help: did you mean `kprobe`?"),
            ("kfunc:x", "`kfunc:x`: `kfunc` is an old name; help: write `fentry`"),
            ("uprobe:*", "`uprobe:*`: it takes the name of a program or library: `uprobe:libc:*`"),
            ("usdt:", "`usdt:`: it takes the name of a program or library: `usdt:libc:*`"),
            ("watchpoint", "`watchpoint:*`: a watchpoint can be at any address: `watchpoint:ADDRESS:LENGTH:MODE`"),
        ] {
            assert_eq!(of(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn lists_and_sets() {
        let all = |text: &str| Pattern::parse_all(text).map_err(|e| e.to_string());
        let patterns = all("kprobe:vfs_{read,[vw]rite}").unwrap();
        let takes = |point: &str| patterns.iter().any(|pattern| pattern.matches(point));
        assert!(takes("kprobe:vfs_read") && takes("kprobe:vfs_write") && !takes("kprobe:vfs_open"));
        assert_eq!(
            all(&"{a,b}".repeat(7)).unwrap_err(),
            format!("`{}`: its lists stand for 128 patterns, and 64 is the most", "{a,b}".repeat(7))
        );
        assert!(all("kprobe:[a").unwrap_err().starts_with("`kprobe:[a`: `[` begins a set"));
        assert!(all("[a:b").unwrap_err().starts_with("`[a:b`: `[` begins a set"));
    }
}
