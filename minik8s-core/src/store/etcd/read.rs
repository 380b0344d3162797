//! Reading: linearizable, at one revision.

use super::connection::{Does, Member};
use super::failure::Failure;
use super::keys::Keys;
use super::{Shared, here, there};
use crate::api::Revision;
use crate::store::{Entry, RangePage, RangeRequest, StoreError};
use bytes::Bytes;
use etcd_client::{CompactionOptions, GetOptions, GetResponse, KeyValue, WatchOptions};
use std::time::Duration;

/// How many keys one answer holds.
const PAGE: usize = 1000;
/// How often a long read begins again, because its revision was compacted meanwhile.
const ATTEMPTS: usize = 3;
/// How long to wait for etcd to say what its oldest revision is: it looks for such watches ten times a second.
const OLDEST: Duration = Duration::from_secs(2);

impl Shared {
    pub(super) async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let key = self.keys.there(key)?;
        let found = self.fetch(key, GetOptions::new()).await.map_err(|f| f.reading("reading a key", 0, 0))?;
        Ok(found.kvs().first().and_then(|kv| entry(&self.keys, kv)))
    }

    /// The newest revision, as etcd answers.
    pub(super) async fn newest(&self) -> Result<Revision, Failure> {
        let found = self.fetch(self.root(), GetOptions::new().with_count_only()).await?;
        Ok(revision_of(&found))
    }

    pub(super) async fn revision(&self) -> Result<Revision, StoreError> {
        self.newest().await.map_err(|failure| failure.reading("reading the revision", 0, 0))
    }

    /// Refuses a revision that is compacted or has not happened.
    pub(super) async fn kept(&self, revision: Revision) -> Result<(), StoreError> {
        let options = GetOptions::new().with_count_only().with_revision(there(revision));
        match self.fetch(self.root(), options).await {
            Ok(_) => Ok(()),
            Err(failure) => Err(self.explain(failure, "reading the past", revision).await),
        }
    }

    pub(super) async fn range(&self, request: &RangeRequest) -> Result<RangePage, StoreError> {
        let mut attempt = 1;
        loop {
            match self.whole_range(request).await {
                Err(Failure::Compacted) if request.at.is_none() && attempt < ATTEMPTS => attempt += 1,
                Err(failure) => {
                    return Err(self.explain(failure, "reading a range", request.at.unwrap_or_default()).await);
                }
                Ok(page) => return Ok(page),
            }
        }
    }

    /// Reads page after page at the first one's revision, because an answer that holds everything may be huge.
    async fn whole_range(&self, request: &RangeRequest) -> Result<RangePage, Failure> {
        let (mut start, end) = self.keys.range(request).map_err(|e| Failure::Invalid(e.to_string()))?;
        let limit = if request.limit == 0 { usize::MAX } else { request.limit };
        let (mut page, mut at) = (RangePage::default(), request.at);
        loop {
            let want = PAGE.min(limit - page.entries.len());
            let options = GetOptions::new().with_range(end.clone()).with_limit(i64::try_from(want).unwrap_or(0));
            let options = options.with_revision(at.map_or(0, there));
            let found = self.fetch(start, options).await?;
            let fixed = *at.get_or_insert_with(|| revision_of(&found));
            page.entries.extend(found.kvs().iter().filter_map(|kv| entry(&self.keys, kv)));
            page.remaining = usize::try_from(found.count()).unwrap_or_default().saturating_sub(found.kvs().len());
            page.revision = fixed;
            let last = found.kvs().last();
            match last.filter(|_| page.remaining > 0 && page.entries.len() < limit) {
                Some(last) => start = [last.key(), b"\0"].concat(),
                None => return Ok(page),
            }
        }
    }

    pub(super) async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        let send = |mut member: Member| async move {
            member.kv.compact(there(revision), Some(CompactionOptions::new())).await
        };
        match self.connection.ask(Does::Write, send).await {
            Ok(_) | Err(Failure::Compacted) => Ok(()),
            Err(Failure::Future) => Err(self.explain(Failure::Future, "compacting", revision).await),
            Err(failure) => Err(failure.writing("compacting")),
        }
    }

    async fn fetch(&self, key: Vec<u8>, options: GetOptions) -> Result<GetResponse, Failure> {
        let send = |mut member: Member| {
            let (key, options) = (key.clone(), options.clone());
            async move { member.kv.get(key, Some(options)).await }
        };
        self.connection.ask(Does::Read, send).await
    }

    /// A read's error with the revisions that it speaks of.
    pub(super) async fn explain(&self, failure: Failure, operation: &'static str, requested: Revision) -> StoreError {
        let bound = match failure {
            Failure::Compacted => self.oldest().await.unwrap_or(requested + 1),
            Failure::Future => self.newest().await.unwrap_or_default(),
            _ => 0,
        };
        failure.reading(operation, requested, bound)
    }

    /// The oldest revision that etcd keeps. It says so only to those who watch from before it.
    async fn oldest(&self) -> Option<Revision> {
        let key = self.root();
        let send = |mut member: Member| {
            let key = key.clone();
            async move { member.watch.watch(key, Some(WatchOptions::new().with_start_revision(1))).await }
        };
        let mut stream = self.connection.ask(Does::Read, send).await.ok()?;
        let refusal = async {
            while let Ok(Some(answer)) = stream.message().await {
                if answer.canceled() {
                    return Some(here(answer.compact_revision()));
                }
            }
            None
        };
        tokio::time::timeout(OLDEST, refusal).await.ok().flatten()
    }

    /// A key that holds nothing: below the root, but none of the store's.
    fn root(&self) -> Vec<u8> {
        self.keys.there("/").unwrap_or_default()
    }
}

/// The revision of the state that an answer describes.
fn revision_of(answer: &GetResponse) -> Revision {
    answer.header().map_or(0, |header| here(header.revision()))
}

/// An entry of the store; `None` for a key of others.
pub(super) fn entry(keys: &Keys, kv: &KeyValue) -> Option<Entry> {
    Some(Entry {
        key: keys.here(kv.key())?,
        value: Bytes::copy_from_slice(kv.value()),
        created: here(kv.create_revision()),
        revision: here(kv.mod_revision()),
    })
}
