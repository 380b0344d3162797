//! Where a container's environment comes from.

use super::super::util::{items, text};
use crate::api::names;
use crate::server::FieldErrors;
use serde_json::Value;

/// Fields of a pod that a variable may show.
const FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Amounts of a container that a variable may show.
const AMOUNTS: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// Checks the source of one variable.
pub(super) fn validate_source(path: &str, from: &Value, errors: &mut FieldErrors) {
    if let Some(field) = from.get("fieldRef") {
        field_ref(&format!("{path}.fieldRef.fieldPath"), text(field, "/fieldPath"), errors);
    }
    if let Some(amount) = from.get("resourceFieldRef") {
        let (at, name) = (format!("{path}.resourceFieldRef.resource"), text(amount, "/resource"));
        let huge = name.strip_prefix("limits.hugepages-").or_else(|| name.strip_prefix("requests.hugepages-"));
        match name {
            "" => errors.required(at, ""),
            name if AMOUNTS.contains(&name) || huge.is_some() => {}
            name => errors.unsupported(at, name, &AMOUNTS),
        }
    }
}

fn field_ref(path: &str, field: &str, errors: &mut FieldErrors) {
    let key =
        ["metadata.labels['", "metadata.annotations['"].iter().find_map(|p| field.strip_prefix(p)?.strip_suffix("']"));
    match (field, key) {
        ("", _) => errors.required(path, ""),
        (_, Some(key)) => errors.complaints(path, key, names::qualified_name(key)),
        (field, None) if FIELDS.contains(&field) => {}
        (field, None) => {
            let why = format!("error converting fieldPath: field label not supported: {field}");
            errors.invalid(path, &field.into(), &why);
        }
    }
}

/// Checks `envFrom`.
pub(super) fn validate_env_from(path: &str, container: &Value, errors: &mut FieldErrors) {
    for (index, source) in items(container, "/envFrom").enumerate() {
        let at = format!("{path}.envFrom[{index}]");
        let prefix = text(source, "/prefix");
        if !prefix.is_empty() {
            errors.complaints(&format!("{at}.prefix"), prefix, names::env_var(prefix));
        }
        let given: Vec<&str> = ["configMapRef", "secretRef"]
            .into_iter()
            .filter(|s| source.get(*s).is_some_and(|v| !v.is_null()))
            .collect();
        match given.as_slice() {
            [] => errors.invalid(&at, &"".into(), "must specify one of: `configMapRef` or `secretRef`"),
            [one] => {
                if text(source, &format!("/{one}/name")).is_empty() {
                    errors.required(format!("{at}.{one}.name"), "");
                }
            }
            _ => errors.invalid(&at, &"".into(), "may not have more than one field specified at a time"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sources_of_variables() {
        let at_fault = |from: Value| {
            let mut errors = FieldErrors::default();
            validate_source("v", &from, &mut errors);
            errors.0.into_iter().map(|c| c.field).collect::<Vec<_>>()
        };
        for good in ["metadata.name", "status.podIP", "metadata.labels['app.kubernetes.io/name']"] {
            assert!(at_fault(json!({"fieldRef": {"fieldPath": good}})).is_empty(), "{good}");
        }
        for bad in ["", "spec.foo", "metadata.labels", "metadata.labels['a b']"] {
            assert_eq!(at_fault(json!({"fieldRef": {"fieldPath": bad}})), ["v.fieldRef.fieldPath"], "{bad}");
        }
        assert!(at_fault(json!({"resourceFieldRef": {"resource": "limits.cpu"}})).is_empty());
        assert_eq!(at_fault(json!({"resourceFieldRef": {"resource": "cpu"}})), ["v.resourceFieldRef.resource"]);
    }

    #[test]
    fn whole_maps_as_environment() {
        let at_fault = |from: Value| {
            let mut errors = FieldErrors::default();
            validate_env_from("c", &json!({"envFrom": [from]}), &mut errors);
            errors.0.into_iter().map(|c| c.field).collect::<Vec<_>>()
        };
        assert!(at_fault(json!({"configMapRef": {"name": "c"}, "prefix": "P_"})).is_empty());
        assert_eq!(at_fault(json!({})), ["c.envFrom[0]"]);
        assert_eq!(at_fault(json!({"secretRef": {}})), ["c.envFrom[0].secretRef.name"]);
        assert_eq!(at_fault(json!({"secretRef": {"name": "a"}, "configMapRef": {"name": "b"}})), ["c.envFrom[0]"]);
    }
}
