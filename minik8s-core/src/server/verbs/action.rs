//! Sub-resources that are actions of a kind: the kind says what becomes of the object, the server does it.

use super::modify::Modify;
use super::prepare::Part;
use super::resolve::{method_not_allowed, unknown_resource};
use crate::api::{ApiError, ApiResult, Gvr, Object, Schemas, Target};
use crate::client::{DeleteOptions, Payload, WriteOptions, Written};
use crate::server::{ApiServer, Effect};
use bytes::Bytes;
use serde_json::{Value, json};
use std::sync::Arc;

const BINDINGS: &str = "bindings";
const PODS: Gvr = Gvr::new("", "v1", "pods");
const STATUSES: Gvr = Gvr::new("", "v1", "statuses");

enum Answer {
    Status,
    Object,
}

impl ApiServer {
    /// Carries out an action on the object a target names.
    pub(crate) async fn act(&self, target: &Target, body: &Payload, options: &WriteOptions) -> ApiResult<Written> {
        let served = self.resolve(target)?;
        let action = target.subresource.as_deref().ok_or_else(method_not_allowed)?;
        if !served.kind.actions().iter().any(|a| a.name == action) {
            return Err(unknown_resource());
        }
        let body = self.schemas.parse(body)?;
        super::body::check_place(target, &body)?;
        let plain = Target { subresource: None, ..target.clone() };
        let modify = Modify { served: &served, target: &plain, part: Part::Action, dry_run: options.dry_run };
        let mut answer = Answer::Status;
        let mut deletion = None;
        let now = self.clock.now();
        let written = self
            .modify(&modify, |current| {
                // A binding is for the pod that was looked at, not for its successor of the same name.
                super::body::check_uid(&plain, &body, &current.object)?;
                super::body::check_revision(&plain, &body, &current.object)?;
                Ok(match served.kind.act(action, &body, &current.value, now)? {
                    Effect::Update(new) => new,
                    Effect::Replace(new) => {
                        answer = Answer::Object;
                        new
                    }
                    Effect::Delete(options) => {
                        deletion = Some(options);
                        current.value.clone()
                    }
                })
            })
            .await?;
        if let Some(deletion) = deletion {
            let deletion = DeleteOptions { dry_run: options.dry_run || deletion.dry_run, ..deletion };
            Box::pin(self.delete_object(&plain, &deletion)).await?;
        }
        match answer {
            Answer::Object => Ok(written),
            Answer::Status => success(),
        }
    }
}

/// The old way to bind: a `Binding` posted to the collection `bindings` of a namespace.
pub(crate) fn legacy_binding(schemas: &Schemas, target: &Target, body: &Payload) -> ApiResult<Option<Target>> {
    if !target.gvr.group.is_empty() || target.gvr.resource != BINDINGS {
        return Ok(None);
    }
    let body = schemas.parse(body)?;
    let name = body.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let Some(namespace) = target.namespace.as_deref().filter(|_| !name.is_empty()) else {
        return Err(ApiError::bad_request("a Binding needs a namespace and the name of its pod"));
    };
    Ok(Some(Target::object(PODS, namespace, name).sub("binding")))
}

/// A `Status` that says it is done.
fn success() -> ApiResult<Written> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    let text = super::super::encode::stored_form(&status)?;
    let object = Object::from_json(STATUSES, Bytes::from(text.to_vec()))?;
    Ok(Written { object: Arc::new(object), warnings: Vec::new(), created: true })
}
