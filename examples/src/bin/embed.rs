//! A cluster inside this process, driven by an unmodified `kube::Client` without a socket: no root, no containers.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, ListParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::runtime::{WatchStreamExt, watcher};
use minik8s_core::cluster::Cluster;
use serde_json::json;

#[tokio::main]
async fn main() -> Result<()> {
    let cluster = Cluster::builder().fake_node("node-1").fake_node("node-2").start().await?;
    let client = cluster.kube_client();

    // Nodes become ready in their own time, and pods that come earlier go to whichever is.
    let nodes: Api<Node> = Api::all(client.clone());
    for name in ["node-1", "node-2"] {
        await_condition(nodes.clone(), name, is_ready).await?;
    }

    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "server", "image": "example.org/web:1"}]}
            }
        }
    }))?;
    Api::default_namespaced(client.clone()).create(&PostParams::default(), &deployment).await?;

    // Wait for what one would wait for on any cluster: events, not time.
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    let mut changes = std::pin::pin!(watcher(deployments, watcher::Config::default()).applied_objects());
    loop {
        let web = changes.next().await.context("the watch ended")??;
        let available = web.status.and_then(|s| s.available_replicas).unwrap_or_default();
        println!("web: {available} of 3 available");
        if available == 3 {
            break;
        }
    }
    let pods: Api<Pod> = Api::default_namespaced(client);
    for pod in pods.list(&ListParams::default().labels("app=web")).await? {
        let node = pod.spec.and_then(|s| s.node_name).unwrap_or_default();
        println!("{} runs on {node}", pod.metadata.name.unwrap_or_default());
    }
    cluster.stop().await;
    Ok(())
}

fn is_ready(node: Option<&Node>) -> bool {
    let conditions = node.and_then(|node| node.status.as_ref()).into_iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
