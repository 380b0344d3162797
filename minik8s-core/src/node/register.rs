//! The node's own record: what it says of itself but for its status.

use super::config::{NodeConfig, architecture};
use super::context::Context;
use crate::api::ApiResult;
use crate::client::PatchType;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

/// Labels, addresses and the rest of the record, without conditions.
fn record(config: &NodeConfig, range: Option<IpNet>) -> Node {
    let labels = [
        ("kubernetes.io/hostname", config.name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture()),
    ];
    let mut all: serde_json::Map<String, Value> = labels.into_iter().map(|(k, v)| (k.to_owned(), json!(v))).collect();
    all.extend(config.labels.iter().map(|(k, v)| (k.clone(), json!(v))));
    let mut spec = json!({});
    if let Some(cidr) = range {
        spec["podCIDR"] = json!(cidr.to_string());
        spec["podCIDRs"] = json!([cidr.to_string()]);
    }
    if !config.taints.is_empty() {
        spec["taints"] = json!(config.taints);
    }
    let value =
        json!({"metadata": {"name": config.name, "labels": all, "annotations": config.annotations}, "spec": spec});
    serde_json::from_value(value).unwrap_or_default()
}

/// Makes the record, or brings labels and addresses of an existing one up to date.
pub(crate) async fn register(context: &Context) -> ApiResult<Node> {
    let nodes = context.client.all::<Node>();
    // One that was given before, too: where the record was deleted, the pods that run still have those addresses.
    let range = context.config.pod_cidr.or(context.range.get().copied());
    let wanted = record(&context.config, range);
    match nodes.create(&wanted).await {
        Err(e) if e.is_already_exists() => {
            let mut patch =
                json!({"metadata": {"labels": wanted.metadata.labels, "annotations": wanted.metadata.annotations}});
            if let Some(cidr) = range {
                patch["spec"] = json!({"podCIDR": cidr.to_string(), "podCIDRs": [cidr.to_string()]});
            }
            nodes.patch(&context.config.name, PatchType::Merge, &patch).await
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_carries_labels_taints_and_range() {
        let mut config = NodeConfig::new("n1", "/tmp/x");
        config.labels.insert("zone".into(), "a".into());
        config.pod_cidr = Some("10.244.1.0/24".parse().unwrap());
        let node = record(&config, config.pod_cidr);
        let labels = node.metadata.labels.unwrap();
        assert_eq!((labels["kubernetes.io/hostname"].as_str(), labels["zone"].as_str()), ("n1", "a"));
        assert_eq!(node.spec.unwrap().pod_cidr.as_deref(), Some("10.244.1.0/24"));
    }
}
