//! `EndpointSlice`: a part of the addresses behind a service.

use super::cells::{AGE, NAME, column};
use super::endpoints::{check_ip, shortened};
use super::util::{default_text, items, items_mut, names, number, set_default, text};
use crate::api::Gvr;
use crate::server::{Column, FieldErrors, Kind, KindNames};
use serde_json::Value;

const UNSET: &str = "<unset>";
const ADDRESS_TYPES: [&str; 3] = ["FQDN", "IPv4", "IPv6"];
const MOST_ENDPOINTS: usize = 1000;

pub(crate) struct EndpointSliceKind(KindNames);

impl EndpointSliceKind {
    pub(crate) fn new() -> Self {
        Self(names(Gvr::new("discovery.k8s.io", "v1", "endpointslices"), "EndpointSlice", &[], false, true))
    }
}

static COLUMNS: [Column; 5] = [
    NAME,
    column("AddressType", |o, _| text(o, "/addressType").into()),
    column("Ports", |o, _| ports(o).into()),
    column("Endpoints", |o, _| endpoints(o).into()),
    AGE,
];

impl Kind for EndpointSliceKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        "io.k8s.api.discovery.v1.EndpointSlice"
    }

    fn desired<'a>(&self, object: &'a Value) -> Option<&'a Value> {
        // Endpoints and ports both count; the endpoints are what changes.
        object.get("endpoints").or(Some(&Value::Null))
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn default(&self, object: &mut Value) {
        set_default(object, "endpoints", Value::Array(Vec::new()));
        for port in items_mut(object, "ports") {
            set_default(port, "name", "");
            default_text(port, "protocol", "TCP");
        }
    }

    fn validate(&self, new: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
        let kind = text(new, "/addressType");
        if kind.is_empty() {
            errors.required("addressType", "");
        } else if !ADDRESS_TYPES.contains(&kind) {
            errors.unsupported("addressType", kind, &ADDRESS_TYPES);
        }
        if old.is_some_and(|o| text(o, "/addressType") != kind) {
            errors.invalid("addressType", &kind.into(), "field is immutable");
        }
        if items(new, "/endpoints").count() > MOST_ENDPOINTS {
            errors.invalid("endpoints", &Value::Null, &format!("must have at most {MOST_ENDPOINTS} items"));
        }
        for (index, endpoint) in items(new, "/endpoints").enumerate() {
            let at = format!("endpoints[{index}].addresses");
            if items(endpoint, "/addresses").next().is_none() {
                errors.required(at.clone(), "must contain at least 1 address");
            }
            for (place, address) in items(endpoint, "/addresses").enumerate().filter(|_| kind != "FQDN") {
                check_ip(format!("{at}[{place}]"), address.as_str().unwrap_or_default(), errors);
            }
        }
    }
}

fn ports(slice: &Value) -> String {
    let one = |port: &Value| match number(port, "/port") {
        Some(n) => n.to_string(),
        None => "*".to_owned(),
    };
    let all: Vec<String> = items(slice, "/ports").map(one).collect();
    if all.is_empty() { UNSET.to_owned() } else { shortened(&all) }
}

fn endpoints(slice: &Value) -> String {
    let addresses = items(slice, "/endpoints").flat_map(|e| items(e, "/addresses")).filter_map(Value::as_str);
    let all: Vec<String> = addresses.map(str::to_owned).collect();
    if all.is_empty() { UNSET.to_owned() } else { shortened(&all) }
}
