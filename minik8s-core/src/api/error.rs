//! The one error of the API, and the one table from its reasons to HTTP and gRPC codes.

use serde::{Deserialize, Serialize};

/// Why a request failed: the machine-readable `reason` of a Kubernetes `Status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Reason {
    /// The request itself is malformed.
    BadRequest,
    /// No or wrong credentials.
    Unauthorized,
    /// Known, but not allowed.
    Forbidden,
    /// The object or the resource does not exist.
    NotFound,
    /// The verb does not apply to this resource.
    MethodNotAllowed,
    /// No offered media type is acceptable.
    NotAcceptable,
    /// An object of that name exists.
    AlreadyExists,
    /// The object has changed, or a precondition failed.
    Conflict,
    /// The object is gone for good.
    Gone,
    /// The revision is no longer kept: list again.
    Expired,
    /// The body's media type is not understood.
    UnsupportedMediaType,
    /// The object breaks a rule of its kind; the causes name the fields.
    Invalid,
    /// Try later: too many requests, or a disruption budget.
    TooManyRequests,
    /// The body or the object is too large.
    RequestEntityTooLarge,
    /// The server failed.
    InternalError,
    /// The server cannot answer now.
    ServiceUnavailable,
    /// The answer took too long, or the revision lies in the future.
    Timeout,
    /// The call was cut by its own deadline on the way.
    ServerTimeout,
    /// A reason this version does not know.
    #[serde(other)]
    Unknown,
}

/// Reason, its spelling on the wire, HTTP code, gRPC code: the only place where they meet.
const CODES: &[(Reason, &str, u16, i32)] = &[
    (Reason::BadRequest, "BadRequest", 400, 3),
    (Reason::Unauthorized, "Unauthorized", 401, 16),
    (Reason::Forbidden, "Forbidden", 403, 7),
    (Reason::NotFound, "NotFound", 404, 5),
    (Reason::MethodNotAllowed, "MethodNotAllowed", 405, 12),
    (Reason::NotAcceptable, "NotAcceptable", 406, 3),
    (Reason::AlreadyExists, "AlreadyExists", 409, 6),
    (Reason::Conflict, "Conflict", 409, 10),
    (Reason::Gone, "Gone", 410, 11),
    (Reason::Expired, "Expired", 410, 11),
    (Reason::RequestEntityTooLarge, "RequestEntityTooLarge", 413, 8),
    (Reason::UnsupportedMediaType, "UnsupportedMediaType", 415, 3),
    (Reason::Invalid, "Invalid", 422, 9),
    (Reason::TooManyRequests, "TooManyRequests", 429, 8),
    (Reason::InternalError, "InternalError", 500, 13),
    (Reason::ServiceUnavailable, "ServiceUnavailable", 503, 14),
    (Reason::ServerTimeout, "ServerTimeout", 500, 4),
    (Reason::Timeout, "Timeout", 504, 4),
    (Reason::Unknown, "Unknown", 500, 2),
];

impl Reason {
    fn row(self) -> &'static (Reason, &'static str, u16, i32) {
        CODES.iter().find(|row| row.0 == self).unwrap_or(&CODES[CODES.len() - 1])
    }

    /// Spelling in a `Status` body.
    pub fn as_str(self) -> &'static str {
        self.row().1
    }

    /// HTTP status code.
    pub fn http_code(self) -> u16 {
        self.row().2
    }

    /// gRPC status code.
    pub fn grpc_code(self) -> i32 {
        self.row().3
    }

    /// The reason a `Status` body spells.
    pub fn parse(text: &str) -> Self {
        CODES.iter().find(|row| row.1 == text).map_or(Reason::Unknown, |row| row.0)
    }
}

/// One field that broke a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// `FieldValueInvalid`, `FieldValueRequired`, …
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What is wrong, such as `Invalid value: "x": must be …`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Path of the field, such as `spec.containers[0].image`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// What the error is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// Name of the object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// API group, empty for core.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Plural resource, or the Kind where the reason is `Invalid`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// The object's uid.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// The fields at fault.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// When to try again, in seconds; 0 says nothing.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// A request that failed: what a Kubernetes client reads as a `Status`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The machine-readable reason.
    pub reason: Reason,
    /// The sentence for people.
    pub message: String,
    /// What it is about.
    pub details: Box<Details>,
}

/// The result of every call on the API.
pub type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    /// An error without details.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), details: Box::default() }
    }

    /// The object does not exist; the text is the one clients match on.
    pub fn not_found(gvr: &super::Gvr, name: &str) -> Self {
        Self::about(Reason::NotFound, gvr, name, format!("{} \"{name}\" not found", gvr.qualified()))
    }

    /// An object of that name exists.
    pub fn already_exists(gvr: &super::Gvr, name: &str) -> Self {
        Self::about(Reason::AlreadyExists, gvr, name, format!("{} \"{name}\" already exists", gvr.qualified()))
    }

    /// The object has changed since it was read.
    pub fn conflict(gvr: &super::Gvr, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", gvr.qualified());
        Self::about(Reason::Conflict, gvr, name, message)
    }

    /// The request cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    /// The server failed.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Reason::InternalError, message)
    }

    /// The revision is no longer kept.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(Reason::Expired, message)
    }

    fn about(reason: Reason, gvr: &super::Gvr, name: &str, message: String) -> Self {
        let details = Details {
            name: name.to_owned(),
            group: gvr.group.to_string(),
            kind: gvr.resource.to_string(),
            ..Details::default()
        };
        Self { reason, message, details: Box::new(details) }
    }

    /// True for `NotFound`.
    pub fn is_not_found(&self) -> bool {
        self.reason == Reason::NotFound
    }

    /// True for `Conflict`: read again and retry.
    pub fn is_conflict(&self) -> bool {
        self.reason == Reason::Conflict
    }

    /// True where the object is not the one that was meant any more: a patch that names an identity is refused as an
    /// attempt to change it.
    pub fn is_of_another(&self) -> bool {
        self.details.causes.iter().any(|cause| cause.field == "metadata.uid")
    }

    /// True for `AlreadyExists`.
    pub fn is_already_exists(&self) -> bool {
        self.reason == Reason::AlreadyExists
    }

    /// True where a watch must list again.
    pub fn is_gone(&self) -> bool {
        matches!(self.reason, Reason::Gone | Reason::Expired)
    }
}
