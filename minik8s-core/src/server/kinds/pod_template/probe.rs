//! Probes and lifecycle hooks.

use super::super::util::{default_text, number, set_default};
use crate::api::names;
use crate::server::FieldErrors;
use serde_json::Value;

/// Where a container's probes stand.
pub(super) const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];

const HANDLERS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "grpc"];

pub(super) fn default_probe(probe: &mut Value) {
    for (field, value) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        if probe.get(field).and_then(Value::as_i64).unwrap_or_default() == 0 {
            super::super::util::set(probe, field, value.into());
        }
    }
    if let Some(get) = probe.get_mut("httpGet").filter(|g| g.is_object()) {
        default_http_get(get);
    }
    if let Some(grpc) = probe.get_mut("grpc").filter(|g| g.is_object()) {
        set_default(grpc, "service", "");
    }
}

pub(super) fn default_http_get(get: &mut Value) {
    default_text(get, "path", "/");
    default_text(get, "scheme", "HTTP");
}

pub(super) fn validate_probe(path: &str, name: &str, probe: &Value, errors: &mut FieldErrors) {
    validate_handler(path, probe, &HANDLERS, errors);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        if let Some(n) = number(probe, &format!("/{field}")).filter(|n| *n < 0) {
            errors.invalid(format!("{path}.{field}"), &n.into(), "must be greater than or equal to 0");
        }
    }
    let successes = number(probe, "/successThreshold").unwrap_or(1);
    if name != "readinessProbe" && successes != 1 {
        errors.invalid(format!("{path}.successThreshold"), &successes.into(), "must be 1");
    }
}

/// Exactly one handler, with a port that can be.
pub(super) fn validate_handler(path: &str, value: &Value, allowed: &[&str], errors: &mut FieldErrors) {
    let given: Vec<_> = allowed.iter().filter(|h| value.get(**h).is_some_and(|v| !v.is_null())).collect();
    if given.is_empty() {
        errors.required(path, "must specify a handler type");
    }
    for extra in given.iter().skip(1) {
        errors.forbidden(format!("{path}.{extra}"), "may not specify more than 1 handler type");
    }
    for handler in given.iter().filter(|h| ["httpGet", "tcpSocket", "grpc"].contains(**h)) {
        let port = value.get(**handler).and_then(|h| h.get("port")).unwrap_or(&Value::Null);
        validate_port(&format!("{path}.{handler}.port"), port, errors);
    }
    let command = value.pointer("/exec/command").and_then(Value::as_array);
    if given.contains(&&"exec") && command.is_none_or(Vec::is_empty) {
        errors.required(format!("{path}.exec.command"), "");
    }
}

fn validate_port(path: &str, port: &Value, errors: &mut FieldErrors) {
    match port {
        Value::String(name) => {
            for why in names::port_name(name) {
                errors.invalid(path, port, &why);
            }
        }
        other => {
            if !other.as_i64().is_some_and(|n| (1..=65535).contains(&n)) {
                errors.invalid(path, other, "must be between 1 and 65535, inclusive");
            }
        }
    }
}
