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
        let (mine, theirs) = (pod.busy(), node.busy);
        let (cpu, memory) = (mine.0 + theirs.0, mine.1 + theirs.1);
        let mut shares = Vec::with_capacity(3);
        let mut push = |on: bool, used: i64, have: i64| {
            if on {
                shares.push(if have <= 0 || used > have {
                    0
                } else {
                    ((have - used) as i128 * 100 / have as i128) as i64
                });
            }
        };
        push(self.cpu, cpu, node.allocatable.milli_cpu);
        push(self.memory, memory, node.allocatable.memory);
        let count = shares.len().max(1) as i64;
        shares.iter().sum::<i64>() / count
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
