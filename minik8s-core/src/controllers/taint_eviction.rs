//! Pods leave nodes whose taints they do not tolerate, or no longer.

use super::pods::{BY_NODE, delete, disrupted, index_by_node};
use super::{Controller, ControllerContext, Outcome, Reconciler, pump, run_workers};
use crate::api::ApiResult;
use crate::client::{Change, EventType, Informer, WorkQueue, key_of, reference_of};
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use std::sync::Arc;
use std::time::Duration;

/// Deletes pods from nodes with `NoExecute` taints.
pub struct TaintEvictionController {
    /// How many nodes are looked at at once.
    pub workers: usize,
}

#[async_trait]
impl Controller for TaintEvictionController {
    fn name(&self) -> &str {
        "taint-eviction-controller"
    }

    async fn run(self: Arc<Self>, ctx: ControllerContext) {
        let (nodes, pods) = (ctx.informers.of::<Node>(), ctx.informers.of::<Pod>());
        index_by_node(&pods);
        let (_, _) = tokio::join!(nodes.synced(), pods.synced());
        let queue = ctx.queue();
        watch(&ctx, &queue, &nodes, &pods);
        run_workers(&ctx, &queue, self.workers, Arc::new(Evictor { ctx: ctx.clone(), nodes, pods })).await;
    }
}

fn watch(ctx: &ControllerContext, queue: &WorkQueue<String>, nodes: &Informer<Node>, pods: &Informer<Pod>) {
    let q = queue.clone();
    pump(ctx, nodes, move |change| {
        if let Change::Applied { old, new } = change
            && old.as_ref().is_none_or(|old| expelling(old).ne(expelling(new)))
            && expelling(new).next().is_some()
        {
            q.add(new.metadata.name.clone().unwrap_or_default());
        }
    });
    let (q, nodes) = (queue.clone(), nodes.clone());
    pump(ctx, pods, move |change| {
        let Change::Applied { new: pod, old } = change else { return };
        let held = |pod: &Pod| pod.spec.as_ref().map(|s| (s.node_name.clone(), s.tolerations.clone()));
        if old.as_ref().is_some_and(|old| held(old) == held(pod)) {
            return;
        }
        let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).and_then(|name| nodes.get(name));
        if let Some(node) = node.filter(|node| expelling(node).next().is_some()) {
            q.add(node.metadata.name.clone().unwrap_or_default());
        }
    });
}

/// The taints that make pods leave.
fn expelling(node: &Node) -> impl Iterator<Item = &Taint> {
    node.spec.iter().flat_map(|s| s.taints.iter().flatten()).filter(|t| t.effect == "NoExecute")
}

struct Evictor {
    ctx: ControllerContext,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
}

#[async_trait]
impl Reconciler for Evictor {
    type Key = String;

    async fn reconcile(&self, name: &String) -> ApiResult<Outcome> {
        let Some(node) = self.nodes.get(name) else { return Ok(Outcome::Done) };
        let taints: Vec<&Taint> = expelling(&node).collect();
        if taints.is_empty() {
            return Ok(Outcome::Done);
        }
        let now = self.ctx.clock.now();
        let mut next: Option<Duration> = None;
        for pod in self.pods.list_by(BY_NODE, name) {
            let Some(at) = leaves_at(&pod, &taints, now).filter(|_| super::is_active(&pod)) else { continue };
            let left = Duration::try_from(at.duration_since(now)).unwrap_or_default();
            if left.is_zero() {
                self.evict(&pod).await?;
            } else {
                next = Some(next.map_or(left, |n| n.min(left)));
            }
        }
        Ok(next.map_or(Outcome::Done, Outcome::After))
    }
}

impl Evictor {
    async fn evict(&self, pod: &Pod) -> ApiResult<()> {
        let note = format!("Marking for deletion Pod {}", key_of(pod));
        self.ctx.events.event(&reference_of(pod), EventType::Normal, "TaintManagerEviction", note);
        let why = ("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint");
        disrupted(&self.ctx, pod, why).await?;
        delete(&self.ctx.client, pod, None).await
    }
}

/// When a pod must leave a node with these taints: `None` for never. Pure.
///
/// A toleration that ends counts from when the taint came, or from when the pod did, whichever was later.
pub fn leaves_at(pod: &Pod, taints: &[&Taint], now: Timestamp) -> Option<Timestamp> {
    let none = Vec::new();
    let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_ref()).unwrap_or(&none);
    let one = |taint: &&Taint| {
        let since = taint.time_added.as_ref().map_or(now, |t| t.0).max(bound_at(pod).unwrap_or(Timestamp::MIN));
        let matching: Vec<_> = tolerations.iter().filter(|t| tolerates(t, taint)).collect();
        let seconds = match matching.iter().filter_map(|t| t.toleration_seconds).min() {
            Some(seconds) => seconds.max(0),
            None if !matching.is_empty() => return None,
            None => return Some(now),
        };
        since.saturating_add(SignedDuration::from_secs(seconds)).ok()
    };
    taints.iter().filter_map(one).min()
}

fn bound_at(pod: &Pod) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let scheduled = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "True")?;
    scheduled.last_transition_time.as_ref().map(|t| t.0)
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (key, value, effect) = (text(&toleration.key), text(&toleration.value), text(&toleration.effect));
    let exists = toleration.operator.as_deref() == Some("Exists");
    (effect.is_empty() || effect == taint.effect)
        && (key == taint.key || (key.is_empty() && exists))
        && (exists || value == text(&taint.value))
}

#[cfg(test)]
mod tests {
    use super::super::node_lifecycle::UNREACHABLE;
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn pod(tolerations: serde_json::Value, bound: i64) -> Pod {
        let condition = json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": at(bound).to_string()});
        let value = json!({"metadata": {"name": "p"}, "spec": {"containers": [], "tolerations": tolerations},
            "status": {"conditions": [condition]}});
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn pods_stay_as_long_as_they_tolerate() {
        let taint = |key: &str| Taint {
            key: key.into(),
            effect: "NoExecute".into(),
            value: None,
            time_added: Some(Time(at(100))),
        };
        let (lost, other) = (taint(UNREACHABLE), taint("maintenance"));
        let for_a_while = |seconds: i64| {
            json!([{"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": seconds}])
        };
        // tolerations, when it was bound; when it must leave
        let table = [
            (json!([]), 50, Some(150)),
            (json!([{"operator": "Exists"}]), 50, None),
            (for_a_while(30), 50, Some(130)),
            (for_a_while(30), 140, Some(170)),
            (for_a_while(-5), 50, Some(100)),
            (json!([{"key": UNREACHABLE, "operator": "Exists", "effect": "NoSchedule"}]), 50, Some(150)),
            (json!([{"key": "other", "operator": "Exists"}]), 50, Some(150)),
        ];
        for (tolerations, bound, want) in table {
            assert_eq!(leaves_at(&pod(tolerations.clone(), bound), &[&lost], at(150)), want.map(at), "{tolerations}");
        }
        assert_eq!(leaves_at(&pod(for_a_while(900), 50), &[&lost, &other], at(150)), Some(at(150)), "the first counts");
        assert_eq!(leaves_at(&pod(json!([]), 50), &[], at(150)), None);
    }
}
