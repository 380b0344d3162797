//! What happens to a pod that fits nowhere: it is told why, and room is made for it where it may displace others.

use super::SchedulerDriver;
use super::errands::{Errand, Said};
use super::looks::said_already;
use crate::client::{EventType, reference_of};
use crate::clock::rfc3339;
use crate::scheduler::{Diagnosis, NoRoom, PodInfo, Preemption, Scheduler};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::time::Instant;

impl SchedulerDriver {
    pub(super) fn refuse(&mut self, pod: &Arc<PodInfo>, why: &Diagnosis, scheduler: &dyn Scheduler) {
        let mut message = why.to_string();
        let room = scheduler.preempt(&self.snapshot, pod, why);
        let nominated = match &room {
            Ok(room) => room.node.clone(),
            // Nobody else shall take the room that is being made.
            Err(NoRoom::Waiting) => self.snapshot.nomination(&pod.uid).unwrap_or_default().to_owned(),
            Err(_) => String::new(),
        };
        match &room {
            Ok(room) => self.displace(pod, room),
            Err(none) => message.push_str(&none.to_string()),
        }
        let kept = self.room_kept_elsewhere(&pod.uid, &nominated);
        let nominee = Arc::new(PodInfo { nominated: nominated.clone(), ..(**pod).clone() });
        self.snapshot.nominate(nominee);
        let refused_by: BTreeSet<&'static str> = why.filters().collect();
        let refused_by = refused_by.into_iter().collect();
        self.queue.park(&pod.uid, Instant::now(), refused_by, |event| scheduler.may_help(why, event));
        let since = rfc3339(self.clock.now());
        self.tell(pod, Said { uid: pod.uid.clone(), message, nominated, since });
        self.give_back(kept);
    }

    /// Says it in an event and in the pod's status, once.
    fn tell(&self, pod: &Arc<PodInfo>, said: Said) {
        let Some(object) = self.follows.pods.get(&pod.key()) else { return };
        let known = said_already(&object, &said.message);
        if known && PodInfo::from_pod(&object).nominated == said.nominated {
            return;
        }
        if !known {
            let (about, message) = (reference_of(&*object), said.message.clone());
            self.events.event(&about, EventType::Warning, "FailedScheduling", message);
        }
        self.errands.put(pod.key(), Errand::Say(said));
    }

    /// Sends the victims away, each with its own grace, and takes the room from lesser pods that waited for it.
    fn displace(&mut self, pod: &Arc<PodInfo>, room: &Preemption) {
        let told: Vec<_> = room.victims.iter().filter(|victim| !self.snapshot.is_leaving(victim)).collect();
        for victim in told {
            if let Some(object) = self.follows.pods.get(&victim.key()) {
                let note = format!("Preempted by pod {} on node {}", pod.uid, room.node);
                self.events.event(&reference_of(&*object), EventType::Normal, "Preempted", note);
            }
            self.snapshot.leaves(&victim.uid);
            self.errands.put(victim.key(), Errand::Remove(victim.clone(), rfc3339(self.clock.now())));
        }
        let waiting = self.snapshot.nominated(&room.node).into_iter().flat_map(|pods| pods.values());
        let lesser: Vec<_> = waiting.filter(|other| other.priority < pod.priority).cloned().collect();
        for other in lesser {
            self.snapshot.withdraw(&other.uid);
            self.queue.retry(&other.uid);
            self.errands.put(other.key(), Errand::Forget(other));
        }
    }
}
