//! What an event is to the SDK: the probes that send it, and how it is read.

use crate::field::Kind;
use crate::record::{Cell, Record};
use crate::{Declaration, Value};

/// What a plugin handles: a struct, which one or more probes send, or an enum of such structs.
///
/// Derive it: the attributes stand at [the derive macro](macro@crate::Event).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no event",
    note = "put `#[derive(Event)]` and `#[probe(attach = \"…\")]` on it"
)]
pub trait Event<'a>: Sized {
    /// How many probes [`probes`](Self::probes) gives.
    const PROBES: usize;

    /// The probes that send the event. Of an enum: those of all its variants, in their order.
    fn probes() -> Vec<ProbeSpec>;

    /// The event in a record that was sent by the probe of this index; `cells` are its fields' places. None where they
    /// are not that event's.
    fn decode(probe: usize, cells: &[Cell], record: Record<'a>) -> Option<Self>;

    /// The event's name, which its rows have.
    fn name(&self) -> &'static str;

    /// The fields' names and values, in the order of the struct.
    fn columns(&self) -> Vec<(&'static str, Value<'_>)>;
}

/// One probe of an event, as the attributes tell it. See `probe` in `wit/declarations.wit` for the bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProbeSpec {
    /// The probe's name.
    pub name: &'static str,
    /// The event's name.
    pub event: &'static str,
    /// Attach points.
    pub attach: &'static [&'static str],
    /// Kernel functions (kfuncs) that the expressions call.
    pub kfuncs: &'static [KfuncSpec],
    /// What the probe does before it sends the event.
    pub steps: &'static [StepSpec],
    /// The event's fields, in the order of the struct.
    pub fields: &'static [FieldSpec],
}

/// A kernel function that expressions call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KfuncSpec {
    /// Its name.
    pub name: &'static str,
    /// Whether the plugin cannot do without: where it can, what calls the function is absent on a kernel that lacks it.
    pub required: bool,
}

/// One step before the event is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StepSpec {
    /// A name for a value.
    Bind {
        /// The name.
        name: &'static str,
        /// The expression.
        value: &'static str,
    },
    /// Go on only where the expression is true.
    When(&'static str),
}

/// One field of an event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FieldSpec {
    /// The field's name.
    pub name: &'static str,
    /// The expression that gives its value.
    pub expression: &'static str,
    /// What the struct's field can hold.
    pub kind: Kind,
}

/// The declaration that these events make, before the plugin has adjusted it.
pub(crate) fn declaration<'a, E: Event<'a>>() -> Declaration {
    Declaration::new(&E::probes())
}
