//! How long after a write has every watcher got it? With 1, 100 and 1,000 watchers of the same prefix.
//!
//! Time runs from before the commit is handed to the store until the last watcher holds the event. The floor is a bare
//! broadcast channel with as many receivers; for the embedded store, and for etcd (where it is installed), after an
//! append and sync of the same bytes.

use anyhow::Result;
use bytes::Bytes;
use futures::StreamExt;
use minik8s_benches::{Table, Timings, directory, floor_file, show, times};
use minik8s_core::store::{Commit, EmbeddedStore, MemoryStore, Op, Store, WatchStart};
use minik8s_core::testkit::etcd::Etcd;
use minik8s_core::testkit::need::Need;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, broadcast};
use tokio::task::JoinHandle;

const VALUE: usize = 700;
const WRITES: usize = 500;

/// Waits for the last of many.
struct Finish {
    epoch: Instant,
    missing: AtomicUsize,
    last: AtomicU64,
    all: Notify,
}

impl Finish {
    fn new() -> Arc<Self> {
        let (missing, last) = (AtomicUsize::new(0), AtomicU64::new(0));
        Arc::new(Self { epoch: Instant::now(), missing, last, all: Notify::new() })
    }

    fn expect(&self, watchers: usize) {
        self.last.store(0, Ordering::SeqCst);
        self.missing.store(watchers, Ordering::SeqCst);
    }

    /// Called by each watcher when it holds the event.
    fn arrived(&self) {
        let now = u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.last.fetch_max(now, Ordering::SeqCst);
        if self.missing.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.all.notify_one();
        }
    }

    /// When the last one arrived.
    async fn wait(&self) -> Instant {
        self.all.notified().await;
        self.epoch + Duration::from_nanos(self.last.load(Ordering::SeqCst))
    }
}

/// What is written to, with watchers at its other end.
enum Target {
    Store(Arc<dyn Store>),
    Channel { sender: broadcast::Sender<Bytes>, disk: Option<File> },
}

impl Target {
    async fn write(&mut self, value: &Bytes) -> Result<()> {
        match self {
            Target::Store(store) => {
                let op = Op::Put { key: "/registry/pods/default/web-0".into(), value: value.clone(), ttl: None };
                store.commit(Commit { when: vec![], ops: vec![op] }).await?;
            }
            Target::Channel { sender, disk } => {
                if let Some(file) = disk {
                    file.write_all(value)?;
                    file.sync_data()?;
                }
                sender.send(value.clone())?;
            }
        }
        Ok(())
    }

    async fn watch(&self, finish: Arc<Finish>) -> Result<JoinHandle<()>> {
        Ok(match self {
            Target::Store(store) => {
                let mut stream = store.watch("/registry/pods/", WatchStart::Now).await?;
                tokio::spawn(async move {
                    while let Some(Ok(_)) = stream.next().await {
                        finish.arrived();
                    }
                })
            }
            Target::Channel { sender, .. } => {
                let mut receiver = sender.subscribe();
                tokio::spawn(async move {
                    while receiver.recv().await.is_ok() {
                        finish.arrived();
                    }
                })
            }
        })
    }
}

struct Run {
    written: Timings,
    seen: Timings,
}

async fn measure(target: Target, watchers: usize) -> Result<Run> {
    let finish = Finish::new();
    let mut tasks = Vec::new();
    for _ in 0..watchers {
        tasks.push(target.watch(finish.clone()).await?);
    }
    // Not on the main thread, which is not one of the runtime's workers.
    let run = tokio::spawn(rounds(target, finish, watchers)).await?;
    tasks.iter().for_each(JoinHandle::abort);
    run
}

/// Measures `WRITES` writes, after some to warm up.
async fn rounds(mut target: Target, finish: Arc<Finish>, watchers: usize) -> Result<Run> {
    let value = Bytes::from(vec![b'x'; VALUE]);
    let mut run = Run { written: Timings::default(), seen: Timings::default() };
    for round in 0..WRITES + WRITES / 10 {
        finish.expect(watchers);
        let start = Instant::now();
        target.write(&value).await?;
        let written = start.elapsed();
        let seen = finish.wait().await.duration_since(start);
        if round >= WRITES / 10 {
            run.written.add(written);
            run.seen.add(seen);
        }
    }
    Ok(run)
}

fn channel(disk: Option<File>) -> Target {
    Target::Channel { sender: broadcast::channel(16).0, disk }
}

fn add(table: &mut Table, name: &str, watchers: usize, run: &Run, floor: &Run) {
    let [written, p50, p99, max] =
        [run.written.percentile(0.5), run.seen.percentile(0.5), run.seen.percentile(0.99), run.seen.percentile(1.0)]
            .map(show);
    let ratio = times(run.seen.percentile(0.5), floor.seen.percentile(0.5));
    table.row([name.to_owned(), watchers.to_string(), written, p50, p99, max, ratio]);
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut table = Table::new(["", "watchers", "commit p50", "all have it p50", "p99", "max", "of the floor"]);
    for watchers in [1, 100, 1000] {
        let floor = measure(channel(None), watchers).await?;
        add(&mut table, "floor: channel", watchers, &floor, &floor);
        let memory = measure(Target::Store(Arc::new(MemoryStore::new())), watchers).await?;
        add(&mut table, "memory", watchers, &memory, &floor);
        let directory = directory()?;
        let floor =
            measure(channel(Some(floor_file(directory.path(), (VALUE * WRITES * 2) as u64)?)), watchers).await?;
        add(&mut table, "floor: sync, then channel", watchers, &floor, &floor);
        let store = EmbeddedStore::open(directory.path().join("store")).await?;
        let embedded = measure(Target::Store(Arc::new(store)), watchers).await?;
        add(&mut table, "embedded", watchers, &embedded, &floor);
        // One stream a watcher: an API server has one watch, so a thousand say nothing here.
        if watchers <= 100 && Need::Etcd.missing().is_none() {
            let etcd = Etcd::start(1).await;
            let store = Arc::new(etcd.store("/bench").await);
            add(&mut table, "etcd", watchers, &measure(Target::Store(store), watchers).await?, &floor);
        }
    }
    table.print("How long after a write has every watcher got it?");
    Ok(())
}
