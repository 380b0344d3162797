//! The loops that make the cluster what its objects say. Each controller is a pure decision and, around it, the I/O:
//! informers in, a work queue of keys, writes through the client. None keeps state that a restart would miss.
//!
//! A [`ControllerManager`] runs a list of [`Controller`]s; [`all`] is the list of those that every cluster has, and
//! extensions add theirs to it.

pub mod bootstrap_tokens;
pub mod canary;
pub mod certificates;
pub mod conditions;
pub mod deployment;
pub mod disruption;
pub mod endpoints;
mod expect;
pub mod gateway;
pub mod gc;
pub mod horizontal;
mod kinds;
mod manager;
mod metrics;
pub mod namespace;
pub mod node_ipam;
pub mod node_lifecycle;
mod owner;
pub mod pod_gc;
mod pods;
pub mod replicaset;
mod runner;
pub mod taint_eviction;
#[cfg(test)]
mod tests;

pub use expect::{Expectations, UNSEEN};
pub use kinds::{KindDirectory, KindRef};
pub use manager::{CONTROLLERS_LEASE, Controller, ControllerContext, ControllerManager, SCHEDULER_LEASE};
pub use metrics::ControllerMetrics;
pub use node_ipam::{PodRanges, RangeError};
pub use node_lifecycle::EvictionPace;
pub use owner::{controller_of, controller_reference};
pub use pods::{is_active, is_available, is_ready, ready_since};
pub use runner::{Outcome, Reconciler, pump, run_workers};

use node_lifecycle::NodeLifecycleController;
use std::sync::Arc;
use std::time::Duration;

/// What the controllers of a cluster may be told.
#[derive(Clone)]
pub struct ControllersConfig {
    /// The kinds of the cluster, for those controllers that are about all of them.
    pub kinds: Arc<dyn KindDirectory>,
    /// Workers of each controller.
    pub workers: usize,
    /// When silent nodes are lost, and how fast they are given up.
    pub nodes: NodeFailures,
    /// Out of what nodes are given ranges for their pods; `None` where they bring their own.
    pub pod_ranges: Option<PodRanges>,
    /// How many finished pods are kept in the cluster.
    pub finished_pods: usize,
    /// The certificate authority that pods trust, PEM; empty to publish none.
    pub ca: String,
    /// How autoscalers are followed.
    pub horizontal: horizontal::HorizontalConfig,
    /// Signs certificates of nodes; without one, none can join.
    pub signer: Option<certificates::Signer>,
}

/// What is done about nodes that fall silent. The defaults are those of Kubernetes.
#[derive(Clone, Debug)]
pub struct NodeFailures {
    /// A node that has not been heard of for this long is lost.
    pub grace: Duration,
    /// How fast lost nodes are given up.
    pub pace: EvictionPace,
}

impl Default for NodeFailures {
    fn default() -> Self {
        Self { grace: Duration::from_secs(40), pace: EvictionPace::default() }
    }
}

impl ControllersConfig {
    /// The defaults of Kubernetes.
    pub fn new(kinds: Arc<dyn KindDirectory>) -> Self {
        let nodes = NodeFailures::default();
        let horizontal = horizontal::HorizontalConfig::default();
        let (ca, signer) = (String::new(), None);
        Self { kinds, workers: 4, nodes, pod_ranges: None, finished_pods: 12_500, ca, horizontal, signer }
    }
}

/// The controllers that every cluster has.
pub fn all(config: &ControllersConfig) -> Vec<Arc<dyn Controller>> {
    let workers = config.workers.max(1);
    let mut all: Vec<Arc<dyn Controller>> = vec![
        Arc::new(replicaset::ReplicaSetController { workers }),
        Arc::new(deployment::DeploymentController { workers }),
        Arc::new(endpoints::EndpointsController { workers }),
        Arc::new(namespace::NamespaceController { workers, kinds: config.kinds.clone() }),
        Arc::new(namespace::NamespaceContentController { ca: config.ca.clone() }),
        Arc::new(gc::GarbageCollector { workers, kinds: config.kinds.clone() }),
        Arc::new(NodeLifecycleController { grace: config.nodes.grace, pace: config.nodes.pace.clone() }),
        Arc::new(taint_eviction::TaintEvictionController { workers }),
        Arc::new(disruption::DisruptionController { workers, kinds: config.kinds.clone() }),
        Arc::new(horizontal::HorizontalController { config: config.horizontal.clone(), kinds: config.kinds.clone() }),
        Arc::new(certificates::CertificateController { signer: config.signer.clone() }),
        Arc::new(bootstrap_tokens::BootstrapTokenController),
        Arc::new(gateway::GatewayController),
        Arc::new(canary::CanaryController),
        Arc::new(pod_gc::PodGarbageCollector { finished: config.finished_pods }),
    ];
    if let Some(ranges) = config.pod_ranges {
        all.push(Arc::new(node_ipam::NodeIpamController { ranges }));
    }
    all
}
