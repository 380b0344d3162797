//! Connections to endpoints. One of HTTP/1.1 is driven by whoever uses it, not by a task of its own: a request then costs
//! no wake-up of another task, and the answer is relayed by the task that reads it.

use super::endpoint::Endpoint;
use crate::gateway::body::Outgoing;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;

/// Largest head of an answer.
const HEAD: usize = 256 * 1024;
/// How often silent HTTP/2 connections are asked whether they live.
const PING: Duration = Duration::from_secs(30);
/// What may be under way on one stream, and on all together.
const WINDOW: u32 = 1 << 20;

/// Why a request has no answer.
pub(in crate::gateway) enum Unsent {
    /// Nothing of it was sent: here it is again.
    Back(Box<Request<Outgoing>>, hyper::Error),
    /// Some of it may have arrived.
    Lost(hyper::Error),
}

type Driver = http1::Connection<TokioIo<TcpStream>, Outgoing>;

/// A connection of HTTP/1.1, with the half that moves it.
pub(in crate::gateway) struct Http1 {
    sender: http1::SendRequest<Outgoing>,
    /// Dropped at the end of the connection: only then what waits to be sent comes back.
    driver: Option<Driver>,
}

/// Moves bytes; ready when the connection is at its end.
fn drive(driver: &mut Option<Driver>, cx: &mut Context<'_>) -> Poll<()> {
    if let Some(running) = driver
        && Pin::new(running).poll(cx).is_ready()
    {
        *driver = None;
    }
    if driver.is_some() { Poll::Pending } else { Poll::Ready(()) }
}

impl Http1 {
    /// Speaks HTTP/1.1 on a stream.
    pub(in crate::gateway) async fn open(stream: TcpStream) -> io::Result<Self> {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(HEAD);
        let (sender, driver) = builder.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        Ok(Self { sender, driver: Some(driver) })
    }

    /// Moves bytes; ready when the connection is at its end.
    pub(in crate::gateway) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        drive(&mut self.driver, cx)
    }

    /// Sends a request and waits for the head of the answer.
    pub(in crate::gateway) async fn send(&mut self, request: Request<Outgoing>) -> Result<Response<Incoming>, Unsent> {
        // One that was used before may have ended meanwhile, or not know yet that it is idle.
        let ready = poll_fn(|cx| {
            let _ = drive(&mut self.driver, cx);
            self.sender.poll_ready(cx)
        });
        if let Err(error) = ready.await {
            return Err(Unsent::Back(Box::new(request), error));
        }
        let mut answer = pin!(self.sender.try_send_request(request));
        let result = poll_fn(|cx| {
            if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
                return Poll::Ready(answer);
            }
            let _ = drive(&mut self.driver, cx);
            answer.as_mut().poll(cx)
        });
        result.await.map_err(|mut failure| match failure.take_message() {
            Some(request) => Unsent::Back(Box::new(request), failure.into_error()),
            None => Unsent::Lost(failure.into_error()),
        })
    }

    /// Gives the connection back to its endpoint where it can take another request.
    pub(in crate::gateway) fn retire(mut self, endpoint: &Endpoint, cx: &mut Context<'_>) {
        if self.poll(cx).is_pending() && self.sender.is_ready() {
            endpoint.keep(self);
        }
    }

    /// The stream itself, for what comes after an upgrade: the connection goes on by itself.
    pub(in crate::gateway) async fn upgrading(
        stream: TcpStream,
        request: Request<Outgoing>,
    ) -> io::Result<Response<Incoming>> {
        let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::spawn(driver.with_upgrades());
        sender.send_request(request).await.map_err(io::Error::other)
    }
}

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

    /// Sends a request and waits for the head of the answer.
    pub(in crate::gateway) async fn send(mut self, request: Request<Outgoing>) -> Result<Response<Incoming>, Unsent> {
        if let Err(error) = self.0.ready().await {
            return Err(Unsent::Back(Box::new(request), error));
        }
        self.0.try_send_request(request).await.map_err(|mut failure| match failure.take_message() {
            Some(request) => Unsent::Back(Box::new(request), failure.into_error()),
            None => Unsent::Lost(failure.into_error()),
        })
    }
}
