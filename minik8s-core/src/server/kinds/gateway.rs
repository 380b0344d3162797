//! `Gateway`: ports at which routes are served.

use super::cells::{AGE, NAME, column, condition, joined};

use super::hosts::{check_host, check_port, check_word};
use super::util::{child, default_text, items, items_mut, names, number, set_default, text};
use crate::api::{Gvr, Selector};
use crate::server::{Column, FieldErrors, Kind, KindNames};
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub(crate) struct GatewayKind(KindNames);

impl GatewayKind {
    pub(crate) fn new() -> Self {
        Self(names(Gvr::new("gateway.networking.k8s.io", "v1", "gateways"), "Gateway", &["gtw"], false, true))
    }
}

static COLUMNS: [Column; 5] = [
    NAME,
    column("Class", |o, _| text(o, "/spec/gatewayClassName").into()),
    column("Address", |o, _| joined(o, "/status/addresses", "value").into()),
    column("Programmed", |o, _| condition(o, "/status/conditions", "Programmed").into()),
    AGE,
];

const FROM: [&str; 4] = ["All", "None", "Same", "Selector"];
const MODES: [&str; 2] = ["Passthrough", "Terminate"];

impl Kind for GatewayKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        "io.k8s.networking.gateway.v1.Gateway"
    }

    fn has_status(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn default(&self, object: &mut Value) {
        let Some(spec) = object.get_mut("spec") else { return };
        for listener in items_mut(spec, "listeners") {
            if let Some(namespaces) = child(listener, "allowedRoutes").and_then(|a| child(a, "namespaces")) {
                default_text(namespaces, "from", "Same");
            }
            if let Some(tls) = listener.get_mut("tls").filter(|tls| tls.is_object()) {
                default_text(tls, "mode", "Terminate");
                for reference in items_mut(tls, "certificateRefs") {
                    set_default(reference, "group", "");
                    default_text(reference, "kind", "Secret");
                }
            }
        }
        let waiting = |kind: &str| {
            json!({"type": kind, "status": "Unknown", "reason": "Pending", "message": "Waiting for controller",
                "lastTransitionTime": "1970-01-01T00:00:00Z"})
        };
        set_default(object, "status", json!({"conditions": [waiting("Accepted"), waiting("Programmed")]}));
    }

    fn validate(&self, new: &Value, _: Option<&Value>, errors: &mut FieldErrors) {
        if text(new, "/spec/gatewayClassName").is_empty() {
            errors.required("spec.gatewayClassName", "");
        }
        if items(new, "/spec/listeners").next().is_none() {
            errors.required("spec.listeners", "a Gateway has at least one");
        }
        let (mut seen, mut places) = (BTreeSet::new(), BTreeSet::new());
        for (index, listener) in items(new, "/spec/listeners").enumerate() {
            let field = format!("spec.listeners[{index}]");
            check_listener(&field, listener, errors);
            if !seen.insert(text(listener, "/name")) {
                errors.duplicate(format!("{field}.name"), &listener["name"]);
            }
            let place = (number(listener, "/port"), text(listener, "/protocol"), text(listener, "/hostname"));
            if !places.insert(place) {
                let why = "combination of port, protocol and hostname must be unique for each listener";
                errors.invalid(field, &listener["name"], why);
            }
        }
    }
}

fn check_listener(field: &str, listener: &Value, errors: &mut FieldErrors) {
    let (name, host) = (text(listener, "/name"), text(listener, "/hostname"));
    if name.is_empty() {
        errors.required(format!("{field}.name"), "");
    } else {
        errors.complaints(&format!("{field}.name"), name, crate::api::names::dns_subdomain(name));
    }
    if !host.is_empty() {
        check_host(&format!("{field}.hostname"), host, errors);
    }
    check_port(&format!("{field}.port"), number(listener, "/port"), errors);
    let protocol = text(listener, "/protocol");
    let tls = listener.get("tls").filter(|tls| !tls.is_null());
    match (protocol, tls) {
        ("", _) => errors.required(format!("{field}.protocol"), ""),
        ("HTTP" | "TCP" | "UDP", Some(_)) => {
            errors.forbidden(format!("{field}.tls"), "must not be specified for protocols HTTP, TCP and UDP");
        }
        ("HTTPS" | "TLS", None) => errors.required(format!("{field}.tls"), "protocols HTTPS and TLS need it"),
        _ => {}
    }
    let mode = text(listener, "/tls/mode");
    check_word(&format!("{field}.tls.mode"), listener, "/tls/mode", &MODES, errors);
    if protocol == "HTTPS" && mode == "Terminate" && items(listener, "/tls/certificateRefs").next().is_none() {
        errors.required(format!("{field}.tls.certificateRefs"), "mode Terminate needs a certificate");
    }
    let from = "/allowedRoutes/namespaces/from";
    check_word(&format!("{field}.allowedRoutes.namespaces.from"), listener, from, &FROM, errors);
    if let Some(selector) = listener.pointer("/allowedRoutes/namespaces/selector").filter(|s| !s.is_null())
        && let Err(error) = Selector::from_value(selector)
    {
        errors.invalid(format!("{field}.allowedRoutes.namespaces.selector"), selector, &error.message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_that_make_no_sense_are_refused_by_field() {
        let fields = |listeners: Value| {
            let mut errors = FieldErrors::default();
            let mut object = json!({"spec": {"gatewayClassName": "c", "listeners": listeners}});
            GatewayKind::new().default(&mut object);
            GatewayKind::new().validate(&object, None, &mut errors);
            errors.0.into_iter().map(|c| c.field.replace("spec.listeners", "")).collect::<Vec<_>>()
        };
        let http = json!({"name": "h", "port": 80, "protocol": "HTTP"});
        let with = |field: &str, value: Value| {
            let mut listener = http.clone();
            listener[field] = value;
            json!([listener])
        };
        let table: [(Value, &[&str]); 9] = [
            (json!([http]), &[]),
            (json!([]), &[""]),
            (json!([http, http]), &["[1].name", "[1]"]),
            (with("port", json!(0)), &["[0].port"]),
            (with("hostname", json!("a b")), &["[0].hostname"]),
            (with("tls", json!({})), &["[0].tls"]),
            (with("protocol", json!("HTTPS")), &["[0].tls"]),
            (json!([{"name": "s", "port": 443, "protocol": "HTTPS", "tls": {}}]), &["[0].tls.certificateRefs"]),
            (with("allowedRoutes", json!({"namespaces": {"from": "Some"}})), &["[0].allowedRoutes.namespaces.from"]),
        ];
        for (listeners, want) in table {
            assert_eq!(fields(listeners.clone()), want, "{listeners}");
        }
    }
}
