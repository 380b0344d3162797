//! What the driver tells the API.

use crate::api::{ApiResult, Gvr, Target};
use crate::client::{Api, Client, PatchType, Payload, WriteOptions};
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

/// Writes the reason into the pod's `PodScheduled` condition. Losing it costs nothing: the event says the same.
pub(super) async fn report(api: &Api<Pod>, pod: &PodInfo, message: &str, since: &str) {
    let condition = json!({
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": message, "lastTransitionTime": since,
    });
    let patch = json!({"metadata": {"uid": pod.uid}, "status": {"conditions": [condition]}});
    if let Err(error) = api.patch_status(&pod.name, PatchType::StrategicMerge, &patch).await {
        tracing::debug!(pod = pod.key(), %error, "could not record why the pod is pending");
    }
}
