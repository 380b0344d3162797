//! Between the versions. v1 knows a target for cpu; everything else of v2 stands in annotations, under upstream's names
//! and in its words, so that nothing is lost on the way there and back.

use super::super::util::{set, unset};
use crate::api::Quantity;
use serde_json::{Map, Value, json};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

const NOTES: [&str; 4] = [METRICS, CURRENT, CONDITIONS, BEHAVIOR];

/// v2's fields of a source, and v1's: both below the source.
type Names = &'static [(&'static str, &'static str)];

const SPEC: [(&str, Names); 5] = [
    ("resource", RESOURCE),
    ("containerResource", RESOURCE),
    (
        "pods",
        &[
            ("/metric/name", "metricName"),
            ("/metric/selector", "selector"),
            ("/target/averageValue", "targetAverageValue"),
        ],
    ),
    (
        "object",
        &[
            ("/describedObject", "target"),
            ("/metric/name", "metricName"),
            ("/metric/selector", "selector"),
            ("/target/value", "targetValue"),
            ("/target/averageValue", "averageValue"),
        ],
    ),
    (
        "external",
        &[
            ("/metric/name", "metricName"),
            ("/metric/selector", "metricSelector"),
            ("/target/value", "targetValue"),
            ("/target/averageValue", "targetAverageValue"),
        ],
    ),
];
const RESOURCE: Names = &[
    ("/name", "name"),
    ("/container", "container"),
    ("/target/averageUtilization", "targetAverageUtilization"),
    ("/target/averageValue", "targetAverageValue"),
];

const STATUS: [(&str, Names); 5] = [
    ("resource", CURRENT_RESOURCE),
    ("containerResource", CURRENT_RESOURCE),
    (
        "pods",
        &[
            ("/metric/name", "metricName"),
            ("/metric/selector", "selector"),
            ("/current/averageValue", "currentAverageValue"),
        ],
    ),
    (
        "object",
        &[
            ("/describedObject", "target"),
            ("/metric/name", "metricName"),
            ("/metric/selector", "selector"),
            ("/current/value", "currentValue"),
            ("/current/averageValue", "averageValue"),
        ],
    ),
    (
        "external",
        &[
            ("/metric/name", "metricName"),
            ("/metric/selector", "metricSelector"),
            ("/current/value", "currentValue"),
            ("/current/averageValue", "currentAverageValue"),
        ],
    ),
];
const CURRENT_RESOURCE: Names = &[
    ("/name", "name"),
    ("/container", "container"),
    ("/current/averageUtilization", "currentAverageUtilization"),
    ("/current/averageValue", "currentAverageValue"),
];

/// v2 to v1.
pub(super) fn to_v1(object: &mut Value) {
    set(object, "apiVersion", "autoscaling/v1".into());
    let mut notes = Vec::new();
    if let Some(spec) = object.get_mut("spec") {
        let mut metrics = take(spec, "metrics");
        // The first one for cpu has a field of its own.
        if let Some(at) = metrics.iter().position(|m| cpu(m, "/resource/target/averageUtilization").is_some()) {
            let metric = metrics.remove(at);
            set(spec, "targetCPUUtilizationPercentage", metric["resource"]["target"]["averageUtilization"].clone());
        }
        notes.push((METRICS, list(metrics, &SPEC, v2_to_v1)));
        let behavior = spec.get("behavior").cloned().filter(Value::is_object);
        unset(spec, "behavior");
        notes.push((BEHAVIOR, behavior.map(|b| renamed(&b, capital).to_string())));
    }
    if let Some(status) = object.get_mut("status") {
        let metrics = take(status, "currentMetrics");
        let percent = metrics.iter().find_map(|m| cpu(m, "/resource/current/averageUtilization"));
        if let Some(percent) = percent {
            set(status, "currentCPUUtilizationPercentage", percent.clone());
        }
        notes.push((CURRENT, list(metrics, &STATUS, v2_to_v1)));
        let conditions = take(status, "conditions");
        notes.push((CONDITIONS, (!conditions.is_empty()).then(|| Value::from(conditions).to_string())));
    }
    for (name, note) in notes {
        annotate(object, name, note);
    }
}

/// v1 to v2.
pub(super) fn to_v2(object: &mut Value) {
    set(object, "apiVersion", "autoscaling/v2".into());
    let mut note = |name: &str| -> Option<Value> {
        let text = object.get_mut("metadata")?.get_mut("annotations")?.as_object_mut()?.remove(name)?;
        serde_json::from_str(text.as_str()?).ok()
    };
    let [metrics, current, conditions, behavior] = NOTES.map(&mut note);
    annotate(object, METRICS, None);
    if let Some(spec) = object.get_mut("spec") {
        let mut all = Vec::new();
        let cpu = spec.get("targetCPUUtilizationPercentage").cloned().filter(|p| !p.is_null());
        unset(spec, "targetCPUUtilizationPercentage");
        if let Some(percent) = cpu {
            let target = json!({"type": "Utilization", "averageUtilization": percent});
            all.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
        }
        all.extend(metrics.iter().flat_map(|m| m.as_array()).flatten().map(|m| v1_to_v2(m, &SPEC)));
        if !all.is_empty() {
            set(spec, "metrics", all.into());
        }
        if let Some(behavior) = behavior {
            set(spec, "behavior", renamed(&behavior, small));
        }
    }
    if let Some(status) = object.get_mut("status").filter(|s| s.is_object()) {
        unset(status, "currentCPUUtilizationPercentage");
        let current: Vec<Value> =
            current.iter().flat_map(|m| m.as_array()).flatten().map(|m| v1_to_v2(m, &STATUS)).collect();
        if !current.is_empty() {
            set(status, "currentMetrics", current.into());
        }
        if let Some(conditions) = conditions {
            set(status, "conditions", conditions);
        }
    }
}

fn take(object: &mut Value, field: &str) -> Vec<Value> {
    let taken = object.get_mut(field).map(Value::take);
    unset(object, field);
    match taken {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

/// Whole metrics for cpu that are in percent.
fn cpu<'a>(metric: &'a Value, pointer: &str) -> Option<&'a Value> {
    let fits = metric["type"] == "Resource" && metric["resource"]["name"] == "cpu";
    metric.pointer(pointer).filter(|percent| fits && !percent.is_null())
}

type Convert = fn(&Value, &[(&str, Names)]) -> Value;

fn list(metrics: Vec<Value>, names: &[(&str, Names)], convert: Convert) -> Option<String> {
    let all: Vec<Value> = metrics.iter().map(|metric| convert(metric, names)).collect();
    (!all.is_empty()).then(|| Value::from(all).to_string())
}

fn v2_to_v1(metric: &Value, names: &[(&str, Names)]) -> Value {
    let mut out = json!({"type": metric["type"]});
    for (source, fields) in names {
        let Some(from) = metric.get(*source) else { continue };
        let known = fields.iter().filter_map(|(path, name)| Some(((*name).to_owned(), from.pointer(path)?.clone())));
        out[*source] = Value::Object(known.collect());
    }
    out
}

fn v1_to_v2(metric: &Value, names: &[(&str, Names)]) -> Value {
    let mut out = json!({"type": metric["type"]});
    for (source, fields) in names {
        let Some(from) = metric.get(*source) else { continue };
        let mut to = json!({});
        for (path, name) in fields.iter() {
            let Some(value) = from.get(*name) else { continue };
            match path[1..].split_once('/') {
                Some((part, field)) => to[part][field] = value.clone(),
                None => to[&path[1..]] = value.clone(),
            }
        }
        for part in ["target", "current"] {
            drop_zero(&mut to[part]);
            if to[part].is_null() {
                unset(&mut to, part);
            }
        }
        if let Some(target) = to.get_mut("target").filter(|t| t.is_object()) {
            let kinds = [("value", "Value"), ("averageValue", "AverageValue"), ("averageUtilization", "Utilization")];
            if let Some((_, kind)) = kinds.iter().find(|(field, _)| target.get(*field).is_some()) {
                target["type"] = (*kind).into();
            }
        }
        out[*source] = to;
    }
    out
}

/// Upstream's v1 cannot leave a value out: beside an average it says zero.
fn drop_zero(amounts: &mut Value) {
    let zero = |value: &Value| Quantity::from_value(value).is_ok_and(|q| q.milli_value() == 0);
    let average = amounts.get("averageValue").is_some_and(|value| !value.is_null());
    if average && amounts.get("value").is_some_and(zero) {
        unset(amounts, "value");
    }
}

/// The annotations that say something of v2, where they are.
pub(super) fn notes(object: &Value) -> impl Iterator<Item = (&'static str, &Value)> {
    let all = object.pointer("/metadata/annotations");
    NOTES.into_iter().filter_map(move |name| Some((name, all?.get(name)?)))
}

/// Why an annotation cannot be taken over.
pub(super) fn complaint(name: &str, note: &Value) -> Option<String> {
    let parsed: Result<Value, _> = serde_json::from_str(note.as_str().unwrap_or_default());
    match parsed {
        Err(error) => Some(format!("must be JSON: {error}")),
        Ok(value) if name != BEHAVIOR && !value.is_array() => Some("must be a list".to_owned()),
        Ok(value) if name == BEHAVIOR && !value.is_object() => Some("must be an object".to_owned()),
        Ok(_) => None,
    }
}

/// Upstream writes behaviours under the names of its own fields, which begin with capitals.
fn renamed(value: &Value, rename: fn(&str) -> String) -> Value {
    match value {
        Value::Object(fields) => {
            let all = fields.iter().map(|(name, value)| (rename(name), renamed(value, rename)));
            Value::Object(all.collect::<Map<_, _>>())
        }
        Value::Array(items) => items.iter().map(|item| renamed(item, rename)).collect(),
        other => other.clone(),
    }
}

fn capital(name: &str) -> String {
    let (first, rest) = name.split_at(1.min(name.len()));
    first.to_ascii_uppercase() + rest
}

fn small(name: &str) -> String {
    let (first, rest) = name.split_at(1.min(name.len()));
    first.to_ascii_lowercase() + rest
}

/// Sets an annotation, or takes it away; where none is left, so go the annotations.
fn annotate(object: &mut Value, name: &str, note: Option<String>) {
    let Some(metadata) = object.get_mut("metadata") else { return };
    match note {
        Some(note) => metadata["annotations"][name] = note.into(),
        None => {
            let Some(all) = metadata.get_mut("annotations").and_then(Value::as_object_mut) else { return };
            all.remove(name);
            if all.is_empty() {
                unset(metadata, "annotations");
            }
        }
    }
}
