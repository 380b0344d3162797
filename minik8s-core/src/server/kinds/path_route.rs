//! `PathRoute`: paths that lead to Services whatever the host.

use super::cells::{AGE, NAME, column, joined};
use super::hosts::{check_path, check_port};
use super::util::{items, items_mut, names, number, set_default, text};
use crate::api::Gvr;
use crate::api::names::dns_1035_label;
use crate::server::{Column, FieldErrors, Kind, KindNames};
use serde_json::{Value, json};

pub(crate) struct PathRouteKind(KindNames);

impl PathRouteKind {
    pub(crate) fn new() -> Self {
        Self(names(Gvr::new("minik8s.io", "v1alpha1", "pathroutes"), "PathRoute", &[], false, true))
    }
}

static COLUMNS: [Column; 4] = [
    NAME,
    column("Path", |o, _| text(o, "/spec/path").into()),
    column("Services", |o, _| joined(o, "/spec/backends", "service").into()),
    AGE,
];

impl Kind for PathRouteKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        "io.minik8s.v1alpha1.PathRoute"
    }

    fn has_status(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn default(&self, object: &mut Value) {
        if let Some(spec) = object.get_mut("spec") {
            items_mut(spec, "backends").for_each(|backend| set_default(backend, "weight", 1));
        }
        set_default(object, "status", json!({}));
    }

    fn validate(&self, new: &Value, _: Option<&Value>, errors: &mut FieldErrors) {
        check_path("spec.path", text(new, "/spec/path"), errors);
        if !matches!(text(new, "/spec/rewrite"), "" | "/") {
            check_path("spec.rewrite", text(new, "/spec/rewrite"), errors);
        }
        for (index, backend) in items(new, "/spec/backends").enumerate() {
            check_backend(&format!("spec.backends[{index}]"), backend, errors);
        }
        if let Some(backend) = new.pointer("/spec/deferred").filter(|backend| !backend.is_null()) {
            check_backend("spec.deferred", backend, errors);
        }
        let amounts = ["timeoutSeconds", "maxBodyBytes", "hold/queue", "hold/patienceSeconds", "hold/concurrency"];
        for name in amounts {
            if let Some(found) = number(new, &format!("/spec/{name}")).filter(|n| *n < 0) {
                errors.invalid(format!("spec.{}", name.replace('/', ".")), &json!(found), "must not be negative");
            }
        }
    }
}

fn check_backend(at: &str, backend: &Value, errors: &mut FieldErrors) {
    let service = text(backend, "/service");
    errors.complaints(&format!("{at}.service"), service, dns_1035_label(service));
    check_port(&format!("{at}.port"), number(backend, "/port"), errors);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_that_lead_nowhere_are_refused_by_field() {
        let fields = |spec: Value| {
            let mut errors = FieldErrors::default();
            PathRouteKind::new().validate(&json!({ "spec": spec }), None, &mut errors);
            errors.0.into_iter().map(|c| c.field).collect::<Vec<_>>()
        };
        let backend = json!({"service": "f-1", "port": 80});
        let table: [(Value, &[&str]); 6] = [
            (json!({"path": "/function/a/b", "rewrite": "/", "backends": [backend]}), &[]),
            (json!({"path": "x", "backends": [backend]}), &["spec.path"]),
            (
                json!({"path": "/x", "backends": [{"service": "A", "port": 0}]}),
                &["spec.backends[0].service", "spec.backends[0].port"],
            ),
            (json!({"path": "/x", "backends": [], "hold": {"queue": -1}}), &["spec.hold.queue"]),
            (json!({"path": "/x", "backends": [backend], "deferred": backend}), &[]),
            (
                json!({"path": "/x", "backends": [], "deferred": {"service": "-"}}),
                &["spec.deferred.service", "spec.deferred.port"],
            ),
        ];
        for (spec, want) in table {
            assert_eq!(fields(spec.clone()), want, "{spec}");
        }
    }
}
