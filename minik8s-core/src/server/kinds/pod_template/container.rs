//! Containers: names, images, ports, environment, mounts.

use super::super::util::{items, number, text};
use super::{identity, probe, resources, sources};
use crate::api::names;
use crate::server::FieldErrors;
use serde_json::Value;
use std::collections::BTreeSet;

const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

/// What containers of one pod have in common.
pub(super) struct Shared<'a> {
    pub(super) volumes: BTreeSet<&'a str>,
    pub(super) names: BTreeSet<&'a str>,
    pub(super) host_ports: BTreeSet<(String, i64, String)>,
    pub(super) init: bool,
}

pub(super) fn validate<'a>(path: &str, container: &'a Value, shared: &mut Shared<'a>, errors: &mut FieldErrors) {
    let name = text(container, "/name");
    if name.is_empty() {
        errors.required(format!("{path}.name"), "");
    } else {
        for why in names::dns_label(name) {
            errors.invalid(format!("{path}.name"), &name.into(), &why);
        }
        if !shared.names.insert(name) {
            errors.duplicate(format!("{path}.name"), &name.into());
        }
    }
    let image = text(container, "/image");
    if image.is_empty() {
        errors.required(format!("{path}.image"), "");
    } else if image != image.trim() {
        errors.invalid(format!("{path}.image"), &image.into(), "must not have leading or trailing whitespace");
    }
    let policy = text(container, "/imagePullPolicy");
    if !PULL_POLICIES.contains(&policy) {
        errors.unsupported(format!("{path}.imagePullPolicy"), policy, &PULL_POLICIES);
    }
    ports(path, container, shared, errors);
    env(path, container, errors);
    sources::validate_env_from(path, container, errors);
    identity::validate_container(path, container, errors);
    restart_policy(path, container, shared.init, errors);
    mounts(path, container, shared, errors);
    resources::validate(path, container, errors);
    probes(path, container, shared.init, errors);
}

fn ports<'a>(path: &str, container: &'a Value, shared: &mut Shared<'a>, errors: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    for (index, port) in items(container, "/ports").enumerate() {
        let at = format!("{path}.ports[{index}]");
        let name = text(port, "/name");
        for why in if name.is_empty() { Vec::new() } else { names::port_name(name) } {
            errors.invalid(format!("{at}.name"), &name.into(), &why);
        }
        if !name.is_empty() && !seen.insert(name) {
            errors.duplicate(format!("{at}.name"), &name.into());
        }
        let protocol = text(port, "/protocol");
        if !PROTOCOLS.contains(&protocol) {
            errors.unsupported(format!("{at}.protocol"), protocol, &PROTOCOLS);
        }
        match number(port, "/containerPort") {
            None | Some(0) => errors.required(format!("{at}.containerPort"), ""),
            Some(n) => in_range(format!("{at}.containerPort"), n, errors),
        }
        let Some(host) = number(port, "/hostPort").filter(|n| *n != 0) else { continue };
        in_range(format!("{at}.hostPort"), host, errors);
        let place = (text(port, "/hostIP").to_owned(), host, protocol.to_owned());
        if !shared.init && !shared.host_ports.insert(place) {
            errors.duplicate(format!("{at}.hostPort"), &host.into());
        }
    }
}

/// Only init containers have a policy of their own, and only this one: it makes them sidecars.
fn restart_policy(path: &str, container: &Value, init: bool, errors: &mut FieldErrors) {
    let policy = text(container, "/restartPolicy");
    if !init && !policy.is_empty() {
        errors.forbidden(format!("{path}.restartPolicy"), "may not be set for non-init containers");
    } else if !["", "Always"].contains(&policy) {
        errors.unsupported(format!("{path}.restartPolicy"), policy, &["Always"]);
    }
}

fn in_range(at: String, number: i64, errors: &mut FieldErrors) {
    if !(1..=65535).contains(&number) {
        errors.invalid(at, &number.into(), "must be between 1 and 65535, inclusive");
    }
}

fn env(path: &str, container: &Value, errors: &mut FieldErrors) {
    for (index, variable) in items(container, "/env").enumerate() {
        let at = format!("{path}.env[{index}]");
        let name = text(variable, "/name");
        if name.is_empty() {
            errors.required(format!("{at}.name"), "");
        } else {
            for why in names::env_var(name) {
                errors.invalid(format!("{at}.name"), &name.into(), &why);
            }
        }
        let Some(from) = variable.get("valueFrom").filter(|f| !f.is_null()) else { continue };
        if !text(variable, "/value").is_empty() {
            errors.invalid(format!("{at}.valueFrom"), &"".into(), "may not be specified when `value` is not empty");
        }
        let sources = from.as_object().map_or(0, |f| f.values().filter(|v| !v.is_null()).count());
        if sources != 1 {
            let why =
                "must specify exactly one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`";
            errors.invalid(format!("{at}.valueFrom"), &"".into(), why);
        }
        sources::validate_source(&format!("{at}.valueFrom"), from, errors);
        for source in ["configMapKeyRef", "secretKeyRef"] {
            if from.get(source).is_some_and(|s| text(s, "/key").is_empty()) {
                errors.required(format!("{at}.valueFrom.{source}.key"), "");
            }
        }
    }
}

fn mounts(path: &str, container: &Value, shared: &Shared<'_>, errors: &mut FieldErrors) {
    let mut paths = BTreeSet::new();
    for (index, mount) in items(container, "/volumeMounts").enumerate() {
        let at = format!("{path}.volumeMounts[{index}]");
        let (name, place) = (text(mount, "/name"), text(mount, "/mountPath"));
        if name.is_empty() {
            errors.required(format!("{at}.name"), "");
        } else if !shared.volumes.contains(name) {
            errors.not_found(format!("{at}.name"), name);
        }
        if place.is_empty() {
            errors.required(format!("{at}.mountPath"), "");
        } else if !paths.insert(place) {
            errors.invalid(format!("{at}.mountPath"), &place.into(), "must be unique");
        }
        let sub = text(mount, "/subPath");
        if sub.starts_with('/') {
            errors.invalid(format!("{at}.subPath"), &sub.into(), "must be a relative path");
        }
        if sub.split('/').any(|part| part == "..") {
            errors.invalid(format!("{at}.subPath"), &sub.into(), "must not contain '..'");
        }
    }
}

fn probes(path: &str, container: &Value, init: bool, errors: &mut FieldErrors) {
    let sidecar = text(container, "/restartPolicy") == "Always";
    for name in probe::PROBES {
        let Some(found) = container.get(name).filter(|p| !p.is_null()) else { continue };
        let at = format!("{path}.{name}");
        if init && !sidecar {
            errors.forbidden(at, "may not be set for init containers without restartPolicy=Always");
            continue;
        }
        probe::validate_probe(&at, name, found, errors);
    }
    for hook in ["postStart", "preStop"] {
        let Some(found) = container.get("lifecycle").and_then(|l| l.get(hook)).filter(|h| !h.is_null()) else {
            continue;
        };
        let at = format!("{path}.lifecycle.{hook}");
        if init && !sidecar {
            errors.forbidden(at, "may not be set for init containers without restartPolicy=Always");
            continue;
        }
        probe::validate_handler(&at, found, &["exec", "httpGet", "tcpSocket", "sleep"], errors);
    }
}
