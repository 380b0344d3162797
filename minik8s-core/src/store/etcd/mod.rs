//! State in etcd, for clusters with more than one API server.
//!
//! The store's revisions are etcd's. A commit is one etcd transaction, so that all of its keys carry one revision and
//! watchers get them as one batch. Keys stand below a prefix of the cluster's own, so that clusters may share an etcd.
//!
//! A watch follows **everything** that etcd holds, and leaves out here what is not asked for. So it learns of every
//! revision in order, and its reader knows how far it is without asking: etcd's own progress marks can run ahead of the
//! events they speak of (before 3.4.25 and 3.5.8), or come every ten minutes. An API server watches all of its cluster
//! anyway; the price is to see the traffic of the clusters that share the etcd.
//!
//! A write whose answer did not come is [`Unknown`](StoreError::Unknown): etcd may carry it out later. Only what etcd
//! refuses before proposing it, and what never found a connection, counts as not done and goes to the next member.
//!
//! Lifetimes are leases: they end in whole seconds, never early, and up to a twentieth (a minute at most) late.
//! Compaction is etcd's, and so for all clusters in it; without being asked for it forgets what is older than five
//! minutes.

mod commit;
mod compaction;
mod connection;
mod failure;
mod keys;
mod lease;
mod options;
mod queue;
mod read;
mod watch;

pub use options::{EtcdError, EtcdOptions, EtcdTls};

use super::engine::{validate, validate_prefix};
use super::{Commit, Entry, RangePage, RangeRequest, Store, StoreCapabilities, StoreError, WatchStart, WatchStream};
use crate::api::Revision;
use async_trait::async_trait;
use connection::Connection;
use keys::Keys;
use lease::Leases;
use std::sync::Arc;

/// How much of a request etcd's own framing, keys and preconditions may take beside one value.
const ENVELOPE: usize = 16 << 10;

/// State in etcd. Cloning gives another handle to the same connection.
///
/// ```no_run
/// use minik8s_core::store::{EtcdOptions, EtcdStore, Store};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = EtcdStore::connect(EtcdOptions::new(["http://127.0.0.1:2379"])).await?;
/// println!("etcd is at revision {}", store.revision().await?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct EtcdStore {
    shared: Arc<Shared>,
}

struct Shared {
    connection: Connection,
    keys: Keys,
    leases: Leases,
    options: EtcdOptions,
}

impl EtcdStore {
    /// Connects, and sees to it that a member answers.
    ///
    /// # Errors
    /// [`EtcdError`] where an endpoint cannot be used, or none answers.
    pub async fn connect(options: EtcdOptions) -> Result<Self, EtcdError> {
        let connection = Connection::open(&options).await?;
        let keys = Keys::new(&options.prefix);
        let shared = Arc::new(Shared { connection, keys, leases: Leases::default(), options });
        let first = shared.newest().await;
        first.map_err(|failure| EtcdError::unreachable(&shared.options.endpoints, &failure))?;
        compaction::start(&shared);
        Ok(Self { shared })
    }
}

#[async_trait]
impl Store for EtcdStore {
    fn capabilities(&self) -> StoreCapabilities {
        self.shared.capabilities()
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.shared.get(key).await
    }

    async fn range(&self, request: RangeRequest) -> Result<RangePage, StoreError> {
        validate_prefix(&request.prefix)?;
        self.shared.range(&request).await
    }

    async fn commit(&self, commit: Commit) -> Result<Revision, StoreError> {
        validate(&commit, self.capabilities().max_value)?;
        self.shared.commit(&commit).await
    }

    async fn watch(&self, prefix: &str, start: WatchStart) -> Result<WatchStream, StoreError> {
        validate_prefix(prefix)?;
        self.shared.watch(prefix, start).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.shared.compact(revision).await
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.shared.revision().await
    }
}

impl Shared {
    fn capabilities(&self) -> StoreCapabilities {
        let max_value = self.options.max_request.saturating_sub(ENVELOPE);
        let max_ops = self.options.max_ops;
        StoreCapabilities { durable: true, history: true, expiry: true, shared: true, max_value, max_ops }
    }
}

/// A revision as etcd counts it.
fn there(revision: Revision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

/// A revision of etcd's.
fn here(revision: i64) -> Revision {
    Revision::try_from(revision).unwrap_or_default()
}
