//! What an autoscaler means where it says nothing.

use super::super::util::{child, set_default};
use serde_json::{Value, json};

/// Fills in; twice is once.
pub(super) fn fill(object: &mut Value) {
    let Some(spec) = child(object, "spec") else { return };
    set_default(spec, "minReplicas", 1);
    if spec.get("metrics").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        spec["metrics"] = json!([{"type": "Resource",
            "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]);
    }
    let Some(behavior) = spec.get_mut("behavior").filter(|b| b.is_object()) else { return };
    let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
    rules(behavior, "scaleUp", &json!([pods, percent]));
    rules(behavior, "scaleDown", &json!([percent]));
    if let Some(up) = behavior.get_mut("scaleUp") {
        set_default(up, "stabilizationWindowSeconds", 0);
    }
}

fn rules(behavior: &mut Value, direction: &str, policies: &Value) {
    let Some(rules) = child(behavior, direction) else { return };
    set_default(rules, "selectPolicy", "Max");
    set_default(rules, "policies", policies.clone());
}
