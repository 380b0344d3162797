//! Following etcd. One task per watch reads etcd's stream, groups it by revision and leaves out what is not asked for.

use super::connection::{Does, Member};
use super::failure::Failure;
use super::keys::Keys;
use super::queue::{Feeder, queue};
use super::read::entry;
use super::{Shared, here, there};
use crate::api::Revision;
use crate::store::engine::narrow;
use crate::store::{Entry, Event, RangeRequest, StoreError, WatchBatch, WatchStart, WatchStream};
use etcd_client::{EventType, WatchOptions, WatchResponse};
use futures::StreamExt;
use std::sync::Arc;

impl Shared {
    pub(super) async fn watch(&self, prefix: &str, start: WatchStart) -> Result<WatchStream, StoreError> {
        match start {
            WatchStart::Now => self.follow(prefix, self.revision().await?, None).await,
            WatchStart::After(revision) => {
                self.kept(revision).await?;
                self.follow(prefix, revision, None).await
            }
            WatchStart::Initial => {
                let all = RangeRequest { prefix: prefix.to_owned(), ..RangeRequest::default() };
                let page = self.range(&all).await?;
                let events = page.entries.into_iter().map(Event::Put).collect();
                let state = WatchBatch { events, revision: page.revision };
                self.follow(prefix, page.revision, Some(state)).await
            }
        }
    }

    /// Every revision after `reached` is part of the watch, so its start is fixed before etcd hears of it.
    async fn follow(
        &self,
        prefix: &str,
        reached: Revision,
        first: Option<WatchBatch>,
    ) -> Result<WatchStream, StoreError> {
        // From the first key to the last: see the module's page for why.
        let options = WatchOptions::new().with_all_keys().with_prev_key().with_progress_notify();
        let options = options.with_start_revision(there(reached + 1));
        let send = |mut member: Member| {
            let options = options.clone();
            async move { member.watch.watch([], Some(options)).await }
        };
        let stream = self.connection.ask(Does::Read, send).await;
        let stream = stream.map_err(|failure| failure.reading("starting a watch", reached, reached))?;
        let (feeder, reader) = queue(prefix, &self.options.limits, first);
        let follower = Follower { keys: self.keys.clone(), prefix: prefix.to_owned(), feeder, reached };
        tokio::spawn(follower.run(stream));
        Ok(reader.boxed())
    }
}

/// One watch.
struct Follower {
    keys: Keys,
    prefix: String,
    feeder: Feeder,
    /// The reader gets, or got, everything up to here.
    reached: Revision,
}

impl Follower {
    async fn run(mut self, mut stream: etcd_client::WatchStream) {
        loop {
            let answer = tokio::select! {
                biased;
                () = self.feeder.abandoned() => return,
                answer = stream.message() => answer,
            };
            let taken = match answer {
                Ok(Some(answer)) => self.take(&answer),
                Ok(None) => Err(broken("etcd ended the watch".to_owned())),
                Err(error) => Err(Failure::of(&error).reading("watching", self.reached, self.reached)),
            };
            match taken {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return self.feeder.end(error),
            }
        }
    }

    /// Hands on what etcd says. False where nobody listens any more.
    fn take(&mut self, answer: &WatchResponse) -> Result<bool, StoreError> {
        if answer.canceled() {
            return Err(self.refused(answer));
        }
        if answer.created() {
            return Ok(true);
        }
        let mut marked = self.reached;
        for commit in answer.events().chunk_by(|a, b| revision_of(a) == revision_of(b)) {
            let revision = commit.first().map_or(0, revision_of);
            if revision <= self.reached {
                continue;
            }
            self.reached = revision;
            if let Some(batch) = self.batch(commit, revision)? {
                marked = revision;
                if !self.feeder.push(batch) {
                    return Ok(false);
                }
            }
        }
        if answer.events().is_empty() {
            let at = answer.header().map_or(0, |h| here(h.revision()));
            self.reached = self.reached.max(at);
        }
        if self.reached > marked {
            self.feeder.mark(self.reached);
        }
        Ok(true)
    }

    /// What the reader gets of one commit.
    fn batch(&self, commit: &[etcd_client::Event], revision: Revision) -> Result<Option<WatchBatch>, StoreError> {
        let mut events = Vec::new();
        for event in commit {
            events.extend(self.event(event, revision)?);
        }
        Ok(narrow(&WatchBatch { events: Arc::from(events), revision }, &self.prefix))
    }

    fn event(&self, event: &etcd_client::Event, revision: Revision) -> Result<Option<Event>, StoreError> {
        let Some(kv) = event.kv() else { return Ok(None) };
        if event.event_type() == EventType::Put {
            return Ok(entry(&self.keys, kv).map(Event::Put));
        }
        if self.keys.here(kv.key()).is_none() {
            return Ok(None);
        }
        // What was deleted is told by its last value; where that is compacted, history has a hole.
        let last = event.prev_kv().and_then(|kv| entry(&self.keys, kv));
        let last = last.ok_or(StoreError::Compacted { requested: revision - 1, oldest: revision })?;
        Ok(Some(Event::Delete(Entry { revision, ..last })))
    }

    fn refused(&self, answer: &WatchResponse) -> StoreError {
        match answer.compact_revision() {
            0 => broken(format!("etcd cancelled the watch: {}", answer.cancel_reason())),
            oldest => StoreError::Compacted { requested: self.reached, oldest: here(oldest) },
        }
    }
}

fn revision_of(event: &etcd_client::Event) -> Revision {
    event.kv().map_or(0, |kv| here(kv.mod_revision()))
}

fn broken(cause: String) -> StoreError {
    StoreError::Unavailable { operation: "watching", cause }
}
