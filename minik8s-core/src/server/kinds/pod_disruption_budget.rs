//! `PodDisruptionBudget`: how many of some pods may be missing at once on somebody's decision.

use super::cells::{AGE, NAME, column, integer};
use super::util::{names, number, set, set_default, text};
use crate::api::{Gvr, Selector};
use crate::server::{Column, FieldErrors, Kind, KindNames};
use serde_json::Value;

/// How often pods that are not ready may be evicted.
const POLICIES: [&str; 2] = ["AlwaysAllow", "IfHealthyBudget"];
const NOT_SAID: &str = "N/A";

pub(crate) struct PodDisruptionBudgetKind(KindNames);

/// Where budgets are found.
pub(super) fn gvr() -> Gvr {
    Gvr::new("policy", "v1", "poddisruptionbudgets")
}

impl PodDisruptionBudgetKind {
    pub(crate) fn new() -> Self {
        Self(names(gvr(), "PodDisruptionBudget", &["pdb"], false, true))
    }
}

static COLUMNS: [Column; 5] = [
    NAME,
    column("Min Available", |o, _| amount(o, "/spec/minAvailable").into()),
    column("Max Unavailable", |o, _| amount(o, "/spec/maxUnavailable").into()),
    integer("Allowed Disruptions", |o, _| number(o, "/status/disruptionsAllowed").unwrap_or_default().into()),
    AGE,
];

impl Kind for PodDisruptionBudgetKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        "io.k8s.api.policy.v1.PodDisruptionBudget"
    }

    fn has_status(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn default(&self, object: &mut Value) {
        set_default(object, "status", Value::Object(serde_json::Map::new()));
        if let Some(status) = object.get_mut("status") {
            for field in ["currentHealthy", "desiredHealthy", "disruptionsAllowed", "expectedPods"] {
                if status.get(field).is_none_or(Value::is_null) {
                    set(status, field, 0.into());
                }
            }
        }
    }

    fn validate(&self, new: &Value, _: Option<&Value>, errors: &mut FieldErrors) {
        let spec = new.get("spec").unwrap_or(&Value::Null);
        let said = |field: &str| spec.get(field).filter(|v| !v.is_null());
        if said("minAvailable").is_some() && said("maxUnavailable").is_some() {
            errors.invalid_shown("spec", "budget", "minAvailable and maxUnavailable cannot be both set");
        }
        for field in ["minAvailable", "maxUnavailable"] {
            if let Some(why) = said(field).and_then(wrong_amount) {
                errors.invalid(format!("spec.{field}"), &spec[field], why);
            }
        }
        if let Some(selector) = said("selector")
            && let Err(error) = Selector::from_value(selector)
        {
            errors.invalid("spec.selector", selector, &error.message);
        }
        let policy = text(spec, "/unhealthyPodEvictionPolicy");
        if !policy.is_empty() && !POLICIES.contains(&policy) {
            errors.unsupported("spec.unhealthyPodEvictionPolicy", policy, &POLICIES);
        }
    }
}

/// What is wrong with a number or a percentage.
fn wrong_amount(value: &Value) -> Option<&'static str> {
    let Some(text) = value.as_str() else {
        return value.as_i64().is_none_or(|n| n < 0).then_some("must be greater than or equal to 0");
    };
    let percent =
        text.strip_suffix('%').filter(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()));
    match percent.map(|digits| digits.parse::<u32>().unwrap_or(u32::MAX)) {
        None => Some(
            "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%', or '93%', \
             regex used for validation is '[0-9]+%')",
        ),
        Some(percent) => (percent > 100).then_some("must not be greater than 100%"),
    }
}

fn amount(object: &Value, pointer: &str) -> String {
    match object.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => NOT_SAID.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn budgets_that_make_no_sense_are_refused() {
        let fields = |spec: Value| {
            let mut errors = FieldErrors::default();
            PodDisruptionBudgetKind::new().validate(&json!({ "spec": spec }), None, &mut errors);
            errors.0.into_iter().map(|c| c.field).collect::<Vec<_>>()
        };
        let table: [(Value, &[&str]); 8] = [
            (json!({"minAvailable": 1, "selector": {}}), &[]),
            (json!({"maxUnavailable": "30%"}), &[]),
            (json!({"minAvailable": 1, "maxUnavailable": 1}), &["spec"]),
            (json!({"minAvailable": -1}), &["spec.minAvailable"]),
            (json!({"maxUnavailable": "1"}), &["spec.maxUnavailable"]),
            (json!({"maxUnavailable": "101%"}), &["spec.maxUnavailable"]),
            (json!({"selector": {"matchExpressions": [{"key": "a", "operator": "Near"}]}}), &["spec.selector"]),
            (json!({"unhealthyPodEvictionPolicy": "Never"}), &["spec.unhealthyPodEvictionPolicy"]),
        ];
        for (spec, want) in table {
            assert_eq!(fields(spec.clone()), want, "{spec}");
        }
    }
}
