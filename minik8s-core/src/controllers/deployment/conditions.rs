//! What a deployment's status says. Pure.

use super::numbers::{available, size, surge_and_unavailable, wanted};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::sync::Arc;
use std::time::Duration;

const PROGRESSING: &str = "Progressing";
/// A deadline of this many seconds is none.
const NO_DEADLINE: i32 = i32::MAX;

/// What a look at the deployment leads to, beyond its numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The present set is about to be made.
    Created(String),
    /// The present set was found among those that exist.
    Found(String),
    /// Nothing of the kind.
    None,
}

struct Report<'a> {
    deployment: &'a Deployment,
    old: DeploymentStatus,
    new: DeploymentStatus,
    now: Timestamp,
}

/// The status now, and how long until the deadline for progress runs out.
pub fn status(
    deployment: &Deployment,
    new_set: Option<&ReplicaSet>,
    sets: &[Arc<ReplicaSet>],
    news: &News,
    now: Timestamp,
) -> (DeploymentStatus, Option<Duration>) {
    let old = deployment.status.clone().unwrap_or_default();
    let new = counts(deployment, new_set, sets, &old);
    let mut report = Report { deployment, old, new, now };
    report.availability();
    report.pause();
    report.news(news);
    let name = new_set.and_then(|s| s.metadata.name.clone());
    let paused = deployment.spec.as_ref().and_then(|s| s.paused) == Some(true);
    if !paused {
        report.progress(name.as_deref());
    }
    report.failure(new_set, sets);
    let left = if paused { None } else { report.until_deadline() };
    (report.new, left)
}

fn counts(
    deployment: &Deployment,
    new_set: Option<&ReplicaSet>,
    sets: &[Arc<ReplicaSet>],
    old: &DeploymentStatus,
) -> DeploymentStatus {
    let sum = |field: fn(&ReplicaSet) -> i32| sets.iter().map(|s| field(s)).sum::<i32>();
    let up = sum(available);
    DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: Some(sum(made)),
        updated_replicas: Some(new_set.map_or(0, made)),
        ready_replicas: Some(sum(|s| s.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0))),
        available_replicas: Some(up),
        unavailable_replicas: Some((sum(size) - up).max(0)),
        terminating_replicas: Some(sum(|s| s.status.as_ref().and_then(|s| s.terminating_replicas).unwrap_or(0))),
        collision_count: old.collision_count,
        conditions: old.conditions.clone(),
    }
}

fn made(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |s| s.replicas)
}

/// True where every wanted replica is of the present template and available, and nothing else runs.
pub fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let want = Some(wanted(deployment));
    status.updated_replicas == want
        && status.replicas == want
        && status.available_replicas == want
        && status.observed_generation >= deployment.metadata.generation
}

impl Report<'_> {
    fn condition(&self, kind: &str) -> Option<&DeploymentCondition> {
        self.new.conditions.iter().flatten().find(|c| c.type_ == kind)
    }

    fn reason(&self) -> Option<&str> {
        self.condition(PROGRESSING).and_then(|c| c.reason.as_deref())
    }

    /// Sets a condition. Where status and reason are those it has, nothing changes, not even the time, unless `touch`.
    fn set(&mut self, kind: &str, status: &str, reason: &str, message: String, touch: bool) {
        let old = self.condition(kind).cloned();
        let same = old.as_ref().is_some_and(|c| c.status == status && c.reason.as_deref() == Some(reason));
        if same && !touch {
            return;
        }
        let since = old.filter(|c| c.status == status).and_then(|c| c.last_transition_time);
        self.remove(kind);
        self.new.conditions.get_or_insert_default().push(DeploymentCondition {
            type_: kind.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_update_time: Some(Time(self.now)),
            last_transition_time: Some(since.unwrap_or(Time(self.now))),
        });
    }

    fn remove(&mut self, kind: &str) {
        if let Some(conditions) = &mut self.new.conditions {
            conditions.retain(|c| c.type_ != kind);
        }
        self.new.conditions = self.new.conditions.take().filter(|c| !c.is_empty());
    }

    fn availability(&mut self) {
        let least = wanted(self.deployment) - surge_and_unavailable(self.deployment).1;
        if self.new.available_replicas.unwrap_or(0) >= least {
            let text = "Deployment has minimum availability.".into();
            self.set("Available", "True", "MinimumReplicasAvailable", text, false);
        } else {
            let text = "Deployment does not have minimum availability.".into();
            self.set("Available", "False", "MinimumReplicasUnavailable", text, false);
        }
    }

    fn has_deadline(&self) -> bool {
        self.deadline().is_some()
    }

    fn deadline(&self) -> Option<i32> {
        let spec = self.deployment.spec.as_ref();
        spec.and_then(|s| s.progress_deadline_seconds).filter(|&s| s != NO_DEADLINE)
    }

    fn pause(&mut self) {
        let paused = self.deployment.spec.as_ref().and_then(|s| s.paused) == Some(true);
        let told = self.reason() == Some("DeploymentPaused");
        if !self.has_deadline() || self.reason() == Some("ProgressDeadlineExceeded") {
            return;
        }
        if paused && !told {
            self.set(PROGRESSING, "Unknown", "DeploymentPaused", "Deployment is paused".into(), false);
        } else if !paused && told {
            self.set(PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed".into(), false);
        }
    }

    fn news(&mut self, news: &News) {
        if !self.has_deadline() {
            return;
        }
        match news {
            News::None => {}
            News::Created(name) => {
                let text = format!("Created new replica set \"{name}\"");
                self.set(PROGRESSING, "True", "NewReplicaSetCreated", text, true);
            }
            News::Found(name) => {
                let text = format!("Found new replica set \"{name}\"");
                self.set(PROGRESSING, "True", "FoundNewReplicaSet", text, true);
            }
        }
    }

    fn progress(&mut self, name: Option<&str>) {
        if !self.has_deadline() {
            return self.remove(PROGRESSING);
        }
        let subject = match name {
            Some(set) => format!("ReplicaSet \"{set}\""),
            None => format!("Deployment \"{}\"", self.deployment.metadata.name.as_deref().unwrap_or_default()),
        };
        let settled = self.new.replicas == self.new.updated_replicas && self.reason() == Some("NewReplicaSetAvailable");
        if settled {
            return;
        }
        if is_complete(self.deployment, &self.new) {
            let text = format!("{subject} has successfully progressed.");
            self.set(PROGRESSING, "True", "NewReplicaSetAvailable", text, false);
        } else if self.moved() {
            self.set(PROGRESSING, "True", "ReplicaSetUpdated", format!("{subject} is progressing."), true);
        } else if self.is_late() {
            let text = format!("{subject} has timed out progressing.");
            self.set(PROGRESSING, "False", "ProgressDeadlineExceeded", text, false);
        }
    }

    /// True where the numbers are better than they were.
    fn moved(&self) -> bool {
        let n = |v: Option<i32>| v.unwrap_or(0);
        let (old, new) = (&self.old, &self.new);
        let left = |s: &DeploymentStatus| n(s.replicas) - n(s.updated_replicas);
        n(new.updated_replicas) > n(old.updated_replicas)
            || left(new) < left(old)
            || n(new.ready_replicas) > n(old.ready_replicas)
            || n(new.available_replicas) > n(old.available_replicas)
    }

    fn due(&self) -> Option<Timestamp> {
        let deadline = self.deadline()?;
        let since = self.condition(PROGRESSING)?.last_update_time.as_ref()?.0;
        since.saturating_add(SignedDuration::from_secs(deadline.into())).ok()
    }

    fn is_late(&self) -> bool {
        match self.reason() {
            None | Some("NewReplicaSetAvailable") => false,
            Some("ProgressDeadlineExceeded") => true,
            Some(_) => self.due().is_some_and(|due| due < self.now),
        }
    }

    fn until_deadline(&self) -> Option<Duration> {
        if is_complete(self.deployment, &self.new) || self.reason() == Some("ProgressDeadlineExceeded") {
            return None;
        }
        let left = Duration::try_from(self.due()?.duration_since(self.now)).unwrap_or_default();
        // One second more, so that the deadline has passed for certain.
        Some(left + Duration::from_secs(1))
    }

    /// A set that cannot make pods is the deployment's failure too.
    fn failure(&mut self, new_set: Option<&ReplicaSet>, sets: &[Arc<ReplicaSet>]) {
        let of = |set: &ReplicaSet| {
            let conditions = set.status.as_ref().and_then(|s| s.conditions.clone());
            conditions.into_iter().flatten().find(|c| c.type_ == "ReplicaFailure" && c.status == "True")
        };
        let failed = new_set.and_then(of).or_else(|| sets.iter().find_map(|s| of(s)));
        match failed {
            Some(c) => {
                let (reason, message) = (c.reason.unwrap_or_default(), c.message.unwrap_or_default());
                self.set("ReplicaFailure", "True", &reason, message, false);
            }
            None => self.remove("ReplicaFailure"),
        }
    }
}

/// The status of a deployment whose new set could not be made.
pub fn create_failed(deployment: &Deployment, new: DeploymentStatus, why: &str, now: Timestamp) -> DeploymentStatus {
    let mut report = Report { deployment, old: DeploymentStatus::default(), new, now };
    if report.has_deadline() {
        report.set(PROGRESSING, "False", "ReplicaSetCreateError", why.to_owned(), false);
    }
    report.new
}

/// True where a status says nothing new: absent numbers are zeros.
pub fn says_the_same(old: Option<&DeploymentStatus>, new: &DeploymentStatus) -> bool {
    let Some(old) = old else { return false };
    let filled = |s: &DeploymentStatus| DeploymentStatus {
        replicas: Some(s.replicas.unwrap_or(0)),
        updated_replicas: Some(s.updated_replicas.unwrap_or(0)),
        ready_replicas: Some(s.ready_replicas.unwrap_or(0)),
        available_replicas: Some(s.available_replicas.unwrap_or(0)),
        unavailable_replicas: Some(s.unavailable_replicas.unwrap_or(0)),
        terminating_replicas: Some(s.terminating_replicas.unwrap_or(0)),
        ..s.clone()
    };
    filled(old) == filled(new)
}
