//! How long does an embedded store take to open? Empty, and with a cluster of 150,000 pods in it.
//!
//! The floor is reading the same files from the page cache.

use anyhow::Result;
use bytes::Bytes;
use minik8s_benches::{Table, Timings, directory, show, times};
use minik8s_core::store::{Commit, EmbeddedStore, Op, Store};
use std::path::Path;
use std::time::{Duration, Instant};

const VALUE: usize = 700;

async fn fill(path: &Path, keys: usize) -> Result<()> {
    let store = EmbeddedStore::open(path).await?;
    for first in (0..keys).step_by(500) {
        let put = |n| Op::Put {
            key: format!("/registry/pods/default/web-{n:06}").into(),
            value: Bytes::from(vec![b'x'; VALUE]),
            ttl: None,
        };
        store.commit(Commit { when: vec![], ops: (first..keys.min(first + 500)).map(put).collect() }).await?;
    }
    Ok(())
}

fn read_all(path: &Path) -> Result<(Duration, u64)> {
    let start = Instant::now();
    let mut bytes = 0;
    for file in path.read_dir()? {
        bytes += std::fs::read(file?.path())?.len() as u64;
    }
    Ok((start.elapsed(), bytes))
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut table = Table::new(["keys", "on disk", "floor: read", "open p50", "max", "of the floor"]);
    for keys in [0, 1_000, 150_000] {
        let directory = directory()?;
        fill(directory.path(), keys).await?;
        let (mut reads, mut opens, mut size) = (Timings::default(), Timings::default(), 0);
        for _ in 0..7 {
            let (read, bytes) = read_all(directory.path())?;
            reads.add(read);
            size = bytes;
            let start = Instant::now();
            let store = EmbeddedStore::open(directory.path()).await?;
            opens.add(start.elapsed());
            drop(store);
        }
        let (read, open) = (reads.percentile(0.5), opens.percentile(0.5));
        let size = format!("{}.{} MB", size / 1_000_000, size / 100_000 % 10);
        table.row([keys.to_string(), size, show(read), show(open), show(opens.percentile(1.0)), times(open, read)]);
    }
    table.print("How long does the embedded store take to open?");
    Ok(())
}
