//! The plug-ins that a configuration can name.

use super::super::plugins::{
    HostPorts, InterPodAffinity, LeastRequested, MostRequested, NodeAffinity, NodeName, NodeSchedulable, PodSpread,
    RandomOrder, ResourceFit, RoundRobin, Taints,
};
use super::super::{FilterPlugin, ScorePlugin};
use std::sync::Arc;

/// Plug-ins by their names. Start from [`builtin`](Self::builtin) and add your own.
#[derive(Clone, Default)]
pub struct PluginTable {
    /// In the order in which they are asked.
    pub(super) filters: Vec<(String, Arc<dyn FilterPlugin>)>,
    pub(super) scores: Vec<(String, Arc<dyn ScorePlugin>)>,
}

impl PluginTable {
    /// Those that come with the framework: upstream's by upstream's names, and the orders and measures behind the named
    /// policies by the names of these.
    pub fn builtin() -> Self {
        Self::default()
            .filter("NodeName", NodeName)
            .filter("NodeUnschedulable", NodeSchedulable)
            .filter("TaintToleration", Taints)
            .filter("NodeAffinity", NodeAffinity)
            .filter("NodePorts", HostPorts)
            .filter("NodeResourcesFit", ResourceFit)
            .filter("PodTopologySpread", PodSpread)
            .filter("InterPodAffinity", InterPodAffinity)
            .score("PodTopologySpread", PodSpread)
            .score("NodeResourcesFit", LeastRequested::CPU_AND_MEMORY)
            .score("NodeAffinity", NodeAffinity)
            .score("InterPodAffinity", InterPodAffinity)
            .score("TaintToleration", Taints)
            .score("RoundRobin", RoundRobin)
            .score("Random", RandomOrder)
            .score("LeastPods", LeastRequested::PODS)
            .score("LeastCpu", LeastRequested::CPU)
            .score("LeastMemory", LeastRequested::MEMORY)
            .score("MostAllocated", MostRequested)
    }

    /// With one more filter, under this name.
    #[must_use]
    pub fn filter(mut self, name: &str, plugin: impl FilterPlugin) -> Self {
        self.filters.push((name.to_owned(), Arc::new(plugin)));
        self
    }

    /// With one more score, under this name.
    #[must_use]
    pub fn score(mut self, name: &str, plugin: impl ScorePlugin) -> Self {
        self.scores.push((name.to_owned(), Arc::new(plugin)));
        self
    }

    pub(super) fn filter_named(&self, name: &str) -> Option<Arc<dyn FilterPlugin>> {
        self.filters.iter().rev().find(|(known, _)| known == name).map(|(_, plugin)| plugin.clone())
    }

    pub(super) fn score_named(&self, name: &str) -> Option<Arc<dyn ScorePlugin>> {
        self.scores.iter().rev().find(|(known, _)| known == name).map(|(_, plugin)| plugin.clone())
    }
}
