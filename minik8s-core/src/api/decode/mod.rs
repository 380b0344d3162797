//! From a request's body to the object the server works on: JSON, YAML or protobuf in, checked and pruned JSON out.
//! Unknown and duplicate fields are reported; values of the wrong type are refused; what a Go struct would not encode
//! (`null`, empty values of plain fields) is dropped, so that equal objects are equal texts.

mod node;
mod scalar;
mod walk;

use super::{ApiError, ApiResult, Reason, Schemas, protobuf};
use crate::client::{FieldValidation, Payload};
use node::Node;
pub(super) use scalar::format_time;
use serde_json::Value;
pub use walk::Checked;
pub(super) use walk::is_omitted;

/// Larger bodies are refused.
pub const MAX_BODY: usize = 3 * 1024 * 1024;

/// What a body is expected to be.
#[derive(Clone, Copy, Debug)]
pub struct Expect<'a> {
    /// Name in the schema table; empty for objects that have no schema, which are taken as they are.
    pub type_name: &'a str,
    /// `Deployment`; given to objects that do not say.
    pub kind: &'a str,
    /// `apps/v1`; given to objects that do not say. Empty accepts any and adds none (`DeleteOptions`).
    pub api_version: &'a str,
}

impl Expect<'_> {
    fn version(&self) -> &str {
        self.api_version.rsplit('/').next().unwrap_or_default()
    }

    fn refuse(&self, why: &str) -> ApiError {
        let (kind, version) = (self.kind, self.version());
        ApiError::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}"))
    }

    fn unreadable(&self, why: &str, body: &[u8]) -> ApiError {
        let head = String::from_utf8_lossy(&body[..body.len().min(30)]);
        let dots = if body.len() > 30 { " ..." } else { "" };
        let kind = self.kind;
        ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): {why} ({head}{dots})"
        ))
    }
}

/// An object as the server works on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The object; `apiVersion` and `kind` are set.
    pub value: Value,
    /// Texts for `Warning` headers.
    pub warnings: Vec<String>,
}

impl Schemas {
    /// Reads a body.
    ///
    /// # Errors
    /// `BadRequest` where it cannot be read, is of another kind, has values of the wrong type, or, with
    /// [`FieldValidation::Strict`], unknown or duplicate fields; `RequestEntityTooLarge`.
    pub fn decode(&self, expect: &Expect<'_>, body: &Payload, validation: FieldValidation) -> ApiResult<Decoded> {
        let bytes = limited(body)?;
        let unreadable = |why: String| expect.unreadable(&format!("couldn't get version/kind; {why}"), bytes);
        let checked = match body {
            Payload::Json(_) => self.decode_node(expect, Node::from_json(bytes).map_err(unreadable)?)?,
            Payload::Yaml(_) => self.decode_node(expect, Node::from_yaml(bytes).map_err(unreadable)?)?,
            Payload::Protobuf(_) => self.decode_protobuf(expect, bytes)?,
        };
        let Checked { mut value, problems } = checked;
        if validation == FieldValidation::Strict && !problems.is_empty() {
            return Err(expect.refuse(&strict_error(&problems)));
        }
        if !expect.api_version.is_empty() && value.is_object() {
            value["apiVersion"] = expect.api_version.into();
            value["kind"] = expect.kind.into();
        }
        let warnings = if validation == FieldValidation::Warn { problems } else { Vec::new() };
        Ok(Decoded { value, warnings })
    }

    fn decode_node(&self, expect: &Expect<'_>, node: Node) -> ApiResult<Checked> {
        check_names(expect, node.text("apiVersion"), node.text("kind"))?;
        self.check_node(expect.type_name, node).map_err(|why| expect.refuse(&why))
    }

    fn decode_protobuf(&self, expect: &Expect<'_>, bytes: &[u8]) -> ApiResult<Checked> {
        let unreadable = |why: protobuf::ProtobufError| expect.unreadable(&why.to_string(), b"");
        let envelope = protobuf::envelope(bytes).map_err(unreadable)?;
        check_names(expect, Some(&envelope.api_version), Some(&envelope.kind))?;
        let value =
            protobuf::decode(self, expect.type_name, &envelope.raw).map_err(|e| expect.refuse(&e.to_string()))?;
        self.check(expect.type_name, value).map_err(|why| expect.refuse(&why))
    }

    /// Checks and prunes an object that is JSON already, such as the outcome of a patch. The error says what has the
    /// wrong type.
    ///
    /// # Errors
    /// The sentence that names the field.
    pub fn check(&self, type_name: &str, value: Value) -> Result<Checked, String> {
        self.check_node(type_name, value.into())
    }

    /// Reads a body without holding it against a schema. Protobuf says itself what it is.
    ///
    /// # Errors
    /// `BadRequest` where it cannot be read; `RequestEntityTooLarge`.
    pub fn parse(&self, body: &Payload) -> ApiResult<Value> {
        let bytes = limited(body)?;
        let refuse = |why: String| ApiError::bad_request(format!("error decoding the body: {why}"));
        match body {
            Payload::Json(_) => Node::from_json(bytes).map(Node::into_value).map_err(refuse),
            Payload::Yaml(_) => Node::from_yaml(bytes).map(Node::into_value).map_err(refuse),
            Payload::Protobuf(_) => self.parse_protobuf(bytes).map_err(refuse),
        }
    }

    fn parse_protobuf(&self, bytes: &[u8]) -> Result<Value, String> {
        let envelope = protobuf::envelope(bytes).map_err(|e| e.to_string())?;
        let (version, kind) = (envelope.api_version, envelope.kind);
        let schema =
            self.by_kind(&version, &kind).ok_or_else(|| format!("no kind {kind:?} is known in {version:?}"))?;
        let mut value = protobuf::decode(self, &schema.name, &envelope.raw).map_err(|e| e.to_string())?;
        value["apiVersion"] = version.into();
        value["kind"] = kind.into();
        Ok(value)
    }

    fn check_node(&self, type_name: &str, node: Node) -> Result<Checked, String> {
        if type_name.is_empty() {
            return Ok(Checked { value: node.into_value(), problems: Vec::new() });
        }
        let schema = self.get(type_name).ok_or_else(|| format!("the server has no schema of {type_name}"))?;
        walk::check(self, &schema, node)
    }
}

/// Refuses an object that says it is something else.
fn check_names(expect: &Expect<'_>, api_version: Option<&str>, kind: Option<&str>) -> ApiResult<()> {
    let given = |text: Option<&str>, own: &str| text.filter(|t| !t.is_empty()).unwrap_or(own).to_owned();
    let (version, kind) = (given(api_version, expect.api_version), given(kind, expect.kind));
    if expect.api_version.is_empty() || (version == expect.api_version && kind == expect.kind) {
        return Ok(());
    }
    if kind == expect.kind {
        let expected = expect.api_version;
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({expected})"
        )));
    }
    let short = version.rsplit('/').next().unwrap_or_default();
    let group = expect.api_version.split_once('/').map_or("core", |(group, _)| group);
    let expected = expect.kind;
    Err(ApiError::bad_request(format!(
        "{kind} in version {short:?} cannot be handled as a {expected}: converting ({short}.{kind}) to \
         ({group}.{expected}): unknown conversion"
    )))
}

/// The sentence of a strict refusal.
pub fn strict_error(problems: &[String]) -> String {
    format!("strict decoding error: {}", problems.join(", "))
}

/// A patch, and the fields it has twice.
pub(super) fn parse_patch(body: &Payload) -> ApiResult<(Value, Vec<String>)> {
    let bytes = limited(body)?;
    let node = match body {
        Payload::Json(_) => Node::from_json(bytes),
        _ => Node::from_yaml(bytes),
    };
    let node = node.map_err(|why| ApiError::bad_request(format!("error decoding patch: {why}")))?;
    let duplicates = walk::duplicates(&node);
    Ok((node.into_value(), duplicates))
}

fn limited(body: &Payload) -> ApiResult<&[u8]> {
    let (Payload::Json(bytes) | Payload::Yaml(bytes) | Payload::Protobuf(bytes)) = body;
    if bytes.len() > MAX_BODY {
        let message = format!("Request entity too large: limit is {MAX_BODY}");
        return Err(ApiError::new(Reason::RequestEntityTooLarge, message));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
