//! The plug-ins that come with the framework, one file each.

mod fit;
mod node_affinity;
mod node_name;
mod orders;
mod pod_affinity;
mod ports;
mod spread;
mod taints;

pub use fit::{LeastRequested, MostRequested, ResourceFit};
pub use node_affinity::NodeAffinity;
pub use node_name::{NodeName, NodeSchedulable};
pub use orders::{RandomOrder, RoundRobin};
pub use pod_affinity::InterPodAffinity;
pub use ports::HostPorts;
pub use spread::PodSpread;
pub use taints::Taints;

/// Maps raw amounts to 100 (the smallest) … 0 (the largest).
fn fewer_is_better(raw: &[i64]) -> Vec<i64> {
    let most = raw.iter().copied().max().unwrap_or_default();
    raw.iter().map(|n| if most == 0 { 100 } else { 100 - n * 100 / most }).collect()
}

/// Maps raw amounts to 0 … 100 (the largest).
fn more_is_better(raw: &[i64]) -> Vec<i64> {
    let most = raw.iter().copied().max().unwrap_or_default();
    raw.iter().map(|n| if most == 0 { 0 } else { n * 100 / most }).collect()
}

/// Stretches raw amounts, which may be negative, to 0 (the smallest) … 100 (the largest); all 0 where they are equal.
fn stretched(raw: &[i64]) -> Vec<i64> {
    let (least, most) = raw.iter().fold((i64::MAX, i64::MIN), |(least, most), n| (least.min(*n), most.max(*n)));
    raw.iter().map(|n| if most == least { 0 } else { (n - least) * 100 / (most - least) }).collect()
}
