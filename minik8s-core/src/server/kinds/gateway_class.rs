//! `GatewayClass`: who serves the Gateways that name it.

use super::cells::{AGE, NAME, column, condition};
use super::ingress_class::check_controller;
use super::util::{names, set_default, text};
use crate::api::Gvr;
use crate::server::{Column, FieldErrors, Kind, KindNames};
use serde_json::{Value, json};

pub(crate) struct GatewayClassKind(KindNames);

impl GatewayClassKind {
    pub(crate) fn new() -> Self {
        let gvr = Gvr::new("gateway.networking.k8s.io", "v1", "gatewayclasses");
        Self(names(gvr, "GatewayClass", &["gc"], false, false))
    }
}

static COLUMNS: [Column; 4] = [
    NAME,
    column("Controller", |o, _| text(o, "/spec/controllerName").into()),
    column("Accepted", |o, _| condition(o, "/status/conditions", "Accepted").into()),
    AGE,
];

impl Kind for GatewayClassKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        "io.k8s.networking.gateway.v1.GatewayClass"
    }

    fn has_status(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn default(&self, object: &mut Value) {
        let waiting = json!({"type": "Accepted", "status": "Unknown", "reason": "Pending",
            "message": "Waiting for controller", "lastTransitionTime": "1970-01-01T00:00:00Z"});
        set_default(object, "status", json!({"conditions": [waiting]}));
    }

    fn validate(&self, new: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
        check_controller("spec.controllerName", text(new, "/spec/controllerName"), errors);
        if let Some(old) = old {
            let field = "controllerName";
            errors.immutable("spec.controllerName", &new["spec"][field], &old["spec"][field]);
        }
    }
}
