//! The Deployment and the Service beside a Deployment, and the route that leads to both. Pure.

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

/// What is put behind a name.
const CANARY: &str = "-canary";

/// The name of what is beside.
pub(super) fn name(of: &str) -> String {
    format!("{of}{CANARY}")
}

fn labels<'a>(object: &'a Value, pointer: &str) -> Option<&'a Map<String, Value>> {
    object.pointer(pointer).and_then(Value::as_object).filter(|labels| !labels.is_empty())
}

/// The Services that lead to the pods of a Deployment.
pub(super) fn services<'a>(deployment: &Value, all: &'a [Value]) -> Vec<&'a Value> {
    let Some(own) = labels(deployment, "/spec/template/metadata/labels") else { return Vec::new() };
    let leads = |service: &&Value| {
        labels(service, "/spec/selector").is_some_and(|wanted| wanted.iter().all(|(k, v)| own.get(k) == Some(v)))
    };
    all.iter().filter(leads).collect()
}

/// True for a reference to a Service of the route's own namespace.
fn is_service(reference: &Value, namespace: &str, name: &str) -> bool {
    let text = |field: &str, default: &'static str| reference[field].as_str().unwrap_or(default).to_owned();
    text("group", "").is_empty()
        && text("kind", "Service") == "Service"
        && reference["namespace"].as_str().is_none_or(|n| n == namespace)
        && reference["name"] == name
}

/// The rules of a route with the canary as second backend where the first and only one is the Service; `None` where no
/// rule leads to that.
pub(super) fn rules(route: &Value, namespace: &str, service: &str, canary: &str) -> Option<Vec<Value>> {
    let mut rules = route.pointer("/spec/rules").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut found = false;
    for backends in rules.iter_mut().filter_map(|rule| rule["backendRefs"].as_array_mut()) {
        match &backends[..] {
            [one] if is_service(one, namespace, service) => {
                let mut second = one.clone();
                (second["name"], second["weight"]) = (canary.into(), 0.into());
                backends[0]["weight"] = 100.into();
                backends.push(second);
                found = true;
            }
            [one, two] if is_service(one, namespace, service) && is_service(two, namespace, canary) => found = true,
            _ => {}
        }
    }
    found.then_some(rules)
}

/// The labels that tell the pods of the two apart: one that the Service goes by, and one that the Deployment goes by.
fn telling<'a>(deployment: &'a Value, service: &'a Value) -> Result<Vec<&'a String>> {
    let by_service = labels(service, "/spec/selector").context("the Service selects no pods by labels")?;
    let by_deployment = labels(deployment, "/spec/selector/matchLabels")
        .context("the Deployment selects its pods by expressions only; a canary needs a label of its own")?;
    if let Some(both) = by_service.keys().find(|key| by_deployment.contains_key(*key)) {
        return Ok(vec![both]);
    }
    Ok(by_service.keys().next().into_iter().chain(by_deployment.keys().next()).collect())
}

fn relabel(labels: Option<&mut Value>, keys: &[&String]) {
    for (key, value) in labels.and_then(Value::as_object_mut).into_iter().flatten() {
        if let Some(text) = value.as_str().filter(|_| keys.contains(&key)).map(name) {
            *value = text.into();
        }
    }
}

/// The Deployment with the template, and its Service; `owner` takes them along when it goes.
pub(super) fn objects(deployment: &Value, service: &Value, template: &Value, owner: &Value) -> Result<(Value, Value)> {
    let keys = telling(deployment, service)?;
    let Some(of) = deployment["metadata"]["name"].as_str() else { bail!("the Deployment has no name") };
    let metadata = json!({"name": name(of), "ownerReferences": [owner]});
    let mut beside = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
        "spec": deployment["spec"]});
    beside["spec"]["template"] = template.clone();
    // Its share says how many.
    beside["spec"]["replicas"] = 1.into();
    relabel(beside.pointer_mut("/spec/selector/matchLabels"), &keys);
    relabel(beside.pointer_mut("/spec/template/metadata/labels"), &keys);
    let mut selector = service["spec"]["selector"].clone();
    relabel(Some(&mut selector), &keys);
    let port = |port: &Value| {
        let mut port = port.clone();
        port.as_object_mut().map(|port| port.remove("nodePort"));
        port
    };
    let ports: Vec<Value> = service["spec"]["ports"].as_array().into_iter().flatten().map(port).collect();
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": beside["metadata"],
        "spec": {"selector": selector, "ports": ports}});
    Ok((beside, service))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(labels: &Value) -> Value {
        json!({"metadata": {"name": "web"}, "spec": {"replicas": 5, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": labels}, "spec": {}}}})
    }

    fn service(selector: &Value) -> Value {
        json!({"metadata": {"name": "web"}, "spec": {"selector": selector, "ports": [{"port": 80, "nodePort": 30000}]}})
    }

    #[test]
    fn the_service_of_the_one_does_not_lead_to_the_other() {
        let tier = json!({"app": "web", "tier": "front"});
        // Labels of pods, the Service's selector; what the other pods carry, and their Service's selector.
        let table = [
            (
                tier.clone(),
                json!({"app": "web"}),
                json!({"app": "web-canary", "tier": "front"}),
                json!({"app": "web-canary"}),
            ),
            (
                tier.clone(),
                tier.clone(),
                json!({"app": "web-canary", "tier": "front"}),
                json!({"app": "web-canary", "tier": "front"}),
            ),
            (
                tier.clone(),
                json!({"tier": "front"}),
                json!({"app": "web-canary", "tier": "front-canary"}),
                json!({"tier": "front-canary"}),
            ),
        ];
        for (labels, selector, want_labels, want_selector) in table {
            let (deployment, service) = (deployment(&labels), service(&selector));
            let template = &deployment["spec"]["template"];
            let (beside, other) = objects(&deployment, &service, template, &json!({})).unwrap();
            assert_eq!(beside["spec"]["template"]["metadata"]["labels"], want_labels);
            assert_eq!(beside["spec"]["selector"]["matchLabels"], json!({"app": "web-canary"}));
            assert_eq!((&other["spec"]["selector"], &other["spec"]["ports"]), (&want_selector, &json!([{"port": 80}])));
            assert_eq!((&beside["metadata"]["name"], &beside["spec"]["replicas"]), (&json!("web-canary"), &json!(1)));
            assert!(services(&beside, &[service]).is_empty());
            assert_eq!(services(&beside, std::slice::from_ref(&other)).len(), 1);
            assert!(services(&deployment, &[other]).is_empty());
        }
    }

    #[test]
    fn rules_that_lead_to_the_service_get_a_second_backend_once() {
        let to = |name: &str| json!({"name": name, "port": 80, "weight": 1});
        let route = json!({"spec": {"rules": [{"backendRefs": [to("web")]}, {"backendRefs": [to("web"), to("other")]},
            {"backendRefs": [to("api")]}, {}]}});
        let made = rules(&route, "d", "web", "web-canary").unwrap();
        let names = |rule: &Value| {
            rule["backendRefs"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|b| b["name"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&made[0]), ["web", "web-canary"]);
        assert_eq!(made[0]["backendRefs"][1]["weight"], 0);
        assert_eq!(
            (names(&made[1]), names(&made[2])),
            (vec!["web".into(), "other".to_owned()], vec!["api".to_owned()])
        );
        let again = json!({"spec": {"rules": made}});
        assert_eq!(rules(&again, "d", "web", "web-canary").unwrap(), made);
        assert!(rules(&route, "d", "nobody", "nobody-canary").is_none());
    }
}
