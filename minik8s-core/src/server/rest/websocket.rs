//! WebSocket: agreeing to the upgrade, and to a subprotocol.

use super::body::{Body, full};
use super::status::respond;
use crate::api::{ApiError, ApiResult};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};

/// Largest message a client may send.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// How long a client may take to acknowledge the end.
pub(super) const FAREWELL: Duration = Duration::from_secs(2);

pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// The socket on a connection that was upgraded.
pub(super) async fn socket(upgraded: Upgraded) -> Socket {
    let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await
}

/// A message of a channel.
pub(super) fn message(channel: u8, data: &[u8]) -> Message {
    let mut bytes = Vec::with_capacity(data.len() + 1);
    bytes.push(channel);
    bytes.extend_from_slice(data);
    Message::Binary(bytes.into())
}

/// What becomes the connection once the answer was sent.
pub(super) fn on_upgrade(parts: &mut Parts) -> ApiResult<OnUpgrade> {
    parts.extensions.remove::<OnUpgrade>().ok_or_else(upgrade_required)
}

/// The answer that agrees to a WebSocket.
pub(super) fn switching(key: &str, protocol: &'static str) -> Response<Body> {
    let mut response = switching_to("websocket");
    let headers = response.headers_mut();
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    if let Ok(accept) = HeaderValue::from_str(key) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

/// The answer that agrees to another protocol.
pub(super) fn switching_to(protocol: &'static str) -> Response<Body> {
    let mut response = respond(101, "", full(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.clear();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(protocol));
    response
}

/// True where the client wants the protocol that came before WebSocket.
pub(super) fn wants_spdy(headers: &HeaderMap) -> bool {
    text(headers, &header::UPGRADE).to_ascii_lowercase().starts_with("spdy")
}

fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> &'a str {
    headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
}

/// The answer to the client's key, and the first of the `spoken` subprotocols that it offers.
///
/// # Errors
/// `BadRequest` for what is no WebSocket handshake, or offers none of them.
pub(super) fn handshake(headers: &HeaderMap, spoken: &[&'static str]) -> ApiResult<(String, &'static str)> {
    if wants_spdy(headers) {
        let why = "this server speaks WebSocket and no SPDY here: use kubectl 1.30 or newer";
        return Err(ApiError::bad_request(why));
    }
    let key = text(headers, &header::SEC_WEBSOCKET_KEY);
    if !text(headers, &header::UPGRADE).eq_ignore_ascii_case("websocket") || key.is_empty() {
        return Err(upgrade_required());
    }
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok());
    let offered: Vec<&str> = offered.flat_map(|v| v.split(',')).map(str::trim).collect();
    let protocol = spoken.iter().find(|p| offered.contains(p)).ok_or_else(|| {
        let why = format!("none of the subprotocols {offered:?} is spoken here, only {spoken:?}");
        ApiError::bad_request(why)
    })?;
    Ok((derive_accept_key(key.as_bytes()), protocol))
}

pub(super) fn upgrade_required() -> ApiError {
    ApiError::bad_request("Upgrade request required")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPOKEN: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (k.parse().unwrap(), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn the_best_common_subprotocol_is_chosen() {
        let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let offer = |protocols: &'static str| {
            handshake(&headers(&[("upgrade", "websocket"), key, ("sec-websocket-protocol", protocols)]), &SPOKEN)
        };
        let (accept, protocol) = offer("v4.channel.k8s.io, v5.channel.k8s.io").unwrap();
        assert_eq!((accept.as_str(), protocol), ("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "v5.channel.k8s.io"));
        assert_eq!(offer("v4.channel.k8s.io").unwrap().1, "v4.channel.k8s.io");
        assert!(offer("channel.k8s.io").unwrap_err().message.contains("v5.channel.k8s.io"));
    }

    #[test]
    fn requests_without_a_handshake_are_refused() {
        assert_eq!(handshake(&headers(&[]), &SPOKEN).unwrap_err().message, "Upgrade request required");
        let spdy = handshake(&headers(&[("upgrade", "SPDY/3.1")]), &SPOKEN).unwrap_err();
        assert!(spdy.message.contains("WebSocket"));
    }
}
