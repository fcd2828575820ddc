//! Faults of a declaration, as data: what, where, why, and what would work. Rendering is separate from finding, and all
//! faults of one declaration are reported together.

use std::fmt::{self, Write};

/// Bytes of an expression shown around the fault at most: an expression may be long, a line on a terminal may not.
const WINDOW: usize = 100;

/// Names shown where there are more.
const FEW: usize = 3;

/// A part of an expression's text, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    pub fn new(start: usize, end: usize) -> Span {
        // An expression of over 4 GiB is refused before it is read, so saturating loses nothing.
        Span { start: u32::try_from(start).unwrap_or(u32::MAX), end: u32::try_from(end).unwrap_or(u32::MAX) }
    }

    /// From the start of this to the end of `other`.
    pub fn to(self, other: Span) -> Span {
        Span { start: self.start, end: other.end }
    }
}

/// What is wrong with a text of the plugin's, and where in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub span: Span,
    pub message: String,
    pub notes: Vec<String>,
}

impl Fault {
    pub fn new(span: Span, message: impl Into<String>) -> Fault {
        Fault { span, message: message.into(), notes: Vec::new() }
    }

    /// Adds what would work.
    pub fn help(mut self, help: impl fmt::Display) -> Fault {
        self.notes.push(format!("help: {help}"));
        self
    }

    /// Adds a line that says more.
    pub fn note(mut self, note: impl Into<String>) -> Fault {
        self.notes.push(note.into());
        self
    }

    /// Places the fault in a probe.
    pub fn within(self, probe: &str, place: &str, text: &str) -> Diagnostic {
        Diagnostic {
            probe: Some(shortened(probe)),
            place: place.to_owned(),
            message: self.message,
            source: Some((text.to_owned(), self.span)),
            at: Vec::new(),
            of: 0,
            notes: self.notes,
        }
    }
}

/// One fault of a declaration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The probe, where the fault is inside one.
    pub probe: Option<String>,
    /// The place in the probe, or in the declaration: "field `path`", "step 2 (when)", "attach", …
    pub place: String,
    /// What is wrong, and why.
    pub message: String,
    /// The text at fault, with the part that a caret is put under.
    pub source: Option<(String, Span)>,
    /// The attach points at which it is wrong, where another might do.
    pub at: Vec<String>,
    /// Of how many; 0 where that does not matter.
    pub of: usize,
    /// Further lines: names that would work, …
    pub notes: Vec<String>,
}

impl fmt::Display for Diagnostic {
    /// Several lines, without a final line break. Control characters of the plugin's text are escaped, so that it
    /// cannot speak to the terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(probe) = &self.probe {
            write!(f, "probe `{}`, ", Shown(probe))?;
        }
        write!(f, "{}: {}", Shown(&self.place), Shown(&self.message))?;
        if let Some((text, span)) = &self.source {
            let (line, caret) = excerpt(text, *span);
            write!(f, "\n  | {line}\n  | {caret}")?;
        }
        if !self.at.is_empty() {
            write!(f, "\n  = at {}", Shown(&few(&self.at)))?;
            match self.of.saturating_sub(self.at.len()) {
                0 => {}
                1 => f.write_str(", and not at the other one")?,
                others => write!(f, ", and not at the {others} others")?,
            }
        }
        for note in &self.notes {
            write!(f, "\n  = {}", Shown(note))?;
        }
        Ok(())
    }
}

/// All faults of one declaration, probe by probe: first names and form, then what cannot be read, then what means
/// nothing. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Diagnostics(pub Vec<Diagnostic>);

/// Faults printed at most: a declaration of 10,000 faulty probes needs no 10,000 messages.
const SHOWN: usize = 50;
/// Where so many have been found, no more are looked for: each takes a search for what would work, and a declaration
/// can hold 200,000 faults.
pub const FOUND: usize = 1000;

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.0.iter().take(SHOWN).enumerate() {
            if i > 0 {
                f.write_char('\n')?;
            }
            write!(f, "{fault}")?;
        }
        match self.0.len().checked_sub(SHOWN) {
            Some(_) if self.0.len() > FOUND => write!(f, "\n(more than {} more)", FOUND - SHOWN),
            Some(more @ 1..) => write!(f, "\n({more} more)"),
            _ => Ok(()),
        }
    }
}

/// Text of a plugin made fit for a terminal: control characters escaped, cut behind [`LONGEST_SHOWN`] characters.
pub struct Shown<'a>(pub &'a str);

const LONGEST_SHOWN: usize = 1000;

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() <= LONGEST_SHOWN && !self.0.contains(is_unsafe) {
            return f.write_str(self.0);
        }
        for (i, c) in self.0.chars().enumerate() {
            if i == LONGEST_SHOWN {
                return f.write_char('…');
            }
            if is_unsafe(c) { write!(f, "{}", c.escape_unicode())? } else { f.write_char(c)? }
        }
        Ok(())
    }
}

/// Whether terminals obey the character: control characters, and those that change the direction of text.
pub fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The line that shows `span`, and the line of carets for under it.
fn excerpt(text: &str, span: Span) -> (String, String) {
    let start = floor(text, span.start as usize);
    let end = floor(text, (span.end as usize).max(start)).max(start);
    let from = floor(text, start.saturating_sub(WINDOW / 2));
    let to = floor(text, (from + WINDOW).max(end.min(start + WINDOW)));
    let end = end.min(to);

    let (mut line, mut caret) = (String::new(), String::new());
    if from > 0 {
        line.push('…');
        caret.push(' ');
    }
    let mut carets = 0;
    for (at, c) in text[from..to].char_indices().map(|(i, c)| (from + i, c)) {
        let shown: String = if is_unsafe(c) { c.escape_unicode().collect() } else { c.to_string() };
        let under = at >= start && at < end;
        for _ in shown.chars() {
            caret.push(if under { '^' } else { ' ' });
            carets += u32::from(under);
        }
        line.push_str(&shown);
        if at >= end && carets == 0 {
            break;
        }
    }
    if to < text.len() {
        line.push('…');
    }
    let mut caret = caret.trim_end().to_owned();
    if carets == 0 {
        // Something is missing at this place: point between the characters.
        let before =
            text[from..start].chars().map(|c| if is_unsafe(c) { c.escape_unicode().count() } else { 1 }).sum::<usize>();
        caret = format!("{}^", " ".repeat(before + usize::from(from > 0)));
        line = format!("{}{}", if from > 0 { "…" } else { "" }, Shown(&text[from..to]));
        if to < text.len() {
            line.push('…');
        }
    }
    (line, caret)
}

/// A name of the plugin's, which may be longer than names can be.
pub fn shortened(name: &str) -> String {
    if name.chars().count() <= 64 { name.to_owned() } else { name.chars().take(20).chain(['…']).collect() }
}

/// The nearest character boundary at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The candidates nearest to `name` by edit distance, nearest first, at most three; none that is farther than a third
/// of the name's length. The same name with other capitals is meant alone. Where none is near, those that hold the name
/// as a part, shortest first.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    /// Bytes of a name that is looked for in others at least.
    const PART: usize = 4;
    let limit = (name.chars().count() / 3).max(1);
    let (mut found, mut holding) = (Vec::new(), Vec::new());
    for candidate in candidates {
        if candidate.eq_ignore_ascii_case(name) {
            return vec![candidate];
        }
        if candidate.len().abs_diff(name.len()) <= limit + 2 {
            let distance = distance(name, candidate);
            if distance <= limit {
                found.push((distance, candidate));
            }
        }
        if found.is_empty() && name.len() >= PART && candidate.contains(name) {
            holding.push((candidate.len(), candidate));
        }
    }
    let mut best = if found.is_empty() { holding } else { found };
    best.sort_unstable();
    best.dedup();
    best.into_iter().take(3).map(|(_, c)| c).collect()
}

/// "did you mean `a`, `b` or `c`?", or nothing.
pub fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let near: Vec<String> = nearest(name, candidates).iter().map(|n| format!("`{n}`")).collect();
    let (last, others) = near.split_last()?;
    let others = if others.is_empty() { String::new() } else { format!("{} or ", others.join(", ")) };
    Some(format!("did you mean {others}{last}?"))
}

/// The first few of these, and how many more there are.
pub fn few(all: &[String]) -> String {
    match all {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] if all.len() <= FEW => format!("{} and {last}", first.join(", ")),
        _ => format!("{} and {} more", all[..FEW].join(", "), all.len() - FEW),
    }
}

/// Edit distance that counts a swap of neighbours as one (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; 3];
    rows[1] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        rows[2][0] = i;
        for j in 1..=b.len() {
            let substitute = rows[1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = substitute.min(rows[1][j] + 1).min(rows[2][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[0][j - 2] + 1);
            }
            rows[2][j] = best;
        }
        rows.rotate_left(1);
    }
    rows[1][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, d) in
            [("pid", "pid", 0), ("pid", "pdi", 1), ("filenme", "filename", 1), ("", "abc", 3), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(a, b), d, "{a} {b}");
        }
        assert_eq!(nearest("filenme", ["flags", "filename", "mode"]), ["filename"]);
        assert!(nearest("zzz", ["pid", "tid"]).is_empty());
        assert_eq!(nearest("PID", ["tid", "pid", "PIDD"]), ["pid"]);
        assert_eq!(
            nearest("switch", ["sched_stat_wait", "sched_switch", "x_switch_y_z"]),
            ["sched_switch", "x_switch_y_z"]
        );
        assert!(nearest("pid", ["prev_pid_of_it"]).is_empty(), "too short to be looked for in others");
    }

    #[test]
    fn no_more_faults_are_counted_than_are_looked_for() {
        let fault = |_| Fault::new(Span::new(0, 1), "wrong").within("p", "attach", "x");
        let ends = |faults: usize, end: &str| Diagnostics((0..faults).map(fault).collect()).to_string().ends_with(end);
        assert!(ends(FOUND, "\n(950 more)") && ends(FOUND + 1, "\n(more than 950 more)"));
    }

    #[test]
    fn no_more_faults_are_shown_than_anyone_would_read() {
        let fault = |n: usize| Fault::new(Span::new(0, 1), "wrong").within("p", &format!("field `f{n}`"), "x");
        let shown = Diagnostics((0..SHOWN + 10).map(fault).collect()).to_string();
        assert!(shown.contains("`f49`") && !shown.contains("`f50`") && shown.ends_with("\n(10 more)"), "{shown}");
    }

    #[test]
    fn carets_stand_under_the_fault() {
        let at = |text: &str, start, end| excerpt(text, Span::new(start, end));
        assert_eq!(at("str(args.x)", 9, 10), ("str(args.x)".into(), "         ^".into()));
        assert_eq!(at("a +", 3, 3), ("a +".into(), "   ^".into()));
        assert_eq!(at("\u{1b}[2J + x", 7, 8).0, "\\u{1b}[2J + x");
        assert_eq!(at("é + y", 5, 6), ("é + y".into(), "    ^".into()));
        let long = format!("{}x{}", "(".repeat(5000), ")".repeat(5000));
        let (line, caret) = at(&long, 5000, 5001);
        assert!(line.chars().count() <= WINDOW + 2 && line.starts_with('…') && line.ends_with('…'));
        assert_eq!(line.chars().nth(caret.chars().count() - 1), Some('x'));
    }
}
