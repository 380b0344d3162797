//! Stores under the conformance suite.

mod memory;
