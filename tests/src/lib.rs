//! What the tests of this crate share: declarations as short text, golden files, and a machine that runs compiled programs without a kernel.

pub mod declaration;
pub mod facts;
pub mod golden;
pub mod machine;
