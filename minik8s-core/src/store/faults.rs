//! A store that fails on request, for tests of what stands on a store: refusals before a commit, answers lost after it,
//! delays, and watches that break. Without a fault in its book it is the store that it wraps.

use super::{
    Commit, Entry, RangePage, RangeRequest, Store, StoreCapabilities, StoreError, WatchBatch, WatchStart, WatchStream,
};
use crate::api::Revision;
use async_trait::async_trait;
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The store is unavailable; nothing happens.
    Refuse,
    /// The commit does not reach the store, and nobody can tell: `Unknown`.
    LoseRequest,
    /// The commit happens, but its answer gets lost: `Unknown`.
    LoseReply,
    /// The operation happens this much later.
    Delay(Duration),
}

/// How often what happens by chance, each from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FaultRates {
    /// [`Fault::Refuse`], for reads, commits and new watches.
    pub refuse: f64,
    /// [`Fault::LoseRequest`], for commits.
    pub lose_request: f64,
    /// [`Fault::LoseReply`], for commits.
    pub lose_reply: f64,
    /// A running watch breaks instead of delivering a batch.
    pub cut_watch: f64,
    /// [`Fault::Delay`] by up to this much, for every operation.
    pub delay: Duration,
}

/// Wraps a store and lets it fail. Cloning gives another handle to the same faults.
///
/// ```
/// use minik8s_core::store::{Commit, Fault, FaultStore, MemoryStore, Store, StoreError};
/// use std::sync::Arc;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let store = FaultStore::new(Arc::new(MemoryStore::new()));
/// store.next_commit(Fault::LoseReply);
/// assert!(matches!(store.commit(Commit::default()).await, Err(StoreError::Unknown(_))));
/// assert!(store.commit(Commit::default()).await.is_ok());
/// # }
/// ```
#[derive(Clone)]
pub struct FaultStore {
    inner: Arc<dyn Store>,
    book: Arc<Book>,
}

/// What is going to fail.
struct Book {
    script: Mutex<Script>,
    chance: Mutex<Chance>,
    /// Cancelled to break every running watch, then replaced.
    watches: Mutex<CancellationToken>,
}

#[derive(Default)]
struct Script {
    commits: VecDeque<Fault>,
    reads: VecDeque<Fault>,
    watches: VecDeque<Fault>,
}

struct Chance {
    rates: FaultRates,
    random: StdRng,
}

impl Chance {
    fn happens(&mut self, rate: f64) -> bool {
        rate > 0.0 && self.random.random_bool(rate.min(1.0))
    }
}

impl FaultStore {
    /// A store without any fault yet.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self::seeded(inner, 0, FaultRates::default())
    }

    /// A store that fails by chance; the same seed and the same calls give the same faults.
    pub fn seeded(inner: Arc<dyn Store>, seed: u64, rates: FaultRates) -> Self {
        let chance = Mutex::new(Chance { rates, random: StdRng::seed_from_u64(seed) });
        let book = Book { script: Mutex::default(), chance, watches: Mutex::default() };
        Self { inner, book: Arc::new(book) }
    }

    /// Lets a coming commit (or compaction) fail; each call stands for one more.
    pub fn next_commit(&self, fault: Fault) {
        self.book.script.lock().commits.push_back(fault);
    }

    /// Lets a coming read fail. Only `Refuse` and `Delay` mean something for it.
    pub fn next_read(&self, fault: Fault) {
        self.book.script.lock().reads.push_back(fault);
    }

    /// Lets a coming watch not begin. Only `Refuse` and `Delay` mean something for it.
    pub fn next_watch(&self, fault: Fault) {
        self.book.script.lock().watches.push_back(fault);
    }

    /// Breaks every watch that runs now.
    pub fn cut_watches(&self) {
        std::mem::take(&mut *self.book.watches.lock()).cancel();
    }

    /// Changes how often things fail by chance.
    pub fn set_rates(&self, rates: FaultRates) {
        self.book.chance.lock().rates = rates;
    }

    /// Ends all faults: from here on everything must recover.
    pub fn heal(&self) {
        *self.book.script.lock() = Script::default();
        self.set_rates(FaultRates::default());
    }

    /// What happens to a read or a new watch.
    async fn before(&self, scripted: Option<Fault>, operation: &'static str) -> Result<(), StoreError> {
        let fault = scripted.or_else(|| self.book.by_chance(false));
        match fault {
            Some(Fault::Delay(delay)) => tokio::time::sleep(delay).await,
            Some(_) => return Err(refused(operation)),
            None => {}
        }
        Ok(())
    }

    /// Does something that changes the store, or seems to.
    async fn change<T: Send>(
        &self,
        operation: &'static str,
        change: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let scripted = self.book.script.lock().commits.pop_front();
        match scripted.or_else(|| self.book.by_chance(true)) {
            None => change.await,
            Some(Fault::Delay(delay)) => {
                tokio::time::sleep(delay).await;
                change.await
            }
            Some(Fault::Refuse) => Err(refused(operation)),
            Some(Fault::LoseRequest) => Err(lost()),
            // A refusal is an answer too, and lost with it.
            Some(Fault::LoseReply) => change.await.and_then(|_| Err(lost())).map_err(|_: StoreError| lost()),
        }
    }
}

impl Book {
    fn by_chance(&self, is_commit: bool) -> Option<Fault> {
        let mut chance = self.chance.lock();
        let rates = chance.rates;
        if chance.happens(rates.refuse) {
            return Some(Fault::Refuse);
        }
        if is_commit && chance.happens(rates.lose_request) {
            return Some(Fault::LoseRequest);
        }
        if is_commit && chance.happens(rates.lose_reply) {
            return Some(Fault::LoseReply);
        }
        let micros = u64::try_from(rates.delay.as_micros()).unwrap_or(u64::MAX);
        (micros > 0).then(|| Fault::Delay(Duration::from_micros(chance.random.random_range(0..=micros))))
    }

    fn cuts_watch(&self) -> bool {
        let mut chance = self.chance.lock();
        let rate = chance.rates.cut_watch;
        chance.happens(rate)
    }
}

fn refused(operation: &'static str) -> StoreError {
    StoreError::Unavailable { operation, cause: "an injected fault".to_owned() }
}

fn lost() -> StoreError {
    StoreError::Unknown("an injected fault".to_owned())
}

/// A watch that runs until it is cut.
struct Fragile {
    stream: WatchStream,
    book: Arc<Book>,
    cut: CancellationToken,
    ended: bool,
}

impl Fragile {
    async fn next(mut self) -> Option<(Result<WatchBatch, StoreError>, Self)> {
        if self.ended {
            return None;
        }
        let item = tokio::select! {
            biased;
            () = self.cut.cancelled() => Some(Err(refused("watching"))),
            item = self.stream.next() => item,
        };
        let item = if self.book.cuts_watch() { Err(refused("watching")) } else { item? };
        self.ended = item.is_err();
        Some((item, self))
    }
}

#[async_trait]
impl Store for FaultStore {
    fn capabilities(&self) -> StoreCapabilities {
        self.inner.capabilities()
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let scripted = self.book.script.lock().reads.pop_front();
        self.before(scripted, "reading a key").await?;
        self.inner.get(key).await
    }

    async fn range(&self, request: RangeRequest) -> Result<RangePage, StoreError> {
        let scripted = self.book.script.lock().reads.pop_front();
        self.before(scripted, "reading a range").await?;
        self.inner.range(request).await
    }

    async fn commit(&self, commit: Commit) -> Result<Revision, StoreError> {
        self.change("committing", self.inner.commit(commit)).await
    }

    async fn watch(&self, prefix: &str, start: WatchStart) -> Result<WatchStream, StoreError> {
        let scripted = self.book.script.lock().watches.pop_front();
        self.before(scripted, "starting a watch").await?;
        let cut = self.book.watches.lock().clone();
        let stream = self.inner.watch(prefix, start).await?;
        let fragile = Fragile { stream, book: self.book.clone(), cut, ended: false };
        Ok(stream::unfold(fragile, Fragile::next).boxed())
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.change("compacting", self.inner.compact(revision)).await
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        let scripted = self.book.script.lock().reads.pop_front();
        self.before(scripted, "reading the revision").await?;
        self.inner.revision().await
    }
}
