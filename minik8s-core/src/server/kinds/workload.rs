//! What kinds that make pods from a template have in common.

use super::pod_template::{default_spec, validate_template};
use super::util::{child, number, set_default};
use crate::api::Selector;
use crate::server::{FieldErrors, ScalePaths};
use serde_json::Value;

/// Where their scale stands.
pub(super) const SCALE: ScalePaths =
    ScalePaths { spec_replicas: "/spec/replicas", status_replicas: "/status/replicas", selector: "/spec/selector" };

/// One replica, and the defaults of the template's pods.
pub(super) fn default_workload(object: &mut Value) {
    let Some(spec) = child(object, "spec") else { return };
    set_default(spec, "replicas", 1);
    if let Some(pod) = child(spec, "template").and_then(|t| child(t, "spec")) {
        default_spec(pod);
    }
}

/// Replicas, a selector that picks the template's labels and never changes, and the template.
pub(super) fn validate_workload(new: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        if let Some(n) = number(new, &format!("/spec/{field}")).filter(|n| *n < 0) {
            errors.invalid(format!("spec.{field}"), &n.into(), "must be greater than or equal to 0");
        }
    }
    let selector = new.pointer("/spec/selector").filter(|s| !s.is_null());
    match selector {
        None => errors.required("spec.selector", ""),
        Some(selector) => validate_selector(new, selector, errors),
    }
    validate_template("spec.template", new.pointer("/spec/template").unwrap_or(&Value::Null), errors);
    if let (Some(selector), Some(old)) = (selector, old)
        && old.pointer("/spec/selector") != Some(selector)
    {
        errors.invalid_shown("spec.selector", &shown_selector(selector), "field is immutable");
    }
}

fn validate_selector(new: &Value, value: &Value, errors: &mut FieldErrors) {
    let selector = match Selector::from_value(value) {
        Ok(selector) => selector,
        Err(error) => return errors.invalid_shown("spec.selector", &shown_selector(value), &error.message),
    };
    if selector.is_everything() {
        let why = "empty selector is invalid for deployment";
        return errors.invalid_shown("spec.selector", &shown_selector(value), why);
    }
    let labels = new.pointer("/spec/template/metadata/labels").and_then(Value::as_object);
    let labels: std::collections::BTreeMap<String, String> =
        labels.into_iter().flatten().map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned())).collect();
    if !selector.matches(&labels) {
        let shown: Vec<_> = labels.iter().map(|(k, v)| format!("{k:?}:{v:?}")).collect();
        let shown = format!("map[string]string{{{}}}", shown.join(", "));
        errors.invalid_shown("spec.template.metadata.labels", &shown, "`selector` does not match template `labels`");
    }
}

/// A selector as the real server prints it.
fn shown_selector(selector: &Value) -> String {
    let labels = selector.get("matchLabels").and_then(Value::as_object);
    let labels = labels.map_or_else(
        || "map[string]string(nil)".to_owned(),
        |l| {
            let pairs: Vec<_> = l.iter().map(|(k, v)| format!("{k:?}:{v}")).collect();
            format!("map[string]string{{{}}}", pairs.join(", "))
        },
    );
    let expressions = selector.get("matchExpressions").and_then(Value::as_array);
    let expressions = expressions
        .map_or_else(|| "[]v1.LabelSelectorRequirement(nil)".to_owned(), |e| Value::from(e.clone()).to_string());
    format!("v1.LabelSelector{{MatchLabels:{labels}, MatchExpressions:{expressions}}}")
}
