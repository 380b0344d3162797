//! From a request's body to generic JSON of the right kind.

use super::Served;
use crate::api::{ApiError, ApiResult, Object, Target};
use crate::client::{Payload, WriteOptions};
use crate::server::{ApiServer, Kind};
use serde_json::Value;

/// An object as a client sent it, and what it should be warned about.
pub(crate) struct Sent {
    pub(crate) object: Value,
    pub(crate) warnings: Vec<String>,
}

impl ApiServer {
    /// Reads a body as an object of the served kind.
    pub(crate) fn read_body(&self, served: &Served, body: &Payload, options: &WriteOptions) -> ApiResult<Sent> {
        let kind = served.kind.as_ref();
        let (mut object, warnings) = decode(kind, body, options)?;
        check_type(kind, &mut object)?;
        Ok(Sent { object, warnings })
    }
}

fn decode(kind: &dyn Kind, body: &Payload, _options: &WriteOptions) -> ApiResult<(Value, Vec<String>)> {
    let unreadable = |e: String| {
        let kind = &kind.names().kind;
        let why = "couldn't get version/kind; json parse error";
        ApiError::bad_request(format!("the object provided is unrecognized (must be of type {kind}): {why}: {e}"))
    };
    let value: Value = match body {
        Payload::Json(bytes) => serde_json::from_slice(bytes).map_err(|e| unreadable(e.to_string()))?,
        Payload::Yaml(bytes) => serde_saphyr::from_slice(bytes).map_err(|e| unreadable(e.to_string()))?,
        Payload::Protobuf(_) => return Err(ApiError::bad_request("protobuf bodies are not read here")),
    };
    Ok((value, Vec::new()))
}

/// The body must be of the kind that the path names; a body that says nothing is taken as such.
fn check_type(kind: &dyn Kind, object: &mut Value) -> ApiResult<()> {
    let names = kind.names();
    let want = (names.kind.as_ref(), names.gvr.api_version());
    let Some(map) = object.as_object_mut() else {
        return Err(ApiError::bad_request(format!("the body is not an object of kind {}", want.0)));
    };
    let text = |name: &str| map.get(name).and_then(Value::as_str).unwrap_or_default();
    let (got_kind, got_version) = (text("kind"), text("apiVersion"));
    let right = (got_kind.is_empty() || got_kind == want.0) && (got_version.is_empty() || got_version == want.1);
    if !right {
        let short = got_version.rsplit('/').next().unwrap_or_default();
        let group = if names.gvr.group.is_empty() { "core" } else { &names.gvr.group };
        return Err(ApiError::bad_request(format!(
            "{got_kind} in version {short:?} cannot be handled as a {}: converting ({short}.{got_kind}) to \
             ({group}.{}): unknown conversion",
            want.0, want.0
        )));
    }
    map.insert("kind".into(), want.0.into());
    map.insert("apiVersion".into(), want.1.into());
    match map.get("metadata") {
        Some(Value::Object(_)) => Ok(()),
        None | Some(Value::Null) => {
            map.insert("metadata".into(), Value::Object(serde_json::Map::new()));
            Ok(())
        }
        Some(_) => Err(ApiError::bad_request("metadata must be an object")),
    }
}

/// A text of an object's metadata; empty where it is absent.
pub(crate) fn meta<'a>(object: &'a Value, name: &str) -> &'a str {
    object.get("metadata").and_then(|m| m.get(name)).and_then(Value::as_str).unwrap_or_default()
}

/// Name and namespace in a body must be those of the URL.
pub(crate) fn check_place(target: &Target, object: &Value) -> ApiResult<()> {
    check_namespace(target, object)?;
    let (sent, asked) = (meta(object, "name"), target.name.as_deref().unwrap_or_default());
    if !asked.is_empty() && !sent.is_empty() && sent != asked {
        let why = format!("the name of the object ({sent}) does not match the name on the URL ({asked})");
        return Err(ApiError::bad_request(why));
    }
    Ok(())
}

/// The namespace in a body must be that of the URL.
pub(crate) fn check_namespace(target: &Target, object: &Value) -> ApiResult<()> {
    let sent = meta(object, "namespace");
    let asked = target.namespace.as_deref().unwrap_or_default();
    if sent.is_empty() || sent == asked {
        return Ok(());
    }
    let why = "the namespace of the provided object does not match the namespace sent on the request";
    Err(ApiError::bad_request(why))
}

/// A `resourceVersion` in a body is a precondition.
pub(crate) fn check_revision(target: &Target, sent: &Value, current: &Object) -> ApiResult<()> {
    let asked = meta(sent, "resourceVersion");
    if asked.is_empty() || asked == "0" || asked == current.meta.resource_version {
        return Ok(());
    }
    Err(modified(target))
}

/// The object has changed since the client read it.
pub(crate) fn modified(target: &Target) -> ApiError {
    let why = "the object has been modified; please apply your changes to the latest version and try again";
    ApiError::conflict(&target.gvr, target.name.as_deref().unwrap_or_default(), why)
}
