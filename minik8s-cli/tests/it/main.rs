//! The `minik8s` program as a user has it: started as a process, driven by its own commands and by an unmodified
//! kubectl, on fakes and on real containers. Real ones live in a network namespace of the test's own, so that the
//! machine's links and rules are never touched.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

mod autoscale;
mod bad_input;
mod building;
mod callers;
mod chaos;
mod commands;
mod components;
mod drain;
mod edges;
mod etcd;
mod examples;
mod fleet;
mod flows;
mod forward;
mod front;
mod functions;
mod gateway;
mod gpus;
mod harness;
mod hostile;
mod images;
mod javascript;
mod jobs;
mod join;
mod kubectl;
mod later;
mod legacy;
mod lifecycle;
mod machines;
mod metrics;
mod node_jobs;
mod pauses;
mod profiles;
mod real;
mod registries;
mod regressions;
mod surviving;
mod top;
mod triggers;
mod workflow;
mod workloads;
