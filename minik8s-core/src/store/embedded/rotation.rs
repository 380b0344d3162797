//! Keeps the log from growing for ever: when it is large enough, a new one begins and the state at that point is written
//! out as a snapshot; when that is on disk, everything older goes. A crash anywhere in between leaves the old snapshot
//! with both logs, which is a complete store.

use super::directory::Directory;
use super::error::OpenError;
use super::log::Log;
use super::recover::create_log;
use super::snapshot;
use super::writer::unix_millis;
use crate::api::Revision;
use crate::clock::SharedClock;
use crate::store::engine::Engine;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// When to rotate, and the snapshot in progress.
pub(super) struct Rotation {
    directory: Arc<Directory>,
    /// What the log in use begins after.
    start: Revision,
    /// A log below this size is never replaced.
    minimum: u64,
    /// Size of the newest snapshot: a log smaller than that is not worth a new one.
    snapshot_size: Arc<AtomicU64>,
    /// The size at which the log is looked at again after a failure.
    retry_at: u64,
    running: Option<JoinHandle<()>>,
    cancelled: Arc<AtomicBool>,
}

impl Rotation {
    pub(super) fn new(directory: Arc<Directory>, start: Revision, minimum: u64, snapshot_size: u64) -> Self {
        let snapshot_size = Arc::new(AtomicU64::new(snapshot_size));
        Self { directory, start, minimum, snapshot_size, retry_at: 0, running: None, cancelled: Arc::default() }
    }

    /// The log to go on with: the same, or a new one where it was time.
    pub(super) fn after_write(&mut self, log: Log, engine: &Arc<Engine>, clock: &SharedClock) -> Log {
        let due = self.minimum.max(self.snapshot_size.load(Ordering::Relaxed)).max(self.retry_at);
        // A log without commits has the name that its successor would get, and may hold a compaction.
        if log.len() < due || engine.revision() <= self.start || self.running.as_ref().is_some_and(|r| !r.is_finished())
        {
            return log;
        }
        self.rotate(log, engine, clock)
    }

    fn rotate(&mut self, mut log: Log, engine: &Arc<Engine>, clock: &SharedClock) -> Log {
        let revision = engine.revision();
        let sealed = log.seal().map_err(OpenError::io("seal", &self.directory.log(revision)));
        match sealed.and_then(|()| create_log(&self.directory, revision)) {
            Ok(next) => {
                self.retry_at = 0;
                self.start = revision;
                self.start_snapshot(engine.clone(), revision, unix_millis(clock));
                next
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the store's log could not be replaced");
                self.retry_at = log.len() + self.minimum;
                log
            }
        }
    }

    fn start_snapshot(&mut self, engine: Arc<Engine>, revision: Revision, now: u64) {
        engine.write().pinned = Some(revision);
        let (directory, cancelled) = (self.directory.clone(), self.cancelled.clone());
        let size = self.snapshot_size.clone();
        self.running = Some(std::thread::spawn(move || {
            let written = snapshot::write(&directory, &engine, revision, now, &cancelled);
            engine.write().pinned = None;
            match written.and_then(|written| remove_older(&directory, revision).map(|()| written)) {
                Ok(written) => size.store(written, Ordering::Relaxed),
                Err(_) if cancelled.load(Ordering::Relaxed) => {}
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "the store's snapshot failed");
                }
            }
        }));
    }

    /// Gives up the snapshot in progress; the logs still hold everything.
    pub(super) fn stop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
        if let Some(running) = self.running.take() {
            let _ = running.join();
        }
    }
}

fn remove_older(directory: &Directory, revision: Revision) -> Result<(), OpenError> {
    let found = directory.scan()?;
    found.logs.iter().filter(|r| **r < revision).try_for_each(|r| directory.remove(&directory.log(*r)))?;
    found.snapshots.iter().filter(|r| **r < revision).try_for_each(|r| directory.remove(&directory.snapshot(*r)))
}
