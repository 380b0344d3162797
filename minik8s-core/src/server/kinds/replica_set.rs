//! `ReplicaSet`: so many pods of one template.

use super::cells::{AGE, NAME, integer, spec_selector, template_containers, template_images, wide};
use super::util::{names, number};
use super::workload::{SCALE, default_workload, validate_workload};
use crate::api::Gvr;
use crate::server::{Column, FieldErrors, Kind, KindNames, ScalePaths, SelectableField};
use serde_json::Value;

pub(crate) struct ReplicaSetKind(KindNames);

impl ReplicaSetKind {
    pub(crate) fn new() -> Self {
        Self(names(Gvr::new("apps", "v1", "replicasets"), "ReplicaSet", &["rs"], true, true))
    }
}

static COLUMNS: [Column; 8] = [
    NAME,
    integer("Desired", |o, _| number(o, "/spec/replicas").unwrap_or_default().into()),
    integer("Current", |o, _| number(o, "/status/replicas").unwrap_or_default().into()),
    integer("Ready", |o, _| number(o, "/status/readyReplicas").unwrap_or_default().into()),
    AGE,
    wide("Containers", template_containers),
    wide("Images", template_images),
    wide("Selector", spec_selector),
];

static FIELDS: [SelectableField; 1] = [SelectableField {
    path: "status.replicas",
    value: |o| number(o, "/status/replicas").unwrap_or_default().to_string(),
}];

impl Kind for ReplicaSetKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        "io.k8s.api.apps.v1.ReplicaSet"
    }

    fn has_status(&self) -> bool {
        true
    }

    fn scale(&self) -> Option<ScalePaths> {
        Some(SCALE)
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn fields(&self) -> &'static [SelectableField] {
        &FIELDS
    }

    fn default(&self, object: &mut Value) {
        default_workload(object);
        super::util::set_default(object, "status", serde_json::json!({"replicas": 0}));
    }

    fn validate(&self, new: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
        validate_workload(new, old, errors);
    }
}
