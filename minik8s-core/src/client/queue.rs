//! The work queue of control loops: what to look at next, each key once, never the same key twice at a time.

use super::Backoff;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
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
    /// Wakes one who waits: a key is there, or nobody keeps the time.
    wake: Notify,
    /// Wakes who keeps the time: a key is due earlier than it knows.
    sooner: Notify,
    backoff: Backoff,
}

/// What a queue counts: shared with whoever shows it.
#[derive(Clone, Debug)]
pub struct QueueCounts {
    /// How many keys could be handed out now.
    pub depth: Gauge,
    /// How many keys were taken in, those not counted that were waiting already.
    pub adds: Counter,
    /// Seconds from when a key was added, or due, until it was handed out.
    pub waited: Histogram,
}

impl QueueCounts {
    /// A place for what keys wait.
    pub fn waits() -> Histogram {
        Histogram::new([0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0])
    }
}

impl Default for QueueCounts {
    fn default() -> Self {
        Self { depth: Gauge::default(), adds: Counter::default(), waited: Self::waits() }
    }
}

struct State<T> {
    /// Keys to hand out, in order.
    ready: VecDeque<T>,
    /// Keys in `ready`, or added while being worked on, and since when.
    dirty: HashMap<T, Instant>,
    /// Keys being worked on.
    working: HashSet<T>,
    /// When each delayed key is due: the canonical copy, `timers` may hold outdated entries.
    due: HashMap<T, Instant>,
    timers: BinaryHeap<Reverse<(Instant, u64)>>,
    timer_keys: HashMap<u64, T>,
    next_timer: u64,
    /// Somebody waits until the first key is due; the others need not.
    kept: bool,
    failures: HashMap<T, u32>,
    counts: QueueCounts,
}

impl<T> Default for State<T> {
    fn default() -> Self {
        Self {
            ready: VecDeque::new(),
            dirty: HashMap::new(),
            working: HashSet::new(),
            due: HashMap::new(),
            timers: BinaryHeap::new(),
            timer_keys: HashMap::new(),
            next_timer: 0,
            kept: false,
            failures: HashMap::new(),
            counts: QueueCounts::default(),
        }
    }
}

impl<T: Hash + Eq + Clone> State<T> {
    fn add(&mut self, key: T, since: Instant) -> bool {
        if self.dirty.contains_key(&key) {
            return false;
        }
        self.dirty.insert(key.clone(), since);
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

    /// True where it is due before all others.
    fn delay(&mut self, key: T, due: Instant) -> bool {
        if self.due.get(&key).is_some_and(|earlier| *earlier <= due) {
            return false;
        }
        let first = self.timers.peek().is_none_or(|Reverse((earliest, _))| due < *earliest);
        self.due.insert(key.clone(), due);
        self.next_timer += 1;
        self.timers.push(Reverse((due, self.next_timer)));
        self.timer_keys.insert(self.next_timer, key);
        first
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
                self.add(key, due);
            }
        }
        None
    }

    fn take(&mut self, now: Instant) -> Option<T> {
        let key = self.ready.pop_front()?;
        self.counts.depth.dec();
        let since = self.dirty.remove(&key).unwrap_or(now);
        self.counts.waited.observe(now.saturating_duration_since(since).as_secs_f64());
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
        let (wake, sooner) = (Notify::new(), Notify::new());
        Self { shared: Arc::new(Shared { state: Mutex::default(), wake, sooner, backoff }) }
    }

    /// Counts in `counts` from now on. A queue that goes leaves its depth behind: who makes the next one sets it to 0.
    #[must_use]
    pub fn counted(self, counts: QueueCounts) -> Self {
        self.shared.state.lock().counts = counts;
        self
    }

    /// Adds a key.
    pub fn add(&self, key: T) {
        if self.shared.state.lock().add(key, Instant::now()) {
            self.shared.wake.notify_one();
        }
    }

    /// Adds a key when `delay` has passed.
    pub fn add_after(&self, key: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let mut state = self.shared.state.lock();
        let (first, kept) = (state.delay(key, Instant::now() + delay), state.kept);
        drop(state);
        // Only who keeps the time must know; where nobody does, one who waits begins to.
        match (first, kept) {
            (false, _) => {}
            (true, true) => self.shared.sooner.notify_one(),
            (true, false) => self.shared.wake.notify_one(),
        }
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
        let mut time = Timekeeper { queue: self, keeps: false };
        loop {
            let woken = self.shared.wake.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            let due = {
                let (mut state, now) = (self.shared.state.lock(), Instant::now());
                let due = state.ripen(now);
                if let Some(key) = state.take(now) {
                    if !state.ready.is_empty() {
                        self.shared.wake.notify_one();
                    }
                    return key;
                }
                let keeps = time.keep(&mut state, due.is_some());
                due.filter(|_| keeps)
            };
            match due {
                None => woken.await,
                Some(due) => {
                    tokio::select! {
                        biased;
                        () = woken => {}
                        () = self.shared.sooner.notified() => {}
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
        if state.dirty.contains_key(key) {
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

/// Of those who wait for a key, one keeps the time: were all to wait until the next key is due, each would wake all.
struct Timekeeper<'a, T: Hash + Eq + Clone> {
    queue: &'a WorkQueue<T>,
    keeps: bool,
}

impl<T: Hash + Eq + Clone> Timekeeper<'_, T> {
    /// True where this one keeps the time from now on, or does already. Where no key is delayed nobody does: one who
    /// seems to, and waits for something else, would not hear of the next that is.
    fn keep(&mut self, state: &mut State<T>, delayed: bool) -> bool {
        if self.keeps || !state.kept {
            (self.keeps, state.kept) = (delayed, delayed);
        }
        self.keeps
    }
}

impl<T: Hash + Eq + Clone> Drop for Timekeeper<'_, T> {
    /// Somebody else has to.
    fn drop(&mut self) {
        if self.keeps {
            self.queue.shared.state.lock().kept = false;
            self.queue.shared.wake.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake, Waker};

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

    /// Counts how often a task is woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_is_due_wakes_one_and_the_next_to_keep_the_time() {
        const WAITERS: usize = 8;
        let queue = WorkQueue::new();
        let counts: [Arc<Woken>; WAITERS] = Default::default();
        let mut waiting: Vec<_> = (0..WAITERS).map(|_| Some(Box::pin(queue.next()))).collect();
        // Lets all look, or those that were woken: what they took, and how many looked.
        let mut round = |all: bool| {
            let (mut taken, mut looked) = (Vec::new(), 0);
            for (slot, woken) in waiting.iter_mut().zip(&counts) {
                let is_woken = woken.0.swap(0, Ordering::Relaxed) > 0;
                let Some(task) = slot.as_mut().filter(|_| all || is_woken) else { continue };
                looked += 1;
                let waker = Waker::from(woken.clone());
                if let Poll::Ready(key) = task.as_mut().poll(&mut Context::from_waker(&waker)) {
                    taken.push(key);
                    *slot = None;
                }
            }
            (taken, looked)
        };
        assert_eq!(round(true), (vec![], WAITERS));
        for (key, seconds, looks) in [("later", 20, 1), ("sooner", 10, 1), ("last", 30, 0)] {
            queue.add_after(key, Duration::from_secs(seconds));
            assert_eq!(round(false), (vec![], looks), "{key}: who keeps the time looks, where it is due first");
        }
        for key in ["sooner", "later", "last"] {
            tokio::time::advance(Duration::from_secs(10)).await;
            assert_eq!(round(false), (vec![key], 2));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_keeps_the_time_hears_of_a_delay_after_a_key_was_due_in_the_hands_of_another() {
        let queue = WorkQueue::new();
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.add_after("a", Duration::from_secs(5));
        let other = queue.clone();
        let waiting = tokio::spawn(async move { other.next().await });
        // It is due now, and with us still.
        tokio::time::sleep(Duration::from_secs(10)).await;
        queue.add_after("b", Duration::from_secs(5));
        let next = tokio::time::timeout(Duration::from_secs(60), waiting).await;
        assert_eq!(next.expect("somebody keeps the time").unwrap(), "b");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_key_waits_is_counted_from_when_it_was_due() {
        let counts = QueueCounts::default();
        let queue = WorkQueue::new().counted(counts.clone());
        queue.add_after("a", Duration::from_secs(5));
        tokio::time::advance(Duration::from_secs(8)).await;
        queue.next().await;
        let mut page = String::new();
        let mut registry = prometheus_client::registry::Registry::default();
        registry.register("waited", "w", counts.waited);
        prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
        assert!(page.contains("waited_sum 3.0\n") && page.contains("waited_count 1\n"), "{page}");
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
