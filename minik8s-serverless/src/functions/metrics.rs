//! What is counted of functions: above all how long it takes until the first instance is there, in its parts. What was
//! counted of a function goes with it.

use super::revision::{FUNCTION_LABEL, REVISION_LABEL};
use k8s_openapi::api::core::v1::Pod;
use minik8s_core::client::object_key;
use minik8s_core::controllers::is_ready;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use tokio::time::Instant;

/// `schedule` until an instance has a node, `sandbox` until it has namespaces and an address, `create` until its container
/// runs, `start` until it is ready, and `all`; `resume` until a paused one is ready again.
const PARTS: [&str; 6] = ["schedule", "sandbox", "create", "start", "all", "resume"];

/// A function.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Of {
    namespace: String,
    function: String,
}

/// One of the [`PARTS`] of a function's starts.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Part {
    namespace: String,
    function: String,
    part: &'static str,
}

impl Of {
    /// The function of a key.
    fn key(key: &str) -> Self {
        let (namespace, function) = key.split_once('/').unwrap_or_default();
        Self { namespace: namespace.to_owned(), function: function.to_owned() }
    }

    fn part(self, part: &'static str) -> Part {
        Part { namespace: self.namespace, function: self.function, part }
    }
}

/// A cold start under way.
struct Start {
    /// Key of the function.
    function: String,
    asked: Instant,
    bound: Option<Instant>,
    networked: Option<Instant>,
    running: Option<Instant>,
}

/// What is waited for, by revision, and of whom something was counted. The lock around it is held while something is
/// counted, so that nothing is counted of who was forgotten.
#[derive(Default)]
struct Known {
    under_way: HashMap<String, Start>,
    /// Since when, and of which function.
    resuming: HashMap<String, (Instant, String)>,
    functions: BTreeSet<String>,
}

/// What is counted of functions. Cheap to clone.
#[derive(Clone)]
pub struct FunctionMetrics {
    starts: Family<Part, Histogram>,
    count: Family<Of, Counter>,
    known: Arc<Mutex<Known>>,
}

impl std::fmt::Debug for FunctionMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FunctionMetrics").field("functions", &self.known.lock().functions.len()).finish()
    }
}

impl Default for FunctionMetrics {
    fn default() -> Self {
        let histogram =
            || Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 15.0, 60.0]);
        Self { starts: Family::new_with_constructor(histogram), count: Family::default(), known: Arc::default() }
    }
}

/// What a pod has under a label, as a key.
fn key(pod: &Pod, label: &str) -> Option<String> {
    let name = pod.metadata.labels.as_ref()?.get(label)?;
    Some(object_key(pod.metadata.namespace.as_deref().unwrap_or_default(), name))
}

impl FunctionMetrics {
    /// Adds them to a page.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Time from the wish for a first instance until it is ready, in its parts";
        registry.register("function_cold_start_seconds", help, self.starts.clone());
        registry.register("function_cold_starts", "Starts of a first instance", self.count.clone());
    }

    /// A revision of a function (both by key) is to have so many instances.
    pub(super) fn asked(&self, function: &str, revision: &str, (before, now): (u32, u32), at: Instant) {
        let known = &mut *self.known.lock();
        match (before, now) {
            (0, 1..) => {
                known.functions.insert(function.to_owned());
                self.count.get_or_create(&Of::key(function)).inc();
                let function = function.to_owned();
                let start = Start { function, asked: at, bound: None, networked: None, running: None };
                known.under_way.insert(revision.to_owned(), start);
            }
            (_, 0) => {
                known.under_way.remove(revision);
                known.resuming.remove(revision);
            }
            _ => {}
        }
    }

    /// A paused instance is to go on.
    pub(super) fn resumed(&self, function: &str, revision: &str, at: Instant) {
        self.known.lock().resuming.insert(revision.to_owned(), (at, function.to_owned()));
    }

    /// A pod is no more, or soon: it will not go on.
    pub(super) fn gone(&self, pod: &Pod) {
        if let Some(key) = key(pod, REVISION_LABEL) {
            self.known.lock().resuming.remove(&key);
        }
    }

    /// A function is no more, by its key: nor is what was counted of it.
    pub(super) fn forget(&self, function: &str) {
        let known = &mut *self.known.lock();
        known.under_way.retain(|_, start| start.function != function);
        known.resuming.retain(|_, (_, of)| of != function);
        if known.functions.remove(function) {
            self.count.remove(&Of::key(function));
            for part in PARTS {
                self.starts.remove(&Of::key(function).part(part));
            }
        }
    }

    /// Forgets functions that went while nobody looked.
    pub(super) fn keep(&self, lives: impl Fn(&str) -> bool) {
        let gone: Vec<String> = self.known.lock().functions.iter().filter(|key| !lives(key)).cloned().collect();
        gone.iter().for_each(|key| self.forget(key));
    }

    /// A pod has changed.
    pub(super) fn saw(&self, pod: &Pod, at: Instant) {
        let (Some(key), Some(function)) = (key(pod, REVISION_LABEL), key(pod, FUNCTION_LABEL)) else { return };
        if pod.metadata.deletion_timestamp.is_some() {
            return self.gone(pod);
        }
        let known = &mut *self.known.lock();
        if is_ready(pod)
            && let Some((asked, _)) = known.resuming.remove(&key)
        {
            known.functions.insert(function.clone());
            self.observe(&function, [("resume", asked, at)]);
        }
        let Some(start) = known.under_way.get_mut(&key) else { return };
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
            known.under_way.remove(&key);
            let parts = [
                ("schedule", asked, bound),
                ("sandbox", bound, networked),
                ("create", networked, running),
                ("start", running, at),
                ("all", asked, at),
            ];
            self.observe(&function, parts);
        }
    }

    /// Counts parts of a start, each from when and until when.
    fn observe<const N: usize>(&self, function: &str, parts: [(&'static str, Instant, Instant); N]) {
        for (part, from, to) in parts {
            self.starts.get_or_create(&Of::key(function).part(part)).observe((to - from).as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::time::Duration;

    fn pod(function: &str, more: Value) -> Pod {
        let labels = json!({FUNCTION_LABEL: function, REVISION_LABEL: format!("{function}-1")});
        let mut pod = json!({"metadata": {"namespace": "n", "labels": labels}});
        pod["metadata"].as_object_mut().unwrap().extend(more["metadata"].as_object().cloned().unwrap_or_default());
        (pod["spec"], pod["status"]) = (more["spec"].clone(), more["status"].clone());
        serde_json::from_value(pod).unwrap()
    }

    fn is(condition: &str) -> Value {
        json!({"type": condition, "status": "True"})
    }

    fn page(metrics: &FunctionMetrics) -> String {
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    /// A cold start whose parts take 1, 2, 3 and 4 seconds, and a waking of 5.
    fn start(metrics: &FunctionMetrics, function: &str, now: Instant) {
        let second = |n| now + Duration::from_secs(n);
        let (key, revision) = (format!("n/{function}"), format!("n/{function}-1"));
        let spec = json!({"nodeName": "node", "containers": []});
        let running = json!([{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "state": {"running": {}}}]);
        let networked = json!([is("PodReadyToStartContainers")]);
        let ready = json!([is("PodReadyToStartContainers"), is("Ready")]);
        metrics.asked(&key, &revision, (0, 1), now);
        metrics.saw(&pod(function, json!({"spec": spec})), second(1));
        metrics.saw(&pod(function, json!({"spec": spec, "status": {"conditions": networked}})), second(3));
        let status = json!({"conditions": networked, "containerStatuses": running});
        metrics.saw(&pod(function, json!({"spec": spec, "status": status})), second(6));
        let status = json!({"conditions": ready, "containerStatuses": running});
        metrics.saw(&pod(function, json!({"spec": spec, "status": status})), second(10));
        metrics.resumed(&key, &revision, second(20));
        metrics.saw(&pod(function, json!({"spec": spec, "status": status})), second(25));
    }

    #[test]
    fn the_page_tells_the_parts_of_each_functions_starts_until_the_function_goes() {
        let (metrics, now) = (FunctionMetrics::default(), Instant::now());
        start(&metrics, "f", now);
        start(&metrics, "g", now);
        let line = |name: &str, function: &str, part: &str, value: &str| {
            let part = if part.is_empty() { String::new() } else { format!(",part=\"{part}\"") };
            format!("{name}{{namespace=\"n\",function=\"{function}\"{part}}} {value}\n")
        };
        let told = page(&metrics);
        for function in ["f", "g"] {
            let sums = [("schedule", 1), ("sandbox", 2), ("create", 3), ("start", 4), ("all", 10), ("resume", 5)];
            for (part, seconds) in sums {
                let sum = line("function_cold_start_seconds_sum", function, part, &format!("{seconds}.0"));
                let count = line("function_cold_start_seconds_count", function, part, "1");
                assert!(told.contains(&sum) && told.contains(&count), "{sum}{count} is not in\n{told}");
            }
            let count = line("function_cold_starts_total", function, "", "1");
            assert!(told.contains(&count), "{count} is not in\n{told}");
        }
        metrics.forget("n/f");
        assert!(!page(&metrics).contains("function=\"f\""), "{}", page(&metrics));
        // Whoever was forgotten is not counted for what was under way.
        metrics.asked("n/f", "n/f-1", (0, 1), now);
        metrics.forget("n/f");
        let status = json!({"conditions": [is("Ready")]});
        metrics.saw(&pod("f", json!({"status": status})), now);
        assert!(!page(&metrics).contains("function=\"f\"") && page(&metrics).contains("function=\"g\""));
        metrics.keep(|key| key != "n/g");
        assert!(!page(&metrics).contains("function="), "{}", page(&metrics));
    }

    #[test]
    fn what_does_not_go_on_is_waited_for_no_more() {
        let (metrics, now) = (FunctionMetrics::default(), Instant::now());
        let pod = |ends: Option<&str>| pod("f", json!({"metadata": {"deletionTimestamp": ends}}));
        type Step<'a> = (&'a str, &'a dyn Fn(&FunctionMetrics), bool);
        let steps: [Step<'_>; 5] = [
            ("a change", &|m| m.saw(&pod(None), now), true),
            ("nobody asks any more", &|m| m.asked("n/f", "n/f-1", (1, 0), now), false),
            ("its end begins", &|m| m.saw(&pod(Some("2026-01-01T00:00:00Z")), now), false),
            ("it is gone", &|m| m.gone(&pod(None)), false),
            ("its function is gone", &|m| m.forget("n/f"), false),
        ];
        for (what, step, waits) in steps {
            metrics.resumed("n/f", "n/f-1", now);
            step(&metrics);
            assert_eq!(metrics.known.lock().resuming.contains_key("n/f-1"), waits, "{what}");
        }
    }
}
