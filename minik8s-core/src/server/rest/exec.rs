//! `exec` and `attach` over WebSocket, in Kubernetes' channel protocols: each message is one channel byte and its data.

use super::body::{Body, full};
use super::pods::Place;
use super::status::{Status, respond};
use super::verbs::Request;
use crate::api::{ApiError, ApiResult, Cause, Details, Reason};
use crate::runtime::{ExecSpec, Output, RuntimeError, StreamSession, TerminalSize};
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig, frame::coding::CloseCode};
use tokio_util::sync::CancellationToken;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// v5 only: the next byte names a channel that is closed.
const CLOSE: u8 = 255;

/// Largest message a client may send.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// How long a client may take to acknowledge the end.
const FAREWELL: Duration = Duration::from_secs(2);
/// Subprotocols, best first.
const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// What a client asked for.
struct Wish {
    place: Place,
    /// The command; `None` attaches.
    command: Option<Vec<String>>,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
    ending: CancellationToken,
}

/// Agrees to the upgrade, and serves the stream once it has happened.
///
/// # Errors
/// `BadRequest` for requests that are no WebSocket handshake or ask for nothing.
pub(crate) fn upgrade(place: Place, exec: bool, request: &Request<'_>, parts: &mut Parts) -> ApiResult<Response<Body>> {
    let (key, protocol) = handshake(&parts.headers)?;
    let on_upgrade = parts.extensions.remove::<OnUpgrade>().ok_or_else(upgrade_required)?;
    let query = &request.query;
    let command: Vec<String> = query.all("command").map(str::to_owned).collect();
    if exec && command.is_empty() {
        return Err(ApiError::bad_request("you must specify at least one command for the container"));
    }
    let wish = Wish {
        place,
        command: exec.then_some(command),
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        tty: query.flag("tty"),
        ending: request.ending.clone(),
    };
    if !(wish.stdin || wish.stdout || wish.stderr) {
        return Err(ApiError::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    tokio::spawn(async move {
        match on_upgrade.await {
            Ok(upgraded) => serve(TokioIo::new(upgraded), wish).await,
            Err(e) => tracing::debug!(error = %e, "a client left before its stream began"),
        }
    });
    Ok(switching(&key, protocol))
}

fn switching(key: &str, protocol: &'static str) -> Response<Body> {
    let mut response = respond(101, "", full(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.clear();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    if let Ok(accept) = HeaderValue::from_str(key) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

/// The answer to the client's key, and the subprotocol to speak.
fn handshake(headers: &HeaderMap) -> ApiResult<(String, &'static str)> {
    let text = |name: header::HeaderName| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let upgrade = text(header::UPGRADE);
    if upgrade.to_ascii_lowercase().starts_with("spdy") {
        let why = "this server speaks WebSocket and no SPDY: use kubectl 1.30 or newer";
        return Err(ApiError::bad_request(why));
    }
    let key = text(header::SEC_WEBSOCKET_KEY);
    if !upgrade.eq_ignore_ascii_case("websocket") || key.is_empty() {
        return Err(upgrade_required());
    }
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok());
    let offered: Vec<&str> = offered.flat_map(|v| v.split(',')).map(str::trim).collect();
    let protocol = PROTOCOLS.into_iter().find(|p| offered.contains(p)).ok_or_else(|| {
        let why = format!("none of the subprotocols {offered:?} is spoken here, only {PROTOCOLS:?}");
        ApiError::bad_request(why)
    })?;
    Ok((derive_accept_key(key.as_bytes()), protocol))
}

fn upgrade_required() -> ApiError {
    ApiError::bad_request("Upgrade request required")
}

async fn serve(io: TokioIo<Upgraded>, wish: Wish) {
    let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
    let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
    let ending = wish.ending.clone();
    tokio::select! {
        () = converse(socket, wish) => {}
        () = ending.cancelled() => {}
    }
}

async fn converse(socket: Socket, wish: Wish) {
    let (sink, stream) = socket.split();
    let container = &wish.place.container;
    let session = match &wish.command {
        Some(command) => {
            let spec = ExecSpec { command: command.clone(), tty: wish.tty, stdin: wish.stdin };
            wish.place.node.exec(container, spec).await
        }
        None => wish.place.node.attach(container, wish.stdin).await,
    };
    match session {
        Ok(session) => pump(sink, stream, session, &wish).await,
        Err(e) => farewell(sink, stream, Status::failure(&internal(&e)).to_json()).await,
    }
}

/// Clients show the message of an internal error as it is.
fn internal(error: &ApiError) -> ApiError {
    ApiError { reason: Reason::InternalError, message: error.message.clone(), details: error.details.clone() }
}

/// Both directions at once: a command that waits for its output to be read must not keep its input from arriving.
async fn pump(mut sink: SplitSink<Socket, Message>, stream: SplitStream<Socket>, session: StreamSession, wish: &Wish) {
    let StreamSession { stdin, mut output, resize, exit } = session;
    let mut reader = std::pin::pin!(read(stream, stdin, resize));
    let writer = async {
        while let Some(piece) = output.recv().await {
            let (channel, wanted, data) = match piece {
                Output::Stdout(data) => (STDOUT, wish.stdout, data),
                Output::Stderr(data) => (STDERR, wish.stderr, data),
            };
            if wanted && sink.send(message(channel, &data)).await.is_err() {
                return None;
            }
        }
        Some(exit.await.unwrap_or_else(|_| Err(RuntimeError::Invalid("the stream broke off".into()))))
    };
    let end = tokio::select! {
        end = writer => end,
        () = &mut reader => None,
    };
    // Where the client has left there is nobody to tell; dropping the session ends a command.
    let Some(end) = end else { return };
    say_goodbye(&mut sink, exit_status(end)).await;
    let _ = tokio::time::timeout(FAREWELL, reader).await;
}

async fn farewell(mut sink: SplitSink<Socket, Message>, stream: SplitStream<Socket>, status: Vec<u8>) {
    say_goodbye(&mut sink, status).await;
    let _ = tokio::time::timeout(FAREWELL, read(stream, None, None)).await;
}

async fn say_goodbye(sink: &mut SplitSink<Socket, Message>, status: Vec<u8>) {
    let _ = sink.send(message(ERROR, &status)).await;
    let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    let _ = sink.send(Message::Close(Some(close))).await;
}

fn message(channel: u8, data: &[u8]) -> Message {
    let mut bytes = BytesMut::with_capacity(data.len() + 1);
    bytes.put_u8(channel);
    bytes.put_slice(data);
    Message::Binary(bytes.freeze())
}

/// How a command ended, as the error channel tells it.
fn exit_status(end: Result<i32, RuntimeError>) -> Vec<u8> {
    match end {
        Ok(0) => br#"{"metadata":{},"status":"Success"}"#.to_vec(),
        Ok(code) => {
            let cause = Cause { reason: "ExitCode".into(), message: code.to_string(), ..Cause::default() };
            let details = Details { causes: vec![cause], ..Details::default() };
            let message = format!("command terminated with non-zero exit code: exit code {code}");
            Status::non_zero_exit(&message, &details).to_json()
        }
        Err(e) => Status::failure(&ApiError::internal(e.to_string())).to_json(),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireSize {
    width: u16,
    height: u16,
}

/// Hands on what the client sends, until it leaves. Input is bounded by the session's own queue.
async fn read(
    mut stream: SplitStream<Socket>,
    mut stdin: Option<mpsc::Sender<Bytes>>,
    resize: Option<mpsc::Sender<TerminalSize>>,
) {
    while let Some(Ok(message)) = stream.next().await {
        let data = match message {
            Message::Binary(data) => data,
            Message::Text(text) => Bytes::from(text),
            Message::Close(_) => return,
            _ => continue,
        };
        match (data.first(), data.get(1)) {
            (Some(&STDIN), Some(_)) => {
                // A command that no longer reads is not an error: its exit code follows.
                if let Some(open) = &stdin
                    && open.send(data.slice(1..)).await.is_err()
                {
                    stdin = None;
                }
            }
            (Some(&CLOSE), Some(&STDIN)) => stdin = None,
            (Some(&RESIZE), _) => {
                let size = serde_json::from_slice(data.get(1..).unwrap_or_default());
                if let (Some(resize), Ok(WireSize { width, height })) = (&resize, size) {
                    // A terminal that has not followed yet will get the next size.
                    let _ = resize.try_send(TerminalSize { width, height });
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (k.parse().unwrap(), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn the_best_common_subprotocol_is_chosen() {
        let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let offer = |protocols: &'static str| {
            handshake(&headers(&[("upgrade", "websocket"), key, ("sec-websocket-protocol", protocols)]))
        };
        let (accept, protocol) = offer("v4.channel.k8s.io, v5.channel.k8s.io").unwrap();
        assert_eq!((accept.as_str(), protocol), ("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "v5.channel.k8s.io"));
        assert_eq!(offer("v4.channel.k8s.io").unwrap().1, "v4.channel.k8s.io");
        assert!(offer("channel.k8s.io").unwrap_err().message.contains("v5.channel.k8s.io"));
    }

    #[test]
    fn requests_without_a_handshake_are_refused() {
        assert_eq!(handshake(&headers(&[])).unwrap_err().message, "Upgrade request required");
        assert!(handshake(&headers(&[("upgrade", "SPDY/3.1")])).unwrap_err().message.contains("WebSocket"));
    }

    #[test]
    fn the_exit_code_travels_as_a_cause() {
        assert_eq!(exit_status(Ok(0)), br#"{"metadata":{},"status":"Success"}"#);
        let status: serde_json::Value = serde_json::from_slice(&exit_status(Ok(3))).unwrap();
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"][0], serde_json::json!({"reason": "ExitCode", "message": "3"}));
    }
}
