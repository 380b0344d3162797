//! What can be said about the loops of a control plane.

use anyhow::{Context, Result};
use clap::Args as ClapArgs;
use minik8s_core::controllers::NodeFailures;
use minik8s_core::scheduler::config::{self, PluginTable};
use minik8s_core::scheduler::{FrameworkScheduler, Policy, Scheduler};
use minik8s_core::server::Settings;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How pods find nodes.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Scheduling {
    /// Scheduling policy: Default, RoundRobin, Random, LeastPods, LeastCpu, LeastMemory, MostAllocated
    #[arg(long, value_name = "NAME", default_value = "Default", help_heading = "Scheduling")]
    pub(crate) scheduler_policy: String,
    /// Profiles of the scheduler: a KubeSchedulerConfiguration (kubescheduler.config.k8s.io/v1)
    #[arg(long, value_name = "FILE", conflicts_with = "scheduler_policy", help_heading = "Scheduling")]
    pub(crate) scheduler_config: Option<PathBuf>,
}

/// How patient the cluster is with nodes that fall silent.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct LostNodes {
    /// A node that is silent for this long is not ready any more, and its pods get no traffic
    #[arg(long, value_name = "SECONDS", default_value_t = 40, help_heading = "Lost nodes",
        value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) node_monitor_grace_period: u64,
}

/// How long pods stay on nodes that are lost.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Tolerations {
    /// How long new pods stay on a node that says it is not ready, where they do not say so themselves
    #[arg(long, value_name = "SECONDS", default_value_t = 300, help_heading = "Lost nodes",
        value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) default_not_ready_toleration_seconds: i64,
    /// The same for a node that is silent
    #[arg(long, value_name = "SECONDS", default_value_t = 300, help_heading = "Lost nodes",
        value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) default_unreachable_toleration_seconds: i64,
}

impl Scheduling {
    /// The schedulers of the cluster, by the file or by the policy that was named.
    pub(crate) fn schedulers(&self) -> Result<Vec<Arc<dyn Scheduler>>> {
        let profiles = match &self.scheduler_config {
            None => vec![self.scheduler_policy.parse::<Policy>().map_err(anyhow::Error::msg)?.profile()],
            Some(path) => {
                let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
                config::profiles(&text, &PluginTable::builtin()).with_context(|| path.display().to_string())?
            }
        };
        let one = |profile| Arc::new(FrameworkScheduler::new(profile)) as Arc<dyn Scheduler>;
        Ok(profiles.into_iter().map(one).collect())
    }
}

impl Tolerations {
    pub(crate) fn settings(&self, settings: Settings) -> Settings {
        Settings {
            not_ready_seconds: self.default_not_ready_toleration_seconds,
            unreachable_seconds: self.default_unreachable_toleration_seconds,
            ..settings
        }
    }
}

impl LostNodes {
    pub(crate) fn node_failures(&self) -> NodeFailures {
        NodeFailures { grace: Duration::from_secs(self.node_monitor_grace_period), ..NodeFailures::default() }
    }
}
