//! What should hold: domains with fewer pods are better, those of large topologies count more.

use super::PodSpread;
use super::constraint::{self, Constraint, HOSTNAME};
use crate::scheduler::domains::{self, Domains};
use crate::scheduler::{NodeInfo, PodInfo, ScorePlugin, Snapshot};
use std::rc::Rc;

/// A constraint with what is in each domain.
struct Counted {
    constraint: Constraint,
    on_nodes: Rc<[i64]>,
    domains: Domains,
    weight: f64,
}

impl Counted {
    fn new(
        constraint: Constraint,
        on_nodes: Rc<[i64]>,
        pod: &PodInfo,
        nodes: &[&NodeInfo],
        snapshot: &Snapshot,
    ) -> Self {
        let mut domains = Domains::default();
        if constraint.key != HOSTNAME {
            for (slot, count) in on_nodes.iter().enumerate().filter(|(_, count)| **count > 0) {
                if let Some(node) = snapshot.at(slot).filter(|node| constraint.includes(pod, node)) {
                    domains.add(&constraint.key, node, *count);
                }
            }
        }
        #[allow(clippy::cast_precision_loss, reason = "a number of nodes")]
        let size = match constraint.key.as_str() {
            HOSTNAME => nodes.len(),
            key => domains::different(key, nodes),
        } as f64;
        Self { constraint, on_nodes, domains, weight: (size + 2.0).ln() }
    }

    /// What the node's domain is worth; more is worse.
    fn cost(&self, node: &NodeInfo) -> f64 {
        let there = match self.constraint.key.as_str() {
            HOSTNAME => Some(self.on_nodes.get(node.slot).copied().unwrap_or_default()),
            key => self.domains.at(key, node),
        };
        #[allow(clippy::cast_precision_loss, reason = "a number of pods")]
        there.map_or(0.0, |pods| pods as f64 * self.weight + (self.constraint.max_skew - 1) as f64)
    }
}

impl ScorePlugin for PodSpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn score(&self, pod: &PodInfo, nodes: &[&NodeInfo], snapshot: &Snapshot) -> Vec<i64> {
        let own = !pod.spread.is_empty();
        let constraints = if own { constraint::of(pod, "ScheduleAnyway") } else { constraint::defaults() };
        // Who asks for domains does not want a node that is in none; the defaults take nodes as they are.
        let counts = |node: &NodeInfo| !own || constraint::has_all_keys(&constraints, node);
        let counts: Vec<bool> = nodes.iter().map(|node| counts(node)).collect();
        let mut counted: Vec<Counted> = Vec::with_capacity(constraints.len());
        for constraint in constraints {
            // Constraints about the same pods, as the defaults are, have them counted once.
            let same = counted.iter().find(|known| known.constraint.counts_the_same(&constraint));
            let on_nodes = same.map(|known| known.on_nodes.clone());
            let on_nodes = on_nodes.unwrap_or_else(|| constraint.on_nodes(pod, snapshot).into());
            counted.push(Counted::new(constraint, on_nodes, pod, nodes, snapshot));
        }
        let cost = |node: &NodeInfo| counted.iter().map(|c| c.cost(node)).sum::<f64>().round();
        #[allow(clippy::cast_possible_truncation, reason = "far below the bound")]
        let costs: Vec<Option<i64>> =
            nodes.iter().zip(counts).map(|(node, counts)| counts.then(|| cost(node) as i64)).collect();
        inverted(&costs)
    }
}

/// The lowest cost is worth most, and how much less the others are worth depends on how far they are from it; nodes
/// without a cost are worth nothing.
fn inverted(costs: &[Option<i64>]) -> Vec<i64> {
    let known = || costs.iter().flatten().copied();
    let (least, most) = (known().min().unwrap_or_default(), known().max().unwrap_or_default());
    let worth = |cost: i64| if most == 0 { 100 } else { 100 * (most + least - cost) / most };
    costs.iter().map(|cost| cost.map_or(0, worth)).collect()
}
