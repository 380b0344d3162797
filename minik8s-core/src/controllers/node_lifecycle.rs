//! Nodes that fall silent: marked by their lease, tainted, and left by their pods.

use super::{Controller, ControllerContext, Outcome, Reconciler, pump, run_workers};
use crate::api::ApiResult;
use crate::client::{
    Change, DeleteOptions, DeletePreconditions, EventType, Informer, InformerOptions, PatchType, WorkQueue,
    reference_of,
};
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use parking_lot::Mutex;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Where the leases of nodes are.
pub const LEASES: &str = "kube-node-lease";
/// Taint of a node that says it is not ready.
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// Taint of a node that says nothing any more.
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// How long a pod stays on such a node where it does not say so itself.
const STAY: i64 = 300;
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
        let leases = Informer::start(ctx.client.api::<Lease>(LEASES), InformerOptions::default(), ctx.stop.clone());
        let (_, _, _) = tokio::join!(nodes.synced(), pods.synced(), leases.synced());
        let queue = ctx.queue();
        let watcher =
            Arc::new(Watcher { ctx: ctx.clone(), nodes, pods, leases, grace: self.grace, heard: Mutex::default() });
        watcher.watch(&queue);
        run_workers(&ctx, &queue, 2, watcher).await;
    }
}

/// What a node should say of itself and carry. Pure.
#[derive(Debug, PartialEq)]
pub struct Judgement {
    /// Its conditions, where they must change.
    pub conditions: Option<Vec<NodeCondition>>,
    /// Its taints, where they must change.
    pub taints: Option<Vec<Taint>>,
}

/// Judges a node. `silent` says that its grace has run out.
pub fn judge(node: &Node, silent: bool, now: Timestamp) -> Judgement {
    let old = node.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let conditions = if silent { unknown(&old, now) } else { old.clone() };
    let ready = conditions.iter().find(|c| c.type_ == "Ready").map(|c| c.status.as_str());
    let taint = match ready {
        Some("Unknown") => Some(UNREACHABLE),
        Some("False") => Some(NOT_READY),
        _ => None,
    };
    let had = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    let taints = tainted(&had, taint, now);
    Judgement { conditions: (conditions != old).then_some(conditions), taints: (taints != had).then_some(taints) }
}

/// What is known of a node that says nothing: nothing.
fn unknown(old: &[NodeCondition], now: Timestamp) -> Vec<NodeCondition> {
    let never = old.iter().all(|c| c.type_ != "Ready");
    let (reason, message) = match never {
        true => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
        false => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
    };
    let doubt = |c: &NodeCondition| {
        let ours = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"].contains(&c.type_.as_str());
        if !ours || c.status == "Unknown" {
            return c.clone();
        }
        NodeCondition {
            status: "Unknown".into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_transition_time: Some(Time(now)),
            ..c.clone()
        }
    };
    let mut new: Vec<_> = old.iter().map(doubt).collect();
    if never {
        new.push(doubt(&NodeCondition { type_: "Ready".into(), ..NodeCondition::default() }));
    }
    new
}

/// The taints with `wanted` among them, and none of ours that is not wanted.
fn tainted(had: &[Taint], wanted: Option<&str>, now: Timestamp) -> Vec<Taint> {
    let ours = |t: &Taint| t.key == NOT_READY || t.key == UNREACHABLE;
    let mut taints: Vec<_> = had.iter().filter(|t| !ours(t) || Some(t.key.as_str()) == wanted).cloned().collect();
    for effect in ["NoSchedule", "NoExecute"] {
        if let Some(key) = wanted
            && !taints.iter().any(|t| t.key == key && t.effect == effect)
        {
            // The time counts for evictions only.
            let time_added = (effect == "NoExecute").then_some(Time(now));
            taints.push(Taint { key: key.into(), effect: effect.into(), value: None, time_added });
        }
    }
    taints
}

/// When a pod must leave a node with these taints: `None` for never. Pure.
pub fn leaves_at(pod: &Pod, taints: &[Taint], now: Timestamp) -> Option<Timestamp> {
    let none = Vec::new();
    let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_ref()).unwrap_or(&none);
    let one = |taint: &Taint| {
        let since = taint.time_added.as_ref().map_or(now, |t| t.0);
        let matching: Vec<_> = tolerations.iter().filter(|t| tolerates(t, taint)).collect();
        let seconds = match matching.iter().filter_map(|t| t.toleration_seconds).min() {
            Some(seconds) => seconds.max(0),
            None if !matching.is_empty() => return None,
            // What says nothing about our own taints gets the time that is usual.
            None if taint.key == NOT_READY || taint.key == UNREACHABLE => STAY,
            None => 0,
        };
        since.saturating_add(SignedDuration::from_secs(seconds)).ok()
    };
    taints.iter().filter(|t| t.effect == "NoExecute").filter_map(one).min()
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (key, value, effect) = (text(&toleration.key), text(&toleration.value), text(&toleration.effect));
    let exists = toleration.operator.as_deref() == Some("Exists");
    (effect.is_empty() || effect == taint.effect)
        && (key == taint.key || (key.is_empty() && exists))
        && (exists || value == text(&taint.value))
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
            let Change::Applied { new: pod, old: None } = change else { return };
            let node = pod.spec.as_ref().and_then(|s| s.node_name.clone()).unwrap_or_default();
            if nodes.get(&node).is_some_and(|n| n.spec.as_ref().is_some_and(|s| s.taints.is_some())) {
                q.add(node);
            }
        });
    }

    /// Notes a heartbeat, if there is a new one; answers whether the node was known.
    fn hear(&self, name: &str, node: &Node) -> bool {
        let lease = self.leases.get(&format!("{LEASES}/{name}"));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn node(ready: Option<&str>, taints: serde_json::Value) -> Node {
        let mut value = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "spec": {"taints": taints},
            "status": {"conditions": [{"type": "DiskPressure", "status": "False"}, {"type": "Custom", "status": "True"}]}});
        if let Some(status) = ready {
            let list = value["status"]["conditions"].as_array_mut().unwrap();
            list.push(json!({"type": "Ready", "status": status}));
        }
        serde_json::from_value(value).unwrap()
    }

    fn keys(taints: Option<Vec<Taint>>) -> Option<Vec<String>> {
        taints.map(|list| list.iter().map(|t| format!("{}:{}", t.key.rsplit('/').next().unwrap(), t.effect)).collect())
    }

    #[test]
    fn a_silent_node_is_unknown_and_unreachable() {
        let theirs = json!([{"key": "gpu", "effect": "NoSchedule"}, {"key": NOT_READY, "effect": "NoExecute"}]);
        let judged = judge(&node(Some("True"), theirs), true, at(9));
        let conditions = judged.conditions.unwrap();
        let told: Vec<_> = conditions.iter().map(|c| (c.type_.as_str(), c.status.as_str())).collect();
        assert_eq!(told, [("DiskPressure", "Unknown"), ("Custom", "True"), ("Ready", "Unknown")]);
        assert_eq!(conditions[2].reason.as_deref(), Some("NodeStatusUnknown"));
        let want = ["gpu:NoSchedule", "unreachable:NoSchedule", "unreachable:NoExecute"].map(str::to_owned);
        assert_eq!(keys(judged.taints), Some(want.to_vec()));
        let never = judge(&node(None, json!([])), true, at(9)).conditions.unwrap();
        assert_eq!(never.last().unwrap().reason.as_deref(), Some("NodeStatusNeverUpdated"));
    }

    #[test]
    fn taints_follow_what_the_node_says() {
        let ours = json!([{"key": UNREACHABLE, "effect": "NoSchedule"}, {"key": UNREACHABLE, "effect": "NoExecute"}]);
        let table = [
            (node(Some("True"), json!([])), None),
            (node(Some("True"), ours.clone()), Some(vec![])),
            (
                node(Some("False"), json!([])),
                Some(vec!["not-ready:NoSchedule".to_owned(), "not-ready:NoExecute".into()]),
            ),
            (node(Some("Unknown"), ours), None),
            (node(None, json!([])), None),
        ];
        for (node, want) in table {
            let judged = judge(&node, false, at(5));
            assert_eq!((judged.conditions, keys(judged.taints)), (None, want), "{:?}", node.status);
        }
    }

    #[test]
    fn pods_stay_as_long_as_they_tolerate() {
        let taint = |key: &str, effect: &str, since: i64| Taint {
            key: key.into(),
            effect: effect.into(),
            value: None,
            time_added: Some(Time(at(since))),
        };
        let lost = [taint(UNREACHABLE, "NoSchedule", 100), taint(UNREACHABLE, "NoExecute", 100)];
        let pod = |tolerations: serde_json::Value| {
            let value = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
                "spec": {"containers": [], "tolerations": tolerations}});
            serde_json::from_value::<Pod>(value).unwrap()
        };
        let table = [
            (json!([]), Some(400)),
            (json!([{"operator": "Exists"}]), None),
            (
                json!([{"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}]),
                Some(130),
            ),
            (json!([{"key": UNREACHABLE, "operator": "Exists", "tolerationSeconds": -5}]), Some(100)),
            (json!([{"key": UNREACHABLE, "operator": "Exists", "effect": "NoSchedule"}]), Some(400)),
            (json!([{"key": "other", "operator": "Exists"}]), Some(400)),
        ];
        for (tolerations, want) in table {
            assert_eq!(leaves_at(&pod(tolerations.clone()), &lost, at(150)), want.map(at), "{tolerations}");
        }
        let theirs = [taint("maintenance", "NoExecute", 100)];
        assert_eq!(leaves_at(&pod(json!([])), &theirs, at(150)), Some(at(100)));
        assert_eq!(leaves_at(&pod(json!([])), &[], at(150)), None);
    }
}
