//! `IngressClass`: who serves the Ingresses that name it.

use super::cells::{AGE, NAME, column};
use super::util::{names, text};
use crate::api::Gvr;
use crate::server::{Column, FieldErrors, Kind, KindNames};
use serde_json::Value;

pub(crate) struct IngressClassKind(KindNames);

/// Where classes are found.
pub(super) fn gvr() -> Gvr {
    Gvr::new("networking.k8s.io", "v1", "ingressclasses")
}

impl IngressClassKind {
    pub(crate) fn new() -> Self {
        Self(names(gvr(), "IngressClass", &[], false, false))
    }
}

static COLUMNS: [Column; 4] = [
    NAME,
    column("Controller", |o, _| text(o, "/spec/controller").into()),
    column("Parameters", |o, _| match text(o, "/spec/parameters/name") {
        "" => "<none>".into(),
        name => format!("{}/{name}", text(o, "/spec/parameters/kind")).into(),
    }),
    AGE,
];

impl Kind for IngressClassKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        "io.k8s.api.networking.v1.IngressClass"
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn desired<'a>(&self, object: &'a Value) -> Option<&'a Value> {
        object.get("spec")
    }

    fn validate(&self, new: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
        check_controller("spec.controller", text(new, "/spec/controller"), errors);
        if let Some(old) = old {
            errors.immutable("spec.controller", &new["spec"]["controller"], &old["spec"]["controller"]);
        }
    }
}

/// `domain/path`.
pub(super) fn check_controller(field: &str, name: &str, errors: &mut FieldErrors) {
    match name.split_once('/') {
        _ if name.is_empty() => errors.required(field, ""),
        Some((domain, path)) if !path.is_empty() => {
            errors.complaints(field, name, crate::api::names::dns_subdomain(domain));
        }
        _ => errors.invalid(field, &name.into(), "must be a domain-prefixed path (such as \"acme.io/foo\")"),
    }
}
