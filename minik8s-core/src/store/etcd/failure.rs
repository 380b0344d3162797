//! What an error of etcd or of the way to it means for the request: was it certainly not carried out, or can nobody tell?
//!
//! Everything that is not known to come before a proposal enters the replicated log counts as unknown.

use crate::api::Revision;
use crate::store::StoreError;
use etcd_client::Error;
use std::error::Error as _;
use tonic::{Code, ConnectError, Status};

/// How a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The revision is older than etcd's last compaction.
    Compacted,
    /// The revision has not happened yet.
    Future,
    /// The lease of a put is gone; nothing was written.
    LeaseGone,
    /// No etcd takes this request.
    Invalid(String),
    /// Certainly not carried out; another member may do it, or this one later.
    NotDone(String),
    /// It may have been carried out.
    Lost(String),
}

/// What etcd says before it proposes anything, or when it refuses to apply.
const NOT_DONE: [&str; 5] =
    ["etcdserver: no leader", "raft proposal dropped", "too many requests", "not healthy", "not capable"];

impl Failure {
    /// Reads an error of the client.
    pub(super) fn of(error: &Error) -> Self {
        match error {
            Error::GRpcStatus(status) => Self::of_status(status),
            Error::InvalidArgs(_) | Error::InvalidUri(_) => Self::Invalid(error.to_string()),
            other => Self::Lost(other.to_string()),
        }
    }

    fn of_status(status: &Status) -> Self {
        let (code, message) = (status.code(), status.message());
        let says = |text: &str| message.contains(text);
        if says("has been compacted") {
            return Self::Compacted;
        }
        if says("is a future revision") {
            return Self::Future;
        }
        if says("requested lease not found") {
            return Self::LeaseGone;
        }
        match code {
            Code::InvalidArgument => Self::Invalid(with_way_out(message)),
            Code::Unauthenticated | Code::PermissionDenied | Code::ResourceExhausted | Code::FailedPrecondition => {
                Self::NotDone(with_way_out(message))
            }
            _ if never_connected(status) || NOT_DONE.iter().any(|text| says(text)) => Self::NotDone(message.to_owned()),
            _ => Self::Lost(message.to_owned()),
        }
    }

    /// The error of a read, or of anything that changes nothing: an answer that got lost is no answer.
    pub(super) fn reading(self, operation: &'static str, requested: Revision, newest: Revision) -> StoreError {
        match self {
            Self::Compacted => StoreError::Compacted { requested, oldest: newest },
            Self::Future => StoreError::Future { requested, newest },
            Self::Invalid(why) => StoreError::Invalid(why),
            Self::LeaseGone => StoreError::Unavailable { operation, cause: "the lease is gone".to_owned() },
            Self::NotDone(cause) | Self::Lost(cause) => StoreError::Unavailable { operation, cause },
        }
    }

    /// The error of a write: one that may have happened is never called a failure.
    pub(super) fn writing(self, operation: &'static str) -> StoreError {
        match self {
            Self::Lost(why) => StoreError::Unknown(why),
            other => other.reading(operation, 0, 0),
        }
    }
}

/// Adds what an operator can do to etcd's own words.
fn with_way_out(message: &str) -> String {
    let hints = [
        ("too many operations", "split the commit, or start etcd with a larger --max-txn-ops"),
        ("request is too large", "split the commit, or start etcd with a larger --max-request-bytes"),
        (
            "database space exceeded",
            "compact and defragment etcd, then disarm its alarm, or raise --quota-backend-bytes",
        ),
    ];
    match hints.iter().find(|(text, _)| message.contains(text)) {
        Some((_, hint)) => format!("{message} ({hint})"),
        None => message.to_owned(),
    }
}

/// True where there was no connection that the request could have gone out on.
fn never_connected(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: Code, message: &str) -> Failure {
        Failure::of(&Error::GRpcStatus(Status::new(code, message)))
    }

    #[test]
    fn only_what_is_certain_counts_as_not_done() {
        let not_done = [
            (Code::Unavailable, "etcdserver: no leader"),
            (Code::Unknown, "raft proposal dropped"),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
            (Code::ResourceExhausted, "etcdserver: too many requests"),
            (Code::PermissionDenied, "etcdserver: permission denied"),
        ];
        for (code, message) in not_done {
            assert!(matches!(of(code, message), Failure::NotDone(_)), "{message}");
        }
        let lost = [
            (Code::Unavailable, "etcdserver: request timed out"),
            (Code::Unavailable, "etcdserver: request timed out, possibly due to previous leader failure"),
            (Code::Unavailable, "etcdserver: leader changed"),
            (Code::Unavailable, "etcdserver: server stopped"),
            (Code::Unavailable, "error reading a body from connection"),
            (Code::Cancelled, "Timeout expired"),
            (Code::Internal, "whatever is new"),
        ];
        for (code, message) in lost {
            assert!(matches!(of(code, message), Failure::Lost(_)), "{message}");
            assert!(matches!(of(code, message).writing("committing"), StoreError::Unknown(_)), "{message}");
        }
    }

    #[test]
    fn refusals_that_mean_something_are_told_apart() {
        assert_eq!(of(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted"), Failure::Compacted);
        assert_eq!(of(Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision"), Failure::Future);
        assert_eq!(of(Code::NotFound, "etcdserver: requested lease not found"), Failure::LeaseGone);
        let Failure::Invalid(why) = of(Code::InvalidArgument, "etcdserver: too many operations in txn request") else {
            panic!("must be invalid")
        };
        assert!(why.contains("--max-txn-ops"), "{why}");
    }
}
