//! The policies one can ask for by name.

use super::framework::{Enough, Profile};
use super::plugins::{
    HostPorts, InterPodAffinity, LeastRequested, MostRequested, NodeAffinity, NodeName, NodeSchedulable, PodSpread,
    RandomOrder, ResourceFit, RoundRobin, Taints,
};
use std::str::FromStr;
use std::sync::Arc;

/// A named set of scores; the filters are the same for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Spread the pods of a controller, then even out what is requested, then prefer what pods prefer.
    #[default]
    Default,
    /// One node after the other.
    RoundRobin,
    /// Any node that fits.
    Random,
    /// The node with the fewest pods.
    LeastPods,
    /// The node with the smallest share of its CPU requested.
    LeastCpu,
    /// The node with the smallest share of its memory requested.
    LeastMemory,
    /// The fullest node that still has room, so that others stay empty.
    MostAllocated,
}

const NAMES: &[(Policy, &str)] = &[
    (Policy::Default, "Default"),
    (Policy::RoundRobin, "RoundRobin"),
    (Policy::Random, "Random"),
    (Policy::LeastPods, "LeastPods"),
    (Policy::LeastCpu, "LeastCpu"),
    (Policy::LeastMemory, "LeastMemory"),
    (Policy::MostAllocated, "MostAllocated"),
];

impl Policy {
    /// The policy as a profile named `default-scheduler`.
    pub fn profile(self) -> Profile {
        let base = Profile {
            name: "default-scheduler".into(),
            filters: vec![
                Arc::new(NodeName),
                Arc::new(NodeSchedulable),
                Arc::new(Taints),
                Arc::new(NodeAffinity),
                Arc::new(HostPorts),
                Arc::new(ResourceFit),
                Arc::new(PodSpread),
                Arc::new(InterPodAffinity),
            ],
            scores: Vec::new(),
            enough: if self == Policy::Default { Enough::Adaptive } else { Enough::All },
            preempts: true,
            seed: 0,
        };
        match self {
            Policy::Default => base
                .score(2, PodSpread)
                .score(1, LeastRequested::CPU_AND_MEMORY)
                .score(2, NodeAffinity)
                .score(2, InterPodAffinity)
                .score(3, Taints),
            Policy::RoundRobin => base.score(1, RoundRobin),
            Policy::Random => base.score(1, RandomOrder),
            Policy::LeastPods => base.score(1, LeastRequested::PODS),
            Policy::LeastCpu => base.score(1, LeastRequested::CPU),
            Policy::MostAllocated => base.score(1, MostRequested),
            Policy::LeastMemory => base.score(1, LeastRequested::MEMORY),
        }
    }
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        NAMES.iter().find(|(_, n)| n.eq_ignore_ascii_case(name)).map(|(p, _)| *p).ok_or_else(|| {
            let known = NAMES.iter().map(|(_, n)| *n).collect::<Vec<_>>().join(", ");
            format!("unknown scheduling policy {name:?}, known are {known}")
        })
    }
}
