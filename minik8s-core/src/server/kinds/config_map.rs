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
        let mut size = check_keys(new, "data", errors);
        size += check_keys(new, "binaryData", errors);
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
