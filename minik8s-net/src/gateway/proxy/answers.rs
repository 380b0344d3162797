//! What the gateway answers by itself, in words that say which host, path or Service it is about.

use super::own;
use crate::gateway::body::Answer;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use std::time::Duration;

/// Why a request is not passed on, or what became of it.
#[derive(Debug)]
pub(in crate::gateway) struct Refusal {
    status: StatusCode,
    why: String,
    close: bool,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, why: String) -> Self {
        Self { status, why, close: false }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// The connection ends with the answer.
    pub(super) fn closing(self) -> Self {
        Self { close: true, ..self }
    }

    pub(super) fn late(limit: Duration) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, format!("no answer within {limit:?}"))
    }

    pub(super) fn answer(self, grpc: bool) -> Response<Answer> {
        let mut response = if grpc { self.grpc() } else { own(self.status, format!("gateway: {}\n", self.why)) };
        if self.close {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// As gRPC tells failures: in what would be trailers.
    fn grpc(&self) -> Response<Answer> {
        let code = match self.status.as_u16() {
            400 => "13",
            401 => "16",
            403 => "7",
            404 => "12",
            504 => "4",
            413 => "8",
            _ => "14",
        };
        let mut response = own(StatusCode::OK, String::new());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from_static(code));
        let message: String =
            self.why.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect();
        if let Ok(message) = HeaderValue::from_str(&message.replace('%', "%25")) {
            headers.insert("grpc-message", message);
        }
        response
    }
}

/// True for calls of gRPC.
pub(in crate::gateway) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    kind.strip_prefix(b"application/grpc").is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}
