//! `ConfigMap`: configuration as text and bytes.

use super::cells::{AGE, NAME, column};
use super::util::{count, names};
use crate::api::Gvr;
use crate::api::names::config_key;
use crate::server::{Column, FieldErrors, Kind, KindNames};
use serde_json::Value;

/// Largest sum of keys and values, in bytes.
pub(crate) const MAX_SIZE: usize = 1024 * 1024;

pub(crate) struct ConfigMapKind(KindNames);

impl ConfigMapKind {
    pub(crate) fn new() -> Self {
        Self(names(Gvr::new("", "v1", "configmaps"), "ConfigMap", &["cm"], false, true))
    }
}

static COLUMNS: [Column; 3] = [NAME, column("Data", |o, _| (count(o, "/data") + count(o, "/binaryData")).into()), AGE];

impl Kind for ConfigMapKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        "io.k8s.api.core.v1.ConfigMap"
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn validate(&self, new: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
        check_keys(new, "binaryData", errors);
        let size = check_keys(new, "data", errors) + decoded(new, "binaryData");
        for key in fields(new, "data").filter(|key| new["binaryData"].get(key.as_str()).is_some()) {
            errors.invalid(format!("data[{key}]"), &key.as_str().into(), "duplicate of key present in binaryData");
        }
        if size > MAX_SIZE {
            errors.too_long("", MAX_SIZE);
        }
        if let Some(old) = old {
            immutable(new, old, &["data", "binaryData"], errors);
        }
    }
}

fn fields<'a>(object: &'a Value, field: &str) -> impl Iterator<Item = &'a String> {
    object.get(field).and_then(Value::as_object).into_iter().flat_map(|m| m.keys())
}

/// The size of a map of bytes, which stand there as base64: of it, all but the padding is worth three quarters.
fn decoded(object: &Value, field: &str) -> usize {
    let values = object.get(field).and_then(Value::as_object).into_iter().flat_map(|m| m.values());
    values.filter_map(Value::as_str).map(|text| text.trim_end_matches('=').len() * 3 / 4).sum()
}

/// Checks the keys of a map of data, and returns its size.
pub(crate) fn check_keys(object: &Value, field: &str, errors: &mut FieldErrors) -> usize {
    let mut size = 0;
    for (key, value) in object.get(field).and_then(Value::as_object).into_iter().flatten() {
        for why in config_key(key) {
            errors.invalid(format!("{field}[{key}]"), &key.as_str().into(), &why);
        }
        size += value.as_str().map_or(0, str::len);
    }
    size
}

/// Refuses changes of data that is marked as immutable.
pub(crate) fn immutable(new: &Value, old: &Value, guarded: &[&str], errors: &mut FieldErrors) {
    if old.get("immutable") != Some(&Value::Bool(true)) {
        return;
    }
    for field in guarded.iter().filter(|f| new.get(**f) != old.get(**f)) {
        errors.forbidden(*field, "field is immutable when `immutable` is set");
    }
    if new.get("immutable") != Some(&Value::Bool(true)) {
        errors.forbidden("immutable", "field is immutable when `immutable` is set");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    #[test]
    fn bytes_count_as_what_they_are_and_not_as_they_are_written() {
        let refused = |text: usize, bytes: usize| {
            let map = json!({"data": {"t": "x".repeat(text)}, "binaryData": {"b": STANDARD.encode(vec![7; bytes])}});
            let mut errors = FieldErrors::default();
            ConfigMapKind::new().validate(&map, None, &mut errors);
            !errors.0.is_empty()
        };
        for (text, bytes, want) in
            [(0, MAX_SIZE, false), (0, MAX_SIZE + 1, true), (1, MAX_SIZE - 1, false), (2, MAX_SIZE - 1, true)]
        {
            assert_eq!(refused(text, bytes), want, "{text} {bytes}");
        }
    }
}
