//! Where metrics come from: the API, by the groups that upstream's autoscaler reads as well. Every question ends in time.

use super::replicas::Samples;
use super::spec::{Identifier, Reference};
use super::tally::Sample;
use crate::api::{ApiError, ApiResult, Gvr, Quantity, Selector, Target};
use crate::client::{Client, ListOptions};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::time::Duration;

const RESOURCES: Gvr = Gvr::new("metrics.k8s.io", "v1beta1", "pods");
const CUSTOM: (&str, &str) = ("custom.metrics.k8s.io", "v1beta2");
const EXTERNAL: (&str, &str) = ("external.metrics.k8s.io", "v1beta1");
/// Who has not answered by then has failed.
const ANSWER: Duration = Duration::from_secs(8);

/// The pods that are meant, where metrics of pods are asked for.
#[derive(Clone, Copy)]
pub(super) struct Of<'a> {
    pub(super) namespace: &'a str,
    pub(super) selector: &'a str,
}

/// A way to metrics.
pub(super) struct Sources(pub(super) Client);

impl Sources {
    async fn list(&self, target: &Target, selector: &str) -> ApiResult<Vec<Value>> {
        let options = ListOptions { label_selector: selector.to_owned(), ..ListOptions::default() };
        let asked = self.0.transport().list(target, &options);
        let late = || ApiError::new(crate::api::Reason::Timeout, format!("no answer in {ANSWER:?}"));
        let list = tokio::time::timeout(ANSWER, asked).await.unwrap_or_else(|_| Err(late()))?;
        list.items.iter().map(|object| object.value()).collect()
    }

    /// What the pods use, as the API tells it.
    pub(super) async fn resources(&self, of: Of<'_>) -> Result<Vec<Value>, String> {
        let target = Target::in_namespace(RESOURCES, of.namespace);
        let said = self.list(&target, of.selector).await;
        said.map_err(|e| format!("unable to fetch metrics from resource metrics API: {e}"))
    }

    /// A number that pods tell themselves.
    pub(super) async fn pods(&self, of: Of<'_>, metric: &Identifier) -> Result<Samples, String> {
        let told = self.custom(of.namespace, "pods", "*", metric, of.selector).await?;
        let named = told.iter().filter_map(|item| {
            let name = item.pointer("/describedObject/name")?.as_str()?.to_owned();
            let window = item["windowSeconds"].as_i64().unwrap_or_default();
            let window = SignedDuration::from_secs(window);
            Some((name, Sample { value: milli(&item["value"])?, at: time(item)?, window }))
        });
        let samples: Samples = named.collect();
        if samples.is_empty() { Err(NOTHING.to_owned()) } else { Ok(samples) }
    }

    /// A number that describes an object.
    pub(super) async fn object(
        &self,
        namespace: &str,
        object: &Reference,
        resource: &str,
        metric: &Identifier,
    ) -> Result<i64, String> {
        let told = self.custom(namespace, resource, &object.name, metric, "").await?;
        told.first().and_then(|item| milli(&item["value"])).ok_or_else(|| NOTHING.to_owned())
    }

    async fn custom(
        &self,
        namespace: &str,
        resource: &str,
        name: &str,
        metric: &Identifier,
        selector: &str,
    ) -> Result<Vec<Value>, String> {
        let gvr = Gvr { resource: resource.to_owned().into(), ..Gvr::new(CUSTOM.0, CUSTOM.1, "") };
        // The transport has no place for a second selector: it travels behind the metric's name.
        let told = metric_selector(metric)?;
        let metric = if told.is_empty() { metric.name.clone() } else { format!("{}?{told}", metric.name) };
        let target = Target::object(gvr, namespace, name).sub(metric);
        let said = self.list(&target, selector).await;
        said.map_err(|e| format!("unable to fetch metrics from custom metrics API: {e}"))
    }

    /// Numbers from outside: the sum of all series.
    pub(super) async fn external(&self, namespace: &str, metric: &Identifier) -> Result<i64, String> {
        let gvr = Gvr { resource: metric.name.clone().into(), ..Gvr::new(EXTERNAL.0, EXTERNAL.1, "") };
        let said = self.list(&Target::in_namespace(gvr, namespace), &metric_selector(metric)?).await;
        let told = said.map_err(|e| format!("unable to fetch metrics from external metrics API: {e}"))?;
        let all: Vec<i64> = told.iter().filter_map(|item| milli(&item["value"])).collect();
        if all.is_empty() {
            Err("no metrics returned from external metrics API".to_owned())
        } else {
            Ok(all.into_iter().fold(0, i64::saturating_add))
        }
    }
}

const NOTHING: &str = "no metrics returned from custom metrics API";

fn metric_selector(metric: &Identifier) -> Result<String, String> {
    let Some(selector) = metric.selector.as_ref().filter(|s| !s.is_null()) else { return Ok(String::new()) };
    Selector::from_value(selector).map(|s| s.to_string()).map_err(|e| format!("the metric's selector: {e}"))
}

fn milli(value: &Value) -> Option<i64> {
    Quantity::from_value(value).ok().map(|q| q.milli_value())
}

fn time(item: &Value) -> Option<Timestamp> {
    item["timestamp"].as_str()?.parse().ok()
}

/// cpu or memory of the pods, or of one container of each, out of what the metrics API told.
pub(super) fn samples(told: &[Value], resource: &str, container: &str) -> Result<Samples, String> {
    let mut samples = Samples::new();
    for pod in told {
        let name = pod.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        let all = pod["containers"].as_array().into_iter().flatten();
        let of: Vec<&Value> = all.filter(|c| container.is_empty() || c["name"] == *container).collect();
        if of.is_empty() {
            return Err(format!("container {container} not present in metrics for pod {name}"));
        }
        let Some(at) = time(pod) else { continue };
        let window = pod["window"].as_str().and_then(duration).unwrap_or_default();
        // What is not told of every container is not known of the pod: it is no zero.
        let told = of.iter().map(|c| milli(c.get("usage")?.get(resource)?));
        let Some(value) = told.reduce(|a, b| Some(a?.saturating_add(b?))).flatten() else { continue };
        samples.insert(name.to_owned(), Sample { value, at, window });
    }
    if samples.is_empty() { Err("no metrics returned from resource metrics API".to_owned()) } else { Ok(samples) }
}

/// A duration as Go writes it, of seconds and milliseconds.
fn duration(text: &str) -> Option<SignedDuration> {
    let seconds = match text.strip_suffix("ms") {
        Some(millis) => millis.parse::<f64>().ok()? / 1000.0,
        None => text.strip_suffix('s')?.parse::<f64>().ok()?,
    };
    SignedDuration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, containers: &[(&str, &str)]) -> Value {
        let one = |(name, cpu): &(&str, &str)| json!({"name": name, "usage": {"cpu": cpu, "memory": "1Ki"}});
        json!({"metadata": {"name": name}, "timestamp": "2026-01-01T00:00:00Z", "window": "1.5s",
            "containers": containers.iter().map(one).collect::<Vec<_>>()})
    }

    #[test]
    fn containers_are_added_up_or_picked() {
        let told = [pod("a", &[("x", "100m"), ("y", "1000000n")]), pod("b", &[("x", "1")])];
        let values = |found: Samples| found.into_values().map(|s| s.value).collect::<Vec<_>>();
        assert_eq!(values(samples(&told, "cpu", "").unwrap()), [101, 1000]);
        assert_eq!(values(samples(&told, "memory", "x").unwrap()), [1_024_000, 1_024_000]);
        assert_eq!(samples(&told, "cpu", "y").unwrap_err(), "container y not present in metrics for pod b");
        assert_eq!(samples(&[], "cpu", "").unwrap_err(), "no metrics returned from resource metrics API");
        let nothing = "no metrics returned from resource metrics API";
        for (resource, container) in [("memmory", ""), ("ephemeral-storage", "x")] {
            assert_eq!(samples(&told, resource, container).unwrap_err(), nothing, "{resource} is told by none");
        }
        let mut partly = told.to_vec();
        partly[0]["containers"][1]["usage"] = json!({"memory": "1Ki"});
        assert_eq!(values(samples(&partly, "cpu", "").unwrap()), [1000], "the first is not known");
        partly[0]["containers"] = json!([{"name": "x", "usage": {"cpu": "9P"}}, {"name": "y", "usage": {"cpu": "9P"}}]);
        assert_eq!(values(samples(&partly, "cpu", "").unwrap()), [i64::MAX, 1000]);
        let window = samples(&told, "cpu", "").unwrap()["a"].window;
        assert_eq!(
            (window, duration("400ms")),
            (SignedDuration::from_millis(1500), Some(SignedDuration::from_millis(400)))
        );
    }
}
