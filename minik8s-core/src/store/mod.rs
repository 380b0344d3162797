//! The contract of a store: where the cluster's state lives.
//!
//! A store is a flat, ordered map from keys to bytes with **one monotonic revision per commit**, like etcd's.
//! The API server is its only writer. [`MemoryStore`] forgets everything with its process, [`EmbeddedStore`] keeps it
//! in one directory and has it on disk before it acknowledges, `EtcdStore` (feature `etcd`) keeps it in an etcd that
//! several API servers share; [`FaultStore`] wraps one and lets it fail. All implementations pass the suite in
//! `testkit::store`.
//!
//! # Promises every implementation keeps
//! - A commit is all or nothing, and every key it touches carries the same new revision.
//! - Revisions only grow. Reads see everything acknowledged before they began.
//! - A watch delivers each event after its start exactly once, in revision order, all events of one commit in one batch.
//! - A watcher that does not read is cut with [`StoreError::SlowWatcher`]; writers never wait for it.
//! - A watch that stays quiet while others write gets a progress mark now and then.
//! - Revisions start at 1; prefixes are empty or end in a slash, any other is [`StoreError::Invalid`].
//! - Futures may be dropped at any await point: a commit then either happened as a whole or not at all.

mod embedded;
mod engine;
#[cfg(feature = "etcd")]
mod etcd;
mod faults;
mod memory;

pub use embedded::{EmbeddedOptions, EmbeddedStore, OpenError};
pub use engine::Limits;
#[cfg(feature = "etcd")]
pub use etcd::{EtcdError, EtcdOptions, EtcdStore, EtcdTls};
pub use faults::{Fault, FaultRates, FaultStore};
pub use memory::MemoryStore;

use crate::api::Revision;
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use std::sync::Arc;
use std::time::Duration;

/// A key: `/registry/pods/default/web-0`. Prefixes end in `/`, so `/a` is never a prefix of `/ab`'s subtree by accident.
pub type Key = Arc<str>;

/// A key's value and where it stands in history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// The value.
    pub value: Bytes,
    /// Revision at which the key came to be.
    pub created: Revision,
    /// Revision of this value.
    pub revision: Revision,
}

/// What must hold for a commit to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// The key does not exist.
    Absent(Key),
    /// The key exists and its value was written at this revision.
    At(Key, Revision),
}

/// One change of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes a value; with `ttl` the key vanishes (as a delete event) that long after its last write.
    Put {
        /// The key.
        key: Key,
        /// Its new value.
        value: Bytes,
        /// Lifetime, where it is not unlimited.
        ttl: Option<Duration>,
    },
    /// Removes a key; removing a missing one changes nothing and makes no event.
    Delete {
        /// The key.
        key: Key,
    },
}

/// A transaction: every precondition holds and every change happens, or nothing does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// What must hold.
    pub when: Vec<Precondition>,
    /// What changes; keys are distinct.
    pub ops: Vec<Op>,
}

/// Which keys to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeRequest {
    /// Keys that start with this; empty, or ends in a slash.
    pub prefix: String,
    /// Only keys greater than this one.
    pub after: Option<String>,
    /// At most this many; 0 means all.
    pub limit: usize,
    /// Read at this revision instead of the newest.
    pub at: Option<Revision>,
}

/// Entries in key order, all read at one revision.
#[derive(Clone, Debug, Default)]
pub struct RangePage {
    /// The entries.
    pub entries: Vec<Entry>,
    /// The revision they were read at.
    pub revision: Revision,
    /// How many more keys follow within the prefix.
    pub remaining: usize,
}

/// One change, as watchers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A key was written. `created == revision` on the first write.
    Put(Entry),
    /// A key went; the entry holds its last value and the revision **of the deletion**.
    Delete(Entry),
}

impl Event {
    /// The entry it is about.
    pub fn entry(&self) -> &Entry {
        match self {
            Event::Put(e) | Event::Delete(e) => e,
        }
    }
}

/// Where a watch starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchStart {
    /// With the next commit.
    Now,
    /// With the first commit after this revision.
    After(Revision),
    /// With the present state as puts (one batch, even when empty), then every later commit.
    Initial,
}

/// Events of one commit, or none: then a progress mark that says nothing is missing up to `revision`.
#[derive(Clone, Debug)]
pub struct WatchBatch {
    /// The events, shared by all watchers.
    pub events: Arc<[Event]>,
    /// The revision reached with this batch.
    pub revision: Revision,
}

/// A running watch. It ends after an error; dropping it cancels it.
pub type WatchStream = BoxStream<'static, Result<WatchBatch, StoreError>>;

/// What an implementation can do beyond the required.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreCapabilities {
    /// Acknowledged commits survive the death of the process.
    pub durable: bool,
    /// `RangeRequest::at` reads the past, back to the last compaction.
    pub history: bool,
    /// `Op::Put::ttl` is honoured.
    pub expiry: bool,
    /// Other processes may use the same state, so that control loops must agree on who runs.
    pub shared: bool,
    /// Largest value in bytes.
    pub max_value: usize,
    /// Most operations, and most preconditions, of one commit; more are [`StoreError::Invalid`].
    pub max_ops: usize,
}

/// Why a store refused.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A precondition failed; nothing was changed.
    #[error("precondition on {key} failed")]
    Conflict {
        /// The first key whose precondition failed.
        key: Key,
        /// What stands there now.
        current: Option<Entry>,
    },
    /// The revision is older than the last compaction.
    #[error("revision {requested} has been compacted, oldest is {oldest}")]
    Compacted {
        /// What was asked for.
        requested: Revision,
        /// The oldest revision still kept.
        oldest: Revision,
    },
    /// The revision has not happened yet.
    #[error("revision {requested} lies in the future, newest is {newest}")]
    Future {
        /// What was asked for.
        requested: Revision,
        /// The newest revision.
        newest: Revision,
    },
    /// The watcher fell behind and was cut: list again.
    #[error("watcher of {prefix} fell behind and was cut")]
    SlowWatcher {
        /// What it watched.
        prefix: String,
    },
    /// A value is larger than the store takes.
    #[error("value of {key} has {size} bytes, limit is {limit}")]
    TooLarge {
        /// The key.
        key: Key,
        /// Its value's size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// A request that no store can serve, such as the same key twice in one commit.
    #[error("invalid request: {0}")]
    Invalid(String),
    /// Not something this implementation can do; see [`StoreCapabilities`].
    #[error("not supported by this store: {0}")]
    Unsupported(&'static str),
    /// The commit was sent, but the answer got lost: it may or may not have happened. Read before retrying.
    #[error("outcome of the commit is unknown: {0}")]
    Unknown(String),
    /// The store cannot serve now; nothing was changed.
    #[error("store unavailable while {operation}: {cause}")]
    Unavailable {
        /// What was being done.
        operation: &'static str,
        /// Why it failed.
        cause: String,
    },
}

/// Where the cluster's state lives. See the [module](self) for what every implementation promises.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// What this implementation can do.
    fn capabilities(&self) -> StoreCapabilities;

    /// The newest value of a key, and `None` where there is none.
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError>;

    /// Entries of a prefix at one revision.
    ///
    /// # Errors
    /// `Compacted` or `Future` for a revision that is not kept, `Unsupported` for `at` without the capability.
    async fn range(&self, request: RangeRequest) -> Result<RangePage, StoreError>;

    /// Changes several keys at once and returns the new revision. A commit without effect (only deletes of missing
    /// keys, or no operations) makes no revision and returns the present one.
    ///
    /// # Errors
    /// `Conflict` where a precondition fails; `TooLarge`, `Invalid`; `Unknown` where only the answer was lost.
    async fn commit(&self, commit: Commit) -> Result<Revision, StoreError>;

    /// Follows a prefix. When this returns, the start is fixed: no later commit is missed.
    ///
    /// # Errors
    /// `Compacted` or `Future` for a start that is not kept, here or as the stream's last item.
    async fn watch(&self, prefix: &str, start: WatchStart) -> Result<WatchStream, StoreError>;

    /// Forgets history before `revision`: reads at `revision` and watches after it still work, earlier ones are
    /// `Compacted`. The newest value of every key stays.
    ///
    /// # Errors
    /// `Future` for a revision that has not happened yet.
    async fn compact(&self, revision: Revision) -> Result<(), StoreError>;

    /// The newest revision.
    async fn revision(&self) -> Result<Revision, StoreError>;
}
