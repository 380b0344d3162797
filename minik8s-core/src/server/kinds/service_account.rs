//! `ServiceAccount`: who a pod is to the API.

use super::cells::{AGE, NAME, column};
use super::util::{items, names};
use crate::api::{ApiError, ApiResult, Gvr, Reason};
use crate::server::{ActionNames, Column, DeletionRule, Effect, Kind, KindNames};
use jiff::Timestamp;
use serde_json::Value;

pub(crate) struct ServiceAccountKind(KindNames);

impl ServiceAccountKind {
    pub(crate) fn new() -> Self {
        Self(names(Gvr::new("", "v1", "serviceaccounts"), "ServiceAccount", &["sa"], false, true))
    }
}

static COLUMNS: [Column; 3] = [NAME, column("Secrets", |o, _| items(o, "/secrets").count().into()), AGE];

static ACTIONS: [ActionNames; 1] = [ActionNames {
    name: "token",
    group: "authentication.k8s.io",
    version: "v1",
    kind: "TokenRequest",
    verbs: &["create"],
}];

impl Kind for ServiceAccountKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        "io.k8s.api.core.v1.ServiceAccount"
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn actions(&self) -> &'static [ActionNames] {
        &ACTIONS
    }

    fn deletion(&self) -> DeletionRule {
        DeletionRule { answers_object: true, grace: |_| 0 }
    }

    fn act(&self, _: &str, _: &Value, _: &Value, _: Timestamp) -> ApiResult<Effect> {
        let why = "service account tokens are not issued by this version of minik8s; use the admin kubeconfig";
        Err(ApiError::new(Reason::MethodNotAllowed, why))
    }
}
