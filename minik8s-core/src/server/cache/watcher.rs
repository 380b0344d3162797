//! One running watch: the initial state, then changes from the history until it is up to date, then live events from
//! its own bounded queue. A watcher whose queue overflows goes back to the history; one that the history has
//! forgotten is cut with `Expired`. Nobody waits for it.

use super::fanout::{Id, Queued};
use super::resource::{Opening, ResourceCache};
use super::ring::Sequence;
use super::{Caches, Filter};
use crate::api::{ApiError, ApiResult, Revision, WatchEvent, WatchEventType};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// How many changes are taken from the history at once.
const CHUNK: usize = 256;

/// Where a watch starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WatchStartAt {
    /// With the present state as additions; with a bookmark after it where `mark` is true.
    Initial { mark: bool },
    /// After this revision.
    After(Revision),
}

/// What a watch shall be like.
pub(crate) struct WatchPlan {
    pub(crate) start: WatchStartAt,
    pub(crate) bookmarks: bool,
    pub(crate) timeout: Option<Duration>,
    pub(crate) stop: CancellationToken,
}

/// One running watch.
pub(crate) struct Watcher {
    caches: Arc<Caches>,
    cache: Arc<ResourceCache>,
    filter: Arc<Filter>,
    ready: VecDeque<WatchEvent>,
    live: Option<(Id, mpsc::Receiver<Queued>)>,
    next: Sequence,
    /// Changes up to this one are known to the client.
    since: Revision,
    bookmarks: Option<Interval>,
    deadline: Option<Instant>,
    stop: CancellationToken,
    ended: bool,
    cut: Option<ApiError>,
}

enum Step {
    Event(Option<Queued>),
    Bookmark,
    End,
}

impl Watcher {
    /// Fixes the start of a watch.
    pub(crate) fn open(caches: Arc<Caches>, cache: Arc<ResourceCache>, filter: Filter, plan: WatchPlan) -> Self {
        let (opening, cut) = match plan.start {
            WatchStartAt::Initial { .. } => (cache.open_initial(&filter, || caches.reached()), None),
            WatchStartAt::After(revision) => match cache.open_after(revision) {
                Some(opening) => (opening, None),
                None => (Opening { initial: Vec::new(), next: 0, revision }, Some(too_old(revision, caches.reached()))),
            },
        };
        let mut ready: VecDeque<_> =
            opening.initial.into_iter().map(|o| WatchEvent::Object(WatchEventType::Added, o)).collect();
        if plan.start == (WatchStartAt::Initial { mark: true }) {
            ready.push_back(WatchEvent::Bookmark { revision: opening.revision, initial_done: true });
        }
        let bookmarks = plan.bookmarks.then(|| ticks(caches.settings.bookmark_every));
        Self {
            filter: Arc::new(filter),
            ready,
            live: None,
            next: opening.next,
            since: opening.revision,
            bookmarks,
            deadline: plan.timeout.and_then(|t| Instant::now().checked_add(t)),
            stop: plan.stop,
            ended: false,
            cut,
            caches,
            cache,
        }
    }

    /// The next event; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<ApiResult<WatchEvent>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            if self.ended {
                return None;
            }
            if let Some(error) = self.cut.take() {
                self.ended = true;
                return Some(Err(error));
            }
            if self.live.is_none() {
                self.catch_up();
                continue;
            }
            match self.step().await {
                Step::Event(Some(queued)) => self.take(queued),
                Step::Event(None) => self.leave(),
                Step::Bookmark => self.bookmark(),
                Step::End => self.end(),
            }
        }
    }

    async fn step(&mut self) -> Step {
        let Some((_, events)) = &mut self.live else { return Step::Event(None) };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Step::End,
            () = until(self.deadline) => Step::End,
            queued = events.recv() => Step::Event(queued),
            () = tick(&mut self.bookmarks) => Step::Bookmark,
        }
    }

    fn take(&mut self, queued: Queued) {
        self.next = queued.sequence + 1;
        if revision(&queued.event) > self.since {
            self.ready.push_back(queued.event);
        }
    }

    /// Reads the history; joins the live watchers at its end.
    fn catch_up(&mut self) {
        let Some(changes) = self.cache.read(self.next, CHUNK) else {
            self.cut = Some(too_old(self.since, self.caches.reached()));
            return;
        };
        if changes.is_empty() {
            self.live = self.cache.join(&self.filter, self.next, self.caches.settings.queue);
            return;
        }
        self.next += changes.len() as Sequence;
        let news = changes.iter().filter(|c| c.revision > self.since);
        self.ready.extend(news.filter_map(|c| c.event(&self.filter)));
    }

    /// Nothing is missing up to the revision read first: whatever was queued before it is sent first.
    fn bookmark(&mut self) {
        let reached = self.caches.reached().max(self.since);
        let Some((_, events)) = &mut self.live else { return };
        let mut pending = Vec::new();
        let complete = loop {
            match events.try_recv() {
                Ok(queued) => pending.push(queued),
                Err(mpsc::error::TryRecvError::Empty) => break true,
                Err(mpsc::error::TryRecvError::Disconnected) => break false,
            }
        };
        let newest = pending.last().map_or(reached, |q| revision(&q.event).max(reached));
        for queued in pending {
            self.take(queued);
        }
        if complete {
            self.ready.push_back(WatchEvent::Bookmark { revision: newest, initial_done: false });
        } else {
            self.leave();
        }
    }

    fn end(&mut self) {
        if self.bookmarks.is_some() {
            self.bookmark();
        }
        self.ended = true;
    }

    fn leave(&mut self) {
        if let Some((id, _)) = self.live.take() {
            self.cache.leave(id);
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.leave();
    }
}

fn too_old(requested: Revision, oldest: Revision) -> ApiError {
    ApiError::expired(format!("too old resource version: {requested} ({oldest})"))
}

fn revision(event: &WatchEvent) -> Revision {
    match event {
        WatchEvent::Object(_, object) => object.revision,
        WatchEvent::Bookmark { revision, .. } => *revision,
    }
}

fn ticks(every: Duration) -> Interval {
    let mut interval = tokio::time::interval_at(Instant::now() + every, every);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

async fn tick(interval: &mut Option<Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
