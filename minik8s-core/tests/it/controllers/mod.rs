//! All controllers against the real API server, with simulated nodes. Time is paused: waits cost nothing, and graces of
//! minutes pass in an instant.

mod budgets;
mod election;
mod endpoints;
mod faults;
mod gateways;
mod lag;
mod namespaces;
mod nodes;
mod ownership;
mod ranges;
mod workloads;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use minik8s_core::client::{ApiResource, Client, ListOptions, PatchType, SharedTransport, key_of};
use minik8s_core::clock::SharedClock;
use minik8s_core::controllers::{self, ControllerManager, ControllersConfig, is_ready};
use minik8s_core::server::ApiServer;
use minik8s_core::store::MemoryStore;
use minik8s_core::testkit::clock::TokioClock;
use minik8s_core::testkit::faults::FaultyTransport;
use minik8s_core::testkit::sim_node::{SimNode, SimNodeConfig};
use minik8s_core::testkit::wait;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Of paused time.
const BOUND: Duration = Duration::from_secs(120);

struct World {
    client: Client,
    clock: SharedClock,
    node: Option<SimNode>,
    _stop: DropGuard,
}

impl World {
    /// A server, all controllers, and one node that takes every pod.
    async fn new() -> Self {
        Self::over(|server| server).await
    }

    /// The same, but what the controllers ask may fail.
    async fn faulty(seed: u64) -> (Self, Arc<FaultyTransport>) {
        let mut faults = None;
        let world = Self::over(|server| {
            let faulty = FaultyTransport::new(server, seed);
            faults = Some(faulty.clone());
            faulty
        })
        .await;
        (world, faults.unwrap())
    }

    async fn over(wrap: impl FnOnce(SharedTransport) -> SharedTransport) -> Self {
        let clock: SharedClock = Arc::new(TokioClock::default());
        let store = Arc::new(MemoryStore::new());
        let server = ApiServer::builder(store).clock(clock.clone()).seed(7).start().await.unwrap();
        let client = Client::new(server.clone());
        let config = ControllersConfig {
            ca: "-----BEGIN CERTIFICATE-----".into(),
            ..ControllersConfig::new(Arc::new(server.registry().clone()))
        };
        let stop = CancellationToken::new();
        let theirs = Client::new(wrap(server.clone()));
        let manager = ControllerManager::new(theirs, clock.clone(), controllers::all(&config));
        tokio::spawn(manager.run(stop.clone()));
        let mut world = Self { client, clock, node: None, _stop: stop.drop_guard() };
        world.node = Some(world.node("node-1", "10.1.1", true).await);
        world
    }

    async fn node(&self, name: &str, prefix: &str, binds: bool) -> SimNode {
        let config = SimNodeConfig {
            name: name.into(),
            pod_prefix: prefix.into(),
            binds,
            heartbeat: Duration::from_secs(10),
            clock: self.clock.clone(),
        };
        SimNode::start(self.client.clone(), config).await.unwrap()
    }

    async fn create<K: ApiResource>(&self, value: Value) -> K {
        let object: K = serde_json::from_value(value).unwrap();
        self.client.all::<K>().create(&object).await.unwrap()
    }

    async fn list<K: ApiResource>(&self, namespace: &str, labels: &str) -> Vec<K> {
        let options = ListOptions { label_selector: labels.into(), ..ListOptions::default() };
        self.client.api::<K>(namespace).list(&options).await.unwrap().items
    }

    async fn patch<K: ApiResource>(&self, namespace: &str, name: &str, patch: Value) -> K {
        self.client.api::<K>(namespace).patch(name, PatchType::Merge, &patch).await.unwrap()
    }

    /// Waits until exactly these many pods of these labels are ready, and no others are there.
    async fn ready_pods(&self, namespace: &str, labels: &str, count: usize) -> Vec<Pod> {
        wait::until(&format!("{count} pods of {labels} in {namespace} are ready"), BOUND, || async {
            let pods = self.list::<Pod>(namespace, labels).await;
            (pods.len() == count && pods.iter().all(is_ready)).then_some(pods)
        })
        .await
    }

    async fn gone<K: ApiResource>(&self, namespace: &str, name: &str) {
        wait::until(&format!("{} {namespace}/{name} is gone", K::KIND), BOUND, || async {
            self.client.api::<K>(namespace).get_opt(name).await.unwrap().is_none().then_some(())
        })
        .await;
    }

    /// Waits until the deployment is rolled out, by what `kubectl rollout status` looks at.
    async fn rolled_out(&self, namespace: &str, name: &str) -> Deployment {
        wait::until(&format!("{namespace}/{name} is rolled out"), BOUND, || async {
            let d = self.client.api::<Deployment>(namespace).get(name).await.unwrap();
            let (want, status) = (d.spec.as_ref()?.replicas, d.status.as_ref()?);
            let done = status.observed_generation >= d.metadata.generation
                && status.updated_replicas.unwrap_or(0) == want?
                && status.replicas.unwrap_or(0) == want?
                && status.available_replicas.unwrap_or(0) == want?
                && reason(&d, "Progressing") == "NewReplicaSetAvailable";
            done.then_some(d)
        })
        .await
    }
}

fn reason(deployment: &Deployment, kind: &str) -> String {
    let conditions = deployment.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    conditions.into_iter().find(|c| c.type_ == kind).and_then(|c| c.reason).unwrap_or_default()
}

fn template(labels: &Value, image: &str) -> Value {
    json!({"metadata": {"labels": labels}, "spec": {"containers": [
        {"name": "c", "image": image, "ports": [{"name": "web", "containerPort": 8080}]}]}})
}

fn replica_set(namespace: &str, name: &str, replicas: i32, labels: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": name, "namespace": namespace},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template(&labels, "app:1")}})
}

fn deployment(namespace: &str, name: &str, replicas: i32, image: &str) -> Value {
    let labels = json!({"app": name});
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": namespace},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template(&labels, image)}})
}

fn names<K: ApiResource>(objects: &[K]) -> Vec<String> {
    objects.iter().map(key_of).collect()
}

/// The uid of the one owner that manages an object.
fn owner<K: ApiResource>(object: &K) -> Option<String> {
    controllers::controller_of(object.metadata()).map(|r| r.uid.clone())
}

type Set = ReplicaSet;
