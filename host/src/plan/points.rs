//! The attach points of one probe by their numbers, which is what `probe` and `func` are in a record.
//!
//! A name takes up to 256 bytes and is known before anything runs, so a program sends its attach point's number (8
//! bytes, one store), and the schema says once which name each number has. What a name is compared with is known too:
//! `starts_with(probe, "…")` is whether the number is among those of the names that begin so, and is decided while
//! compiling, as long as a program serves one attach point.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use super::diagnostic::{did_you_mean, few};
use super::{AttachPoint, Match};

/// Texts of a probe for which a name that is nearly so is looked for.
const MAX_SUGGESTIONS: usize = 8;

/// What a value names of an attach point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PointName {
    /// `probe`: as one would write it.
    Probe,
    /// `func`: the function where it is.
    Function,
}

/// What of each name is compared, how, and with what.
type Comparison = (PointName, Match, Vec<u8>);

/// The names of a probe's attach points.
pub struct Points {
    of: Vec<(String, Option<String>)>,
    /// Each comparison is one of every attach point.
    matching: RefCell<HashMap<Comparison, Rc<[i64]>>>,
    suggested: RefCell<HashMap<(PointName, Vec<u8>), String>>,
}

impl Points {
    /// A marker that takes several programs has one name, and one number.
    pub fn new(points: &[AttachPoint]) -> Points {
        let mut of: Vec<(String, Option<String>)> = Vec::new();
        for point in points {
            let name = point.to_string();
            // The programs of one marker stand side by side.
            if of.last().is_none_or(|(last, _)| *last != name) {
                of.push((name, point.function().map(str::to_owned)));
            }
        }
        Points { of, matching: RefCell::default(), suggested: RefCell::default() }
    }

    pub fn len(&self) -> usize {
        self.of.len()
    }

    /// The number of the attach point that is written so.
    pub fn number(&self, name: &str) -> i64 {
        self.of.iter().position(|(known, _)| known == name).map_or(-1, |at| at as i64)
    }

    /// The names that there are, each with its number.
    pub fn names(&self, what: PointName) -> impl Iterator<Item = (i64, &str)> {
        (0..).zip(&self.of).filter_map(move |(number, (name, function))| match what {
            PointName::Probe => Some((number, name.as_str())),
            PointName::Function => Some((number, function.as_deref()?)),
        })
    }

    /// The numbers of those whose name is so, or holds this.
    pub fn matching(&self, what: PointName, how: Match, with: &[u8]) -> Rc<[i64]> {
        let matching = || {
            let names = self.names(what).filter(|(_, name)| how.holds(name.as_bytes(), with));
            names.map(|(number, _)| number).collect()
        };
        Rc::clone(self.matching.borrow_mut().entry((what, how, with.to_vec())).or_insert_with(matching))
    }

    /// What may be meant by a text that is the name of none.
    pub fn suggestion(&self, what: PointName, text: &[u8]) -> String {
        let mut suggested = self.suggested.borrow_mut();
        let looked = suggested.len();
        let suggest = || {
            let names = || self.names(what).map(|(_, name)| name);
            let near = || did_you_mean(&String::from_utf8_lossy(text), names());
            let near = if looked < MAX_SUGGESTIONS { near() } else { None };
            near.unwrap_or_else(|| format!("there are {}", few(&names().map(|n| format!("`{n}`")).collect::<Vec<_>>())))
        };
        suggested.entry((what, text.to_vec())).or_insert_with(suggest).clone()
    }
}
