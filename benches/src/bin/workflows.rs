//! How many steps a second do workflows take, and how long does one step take, with every transition durable in the
//! embedded store before its effect? Functions answer at once, in the same process: what is measured is the engine. The
//! floor is what the store takes for one durable write of the same kind, one after the other.
//!
//! And do 10,000 runs at once come to their end, each step called once?

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use minik8s_benches::{Table, Timings, cpu_time, per_second, progress, show};
use minik8s_core::client::{Client, ListOptions, TypedEvent, WatchOptions};
use minik8s_core::cluster::Cluster;
use minik8s_core::store::EmbeddedStore;
use minik8s_serverless::Serverless;
use minik8s_serverless::workflow::{FakeInvoker, Workflow, WorkflowRun, WorkflowsConfig};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Steps of one run that follow each other.
const LONG: usize = 500;
/// Runs at once.
const RUNS: usize = 10_000;
/// Runs that are begun at a time.
const BEGINNERS: usize = 64;

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        one_after_the_other().await?;
        many_at_once().await
    })
}

async fn cluster(directory: &Path, invoker: &FakeInvoker) -> Result<Cluster> {
    let store = Arc::new(EmbeddedStore::open(directory.join("store")).await?);
    let config = WorkflowsConfig { invoker: Some(Arc::new(invoker.clone())), ..WorkflowsConfig::default() };
    Ok(Cluster::builder().store(store).extension(Serverless::new().workflows(config)).start().await?)
}

fn echo() -> FakeInvoker {
    FakeInvoker::new().with("default/echo", |input| Ok(input.clone()))
}

/// The same, and when it was called.
fn clocked() -> (FakeInvoker, Receiver<Instant>) {
    let (called, calls) = channel();
    let invoker = FakeInvoker::new().with("default/echo", move |input| {
        // Who measures may be done.
        let _ = called.send(Instant::now());
        Ok(input.clone())
    });
    (invoker, calls)
}

fn chain(length: usize) -> Value {
    let step = |index: usize| {
        let mut step = json!({"name": format!("s{index}"), "task": {"function": {"name": "echo"}}});
        if index + 1 < length {
            step["next"] = json!(format!("s{}", index + 1))
        } else {
            step["end"] = json!(true)
        }
        step
    };
    json!({"startAt": "s0", "keepFinished": 100_000, "steps": (0..length).map(step).collect::<Vec<_>>()})
}

async fn define(client: &Client, name: &str, spec: Value) -> Result<()> {
    let workflow: Workflow = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec}))?;
    client.api::<Workflow>("default").create(&workflow).await?;
    Ok(())
}

async fn begin(client: &Client, name: &str, workflow: &str) -> Result<()> {
    let run = json!({"metadata": {"name": name}, "spec": {"workflow": workflow, "input": {"x": 1, "y": 2}}});
    client.api::<WorkflowRun>("default").create(&serde_json::from_value(run)?).await?;
    Ok(())
}

async fn ended(client: &Client, name: &str) -> Result<()> {
    let options = WatchOptions { field_selector: format!("metadata.name={name}"), ..WatchOptions::default() };
    let mut watch = client.api::<WorkflowRun>("default").watch(&options).await?;
    while let Some(event) = watch.next().await {
        if let TypedEvent::Added(run) | TypedEvent::Modified(run) = event? {
            let status = run.status.unwrap_or_default();
            ensure!(status.phase != "Failed", "{}", status.message);
            if status.phase == "Succeeded" {
                return Ok(());
            }
        }
    }
    anyhow::bail!("the watch ended")
}

async fn one_after_the_other() -> Result<()> {
    let directory = minik8s_benches::directory()?;
    let (invoker, calls) = clocked();
    let cluster = cluster(directory.path(), &invoker).await?;
    let client = cluster.client();
    define(&client, "chain", chain(LONG)).await?;
    // The floor: a durable write of an object about as large.
    let mut floor = Timings::default();
    begin(&client, "floor", "nothing").await?;
    let api = client.api::<WorkflowRun>("default");
    for index in 0..200 {
        let patch = json!({"metadata": {"annotations": {"n": index.to_string(), "like": "x".repeat(2000)}}});
        let start = Instant::now();
        api.patch("floor", minik8s_core::client::PatchType::Merge, &patch).await?;
        floor.add(start.elapsed());
    }
    let (mut runs, mut steps) = (Timings::default(), Timings::default());
    for index in 0..5 {
        let name = format!("r{index}");
        let start = Instant::now();
        begin(&client, &name, "chain").await?;
        ended(&client, &name).await?;
        runs.add(start.elapsed());
        // From the call of one step to that of the next.
        let calls: Vec<Instant> = calls.try_iter().collect();
        calls.windows(2).for_each(|two| steps.add(two[1].duration_since(two[0])));
    }
    let mut table = Table::new(["one run of 500 steps", "p50", "p99"]);
    let row = |name: &str, t: &Timings| [name.to_owned(), show(t.percentile(0.5)), show(t.percentile(0.99))];
    table.row(row("the whole run", &runs));
    table.row(row("a step", &steps));
    table.row(row("a durable write (the floor)", &floor));
    table.print("How long does a step take, where each follows the one before?");
    cluster.stop().await;
    Ok(())
}

/// The most memory that this process ever had, in KiB.
fn most_memory() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

async fn many_at_once() -> Result<()> {
    let directory = minik8s_benches::directory()?;
    let invoker = echo();
    let cluster = cluster(directory.path(), &invoker).await?;
    let client = cluster.client();
    let steps = 5;
    define(&client, "five", chain(steps)).await?;
    let (start, cpu) = (Instant::now(), cpu_time());
    let names: Vec<String> = (0..RUNS).map(|index| format!("r{index}")).collect();
    let begun = futures::stream::iter(names.iter().map(|name| begin(&client, name, "five")));
    let results: Vec<Result<()>> = begun.buffer_unordered(BEGINNERS).collect().await;
    results.into_iter().collect::<Result<()>>()?;
    let begun = start.elapsed();
    let mut done = 0;
    while done < RUNS {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let options = ListOptions { field_selector: "status.phase=Succeeded".to_owned(), ..ListOptions::default() };
        done = client.api::<WorkflowRun>("default").list(&options).await.context("cannot list runs")?.items.len();
        progress(&format!("{done} of {RUNS} runs are over"));
    }
    let (took, used) = (start.elapsed(), cpu_time().saturating_sub(cpu));
    let calls = invoker.asked();
    let distinct: std::collections::HashSet<_> = calls.iter().collect();
    ensure!(
        calls.len() == RUNS * steps && distinct.len() == calls.len(),
        "{} calls, {} of them distinct",
        calls.len(),
        distinct.len()
    );
    let mut table = Table::new(["10,000 runs of 5 steps", ""]);
    table.row(["all begun after".to_owned(), show(begun)]);
    table.row(["all over after".to_owned(), show(took)]);
    table.row(["steps a second".to_owned(), format!("{:.0}", per_second(RUNS * steps, took))]);
    table.row(["processor time a step".to_owned(), show(used / u32::try_from(RUNS * steps)?)]);
    table.row(["calls, each step once".to_owned(), calls.len().to_string()]);
    table.row(["memory at most, the store's included".to_owned(), format!("{} MiB", most_memory()? >> 10)]);
    table.print("How many steps a second, with 10,000 runs at once?");
    cluster.stop().await;
    Ok(())
}
