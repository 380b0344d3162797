//! The loop that keeps an informer's copy in step with the API: list, watch, resume, list again.

use super::cache::Entry;
use super::{InformerOptions, Shared};
use crate::api::{ApiError, ApiResult, Object, Reason, Revision, Target, WatchEvent, WatchEventType};
use crate::client::{Backoff, ListOptions, SharedTransport, WatchOptions};
use crate::random;
use futures::StreamExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

const RETRY: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(10));
/// A watch that ended sooner than this without a word counts as a failure, so that it is not reopened in a hot loop.
const SHORT: Duration = Duration::from_secs(1);
/// After so many failures in a row the revision itself is in doubt (a server that lost its history may never have heard
/// of it): list again.
const STUBBORN: u32 = 5;
const PAGE: u64 = 500;
/// After so many differences of a list others have a turn, so that subscribers keep up.
const BREATHER: usize = 64;

/// What is followed.
pub(super) struct Source {
    pub(super) transport: SharedTransport,
    pub(super) target: Target,
    pub(super) options: InformerOptions,
}

pub(super) struct Driver<K> {
    source: Source,
    decode: fn(&Arc<Object>) -> ApiResult<Arc<K>>,
    shared: Arc<Shared<K>>,
    /// Where to watch from; `None` to list first.
    from: Option<Revision>,
    /// Attempts in a row that brought nothing.
    failures: u32,
}

impl<K: Send + Sync + 'static> Driver<K> {
    pub(super) fn new(source: Source, decode: fn(&Arc<Object>) -> ApiResult<Arc<K>>, shared: Arc<Shared<K>>) -> Self {
        Self { source, decode, shared, from: None, failures: 0 }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        let follow = async {
            loop {
                let error = self.follow().await.err();
                let pause = self.after(error);
                tokio::time::sleep(pause).await;
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = follow => {}
        }
    }

    /// Decides how to go on after a watch ended, and how long to wait before.
    fn after(&mut self, error: Option<ApiError>) -> Duration {
        let Some(error) = error else { return Duration::ZERO };
        let first = self.failures == 0;
        self.failures = self.failures.saturating_add(1);
        if self.failures.is_multiple_of(STUBBORN) {
            self.from = None;
        }
        if error.is_gone() {
            debug!(target = %self.source.target, "watch fell out of history, listing again");
            self.from = None;
            if first {
                return Duration::ZERO;
            }
        } else {
            let quiet = first || error.reason == Reason::NotFound;
            let failures = self.failures;
            if quiet {
                debug!(target = %self.source.target, failures, %error, "informer will try again");
            } else {
                warn!(target = %self.source.target, failures, %error, "informer will try again");
            }
        }
        RETRY.jittered(self.failures, random::fraction())
    }

    /// Lists if need be, then watches until the watch ends.
    async fn follow(&mut self) -> ApiResult<()> {
        let from = match self.from {
            Some(from) => from,
            None => self.list().await?,
        };
        let options = WatchOptions {
            label_selector: self.source.options.label_selector.clone(),
            field_selector: self.source.options.field_selector.clone(),
            resource_version: Some(from),
            bookmarks: true,
            ..WatchOptions::default()
        };
        let opened = Instant::now();
        let mut events = self.source.transport.watch(&self.source.target, &options).await?;
        while let Some(event) = events.next().await {
            self.take(event?);
            self.failures = 0;
        }
        if opened.elapsed() < SHORT {
            return Err(ApiError::new(Reason::ServiceUnavailable, "the watch ended as soon as it began"));
        }
        Ok(())
    }

    async fn list(&mut self) -> ApiResult<Revision> {
        let mut options = ListOptions {
            label_selector: self.source.options.label_selector.clone(),
            field_selector: self.source.options.field_selector.clone(),
            limit: PAGE,
            ..ListOptions::default()
        };
        let mut entries = Vec::new();
        let revision = loop {
            let page = self.source.transport.list(&self.source.target, &options).await?;
            entries.extend(page.items.iter().filter_map(|object| self.entry(object)));
            if page.continue_token.is_empty() {
                break page.revision;
            }
            options.continue_token = page.continue_token;
        };
        let changes = self.shared.cache.write().replace(entries);
        self.reached(revision);
        // Nobody else changes the copy, so these stay in order without the lock.
        for (i, (key, change)) in changes.iter().enumerate() {
            if i > 0 && i.is_multiple_of(BREATHER) {
                tokio::task::yield_now().await;
            }
            self.shared.tell(key, change);
        }
        self.shared.told.store(revision, Ordering::Release);
        self.shared.synced.send_replace(true);
        Ok(revision)
    }

    fn take(&mut self, event: WatchEvent) {
        let (kind, object) = match event {
            WatchEvent::Bookmark { revision, .. } => return self.passed(revision),
            WatchEvent::Object(WatchEventType::Bookmark, object) => return self.passed(object.revision),
            WatchEvent::Object(kind, object) => (kind, object),
        };
        let entry = if kind == WatchEventType::Deleted { None } else { self.entry(&object) };
        let shared = self.shared.clone();
        let mut cache = shared.cache.write();
        let changes = match entry {
            Some((key, entry)) => cache.apply(&key, entry),
            None => cache.remove(&object.key()).into_iter().collect(),
        };
        self.reached(object.revision);
        // Sent under the lock, so that changes are told in the order in which they happened to the copy.
        for (key, change) in &changes {
            shared.tell(key, change);
        }
        shared.told.store(object.revision, Ordering::Release);
    }

    /// Notes that nothing happened up to a revision.
    fn passed(&mut self, revision: Revision) {
        self.reached(revision);
        self.shared.told.store(revision, Ordering::Release);
    }

    /// Notes that the copy is complete up to a revision.
    fn reached(&mut self, revision: Revision) {
        self.from = Some(revision);
        self.shared.revision.store(revision, Ordering::Release);
    }

    /// Decodes an object, or takes the copy at hand of the same version. One that does not decode is left out: it would
    /// block everything behind it.
    fn entry(&self, object: &Arc<Object>) -> Option<(String, Entry<K>)> {
        let key = object.key();
        let known = self.shared.cache.read().at_revision(&key, object.revision);
        let value = match known {
            Some(value) => value,
            None => (self.decode)(object).inspect_err(|error| warn!(%error, "object left out of informer")).ok()?,
        };
        Some((key, Entry { value, uid: object.meta.uid.clone(), revision: object.revision }))
    }
}
