//! `Endpoints`: the old form of the addresses behind a service.

use super::cells::{AGE, NAME, NONE, column};
use super::util::{child, default_text, items, items_mut, names, number, text};
use crate::api::Gvr;
use crate::server::{Column, FieldErrors, Kind, KindNames};
use serde_json::Value;
use std::net::IpAddr;

/// How many addresses a cell shows.
const SHOWN: usize = 3;

pub(crate) struct EndpointsKind(KindNames);

impl EndpointsKind {
    pub(crate) fn new() -> Self {
        Self(names(Gvr::new("", "v1", "endpoints"), "Endpoints", &["ep"], false, true))
    }
}

static COLUMNS: [Column; 3] = [NAME, column("Endpoints", |o, _| addresses(o).into()), AGE];

impl Kind for EndpointsKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        "io.k8s.api.core.v1.Endpoints"
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn default(&self, object: &mut Value) {
        let _ = child(object, "metadata");
        for subset in items_mut(object, "subsets") {
            for port in items_mut(subset, "ports") {
                default_text(port, "protocol", "TCP");
            }
        }
    }

    fn validate(&self, new: &Value, _: Option<&Value>, errors: &mut FieldErrors) {
        for (index, subset) in items(new, "/subsets").enumerate() {
            let at = format!("subsets[{index}]");
            let count = items(subset, "/addresses").count() + items(subset, "/notReadyAddresses").count();
            if count == 0 {
                errors.required(at.clone(), "must specify `addresses` or `notReadyAddresses`");
            }
            for list in ["addresses", "notReadyAddresses"] {
                for (place, address) in items(subset, &format!("/{list}")).enumerate() {
                    check_ip(format!("{at}.{list}[{place}].ip"), text(address, "/ip"), errors);
                }
            }
            for (place, port) in items(subset, "/ports").enumerate() {
                let n = number(port, "/port").unwrap_or_default();
                if !(1..=65535).contains(&n) {
                    let path = format!("{at}.ports[{place}].port");
                    errors.invalid(path, &n.into(), "must be between 1 and 65535, inclusive");
                }
            }
        }
    }
}

/// Refuses what is no address.
pub(super) fn check_ip(path: String, ip: &str, errors: &mut FieldErrors) {
    if ip.parse::<IpAddr>().is_err() {
        errors.invalid(path, &ip.into(), "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
    }
}

fn addresses(object: &Value) -> String {
    let mut all = Vec::new();
    for subset in items(object, "/subsets") {
        let ips = || items(subset, "/addresses").map(|a| text(a, "/ip"));
        let ports: Vec<i64> = items(subset, "/ports").filter_map(|p| number(p, "/port")).collect();
        if ports.is_empty() {
            all.extend(ips().map(str::to_owned));
        }
        for port in ports {
            all.extend(
                ips().map(|ip| if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }),
            );
        }
    }
    if all.is_empty() { NONE.to_owned() } else { shortened(&all) }
}

/// The first few, and how many more there are.
pub(super) fn shortened(all: &[String]) -> String {
    let shown = all.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(",");
    match all.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cells_are_short() {
        let of = |ips: &[&str]| {
            let list: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
            addresses(&json!({"subsets": [{"addresses": list, "ports": [{"port": 80}]}]}))
        };
        assert_eq!(of(&["10.0.0.1"]), "10.0.0.1:80");
        assert_eq!(of(&["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4"]), "1.1.1.1:80,1.1.1.2:80,1.1.1.3:80 + 1 more...");
        assert_eq!(of(&[]), "<none>");
        assert_eq!(of(&["fd00::1"]), "[fd00::1]:80");
    }
}
