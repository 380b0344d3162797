//! Work by key, in lanes: each key by itself and never twice at once, in a task of its own.

use super::Lanes;
use async_trait::async_trait;
use minik8s_core::api::ApiResult;
use minik8s_core::client::{Backoff, WorkQueue};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Wait before a key that failed is looked at again.
const AGAIN: Backoff = Backoff::new(Duration::from_millis(5), Duration::from_secs(60));

/// What is done for a key when it has its turn.
#[async_trait]
pub(crate) trait Errand: Send + Sync + 'static {
    /// Does it. Dropped where the controller stops; an error, or a panic, brings the key back to the queue after a while.
    async fn run(&self, key: &str) -> ApiResult<()>;
}

/// Does errands in lanes. Whoever looks at keys of `queue` only adds them here, which takes no time.
pub(crate) struct Crew<E> {
    errand: Arc<E>,
    lanes: Mutex<Lanes>,
    /// How often keys failed in a row; those that are looked at and not added are forgotten.
    failures: Mutex<HashMap<String, u32>>,
    queue: WorkQueue<String>,
    stop: CancellationToken,
}

impl<E: Errand> Crew<E> {
    /// So many errands at once, until `stop`.
    pub(crate) fn new(errand: Arc<E>, at_once: usize, queue: WorkQueue<String>, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self { errand, lanes: Mutex::new(Lanes::new(at_once)), failures: Mutex::default(), queue, stop })
    }

    /// Lets a key wait for its turn in a lane with room for so many at once.
    pub(crate) fn add(self: &Arc<Self>, lane: &str, room: usize, key: &str) {
        self.lanes.lock().add(lane, room, key);
        self.go_on();
    }

    /// Nothing is to be done for a key now: how often it failed does not count any more.
    pub(crate) fn forget(&self, key: &str) {
        self.failures.lock().remove(key);
    }

    /// Begins what may begin.
    fn go_on(self: &Arc<Self>) {
        loop {
            // The lock is not held any more where an errand that was dropped takes it.
            let next = self.lanes.lock().next();
            let Some((lane, key)) = next else { return };
            let under = Under { crew: self.clone(), lane, key, is_done: false };
            tokio::spawn(under.go());
        }
    }

    fn again(&self, key: &str) {
        let failures = {
            let mut failures = self.failures.lock();
            let count = failures.entry(key.to_owned()).or_default();
            *count = count.saturating_add(1);
            *count
        };
        self.queue.add_after(key.to_owned(), AGAIN.delay(failures));
    }
}

/// An errand under way, which leaves its lane when this is dropped.
struct Under<E: Errand> {
    crew: Arc<Crew<E>>,
    lane: String,
    key: String,
    is_done: bool,
}

impl<E: Errand> Under<E> {
    async fn go(mut self) {
        tokio::select! {
            biased;
            () = self.crew.stop.cancelled() => {}
            result = self.crew.errand.run(&self.key) => match result {
                Ok(()) => self.is_done = true,
                Err(error) => tracing::debug!(%error, key = self.key, "it will be looked at again"),
            }
        }
    }
}

impl<E: Errand> Drop for Under<E> {
    fn drop(&mut self) {
        self.crew.lanes.lock().done(&self.lane, &self.key);
        if self.crew.stop.is_cancelled() {
            return;
        }
        if self.is_done {
            self.crew.forget(&self.key);
        } else {
            self.crew.again(&self.key);
        }
        self.crew.go_on();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minik8s_core::api::ApiError;

    /// Fails, panics, and then does it.
    #[derive(Default)]
    struct Stubborn(Mutex<HashMap<String, usize>>);

    #[async_trait]
    impl Errand for Stubborn {
        async fn run(&self, key: &str) -> ApiResult<()> {
            let times = {
                let mut times = self.0.lock();
                let times = times.entry(key.to_owned()).or_default();
                *times += 1;
                *times
            };
            match times {
                1 => Err(ApiError::internal("not yet")),
                2 => panic!("as the test wants it"),
                _ => Ok(()),
            }
        }
    }

    #[tokio::test]
    async fn what_fails_or_panics_comes_again_and_leaves_its_lane() {
        let queue = WorkQueue::new();
        let stubborn = Arc::new(Stubborn::default());
        let crew = Crew::new(stubborn.clone(), 1, queue.clone(), CancellationToken::new());
        crew.add("a", 1, "k");
        for failed in 1..=2 {
            assert_eq!(queue.next().await, "k");
            assert_eq!(crew.failures.lock().get("k"), Some(&failed));
            queue.done(&"k".to_owned());
            crew.add("a", 1, "k");
        }
        // There is room for one: another one's end says that the first has ended.
        crew.add("b", 1, "other");
        assert_eq!(queue.next().await, "other");
        assert_eq!(stubborn.0.lock().get("k"), Some(&3));
        assert_eq!(crew.failures.lock().get("k"), None);
        crew.forget("other");
        assert!(crew.failures.lock().is_empty());
    }
}
