//! How workflows are run.

use super::cluster_invoker::{ClusterInvoker, Gateways};
use super::controller::CallLimits;
use super::http::HttpPolicy;
use super::invoker::Invoker;
use super::trust::Authorities;
use k8s_openapi::api::core::v1::Node;
use minik8s_core::controllers::ControllerContext;
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
    /// Certificate authorities that steps trust beside those of the machine. Default: none.
    pub authorities: Authorities,
    /// How much is called at once.
    pub limits: CallLimits,
    /// Runs that are looked at at once.
    pub workers: usize,
}

impl WorkflowsConfig {
    /// What does what steps ask for, in a cluster.
    pub(crate) fn invoker(&self, ctx: &ControllerContext) -> Arc<dyn Invoker> {
        self.invoker.clone().unwrap_or_else(|| {
            let of_nodes = || Gateways::OfNodes(ctx.informers.of::<Node>());
            let gateways = self.gateway.clone().map_or_else(of_nodes, Gateways::At);
            let invoker = ClusterInvoker::new(ctx.client.clone(), gateways, self.http.clone());
            Arc::new(invoker.authorities(self.authorities.clone()))
        })
    }
}

impl Default for WorkflowsConfig {
    fn default() -> Self {
        Self {
            invoker: None,
            gateway: None,
            http: HttpPolicy::default(),
            authorities: Authorities::default(),
            limits: CallLimits::default(),
            workers: 8,
        }
    }
}

impl fmt::Debug for WorkflowsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { invoker, gateway, http, authorities, limits, workers } = self;
        let invoker = if invoker.is_some() { "own" } else { "the cluster's" };
        f.debug_struct("WorkflowsConfig")
            .field("invoker", &invoker)
            .field("gateway", gateway)
            .field("http", http)
            .field("authorities", authorities)
            .field("limits", limits)
            .field("workers", workers)
            .finish()
    }
}
