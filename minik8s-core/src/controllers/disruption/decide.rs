//! What a budget allows, given its pods. Pure.

use super::super::pods::is_ready;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A pod whose eviction was allowed, and that is not being deleted after this long, will not be.
const GIVE_UP: SignedDuration = SignedDuration::from_secs(120);
const ALLOWED: &str = "DisruptionAllowed";

/// How many pods there should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// As many as the owners of the pods want.
    Pods(i32),
    /// It cannot be found out, for this reason: nothing is allowed.
    Unknown(String),
}

/// What is said of a budget.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Its status.
    pub status: PodDisruptionBudgetStatus,
    /// Look again after this long.
    pub again: Option<Duration>,
    /// Pods whose eviction was allowed, and that were not deleted.
    pub not_deleted: Vec<String>,
}

/// True where the number of pods that the owners want decides what is allowed.
pub fn needs_owners(budget: &PodDisruptionBudget) -> bool {
    let Some(spec) = &budget.spec else { return false };
    spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
}

/// Judges a budget by the pods that it covers.
pub fn judge(budget: &PodDisruptionBudget, pods: &[Arc<Pod>], expected: &Expected, now: Timestamp) -> Verdict {
    let old = budget.status.clone().unwrap_or_default();
    let Evicted { pods: evicted, not_deleted, again } = evicted(&old, pods, now);
    let name = |pod: &Pod| pod.metadata.name.clone().unwrap_or_default();
    let counts = |pod: &&Arc<Pod>| {
        pod.metadata.deletion_timestamp.is_none() && is_ready(pod) && !evicted.contains_key(&name(pod))
    };
    let healthy = i32::try_from(pods.iter().filter(counts).count()).unwrap_or(i32::MAX);
    let (expected, desired, failure) = match expected {
        Expected::Unknown(why) => (old.expected_pods, old.desired_healthy, Some(why.as_str())),
        Expected::Pods(wanted) => {
            let (expected, desired) = numbers(budget, *wanted, pods.len());
            (expected, desired, None)
        }
    };
    let allowed = if expected <= 0 || failure.is_some() { 0 } else { (healthy - desired).max(0) };
    let status = PodDisruptionBudgetStatus {
        conditions: Some(conditions(&old, budget, allowed, failure, now)),
        current_healthy: healthy,
        desired_healthy: desired,
        disrupted_pods: (!evicted.is_empty()).then_some(evicted),
        disruptions_allowed: allowed,
        expected_pods: expected,
        observed_generation: budget.metadata.generation,
    };
    Verdict { status, again, not_deleted }
}

/// How many pods there should be, and how many of them healthy.
fn numbers(budget: &PodDisruptionBudget, wanted: i32, present: usize) -> (i32, i32) {
    let present = i32::try_from(present).unwrap_or(i32::MAX);
    let Some(spec) = &budget.spec else { return (present, 0) };
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => (wanted, (wanted - part(most, wanted)).max(0)),
        (None, Some(least @ IntOrString::String(_))) => (wanted, part(least, wanted)),
        (None, Some(IntOrString::Int(least))) => (present, *least),
        (None, None) => (present, 0),
    }
}

/// A number, or a percentage of `whole`, rounded up.
fn part(value: &IntOrString, whole: i32) -> i32 {
    match value {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            i32::try_from((percent * i64::from(whole) + 99) / 100).unwrap_or(i32::MAX)
        }
    }
}

struct Evicted {
    /// Those that were allowed and are not seen to go yet.
    pods: BTreeMap<String, Time>,
    not_deleted: Vec<String>,
    again: Option<Duration>,
}

fn evicted(old: &PodDisruptionBudgetStatus, pods: &[Arc<Pod>], now: Timestamp) -> Evicted {
    let mut found = Evicted { pods: BTreeMap::new(), not_deleted: Vec::new(), again: None };
    let Some(allowed) = &old.disrupted_pods else { return found };
    for pod in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let Some(at) = allowed.get(name) else { continue };
        let end = at.0.saturating_add(GIVE_UP).unwrap_or(at.0);
        if end <= now {
            found.not_deleted.push(name.to_owned());
            continue;
        }
        let left = Duration::try_from(end.duration_since(now)).unwrap_or_default();
        found.again = Some(found.again.map_or(left, |again| again.min(left)));
        found.pods.insert(name.to_owned(), at.clone());
    }
    found
}

fn conditions(
    old: &PodDisruptionBudgetStatus,
    budget: &PodDisruptionBudget,
    allowed: i32,
    failure: Option<&str>,
    now: Timestamp,
) -> Vec<Condition> {
    let (status, reason) = match (failure, allowed) {
        (Some(_), _) => ("False", "SyncFailed"),
        (None, ..=0) => ("False", "InsufficientPods"),
        (None, _) => ("True", "SufficientPods"),
    };
    let mut all = old.conditions.clone().unwrap_or_default();
    let before = all.iter().find(|c| c.type_ == ALLOWED && c.status == status);
    let last_transition_time = before.map_or(Time(now), |c| c.last_transition_time.clone());
    all.retain(|c| c.type_ != ALLOWED);
    all.push(Condition {
        type_: ALLOWED.into(),
        status: status.into(),
        reason: reason.into(),
        message: failure.unwrap_or_default().into(),
        observed_generation: budget.metadata.generation,
        last_transition_time,
    });
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn budget(spec: &Value, evicted: &Value) -> PodDisruptionBudget {
        let value = json!({"metadata": {"name": "b", "generation": 3}, "spec": spec, "status": {"currentHealthy": 0,
            "desiredHealthy": 7, "disruptionsAllowed": 0, "expectedPods": 9, "disruptedPods": evicted}});
        serde_json::from_value(value).unwrap()
    }

    /// Pods `p0` … of which the first are ready, and the last, perhaps, is being deleted.
    fn pods(count: usize, ready: usize, leaving: bool) -> Vec<Arc<Pod>> {
        let pod = |i: usize| {
            let status = if i < ready { "True" } else { "False" };
            let mut value = json!({"metadata": {"name": format!("p{i}")},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status}]}});
            if leaving && i + 1 == count {
                value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            Arc::new(serde_json::from_value(value).unwrap())
        };
        (0..count).map(pod).collect()
    }

    #[test]
    fn budgets_allow_what_can_be_missed() {
        // spec, wanted, pods, ready, one is leaving; expected, healthy, desired, allowed
        let table = [
            (json!({"minAvailable": 2}), 0, 3, 3, false, (3, 3, 2, 1)),
            (json!({"minAvailable": 2}), 0, 3, 3, true, (3, 2, 2, 0)),
            (json!({"minAvailable": 5}), 0, 3, 3, false, (3, 3, 5, 0)),
            (json!({"minAvailable": "50%"}), 5, 5, 5, false, (5, 5, 3, 2)),
            (json!({"maxUnavailable": 1}), 4, 4, 4, false, (4, 4, 3, 1)),
            (json!({"maxUnavailable": 1}), 4, 4, 3, false, (4, 3, 3, 0)),
            (json!({"maxUnavailable": "30%"}), 4, 4, 4, false, (4, 4, 2, 2)),
            (json!({"maxUnavailable": 9}), 4, 4, 4, false, (4, 4, 0, 4)),
            (json!({"maxUnavailable": 1}), 0, 0, 0, false, (0, 0, 0, 0)),
            (json!({}), 0, 2, 1, false, (2, 1, 0, 1)),
        ];
        for (spec, wanted, count, ready, leaving, want) in table {
            let pods = pods(count, ready, leaving);
            let status = judge(&budget(&spec, &json!({})), &pods, &Expected::Pods(wanted), at(0)).status;
            let told =
                (status.expected_pods, status.current_healthy, status.desired_healthy, status.disruptions_allowed);
            assert_eq!(told, want, "{spec} {count} {ready} {leaving}");
            let condition = &status.conditions.unwrap()[0];
            assert_eq!(condition.status == "True", want.3 > 0);
            assert_eq!(condition.observed_generation, Some(3));
        }
    }

    #[test]
    fn evictions_count_until_they_are_seen_or_given_up() {
        let allowed = json!({"p0": at(0).to_string(), "p1": at(100).to_string(), "p3": at(100).to_string(), "gone": at(100).to_string()});
        let budget = budget(&json!({"minAvailable": 1}), &allowed);
        let verdict = judge(&budget, &pods(4, 4, true), &Expected::Pods(0), at(120));
        let kept: Vec<_> = verdict.status.disrupted_pods.unwrap().into_keys().collect();
        assert_eq!(kept, ["p1"], "p0 was not deleted, p3 goes, and one is gone");
        assert_eq!((verdict.not_deleted, verdict.again), (vec!["p0".to_owned()], Some(Duration::from_secs(100))));
        assert_eq!((verdict.status.current_healthy, verdict.status.disruptions_allowed), (2, 1));
    }

    #[test]
    fn what_cannot_be_counted_allows_nothing() {
        let budget = budget(&json!({"maxUnavailable": 1}), &json!({}));
        let status = judge(&budget, &pods(3, 3, false), &Expected::Unknown("no owner".into()), at(0)).status;
        let condition = &status.conditions.unwrap()[0];
        assert_eq!((condition.reason.as_str(), condition.message.as_str()), ("SyncFailed", "no owner"));
        assert_eq!((status.disruptions_allowed, status.expected_pods, status.desired_healthy), (0, 9, 7));
    }
}
