//! Messages to types and back. What a message may lack but a type needs is a `BadRequest`.

use super::v1;
use crate::api::{ApiError, ApiResult, Gvr, Object, Target, WatchEvent, WatchEventType};
use crate::client::{
    DeleteOptions, DeletePreconditions, Deleted, FieldValidation, ListOptions, PatchType, Payload, Propagation,
    VersionMatch, WatchOptions, WriteOptions, Written,
};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// The part of a message, or the refusal that names it.
pub(crate) fn need<T>(part: Option<T>, name: &str) -> ApiResult<T> {
    part.ok_or_else(|| ApiError::bad_request(format!("the message lacks its {name}")))
}

impl From<&Gvr> for v1::Gvr {
    fn from(g: &Gvr) -> Self {
        Self { group: g.group.to_string(), version: g.version.to_string(), resource: g.resource.to_string() }
    }
}

impl From<v1::Gvr> for Gvr {
    fn from(g: v1::Gvr) -> Self {
        Self { group: Cow::Owned(g.group), version: Cow::Owned(g.version), resource: Cow::Owned(g.resource) }
    }
}

impl From<&Target> for v1::Target {
    fn from(t: &Target) -> Self {
        Self {
            gvr: Some((&t.gvr).into()),
            namespace: t.namespace.clone(),
            name: t.name.clone(),
            subresource: t.subresource.clone(),
        }
    }
}

impl TryFrom<Option<v1::Target>> for Target {
    type Error = ApiError;

    fn try_from(t: Option<v1::Target>) -> ApiResult<Self> {
        let t = need(t, "target")?;
        let gvr = need(t.gvr, "resource")?.into();
        Ok(Self { gvr, namespace: t.namespace, name: t.name, subresource: t.subresource })
    }
}

/// An object as it travels; `asked` is the resource that the other end expects.
pub(crate) fn object(object: &Object, asked: &Gvr) -> v1::Object {
    let gvr = (object.gvr != *asked).then(|| (&object.gvr).into());
    v1::Object { json: object.json.clone(), revision: object.revision, gvr }
}

/// An object that arrived; `asked` is the resource that was asked for.
pub(crate) fn arrived(object: v1::Object, asked: &Gvr) -> ApiResult<Arc<Object>> {
    let gvr = object.gvr.map_or_else(|| asked.clone(), Gvr::from);
    let mut decoded = Object::from_json(gvr, object.json)?;
    decoded.revision = object.revision;
    Ok(Arc::new(decoded))
}

impl From<&ListOptions> for v1::ListOptions {
    fn from(o: &ListOptions) -> Self {
        let version_match = match o.version_match {
            VersionMatch::Unset => v1::VersionMatch::Unset,
            VersionMatch::NotOlderThan => v1::VersionMatch::NotOlderThan,
            VersionMatch::Exact => v1::VersionMatch::Exact,
        };
        Self {
            label_selector: o.label_selector.clone(),
            field_selector: o.field_selector.clone(),
            limit: o.limit,
            continue_token: o.continue_token.clone(),
            resource_version: o.resource_version,
            version_match: version_match.into(),
        }
    }
}

impl From<v1::ListOptions> for ListOptions {
    fn from(o: v1::ListOptions) -> Self {
        let version_match = match o.version_match() {
            v1::VersionMatch::Unset => VersionMatch::Unset,
            v1::VersionMatch::NotOlderThan => VersionMatch::NotOlderThan,
            v1::VersionMatch::Exact => VersionMatch::Exact,
        };
        Self {
            label_selector: o.label_selector,
            field_selector: o.field_selector,
            limit: o.limit,
            continue_token: o.continue_token,
            resource_version: o.resource_version,
            version_match,
        }
    }
}

/// The message that starts a watch.
pub(crate) fn watch_request(target: &Target, o: &WatchOptions) -> v1::WatchRequest {
    v1::WatchRequest {
        target: Some(target.into()),
        label_selector: o.label_selector.clone(),
        field_selector: o.field_selector.clone(),
        resource_version: o.resource_version,
        bookmarks: o.bookmarks,
        send_initial_events: o.send_initial_events,
        timeout_ms: o.timeout.map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX)),
    }
}

/// What a watch request asks for.
pub(crate) fn watch_options(r: v1::WatchRequest) -> ApiResult<(Target, WatchOptions)> {
    let options = WatchOptions {
        label_selector: r.label_selector,
        field_selector: r.field_selector,
        resource_version: r.resource_version,
        bookmarks: r.bookmarks,
        send_initial_events: r.send_initial_events,
        timeout: r.timeout_ms.map(Duration::from_millis),
    };
    Ok((r.target.try_into()?, options))
}

/// An event as it travels.
pub(crate) fn event(event: &WatchEvent, asked: &Gvr) -> v1::WatchEvent {
    use v1::watch_event::Type;
    let (kind, o) = match event {
        WatchEvent::Bookmark { revision, initial_done } => {
            let (revision, initial_done) = (*revision, *initial_done);
            return v1::WatchEvent { r#type: Type::Bookmark.into(), object: None, revision, initial_done };
        }
        WatchEvent::Object(kind, o) => (kind, o),
    };
    let kind = match kind {
        WatchEventType::Added => Type::Added,
        WatchEventType::Modified => Type::Modified,
        WatchEventType::Deleted => Type::Deleted,
        WatchEventType::Bookmark => Type::Bookmark,
    };
    v1::WatchEvent { r#type: kind.into(), object: Some(object(o, asked)), revision: o.revision, initial_done: false }
}

/// An event that arrived.
pub(crate) fn arrived_event(event: v1::WatchEvent, asked: &Gvr) -> ApiResult<WatchEvent> {
    use v1::watch_event::Type;
    let kind = match event.r#type() {
        Type::Added => WatchEventType::Added,
        Type::Modified => WatchEventType::Modified,
        Type::Deleted => WatchEventType::Deleted,
        Type::Bookmark => {
            return Ok(WatchEvent::Bookmark { revision: event.revision, initial_done: event.initial_done });
        }
        Type::Unspecified => return Err(ApiError::internal("the API server sent an event of an unknown type")),
    };
    Ok(WatchEvent::Object(kind, arrived(need(event.object, "object")?, asked)?))
}

impl From<Payload> for v1::Body {
    fn from(payload: Payload) -> Self {
        use v1::body::Format;
        let (format, data) = match payload {
            Payload::Json(data) => (Format::Json, data),
            Payload::Yaml(data) => (Format::Yaml, data),
            Payload::Protobuf(data) => (Format::Protobuf, data),
        };
        Self { format: format.into(), data }
    }
}

impl From<v1::Body> for Payload {
    fn from(body: v1::Body) -> Self {
        use v1::body::Format;
        match body.format() {
            Format::Json => Payload::Json(body.data),
            Format::Yaml => Payload::Yaml(body.data),
            Format::Protobuf => Payload::Protobuf(body.data),
        }
    }
}

impl From<&WriteOptions> for v1::WriteOptions {
    fn from(o: &WriteOptions) -> Self {
        let validation = match o.field_validation {
            FieldValidation::Ignore => v1::FieldValidation::Ignore,
            FieldValidation::Warn => v1::FieldValidation::Warn,
            FieldValidation::Strict => v1::FieldValidation::Strict,
        };
        Self { dry_run: o.dry_run, field_manager: o.field_manager.clone(), field_validation: validation.into() }
    }
}

impl From<v1::WriteOptions> for WriteOptions {
    fn from(o: v1::WriteOptions) -> Self {
        let field_validation = match o.field_validation() {
            v1::FieldValidation::Ignore => FieldValidation::Ignore,
            v1::FieldValidation::Warn => FieldValidation::Warn,
            v1::FieldValidation::Strict => FieldValidation::Strict,
        };
        Self { dry_run: o.dry_run, field_manager: o.field_manager, field_validation, user: None }
    }
}

/// The type of a patch as it travels, and whether it forces.
pub(crate) fn patch_type(kind: PatchType) -> (v1::PatchType, bool) {
    match kind {
        PatchType::Json => (v1::PatchType::Json, false),
        PatchType::Merge => (v1::PatchType::Merge, false),
        PatchType::StrategicMerge => (v1::PatchType::StrategicMerge, false),
        PatchType::Apply { force } => (v1::PatchType::Apply, force),
    }
}

/// The type of a patch that arrived.
pub(crate) fn arrived_patch_type(request: &v1::PatchRequest) -> ApiResult<PatchType> {
    Ok(match request.r#type() {
        v1::PatchType::Json => PatchType::Json,
        v1::PatchType::Merge => PatchType::Merge,
        v1::PatchType::StrategicMerge => PatchType::StrategicMerge,
        v1::PatchType::Apply => PatchType::Apply { force: request.force },
        v1::PatchType::Unspecified => return Err(ApiError::bad_request("the message does not say the patch's type")),
    })
}

/// A finished write as it travels.
pub(crate) fn written(w: Written, asked: &Gvr) -> v1::WriteReply {
    v1::WriteReply { object: Some(object(&w.object, asked)), warnings: w.warnings, created: w.created }
}

/// A finished write that arrived.
pub(crate) fn arrived_write(r: v1::WriteReply, asked: &Gvr) -> ApiResult<Written> {
    let object = arrived(need(r.object, "object")?, asked)?;
    Ok(Written { object, warnings: r.warnings, created: r.created })
}

impl From<&DeleteOptions> for v1::DeleteOptions {
    fn from(o: &DeleteOptions) -> Self {
        let propagation = match o.propagation {
            None => v1::Propagation::Default,
            Some(Propagation::Orphan) => v1::Propagation::Orphan,
            Some(Propagation::Background) => v1::Propagation::Background,
            Some(Propagation::Foreground) => v1::Propagation::Foreground,
        };
        Self {
            dry_run: o.dry_run,
            grace_period_seconds: o.grace_period_seconds,
            uid: o.preconditions.uid.clone(),
            resource_version: o.preconditions.resource_version.clone(),
            propagation: propagation.into(),
        }
    }
}

impl From<v1::DeleteOptions> for DeleteOptions {
    fn from(o: v1::DeleteOptions) -> Self {
        let propagation = match o.propagation() {
            v1::Propagation::Default => None,
            v1::Propagation::Orphan => Some(Propagation::Orphan),
            v1::Propagation::Background => Some(Propagation::Background),
            v1::Propagation::Foreground => Some(Propagation::Foreground),
        };
        let preconditions = DeletePreconditions { uid: o.uid, resource_version: o.resource_version };
        Self { dry_run: o.dry_run, grace_period_seconds: o.grace_period_seconds, preconditions, propagation }
    }
}

/// A deletion as it travels.
pub(crate) fn deleted(d: &Deleted, asked: &Gvr) -> v1::DeleteReply {
    v1::DeleteReply { object: Some(object(d.object(), asked)), gone: matches!(d, Deleted::Gone(_)) }
}

/// A deletion that arrived.
pub(crate) fn arrived_delete(r: v1::DeleteReply, asked: &Gvr) -> ApiResult<Deleted> {
    let object = arrived(need(r.object, "object")?, asked)?;
    Ok(if r.gone { Deleted::Gone(object) } else { Deleted::Marked(object) })
}
