//! What may change of a pod that exists.

use super::super::util::{items, text};
use crate::server::FieldErrors;
use serde_json::Value;

const WHY: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
    `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
    tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(super) fn validate(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let (Some(new), Some(old)) = (new.get("spec"), old.get("spec")) else { return };
    for list in ["containers", "initContainers"] {
        let count = |spec: &Value| items(spec, &format!("/{list}")).count();
        if count(new) != count(old) {
            errors.forbidden(format!("spec.{list}"), "pod updates may not add or remove containers");
            return;
        }
    }
    deadline(new, old, errors);
    if with_allowed_of(new, old) != *old {
        errors.forbidden("spec", WHY);
    }
    let kept = items(old, "/tolerations").all(|t| items(new, "/tolerations").any(|n| same_but_seconds(n, t)));
    if !kept {
        errors.forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds");
    }
}

/// `new` with everything that may change taken from `old`.
fn with_allowed_of(new: &Value, old: &Value) -> Value {
    let mut masked = new.clone();
    let Some(map) = masked.as_object_mut() else { return masked };
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        match old.get(field) {
            Some(value) => drop(map.insert(field.to_owned(), value.clone())),
            None => drop(map.remove(field)),
        }
    }
    for list in ["containers", "initContainers"] {
        let images: Vec<_> = items(old, &format!("/{list}")).map(|c| c.get("image").cloned()).collect();
        let containers = map.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for (container, image) in containers.zip(images) {
            if let (Some(container), Some(image)) = (container.as_object_mut(), image) {
                container.insert("image".to_owned(), image);
            }
        }
    }
    masked
}

fn same_but_seconds(new: &Value, old: &Value) -> bool {
    ["key", "operator", "value", "effect"].iter().all(|f| text(new, &format!("/{f}")) == text(old, &format!("/{f}")))
}

fn deadline(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let of = |spec: &Value| spec.get("activeDeadlineSeconds").and_then(Value::as_i64);
    match (of(new), of(old)) {
        (None, Some(_)) => errors.invalid(
            "spec.activeDeadlineSeconds",
            &Value::Null,
            "must not update from a positive integer to nil value",
        ),
        (Some(n), Some(o)) if n > o => {
            errors.invalid("spec.activeDeadlineSeconds", &n.into(), &format!("must be less than or equal to {o}"));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn images_may_change_and_the_node_may_not() {
        let old = json!({"spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}});
        let check = |patch: Value| {
            let mut new = old.clone();
            json_patch::merge(&mut new, &patch);
            let mut errors = FieldErrors::default();
            validate(&new, &old, &mut errors);
            errors.0.into_iter().map(|c| c.field).collect::<Vec<_>>()
        };
        assert!(check(json!({"spec": {"containers": [{"name": "c", "image": "i2"}]}})).is_empty());
        assert!(
            check(json!({"spec": {"tolerations": [{"operator": "Exists"}], "activeDeadlineSeconds": 5}})).is_empty()
        );
        assert_eq!(check(json!({"spec": {"nodeName": "n2"}})), ["spec"]);
        assert_eq!(check(json!({"spec": {"containers": []}})), ["spec.containers"]);
    }
}
