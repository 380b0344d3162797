//! What the controllers count.

use crate::client::QueueCounts;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    controller: String,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Name {
    controller: String,
}

/// Labelled as upstream does it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Queue {
    name: String,
}

/// Counts and times of reconciliations, by controller. Cheap to clone; clones share the numbers.
#[derive(Clone)]
pub struct ControllerMetrics {
    reconciled: Family<Labels, Counter>,
    seconds: Family<Name, Histogram>,
    restarts: Family<Name, Counter>,
    depth: Family<Queue, Gauge>,
    adds: Family<Queue, Counter>,
    waited: Family<Queue, Histogram>,
    leading: Family<Queue, Gauge>,
}

/// Shows that a process leads, until it is dropped.
pub(super) struct Leading(Gauge);

impl Drop for Leading {
    fn drop(&mut self) {
        self.0.set(0);
    }
}

impl Default for ControllerMetrics {
    fn default() -> Self {
        let buckets = || Histogram::new([0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0]);
        Self {
            reconciled: Family::default(),
            seconds: Family::new_with_constructor(buckets),
            restarts: Family::default(),
            depth: Family::default(),
            adds: Family::default(),
            waited: Family::new_with_constructor(QueueCounts::waits),
            leading: Family::default(),
        }
    }
}

impl ControllerMetrics {
    /// Adds the numbers to a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("controller_reconciles", "Reconciliations by result", self.reconciled.clone());
        registry.register("controller_reconcile_seconds", "Time of one reconciliation", self.seconds.clone());
        registry.register(
            "controller_restarts",
            "Controllers that ended and were started again",
            self.restarts.clone(),
        );
        registry.register("workqueue_depth", "Keys that wait in a controller's queue", self.depth.clone());
        registry.register("workqueue_adds", "Keys that a controller's queue has taken in", self.adds.clone());
        registry.register(
            "workqueue_queue_duration_seconds",
            "Time of keys in a controller's queue, from when they were due",
            self.waited.clone(),
        );
        registry.register("leader_election_master_status", "1 where this process leads", self.leading.clone());
    }

    /// Shows under the name of a Lease that this process stands for it, and does not lead.
    pub(super) fn stands_for(&self, lease: &str) {
        self.leading.get_or_create(&Queue { name: lease.to_owned() }).set(0);
    }

    /// The same, and leads.
    pub(super) fn leads(&self, lease: &str) -> Leading {
        let gauge = self.leading.get_or_create(&Queue { name: lease.to_owned() }).clone();
        gauge.set(1);
        Leading(gauge)
    }

    /// The counts of a controller's queue, which is new and empty.
    pub(super) fn queue(&self, controller: &str) -> QueueCounts {
        let labels = Queue { name: controller.to_owned() };
        let (depth, adds) = (self.depth.get_or_create(&labels).clone(), self.adds.get_or_create(&labels).clone());
        depth.set(0);
        let waited = self.waited.get_or_create(&labels).clone();
        QueueCounts { depth, adds, waited }
    }

    pub(super) fn reconciled(&self, controller: &str, result: &'static str, took: Duration) {
        let controller = controller.to_owned();
        self.seconds.get_or_create(&Name { controller: controller.clone() }).observe(took.as_secs_f64());
        self.reconciled.get_or_create(&Labels { controller, result }).inc();
    }

    pub(super) fn restarted(&self, controller: &str) {
        self.restarts.get_or_create(&Name { controller: controller.to_owned() }).inc();
    }

    /// How many reconciliations of a controller ended with this result: `ok`, `error` or `panic`.
    pub fn count(&self, controller: &str, result: &'static str) -> u64 {
        self.reconciled.get_or_create(&Labels { controller: controller.to_owned(), result }).get()
    }
}
