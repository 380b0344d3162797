//! What a node may do: its own record, lease and pods, what those pods refer to, and what every node must know to route
//! packets. After Kubernetes' Node authorizer; there is no graph: what a pod refers to is read from the pod.

use super::Attributes;
use super::cluster::{ClusterAuthorizer, REQUESTS, one_name};
use crate::api::gateway::{Gateway, GrantTo, ReferenceGrant};
use crate::api::{ApiResult, Gvr, NODE_LEASES, Target};
use crate::client::{ListOptions, Transport};
use crate::node::RefNames;
use crate::server::ApiServer;
use crate::server::bootstrap::CLUSTER_FACTS;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::Ingress;
use serde_json::Value;

const PODS: Gvr = Gvr::new("", "v1", "pods");
const INGRESSES: Gvr = Gvr::new("networking.k8s.io", "v1", "ingresses");
const GATEWAYS: Gvr = Gvr::new("gateway.networking.k8s.io", "v1", "gateways");
const GRANTS: Gvr = Gvr::new("gateway.networking.k8s.io", "v1beta1", "referencegrants");

/// True where the node may.
pub(super) async fn may(server: &ApiServer, node: &str, asked: &Attributes<'_>) -> ApiResult<bool> {
    let Some(target) = asked.target else { return Ok(false) };
    let reads = matches!(asked.verb, "get" | "list" | "watch");
    let (name, sub) = (target.name.as_deref(), target.subresource.as_deref());
    let own = name == Some(node);
    Ok(match (&*target.gvr.group, &*target.gvr.resource, sub) {
        ("", "services" | "endpoints", None) | ("discovery.k8s.io", "endpointslices", None) => reads,
        ("", "namespaces", None)
        | ("gateway.networking.k8s.io", _, None)
        | ("minik8s.io", "dns" | "pathroutes", None) => reads,
        ("networking.k8s.io", "ingresses" | "ingressclasses", None) => reads,
        // Whom a new record is for is seen by the admission rule.
        ("", "nodes", None) => reads || asked.verb == "create" || own && matches!(asked.verb, "update" | "patch"),
        ("minik8s.io", "demands", None) => {
            asked.verb == "create" || own && matches!(asked.verb, "get" | "update" | "patch")
        }
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
        ("", "secrets" | "configmaps", None) if reads => {
            refers(server, node, asked, target).await? || is_certificate(server, asked, target).await?
        }
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

/// True for a Secret that an Ingress or a Gateway shows to everyone who asks for its host: every gateway needs the key.
async fn is_certificate(server: &ApiServer, asked: &Attributes<'_>, target: &Target) -> ApiResult<bool> {
    let (Some(name), Some(namespace)) = (target.name.clone().or_else(|| one_name(asked.fields)), &target.namespace)
    else {
        return Ok(false);
    };
    if target.gvr.resource != "secrets" {
        return Ok(false);
    }
    let options = ListOptions { resource_version: Some(0), ..ListOptions::default() };
    let ingresses = server.list(&Target::in_namespace(INGRESSES, namespace), &options).await?;
    let in_ingress = |ingress: Ingress| {
        let tls = ingress.spec.and_then(|spec| spec.tls).unwrap_or_default();
        tls.iter().any(|tls| tls.secret_name.as_deref() == Some(&name))
    };
    for ingress in ingresses.items.iter().filter(|ingress| contains(&ingress.json, name.as_bytes())) {
        if in_ingress(ingress.decode()?) {
            return Ok(true);
        }
    }
    let gateways = server.list(&Target::all(GATEWAYS), &options).await?;
    for gateway in gateways.items.iter().filter(|gateway| contains(&gateway.json, name.as_bytes())) {
        let made: Gateway = gateway.decode()?;
        let references =
            made.spec.listeners.iter().filter_map(|l| l.tls.as_ref()).flat_map(|tls| &tls.certificate_refs);
        let home = &gateway.meta.namespace;
        if references.into_iter().any(|r| r.name == name && r.namespace.as_ref().unwrap_or(home) == namespace) {
            // One that names it without leave says nothing about the others.
            if granted(server, &options, home, namespace, &name).await? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// True where the namespace of a Secret lets Gateways of another refer to it.
async fn granted(
    server: &ApiServer,
    options: &ListOptions,
    home: &str,
    namespace: &str,
    name: &str,
) -> ApiResult<bool> {
    if home == namespace {
        return Ok(true);
    }
    let grants = server.list(&Target::in_namespace(GRANTS, namespace), options).await?;
    for grant in &grants.items {
        let spec = grant.decode::<ReferenceGrant>()?.spec;
        let from = spec.from.iter().any(|from| from.kind == "Gateway" && from.namespace == home);
        let to = |to: &GrantTo| to.kind == "Secret" && to.name.as_deref().is_none_or(|only| only == name);
        if from && spec.to.iter().any(to) {
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
