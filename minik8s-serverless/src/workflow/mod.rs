//! Workflows: steps that follow each other, kept through any crash.
//!
//! What people write ([`spec`]) is compiled into one form ([`program`]), in which everything that can be known to be wrong
//! was told. A pure [`machine`] runs it: from what happened and one thing more to what happens next.

mod checks;
mod cluster_invoker;
mod compile;
mod config;
mod controller;
pub mod draw;
mod fake;
mod graph;
mod http;
mod invoker;
mod kinds;
pub mod machine;
mod narrate;
mod objects;
pub mod program;
pub mod read;
mod records;
mod short;
mod size;
pub mod spec;
#[cfg(test)]
mod tests;
mod trust;
mod work;

pub use self::http::{HttpPolicy, KEY_HEADER, RUN_HEADER};
pub use checks::{Check, CheckError, Comparison, described};
pub use cluster_invoker::{ClusterInvoker, Gateways};
pub use compile::{VARIABLES, compile};
pub use config::WorkflowsConfig;
pub use controller::{CallLimits, events, program as program_of};
pub use fake::FakeInvoker;
pub use invoker::{Heartbeat, Invocation, Invoker};
pub use machine::Failure;
pub use narrate::{Line, narrate};
pub use objects::{History, RunFailure, RunSpec, RunStatus, Workflow, WorkflowRecord, WorkflowRun, WorkflowStatus};
pub use trust::Authorities;
pub use work::RUN_LABEL;

use minik8s_core::controllers::Controller;
use minik8s_core::server::Kind;
use std::sync::Arc;

/// Types of the kinds, for the server.
pub(crate) const SCHEMAS: &str = include_str!("schema.txt");

pub(crate) fn kinds() -> Vec<Arc<dyn Kind>> {
    vec![Arc::new(kinds::WorkflowKind::new()), Arc::new(kinds::RunKind::new()), Arc::new(kinds::RecordKind::new())]
}

pub(crate) fn controllers(config: &WorkflowsConfig) -> Vec<Arc<dyn Controller>> {
    vec![Arc::new(controller::RunController { config: config.clone() }), Arc::new(controller::WorkflowController)]
}
