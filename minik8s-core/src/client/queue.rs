//! The work queue of control loops: what to look at next, each key once, never the same key twice at a time.

use super::Backoff;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// A queue of keys. Cheap to clone; clones share the queue.
///
/// - A key that is added while it waits is kept once.
/// - A key that is added while it is worked on waits until [`done`](Self::done), then comes again.
/// - Delays run on `tokio::time`, so tests may pause them. A key has one delay; the earliest wins.
///
/// The queue is bounded by the number of keys.
pub struct WorkQueue<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for WorkQueue<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

struct Shared<T> {
    state: Mutex<State<T>>,
    wake: Notify,
    backoff: Backoff,
}

/// What a queue counts: shared with whoever shows it.
#[derive(Clone, Debug, Default)]
pub struct QueueCounts {
    /// How many keys could be handed out now.
    pub depth: Gauge,
    /// How many keys were taken in, those not counted that were waiting already.
    pub adds: Counter,
}

struct State<T> {
    /// Keys to hand out, in order.
    ready: VecDeque<T>,
    /// Keys in `ready`, or added while being worked on.
    dirty: HashSet<T>,
    /// Keys being worked on.
    working: HashSet<T>,
    /// When each delayed key is due: the canonical copy, `timers` may hold outdated entries.
    due: HashMap<T, Instant>,
    timers: BinaryHeap<Reverse<(Instant, u64)>>,
    timer_keys: HashMap<u64, T>,
    next_timer: u64,
    failures: HashMap<T, u32>,
    counts: QueueCounts,
}

impl<T> Default for State<T> {
    fn default() -> Self {
        Self {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            working: HashSet::new(),
            due: HashMap::new(),
            timers: BinaryHeap::new(),
            timer_keys: HashMap::new(),
            next_timer: 0,
            failures: HashMap::new(),
            counts: QueueCounts::default(),
        }
    }
}

impl<T: Hash + Eq + Clone> State<T> {
    fn add(&mut self, key: T) -> bool {
        if !self.dirty.insert(key.clone()) {
            return false;
        }
        self.counts.adds.inc();
        if self.working.contains(&key) {
            return false;
        }
        self.ready(key);
        true
    }

    fn ready(&mut self, key: T) {
        self.ready.push_back(key);
        self.counts.depth.inc();
    }

    fn delay(&mut self, key: T, due: Instant) {
        if self.due.get(&key).is_some_and(|earlier| *earlier <= due) {
            return;
        }
        self.due.insert(key.clone(), due);
        self.next_timer += 1;
        self.timers.push(Reverse((due, self.next_timer)));
        self.timer_keys.insert(self.next_timer, key);
    }

    /// Moves what is due into `ready`; answers when the next one is.
    fn ripen(&mut self, now: Instant) -> Option<Instant> {
        while let Some(&Reverse((due, id))) = self.timers.peek() {
            if due > now {
                return Some(due);
            }
            self.timers.pop();
            let Some(key) = self.timer_keys.remove(&id) else { continue };
            if self.due.get(&key) == Some(&due) {
                self.due.remove(&key);
                self.add(key);
            }
        }
        None
    }

    fn take(&mut self) -> Option<T> {
        let key = self.ready.pop_front()?;
        self.counts.depth.dec();
        self.dirty.remove(&key);
        self.working.insert(key.clone());
        Some(key)
    }
}

impl<T: Hash + Eq + Clone> Default for WorkQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Hash + Eq + Clone> WorkQueue<T> {
    /// A queue whose failed keys come back after 5 ms, doubling up to one minute.
    pub fn new() -> Self {
        Self::with_backoff(Backoff::new(Duration::from_millis(5), Duration::from_secs(60)))
    }

    /// A queue with its own back-off.
    pub fn with_backoff(backoff: Backoff) -> Self {
        Self { shared: Arc::new(Shared { state: Mutex::default(), wake: Notify::new(), backoff }) }
    }

    /// Counts in `counts` from now on. A queue that goes leaves its depth behind: who makes the next one sets it to 0.
    #[must_use]
    pub fn counted(self, counts: QueueCounts) -> Self {
        self.shared.state.lock().counts = counts;
        self
    }

    /// Adds a key.
    pub fn add(&self, key: T) {
        if self.shared.state.lock().add(key) {
            self.shared.wake.notify_one();
        }
    }

    /// Adds a key when `delay` has passed.
    pub fn add_after(&self, key: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        self.shared.state.lock().delay(key, Instant::now() + delay);
        // Every waiter must know the new time: the one that is woken may get busy with another key.
        self.shared.wake.notify_waiters();
    }

    /// Adds a key that failed, after its back-off.
    pub fn add_rate_limited(&self, key: T) {
        let failures = {
            let mut state = self.shared.state.lock();
            let count = state.failures.entry(key.clone()).or_insert(0);
            *count = count.saturating_add(1);
            *count
        };
        self.add_after(key, self.shared.backoff.delay(failures));
    }

    /// Forgets that a key failed.
    pub fn forget(&self, key: &T) {
        self.shared.state.lock().failures.remove(key);
    }

    /// How often a key failed in a row.
    pub fn failures(&self, key: &T) -> u32 {
        self.shared.state.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// The next key, when there is one. It stays with the caller until [`done`](Self::done). Dropping the future loses
    /// nothing.
    pub async fn next(&self) -> T {
        loop {
            let woken = self.shared.wake.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            let due = {
                let mut state = self.shared.state.lock();
                let due = state.ripen(Instant::now());
                if let Some(key) = state.take() {
                    if !state.ready.is_empty() {
                        self.shared.wake.notify_one();
                    }
                    return key;
                }
                due
            };
            match due {
                None => woken.await,
                Some(due) => {
                    tokio::select! {
                        biased;
                        () = woken => {}
                        () = tokio::time::sleep_until(due) => {}
                    }
                }
            }
        }
    }

    /// Ends the work on a key that [`next`](Self::next) gave out.
    pub fn done(&self, key: &T) {
        let mut state = self.shared.state.lock();
        state.working.remove(key);
        if state.dirty.contains(key) {
            state.ready(key.clone());
            drop(state);
            self.shared.wake.notify_one();
        }
    }

    /// How many keys could be handed out now.
    pub fn len(&self) -> usize {
        self.shared.state.lock().ready.len()
    }

    /// True where no key could be handed out now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn now<T>(future: impl Future<Output = T>) -> Option<T> {
        future.now_or_never()
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_waits_once_however_often_it_is_added() {
        let queue = WorkQueue::new();
        for key in ["a", "b", "a", "a"] {
            queue.add(key);
        }
        assert_eq!((now(queue.next()), now(queue.next()), now(queue.next())), (Some("a"), Some("b"), None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_never_with_two_workers() {
        let queue = WorkQueue::new();
        queue.add("a");
        assert_eq!(now(queue.next()), Some("a"));
        queue.add("a");
        assert_eq!(now(queue.next()), None, "still being worked on");
        queue.done(&"a");
        assert_eq!(now(queue.next()), Some("a"), "added meanwhile, so it comes again");
        queue.done(&"a");
        assert_eq!(now(queue.next()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_delay_wins() {
        let queue = WorkQueue::new();
        let start = Instant::now();
        queue.add_after("a", Duration::from_secs(10));
        queue.add_after("a", Duration::from_secs(2));
        queue.add_after("a", Duration::from_secs(20));
        assert_eq!(queue.next().await, "a");
        assert_eq!(start.elapsed().as_secs(), 2);
        queue.done(&"a");
        let more = tokio::time::timeout(Duration::from_secs(60), queue.next()).await;
        assert!(more.is_err(), "outdated delays must not bring the key back");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_back_off_per_key_until_forgotten() {
        let queue = WorkQueue::with_backoff(Backoff::new(Duration::from_secs(1), Duration::from_secs(4)));
        let mut waits = Vec::new();
        for _ in 0..4 {
            let start = Instant::now();
            queue.add_rate_limited("a");
            assert_eq!(queue.next().await, "a");
            queue.done(&"a");
            waits.push(start.elapsed().as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 4]);
        queue.forget(&"a");
        assert_eq!(queue.failures(&"a"), 0);
        let start = Instant::now();
        queue.add_rate_limited("b");
        queue.next().await;
        assert_eq!(start.elapsed().as_secs(), 1, "b never failed before");
    }

    #[tokio::test(start_paused = true)]
    async fn every_idle_worker_knows_the_next_delay() {
        let queue = WorkQueue::new();
        let workers: Vec<_> = (0..2)
            .map(|_| {
                tokio::spawn({
                    let q = queue.clone();
                    async move { q.next().await }
                })
            })
            .collect();
        tokio::task::yield_now().await;
        queue.add_after("late", Duration::from_secs(5));
        tokio::task::yield_now().await;
        queue.add("now");
        let start = Instant::now();
        let mut got: Vec<_> = futures::future::join_all(workers).await.into_iter().map(Result::unwrap).collect();
        got.sort_unstable();
        assert_eq!((got, start.elapsed().as_secs()), (vec!["late", "now"], 5));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn many_workers_lose_no_key_and_share_none() {
        let queue = WorkQueue::new();
        let seen = Arc::new(Mutex::new((HashSet::new(), HashSet::new())));
        let workers: Vec<_> = (0..8)
            .map(|_| {
                let (queue, seen) = (queue.clone(), seen.clone());
                tokio::spawn(async move {
                    loop {
                        let key: u32 = queue.next().await;
                        assert!(seen.lock().0.insert(key), "{key} is with two workers");
                        tokio::task::yield_now().await;
                        seen.lock().0.remove(&key);
                        seen.lock().1.insert(key);
                        queue.done(&key);
                    }
                })
            })
            .collect();
        for round in 0..20 {
            for key in 0..50 {
                queue.add(key + round % 2);
            }
            tokio::task::yield_now().await;
        }
        crate::testkit::wait::until("all keys were seen", Duration::from_secs(10), || async {
            (seen.lock().1.len() == 51 && queue.is_empty()).then_some(())
        })
        .await;
        workers.into_iter().for_each(|w| w.abort());
    }
}
