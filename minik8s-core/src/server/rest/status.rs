//! `Status`: how failures, and successes without an object, are told to clients.

use super::body::{Body, full};
use crate::api::{ApiError, Details, Reason};
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

/// A `Status` body; the order of the fields is the order on the wire.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status<'a> {
    kind: &'static str,
    api_version: &'static str,
    metadata: Empty,
    status: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<&'a Details>,
    #[serde(skip_serializing_if = "is_zero")]
    code: u16,
}

#[derive(Serialize)]
struct Empty {}

fn is_zero(code: &u16) -> bool {
    *code == 0
}

impl<'a> Status<'a> {
    /// What went wrong.
    pub(crate) fn failure(error: &'a ApiError) -> Self {
        let shown = *error.details != Details::default() || always_has_details(error.reason);
        Self {
            kind: "Status",
            api_version: "v1",
            metadata: Empty {},
            status: "Failure",
            message: &error.message,
            reason: error.reason.as_str(),
            details: shown.then_some(&*error.details),
            code: error.reason.http_code(),
        }
    }

    /// Done, and about what.
    pub(crate) fn success(details: &'a Details) -> Self {
        Self {
            kind: "Status",
            api_version: "v1",
            metadata: Empty {},
            status: "Success",
            message: "",
            reason: "",
            details: Some(details),
            code: 0,
        }
    }

    /// A command ended with a code other than 0; the details hold it.
    pub(crate) fn non_zero_exit(message: &'a str, details: &'a Details) -> Self {
        Self { status: "Failure", message, reason: "NonZeroExitCode", ..Self::success(details) }
    }

    /// As JSON.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// Kubernetes writes `details: {}` for the failures its router finds.
fn always_has_details(reason: Reason) -> bool {
    use Reason::{MethodNotAllowed, NotAcceptable, NotFound, UnsupportedMediaType};
    matches!(reason, NotFound | MethodNotAllowed | NotAcceptable | UnsupportedMediaType)
}

/// The answer to a request that failed.
pub(crate) fn error_response(error: &ApiError) -> Response<Body> {
    let mut response = json_response(error.reason.http_code(), Status::failure(error).to_json());
    if error.details.retry_after_seconds > 0 {
        response.headers_mut().insert(header::RETRY_AFTER, error.details.retry_after_seconds.into());
    }
    response
}

/// An answer with a JSON body.
pub(crate) fn json_response(code: u16, body: impl Into<bytes::Bytes>) -> Response<Body> {
    respond(code, "application/json", full(body))
}

/// An answer with a text body.
pub(crate) fn text_response(code: u16, body: impl Into<bytes::Bytes>) -> Response<Body> {
    respond(code, "text/plain; charset=utf-8", full(body))
}

/// An answer. Nothing the API says may be kept by caches, unless a handler says otherwise.
pub(crate) fn respond(code: u16, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// What Kubernetes says about a path that leads nowhere.
pub(crate) fn no_such_path() -> Response<Body> {
    text_response(404, "404 page not found\n")
}

/// The resource does not exist in a group version that does.
pub(crate) fn no_such_resource() -> ApiError {
    ApiError::new(Reason::NotFound, "the server could not find the requested resource")
}

/// The verb does not apply here.
pub(crate) fn no_such_method() -> ApiError {
    ApiError::new(Reason::MethodNotAllowed, "the server does not allow this method on the requested resource")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Gvr;

    #[test]
    fn failures_are_spelled_as_kubernetes_does() {
        let pods = Gvr::new("", "v1", "pods");
        let cases: &[(ApiError, &str)] = &[
            (
                ApiError::not_found(&pods, "nope"),
                r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"pods \"nope\" not found","reason":"NotFound","details":{"name":"nope","kind":"pods"},"code":404}"#,
            ),
            (
                no_such_resource(),
                r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"the server could not find the requested resource","reason":"NotFound","details":{},"code":404}"#,
            ),
            (
                ApiError::new(Reason::Unauthorized, "Unauthorized"),
                r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Unauthorized","reason":"Unauthorized","code":401}"#,
            ),
        ];
        for (error, text) in cases {
            assert_eq!(String::from_utf8(Status::failure(error).to_json()).unwrap(), *text);
        }
    }

    #[test]
    fn a_delay_is_told_in_the_header_too() {
        let mut error = ApiError::new(Reason::Timeout, "Timeout: Too large resource version: 9, current: 5");
        error.details.retry_after_seconds = 1;
        let response = error_response(&error);
        assert_eq!(response.status(), 504);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    }
}
