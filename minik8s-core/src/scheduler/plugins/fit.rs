//! Whether what a pod asks for is there, and how evenly nodes are used.

use crate::scheduler::{ClusterEvent, FilterPlugin, NodeInfo, PodInfo, ScorePlugin, Snapshot};
use std::borrow::Cow;

/// Refuses nodes that lack what the pod asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResourceFit;

impl FilterPlugin for ResourceFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn refuse(&self, pod: &PodInfo, node: &NodeInfo, _: &Snapshot) -> Vec<Cow<'static, str>> {
        let mut reasons = Vec::new();
        if node.requested.pods >= node.allocatable.pods {
            reasons.push("Too many pods".into());
        }
        for resource in node.allocatable.lacking(&node.requested, &pod.requests) {
            reasons.push(format!("Insufficient {resource}").into());
        }
        reasons
    }

    fn turned_by(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::NodeAdded, ClusterEvent::NodeChanged, ClusterEvent::PodLeft]
    }
}

/// Prefers nodes of which a small share is requested.
#[derive(Clone, Copy, Debug)]
pub struct LeastRequested {
    cpu: bool,
    memory: bool,
    pods: bool,
}

impl LeastRequested {
    /// By CPU and memory, equally.
    pub const CPU_AND_MEMORY: Self = Self { cpu: true, memory: true, pods: false };
    /// By CPU.
    pub const CPU: Self = Self { cpu: true, memory: false, pods: false };
    /// By memory.
    pub const MEMORY: Self = Self { cpu: false, memory: true, pods: false };
    /// By number of pods.
    pub const PODS: Self = Self { cpu: false, memory: false, pods: true };

    fn free_share(&self, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let [cpu, memory] = busy_with(pod, node);
        let free = |(used, have): (i64, i64)| if have <= 0 || used > have { 0 } else { share(have - used, have) };
        match (self.cpu, self.memory) {
            (true, true) => (free(cpu) + free(memory)) / 2,
            (true, false) => free(cpu),
            _ => free(memory),
        }
    }
}

/// CPU and memory of the node, as used with the pod on it and as there is.
fn busy_with(pod: &PodInfo, node: &NodeInfo) -> [(i64, i64); 2] {
    let (mine, theirs) = (pod.busy(), node.busy);
    [(mine.0 + theirs.0, node.allocatable.milli_cpu), (mine.1 + theirs.1, node.allocatable.memory)]
}

/// Hundredths.
fn share(part: i64, whole: i64) -> i64 {
    let whole = whole.max(1);
    match part.checked_mul(100) {
        Some(hundredfold) => hundredfold / whole,
        None => (i128::from(part) * 100 / i128::from(whole)) as i64,
    }
}

/// Prefers nodes of which a large share of CPU and memory is requested already, so that others stay empty.
#[derive(Clone, Copy, Debug, Default)]
pub struct MostRequested;

impl ScorePlugin for MostRequested {
    fn name(&self) -> &'static str {
        "MostRequested"
    }

    fn score(&self, pod: &PodInfo, nodes: &[&NodeInfo], _: &Snapshot) -> Vec<i64> {
        let used = |(used, have): (i64, i64)| if have <= 0 { 0 } else { share(used.min(have), have) };
        nodes.iter().map(|node| busy_with(pod, node).map(used).iter().sum::<i64>() / 2).collect()
    }
}

impl ScorePlugin for LeastRequested {
    fn name(&self) -> &'static str {
        "LeastRequested"
    }

    fn score(&self, pod: &PodInfo, nodes: &[&NodeInfo], _: &Snapshot) -> Vec<i64> {
        if self.pods {
            let counts: Vec<i64> = nodes.iter().map(|n| n.requested.pods).collect();
            return super::fewer_is_better(&counts);
        }
        nodes.iter().map(|node| self.free_share(pod, node)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::Resources;
    use std::sync::Arc;

    fn amounts(milli_cpu: i64, memory: i64) -> Resources {
        Resources { milli_cpu, memory, pods: 2, ..Resources::default() }
    }

    fn world(used: Resources) -> Snapshot {
        let mut snapshot = Snapshot::default();
        snapshot.put_node(NodeInfo { name: "n".into(), allocatable: amounts(4000, 10_000), ..NodeInfo::default() });
        let requests = Resources { pods: 0, ..used };
        snapshot.put_pod(Arc::new(PodInfo { uid: "a".into(), node_name: "n".into(), requests, ..PodInfo::default() }));
        snapshot
    }

    #[test]
    fn strategies_score_as_documented() {
        let pod = PodInfo { requests: amounts(1000, 2000), ..PodInfo::default() };
        // used already, least, most: both average the shares of CPU and memory with the pod on the node
        let table = [
            (amounts(1000, 3000), 50, 50),
            (amounts(2000, 8000), 12, 87),
            // More than there is counts as nothing free, and as everything taken.
            (amounts(4000, 9000), 0, 100),
        ];
        for (used, least, most) in table {
            let snapshot = world(used.clone());
            let nodes: Vec<_> = snapshot.nodes().collect();
            assert_eq!(LeastRequested::CPU_AND_MEMORY.score(&pod, &nodes, &snapshot), [least], "{used:?}");
            assert_eq!(MostRequested.score(&pod, &nodes, &snapshot), [most], "{used:?}");
        }
    }

    #[test]
    fn every_lack_is_named_and_pods_are_counted_too() {
        let snapshot = world(amounts(3500, 9000));
        let node = snapshot.node("n").unwrap();
        let wants = |requests| ResourceFit.refuse(&PodInfo { requests, ..PodInfo::default() }, node, &snapshot);
        assert_eq!(wants(amounts(501, 1001)), ["Insufficient cpu", "Insufficient memory"]);
        assert!(wants(amounts(500, 1000)).is_empty(), "it fits exactly");
        let full = NodeInfo { allocatable: Resources { pods: 1, ..node.allocatable.clone() }, ..node.clone() };
        assert_eq!(ResourceFit.refuse(&PodInfo::default(), &full, &snapshot), ["Too many pods"]);
    }
}
