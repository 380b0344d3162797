//! Pods that nobody will ever look after: bound to nodes that do not exist or are declared dead, being deleted without
//! a node, or finished long ago.

use super::pods::{delete, disrupted, is_finished, is_lost, node_of};
use super::{Controller, ControllerContext, Outcome, Reconciler, pump, run_workers};
use crate::api::ApiResult;
use crate::client::{Change, Informer, key_of};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, Pod};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A node must be missing for this long: one that registers anew finds its pods again.
const QUARANTINE: Duration = Duration::from_secs(40);

/// Somebody who knows says with this taint that a node is dead for good: its containers do not run.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// What is said of pods that are given up.
const GIVEN_UP: &str = "DeletionByPodGC";

/// Removes pods of nodes that do not exist, those that wait for a dead node to let them go, and finished pods beyond a
/// bound.
pub struct PodGarbageCollector {
    /// How many finished pods are kept.
    pub finished: usize,
}

#[async_trait]
impl Controller for PodGarbageCollector {
    fn name(&self) -> &str {
        "pod-garbage-collector"
    }

    async fn run(self: Arc<Self>, ctx: ControllerContext) {
        let (pods, nodes) = (ctx.informers.of::<Pod>(), ctx.informers.of::<Node>());
        let (_, _) = tokio::join!(pods.synced(), nodes.synced());
        let queue = ctx.queue();
        let (q, n) = (queue.clone(), nodes.clone());
        pump(&ctx, &pods, move |change| {
            if let Change::Applied { new, .. } = change
                && (is_finished(new) || is_forsaken(new, &n) || node_of(new).is_some_and(|node| n.get(node).is_none()))
            {
                q.add("pods");
            }
        });
        let q = queue.clone();
        pump(&ctx, &nodes, move |change| match change {
            Change::Deleted(_) | Change::Resync => q.add("pods"),
            Change::Applied { new, .. } if is_out_of_service(new) => q.add("pods"),
            Change::Applied { .. } => {}
        });
        let sweep = Sweep { ctx: ctx.clone(), pods, nodes, keep: self.finished, missing: Mutex::default() };
        run_workers(&ctx, &queue, 1, Arc::new(sweep)).await;
    }
}

/// True where the node is silent, and somebody says that it is dead.
fn is_out_of_service(node: &Node) -> bool {
    let mut taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    is_lost(node) && taints.any(|t| t.key == OUT_OF_SERVICE)
}

/// True where a pod is being deleted, and nobody is there to say that it has ended.
fn is_forsaken(pod: &Pod, nodes: &Informer<Node>) -> bool {
    let nobody = || node_of(pod).is_none_or(|name| nodes.get(name).is_some_and(|node| is_out_of_service(&node)));
    pod.metadata.deletion_timestamp.is_some() && nobody()
}

/// The finished pods that are too many, oldest first. Pure.
fn surplus(pods: &[Arc<Pod>], keep: usize) -> Vec<Arc<Pod>> {
    let mut finished: Vec<_> = pods.iter().filter(|p| is_finished(p)).cloned().collect();
    finished.sort_by_key(|p| (p.metadata.creation_timestamp.as_ref().map(|t| t.0), key_of(&**p)));
    let count = finished.len().saturating_sub(keep);
    finished.truncate(count);
    finished
}

struct Sweep {
    ctx: ControllerContext,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    keep: usize,
    /// Since when each node is missing. Lost in a restart, which only prolongs the quarantine.
    missing: Mutex<HashMap<String, Instant>>,
}

#[async_trait]
impl Reconciler for Sweep {
    type Key = &'static str;

    async fn reconcile(&self, _: &&'static str) -> ApiResult<Outcome> {
        let pods = self.pods.list();
        for pod in surplus(&pods, self.keep) {
            delete(&self.ctx.client, &pod, None).await?;
        }
        for pod in pods.iter().filter(|pod| is_forsaken(pod, &self.nodes)) {
            self.give_up(pod).await?;
        }
        let (due, next) = self.overdue(&pods);
        for node in due {
            // The informer may lag behind: the API has the last word.
            let api = self.ctx.client.all::<Node>();
            if api.get_opt(&node).await?.is_some() {
                continue;
            }
            for pod in pods.iter().filter(|p| node_of(p) == Some(&node)) {
                self.give_up(pod).await?;
            }
        }
        Ok(next.map_or(Outcome::Done, Outcome::After))
    }
}

impl Sweep {
    /// Deletes a pod of which nobody will ever say that it has ended; who waits for that is told.
    async fn give_up(&self, pod: &Pod) -> ApiResult<()> {
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let told = conditions.into_iter().any(|condition| condition.reason.as_deref() == Some(GIVEN_UP));
        if node_of(pod).is_some() && !is_finished(pod) && !told {
            disrupted(&self.ctx, pod, (GIVEN_UP, "its node is gone, or said to be dead")).await?;
        }
        delete(&self.ctx.client, pod, Some(0)).await
    }

    /// The nodes that have been missing for long enough, and how long until the next one has.
    fn overdue(&self, pods: &[Arc<Pod>]) -> (Vec<String>, Option<Duration>) {
        let bound = pods.iter().filter_map(|p| node_of(p));
        let absent: HashSet<_> = bound.filter(|n| self.nodes.get(n).is_none()).map(str::to_owned).collect();
        let mut missing = self.missing.lock();
        missing.retain(|node, _| absent.contains(node));
        for node in absent {
            missing.entry(node).or_insert_with(Instant::now);
        }
        let left = |since: &Instant| QUARANTINE.saturating_sub(since.elapsed());
        let due = missing.iter().filter(|(_, since)| left(since).is_zero()).map(|(node, _)| node.clone()).collect();
        (due, missing.values().map(left).filter(|l| !l.is_zero()).min())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_oldest_finished_pods_are_too_many() {
        let pod = |name: &str, phase: &str, second: i64| {
            let created = jiff::Timestamp::from_second(second).unwrap().to_string();
            let value = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "creationTimestamp": created},
                "status": {"phase": phase}});
            Arc::new(serde_json::from_value::<Pod>(value).unwrap())
        };
        let pods =
            [pod("c", "Failed", 30), pod("run", "Running", 1), pod("a", "Succeeded", 10), pod("b", "Failed", 20)];
        let names = |keep| surplus(&pods, keep).iter().map(|p| p.metadata.name.clone().unwrap()).collect::<Vec<_>>();
        assert_eq!(names(1), ["a", "b"]);
        assert_eq!(names(0), ["a", "b", "c"]);
        assert!(names(3).is_empty() && names(9).is_empty());
    }
}
