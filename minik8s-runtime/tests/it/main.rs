//! Tests against a real containerd, a private one each.

mod basics;
mod conformance;
mod harness;
mod pulling;
mod recovery;
mod streams;
