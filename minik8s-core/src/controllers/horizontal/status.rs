//! The status that an autoscaler shows. Pure.

use super::decide::Said;
use crate::clock::rfc3339;
use jiff::Timestamp;
use serde_json::{Value, json};

/// What is to be shown.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) current: i32,
    /// `None` leaves it as it was.
    pub(super) desired: Option<i32>,
    pub(super) metrics: Vec<Value>,
    pub(super) said: Vec<Said>,
    /// The number was changed just now.
    pub(super) scaled: bool,
}

/// The new status out of the old one.
pub(super) fn status(old: &Value, generation: i64, shown: Shown, now: Timestamp) -> Value {
    let number = |field: &str| old[field].as_i64().unwrap_or_default();
    let mut conditions = old["conditions"].as_array().cloned().unwrap_or_default();
    shown.said.iter().for_each(|said| set(&mut conditions, said, now));
    let mut new = json!({
        "observedGeneration": generation,
        "currentReplicas": shown.current,
        "desiredReplicas": shown.desired.map_or_else(|| number("desiredReplicas"), i64::from),
        "conditions": conditions,
    });
    new["currentMetrics"] = if shown.metrics.is_empty() { Value::Null } else { shown.metrics.into() };
    new["lastScaleTime"] = if shown.scaled { rfc3339(now).into() } else { old["lastScaleTime"].clone() };
    if let Some(fields) = new.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    new
}

fn set(conditions: &mut Vec<Value>, said: &Said, now: Timestamp) {
    let status = if said.status { "True" } else { "False" };
    let mut new = json!({"type": said.kind, "status": status, "reason": said.reason, "message": said.message,
        "lastTransitionTime": rfc3339(now)});
    match conditions.iter_mut().find(|c| c["type"] == said.kind) {
        Some(old) => {
            if old["status"] == status {
                new["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            *old = new;
        }
        None => conditions.push(new),
    }
}
