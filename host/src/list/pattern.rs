//! What is to be listed: a glob over whole attach points.

use super::{EACH_ONCE, ListError, OF_FILES};
use crate::plan::{self, KINDS};

/// A pattern as it is meant.
#[derive(Debug)]
pub struct Pattern {
    text: String,
    pub of: Wanted,
    glob: String,
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
        Pattern { text: String::new(), of: Wanted::Kinds(EACH_ONCE.to_vec()), glob: "*".to_owned() }
    }

    pub fn parse(text: &str) -> Result<Pattern, ListError> {
        let pattern = |of, glob| Ok(Pattern { text: text.to_owned(), of, glob });
        let refused = |message: &str| Err(ListError::Pattern { text: text.to_owned(), message: message.to_owned() });
        let Some((word, rest)) = text.split_once(':') else {
            return match KINDS.into_iter().find(|kind| *kind == text) {
                Some(_) => Pattern::parse(&format!("{text}:*")),
                // Anywhere in any of them.
                None => pattern(Wanted::Kinds(EACH_ONCE.to_vec()), format!("*{text}*")),
            };
        };
        if is_wild(word) {
            let listed = |kind: &&str| matches(word, kind) && !OF_FILES.contains(kind) && *kind != "watchpoint";
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
        self.glob == "*" || matches(&self.glob, point)
    }

    pub fn refused(&self, message: &str) -> ListError {
        ListError::Pattern { text: self.text.clone(), message: message.to_owned() }
    }
}

fn is_wild(text: &str) -> bool {
    text.contains(['*', '?'])
}

/// Whether a text is of the form of `glob`, in which `*` stands for any characters and `?` for one.
fn matches(glob: &str, text: &str) -> bool {
    let (glob, text) = (glob.as_bytes(), text.as_bytes());
    let (mut g, mut t) = (0, 0);
    // Behind the last `*` met, and what it has taken so far.
    let mut again = None;
    while t < text.len() {
        match glob.get(g) {
            Some(b'*') => {
                g += 1;
                again = Some((g, t));
            }
            Some(c) if *c == b'?' || *c == text[t] => (g, t) = (g + 1, t + 1),
            _ => match again {
                Some((star, taken)) => {
                    (g, t) = (star, taken + 1);
                    again = Some((star, taken + 1));
                }
                None => return false,
            },
        }
    }
    glob[g..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to_look() {
        let of = |text: &str| Pattern::parse(text).map(|pattern| (pattern.of, pattern.glob));
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
    fn globs() {
        for (glob, text, expected) in [
            ("kprobe:vfs_*", "kprobe:vfs_read", true),
            ("*sched*", "tracepoint:sched:x", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*a*b", "xaxbxb", true),
            ("*a*b", "xaxbx", false),
            ("", "", true),
            ("*", "", true),
            ("x", "", false),
        ] {
            assert_eq!(matches(glob, text), expected, "{glob} {text}");
        }
    }
}
