//! Patterns in the text of an attach point: lists, and wildcards.
//!
//! A list stands for each of its members as if that were written alone: `kprobe:vfs_{read,write}` is `kprobe:vfs_read`
//! and `kprobe:vfs_write`, and one that is misspelt is as wrong as it would be alone. So lists are gone before anything
//! else looks at the text. A wildcard is compared with the names that there are, and takes what can be attached to.
//!
//! A plugin may write any pattern, so none takes more than (its length × the name's length) steps: behind a `*` that is
//! followed by another one nothing is ever tried again.

use std::str::Chars;

use crate::plan::diagnostic::{Fault, Span};

/// A name with wildcards: `*` any characters, `?` one, `[abc]`, `[a-z]` one of these, `[!abc]` one of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    parts: Vec<Part>,
    /// What each name that matches begins with.
    pub beginning: String,
    /// Characters of such a name at least.
    least: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    One(char),
    Any,
    OneOf {
        ranges: Vec<(char, char)>,
        inside: bool,
    },
    /// Any number of characters.
    Run,
}

impl Part {
    fn takes(&self, c: char) -> bool {
        match self {
            Part::One(wanted) => *wanted == c,
            Part::Any => true,
            Part::OneOf { ranges, inside } => ranges.iter().any(|(from, to)| (*from..=*to).contains(&c)) == *inside,
            Part::Run => false,
        }
    }
}

/// Whether a name holds a wildcard.
pub fn is_wild(name: &str) -> bool {
    name.contains(['*', '?', '['])
}

impl Glob {
    /// Reads a pattern, which stands at `at`.
    pub fn parse(text: &str, at: Span) -> Result<Glob, Fault> {
        let mut parts = Vec::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            let part = match c {
                '*' if parts.last() == Some(&Part::Run) => continue,
                '*' => Part::Run,
                '?' => Part::Any,
                '[' => {
                    let start = text.len() - rest.as_str().len() - 1;
                    let at = Span::new(at.start as usize + start, at.end as usize);
                    let fault = || Fault::new(at, "`[` begins a set of characters, and no `]` ends it");
                    one_of(&mut rest).ok_or_else(|| fault().help("`[abc]` and `[a-c]` are one of these characters"))?
                }
                c => Part::One(c),
            };
            parts.push(part);
        }
        let literal = |part: &Part| if let Part::One(c) = part { Some(*c) } else { None };
        let beginning = parts.iter().map_while(literal).collect();
        let least = parts.iter().filter(|part| **part != Part::Run).count();
        Ok(Glob { parts, beginning, least })
    }

    pub fn matches(&self, name: &str) -> bool {
        if name.len() < self.least || !name.starts_with(&self.beginning) {
            return false;
        }
        let (mut next, mut rest) = (0, name.chars());
        // Behind the last `*` that was come by: the part there, and what it was tried at.
        let mut again: Option<(usize, Chars<'_>)> = None;
        loop {
            let mut behind = rest.clone();
            match (self.parts.get(next), behind.next()) {
                (Some(Part::Run), _) => {
                    next += 1;
                    again = Some((next, rest.clone()));
                }
                (Some(part), Some(c)) if part.takes(c) => {
                    next += 1;
                    rest = behind;
                }
                (None, None) => return true,
                _ => {
                    // The `*` takes one character more.
                    let Some((resume, from)) = &mut again else { return false };
                    if from.next().is_none() {
                        return false;
                    }
                    (next, rest) = (*resume, from.clone());
                }
            }
        }
    }
}

/// What stands behind `[`, its `]` included. A `]` that comes first is a character like others.
fn one_of(rest: &mut Chars<'_>) -> Option<Part> {
    let mut c = rest.next()?;
    let inside = !matches!(c, '!' | '^');
    if !inside {
        c = rest.next()?;
    }
    let mut ranges = Vec::new();
    loop {
        let mut behind = rest.clone();
        match (behind.next()?, behind.next()) {
            ('-', Some(to)) if to != ']' => {
                ranges.push((c, to));
                *rest = behind;
            }
            _ => ranges.push((c, c)),
        }
        c = rest.next()?;
        if c == ']' {
            return Some(Part::OneOf { ranges, inside });
        }
    }
}

/// A text divided into what stands between its lists, and the lists.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a str),
    List(Vec<&'a str>),
}

/// How many texts a text with lists stands for: 1 where it has none.
pub fn count(text: &str) -> usize {
    let of_piece = |piece: &Piece<'_>| if let Piece::List(members) = piece { members.len() } else { 1 };
    pieces(text).iter().map(of_piece).fold(1, usize::saturating_mul)
}

/// The texts that a text with lists stands for; as many as [`count`] says.
pub fn members(text: &str) -> Vec<String> {
    let mut texts = vec![String::new()];
    for piece in pieces(text) {
        match piece {
            Piece::Text(part) => texts.iter_mut().for_each(|text| text.push_str(part)),
            Piece::List(members) => {
                let with = |text: &String| members.iter().map(|m| format!("{text}{m}")).collect::<Vec<_>>();
                texts = texts.iter().flat_map(with).collect();
            }
        }
    }
    texts
}

/// Braces without a comma are part of a name (`{closure#0}`), and so is a comma in parentheses
/// (`{lambda(int, int)#1}`).
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let (mut pieces, mut done, mut from) = (Vec::new(), 0, 0);
    while let Some(open) = text[from..].find('{').map(|at| from + at) {
        from = open + 1;
        let Some((list, end)) = list(&text[from..]) else { continue };
        pieces.push(Piece::Text(&text[done..open]));
        pieces.push(Piece::List(list));
        from += end;
        done = from;
    }
    pieces.push(Piece::Text(&text[done..]));
    pieces
}

/// The members of the list behind a `{`, and where it ends.
fn list(text: &str) -> Option<(Vec<&str>, usize)> {
    let (mut members, mut start, mut depth) = (Vec::new(), 0, 0_u32);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                members.push(&text[start..at]);
                start = at + 1;
            }
            // What stands inside has its turn when the search goes on behind this `{`.
            '{' => return None,
            '}' => {
                members.push(&text[start..at]);
                return (members.len() > 1).then_some((members, at + 1));
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glob(text: &str) -> Glob {
        Glob::parse(text, Span::new(0, text.len())).unwrap()
    }

    #[test]
    fn wildcards() {
        for (pattern, yes, no) in [
            ("sys_enter_*", vec!["sys_enter_", "sys_enter_open"], vec!["sys_enter", "sys_exit_open", "xsys_enter_"]),
            ("*", vec!["", "x"], vec![]),
            ("a?c", vec!["abc", "a?c", "aéc"], vec!["ac", "abbc", "abc "]),
            ("*a*b", vec!["ab", "xaxb", "aabb"], vec!["ba", "abx"]),
            ("[a-c]x", vec!["ax", "cx"], vec!["dx", "-x", "x"]),
            ("[!a-c]x", vec!["dx"], vec!["ax", "x"]),
            ("[]-]", vec!["]", "-"], vec!["", "[]-]"]),
            ("[ab-]", vec!["a", "b", "-"], vec!["c"]),
            ("a**b", vec!["ab", "axxb"], vec!["a"]),
        ] {
            let pattern = glob(pattern);
            yes.iter().for_each(|name| assert!(pattern.matches(name), "{pattern:?} {name}"));
            no.iter().for_each(|name| assert!(!pattern.matches(name), "{pattern:?} {name}"));
        }
        assert_eq!(glob("vfs_*d").beginning, "vfs_");
        let fault = Glob::parse("ab[c", Span::new(10, 14)).unwrap_err();
        assert_eq!(fault.span, Span::new(12, 14));
        for text in ["[", "[]", "[!", "[!]", "[a-", "[a-]x["] {
            assert!(Glob::parse(text, Span::default()).is_err(), "{text}");
        }
    }

    /// What a pattern means, said without regard to cost.
    fn means(parts: &[Part], name: &[char]) -> bool {
        match (parts.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((Part::Run, behind)), _) => (0..=name.len()).any(|n| means(behind, &name[n..])),
            (Some((part, behind)), Some((c, rest))) => part.takes(*c) && means(behind, rest),
            _ => false,
        }
    }

    /// All patterns of up to five of these parts, with all names of up to five of two letters.
    #[test]
    fn every_short_pattern_means_what_it_says() {
        let words = |letters: &[&str], most: u32| -> Vec<String> {
            let word = |length: u32, mut n: usize| {
                let letter = |_| {
                    let letter = letters[n % letters.len()];
                    n /= letters.len();
                    letter
                };
                (0..length).map(letter).collect::<String>()
            };
            (0..=most).flat_map(|l| (0..letters.len().pow(l)).map(move |n| word(l, n))).collect()
        };
        let names = words(&["a", "b"], 5);
        let (mut yes, mut no) = (0, 0);
        for pattern in words(&["a", "b", "*", "?", "[!a]"], 5) {
            let pattern = glob(&pattern);
            for name in &names {
                let chars: Vec<char> = name.chars().collect();
                let expected = means(&pattern.parts, &chars);
                assert_eq!(pattern.matches(name), expected, "{pattern:?} {name}");
                if expected { yes += 1 } else { no += 1 }
            }
        }
        assert!(yes > 10_000 && no > 10_000, "{yes} {no}");
    }

    #[test]
    fn hostile_patterns_cost_little() {
        let pattern = glob(&"*a".repeat(128));
        let name = "a".repeat(127).repeat(2) + "b";
        let start = std::time::Instant::now();
        for _ in 0..1000 {
            assert!(!pattern.matches(&name));
        }
        // Tried out way by way it would take as long as the universe is old.
        assert!(start.elapsed().as_secs() < 20);
    }

    #[test]
    fn lists() {
        for (text, expected) in [
            ("kprobe:vfs_{read,write}", vec!["kprobe:vfs_read", "kprobe:vfs_write"]),
            ("{a,b}{c,d}", vec!["ac", "ad", "bc", "bd"]),
            ("x{,y}", vec!["x", "xy"]),
            ("plain", vec!["plain"]),
            ("{{closure}}", vec!["{{closure}}"]),
            ("f::{closure#0}", vec!["f::{closure#0}"]),
            ("f::{lambda(int, int)#1}", vec!["f::{lambda(int, int)#1}"]),
            ("{a,{b,c}", vec!["{a,b", "{a,c"]),
            ("{a,b", vec!["{a,b"]),
            ("", vec![""]),
        ] {
            assert_eq!(members(text), expected, "{text}");
            assert_eq!(count(text), expected.len(), "{text}");
        }
        assert_eq!(count(&"{a,b}".repeat(51)), 1 << 51);
        assert_eq!(count(&"{a,b,c,d}".repeat(90)), usize::MAX);
    }
}
