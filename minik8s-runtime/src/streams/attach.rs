//! Joining a container's main process: its output is what its log receives, its input a FIFO that stays open.

use super::exec::ProcessRef;
use super::failed;
use super::pump::forward_sizes;
use super::tail::LogTail;
use crate::containers::{containerd_id, wrong_state};
use crate::runtime::Inner;
use bytes::Bytes;
use minik8s_core::runtime::{Output, RuntimeError, RuntimeResult, StreamSession};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};

const QUEUE: usize = 64;
/// A session that goes drops its input a moment before its output; only an input that goes alone is an end of file.
const LEAVING: Duration = Duration::from_millis(50);

impl Inner {
    pub(crate) async fn attach(self: &Arc<Self>, id: &str, stdin: bool) -> RuntimeResult<StreamSession> {
        let cid = containerd_id(id);
        let (record, process) = tokio::try_join!(self.record(&cid), self.process(&cid, ""))?;
        let record = record.ok_or_else(|| RuntimeError::NotFound { what: "container", name: id.to_owned() })?;
        wrong_state(id, process.as_ref(), self.files(&cid).started().is_some(), "attach")?;
        if record.log_path.as_os_str().is_empty() {
            return Err(RuntimeError::Unsupported("attaching to a container without a log"));
        }
        let tail = LogTail::at_end(record.log_path.clone()).map_err(failed("following a log"))?;
        let process = ProcessRef { inner: self.clone(), cid: cid.clone(), exec: String::new() };
        let (output_tx, output) = mpsc::channel(QUEUE);
        let (exit_tx, exit) = oneshot::channel();
        let (stdin, feeder) = match stdin && record.stdin {
            true => {
                let path = self.fifo_dir(&cid).join("stdin");
                let to =
                    pipe::OpenOptions::new().read_write(true).open_sender(path).map_err(failed("opening a FIFO"))?;
                let (tx, rx) = mpsc::channel(QUEUE);
                (Some(tx), Some(tokio::spawn(feed(process.clone(), rx, to, output_tx.clone()))))
            }
            false => (None, None),
        };
        let resize = record.tty.then(|| {
            let (tx, rx) = mpsc::channel(QUEUE);
            tokio::spawn(forward_sizes(process.clone(), rx));
            tx
        });
        tokio::spawn(async move {
            let code = follow(&process, tail, &output_tx).await;
            // The feeder holds the output open too, to see whether the session is still there.
            feeder.inspect(tokio::task::JoinHandle::abort);
            drop(output_tx);
            let _ = exit_tx.send(code);
        });
        Ok(StreamSession { stdin, output, resize, exit })
    }
}

/// Passes the log on until the container ends or the session is dropped.
async fn follow(process: &ProcessRef, mut tail: LogTail, to: &mpsc::Sender<Output>) -> RuntimeResult<i32> {
    let mut ended = std::pin::pin!(process.wait());
    loop {
        tokio::select! {
            code = &mut ended => {
                // The log driver writes the last lines after the process has ended: once the task is gone, it has.
                if let Err(error) = process.inner.wait(&process.cid).await {
                    tracing::debug!(%error, container = process.cid, "the last lines of an attached container may lack");
                }
                send(&mut tail, to).await;
                return code;
            }
            changed = tail.changed() => {
                changed.map_err(failed("following a log"))?;
                send(&mut tail, to).await;
            }
            () = to.closed() => return ended.await,
        }
    }
}

async fn send(tail: &mut LogTail, to: &mpsc::Sender<Output>) -> bool {
    for output in tail.read().unwrap_or_default() {
        if to.send(output).await.is_err() {
            return false;
        }
    }
    true
}

async fn feed(
    process: ProcessRef,
    mut from: mpsc::Receiver<Bytes>,
    mut to: pipe::Sender,
    session: mpsc::Sender<Output>,
) {
    while let Some(bytes) = from.recv().await {
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
    if tokio::time::timeout(LEAVING, session.closed()).await.is_err() {
        process.close_stdin().await;
    }
}
