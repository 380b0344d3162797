//! Container logs: lines in CRI format, in files that are rotated and outlive containers. Read from any place, and
//! followed without asking again and again: the kernel tells when a file changes.

mod files;
mod lines;
#[cfg(test)]
mod tests;

pub(crate) use files::{Life, find};

use super::access::LogOptions;
use crate::api::{ApiError, ApiResult};
use crate::node::notify::Notify;
use bytes::Bytes;
use files::tail_start;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use lines::Printer;
use std::io;
use std::path::{Path, PathBuf};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, SeekFrom};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Chunks on their way to a reader.
const AHEAD: usize = 16;
const CHUNK: usize = 32 << 10;

/// Tells whether the container still runs, and waits for its end: how a follower knows that it is done.
pub(crate) type Ended = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

/// The lines of one life of a container.
pub(crate) fn read(life: Life, options: LogOptions, ended: Ended) -> BoxStream<'static, ApiResult<Bytes>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let closed = sender.clone();
        let work = Pump { sender, printer: Printer::new(&options), pending: Vec::new() }.run(life, options, ended);
        tokio::select! {
            () = work => {}
            () = closed.closed() => {}
        }
    });
    ReceiverStream::new(receiver).boxed()
}

struct Pump {
    sender: mpsc::Sender<ApiResult<Bytes>>,
    printer: Printer,
    /// A line that has not ended yet.
    pending: Vec<u8>,
}

impl Pump {
    async fn run(mut self, life: Life, options: LogOptions, ended: Ended) {
        if let Err(error) = self.all(&life, &options, ended).await {
            let message = format!("cannot read the log {}: {error}", life.current.display());
            let _ = self.sender.send(Err(ApiError::internal(message))).await;
        }
    }

    async fn all(&mut self, life: &Life, options: &LogOptions, ended: Ended) -> io::Result<()> {
        // Watch before reading, so that nothing is written unseen.
        let notify = if options.follow { life.current.parent().map(Notify::new).transpose()? } else { None };
        let first = match options.tail_lines {
            Some(lines) => tail_start(life, lines).await?,
            None => life.oldest().await?.map(|file| (file, 0)),
        };
        let mut last = None;
        if let Some((mut file, offset)) = first {
            file.seek(SeekFrom::Start(offset)).await?;
            match self.through(life, file).await? {
                Some(file) => last = Some(file),
                None => return Ok(()),
            }
        }
        match notify {
            Some(notify) => self.follow(life, last, notify, ended).await,
            None => self.rest().await,
        }
    }

    /// Sends what this file has, and all that are newer, however often they are rotated meanwhile. Answers the newest;
    /// `None` once nobody wants more.
    async fn through(&mut self, life: &Life, mut file: File) -> io::Result<Option<File>> {
        loop {
            if !self.drain(&mut file).await? {
                return Ok(None);
            }
            let Some(newer) = life.newer(&file).await? else { return Ok(Some(file)) };
            // What was written after the look and before it was rotated away.
            if !self.drain(&mut file).await? {
                return Ok(None);
            }
            file = newer;
        }
    }

    /// Sends what the file has. False once nobody wants more.
    async fn drain(&mut self, file: &mut File) -> io::Result<bool> {
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = file.read(&mut chunk).await?;
            if read == 0 {
                return Ok(true);
            }
            self.pending.extend_from_slice(&chunk[..read]);
            let Some(end) = self.pending.iter().rposition(|byte| *byte == b'\n') else { continue };
            let lines: Vec<u8> = self.pending.drain(..=end).collect();
            let text = self.printer.print(&lines);
            if !text.is_empty() && self.sender.send(Ok(text.into())).await.is_err() {
                return Ok(false);
            }
            if self.printer.is_full() {
                return Ok(false);
            }
        }
    }

    /// A writer that died within a line leaves a piece.
    async fn rest(&mut self) -> io::Result<()> {
        let text = self.printer.print(&std::mem::take(&mut self.pending));
        if !text.is_empty() {
            let _ = self.sender.send(Ok(text.into())).await;
        }
        Ok(())
    }

    async fn follow(&mut self, life: &Life, file: Option<File>, notify: Notify, ended: Ended) -> io::Result<()> {
        let mut file = file;
        let mut ended = ended();
        let mut over = false;
        loop {
            if let Some(open) = match file.take() {
                Some(open) => Some(open),
                None => life.oldest().await?,
            } {
                match self.through(life, open).await? {
                    Some(newest) => file = Some(newest),
                    None => return Ok(()),
                }
            }
            if over {
                return self.rest().await;
            }
            tokio::select! {
                changed = notify.changed() => changed?,
                // Once more, for what was written before the end.
                () = &mut ended => over = true,
            }
        }
    }
}

/// `<dir>/<attempt>.log`
pub(crate) fn log_file(dir: &Path, attempt: u32) -> PathBuf {
    dir.join(format!("{attempt}.log"))
}
