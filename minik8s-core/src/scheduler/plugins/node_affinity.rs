//! `spec.nodeSelector` and `spec.affinity.nodeAffinity`.

use crate::scheduler::{FilterPlugin, NodeInfo, PodFilter, PodInfo, ScorePlugin, Snapshot};
use k8s_openapi::api::core::v1::{NodeAffinity as Affinity, NodeSelectorRequirement, NodeSelectorTerm};
use std::borrow::Cow;

/// Refuses nodes that the pod's node selector or required affinity excludes; prefers those its preferences name.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeAffinity;

fn affinity(pod: &PodInfo) -> Option<&Affinity> {
    pod.affinity.as_ref().and_then(|a| a.node_affinity.as_ref())
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let listed = |v: &str| requirement.values.iter().flatten().any(|x| x == v);
    let bound = || requirement.values.as_ref()?.first()?.parse::<i64>().ok();
    let number = || value?.parse::<i64>().ok();
    match requirement.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number().zip(bound()).is_some_and(|(v, b)| v > b),
        "Lt" => number().zip(bound()).is_some_and(|(v, b)| v < b),
        _ => false,
    }
}

/// All requirements of a term hold; an empty term matches nothing.
fn term_matches(term: &NodeSelectorTerm, node: &NodeInfo) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    (!labels.is_empty() || !fields.is_empty())
        && labels.iter().all(|r| holds(r, node.labels.get(&r.key).map(String::as_str)))
        && fields.iter().all(|r| holds(r, (r.key == "metadata.name").then_some(node.name.as_str())))
}

/// True where node selector and required affinity let the pod on the node.
pub(super) fn allowed(pod: &PodInfo, node: &NodeInfo) -> bool {
    let selected = pod.node_selector.iter().all(|(k, v)| node.labels.get(k) == Some(v));
    let required = affinity(pod).and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    selected && required.is_none_or(|r| r.node_selector_terms.iter().any(|t| term_matches(t, node)))
}

impl FilterPlugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn prepare<'a>(&'a self, pod: &'a PodInfo, snapshot: &'a Snapshot) -> Option<Box<dyn PodFilter + 'a>> {
        let asks = !pod.node_selector.is_empty() || affinity(pod).is_some();
        asks.then(|| self.for_each_node(pod, snapshot))
    }

    fn refuse(&self, pod: &PodInfo, node: &NodeInfo, _: &Snapshot) -> Vec<Cow<'static, str>> {
        if allowed(pod, node) {
            return Vec::new();
        }
        vec!["node(s) didn't match Pod's node affinity/selector".into()]
    }
}

impl ScorePlugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn score(&self, pod: &PodInfo, nodes: &[&NodeInfo], _: &Snapshot) -> Vec<i64> {
        let preferred = affinity(pod).and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_deref());
        let Some(preferred) = preferred.filter(|terms| !terms.is_empty()) else { return vec![0; nodes.len()] };
        let weight = |node: &NodeInfo| {
            preferred.iter().filter(|p| term_matches(&p.preference, node)).map(|p| i64::from(p.weight)).sum()
        };
        super::more_is_better(&nodes.iter().map(|n| weight(n)).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn terms_are_alternatives_and_preferences_add_up() {
        let node = |name: &str, disk: &str| NodeInfo {
            name: name.into(),
            labels: [("disk".to_owned(), disk.to_owned())].into(),
            ..NodeInfo::default()
        };
        let nodes = [node("a", "ssd"), node("b", "ssd"), node("c", "hdd"), node("d", "tape")];
        let ssd = serde_json::json!({"key": "disk", "operator": "In", "values": ["ssd"]});
        let named_a = serde_json::json!({"key": "metadata.name", "operator": "In", "values": ["a"]});
        let not_a = serde_json::json!({"key": "metadata.name", "operator": "NotIn", "values": ["a"]});
        let hdd = serde_json::json!({"key": "disk", "operator": "In", "values": ["hdd"]});
        let affinity = serde_json::json!({"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [ssd], "matchFields": [not_a]}, {"matchExpressions": [hdd]}, {}]},
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 30, "preference": {"matchExpressions": [ssd]}},
                {"weight": 10, "preference": {"matchFields": [named_a]}},
                {"weight": 99, "preference": {}}]}});
        let affinity = Some(Arc::new(serde_json::from_value(affinity).unwrap()));
        let pod = PodInfo { affinity, ..PodInfo::default() };
        assert_eq!(nodes.each_ref().map(|node| allowed(&pod, node)), [false, true, true, false]);
        let scores = ScorePlugin::score(&NodeAffinity, &pod, &nodes.iter().collect::<Vec<_>>(), &Snapshot::default());
        assert_eq!(scores, [100, 75, 0, 0], "an empty preference prefers nothing");
    }

    #[test]
    fn requirements_hold_as_documented() {
        // operator, values, the node's value, holds
        let table: &[(&str, &[&str], Option<&str>, bool)] = &[
            ("In", &["a", "b"], Some("b"), true),
            ("In", &["a", "b"], Some("ab"), false),
            ("In", &["a"], None, false),
            ("NotIn", &["a"], None, true),
            ("NotIn", &["a"], Some("a"), false),
            ("Exists", &[], Some(""), true),
            ("DoesNotExist", &[], Some("x"), false),
            ("Gt", &["5"], Some("6"), true),
            ("Gt", &["5"], Some("five"), false),
            ("Lt", &["5"], Some("5"), false),
        ];
        for (operator, values, value, expected) in table {
            let requirement = NodeSelectorRequirement {
                key: "k".into(),
                operator: (*operator).into(),
                values: Some(values.iter().map(ToString::to_string).collect()),
            };
            assert_eq!(holds(&requirement, *value), *expected, "{operator} {values:?} {value:?}");
        }
    }
}
