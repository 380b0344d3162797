//! What a deployment needs now: `(deployment, its sets, time) → plan`. Pure.

use super::conditions::{self, News};
use super::numbers::{available, is_recreate, new_size, share, shrink_old, size, surge_and_unavailable, wanted};
use super::template::{self, DESIRED, MAX, REVISION, annotated, revision};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A change of an existing set.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Its place in the input.
    pub set: usize,
    /// Its new size; what it was is kept for the event.
    pub size: i32,
    /// All its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its new time before pods count as available.
    pub min_ready: Option<i32>,
}

/// What is to be done.
#[derive(Debug, Default)]
pub struct Plan {
    /// Make this set.
    pub create: Option<Box<ReplicaSet>>,
    /// Change these.
    pub changes: Vec<Change>,
    /// Delete these, by their place in the input.
    pub delete: Vec<usize>,
    /// The deployment's revision annotation, where it must change.
    pub revision: Option<String>,
    /// What the status says.
    pub status: DeploymentStatus,
    /// Look again after this long.
    pub again: Option<Duration>,
}

struct Planner<'a> {
    deployment: &'a Deployment,
    sets: &'a [Arc<ReplicaSet>],
    new: Option<usize>,
    plan: Plan,
    news: News,
}

/// Decides. `sets` are the deployment's own; `old_pods` says that pods of old sets still run.
pub fn plan(deployment: &Deployment, sets: &[Arc<ReplicaSet>], old_pods: bool, now: Timestamp) -> Plan {
    let new = template::find_new(deployment, sets);
    let mut planner = Planner { deployment, sets, new, plan: Plan::default(), news: News::None };
    if deployment.metadata.deletion_timestamp.is_none() {
        planner.decide(old_pods);
    }
    let new_set = planner.new.map(|i| &*sets[i]);
    let (status, again) = conditions::status(deployment, new_set, sets, &planner.news, now);
    Plan { status, again, ..planner.plan }
}

impl Planner<'_> {
    fn decide(&mut self, old_pods: bool) {
        let paused = self.deployment.spec.as_ref().and_then(|s| s.paused) == Some(true);
        self.number();
        if paused || self.was_scaled() {
            self.scale();
            if paused {
                self.clean_up();
            }
            return;
        }
        if is_recreate(self.deployment) {
            self.recreate(old_pods)
        } else {
            self.roll()
        }
        let calm = self.plan.create.is_none() && self.plan.changes.is_empty();
        let complete = self.deployment.status.as_ref().is_some_and(|s| conditions::is_complete(self.deployment, s));
        if calm && complete {
            self.clean_up();
        }
    }

    fn old(&self) -> Vec<usize> {
        (0..self.sets.len()).filter(|&i| Some(i) != self.new).collect()
    }

    fn pick(&self, which: &[usize]) -> Vec<Arc<ReplicaSet>> {
        which.iter().map(|&i| self.sets[i].clone()).collect()
    }

    fn newest_revision(&self) -> i64 {
        self.old().into_iter().map(|i| revision(&self.sets[i])).max().unwrap_or(0) + 1
    }

    /// Keeps the present set's number, annotations and settings right, and the deployment's number.
    fn number(&mut self) {
        let Some(i) = self.new else { return };
        let set = self.sets[i].clone();
        let newest = self.newest_revision();
        let annotations = template::current_annotations(self.deployment, &set, newest);
        let min_ready = self.deployment.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0);
        let has = set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0);
        let number = annotations.get(REVISION).cloned();
        if set.metadata.annotations.as_ref() != Some(&annotations) || has != min_ready {
            self.change(i).annotations = annotations;
            self.change(i).min_ready = Some(min_ready);
        }
        let told = self.deployment.metadata.annotations.as_ref().and_then(|a| a.get(REVISION)).cloned();
        if number.is_some() && told != number {
            self.plan.revision = number;
        }
        let conditions = self.deployment.status.as_ref().and_then(|s| s.conditions.as_ref());
        if !conditions.into_iter().flatten().any(|c| c.type_ == "Progressing") {
            self.news = News::Found(set.metadata.name.clone().unwrap_or_default());
        }
    }

    /// The change of a set, begun as "no change".
    fn change(&mut self, set: usize) -> &mut Change {
        let changes = &mut self.plan.changes;
        if let Some(at) = changes.iter().position(|c| c.set == set) {
            return &mut changes[at];
        }
        let annotations = self.sets[set].metadata.annotations.clone().unwrap_or_default();
        changes.push(Change { set, size: size(&self.sets[set]), annotations, min_ready: None });
        let last = changes.len() - 1;
        &mut changes[last]
    }

    fn desired(&self) -> (i32, i32) {
        let want = wanted(self.deployment);
        (want, want + surge_and_unavailable(self.deployment).0)
    }

    /// Gives a set its size, and notes on it what the deployment wanted then.
    fn resize(&mut self, set: usize, to: i32) {
        let (want, most) = self.desired();
        let meta = &self.sets[set].metadata;
        let noted = annotated(meta, DESIRED) == Some(want.into()) && annotated(meta, MAX) == Some(most.into());
        if size(&self.sets[set]) == to && noted {
            return;
        }
        let change = self.change(set);
        change.size = to;
        change.annotations.insert(DESIRED.into(), want.to_string());
        change.annotations.insert(MAX.into(), most.to_string());
    }

    /// True where an active set was sized for another wanted number: a change of scale, not of the template.
    fn was_scaled(&self) -> bool {
        let want = i64::from(wanted(self.deployment));
        let active = self.sets.iter().filter(|s| size(s) > 0);
        active.filter_map(|s| annotated(&s.metadata, DESIRED)).any(|desired| desired != want)
    }

    fn scale(&mut self) {
        let active: Vec<usize> = (0..self.sets.len()).filter(|&i| size(&self.sets[i]) > 0).collect();
        let want = wanted(self.deployment);
        if active.len() <= 1 {
            let latest = || (0..self.sets.len()).max_by_key(|&i| template::age(&self.sets[i]));
            if let Some(one) = active.first().copied().or(self.new).or_else(latest) {
                self.resize(one, want);
            }
            return;
        }
        let full = |s: &ReplicaSet| size(s) == want && available(s) == want;
        if let Some(new) = self.new.filter(|&i| full(&self.sets[i])) {
            active.into_iter().filter(|&i| i != new).for_each(|i| self.resize(i, 0));
        } else if !is_recreate(self.deployment) {
            let sizes = share(self.deployment, &self.pick(&active));
            active.into_iter().zip(sizes).for_each(|(i, to)| self.resize(i, to));
        }
    }

    fn create(&mut self) {
        let first = new_size(self.deployment, self.sets, 0);
        let number = self.newest_revision();
        let set = template::new_set(self.deployment, first, number, self.desired());
        self.news = News::Created(set.metadata.name.clone().unwrap_or_default());
        self.plan.revision = Some(number.to_string());
        self.plan.create = Some(Box::new(set));
    }

    fn roll(&mut self) {
        let Some(new) = self.new else { return self.create() };
        let (now, want) = (size(&self.sets[new]), wanted(self.deployment));
        let to = if now > want { want } else { new_size(self.deployment, self.sets, now) };
        self.resize(new, to);
        if to != now {
            return;
        }
        let old = self.old();
        for (i, to) in shrink_old(self.deployment, &self.pick(&old), Some(&self.sets[new])) {
            self.resize(old[i], to);
        }
    }

    fn recreate(&mut self, old_pods: bool) {
        let active: Vec<usize> = self.old().into_iter().filter(|&i| size(&self.sets[i]) > 0).collect();
        let busy = !active.is_empty();
        active.into_iter().for_each(|i| self.resize(i, 0));
        if busy || old_pods {
            return;
        }
        match self.new {
            Some(new) => self.resize(new, wanted(self.deployment)),
            None => self.create(),
        }
    }

    /// Picks old, empty sets beyond the limit of the history, lowest revisions first.
    fn clean_up(&mut self) {
        let limit = self.deployment.spec.as_ref().and_then(|s| s.revision_history_limit).unwrap_or(10);
        let mut old = self.old();
        old.retain(|&i| self.sets[i].metadata.deletion_timestamp.is_none());
        let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        old.sort_by_key(|&i| revision(&self.sets[i]));
        old.truncate(surplus);
        let idle = |s: &ReplicaSet| {
            let observed = s.status.as_ref().and_then(|s| s.observed_generation);
            size(s) == 0 && s.status.as_ref().is_some_and(|s| s.replicas == 0) && s.metadata.generation <= observed
        };
        self.plan.delete = old.into_iter().filter(|&i| idle(&self.sets[i])).collect();
    }
}
