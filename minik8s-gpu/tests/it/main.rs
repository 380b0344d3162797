//! Integration tests of the crate, in one binary because linking is what costs; one module per area.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must say so")]

mod local;
mod nodes;
mod slurm;
