//! A scheduler plug-in of one's own: pods labelled `quiet=yes` go only to nodes that say how loud they are, never to
//! those labelled `noise=loud`, and among the others to the quietest.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use minik8s_core::client::{Api, PatchType, TypedEvent, WatchOptions};
use minik8s_core::cluster::Cluster;
use minik8s_core::scheduler::{FilterPlugin, FrameworkScheduler, NodeInfo, PodInfo, Policy, ScorePlugin, Snapshot};
use serde_json::json;
use std::borrow::Cow;

struct Quiet;

fn wants_quiet(pod: &PodInfo) -> bool {
    pod.labels.get("quiet").is_some_and(|v| v == "yes")
}

impl FilterPlugin for Quiet {
    fn name(&self) -> &'static str {
        "Quiet"
    }

    fn refuse(&self, pod: &PodInfo, node: &NodeInfo, _: &Snapshot) -> Vec<Cow<'static, str>> {
        match node.labels.get("noise").map(String::as_str) {
            _ if !wants_quiet(pod) => Vec::new(),
            None => vec!["node(s) did not say how loud they are".into()],
            Some("loud") => vec!["node(s) were too loud".into()],
            Some(_) => Vec::new(),
        }
    }
}

impl ScorePlugin for Quiet {
    fn name(&self) -> &'static str {
        "Quiet"
    }

    fn score(&self, _: &PodInfo, nodes: &[&NodeInfo], _: &Snapshot) -> Vec<i64> {
        let still = |n: &&NodeInfo| n.labels.get("noise").is_some_and(|v| v == "none");
        nodes.iter().map(|n| if still(n) { 100 } else { 0 }).collect()
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let profile = Policy::Default.profile().filter(Quiet).score(10, Quiet).named("library-scheduler");
    let cluster = Cluster::builder()
        .scheduler(FrameworkScheduler::new(profile))
        .fake_node("workshop")
        .fake_node("hall")
        .fake_node("reading-room")
        .start()
        .await?;
    let client = cluster.client();
    let nodes: Api<Node> = client.all();
    // The scheduler hears of these labels in this order, but perhaps only after it heard of the pods: by the time it may
    // use the hall, it knows that the reading room is better.
    for (name, noise) in [("workshop", "loud"), ("reading-room", "none"), ("hall", "some")] {
        let patch = json!({"metadata": {"labels": {"noise": noise}}});
        until_node_is_ready(&nodes, name).await?;
        nodes.patch(name, PatchType::Merge, &patch).await?;
    }
    let pods: Api<Pod> = client.api("default");
    for i in 0..3 {
        let pod = serde_json::from_value(json!({
            "metadata": {"name": format!("reader-{i}"), "labels": {"quiet": "yes"}},
            "spec": {
                "schedulerName": "library-scheduler",
                "containers": [{"name": "c", "image": "example.org/reader:1"}]
            }
        }))?;
        pods.create(&pod).await?;
    }
    let mut changes = pods.watch(&WatchOptions::default()).await?;
    let mut placed = std::collections::BTreeMap::new();
    while placed.len() < 3 {
        if let TypedEvent::Added(pod) | TypedEvent::Modified(pod) =
            changes.next().await.context("the watch ended")??
            && let Some(node) = pod.spec.as_ref().and_then(|s| s.node_name.clone())
        {
            placed.insert(pod.metadata.name.clone().unwrap_or_default(), node);
        }
    }
    placed.iter().for_each(|(pod, node)| println!("{pod} sits in the {node}"));
    cluster.stop().await;
    Ok(())
}

/// Nodes register themselves in their own time, and take pods once the taint of the unready is gone.
async fn until_node_is_ready(nodes: &Api<Node>, name: &str) -> Result<()> {
    let options = WatchOptions { field_selector: format!("metadata.name={name}"), ..WatchOptions::default() };
    let mut changes = nodes.watch(&options).await?;
    loop {
        if let TypedEvent::Added(node) | TypedEvent::Modified(node) =
            changes.next().await.context("the watch ended")??
            && is_ready(&node)
        {
            return Ok(());
        }
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let tainted = node.spec.iter().any(|s| s.taints.iter().flatten().next().is_some());
    !tainted && conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}
