//! What is known of a function, and what is planned from it.

use super::{BY_REVISION, HEARD, LOOK, Memory, World, is_paused};
use crate::functions::api::{Function, FunctionRevision, FunctionTraffic};
use crate::functions::plan::{self, Plan, Seen};
use crate::functions::scale::{Bounds, History};
use crate::functions::writes::is_owned_by;
use crate::functions::{objects, revision, status};
use minik8s_core::client::key_of;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Share of what an instance takes that it should have.
const USUAL: f64 = 0.7;
/// Calls at once that an instance should have where it takes any number.
const UNLIMITED: f64 = 100.0;

/// A function and all that is known of it.
pub(super) struct Looked {
    pub(super) function: Arc<Function>,
    pub(super) namespace: String,
    pub(super) revisions: Vec<Arc<FunctionRevision>>,
    pub(super) seen: Vec<Seen>,
    pub(super) plan: Plan,
    /// What stands where something of the function's should, and is not its own.
    pub(super) stranger: Option<String>,
    /// When to look again at what no watch tells the end of.
    pub(super) again: Option<Duration>,
}

impl World {
    pub(super) fn look(&self, key: &str, function: Arc<Function>, revisions: Vec<Arc<FunctionRevision>>) -> Looked {
        let now = Instant::now();
        let namespace = function.metadata.namespace.clone().unwrap_or_default();
        let route = self.routes.get(key).filter(|route| is_owned_by(&route.metadata, &function.metadata));
        let serving: Vec<FunctionTraffic> = route.map(|route| objects::serving(&route)).unwrap_or_default();
        let mut all = self.memory.lock();
        let memory = all.entry(key.to_owned()).or_default();
        let seen: Vec<Seen> = revisions.iter().map(|r| self.seen(&function, r, &serving, memory, now)).collect();
        memory.histories.retain(|name, _| seen.iter().any(|s| s.name == *name));
        let plan = plan::plan(&seen, &revision::name(&function), function.spec.canary_percent, &serving);
        let min = bounds(&function).min;
        let waits = |s: &Seen| {
            let quiet = memory.histories.get(&s.name).is_none_or(|history| history.is_quiet(now));
            (s.has_set && (!quiet || s.asked > min)) || (s.has_set && !s.left && memory.left.contains_key(&s.name))
        };
        let rests = || {
            let resting = plan.paused.iter().filter_map(|name| memory.histories.get(name));
            resting.filter_map(|history| history.rest(now, &bounds(&function))).min()
        };
        let again = if seen.iter().any(waits) { Some(LOOK) } else { rests() };
        let stranger = self.stranger(key, &function, &revisions);
        Looked { function, namespace, revisions, seen, plan, stranger, again }
    }

    /// What has the name of something of the function's and is somebody else's.
    fn stranger(&self, key: &str, function: &Function, revisions: &[Arc<FunctionRevision>]) -> Option<String> {
        let route = self.routes.get(key).filter(|route| !is_owned_by(&route.metadata, &function.metadata));
        let mut found = route.map(|_| format!("PathRoute {key}"));
        for revision in revisions {
            let key = key_of(&**revision);
            let set = self.sets.get(&key).filter(|set| !is_owned_by(&set.metadata, &revision.metadata));
            let service = self.services.get(&key).filter(|service| !is_owned_by(&service.metadata, &revision.metadata));
            found = found.or(set.map(|_| format!("ReplicaSet {key}"))).or(service.map(|_| format!("Service {key}")));
        }
        found
    }

    fn seen(
        &self,
        function: &Function,
        revision: &FunctionRevision,
        serving: &[FunctionTraffic],
        memory: &mut Memory,
        now: Instant,
    ) -> Seen {
        let (namespace, key) = (revision.metadata.namespace.as_deref().unwrap_or_default(), key_of(revision));
        let name = revision.metadata.name.clone().unwrap_or_default();
        let load = self.demands.load(namespace, &name, now);
        let set = self.sets.get(&key).filter(|set| is_owned_by(&set.metadata, &revision.metadata));
        let current = set.as_ref().and_then(|s| s.spec.as_ref()?.replicas).unwrap_or(0);
        // The newest one is treated as if it had calls already, lest it ends just when they move to it.
        let gets = name == revision::name(function) || serving.iter().any(|t| t.revision == name && t.percent > 0);
        let mut bounds = bounds(function);
        if !gets {
            (bounds.min, bounds.idle, bounds.paused) = (0, HEARD, Duration::ZERO);
        }
        let pods = self.pods.list_by(BY_REVISION, &key);
        // What somebody before us had paused was idle, and no call is a reason to wake it.
        let slept = if pods.iter().any(|pod| is_paused(pod)) { bounds.idle } else { Duration::ZERO };
        let history = memory.histories.entry(name.clone()).or_insert_with(|| History::idle(now, slept));
        history.note(now, load);
        let asked = history.decide(now, &bounds, u32::try_from(current).unwrap_or(0));
        let rests = history.rest(now, &bounds).is_some();
        if gets {
            memory.left.remove(&name);
        } else {
            memory.left.entry(name.clone()).or_insert(now);
        }
        let left = memory.left.get(&name).is_some_and(|since| now.duration_since(*since) >= HEARD);
        let state = status::state(revision);
        Seen {
            number: revision.spec.number,
            built: state.image.is_some(),
            failed: state.failed,
            proven: state.proven,
            has_set: set.is_some(),
            instances: u32::try_from(pods.len()).unwrap_or(u32::MAX),
            asked,
            rests,
            busy: load.waiting + load.active > 0.0,
            left,
            name,
        }
    }
}

/// What the autoscaler keeps to.
fn bounds(function: &Function) -> Bounds {
    let scale = function.spec.scale.clone().unwrap_or_default();
    let number = |n: Option<i32>, usual: u32| n.and_then(|n| u32::try_from(n).ok()).unwrap_or(usual);
    let usual = match function.spec.concurrency {
        concurrency if concurrency > 0 => (f64::from(concurrency) * USUAL).max(1.0),
        _ => UNLIMITED,
    };
    Bounds {
        min: number(scale.min, 0),
        max: number(scale.max, 10),
        idle: Duration::from_secs(number(scale.idle_seconds, 60).into()),
        paused: Duration::from_secs(number(scale.paused_seconds, 0).into()),
        target: scale.target.filter(|t| *t > 0.0).unwrap_or(usual),
        rate: scale.rate.filter(|r| *r > 0.0),
    }
}
