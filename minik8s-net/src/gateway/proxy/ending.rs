//! How an answer ends: gRPC says in trailers whether a call failed, long after a head that always says 200, and any
//! answer may break off.

use super::answers::is_grpc;
use crate::gateway::metrics::Counted;
use bytes::Bytes;
use http::{HeaderMap, Response};
use hyper::body::Frame;
use std::sync::Arc;

/// What of gRPC is the server's failure and not the caller's, as OpenTelemetry has it: unknown, deadline exceeded,
/// unimplemented, internal, unavailable, data loss.
const FAILURES: [&[u8]; 6] = [b"2", b"4", b"12", b"13", b"14", b"15"];

/// Looks at an answer on its way, and counts it as failed where it ends so.
pub(in crate::gateway) struct Ending {
    counted: Arc<Counted>,
    /// Its status is still to come.
    owed: bool,
    over: bool,
}

/// True for an answer of which the head says that the backend failed.
pub(super) fn failed<B>(response: &Response<B>) -> bool {
    response.status().is_server_error() || is_grpc(response.headers()) && says_failure(response.headers())
}

fn says_failure(headers: &HeaderMap) -> bool {
    headers.get("grpc-status").is_some_and(|status| FAILURES.contains(&status.as_bytes()))
}

impl Ending {
    pub(super) fn new(counted: Arc<Counted>, head: &HeaderMap) -> Self {
        let owed = is_grpc(head) && !head.contains_key("grpc-status");
        Self { counted, owed, over: false }
    }

    /// Looks at a part of the body, or at its end.
    pub(in crate::gateway) fn look<E>(&mut self, frame: Option<Result<&Frame<Bytes>, E>>) {
        let failed = match frame {
            Some(Ok(frame)) => match frame.trailers_ref().filter(|_| self.owed) {
                Some(trailers) => {
                    self.owed = !trailers.contains_key("grpc-status");
                    says_failure(trailers)
                }
                None => false,
            },
            Some(Err(_)) => true,
            None => self.owed,
        };
        if failed && !std::mem::replace(&mut self.over, true) {
            self.counted.broke();
        }
    }
}
