//! One metric of an autoscaler: read, counted, and put into words and status.

use super::decide::{Failure, Voice};
use super::replicas::{Goal, Proposal, Samples, Tolerance, of_pods, of_share, of_value};
use super::requests::requests;
use super::sources::{Of, Sources, samples};
use super::spec::{Amount, Metric, NamedSource, ResourceSource};
use super::tally::{Patience, ready, tally};
use crate::api::Quantity;
use crate::controllers::KindDirectory;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::OnceCell;

/// One look at a target: what all of its metrics share.
pub(super) struct Look<'a> {
    pub(super) sources: &'a Sources,
    pub(super) kinds: &'a dyn KindDirectory,
    pub(super) of: Of<'a>,
    pub(super) pods: &'a [Arc<Pod>],
    /// Replicas it is told to have, and has.
    pub(super) current: i32,
    pub(super) present: i32,
    pub(super) tolerance: Tolerance,
    pub(super) patience: Patience,
    pub(super) now: Timestamp,
    /// cpu and memory come in one answer.
    pub(super) resources: OnceCell<Result<Vec<Value>, String>>,
}

/// What a metric led to, and how status shows it.
pub(super) type Measured = (Result<Voice, Failure>, Value);

impl Look<'_> {
    /// Reads a metric.
    pub(super) async fn measure(&self, metric: &Metric) -> Measured {
        let (reason, found) = match metric.kind.as_str() {
            "Resource" => ("FailedGetResourceMetric", self.resource(metric.resource.as_ref()).await),
            "ContainerResource" => {
                ("FailedGetContainerResourceMetric", self.resource(metric.container_resource.as_ref()).await)
            }
            "Pods" => ("FailedGetPodsMetric", self.pods(metric.pods.as_ref()).await),
            "Object" => ("FailedGetObjectMetric", self.object(metric.object.as_ref()).await),
            "External" => ("FailedGetExternalMetric", self.external(metric.external.as_ref()).await),
            other => ("InvalidMetricSourceType", Err(format!("unknown metric source type {other:?}"))),
        };
        match found {
            Ok((voice, status)) => (Ok(voice), status),
            // The place is kept: clients find a metric's status by its index.
            Err(message) => (Err(Failure { reason, message }), json!({"type": ""})),
        }
    }

    async fn resource(&self, source: Option<&ResourceSource>) -> Result<(Voice, Value), String> {
        let source = source.ok_or("the metric has no source")?;
        let (name, container) = (source.name.as_str(), source.container.as_str());
        let (goal, what) = match (source.target.average_utilization, source.target.average_value) {
            (Some(percent), _) => (Want::Percent(percent), "utilization"),
            (None, Some(average)) => (Want::Average(average), "usage"),
            (None, None) => {
                return Err("invalid resource metric source: neither an average utilization target nor an average \
                            value (usage) target was set"
                    .to_owned());
            }
        };
        let found = self.of_resource(name, container, goal).await;
        let found = found.map_err(|e| format!("failed to get {name} {what}: {e}"))?;
        let current = match found.utilization {
            Some(percent) => json!({"averageUtilization": percent, "averageValue": quantity(found.value)}),
            None => json!({"averageValue": quantity(found.value)}),
        };
        let status = match container {
            "" => json!({"type": "Resource", "resource": {"name": name, "current": current}}),
            container => json!({"type": "ContainerResource",
                "containerResource": {"name": name, "container": container, "current": current}}),
        };
        let (title, reading) = match goal {
            Want::Percent(target) => (
                format!("{name} resource utilization (percentage of request)"),
                format!("{}%/{target}%", found.utilization.unwrap_or_default()),
            ),
            Want::Average(target) => (format!("{name} resource"), self::reading(found.value, target.0)),
        };
        Ok((Voice { name: title, reading, replicas: found.replicas }, status))
    }

    async fn of_resource(&self, name: &str, container: &str, want: Want) -> Result<Proposal, String> {
        let told = self.resources.get_or_init(|| self.sources.resources(self.of)).await;
        let found = told.as_ref().map_err(Clone::clone).and_then(|told| samples(told, name, container));
        let found = found.map_err(|e| format!("unable to get metrics for resource {name}: {e}"))?;
        match want {
            Want::Average(target) => self.count(&found, name == "cpu", Goal::Average(target.0)),
            Want::Percent(target) => {
                let requests = requests(self.pods, name, container)?;
                self.count(&found, name == "cpu", Goal::Utilization(target, &requests))
            }
        }
    }

    fn count(&self, found: &Samples, cpu: bool, goal: Goal<'_>) -> Result<Proposal, String> {
        let tally = tally(self.pods.iter().map(Arc::as_ref), found, cpu, self.patience, self.now);
        of_pods(self.current, &tally, found, goal, self.tolerance).map_err(|e| e.to_string())
    }

    async fn pods(&self, source: Option<&NamedSource>) -> Result<(Voice, Value), String> {
        let source = source.ok_or("the metric has no source")?;
        let target = source.target.average_value.ok_or("invalid pods metric source: it has no averageValue")?;
        let name = &source.metric.name;
        let failed = |e| format!("failed to get pods metric value: unable to get metric {name}: {e}");
        let found = self.sources.pods(self.of, &source.metric).await.map_err(failed)?;
        let found = self.count(&found, false, Goal::Average(target.0))?;
        let status = json!({"type": "Pods",
            "pods": {"metric": identifier(source), "current": {"averageValue": quantity(found.value)}}});
        let reading = reading(found.value, target.0);
        Ok((Voice { name: format!("pods metric {name}"), reading, replicas: found.replicas }, status))
    }

    async fn object(&self, source: Option<&NamedSource>) -> Result<(Voice, Value), String> {
        let source = source.ok_or("the metric has no source")?;
        let (object, name) = (&source.described_object, &source.metric.name);
        let failed =
            |e| format!("failed to get object metric value: unable to get metric {name}: {} on {e}", object.kind);
        let resource = self.resource_of(&object.api_version, &object.kind).map_err(failed)?;
        let asked = self.sources.object(self.of.namespace, object, &resource, &source.metric);
        let usage = asked.await.map_err(failed)?;
        let (found, current) = self.one(source, usage)?;
        let described = json!({"apiVersion": object.api_version, "kind": object.kind, "name": object.name});
        let status = json!({"type": "Object",
            "object": {"describedObject": described, "metric": identifier(source), "current": current}});
        let (title, reading) = (format!("{} metric {name}", object.kind), self.reading_of(source, &found));
        Ok((Voice { name: title, reading, replicas: found.replicas }, status))
    }

    async fn external(&self, source: Option<&NamedSource>) -> Result<(Voice, Value), String> {
        let source = source.ok_or("the metric has no source")?;
        let name = &source.metric.name;
        let failed = |e| format!("failed to get external metric {name}: unable to get external metric {name}: {e}");
        let usage = self.sources.external(self.of.namespace, &source.metric).await.map_err(failed)?;
        let (found, current) = self.one(source, usage)?;
        let status = json!({"type": "External", "external": {"metric": identifier(source), "current": current}});
        let reading = self.reading_of(source, &found);
        Ok((Voice { name: format!("external metric {name}"), reading, replicas: found.replicas }, status))
    }

    /// A number there is one of.
    fn one(&self, source: &NamedSource, usage: i64) -> Result<(Proposal, Value), String> {
        match (source.target.average_value, source.target.value) {
            (Some(Amount(target)), _) => {
                let found = of_share(self.present, usage, target, self.tolerance);
                Ok((found, json!({"averageValue": quantity(found.value)})))
            }
            (None, Some(Amount(target))) => {
                let ready = (!self.pods.is_empty()).then(|| ready(self.pods.iter().map(Arc::as_ref)));
                let found = of_value(self.current, ready, usage, target, self.tolerance);
                let found = found.map_err(|e| e.to_string())?;
                Ok((found, json!({"value": quantity(found.value)})))
            }
            (None, None) => Err("invalid metric source: neither a value nor an averageValue target was set".to_owned()),
        }
    }

    fn reading_of(&self, source: &NamedSource, found: &Proposal) -> String {
        let target = source.target.average_value.or(source.target.value).unwrap_or_default();
        reading(found.value, target.0)
    }

    /// How metrics of other objects name their resource: `services`, `ingresses.networking.k8s.io`.
    fn resource_of(&self, api_version: &str, kind: &str) -> Result<String, String> {
        let found = self.kinds.find(api_version, kind);
        found.map(|kind| kind.gvr.qualified()).ok_or_else(|| format!("no matches for kind {kind:?} in {api_version:?}"))
    }
}

/// What cpu or memory should be.
#[derive(Clone, Copy)]
enum Want {
    Percent(i32),
    Average(Amount),
}

fn quantity(milli: i64) -> String {
    Quantity::from_milli(milli).to_string()
}

fn reading(value: i64, target: i64) -> String {
    format!("{}/{}", quantity(value), quantity(target))
}

fn identifier(source: &NamedSource) -> Value {
    let mut metric = json!({"name": source.metric.name});
    if let Some(selector) = &source.metric.selector {
        metric["selector"] = selector.clone();
    }
    metric
}
