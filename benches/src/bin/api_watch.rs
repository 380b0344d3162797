//! How long until watchers of the API see a write, at 1, 100 and 1,000 watchers? In process, from the create call to
//! each watcher's event. Beside it, the floor: the same number of tasks woken by a broadcast channel.

use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use minik8s_benches::{Table, Timings, show, times};
use minik8s_core::api::{Gvr, Target, WatchEvent};
use minik8s_core::client::WatchOptions;
use minik8s_core::cluster::Cluster;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{broadcast, mpsc};

const WRITES: usize = 200;

#[tokio::main]
async fn main() -> Result<()> {
    let mut table = Table::new(["watchers", "first p50", "last p50", "last p99", "floor, last p50", "ratio", "goal"]);
    for watchers in [1, 100, 1000] {
        let (first, last) = api(watchers).await?;
        let floor = channel(watchers).await?;
        table.row([
            watchers.to_string(),
            show(first.percentile(0.5)),
            show(last.percentile(0.5)),
            show(last.percentile(0.99)),
            show(floor.percentile(0.5)),
            times(last.percentile(0.5), floor.percentile(0.5)),
            "last within 10 ms".to_owned(),
        ]);
    }
    table.print("from a write to the event at each watcher of the API, memory store, in process");
    Ok(())
}

async fn api(watchers: usize) -> Result<(Timings, Timings)> {
    let cluster = Cluster::builder().without_controllers().start().await?;
    let transport = cluster.transport();
    let target = Target::in_namespace(Gvr::new("", "v1", "configmaps"), "default");
    let (seen, mut arrivals) = mpsc::channel(watchers);
    for _ in 0..watchers {
        let options = WatchOptions { resource_version: None, ..WatchOptions::default() };
        let mut stream = transport.watch(&target, &options).await?;
        let seen = seen.clone();
        tokio::spawn(async move {
            while let Some(Ok(event)) = stream.next().await {
                let wanted = matches!(&event, WatchEvent::Object(_, o) if o.meta.name.starts_with("bench-"));
                if wanted && seen.send(Instant::now()).await.is_err() {
                    return;
                }
            }
        });
    }
    let maps = cluster.client().api::<ConfigMap>("default");
    let (mut first, mut last) = (Timings::default(), Timings::default());
    for i in 0..WRITES {
        let map: ConfigMap = serde_json::from_value(serde_json::json!({"metadata": {"name": format!("bench-{i}")}}))?;
        let began = Instant::now();
        maps.create(&map).await?;
        let mut times = Vec::with_capacity(watchers);
        for _ in 0..watchers {
            times.push(arrivals.recv().await.context("watchers ended")?.saturating_duration_since(began));
        }
        first.add(times.iter().copied().min().unwrap_or_default());
        last.add(times.iter().copied().max().unwrap_or_default());
    }
    cluster.stop().await;
    Ok((first, last))
}

async fn channel(watchers: usize) -> Result<Timings> {
    let (sender, _) = broadcast::channel::<Arc<[u8]>>(16);
    let (seen, mut arrivals) = mpsc::channel(watchers);
    for _ in 0..watchers {
        let (mut receiver, seen) = (sender.subscribe(), seen.clone());
        tokio::spawn(async move {
            while receiver.recv().await.is_ok() {
                if seen.send(Instant::now()).await.is_err() {
                    return;
                }
            }
        });
    }
    let mut last = Timings::default();
    for _ in 0..WRITES {
        let began = Instant::now();
        sender.send(Arc::from([0u8; 512]))?;
        let mut latest = began;
        for _ in 0..watchers {
            latest = latest.max(arrivals.recv().await.context("watchers ended")?);
        }
        last.add(latest.saturating_duration_since(began));
    }
    Ok(last)
}
