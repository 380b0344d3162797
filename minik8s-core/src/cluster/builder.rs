//! Putting a cluster together.

use super::parts::{self, NodeParts};
use super::{Cluster, ClusterError, Extension};
use crate::api::ApiResult;
use crate::client::ElectionConfig;
use crate::clock::SharedClock;
use crate::controllers::horizontal::HorizontalConfig;
use crate::controllers::{NodeFailures, PodRanges};
use crate::network::SharedNetwork;
use crate::node::{Companion, NodeConfig};
use crate::runtime::SharedRuntime;
use crate::scheduler::{FrameworkScheduler, Policy, Scheduler};
use crate::server::{Admission, ApiServer, ApiServerBuilder, Settings};
use crate::store::{MemoryStore, Store};
use jiff::SignedDuration;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// How soon usage of pods follows the truth at most, and at least, where nobody says.
const RESOLUTIONS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(15));

/// What a cluster is made of. Every part has a default but nodes: without one, the cluster is a control plane.
pub struct ClusterBuilder {
    /// Holds everything that is the server's alone to know, and the clock that all share.
    pub(super) server: ApiServerBuilder,
    pub(super) extensions: Vec<Arc<dyn Extension>>,
    pub(super) schedulers: Vec<Arc<dyn Scheduler>>,
    pub(super) nodes: Vec<NodeParts>,
    pub(super) listeners: Vec<TcpListener>,
    pub(super) names: Vec<String>,
    pub(super) advertise: Option<IpAddr>,
    pub(super) pki: Option<PathBuf>,
    pub(super) certificate_life: SignedDuration,
    pub(super) controllers: bool,
    pub(super) election: Option<ElectionConfig>,
    pub(super) node_failures: NodeFailures,
    pub(super) horizontal: HorizontalConfig,
    pub(super) resolution: Option<Duration>,
    pub(super) pod_ranges: Option<PodRanges>,
    pub(super) metrics: Vec<AddMetrics>,
}

/// Adds metrics to a page.
pub(super) type AddMetrics = Box<dyn FnOnce(&mut prometheus_client::registry::Registry) + Send>;

impl Default for ClusterBuilder {
    fn default() -> Self {
        Self {
            server: ApiServer::builder(Arc::new(MemoryStore::default())),
            extensions: Vec::new(),
            schedulers: vec![Arc::new(FrameworkScheduler::new(Policy::Default.profile()))],
            nodes: Vec::new(),
            listeners: Vec::new(),
            names: Vec::new(),
            advertise: None,
            pki: None,
            certificate_life: SignedDuration::from_hours(365 * 24),
            controllers: true,
            election: None,
            node_failures: NodeFailures::default(),
            horizontal: HorizontalConfig::default(),
            resolution: None,
            pod_ranges: None,
            metrics: Vec::new(),
        }
    }
}

impl ClusterBuilder {
    /// Where the state lives. Default: memory.
    #[must_use]
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.server.store = store;
        self
    }

    /// Where the time of day comes from. Default: the machine's clock.
    #[must_use]
    pub fn clock(self, clock: SharedClock) -> Self {
        Self { server: self.server.clock(clock), ..self }
    }

    /// What kinds default from: address ranges, the domain.
    #[must_use]
    pub fn settings(self, settings: Settings) -> Self {
        Self { server: self.server.settings(settings), ..self }
    }

    /// Makes identities and generated names repeatable.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { server: self.server.seed(seed), ..self }
    }

    /// Adds kinds and controllers.
    #[must_use]
    pub fn extension(mut self, extension: impl Extension) -> Self {
        self.extensions.push(Arc::new(extension));
        self
    }

    /// Adds a rule over writes.
    #[must_use]
    pub fn admission(self, rule: Arc<dyn Admission>) -> Self {
        Self { server: self.server.admission(rule), ..self }
    }

    /// Adds a scheduler, found by its name; one named `default-scheduler` replaces the built-in.
    #[must_use]
    pub fn scheduler(mut self, scheduler: impl Scheduler) -> Self {
        self.schedulers.retain(|known| known.name() != scheduler.name());
        self.schedulers.push(Arc::new(scheduler));
        self
    }

    /// Runs these schedulers and no others: pods that name another one are not touched. See
    /// [`scheduler::config`](crate::scheduler::config) for profiles from a file.
    #[must_use]
    pub fn schedulers(self, schedulers: impl IntoIterator<Item = Arc<dyn Scheduler>>) -> Self {
        Self { schedulers: schedulers.into_iter().collect(), ..self }
    }

    /// Adds a node that runs in this process.
    #[must_use]
    pub fn node(mut self, config: NodeConfig, runtime: SharedRuntime, network: SharedNetwork) -> Self {
        self.nodes.push(NodeParts { config, runtime, network, companions: Vec::new(), keep: None });
        self
    }

    /// Runs this beside the pods of the node that was added last.
    #[must_use]
    pub fn companion(mut self, companion: Arc<dyn Companion>) -> Self {
        if let Some(node) = self.nodes.last_mut() {
            node.companions.push(companion);
        }
        self
    }

    /// Counts on the page of the API server's metrics; `add` must not block.
    #[must_use]
    pub fn metrics(mut self, add: impl FnOnce(&mut prometheus_client::registry::Registry) + Send + 'static) -> Self {
        self.metrics.push(Box::new(add));
        self
    }

    /// Adds a node that pretends: a [`FakeRuntime`](crate::testkit::FakeRuntime) and a
    /// [`NoopNetwork`](crate::network::NoopNetwork), in a temporary directory.
    #[cfg(feature = "testkit")]
    #[must_use]
    pub fn fake_node(self, name: &str) -> Self {
        self.fake_node_with(name, Arc::new(crate::testkit::FakeRuntime::default()))
    }

    /// The same, on a fake runtime of which the caller keeps a hand.
    #[cfg(feature = "testkit")]
    #[must_use]
    pub fn fake_node_with(mut self, name: &str, runtime: Arc<crate::testkit::FakeRuntime>) -> Self {
        let node = NodeParts::fake(name, &self.nodes, runtime);
        self.nodes.push(node);
        self
    }

    /// Serves REST and gRPC over TLS here, beside other places named before: the first is the one that clients outside
    /// are told, and pods are told the first that is not on loopback. Default: nothing listens.
    #[must_use]
    pub fn listen(mut self, listener: TcpListener) -> Self {
        self.listeners.push(listener);
        self
    }

    /// More names and addresses that the server's certificate is for.
    #[must_use]
    pub fn server_names(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.names.extend(names);
        self
    }

    /// The address at which others reach a listener on all addresses. Default: that of the first node.
    #[must_use]
    pub fn advertise(self, address: IpAddr) -> Self {
        Self { advertise: Some(address), ..self }
    }

    /// Keeps keys and certificates in this directory. Default: they live as long as the process.
    #[must_use]
    pub fn pki(self, directory: impl Into<PathBuf>) -> Self {
        Self { pki: Some(directory.into()), ..self }
    }

    /// How long certificates of nodes are good at most; they renew them when a third of that is left. Default: a year.
    #[must_use]
    pub fn certificate_life(self, life: SignedDuration) -> Self {
        Self { certificate_life: life, ..self }
    }

    /// Runs neither controllers nor schedulers: an API server alone, as tests of clients and operators want it.
    #[must_use]
    pub fn without_controllers(self) -> Self {
        Self { controllers: false, ..self }
    }

    /// Gives each node that brings no range for its pods one out of these. Default: all nodes bring theirs.
    #[must_use]
    pub fn pod_ranges(self, ranges: PodRanges) -> Self {
        Self { pod_ranges: Some(ranges), ..self }
    }

    /// When nodes that fall silent are lost, and how fast they are given up. Default: as Kubernetes has it. How long
    /// pods stay there is in the [settings](Self::settings).
    #[must_use]
    pub fn node_failures(self, config: NodeFailures) -> Self {
        Self { node_failures: config, ..self }
    }

    /// A server at this address knows metrics beyond those of pods: plain HTTP, in the words of `custom.metrics.k8s.io` and
    /// `external.metrics.k8s.io`.
    ///
    /// # Errors
    /// `BadRequest` for anything but plain HTTP to a host.
    pub fn metrics_adapter(self, url: &str) -> ApiResult<Self> {
        Ok(Self { server: self.server.metrics_adapter(url)?, ..self })
    }

    /// See [`ApiServerBuilder::metric_resolution`]. Default: the time between two looks at an autoscaler, but from 2 to 15
    /// seconds.
    #[must_use]
    pub fn metric_resolution(self, resolution: Duration) -> Self {
        Self { resolution: Some(resolution), ..self }
    }

    /// What was said, or what follows from how often autoscalers look.
    pub(super) fn resolution(&self) -> Duration {
        let (least, most) = RESOLUTIONS;
        self.resolution.unwrap_or_else(|| self.horizontal.sync_period.clamp(least, most))
    }

    /// How autoscalers are followed. Default: as in Kubernetes, four times a minute.
    #[must_use]
    pub fn horizontal(self, config: HorizontalConfig) -> Self {
        Self { horizontal: config, ..self }
    }

    /// Runs controllers and schedulers only while this cluster leads those that share its state, under the Leases
    /// [`CONTROLLERS_LEASE`](crate::controllers::CONTROLLERS_LEASE) and
    /// [`SCHEDULER_LEASE`](crate::controllers::SCHEDULER_LEASE), whatever name `config` has. Default: so with a shared
    /// store (etcd), under a name of its own and the default times; with any other store they always run.
    #[must_use]
    pub fn election(self, config: ElectionConfig) -> Self {
        Self { election: Some(config), ..self }
    }

    /// Starts everything. When this returns, the API answers; nodes become ready in their own time.
    ///
    /// # Errors
    /// Where a part cannot start; nothing keeps running then.
    pub async fn start(self) -> Result<Cluster, ClusterError> {
        parts::start(self).await
    }
}
