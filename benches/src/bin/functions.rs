//! A function from zero: from the first byte of a call to the last of its answer, where nothing runs or the last instance
//! is paused, beside a warm call through the gateway and one to the instance directly; how many calls go through in a
//! second, and what a function costs that nobody calls. Busybox' HTTP server, on containerd and a bridge. The parts of cold
//! starts are read from the metrics. Needs root, containerd and runc; works in a network namespace of its own.

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use minik8s_benches::{Table, Timings, again_in_own_network, per_second, processors, show, times};
use minik8s_core::client::{Client, DeleteOptions, ListOptions, PatchType};
use minik8s_core::cluster::Cluster;
use minik8s_core::controllers::is_ready;
use minik8s_core::node::NodeConfig;
use minik8s_core::runtime::Images;
use minik8s_net::gateway::{GatewayConfig, GatewayMetrics, NodeGateway};
use minik8s_net::{BridgeConfig, BridgeNetwork};
use minik8s_runtime::{ContainerdConfig, ContainerdRuntime, PrivateContainerd};
use minik8s_serverless::Serverless;
use minik8s_serverless::functions::api::Function;
use minik8s_serverless::functions::{FunctionMetrics, FunctionsConfig};
use prometheus_client::registry::Registry;
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const COLD: usize = 20;
/// How often clusters with sandboxes made ahead and without take turns.
const TURNS: usize = 2;
const WARM: usize = 1000;
/// Who calls at once, and for how long, where calls per second are counted.
const CALLERS: usize = 32;
const LOAD: Duration = Duration::from_secs(3);
/// Functions that nobody calls.
const IDLE: usize = 40;
const IMAGE: &str = "localhost/minik8s-bench:1";
const PATH: &str = "/function/default/bench/";

fn main() -> Result<()> {
    again_in_own_network(inside)
}

async fn inside() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let home = directory.path().to_owned();
    let path = home.join("containerd");
    let containerd = tokio::task::spawn_blocking(move || PrivateContainerd::start(path)).await??;
    let archive = minik8s_runtime::testing::busybox_image(&home)?;
    let config = containerd.config();
    ahead(&home, &config, &archive).await?;
    let bed = Bed::start(&home, config, &archive).await?;
    measure(&bed.client, bed.gateway, &bed.page).await?;
    bed.remove_function().await?;
    idle(&bed.client).await?;
    bed.stop().await?;
    tokio::task::spawn_blocking(move || containerd.destroy()).await??;
    Ok(())
}

/// A cluster with functions on a containerd, a bridge and a gateway.
struct Bed {
    cluster: Cluster,
    client: Client,
    network: Arc<BridgeNetwork>,
    gateway: SocketAddr,
    page: Page,
}

impl Bed {
    async fn start(home: &Path, config: ContainerdConfig, archive: &Path) -> Result<Self> {
        let runtime = Arc::new(ContainerdRuntime::connect(config).await?);
        runtime.import(archive.to_owned(), Some(IMAGE)).await?;
        let network = Arc::new(BridgeNetwork::new(BridgeConfig {
            node: "bench".into(),
            ..BridgeConfig::new(home.join("network"))
        })?);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let at = listener.local_addr()?;
        let config =
            GatewayConfig { http_port: Some(80), https_port: None, lanes: processors(), ..GatewayConfig::default() };
        let (metrics, of_gateway) = (FunctionMetrics::default(), GatewayMetrics::default());
        let mut page = Registry::default();
        metrics.register(&mut page);
        of_gateway.register(&mut page);
        let gateway = NodeGateway::new(config, of_gateway, Ipv4Addr::LOCALHOST.into(), Arc::default());
        let serverless = Serverless::new().functions(FunctionsConfig { metrics, ..FunctionsConfig::default() });
        let cluster = Cluster::builder()
            .node(NodeConfig::new("bench", home.join("node")), runtime, network.clone())
            .companion(Arc::new(gateway.listener(listener, 80, false)))
            .extension(serverless)
            .start()
            .await?;
        Ok(Self { client: cluster.client(), cluster, network, gateway: at, page: Page(page) })
    }

    async fn remove_function(&self) -> Result<()> {
        self.client.api::<Function>("default").delete("bench", &DeleteOptions::default()).await?;
        until("no instance is left", &self.client, |pods| pods.is_empty()).await?;
        Ok(())
    }

    async fn stop(self) -> Result<()> {
        self.cluster.stop().await;
        minik8s_core::network::NetworkPlugin::teardown(&*self.network).await?;
        Ok(())
    }
}

/// Makes the function, and waits until the instance that nobody asked for, which shows that it works, is gone.
async fn make_function(client: &Client) -> Result<()> {
    client.api::<Function>("default").create(&function("bench", json!({"idleSeconds": 1}))?).await?;
    until("an instance is tried", client, |pods| !pods.is_empty()).await?;
    until("nothing runs", client, |pods| pods.is_empty()).await?;
    Ok(())
}

/// Cold starts with sandboxes made ahead beside cold starts without, in turns.
async fn ahead(home: &Path, config: &ContainerdConfig, archive: &Path) -> Result<()> {
    let mut sides = [0, config.spare_sandboxes].map(|spares| (spares, Timings::default(), Parts::new()));
    for _ in 0..TURNS {
        for (spares, cold, parts) in &mut sides {
            let config = ContainerdConfig { spare_sandboxes: *spares, ..config.clone() };
            let bed = Bed::start(home, config, archive).await?;
            make_function(&bed.client).await?;
            let before = bed.page.read()?;
            for _ in 0..COLD / TURNS {
                until("nothing runs", &bed.client, |pods| pods.is_empty()).await?;
                cold.add(call(bed.gateway, PATH).await?);
            }
            until("nothing runs", &bed.client, |pods| pods.is_empty()).await?;
            let more = since(&before, &bed.page.read()?);
            *parts = if parts.is_empty() { more } else { sum(parts, &more) };
            bed.remove_function().await?;
            bed.stop().await?;
        }
    }
    let [(_, made_cold, made), (_, spare_cold, spare)] = &sides;
    let mut table = Table::new(["part", "made for it", "made ahead", "ratio"]);
    let mut row = |name: &str, made: Duration, spare: Duration| {
        table.row([name.to_owned(), show(made), show(spare), times(spare, made)]);
    };
    for (made, spare) in made.iter().zip(spare).filter(|(made, _)| made.2 > 0.0) {
        row(&format!("{}, mean", made.0), mean(made), mean(spare));
    }
    for share in [0.5, 0.95] {
        row(&format!("the call, p{}", share * 100.0), made_cold.percentile(share), spare_cold.percentile(share));
    }
    table.print("cold starts, with each sandbox made for its pod and with sandboxes made ahead");
    Ok(())
}

fn function(name: &str, scale: serde_json::Value) -> Result<Function> {
    let script = "echo ok > /tmp/index.html; trap exit TERM; httpd -f -p $PORT -h /tmp & wait";
    Ok(serde_json::from_value(json!({"metadata": {"name": name}, "spec": {
        "image": IMAGE, "command": ["sh", "-c", script], "concurrency": 0, "scale": scale}}))?)
}

async fn measure(client: &Client, gateway: SocketAddr, page: &Page) -> Result<()> {
    let functions = client.api::<Function>("default");
    make_function(client).await?;
    let (mut cold, mut paused) = (Timings::default(), Timings::default());
    let mut before = page.read()?;
    for _ in 0..COLD {
        until("nothing runs", client, |pods| pods.is_empty()).await?;
        cold.add(call(gateway, PATH).await?);
    }
    until("nothing runs", client, |pods| pods.is_empty()).await?;
    parts("a cold start in its parts, as the metrics have it", &before, &page.read()?);
    let rests = json!({"spec": {"scale": {"pausedSeconds": 3600}}});
    functions.patch("bench", PatchType::Merge, &rests).await?;
    // From zero once more.
    call(gateway, PATH).await?;
    until("the instance rests", client, |pods| matches!(pods, [pod] if rests_now(pod))).await?;
    before = page.read()?;
    for _ in 0..COLD {
        until("the instance rests", client, |pods| matches!(pods, [pod] if rests_now(pod))).await?;
        paused.add(call(gateway, PATH).await?);
    }
    parts("from paused in its parts", &before, &page.read()?);
    functions.patch("bench", PatchType::Merge, &json!({"spec": {"scale": {"min": 1}}})).await?;
    let pod = until("an instance", client, |pods| pods.iter().any(is_ready)).await?;
    let address = pod.iter().find_map(|pod| pod.status.as_ref()?.pod_ip.clone()).context("no address")?;
    let instance = SocketAddr::new(address.parse()?, 8080);
    let (mut warm, mut direct) = (Timings::default(), Timings::default());
    for _ in 0..WARM {
        warm.add(call(gateway, PATH).await?);
        direct.add(call(instance, "/").await?);
    }
    let floor = direct.percentile(0.5);
    let mut table = Table::new(["call", "p50", "p95", "p99", "ratio", "goal"]);
    for (name, timings, goal) in [
        ("instance", &direct, ""),
        ("gateway, warm", &warm, "+0.5 ms"),
        ("from paused", &paused, "50 ms"),
        ("from zero", &cold, "300 ms"),
    ] {
        let of = |share| show(timings.percentile(share));
        let ratio = times(timings.percentile(0.5), floor);
        table.row([name.to_owned(), of(0.5), of(0.95), of(0.99), ratio, goal.to_owned()]);
    }
    table.print("a function's call, each on a connection of its own");
    let mut table = Table::new(["calls a second", "of 32 callers"]);
    for (name, to, path) in [("instance", instance, "/"), ("gateway", gateway, PATH)] {
        table.row([name.to_owned(), format!("{:.0}", load(to, path).await?)]);
    }
    table.print("many at once, each on a connection of its own");
    Ok(())
}

/// It is paused: it says that it is not ready, and a moment later it stands still.
fn rests_now(pod: &Pod) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.is_some_and(|all| all.contains_key(minik8s_core::node::PAUSED)) && !is_ready(pod)
}

async fn load(to: SocketAddr, path: &'static str) -> Result<f64> {
    let began = Instant::now();
    let caller = || async move {
        let mut count = 0;
        while began.elapsed() < LOAD {
            call(to, path).await?;
            count += 1;
        }
        Ok::<usize, anyhow::Error>(count)
    };
    let callers: Vec<_> = (0..CALLERS).map(|_| tokio::spawn(caller())).collect();
    let mut count = 0;
    for caller in callers {
        count += caller.await??;
    }
    Ok(per_second(count, began.elapsed()))
}

/// What is counted.
struct Page(Registry);

/// Sum, in seconds, and count of a part of a cold start.
type Part = (&'static str, f64, f64);
/// In the order in which they follow.
type Parts = Vec<Part>;

const PARTS: [(&str, &str); 8] = [
    ("function_cold_start", "schedule"),
    ("function_cold_start", "sandbox"),
    ("function_cold_start", "create"),
    ("function_cold_start", "start"),
    ("function_cold_start", "all"),
    ("function_cold_start", "resume"),
    ("gateway_woken", "wait"),
    ("gateway_woken", "first_byte"),
];

impl Page {
    fn read(&self) -> Result<Parts> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.0)?;
        let of = |name: &str, kind: &str, part: &str| -> f64 {
            // Of all functions.
            let (start, part) = (format!("{name}_seconds_{kind}{{"), format!("part=\"{part}\""));
            let value = |line: &str| {
                let (labels, value) = line.strip_prefix(&start)?.split_once("} ")?;
                labels.split(',').any(|label| label == part).then(|| value.parse::<f64>().ok())?
            };
            text.lines().filter_map(value).sum()
        };
        Ok(PARTS.iter().map(|(name, part)| (*part, of(name, "sum", part), of(name, "count", part))).collect())
    }
}

/// What came in between.
fn since(before: &Parts, after: &Parts) -> Parts {
    let less = |(new, old): (&Part, &Part)| (new.0, new.1 - old.1, new.2 - old.2);
    after.iter().zip(before).map(less).collect()
}

fn sum(one: &Parts, other: &Parts) -> Parts {
    one.iter().zip(other).map(|(one, other)| (one.0, one.1 + other.1, one.2 + other.2)).collect()
}

fn mean(part: &Part) -> Duration {
    Duration::from_secs_f64(part.1 / part.2.max(1.0))
}

/// The means of what came in between.
fn parts(title: &str, before: &Parts, after: &Parts) {
    let mut table = Table::new(["part", "mean", "count"]);
    for part in since(before, after).iter().filter(|part| part.2 > 0.0) {
        table.row([part.0.to_owned(), show(mean(part)), format!("{}", part.2)]);
    }
    table.print(title);
}

/// What functions take of this process while nobody calls them.
async fn idle(client: &Client) -> Result<()> {
    let before = resident()?;
    let began = Instant::now();
    for number in 0..IDLE {
        let one = function(&format!("idle-{number}"), json!({"idleSeconds": 1}))?;
        client.api::<Function>("default").create(&one).await?;
    }
    let functions = || async { client.api::<Function>("default").list(&ListOptions::default()).await };
    loop {
        let ready = |function: &Function| {
            let conditions = function.status.iter().flat_map(|status| &status.conditions);
            conditions.into_iter().any(|condition| condition.status == "True")
        };
        if functions().await?.items.iter().all(ready) {
            break;
        }
        if began.elapsed() > Duration::from_secs(240) {
            bail!("{IDLE} functions are not ready after {:?}", began.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let took = began.elapsed();
    until("nothing runs", client, |pods| pods.is_empty()).await?;
    let mut table = Table::new(["functions", "ready after", "memory for each, asleep"]);
    let each = resident()?.saturating_sub(before) / IDLE as u64;
    table.row([IDLE.to_string(), show(took), format!("{} KiB", each >> 10)]);
    table.print("functions that nobody calls");
    for number in 0..IDLE {
        client.api::<Function>("default").delete(&format!("idle-{number}"), &DeleteOptions::default()).await?;
    }
    Ok(())
}

/// Memory of this process, in bytes.
fn resident() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
}

/// Asks until the pods are as wanted; answers them.
async fn until(what: &str, client: &Client, is: impl Fn(&[Pod]) -> bool) -> Result<Vec<Pod>> {
    let end = Instant::now() + Duration::from_secs(120);
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
