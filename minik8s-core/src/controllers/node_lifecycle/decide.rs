//! What is said of nodes. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Taint of a node that says it is not ready.
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// Taint of a node that says nothing any more.
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
const NO_SCHEDULE: &str = "NoSchedule";
const NO_EXECUTE: &str = "NoExecute";

/// Conditions that keep new pods away while they are true, and their taints.
const TROUBLES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

/// What becomes of the pods of a node that is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GiveUp {
    /// They have to leave, as soon as they do not tolerate it any longer.
    Yes,
    /// As it was decided before.
    AsBefore,
    /// They may stay, whatever was decided before.
    TakeBack,
}

/// The status of the node's condition `Ready`; `None` where it never said anything.
pub fn readiness(node: &Node) -> Option<&str> {
    let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().find(|c| c.type_ == "Ready").map(|c| c.status.as_str())
}

/// True where the node is not ready and nobody has decided yet that its pods have to leave.
pub fn is_undecided(node: &Node) -> bool {
    let mut taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    not_ready_taint(node).is_some() && !taints.any(is_verdict)
}

fn not_ready_taint(node: &Node) -> Option<&'static str> {
    match readiness(node)? {
        "True" => None,
        "False" => Some(NOT_READY),
        _ => Some(UNREACHABLE),
    }
}

/// True for a taint that makes pods leave a node that is not ready.
fn is_verdict(taint: &Taint) -> bool {
    taint.effect == NO_EXECUTE && [NOT_READY, UNREACHABLE].contains(&taint.key.as_str())
}

/// True for a taint that only this controller sets and removes.
fn is_ours(taint: &Taint) -> bool {
    let kept_away = [NOT_READY, UNREACHABLE, UNSCHEDULABLE].into_iter().chain(TROUBLES.map(|(_, key)| key));
    is_verdict(taint) || (taint.effect == NO_SCHEDULE && kept_away.into_iter().any(|key| key == taint.key))
}

/// The conditions of a node that has been silent for too long: nothing is known. `None` where they say so already.
pub fn silenced(node: &Node, now: Timestamp) -> Option<Vec<NodeCondition>> {
    let old = node.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let new = unknown(&old, now);
    (new != old).then_some(new)
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

/// The taints that the node should carry; `None` where it does.
pub fn taints(node: &Node, give_up: GiveUp, now: Timestamp) -> Option<Vec<Taint>> {
    let had = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    let wanted = wanted(node, &had, give_up);
    let of = |t: &Taint| (t.key.clone(), t.effect.clone());
    let mut new: Vec<_> = had.iter().filter(|t| !is_ours(t) || wanted.contains(&of(t))).cloned().collect();
    for (key, effect) in wanted {
        if !new.iter().any(|t| t.key == key && t.effect == effect) {
            // The time counts for evictions only.
            let time_added = (effect == NO_EXECUTE).then_some(Time(now));
            new.push(Taint { key, effect, value: None, time_added });
        }
    }
    (new != had).then_some(new)
}

/// Key and effect of the taints of ours that the node should carry.
fn wanted(node: &Node, had: &[Taint], give_up: GiveUp) -> Vec<(String, String)> {
    let mut keep_away: Vec<&str> = not_ready_taint(node).into_iter().collect();
    let conditions = || node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let is_so = |kind: &str| conditions().any(|c| c.type_ == kind && c.status == "True");
    keep_away.extend(TROUBLES.iter().filter(|(kind, _)| is_so(kind)).map(|(_, key)| *key));
    if node.spec.as_ref().is_some_and(|s| s.unschedulable == Some(true)) {
        keep_away.push(UNSCHEDULABLE);
    }
    let mut all: Vec<_> = keep_away.into_iter().map(|key| (key.to_owned(), NO_SCHEDULE.to_owned())).collect();
    let decided = match give_up {
        GiveUp::Yes => true,
        GiveUp::AsBefore => had.iter().any(is_verdict),
        GiveUp::TakeBack => false,
    };
    all.extend(not_ready_taint(node).filter(|_| decided).map(|key| (key.to_owned(), NO_EXECUTE.to_owned())));
    all
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
        let mut node = node(Some("True"), theirs);
        let conditions = silenced(&node, at(9)).unwrap();
        let told: Vec<_> = conditions.iter().map(|c| (c.type_.as_str(), c.status.as_str())).collect();
        assert_eq!(told, [("DiskPressure", "Unknown"), ("Custom", "True"), ("Ready", "Unknown")]);
        assert_eq!(conditions[2].reason.as_deref(), Some("NodeStatusUnknown"));
        node.status.as_mut().unwrap().conditions = Some(conditions);
        assert_eq!(silenced(&node, at(10)), None);
        let want = ["gpu:NoSchedule", "unreachable:NoSchedule", "unreachable:NoExecute"].map(str::to_owned);
        assert_eq!(keys(taints(&node, GiveUp::AsBefore, at(9))), Some(want.to_vec()), "the verdict stands");
        let want = ["gpu:NoSchedule", "unreachable:NoSchedule"].map(str::to_owned);
        assert_eq!(keys(taints(&node, GiveUp::TakeBack, at(9))), Some(want.to_vec()));
    }

    #[test]
    fn a_node_that_never_spoke_is_told_apart() {
        let never = silenced(&node(None, json!([])), at(9)).unwrap();
        assert_eq!(never.last().unwrap().reason.as_deref(), Some("NodeStatusNeverUpdated"));
    }

    #[test]
    fn taints_follow_what_the_node_says() {
        use GiveUp::{AsBefore, TakeBack, Yes};
        let lost = json!([{"key": UNREACHABLE, "effect": "NoSchedule"}, {"key": UNREACHABLE, "effect": "NoExecute"}]);
        // Ready, the taints it has, what becomes of its pods; the taints it should have, where they are others
        type Row<'a> = (Option<&'a str>, &'a serde_json::Value, GiveUp, Option<&'a [&'a str]>);
        let table: [Row<'_>; 9] = [
            (Some("True"), &json!([]), AsBefore, None),
            (Some("True"), &lost, Yes, Some(&[])),
            (Some("False"), &json!([]), Yes, Some(&["not-ready:NoSchedule", "not-ready:NoExecute"])),
            (Some("False"), &json!([]), AsBefore, Some(&["not-ready:NoSchedule"])),
            (Some("False"), &lost, AsBefore, Some(&["not-ready:NoSchedule", "not-ready:NoExecute"])),
            (Some("Unknown"), &lost, AsBefore, None),
            (Some("Unknown"), &lost, TakeBack, Some(&["unreachable:NoSchedule"])),
            (Some("True"), &json!([{"key": UNSCHEDULABLE, "effect": "NoSchedule"}]), Yes, Some(&[])),
            (None, &json!([]), Yes, None),
        ];
        for (ready, had, give_up, want) in table {
            let node = node(ready, had.clone());
            let want = want.map(|list| list.iter().map(ToString::to_string).collect());
            assert_eq!(keys(taints(&node, give_up, at(5))), want, "{ready:?} {had} {give_up:?}");
            assert_eq!(is_undecided(&node), matches!(ready, Some("False" | "Unknown")) && *had != lost);
        }
    }

    #[test]
    fn troubles_and_cordons_keep_new_pods_away() {
        let value = json!({"metadata": {"name": "n"}, "spec": {"unschedulable": true}, "status": {"conditions": [
            {"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "True"},
            {"type": "PIDPressure", "status": "Unknown"}, {"type": "NetworkUnavailable", "status": "True"}]}});
        let node: Node = serde_json::from_value(value).unwrap();
        let want = ["disk-pressure:NoSchedule", "network-unavailable:NoSchedule", "unschedulable:NoSchedule"];
        let want = Some(want.map(str::to_owned).to_vec());
        assert_eq!(keys(taints(&node, GiveUp::AsBefore, at(5))), want);
    }
}
