//! What the attach points of a probe have in common: the types of its fields; and faults, each told once, with the
//! attach points where it is one.
//!
//! A pattern may match hundreds of attach points, and an expression that is wrong at some of them is one mistake, not
//! hundreds. Nor need anyone know more than a few of them by name, how many there are, and how many are right.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use super::bits::FlagNames;
use super::diagnostic::{Diagnostic, Span, few, shortened};
use super::layout::FieldKind;
use super::points::Points;
use super::{Memory, Names, PointName, Type, kind_name};
use crate::kernel::KernelFacts;

/// Names of an enumeration of the kernel's at most: the values of one with more are sent without names.
pub const MAX_VALUE_NAMES: usize = 256;
/// Faults of one place in an expression that are told in full, and types of a field.
const MAX_WAYS: usize = 3;

/// How values stand in the records of one probe. What has names is looked up once.
pub struct Forms<'a> {
    pub facts: &'a KernelFacts,
    pub points: &'a Points,
    enumerations: RefCell<HashMap<Names, Option<Rc<FieldKind>>>>,
    flags: RefCell<HashMap<FlagNames, Rc<FieldKind>>>,
    names: [Rc<FieldKind>; 2],
}

impl<'a> Forms<'a> {
    pub fn new(facts: &'a KernelFacts, points: &'a Points) -> Forms<'a> {
        let names = [PointName::Probe, PointName::Function].map(|what| {
            let names = points.names(what).map(|(number, name)| (number, name.to_owned()));
            Rc::new(FieldKind::Enumeration(names.collect()))
        });
        Forms { facts, points, enumerations: RefCell::default(), flags: RefCell::default(), names }
    }

    pub fn of(&self, ty: &Type) -> Rc<FieldKind> {
        match *ty {
            Type::Enumeration { names, bytes, signed } => {
                self.enumeration(names).unwrap_or_else(|| Rc::new(integer(bytes, signed)))
            }
            Type::Flags { ref names, .. } => self.flags(names),
            Type::Point(PointName::Probe) => Rc::clone(&self.names[0]),
            Type::Point(PointName::Function) => Rc::clone(&self.names[1]),
            Type::Integer { bytes, signed } => Rc::new(integer(bytes, signed)),
            Type::Boolean => Rc::new(FieldKind::Boolean),
            Type::Pointer { .. } => Rc::new(FieldKind::Unsigned(8)),
            Type::Text { .. } => Rc::new(FieldKind::Text),
            Type::Symbol(Memory::Kernel) => Rc::new(FieldKind::KernelSymbol),
            Type::Symbol(Memory::User) => Rc::new(FieldKind::UserSymbol),
            Type::Stack { of: Memory::Kernel, .. } => Rc::new(FieldKind::KernelStack),
            Type::Stack { of: Memory::User, .. } => Rc::new(FieldKind::UserStack),
            Type::Bytes { .. } => Rc::new(FieldKind::Bytes),
            Type::Ip => Rc::new(FieldKind::Address),
            Type::Mac => Rc::new(FieldKind::HardwareAddress),
        }
    }

    fn flags(&self, names: &FlagNames) -> Rc<FieldKind> {
        let mut known = self.flags.borrow_mut();
        let kind = known.entry(names.clone()).or_insert_with(|| Rc::new(FieldKind::Flags(names.flags(self.facts))));
        Rc::clone(kind)
    }

    /// None of one without names, or with more than a record's reader wants: only the kernel's own can have so many.
    fn enumeration(&self, names: Names) -> Option<Rc<FieldKind>> {
        let read = || {
            let values = names.values(self.facts);
            let too_many = matches!(names, Names::Kernel(_)) && values.len() > MAX_VALUE_NAMES;
            (!values.is_empty() && !too_many).then(|| Rc::new(FieldKind::Enumeration(values)))
        };
        self.enumerations.borrow_mut().entry(names).or_insert_with(read).clone()
    }
}

fn integer(bytes: u8, signed: bool) -> FieldKind {
    if signed { FieldKind::Signed(bytes) } else { FieldKind::Unsigned(bytes) }
}

/// One field at all attach points: the kinds that it has, and where.
pub struct Kinds {
    name: String,
    kinds: Vec<(Rc<FieldKind>, Vec<String>)>,
}

impl Kinds {
    pub fn new(name: &str) -> Kinds {
        Kinds { name: name.to_owned(), kinds: Vec::new() }
    }

    pub fn add(&mut self, kind: Rc<FieldKind>, at: &str) {
        match self.kinds.iter_mut().find(|(known, _)| Rc::ptr_eq(known, &kind) || *known == kind) {
            Some((_, places)) => places.push(at.to_owned()),
            None => self.kinds.push((kind, vec![at.to_owned()])),
        }
    }

    /// The kind, where it is the same everywhere; else it is a fault.
    pub fn agreed(self, probe: &str, faults: &mut Vec<Diagnostic>) -> Option<(String, FieldKind)> {
        let Kinds { name, mut kinds } = self;
        if kinds.len() < 2 {
            return kinds.pop().map(|(kind, _)| (name, (*kind).clone()));
        }
        let told = |(kind, at): &(Rc<FieldKind>, Vec<String>)| format!("{} at {}", kind_name(kind), few(at));
        let mut notes: Vec<String> = kinds.iter().take(MAX_WAYS).map(told).collect();
        if let more @ 1.. = kinds.len().saturating_sub(MAX_WAYS) {
            notes.push(format!("and {more} other types elsewhere"));
        }
        notes.push("help: use a probe for each, or bring both to one type (`x + 0` is 64 bits wide)".to_owned());
        faults.push(Diagnostic {
            probe: Some(shortened(probe)),
            place: format!("field `{}`", shortened(&name)),
            message: "its type differs between the attach points".to_owned(),
            source: None,
            at: Vec::new(),
            of: 0,
            notes,
        });
        None
    }
}

type Place = (String, Option<(String, Span)>);

/// Faults found at the attach points of a probe, one after the other.
#[derive(Default)]
pub struct Gathered {
    faults: Vec<Diagnostic>,
    /// Where a fault with this message is among them, by its place.
    known: HashMap<Place, Vec<(String, usize)>>,
    /// Attach points at which there are further faults at the place of this one.
    others: HashMap<usize, usize>,
    /// Faults whose notes are of their first attach point only.
    differing: Vec<usize>,
}

impl Gathered {
    /// Adds what was found at one more attach point.
    pub fn add(&mut self, found: Vec<Diagnostic>) {
        for fault in found {
            let place = (fault.place.clone(), fault.source.clone());
            let here = self.known.entry(place).or_default();
            let known = here.iter().find(|(message, _)| *message == fault.message).map(|(_, index)| *index);
            match (known, here.last()) {
                (Some(index), _) => {
                    let known = &mut self.faults[index];
                    if known.notes != fault.notes && !self.differing.contains(&index) {
                        self.differing.push(index);
                    }
                    let new = fault.at.into_iter().filter(|at| known.at.last() != Some(at));
                    known.at.extend(new.collect::<Vec<_>>());
                }
                (None, Some((_, last))) if here.len() >= MAX_WAYS => *self.others.entry(*last).or_default() += 1,
                (None, _) => {
                    here.push((fault.message.clone(), self.faults.len()));
                    self.faults.push(fault);
                }
            }
        }
    }

    /// The faults, of a probe with so many attach points.
    pub fn told(self, points: usize) -> Vec<Diagnostic> {
        let Gathered { mut faults, others, differing, .. } = self;
        for index in differing {
            let Diagnostic { at, notes, .. } = &mut faults[index];
            let first = at.first().cloned().unwrap_or_default();
            notes.iter_mut().for_each(|note| *note = note.replacen("help: ", &format!("help, at {first}: "), 1));
        }
        for (index, more) in others {
            faults[index].notes.push(format!("something else is wrong with it at {more} more of the attach points"));
        }
        for fault in faults.iter_mut().filter(|fault| !fault.at.is_empty()) {
            fault.of = points;
            if fault.at.len() < points {
                fault.notes.push("help: a probe of their own for these, or a pattern without them".to_owned());
            }
        }
        faults
    }
}
