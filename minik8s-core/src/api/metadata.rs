//! The rules of `metadata`, common to all kinds.

use super::{FieldErrors, NameRule, names};
use serde_json::Value;

/// Annotations are not larger than this, keys and values together.
const MAX_ANNOTATIONS: usize = 256 * 1024;
fn text<'a>(meta: &'a Value, key: &str) -> &'a str {
    meta.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// What is wrong with the `metadata` of an object.
pub fn validate(object: &Value, rule: NameRule, namespaced: bool, errors: &mut FieldErrors) {
    let meta = &object["metadata"];
    let (name, prefix, namespace) = (text(meta, "name"), text(meta, "generateName"), text(meta, "namespace"));
    if !prefix.is_empty() {
        errors.complaints("metadata.generateName", prefix, rule.check_prefix(prefix));
    }
    if name.is_empty() {
        errors.required("metadata.name", "name or generateName is required");
    } else {
        errors.complaints("metadata.name", name, rule.check(name));
    }
    match (namespaced, namespace.is_empty()) {
        (true, true) => errors.required("metadata.namespace", ""),
        (true, false) => errors.complaints("metadata.namespace", namespace, names::dns_label(namespace)),
        (false, false) => errors.forbidden("metadata.namespace", "not allowed on this type"),
        (false, true) => {}
    }
    if let Some(generation) = meta.get("generation").filter(|g| g.as_i64().is_some_and(|g| g < 0)) {
        errors.invalid("metadata.generation", generation, "must be greater than or equal to 0");
    }
    labels(&meta["labels"], "metadata.labels", errors);
    annotations(&meta["annotations"], "metadata.annotations", errors);
    owners(&meta["ownerReferences"], errors);
    finalizers(&meta["finalizers"], errors);
}

/// What is wrong with a map of labels.
pub fn labels(labels: &Value, path: &str, errors: &mut FieldErrors) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        errors.complaints(path, key, names::qualified_name(key));
        let value = value.as_str().unwrap_or_default();
        errors.complaints(path, value, names::label_value(value));
    }
}

/// What is wrong with a map of annotations.
pub fn annotations(annotations: &Value, path: &str, errors: &mut FieldErrors) {
    let mut size = 0;
    for (key, value) in annotations.as_object().into_iter().flatten() {
        errors.complaints(path, key, names::qualified_name(&key.to_lowercase()));
        size += key.len() + value.as_str().unwrap_or_default().len();
    }
    if size > MAX_ANNOTATIONS {
        errors.too_long(path, MAX_ANNOTATIONS);
    }
}

fn owners(owners: &Value, errors: &mut FieldErrors) {
    const PATH: &str = "metadata.ownerReferences";
    let mut controllers = Vec::new();
    for owner in owners.as_array().into_iter().flatten() {
        let version = text(owner, "apiVersion");
        if version.is_empty() || version.ends_with('/') {
            errors.invalid(format!("{PATH}.apiVersion"), &version.into(), "version must not be empty");
        }
        for key in ["kind", "name", "uid"] {
            if text(owner, key).is_empty() {
                errors.invalid(format!("{PATH}.{key}"), &"".into(), &format!("{key} must not be empty"));
            }
        }
        if text(owner, "kind") == "Event" && (version == "v1" || version.starts_with("events.k8s.io/")) {
            errors.invalid(PATH, owner, "an Event is disallowed from being an owner");
        }
        if owner.get("controller") == Some(&Value::Bool(true)) {
            controllers.push(format!("{}/{}", text(owner, "kind"), text(owner, "name")));
        }
    }
    if let [first, second, ..] = controllers.as_slice() {
        let why = format!(
            "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {second}"
        );
        errors.invalid(PATH, owners, &why);
    }
}

fn finalizers(finalizers: &Value, errors: &mut FieldErrors) {
    const PATH: &str = "metadata.finalizers";
    let list = || finalizers.as_array().into_iter().flatten().filter_map(Value::as_str);
    for name in list() {
        errors.complaints(PATH, name, names::qualified_name(name));
    }
    if list().any(|f| f == "orphan") && list().any(|f| f == "foregroundDeletion") {
        errors.invalid(PATH, finalizers, "finalizer orphan and foregroundDeletion cannot be both set");
    }
}

/// What is wrong with a change of `metadata`: identity does not change, and who is being deleted gets no new finalizers.
pub fn validate_update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let (new, old) = (&new["metadata"], &old["metadata"]);
    for key in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        errors.immutable(format!("metadata.{key}"), &new[key], &old[key]);
    }
    let generation = |meta: &Value| meta["generation"].as_i64().unwrap_or_default();
    if generation(new) < generation(old) {
        errors.invalid("metadata.generation", &new["generation"], "must not be decremented");
    }
    if !old["deletionTimestamp"].is_null() {
        new_finalizers(new, old, errors);
    }
}

fn new_finalizers(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let before = old["finalizers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let after = new["finalizers"].as_array().into_iter().flatten();
    let added: Vec<String> = after.filter(|f| !before.contains(f)).map(Value::to_string).collect();
    if !added.is_empty() {
        let added = added.join(", ");
        let why = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{added}}}"
        );
        errors.forbidden("metadata.finalizers", &why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn problems(meta: Value) -> Vec<String> {
        let mut errors = FieldErrors::default();
        validate(&json!({"metadata": meta}), NameRule::Subdomain, true, &mut errors);
        errors.0.into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    #[test]
    fn good_metadata_passes() {
        let meta = json!({"name": "a.b", "namespace": "default", "generateName": "a-", "generation": 1,
            "labels": {"app.kubernetes.io/name": "x", "e": ""}, "annotations": {"Kubectl.io/Last": "any text {}"},
            "finalizers": ["kubernetes", "example.com/x"],
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}]});
        assert_eq!(problems(meta), Vec::<String>::new());
    }

    #[test]
    fn bad_metadata_is_told_field_by_field() {
        assert_eq!(
            problems(json!({"namespace": "default"})),
            ["metadata.name: Required value: name or generateName is required"]
        );
        let starts = [
            (
                json!({"name": "A", "namespace": "d"}),
                "metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain must",
            ),
            (json!({"name": "a"}), "metadata.namespace: Required value"),
            (
                json!({"name": "a", "namespace": "a.b"}),
                "metadata.namespace: Invalid value: \"a.b\": a lowercase RFC 1123 label must",
            ),
            (
                json!({"name": "a", "namespace": "d", "generateName": "X-"}),
                "metadata.generateName: Invalid value: \"X-\": ",
            ),
            (
                json!({"name": "a", "namespace": "d", "labels": {"a b": "c"}}),
                "metadata.labels: Invalid value: \"a b\": name part must consist",
            ),
            (
                json!({"name": "a", "namespace": "d", "labels": {"a": "b c"}}),
                "metadata.labels: Invalid value: \"b c\": a valid label must",
            ),
            (
                json!({"name": "a", "namespace": "d", "annotations": {"/a": "c"}}),
                "metadata.annotations: Invalid value: \"/a\": prefix part must be non-empty",
            ),
            (
                json!({"name": "a", "namespace": "d", "annotations": {"a": "x".repeat(MAX_ANNOTATIONS)}}),
                "metadata.annotations: Too long: may not be more than 262144 bytes",
            ),
            (
                json!({"name": "a", "namespace": "d", "finalizers": ["-"]}),
                "metadata.finalizers: Invalid value: \"-\": name part",
            ),
            (
                json!({"name": "a", "namespace": "d", "finalizers": ["orphan", "foregroundDeletion"]}),
                "metadata.finalizers: Invalid value: [\"orphan\",\"foregroundDeletion\"]: finalizer orphan and",
            ),
            (json!({"name": "a", "namespace": "d", "generation": -1}), "metadata.generation: Invalid value: -1"),
            (
                json!({"name": "a", "namespace": "d", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p"}]}),
                "metadata.ownerReferences.uid: Invalid value: \"\": uid must not be empty",
            ),
            (
                json!({"name": "a", "namespace": "d", "ownerReferences": [{"apiVersion": "apps/", "kind": "X", "name": "p", "uid": "u"}]}),
                "metadata.ownerReferences.apiVersion: Invalid value: \"apps/\": version must not be empty",
            ),
        ];
        for (meta, start) in starts {
            let found = problems(meta);
            assert!(found.len() == 1 && found[0].starts_with(start), "{found:?} should start with {start}");
        }
        let owner =
            |name: &str| json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": "u", "controller": true});
        let two = problems(json!({"name": "a", "namespace": "d", "ownerReferences": [owner("p"), owner("q")]}));
        assert!(two[0].ends_with("Found \"true\" in references for Pod/p and Pod/q"), "{two:?}");
        let mut errors = FieldErrors::default();
        validate(&json!({"metadata": {"name": "a", "namespace": "d"}}), NameRule::Label, false, &mut errors);
        assert_eq!(errors.0[0].message, "Forbidden: not allowed on this type");
    }

    #[test]
    fn identity_does_not_change() {
        let old = json!({"metadata": {"name": "a", "uid": "1", "generation": 2, "finalizers": ["a/b"], "deletionTimestamp": "x"}});
        let mut errors = FieldErrors::default();
        validate_update(&old, &old, &mut errors);
        assert!(errors.is_empty());
        let new = json!({"metadata": {"name": "a", "uid": "2", "generation": 1, "finalizers": ["a/b", "c/d"], "deletionTimestamp": "x"}});
        validate_update(&new, &old, &mut errors);
        let found: Vec<_> = errors.0.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
        assert_eq!(
            found,
            [
                "metadata.uid: Invalid value: \"2\": field is immutable",
                "metadata.generation: Invalid value: 1: must not be decremented",
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found \
                 new finalizers []string{\"c/d\"}"
            ]
        );
    }
}
