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
pub(super) async fn forget_nomination(client: &Client, pod: &PodInfo) {
    let patch = json!({"metadata": {"uid": pod.uid}, "status": {"nominatedNodeName": null}});
    if let Err(error) = client.api::<Pod>(&pod.namespace).patch_status(&pod.name, PatchType::Merge, &patch).await {
        tracing::debug!(pod = pod.key(), %error, "could not record that the pod lost its room");
    }
}

/// Deletes a pod that has to go. Who waits for its room sees whether it goes, and asks again if not.
pub(super) async fn remove(client: &Client, victim: &PodInfo) {
    let preconditions = DeletePreconditions { uid: Some(victim.uid.clone()), resource_version: None };
    let options = DeleteOptions { preconditions, ..DeleteOptions::default() };
    match client.api::<Pod>(&victim.namespace).delete(&victim.name, &options).await {
        Err(error) if !error.is_not_found() => {
            tracing::warn!(pod = victim.key(), %error, "could not delete a pod that has to make room");
        }
        _ => {}
    }
}
