//! Functions, workflows and triggers for minik8s.
//!
//! [`Serverless`] is an [`Extension`]: kinds in `minik8s.io/v1alpha1` and the controllers behind them, added to a cluster
//! through the same door that a user's crate has. A function is invoked at `/function/<namespace>/<name>` of every
//! node's gateway.

pub mod expr;
mod front;
pub mod functions;
mod lanes;
pub mod registry;
pub mod triggers;
pub mod workflow;

use functions::{Keeper, Neighbours};
use minik8s_core::api::schema::{SchemaError, Schemas};
use minik8s_core::cluster::Extension;
use minik8s_core::controllers::Controller;
use minik8s_core::server::{HttpDoor, Kind, Peers, Sidecar};
use std::net::SocketAddr;
use std::sync::Arc;

/// Everything of this crate, as one part of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Serverless {
    functions: functions::FunctionsConfig,
    workflows: workflow::WorkflowsConfig,
    triggers: triggers::TriggersConfig,
    front: Option<SocketAddr>,
}

impl Serverless {
    /// With the usual settings.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is counted, to be shown on a page.
    pub fn metrics(&self) -> functions::FunctionMetrics {
        self.functions.metrics.clone()
    }

    /// Keeps images of functions in this registry, which is served below `/v2/`.
    #[must_use]
    pub fn registry(mut self, registry: registry::Registry) -> Self {
        self.functions.registry = Some(registry);
        self
    }

    /// The loop that finds in the registries of API servers what is not in this one, for a process that builds images and is
    /// no API server itself.
    pub fn neighbours(&self, peers: Peers) -> Option<Arc<dyn Controller>> {
        let registry = self.functions.registry.clone()?;
        Some(Arc::new(Neighbours { registry, peers, follows: true }))
    }

    /// How functions are built and scaled.
    #[must_use]
    pub fn functions(self, functions: functions::FunctionsConfig) -> Self {
        Self { functions, ..self }
    }

    /// What triggers may do.
    #[must_use]
    pub fn triggers(self, triggers: triggers::TriggersConfig) -> Self {
        Self { triggers, ..self }
    }

    /// Listens here, beside the API server and where the gateways of all nodes can reach it, for calls that nobody waits for
    /// (`Prefer: respond-async`) and for webhooks at gateways. Port 0 takes a free one. Default: nowhere, and every call is
    /// waited for unless another API server of the cluster listens.
    #[must_use]
    pub fn front(self, address: SocketAddr) -> Self {
        Self { front: Some(address), ..self }
    }

    /// How workflows are run.
    #[must_use]
    pub fn workflows(self, workflows: workflow::WorkflowsConfig) -> Self {
        Self { workflows, ..self }
    }
}

impl Extension for Serverless {
    fn name(&self) -> &str {
        "serverless"
    }

    fn schemas(&self, schemas: &mut Schemas) -> Result<(), SchemaError> {
        for table in [functions::SCHEMAS, workflow::SCHEMAS, triggers::SCHEMAS] {
            schemas.insert_table(table)?;
        }
        Ok(())
    }

    fn kinds(&self) -> Vec<Arc<dyn Kind>> {
        [functions::kinds(), workflow::kinds(), triggers::kinds()].concat()
    }

    fn controllers(&self) -> Vec<Arc<dyn Controller>> {
        [
            functions::controllers(&self.functions),
            workflow::controllers(&self.workflows),
            triggers::controllers(&self.triggers, &self.workflows),
        ]
        .concat()
    }

    fn sidecars(&self) -> Vec<Arc<dyn Sidecar>> {
        let of = |address| front::FrontSidecar { address, triggers: self.triggers.clone() };
        self.front.map(|address| Arc::new(of(address)) as Arc<dyn Sidecar>).into_iter().collect()
    }

    fn attendants(&self, peers: &Peers) -> Vec<Arc<dyn Controller>> {
        let mut all = triggers::attendants(&self.triggers);
        if let Some(registry) = self.functions.registry.clone() {
            let peers = || peers.clone();
            all.push(Arc::new(Neighbours { registry: registry.clone(), peers: peers(), follows: false }));
            all.push(Arc::new(Keeper { registry, peers: peers() }));
        }
        all
    }

    fn doors(&self) -> Vec<Arc<dyn HttpDoor>> {
        let registry = self.functions.registry.clone();
        registry.into_iter().map(|r| Arc::new(registry::RegistryDoor(r)) as Arc<dyn HttpDoor>).collect()
    }
}
