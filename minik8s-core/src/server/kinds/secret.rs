//! `Secret`: data that is not shown.

use super::cells::{AGE, NAME, column};
use super::config_map::{MAX_SIZE, check_keys, immutable};
use super::util::{child, count, default_text, names, set, text, unset};
use crate::api::Gvr;
use crate::server::{Column, FieldErrors, Kind, KindNames, SelectableField};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

pub(crate) struct SecretKind(KindNames);

impl SecretKind {
    pub(crate) fn new() -> Self {
        Self(names(Gvr::new("", "v1", "secrets"), "Secret", &[], false, true))
    }
}

static COLUMNS: [Column; 4] =
    [NAME, column("Type", |o, _| text(o, "/type").into()), column("Data", |o, _| count(o, "/data").into()), AGE];

static FIELDS: [SelectableField; 1] = [SelectableField { path: "type", value: |o| text(o, "/type").to_owned() }];

/// Keys that a type of secret must have.
const REQUIRED: [(&str, &[&str]); 4] = [
    ("kubernetes.io/tls", &["tls.crt", "tls.key"]),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
];

impl Kind for SecretKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        "io.k8s.api.core.v1.Secret"
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn fields(&self) -> &'static [SelectableField] {
        &FIELDS
    }

    fn default(&self, object: &mut Value) {
        default_text(object, "type", "Opaque");
        let plain = object.get("stringData").and_then(Value::as_object).cloned();
        unset(object, "stringData");
        let Some(plain) = plain.filter(|p| !p.is_empty()) else { return };
        let Some(data) = child(object, "data") else { return };
        for (key, value) in plain {
            set(data, &key, STANDARD.encode(value.as_str().unwrap_or_default()).into());
        }
    }

    fn validate(&self, new: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
        if check_keys(new, "data", errors) / 4 * 3 > MAX_SIZE {
            errors.too_long("data", MAX_SIZE);
        }
        for (key, value) in new.get("data").and_then(Value::as_object).into_iter().flatten() {
            if value.as_str().is_none_or(|v| STANDARD.decode(v).is_err()) {
                // The value itself must not show in an error.
                errors.invalid_shown(format!("data[{key}]"), "\"<redacted>\"", "must be base64");
            }
        }
        let kind = text(new, "/type");
        for key in REQUIRED.iter().filter(|(k, _)| *k == kind).flat_map(|(_, keys)| *keys) {
            if new.get("data").and_then(|d| d.get(key)).is_none() {
                errors.required(format!("data[{key}]"), "");
            }
        }
        let Some(old) = old else { return };
        if old.get("type") != new.get("type") {
            errors.invalid("type", &kind.into(), "field is immutable");
        }
        immutable(new, old, &["data"], errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn plain_text_becomes_data() {
        let mut secret = json!({"stringData": {"a": "b"}, "data": {"c": "ZA=="}});
        SecretKind::new().default(&mut secret);
        assert_eq!(secret, json!({"type": "Opaque", "data": {"a": "Yg==", "c": "ZA=="}}));
    }

    #[test]
    fn errors_never_show_values() {
        let mut errors = FieldErrors::default();
        SecretKind::new().validate(&json!({"type": "Opaque", "data": {"a": "hunter2!"}}), None, &mut errors);
        assert_eq!(errors.0.len(), 1);
        assert!(!errors.0[0].message.contains("hunter2"), "{:?}", errors.0);
    }
}
