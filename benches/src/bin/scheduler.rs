//! How many pods a second find a node, at 500 and 5,000 nodes? First the decision alone (a snapshot and a pod in, a node
//! out, the pod counted); then everything: pods made through the API in this process, scheduled, bound, and seen bound.

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Node, Pod};
use minik8s_benches::{Table, per_second};
use minik8s_core::client::{Change, Client, Informer, InformerOptions, PatchType};
use minik8s_core::clock::{SharedClock, SystemClock};
use minik8s_core::controllers::ControllerManager;
use minik8s_core::scheduler::{
    FrameworkScheduler, NodeInfo, Outcome, PodInfo, Policy, Scheduler, SchedulerConfig, SchedulerLoop, Snapshot,
};
use minik8s_core::server::ApiServer;
use minik8s_core::store::MemoryStore;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const WORKLOADS: [&str; 5] = ["basic", "affinity", "anti-affinity", "spread", "preemption"];
const NODES: [usize; 2] = [500, 5_000];
const PODS: usize = 5_000;
/// Pods on different nodes can be no more than there are nodes; these fit everywhere.
const FEW: usize = 450;
const ZONES: usize = 10;
const GROUPS: usize = 10;

#[tokio::main]
async fn main() -> Result<()> {
    let mut decisions = Table::new(["workload", "nodes", "pods", "pods/s", "a pod", "goal"]);
    for workload in WORKLOADS {
        for nodes in NODES {
            let (pods, took) = decide(workload, nodes)?;
            decisions.row(row(workload, nodes, pods, took));
        }
    }
    decisions.print("the decision alone: a node for one pod after the other, each counted before the next");
    let mut all = Table::new(["workload", "nodes", "pods", "pods/s", "a pod", "goal"]);
    for workload in ["basic", "affinity", "anti-affinity", "spread"] {
        for nodes in NODES {
            let (pods, took) = through_the_api(workload, nodes).await?;
            all.row(row(workload, nodes, pods, took));
        }
    }
    all.print("from the first create call to the last pod seen bound, memory store, in process");
    Ok(())
}

fn row(workload: &str, nodes: usize, pods: usize, took: Duration) -> [String; 6] {
    let goal = if (workload, nodes) == ("basic", 5_000) { "5,000 pods/s" } else { "" };
    let each = took.checked_div(u32::try_from(pods).unwrap_or(u32::MAX)).unwrap_or_default();
    let rate = format!("{:.0}", per_second(pods, took));
    [workload.into(), nodes.to_string(), pods.to_string(), rate, minik8s_benches::show(each), goal.into()]
}

fn count(workload: &str) -> usize {
    if workload == "anti-affinity" { FEW } else { PODS }
}

fn labels(node: usize) -> Value {
    let zone = format!("zone-{}", node % ZONES);
    json!({"kubernetes.io/hostname": format!("node-{node:05}"), "topology.kubernetes.io/zone": zone})
}

/// A pod of the workload, 100m and 200 MiB, one of ten groups.
fn pod(workload: &str, number: usize) -> Value {
    let app = format!("app-{}", number % GROUPS);
    let selector = json!({"matchLabels": {"app": app}});
    let term = |key: &str, of: &Value| json!({"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": key, "labelSelector": of}]});
    let requests = json!({"cpu": "100m", "memory": "200Mi"});
    let mut spec = json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": requests}}]});
    match workload {
        "affinity" => spec["affinity"] = json!({"podAffinity": term("topology.kubernetes.io/zone", &selector)}),
        "anti-affinity" => {
            let everyone = json!({"matchLabels": {"kind": "bench"}});
            spec["affinity"] = json!({"podAntiAffinity": term("kubernetes.io/hostname", &everyone)});
        }
        "spread" => {
            spec["topologySpreadConstraints"] = json!([{"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone",
                "whenUnsatisfiable": "DoNotSchedule", "labelSelector": selector}]);
        }
        _ => {}
    }
    json!({"metadata": {"name": name(number), "namespace": "default", "labels": {"app": app, "kind": "bench"}}, "spec": spec})
}

fn name(number: usize) -> String {
    format!("pod-{number:05}")
}

fn info(workload: &str, number: usize) -> Result<PodInfo> {
    let pod: Pod = serde_json::from_value(pod(workload, number))?;
    Ok(PodInfo { uid: format!("uid-{number}"), ..PodInfo::from_pod(&pod) })
}

fn decide(workload: &str, nodes: usize) -> Result<(usize, Duration)> {
    let mut snapshot = Snapshot::default();
    for number in 0..nodes {
        let allocatable = json!({"cpu": "8", "memory": "32Gi", "pods": "110"});
        let node = json!({"metadata": {"name": format!("node-{number:05}"), "labels": labels(number)},
            "status": {"allocatable": allocatable}});
        snapshot.put_node(NodeInfo::from_node(&serde_json::from_value::<Node>(node)?));
    }
    if workload == "preemption" {
        return displace(snapshot, nodes);
    }
    let scheduler = FrameworkScheduler::new(Policy::Default.profile());
    let pods = (0..count(workload)).map(|number| info(workload, number)).collect::<Result<Vec<_>>>()?;
    let began = Instant::now();
    for mut pod in pods {
        let Outcome::Node(choice) = scheduler.schedule(&snapshot, &pod) else { bail!("no node for {}", pod.name) };
        pod.node_name = choice.node;
        snapshot.put_pod(Arc::new(pod));
    }
    Ok((count(workload), began.elapsed()))
}

/// Every node is full of four pods that matter less; each new one takes the place of one of them.
fn displace(mut snapshot: Snapshot, nodes: usize) -> Result<(usize, Duration)> {
    let big = |number: usize| {
        let mut pod = info("basic", number)?;
        pod.requests.milli_cpu = 2000;
        Ok::<_, anyhow::Error>(pod)
    };
    for number in 0..nodes * 4 {
        let mut pod = big(number)?;
        pod.node_name = format!("node-{:05}", number % nodes);
        snapshot.put_pod(Arc::new(pod));
    }
    let scheduler = FrameworkScheduler::new(Policy::Default.profile());
    let began = Instant::now();
    for number in 0..FEW {
        let mut pod = PodInfo { priority: 10, ..big(nodes * 4 + number)? };
        let Outcome::Unschedulable(why) = scheduler.schedule(&snapshot, &pod) else { bail!("the nodes are not full") };
        let Ok(room) = scheduler.preempt(&snapshot, &pod, &why) else { bail!("nobody made room: {why}") };
        room.victims.iter().for_each(|victim| snapshot.remove_pod(&victim.uid));
        pod.node_name = room.node;
        snapshot.put_pod(Arc::new(pod));
    }
    Ok((FEW, began.elapsed()))
}

async fn through_the_api(workload: &'static str, nodes: usize) -> Result<(usize, Duration)> {
    let clock: SharedClock = Arc::new(SystemClock);
    let server = ApiServer::builder(Arc::new(MemoryStore::new())).clock(clock.clone()).start().await?;
    let client = Client::new(server.clone());
    for number in 0..nodes {
        let name = format!("node-{number:05}");
        let node = serde_json::from_value(json!({"metadata": {"name": name, "labels": labels(number)}}))?;
        client.all::<Node>().create(&node).await?;
        let allocatable = json!({"cpu": "8", "memory": "32Gi", "pods": "110"});
        let status = json!({"status": {"allocatable": allocatable}});
        client.all::<Node>().patch_status(&name, PatchType::Merge, &status).await?;
    }
    let stop = CancellationToken::new();
    let scheduler = Arc::new(SchedulerLoop::new(SchedulerConfig::default()));
    tokio::spawn(ControllerManager::new(client.clone(), clock, vec![scheduler]).run(stop.clone()));
    let pods = Informer::start(client.all::<Pod>(), InformerOptions::default(), stop.clone());
    pods.synced().await;
    // One pod ahead: from then on the scheduler is known to have all nodes.
    place(&client, &pods, workload, PODS..PODS + 1).await?;
    let began = Instant::now();
    place(&client, &pods, workload, 0..count(workload)).await?;
    let took = began.elapsed();
    stop.cancel();
    server.shutdown();
    Ok((count(workload), took))
}

/// Makes these pods, and waits until all of them are seen bound.
async fn place(
    client: &Client,
    pods: &Informer<Pod>,
    workload: &'static str,
    range: std::ops::Range<usize>,
) -> Result<()> {
    let mut changes = pods.subscribe();
    let mut missing: HashSet<String> = range.clone().map(name).collect();
    let maker = client.clone();
    let made = tokio::spawn(async move {
        for number in range {
            let pod = serde_json::from_value(pod(workload, number))?;
            maker.api::<Pod>("default").create(&pod).await?;
        }
        anyhow::Ok(())
    });
    while !missing.is_empty() {
        match changes.next().await.context("the informer ended")? {
            Change::Applied { new, .. } => found(&mut missing, &new),
            Change::Resync => pods.list().iter().for_each(|pod| found(&mut missing, pod)),
            Change::Deleted(_) => {}
        }
    }
    made.await?
}

fn found(missing: &mut HashSet<String>, pod: &Pod) {
    if pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()) {
        missing.remove(pod.metadata.name.as_deref().unwrap_or_default());
    }
}
