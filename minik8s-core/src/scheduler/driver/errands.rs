//! What the scheduler has to tell the API beside bindings: why a pod has no node, and which pods have to make room. The
//! newest errand of each pod, a few requests at once, beside the loop.

use super::looks::said_already;
use super::writes::{forget_nomination, remove};
use crate::api::ApiResult;
use crate::client::{Client, Informer, PatchType, WorkQueue};
use crate::scheduler::PodInfo;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// Something to be done about a pod.
pub(super) enum Errand {
    /// It is told why it has no node.
    Say(Said),
    /// It has to go, since then.
    Remove(Arc<PodInfo>, String),
    /// No room is made for it any more.
    Forget(Arc<PodInfo>),
}

impl Errand {
    fn is_the_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Say(a), Self::Say(b)) => (&a.uid, &a.message, &a.nominated) == (&b.uid, &b.message, &b.nominated),
            (Self::Remove(a, _), Self::Remove(b, _)) | (Self::Forget(a), Self::Forget(b)) => a.uid == b.uid,
            _ => false,
        }
    }
}

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

/// Errands on their way to the API. Holds one per pod, so it is bounded by the pods there are. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Errands {
    queue: WorkQueue<String>,
    /// By informer key, until it is done or no longer wanted.
    waiting: Arc<Mutex<HashMap<String, Arc<Errand>>>>,
    /// Pods that had to go and could not be deleted, until the loop has heard of it.
    stayed: Arc<Mutex<Vec<Arc<PodInfo>>>>,
    news: Arc<Notify>,
}

impl Errands {
    /// Takes in an errand about the pod of that key, in place of another one.
    pub(super) fn put(&self, key: String, errand: Errand) {
        let mut waiting = self.waiting.lock();
        if waiting.get(&key).is_some_and(|old| old.is_the_same(&errand)) {
            return;
        }
        waiting.insert(key.clone(), Arc::new(errand));
        self.queue.add(key);
    }

    /// Runs what is put in, at most `workers` at once, until the set is dropped.
    pub(super) fn run(&self, client: &Client, pods: &Informer<Pod>, workers: usize) -> JoinSet<()> {
        let mut running = JoinSet::new();
        for _ in 0..workers {
            running.spawn(work(self.clone(), client.clone(), pods.clone()));
        }
        running
    }

    /// Waits for pods that had to go and could not be deleted. Dropping the future loses nothing.
    pub(super) async fn stayed(&self) -> Vec<Arc<PodInfo>> {
        loop {
            let stayed = std::mem::take(&mut *self.stayed.lock());
            if !stayed.is_empty() {
                return stayed;
            }
            // A permit stays for one that comes between the look and the wait.
            self.news.notified().await;
        }
    }

    fn failed(&self, errand: &Errand) {
        if let Errand::Remove(victim, _) = errand {
            self.stayed.lock().push(victim.clone());
            self.news.notify_one();
        }
    }

    fn forget(&self, key: &String, done: &Arc<Errand>) {
        let mut waiting = self.waiting.lock();
        // A newer one may have come in meanwhile.
        if waiting.get(key).is_some_and(|now| Arc::ptr_eq(now, done)) {
            waiting.remove(key);
        }
        self.queue.forget(key);
    }
}

async fn work(errands: Errands, client: Client, pods: Informer<Pod>) {
    loop {
        let key = errands.queue.next().await;
        let errand = errands.waiting.lock().get(&key).cloned();
        if let Some(errand) = errand {
            let done = match errand.as_ref() {
                Errand::Say(said) => write(&client, &pods, &key, said).await,
                Errand::Remove(victim, since) => remove(&client, victim, since).await,
                Errand::Forget(nominee) => forget_nomination(&client, nominee).await,
            };
            match done {
                // The pod has changed: what the informer shows then decides whether this is still true.
                Err(error) if error.is_conflict() => errands.queue.add_rate_limited(key.clone()),
                Err(error) => {
                    // Losing it costs nothing: the event says the same, and the room is found again.
                    tracing::debug!(pod = key, %error, "could not tell what the scheduler decided about the pod");
                    errands.forget(&key, &errand);
                    errands.failed(&errand);
                }
                Ok(()) => errands.forget(&key, &errand),
            }
        }
        errands.queue.done(&key);
    }
}

/// Writes the reason into the pod's `PodScheduled` condition, and where room is made, where the pod still waits. The
/// patch names the version that was looked at: a pod that is bound meanwhile must not be called unschedulable.
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
