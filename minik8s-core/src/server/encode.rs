//! The stored form of an object: compact JSON that begins with `kind`, `apiVersion`, `metadata`, and carries no
//! `resourceVersion`. A reader gets the same bytes with the revision spliced in, without decoding them.

use crate::api::{ApiError, ApiResult, Gvr, Object, Revision};
use bytes::Bytes;
use serde_json::{Map, Value};
use std::sync::Arc;

const METADATA: &[u8] = b"\"metadata\":{";
const REVISION: &[u8] = b"\"resourceVersion\":\"";
const HEAD: [&str; 3] = ["kind", "apiVersion", "metadata"];

/// The selectable fields of an object, in the form [`Object`] keeps them.
pub(crate) type Fields = Arc<[(&'static str, String)]>;

/// Encodes an object for the store.
pub(crate) fn stored_form(object: &Value) -> ApiResult<Bytes> {
    let mut out = Vec::with_capacity(512);
    out.push(b'{');
    for name in HEAD {
        let Some(value) = object.get(name) else { continue };
        write_name(&mut out, name)?;
        match value {
            Value::Object(metadata) if name == "metadata" => write_metadata(&mut out, metadata)?,
            other => write_value(&mut out, other)?,
        }
    }
    for (name, value) in object.as_object().into_iter().flatten().filter(|(n, _)| !HEAD.contains(&n.as_str())) {
        write_name(&mut out, name)?;
        write_value(&mut out, value)?;
    }
    out.push(b'}');
    Ok(Bytes::from(out))
}

fn write_metadata(out: &mut Vec<u8>, metadata: &Map<String, Value>) -> ApiResult<()> {
    out.push(b'{');
    for (name, value) in metadata.iter().filter(|(name, _)| *name != "resourceVersion") {
        write_name(out, name)?;
        write_value(out, value)?;
    }
    out.push(b'}');
    Ok(())
}

fn write_name(out: &mut Vec<u8>, name: &str) -> ApiResult<()> {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    serde_json::to_writer(&mut *out, name).map_err(unencodable)?;
    out.push(b':');
    Ok(())
}

fn write_value(out: &mut Vec<u8>, value: &Value) -> ApiResult<()> {
    serde_json::to_writer(out, value).map_err(unencodable)
}

fn unencodable(e: serde_json::Error) -> ApiError {
    ApiError::internal(format!("object does not encode: {e}"))
}

/// Splices a revision into the stored form.
pub(crate) fn with_revision(stored: &[u8], revision: Revision) -> Bytes {
    let Some(at) = after_metadata(stored) else { return Bytes::copy_from_slice(stored) };
    let number = revision.to_string();
    let mut out = Vec::with_capacity(stored.len() + REVISION.len() + number.len() + 2);
    out.extend_from_slice(&stored[..at]);
    out.extend_from_slice(REVISION);
    out.extend_from_slice(number.as_bytes());
    out.push(b'"');
    if stored.get(at) != Some(&b'}') {
        out.push(b',');
    }
    out.extend_from_slice(&stored[at..]);
    Bytes::from(out)
}

/// Replaces the revision of what [`with_revision`] made.
pub(crate) fn replace_revision(json: &[u8], revision: Revision) -> Bytes {
    let end_of_number = after_metadata(json).and_then(|at| {
        let rest = json.get(at..)?.strip_prefix(REVISION)?;
        let quote = rest.iter().position(|b| *b == b'"')?;
        let end = json.len() - rest.len() + quote + 1;
        Some((at, if json.get(end) == Some(&b',') { end + 1 } else { end }))
    });
    let Some((at, end)) = end_of_number else { return with_revision(json, revision) };
    let mut stored = Vec::with_capacity(json.len());
    stored.extend_from_slice(&json[..at]);
    stored.extend_from_slice(&json[end..]);
    with_revision(&stored, revision)
}

/// The first `"metadata":{` is the object's own: only kind and API version stand before it, and a quote inside a JSON
/// string is always escaped.
fn after_metadata(json: &[u8]) -> Option<usize> {
    json.windows(METADATA.len()).position(|w| w == METADATA).map(|at| at + METADATA.len())
}

/// An object as readers get it, from its stored form.
pub(crate) fn object(gvr: &Gvr, stored: &[u8], revision: Revision, fields: Fields) -> ApiResult<Object> {
    let mut object = Object::from_json(gvr.clone(), with_revision(stored, revision))?;
    object.fields = fields;
    Ok(object)
}

/// The same object at another revision: what a watcher gets as the last state of something deleted.
pub(crate) fn at_revision(object: &Object, revision: Revision) -> Object {
    let mut copy = object.clone();
    copy.json = replace_revision(&object.json, revision);
    copy.meta.resource_version = revision.to_string();
    copy.revision = revision;
    copy
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn stored_form_begins_with_kind_version_metadata_and_drops_the_revision() {
        let object = json!({"apiVersion": "v1", "data": {"metadata": "x"}, "kind": "ConfigMap",
            "metadata": {"name": "a", "resourceVersion": "7"}});
        let stored = stored_form(&object).unwrap();
        let want = r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"},"data":{"metadata":"x"}}"#;
        assert_eq!(text(&stored), want);
    }

    #[test]
    fn revision_is_spliced_and_replaced_without_touching_the_rest() {
        let stored = br#"{"kind":"K","apiVersion":"v1","metadata":{"name":"a"},"data":{"\"metadata\":{":"1"}}"#;
        let read = with_revision(stored, 12);
        let want = r#"{"kind":"K","apiVersion":"v1","metadata":{"resourceVersion":"12","name":"a"},"data":{"\"metadata\":{":"1"}}"#;
        assert_eq!(text(&read), want);
        assert_eq!(text(&replace_revision(&read, 345)), want.replace("12", "345"));
        assert_eq!(text(&with_revision(br#"{"metadata":{}}"#, 1)), r#"{"metadata":{"resourceVersion":"1"}}"#);
    }

    #[test]
    fn an_object_without_metadata_is_left_alone() {
        assert_eq!(text(&with_revision(b"{}", 3)), "{}");
    }
}
