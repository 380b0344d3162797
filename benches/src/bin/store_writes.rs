//! How many writes a second does a store take? By one writer, and by 64 at once.
//!
//! The floor of the memory store is a bare ordered map behind a lock; that of the embedded store is a bare append and
//! sync of the same bytes, once per write for one writer, once per 64 writes for 64; and that of etcd (one member here,
//! where the program is installed) the same, though it writes them twice and speaks over a socket.

use anyhow::Result;
use bytes::Bytes;
use minik8s_benches::{Table, Timings, directory, floor_file, per_second, show};
use minik8s_core::store::{Commit, EmbeddedStore, MemoryStore, Op, Store};
use minik8s_core::testkit::etcd::Etcd;
use minik8s_core::testkit::need::Need;
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const VALUE: usize = 700;
const KEYS: usize = 5_000;
const WRITERS: usize = 64;
const MEMORY_WRITES: usize = 200_000;
const DISK_WRITES: usize = 4_000;
const ETCD_WRITES: usize = 2_000;
const GROUPED_ETCD_WRITES: usize = 20_000;
const GROUPED_DISK_WRITES: usize = 64_000;

fn key(n: usize) -> Arc<str> {
    format!("/registry/pods/default/web-{:05}", n % KEYS).into()
}

fn value() -> Bytes {
    Bytes::from(vec![b'x'; VALUE])
}

struct Run {
    count: usize,
    took: Duration,
    each: Timings,
}

impl Run {
    fn rate(&self) -> f64 {
        per_second(self.count, self.took)
    }
}

/// Writes `count` values, shared by `writers` tasks.
async fn write(store: Arc<dyn Store>, writers: usize, count: usize) -> Result<Run> {
    let start = Instant::now();
    let tasks: Vec<_> = (0..writers).map(|w| tokio::spawn(write_some(store.clone(), w, count / writers))).collect();
    let mut each = Timings::default();
    for task in tasks {
        each.merge(task.await??);
    }
    Ok(Run { count: each.count(), took: start.elapsed(), each })
}

async fn write_some(store: Arc<dyn Store>, writer: usize, count: usize) -> Result<Timings> {
    let mut each = Timings::default();
    for n in 0..count {
        let start = Instant::now();
        let op = Op::Put { key: key(writer * 997 + n), value: value(), ttl: None };
        store.commit(Commit { when: vec![], ops: vec![op] }).await?;
        each.add(start.elapsed());
    }
    Ok(each)
}

/// Inserts into a bare map.
fn map_floor(count: usize) -> Run {
    let map = Mutex::new(BTreeMap::new());
    let mut each = Timings::default();
    let begin = Instant::now();
    for n in 0..count {
        let start = Instant::now();
        if let Ok(mut map) = map.lock() {
            map.insert(key(n), value());
        }
        each.add(start.elapsed());
    }
    Run { count, took: begin.elapsed(), each }
}

/// Appends `batch` writes' bytes, then syncs.
fn disk_floor(count: usize, batch: usize) -> Result<Run> {
    let directory = directory()?;
    let bytes = vec![b'x'; (VALUE + key(0).len()) * batch];
    let mut file = floor_file(directory.path(), (bytes.len() * (count / batch)) as u64)?;
    let mut each = Timings::default();
    let begin = Instant::now();
    for _ in 0..count / batch {
        let start = Instant::now();
        file.write_all(&bytes)?;
        file.sync_data()?;
        each.add(start.elapsed());
    }
    Ok(Run { count: count / batch * batch, took: begin.elapsed(), each })
}

fn add(table: &mut Table, name: &str, run: &Run, floor: &Run) {
    let share = run.rate() / floor.rate();
    let cells = [run.each.percentile(0.5), run.each.percentile(0.99)].map(show);
    let [p50, p99] = cells;
    table.row([name.to_owned(), format!("{:.0}", run.rate()), p50, p99, format!("{share:.2}×")]);
}

async fn embedded(writers: usize, count: usize) -> Result<Run> {
    let directory = directory()?;
    let store = Arc::new(EmbeddedStore::open(directory.path()).await?);
    write(store, writers, count).await
}

async fn etcd(writers: usize, count: usize) -> Result<Run> {
    let etcd = Etcd::start(1).await;
    write(Arc::new(etcd.store("/bench").await), writers, count).await
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut table = Table::new(["", "writes/s", "p50", "p99", "of the floor's rate"]);
    let floor = map_floor(MEMORY_WRITES);
    add(&mut table, "floor: ordered map", &floor, &floor);
    add(&mut table, "memory, 1 writer", &write(Arc::new(MemoryStore::new()), 1, MEMORY_WRITES).await?, &floor);
    add(&mut table, "memory, 64 writers", &write(Arc::new(MemoryStore::new()), WRITERS, MEMORY_WRITES).await?, &floor);
    let floor = disk_floor(DISK_WRITES, 1)?;
    add(&mut table, "floor: append and sync", &floor, &floor);
    add(&mut table, "embedded, 1 writer", &embedded(1, DISK_WRITES).await?, &floor);
    let with_etcd = Need::Etcd.missing().is_none();
    if with_etcd {
        add(&mut table, "etcd, 1 writer", &etcd(1, ETCD_WRITES).await?, &floor);
    }
    let floor = disk_floor(GROUPED_DISK_WRITES, WRITERS)?;
    add(&mut table, "floor: append 64 and sync", &floor, &floor);
    add(&mut table, "embedded, 64 writers", &embedded(WRITERS, GROUPED_DISK_WRITES).await?, &floor);
    if with_etcd {
        add(&mut table, "etcd, 64 writers", &etcd(WRITERS, GROUPED_ETCD_WRITES).await?, &floor);
    }
    table.print("How many writes of 700 bytes a second does a store take?");
    Ok(())
}
