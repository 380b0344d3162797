//! Workflows: steps that follow each other, kept through any crash.
//!
//! What people write ([`spec`]) is compiled into one form ([`program`]), in which everything that can be known to be wrong
//! was told. A pure [`machine`] runs it: from what happened and one thing more to what happens next.

mod checks;
mod compile;
mod graph;
pub mod machine;
pub mod program;
mod short;
pub mod spec;
#[cfg(test)]
mod tests;

pub use checks::{Check, CheckError, Comparison, described};
pub use compile::{VARIABLES, compile};
