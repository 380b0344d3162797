//! Answers that are given out again for a moment, and questions that all who ask meanwhile share.

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What nobody has asked about for this long is forgotten.
const FORGET: Duration = Duration::from_secs(120);

struct Known<T: Clone> {
    /// The last answer and when it came; also a refusal, so that who hangs is not asked by everybody in turn.
    last: Option<(Instant, T)>,
    /// The question that is on its way.
    asking: Option<Shared<BoxFuture<'static, T>>>,
    asked: Instant,
}

/// Answers by key. Cheap to clone; clones share what is known.
#[derive(Clone)]
pub(crate) struct Asked<T: Clone> {
    /// For how long an answer is given out again.
    fresh: Duration,
    /// The canonical copy; never held across an await.
    known: Arc<Mutex<HashMap<String, Known<T>>>>,
}

impl<T: Clone + Send + Sync + 'static> Asked<T> {
    pub(crate) fn new(fresh: Duration) -> Self {
        Self { fresh, known: Arc::default() }
    }

    /// The answer for a key: a fresh one, that of a question on its way, or that of `ask`, which must end in time.
    /// `lost` is what is answered where it panicked.
    pub(crate) async fn get(&self, key: &str, ask: impl FnOnce() -> BoxFuture<'static, T>, lost: fn() -> T) -> T {
        let question = match self.begin(key, ask, lost) {
            Ok(answer) => return answer,
            Err(question) => question,
        };
        question.await
    }

    fn begin(
        &self,
        key: &str,
        ask: impl FnOnce() -> BoxFuture<'static, T>,
        lost: fn() -> T,
    ) -> Result<T, Shared<BoxFuture<'static, T>>> {
        let now = Instant::now();
        let mut known = self.known.lock();
        known.retain(|_, k| now.duration_since(k.asked) < FORGET);
        let new = || Known { last: None, asking: None, asked: now };
        let one = known.entry(key.to_owned()).or_insert_with(new);
        one.asked = now;
        if let Some((_, answer)) = one.last.as_ref().filter(|(at, _)| now.duration_since(*at) < self.fresh) {
            return Ok(answer.clone());
        }
        let question = one.asking.get_or_insert_with(|| {
            let (this, key, asking) = (self.clone(), key.to_owned(), ask());
            // On a task of its own: it ends in time also where everybody who asked has gone.
            let task = tokio::spawn(async move {
                // Where it panics, the key must not keep a question that nobody asks any more.
                let answer = AssertUnwindSafe(asking).catch_unwind().await.unwrap_or_else(|_| lost());
                if let Some(known) = this.known.lock().get_mut(&key) {
                    known.last = Some((Instant::now(), answer.clone()));
                    known.asking = None;
                }
                answer
            });
            async move { task.await.unwrap_or_else(|_| lost()) }.boxed().shared()
        });
        Err(question.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_question_that_panics_is_asked_again() {
        let asked = Asked::new(Duration::from_secs(1));
        let fails = || async { panic!("on purpose") }.boxed();
        assert_eq!(asked.get("k", fails, || "lost").await, "lost");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(asked.get("k", || async { "well" }.boxed(), || "lost").await, "well");
    }
}
