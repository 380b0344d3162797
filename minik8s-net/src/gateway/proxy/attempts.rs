//! Sending a request until an endpoint answers. What was never delivered goes to another endpoint; what may have been
//! delivered is sent again only where that does no harm (RFC 9110, section 9.2.2) and the body is still here.

use super::answers::{Refusal, is_grpc};
use crate::gateway::backend::{Cluster, Endpoint, Http1, Lease, Unsent, Unserved};
use crate::gateway::body::{Broke, Outgoing};
use crate::gateway::front::Shared;
use crate::gateway::table::{Plan, Target, To};
use http::{Method, Request, Response, StatusCode, Uri, Version, header, uri};
use hyper::body::Incoming;
use minik8s_core::routing::{Hold, Speaks};
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

/// How often a request is sent again at most because an endpoint failed it.
const AGAIN: usize = 4;

/// An answer, and what it came through.
pub(super) struct Sent {
    pub(super) response: Response<Incoming>,
    pub(super) connection: Option<Http1>,
    pub(super) lease: Lease,
}

/// What became of one try.
#[allow(clippy::large_enum_variant, reason = "made once for each try, and taken apart at once")]
enum Tried {
    Answered(Sent),
    /// Nothing was delivered: the endpoint could not be reached, or the connection was dead already.
    Undelivered {
        request: Request<Outgoing>,
        why: String,
        was_waiting: bool,
    },
    /// It may have been delivered.
    Lost {
        why: Box<hyper::Error>,
        was_waiting: bool,
    },
    Late,
}

/// Sends a request to an endpoint of the target, `first` before all others.
pub(super) async fn send(
    shared: &Arc<Shared>,
    plan: &Plan,
    target: &Target,
    mut first: Option<Lease>,
    mut request: Request<Outgoing>,
    authority: &str,
) -> Result<Sent, Refusal> {
    let (cluster, speaks) = match &target.to {
        To::Cluster { cluster, speaks } => (cluster, *speaks),
        To::Nowhere { status, why } => return Err(nowhere(*status, why)),
    };
    let http2 = speaks == Speaks::H2c || is_grpc(request.headers());
    if http2 {
        absolute(&mut request, authority);
    }
    let (mut tried, mut again, mut codes, mut fresh) = (Vec::new(), 0, plan.retry.attempts, false);
    loop {
        let lease = match first.take() {
            Some(lease) => lease,
            None => next(cluster, plan.hold.as_ref(), &tried, again == 0).await?,
        };
        let address = lease.address();
        let copy = spare(&request, codes > 0);
        let outcome = within(shared, plan, one(lease, request, http2, fresh)).await;
        let (next, why) = match outcome {
            Tried::Answered(sent) if codes > 0 && plan.retry.codes.contains(&sent.response.status().as_u16()) => {
                let Some(copy) = copy else { return Ok(sent) };
                codes -= 1;
                tried.push(address);
                tokio::time::sleep(plan.retry.backoff).await;
                (copy, String::new())
            }
            Tried::Answered(sent) => return Ok(sent),
            Tried::Late => return Err(Refusal::late(plan.try_timeout.unwrap_or(shared.config.answer_patience))),
            Tried::Undelivered { request, was_waiting: true, .. } => {
                fresh = true;
                // Who waits in line has no right to one endpoint.
                first = if plan.hold.is_none() { cluster.find(|a| a == address) } else { None };
                (request, String::new())
            }
            Tried::Undelivered { request, why, .. } => {
                shared.note_failure(cluster, address);
                tried.push(address);
                (request, why)
            }
            Tried::Lost { why, was_waiting } => {
                // A copy that was made for the sake of an answer's code is no leave to do something twice.
                let copy = copy.filter(|copy| is_idempotent(copy.method()));
                let Some(copy) = copy else { return Err(broken(&why, address)) };
                fresh = true;
                if !was_waiting {
                    tried.push(address);
                }
                (copy, why.to_string())
            }
        };
        request = next;
        shared.metrics.retries.inc();
        again += 1;
        // Where requests wait for endpoints, what was not delivered waits as well: the time it has is its limit.
        if again > AGAIN.max(cluster.len().min(8)) + plan.retry.attempts as usize && plan.hold.is_none() {
            return Err(unreachable(cluster, &tried, &why));
        }
    }
}

/// The endpoint for a try.
pub(super) async fn next(
    cluster: &Cluster,
    hold: Option<&Hold>,
    tried: &[SocketAddr],
    first: bool,
) -> Result<Lease, Refusal> {
    match hold {
        None => cluster.pick(tried).ok_or_else(|| empty(cluster)),
        Some(hold) => cluster.lease(hold, first).await.map_err(|why| unserved(cluster, why)),
    }
}

fn unserved(cluster: &Cluster, why: Unserved) -> Refusal {
    let name = cluster.name();
    match why {
        Unserved::Full(count) => {
            Refusal::new(StatusCode::TOO_MANY_REQUESTS, format!("{count} requests wait for {name} already"))
        }
        Unserved::Late(patience) => {
            let why = format!("no endpoint of {name} was free within {patience:?}");
            Refusal::new(StatusCode::GATEWAY_TIMEOUT, why)
        }
        Unserved::Gone => empty(cluster),
    }
}

async fn within(shared: &Shared, plan: &Plan, attempt: impl Future<Output = Tried>) -> Tried {
    let limit = plan.try_timeout.unwrap_or(shared.config.answer_patience);
    if limit.is_zero() {
        return attempt.await;
    }
    tokio::time::timeout(limit, attempt).await.unwrap_or(Tried::Late)
}

/// One try. `fresh` wants a connection that was not used before.
async fn one(lease: Lease, request: Request<Outgoing>, http2: bool, fresh: bool) -> Tried {
    if http2 {
        return one_http2(lease, request).await;
    }
    let waiting = if fresh { None } else { lease.waiting() };
    let was_waiting = waiting.is_some();
    let mut connection = match waiting {
        Some(connection) => connection,
        None => match open(&lease).await {
            Ok(connection) => connection,
            Err(error) => return Tried::Undelivered { request, why: error.to_string(), was_waiting: false },
        },
    };
    match connection.send(request).await {
        Ok(response) => {
            lease.worked();
            Tried::Answered(Sent { response, connection: Some(connection), lease })
        }
        Err(unsent) => unanswered(unsent, was_waiting),
    }
}

async fn open(endpoint: &Endpoint) -> std::io::Result<Http1> {
    Http1::open(endpoint.connect().await?).await
}

async fn one_http2(lease: Lease, request: Request<Outgoing>) -> Tried {
    let connection = match lease.shared().await {
        Ok(connection) => connection,
        Err(error) => return Tried::Undelivered { request, why: error.to_string(), was_waiting: false },
    };
    match connection.send(request).await {
        Ok(response) => {
            lease.worked();
            Tried::Answered(Sent { response, connection: None, lease })
        }
        Err(unsent) => unanswered(unsent, false),
    }
}

fn unanswered(unsent: Unsent, was_waiting: bool) -> Tried {
    match unsent {
        Unsent::Back(request, error) => Tried::Undelivered { request: *request, why: error.to_string(), was_waiting },
        Unsent::Lost(error) => Tried::Lost { why: Box::new(error), was_waiting },
    }
}

/// The request once more, where it may be needed and can be had.
fn spare(request: &Request<Outgoing>, for_codes: bool) -> Option<Request<Outgoing>> {
    if !for_codes && !is_idempotent(request.method()) {
        return None;
    }
    let body = request.body().again()?;
    let mut copy = Request::new(body);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

fn is_idempotent(method: &Method) -> bool {
    method.is_idempotent()
}

/// As HTTP/2 wants it: with scheme and authority.
fn absolute(request: &mut Request<Outgoing>, authority: &str) {
    let host = request.headers_mut().remove(header::HOST);
    let authority = host.as_ref().and_then(|h| h.to_str().ok()).unwrap_or(authority);
    let path = request.uri().path_and_query().cloned().unwrap_or(uri::PathAndQuery::from_static("/"));
    let made = Uri::builder().scheme("http").authority(authority).path_and_query(path).build();
    if let Ok(uri) = made {
        *request.uri_mut() = uri;
    }
    *request.version_mut() = Version::HTTP_2;
}

fn nowhere(status: u16, why: &str) -> Refusal {
    Refusal::new(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), why.to_owned())
}

fn empty(cluster: &Cluster) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, cluster.why_empty())
}

fn unreachable(cluster: &Cluster, tried: &[SocketAddr], why: &str) -> Refusal {
    let what = cluster.name();
    Refusal::new(
        StatusCode::BAD_GATEWAY,
        format!("none of {} endpoints of {what} could be reached: {why}", tried.len()),
    )
}

/// A request whose body was no good is the client's fault.
fn broken(error: &hyper::Error, address: SocketAddr) -> Refusal {
    match error.source().and_then(|source| source.downcast_ref::<Broke>()) {
        Some(Broke::TooLarge(limit)) => {
            let why = format!("the body is larger than {limit} bytes");
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, why).closing()
        }
        Some(Broke::Silence(patience)) => {
            let why = format!("nothing of the body came for {patience:?}");
            Refusal::new(StatusCode::REQUEST_TIMEOUT, why).closing()
        }
        _ => Refusal::new(StatusCode::BAD_GATEWAY, format!("endpoint {address} did not answer: {error}")),
    }
}
