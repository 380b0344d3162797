//! `Dns`: a host whose paths lead to Services.

use super::cells::{AGE, NAME, column, condition};

use super::hosts::{check_host, check_path, check_port};
use super::util::{default_text, items, items_mut, names, number, set_default, text};
use crate::api::Gvr;
use crate::api::names::dns_1035_label;
use crate::server::{Column, FieldErrors, Kind, KindNames};
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub(crate) struct DnsKind(KindNames);

impl DnsKind {
    pub(crate) fn new() -> Self {
        Self(names(Gvr::new("minik8s.io", "v1alpha1", "dns"), "Dns", &[], false, true))
    }
}

static COLUMNS: [Column; 5] = [
    NAME,
    column("Host", |o, _| text(o, "/spec/host").into()),
    column("Paths", |o, _| items(o, "/spec/paths").map(|p| text(p, "/path")).collect::<Vec<_>>().join(",").into()),
    column("Ready", |o, _| condition(o, "/status/conditions", "Ready").into()),
    AGE,
];

impl Kind for DnsKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        "io.minik8s.v1alpha1.Dns"
    }

    fn has_status(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn default(&self, object: &mut Value) {
        if let Some(spec) = object.get_mut("spec") {
            items_mut(spec, "paths").for_each(|path| default_text(path, "path", "/"));
        }
        set_default(object, "status", json!({}));
    }

    fn validate(&self, new: &Value, _: Option<&Value>, errors: &mut FieldErrors) {
        match text(new, "/spec/host") {
            "" => errors.required("spec.host", ""),
            host => check_host("spec.host", host, errors),
        }
        if items(new, "/spec/paths").next().is_none() {
            errors.required("spec.paths", "a host leads to at least one Service");
        }
        let mut seen = BTreeSet::new();
        for (index, path) in items(new, "/spec/paths").enumerate() {
            let field = |name: &str| format!("spec.paths[{index}].{name}");
            check_path(&field("path"), text(path, "/path"), errors);
            if !seen.insert(text(path, "/path").trim_end_matches('/')) {
                errors.duplicate(field("path"), &path["path"]);
            }
            match text(path, "/serviceName") {
                "" => errors.required(field("serviceName"), ""),
                name => errors.complaints(&field("serviceName"), name, dns_1035_label(name)),
            }
            check_port(&field("servicePort"), number(path, "/servicePort"), errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_without_a_way_are_refused_by_field() {
        let fields = |spec: Value| {
            let mut object = json!({ "spec": spec });
            let mut errors = FieldErrors::default();
            DnsKind::new().default(&mut object);
            DnsKind::new().validate(&object, None, &mut errors);
            errors.0.into_iter().map(|c| c.field).collect::<Vec<_>>()
        };
        let path = |path: &str| json!({"path": path, "serviceName": "web", "servicePort": 80});
        let table: [(Value, &[&str]); 7] = [
            (json!({"host": "a.example", "paths": [path("/x"), path("")]}), &[]),
            (json!({}), &["spec.host", "spec.paths"]),
            (json!({"host": "a_b", "paths": [path("/")]}), &["spec.host"]),
            (json!({"host": "a.b", "paths": [path("/x"), path("/x/")]}), &["spec.paths[1].path"]),
            (json!({"host": "a.b", "paths": [path("x")]}), &["spec.paths[0].path"]),
            (json!({"host": "a.b", "paths": [path(&"/a".repeat(513))]}), &["spec.paths[0].path"]),
            (json!({"host": "a.b", "paths": [{}]}), &["spec.paths[0].serviceName", "spec.paths[0].servicePort"]),
        ];
        for (spec, want) in table {
            assert_eq!(fields(spec.clone()), want, "{spec}");
        }
    }
}
