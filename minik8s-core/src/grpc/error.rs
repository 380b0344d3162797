//! Errors as gRPC statuses: the code from the one table, the whole Kubernetes Status as detail.

use super::v1;
use crate::api::{ApiError, Cause, Details, Reason};
use prost::Message;
use tonic::{Code, Status};

const FAILURE: &str = "type.googleapis.com/minik8s.v1.Failure";
/// Details travel in a header; beyond this size the causes are left out and the message alone tells.
const MAX_DETAILS: usize = 8 << 10;

pub(crate) fn to_status(error: &ApiError) -> Status {
    let code = error.reason.grpc_code();
    let encode = |failure: v1::Failure| {
        let detail = v1::Detail { type_url: FAILURE.to_owned(), value: failure.encode_to_vec().into() };
        v1::RpcStatus { code, message: String::new(), details: vec![detail] }.encode_to_vec()
    };
    let mut details = encode(failure(error));
    if details.len() > MAX_DETAILS {
        let bare = Details { causes: Vec::new(), ..(*error.details).clone() };
        details = encode(failure(&ApiError { message: String::new(), details: Box::new(bare), ..error.clone() }));
    }
    let message: String = error.message.chars().take(MAX_DETAILS / 2).collect();
    Status::with_details(Code::from(code), message, details.into())
}

pub(crate) fn from_status(status: &Status) -> ApiError {
    let failure = v1::RpcStatus::decode(status.details()).ok().and_then(|s| {
        let detail = s.details.into_iter().find(|d| d.type_url == FAILURE)?;
        v1::Failure::decode(detail.value).ok()
    });
    match failure {
        Some(failure) => from_failure(failure, status.message()),
        None => ApiError::new(reason_of(status.code()), describe(status)),
    }
}

/// The sentence for a failure that no API server made: with what lies beneath, which tonic leaves out.
fn describe(status: &Status) -> String {
    let mut text = format!("call to the API server failed: {}", status.message());
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        let part = error.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        source = error.source();
    }
    text
}

fn failure(error: &ApiError) -> v1::Failure {
    let d = &error.details;
    let cause = |c: &Cause| v1::Cause { reason: c.reason.clone(), message: c.message.clone(), field: c.field.clone() };
    v1::Failure {
        reason: error.reason.as_str().to_owned(),
        // The sentence travels once, as the gRPC message.
        message: String::new(),
        name: d.name.clone(),
        group: d.group.clone(),
        kind: d.kind.clone(),
        uid: d.uid.clone(),
        causes: d.causes.iter().map(cause).collect(),
        retry_after_seconds: d.retry_after_seconds,
    }
}

fn from_failure(f: v1::Failure, message: &str) -> ApiError {
    let cause = |c: v1::Cause| Cause { reason: c.reason, message: c.message, field: c.field };
    let details = Details {
        name: f.name,
        group: f.group,
        kind: f.kind,
        uid: f.uid,
        causes: f.causes.into_iter().map(cause).collect(),
        retry_after_seconds: f.retry_after_seconds,
    };
    ApiError { reason: Reason::parse(&f.reason), message: message.to_owned(), details: Box::new(details) }
}

/// The reason behind a status that carries no detail: made on the way, not by an API server.
fn reason_of(code: Code) -> Reason {
    match code {
        Code::InvalidArgument => Reason::BadRequest,
        Code::Unauthenticated => Reason::Unauthorized,
        Code::PermissionDenied => Reason::Forbidden,
        Code::Unimplemented => Reason::MethodNotAllowed,
        Code::ResourceExhausted | Code::OutOfRange => Reason::RequestEntityTooLarge,
        Code::DeadlineExceeded => Reason::ServerTimeout,
        Code::Internal | Code::DataLoss => Reason::InternalError,
        _ => Reason::ServiceUnavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Gvr;

    const PODS: Gvr = Gvr::new("", "v1", "pods");

    #[test]
    fn an_error_survives_the_way() {
        let mut invalid = ApiError::new(Reason::Invalid, "Pod \"a\" is invalid");
        invalid.details.causes =
            vec![Cause { reason: "FieldValueRequired".into(), message: "Required".into(), field: "spec".into() }];
        invalid.details.retry_after_seconds = 3;
        for error in [
            ApiError::not_found(&PODS, "a"),
            ApiError::conflict(&PODS, "a", "the object has been modified"),
            ApiError::expired("too old"),
            invalid,
        ] {
            assert_eq!(from_status(&to_status(&error)), error);
        }
    }

    #[test]
    fn a_huge_error_keeps_its_reason() {
        let mut error = ApiError::new(Reason::Invalid, "x".repeat(100_000));
        error.details.name = "a".into();
        error.details.causes = vec![Cause { message: "y".repeat(1000), ..Cause::default() }; 100];
        let back = from_status(&to_status(&error));
        assert_eq!((back.reason, back.details.name.as_str()), (Reason::Invalid, "a"));
        assert!(back.message.len() <= MAX_DETAILS);
    }

    #[test]
    fn a_status_from_the_way_tells_what_to_do() {
        let table = [
            (Code::Unavailable, Reason::ServiceUnavailable),
            (Code::Unknown, Reason::ServiceUnavailable),
            (Code::DeadlineExceeded, Reason::ServerTimeout),
            (Code::Unauthenticated, Reason::Unauthorized),
        ];
        for (code, reason) in table {
            assert_eq!(from_status(&Status::new(code, "m")).reason, reason);
        }
    }
}
