//! `patch`: an object changed in part. Conflicts with concurrent writers are retried inside, unless the patch itself
//! names a revision.

use super::Served;
use super::body::{check_place, check_revision, meta, with_metadata};
use super::modify::{Current, Modify};
use super::prepare::Part;
use super::resolve::{invalid, method_not_allowed, unknown_resource};
use crate::api::{ApiResult, Decoded, Target, patch};
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
        patch::check_type(kind)?;
        let part = match target.subresource.as_deref() {
            None => Part::Main,
            Some("status") if served.kind.has_status() => Part::Status,
            Some("scale") if served.kind.scale().is_some() => {
                return self.patch_scale(&served, target, (kind, &body), options).await;
            }
            Some(_) => return Err(unknown_resource()),
        };
        let modify = Modify { served: &served, target, part, options };
        let mut warnings = Vec::new();
        let written = self
            .modify(&modify, |current| {
                let patched = self.patched(&served, (kind, &body), current, options)?;
                warnings = patched.warnings;
                propose(&served, target, current, patched.value)
            })
            .await?;
        Ok(Written { warnings, ..written })
    }
}

fn propose(served: &Served, target: &Target, current: &Current, object: Value) -> ApiResult<Value> {
    check_place(target, &object)?;
    check_revision(target, &object, &current.object)?;
    check_identity(served, current, &object)?;
    Ok(object)
}

/// Unlike in an update, a foreign `uid` in a patch is an attempt to change it, as upstream: it names no object to
/// be matched, but a field to be set.
fn check_identity(served: &Served, current: &Current, object: &Value) -> ApiResult<()> {
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
    fn patched(
        &self,
        served: &Served,
        (kind, body): (PatchType, &Payload),
        current: &Current,
        options: &WriteOptions,
    ) -> ApiResult<Decoded> {
        let mut object = current.value.clone();
        object["metadata"]["resourceVersion"] = current.object.meta.resource_version.as_str().into();
        let mut patched = self.schemas.patch(served.kind.schema(), kind, object, body, options.field_validation)?;
        with_metadata(&mut patched.value)?;
        Ok(patched)
    }
}

/// A patch that needs no schema.
pub(crate) fn apply_plain(kind: PatchType, document: &Value, object: Value) -> ApiResult<Value> {
    Ok(match kind {
        PatchType::Json => patch::json(object, document.clone())?,
        _ => patch::merge(object, document)?,
    })
}
