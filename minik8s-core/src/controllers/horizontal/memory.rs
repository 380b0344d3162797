//! What is remembered of an autoscaler between two looks at it.
//!
//! Changes of the last periods, which policies count, are also in an annotation of the object: a controller that starts
//! anew goes on counting. Recommendations are not. As upstream, a start begins the stabilisation windows again with the
//! replicas there are, which only makes it slower: what it would have held back before, it holds back longer.

use super::behavior::{Pace, ScaleEvent};
use super::stabilize::{Recommendation, remember};
use crate::api::Object;
use jiff::Timestamp;
use parking_lot::Mutex;
use std::collections::HashMap;
use tokio::time::Instant;

/// Where the changes of the last periods stand.
pub(super) const EVENTS: &str = "minik8s.io/scale-events";

/// What is remembered of one.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    uid: String,
    pub(super) recent: Vec<Recommendation>,
    pub(super) events: Vec<ScaleEvent>,
}

/// What is remembered, by key.
#[derive(Default)]
pub(super) struct Memory(Mutex<HashMap<String, Known>>);

impl Memory {
    /// What is remembered of an autoscaler; the first look begins with the replicas there are.
    pub(super) fn of(&self, key: &str, autoscaler: &Object, current: i32, now: Timestamp) -> Known {
        let mut all = self.0.lock();
        if let Some(known) = all.get_mut(key).filter(|known| known.uid == autoscaler.meta.uid) {
            known.events.retain(|event| event.at <= now);
            return known.clone();
        }
        let said = autoscaler.meta.annotations.get(EVENTS);
        let mut events: Vec<ScaleEvent> = said.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        // What is of the future was written before the clock was set back, or by somebody else.
        events.retain(|event| event.at <= now);
        let recent = vec![Recommendation { at: Instant::now(), replicas: current }];
        let known = Known { uid: autoscaler.meta.uid.clone(), recent, events };
        all.insert(key.to_owned(), known.clone());
        known
    }

    /// Remembers what was recommended.
    pub(super) fn recommended(&self, key: &str, replicas: i32, pace: &Pace) {
        if let Some(known) = self.0.lock().get_mut(key) {
            remember(&mut known.recent, Recommendation { at: Instant::now(), replicas }, pace);
        }
    }

    /// Remembers a change; answers the annotation that says it.
    pub(super) fn changed(&self, key: &str, change: i32, pace: &Pace, now: Timestamp) -> Option<String> {
        let mut all = self.0.lock();
        let known = all.get_mut(key)?;
        let cutoff = now.saturating_sub(pace.memory()).unwrap_or(Timestamp::MIN);
        known.events.retain(|event| event.at > cutoff);
        known.events.push(ScaleEvent { at: now, change });
        serde_json::to_string(&known.events).ok()
    }

    /// Forgets an autoscaler.
    pub(super) fn remove(&self, key: &str) {
        self.0.lock().remove(key);
    }
}
