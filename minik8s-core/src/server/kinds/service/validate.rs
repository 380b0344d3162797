//! What a service must obey.

use super::{HEADLESS, has_node_ports};
use crate::api::{metadata, names};
use crate::server::FieldErrors;
use crate::server::kinds::util::{items, number, text};
use serde_json::Value;
use std::collections::BTreeSet;

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

pub(super) fn validate(new: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
    let spec = new.get("spec").unwrap_or(&Value::Null);
    let kind = text(spec, "/type");
    let headless = text(spec, "/clusterIP") == HEADLESS;
    if items(spec, "/ports").next().is_none() && !headless && kind != "ExternalName" {
        errors.required("spec.ports", "");
    }
    ports(spec, errors);
    metadata::labels(&spec["selector"], "spec.selector", errors);
    let affinity = text(spec, "/sessionAffinity");
    if !["ClientIP", "None"].contains(&affinity) {
        errors.unsupported("spec.sessionAffinity", affinity, &["ClientIP", "None"]);
    }
    if !TYPES.contains(&kind) {
        errors.unsupported("spec.type", kind, &TYPES);
    }
    if headless && has_node_ports(spec) {
        errors.invalid(
            "spec.clusterIPs[0]",
            &HEADLESS.into(),
            "may not be set to 'None' for NodePort and LoadBalancer services",
        );
    }
    if kind == "ExternalName" {
        external_name(text(spec, "/externalName"), errors);
    }
    if let Some(old) = old.and_then(|o| o.get("spec")) {
        address_stays(spec, old, errors);
    }
}

fn external_name(name: &str, errors: &mut FieldErrors) {
    if name.is_empty() {
        return errors.required("spec.externalName", "");
    }
    for why in names::dns_subdomain(name.trim_end_matches('.')) {
        errors.invalid("spec.externalName", &name.into(), &why);
    }
}

fn address_stays(spec: &Value, old: &Value, errors: &mut FieldErrors) {
    let (now, before) = (text(spec, "/clusterIP"), text(old, "/clusterIP"));
    if !before.is_empty() && now != before && text(spec, "/type") != "ExternalName" {
        errors.invalid("spec.clusterIPs[0]", &serde_json::json!([now]), "may not change once set");
    }
}

fn ports(spec: &Value, errors: &mut FieldErrors) {
    let several = items(spec, "/ports").count() > 1;
    let (mut seen_names, mut seen, mut seen_node) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (index, port) in items(spec, "/ports").enumerate() {
        let at = format!("spec.ports[{index}]");
        let (name, protocol) = (text(port, "/name"), text(port, "/protocol"));
        if name.is_empty() && several {
            errors.required(format!("{at}.name"), "");
        }
        for why in if name.is_empty() { Vec::new() } else { names::dns_label(name) } {
            errors.invalid(format!("{at}.name"), &name.into(), &why);
        }
        if !name.is_empty() && !seen_names.insert(name) {
            errors.duplicate(format!("{at}.name"), &name.into());
        }
        numbers(&at, port, errors);
        if !PROTOCOLS.contains(&protocol) {
            errors.unsupported(format!("{at}.protocol"), protocol, &PROTOCOLS);
        }
        if let Some(number) = number(port, "/port")
            && !seen.insert((number, protocol))
        {
            errors.duplicate(at.clone(), &serde_json::json!({"port": number, "protocol": protocol}));
        }
        let Some(node) = number(port, "/nodePort").filter(|n| *n != 0) else { continue };
        if !has_node_ports(spec) {
            let kind = text(spec, "/type");
            errors.forbidden(format!("{at}.nodePort"), &format!("may not be used when `type` is '{kind}'"));
        } else if !seen_node.insert((node, protocol)) {
            errors.duplicate(format!("{at}.nodePort"), &node.into());
        }
    }
}

fn numbers(at: &str, port: &Value, errors: &mut FieldErrors) {
    const RANGE: &str = "must be between 1 and 65535, inclusive";
    let listens = number(port, "/port").unwrap_or_default();
    if !(1..=65535).contains(&listens) {
        errors.invalid(format!("{at}.port"), &listens.into(), RANGE);
    }
    match port.get("targetPort").unwrap_or(&Value::Null) {
        Value::String(name) => {
            for why in names::port_name(name) {
                errors.invalid(format!("{at}.targetPort"), &name.as_str().into(), &why);
            }
        }
        target => {
            if !target.as_i64().is_some_and(|n| (1..=65535).contains(&n)) {
                errors.invalid(format!("{at}.targetPort"), target, RANGE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Kind;
    use serde_json::json;

    #[test]
    fn faults_are_named_by_field() {
        let at_fault = |spec: Value| {
            let mut service = json!({"metadata": {"name": "s"}, "spec": spec});
            super::super::ServiceKind::new().default(&mut service);
            let mut errors = FieldErrors::default();
            validate(&service, None, &mut errors);
            errors.0.into_iter().map(|c| c.field).collect::<Vec<_>>()
        };
        assert!(at_fault(json!({"ports": [{"port": 80}]})).is_empty());
        assert!(at_fault(json!({"clusterIP": "None"})).is_empty());
        assert!(at_fault(json!({"type": "ExternalName", "externalName": "example.com"})).is_empty());
        for (spec, field) in [
            (json!({}), "spec.ports"),
            (json!({"ports": [{"port": 80}], "type": "Magic"}), "spec.type"),
            (json!({"ports": [{"port": 80, "protocol": "ICMP"}]}), "spec.ports[0].protocol"),
            (json!({"ports": [{"port": 80, "nodePort": 30000}]}), "spec.ports[0].nodePort"),
            (json!({"ports": [{"port": 80}], "sessionAffinity": "Sticky"}), "spec.sessionAffinity"),
            (json!({"type": "ExternalName"}), "spec.externalName"),
            (json!({"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 80}]}), "spec.ports[1]"),
            (json!({"ports": [{"port": 80, "targetPort": 99999}]}), "spec.ports[0].targetPort"),
        ] {
            assert_eq!(at_fault(spec.clone()), [field], "{spec}");
        }
        let unnamed = at_fault(json!({"ports": [{"port": 80}, {"port": 81}]}));
        assert_eq!(unnamed, ["spec.ports[0].name", "spec.ports[1].name"]);
    }
}
