//! Pods that wait for a node: those to try now, those to try later, and those to try when something changes. Pure: the
//! caller brings the time.

use super::{ClusterEvent, Diagnosis, PodInfo};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// First wait after a failed try; doubles with each further one.
const BACKOFF_START: Duration = Duration::from_secs(1);
/// Longest wait.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Even without a change that is known to help, a pod is tried again after this long.
const FLUSH_AFTER: Duration = Duration::from_secs(300);

enum Place {
    Active((std::cmp::Reverse<i32>, u64)),
    BackOff(Instant),
    Unschedulable { since: Instant, why: Diagnosis },
}

struct Waiting {
    pod: Arc<PodInfo>,
    attempts: u32,
    last_try: Option<Instant>,
    place: Place,
}

impl Waiting {
    /// When it may be tried again.
    fn ready_at(&self) -> Option<Instant> {
        let wait = BACKOFF_START * 2u32.saturating_pow(self.attempts.saturating_sub(1).min(8));
        self.last_try.map(|at| at + wait.min(BACKOFF_MAX))
    }
}

/// Pods that wait for a node, by uid.
#[derive(Default)]
pub struct SchedulingQueue {
    pods: HashMap<String, Waiting>,
    active: BTreeMap<(std::cmp::Reverse<i32>, u64), String>,
    arrivals: u64,
}

impl SchedulingQueue {
    /// Adds a pod, or replaces what is known about it. A changed pod is tried at once.
    pub fn put(&mut self, pod: Arc<PodInfo>) {
        let uid = pod.uid.clone();
        if let Some(known) = self.pods.get_mut(&uid) {
            let changed = *known.pod != *pod;
            known.pod = pod;
            if changed && !matches!(known.place, Place::Active(_)) {
                self.activate(&uid);
            }
            return;
        }
        let place = Place::BackOff(Instant::now());
        self.pods.insert(uid.clone(), Waiting { pod, attempts: 0, last_try: None, place });
        self.activate(&uid);
    }

    /// Forgets a pod: it was placed, or deleted.
    pub fn remove(&mut self, uid: &str) {
        if let Some(Waiting { place: Place::Active(rank), .. }) = self.pods.remove(uid) {
            self.active.remove(&rank);
        }
    }

    /// Takes the pod to try next: the highest priority, then the earliest. It stays known until it is removed,
    /// and must be answered by `remove`, [`retry`](Self::retry) or [`park`](Self::park).
    pub fn pop(&mut self, now: Instant) -> Option<Arc<PodInfo>> {
        self.wake_due(now);
        let (_, uid) = self.active.pop_first()?;
        let waiting = self.pods.get_mut(&uid)?;
        waiting.attempts += 1;
        waiting.last_try = Some(now);
        waiting.place = Place::BackOff(now + BACKOFF_MAX);
        Some(waiting.pod.clone())
    }

    /// The try failed for a reason outside the pod: again after a back-off.
    pub fn retry(&mut self, uid: &str) {
        if let Some(waiting) = self.pods.get_mut(uid)
            && let Some(at) = waiting.ready_at()
        {
            waiting.place = Place::BackOff(at);
        }
    }

    /// No node fits: again when something changes that may help.
    pub fn park(&mut self, uid: &str, why: Diagnosis, now: Instant) {
        if let Some(waiting) = self.pods.get_mut(uid) {
            waiting.place = Place::Unschedulable { since: now, why };
        }
    }

    /// Something changed: pods that it may help are tried again, not before their back-off is over.
    pub fn wake(&mut self, event: ClusterEvent, may_help: impl Fn(&PodInfo, &Diagnosis, ClusterEvent) -> bool) {
        for waiting in self.pods.values_mut() {
            let helped = match &waiting.place {
                Place::Unschedulable { why, .. } => may_help(&waiting.pod, why, event),
                _ => false,
            };
            if helped {
                waiting.place = Place::BackOff(waiting.ready_at().unwrap_or_else(Instant::now));
            }
        }
    }

    /// When `pop` may have something that it has not now; `None` where only a change can help.
    pub fn next_wake(&self) -> Option<Instant> {
        let due = |w: &Waiting| match &w.place {
            Place::Active(_) => None,
            Place::BackOff(at) => Some(*at),
            Place::Unschedulable { since, .. } => Some(*since + FLUSH_AFTER),
        };
        self.pods.values().filter_map(due).min()
    }

    /// Number of pods that wait.
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// True where no pod waits.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    fn wake_due(&mut self, now: Instant) {
        let due = |w: &Waiting| match &w.place {
            Place::Active(_) => false,
            Place::BackOff(at) => *at <= now,
            Place::Unschedulable { since, .. } => *since + FLUSH_AFTER <= now,
        };
        let uids: Vec<String> = self.pods.iter().filter(|(_, w)| due(w)).map(|(uid, _)| uid.clone()).collect();
        for uid in uids {
            self.activate(&uid);
        }
    }

    fn activate(&mut self, uid: &str) {
        if let Some(waiting) = self.pods.get_mut(uid) {
            let rank = (std::cmp::Reverse(waiting.pod.priority), self.arrivals);
            self.arrivals += 1;
            waiting.place = Place::Active(rank);
            self.active.insert(rank, uid.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, priority: i32) -> Arc<PodInfo> {
        Arc::new(PodInfo { uid: uid.into(), priority, ..PodInfo::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn the_highest_priority_goes_first_then_the_earliest() {
        let mut q = SchedulingQueue::default();
        for (uid, priority) in [("a", 0), ("b", 5), ("c", 5)] {
            q.put(pod(uid, priority));
        }
        let now = Instant::now();
        let order: Vec<String> = std::iter::from_fn(|| q.pop(now)).map(|p| p.uid.clone()).collect();
        assert_eq!(order, ["b", "c", "a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_parked_pod_waits_for_a_change_that_helps_and_for_its_back_off() {
        let mut q = SchedulingQueue::default();
        q.put(pod("a", 0));
        let t0 = Instant::now();
        assert!(q.pop(t0).is_some());
        q.park("a", Diagnosis::default(), t0);
        q.wake(ClusterEvent::PodPlaced, |_, _, e| e == ClusterEvent::PodLeft);
        assert!(q.pop(t0 + Duration::from_secs(60)).is_none());
        q.wake(ClusterEvent::PodLeft, |_, _, e| e == ClusterEvent::PodLeft);
        assert!(q.pop(t0).is_none(), "not before its back-off is over");
        assert_eq!(q.next_wake(), Some(t0 + Duration::from_secs(1)));
        assert!(q.pop(t0 + Duration::from_secs(1)).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn back_off_doubles_to_its_bound_and_a_changed_pod_is_tried_at_once() {
        let mut q = SchedulingQueue::default();
        q.put(pod("a", 0));
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..6 {
            assert!(q.pop(now).is_some());
            q.retry("a");
            let next = q.next_wake().unwrap();
            waits.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
        assert!(q.pop(now).is_some());
        q.retry("a");
        q.put(pod("a", 7));
        assert!(q.pop(now).is_some());
        q.remove("a");
        assert!(q.is_empty() && q.pop(now).is_none());
    }
}
