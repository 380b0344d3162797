//! Names that no object may have, and references to them, by the same rule, so that they still fit together.

use super::Notes;
use minik8s_core::api::names::{dns_1035_label, dns_label, dns_subdomain, port_name};
use serde_json::Value;

/// How a name may be wrong.
type Check = fn(&str) -> Vec<String>;

/// Lower case, dashes for what is no letter or digit, a letter in front where one must be.
fn mended(name: &str, check: Check, longest: usize) -> Option<String> {
    let keeps_dots = check("a.b").is_empty();
    let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || keeps_dots && c == '.';
    let lower = name.trim().to_lowercase();
    let mut fresh: String = lower.chars().map(|c| if ok(c) { c } else { '-' }).collect();
    while fresh.contains("--") {
        fresh = fresh.replace("--", "-");
    }
    fresh.truncate(longest);
    let fresh = fresh.trim_matches(['-', '.']).to_owned();
    // A text of digits is a number that was quoted, not a name.
    let prefixed = (!fresh.bytes().all(|b| b.is_ascii_digit())).then(|| format!("x{fresh}"));
    [Some(fresh), prefixed].into_iter().flatten().find(|fresh| check(fresh).is_empty())
}

fn mend_one(value: Option<&mut Value>, place: &str, check: Check, longest: usize, notes: &mut Notes) {
    let Some(value) = value else { return };
    let Some(name) = value.as_str().filter(|name| !name.is_empty() && !check(name).is_empty()) else { return };
    if let Some(fresh) = mended(name, check, longest) {
        notes.add(format!("{place}: {name} is {fresh}"));
        *value = fresh.into();
    }
}

/// Mends the object's name and the names it holds.
pub(super) fn mend(version: &str, kind: &str, object: &mut Value, notes: &mut Notes) {
    if !super::heads::is_ours(version, kind) {
        return;
    }
    let (own, longest): (Check, usize) = if kind == "Service" { (dns_1035_label, 63) } else { (dns_subdomain, 253) };
    mend_one(object.pointer_mut("/metadata/name"), "metadata.name", own, longest, notes);
    mend_one(object.pointer_mut("/metadata/namespace"), "metadata.namespace", dns_label, 63, notes);
    mend_one(object.pointer_mut("/spec/scaleTargetRef/name"), "spec.scaleTargetRef.name", dns_subdomain, 253, notes);
    each(object, "/spec", "paths", |item, at| {
        mend_one(item.get_mut("serviceName"), &format!("{at}.serviceName"), dns_1035_label, 63, notes);
    });
    match kind {
        "Pod" => pod(object, "/spec", notes),
        "ReplicaSet" | "Deployment" => pod(object, "/spec/template/spec", notes),
        "Service" => each(object, "/spec", "ports", |item, at| service_ports(item, at, notes)),
        _ => {}
    }
}

fn pod(object: &mut Value, place: &str, notes: &mut Notes) {
    for list in ["containers", "initContainers"] {
        each(object, place, list, |container, at| {
            mend_one(container.get_mut("name"), &format!("{at}.name"), dns_label, 63, notes);
            each(container, "", "ports", |item, inner| {
                mend_one(item.get_mut("name"), &format!("{at}{inner}.name"), port_name, 15, notes);
            });
            probes(container, at, notes);
            each(container, "", "volumeMounts", |item, inner| {
                mend_one(item.get_mut("name"), &format!("{at}{inner}.name"), dns_label, 63, notes);
            });
        });
    }
    each(object, place, "volumes", |item, at| {
        mend_one(item.get_mut("name"), &format!("{at}.name"), dns_label, 63, notes);
    });
}

/// Ports that probes and hooks name.
fn probes(container: &mut Value, at: &str, notes: &mut Notes) {
    let probes = ["livenessProbe", "readinessProbe", "startupProbe"].map(|probe| format!("/{probe}"));
    let hooks = ["postStart", "preStop"].map(|hook| format!("/lifecycle/{hook}"));
    for parent in probes.iter().chain(&hooks) {
        for way in ["httpGet", "tcpSocket"] {
            let pointer = format!("{parent}/{way}/port");
            let place = format!("{at}{}", pointer.replace('/', "."));
            mend_one(container.pointer_mut(&pointer), &place, port_name, 15, notes);
        }
    }
}

/// A Service's ports have longer names than a container's.
fn service_ports(item: &mut Value, at: &str, notes: &mut Notes) {
    mend_one(item.get_mut("name"), &format!("{at}.name"), dns_label, 63, notes);
    mend_one(item.get_mut("targetPort"), &format!("{at}.targetPort"), port_name, 15, notes);
}

/// Every item of a list, with its path as people write it.
fn each(object: &mut Value, pointer: &str, list: &str, mut work: impl FnMut(&mut Value, &str)) {
    let place = pointer.replace('/', ".");
    let items = object.pointer_mut(pointer).and_then(|parent| parent.get_mut(list)).and_then(Value::as_array_mut);
    for (index, item) in items.into_iter().flatten().enumerate() {
        let at = format!("{place}.{list}[{index}]");
        work(item, if pointer.is_empty() { &at } else { at.trim_start_matches('.') });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_what_they_may() {
        let table: [(&str, Check, Option<&str>); 6] = [
            ("My_Pod", dns_subdomain, Some("my-pod")),
            ("a.b_C", dns_subdomain, Some("a.b-c")),
            ("a.b", dns_label, Some("a-b")),
            ("1web", dns_1035_label, Some("x1web")),
            ("__", dns_label, None),
            ("Ünï", dns_label, Some("n")),
        ];
        for (name, check, expected) in table {
            assert_eq!(mended(name, check, 63).as_deref(), expected, "{name}");
        }
        assert_eq!(mended(&"A".repeat(80), dns_label, 63), Some("a".repeat(63)));
    }
}
