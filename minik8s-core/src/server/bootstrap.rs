//! What every cluster begins with: its namespaces, their default service accounts, the system's priority classes, and the Service that leads to the
//! API server itself. Idempotent: what is there stays as it is, but for the endpoints, which follow the address.

use super::ApiServer;
use super::kinds::SYSTEM_CLASSES;
use super::presence::{self, SERVICE};
use crate::api::{ApiError, ApiResult, Gvr, NODE_LEASES, Target};
use crate::client::{PatchType, Payload, Transport, WriteOptions};
use crate::routing::{CONTROLLER_NAME, DEFAULT_CLASS, INGRESS_CONTROLLER};
use serde_json::{Value, json};

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", NODE_LEASES];
/// The ConfigMap in `kube-public` that says what all nodes of a cluster share.
pub(crate) const CLUSTER_FACTS: &str = "minik8s";

/// Makes what is missing.
pub(crate) async fn run(server: &ApiServer) -> ApiResult<()> {
    for name in NAMESPACES {
        let namespace = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}});
        make(server, Target::all(Gvr::new("", "v1", "namespaces")), &namespace).await?;
        let account = json!({"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": "default"}});
        make(server, Target::in_namespace(Gvr::new("", "v1", "serviceaccounts"), name), &account).await?;
    }
    for (name, value, description) in SYSTEM_CLASSES {
        let class = json!({"kind": "PriorityClass", "apiVersion": "scheduling.k8s.io/v1",
            "metadata": {"name": name}, "value": value, "description": description});
        make(server, Target::all(Gvr::new("scheduling.k8s.io", "v1", "priorityclasses")), &class).await?;
    }
    for (target, class) in classes() {
        make(server, target, &class).await?;
    }
    let services = Target::in_namespace(Gvr::new("", "v1", "services"), "default");
    make(server, services, &service(server)).await?;
    replace(server, Target::in_namespace(Gvr::new("", "v1", "configmaps"), "kube-public"), &facts(server)).await?;
    if let Some(address) = server.advertise {
        // Without its endpoints a cluster can be repaired, without its API it cannot.
        if let Err(error) = presence::appear(server, address).await {
            tracing::warn!(%error, "the Service kubernetes may lead elsewhere");
        }
    }
    Ok(())
}

/// The classes of Ingresses and Gateways that the gateways of the nodes serve.
fn classes() -> [(Target, Value); 2] {
    let default = json!({"ingressclass.kubernetes.io/is-default-class": "true"});
    let ingress = json!({"kind": "IngressClass", "apiVersion": "networking.k8s.io/v1",
        "metadata": {"name": DEFAULT_CLASS, "annotations": default}, "spec": {"controller": INGRESS_CONTROLLER}});
    let gateway = json!({"kind": "GatewayClass", "apiVersion": "gateway.networking.k8s.io/v1",
        "metadata": {"name": DEFAULT_CLASS}, "spec": {"controllerName": CONTROLLER_NAME}});
    let target = |group, resource| Target::all(Gvr::new(group, "v1", resource));
    [
        (target("networking.k8s.io", "ingressclasses"), ingress),
        (target("gateway.networking.k8s.io", "gatewayclasses"), gateway),
    ]
}

fn service(server: &ApiServer) -> Value {
    let first = server.cluster_settings().service_cidr.hosts().next().map(|ip| ip.to_string());
    json!({
        "kind": "Service", "apiVersion": "v1",
        "metadata": {"name": SERVICE, "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {"clusterIP": first, "type": "ClusterIP",
            "ports": [{"name": "https", "port": 443, "targetPort": 6443, "protocol": "TCP"}]},
    })
}

/// What every node must know of the cluster before it can be one.
fn facts(server: &ApiServer) -> Value {
    let settings = server.cluster_settings();
    let pods = settings.pod_cidr.map(|range| range.to_string()).unwrap_or_default();
    let services = settings.service_cidr.to_string();
    json!({
        "kind": "ConfigMap", "apiVersion": "v1",
        "metadata": {"name": CLUSTER_FACTS, "namespace": "kube-public"},
        "data": {"serviceCIDR": services, "podCIDR": pods, "clusterDomain": settings.cluster_domain},
    })
}

fn body(object: &Value) -> ApiResult<Payload> {
    let text = serde_json::to_vec(object).map_err(|e| ApiError::internal(format!("bootstrap: {e}")))?;
    Ok(Payload::Json(text.into()))
}

/// Makes an object that is not there. Asking first matters: the object may itself hold the place it claims.
async fn make(server: &ApiServer, target: Target, object: &Value) -> ApiResult<()> {
    let name = object.pointer("/metadata/name").and_then(Value::as_str).map(str::to_owned);
    if server.get(&Target { name, ..target.clone() }).await.is_ok() {
        return Ok(());
    }
    match server.create(&target, body(object)?, &WriteOptions::default()).await {
        Err(error) if !error.is_already_exists() => Err(error),
        _ => Ok(()),
    }
}

/// True where an object is there and says what it should.
async fn says(server: &ApiServer, target: &Target, object: &Value) -> bool {
    let name = object.pointer("/metadata/name").and_then(Value::as_str).map(str::to_owned);
    let Ok(found) = server.get(&Target { name, ..target.clone() }).await else { return false };
    let (Ok(found), Some(wanted)) = (found.value(), object.as_object()) else { return false };
    wanted.iter().filter(|(field, _)| *field != "metadata").all(|(field, value)| found.get(field) == Some(value))
}

/// Makes an object say this. Where it does already, nothing is written: a server that starts changes nothing.
pub(super) async fn replace(server: &ApiServer, target: Target, object: &Value) -> ApiResult<()> {
    if says(server, &target, object).await {
        return Ok(());
    }
    match server.create(&target, body(object)?, &WriteOptions::default()).await {
        Err(error) if error.is_already_exists() => {
            let name = object.pointer("/metadata/name").and_then(Value::as_str).map(str::to_owned);
            let one = Target { name, ..target };
            server.patch(&one, PatchType::Merge, body(object)?, &WriteOptions::default()).await.map(drop)
        }
        Err(error) => Err(error),
        Ok(_) => Ok(()),
    }
}
