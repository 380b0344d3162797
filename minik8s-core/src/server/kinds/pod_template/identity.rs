//! Who a pod's processes are, and how they find others: users, DNS, host names.

use super::super::util::{items, number, text};
use crate::api::names;
use crate::server::FieldErrors;
use serde_json::Value;
use std::net::IpAddr;

const NOT_AN_ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const IDS: [&str; 3] = ["runAsUser", "runAsGroup", "fsGroup"];

/// Checks the parts of a pod spec that concern the pod as a whole.
pub(super) fn validate_pod(path: &str, spec: &Value, errors: &mut FieldErrors) {
    ids(&format!("{path}.securityContext"), &spec["securityContext"], errors);
    dns(path, spec, errors);
    for (index, alias) in items(spec, "/hostAliases").enumerate() {
        let at = format!("{path}.hostAliases[{index}]");
        address(&format!("{at}.ip"), text(alias, "/ip"), errors);
        for name in items(alias, "/hostnames").filter_map(Value::as_str) {
            errors.complaints(&format!("{at}.hostnames"), name, names::dns_subdomain(name));
        }
    }
}

/// Checks the security context of a container.
pub(super) fn validate_container(path: &str, container: &Value, errors: &mut FieldErrors) {
    let context = &container["securityContext"];
    let at = format!("{path}.securityContext");
    ids(&at, context, errors);
    let is = |field: &str, value: bool| context.get(field) == Some(&Value::Bool(value));
    if is("allowPrivilegeEscalation", false) && is("privileged", true) {
        let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        errors.invalid(at, context, why);
    }
}

fn ids(path: &str, context: &Value, errors: &mut FieldErrors) {
    for field in IDS {
        let id = number(context, &format!("/{field}")).filter(|id| !(0..=i64::from(i32::MAX)).contains(id));
        if let Some(id) = id {
            errors.invalid(format!("{path}.{field}"), &id.into(), "must be between 0 and 2147483647, inclusive");
        }
    }
}

fn address(path: &str, text: &str, errors: &mut FieldErrors) {
    if text.parse::<IpAddr>().is_err() {
        errors.invalid(path, &text.into(), NOT_AN_ADDRESS);
    }
}

fn dns(path: &str, spec: &Value, errors: &mut FieldErrors) {
    let servers = items(spec, "/dnsConfig/nameservers").count();
    if text(spec, "/dnsPolicy") == "None" {
        match spec.get("dnsConfig").filter(|d| !d.is_null()) {
            None => {
                errors.required(format!("{path}.dnsConfig"), "must provide `dnsConfig` when `dnsPolicy` is None");
            }
            Some(_) if servers == 0 => {
                let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
                errors.required(format!("{path}.dnsConfig.nameservers"), why);
            }
            Some(_) => {}
        }
    }
    let at = format!("{path}.dnsConfig.nameservers");
    if servers > 3 {
        errors.invalid(&at, &spec["dnsConfig"]["nameservers"], "must not have more than 3 nameservers");
    }
    for (index, server) in items(spec, "/dnsConfig/nameservers").enumerate() {
        address(&format!("{at}[{index}]"), server.as_str().unwrap_or_default(), errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn users_names_and_addresses() {
        let at_fault = |spec: Value| {
            let mut errors = FieldErrors::default();
            validate_pod("s", &spec, &mut errors);
            errors.0.into_iter().map(|c| c.field).collect::<Vec<_>>()
        };
        assert!(at_fault(json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"]}})).is_empty());
        assert_eq!(at_fault(json!({"dnsPolicy": "None"})), ["s.dnsConfig"]);
        assert_eq!(at_fault(json!({"dnsPolicy": "None", "dnsConfig": {}})), ["s.dnsConfig.nameservers"]);
        assert_eq!(at_fault(json!({"dnsConfig": {"nameservers": ["x"]}})), ["s.dnsConfig.nameservers[0]"]);
        assert_eq!(
            at_fault(json!({"hostAliases": [{"ip": "x", "hostnames": ["A"]}]})),
            ["s.hostAliases[0].ip", "s.hostAliases[0].hostnames"]
        );
        assert_eq!(
            at_fault(json!({"securityContext": {"runAsUser": -1, "fsGroup": 1}})),
            ["s.securityContext.runAsUser"]
        );
        let mut errors = FieldErrors::default();
        let context = json!({"securityContext": {"allowPrivilegeEscalation": false, "privileged": true}});
        validate_container("c", &context, &mut errors);
        assert_eq!(errors.0[0].field, "c.securityContext");
    }
}
