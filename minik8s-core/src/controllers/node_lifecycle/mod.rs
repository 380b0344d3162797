//! Nodes that fall silent: marked by their lease, tainted, and left by their pods.

mod decide;

pub use decide::{Judgement, NOT_READY, UNREACHABLE, judge, leaves_at};

use super::{Controller, ControllerContext, Outcome, Reconciler, pump, run_workers};
use crate::api::{ApiResult, NODE_LEASES};
use crate::client::{
    Change, DeleteOptions, DeletePreconditions, EventType, Informer, InformerOptions, PatchType, WorkQueue,
    reference_of,
};
use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use parking_lot::Mutex;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const BY_NODE: &str = "node";

/// Watches the heartbeats of nodes.
pub struct NodeLifecycleController {
    /// A node that has been silent for this long is lost.
    pub grace: Duration,
}

#[async_trait]
impl Controller for NodeLifecycleController {
    fn name(&self) -> &str {
        "node-lifecycle-controller"
    }

    async fn run(self: Arc<Self>, ctx: ControllerContext) {
        let (nodes, pods) = (ctx.informers.of::<Node>(), ctx.informers.of::<Pod>());
        pods.add_index(BY_NODE, |p| p.spec.as_ref().and_then(|s| s.node_name.clone()).into_iter().collect());
        let leases =
            Informer::start(ctx.client.api::<Lease>(NODE_LEASES), InformerOptions::default(), ctx.stop.clone());
        let (_, _, _) = tokio::join!(nodes.synced(), pods.synced(), leases.synced());
        let queue = ctx.queue();
        let watcher =
            Arc::new(Watcher { ctx: ctx.clone(), nodes, pods, leases, grace: self.grace, heard: Mutex::default() });
        watcher.watch(&queue);
        run_workers(&ctx, &queue, 2, watcher).await;
    }
}

/// When the lease was renewed last, and the node's status.
type Heartbeat = [Option<Timestamp>; 2];

struct Watcher {
    ctx: ControllerContext,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    leases: Informer<Lease>,
    grace: Duration,
    /// When each node was heard last, by our own clock, and what it said then: clocks of machines differ.
    heard: Mutex<HashMap<String, (Heartbeat, Instant)>>,
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
                if me.nodes.get(&name).is_some_and(|node| !me.hear(&name, &node) || super::pods::is_lost(&node)) {
                    q.add(name);
                }
            }
        });
        let (q, nodes) = (queue.clone(), self.nodes.clone());
        pump(&self.ctx, &self.pods, move |change| {
            let Change::Applied { new: pod, old } = change else { return };
            let held = |pod: &Pod| pod.spec.as_ref().map(|s| (s.node_name.clone(), s.tolerations.clone()));
            if old.as_ref().is_some_and(|old| held(old) == held(pod)) {
                return;
            }
            let node = pod.spec.as_ref().and_then(|s| s.node_name.clone()).unwrap_or_default();
            if nodes.get(&node).is_some_and(|n| n.spec.as_ref().is_some_and(|s| s.taints.is_some())) {
                q.add(node);
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
}

#[async_trait]
impl Reconciler for Watcher {
    type Key = String;

    async fn reconcile(&self, name: &String) -> ApiResult<Outcome> {
        let Some(node) = self.nodes.get(name) else {
            self.heard.lock().remove(name);
            return Ok(Outcome::Done);
        };
        let left = self.left(name, &node);
        let judgement = judge(&node, left.is_zero(), self.ctx.clock.now());
        let taints = self.apply(&node, judgement).await?;
        let leaving = self.evict(name, &taints).await?;
        let heartbeat = (!left.is_zero()).then_some(left);
        Ok(heartbeat.into_iter().chain(leaving).min().map_or(Outcome::Done, Outcome::After))
    }
}

impl Watcher {
    /// Writes what must change; answers the taints the node has then.
    async fn apply(&self, node: &Node, judgement: Judgement) -> ApiResult<Vec<Taint>> {
        let api = self.ctx.client.all::<Node>();
        let mut now = node.clone();
        if let Some(conditions) = judgement.conditions {
            now.status.get_or_insert_default().conditions = Some(conditions);
            now = api.update_status(&now).await?;
            let note = "Node has not been heard of for too long: its status is unknown";
            self.ctx.events.event(&reference_of(node), EventType::Warning, "NodeNotReady", note);
        }
        if let Some(taints) = judgement.taints {
            let version = &now.metadata.resource_version;
            let patch = json!({"metadata": {"resourceVersion": version}, "spec": {"taints": taints}});
            let name = node.metadata.name.as_deref().unwrap_or_default();
            now = api.patch(name, PatchType::Merge, &patch).await?;
        }
        Ok(now.spec.and_then(|s| s.taints).unwrap_or_default())
    }

    /// Deletes the pods that must leave; answers how long until the next one must.
    async fn evict(&self, node: &str, taints: &[Taint]) -> ApiResult<Option<Duration>> {
        if taints.iter().all(|t| t.effect != "NoExecute") {
            return Ok(None);
        }
        let now = self.ctx.clock.now();
        let mut next: Option<Duration> = None;
        for pod in self.pods.list_by(BY_NODE, node) {
            let Some(at) = leaves_at(&pod, taints, now).filter(|_| super::is_active(&pod)) else { continue };
            let left = Duration::try_from(at.duration_since(now)).unwrap_or_default();
            if left.is_zero() {
                self.delete(&pod).await?;
            } else {
                next = Some(next.map_or(left, |n| n.min(left)));
            }
        }
        Ok(next)
    }

    async fn delete(&self, pod: &Pod) -> ApiResult<()> {
        let meta = &pod.metadata;
        let note = format!("Marking for deletion Pod {}", crate::client::key_of(pod));
        self.ctx.events.event(&reference_of(pod), EventType::Normal, "TaintManagerEviction", note);
        let preconditions = DeletePreconditions { uid: meta.uid.clone(), resource_version: None };
        let options = DeleteOptions { preconditions, ..DeleteOptions::default() };
        let api = self.ctx.client.api::<Pod>(meta.namespace.as_deref().unwrap_or_default());
        match api.delete(meta.name.as_deref().unwrap_or_default(), &options).await {
            Err(e) if !e.is_not_found() && !e.is_conflict() => Err(e),
            _ => Ok(()),
        }
    }
}
