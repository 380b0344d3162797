//! What is written into the records of pods.

use super::judge::{self, is_over};
use super::{CANCELLED, FINALIZER, NodesBackend, gone, name_of};
use k8s_openapi::api::core::v1::Pod;
use minik8s_core::api::{ApiError, ApiResult};
use minik8s_core::client::{Api, DeleteOptions, DeletePreconditions, PatchType};
use minik8s_core::node::PAUSED;
use serde_json::{Value, json};

/// Somebody may come between a look and a write.
const TRIES: u32 = 8;

/// Lets a pod and its record go.
pub(crate) async fn let_go(api: &Api<Pod>, pod: Pod) -> ApiResult<()> {
    let mut pod = pod;
    for _ in 0..TRIES {
        let mut finalizers = pod.metadata.finalizers.clone().unwrap_or_default();
        finalizers.retain(|name| name != FINALIZER);
        let patch = json!({"metadata": {"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version,
            "finalizers": finalizers}});
        match api.patch(name_of(&pod), PatchType::Merge, &patch).await {
            Err(error) if error.is_conflict() => match api.get_opt(name_of(&pod)).await? {
                Some(now) => pod = now,
                None => return Ok(()),
            },
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {
                let preconditions = DeletePreconditions { uid: pod.metadata.uid.clone(), resource_version: None };
                let options = DeleteOptions { preconditions, ..DeleteOptions::default() };
                return gone(api.delete(name_of(&pod), &options).await);
            }
        }
    }
    Err(ApiError::internal(format!("pod {} changes all the time", name_of(&pod))))
}

impl NodesBackend {
    /// Lets a pod that has no node be one that was never run.
    async fn withdraw(&self, pod: &Pod) -> ApiResult<()> {
        let patch = json!({
            "metadata": {"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version},
            "status": {"phase": "Failed", "reason": "Cancelled", "message": "its job was cancelled before it had a node"},
        });
        self.api().patch_status(name_of(pod), PatchType::Merge, &patch).await.map(drop)
    }

    /// Asks the node to end a pod whose record has to stay: its time is up.
    async fn stop(&self, pod: &Pod) -> ApiResult<()> {
        let patch = json!({
            "metadata": {"uid": pod.metadata.uid, "annotations": {CANCELLED: "true", PAUSED: null}},
            "spec": {"activeDeadlineSeconds": 1},
        });
        self.api().patch(name_of(pod), PatchType::Merge, &patch).await.map(drop)
    }

    /// Has a pod end, wherever it is.
    pub(super) async fn end(&self, pod: Pod) -> ApiResult<()> {
        let mut pod = pod;
        for _ in 0..TRIES {
            if is_over(&pod) {
                return Ok(());
            }
            let done = if judge::node(&pod).is_empty() { self.withdraw(&pod).await } else { self.stop(&pod).await };
            match done {
                Err(error) if error.is_conflict() => match self.api().get_opt(name_of(&pod)).await? {
                    Some(now) => pod = now,
                    None => return Ok(()),
                },
                other => return gone(other),
            }
        }
        Err(ApiError::internal(format!("pod {} changes all the time", name_of(&pod))))
    }

    /// Opens the gate for tasks whose turn has come.
    pub(super) async fn advance(&self, pods: &[Pod]) -> ApiResult<()> {
        for pod in judge::turns(pods) {
            let patch = json!({"metadata": {"uid": pod.metadata.uid}, "spec": {"schedulingGates": Value::Null}});
            gone(self.api().patch(name_of(pod), PatchType::Merge, &patch).await)?;
        }
        Ok(())
    }
}
