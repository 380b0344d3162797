//! Sending a request until an endpoint answers. What was never delivered goes to another endpoint; what may have been
//! delivered is sent again only where that does no harm (RFC 9110, section 9.2.2) and the body is still here, and never
//! where requests are held: who asks for that counts calls, and a GET is one.

use super::answers::{Refusal, is_grpc};
use crate::gateway::backend::{Cluster, Lease, Unserved};
use crate::gateway::body::{Broke, Outgoing, Relay};
use crate::gateway::front::Shared;
use crate::gateway::http1::{Http1, Unsent};
use crate::gateway::table::{Plan, Target, To};
use http::{Method, Request, Response, StatusCode, Uri, Version, header, uri};
use minik8s_core::routing::{Hold, Speaks};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often a request is sent again at most because an endpoint failed it.
const AGAIN: usize = 4;
/// A route may say that there is no limit.
const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// An answer, and who gave it.
pub(super) struct Sent {
    pub(super) response: Response<Relay>,
    pub(super) address: SocketAddr,
}

/// Why a try has no answer.
struct Failed {
    unsent: Unsent,
    /// The connection had been used before.
    was_waiting: bool,
}

/// Sends a request to an endpoint of the target, `first` before all others.
pub(super) async fn send(
    shared: &Arc<Shared>,
    plan: &Plan,
    target: &Target,
    mut first: Option<Lease>,
    request: &mut Request<Outgoing>,
    authority: &str,
) -> Result<Sent, Refusal> {
    let (cluster, speaks) = match &target.to {
        To::Cluster { cluster, speaks } => (cluster, *speaks),
        To::Nowhere { status, why } => return Err(nowhere(*status, why)),
    };
    let http2 = speaks == Speaks::H2c || is_grpc(request.headers());
    if http2 {
        absolute(request, authority);
    }
    let (mut tried, mut again, mut codes, mut fresh) = (Vec::new(), 0, plan.retry.attempts, false);
    let (mut losses, came) = (0, Instant::now());
    loop {
        let lease = match first.take() {
            Some(lease) => lease,
            None => next(cluster, plan.hold.as_ref(), &tried, (came, again == 0)).await?,
        };
        let (address, woke) = (lease.address(), lease.woke().map(|waited| (waited, Instant::now())));
        let spare = request.body().again();
        let tried_once = one(shared, plan, lease, request, http2, fresh).await;
        if let (Some((waited, leased)), Ok(_)) = (woke, &tried_once) {
            shared.metrics.woke(waited, leased.elapsed());
        }
        let why = match tried_once {
            Ok(sent) if codes > 0 && plan.retry.codes.contains(&sent.response.status().as_u16()) => {
                let Some(body) = spare else { return Ok(sent) };
                *request.body_mut() = body;
                codes -= 1;
                tried.push(address);
                tokio::time::sleep(plan.retry.backoff).await;
                String::new()
            }
            Ok(sent) => return Ok(sent),
            Err(Failed { unsent: Unsent::Late, .. }) => {
                return Err(Refusal::late(plan.try_timeout.unwrap_or(shared.config.answer_patience)));
            }
            Err(Failed { unsent: Unsent::Body(broke), .. }) => return Err(broken(&broke)),
            Err(Failed { unsent: Unsent::Back(why), was_waiting: true }) => {
                fresh = true;
                // Who waits in line has no right to one endpoint.
                first = if plan.hold.is_none() { cluster.find(|a| a == address) } else { None };
                why
            }
            Err(Failed { unsent: Unsent::Back(why), .. }) => {
                shared.note_failure(cluster, address);
                tried.push(address);
                why
            }
            Err(Failed { unsent: Unsent::Lost(why), was_waiting }) => {
                let Some(body) = spare.filter(|_| may_repeat(plan, request.method())) else {
                    return Err(lost(&why, address));
                };
                losses += 1;
                if losses > AGAIN {
                    return Err(lost(&why, address));
                }
                *request.body_mut() = body;
                fresh = true;
                if !was_waiting {
                    tried.push(address);
                }
                why
            }
        };
        shared.metrics.retries.inc();
        again += 1;
        // Where requests wait for endpoints, what was not delivered waits as well: the time it has is its limit.
        if again > AGAIN.max(cluster.len().min(8)) + plan.retry.attempts as usize && plan.hold.is_none() {
            return Err(unreachable(cluster, &tried, &why));
        }
    }
}

/// The endpoint for a try of a request: when that came, and whether it is the first.
pub(super) async fn next(
    cluster: &Cluster,
    hold: Option<&Hold>,
    tried: &[SocketAddr],
    (came, first): (Instant, bool),
) -> Result<Lease, Refusal> {
    match hold {
        None => cluster.pick(tried).ok_or_else(|| empty(cluster)),
        Some(hold) => cluster.lease(hold, came, first).await.map_err(|why| unserved(cluster, why)),
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

/// One try. `fresh` wants a connection that was not used before.
async fn one(
    shared: &Shared,
    plan: &Plan,
    lease: Lease,
    request: &mut Request<Outgoing>,
    http2: bool,
    fresh: bool,
) -> Result<Sent, Failed> {
    let limit = match plan.try_timeout {
        None if http2 => shared.config.answer_patience,
        None => return one_http1(lease, request, fresh, shared.config.answer_patience).await,
        Some(Duration::ZERO) => NEVER,
        Some(limit) => limit,
    };
    let attempt =
        async { if http2 { one_http2(lease, request).await } else { one_http1(lease, request, fresh, limit).await } };
    let late = |_| Failed { unsent: Unsent::Late, was_waiting: false };
    tokio::time::timeout(limit, attempt).await.map_err(late)?
}

async fn one_http1(
    lease: Lease,
    request: &mut Request<Outgoing>,
    fresh: bool,
    patience: Duration,
) -> Result<Sent, Failed> {
    let waiting = if fresh { None } else { lease.waiting() };
    let was_waiting = waiting.is_some();
    let mut connection = match waiting {
        Some(connection) => connection,
        None => Box::new(Http1::new(lease.connect().await.map_err(unreached)?)),
    };
    let parts = connection.send(request, false, patience).await;
    let parts = parts.map_err(|unsent| Failed { unsent, was_waiting })?;
    lease.worked();
    let address = lease.address();
    Ok(Sent { response: Response::from_parts(parts, Relay::http1(connection, lease)), address })
}

async fn one_http2(lease: Lease, request: &mut Request<Outgoing>) -> Result<Sent, Failed> {
    let connection = lease.shared().await.map_err(unreached)?;
    let response = connection.send(request).await.map_err(|unsent| Failed { unsent, was_waiting: false })?;
    lease.worked();
    let address = lease.address();
    Ok(Sent { response: response.map(|body| Relay::http2(body, lease)), address })
}

fn unreached(error: std::io::Error) -> Failed {
    Failed { unsent: Unsent::Back(error.to_string()), was_waiting: false }
}

/// What may have been delivered may be sent again.
fn may_repeat(plan: &Plan, method: &Method) -> bool {
    plan.hold.is_none() && method.is_idempotent()
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
fn broken(broke: &Broke) -> Refusal {
    match broke {
        Broke::TooLarge(limit) => {
            let why = format!("the body is larger than {limit} bytes");
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, why).closing()
        }
        Broke::Silence(patience) => {
            let why = format!("nothing of the body came for {patience:?}");
            Refusal::new(StatusCode::REQUEST_TIMEOUT, why).closing()
        }
        other => Refusal::new(StatusCode::BAD_REQUEST, format!("the body broke off: {other}")).closing(),
    }
}

fn lost(why: &str, address: SocketAddr) -> Refusal {
    Refusal::new(StatusCode::BAD_GATEWAY, format!("endpoint {address} did not answer: {why}"))
}
