//! What is said of nodes, and when pods leave them. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Taint of a node that says it is not ready.
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// Taint of a node that says nothing any more.
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// How long a pod stays on such a node where it does not say so itself.
const STAY: i64 = 300;

/// What a node should say of itself and carry. Pure.
#[derive(Debug, PartialEq)]
pub struct Judgement {
    /// Its conditions, where they must change.
    pub conditions: Option<Vec<NodeCondition>>,
    /// Its taints, where they must change.
    pub taints: Option<Vec<Taint>>,
}

/// Judges a node. `silent` says that its grace has run out.
pub fn judge(node: &Node, silent: bool, now: Timestamp) -> Judgement {
    let old = node.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let conditions = if silent { unknown(&old, now) } else { old.clone() };
    let ready = conditions.iter().find(|c| c.type_ == "Ready").map(|c| c.status.as_str());
    let taint = match ready {
        Some("Unknown") => Some(UNREACHABLE),
        Some("False") => Some(NOT_READY),
        _ => None,
    };
    let had = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    let taints = tainted(&had, taint, now);
    Judgement { conditions: (conditions != old).then_some(conditions), taints: (taints != had).then_some(taints) }
}

/// What is known of a node that says nothing: nothing.
fn unknown(old: &[NodeCondition], now: Timestamp) -> Vec<NodeCondition> {
    let never = old.iter().all(|c| c.type_ != "Ready");
    let (reason, message) = match never {
        true => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
        false => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
    };
    let doubt = |c: &NodeCondition| {
        let ours = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"].contains(&c.type_.as_str());
        if !ours || c.status == "Unknown" {
            return c.clone();
        }
        NodeCondition {
            status: "Unknown".into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_transition_time: Some(Time(now)),
            ..c.clone()
        }
    };
    let mut new: Vec<_> = old.iter().map(doubt).collect();
    if never {
        new.push(doubt(&NodeCondition { type_: "Ready".into(), ..NodeCondition::default() }));
    }
    new
}

/// The taints with `wanted` among them, and none of ours that is not wanted.
fn tainted(had: &[Taint], wanted: Option<&str>, now: Timestamp) -> Vec<Taint> {
    let ours = |t: &Taint| t.key == NOT_READY || t.key == UNREACHABLE;
    let mut taints: Vec<_> = had.iter().filter(|t| !ours(t) || Some(t.key.as_str()) == wanted).cloned().collect();
    for effect in ["NoSchedule", "NoExecute"] {
        if let Some(key) = wanted
            && !taints.iter().any(|t| t.key == key && t.effect == effect)
        {
            // The time counts for evictions only.
            let time_added = (effect == "NoExecute").then_some(Time(now));
            taints.push(Taint { key: key.into(), effect: effect.into(), value: None, time_added });
        }
    }
    taints
}

/// When a pod must leave a node with these taints: `None` for never. Pure.
pub fn leaves_at(pod: &Pod, taints: &[Taint], now: Timestamp) -> Option<Timestamp> {
    let none = Vec::new();
    let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_ref()).unwrap_or(&none);
    let one = |taint: &Taint| {
        let since = taint.time_added.as_ref().map_or(now, |t| t.0);
        let matching: Vec<_> = tolerations.iter().filter(|t| tolerates(t, taint)).collect();
        let seconds = match matching.iter().filter_map(|t| t.toleration_seconds).min() {
            Some(seconds) => seconds.max(0),
            None if !matching.is_empty() => return None,
            // What says nothing about our own taints gets the time that is usual.
            None if taint.key == NOT_READY || taint.key == UNREACHABLE => STAY,
            None => 0,
        };
        since.saturating_add(SignedDuration::from_secs(seconds)).ok()
    };
    taints.iter().filter(|t| t.effect == "NoExecute").filter_map(one).min()
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (key, value, effect) = (text(&toleration.key), text(&toleration.value), text(&toleration.effect));
    let exists = toleration.operator.as_deref() == Some("Exists");
    (effect.is_empty() || effect == taint.effect)
        && (key == taint.key || (key.is_empty() && exists))
        && (exists || value == text(&taint.value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn node(ready: Option<&str>, taints: serde_json::Value) -> Node {
        let mut value = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "spec": {"taints": taints},
            "status": {"conditions": [{"type": "DiskPressure", "status": "False"}, {"type": "Custom", "status": "True"}]}});
        if let Some(status) = ready {
            let list = value["status"]["conditions"].as_array_mut().unwrap();
            list.push(json!({"type": "Ready", "status": status}));
        }
        serde_json::from_value(value).unwrap()
    }

    fn keys(taints: Option<Vec<Taint>>) -> Option<Vec<String>> {
        taints.map(|list| list.iter().map(|t| format!("{}:{}", t.key.rsplit('/').next().unwrap(), t.effect)).collect())
    }

    #[test]
    fn a_silent_node_is_unknown_and_unreachable() {
        let theirs = json!([{"key": "gpu", "effect": "NoSchedule"}, {"key": NOT_READY, "effect": "NoExecute"}]);
        let judged = judge(&node(Some("True"), theirs), true, at(9));
        let conditions = judged.conditions.unwrap();
        let told: Vec<_> = conditions.iter().map(|c| (c.type_.as_str(), c.status.as_str())).collect();
        assert_eq!(told, [("DiskPressure", "Unknown"), ("Custom", "True"), ("Ready", "Unknown")]);
        assert_eq!(conditions[2].reason.as_deref(), Some("NodeStatusUnknown"));
        let want = ["gpu:NoSchedule", "unreachable:NoSchedule", "unreachable:NoExecute"].map(str::to_owned);
        assert_eq!(keys(judged.taints), Some(want.to_vec()));
        let never = judge(&node(None, json!([])), true, at(9)).conditions.unwrap();
        assert_eq!(never.last().unwrap().reason.as_deref(), Some("NodeStatusNeverUpdated"));
    }

    #[test]
    fn taints_follow_what_the_node_says() {
        let ours = json!([{"key": UNREACHABLE, "effect": "NoSchedule"}, {"key": UNREACHABLE, "effect": "NoExecute"}]);
        let table = [
            (node(Some("True"), json!([])), None),
            (node(Some("True"), ours.clone()), Some(vec![])),
            (
                node(Some("False"), json!([])),
                Some(vec!["not-ready:NoSchedule".to_owned(), "not-ready:NoExecute".into()]),
            ),
            (node(Some("Unknown"), ours), None),
            (node(None, json!([])), None),
        ];
        for (node, want) in table {
            let judged = judge(&node, false, at(5));
            assert_eq!((judged.conditions, keys(judged.taints)), (None, want), "{:?}", node.status);
        }
    }

    #[test]
    fn pods_stay_as_long_as_they_tolerate() {
        let taint = |key: &str, effect: &str, since: i64| Taint {
            key: key.into(),
            effect: effect.into(),
            value: None,
            time_added: Some(Time(at(since))),
        };
        let lost = [taint(UNREACHABLE, "NoSchedule", 100), taint(UNREACHABLE, "NoExecute", 100)];
        let pod = |tolerations: serde_json::Value| {
            let value = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
                "spec": {"containers": [], "tolerations": tolerations}});
            serde_json::from_value::<Pod>(value).unwrap()
        };
        let table = [
            (json!([]), Some(400)),
            (json!([{"operator": "Exists"}]), None),
            (
                json!([{"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}]),
                Some(130),
            ),
            (json!([{"key": UNREACHABLE, "operator": "Exists", "tolerationSeconds": -5}]), Some(100)),
            (json!([{"key": UNREACHABLE, "operator": "Exists", "effect": "NoSchedule"}]), Some(400)),
            (json!([{"key": "other", "operator": "Exists"}]), Some(400)),
        ];
        for (tolerations, want) in table {
            assert_eq!(leaves_at(&pod(tolerations.clone()), &lost, at(150)), want.map(at), "{tolerations}");
        }
        let theirs = [taint("maintenance", "NoExecute", 100)];
        assert_eq!(leaves_at(&pod(json!([])), &theirs, at(150)), Some(at(100)));
        assert_eq!(leaves_at(&pod(json!([])), &[], at(150)), None);
    }
}
