//! Moving bytes between FIFOs and a session's channels.

use super::exec::ProcessRef;
use bytes::Bytes;
use minik8s_core::runtime::{Output, TerminalSize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// A child left behind may hold an output open for ever; silence this long after the command's end counts as its end.
const SILENCE: Duration = Duration::from_millis(300);
const CHUNK: usize = 32 * 1024;

/// Copies a process's outputs until both end.
pub(super) struct Pumps {
    tasks: JoinSet<()>,
    meter: Arc<Meter>,
}

#[derive(Default)]
struct Meter {
    bytes: AtomicU64,
    /// Somebody waits for the session's reader.
    blocked: [AtomicBool; 2],
}

impl Pumps {
    pub(super) fn start(out: pipe::Receiver, err: Option<pipe::Receiver>, to: mpsc::Sender<Output>) -> Self {
        let meter = Arc::new(Meter::default());
        let mut tasks = JoinSet::new();
        if let Some(err) = err {
            tasks.spawn(pump(err, Output::Stderr, to.clone(), meter.clone(), 1));
        }
        tasks.spawn(pump(out, Output::Stdout, to, meter.clone(), 0));
        Self { tasks, meter }
    }

    /// Waits for the outputs to end after the process has.
    pub(super) async fn drain(mut self) {
        loop {
            let before = self.meter.bytes.load(Ordering::Relaxed);
            let ended = tokio::time::timeout(SILENCE, async { while self.tasks.join_next().await.is_some() {} }).await;
            let blocked = self.meter.blocked.iter().any(|b| b.load(Ordering::Relaxed));
            if ended.is_ok() || (!blocked && self.meter.bytes.load(Ordering::Relaxed) == before) {
                break;
            }
        }
        self.tasks.shutdown().await;
    }
}

async fn pump(
    mut from: pipe::Receiver,
    wrap: fn(Bytes) -> Output,
    to: mpsc::Sender<Output>,
    meter: Arc<Meter>,
    slot: usize,
) {
    let mut chunk = vec![0u8; CHUNK];
    while let Ok(n @ 1..) = from.read(&mut chunk).await {
        meter.bytes.fetch_add(n as u64, Ordering::Relaxed);
        let piece = Bytes::copy_from_slice(chunk.get(..n).unwrap_or_default());
        let blocked = meter.blocked.get(slot);
        blocked.inspect(|b| b.store(true, Ordering::Relaxed));
        // A reader that left does not stop the process: what comes is thrown away.
        let _ = to.send(wrap(piece)).await;
        blocked.inspect(|b| b.store(false, Ordering::Relaxed));
    }
}

/// Feeds standard input, and closes it when the session's side is dropped.
pub(super) async fn feed_stdin(process: ProcessRef, mut from: mpsc::Receiver<Bytes>, mut to: pipe::Sender) {
    while let Some(bytes) = from.recv().await {
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
    process.close_stdin().await;
}

/// Passes terminal sizes on.
pub(super) async fn forward_sizes(process: ProcessRef, mut from: mpsc::Receiver<TerminalSize>) {
    while let Some(size) = from.recv().await {
        process.resize(size.width, size.height).await;
    }
}
