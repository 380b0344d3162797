//! `NodeMetrics`: what machines use as a whole.

use super::super::cells::{NAME, column};
use super::super::util::names;
use super::{amount, cpu_cell, duration, gvr, memory_cell, time, usage};
use crate::api::{ApiResult, Gvr, Object, Target};
use crate::client::{ListOptions, Transport};
use crate::clock::rfc3339;
use crate::server::usage::NodeRates;
use crate::server::{ApiServer, Column, Computed, Kind, KindNames};
use async_trait::async_trait;
use serde_json::{Value, json};

const NODES: Gvr = Gvr::new("", "v1", "nodes");

pub(crate) struct NodeMetricsKind(KindNames);

impl NodeMetricsKind {
    pub(crate) fn new() -> Self {
        Self(KindNames { singular: "".into(), ..names(gvr("nodes"), "NodeMetrics", &[], false, false) })
    }
}

static COLUMNS: [Column; 4] = [
    NAME,
    column("Cpu", |o, _| cpu_cell(amount(o, "/usage/cpu"))),
    column("Memory", |o, _| memory_cell(amount(o, "/usage/memory"))),
    column("Window", |o, _| o.get("window").cloned().unwrap_or_default()),
];

impl Kind for NodeMetricsKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        "io.k8s.metrics.pkg.apis.metrics.v1beta1.NodeMetrics"
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn computed(&self) -> Option<&dyn Computed> {
        Some(self)
    }
}

#[async_trait]
impl Computed for NodeMetricsKind {
    async fn objects(&self, server: &ApiServer, target: &Target, options: &ListOptions) -> ApiResult<Vec<Value>> {
        let of = Target { gvr: NODES, ..target.clone() };
        if target.name.is_some() {
            let node = server.get(&of).await?;
            let rates = server.usage.of(&node.meta.name).await?;
            return Ok(metrics(server, &node, &rates).into_iter().collect());
        }
        let (label_selector, field_selector) = (options.label_selector.clone(), options.field_selector.clone());
        let options =
            ListOptions { label_selector, field_selector, resource_version: Some(0), ..ListOptions::default() };
        let nodes = server.list(&of, &options).await?.items;
        let rates = server.usage.of_all(nodes.iter().map(|node| node.meta.name.clone()).collect()).await;
        Ok(nodes.iter().filter_map(|node| metrics(server, node, rates.get(&node.meta.name)?)).collect())
    }
}

fn metrics(server: &ApiServer, node: &Object, rates: &NodeRates) -> Option<Value> {
    let rate = rates.machine.as_ref()?;
    let mut metadata = json!({"name": node.meta.name, "creationTimestamp": rfc3339(server.clock().now())});
    if !node.meta.labels.is_empty() {
        metadata["labels"] = json!(node.meta.labels);
    }
    Some(json!({
        "kind": "NodeMetrics", "apiVersion": gvr("nodes").api_version(), "metadata": metadata,
        "timestamp": time(rate.at), "window": duration(rate.window), "usage": usage(rate),
    }))
}
