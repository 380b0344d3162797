//! From creating a pod to seeing it Running in a watch, on containerd, beside `ctr run` of the same image by the same
//! containerd. Needs root, containerd and runc; works in a network namespace of its own.

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use minik8s_benches::{Table, Timings, again_in_own_network, show, times};
use minik8s_core::client::{Api, DeleteOptions, TypedEvent, WatchOptions};
use minik8s_core::cluster::Cluster;
use minik8s_core::network::NoopNetwork;
use minik8s_core::node::NodeConfig;
use minik8s_core::runtime::Images;
use minik8s_net::{BridgeConfig, BridgeNetwork};
use minik8s_runtime::{ContainerdRuntime, PrivateContainerd};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const RUNS: usize = 20;
const IMAGE: &str = "localhost/minik8s-bench:1";

fn main() -> Result<()> {
    again_in_own_network(inside)
}

async fn inside() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().to_owned();
    let containerd = tokio::task::spawn_blocking(move || PrivateContainerd::start(path.join("containerd"))).await??;
    let socket = containerd.socket();
    let config = containerd.config();
    let namespace = config.namespace.clone();
    let runtime = Arc::new(ContainerdRuntime::connect(config).await?);
    let archive = minik8s_runtime::testing::busybox_image(directory.path())?;
    runtime.import(archive, Some(IMAGE)).await?;
    let mut floor = Timings::default();
    for i in 0..RUNS {
        floor.add(ctr(&socket.display().to_string(), &namespace, i)?);
    }
    let mut table = Table::new(["network", "Running p50", "Running p99", "ctr run p50", "ratio", "goal"]);
    for bridge in [false, true] {
        let pods = pods(&directory, runtime.clone(), bridge).await?;
        let (p50, base) = (pods.percentile(0.5), floor.percentile(0.5));
        table.row([
            if bridge { "bridge" } else { "noop" }.to_owned(),
            show(p50),
            show(pods.percentile(0.99)),
            show(base),
            times(p50, base),
            "1.5x".to_owned(),
        ]);
    }
    table.print("from creating a pod to its Running in a watch, beside `ctr run -d`");
    drop(runtime);
    tokio::task::spawn_blocking(move || containerd.destroy()).await??;
    Ok(())
}

/// One `ctr run -d`, from its start to its return.
fn ctr(socket: &str, namespace: &str, i: usize) -> Result<Duration> {
    let name = format!("floor-{i}");
    let ctr = |args: &[&str]| {
        let quiet = |command: &mut Command| command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        quiet(Command::new("ctr").args(["-a", socket, "-n", namespace]).args(args))
    };
    let began = Instant::now();
    if !ctr(&["run", "-d", IMAGE, &name, "sleep", "1000000"])?.success() {
        bail!("ctr run failed");
    }
    let took = began.elapsed();
    ctr(&["task", "kill", "-s", "KILL", &name])?;
    ctr(&["task", "delete", "-f", &name])?;
    ctr(&["container", "rm", &name])?;
    Ok(took)
}

async fn pods(directory: &tempfile::TempDir, runtime: Arc<ContainerdRuntime>, bridge: bool) -> Result<Timings> {
    let name = if bridge { "bridge" } else { "noop" };
    let config = NodeConfig::new("bench", directory.path().join(name));
    let network: minik8s_core::network::SharedNetwork = if bridge {
        Arc::new(BridgeNetwork::new(BridgeConfig {
            node: "bench".into(),
            ..BridgeConfig::new(directory.path().join("network"))
        })?)
    } else {
        Arc::new(NoopNetwork::new("10.244.0.0/24".parse()?))
    };
    let cluster = Cluster::builder().node(config, runtime, network.clone()).start().await?;
    let client = cluster.client();
    until_node_ready(&client.all()).await?;
    let api: Api<Pod> = client.api("default");
    let mut timings = Timings::default();
    for i in 0..RUNS {
        timings.add(one_pod(&api, &format!("{name}-{i}")).await?);
    }
    cluster.stop().await;
    network.teardown().await?;
    Ok(timings)
}

async fn until_node_ready(nodes: &Api<Node>) -> Result<()> {
    let mut changes = nodes.watch(&WatchOptions::default()).await?;
    while let Some(event) = changes.next().await {
        if let TypedEvent::Added(node) | TypedEvent::Modified(node) = event? {
            let conditions = node.status.and_then(|s| s.conditions).unwrap_or_default();
            if conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True") {
                return Ok(());
            }
        }
    }
    bail!("the watch ended")
}

/// Creates a pod and waits for Running, then deletes it and waits until it is gone.
async fn one_pod(api: &Api<Pod>, name: &str) -> Result<Duration> {
    let pod = serde_json::from_value(serde_json::json!({
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": IMAGE, "command": ["sleep", "1000000"]}]
        }
    }))?;
    let options = WatchOptions { field_selector: format!("metadata.name={name}"), ..WatchOptions::default() };
    let mut changes = api.watch(&options).await?;
    let began = Instant::now();
    api.create(&pod).await?;
    let mut took = None;
    while let Some(event) = changes.next().await {
        match event? {
            TypedEvent::Added(pod) | TypedEvent::Modified(pod) => {
                if took.is_none() && pod.status.and_then(|s| s.phase).as_deref() == Some("Running") {
                    took = Some(began.elapsed());
                    api.delete(name, &DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() })
                        .await?;
                }
            }
            TypedEvent::Deleted(_) => return took.context("deleted before it ran"),
            TypedEvent::Bookmark { .. } => {}
        }
    }
    bail!("the watch ended")
}
