//! Functions: code in, URL out, and nothing running while nobody calls.

pub mod api;
mod kind;

use minik8s_core::controllers::Controller;
use minik8s_core::server::Kind;
use std::sync::Arc;

/// Types of the kinds, for the server.
pub(crate) const SCHEMAS: &str = include_str!("schema.txt");

/// How functions are built and scaled.
#[derive(Clone, Debug, Default)]
pub struct FunctionsConfig {}

pub(crate) fn kinds() -> Vec<Arc<dyn Kind>> {
    vec![Arc::new(kind::FunctionKind::new()), Arc::new(kind::RevisionKind::new())]
}

pub(crate) fn controllers(_config: &FunctionsConfig) -> Vec<Arc<dyn Controller>> {
    Vec::new()
}
