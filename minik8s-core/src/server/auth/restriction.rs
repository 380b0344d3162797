//! What a node may write into objects that it may write, after Kubernetes' admission plug-in `NodeRestriction`: records
//! and leases in its own name only, and nothing by which it would draw pods to itself.

use crate::api::{ApiError, ApiResult, Reason};
use crate::server::{Admission, AdmissionRequest, WriteContext};
use async_trait::async_trait;
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
        match check(node, &request.target.gvr.resource, name, object, request.old) {
            None => Ok(()),
            Some(why) => {
                let place = format!("{} {name:?}", request.target.gvr.qualified());
                Err(ApiError::new(Reason::Forbidden, format!("{place} is forbidden: node {node:?} {why}")))
            }
        }
    }
}

fn check(node: &str, resource: &str, name: &str, new: &Value, old: Option<&Value>) -> Option<String> {
    match resource {
        "nodes" | "leases" if name != node => Some(format!("is not allowed to write {resource} of other nodes")),
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
