//! The table of pods.

use super::super::cells::{AGE, NAME, NONE, column, or_none, wide};
use super::super::util::{items, number, text};
use super::status_cell;
use crate::api::human;
use crate::server::Column;
use jiff::Timestamp;
use serde_json::Value;

pub(super) static COLUMNS: [Column; 9] = [
    NAME,
    column("Ready", |o, _| ready(o).into()),
    column("Status", |o, _| status_cell::status(o).into()),
    column("Restarts", |o, now| restarts(o, now).into()),
    AGE,
    wide("IP", |o, _| or_none(o, "/status/podIP").into()),
    wide("Node", |o, _| or_none(o, "/spec/nodeName").into()),
    wide("Nominated Node", |o, _| or_none(o, "/status/nominatedNodeName").into()),
    wide("Readiness Gates", |o, _| gates(o).into()),
];

/// Init containers that stay: they count as containers.
fn sidecars(pod: &Value) -> impl Iterator<Item = &str> {
    items(pod, "/spec/initContainers").filter(|c| text(c, "/restartPolicy") == "Always").map(|c| text(c, "/name"))
}

/// Statuses of the containers that are meant to run all the time.
fn running_statuses(pod: &Value) -> Vec<&Value> {
    let stay: Vec<&str> = sidecars(pod).collect();
    let beside = items(pod, "/status/initContainerStatuses").filter(|s| stay.contains(&text(s, "/name")));
    beside.chain(items(pod, "/status/containerStatuses")).collect()
}

fn ready(pod: &Value) -> String {
    let total = items(pod, "/spec/containers").count() + sidecars(pod).count();
    let ready = |s: &&Value| s.get("ready") == Some(&Value::Bool(true)) && s.pointer("/state/running").is_some();
    format!("{}/{total}", running_statuses(pod).iter().filter(|s| ready(s)).count())
}

fn restarts(pod: &Value, now: Timestamp) -> String {
    let initializing = status_cell::init_reason(pod).is_some();
    let statuses: Vec<&Value> =
        if initializing { items(pod, "/status/initContainerStatuses").collect() } else { running_statuses(pod) };
    let count: i64 = statuses.iter().filter_map(|s| number(s, "/restartCount")).sum();
    let finished = statuses.iter().map(|s| text(s, "/lastState/terminated/finishedAt")).filter(|at| !at.is_empty());
    match finished.max() {
        Some(last) if count > 0 => format!("{count} ({} ago)", human::age_since(Some(last), now)),
        _ => count.to_string(),
    }
}

fn gates(pod: &Value) -> String {
    let gates: Vec<&str> = items(pod, "/spec/readinessGates").map(|g| text(g, "/conditionType")).collect();
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let met = |gate: &&&str| {
        items(pod, "/status/conditions").any(|c| text(c, "/type") == **gate && text(c, "/status") == "True")
    };
    format!("{}/{}", gates.iter().filter(met).count(), gates.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn restarts_tell_when_the_last_one_was() {
        let now: Timestamp = "2026-01-01T00:00:10Z".parse().unwrap();
        let pod = json!({"spec": {"containers": [{}, {}]}, "status": {"containerStatuses": [
            {"ready": true, "restartCount": 3, "state": {"running": {}},
                "lastState": {"terminated": {"finishedAt": "2026-01-01T00:00:05Z"}}}, {"restartCount": 0}]}});
        assert_eq!((ready(&pod).as_str(), restarts(&pod, now).as_str()), ("1/2", "3 (5s ago)"));
        assert_eq!(restarts(&json!({}), now), "0");
    }
}
