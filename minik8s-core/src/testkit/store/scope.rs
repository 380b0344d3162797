//! A case's own corner of the store: a random prefix, a guard key outside of it, and short forms of the operations.

use super::Opener;
use crate::api::Revision;
use crate::store::{
    Commit, Entry, Event, Key, Op, Precondition, RangePage, RangeRequest, Store, StoreError, WatchBatch, WatchStart,
    WatchStream,
};
use bytes::Bytes;
use futures::StreamExt;
use std::sync::Arc;
use std::time::Duration;

/// How long a watch may take to deliver.
const BOUND: Duration = Duration::from_secs(20);

/// Where a case works.
pub struct Scope {
    opener: Opener,
    store: Option<Arc<dyn Store>>,
    prefix: String,
    guard: Entry,
}

impl Scope {
    /// Opens the store and writes the guard.
    pub async fn open(opener: Opener) -> Self {
        let store = opener().await;
        let name = uuid::Uuid::new_v4().simple().to_string();
        let key: Key = format!("/suite-guard/{name}").into();
        store.commit(commit(&[], &[put_op(&key, "guard")])).await.unwrap();
        let guard = store.get(&key).await.unwrap().unwrap();
        Self { opener, store: Some(store), prefix: format!("/suite/{name}/"), guard }
    }

    /// The store under test.
    pub fn store(&self) -> &Arc<dyn Store> {
        self.store.as_ref().unwrap()
    }

    /// Closes the store and opens it again. Nothing else may hold it.
    pub async fn reopen(&mut self) {
        self.store = None;
        self.store = Some((self.opener)().await);
    }

    /// Removes what the case wrote, and sees to it that nothing else changed.
    ///
    /// # Panics
    /// Where the guard was touched.
    pub async fn clean_up(&self) {
        for entry in self.list("").await.entries {
            self.apply(&[], &[Op::Delete { key: entry.key }]).await.unwrap();
        }
        assert_eq!(
            self.store().get(&self.guard.key).await.unwrap().as_ref(),
            Some(&self.guard),
            "the guard was touched"
        );
    }

    /// Cleans up and takes the guard away: the store is as it was before.
    ///
    /// # Panics
    /// Where the guard was touched.
    pub async fn close(self) {
        self.clean_up().await;
        self.apply(&[], &[Op::Delete { key: self.guard.key.clone() }]).await.unwrap();
    }

    /// The prefix, extended.
    pub fn prefix(&self, rest: &str) -> String {
        format!("{}{rest}", self.prefix)
    }

    /// A key of this case.
    pub fn key(&self, name: &str) -> Key {
        self.prefix(name).into()
    }

    /// A commit.
    pub async fn apply(&self, when: &[Precondition], ops: &[Op]) -> Result<Revision, StoreError> {
        self.store().commit(commit(when, ops)).await
    }

    /// Writes whatever stands there.
    pub async fn put(&self, name: &str, value: &str) -> Revision {
        self.apply(&[], &[put_op(&self.key(name), value)]).await.unwrap()
    }

    /// Writes what must not exist yet.
    pub async fn create(&self, name: &str, value: &str) -> Result<Revision, StoreError> {
        let key = self.key(name);
        self.apply(&[Precondition::Absent(key.clone())], &[put_op(&key, value)]).await
    }

    /// Writes what must stand at a revision.
    pub async fn update(&self, name: &str, at: Revision, value: &str) -> Result<Revision, StoreError> {
        let key = self.key(name);
        self.apply(&[Precondition::At(key.clone(), at)], &[put_op(&key, value)]).await
    }

    /// Removes whatever stands there.
    pub async fn delete(&self, name: &str) -> Revision {
        self.apply(&[], &[Op::Delete { key: self.key(name) }]).await.unwrap()
    }

    /// Reads a key.
    pub async fn get(&self, name: &str) -> Option<Entry> {
        self.store().get(&self.key(name)).await.unwrap()
    }

    /// Reads a key's value as text.
    pub async fn text(&self, name: &str) -> Option<String> {
        self.get(name).await.map(|e| text(&e))
    }

    /// Reads a prefix at the newest revision.
    pub async fn list(&self, rest: &str) -> RangePage {
        self.range(RangeRequest { prefix: self.prefix(rest), ..RangeRequest::default() }).await.unwrap()
    }

    /// Reads a range.
    pub async fn range(&self, request: RangeRequest) -> Result<RangePage, StoreError> {
        self.store().range(request).await
    }

    /// Reads the whole prefix at a revision.
    pub async fn list_at(&self, at: Revision) -> Result<RangePage, StoreError> {
        self.range(RangeRequest { prefix: self.prefix(""), at: Some(at), ..RangeRequest::default() }).await
    }

    /// Watches below the prefix.
    pub async fn watch(&self, rest: &str, start: WatchStart) -> Follower {
        Follower(self.store().watch(&self.prefix(rest), start).await.unwrap())
    }

    /// The error that a watch is refused with, at once or as its only item.
    pub async fn watch_error(&self, start: WatchStart) -> StoreError {
        match self.store().watch(&self.prefix(""), start).await {
            Err(error) => error,
            Ok(stream) => Follower(stream).next().await.expect_err("the watch must be refused"),
        }
    }

    /// The newest revision.
    pub async fn revision(&self) -> Revision {
        self.store().revision().await.unwrap()
    }

    /// Entries as name and value.
    pub fn texts(&self, page: &RangePage) -> Vec<(String, String)> {
        page.entries.iter().map(|e| (self.name(e), text(e))).collect()
    }

    /// An entry's key without the prefix.
    pub fn name(&self, entry: &Entry) -> String {
        entry.key.strip_prefix(self.prefix.as_str()).expect("a key outside of the prefix").to_owned()
    }
}

/// Reads a watch, never for longer than a bound.
pub struct Follower(WatchStream);

impl Follower {
    /// The next batch, or how the watch ended.
    pub async fn next(&mut self) -> Result<WatchBatch, StoreError> {
        let item = tokio::time::timeout(BOUND, self.0.next()).await.expect("the watch delivered nothing in time");
        item.expect("the watch ended without an error")
    }

    /// The next batch that holds events; progress marks are passed over.
    pub async fn batch(&mut self) -> WatchBatch {
        loop {
            let batch = self.next().await.expect("the watch broke");
            if !batch.events.is_empty() {
                return batch;
            }
        }
    }

    /// The next `count` events, in whatever batches they come.
    pub async fn events(&mut self, count: usize) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < count {
            events.extend(self.batch().await.events.iter().cloned());
        }
        assert_eq!(events.len(), count, "more events than expected: {events:?}");
        events
    }
}

/// A commit of borrowed parts.
pub(super) fn commit(when: &[Precondition], ops: &[Op]) -> Commit {
    Commit { when: when.to_vec(), ops: ops.to_vec() }
}

/// A put without lifetime.
pub(super) fn put_op(key: &Key, value: &str) -> Op {
    Op::Put { key: key.clone(), value: Bytes::copy_from_slice(value.as_bytes()), ttl: None }
}

/// An entry's value as text.
pub(super) fn text(entry: &Entry) -> String {
    String::from_utf8_lossy(&entry.value).into_owned()
}
