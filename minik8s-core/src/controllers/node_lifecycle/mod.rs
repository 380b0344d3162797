//! Nodes that fall silent: marked by their lease, and tainted, which keeps new pods away and makes those that are there
//! leave (the taint eviction controller sees to that). Their pods are marked as not ready.

mod decide;
mod zones;

pub use decide::{GiveUp, NOT_READY, UNREACHABLE, is_undecided, readiness, silenced, taints};
pub use zones::{EvictionPace, Permit, ZoneState, Zones};

use super::pods::{BY_NODE, index_by_node, is_finished, is_lost, is_ready, mark};
use super::{Controller, ControllerContext, Outcome, Reconciler, pump, run_workers};
use crate::api::{ApiResult, NODE_LEASES, NODE_NOT_READY};
use crate::client::{Change, EventType, Informer, InformerOptions, PatchType, WorkQueue, reference_of};
use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod};
use parking_lot::Mutex;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Watches the heartbeats of nodes.
pub struct NodeLifecycleController {
    /// A node that has been silent for this long is lost.
    pub grace: Duration,
    /// How fast nodes are given up.
    pub pace: EvictionPace,
}

#[async_trait]
impl Controller for NodeLifecycleController {
    fn name(&self) -> &str {
        "node-lifecycle-controller"
    }

    async fn run(self: Arc<Self>, ctx: ControllerContext) {
        let (nodes, pods) = (ctx.informers.of::<Node>(), ctx.informers.of::<Pod>());
        index_by_node(&pods);
        let leases =
            Informer::start(ctx.client.api::<Lease>(NODE_LEASES), InformerOptions::default(), ctx.stop.clone());
        let (_, _, _) = tokio::join!(nodes.synced(), pods.synced(), leases.synced());
        let mut zones = Zones::new(self.pace.clone());
        // Before the first decision: one that knew a few nodes only could take the cluster for lost.
        for node in nodes.list() {
            if let Some(ready) = readiness(&node) {
                zones.note(&node, ready == "True");
            }
        }
        let (queue, heard, marked, zones) = (ctx.queue(), Mutex::default(), Mutex::default(), Mutex::new(zones));
        let (q, grace) = (queue.clone(), self.grace);
        let watcher =
            Arc::new(Watcher { ctx: ctx.clone(), queue: q, nodes, pods, leases, grace, heard, zones, marked });
        watcher.watch(&queue);
        run_workers(&ctx, &queue, 2, watcher).await;
    }
}

/// A pod is marked no more often than this.
const MARK_AGAIN: Duration = Duration::from_secs(5);

/// When the lease was renewed last, and the node's status.
type Heartbeat = [Option<Timestamp>; 2];

struct Watcher {
    ctx: ControllerContext,
    queue: WorkQueue<String>,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    leases: Informer<Lease>,
    grace: Duration,
    /// When each node was heard last, by our own clock, and what it said then: clocks of machines differ.
    heard: Mutex<HashMap<String, (Heartbeat, Instant)>>,
    zones: Mutex<Zones>,
    /// When pods of lost nodes were marked, by node and uid.
    marked: Mutex<HashMap<String, HashMap<String, Instant>>>,
}

impl Watcher {
    fn watch(self: &Arc<Self>, queue: &WorkQueue<String>) {
        let q = queue.clone();
        pump(&self.ctx, &self.nodes, move |change| match change {
            Change::Applied { new: node, .. } | Change::Deleted(node) => {
                q.add(node.metadata.name.clone().unwrap_or_default())
            }
            Change::Resync => {}
        });
        // A heartbeat of a node that is known to live needs no look at it; its timer will find it.
        let (q, me) = (queue.clone(), self.clone());
        pump(&self.ctx, &self.leases, move |change| {
            if let Change::Applied { new: lease, .. } = change {
                let name = lease.metadata.name.clone().unwrap_or_default();
                if me.nodes.get(&name).is_some_and(|node| !me.hear(&name, &node) || is_lost(&node)) {
                    q.add(name);
                }
            }
        });
        let (q, nodes) = (queue.clone(), self.nodes.clone());
        pump(&self.ctx, &self.pods, move |change| {
            let Change::Applied { new: pod, .. } = change else { return };
            let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default();
            if is_ready(pod) && nodes.get(node).is_some_and(|node| is_lost(&node)) {
                q.add(node.to_owned());
            }
        });
    }

    /// Notes a heartbeat, if there is a new one; answers whether the node was known.
    fn hear(&self, name: &str, node: &Node) -> bool {
        let lease = self.leases.get(&format!("{NODE_LEASES}/{name}"));
        let renewed = lease.and_then(|l| l.spec.as_ref().and_then(|s| s.renew_time.as_ref().map(|t| t.0)));
        let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
        let ready = conditions.into_iter().flatten().find(|c| c.type_ == "Ready");
        let said = [renewed, ready.and_then(|c| c.last_heartbeat_time.as_ref().map(|t| t.0))];
        let mut heard = self.heard.lock();
        match heard.get_mut(name) {
            Some((before, _)) if *before == said => true,
            Some(entry) => {
                *entry = (said, Instant::now());
                true
            }
            None => {
                heard.insert(name.to_owned(), (said, Instant::now()));
                false
            }
        }
    }

    /// How much of the node's grace is left.
    fn left(&self, name: &str, node: &Node) -> Duration {
        self.hear(name, node);
        let since = self.heard.lock().get(name).map_or_else(Instant::now, |(_, at)| *at);
        self.grace.saturating_sub(since.elapsed())
    }

    /// Brings all nodes back where how the cluster is has changed.
    fn look_again(&self, changed: bool) {
        if changed {
            self.nodes.list().iter().for_each(|n| self.queue.add(n.metadata.name.clone().unwrap_or_default()));
        }
    }
}

#[async_trait]
impl Reconciler for Watcher {
    type Key = String;

    async fn reconcile(&self, name: &String) -> ApiResult<Outcome> {
        let Some(node) = self.nodes.get(name) else {
            self.heard.lock().remove(name);
            self.marked.lock().remove(name);
            let changed = self.zones.lock().forget(name);
            self.look_again(changed);
            return Ok(Outcome::Done);
        };
        let left = self.left(name, &node);
        let silenced = if left.is_zero() { silenced(&node, self.ctx.clock.now()) } else { None };
        let node = self.write_conditions(&node, silenced).await?;
        let noted = readiness(&node).map(|ready| self.zones.lock().note(&node, ready == "True"));
        self.look_again(noted == Some(true));
        let (give_up, later) = self.verdict(&node);
        self.write_taints(&node, give_up).await?;
        let again = if is_lost(&node) { self.mark_pods(name).await? } else { None };
        if !is_lost(&node) {
            self.marked.lock().remove(name);
        }
        let heartbeat = (!left.is_zero()).then_some(left);
        Ok(heartbeat.into_iter().chain(later).chain(again).min().map_or(Outcome::Done, Outcome::After))
    }
}

impl Watcher {
    /// Answers the node as it is then.
    async fn write_conditions(&self, node: &Node, conditions: Option<Vec<NodeCondition>>) -> ApiResult<Node> {
        let mut now = node.clone();
        if conditions.is_none() {
            return Ok(now);
        }
        now.status.get_or_insert_default().conditions = conditions;
        let now = self.ctx.client.all::<Node>().update_status(&now).await?;
        let note = "Node has not been heard of for too long: its status is unknown";
        self.ctx.events.event(&reference_of(node), EventType::Warning, NODE_NOT_READY, note);
        Ok(now)
    }

    /// What becomes of the node's pods, and when to ask again.
    fn verdict(&self, node: &Node) -> (GiveUp, Option<Duration>) {
        let mut zones = self.zones.lock();
        if !is_undecided(node) {
            let back = zones.nobody_answers();
            return (if back { GiveUp::TakeBack } else { GiveUp::AsBefore }, None);
        }
        match zones.permit(node, Instant::now()) {
            Permit::Now => (GiveUp::Yes, None),
            Permit::After(wait) => (GiveUp::AsBefore, Some(wait)),
            Permit::NotNow => (GiveUp::AsBefore, None),
            Permit::TakeBack => (GiveUp::TakeBack, None),
        }
    }

    async fn write_taints(&self, node: &Node, give_up: GiveUp) -> ApiResult<()> {
        let Some(taints) = taints(node, give_up, self.ctx.clock.now()) else { return Ok(()) };
        let version = &node.metadata.resource_version;
        let patch = json!({"metadata": {"resourceVersion": version}, "spec": {"taints": taints}});
        let name = node.metadata.name.as_deref().unwrap_or_default();
        self.ctx.client.all::<Node>().patch(name, PatchType::Merge, &patch).await.map(drop)
    }

    /// What the pods of a silent node last said of themselves does not count any more. A pod that says so again has an
    /// agent that speaks, and this controller may be the one that is behind: it does not answer at once. Tells when.
    async fn mark_pods(&self, node: &str) -> ApiResult<Option<Duration>> {
        let pods = self.pods.list_by(BY_NODE, node);
        let uid = |pod: &Pod| pod.metadata.uid.clone().unwrap_or_default();
        let mut again = None;
        for pod in pods {
            if is_ready(&pod) && !is_finished(&pod) {
                let since = self.marked.lock().get(node).and_then(|pods| pods.get(&uid(&pod)).map(Instant::elapsed));
                if let Some(wait) = since.and_then(|since| MARK_AGAIN.checked_sub(since)).filter(|wait| !wait.is_zero())
                {
                    again = Some(again.map_or(wait, |other: Duration| other.min(wait)));
                    continue;
                }
                self.marked.lock().entry(node.to_owned()).or_default().insert(uid(&pod), Instant::now());
                self.ctx.events.event(&reference_of(&*pod), EventType::Warning, NODE_NOT_READY, "Node is not ready");
                mark(&self.ctx, &pod, "Ready", "False", (NODE_NOT_READY, "Node is not ready")).await?;
            }
        }
        Ok(again)
    }
}
