//! Integration tests of the crate, in one binary because linking is what costs; one module per area.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must say so")]

mod api;
mod client;
mod clock;
mod cluster;
mod controllers;
mod fake_runtime;
mod jobs;
mod join;
mod kubectl;
mod metrics;
mod node;
mod noop_network;
mod rest;
mod scheduling;
mod server;
mod simulation;
mod store;

// For the simulation: one seed is one run.
minik8s_core::repeatable_hashing!();
