//! Connections that become something else, such as WebSockets: bytes are passed both ways from then on.

use super::answers::Refusal;
use super::attempts;
use super::headers::without_hops;
use super::sticky::Chosen;
use crate::gateway::backend::Lease;
use crate::gateway::body::{Answer, Outgoing, Relay};
use crate::gateway::front::Shared;
use crate::gateway::http1::{Http1, Tunnel, Unsent};
use crate::gateway::table::{Target, To};
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use minik8s_core::routing::Hold;
use std::sync::Arc;
use tokio::time::Instant;

/// The protocol that a client wants to speak instead; HTTP/2 as an upgrade is not offered.
pub(super) fn wanted<B>(request: &Request<B>) -> Option<HeaderValue> {
    let headers = request.headers();
    let protocol = headers.get(header::UPGRADE).filter(|_| request.version() == Version::HTTP_11)?;
    let listed = |value: &HeaderValue| {
        value.to_str().is_ok_and(|v| v.split(',').any(|n| n.trim().eq_ignore_ascii_case("upgrade")))
    };
    let asked = headers.get_all(header::CONNECTION).iter().any(listed);
    let http2 =
        protocol.to_str().map_or(true, |v| v.split(',').any(|n| n.trim().to_ascii_lowercase().starts_with("h2c")));
    (asked && !http2).then(|| protocol.clone())
}

/// Asks a backend for the upgrade, and passes bytes where it agrees.
pub(super) async fn pass(
    shared: &Arc<Shared>,
    (target, hold): (&Target, Option<&Hold>),
    chosen: Chosen,
    protocol: HeaderValue,
    request: &mut Request<Outgoing>,
) -> Result<Response<Answer>, Refusal> {
    let headers = request.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocol);
    headers.remove("http2-settings");
    let token = chosen.cookie;
    let (lease, stream) = connect(shared, target, hold, chosen.lease).await?;
    let (mut connection, address) = (Box::new(Http1::new(stream)), lease.address());
    let answered = connection.send(request, true, shared.config.answer_patience).await;
    let mut head = answered.map_err(|unsent| match unsent {
        Unsent::Late => Refusal::late(shared.config.answer_patience),
        Unsent::Body(broke) => Refusal::new(StatusCode::BAD_REQUEST, broke.to_string()).closing(),
        Unsent::Back(why) | Unsent::Lost(why) => {
            Refusal::new(StatusCode::BAD_GATEWAY, format!("endpoint {address} did not answer: {why}"))
        }
    })?;
    if let Some(cookie) = token {
        cookie.set(&mut head.headers, address);
    }
    if head.status != StatusCode::SWITCHING_PROTOCOLS {
        without_hops(&mut head.headers);
        return Ok(Response::from_parts(head, Answer::Relayed(Relay::http1(connection, lease))));
    }
    if !connection.is_sent() {
        let why = format!("endpoint {address} would speak something else before it has the request");
        return Err(Refusal::new(StatusCode::BAD_GATEWAY, why).closing());
    }
    Ok(Response::from_parts(head, Answer::Tunnel(Box::new(Tunnel::new(*connection, lease)))))
}

async fn connect(
    shared: &Shared,
    target: &Target,
    hold: Option<&Hold>,
    mut first: Option<Lease>,
) -> Result<(Lease, tokio::net::TcpStream), Refusal> {
    let cluster = match &target.to {
        To::Cluster { cluster, .. } => cluster,
        To::Nowhere { status, why } => {
            let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            return Err(Refusal::new(status, why.clone()));
        }
    };
    let (mut tried, came) = (Vec::new(), Instant::now());
    loop {
        let lease = match first.take() {
            Some(lease) => lease,
            None => attempts::next(cluster, hold, &tried, (came, tried.is_empty())).await?,
        };
        match lease.connect().await {
            Ok(stream) => return Ok((lease, stream)),
            Err(error) => {
                shared.note_failure(cluster, lease.address());
                tried.push(lease.address());
                if tried.len() > cluster.len().min(4) {
                    return Err(Refusal::new(
                        StatusCode::BAD_GATEWAY,
                        format!("no endpoint could be reached: {error}"),
                    ));
                }
            }
        }
    }
}
