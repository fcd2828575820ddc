//! Why a function of the host ended the plugin that called it, and the bounds of what one may be passed.

use thiserror::Error;

use super::outbox::Full;
use super::records::RecordError;

/// Bytes of a row's name at most, as wit/host.wit promises.
pub const NAME: usize = 64;
/// Columns of a row at most, as wit/host.wit promises.
pub const COLUMNS: usize = 256;
/// Names that a plugin may ask for in one call, as wit/host.wit promises.
pub const NAMES: usize = 1 << 16;

/// Why a function of the host ended the plugin.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error("more output in one call than the plugin may send")]
    Output,
    #[error("unknown map `{0}`")]
    UnknownMap(String),
    #[error("row: `{0}` is not an identifier of at most {NAME} bytes")]
    Name(String),
    #[error("row: {0} columns, and at most {COLUMNS} are allowed")]
    Columns(usize),
    #[error("names: more than {NAMES} names in one call")]
    Names,
    #[error("forward: called before `start`")]
    NotStarted,
    #[error("forward: {0}")]
    Record(RecordError),
}

impl From<Full> for Refusal {
    fn from(_: Full) -> Refusal {
        Refusal::Output
    }
}
