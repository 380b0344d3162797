//! Sub-resources that are actions of a kind: the kind says what becomes of the object, the server does it.

use super::asking::Asking;
use super::create::ATTEMPTS;
use super::delete::Ending;
use super::modify::{Current, Modify};
use super::prepare::Part;
use super::resolve::{method_not_allowed, unknown_resource};
use super::{Served, view};
use crate::api::{ApiError, ApiResult, Gvr, Object, Schemas, Target};
use crate::client::{DeleteOptions, Payload, WriteOptions, Written};
use crate::server::{ApiServer, Effect};
use bytes::Bytes;
use serde_json::{Value, json};
use std::sync::Arc;

const BINDINGS: &str = "bindings";
const PODS: Gvr = Gvr::new("", "v1", "pods");
const STATUSES: Gvr = Gvr::new("", "v1", "statuses");

/// An action on its way.
struct Acting<'a> {
    served: Served,
    /// The object, without the sub-resource.
    target: Target,
    action: &'a str,
    body: Value,
    options: &'a WriteOptions,
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
        let target = Target { subresource: None, ..target.clone() };
        let acting = Acting { served, target, action, body, options };
        let mut last = None;
        for _ in 0..ATTEMPTS {
            match self.try_to_act(&acting).await? {
                Ok(written) => return Ok(written),
                Err(why) => last = Some(why),
            }
        }
        Err(last.unwrap_or_else(|| super::body::modified(&acting.target)))
    }

    /// The inner error says that somebody came between.
    async fn try_to_act(&self, acting: &Acting<'_>) -> ApiResult<Result<Written, ApiError>> {
        let Acting { served, target, action, body, options } = acting;
        let (key, object) = self.current(served, target).await?;
        let current = Current { key, value: view::value(served, &object)?, object };
        // A binding is for the pod that was looked at, not for its successor of the same name.
        super::body::check_uid(target, body, &current.object)?;
        super::body::check_revision(target, body, &current.object)?;
        let modify = Modify { served, target, part: Part::Action, options };
        Ok(match served.kind.act(action, body, &current.value, self.clock.now())? {
            Effect::Update(new) => match self.settle_change(&modify, &current, new).await? {
                Ok(_) => Ok(success()?),
                Err(why) => Err(why),
            },
            Effect::Replace(new) => {
                let changed = self.settle_change(&modify, &current, new).await?;
                changed.map(|object| Written { object, warnings: Vec::new(), created: false })
            }
            Effect::Delete(deletion, last) => {
                let deletion = DeleteOptions { dry_run: options.dry_run || deletion.dry_run, ..deletion };
                let asking = Asking { server: self, user: options.user.as_ref() };
                let beside = served.kind.beside(action, &current.value, &asking).await?;
                let ending = Ending { last: &last, beside };
                match self.try_delete(served, target, &current, ending, &deletion).await? {
                    Ok(_) => Ok(success()?),
                    Err(why) => Err(why),
                }
            }
        })
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
