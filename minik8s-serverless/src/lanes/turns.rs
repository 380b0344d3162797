//! Callers that wait for their turn, each in a lane.

use super::Lanes;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Turns, of which there are so many at once.
pub(crate) struct Turns(Mutex<State>);

struct State {
    lanes: Lanes,
    /// Who is to be told that it is its turn.
    waiting: HashMap<String, oneshot::Sender<()>>,
    /// How many ever came: each has a number for a name.
    came: u64,
}

impl State {
    fn go_on(&mut self) {
        while let Some((_, key)) = self.lanes.next() {
            if let Some(tell) = self.waiting.remove(&key) {
                // Who does not wait any more gives its turn back as it goes.
                let _ = tell.send(());
            }
        }
    }
}

impl Turns {
    /// So many at once.
    pub(crate) fn new(at_once: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { lanes: Lanes::new(at_once), waiting: HashMap::new(), came: 0 })))
    }

    /// Waits for a turn in a lane. Dropping the future, or what comes of it, gives the place or the turn back.
    pub(crate) async fn take(self: &Arc<Self>, lane: &str) -> Turn {
        let (tell, told) = oneshot::channel();
        let turn = {
            let mut state = self.0.lock();
            state.came += 1;
            let key = state.came.to_string();
            state.waiting.insert(key.clone(), tell);
            state.lanes.add(lane, usize::MAX, &key);
            state.go_on();
            Turn { turns: self.clone(), lane: lane.to_owned(), key }
        };
        // Who is to tell stays until it has told, or this is dropped.
        let _ = told.await;
        turn
    }
}

/// A turn, until this is dropped.
pub(crate) struct Turn {
    turns: Arc<Turns>,
    lane: String,
    key: String,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.turns.0.lock();
        state.waiting.remove(&self.key);
        state.lanes.leave(&self.lane, &self.key);
        state.go_on();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn turns_are_given_back_by_who_ends_and_by_who_waits_no_longer() {
        let turns = Turns::new(2);
        let first = turns.take("a").now_or_never().unwrap();
        let mut second = Box::pin(turns.take("a"));
        assert!((&mut second).now_or_never().is_none(), "half is for others");
        let other = turns.take("b").now_or_never().unwrap();
        let mut third = Box::pin(turns.take("a"));
        assert!((&mut third).now_or_never().is_none());
        drop(second);
        drop(first);
        let third = third.now_or_never().unwrap();
        drop((third, other));
        let state = turns.0.lock();
        assert!(state.waiting.is_empty() && state.lanes.lanes.is_empty() && state.lanes.running == 0);
    }
}
