//! The `scale` sub-resource: how many replicas a kind shall have, in the one form that autoscalers know.

use super::body::{check_revision, check_uid};
use super::modify::{Current, Modify};
use super::prepare::Part;
use super::resolve::unknown_resource;
use super::{Served, patch};
use crate::api::{ApiError, ApiResult, Cause, Details, Gvr, Object, Reason, Selector, Target};
use crate::client::{PatchType, Payload, WriteOptions, Written};
use crate::server::{ApiServer, Kind, encode};
use serde_json::{Value, json};
use std::sync::Arc;

const SCALES: Gvr = Gvr::new("autoscaling", "v1", "scales");

impl ApiServer {
    pub(crate) async fn update_scale(
        &self,
        served: &Served,
        target: &Target,
        body: &Payload,
        options: &WriteOptions,
    ) -> ApiResult<Written> {
        let sent = self.schemas.parse(body)?;
        self.change_scale(served, target, options, |_| Ok(sent.clone())).await
    }

    pub(crate) async fn patch_scale(
        &self,
        served: &Served,
        target: &Target,
        (kind, body): (PatchType, &Payload),
        options: &WriteOptions,
    ) -> ApiResult<Written> {
        // Scale has no lists, so that a strategic merge is a merge.
        let kind = if kind == PatchType::StrategicMerge { PatchType::Merge } else { kind };
        let document = self.schemas.parse(body)?;
        self.change_scale(served, target, options, |scale| patch::apply_plain(kind, &document, scale)).await
    }

    async fn change_scale<F>(
        &self,
        served: &Served,
        target: &Target,
        options: &WriteOptions,
        mut to: F,
    ) -> ApiResult<Written>
    where
        F: FnMut(Value) -> ApiResult<Value> + Send,
    {
        let modify = Modify { served, target, part: Part::Main, options };
        let kind = served.kind.as_ref();
        let written = self
            .modify(&modify, |current| {
                let scale = to(value(kind, current)?)?;
                check_revision(target, &scale, &current.object)?;
                check_uid(target, &scale, &current.object)?;
                with_replicas(kind, current, replicas(target, &scale)?)
            })
            .await?;
        Ok(Written { object: read(kind, &written.object)?, ..written })
    }
}

/// An object's scale.
pub(crate) fn read(kind: &dyn Kind, object: &Object) -> ApiResult<Arc<Object>> {
    let scale = of(kind, object, &object.value()?)?;
    let stored = encode::stored_form(&scale)?;
    let shown = encode::object(&SCALES, &stored, object.revision, encode::Fields::default())?;
    Ok(Arc::new(shown))
}

fn value(kind: &dyn Kind, current: &Current) -> ApiResult<Value> {
    let mut scale = of(kind, &current.object, &current.value)?;
    scale["metadata"]["resourceVersion"] = current.object.meta.resource_version.clone().into();
    Ok(scale)
}

fn of(kind: &dyn Kind, object: &Object, value: &Value) -> ApiResult<Value> {
    let paths = kind.scale().ok_or_else(unknown_resource)?;
    let number = |path: &str| value.pointer(path).and_then(Value::as_i64).unwrap_or_default();
    let selector = value.pointer(paths.selector).map(Selector::from_value).transpose()?;
    let mut scale = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {"name": object.meta.name, "uid": object.meta.uid},
        "spec": {"replicas": number(paths.spec_replicas)},
        "status": {"replicas": number(paths.status_replicas)},
    });
    if !object.meta.namespace.is_empty() {
        scale["metadata"]["namespace"] = object.meta.namespace.as_str().into();
    }
    if let Some(created) = &object.meta.creation_timestamp {
        scale["metadata"]["creationTimestamp"] = created.as_str().into();
    }
    if let Some(selector) = selector {
        scale["status"]["selector"] = selector.to_string().into();
    }
    Ok(scale)
}

fn replicas(target: &Target, scale: &Value) -> ApiResult<i64> {
    match scale.pointer("/spec/replicas") {
        None | Some(Value::Null) => Ok(0),
        Some(number) => match number.as_i64() {
            Some(n) if n < 0 => Err(negative(target, n)),
            Some(n) if i32::try_from(n).is_ok() => Ok(n),
            _ => Err(ApiError::bad_request(format!("spec.replicas of a Scale is a number, not {number}"))),
        },
    }
}

fn negative(target: &Target, number: i64) -> ApiError {
    let name = target.name.clone().unwrap_or_default();
    let cause = Cause {
        reason: "FieldValueInvalid".into(),
        message: format!("Invalid value: {number}: must be greater than or equal to 0"),
        field: "spec.replicas".into(),
    };
    let message = format!("Scale.autoscaling {name:?} is invalid: {}: {}", cause.field, cause.message);
    let details =
        Details { name, group: "autoscaling".into(), kind: "Scale".into(), causes: vec![cause], ..Details::default() };
    ApiError { reason: Reason::Invalid, message, details: Box::new(details) }
}

fn with_replicas(kind: &dyn Kind, current: &Current, replicas: i64) -> ApiResult<Value> {
    let mut new = current.value.clone();
    let paths = kind.scale().ok_or_else(unknown_resource)?;
    let (parent, field) = paths.spec_replicas.rsplit_once('/').unwrap_or(("", paths.spec_replicas));
    let parent = new.pointer_mut(parent).and_then(Value::as_object_mut);
    parent
        .ok_or_else(|| ApiError::internal("the object has no place for replicas"))?
        .insert(field.into(), replicas.into());
    Ok(new)
}
