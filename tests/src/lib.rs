//! What the tests of this crate share: declarations as short text, golden files, a machine that runs compiled programs
//! without a kernel, random expressions, and declarations loaded into the running kernel.

pub mod cgroups;
pub mod declaration;
pub mod facts;
pub mod generate;
pub mod golden;
pub mod kernel;
pub mod live;
pub mod machine;
pub mod random;
