//! Volumes: their names, and that each has one source that can be used.

use super::super::util::{items, text};
use crate::api::names;
use crate::server::FieldErrors;
use serde_json::Value;
use std::collections::BTreeSet;

/// Checks the volumes of a pod spec and returns their names.
pub(super) fn validate<'a>(path: &str, spec: &'a Value, errors: &mut FieldErrors) -> BTreeSet<&'a str> {
    let mut names_seen = BTreeSet::new();
    for (index, volume) in items(spec, "/volumes").enumerate() {
        let at = format!("{path}.volumes[{index}]");
        let name = text(volume, "/name");
        if name.is_empty() {
            errors.required(format!("{at}.name"), "");
        } else {
            for why in names::dns_label(name) {
                errors.invalid(format!("{at}.name"), &name.into(), &why);
            }
            if !names_seen.insert(name) {
                errors.duplicate(format!("{at}.name"), &name.into());
            }
        }
        validate_source(&at, volume, errors);
    }
    names_seen
}

fn validate_source(at: &str, volume: &Value, errors: &mut FieldErrors) {
    let given = volume.as_object().into_iter().flatten().filter(|(k, v)| *k != "name" && !v.is_null());
    let sources: Vec<&String> = given.map(|(k, _)| k).collect();
    if sources.is_empty() {
        errors.required(at, "must specify a volume type");
    }
    for extra in sources.iter().skip(1) {
        errors.forbidden(format!("{at}.{extra}"), "may not specify more than 1 volume type");
    }
    for (source, field) in [("hostPath", "path"), ("secret", "secretName"), ("configMap", "name")] {
        if volume.get(source).is_some_and(|s| text(s, &format!("/{field}")).is_empty()) {
            errors.required(format!("{at}.{source}.{field}"), "");
        }
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        let mode = volume.get(source).and_then(|s| s.get("defaultMode")).and_then(Value::as_i64);
        if let Some(mode) = mode.filter(|m| !(0..=0o777).contains(m)) {
            let why = "must be a number between 0 and 0777 (octal), both inclusive";
            errors.invalid(format!("{at}.{source}.defaultMode"), &mode.into(), why);
        }
    }
}
