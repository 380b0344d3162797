//! Orders that look at neither pod nor load: one after the other, and by chance.

use crate::scheduler::{NodeInfo, PodInfo, ScorePlugin, Snapshot};

/// Prefers the node whose turn it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoundRobin;

impl ScorePlugin for RoundRobin {
    fn name(&self) -> &'static str {
        "RoundRobin"
    }

    fn score(&self, _: &PodInfo, nodes: &[&NodeInfo], snapshot: &Snapshot) -> Vec<i64> {
        let turn = snapshot.cycle() as usize % nodes.len().max(1);
        (0..nodes.len()).map(|i| if i == turn { 100 } else { 0 }).collect()
    }
}

/// Prefers nothing: the framework's lot decides among equals.
#[derive(Clone, Copy, Debug, Default)]
pub struct RandomOrder;

impl ScorePlugin for RandomOrder {
    fn name(&self) -> &'static str {
        "Random"
    }

    fn score(&self, _: &PodInfo, nodes: &[&NodeInfo], _: &Snapshot) -> Vec<i64> {
        vec![0; nodes.len()]
    }
}
