//! What objects say that concerns the driver alone.

use crate::client::Informer;
use crate::node::is_to_pause;
use crate::scheduler::{NodeInfo, PodInfo};
use k8s_openapi::api::core::v1::{Node, Pod};

pub(super) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

/// Who is to stand still waits for a node too: a place that it had would be nobody's.
pub(super) fn wants_node(pod: &Pod) -> bool {
    let gated = pod.spec.as_ref().is_some_and(|s| s.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty()));
    pod.metadata.deletion_timestamp.is_none() && !gated && !is_to_pause(pod)
}

/// True where the informer has this very pod.
pub(super) fn is_known(pods: &Informer<Pod>, pod: &PodInfo) -> bool {
    pods.get(&pod.key()).is_some_and(|object| object.metadata.uid.as_deref() == Some(&pod.uid))
}

pub(super) fn said_already(pod: &Pod, message: &str) -> bool {
    let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "PodScheduled" && c.message.as_deref() == Some(message))
}

/// Heartbeats change nodes all the time; most of those changes mean nothing here.
pub(super) fn same_for_scheduling(old: &Node, new: &Node) -> bool {
    let (a, b) = (NodeInfo::from_node(old), NodeInfo::from_node(new));
    (a.labels, a.taints, a.unschedulable, a.allocatable) == (b.labels, b.taints, b.unschedulable, b.allocatable)
}
