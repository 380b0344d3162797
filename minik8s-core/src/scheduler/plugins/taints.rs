//! Taints keep pods away from nodes; tolerations let them near.

use crate::scheduler::{FilterPlugin, NodeInfo, PodInfo, ScorePlugin, Snapshot};
use k8s_openapi::api::core::v1::{Taint, Toleration};
use std::borrow::Cow;

/// Refuses nodes with a `NoSchedule` or `NoExecute` taint that the pod does not tolerate; prefers nodes without
/// `PreferNoSchedule` ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct Taints;

/// True where one of the tolerations covers the taint.
pub(super) fn tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|t| covers(t, taint))
}

fn covers(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        // An empty key is only allowed with Exists.
        _ => {
            !key.is_empty()
                && toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default()
        }
    }
}

fn untolerated<'a>(pod: &PodInfo, node: &'a NodeInfo, effects: &[&str]) -> impl Iterator<Item = &'a Taint> {
    node.taints.iter().filter(move |t| effects.contains(&t.effect.as_str()) && !tolerates(&pod.tolerations, t))
}

/// The first taint that keeps the pod away from the node.
pub(super) fn first_untolerated<'a>(pod: &PodInfo, node: &'a NodeInfo) -> Option<&'a Taint> {
    untolerated(pod, node, &["NoSchedule", "NoExecute"]).next()
}

impl FilterPlugin for Taints {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn refuse(&self, pod: &PodInfo, node: &NodeInfo, _: &Snapshot) -> Vec<Cow<'static, str>> {
        first_untolerated(pod, node)
            .map(|t| {
                format!("node(s) had untolerated taint {{{}: {}}}", t.key, t.value.as_deref().unwrap_or_default())
                    .into()
            })
            .into_iter()
            .collect()
    }
}

impl ScorePlugin for Taints {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn score(&self, pod: &PodInfo, nodes: &[&NodeInfo], _: &Snapshot) -> Vec<i64> {
        let raw: Vec<i64> = nodes.iter().map(|n| untolerated(pod, n, &["PreferNoSchedule"]).count() as i64).collect();
        super::fewer_is_better(&raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_with_fewer_taints_that_only_ask_are_better() {
        let soft = |key: &str| Taint { key: key.into(), effect: "PreferNoSchedule".into(), ..Taint::default() };
        let node = |taints| NodeInfo { taints, ..NodeInfo::default() };
        let nodes = [node(vec![]), node(vec![soft("a")]), node(vec![soft("a"), soft("b")]), node(vec![soft("c")])];
        let borne = Toleration { key: Some("c".into()), operator: Some("Exists".into()), ..Toleration::default() };
        let pod = PodInfo { tolerations: vec![borne], ..PodInfo::default() };
        let snapshot = Snapshot::default();
        let scores = ScorePlugin::score(&Taints, &pod, &nodes.iter().collect::<Vec<_>>(), &snapshot);
        assert_eq!(scores, [100, 50, 0, 100]);
        assert!(nodes.iter().all(|node| Taints.refuse(&pod, node, &snapshot).is_empty()));
    }

    #[test]
    fn tolerations_cover_taints_as_documented() {
        let taint =
            Taint { key: "gpu".into(), value: Some("a100".into()), effect: "NoSchedule".into(), time_added: None };
        // key, operator, value, effect, covers
        let table = [
            (Some("gpu"), Some("Equal"), Some("a100"), Some("NoSchedule"), true),
            (Some("gpu"), None, Some("a100"), None, true),
            (Some("gpu"), None, Some("h100"), None, false),
            (Some("gpu"), Some("Exists"), None, None, true),
            (Some("gpu"), Some("Exists"), None, Some("NoExecute"), false),
            (Some("gpu2"), Some("Exists"), None, None, false),
            (None, Some("Exists"), None, None, true),
            (None, None, Some("a100"), None, false),
        ];
        for (key, operator, value, effect, expected) in table {
            let toleration = Toleration {
                key: key.map(Into::into),
                operator: operator.map(Into::into),
                value: value.map(Into::into),
                effect: effect.map(Into::into),
                toleration_seconds: None,
            };
            assert_eq!(tolerates(std::slice::from_ref(&toleration), &taint), expected, "{toleration:?}");
        }
    }
}
