//! From a request's body to generic JSON of the right kind.

use super::Served;
use crate::api::{ApiError, ApiResult, Decoded, Expect, Object, Target};
use crate::client::{Payload, WriteOptions};
use crate::server::ApiServer;
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
        let names = kind.names();
        let api_version = names.gvr.api_version();
        let expect = Expect { type_name: kind.schema(), kind: &names.kind, api_version: &api_version };
        let Decoded { value: mut object, warnings } = self.schemas.decode(&expect, body, options.field_validation)?;
        with_metadata(&mut object)?;
        Ok(Sent { object, warnings })
    }
}

/// Gives an object that has none its metadata.
pub(crate) fn with_metadata(object: &mut Value) -> ApiResult<()> {
    let Some(map) = object.as_object_mut() else { return Err(ApiError::bad_request("the body is not an object")) };
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

/// A `uid` in a body is a precondition.
pub(crate) fn check_uid(target: &Target, sent: &Value, current: &Object) -> ApiResult<()> {
    let (asked, uid) = (meta(sent, "uid"), &current.meta.uid);
    if asked.is_empty() || asked == uid {
        return Ok(());
    }
    let why = format!("Precondition failed: UID in precondition: {asked}, UID in object meta: {uid}");
    Err(ApiError::conflict(&target.gvr, &current.meta.name, &why))
}

/// The object has changed since the client read it.
pub(crate) fn modified(target: &Target) -> ApiError {
    let why = "the object has been modified; please apply your changes to the latest version and try again";
    ApiError::conflict(&target.gvr, target.name.as_deref().unwrap_or_default(), why)
}
