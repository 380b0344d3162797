//! What a pod spec must obey.

use super::super::util::{items, number, text};
use super::{container, identity, placement, volume};
use crate::api::{metadata, names};
use crate::server::FieldErrors;
use serde_json::Value;
use std::collections::BTreeSet;

const RESTART: [&str; 3] = ["Always", "OnFailure", "Never"];
const DNS: [&str; 4] = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Where a pod spec stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// In a pod.
    Pod,
    /// In the template of a controller that keeps pods running.
    Template,
}

/// Checks a pod template: labels and spec.
pub(crate) fn validate_template(path: &str, template: &Value, errors: &mut FieldErrors) {
    metadata::labels(&template["metadata"]["labels"], &format!("{path}.metadata.labels"), errors);
    validate_spec(&format!("{path}.spec"), template.get("spec").unwrap_or(&Value::Null), Use::Template, errors);
}

/// Checks a pod spec. Defaults are filled in already.
pub(crate) fn validate_spec(path: &str, spec: &Value, stands: Use, errors: &mut FieldErrors) {
    let volumes = volume::validate(path, spec, errors);
    let mut shared = container::Shared { volumes, names: BTreeSet::new(), host_ports: BTreeSet::new(), init: false };
    if items(spec, "/containers").next().is_none() {
        errors.required(format!("{path}.containers"), "");
        return;
    }
    for (index, one) in items(spec, "/containers").enumerate() {
        container::validate(&format!("{path}.containers[{index}]"), one, &mut shared, errors);
    }
    shared.init = true;
    for (index, one) in items(spec, "/initContainers").enumerate() {
        container::validate(&format!("{path}.initContainers[{index}]"), one, &mut shared, errors);
    }
    let allowed: &[&str] = if stands == Use::Template { &RESTART[..1] } else { &RESTART };
    one_of(path, spec, "restartPolicy", allowed, errors);
    one_of(path, spec, "dnsPolicy", &DNS, errors);
    seconds(path, spec, errors);
    host_names(path, spec, errors);
    node_selector(path, spec, errors);
    tolerations(path, spec, errors);
    placement::validate(path, spec, errors);
    identity::validate_pod(path, spec, errors);
}

fn one_of(path: &str, spec: &Value, field: &str, allowed: &[&str], errors: &mut FieldErrors) {
    let given = text(spec, &format!("/{field}"));
    if !allowed.contains(&given) {
        errors.unsupported(format!("{path}.{field}"), given, allowed);
    }
}

fn seconds(path: &str, spec: &Value, errors: &mut FieldErrors) {
    if let Some(grace) = number(spec, "/terminationGracePeriodSeconds").filter(|n| *n < 0) {
        let at = format!("{path}.terminationGracePeriodSeconds");
        errors.invalid(at, &grace.into(), "must be greater than or equal to 0");
    }
    if let Some(most) = number(spec, "/activeDeadlineSeconds").filter(|n| *n < 1) {
        errors.invalid(
            format!("{path}.activeDeadlineSeconds"),
            &most.into(),
            "must be between 1 and 2147483647, inclusive",
        );
    }
}

fn host_names(path: &str, spec: &Value, errors: &mut FieldErrors) {
    for field in ["hostname", "subdomain"] {
        let name = text(spec, &format!("/{field}"));
        for why in if name.is_empty() { Vec::new() } else { names::dns_label(name) } {
            errors.invalid(format!("{path}.{field}"), &name.into(), &why);
        }
    }
    for field in ["nodeName", "serviceAccountName"] {
        let name = text(spec, &format!("/{field}"));
        for why in if name.is_empty() { Vec::new() } else { names::dns_subdomain(name) } {
            errors.invalid(format!("{path}.{field}"), &name.into(), &why);
        }
    }
}

fn node_selector(path: &str, spec: &Value, errors: &mut FieldErrors) {
    metadata::labels(&spec["nodeSelector"], &format!("{path}.nodeSelector"), errors);
}

fn tolerations(path: &str, spec: &Value, errors: &mut FieldErrors) {
    for (index, toleration) in items(spec, "/tolerations").enumerate() {
        let at = format!("{path}.tolerations[{index}]");
        let (key, operator, effect) =
            (text(toleration, "/key"), text(toleration, "/operator"), text(toleration, "/effect"));
        for why in if key.is_empty() { Vec::new() } else { names::qualified_name(key) } {
            errors.invalid(format!("{at}.key"), &key.into(), &why);
        }
        if key.is_empty() && operator != "Exists" {
            let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.invalid(format!("{at}.operator"), &operator.into(), why);
        }
        if !["", "Equal", "Exists"].contains(&operator) {
            errors.unsupported(format!("{at}.operator"), operator, &["Equal", "Exists"]);
        }
        if operator == "Exists" && !text(toleration, "/value").is_empty() {
            errors.invalid(format!("{at}.operator"), toleration, "value must be empty when `operator` is 'Exists'");
        }
        if !effect.is_empty() && !EFFECTS.contains(&effect) {
            errors.unsupported(format!("{at}.effect"), effect, &EFFECTS);
        }
    }
}
