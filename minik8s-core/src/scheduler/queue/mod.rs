//! Pods that wait for a node: those to try now, those to try later, and those to try when something changes. Pure: the
//! caller brings the time.
//!
//! Each pod stands in one of these places, each of which is ordered by what takes pods out of it: rank, time, or the
//! change that would help. No call looks at pods that it does not move.

#[cfg(test)]
mod tests;
mod timers;

use super::{ClusterEvent, PodInfo};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use timers::{Due, Timers};
use tokio::time::Instant;

/// First wait after a failed try; doubles with each further one.
const BACKOFF_START: Duration = Duration::from_secs(1);
/// Longest wait.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Even without a change that is known to help, a pod is tried again after this long.
const FLUSH_AFTER: Duration = Duration::from_secs(300);

/// What a change means to a pod that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Nothing.
    Stay,
    /// There may be room for it: it is tried again, once its back-off is over.
    Again,
    /// The room that was being made for it is there, and is kept from others until it comes: it is tried at once.
    AtOnce,
}

/// The order in which pods are tried: the highest priority, then the earliest.
type Rank = (Reverse<i32>, u64);

#[derive(Clone)]
enum Place {
    Active(Rank),
    /// Popped, and not answered yet.
    Tried,
    BackOff(Due),
    /// Until one of these events, or the flush.
    Unschedulable {
        flush: Due,
        helped_by: Vec<ClusterEvent>,
        refused_by: Arc<[&'static str]>,
    },
}

struct Waiting {
    pod: Arc<PodInfo>,
    attempts: u32,
    last_try: Option<Instant>,
    place: Place,
}

impl Waiting {
    /// When it may be tried again; `None` where it never was.
    fn ready_at(&self) -> Option<Instant> {
        let wait = BACKOFF_START * 2u32.saturating_pow(self.attempts.saturating_sub(1).min(8));
        self.last_try.map(|at| at + wait.min(BACKOFF_MAX))
    }
}

/// Pods that wait for a node, by uid.
#[derive(Default)]
pub struct SchedulingQueue {
    /// Every pod and where it stands: the canonical copy, the sets below are its indices.
    pods: HashMap<Arc<str>, Waiting>,
    active: BTreeMap<Rank, Arc<str>>,
    backing_off: Timers,
    /// The unschedulable ones, by when they are tried although nothing helped.
    flushes: Timers,
    /// The unschedulable ones, by what may help.
    helped_by: BTreeMap<ClusterEvent, BTreeSet<Arc<str>>>,
    arrivals: u64,
}

impl SchedulingQueue {
    /// Adds a pod, or replaces what is known about it. A changed pod is tried at once.
    pub fn put(&mut self, pod: Arc<PodInfo>) {
        let uid: Arc<str> = Arc::from(pod.uid.as_str());
        match self.pods.get_mut(&uid) {
            None => {
                self.pods.insert(uid.clone(), Waiting { pod, attempts: 0, last_try: None, place: Place::Tried });
                self.activate(&uid);
            }
            Some(known) => {
                let changed = !known.pod.asks_the_same(&pod);
                known.pod = pod;
                if changed && !matches!(known.place, Place::Active(_)) {
                    self.activate(&uid);
                }
            }
        }
    }

    /// Forgets a pod: it was placed, or deleted.
    pub fn remove(&mut self, uid: &str) {
        if let Some((uid, waiting)) = self.pods.remove_entry(uid) {
            self.unindex(&uid, waiting.place);
        }
    }

    /// Takes the pod to try next: the highest priority, then the earliest. It stays known until it is removed,
    /// and must be answered by [`remove`](Self::remove), [`retry`](Self::retry) or [`park`](Self::park).
    pub fn pop(&mut self, now: Instant) -> Option<Arc<PodInfo>> {
        while let Some(uid) = self.backing_off.due(now).or_else(|| self.flushes.due(now)) {
            self.activate(&uid);
        }
        let (_, uid) = self.active.pop_first()?;
        let waiting = self.pods.get_mut(&uid)?;
        waiting.attempts += 1;
        waiting.last_try = Some(now);
        waiting.place = Place::Tried;
        Some(waiting.pod.clone())
    }

    /// The try failed for a reason outside the pod: again after a back-off.
    pub fn retry(&mut self, uid: &str) {
        if let Some((uid, waiting)) = self.pods.get_key_value(uid)
            && let Some(at) = waiting.ready_at()
        {
            let uid = uid.clone();
            self.move_to(&uid, Place::BackOff(Due::new(at, &uid)));
        }
    }

    /// No node fits, as these filters say: again after an event that `may_help` it, not before its back-off is over.
    pub fn park(
        &mut self,
        uid: &str,
        now: Instant,
        refused_by: Arc<[&'static str]>,
        may_help: impl Fn(ClusterEvent) -> bool,
    ) {
        if let Some((uid, _)) = self.pods.get_key_value(uid) {
            let uid = uid.clone();
            let flush = Due::new(now + FLUSH_AFTER, &uid);
            let helped_by = ClusterEvent::ALL.into_iter().filter(|event| may_help(*event)).collect();
            self.move_to(&uid, Place::Unschedulable { flush, helped_by, refused_by });
        }
    }

    /// Something changed: `means` says what that is to each of the pods that such an event may help. It is asked with the
    /// pod and the filters that refused it.
    pub fn wake(&mut self, event: ClusterEvent, means: impl Fn(&PodInfo, &[&'static str]) -> Wake) {
        let Some(waiting) = self.helped_by.get(&event) else { return };
        let woken = waiting.iter().filter_map(|uid| match self.pods.get(uid) {
            Some(Waiting { pod, place: Place::Unschedulable { refused_by, .. }, .. }) => {
                let wake = means(pod, refused_by);
                (wake != Wake::Stay).then(|| (uid.clone(), wake))
            }
            _ => None,
        });
        for (uid, wake) in woken.collect::<Vec<_>>() {
            if wake == Wake::AtOnce { self.activate(&uid) } else { self.retry(&uid) }
        }
    }

    /// When `pop` may have something that it has not now; `None` where only a change can help.
    pub fn next_wake(&self) -> Option<Instant> {
        self.backing_off.first().into_iter().chain(self.flushes.first()).min()
    }

    /// True where the pod waits here.
    pub fn contains(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    /// Number of pods that wait.
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// True where no pod waits.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    fn activate(&mut self, uid: &Arc<str>) {
        if let Some(waiting) = self.pods.get(uid) {
            let rank = (Reverse(waiting.pod.priority), self.arrivals);
            self.arrivals += 1;
            self.move_to(uid, Place::Active(rank));
        }
    }

    /// The one way from place to place, so that the indices stay true.
    fn move_to(&mut self, uid: &Arc<str>, place: Place) {
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        let old = std::mem::replace(&mut waiting.place, place.clone());
        self.unindex(uid, old);
        match place {
            Place::Tried => {}
            Place::Active(rank) => drop(self.active.insert(rank, uid.clone())),
            Place::BackOff(due) => self.backing_off.insert(due),
            Place::Unschedulable { flush, helped_by, .. } => {
                self.flushes.insert(flush);
                for event in helped_by {
                    self.helped_by.entry(event).or_default().insert(uid.clone());
                }
            }
        }
    }

    fn unindex(&mut self, uid: &Arc<str>, place: Place) {
        match place {
            Place::Tried => {}
            Place::Active(rank) => drop(self.active.remove(&rank)),
            Place::BackOff(due) => self.backing_off.remove(&due),
            Place::Unschedulable { flush, helped_by, .. } => {
                self.flushes.remove(&flush);
                for event in helped_by {
                    if let Some(pods) = self.helped_by.get_mut(&event) {
                        pods.remove(uid);
                        if pods.is_empty() {
                            self.helped_by.remove(&event);
                        }
                    }
                }
            }
        }
    }
}
