//! What the driver tells the API.

use crate::api::{ApiResult, Gvr, Target};
use crate::client::{Client, DeleteOptions, DeletePreconditions, PatchType, Payload, WriteOptions};
use crate::scheduler::PodInfo;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

/// Binds the pod to the node.
pub(super) async fn bind(client: &Client, pod: &PodInfo, node: &str) -> ApiResult<()> {
    let target = Target::object(Gvr::new("", "v1", "pods"), &pod.namespace, &pod.name).sub("binding");
    let body = json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    let body = Payload::Json(body.to_string().into());
    client.transport().create(&target, body, &WriteOptions::default()).await.map(|_| ())
}

/// Says that no room is made for the pod any more.
pub(super) async fn forget_nomination(client: &Client, pod: &PodInfo) -> ApiResult<()> {
    let patch = json!({"metadata": {"uid": pod.uid}, "status": {"nominatedNodeName": null}});
    let api = client.api::<Pod>(&pod.namespace);
    or_gone(api.patch_status(&pod.name, PatchType::Merge, &patch).await.map(|_| ()))
}

/// Deletes a pod that has to go, and says why. Who waits for its room is told where that fails.
pub(super) async fn remove(client: &Client, victim: &PodInfo, since: &str) -> ApiResult<()> {
    let api = client.api::<Pod>(&victim.namespace);
    let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
        "message": "preempted by a pod of higher priority", "lastTransitionTime": since});
    let patch = json!({"metadata": {"uid": victim.uid}, "status": {"conditions": [condition]}});
    if_there(api.patch_status(&victim.name, PatchType::StrategicMerge, &patch).await.map(|_| ()))?;
    let preconditions = DeletePreconditions { uid: Some(victim.uid.clone()), resource_version: None };
    let options = DeleteOptions { preconditions, ..DeleteOptions::default() };
    if_there(api.delete(&victim.name, &options).await.map(|_| ()))
}

/// The pod that was meant may be gone, and another one have its name.
fn if_there(result: ApiResult<()>) -> ApiResult<()> {
    result.or_else(|e| if e.is_not_found() || e.is_of_another() { Ok(()) } else { Err(e) })
}

/// The same, and what has changed meanwhile is looked at anew anyway.
fn or_gone(result: ApiResult<()>) -> ApiResult<()> {
    if_there(result).or_else(|e| if e.is_conflict() { Ok(()) } else { Err(e) })
}
