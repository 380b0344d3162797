//! Answers: objects and lists in the shape a client asked for. Plain lists are the objects' own bytes, joined.

use super::body::{Body, full, pieces};
use super::media::Shape;
use super::status::respond;
use crate::api::{ApiError, ApiResult, Object, ObjectList};
use crate::server::kind::Kind;
use crate::server::printing::{Include, PLAIN_COLUMNS, Printer, write_metadata};
use bytes::Bytes;
use http::Response;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use std::iter::{once, once_with};
use std::sync::Arc;

/// How the answers to one request are written.
pub(crate) struct Encoder {
    /// The shape asked for.
    pub(crate) shape: Shape,
    /// How much of an object comes with a table row.
    pub(crate) include: Include,
    /// The present time, for ages.
    pub(crate) now: Timestamp,
    /// The kind of the objects.
    pub(crate) kind: Arc<dyn Kind>,
    /// The answer is a sub-resource's (`scale`), which has no columns of its own.
    pub(crate) plain_columns: bool,
}

/// Metadata of a list.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta<'a> {
    resource_version: String,
    #[serde(rename = "continue", skip_serializing_if = "str::is_empty")]
    continue_token: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    remaining_item_count: Option<u64>,
}

impl Encoder {
    /// Renders tables in `version` of `meta.k8s.io`.
    pub(crate) fn printer(&self, version: &'static str) -> Printer {
        let columns = if self.plain_columns { PLAIN_COLUMNS } else { self.kind.columns() };
        Printer { columns, version, include: self.include, now: self.now }
    }

    /// An answer with one object.
    ///
    /// # Errors
    /// `InternalError` where its bytes are no JSON.
    pub(crate) fn object(&self, code: u16, object: &Object) -> ApiResult<Response<Body>> {
        let bytes = match self.shape {
            Shape::Plain => object.json.clone(),
            Shape::Yaml => return yaml(code, &object.value()?),
            Shape::Table(version) => {
                let meta = list_meta(object.revision, "", None);
                self.printer(version).table(&meta, once(object), true)?.into()
            }
            Shape::Metadata => {
                let mut out = Vec::new();
                write_metadata(&mut out, "meta.k8s.io/v1", &object.value()?);
                out.into()
            }
        };
        Ok(respond(code, "application/json", full(bytes)))
    }

    /// An answer with a list.
    ///
    /// # Errors
    /// `InternalError` where the bytes of an object are no JSON.
    pub(crate) fn list(&self, list: ObjectList) -> ApiResult<Response<Body>> {
        let meta = list_meta(list.revision, &list.continue_token, list.remaining);
        match self.shape {
            Shape::Plain => Ok(respond(200, "application/json", self.plain_list(&meta, list.items))),
            Shape::Yaml => yaml(200, &self.list_value(&meta, &list.items)?),
            Shape::Table(version) => {
                let table = self.printer(version).table(&meta, list.items.iter().map(Arc::as_ref), true)?;
                Ok(respond(200, "application/json", full(table)))
            }
            Shape::Metadata => Ok(respond(200, "application/json", full(metadata_list(&meta, &list.items)?))),
        }
    }

    /// `{"kind":"PodList","apiVersion":"v1","metadata":…,"items":[`
    fn list_head(&self, meta: &[u8]) -> Vec<u8> {
        let names = self.kind.names();
        let mut head =
            format!(r#"{{"kind":"{}List","apiVersion":"{}","metadata":"#, names.kind, names.gvr.api_version())
                .into_bytes();
        head.extend_from_slice(meta);
        head.extend_from_slice(b",\"items\":[");
        head
    }

    /// Items of a list carry neither kind nor version, which stand first in an object's bytes: they are cut off.
    fn plain_list(&self, meta: &[u8], items: Vec<Arc<Object>>) -> Body {
        let names = self.kind.names();
        let cut = format!(r#"{{"kind":"{}","apiVersion":"{}","#, names.kind, names.gvr.api_version());
        let head = Bytes::from(self.list_head(meta));
        let parts: Vec<(&'static str, Bytes)> =
            items.iter().enumerate().map(|(index, object)| item(index == 0, &object.json, cut.as_bytes())).collect();
        let length = head.len() + parts.iter().map(|(open, rest)| open.len() + rest.len()).sum::<usize>() + 2;
        let middle = parts.into_iter().flat_map(|(open, rest)| [Bytes::from_static(open.as_bytes()), rest]);
        pieces(length as u64, once(head).chain(middle).chain(once_with(|| Bytes::from_static(b"]}"))))
    }

    fn list_value(&self, meta: &[u8], items: &[Arc<Object>]) -> ApiResult<Value> {
        let mut text = self.list_head(meta);
        text.extend_from_slice(b"]}");
        let mut list: Value = serde_json::from_slice(&text).map_err(|e| ApiError::internal(e.to_string()))?;
        list["items"] = items.iter().map(|o| o.value()).collect::<ApiResult<Value>>()?;
        Ok(list)
    }
}

/// What stands before an item's bytes, and those of its bytes that are written.
fn item(first: bool, json: &Bytes, cut: &[u8]) -> (&'static str, Bytes) {
    match (json.starts_with(cut), first) {
        (true, true) => ("{", json.slice(cut.len()..)),
        (true, false) => (",{", json.slice(cut.len()..)),
        (false, true) => ("", json.clone()),
        (false, false) => (",", json.clone()),
    }
}

fn metadata_list(meta: &[u8], items: &[Arc<Object>]) -> ApiResult<Vec<u8>> {
    let mut out = br#"{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":"#.to_vec();
    out.extend_from_slice(meta);
    out.extend_from_slice(b",\"items\":[");
    for (index, object) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_metadata(&mut out, "meta.k8s.io/v1", &object.value()?);
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

/// Metadata of a list or table as JSON.
pub(crate) fn list_meta(revision: u64, continue_token: &str, remaining_item_count: Option<u64>) -> Vec<u8> {
    let meta = ListMeta { resource_version: revision.to_string(), continue_token, remaining_item_count };
    serde_json::to_vec(&meta).unwrap_or_default()
}

fn yaml(code: u16, value: &Value) -> ApiResult<Response<Body>> {
    let text =
        serde_saphyr::to_string(value).map_err(|e| ApiError::internal(format!("no YAML for the answer: {e}")))?;
    Ok(respond(code, "application/yaml", full(text)))
}
