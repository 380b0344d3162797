//! `patch`: an object changed in part. Conflicts with concurrent writers are retried inside, unless the patch itself
//! names a revision.

use super::Served;
use super::body::{check_place, check_revision, meta};
use super::modify::{Current, Modify};
use super::prepare::Part;
use super::resolve::{invalid, method_not_allowed, unknown_resource};
use crate::api::{ApiError, ApiResult, Reason, Target};
use crate::client::{PatchType, Payload, WriteOptions, Written};
use crate::server::{ApiServer, FieldErrors};
use serde_json::Value;

impl ApiServer {
    pub(crate) async fn patch_object(
        &self,
        target: &Target,
        kind: PatchType,
        body: Payload,
        options: &WriteOptions,
    ) -> ApiResult<Written> {
        let served = self.resolve(target)?;
        if target.name.is_none() {
            return Err(method_not_allowed());
        }
        if let PatchType::Apply { .. } = kind {
            return Err(apply_is_not_served());
        }
        let part = match target.subresource.as_deref() {
            None => Part::Main,
            Some("status") if served.kind.has_status() => Part::Status,
            Some("scale") if served.kind.scale().is_some() => {
                return self.patch_scale(&served, target, (kind, &body), options).await;
            }
            Some(_) => return Err(unknown_resource()),
        };
        let document = plain_json(&body)?;
        let modify = Modify { served: &served, target, part, dry_run: options.dry_run };
        let mut warnings = Vec::new();
        let written = self
            .modify(&modify, |current| {
                let patched = self.patched(&served, kind, &document, current)?;
                let (object, warned) = self.check_patched(&served, patched, options)?;
                warnings = warned;
                propose(&served, target, current, object)
            })
            .await?;
        Ok(Written { warnings, ..written })
    }
}

fn propose(served: &Served, target: &Target, current: &Current, object: Value) -> ApiResult<Value> {
    check_place(target, &object)?;
    check_revision(target, &object, &current.object)?;
    check_uid(served, current, &object)?;
    Ok(object)
}

fn check_uid(served: &Served, current: &Current, object: &Value) -> ApiResult<()> {
    let (asked, uid) = (meta(object, "uid"), &current.object.meta.uid);
    if asked.is_empty() || asked == uid {
        return Ok(());
    }
    let mut errors = FieldErrors::default();
    errors.invalid("metadata.uid", &asked.into(), "field is immutable");
    Err(invalid(served.kind.as_ref(), &current.object.meta.name, errors.0))
}

impl ApiServer {
    /// The object with the patch applied; its `resourceVersion` is there for patches that test or set it.
    fn patched(&self, _served: &Served, kind: PatchType, document: &Value, current: &Current) -> ApiResult<Value> {
        let mut object = current.value.clone();
        object["metadata"]["resourceVersion"] = current.object.meta.resource_version.as_str().into();
        apply_plain(kind, document, object)
    }

    fn check_patched(
        &self,
        _served: &Served,
        object: Value,
        _options: &WriteOptions,
    ) -> ApiResult<(Value, Vec<String>)> {
        Ok((object, Vec::new()))
    }
}

/// A patch that needs no schema.
pub(crate) fn apply_plain(kind: PatchType, document: &Value, mut object: Value) -> ApiResult<Value> {
    match kind {
        PatchType::Json => {
            let patch: json_patch::Patch = serde_json::from_value(document.clone())
                .map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))?;
            json_patch::patch(&mut object, &patch).map_err(|e| {
                ApiError::new(
                    Reason::Invalid,
                    format!("the server rejected our request due to an error in our request: {e}"),
                )
            })?;
        }
        _ => json_patch::merge(&mut object, document),
    }
    Ok(object)
}

/// A body as generic JSON, whatever its text form.
pub(crate) fn plain_json(body: &Payload) -> ApiResult<Value> {
    let refuse = |e: String| ApiError::bad_request(format!("the body does not decode: {e}"));
    match body {
        Payload::Json(bytes) => serde_json::from_slice(bytes).map_err(|e| refuse(e.to_string())),
        Payload::Yaml(bytes) => serde_saphyr::from_slice(bytes).map_err(|e| refuse(e.to_string())),
        Payload::Protobuf(_) => {
            Err(ApiError::new(Reason::UnsupportedMediaType, "a protobuf body is not understood here"))
        }
    }
}

fn apply_is_not_served() -> ApiError {
    ApiError::new(
        Reason::UnsupportedMediaType,
        "server-side apply is not served by this version; use a merge, strategic merge or JSON patch",
    )
}
