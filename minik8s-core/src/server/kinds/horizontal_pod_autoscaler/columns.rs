//! The table of autoscalers.

use super::super::cells::{AGE, NAME, column};
use super::super::util::{items, number, text};
use super::convert;
use crate::server::Column;
use serde_json::Value;

/// How many metrics are shown.
const SHOWN: usize = 2;
const UNKNOWN: &str = "<unknown>";

pub(super) static COLUMNS: [Column; 7] = [
    NAME,
    column("Reference", |o, _| reference(o).into()),
    column("Targets", |o, _| targets(o).into()),
    column("MinPods", |o, _| count(o, "/spec/minReplicas", "<unset>")),
    column("MaxPods", |o, _| count(o, "/spec/maxReplicas", "0")),
    column("Replicas", |o, _| count(o, "/status/currentReplicas", "0")),
    AGE,
];

pub(super) static V1_COLUMNS: [Column; 7] = [
    NAME,
    column("Reference", |o, _| reference(o).into()),
    column("Targets", |o, _| {
        let mut object = o.clone();
        convert::to_v2(&mut object);
        targets(&object).into()
    }),
    column("MinPods", |o, _| count(o, "/spec/minReplicas", "<unset>")),
    column("MaxPods", |o, _| count(o, "/spec/maxReplicas", "0")),
    column("Replicas", |o, _| count(o, "/status/currentReplicas", "0")),
    AGE,
];

fn reference(object: &Value) -> String {
    format!("{}/{}", text(object, "/spec/scaleTargetRef/kind"), text(object, "/spec/scaleTargetRef/name"))
}

fn count(object: &Value, pointer: &str, absent: &str) -> Value {
    number(object, pointer).map_or_else(|| absent.to_owned(), |n| n.to_string()).into()
}

/// `cpu: 12%/50%, memory: 4Mi/8Mi`
fn targets(object: &Value) -> String {
    let none = Value::Null;
    let statuses: Vec<&Value> = items(object, "/status/currentMetrics").collect();
    let all: Vec<String> = items(object, "/spec/metrics")
        .enumerate()
        .map(|(at, spec)| target(spec, statuses.get(at).copied().unwrap_or(&none)))
        .collect();
    match all.len() {
        0 => "<none>".to_owned(),
        n if n > SHOWN => format!("{} + {} more...", all[..SHOWN].join(", "), n - SHOWN),
        _ => all.join(", "),
    }
}

fn target(spec: &Value, status: &Value) -> String {
    let kind = text(spec, "/type");
    let source = match kind {
        "ContainerResource" => "containerResource".to_owned(),
        kind => kind.to_lowercase(),
    };
    let pair = |field: &str, sign: &str| {
        let wanted = amount(spec.pointer(&format!("/{source}/target/{field}")))?;
        let found = amount(status.pointer(&format!("/{source}/current/{field}")));
        let found = found.map_or_else(|| UNKNOWN.to_owned(), |found| format!("{found}{sign}"));
        Some(format!("{found}/{wanted}{sign}"))
    };
    match kind {
        "Resource" | "ContainerResource" => {
            let pair = pair("averageValue", "").or_else(|| pair("averageUtilization", "%"));
            let name = text(spec, &format!("/{source}/name"));
            format!("{name}: {}", pair.unwrap_or_else(|| format!("{UNKNOWN}/<auto>")))
        }
        "Pods" => pair("averageValue", "").unwrap_or_default(),
        "Object" | "External" => {
            let average = pair("averageValue", "").map(|pair| format!("{pair} (avg)"));
            average.or_else(|| pair("value", "")).unwrap_or_default()
        }
        _ => "<unknown type>".to_owned(),
    }
}

fn amount(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
