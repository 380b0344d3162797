//! Integration tests of the crate, in one binary because linking is what costs; one module per area.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must say so")]

mod front;
mod functions;
mod guide;
mod images;
mod invokers;
mod later;
mod registries;
mod shims;
mod triggers;
mod workflows;
mod world;
