//! What can be said about the loops of a control plane.

use clap::Args as ClapArgs;
use minik8s_core::controllers::NodeFailures;
use minik8s_core::server::Settings;
use std::time::Duration;

/// How patient the cluster is with nodes that fall silent.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Tuning {
    /// A node that is silent for this long is not ready any more, and its pods get no traffic
    #[arg(long, value_name = "SECONDS", default_value_t = 40, help_heading = "Lost nodes",
        value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) node_monitor_grace_period: u64,
    /// How long new pods stay on a node that says it is not ready, where they do not say so themselves
    #[arg(long, value_name = "SECONDS", default_value_t = 300, help_heading = "Lost nodes",
        value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) default_not_ready_toleration_seconds: i64,
    /// The same for a node that is silent
    #[arg(long, value_name = "SECONDS", default_value_t = 300, help_heading = "Lost nodes",
        value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) default_unreachable_toleration_seconds: i64,
}

impl Tuning {
    pub(crate) fn settings(&self, settings: Settings) -> Settings {
        Settings {
            not_ready_seconds: self.default_not_ready_toleration_seconds,
            unreachable_seconds: self.default_unreachable_toleration_seconds,
            ..settings
        }
    }

    pub(crate) fn node_failures(&self) -> NodeFailures {
        NodeFailures { grace: Duration::from_secs(self.node_monitor_grace_period), ..NodeFailures::default() }
    }
}
