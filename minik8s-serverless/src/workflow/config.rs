//! How workflows are run.

use super::controller::CallLimits;
use super::http::HttpPolicy;
use super::invoker::Invoker;
use std::fmt;
use std::sync::Arc;

/// How workflows are run.
#[derive(Clone)]
pub struct WorkflowsConfig {
    /// Does what steps ask for. Default: functions through a gateway, URLs directly, containers as pods.
    pub invoker: Option<Arc<dyn Invoker>>,
    /// The `host:port` of the gateway at which functions are called. Default: that of any node.
    pub gateway: Option<String>,
    /// Which URLs steps may call.
    pub http: HttpPolicy,
    /// How much is called at once.
    pub limits: CallLimits,
    /// Runs that are looked at at once.
    pub workers: usize,
}

impl Default for WorkflowsConfig {
    fn default() -> Self {
        Self { invoker: None, gateway: None, http: HttpPolicy::default(), limits: CallLimits::default(), workers: 8 }
    }
}

impl fmt::Debug for WorkflowsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { invoker, gateway, http, limits, workers } = self;
        let invoker = if invoker.is_some() { "own" } else { "the cluster's" };
        f.debug_struct("WorkflowsConfig")
            .field("invoker", &invoker)
            .field("gateway", gateway)
            .field("http", http)
            .field("limits", limits)
            .field("workers", workers)
            .finish()
    }
}
