//! Where a pod may run: affinities and spreading.

use super::super::util::{items, number, text};
use crate::api::{metadata, names};
use crate::server::FieldErrors;
use serde_json::Value;
use std::collections::BTreeSet;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const UNSATISFIABLE: [&str; 2] = ["DoNotSchedule", "ScheduleAnyway"];

/// Checks affinities and spread constraints of a pod spec.
pub(super) fn validate(path: &str, spec: &Value, errors: &mut FieldErrors) {
    if let Some(node) = spec.pointer("/affinity/nodeAffinity") {
        node_affinity(&format!("{path}.affinity.nodeAffinity"), node, errors);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        if let Some(pods) = spec.pointer(&format!("/affinity/{kind}")) {
            pod_affinity(&format!("{path}.affinity.{kind}"), pods, errors);
        }
    }
    spread(path, spec, errors);
}

fn node_affinity(path: &str, affinity: &Value, errors: &mut FieldErrors) {
    if let Some(required) = affinity.get(REQUIRED) {
        let at = format!("{path}.{REQUIRED}.nodeSelectorTerms");
        if items(required, "/nodeSelectorTerms").next().is_none() {
            errors.required(&at, "must have at least one node selector term");
        }
        for (index, term) in items(required, "/nodeSelectorTerms").enumerate() {
            expressions(&format!("{at}[{index}]"), term, errors);
        }
    }
    for (index, preferred) in items(affinity, &format!("/{PREFERRED}")).enumerate() {
        let at = format!("{path}.{PREFERRED}[{index}]");
        weight(&at, preferred, errors);
        expressions(&format!("{at}.preference"), preferred.get("preference").unwrap_or(&Value::Null), errors);
    }
}

fn weight(path: &str, preferred: &Value, errors: &mut FieldErrors) {
    let weight = number(preferred, "/weight").unwrap_or_default();
    if !(1..=100).contains(&weight) {
        errors.invalid(format!("{path}.weight"), &weight.into(), "must be in the range 1-100");
    }
}

fn expressions(path: &str, term: &Value, errors: &mut FieldErrors) {
    for (index, expression) in items(term, "/matchExpressions").enumerate() {
        let at = format!("{path}.matchExpressions[{index}]");
        let (key, values) = (text(expression, "/key"), items(expression, "/values").count());
        errors.complaints(&format!("{at}.key"), key, names::qualified_name(key));
        let (at_values, single) =
            (format!("{at}.values"), "must be specified single value when `operator` is 'Lt' or 'Gt'");
        match text(expression, "/operator") {
            "In" | "NotIn" if values == 0 => {
                errors.required(at_values, "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if values > 0 => {
                errors.forbidden(at_values, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
            }
            "Gt" | "Lt" if values != 1 => errors.required(at_values, single),
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => errors.invalid(format!("{at}.operator"), &other.into(), "not a valid selector operator"),
        }
    }
}

fn pod_affinity(path: &str, affinity: &Value, errors: &mut FieldErrors) {
    for (index, term) in items(affinity, &format!("/{REQUIRED}")).enumerate() {
        pod_term(&format!("{path}.{REQUIRED}[{index}]"), term, errors);
    }
    for (index, preferred) in items(affinity, &format!("/{PREFERRED}")).enumerate() {
        let at = format!("{path}.{PREFERRED}[{index}]");
        weight(&at, preferred, errors);
        let term = preferred.get("podAffinityTerm").unwrap_or(&Value::Null);
        pod_term(&format!("{at}.podAffinityTerm"), term, errors);
    }
}

fn pod_term(path: &str, term: &Value, errors: &mut FieldErrors) {
    let key = text(term, "/topologyKey");
    if key.is_empty() {
        errors.required(format!("{path}.topologyKey"), "can not be empty");
    } else {
        errors.complaints(&format!("{path}.topologyKey"), key, names::qualified_name(key));
    }
    let labels = &term["labelSelector"]["matchLabels"];
    metadata::labels(labels, &format!("{path}.labelSelector.matchLabels"), errors);
}

fn spread(path: &str, spec: &Value, errors: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    for (index, constraint) in items(spec, "/topologySpreadConstraints").enumerate() {
        let at = format!("{path}.topologySpreadConstraints[{index}]");
        let (key, action) = (text(constraint, "/topologyKey"), text(constraint, "/whenUnsatisfiable"));
        let skew = number(constraint, "/maxSkew").unwrap_or_default();
        if skew <= 0 {
            errors.invalid(format!("{at}.maxSkew"), &skew.into(), "must be greater than zero");
        }
        if key.is_empty() {
            errors.required(format!("{at}.topologyKey"), "can not be empty");
        }
        if !UNSATISFIABLE.contains(&action) {
            errors.unsupported(format!("{at}.whenUnsatisfiable"), action, &UNSATISFIABLE);
        }
        if !seen.insert((key, action)) {
            let pair = format!("{{{key}, {action}}}");
            errors.duplicate(format!("{at}.{{topologyKey, whenUnsatisfiable}}"), &pair.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at_fault(spec: Value) -> Vec<String> {
        let mut errors = FieldErrors::default();
        validate("s", &spec, &mut errors);
        errors.0.into_iter().map(|c| c.field.replace("DuringSchedulingIgnoredDuringExecution", "")).collect()
    }

    #[test]
    fn node_affinities() {
        let required = |expression: Value| json!({"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}}});
        assert!(at_fault(required(json!({"key": "a", "operator": "In", "values": ["b"]}))).is_empty());
        let at = "s.affinity.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0]";
        for (expression, field) in [
            (json!({"key": "a", "operator": "In"}), "values"),
            (json!({"key": "a", "operator": "Exists", "values": ["x"]}), "values"),
            (json!({"key": "a", "operator": "Gt", "values": ["1", "2"]}), "values"),
            (json!({"key": "a", "operator": "Near"}), "operator"),
            (json!({"key": "", "operator": "Exists"}), "key"),
        ] {
            assert_eq!(at_fault(required(expression))[0], format!("{at}.{field}"));
        }
        let none = json!({"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": []}}}});
        assert_eq!(at_fault(none), ["s.affinity.nodeAffinity.required.nodeSelectorTerms"]);
        let heavy = json!({"affinity": {"nodeAffinity": {PREFERRED: [{"weight": 101, "preference": {}}]}}});
        assert_eq!(at_fault(heavy), ["s.affinity.nodeAffinity.preferred[0].weight"]);
    }

    #[test]
    fn pod_affinities_and_spreading() {
        let keyless = json!({"affinity": {"podAntiAffinity": {REQUIRED: [{"labelSelector": {}}]}}});
        assert_eq!(at_fault(keyless), ["s.affinity.podAntiAffinity.required[0].topologyKey"]);
        let good = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"});
        assert!(at_fault(json!({"topologySpreadConstraints": [good]})).is_empty());
        let twice = at_fault(json!({"topologySpreadConstraints": [good, good]}));
        assert_eq!(twice, ["s.topologySpreadConstraints[1].{topologyKey, whenUnsatisfiable}"]);
        let bad = at_fault(json!({"topologySpreadConstraints": [{"maxSkew": 0, "whenUnsatisfiable": "Maybe"}]}));
        assert_eq!(bad.len(), 3, "{bad:?}");
    }
}
