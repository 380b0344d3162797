//! What can be said about the loops of a control plane.

use anyhow::{Context, Result};
use clap::Args as ClapArgs;
use jiff::SignedDuration;
use minik8s_core::controllers::NodeFailures;
use minik8s_core::controllers::horizontal::HorizontalConfig;
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

/// How the cluster follows load; the names are those of kube-controller-manager.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Autoscaling {
    /// Between two looks at an autoscaler, such as 15s; from 1s
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = period, help_heading = "Autoscaling")]
    horizontal_pod_autoscaler_sync_period: Duration,
    /// How far back recommendations hold back shrinking, where an autoscaler does not say
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = span, help_heading = "Autoscaling")]
    horizontal_pod_autoscaler_downscale_stabilization: SignedDuration,
    /// How far a metric may be off, where an autoscaler does not say
    #[arg(long, value_name = "RATIO", default_value_t = 0.1, value_parser = ratio, help_heading = "Autoscaling")]
    horizontal_pod_autoscaler_tolerance: f64,
    /// For so long after its start, cpu of a pod counts only once it is ready and was measured since
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = span, help_heading = "Autoscaling")]
    horizontal_pod_autoscaler_cpu_initialization_period: SignedDuration,
    /// A pod that became unready so soon after its start has never been ready
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = span, help_heading = "Autoscaling")]
    horizontal_pod_autoscaler_initial_readiness_delay: SignedDuration,
    /// How many autoscalers are looked at at once
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..),
        help_heading = "Autoscaling")]
    concurrent_horizontal_pod_autoscaler_syncs: u16,
}

impl Autoscaling {
    pub(crate) fn config(&self) -> HorizontalConfig {
        HorizontalConfig {
            sync_period: self.horizontal_pod_autoscaler_sync_period,
            downscale_stabilization: self.horizontal_pod_autoscaler_downscale_stabilization,
            tolerance: self.horizontal_pod_autoscaler_tolerance,
            cpu_initialization_period: self.horizontal_pod_autoscaler_cpu_initialization_period,
            initial_readiness_delay: self.horizontal_pod_autoscaler_initial_readiness_delay,
            workers: self.concurrent_horizontal_pod_autoscaler_syncs.into(),
        }
    }
}

/// A duration such as `15s`, `5m0s` or `500ms`.
fn span(text: &str) -> Result<SignedDuration, String> {
    let found: SignedDuration = text.parse().map_err(|_| format!("{text:?} is no duration such as 15s or 5m0s"))?;
    if found.is_negative() { Err(format!("{text:?} is negative")) } else { Ok(found) }
}

pub(crate) fn period(text: &str) -> Result<Duration, String> {
    let found = span(text)?.unsigned_abs();
    if found < Duration::from_secs(1) { Err(format!("{text} is less than 1s")) } else { Ok(found) }
}

fn ratio(text: &str) -> Result<f64, String> {
    let found: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    if (0.0..1.0).contains(&found) { Ok(found) } else { Err("it must be at least 0 and less than 1".to_owned()) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_kubernetes_writes_them() {
        let cases = [("15s", 15_000), ("5m0s", 300_000), ("1m30s", 90_000), ("500ms", 500), ("1h", 3_600_000)];
        for (text, millis) in cases {
            assert_eq!(span(text), Ok(SignedDuration::from_millis(millis)), "{text}");
        }
        assert!(span("soon").is_err() && span("-1s").is_err() && span("15").is_err());
        assert!(period("999ms").is_err() && period("1s").is_ok());
        assert!(ratio("1").is_err() && ratio("nan").is_err() && ratio("0.1").is_ok());
    }
}
