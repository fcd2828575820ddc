//! What the tests of this crate share: declarations as short text, golden files, a machine that runs compiled programs without a kernel, and
//! random expressions.

pub mod declaration;
pub mod facts;
pub mod golden;
pub mod machine;
pub mod random;
