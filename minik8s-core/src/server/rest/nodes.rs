//! `nodes/NAME/proxy`: what is asked of a node itself. That is its `stats/summary`, in the kubelet's shape, of which
//! only what was measured is there.

use super::Shared;
use super::body::Body;
use super::status::json_response;
use super::verbs::Request;
use crate::api::{ApiError, ApiResult, Reason, Target};
use crate::clock::rfc3339;
use crate::node::{ContainerUsage, MachineUsage, NodeUsage};
use http::Response;
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;

const PROXY: &str = "proxy";

/// True where a node is to be asked something.
pub(super) fn is_proxy(target: &Target) -> bool {
    target.gvr.group.is_empty() && target.gvr.resource == "nodes" && path(target).is_some()
}

/// The path behind `proxy`.
fn path(target: &Target) -> Option<&str> {
    let path = target.subresource.as_deref()?.strip_prefix(PROXY)?;
    if path.is_empty() { Some(path) } else { path.strip_prefix('/') }
}

/// What rights are asked about: a node's proxy as a whole, whatever is behind it.
pub(super) fn asked(target: &Target) -> Target {
    let mut asked = target.clone();
    if is_proxy(target) {
        asked.subresource = Some(PROXY.to_owned());
    }
    asked
}

pub(super) async fn proxy(shared: &Shared, request: &Request<'_>) -> ApiResult<Response<Body>> {
    let target = &request.target;
    shared.transport.get(&Target { subresource: None, ..target.clone() }).await?;
    let name = target.name.as_deref().unwrap_or_default();
    match path(target).unwrap_or_default() {
        "stats/summary" => {
            let usage = shared.nodes.find(name)?.stats().await?;
            let text = serde_json::to_vec(&summary(name, usage)).map_err(|e| ApiError::internal(e.to_string()))?;
            Ok(json_response(200, text))
        }
        path => {
            let why = format!("nodes/{name}/proxy serves stats/summary and not {path:?}");
            Err(ApiError::new(Reason::NotFound, why))
        }
    }
}

/// `Summary` of `stats.k8s.io/v1alpha1`.
#[derive(Debug, PartialEq, Serialize)]
struct Summary {
    node: NodeStats,
    pods: Vec<PodStats>,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeStats {
    node_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu: Option<CpuStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<MemoryStats>,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct PodStats {
    pod_ref: PodReference,
    start_time: String,
    containers: Vec<ContainerStats>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct PodReference {
    namespace: String,
    name: String,
    uid: String,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerStats {
    name: String,
    start_time: String,
    cpu: CpuStats,
    memory: MemoryStats,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct CpuStats {
    time: String,
    usage_core_nano_seconds: u64,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct MemoryStats {
    time: String,
    usage_bytes: u64,
    working_set_bytes: u64,
}

fn summary(node: &str, usage: NodeUsage) -> Summary {
    Summary { node: machine(node, usage.machine), pods: pods(usage.containers) }
}

fn machine(node: &str, usage: Option<MachineUsage>) -> NodeStats {
    let cpu = usage.map(|m| CpuStats { time: time(m.at), usage_core_nano_seconds: m.cpu_ns });
    let memory = usage.map(|m| MemoryStats {
        time: time(m.at),
        usage_bytes: m.memory_usage,
        working_set_bytes: m.memory_working_set,
    });
    NodeStats { node_name: node.to_owned(), cpu, memory }
}

fn pods(usage: Vec<ContainerUsage>) -> Vec<PodStats> {
    let mut pods: BTreeMap<PodReference, Vec<ContainerUsage>> = BTreeMap::new();
    for one in usage {
        let of = &one.container;
        let pod = PodReference { namespace: of.namespace.clone(), name: of.pod.clone(), uid: of.uid.clone() };
        pods.entry(pod).or_default().push(one);
    }
    let pod = |(pod_ref, containers): (_, Vec<ContainerUsage>)| PodStats {
        pod_ref,
        start_time: time(containers.iter().map(|c| c.started_at).min().unwrap_or_default()),
        containers: containers.into_iter().map(container).collect(),
    };
    pods.into_iter().map(pod).collect()
}

fn container(usage: ContainerUsage) -> ContainerStats {
    let stats = &usage.stats;
    ContainerStats {
        name: usage.container.container,
        start_time: time(usage.started_at),
        cpu: CpuStats { time: time(stats.at), usage_core_nano_seconds: stats.cpu_ns },
        memory: MemoryStats {
            time: time(stats.at),
            usage_bytes: stats.memory_usage,
            working_set_bytes: stats.memory_working_set,
        },
    }
}

fn time(unix_millis: i64) -> String {
    rfc3339(Timestamp::from_millisecond(unix_millis).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Gvr;

    #[test]
    fn rights_are_asked_about_the_proxy_as_a_whole() {
        let target = |sub: &str| Target {
            subresource: Some(sub.to_owned()),
            name: Some("n1".to_owned()),
            ..Target::all(Gvr::new("", "v1", "nodes"))
        };
        for (sub, proxy) in [("proxy", true), ("proxy/a/b", true), ("proxyz", false), ("status", false)] {
            assert_eq!(is_proxy(&target(sub)), proxy, "{sub}");
            let asked = asked(&target(sub)).subresource.unwrap();
            assert_eq!(asked, if proxy { "proxy" } else { sub });
        }
    }
}
