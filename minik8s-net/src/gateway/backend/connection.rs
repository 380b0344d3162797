//! Connections of HTTP/2 to endpoints, each shared by many requests and moved by a task of its own.

use crate::gateway::body::{Broke, Outgoing};
use crate::gateway::http1::Unsent;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::error::Error;
use std::io;
use std::time::Duration;
use tokio::net::TcpStream;

/// How often silent HTTP/2 connections are asked whether they live.
const PING: Duration = Duration::from_secs(30);
/// What may be under way on one stream, and on all together.
const WINDOW: u32 = 1 << 20;

/// A connection of HTTP/2, shared by many requests.
#[derive(Clone)]
pub(in crate::gateway) struct Http2(http2::SendRequest<Outgoing>);

impl Http2 {
    /// Speaks HTTP/2 on a stream, knowing that the other side does.
    pub(super) async fn open(stream: TcpStream) -> io::Result<Self> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).keep_alive_interval(PING);
        builder.initial_stream_window_size(WINDOW).initial_connection_window_size(WINDOW * 4);
        let (sender, driver) = builder.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::spawn(driver);
        Ok(Self(sender))
    }

    pub(super) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Sends a request and waits for the head of the answer. Where nothing was sent, the body is put back.
    pub(in crate::gateway) async fn send(
        mut self,
        request: &mut Request<Outgoing>,
    ) -> Result<Response<Incoming>, Unsent> {
        if let Err(error) = self.0.ready().await {
            return Err(Unsent::Back(error.to_string()));
        }
        let mut sent = Request::new(std::mem::replace(request.body_mut(), Outgoing::empty()));
        (*sent.method_mut(), *sent.uri_mut()) = (request.method().clone(), request.uri().clone());
        (*sent.version_mut(), *sent.headers_mut()) = (request.version(), request.headers().clone());
        self.0.try_send_request(sent).await.map_err(|mut failure| match failure.take_message() {
            Some(unsent) => {
                *request.body_mut() = unsent.into_body();
                Unsent::Back(failure.into_error().to_string())
            }
            None => lost(failure.into_error()),
        })
    }
}

/// What broke off the request may have been its body.
fn lost(error: hyper::Error) -> Unsent {
    let broke = error.source().and_then(|source| source.downcast_ref::<Broke>());
    match broke {
        Some(Broke::TooLarge(limit)) => Unsent::Body(Broke::TooLarge(*limit)),
        Some(Broke::Silence(patience)) => Unsent::Body(Broke::Silence(*patience)),
        Some(Broke::Left) => Unsent::Body(Broke::Left),
        _ => Unsent::Lost(error.to_string()),
    }
}
