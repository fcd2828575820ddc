//! Between the types of the WIT world and the plain data of the other modules.

use crate::declare;
use crate::plan::layout;

use super::bindings::porthole::trace::{declarations as wit, events};

impl From<wit::Declaration> for declare::Declaration {
    fn from(declaration: wit::Declaration) -> Self {
        Self {
            kfuncs: all(declaration.kfuncs),
            maps: all(declaration.maps),
            probes: all(declaration.probes),
            tick: declaration.tick,
        }
    }
}

impl From<wit::KfuncUse> for declare::KfuncUse {
    fn from(kfunc: wit::KfuncUse) -> Self {
        Self { name: kfunc.name, required: kfunc.required, claim: kfunc.claim.map(Into::into) }
    }
}

impl From<wit::KfuncClaim> for declare::KfuncClaim {
    fn from(claim: wit::KfuncClaim) -> Self {
        Self { released_by: claim.released_by, may_be_null: claim.may_be_null, may_sleep: claim.may_sleep }
    }
}

impl From<wit::MapUse> for declare::MapUse {
    fn from(map: wit::MapUse) -> Self {
        Self { name: map.name, kind: map.kind.into(), max_entries: map.max_entries }
    }
}

impl From<wit::MapKind> for declare::MapKind {
    fn from(kind: wit::MapKind) -> Self {
        match kind {
            wit::MapKind::Latest => Self::Latest,
            wit::MapKind::Recent => Self::Recent,
            wit::MapKind::Count => Self::Count,
            wit::MapKind::Sum => Self::Sum,
            wit::MapKind::Minimum => Self::Minimum,
            wit::MapKind::Maximum => Self::Maximum,
            wit::MapKind::Average => Self::Average,
            wit::MapKind::Histogram(buckets) => Self::Histogram(buckets.into()),
            wit::MapKind::Stacks => Self::Stacks,
        }
    }
}

impl From<wit::Buckets> for declare::Buckets {
    fn from(buckets: wit::Buckets) -> Self {
        match buckets {
            wit::Buckets::PowersOfTwo => Self::PowersOfTwo,
            wit::Buckets::Linear(wit::LinearBuckets { low, high, step }) => Self::Linear { low, high, step },
        }
    }
}

impl From<wit::Probe> for declare::Probe {
    fn from(probe: wit::Probe) -> Self {
        Self { name: probe.name, attach: probe.attach, body: all(probe.body) }
    }
}

impl From<wit::Step> for declare::Step {
    fn from(step: wit::Step) -> Self {
        match step {
            wit::Step::Bind(wit::Binding { name, value }) => Self::Bind(declare::Binding { name, value }),
            wit::Step::When(condition) => Self::When(condition),
            wit::Step::Update(update) => Self::Update(update.into()),
            wit::Step::Emit(event) => Self::Emit(event.into()),
        }
    }
}

impl From<wit::Update> for declare::Update {
    fn from(update: wit::Update) -> Self {
        Self { target: update.target, key: update.key, change: update.change.into() }
    }
}

impl From<wit::Change> for declare::Change {
    fn from(change: wit::Change) -> Self {
        match change {
            wit::Change::Set(value) => Self::Set(value),
            wit::Change::Add(value) => Self::Add(value),
            wit::Change::Observe(value) => Self::Observe(value),
            wit::Change::Delete => Self::Delete,
        }
    }
}

impl From<wit::Event> for declare::Event {
    fn from(event: wit::Event) -> Self {
        Self { name: event.name, fields: all(event.fields) }
    }
}

impl From<wit::Field> for declare::Field {
    fn from(field: wit::Field) -> Self {
        Self { name: field.name, value: field.value }
    }
}

/// A field's names of an enumeration's values, or of bits, as the WIT type borrows them.
#[derive(Default)]
pub struct Names<'a> {
    values: Vec<(i64, &'a str)>,
    bits: Vec<events::Flag<'a>>,
}

/// The names that a schema's fields have; for a field without any, empty lists.
///
/// The WIT types borrow their lists, so a schema is converted from the inside out: `names`, [`fields`], [`schema`],
/// where the caller keeps each until the last is used.
pub fn names(schema: &layout::Schema) -> Vec<Names<'_>> {
    schema.fields.iter().map(|field| names_of(&field.kind)).collect()
}

/// A schema's fields, given their [`names`].
pub fn fields<'a>(schema: &'a layout::Schema, names: &'a [Names<'a>]) -> Vec<events::FieldLayout<'a>> {
    let field = |(field, names): (&'a layout::FieldLayout, &'a Names<'a>)| events::FieldLayout {
        name: &field.name,
        kind: field_kind(&field.kind, names),
        offset: field.offset,
    };
    schema.fields.iter().zip(names).map(field).collect()
}

/// A schema, given its [`fields`].
pub fn schema<'a>(schema: &'a layout::Schema, fields: &'a [events::FieldLayout<'a>]) -> events::Schema<'a> {
    events::Schema { id: schema.id, probe: &schema.probe, name: &schema.name, size: schema.size, fields }
}

fn names_of(kind: &layout::FieldKind) -> Names<'_> {
    match kind {
        layout::FieldKind::Enumeration(names) => {
            Names { values: names.iter().map(|(value, name)| (*value, name.as_str())).collect(), ..Names::default() }
        }
        layout::FieldKind::Flags(flags) => {
            let flags = flags.iter();
            let bits = flags.map(|f| events::Flag { name: f.name.as_str(), mask: f.mask, value: f.value });
            Names { bits: bits.collect(), ..Names::default() }
        }
        _ => Names::default(),
    }
}

fn field_kind<'a>(kind: &layout::FieldKind, names: &'a Names<'a>) -> events::FieldKind<'a> {
    use events::FieldKind as Wit;
    match kind {
        layout::FieldKind::Boolean => Wit::Boolean,
        layout::FieldKind::Signed(bytes) => Wit::Signed(*bytes),
        layout::FieldKind::Unsigned(bytes) => Wit::Unsigned(*bytes),
        layout::FieldKind::Enumeration(_) => Wit::Enumeration(&names.values),
        layout::FieldKind::Flags(_) => Wit::Flags(&names.bits),
        layout::FieldKind::Text => Wit::Text,
        layout::FieldKind::Bytes => Wit::Bytes,
        layout::FieldKind::Address => Wit::Address,
        layout::FieldKind::HardwareAddress => Wit::HardwareAddress,
        layout::FieldKind::KernelSymbol => Wit::KernelSymbol,
        layout::FieldKind::UserSymbol => Wit::UserSymbol,
        layout::FieldKind::KernelStack => Wit::KernelStack,
        layout::FieldKind::UserStack => Wit::UserStack,
    }
}

fn all<T, U: From<T>>(list: Vec<T>) -> Vec<U> {
    list.into_iter().map(Into::into).collect()
}
