//! The plug-ins that come with the framework, one file each.

mod fit;
mod node_affinity;
mod node_name;
mod orders;
mod ports;
mod spread;
mod taints;

pub use fit::{LeastRequested, ResourceFit};
pub use node_affinity::NodeAffinity;
pub use node_name::{NodeName, NodeSchedulable};
pub use orders::{RandomOrder, RoundRobin};
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
