//! Deletions: their options, and what they answer.

use super::query::{Query, dry_run, propagation};
use super::status::{Status, json_response};
use super::{body::Body, encode::Encoder, media};
use crate::api::{ApiError, ApiResult, Details};
use crate::client::{DeleteOptions, DeletePreconditions, Deleted, Payload};
use bytes::Bytes;
use http::Response;
use prost::Message;
use serde::Deserialize;

/// `DeleteOptions` of `meta/v1`, in both of its encodings.
#[derive(Clone, PartialEq, Deserialize, Message)]
#[serde(rename_all = "camelCase", default)]
struct Wire {
    #[prost(int64, optional, tag = "1")]
    grace_period_seconds: Option<i64>,
    #[prost(message, optional, tag = "2")]
    preconditions: Option<WirePreconditions>,
    #[prost(bool, optional, tag = "3")]
    orphan_dependents: Option<bool>,
    #[prost(string, optional, tag = "4")]
    propagation_policy: Option<String>,
    #[prost(string, repeated, tag = "5")]
    dry_run: Vec<String>,
}

#[derive(Clone, PartialEq, Deserialize, Message)]
#[serde(rename_all = "camelCase", default)]
struct WirePreconditions {
    #[prost(string, optional, tag = "1")]
    uid: Option<String>,
    #[prost(string, optional, tag = "2")]
    resource_version: Option<String>,
}

/// What Kubernetes wraps around a protobuf message, of which only the message matters here.
#[derive(Clone, PartialEq, Message)]
struct Envelope {
    #[prost(bytes = "bytes", tag = "2")]
    raw: Bytes,
}

/// Options of a deletion: from the body where there is one, else from the query.
///
/// # Errors
/// `BadRequest`, `UnsupportedMediaType` and `Invalid` for what cannot be read.
pub(crate) fn options(query: &Query, content_type: &str, body: Bytes) -> ApiResult<DeleteOptions> {
    if body.is_empty() {
        return query.delete();
    }
    let unreadable = |why: String| ApiError::bad_request(format!("unreadable DeleteOptions: {why}"));
    let wire: Wire = match media::payload(content_type, body)? {
        Payload::Json(bytes) => serde_json::from_slice(&bytes).map_err(|e| unreadable(e.to_string()))?,
        Payload::Yaml(bytes) => serde_saphyr::from_slice(&bytes).map_err(|e| unreadable(e.to_string()))?,
        Payload::Protobuf(bytes) => {
            let message = bytes.strip_prefix(b"k8s\0").ok_or_else(|| unreadable("no Kubernetes protobuf".into()))?;
            let envelope = Envelope::decode(message).map_err(|e| unreadable(e.to_string()))?;
            Wire::decode(envelope.raw).map_err(|e| unreadable(e.to_string()))?
        }
    };
    let preconditions = wire.preconditions.unwrap_or_default();
    Ok(DeleteOptions {
        dry_run: dry_run("DeleteOptions", wire.dry_run.iter().map(String::as_str))?,
        grace_period_seconds: wire.grace_period_seconds,
        preconditions: DeletePreconditions { uid: preconditions.uid, resource_version: preconditions.resource_version },
        propagation: propagation(wire.propagation_policy.as_deref(), wire.orphan_dependents)?,
    })
}

/// Clients check the type of this answer: the object where its kind says so or where it is still there, else a
/// `Status`.
pub(crate) fn respond(encoder: &Encoder, deleted: &Deleted) -> ApiResult<Response<Body>> {
    match deleted {
        Deleted::Gone(object) if !encoder.kind.deletion().answers_object => {
            let details = Details {
                name: object.meta.name.clone(),
                group: object.gvr.group.to_string(),
                kind: object.gvr.resource.to_string(),
                uid: object.meta.uid.clone(),
                ..Details::default()
            };
            Ok(json_response(200, Status::success(&details).to_json()))
        }
        deleted => encoder.object(200, deleted.object()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Reason;
    use crate::client::Propagation;

    fn read(content_type: &str, body: impl Into<Bytes>) -> ApiResult<DeleteOptions> {
        options(&Query::parse("gracePeriodSeconds=9"), content_type, body.into())
    }

    #[test]
    fn options_come_from_the_body_or_else_the_query() {
        assert_eq!(read("", "").unwrap().grace_period_seconds, Some(9));
        let json = r#"{"kind":"DeleteOptions","apiVersion":"v1","propagationPolicy":"Foreground","dryRun":["All"],"preconditions":{"uid":"u"}}"#;
        let expected = DeleteOptions {
            dry_run: true,
            grace_period_seconds: None,
            preconditions: DeletePreconditions { uid: Some("u".into()), resource_version: None },
            propagation: Some(Propagation::Foreground),
        };
        assert_eq!(read("application/json", json).unwrap(), expected);
        assert_eq!(read("application/yaml", "gracePeriodSeconds: 0\n").unwrap().grace_period_seconds, Some(0));
    }

    #[test]
    fn options_come_as_protobuf_too() {
        let wire = Wire { grace_period_seconds: Some(1), propagation_policy: Some("Orphan".into()), ..Wire::default() };
        let mut body = b"k8s\0".to_vec();
        body.extend(Envelope { raw: wire.encode_to_vec().into() }.encode_to_vec());
        let options = read("application/vnd.kubernetes.protobuf", body).unwrap();
        assert_eq!((options.grace_period_seconds, options.propagation), (Some(1), Some(Propagation::Orphan)));
    }

    #[test]
    fn unreadable_options_are_refused() {
        assert_eq!(read("application/json", "{").unwrap_err().reason, Reason::BadRequest);
        assert_eq!(read("application/vnd.kubernetes.protobuf", "{}").unwrap_err().reason, Reason::BadRequest);
        assert_eq!(read("application/json", r#"{"propagationPolicy":"x"}"#).unwrap_err().reason, Reason::Invalid);
    }
}
