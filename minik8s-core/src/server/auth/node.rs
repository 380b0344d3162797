//! What a node may do: its own record, lease and pods, what those pods refer to, and what every node must know to route
//! packets. After Kubernetes' Node authorizer; there is no graph: what a pod refers to is read from the pod.

use super::Attributes;
use super::cluster::{ClusterAuthorizer, REQUESTS, one_name};
use crate::api::{ApiResult, Gvr, NODE_LEASES, Target};
use crate::client::{ListOptions, Transport};
use crate::node::RefNames;
use crate::server::ApiServer;
use crate::server::bootstrap::CLUSTER_FACTS;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

const PODS: Gvr = Gvr::new("", "v1", "pods");

/// True where the node may.
pub(super) async fn may(server: &ApiServer, node: &str, asked: &Attributes<'_>) -> ApiResult<bool> {
    let Some(target) = asked.target else { return Ok(false) };
    let reads = matches!(asked.verb, "get" | "list" | "watch");
    let (name, sub) = (target.name.as_deref(), target.subresource.as_deref());
    let own = name == Some(node);
    Ok(match (&*target.gvr.group, &*target.gvr.resource, sub) {
        ("", "services" | "endpoints", None) | ("discovery.k8s.io", "endpointslices", None) => reads,
        // Whom a new record is for is seen by the admission rule.
        ("", "nodes", None) => reads || asked.verb == "create" || own && matches!(asked.verb, "update" | "patch"),
        ("", "nodes", Some("status")) => own && matches!(asked.verb, "get" | "update" | "patch"),
        ("", "events", None) | ("events.k8s.io", "events", None) => matches!(asked.verb, "create" | "update" | "patch"),
        ("coordination.k8s.io", "leases", None) => {
            target.namespace.as_deref() == Some(NODE_LEASES)
                && (asked.verb == "create" || own && matches!(asked.verb, "get" | "update" | "patch" | "delete"))
        }
        ("certificates.k8s.io", "certificatesigningrequests", None) if asked.verb == "create" => true,
        _ if target.gvr == REQUESTS => reads && ClusterAuthorizer::is_own_request(server, asked).await?,
        ("", "pods", None) if matches!(asked.verb, "list" | "watch") && name.is_none() => of_node(asked.fields, node),
        ("", "pods", None) => matches!(asked.verb, "get" | "delete") && is_bound(server, node, target).await?,
        ("", "pods", Some("status")) => {
            matches!(asked.verb, "get" | "update" | "patch") && is_bound(server, node, target).await?
        }
        ("", "pods", Some("eviction")) => asked.verb == "create" && is_bound(server, node, target).await?,
        ("", "configmaps", None) if asked.verb == "get" && is_facts(target) => true,
        ("", "secrets" | "configmaps", None) if reads => refers(server, node, asked, target).await?,
        _ => false,
    })
}

/// True for what every node must know of the cluster.
fn is_facts(target: &Target) -> bool {
    target.namespace.as_deref() == Some("kube-public") && target.name.as_deref() == Some(CLUSTER_FACTS)
}

/// True for a selector that leaves only pods of the node.
fn of_node(fields: &str, node: &str) -> bool {
    fields.split(',').any(|term| {
        let Some((field, value)) = term.split_once('=') else { return false };
        field.trim() == "spec.nodeName" && value.trim_start_matches('=').trim() == node
    })
}

async fn is_bound(server: &ApiServer, node: &str, target: &Target) -> ApiResult<bool> {
    let pod = server.get(&Target { subresource: None, ..target.clone() }).await?.value()?;
    Ok(pod.pointer("/spec/nodeName").and_then(Value::as_str) == Some(node))
}

/// True where a pod of the node refers to the one object that is asked for.
async fn refers(server: &ApiServer, node: &str, asked: &Attributes<'_>, target: &Target) -> ApiResult<bool> {
    let (Some(name), Some(namespace)) = (target.name.clone().or_else(|| one_name(asked.fields)), &target.namespace)
    else {
        return Ok(false);
    };
    let options = ListOptions {
        field_selector: format!("spec.nodeName={node}"),
        // What the node knows, the cache knows: it got it from there.
        resource_version: Some(0),
        ..ListOptions::default()
    };
    let pods = server.list(&Target::in_namespace(PODS, namespace), &options).await?;
    let quoted = format!("\"{name}\"");
    for pod in &pods.items {
        // Decoding is only for those that name it at all.
        if !contains(&pod.json, quoted.as_bytes()) {
            continue;
        }
        let names = RefNames::of(&pod.decode::<Pod>()?);
        let among = if target.gvr.resource == "secrets" { &names.secrets } else { &names.config_maps };
        if among.contains(&name) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|part| part == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_selectors_that_leave_the_nodes_pods_pass() {
        assert!(of_node("spec.nodeName=n1", "n1"));
        assert!(of_node("status.phase=Running,spec.nodeName==n1", "n1"));
        for other in ["", "spec.nodeName=n2", "spec.nodeName!=n1", "spec.nodeName=n11", "metadata.name=n1"] {
            assert!(!of_node(other, "n1"), "{other}");
        }
    }
}
