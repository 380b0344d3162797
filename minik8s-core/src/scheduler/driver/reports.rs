//! Saying in a pod's status why it has no node: the newest reason of each pod, a few requests at once, beside the loop.

use super::looks::said_already;
use crate::api::ApiResult;
use crate::client::{Client, Informer, PatchType, WorkQueue};
use crate::scheduler::PodInfo;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::task::JoinSet;

/// What a pod that fits nowhere is told.
pub(super) struct Said {
    /// The pod's.
    pub(super) uid: String,
    /// Why.
    pub(super) message: String,
    /// The node on which room is being made; empty where there is none.
    pub(super) nominated: String,
    /// When.
    pub(super) since: String,
}

/// Saids on their way to the API. Holds one per pod, so it is bounded by the pods that wait. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Reports {
    queue: WorkQueue<String>,
    /// By informer key, until it is written or no longer true.
    reasons: Arc<Mutex<HashMap<String, Arc<Said>>>>,
}

impl Reports {
    /// Takes in the reason of the pod of that key, in place of another one.
    pub(super) fn put(&self, key: String, reason: Said) {
        let mut reasons = self.reasons.lock();
        if reasons.get(&key).is_some_and(|old| same(old, &reason)) {
            return;
        }
        reasons.insert(key.clone(), Arc::new(reason));
        self.queue.add(key);
    }

    /// Writes what is put in, at most `workers` at once, until the set is dropped.
    pub(super) fn write(&self, client: &Client, pods: &Informer<Pod>, workers: usize) -> JoinSet<()> {
        let mut running = JoinSet::new();
        for _ in 0..workers {
            running.spawn(work(self.clone(), client.clone(), pods.clone()));
        }
        running
    }

    fn forget(&self, key: &String, written: &Arc<Said>) {
        let mut reasons = self.reasons.lock();
        // A newer one may have come in meanwhile.
        if reasons.get(key).is_some_and(|now| Arc::ptr_eq(now, written)) {
            reasons.remove(key);
        }
        self.queue.forget(key);
    }
}

fn same(a: &Said, b: &Said) -> bool {
    (&a.uid, &a.message, &a.nominated) == (&b.uid, &b.message, &b.nominated)
}

async fn work(reports: Reports, client: Client, pods: Informer<Pod>) {
    loop {
        let key = reports.queue.next().await;
        let reason = reports.reasons.lock().get(&key).cloned();
        if let Some(reason) = reason {
            match write(&client, &pods, &key, &reason).await {
                // The pod has changed: what the informer shows then decides whether this is still true.
                Err(error) if error.is_conflict() => reports.queue.add_rate_limited(key.clone()),
                Err(error) => {
                    // Losing it costs nothing: the event says the same, and the room is found again.
                    tracing::debug!(pod = key, %error, "could not record why the pod is pending");
                    reports.forget(&key, &reason);
                }
                Ok(()) => reports.forget(&key, &reason),
            }
        }
        reports.queue.done(&key);
    }
}

/// Writes the reason into the pod's `PodScheduled` condition, and where room is made, where the pod still waits. The patch names the version
/// that was looked at: a pod that is bound meanwhile must not be called unschedulable.
async fn write(client: &Client, pods: &Informer<Pod>, key: &str, reason: &Said) -> ApiResult<()> {
    let Some(pod) = pods.get(key).filter(|pod| pod.metadata.uid.as_deref() == Some(&reason.uid)) else {
        return Ok(());
    };
    let known = PodInfo::from_pod(&pod);
    if !known.node_name.is_empty() || (said_already(&pod, &reason.message) && known.nominated == reason.nominated) {
        return Ok(());
    }
    let condition = json!({
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": reason.message, "lastTransitionTime": reason.since,
    });
    let node = (!reason.nominated.is_empty()).then_some(&reason.nominated);
    let meta = &pod.metadata;
    let patch = json!({
        "metadata": {"uid": reason.uid, "resourceVersion": meta.resource_version},
        "status": {"conditions": [condition], "nominatedNodeName": node},
    });
    let api = client.api::<Pod>(meta.namespace.as_deref().unwrap_or_default());
    api.patch_status(meta.name.as_deref().unwrap_or_default(), PatchType::StrategicMerge, &patch).await.map(|_| ())
}
