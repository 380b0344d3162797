//! What do many nodes and pods cost one control plane, and what grows worse than they do? 5,000 nodes with 150,000 pods,
//! and a tenth of that, each in a process of its own: memory, and how long a create, a get, a page and a whole list take
//! while every node renews its lease. `scale <nodes> <pods>` measures one size and prints its figures as a line.

use anyhow::{Context, Result};
use futures::StreamExt;
use minik8s_benches::{Table, Timings, show, times};
use minik8s_core::api::{Gvr, NODE_LEASES, Target};
use minik8s_core::client::{ListOptions, PatchType, Payload, Transport, WatchOptions, WriteOptions};
use minik8s_core::server::ApiServer;
use minik8s_core::store::MemoryStore;
use serde_json::{Value, json};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const SIZES: [(usize, usize); 2] = [(500, 15_000), (5_000, 150_000)];
const PODS: Gvr = Gvr::new("", "v1", "pods");
const NODES: Gvr = Gvr::new("", "v1", "nodes");
const LEASES: Gvr = Gvr::new("coordination.k8s.io", "v1", "leases");
/// How often each node says it lives.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How often each thing is measured; whole lists are long, and measured less often.
const TIMES: (usize, usize) = (1_000, 10);
const ROWS: [&str; 7] = [
    "memory",
    "create, p99",
    "get, p99",
    "page of 500, p99",
    "whole list, p50",
    "pods of a node, p99",
    "write to event, p99",
];

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<usize> = std::env::args().skip(1).map(|text| text.parse()).collect::<Result<_, _>>()?;
    if let [nodes, pods] = arguments[..] {
        let figures = measure(nodes, pods).await?;
        #[allow(clippy::print_stdout, reason = "the parent reads it")]
        {
            println!("{}", figures.map(|figure| figure.to_string()).join(" "));
        }
        return Ok(());
    }
    let mut columns = Vec::new();
    for (nodes, pods) in SIZES {
        let output = Command::new(std::env::current_exe()?).args([nodes.to_string(), pods.to_string()]).output()?;
        let text = String::from_utf8(output.stdout)?;
        let figures: Vec<u64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        anyhow::ensure!(figures.len() == ROWS.len(), "{nodes} nodes: {}", String::from_utf8_lossy(&output.stderr));
        columns.push(figures);
    }
    let mut table =
        Table::new(["", "500 nodes, 15,000 pods", "5,000 nodes, 150,000 pods", "growth at ten times the size"]);
    for (row, name) in ROWS.iter().enumerate() {
        let (small, large) = (columns[0][row], columns[1][row]);
        let text = |figure: u64| match row {
            0 => format!("{} MiB", figure >> 20),
            _ => show(Duration::from_nanos(figure)),
        };
        let growth = times(Duration::from_nanos(large), Duration::from_nanos(small));
        table.row([(*name).to_owned(), text(small), text(large), growth]);
    }
    table.print("one control plane, memory store, in process, with heartbeats of all nodes");
    Ok(())
}

fn payload(value: &Value) -> Payload {
    Payload::Json(value.to_string().into())
}

fn pod(name: &str, node: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": format!("app-{}", name.len() % 7)}},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "registry.example/app:1",
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}]}})
}

async fn fill(server: &Arc<ApiServer>, nodes: usize, pods: usize) -> Result<()> {
    let options = WriteOptions::default();
    for n in 0..nodes {
        let name = format!("node-{n}");
        let node =
            json!({"metadata": {"name": name}, "status": {"capacity": {"cpu": "8", "memory": "16Gi", "pods": "110"}}});
        server.create(&Target::all(NODES), payload(&node), &options).await?;
        let lease = json!({"metadata": {"name": name}, "spec": {"holderIdentity": name, "leaseDurationSeconds": 40}});
        server.create(&Target::in_namespace(LEASES, NODE_LEASES), payload(&lease), &options).await?;
    }
    let target = Target::in_namespace(PODS, "default");
    let create = |n: usize| {
        let (target, options) = (&target, &options);
        async move {
            let body = payload(&pod(&format!("pod-{n}"), &format!("node-{}", n % nodes)));
            server.create(target, body, options).await
        }
    };
    let mut made = futures::stream::iter((0..pods).map(create)).buffer_unordered(64);
    while let Some(pod) = made.next().await {
        pod?;
    }
    Ok(())
}

/// Every node renews its lease, evenly spread, until the set is dropped.
fn heartbeats(server: &Arc<ApiServer>, nodes: usize) -> JoinSet<()> {
    let mut beating = JoinSet::new();
    let server = server.clone();
    beating.spawn(async move {
        let mut ticks = tokio::time::interval(HEARTBEAT / u32::try_from(nodes).unwrap_or(u32::MAX));
        for n in (0..nodes).cycle() {
            ticks.tick().await;
            let target = Target::object(LEASES, NODE_LEASES, format!("node-{n}"));
            let at = format!("2026-01-01T00:00:00.{:06}Z", n);
            let renewal = payload(&json!({"spec": {"renewTime": at}}));
            let _ = server.patch(&target, PatchType::Merge, renewal, &WriteOptions::default()).await;
        }
    });
    beating
}

async fn measure(nodes: usize, pods: usize) -> Result<[u64; 7]> {
    let server = ApiServer::builder(Arc::new(MemoryStore::new())).start().await?;
    fill(&server, nodes, pods).await?;
    let memory = resident()?;
    let _beating = heartbeats(&server, nodes);
    let (all, options) = (Target::in_namespace(PODS, "default"), WriteOptions::default());
    let [mut create, mut get, mut page, mut whole, mut of_node, mut event] =
        std::array::from_fn(|_| Timings::default());
    let mut watch = server
        .watch(
            &all,
            &WatchOptions { resource_version: Some(server_revision(&server, &all).await?), ..WatchOptions::default() },
        )
        .await?;
    for n in 0..TIMES.0 {
        let began = Instant::now();
        server.create(&all, payload(&pod(&format!("more-{n}"), &format!("node-{}", n % nodes))), &options).await?;
        create.add(began.elapsed());
        watch.next().await.context("the watch ended")??;
        event.add(began.elapsed());
        let began = Instant::now();
        server.get(&Target::object(PODS, "default", format!("pod-{}", n * 7919 % pods))).await?;
        get.add(began.elapsed());
        let began = Instant::now();
        server.list(&all, &ListOptions { limit: 500, ..ListOptions::default() }).await?;
        page.add(began.elapsed());
        let field_selector = format!("spec.nodeName=node-{}", n % nodes);
        if n.is_multiple_of(TIMES.0 / TIMES.1) {
            let began = Instant::now();
            server.list(&all, &ListOptions { field_selector, ..ListOptions::default() }).await?;
            of_node.add(began.elapsed());
            let began = Instant::now();
            server.list(&all, &ListOptions::default()).await?;
            whole.add(began.elapsed());
        }
    }
    let nanos = |timings: &Timings, share| u64::try_from(timings.percentile(share).as_nanos()).unwrap_or(u64::MAX);
    Ok([
        memory,
        nanos(&create, 0.99),
        nanos(&get, 0.99),
        nanos(&page, 0.99),
        nanos(&whole, 0.5),
        nanos(&of_node, 0.99),
        nanos(&event, 0.99),
    ])
}

async fn server_revision(server: &Arc<ApiServer>, target: &Target) -> Result<u64> {
    Ok(server.list(target, &ListOptions { limit: 1, ..ListOptions::default() }).await?.revision)
}

/// Bytes of memory that the process has.
fn resident() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.split_whitespace().next().context("an empty VmRSS")?.parse()?;
    Ok(kib << 10)
}
