//! `exec` and `attach` over WebSocket, in Kubernetes' channel protocols: each message is one channel byte and its data.

use super::body::Body;
use super::pods::Place;
use super::status::Status;
use super::verbs::Request;
use super::websocket::{self, FAREWELL, Socket, message};
use crate::api::{ApiError, ApiResult, Cause, Details, Reason};
use crate::runtime::{ExecSpec, Output, RuntimeError, StreamSession, TerminalSize};
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::Response;
use http::request::Parts;
use hyper::upgrade::Upgraded;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, frame::coding::CloseCode};
use tokio_util::sync::CancellationToken;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// v5 only: the next byte names a channel that is closed.
const CLOSE: u8 = 255;

/// Subprotocols, best first.
const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

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
    let (key, protocol) = websocket::handshake(&parts.headers, &PROTOCOLS)?;
    let on_upgrade = websocket::on_upgrade(parts)?;
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
            Ok(upgraded) => serve(upgraded, wish).await,
            Err(e) => tracing::debug!(error = %e, "a client left before its stream began"),
        }
    });
    Ok(websocket::switching(&key, protocol))
}

async fn serve(upgraded: Upgraded, wish: Wish) {
    let socket = websocket::socket(upgraded).await;
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

    #[test]
    fn the_exit_code_travels_as_a_cause() {
        assert_eq!(exit_status(Ok(0)), br#"{"metadata":{},"status":"Success"}"#);
        let status: serde_json::Value = serde_json::from_slice(&exit_status(Ok(3))).unwrap();
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"][0], serde_json::json!({"reason": "ExitCode", "message": "3"}));
    }
}
