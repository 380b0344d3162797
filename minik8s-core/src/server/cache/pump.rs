//! Follows the store and feeds the caches. Survives the store's watch being cut: it resumes after the last revision,
//! and where that is compacted, reads everything again and hands on the differences.

use super::Caches;
use crate::api::Revision;
use crate::server::keys;
use crate::store::{Entry, Event, Store, StoreError, WatchBatch, WatchStart, WatchStream};
use futures::StreamExt;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The task that follows the store.
pub(crate) struct Pump {
    store: Arc<dyn Store>,
    caches: Arc<Caches>,
    last: Option<Revision>,
}

impl Pump {
    /// Loads the caches and returns the pump with the rest of its watch.
    pub(crate) async fn start(store: Arc<dyn Store>, caches: Arc<Caches>) -> Result<(Self, WatchStream), StoreError> {
        let mut pump = Self { store, caches, last: None };
        let stream = pump.relist().await?;
        pump.caches.set_following(true);
        Ok((pump, stream))
    }

    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stream: WatchStream, stop: CancellationToken) {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.follow(stream) => {}
        }
    }

    async fn follow(&mut self, mut stream: WatchStream) {
        let mut pause = FIRST_PAUSE;
        loop {
            self.caches.set_following(true);
            let error = self.drain(&mut stream).await;
            self.caches.set_following(false);
            tracing::warn!(%error, "the store's watch ended, resuming");
            stream = loop {
                match self.resume().await {
                    Ok(stream) => break stream,
                    Err(error) => tracing::warn!(%error, ?pause, "the store cannot be followed, trying again"),
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            };
            pause = FIRST_PAUSE;
        }
    }

    async fn drain(&mut self, stream: &mut WatchStream) -> StoreError {
        while let Some(batch) = stream.next().await {
            match batch {
                Ok(batch) => self.apply(&batch),
                Err(error) => return error,
            }
        }
        StoreError::Unavailable { operation: "watching", cause: "the stream ended".to_owned() }
    }

    async fn resume(&mut self) -> Result<WatchStream, StoreError> {
        let Some(last) = self.last else { return self.relist().await };
        match self.store.watch(keys::ROOT, WatchStart::After(last)).await {
            Err(StoreError::Compacted { .. } | StoreError::Future { .. }) => self.relist().await,
            other => other,
        }
    }

    async fn relist(&mut self) -> Result<WatchStream, StoreError> {
        let mut stream = self.store.watch(keys::ROOT, WatchStart::Initial).await?;
        let first = stream.next().await.transpose()?.ok_or(StoreError::Unavailable {
            operation: "reading the state",
            cause: "the watch ended before it".to_owned(),
        })?;
        let mut by_prefix: HashMap<&str, Vec<&Entry>> = HashMap::new();
        for entry in first.events.iter().map(Event::entry) {
            if let Some(prefix) = keys::resource_prefix(&entry.key) {
                by_prefix.entry(prefix).or_default().push(entry);
            }
        }
        for (prefix, cache) in self.caches.all().iter() {
            let entries = by_prefix.remove(prefix.as_str()).unwrap_or_default();
            cache.replace(&entries, first.revision, self.last.is_none());
        }
        self.advance(first.revision);
        Ok(stream)
    }

    fn apply(&mut self, batch: &WatchBatch) {
        for event in batch.events.iter() {
            let entry = event.entry();
            let Some(cache) = keys::resource_prefix(&entry.key).and_then(|p| self.caches.get(p)) else { continue };
            let prepared = match event {
                Event::Put(entry) => self.caches.take_prepared(&entry.key, &entry.value),
                Event::Delete(_) => None,
            };
            cache.apply(event, prepared);
        }
        self.advance(batch.revision);
    }

    fn advance(&mut self, revision: Revision) {
        self.last = Some(self.last.map_or(revision, |last| last.max(revision)));
        self.caches.progress.advance(revision);
    }
}
