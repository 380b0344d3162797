//! A function from zero: from the first byte of a call to the last of its answer, where nothing runs, beside a warm call
//! through the gateway and one to the instance directly. Busybox' HTTP server, on containerd and a bridge. The parts of
//! cold starts are read from the metrics. Needs root, containerd and runc; works in a network namespace of its own.

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use minik8s_benches::{Table, Timings, again_in_own_network, show, times};
use minik8s_core::client::{Client, DeleteOptions, ListOptions};
use minik8s_core::cluster::Cluster;
use minik8s_core::controllers::is_ready;
use minik8s_core::node::NodeConfig;
use minik8s_core::runtime::Images;
use minik8s_net::gateway::{GatewayConfig, GatewayMetrics, NodeGateway};
use minik8s_net::{BridgeConfig, BridgeNetwork};
use minik8s_runtime::{ContainerdRuntime, PrivateContainerd};
use minik8s_serverless::Serverless;
use minik8s_serverless::functions::api::Function;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const COLD: usize = 20;
const WARM: usize = 300;
const IMAGE: &str = "localhost/minik8s-bench:1";
const PATH: &str = "/function/default/bench/";

fn main() -> Result<()> {
    again_in_own_network(inside)
}

async fn inside() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().to_owned();
    let containerd = tokio::task::spawn_blocking(move || PrivateContainerd::start(path.join("containerd"))).await??;
    let runtime = Arc::new(ContainerdRuntime::connect(containerd.config()).await?);
    let archive = minik8s_runtime::testing::busybox_image(directory.path())?;
    runtime.import(archive, Some(IMAGE)).await?;
    let network = Arc::new(BridgeNetwork::new(BridgeConfig {
        node: "bench".into(),
        ..BridgeConfig::new(directory.path().join("network"))
    })?);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let at = listener.local_addr()?;
    let config = GatewayConfig { http_port: Some(80), https_port: None, ..GatewayConfig::default() };
    let gateway = NodeGateway::new(config, GatewayMetrics::default(), Ipv4Addr::LOCALHOST.into(), Arc::default());
    let serverless = Serverless::new();
    let metrics = serverless.metrics();
    let cluster = Cluster::builder()
        .node(NodeConfig::new("bench", directory.path().join("node")), runtime.clone(), network.clone())
        .companion(Arc::new(gateway.listener(listener, 80, false)))
        .extension(serverless)
        .metrics(move |page| metrics.register(page))
        .start()
        .await?;
    measure(&cluster.client(), at).await?;
    cluster.client().api::<Function>("default").delete("bench", &DeleteOptions::default()).await?;
    until("no instance is left", &cluster.client(), |pods| pods.is_empty()).await?;
    cluster.stop().await;
    minik8s_core::network::NetworkPlugin::teardown(&*network).await?;
    drop(runtime);
    tokio::task::spawn_blocking(move || containerd.destroy()).await??;
    Ok(())
}

async fn measure(client: &Client, gateway: SocketAddr) -> Result<()> {
    let script = "echo ok > /tmp/index.html; trap exit TERM; httpd -f -p $PORT -h /tmp & wait";
    let function = serde_json::from_value(serde_json::json!({"metadata": {"name": "bench"}, "spec": {
        "image": IMAGE, "command": ["sh", "-c", script], "scale": {"idleSeconds": 1}}}))?;
    client.api::<Function>("default").create(&function).await?;
    until("an instance is tried", client, |pods| !pods.is_empty()).await?;
    let (mut cold, mut warm, mut direct) = (Timings::default(), Timings::default(), Timings::default());
    for _ in 0..COLD {
        until("nothing runs", client, |pods| pods.is_empty()).await?;
        cold.add(call(gateway, PATH).await?);
    }
    let pod = until("an instance", client, |pods| pods.iter().any(is_ready)).await?;
    let address = pod.iter().find_map(|pod| pod.status.as_ref()?.pod_ip.clone()).context("no address")?;
    let instance = SocketAddr::new(address.parse()?, 8080);
    for _ in 0..WARM {
        warm.add(call(gateway, PATH).await?);
        direct.add(call(instance, "/").await?);
    }
    let floor = direct.percentile(0.5);
    let mut table = Table::new(["call", "p50", "p90", "p99", "ratio", "goal"]);
    for (name, timings, goal) in
        [("instance", &direct, ""), ("gateway, warm", &warm, "+0.5 ms"), ("from zero", &cold, "300 ms")]
    {
        let of = |share| timings.percentile(share);
        table.row([
            name.to_owned(),
            show(of(0.5)),
            show(of(0.9)),
            show(of(0.99)),
            times(of(0.5), floor),
            goal.to_owned(),
        ]);
    }
    table.print("a function's call, each on a connection of its own");
    Ok(())
}

/// Asks until the pods are as wanted; answers them.
async fn until(what: &str, client: &Client, is: impl Fn(&[Pod]) -> bool) -> Result<Vec<Pod>> {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let pods = client.api::<Pod>("default").list(&ListOptions::default()).await?.items;
        if is(&pods) {
            return Ok(pods);
        }
        if Instant::now() > end {
            bail!("gave up waiting until {what}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// One call, on a connection of its own: until the whole answer is here.
async fn call(to: SocketAddr, path: &str) -> Result<Duration> {
    let began = Instant::now();
    let mut stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let took = began.elapsed();
    if !answer.starts_with(b"HTTP/1.1 200") {
        bail!("{} answered {}", to, String::from_utf8_lossy(&answer[..answer.len().min(200)]));
    }
    Ok(took)
}
