//! Pods of one controller on different nodes.

use crate::scheduler::{NodeInfo, PodInfo, ScorePlugin, Snapshot};

/// Prefers nodes with fewer pods of the same controller, or with the same labels where a pod has no controller.
#[derive(Clone, Copy, Debug, Default)]
pub struct PodSpread;

fn alike(pod: &PodInfo, other: &PodInfo) -> bool {
    pod.namespace == other.namespace
        && match (&pod.owner, &other.owner) {
            (Some(mine), Some(theirs)) => mine == theirs,
            (None, None) => !pod.labels.is_empty() && pod.labels == other.labels,
            _ => false,
        }
}

impl ScorePlugin for PodSpread {
    fn name(&self) -> &'static str {
        "PodSpread"
    }

    fn score(&self, pod: &PodInfo, nodes: &[&NodeInfo], _: &Snapshot) -> Vec<i64> {
        let raw: Vec<i64> =
            nodes.iter().map(|n| n.pods.values().filter(|other| alike(pod, other)).count() as i64).collect();
        super::fewer_is_better(&raw)
    }
}
