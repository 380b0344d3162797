//! The default scheduler against the real API server, with simulated nodes. Time is paused: back-offs cost nothing.

mod affinity;
mod missed;
mod priority;
mod spread;

use k8s_openapi::api::core::v1::{Event, Namespace, Node, Pod};
use minik8s_core::client::{ApiResource, Client, ListOptions, PatchType};
use minik8s_core::clock::SharedClock;
use minik8s_core::controllers::ControllerManager;
use minik8s_core::scheduler::{SchedulerConfig, SchedulerLoop};
use minik8s_core::server::ApiServer;
use minik8s_core::store::MemoryStore;
use minik8s_core::testkit::clock::TokioClock;
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
    nodes: Vec<SimNode>,
    _stop: DropGuard,
}

impl World {
    /// A server, a scheduler, and nodes (8 CPUs, 16 GiB) in these zones.
    async fn new(nodes: &[(&str, &str)]) -> Self {
        let clock: SharedClock = Arc::new(TokioClock::default());
        let server =
            ApiServer::builder(Arc::new(MemoryStore::new())).clock(clock.clone()).seed(7).start().await.unwrap();
        let client = Client::new(server);
        let stop = CancellationToken::new();
        let scheduler = Arc::new(SchedulerLoop::new(SchedulerConfig::default()));
        let manager = ControllerManager::new(client.clone(), clock.clone(), vec![scheduler]);
        tokio::spawn(manager.run(stop.clone()));
        let mut world = Self { client, clock, nodes: Vec::new(), _stop: stop.drop_guard() };
        for (name, zone) in nodes {
            world.node(name, zone).await;
        }
        world
    }

    async fn node(&mut self, name: &str, zone: &str) {
        let labels = json!({"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone});
        let node: Node = serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}})).unwrap();
        self.client.all::<Node>().create(&node).await.unwrap();
        let config = SimNodeConfig {
            name: name.into(),
            pod_prefix: format!("10.1.{}", self.nodes.len()),
            binds: false,
            heartbeat: Duration::from_secs(10),
            clock: self.clock.clone(),
        };
        self.nodes.push(SimNode::start(self.client.clone(), config).await.unwrap());
    }

    async fn create<K: ApiResource>(&self, value: Value) -> K {
        let object: K = serde_json::from_value(value).unwrap();
        self.client.all::<K>().create(&object).await.unwrap()
    }

    /// Makes a pod with this label `app`, its spec completed by `extra`.
    async fn pod(&self, name: &str, app: &str, extra: Value) -> Pod {
        let mut spec = json!({"containers": [{"name": "c", "image": "app:1"}]});
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let metadata = json!({"name": name, "namespace": "default", "labels": {"app": app}});
        self.create(json!({"metadata": metadata, "spec": spec})).await
    }

    /// Waits until the pod has a node.
    async fn place_of(&self, name: &str) -> String {
        wait::until(&format!("{name} has a node"), BOUND, || async {
            self.client.api::<Pod>("default").get(name).await.unwrap().spec?.node_name
        })
        .await
    }

    /// Waits until the scheduler said this in the pod's condition and in an event.
    async fn refused(&self, name: &str, why: &str) {
        wait::until(&format!("{name} waits with {why:?}"), BOUND, || async {
            let pod = self.client.api::<Pod>("default").get(name).await.unwrap();
            let conditions = pod.status?.conditions?;
            conditions.iter().any(|c| c.message.as_deref().is_some_and(|m| m.starts_with(why))).then_some(())
        })
        .await;
        self.event(name, "FailedScheduling", why).await;
    }

    /// Waits for an event about the pod that begins with this.
    async fn event(&self, name: &str, reason: &str, begins: &str) {
        wait::until(&format!("{reason} of {name} says {begins:?}"), BOUND, || async {
            let events = self.client.api::<Event>("default").list(&ListOptions::default()).await.unwrap().items;
            let about = events.iter().filter(|e| e.involved_object.name.as_deref() == Some(name));
            let mut said = about.filter(|e| e.reason.as_deref() == Some(reason)).filter_map(|e| e.message.as_deref());
            said.any(|message| message.starts_with(begins)).then_some(())
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_opens_after_it_came_is_found_by_who_was_there_before_it() {
    let world = World::new(&[]).await;
    world.pod("early", "a", json!({})).await;
    world.refused("early", "no nodes available").await;
    let taint = json!({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"});
    let _: Node = world.create(json!({"metadata": {"name": "n"}, "spec": {"taints": [taint]}})).await;
    let nodes = world.client.all::<Node>();
    let room = json!({"status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "10"}}});
    nodes.patch_status("n", PatchType::Merge, &room).await.unwrap();
    // No filter refused the pod when it was tried: there was nothing to refuse.
    tokio::time::sleep(Duration::from_secs(30)).await;
    nodes.patch("n", PatchType::Merge, &json!({"spec": {"taints": null}})).await.unwrap();
    assert_eq!(world.place_of("early").await, "n");
}
