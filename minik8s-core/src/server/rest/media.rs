//! Media types: what a client accepts, and what it sent.

use crate::api::{ApiError, ApiResult, Reason};
use crate::client::{PatchType, Payload};
use bytes::Bytes;

/// One range of an `Accept` header.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Range {
    /// `application/json`
    pub(crate) media: String,
    params: Vec<(String, String)>,
    weight: f32,
}

impl Range {
    /// A parameter, empty where it is absent.
    pub(crate) fn param(&self, name: &str) -> &str {
        self.params.iter().find(|(k, _)| k == name).map_or("", |(_, v)| v.as_str())
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next()?.to_ascii_lowercase();
        let params: Vec<_> = parts
            .filter_map(|p| p.split_once('='))
            .map(|(k, v)| (k.trim().to_ascii_lowercase(), v.trim().trim_matches('"').to_owned()))
            .collect();
        let weight = params.iter().find(|(k, _)| k == "q").and_then(|(_, v)| v.parse().ok()).unwrap_or(1.0);
        (!media.is_empty() && weight > 0.0).then_some(Self { media, params, weight })
    }
}

/// The ranges of an `Accept` header, best first.
pub(crate) fn ranges(accept: &str) -> Vec<Range> {
    let mut ranges: Vec<Range> = accept.split(',').filter_map(Range::parse).collect();
    ranges.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    ranges
}

/// What an answer is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// The object or list itself.
    Plain,
    /// The object or list itself, as YAML.
    Yaml,
    /// A `Table` of `meta.k8s.io` in this version.
    Table(&'static str),
    /// Only the metadata.
    Metadata,
}

/// Chooses what to answer with. Nothing said means JSON, and so does a wish for protobuf that leaves room for JSON.
///
/// # Errors
/// `NotAcceptable` where nothing fits.
pub(crate) fn negotiate(accept: &str) -> ApiResult<Shape> {
    if accept.trim().is_empty() {
        return Ok(Shape::Plain);
    }
    ranges(accept).iter().find_map(shape).ok_or_else(|| {
        let text = "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/json;stream=watch";
        ApiError::new(Reason::NotAcceptable, text)
    })
}

fn shape(range: &Range) -> Option<Shape> {
    match (range.media.as_str(), range.param("as")) {
        ("application/json" | "application/*" | "*/*", "") => Some(Shape::Plain),
        ("application/yaml", "") => Some(Shape::Yaml),
        ("application/json", "Table") => match range.param("v") {
            "v1" => Some(Shape::Table("meta.k8s.io/v1")),
            "v1beta1" => Some(Shape::Table("meta.k8s.io/v1beta1")),
            _ => None,
        },
        ("application/json", "PartialObjectMetadata" | "PartialObjectMetadataList") => Some(Shape::Metadata),
        _ => None,
    }
}

/// Media type without its parameters.
fn bare(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

/// Wraps a body in what its `Content-Type` says it is; nothing said means JSON.
///
/// # Errors
/// `UnsupportedMediaType`.
pub(crate) fn payload(content_type: &str, body: Bytes) -> ApiResult<Payload> {
    match bare(content_type) {
        "" | "application/json" | "*/*" => Ok(Payload::Json(body)),
        "application/yaml" | "application/x-yaml" | "text/yaml" => Ok(Payload::Yaml(body)),
        "application/vnd.kubernetes.protobuf" => Ok(Payload::Protobuf(body)),
        _ => Err(ApiError::new(
            Reason::UnsupportedMediaType,
            "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf",
        )),
    }
}

/// What kind of patch a `Content-Type` announces, and the body in its form.
///
/// # Errors
/// `UnsupportedMediaType`.
pub(crate) fn patch(content_type: &str, force: bool, body: Bytes) -> ApiResult<(PatchType, Payload)> {
    match bare(content_type) {
        "application/json-patch+json" => Ok((PatchType::Json, Payload::Json(body))),
        "application/merge-patch+json" => Ok((PatchType::Merge, Payload::Json(body))),
        "application/strategic-merge-patch+json" => Ok((PatchType::StrategicMerge, Payload::Json(body))),
        "application/apply-patch+yaml" => Ok((PatchType::Apply { force }, json_or_yaml(body))),
        _ => Err(ApiError::new(Reason::UnsupportedMediaType, "415: Unsupported Media Type")),
    }
}

/// Most apply bodies are JSON, which needs no YAML reader.
fn json_or_yaml(body: Bytes) -> Payload {
    let first = body.iter().find(|b| !b.is_ascii_whitespace());
    if first == Some(&b'{') { Payload::Json(body) } else { Payload::Yaml(body) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_headers_of_real_clients() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        let cases = [
            ("", Shape::Plain),
            ("*/*", Shape::Plain),
            ("application/json", Shape::Plain),
            ("application/json;stream=watch", Shape::Plain),
            ("application/vnd.kubernetes.protobuf,application/json", Shape::Plain),
            ("application/vnd.kubernetes.protobuf, */*", Shape::Plain),
            ("application/json, */*", Shape::Plain),
            (table, Shape::Table("meta.k8s.io/v1")),
            ("application/json;as=Table;v=v1beta1;g=meta.k8s.io", Shape::Table("meta.k8s.io/v1beta1")),
            ("application/json;as=Table;v=v9;g=meta.k8s.io, application/json", Shape::Plain),
            ("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", Shape::Metadata),
            ("application/yaml", Shape::Yaml),
            ("application/json;q=0.5, application/yaml", Shape::Yaml),
        ];
        for (accept, shape) in cases {
            assert_eq!(negotiate(accept).unwrap(), shape, "{accept}");
        }
        for accept in ["application/xml", "application/vnd.kubernetes.protobuf", "text/html, image/png"] {
            assert_eq!(negotiate(accept).unwrap_err().reason, Reason::NotAcceptable, "{accept}");
        }
    }

    #[test]
    fn bodies_are_what_their_type_says() {
        let body = Bytes::from_static(b"{}");
        assert!(matches!(payload("", body.clone()), Ok(Payload::Json(_))));
        assert!(matches!(payload("application/json; charset=utf-8", body.clone()), Ok(Payload::Json(_))));
        assert!(matches!(payload("application/yaml", body.clone()), Ok(Payload::Yaml(_))));
        assert!(matches!(payload("application/vnd.kubernetes.protobuf", body.clone()), Ok(Payload::Protobuf(_))));
        assert_eq!(payload("application/xml", body).unwrap_err().reason, Reason::UnsupportedMediaType);
    }

    #[test]
    fn patches_are_what_their_type_says() {
        let json = Bytes::from_static(b" {}");
        assert!(matches!(patch("application/json-patch+json", false, json.clone()), Ok((PatchType::Json, _))));
        let apply = "application/apply-patch+yaml";
        let (kind, body) = patch(apply, true, json.clone()).unwrap();
        assert!(matches!((kind, body), (PatchType::Apply { force: true }, Payload::Json(_))));
        assert!(matches!(patch(apply, false, Bytes::from_static(b"a: b")), Ok((_, Payload::Yaml(_)))));
        assert_eq!(patch("application/json", false, json).unwrap_err().reason, Reason::UnsupportedMediaType);
    }
}
