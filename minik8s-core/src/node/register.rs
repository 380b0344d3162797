//! The node's own record: registered at the start, its status kept true, its life told by a Lease.

use super::config::{NodeConfig, architecture, os_image, read};
use super::context::Context;
use crate::api::ApiResult;
use crate::client::PatchType;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::watch;

/// The namespace of the nodes' leases.
const LEASES: &str = "kube-node-lease";

/// What is wrong with the node, part by part; `None` is well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeHealth {
    pub(crate) runtime: Option<String>,
    pub(crate) network: Option<String>,
}

/// Labels, addresses and the rest of the record, without conditions.
fn record(config: &NodeConfig) -> Node {
    let labels = [
        ("kubernetes.io/hostname", config.name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture()),
    ];
    let mut all: serde_json::Map<String, Value> = labels.into_iter().map(|(k, v)| (k.to_owned(), json!(v))).collect();
    all.extend(config.labels.iter().map(|(k, v)| (k.clone(), json!(v))));
    let mut spec = json!({});
    if let Some(cidr) = config.pod_cidr {
        spec["podCIDR"] = json!(cidr.to_string());
        spec["podCIDRs"] = json!([cidr.to_string()]);
    }
    if !config.taints.is_empty() {
        spec["taints"] = json!(config.taints);
    }
    let value = json!({"metadata": {"name": config.name, "labels": all}, "spec": spec});
    serde_json::from_value(value).unwrap_or_default()
}

/// The status, with conditions that keep their times while they stay the same.
pub(crate) fn status(config: &NodeConfig, runtime: &str, health: &NodeHealth, old: &Node, now: Timestamp) -> Value {
    let capacity = &config.capacity;
    let amounts = json!({
        "cpu": cpu(capacity.milli_cpu),
        "memory": format!("{}Ki", capacity.memory_bytes / 1024),
        "ephemeral-storage": format!("{}Ki", capacity.ephemeral_bytes / 1024),
        "pods": capacity.pods.to_string(),
    });
    let mut addresses: Vec<Value> =
        config.addresses.iter().map(|ip| json!({"type": "InternalIP", "address": ip.to_string()})).collect();
    addresses.push(json!({"type": "Hostname", "address": config.hostname}));
    json!({
        "capacity": amounts,
        "allocatable": amounts,
        "addresses": addresses,
        "conditions": conditions(health, old, now),
        "nodeInfo": {
            "machineID": read("/etc/machine-id").unwrap_or_default(),
            "systemUUID": read("/sys/class/dmi/id/product_uuid").or_else(|| read("/etc/machine-id")).unwrap_or_default(),
            "bootID": read("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
            "kernelVersion": read("/proc/sys/kernel/osrelease").unwrap_or_default(),
            "osImage": os_image(),
            "containerRuntimeVersion": runtime,
            "kubeletVersion": config.version,
            "kubeProxyVersion": config.version,
            "operatingSystem": "linux",
            "architecture": architecture(),
        },
    })
}

fn cpu(milli: u64) -> String {
    if milli.is_multiple_of(1000) { (milli / 1000).to_string() } else { format!("{milli}m") }
}

fn conditions(health: &NodeHealth, old: &Node, now: Timestamp) -> Vec<NodeCondition> {
    let problems: Vec<&str> = [&health.runtime, &health.network].into_iter().flatten().map(String::as_str).collect();
    let ready = if problems.is_empty() {
        ("True", "KubeletReady", "the node agent is ready".to_owned())
    } else {
        ("False", "KubeletNotReady", problems.join("; "))
    };
    let network = match &health.network {
        Some(why) => ("True", "NetworkNotReady", why.clone()),
        None => ("False", "NetworkReady", "the node's network is set up".to_owned()),
    };
    let fine = |reason, text: &str| ("False", reason, text.to_owned());
    [
        ("MemoryPressure", fine("KubeletHasSufficientMemory", "the node has sufficient memory available")),
        ("DiskPressure", fine("KubeletHasNoDiskPressure", "the node has no disk pressure")),
        ("PIDPressure", fine("KubeletHasSufficientPID", "the node has sufficient process ids available")),
        ("NetworkUnavailable", network),
        ("Ready", ready),
    ]
    .into_iter()
    .map(|(kind, (status, reason, message))| {
        let before = old.status.iter().flat_map(|s| s.conditions.iter().flatten()).find(|c| c.type_ == kind);
        let since = before.filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
        let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
        NodeCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_heartbeat_time: Some(now.clone()),
            last_transition_time: since.or(Some(now)),
        }
    })
    .collect()
}

/// Makes the record, or brings labels and addresses of an existing one up to date.
async fn register(context: &Context) -> ApiResult<Node> {
    let nodes = context.client.all::<Node>();
    let wanted = record(&context.config);
    match nodes.create(&wanted).await {
        Err(e) if e.is_already_exists() => {
            let mut patch = json!({"metadata": {"labels": wanted.metadata.labels}});
            if let Some(cidr) = context.config.pod_cidr {
                patch["spec"] = json!({"podCIDR": cidr.to_string(), "podCIDRs": [cidr.to_string()]});
            }
            nodes.patch(&context.config.name, PatchType::Merge, &patch).await
        }
        result => result,
    }
}

async fn write_status(context: &Context, health: &NodeHealth) -> ApiResult<()> {
    let nodes = context.client.all::<Node>();
    let old = match nodes.get_opt(&context.config.name).await? {
        Some(node) => node,
        None => register(context).await?,
    };
    let status = status(&context.config, &context.runtime_version(), health, &old, context.clock.now());
    // Conditions of others stay: lists merge by key in a strategic merge patch.
    nodes.patch_status(&context.config.name, PatchType::StrategicMerge, &json!({ "status": status })).await?;
    Ok(())
}

/// Keeps the record's status true: at once when the health changes, and from time to time. Ends with the agent.
pub(crate) async fn keep_status(context: Arc<Context>, mut health: watch::Receiver<NodeHealth>) {
    let mut failures = 0;
    loop {
        let now = health.borrow_and_update().clone();
        let wait = match write_status(&context, &now).await {
            Ok(()) => {
                failures = 0;
                context.registered.send_replace(true);
                context.config.status_period
            }
            Err(error) => {
                failures += 1;
                tracing::warn!(node = context.config.name, %error, "cannot write the node's status");
                context.retry.delay(failures)
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            changed = health.changed() => if changed.is_err() { return },
        }
    }
}

/// Renews the node's lease. Ends with the agent.
pub(crate) async fn keep_lease(context: Arc<Context>) {
    let mut registered = context.registered.subscribe();
    // The lease is the node's: without a record it would be collected.
    if registered.wait_for(|done| *done).await.is_err() {
        return;
    }
    let mut failures = 0;
    loop {
        let wait = match renew(&context).await {
            Ok(()) => {
                failures = 0;
                context.config.lease_period
            }
            Err(error) => {
                failures += 1;
                tracing::warn!(node = context.config.name, %error, "cannot renew the node's lease");
                context.retry.delay(failures).min(context.config.lease_period)
            }
        };
        tokio::time::sleep(wait).await;
    }
}

async fn renew(context: &Context) -> ApiResult<()> {
    let leases = context.client.api::<Lease>(LEASES);
    let name = &context.config.name;
    let now = context.clock.now();
    let seconds = context.config.lease_duration.as_secs();
    let spec = json!({"holderIdentity": name, "leaseDurationSeconds": seconds, "renewTime": format!("{now:.6}")});
    match leases.patch(name, PatchType::Merge, &json!({ "spec": spec })).await {
        Err(e) if e.is_not_found() => {}
        result => return result.map(drop),
    }
    let owner = context.client.all::<Node>().get(name).await?;
    let lease = json!({"metadata": {"name": name, "namespace": LEASES, "ownerReferences": [
        {"apiVersion": "v1", "kind": "Node", "name": name, "uid": owner.metadata.uid}]}, "spec": spec});
    let lease: Lease = serde_json::from_value(lease).map_err(|e| crate::api::ApiError::internal(e.to_string()))?;
    match leases.create(&lease).await {
        Err(e) if e.is_not_found() => {
            let namespace = json!({"metadata": {"name": LEASES}});
            let namespace: Namespace = serde_json::from_value(namespace).unwrap_or_default();
            match context.client.all::<Namespace>().create(&namespace).await {
                Err(e) if !e.is_already_exists() => return Err(e),
                _ => {}
            }
            leases.create(&lease).await.map(drop)
        }
        result => result.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_tells_capacity_addresses_and_what_is_wrong() {
        let mut config = NodeConfig::new("n1", "/tmp/x");
        config.capacity.milli_cpu = 2500;
        config.capacity.memory_bytes = 4 << 30;
        let now = Timestamp::from_second(1_000_000).unwrap();
        let old: Node = serde_json::from_value(json!({"status": {"conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:00:09Z"}]}}))
        .unwrap();
        let well = status(&config, "fake://1", &NodeHealth::default(), &old, now);
        assert_eq!((&well["capacity"]["cpu"], &well["allocatable"]["memory"]), (&json!("2500m"), &json!("4194304Ki")));
        let ready = |status: &Value| {
            let all = status["conditions"].as_array().unwrap().clone();
            all.into_iter().find(|c| c["type"] == "Ready").unwrap()
        };
        assert_eq!(ready(&well)["lastTransitionTime"], json!("1970-01-01T00:00:09Z"));
        let ill = NodeHealth { runtime: Some("containerd is down".into()), network: None };
        let ill = ready(&status(&config, "fake://1", &ill, &old, now));
        assert_eq!((&ill["status"], &ill["message"]), (&json!("False"), &json!("containerd is down")));
        assert_ne!(ill["lastTransitionTime"], json!("1970-01-01T00:00:09Z"));
    }

    #[test]
    fn the_record_carries_labels_taints_and_range() {
        let mut config = NodeConfig::new("n1", "/tmp/x");
        config.labels.insert("zone".into(), "a".into());
        config.pod_cidr = Some("10.244.1.0/24".parse().unwrap());
        let node = record(&config);
        let labels = node.metadata.labels.unwrap();
        assert_eq!((labels["kubernetes.io/hostname"].as_str(), labels["zone"].as_str()), ("n1", "a"));
        assert_eq!(node.spec.unwrap().pod_cidr.as_deref(), Some("10.244.1.0/24"));
    }
}
