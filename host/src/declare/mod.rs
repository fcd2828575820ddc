//! What a plugin asks of the kernel, as plain data.
//!
//! This is the WIT interface `declarations` in Rust, with no kernel and no Wasm in it: it can be made by hand, read
//! from a file, or sent from one process to another. [`crate::plan`] gives it meaning.

use serde::{Deserialize, Serialize};

/// The whole of what a plugin asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declaration {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kfuncs: Vec<KfuncUse>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub maps: Vec<MapUse>,
    pub probes: Vec<Probe>,
    /// Milliseconds between ticks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tick: Option<u32>,
}

/// A kernel function that expressions call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KfuncUse {
    pub name: String,
    pub required: bool,
    #[serde(default)]
    pub claim: Option<KfuncClaim>,
}

/// What a plugin says of a kfunc that BTF does not tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KfuncClaim {
    pub released_by: Option<String>,
    pub may_be_null: bool,
    pub may_sleep: bool,
}

/// State kept in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MapUse {
    pub name: String,
    pub kind: MapKind,
    pub max_entries: u32,
}

/// What a map keeps for each key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MapKind {
    Latest,
    Recent,
    Count,
    Sum,
    Minimum,
    Maximum,
    Average,
    Histogram(Buckets),
    Stacks,
}

/// How a histogram divides the integers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Buckets {
    PowersOfTwo,
    Linear { low: i64, high: i64, step: u64 },
}

/// One program: where it fires and what it does there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    pub name: String,
    pub attach: Vec<String>,
    pub body: Vec<Step>,
}

/// One step of a probe's body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    Bind(Binding),
    When(String),
    Update(Update),
    Emit(Event),
}

/// A name for a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    pub name: String,
    pub value: String,
}

/// A change of a map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Update {
    pub target: String,
    pub key: Vec<String>,
    pub change: Change,
}

/// What happens to a map's entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    Set(String),
    Add(String),
    Observe(String),
    Delete,
}

/// An event: what a record of it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    pub name: String,
    pub fields: Vec<Field>,
}

/// A named value of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    pub name: String,
    pub value: String,
}
