//! `Namespace`: a room for names. It goes only when its content is gone, which the namespace controller reports by
//! emptying `spec.finalizers`.

use super::cells::{AGE, NAME, column};
use super::util::{child, names, set, set_default, text, unset};
use crate::api::{ApiResult, Gvr};
use crate::server::{
    ActionNames, Column, Effect, FieldErrors, Kind, KindNames, NameRule, SelectableField, WriteContext,
};
use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Value, json};

/// The label that carries a namespace's name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

pub(crate) struct NamespaceKind(KindNames);

impl NamespaceKind {
    pub(crate) fn new() -> Self {
        Self(names(Gvr::new("", "v1", "namespaces"), "Namespace", &["ns"], false, false))
    }
}

static COLUMNS: [Column; 3] = [NAME, column("Status", |o, _| text(o, "/status/phase").into()), AGE];

static FIELDS: [SelectableField; 1] =
    [SelectableField { path: "status.phase", value: |o| text(o, "/status/phase").to_owned() }];

static ACTIONS: [ActionNames; 1] =
    [ActionNames { name: "finalize", group: "", version: "v1", kind: "Namespace", verbs: &["update"] }];

#[async_trait]
impl Kind for NamespaceKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        "io.k8s.api.core.v1.Namespace"
    }

    fn name_rule(&self) -> NameRule {
        NameRule::Label
    }

    fn has_status(&self) -> bool {
        true
    }

    fn desired<'a>(&self, _: &'a Value) -> Option<&'a Value> {
        None
    }

    fn actions(&self) -> &'static [ActionNames] {
        &ACTIONS
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn fields(&self) -> &'static [SelectableField] {
        &FIELDS
    }

    fn default(&self, object: &mut Value) {
        let name = text(object, "/metadata/name").to_owned();
        if let Some(labels) = object.get_mut("metadata").and_then(|m| child(m, "labels")) {
            set(labels, NAME_LABEL, name.into());
        }
    }

    async fn admit(&self, new: &mut Value, old: Option<&Value>, _: &dyn WriteContext) -> ApiResult<()> {
        let Some(spec) = child(new, "spec") else { return Ok(()) };
        match old {
            // Finalizers change through `finalize` alone.
            Some(old) => match old.pointer("/spec/finalizers") {
                Some(finalizers) => set(spec, "finalizers", finalizers.clone()),
                None => unset(spec, "finalizers"),
            },
            None => {
                set(spec, "finalizers", json!(["kubernetes"]));
                set_default(new, "status", json!({"phase": "Active"}));
            }
        }
        Ok(())
    }

    fn validate(&self, new: &Value, _: Option<&Value>, errors: &mut FieldErrors) {
        let name = text(new, "/metadata/name");
        let label = new.pointer("/metadata/labels").and_then(|l| l.get(NAME_LABEL)).and_then(Value::as_str);
        if label != Some(name) {
            errors.invalid("metadata.labels", &label.into(), "the label kubernetes.io/metadata.name must be the name");
        }
    }

    fn mark_deleted(&self, object: &mut Value) {
        if let Some(status) = child(object, "status") {
            set(status, "phase", "Terminating".into());
        }
        if let Some(meta) = object.get_mut("metadata") {
            unset(meta, "deletionGracePeriodSeconds");
        }
    }

    fn holds_deletion(&self, object: &Value) -> bool {
        object.pointer("/spec/finalizers").and_then(Value::as_array).is_some_and(|f| !f.is_empty())
    }

    fn act(&self, _action: &str, body: &Value, object: &Value, _: Timestamp) -> ApiResult<Effect> {
        let mut new = object.clone();
        let finalizers = body.pointer("/spec/finalizers").cloned().unwrap_or_else(|| json!([]));
        if let Some(spec) = child(&mut new, "spec") {
            if finalizers.as_array().is_some_and(Vec::is_empty) {
                unset(spec, "finalizers");
            } else {
                set(spec, "finalizers", finalizers);
            }
        }
        Ok(Effect::Replace(new))
    }
}
