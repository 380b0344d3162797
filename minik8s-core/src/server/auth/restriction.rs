//! What a node may write into objects that it may write, after Kubernetes' admission plug-in `NodeRestriction`: records
//! and leases in its own name only, and nothing by which it would draw pods to itself.

use crate::api::{ApiError, ApiResult, Reason};
use crate::server::{Admission, AdmissionRequest, Settings, WriteContext};
use async_trait::async_trait;
use ipnet::IpNet;
use serde_json::Value;

/// Labels that say what may run on a node are not its own to set.
const GUARDED: &str = "node-restriction.kubernetes.io/";

/// Refuses what a node may not write.
pub struct NodeRestriction;

#[async_trait]
impl Admission for NodeRestriction {
    async fn admit(&self, request: &AdmissionRequest<'_>, object: &mut Value, ctx: &dyn WriteContext) -> ApiResult<()> {
        let Some(node) = ctx.user().and_then(|user| user.node()) else { return Ok(()) };
        let name = request.target.name.as_deref().unwrap_or_default();
        let mut why = check(node, &request.target.gvr.resource, name, object, request.old);
        if why.is_none() && request.target.gvr.resource == "nodes" && ranges(request.old).is_empty() {
            let asked = ranges(Some(object));
            if !asked.is_empty() {
                let others = ctx.all(&request.target.gvr, true).await?;
                why = foreign(node, &asked, ctx.settings(), &others);
            }
        }
        match why {
            None => Ok(()),
            Some(why) => {
                let place = format!("{} {name:?}", request.target.gvr.qualified());
                Err(ApiError::new(Reason::Forbidden, format!("{place} is forbidden: node {node:?} {why}")))
            }
        }
    }
}

/// The ranges of a node's pods.
fn ranges(node: Option<&Value>) -> Vec<IpNet> {
    let spec = node.and_then(|node| node.get("spec"));
    let all = spec.and_then(|spec| spec.get("podCIDRs")).and_then(Value::as_array).into_iter().flatten();
    let one = spec.and_then(|spec| spec.get("podCIDR"));
    all.chain(one).filter_map(|range| range.as_str()?.parse().ok()).collect()
}

/// Why a node may not bring these ranges: packets for them would go astray, or come to it that are others'.
fn foreign(node: &str, asked: &[IpNet], settings: &Settings, others: &[Value]) -> Option<String> {
    let overlap = |a: &IpNet, b: &IpNet| a.contains(&b.network()) || b.contains(&a.network());
    for range in asked {
        if overlap(range, &settings.service_cidr) {
            return Some(format!(
                "brings the range {range}, which overlaps with that of Services, {}",
                settings.service_cidr
            ));
        }
        if let Some(cluster) = settings.pod_cidr.filter(|cluster| !cluster.contains(range)) {
            return Some(format!("brings the range {range}, which is not part of the cluster's, {cluster}"));
        }
        for other in others {
            let name = other.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            if let Some(held) = ranges(Some(other)).iter().find(|held| name != node && overlap(range, held)) {
                return Some(format!("brings the range {range}, which overlaps with {held} of node {name:?}"));
            }
        }
    }
    None
}

fn check(node: &str, resource: &str, name: &str, new: &Value, old: Option<&Value>) -> Option<String> {
    match resource {
        "nodes" | "leases" | "demands" if name != node => {
            Some(format!("is not allowed to write {resource} of other nodes"))
        }
        "nodes" => {
            let taints = |v: &Value| v.pointer("/spec/taints").cloned().unwrap_or_default();
            if old.is_some_and(|old| taints(old) != taints(new)) {
                return Some("is not allowed to modify taints".to_owned());
            }
            (old.map(guarded).unwrap_or_default() != guarded(new))
                .then(|| format!("is not allowed to modify labels that begin with {GUARDED}"))
        }
        _ => None,
    }
}

fn guarded(node: &Value) -> Vec<(String, Value)> {
    let labels = node.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten();
    labels.filter(|(key, _)| key.starts_with(GUARDED)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ranges_of_others_are_not_brought() {
        let settings = Settings { pod_cidr: Some("10.244.0.0/16".parse().unwrap()), ..Settings::default() };
        let other =
            json!({"metadata": {"name": "n2"}, "spec": {"podCIDR": "10.244.9.0/24", "podCIDRs": ["10.244.9.0/24"]}});
        let why = |range: &str| foreign("n1", &[range.parse().unwrap()], &settings, std::slice::from_ref(&other));
        assert_eq!(why("10.244.3.0/24"), None);
        for (range, word) in [
            ("10.244.8.0/22", "\"n2\""),
            ("10.244.9.0/25", "\"n2\""),
            ("10.96.3.0/24", "Services"),
            ("10.1.0.0/24", "10.244.0.0/16"),
        ] {
            assert!(why(range).is_some_and(|why| why.contains(word)), "{range}: {:?}", why(range));
        }
        // Its own, from before.
        assert_eq!(foreign("n2", &["10.244.9.0/24".parse().unwrap()], &settings, &[other]), None);
    }

    #[test]
    fn a_node_writes_its_own_record_without_taints_and_guarded_labels() {
        let plain = json!({"metadata": {"labels": {"zone": "a"}}});
        let tainted = json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
        let guarded = json!({"metadata": {"labels": {"node-restriction.kubernetes.io/secure": "yes"}}});
        let refused = |name: &str, new: &Value, old: Option<&Value>| check("n1", "nodes", name, new, old).is_some();
        assert!(!refused("n1", &plain, None));
        // At its birth a node may be kept from pods that do not tolerate it.
        assert!(!refused("n1", &tainted, None));
        assert!(refused("n1", &tainted, Some(&plain)));
        assert!(refused("n1", &plain, Some(&tainted)));
        assert!(refused("n1", &guarded, None));
        assert!(refused("n1", &guarded, Some(&plain)));
        assert!(refused("n1", &plain, Some(&guarded)));
        assert!(!refused("n1", &guarded, Some(&guarded)));
        assert!(refused("n2", &plain, None));
        assert!(check("n1", "leases", "n2", &json!({}), None).is_some());
        assert!(check("n1", "leases", "n1", &json!({}), None).is_none());
    }
}
