//! How many pods a second find a node, at 500 and 5,000 nodes? First the decision alone (a snapshot and a pod in, a node
//! out, the pod counted); then everything: pods made through the API in this process, scheduled, bound, and seen bound.
//! The workloads are those of Kubernetes' `scheduler_perf`. Words on the command line pick among them and among the
//! numbers of nodes, `decide` and `api` among the two ways: `scheduler api basic 5000`.

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use minik8s_benches::{Table, cpu_time, per_second, progress};
use minik8s_core::client::{Change, Client, DeleteOptions, Informer, InformerOptions};
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
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const WORKLOADS: [&str; 6] = ["basic", "affinity", "anti-affinity", "spread", "preemption", "churn"];
const NODES: [usize; 2] = [500, 5_000];
const PODS: usize = 5_000;
/// Pods on different nodes can be no more than there are nodes; these fit everywhere.
const FEW: usize = 450;
const ZONES: usize = 10;
const GROUPS: usize = 10;
/// Pods that fill a node where pods must make room.
const FULL: usize = 4;
/// How many clients make pods at once.
const MAKERS: usize = 8;
/// Between two changes of what churns.
const CHURN: Duration = Duration::from_millis(50);

/// What was asked for; nothing said means everything.
struct Picked(Vec<String>);

impl Picked {
    fn has(&self, word: &str, among: &[&str]) -> bool {
        let mut said = self.0.iter().filter(|w| among.contains(&w.as_str())).peekable();
        said.peek().is_none() || said.any(|w| w == word)
    }

    fn runs(&self, way: &str, ways: &[&'static str]) -> Vec<(&'static str, usize)> {
        if !self.has(way, &["decide", "api"]) {
            return Vec::new();
        }
        let sizes = NODES.map(|n| n.to_string());
        let sizes: Vec<&str> = sizes.iter().map(String::as_str).collect();
        let nodes = NODES.into_iter().filter(|n| self.has(&n.to_string(), &sizes)).collect::<Vec<_>>();
        let workloads = ways.iter().copied().filter(|w| self.has(w, &WORKLOADS));
        workloads.flat_map(|w| nodes.iter().map(move |n| (w, *n)).collect::<Vec<_>>()).collect()
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let picked = Picked(std::env::args().skip(1).collect());
    let mut decisions = Table::new(["workload", "nodes", "pods", "pods/s", "a pod", "CPU a pod", "goal"]);
    for (workload, nodes) in picked.runs("decide", &WORKLOADS[..5]) {
        progress(&format!("deciding: {workload}, {nodes} nodes"));
        let cost = decide(workload, nodes)?;
        decisions.row(row(workload, nodes, cost));
    }
    decisions.print("the decision alone: a node for one pod after the other, each counted before the next");
    let mut all = Table::new(["workload", "nodes", "pods", "pods/s", "a pod", "CPU a pod", "goal"]);
    for (workload, nodes) in picked.runs("api", &WORKLOADS) {
        progress(&format!("through the API: {workload}, {nodes} nodes"));
        let cost = through_the_api(workload, nodes).await?;
        all.row(row(workload, nodes, cost));
    }
    all.print("from the first create call to the last pod seen bound, memory store, in process");
    Ok(())
}

/// What some pods cost.
struct Cost {
    pods: usize,
    took: Duration,
    cpu: Duration,
}

/// Begins to count the cost of some pods; ends with a call.
fn meter(pods: usize) -> impl FnOnce() -> Cost {
    let (began, used) = (Instant::now(), cpu_time());
    move || Cost { pods, took: began.elapsed(), cpu: cpu_time().saturating_sub(used) }
}

fn row(workload: &str, nodes: usize, cost: Cost) -> [String; 7] {
    let Cost { pods, took, cpu } = cost;
    let goal = if (workload, nodes) == ("basic", 5_000) { "5,000 pods/s" } else { "" };
    let each = |total: Duration| {
        let each = total.checked_div(u32::try_from(pods).unwrap_or(u32::MAX)).unwrap_or_default();
        minik8s_benches::show(each)
    };
    let rate = format!("{:.0}", per_second(pods, took));
    [workload.into(), nodes.to_string(), pods.to_string(), rate, each(took), each(cpu), goal.into()]
}

fn count(workload: &str) -> usize {
    if matches!(workload, "anti-affinity" | "preemption") { FEW } else { PODS }
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
        // Nobody is there to say that a pod has ended.
        "preemption" => {
            spec["terminationGracePeriodSeconds"] = json!(0);
            spec["containers"][0]["resources"]["requests"]["cpu"] = json!("2");
            spec["priorityClassName"] = json!("high");
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

fn decide(workload: &str, nodes: usize) -> Result<Cost> {
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
    let cost = meter(count(workload));
    for mut pod in pods {
        let Outcome::Node(choice) = scheduler.schedule(&snapshot, &pod) else { bail!("no node for {}", pod.name) };
        pod.node_name = choice.node;
        snapshot.put_pod(Arc::new(pod));
    }
    Ok(cost())
}

/// Every node is full of four pods that matter less; each new one takes the place of one of them.
fn displace(mut snapshot: Snapshot, nodes: usize) -> Result<Cost> {
    let big = |number: usize| {
        let mut pod = info("basic", number)?;
        pod.requests.milli_cpu = 2000;
        Ok::<_, anyhow::Error>(pod)
    };
    for number in 0..nodes * FULL {
        let mut pod = big(number)?;
        pod.node_name = format!("node-{:05}", number % nodes);
        snapshot.put_pod(Arc::new(pod));
    }
    let scheduler = FrameworkScheduler::new(Policy::Default.profile());
    let cost = meter(FEW);
    for number in 0..FEW {
        let mut pod = PodInfo { priority: 10, ..big(nodes * FULL + number)? };
        let Outcome::Unschedulable(why) = scheduler.schedule(&snapshot, &pod) else { bail!("the nodes are not full") };
        let Ok(room) = scheduler.preempt(&snapshot, &pod, &why) else { bail!("nobody made room: {why}") };
        room.victims.iter().for_each(|victim| snapshot.remove_pod(&victim.uid));
        pod.node_name = room.node;
        snapshot.put_pod(Arc::new(pod));
    }
    Ok(cost())
}

async fn through_the_api(workload: &'static str, nodes: usize) -> Result<Cost> {
    let clock: SharedClock = Arc::new(SystemClock);
    let server = ApiServer::builder(Arc::new(MemoryStore::new())).clock(clock.clone()).start().await?;
    let client = Client::new(server.clone());
    make_nodes(&client, nodes).await?;
    if workload == "preemption" {
        fill(&client, nodes).await?;
    }
    let stop = CancellationToken::new();
    let scheduler = Arc::new(SchedulerLoop::new(SchedulerConfig::default()));
    tokio::spawn(ControllerManager::new(client.clone(), clock, vec![scheduler]).run(stop.clone()));
    let pods = Informer::start(client.all::<Pod>(), InformerOptions::default(), stop.clone());
    pods.synced().await;
    // One pod ahead: from then on the scheduler is known to have all nodes.
    place(&client, &pods, workload, PODS..PODS + 1).await?;
    if workload == "churn" {
        tokio::spawn(stop.clone().run_until_cancelled_owned(churn(client.clone())));
    }
    let cost = meter(count(workload));
    place(&client, &pods, workload, 0..count(workload)).await?;
    let cost = cost();
    stop.cancel();
    server.shutdown();
    Ok(cost)
}

async fn make_nodes(client: &Client, nodes: usize) -> Result<()> {
    for number in 0..nodes {
        let allocatable = json!({"cpu": "8", "memory": "32Gi", "pods": "110"});
        let node = json!({"metadata": {"name": format!("node-{number:05}"), "labels": labels(number)},
            "status": {"allocatable": allocatable}});
        client.all::<Node>().create(&serde_json::from_value(node)?).await?;
    }
    Ok(())
}

/// Fills every node with pods that matter less than those to come.
async fn fill(client: &Client, nodes: usize) -> Result<()> {
    let class = json!({"metadata": {"name": "high"}, "value": 10});
    client.all::<PriorityClass>().create(&serde_json::from_value(class)?).await?;
    for number in 0..nodes * FULL {
        let mut low = pod("preemption", number);
        low["metadata"]["name"] = json!(format!("low-{number:05}"));
        low["spec"]["priorityClassName"] = json!("");
        low["spec"]["nodeName"] = json!(format!("node-{:05}", number % nodes));
        client.api::<Pod>("default").create(&serde_json::from_value(low)?).await?;
    }
    Ok(())
}

/// Nodes too small for anything and pods too big for any node come and go.
async fn churn(client: Client) -> Result<()> {
    for number in 0.. {
        let node = json!({"metadata": {"name": format!("small-{number}")}, "status": {"allocatable": {"cpu": "1m", "pods": "1"}}});
        let mut big = pod("basic", 0);
        big["metadata"]["name"] = json!(format!("big-{number}"));
        big["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("900");
        client.all::<Node>().create(&serde_json::from_value(node)?).await?;
        client.api::<Pod>("default").create(&serde_json::from_value(big)?).await?;
        tokio::time::sleep(CHURN).await;
        client.all::<Node>().delete(&format!("small-{number}"), &DeleteOptions::default()).await?;
        client.api::<Pod>("default").delete(&format!("big-{number}"), &DeleteOptions::default()).await?;
    }
    Ok(())
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
    let mut makers = JoinSet::new();
    for maker in 0..MAKERS {
        let (client, numbers) = (client.clone(), range.clone().skip(maker).step_by(MAKERS));
        makers.spawn(async move {
            for number in numbers {
                let pod = serde_json::from_value(pod(workload, number))?;
                client.api::<Pod>("default").create(&pod).await?;
            }
            anyhow::Ok(())
        });
    }
    while !missing.is_empty() {
        match changes.next().await.context("the informer ended")? {
            Change::Applied { new, .. } => found(&mut missing, &new),
            Change::Resync => pods.list().iter().for_each(|pod| found(&mut missing, pod)),
            Change::Deleted(_) => {}
        }
    }
    while let Some(made) = makers.join_next().await {
        made??;
    }
    Ok(())
}

fn found(missing: &mut HashSet<String>, pod: &Pod) {
    if pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()) {
        missing.remove(pod.metadata.name.as_deref().unwrap_or_default());
    }
}
