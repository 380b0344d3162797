//! Integration tests of the crate, in one binary because linking is what costs; one module per area.

mod api;
// mod kubectl;
mod noop_network;
mod rest;
mod store;
