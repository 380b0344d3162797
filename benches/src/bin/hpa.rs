//! How soon do replicas follow load, looked at once a second? From the first busy moment to the next pod being ready, on
//! pretended containers (what the loops take) and on real ones, without a network. Beside it, the floor: a pod of the same
//! kind, created by hand.
//!
//! And what do 1,000 autoscalers cost, each with a target and a pod of its own, looked at once a second? Processor time of
//! the whole process with them, less that without; and how long after it was due each look began. `hpa reaction` and
//! `hpa thousand` are one of the two.

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use minik8s_benches::{Table, Timings, progress, show};
use minik8s_core::client::{
    Api, Change, Client, DeleteOptions, Informer, InformerOptions, TypedEvent, WatchOptions, key_of,
};
use minik8s_core::cluster::Cluster;
use minik8s_core::controllers::horizontal::HorizontalConfig;
use minik8s_core::controllers::is_ready;
use minik8s_core::network::NoopNetwork;
use minik8s_core::node::NodeConfig;
use minik8s_core::runtime::{Images, SharedRuntime};
use minik8s_core::testkit::{FakeRuntime, Load};
use minik8s_runtime::{ContainerdRuntime, PrivateContainerd};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const ROUNDS: usize = 10;
const IMAGE: &str = "localhost/bench:1";
const AUTOSCALERS: usize = 1000;
const NAMESPACES: usize = 20;
const NODES: usize = 10;
const WINDOW: Duration = Duration::from_secs(20);
/// How long the part with the thousand may take, on a machine however slow.
const LIMIT: Duration = Duration::from_secs(600);

fn looked_at_each_second() -> HorizontalConfig {
    HorizontalConfig { sync_period: Duration::from_secs(1), ..HorizontalConfig::default() }
}

fn main() -> Result<()> {
    // The log writer of a container is this same program.
    if let Some(code) = minik8s_runtime::log_driver::run_if_asked() {
        std::process::exit(if code == std::process::ExitCode::SUCCESS { 0 } else { 1 });
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let picked = |part: &str| asked.is_empty() || asked.iter().any(|word| word == part);
    runtime.block_on(async {
        if picked("reaction") {
            reaction().await?;
        }
        if picked("thousand") {
            tokio::time::timeout(LIMIT, thousand()).await.context("the thousand did not end in time")??;
        }
        Ok(())
    })
}

async fn reaction() -> Result<()> {
    let mut table = Table::new(["containers", "p50", "worst", "a pod by hand, p50", "goal"]);
    let row = |name: &str, (followed, floor): (Timings, Timings)| {
        let [p50, worst] = [0.5, 1.0].map(|share| show(followed.percentile(share)));
        [name.to_owned(), p50, worst, show(floor.percentile(0.5)), "3 s".to_owned()]
    };
    let runtime = FakeRuntime::new();
    let busy = Arc::new(AtomicBool::new(false));
    let told = busy.clone();
    runtime.load(move |_, _| Load {
        milli_cpu: if told.load(Ordering::Relaxed) { 200 } else { 1 },
        memory_bytes: 1 << 20,
    });
    let directory = tempfile::tempdir()?;
    progress("pretended containers");
    let switch = move |on| {
        busy.store(on, Ordering::Relaxed);
        Ok(())
    };
    table.row(row("pretended", follow(runtime, directory.path(), switch).await?));
    if nix::unistd::Uid::effective().is_root() {
        progress("real containers");
        table.row(row("containerd", real(directory.path()).await?));
    }
    table.print("from load to the next pod ready, looked at once a second");
    Ok(())
}

async fn real(directory: &Path) -> Result<(Timings, Timings)> {
    let path = directory.join("containerd");
    let containerd = tokio::task::spawn_blocking(move || PrivateContainerd::start(path)).await??;
    let runtime = Arc::new(ContainerdRuntime::connect(containerd.config()).await?);
    runtime.import(minik8s_runtime::testing::busybox_image(directory)?, Some(IMAGE)).await?;
    let on = directory.join("on");
    let switch = move |busy: bool| match busy {
        true => std::fs::write(&on, ""),
        false => std::fs::remove_file(&on),
    };
    let found = follow(runtime.clone(), directory, switch).await;
    drop(runtime);
    tokio::task::spawn_blocking(move || containerd.destroy()).await??;
    found
}

/// Loads one pod until there are two, again and again.
async fn follow(
    runtime: SharedRuntime,
    directory: &Path,
    switch: impl Fn(bool) -> std::io::Result<()>,
) -> Result<(Timings, Timings)> {
    let config = NodeConfig::new("bench", directory.join("node"));
    let network = Arc::new(NoopNetwork::new("10.244.0.0/24".parse()?));
    let cluster = Cluster::builder().horizontal(looked_at_each_second()).node(config, runtime, network).start().await?;
    let client = cluster.client();
    let script = "while :; do if [ -e /load/on ]; then i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done; else sleep 0.1; fi; done";
    let pod = json!({"terminationGracePeriodSeconds": 0,
        "containers": [{"name": "main", "image": IMAGE, "command": ["sh", "-c", script],
            "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "200m"}},
            "volumeMounts": [{"name": "load", "mountPath": "/load"}]}],
        "volumes": [{"name": "load", "hostPath": {"path": directory}}]});
    client.api("default").create(&deployment("web", &pod)?).await?;
    let pods: Api<Pod> = client.api("default");
    until_ready(&pods, "app=web", 1).await?;
    let quick =
        json!({"stabilizationWindowSeconds": 0, "policies": [{"type": "Percent", "value": 100, "periodSeconds": 1}]});
    client.api("default").create(&autoscaler("web", 50, json!({ "scaleDown": quick }))?).await?;
    let mut followed = Timings::default();
    for _ in 0..ROUNDS {
        // Idle long enough that no window holds any of the load before.
        tokio::time::sleep(Duration::from_millis(2_300)).await;
        let began = Instant::now();
        switch(true)?;
        until_ready(&pods, "app=web", 2).await?;
        let reacted = began.elapsed();
        followed.add(reacted);
        switch(false)?;
        until_ready(&pods, "app=web", 1).await?;
        progress(&format!("two after {reacted:.1?}, one again after {:.1?}", began.elapsed()));
    }
    let mut floor = Timings::default();
    for _ in 0..ROUNDS {
        let one = json!({"metadata": {"name": "hand", "labels": {"by": "hand"}}, "spec": pod});
        let began = Instant::now();
        pods.create(&serde_json::from_value(one)?).await?;
        until_ready(&pods, "by=hand", 1).await?;
        floor.add(began.elapsed());
        pods.delete("hand", &DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() }).await?;
        until_ready(&pods, "by=hand", 0).await?;
    }
    cluster.stop().await;
    Ok((followed, floor))
}

fn deployment(name: &str, pod: &Value) -> Result<Deployment> {
    Ok(serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"replicas": 1,
        "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": pod}}}))?)
}

fn autoscaler(name: &str, percent: i32, behavior: Value) -> Result<HorizontalPodAutoscaler> {
    let target = json!({"type": "Utilization", "averageUtilization": percent});
    Ok(serde_json::from_value(json!({"metadata": {"name": name}, "spec": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicas": 1, "maxReplicas": 2, "behavior": behavior,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]}}))?)
}

/// Waits until so many pods with these labels are there, all of them ready.
async fn until_ready(pods: &Api<Pod>, labels: &str, want: usize) -> Result<()> {
    let options = WatchOptions { label_selector: labels.to_owned(), ..WatchOptions::default() };
    let list = minik8s_core::client::ListOptions { label_selector: labels.to_owned(), ..Default::default() };
    let mut changes = pods.watch(&options).await?;
    let limit = Instant::now() + Duration::from_secs(300);
    loop {
        let all = pods.list(&list).await?.items;
        if all.len() == want && all.iter().all(is_ready) {
            return Ok(());
        }
        let left = limit.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, changes.next()).await {
            Err(_) => bail!("no {want} ready pods with {labels} within five minutes, but {}", all.len()),
            Ok(None) => bail!("the watch ended"),
            Ok(Some(event)) => drop::<TypedEvent<Pod>>(event?),
        }
    }
}

async fn thousand() -> Result<()> {
    let runtimes: Vec<_> = (0..NODES).map(|_| FakeRuntime::new()).collect();
    let builder = Cluster::builder().horizontal(looked_at_each_second());
    let nodes = runtimes.iter().enumerate().map(|(i, runtime)| (format!("node-{i}"), runtime.clone()));
    let cluster =
        nodes.fold(builder, |builder, (name, runtime)| builder.fake_node_with(&name, runtime)).start().await?;
    let client = cluster.client();
    progress("1,000 targets");
    let pod = json!({"containers": [{"name": "main", "image": "i", "resources": {"requests": {"cpu": "1m"}}}]});
    for n in 0..NAMESPACES {
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": format!("n{n}")}}))?;
        client.all().create(&namespace).await?;
    }
    for i in 0..AUTOSCALERS {
        client.api(&format!("n{}", i % NAMESPACES)).create(&deployment(&format!("t{i}"), &pod)?).await?;
    }
    progress("their pods");
    all_ready(&client, AUTOSCALERS).await?;
    let idle = window(&cluster).await?;
    progress("1,000 autoscalers");
    create_autoscalers(&client).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let busy = window(&cluster).await?;
    let looks = busy.looks;
    let cost = (busy.cpu.saturating_sub(idle.cpu)) / u32::try_from(looks.max(1))?;
    print_looks(looks, &busy, cost);
    cluster.stop().await;
    Ok(())
}

fn print_looks(looks: u64, busy: &Window, cost: Duration) {
    let mut table = Table::new([
        "autoscalers",
        "looks a second",
        "cpu per look",
        "cpu of one core",
        "one look takes",
        "it begins late by",
        "99 in 100 within",
    ]);
    let rate = minik8s_benches::per_second(usize::try_from(looks).unwrap_or_default(), WINDOW);
    let share = cost.as_secs_f64() * rate * 100.0;
    let mean = |seconds: f64, count: f64| show(Duration::from_secs_f64((seconds / count.max(1.0)).max(0.0)));
    let (took, late) = (mean(busy.seconds, looks as f64), mean(busy.waited.seconds, busy.waited.count));
    let within = busy.waited.within(0.99).map_or_else(|| "more than 10 s".to_owned(), |s| format!("{s} s"));
    table.row([AUTOSCALERS.to_string(), format!("{rate:.0}"), show(cost), format!("{share:.0} %"), took, late, within]);
    table.print("looking at 1,000 autoscalers once a second, a pod each");
}

/// Waits until so many pods are ready, of all namespaces.
async fn all_ready(client: &Client, want: usize) -> Result<()> {
    let stop = CancellationToken::new();
    let _stops = stop.clone().drop_guard();
    let pods = Informer::start(client.all::<Pod>(), InformerOptions::default(), stop);
    let mut changes = pods.subscribe();
    pods.synced().await;
    let mut ready: HashSet<String> = pods.list().iter().filter(|pod| is_ready(pod)).map(|pod| key_of(&**pod)).collect();
    while ready.len() < want {
        match changes.next().await.context("the informer ended")? {
            Change::Applied { new, .. } if is_ready(&new) => drop(ready.insert(key_of(&*new))),
            Change::Applied { .. } | Change::Deleted(_) => {}
            Change::Resync => ready.extend(pods.list().iter().filter(|pod| is_ready(pod)).map(|pod| key_of(&**pod))),
        }
    }
    Ok(())
}

async fn create_autoscalers(client: &Client) -> Result<()> {
    for i in 0..AUTOSCALERS {
        let one = autoscaler(&format!("t{i}"), 100_000, Value::Null)?;
        client.api(&format!("n{}", i % NAMESPACES)).create(&one).await?;
    }
    Ok(())
}

/// What a while took.
struct Window {
    cpu: Duration,
    /// Looks within it.
    looks: u64,
    seconds: f64,
    /// From when looks were due until they began.
    waited: Waited,
}

/// A histogram of the metrics.
#[derive(Default)]
struct Waited {
    count: f64,
    seconds: f64,
    /// How many took up to so many seconds.
    buckets: Vec<(f64, f64)>,
}

impl Waited {
    /// The bound within which that share is.
    fn within(&self, share: f64) -> Option<f64> {
        self.buckets.iter().find(|(_, count)| *count >= self.count * share).map(|(bound, _)| *bound)
    }

    fn since(self, before: &Self) -> Self {
        let buckets = self.buckets.iter().zip(before.buckets.iter().map(|(_, n)| *n).chain(std::iter::repeat(0.0)));
        let buckets = buckets.map(|((bound, now), before)| (*bound, now - before)).collect();
        Self { count: self.count - before.count, seconds: self.seconds - before.seconds, buckets }
    }
}

async fn window(cluster: &Cluster) -> Result<Window> {
    let (cpu, (count, seconds), waited) = (cpu_time()?, looks(cluster)?, waited(cluster)?);
    tokio::time::sleep(WINDOW).await;
    let (after, (count_after, seconds_after)) = (cpu_time()?, looks(cluster)?);
    let waited = self::waited(cluster)?.since(&waited);
    Ok(Window { cpu: after - cpu, looks: count_after - count, seconds: seconds_after - seconds, waited })
}

/// How many looks there were, and their seconds, as the metrics tell.
fn looks(cluster: &Cluster) -> Result<(u64, f64)> {
    let page = cluster.metrics().render()?;
    let value = |name: &str| -> f64 {
        let series = format!("controller_reconcile_seconds_{name}{{controller=\"horizontal-pod-autoscaler\"}}");
        page.lines().find_map(|line| line.strip_prefix(&series)?.trim().parse().ok()).unwrap_or_default()
    };
    Ok((value("count") as u64, value("sum")))
}

/// How long keys waited in the controller's queue after they were due.
fn waited(cluster: &Cluster) -> Result<Waited> {
    let page = cluster.metrics().render()?;
    let mut found = Waited::default();
    let of = page.lines().filter_map(|line| line.strip_prefix("workqueue_queue_duration_seconds_"));
    for line in of.filter(|line| line.contains("name=\"horizontal-pod-autoscaler\"")) {
        let Some(value) = line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()) else { continue };
        let bound = line.split("le=\"").nth(1).and_then(|rest| rest.split('"').next()?.parse::<f64>().ok());
        match (line.split('{').next(), bound) {
            (Some("sum"), _) => found.seconds = value,
            (Some("count"), _) => found.count = value,
            (Some("bucket"), Some(bound)) => found.buckets.push((bound, value)),
            _ => {}
        }
    }
    Ok(found)
}

/// Processor time of this process so far.
fn cpu_time() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(')').context("no process")?.1;
    let ticks = |at: usize| fields.split_whitespace().nth(at).and_then(|t| t.parse::<u64>().ok()).unwrap_or_default();
    Ok(Duration::from_millis((ticks(11) + ticks(12)) * 10))
}
