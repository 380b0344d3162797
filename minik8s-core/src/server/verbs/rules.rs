//! What metadata must obey, whatever the kind. Pure.

use crate::api::names;
use crate::server::{FieldErrors, Kind, NameRule};
use serde_json::{Map, Value};

const ANNOTATIONS_LIMIT: usize = 256 * 1024;

/// What is wrong with a name under a kind's rule; `prefix` for a `generateName`, which may end in `-`.
pub(crate) fn name(rule: NameRule, text: &str, prefix: bool) -> Vec<String> {
    let tried = if prefix {
        text.strip_suffix('-').map_or_else(|| text.to_owned(), |t| format!("{t}a"))
    } else {
        text.to_owned()
    };
    match rule {
        NameRule::Subdomain => names::dns_subdomain(&tried),
        NameRule::Label => names::dns_label(&tried),
        NameRule::ServiceLabel => names::dns_1035_label(&tried),
    }
}

/// Metadata of an object about to be written.
pub(crate) fn metadata(kind: &dyn Kind, new: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
    let empty = Map::new();
    let meta = new.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
    if old.is_none() {
        names_of_new(kind, meta, errors);
    }
    labels(meta.get("labels"), errors);
    annotations(meta.get("annotations"), errors);
    owners(meta.get("ownerReferences"), errors);
    finalizers(meta.get("finalizers"), old, errors);
}

fn names_of_new(kind: &dyn Kind, meta: &Map<String, Value>, errors: &mut FieldErrors) {
    let text = |name: &str| meta.get(name).and_then(Value::as_str).unwrap_or_default();
    let generate = text("generateName");
    if !generate.is_empty() {
        for why in name(kind.name_rule(), generate, true) {
            errors.invalid("metadata.generateName", &generate.into(), &why);
        }
    }
    let given = text("name");
    if given.is_empty() {
        errors.required("metadata.name", "name or generateName is required");
        return;
    }
    for why in name(kind.name_rule(), given, false) {
        errors.invalid("metadata.name", &given.into(), &why);
    }
}

/// Labels, wherever they stand.
pub(crate) fn labels_at(path: &str, labels: Option<&Value>, errors: &mut FieldErrors) {
    for (key, value) in labels.and_then(Value::as_object).into_iter().flatten() {
        for why in names::qualified_name(key) {
            errors.invalid(path, &key.as_str().into(), &why);
        }
        for why in value.as_str().map(names::label_value).unwrap_or_default() {
            errors.invalid(path, value, &why);
        }
    }
}

fn labels(labels: Option<&Value>, errors: &mut FieldErrors) {
    labels_at("metadata.labels", labels, errors);
}

fn annotations(annotations: Option<&Value>, errors: &mut FieldErrors) {
    let mut size = 0;
    for (key, value) in annotations.and_then(Value::as_object).into_iter().flatten() {
        size += key.len() + value.as_str().map_or(0, str::len);
        for why in names::qualified_name(&key.to_ascii_lowercase()) {
            errors.invalid("metadata.annotations", &key.as_str().into(), &why);
        }
    }
    if size > ANNOTATIONS_LIMIT {
        errors.too_long("metadata.annotations", ANNOTATIONS_LIMIT);
    }
}

fn owners(owners: Option<&Value>, errors: &mut FieldErrors) {
    let mut controllers = 0;
    for (index, owner) in owners.and_then(Value::as_array).into_iter().flatten().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner.get(field).and_then(Value::as_str).unwrap_or_default().is_empty() {
                let path = format!("metadata.ownerReferences[{index}].{field}");
                errors.invalid(path, &"".into(), &format!("{field} must not be empty"));
            }
        }
        controllers += usize::from(owner.get("controller") == Some(&Value::Bool(true)));
    }
    if controllers > 1 {
        let why = "Only one reference can have Controller set to true";
        errors.invalid("metadata.ownerReferences", &owners.cloned().unwrap_or_default(), why);
    }
}

fn finalizers(new: Option<&Value>, old: Option<&Value>, errors: &mut FieldErrors) {
    let list = |value: Option<&Value>| -> Vec<String> {
        let items = value.and_then(Value::as_array).into_iter().flatten();
        items.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let new = list(new);
    for (index, finalizer) in new.iter().enumerate() {
        for why in names::qualified_name(finalizer) {
            errors.invalid(format!("metadata.finalizers[{index}]"), &finalizer.as_str().into(), &why);
        }
    }
    let Some(old) = old.and_then(|o| o.get("metadata")) else { return };
    if old.get("deletionTimestamp").is_none() {
        return;
    }
    let known = list(old.get("finalizers"));
    let added: Vec<_> = new.iter().filter(|f| !known.contains(f)).map(|f| format!("{f:?}")).collect();
    if !added.is_empty() {
        let why = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
            added.join(", ")
        );
        errors.forbidden("metadata.finalizers", &why);
    }
}
