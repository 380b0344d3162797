//! `portforward.k8s.io`: SPDY streams in pairs, one for the bytes of a connection and one for what goes wrong with it,
//! over a connection of their own or as the bytes of a WebSocket's messages.

use super::Way;
use crate::server::rest::spdy::{self, Incoming, Reset};
use crate::server::rest::websocket::Socket;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use std::collections::HashMap;
use std::future::{Future, ready};
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

pub(super) async fn serve(upgraded: Upgraded, way: Way) {
    let (read, write) = tokio::io::split(TokioIo::new(upgraded));
    serve_over(read, write, way).await;
}

pub(super) async fn serve_inside(socket: Socket, way: Way) {
    let (sink, stream) = socket.split();
    let read = StreamReader::new(Box::pin(stream.filter_map(|message| ready(bytes_of(message)))));
    let sink = sink.sink_map_err(io::Error::other).with(|data: Bytes| ready(Ok::<_, io::Error>(Message::Binary(data))));
    let write = SinkWriter::new(CopyToBytes::new(Box::pin(sink)));
    serve_over(read, write, way).await;
}

/// The bytes of a message that carries some.
fn bytes_of(message: Result<Message, Error>) -> Option<io::Result<Bytes>> {
    match message {
        Ok(Message::Binary(data)) => Some(Ok(data)),
        Ok(_) => None,
        Err(e) => Some(Err(io::Error::other(e))),
    }
}

async fn serve_over(read: impl AsyncRead + Unpin, write: impl AsyncWrite + Unpin, way: Way) {
    let mut pairs = Pairs { way: Arc::new(way), errors: HashMap::new() };
    if let Err(error) = spdy::serve(read, write, |stream| pairs.opened(stream)).await {
        tracing::debug!(%error, "a client's forwarding has ended");
    }
}

/// Streams for errors, by the request whose stream for bytes has not come yet.
struct Pairs {
    way: Arc<Way>,
    errors: HashMap<String, Incoming>,
}

impl Pairs {
    fn opened(&mut self, stream: Incoming) -> Option<impl Future<Output = ()> + Send + use<>> {
        self.errors.retain(|_, waiting| !waiting.is_over());
        let kind = stream.header("streamtype").unwrap_or_default();
        let port = stream.header("port").and_then(|p| super::port(p).ok());
        let pair = match (kind, port) {
            ("error", Some(_)) => {
                self.errors.insert(request(&stream, 0), stream);
                return None;
            }
            ("data", Some(port)) => match self.errors.remove(&request(&stream, 2)) {
                Some(errors) => Ok((port, stream, errors)),
                None => Err(stream),
            },
            _ => Err(stream),
        };
        let way = self.way.clone();
        Some(async move {
            match pair {
                Ok((port, data, errors)) => forward(&way, port, data, errors).await,
                Err(stream) => stream.line().reset(Reset::ProtocolError).await,
            }
        })
    }
}

/// What joins a pair. Old clients give no id; their stream for errors is the one before.
fn request(stream: &Incoming, before: u32) -> String {
    stream.header("requestid").map_or_else(|| stream.id().saturating_sub(before).to_string(), str::to_owned)
}

async fn forward(way: &Way, port: u16, data: Incoming, errors: Incoming) {
    let (over, line) = (data.over(), data.line());
    let work = async {
        match way.connect(port).await {
            Ok(mut connection) => {
                let (mut client, _open) = data.open();
                // What broke is told by the stream's end; an error would make clients give up all their streams.
                if tokio::io::copy_bidirectional(&mut client, &mut connection).await.is_err() {
                    line.reset(Reset::InternalError).await;
                }
                String::new()
            }
            Err(why) => {
                line.finish("").await;
                why
            }
        }
    };
    let error = tokio::select! {
        error = work => error,
        () = over.cancelled() => String::new(),
    };
    errors.line().finish(&error).await;
}
