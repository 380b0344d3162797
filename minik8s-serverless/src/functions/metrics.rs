//! What is counted of functions: above all how long it takes until the first instance is there, in its parts.

use super::revision::REVISION_LABEL;
use k8s_openapi::api::core::v1::Pod;
use minik8s_core::client::object_key;
use minik8s_core::controllers::is_ready;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::time::Instant;

/// `schedule` until an instance has a node, `sandbox` until it has namespaces and an address, `create` until its container
/// runs, `start` until it is ready, and `all`; `resume` until a paused one is ready again.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Part {
    part: &'static str,
}

/// A cold start under way.
struct Start {
    asked: Instant,
    bound: Option<Instant>,
    networked: Option<Instant>,
    running: Option<Instant>,
}

/// What is counted of functions. Cheap to clone.
#[derive(Clone)]
pub struct FunctionMetrics {
    starts: Family<Part, Histogram>,
    count: Counter,
    under_way: Arc<Mutex<HashMap<String, Start>>>,
    resuming: Arc<Mutex<HashMap<String, Instant>>>,
}

impl std::fmt::Debug for FunctionMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FunctionMetrics").field("starts", &self.count.get()).finish()
    }
}

impl Default for FunctionMetrics {
    fn default() -> Self {
        let histogram =
            || Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 15.0, 60.0]);
        Self {
            starts: Family::new_with_constructor(histogram),
            count: Counter::default(),
            under_way: Arc::default(),
            resuming: Arc::default(),
        }
    }
}

/// The revision that a pod is of.
fn key(pod: &Pod) -> Option<String> {
    let name = pod.metadata.labels.as_ref()?.get(REVISION_LABEL)?;
    Some(object_key(pod.metadata.namespace.as_deref().unwrap_or_default(), name))
}

impl FunctionMetrics {
    /// Adds them to a page.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Time from the wish for a first instance until it is ready, in its parts";
        registry.register("function_cold_start_seconds", help, self.starts.clone());
        registry.register("function_cold_starts", "Starts of a first instance", self.count.clone());
    }

    /// A revision is to have so many instances.
    pub(super) fn asked(&self, revision: &str, before: u32, now: u32, at: Instant) {
        let mut under_way = self.under_way.lock();
        match (before, now) {
            (0, 1..) => {
                self.count.inc();
                under_way.insert(revision.to_owned(), Start { asked: at, bound: None, networked: None, running: None });
            }
            (_, 0) => {
                under_way.remove(revision);
                self.resuming.lock().remove(revision);
            }
            _ => {}
        }
    }

    /// A paused instance is to go on.
    pub(super) fn resumed(&self, revision: &str, at: Instant) {
        self.resuming.lock().insert(revision.to_owned(), at);
    }

    /// A pod is no more, or soon: it will not go on.
    pub(super) fn gone(&self, pod: &Pod) {
        if let Some(key) = key(pod) {
            self.resuming.lock().remove(&key);
        }
    }

    /// A pod has changed.
    pub(super) fn saw(&self, pod: &Pod, at: Instant) {
        let Some(key) = key(pod) else { return };
        if pod.metadata.deletion_timestamp.is_some() {
            return self.gone(pod);
        }
        if is_ready(pod)
            && let Some(asked) = self.resuming.lock().remove(&key)
        {
            self.starts.get_or_create(&Part { part: "resume" }).observe((at - asked).as_secs_f64());
        }
        let mut under_way = self.under_way.lock();
        let Some(start) = under_way.get_mut(&key) else { return };
        if pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()) {
            start.bound.get_or_insert(at);
        }
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        if conditions.into_iter().any(|c| c.type_ == "PodReadyToStartContainers" && c.status == "True") {
            start.networked.get_or_insert(at);
        }
        let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
        if statuses.into_iter().flatten().any(|s| s.state.as_ref().is_some_and(|state| state.running.is_some())) {
            start.running.get_or_insert(at);
        }
        if is_ready(pod) {
            let (asked, bound) = (start.asked, start.bound.unwrap_or(at));
            let running = start.running.unwrap_or(at);
            let networked = start.networked.unwrap_or(running);
            under_way.remove(&key);
            let parts = [
                ("schedule", bound - asked),
                ("sandbox", networked - bound),
                ("create", running - networked),
                ("start", at - running),
                ("all", at - asked),
            ];
            for (part, took) in parts {
                self.starts.get_or_create(&Part { part }).observe(took.as_secs_f64());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_does_not_go_on_is_waited_for_no_more() {
        let (metrics, now) = (FunctionMetrics::default(), Instant::now());
        let pod = |ends: Option<&str>| -> Pod {
            let labels = json!({REVISION_LABEL: "r"});
            serde_json::from_value(json!({"metadata": {"namespace": "n", "labels": labels, "deletionTimestamp": ends}}))
                .unwrap()
        };
        type Step<'a> = (&'a str, &'a dyn Fn(&FunctionMetrics), bool);
        let steps: [Step<'_>; 4] = [
            ("a change", &|m| m.saw(&pod(None), now), true),
            ("nobody asks any more", &|m| m.asked("n/r", 1, 0, now), false),
            ("its end begins", &|m| m.saw(&pod(Some("2026-01-01T00:00:00Z")), now), false),
            ("it is gone", &|m| m.gone(&pod(None)), false),
        ];
        for (what, step, waits) in steps {
            metrics.resumed("n/r", now);
            step(&metrics);
            assert_eq!(metrics.resuming.lock().contains_key("n/r"), waits, "{what}");
        }
    }
}
