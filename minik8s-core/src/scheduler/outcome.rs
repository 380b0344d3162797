//! What came of looking for a node.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// The result of one look for a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A node was found.
    Node(Choice),
    /// None fits now.
    Unschedulable(Diagnosis),
}

/// A node that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Its name.
    pub node: String,
    /// Its score.
    pub score: i64,
    /// How many nodes passed the filters.
    pub feasible: usize,
    /// How many nodes were looked at.
    pub considered: usize,
}

/// Why no node fits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnosis {
    /// For every node, the filter that refused it and its reasons.
    pub nodes: BTreeMap<String, (&'static str, Vec<Cow<'static, str>>)>,
}

impl Diagnosis {
    /// The filters that refused some node.
    pub fn filters(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.nodes.values().map(|(filter, _)| *filter)
    }
}

/// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't match Pod's node affinity/selector.`
impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes.is_empty() {
            return f.write_str("no nodes available to schedule pods");
        }
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for reason in self.nodes.values().flat_map(|(_, reasons)| reasons) {
            *counts.entry(reason).or_default() += 1;
        }
        let mut parts: Vec<String> = counts.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        parts.sort();
        write!(f, "0/{} nodes are available: {}.", self.nodes.len(), parts.join(", "))
    }
}
