//! A simulated node: it registers, renews its lease, and reports the pods bound to it as running, without running
//! anything. What it needs is the API; what it plays is the node agent.

use crate::api::{ApiError, ApiResult, Target};
use crate::client::{
    ApiResource, Change, Client, DeleteOptions, DeletePreconditions, Informer, InformerOptions, PatchType, Payload,
    WriteOptions,
};
use crate::clock::SharedClock;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::warn;

/// A pod with this annotation runs, but is not ready while the annotation is there.
pub const NOT_READY: &str = "sim.minik8s.io/not-ready";
/// A pod one of whose images contains this text never starts.
pub const BROKEN_IMAGE: &str = "broken";

/// How a simulated node behaves.
#[derive(Clone)]
pub struct SimNodeConfig {
    /// Its name.
    pub name: String,
    /// The first three numbers of its pods' addresses, such as `10.244.7`.
    pub pod_prefix: String,
    /// Binds pods that have no node to itself: a cluster without a scheduler needs one such node.
    pub binds: bool,
    /// Time between heartbeats.
    pub heartbeat: Duration,
    /// Where the time of heartbeats comes from.
    pub clock: SharedClock,
}

/// A running simulated node. It falls silent when dropped, as a machine does that loses power.
pub struct SimNode {
    name: String,
    _stop: DropGuard,
}

impl SimNode {
    /// Registers the node and begins to play.
    ///
    /// # Errors
    /// Where the API refuses the node.
    pub async fn start(client: Client, config: SimNodeConfig) -> ApiResult<Self> {
        register(&client, &config).await?;
        let stop = CancellationToken::new();
        let pods = Informer::start(client.all::<Pod>(), InformerOptions::default(), stop.clone());
        pods.synced().await;
        let name = config.name.clone();
        beat(&client, &config).await?;
        let heart = heartbeats(client.clone(), config.clone());
        let player = Player { client, config, addresses: HashMap::new() };
        let (one, two) = (stop.clone(), stop.clone());
        tokio::spawn(async move { one.run_until_cancelled(heart).await });
        tokio::spawn(async move { two.run_until_cancelled(player.run(pods)).await });
        Ok(Self { name, _stop: stop.drop_guard() })
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

async fn register(client: &Client, config: &SimNodeConfig) -> ApiResult<()> {
    let (api, name) = (client.all::<Node>(), config.name.as_str());
    let at = crate::clock::rfc3339(config.clock.now());
    let node = Node { metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() }, ..Node::default() };
    match api.create(&node).await {
        Err(e) if !e.is_already_exists() => return Err(e),
        _ => {}
    }
    let status = json!({"status": {
        "capacity": {"cpu": "8", "memory": "16Gi", "pods": "110"},
        "allocatable": {"cpu": "8", "memory": "16Gi", "pods": "110"},
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "simulated",
            "lastHeartbeatTime": at, "lastTransitionTime": at}]}});
    api.patch_status(name, PatchType::Merge, &status).await.map(|_| ())
}

async fn heartbeats(client: Client, config: SimNodeConfig) {
    loop {
        tokio::time::sleep(config.heartbeat).await;
        if let Err(error) = beat(&client, &config).await {
            warn!(%error, "simulated node could not renew its lease");
        }
    }
}

async fn beat(client: &Client, config: &SimNodeConfig) -> ApiResult<()> {
    let api = client.api::<Lease>(crate::api::NODE_LEASES);
    let now = MicroTime(config.clock.now());
    let patch = json!({"spec": {"renewTime": now}});
    match api.patch(&config.name, PatchType::Merge, &patch).await {
        Err(e) if e.is_not_found() => {
            let spec = LeaseSpec {
                holder_identity: Some(config.name.clone()),
                lease_duration_seconds: Some(40),
                renew_time: Some(now),
                ..LeaseSpec::default()
            };
            let metadata = ObjectMeta { name: Some(config.name.clone()), ..ObjectMeta::default() };
            api.create(&Lease { metadata, spec: Some(spec) }).await.map(|_| ())
        }
        other => other.map(|_| ()),
    }
}

struct Player {
    client: Client,
    config: SimNodeConfig,
    /// Addresses by uid, so that a pod keeps its own.
    addresses: HashMap<String, String>,
}

impl Player {
    async fn run(mut self, pods: Informer<Pod>) {
        let mut changes = pods.subscribe();
        let mut todo = pods.list();
        loop {
            for pod in todo {
                match self.play(&pod).await {
                    Err(e) if !e.is_not_found() && !e.is_conflict() => warn!(error = %e, "simulated node failed"),
                    _ => {}
                }
            }
            todo = match changes.next().await {
                None => return,
                Some(Change::Applied { new, .. }) => vec![new],
                Some(Change::Deleted(_)) => Vec::new(),
                Some(Change::Resync) => pods.list(),
            };
        }
    }

    async fn play(&mut self, pod: &Pod) -> ApiResult<()> {
        let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default();
        if node.is_empty() && self.config.binds && pod.metadata.deletion_timestamp.is_none() {
            return self.bind(pod).await;
        }
        if node != self.config.name {
            return Ok(());
        }
        let (name, namespace) = place(pod);
        let api = self.client.api::<Pod>(namespace);
        if pod.metadata.deletion_timestamp.is_some() {
            let preconditions = DeletePreconditions { uid: pod.metadata.uid.clone(), resource_version: None };
            let options = DeleteOptions { grace_period_seconds: Some(0), preconditions, ..DeleteOptions::default() };
            return api.delete(name, &options).await.map(|_| ());
        }
        match self.status(pod) {
            Some(status) => api.patch_status(name, PatchType::Merge, &json!({"status": status})).await.map(|_| ()),
            None => Ok(()),
        }
    }

    async fn bind(&self, pod: &Pod) -> ApiResult<()> {
        let (name, namespace) = place(pod);
        let body = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name, "namespace": namespace},
            "target": {"kind": "Node", "name": self.config.name}});
        let target = Target::object(Pod::gvr(), namespace, name).sub("binding");
        let payload = Payload::Json(body.to_string().into());
        let bound = self.client.transport().create(&target, payload, &WriteOptions::default()).await;
        bound.map(|_| ()).or_else(|e: ApiError| if e.is_conflict() { Ok(()) } else { Err(e) })
    }

    /// The status the pod should have, where it has another.
    fn status(&mut self, pod: &Pod) -> Option<Value> {
        let spec = pod.spec.as_ref()?;
        if spec.containers.iter().any(|c| c.image.as_deref().is_some_and(|i| i.contains(BROKEN_IMAGE))) {
            return None;
        }
        let ready = !pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(NOT_READY));
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        if phase == Some("Running") && crate::controllers::is_ready(pod) == ready {
            return None;
        }
        let next = self.addresses.len() + 1;
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let prefix = &self.config.pod_prefix;
        let ip = self.addresses.entry(uid).or_insert_with(|| format!("{prefix}.{next}")).clone();
        let at = crate::clock::rfc3339(self.config.clock.now());
        let ready = if ready { "True" } else { "False" };
        let condition = |kind: &str| json!({"type": kind, "status": ready, "lastTransitionTime": at});
        Some(json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "startTime": at,
            "conditions": [condition("Ready"), condition("ContainersReady")]}))
    }
}

fn place(pod: &Pod) -> (&str, &str) {
    let meta = &pod.metadata;
    (meta.name.as_deref().unwrap_or_default(), meta.namespace.as_deref().unwrap_or_default())
}
