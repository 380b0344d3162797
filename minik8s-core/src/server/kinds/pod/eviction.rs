//! Evictions: deletions that the budgets of a pod must allow. Pure.

use super::super::util::{child, items, number, set, set_default, text};
use crate::api::{ApiError, ApiResult, Cause, Reason, Selector};
use crate::client::DeleteOptions;
use crate::clock::rfc3339;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Evictions that the controller of budgets has not seen yet; with more something is wrong with it.
const UNSEEN_MAX: usize = 2000;
/// When to ask again about a budget that nobody has looked at yet, in seconds.
const SOON: u32 = 10;
const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
const TWO_BUDGETS: &str =
    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";

/// How the pod is to be deleted.
pub(super) fn options(body: &Value) -> ApiResult<DeleteOptions> {
    let options = body.get("deleteOptions").unwrap_or(&Value::Null);
    let asked = |field: &str| options.pointer(&format!("/preconditions/{field}")).and_then(Value::as_str);
    let dry = options.get("dryRun").and_then(Value::as_array).is_some_and(|d| !d.is_empty());
    let grace = options.get("gracePeriodSeconds").filter(|g| !g.is_null());
    let seconds = grace.map(|g| g.as_i64().ok_or_else(|| ApiError::bad_request("gracePeriodSeconds must be a number")));
    let mut delete = DeleteOptions { dry_run: dry, ..DeleteOptions::default() };
    delete.grace_period_seconds = seconds.transpose()?;
    delete.preconditions.uid = asked("uid").map(str::to_owned);
    delete.preconditions.resource_version = asked("resourceVersion").map(str::to_owned);
    Ok(delete)
}

/// The pod as it goes: with the word that it goes on somebody's decision.
pub(super) fn leaving(pod: &Value, now: Timestamp) -> Value {
    let mut pod = pod.clone();
    if !is_free(&pod)
        && let Some(status) = child(&mut pod, "status")
    {
        let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting", "lastProbeTime": null, "lastTransitionTime": rfc3339(now)});
        set_condition(status, condition);
    }
    pod
}

/// True where nothing is lost with the pod: it has ended, has not begun, or goes already.
fn is_free(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed" | "Pending")
        || pod.pointer("/metadata/deletionTimestamp").is_some()
}

/// The budget of the namespace that pays for the pod's eviction, as it is after that; `None` where none has to.
pub(super) fn pay(pod: &Value, budgets: Vec<Value>, now: Timestamp) -> ApiResult<Option<Value>> {
    if is_free(pod) {
        return Ok(None);
    }
    let labels: BTreeMap<String, String> =
        serde_json::from_value(pod.pointer("/metadata/labels").cloned().unwrap_or(json!({}))).unwrap_or_default();
    let mut covering = budgets.into_iter().filter(|budget| covers(budget, &labels));
    let Some(budget) = covering.next() else { return Ok(None) };
    if covering.next().is_some() {
        return Err(ApiError::internal(TWO_BUDGETS));
    }
    let ready = items(pod, "/status/conditions").any(|c| text(c, "/type") == "Ready" && text(c, "/status") == "True");
    if !ready && lets_unhealthy_go(&budget) {
        return Ok(None);
    }
    decrement(budget, text(pod, "/metadata/name"), now).map(Some)
}

fn covers(budget: &Value, labels: &BTreeMap<String, String>) -> bool {
    let selector = budget.pointer("/spec/selector").filter(|s| !s.is_null()).map(Selector::from_value);
    matches!(selector, Some(Ok(selector)) if selector.matches(labels))
}

/// A pod that is not ready is not among those that the budget counts on.
fn lets_unhealthy_go(budget: &Value) -> bool {
    let count = |field: &str| number(budget, &format!("/status/{field}")).unwrap_or_default();
    text(budget, "/spec/unhealthyPodEvictionPolicy") == "AlwaysAllow"
        || (count("currentHealthy") >= count("desiredHealthy") && count("desiredHealthy") > 0)
}

fn decrement(mut budget: Value, pod: &str, now: Timestamp) -> ApiResult<Value> {
    let name = text(&budget, "/metadata/name").to_owned();
    let count = |pointer: &str| number(&budget, pointer).unwrap_or_default();
    let observed = count("/status/observedGeneration");
    if observed < count("/metadata/generation") {
        return Err(refused(format!("The disruption budget {name} is still being processed by the server."), SOON));
    }
    let allowed = count("/status/disruptionsAllowed");
    if allowed < 0 || super::super::util::count(&budget, "/status/disruptedPods") > UNSEEN_MAX {
        let why = match allowed {
            ..0 => "pdb disruptions allowed is negative",
            _ => "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        };
        let text = format!("poddisruptionbudgets.policy \"{name}\" is forbidden: {why}");
        return Err(ApiError::new(Reason::Forbidden, text));
    }
    if allowed == 0 {
        let (desired, healthy) = (count("/status/desiredHealthy"), count("/status/currentHealthy"));
        let why = format!("The disruption budget {name} needs {desired} healthy pods and has {healthy} currently");
        return Err(refused(why, 0));
    }
    if let Some(status) = child(&mut budget, "status") {
        set(status, "disruptionsAllowed", (allowed - 1).into());
        if allowed == 1 {
            let condition = json!({"type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods",
                "message": "", "observedGeneration": observed, "lastTransitionTime": rfc3339(now)});
            set_condition(status, condition);
        }
        if let Some(pods) = child(status, "disruptedPods") {
            set(pods, pod, rfc3339(now).into());
        }
    }
    Ok(budget)
}

fn refused(why: String, retry: u32) -> ApiError {
    let mut error = ApiError::new(Reason::TooManyRequests, REFUSED);
    error.details.causes = vec![Cause { reason: "DisruptionBudget".into(), message: why, field: String::new() }];
    error.details.retry_after_seconds = retry;
    error
}

fn set_condition(status: &mut Value, condition: Value) {
    set_default(status, "conditions", json!([]));
    let Some(conditions) = status.get_mut("conditions").and_then(Value::as_array_mut) else { return };
    conditions.retain(|c| text(c, "/type") != text(&condition, "/type"));
    conditions.push(condition);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(patch: &Value) -> Value {
        let mut budget = json!({"metadata": {"name": "b", "generation": 2}, "spec": {"selector": {"matchLabels": {"app": "a"}}},
            "status": {"observedGeneration": 2, "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 3}});
        json_patch::merge(&mut budget, patch);
        budget
    }

    fn pod(phase: &str, ready: &str) -> Value {
        json!({"metadata": {"name": "p", "labels": {"app": "a"}},
            "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]}})
    }

    fn paid(pod: &Value, budgets: Vec<Value>) -> Result<Option<Value>, ApiError> {
        pay(pod, budgets, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_healthy_pod_costs_what_its_budget_has() {
        let running = pod("Running", "True");
        let after = paid(&running, vec![budget(&json!({}))]).unwrap().unwrap();
        assert_eq!(
            (&after["status"]["disruptionsAllowed"], &after["status"]["disruptedPods"]["p"]),
            (&json!(0), &json!("1970-01-01T00:00:00Z"))
        );
        assert_eq!(after["status"]["conditions"][0]["reason"], "InsufficientPods");
        let others = budget(&json!({"spec": {"selector": {"matchLabels": {"app": "b"}}}}));
        let nobody = budget(&json!({"spec": {"selector": null}}));
        assert_eq!(paid(&running, vec![others, nobody]).unwrap(), None);
        let everybody = budget(&json!({"spec": {"selector": {"matchLabels": {"app": null}}}}));
        assert!(paid(&running, vec![everybody.clone()]).unwrap().is_some(), "an empty selector picks all");
        let two = paid(&running, vec![budget(&json!({})), everybody]).unwrap_err();
        assert_eq!((two.reason, two.message.as_str()), (Reason::InternalError, TWO_BUDGETS));
    }

    #[test]
    fn refusals_say_why_and_when_to_ask_again() {
        // change of the budget; reason, when to ask again, what it says
        let table = [
            (
                json!({"status": {"disruptionsAllowed": 0}}),
                Reason::TooManyRequests,
                0,
                "needs 3 healthy pods and has 2 currently",
            ),
            (json!({"metadata": {"generation": 3}}), Reason::TooManyRequests, 10, "still being processed"),
            (json!({"status": {"disruptionsAllowed": -1}}), Reason::Forbidden, 0, "negative"),
        ];
        for (patch, reason, again, says) in table {
            let error = paid(&pod("Running", "True"), vec![budget(&patch)]).unwrap_err();
            let cause = error.details.causes.first().map_or(error.message.as_str(), |c| c.message.as_str());
            assert_eq!((error.reason, error.details.retry_after_seconds), (reason, again), "{patch}");
            assert!(cause.contains(says), "{cause}");
        }
    }

    #[test]
    fn pods_that_nobody_counts_on_cost_nothing() {
        let none_left = json!({"status": {"disruptionsAllowed": 0}});
        for phase in ["Pending", "Succeeded", "Failed"] {
            assert_eq!(paid(&pod(phase, "False"), vec![budget(&none_left)]).unwrap(), None, "{phase}");
        }
        let unready = pod("Running", "False");
        let healthy = json!({"status": {"disruptionsAllowed": 0, "currentHealthy": 3}});
        let always =
            json!({"spec": {"unhealthyPodEvictionPolicy": "AlwaysAllow"}, "status": {"disruptionsAllowed": 0}});
        assert_eq!(paid(&unready, vec![budget(&healthy)]).unwrap(), None);
        assert_eq!(paid(&unready, vec![budget(&always)]).unwrap(), None);
        assert_eq!(paid(&unready, vec![budget(&none_left)]).unwrap_err().reason, Reason::TooManyRequests);
        let said = leaving(&pod("Running", "True"), Timestamp::UNIX_EPOCH);
        assert_eq!(said["status"]["conditions"][1]["type"], "DisruptionTarget");
        assert_eq!(leaving(&pod("Failed", "True"), Timestamp::UNIX_EPOCH), pod("Failed", "True"));
    }
}
