//! What controllers ask about pods and the nodes they are on.

use super::ControllerContext;
use crate::api::{ApiError, ApiResult, LabelOp, Selector};
use crate::client::{Client, DeleteOptions, DeletePreconditions, Informer, PatchType};
use crate::clock::rfc3339;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod, PodCondition};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Index of the pod informer: the uid of the managing owner, or `orphan:<namespace>` where there is none.
pub(super) const BY_OWNER: &str = "controller-uid";

/// Key of pods without a manager in [`BY_OWNER`].
pub(super) fn orphans(namespace: &str) -> String {
    format!("orphan:{namespace}")
}

/// Adds [`BY_OWNER`] to the pod informer.
pub(super) fn index_by_owner(pods: &Informer<Pod>) {
    pods.add_index(BY_OWNER, |pod| {
        let owner = super::controller_of(&pod.metadata).map(|r| r.uid.clone());
        vec![owner.unwrap_or_else(|| orphans(pod.metadata.namespace.as_deref().unwrap_or_default()))]
    });
}

/// Index of the pod informer: the node a pod is bound to.
pub(super) const BY_NODE: &str = "node";

/// Adds [`BY_NODE`] to the pod informer.
pub(super) fn index_by_node(pods: &Informer<Pod>) {
    pods.add_index(BY_NODE, |pod| node_of(pod).map(str::to_owned).into_iter().collect());
}

/// Index of the pod informer: every label of a pod, with the namespace.
pub(super) const BY_LABEL: &str = "label-pair";

/// Key of pods with a label in [`BY_LABEL`].
pub(super) fn label_pair(namespace: &str, key: &str, value: &str) -> String {
    format!("{namespace} {key}={value}")
}

/// A pod's keys in [`BY_LABEL`].
pub(super) fn label_pairs(pod: &Pod) -> Vec<String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    pod.metadata.labels.iter().flatten().map(|(key, value)| label_pair(namespace, key, value)).collect()
}

/// Adds [`BY_LABEL`] to the pod informer.
pub(super) fn index_by_label(pods: &Informer<Pod>) {
    pods.add_index(BY_LABEL, label_pairs);
}

/// The pods of a namespace that a selector picks, out of those that have one of the labels it asks for. Needs
/// [`BY_LABEL`].
pub(super) fn select(pods: &Informer<Pod>, namespace: &str, selector: &Selector) -> Vec<Arc<Pod>> {
    let none = BTreeMap::new();
    let strict = selector.requirements().iter().find(|r| matches!(r.op(), LabelOp::In | LabelOp::Equals));
    let mut found: Vec<Arc<Pod>> = match strict {
        None => pods.list_in(namespace),
        Some(of) => of.values().flat_map(|v| pods.list_by(BY_LABEL, &label_pair(namespace, of.key(), v))).collect(),
    };
    found.retain(|pod| selector.matches(pod.metadata.labels.as_ref().unwrap_or(&none)));
    found
}

/// The node a pod is bound to.
pub(super) fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).filter(|n| !n.is_empty())
}

/// The pod's phase; `Pending` where it has none yet.
pub(super) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending")
}

/// True where the pod has run to its end.
pub(super) fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// True where the pod counts as a replica: neither finished nor being deleted.
pub fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && pod.metadata.deletion_timestamp.is_none()
}

fn ready_condition(pod: &Pod) -> Option<&PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == "Ready")
}

/// True where the pod says that it is ready.
pub fn is_ready(pod: &Pod) -> bool {
    ready_condition(pod).is_some_and(|c| c.status == "True")
}

/// Since when the pod is ready, and `None` where it is not.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let condition = ready_condition(pod).filter(|c| c.status == "True")?;
    condition.last_transition_time.as_ref().map(|t| t.0)
}

/// How long until a ready pod has been so for `min_ready` seconds: zero where it has, `None` where it is not ready.
pub(super) fn until_available(pod: &Pod, min_ready: i32, now: Timestamp) -> Option<Duration> {
    if !is_ready(pod) {
        return None;
    }
    if min_ready <= 0 {
        return Some(Duration::ZERO);
    }
    let due = ready_since(pod)?.saturating_add(SignedDuration::from_secs(min_ready.into())).ok()?;
    Some(Duration::try_from(due.duration_since(now)).unwrap_or_default())
}

/// True where the pod has been ready for `min_ready` seconds.
pub fn is_available(pod: &Pod, min_ready: i32, now: Timestamp) -> bool {
    until_available(pod, min_ready, now).is_some_and(|left| left.is_zero())
}

/// True where the node's agent has been silent for too long: what its pods say of themselves is old news.
pub(super) fn is_lost(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "Unknown")
}

/// True where the pod is bound to a node that is known to be lost.
pub(super) fn on_lost_node(pod: &Pod, nodes: &Informer<Node>) -> bool {
    node_of(pod).and_then(|n| nodes.get(n)).is_some_and(|n| is_lost(&n))
}

/// Writes one condition of a pod, with its reason and message; the others stay.
pub(super) async fn mark(
    ctx: &ControllerContext,
    pod: &Pod,
    condition: &str,
    status: &str,
    (reason, message): (&str, &str),
) -> ApiResult<()> {
    let (meta, at) = (&pod.metadata, rfc3339(ctx.clock.now()));
    let condition = json!({"type": condition, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": at});
    let patch = json!({"metadata": {"uid": meta.uid}, "status": {"conditions": [condition]}});
    let api = ctx.client.api::<Pod>(meta.namespace.as_deref().unwrap_or_default());
    let name = meta.name.as_deref().unwrap_or_default();
    gone_is_fine(api.patch_status(name, PatchType::StrategicMerge, &patch).await.map(drop))
}

/// Says in the pod's status that it goes although nothing is wrong with it.
pub(super) async fn disrupted(ctx: &ControllerContext, pod: &Pod, why: (&str, &str)) -> ApiResult<()> {
    mark(ctx, pod, "DisruptionTarget", "True", why).await
}

/// Deletes a pod; none of its name that came after it.
pub(super) async fn delete(client: &Client, pod: &Pod, grace: Option<i64>) -> ApiResult<()> {
    let meta = &pod.metadata;
    let preconditions = DeletePreconditions { uid: meta.uid.clone(), resource_version: None };
    let options = DeleteOptions { grace_period_seconds: grace, preconditions, ..DeleteOptions::default() };
    let api = client.api::<Pod>(meta.namespace.as_deref().unwrap_or_default());
    gone_is_fine(api.delete(meta.name.as_deref().unwrap_or_default(), &options).await.map(drop))
}

/// The pod that was meant is not there any more.
fn gone_is_fine(result: ApiResult<()>) -> ApiResult<()> {
    let gone = |e: &ApiError| e.is_not_found() || e.is_conflict() || e.is_of_another();
    result.or_else(|e| if gone(&e) { Ok(()) } else { Err(e) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::PodStatus;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn ready(status: &str, since: Option<i64>) -> Pod {
        let condition = PodCondition {
            type_: "Ready".into(),
            status: status.into(),
            last_transition_time: since.map(|s| Time(Timestamp::from_second(s).unwrap())),
            ..PodCondition::default()
        };
        let status = PodStatus { conditions: Some(vec![condition]), ..PodStatus::default() };
        Pod { status: Some(status), ..Pod::default() }
    }

    #[test]
    fn a_pod_is_available_after_it_has_been_ready_for_long_enough() {
        let now = Timestamp::from_second(100).unwrap();
        let table = [
            (ready("True", Some(95)), 0, Some(0)),
            (ready("True", None), 0, Some(0)),
            (ready("True", Some(95)), 10, Some(5)),
            (ready("True", Some(90)), 10, Some(0)),
            (ready("True", Some(10)), 10, Some(0)),
            (ready("True", None), 10, None),
            (ready("False", Some(10)), 0, None),
            (Pod::default(), 0, None),
        ];
        for (pod, min, left) in table {
            assert_eq!(until_available(&pod, min, now), left.map(Duration::from_secs), "min {min}");
        }
    }
}
