//! `portforward`: connections to ports of a pod, in the two protocols that clients speak. Both end a connection alone
//! where its port refuses, and say why on the connection's line for errors.

mod channels;
mod tunnel;

use super::body::Body;
use super::verbs::Request;
use super::websocket;
use crate::api::{ApiError, ApiResult};
use crate::node::{NodeAccess, PodRef};
use crate::runtime::Connection;
use http::request::Parts;
use http::{HeaderValue, Response};
use hyper::upgrade::Upgraded;
use std::sync::Arc;

/// Two channels a port, in messages that begin with the channel's number.
const CHANNELS: &str = "v4.channel.k8s.io";
/// SPDY inside of WebSocket.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// SPDY itself, whose streams are these.
const SPDY: &str = "SPDY/3.1";
const STREAMS: &str = "portforward.k8s.io";
const STREAM_VERSION: &str = "x-stream-protocol-version";

/// Where connections lead.
pub(super) struct Way {
    pub(super) pod: PodRef,
    pub(super) node: Arc<dyn NodeAccess>,
}

impl Way {
    /// A connection, or what the client is told instead.
    async fn connect(&self, port: u16) -> Result<Connection, String> {
        let PodRef { pod, uid, .. } = &self.pod;
        let failed = |e: ApiError| format!("error forwarding port {port} to pod {pod}, uid {uid}: {}", e.message);
        self.node.port_forward(&self.pod, port).await.map_err(failed)
    }
}

enum Protocol {
    Channels(Vec<u16>),
    Tunnel,
    Spdy,
}

/// Agrees to the upgrade, and forwards once it has happened.
///
/// # Errors
/// `BadRequest` for requests that are no handshake in a protocol that is spoken, or name no ports where they must.
pub(super) fn upgrade(way: Way, request: &Request<'_>, parts: &mut Parts) -> ApiResult<Response<Body>> {
    let (response, protocol) = agree(request, parts)?;
    let on_upgrade = websocket::on_upgrade(parts)?;
    let ending = request.ending.clone();
    tokio::spawn(async move {
        let forward = async move {
            match on_upgrade.await {
                Ok(upgraded) => forward(upgraded, protocol, way).await,
                Err(e) => tracing::debug!(error = %e, "a client left before its stream began"),
            }
        };
        tokio::select! {
            () = forward => {}
            () = ending.cancelled() => {}
        }
    });
    Ok(response)
}

fn agree(request: &Request<'_>, parts: &Parts) -> ApiResult<(Response<Body>, Protocol)> {
    if websocket::wants_spdy(&parts.headers) {
        let offered = parts.headers.get_all(STREAM_VERSION).iter().filter_map(|v| v.to_str().ok());
        if !offered.flat_map(|v| v.split(',')).any(|v| v.trim() == STREAMS) {
            return Err(ApiError::bad_request(format!("the header {STREAM_VERSION} must offer {STREAMS}")));
        }
        let mut response = websocket::switching_to(SPDY);
        response.headers_mut().insert(STREAM_VERSION, HeaderValue::from_static(STREAMS));
        return Ok((response, Protocol::Spdy));
    }
    let (key, protocol) = websocket::handshake(&parts.headers, &[TUNNEL, CHANNELS])?;
    let forward = if protocol == TUNNEL { Protocol::Tunnel } else { Protocol::Channels(ports(request)?) };
    Ok((websocket::switching(&key, protocol), forward))
}

async fn forward(upgraded: Upgraded, protocol: Protocol, way: Way) {
    match protocol {
        Protocol::Channels(ports) => channels::serve(websocket::socket(upgraded).await, &way, &ports).await,
        Protocol::Tunnel => tunnel::serve_inside(websocket::socket(upgraded).await, way).await,
        Protocol::Spdy => tunnel::serve(upgraded, way).await,
    }
}

/// `?ports=80,81`, or one by one.
fn ports(request: &Request<'_>) -> ApiResult<Vec<u16>> {
    let given: Vec<&str> = request.query.all("ports").flat_map(|v| v.split(',')).filter(|p| !p.is_empty()).collect();
    if given.is_empty() {
        return Err(ApiError::bad_request("query parameter \"ports\" is required"));
    }
    if given.len() > channels::MOST {
        return Err(ApiError::bad_request(format!("{} ports are asked for, and {} fit", given.len(), channels::MOST)));
    }
    given.into_iter().map(port).collect()
}

fn port(text: &str) -> ApiResult<u16> {
    let wrong = || ApiError::bad_request(format!("{text:?} is no port: it must be between 1 and 65535"));
    text.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)
}
