//! Tests against a real containerd, a private one each.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must say so")]

mod archives;
mod basics;
mod conformance;
mod harness;
mod isolation;
mod pulling;
mod recovery;
mod spares;
mod streams;
