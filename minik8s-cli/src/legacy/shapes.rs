//! Kinds whose fields stood elsewhere.

use super::{Notes, heads, retype};
use serde_json::{Map, Value, json};

/// Brings the fields of the kinds that had their own shape to where they stand today.
pub(super) fn straighten(version: &str, kind: &str, object: &mut Value, notes: &mut Notes) {
    match (version, kind) {
        ("apps/v1", "ReplicaSet" | "Deployment") => workload(object, notes),
        ("v1", "Service") => service(object, notes),
        ("autoscaling/v2", "HorizontalPodAutoscaler") => autoscaler(object, notes),
        ("minik8s.io/v1alpha1", "Dns") => dns(object, notes),
        ("minik8s.io/v1alpha1", "Workflow") => super::workflows::straighten(object, notes),
        ("minik8s.io/v1alpha1", "GpuJob") => super::jobs::straighten(object, notes),
        _ => {}
    }
}

fn spec(object: &mut Value) -> Option<&mut Map<String, Value>> {
    object.get_mut("spec").and_then(Value::as_object_mut)
}

/// Moves what stands under one of the other names to the right one.
fn respell(map: &mut Map<String, Value>, name: &str, others: &[&str], place: &str, notes: &mut Notes) {
    let found = others.iter().find(|other| map.contains_key(**other)).filter(|_| !map.contains_key(name));
    if let Some(value) = found.and_then(|other| map.remove(*other).map(|value| (other, value))) {
        notes.add(format!("{place}.{} is {name}", value.0));
        map.insert(name.to_owned(), value.1);
    }
}

fn workload(object: &mut Value, notes: &mut Notes) {
    let labels = object.pointer("/spec/template/metadata/labels").cloned();
    let Some(spec) = spec(object) else { return };
    match (spec.get("selector"), labels) {
        (None, Some(labels)) => {
            notes.add("spec.selector is missing: it is the labels of the template");
            spec.insert("selector".into(), json!({ "matchLabels": labels }));
        }
        (Some(Value::Object(selector)), _)
            if !selector.is_empty()
                && !["matchLabels", "matchExpressions"].iter().any(|k| selector.contains_key(*k))
                && selector.values().all(|value| !value.is_object() && !value.is_array()) =>
        {
            notes.add("spec.selector: labels stand under matchLabels");
            let labels = Value::Object(selector.clone());
            spec.insert("selector".into(), json!({ "matchLabels": labels }));
        }
        _ => {}
    }
}

fn service(object: &mut Value, notes: &mut Notes) {
    let Some(spec) = spec(object) else { return };
    let selector = spec.get("selector").and_then(Value::as_object).filter(|selector| selector.len() == 1);
    let labels = selector.and_then(|s| s.get("matchLabels")).filter(|labels| labels.is_object()).cloned();
    if let Some(labels) = labels {
        notes.add("spec.selector: a Service's labels stand without matchLabels");
        spec.insert("selector".into(), labels);
    }
}

fn autoscaler(object: &mut Value, notes: &mut Notes) {
    let Some(spec) = spec(object) else { return };
    respell(spec, "scaleTargetRef", &["target", "workload", "targetRef"], "spec", notes);
    respell(spec, "minReplicas", &["minReplica", "min"], "spec", notes);
    respell(spec, "maxReplicas", &["maxReplica", "max"], "spec", notes);
    if let Some(target) = spec.get_mut("scaleTargetRef").and_then(Value::as_object_mut) {
        target_of(target, notes);
    }
    for (name, instead) in [
        ("interval", "the controllers' --horizontal-pod-autoscaler-sync-period says how often all are looked at"),
        ("selector", "the target's own selector says which pods are meant"),
    ] {
        if spec.remove(name).is_some() {
            notes.add(format!("spec.{name} is left out: {instead}"));
        }
    }
    if let Some(metrics) = spec.get_mut("metrics") {
        metrics_of(metrics, notes);
    }
    for direction in ["scaleUp", "scaleDown"] {
        let rules = spec.get_mut("behavior").and_then(|b| b.get_mut(direction)).and_then(Value::as_object_mut);
        if let Some(rules) = rules.filter(|rules| rules.contains_key("type") && !rules.contains_key("policies")) {
            let parts = ["type", "value", "periodSeconds"].into_iter();
            let policy: Map<String, Value> =
                parts.filter_map(|part| Some((part.to_owned(), rules.remove(part)?))).collect();
            notes.add(format!("spec.behavior.{direction}: a policy stands in the list policies"));
            rules.insert("policies".into(), json!([policy]));
        }
    }
}

fn target_of(target: &mut Map<String, Value>, notes: &mut Notes) {
    if let Some(name) = target.get("metadata").and_then(|m| m.get("name")).cloned() {
        notes.add("spec.scaleTargetRef.metadata.name is name");
        target.remove("metadata");
        target.entry("name").or_insert(name);
    }
    let text = |name: &str| target.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (lives, kind) = (text("apiVersion"), text("kind"));
    let Some((version, today)) = heads::today(&kind) else { return };
    // What lives elsewhere is somebody else's.
    if !(lives.is_empty() || lives == "v1" || lives == version) {
        return;
    }
    if kind != today {
        notes.add(format!("spec.scaleTargetRef.kind: {kind} is {today}"));
        target.insert("kind".into(), today.into());
    }
    if lives.is_empty() || lives == "v1" && version != "v1" {
        notes.add(format!("spec.scaleTargetRef.apiVersion is {version}"));
        target.insert("apiVersion".into(), version.into());
    }
}

/// A map of percentages, or a list whose items say less than they should.
fn metrics_of(metrics: &mut Value, notes: &mut Notes) {
    if let Some(map) = metrics.as_object() {
        const CPU: [&str; 3] = ["cpuPercent", "cpu", "cpuUtilization"];
        const MEMORY: [&str; 5] = ["memPercent", "memoryPercent", "memory", "mem", "memoryUtilization"];
        // Left for the server to refuse: what else it holds must not get lost.
        if map.is_empty() || map.keys().any(|key| !CPU.contains(&&**key) && !MEMORY.contains(&&**key)) {
            return;
        }
        let percent = |names: &[&str]| names.iter().find_map(|name| map.get(*name)).cloned();
        let resource = |name: &str, percent: Option<Value>| {
            let target = json!({"type": "Utilization", "averageUtilization": percent?});
            Some(json!({"type": "Resource", "resource": {"name": name, "target": target}}))
        };
        let cpu = resource("cpu", percent(&CPU));
        let memory = resource("memory", percent(&MEMORY));
        notes.add("spec.metrics is a list of metrics, each with its target");
        *metrics = cpu.into_iter().chain(memory).collect();
    }
    for (index, metric) in metrics.as_array_mut().into_iter().flatten().enumerate() {
        let place = format!("spec.metrics[{index}]");
        let Some(map) = metric.as_object_mut() else { continue };
        if map.contains_key("name") && !map.contains_key("resource") {
            notes.add(format!("{place}: name and target stand under resource"));
            let resource = json!({"name": map.remove("name"), "target": map.remove("target")});
            map.insert("resource".into(), resource);
        }
        let Some(resource) = map.get_mut("resource") else { continue };
        let of_cpu = resource["name"] == "cpu";
        if let Some(target) = resource.get_mut("target").and_then(Value::as_object_mut) {
            let implied =
                ["averageUtilization", "averageValue", "value"].into_iter().find(|name| target.contains_key(*name));
            if let Some(implied) = implied.filter(|_| !target.contains_key("type")) {
                let kind = match implied {
                    "averageUtilization" => "Utilization",
                    "averageValue" => "AverageValue",
                    _ => "Value",
                };
                notes.add(format!("{place}.resource.target.type is {kind}"));
                target.insert("type".into(), kind.into());
            }
        }
        if let Some(target) = resource.get_mut("target").filter(|_| of_cpu) {
            retype::cpu_target(target, &format!("{place}.resource.target"), notes);
        }
        if !map.contains_key("type") {
            notes.add(format!("{place}.type is Resource"));
            map.insert("type".into(), "Resource".into());
        }
    }
}

fn dns(object: &mut Value, notes: &mut Notes) {
    let Some(spec) = spec(object) else { return };
    respell(spec, "host", &["hostname", "domain", "hostName"], "spec", notes);
    respell(spec, "paths", &["subPaths", "subpaths", "rules"], "spec", notes);
    for (index, item) in spec.get_mut("paths").and_then(Value::as_array_mut).into_iter().flatten().enumerate() {
        let place = format!("spec.paths[{index}]");
        let Some(path) = item.as_object_mut() else { continue };
        respell(path, "path", &["subPath", "subpath", "uri"], &place, notes);
        respell(path, "serviceName", &["service", "svcName", "svc"], &place, notes);
        respell(path, "servicePort", &["port", "svcPort"], &place, notes);
        if let Some(text) = path.get("path").and_then(Value::as_str).filter(|text| !text.starts_with('/')) {
            let whole = format!("/{text}");
            notes.add(format!("{place}.path: {text} is {whole}"));
            path.insert("path".into(), whole.into());
        }
    }
}
