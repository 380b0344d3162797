//! A store in one directory: durable before it acknowledges, and whole again after a crash at any moment.
//!
//! All reads and watches are served from memory, by the same [engine](super::engine) as the memory store's; the disk only
//! holds what is needed to build that again: a log, synced once per group of commits, and a snapshot that lets the log
//! before it go. An embedded database was the alternative. It would have kept a second copy of every value in its own
//! cache and a second tree on disk, for queries that are never asked of it; the log writes each byte once, reads it only
//! at start, was measured to take half again as many single writes a second and four times as many grouped ones, and
//! leaves "what survives" to a few hundred lines whose every failure can be tested here. The price is that a start reads
//! everything: the snapshot, and a log that is kept no larger than it.
//!
//! Every record is checksummed. An unfinished write at the log's end was never acknowledged and is dropped at the next
//! start; damage anywhere else is reported as [`OpenError::Corrupt`], never repaired by guessing. When the disk is full,
//! commits are `Unavailable` until it is not. When a sync fails, what was being written is `Unknown` and the store takes
//! no more commits, because no one can say what the disk holds; reads go on, and opening it anew finds out.
//!
//! The past is readable back to the last compaction, or to the last snapshot where the store was opened after that.

mod directory;
mod error;
mod frame;
mod log;
mod record;
mod recover;
mod rotation;
mod snapshot;
#[cfg(test)]
mod tests;
mod writer;

pub use error::OpenError;

use super::engine::Engine;
use super::{
    Commit, Entry, Limits, Op, RangePage, RangeRequest, Store, StoreCapabilities, StoreError, WatchStart, WatchStream,
};
use crate::api::Revision;
use crate::clock::{SharedClock, SystemClock};
use async_trait::async_trait;
use directory::Directory;
use recover::Recovered;
use rotation::Rotation;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};
use writer::{Request, Wish, Writer, unix_millis};

/// How many requests may wait for the writer before callers wait to ask.
const QUEUE: usize = 1024;

/// How an embedded store works. The defaults suit most.
#[derive(Clone)]
pub struct EmbeddedOptions {
    /// What is kept for watchers and reads of the past.
    pub limits: Limits,
    /// The log is replaced by a snapshot when it is larger than this, in bytes, and than the last snapshot.
    pub snapshot_after: u64,
    /// Where lifetimes that outlast a restart read the time.
    pub clock: SharedClock,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self { limits: Limits::default(), snapshot_after: 16 << 20, clock: Arc::new(SystemClock) }
    }
}

/// A store in one directory. Cloning gives another handle to the same store; the last one to go closes it.
///
/// ```
/// use minik8s_core::store::{Commit, EmbeddedStore, Op, Store};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// let store = EmbeddedStore::open(directory.path()).await?;
/// let put = Op::Put { key: "/registry/pods/default/web-0".into(), value: "{}".into(), ttl: None };
/// store.commit(Commit { when: vec![], ops: vec![put] }).await?;
/// drop(store);
///
/// let store = EmbeddedStore::open(directory.path()).await?;
/// assert!(store.get("/registry/pods/default/web-0").await?.is_some());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct EmbeddedStore {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Arc<Engine>,
    /// Gone only while closing.
    requests: Option<mpsc::Sender<Request>>,
    writer: Option<JoinHandle<()>>,
    /// Holds the lock; the last to go.
    _directory: Arc<Directory>,
}

impl Drop for Shared {
    /// Lets the writer finish what it was asked for, so that the directory is free when the last handle is gone.
    fn drop(&mut self) {
        self.requests = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl EmbeddedStore {
    /// Opens the store in a directory, which is made where it is missing.
    ///
    /// # Errors
    /// [`OpenError::Locked`] while someone else has it open, `Corrupt` where its files are damaged.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_with(path, EmbeddedOptions::default()).await
    }

    /// Opens the store with other options than the default ones.
    ///
    /// # Errors
    /// As [`EmbeddedStore::open`].
    pub async fn open_with(path: impl AsRef<Path>, options: EmbeddedOptions) -> Result<Self, OpenError> {
        let path = path.as_ref().to_owned();
        let at = path.clone();
        let opened = tokio::task::spawn_blocking(move || open_blocking(&path, options)).await;
        let store = opened.map_err(|error| OpenError::io("open store", &at)(std::io::Error::other(error)))??;
        store.resume_expiry(&at)?;
        Ok(store)
    }

    async fn ask(&self, wish: Wish) -> Result<Revision, StoreError> {
        let requests = self.shared.requests.as_ref().ok_or_else(closed)?;
        let (answer, answered) = oneshot::channel();
        requests.send(Request { wish, answer }).await.map_err(|_| closed())?;
        answered.await.unwrap_or_else(|_| Err(writer_ended()))
    }

    /// Expiry holds on to nothing while it waits: a store that is let go of closes at once.
    fn start_expiry(&self) -> Result<(), StoreError> {
        let requests = self.shared.requests.as_ref().map(mpsc::Sender::downgrade);
        self.shared.engine.expiry.start(move |commit| {
            let requests = requests.as_ref()?.upgrade()?;
            let (answer, answered) = oneshot::channel();
            // Where the queue is full, expiry tries again later.
            let sent = requests.try_send(Request { wish: Wish::Commit(commit), answer });
            Some(async move {
                sent.map_err(|_| closed())?;
                answered.await.unwrap_or_else(|_| Err(writer_ended()))
            })
        })
    }

    fn resume_expiry(&self, path: &Path) -> Result<(), OpenError> {
        if self.shared.engine.expiry.is_empty() {
            return Ok(());
        }
        self.start_expiry().map_err(|error| OpenError::io("resume lifetimes of", path)(std::io::Error::other(error)))
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable { operation: "committing", cause: "the store is closed".to_owned() }
}

fn writer_ended() -> StoreError {
    StoreError::Unknown("the store's writer ended".to_owned())
}

fn open_blocking(path: &Path, options: EmbeddedOptions) -> Result<EmbeddedStore, OpenError> {
    let directory = Arc::new(Directory::open(path)?);
    let recovered = recover::recover(&directory, &options.limits, unix_millis(&options.clock))?;
    start(path, directory, recovered, options)
}

/// Starts the writer of a store that was found on disk.
fn start(
    path: &Path,
    directory: Arc<Directory>,
    recovered: Recovered,
    options: EmbeddedOptions,
) -> Result<EmbeddedStore, OpenError> {
    let EmbeddedOptions { limits, snapshot_after, clock } = options;
    let Recovered { state, lifetimes, log, log_start, snapshot_size } = recovered;
    let engine = Arc::new(Engine::new(state, limits));
    for (key, revision, left) in lifetimes {
        engine.expiry.add(key, revision, left);
    }
    let (requests, receiver) = mpsc::channel(QUEUE);
    let rotation = Rotation::new(directory.clone(), log_start, snapshot_after, snapshot_size);
    let writer = Writer { engine: engine.clone(), log, rotation, clock, requests: receiver };
    let thread = std::thread::Builder::new().name("store-writer".to_owned());
    let writer = thread.spawn(move || writer.run()).map_err(OpenError::io("start the writer of", path))?;
    let shared = Shared { engine, requests: Some(requests), writer: Some(writer), _directory: directory };
    Ok(EmbeddedStore { shared: Arc::new(shared) })
}

#[async_trait]
impl Store for EmbeddedStore {
    fn capabilities(&self) -> StoreCapabilities {
        self.shared.engine.capabilities(true)
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        Ok(self.shared.engine.get(key))
    }

    async fn range(&self, request: RangeRequest) -> Result<RangePage, StoreError> {
        self.shared.engine.range(&request)
    }

    async fn commit(&self, commit: Commit) -> Result<Revision, StoreError> {
        self.shared.engine.validate(&commit)?;
        if commit.ops.iter().any(|op| matches!(op, Op::Put { ttl: Some(_), .. })) {
            self.start_expiry()?;
        }
        self.ask(Wish::Commit(commit)).await
    }

    async fn watch(&self, prefix: &str, start: WatchStart) -> Result<WatchStream, StoreError> {
        self.shared.engine.watch(prefix, start)
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.ask(Wish::Compact(revision)).await.map(|_| ())
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        Ok(self.shared.engine.revision())
    }
}
