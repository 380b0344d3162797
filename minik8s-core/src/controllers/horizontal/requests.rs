//! What pods request of a resource. Pure.

use super::replicas::Requests;
use crate::api::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod};
use std::sync::Arc;

/// In thousandths, by pod; of one container where it is named.
///
/// # Errors
/// The container that requests none.
pub(super) fn requests(pods: &[Arc<Pod>], resource: &str, container: &str) -> Result<Requests, String> {
    pods.iter().map(|pod| of(pod, resource, container)).collect()
}

fn of(pod: &Pod, resource: &str, only: &str) -> Result<(String, i64), String> {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let mut sum = 0_i64;
    for container in containers(pod).filter(|c| only.is_empty() || c.name == only) {
        let said = container.resources.as_ref().and_then(|r| r.requests.as_ref()?.get(resource));
        let amount = said.and_then(|q| q.0.parse::<Quantity>().ok());
        let missing = || format!("missing request for {resource} in container {} of Pod {name}", container.name);
        sum = sum.saturating_add(amount.ok_or_else(missing)?.milli_value());
    }
    Ok((name, sum))
}

/// Those that run as long as the pod does.
fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.as_ref();
    let sidecars = spec.and_then(|s| s.init_containers.as_ref()).into_iter().flatten();
    let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
    spec.into_iter().flat_map(|s| &s.containers).chain(sidecars)
}
