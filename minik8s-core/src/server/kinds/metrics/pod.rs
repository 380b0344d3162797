//! `PodMetrics`: what the containers of running pods use.

use super::super::cells::{NAME, column};
use super::super::util::{items, names};
use super::{amount, cpu_cell, duration, gvr, memory_cell, time, usage};
use crate::api::{ApiResult, Gvr, Object, Target};
use crate::client::{ListOptions, Transport};
use crate::clock::rfc3339;
use crate::server::usage::{PodRates, Rate};
use crate::server::{ApiServer, Column, Computed, Kind, KindNames};
use async_trait::async_trait;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

const PODS: Gvr = Gvr::new("", "v1", "pods");
const NODE: &str = "spec.nodeName";

pub(crate) struct PodMetricsKind(KindNames);

impl PodMetricsKind {
    pub(crate) fn new() -> Self {
        Self(KindNames { singular: "".into(), ..names(gvr("pods"), "PodMetrics", &[], false, true) })
    }
}

static COLUMNS: [Column; 4] = [
    NAME,
    column("Cpu", |o, _| cpu_cell(total(o, "/usage/cpu"))),
    column("Memory", |o, _| memory_cell(total(o, "/usage/memory"))),
    column("Window", |o, _| o.get("window").cloned().unwrap_or_default()),
];

fn total(object: &Value, pointer: &str) -> u64 {
    items(object, "/containers").map(|c| amount(c, pointer)).sum()
}

impl Kind for PodMetricsKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        "io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetrics"
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn computed(&self) -> Option<&dyn Computed> {
        Some(self)
    }
}

#[async_trait]
impl Computed for PodMetricsKind {
    async fn objects(&self, server: &ApiServer, target: &Target, options: &ListOptions) -> ApiResult<Vec<Value>> {
        let of = Target { gvr: PODS, ..target.clone() };
        if target.name.is_some() {
            let pod = server.get(&of).await?;
            let Some(node) = node_of(&pod) else { return Ok(Vec::new()) };
            let rates = server.usage.of(&node).await?;
            let rates = rates.pods.get(&pod.meta.uid);
            return Ok(rates.and_then(|rates| metrics(server, &pod, rates)).into_iter().collect());
        }
        let (label_selector, field_selector) = (options.label_selector.clone(), options.field_selector.clone());
        let options =
            ListOptions { label_selector, field_selector, resource_version: Some(0), ..ListOptions::default() };
        let pods = server.list(&of, &options).await?.items;
        let nodes: BTreeSet<String> = pods.iter().filter_map(|pod| node_of(pod)).collect();
        let usage = server.usage.of_all(nodes).await;
        let one = |pod: &Arc<Object>| {
            let rates = usage.get(&node_of(pod)?)?.pods.get(&pod.meta.uid)?;
            metrics(server, pod, rates)
        };
        Ok(pods.iter().filter_map(one).collect())
    }
}

fn node_of(pod: &Object) -> Option<String> {
    pod.fields.iter().find(|(path, value)| *path == NODE && !value.is_empty()).map(|(_, node)| node.clone())
}

/// A pod of which part is unknown has no metrics: a sum without that part would be wrong.
fn metrics(server: &ApiServer, pod: &Object, rates: &PodRates) -> Option<Value> {
    let all = || rates.containers.values();
    if rates.incomplete || rates.containers.is_empty() {
        return None;
    }
    let at = all().map(|rate| rate.at).min()?;
    let window = all().map(|rate| rate.window).max()?;
    let container = |(name, rate): (&String, &Rate)| json!({"name": name, "usage": usage(rate)});
    let mut metadata = json!({
        "name": pod.meta.name, "namespace": pod.meta.namespace,
        "creationTimestamp": rfc3339(server.clock().now()),
    });
    if !pod.meta.labels.is_empty() {
        metadata["labels"] = json!(pod.meta.labels);
    }
    Some(json!({
        "kind": "PodMetrics", "apiVersion": gvr("pods").api_version(), "metadata": metadata,
        "timestamp": time(at), "window": duration(window),
        "containers": rates.containers.iter().map(container).collect::<Vec<_>>(),
    }))
}
