//! Bodies on their way through: requests with a limit and a patience, answers that move their own connection.

use super::backend::{Http1, Lease};
use super::proxy::Ending;
use bytes::Bytes;
use http::HeaderMap;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::Sleep;

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broke {
    #[error("the connection failed")]
    Connection(#[from] hyper::Error),
    #[error("nothing came for {0:?}")]
    Silence(Duration),
    #[error("the body is larger than {0} bytes")]
    TooLarge(u64),
    #[error("the endpoint closed the connection before the end")]
    Ended,
}

/// The body of a request to a backend.
pub(super) enum Outgoing {
    /// None, or known already.
    Full(Full<Bytes>),
    /// As it comes from the client.
    Stream(Box<Stream>),
}

/// A body as it comes from the client.
pub(super) struct Stream {
    incoming: Incoming,
    left: Option<u64>,
    limit: u64,
    patience: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Outgoing {
    pub(super) fn empty() -> Self {
        Outgoing::Full(Full::default())
    }

    /// A body of at most `limit` bytes whose parts come within `patience` of each other.
    pub(super) fn stream(incoming: Incoming, limit: Option<u64>, patience: Duration) -> Self {
        if incoming.is_end_stream() {
            return Outgoing::empty();
        }
        let limits = limit.unwrap_or_default();
        Outgoing::Stream(Box::new(Stream { incoming, left: limit, limit: limits, patience, timer: None }))
    }

    /// It can be sent again.
    pub(super) fn again(&self) -> Option<Outgoing> {
        match self {
            Outgoing::Full(full) => Some(Outgoing::Full(full.clone())),
            Outgoing::Stream(_) => None,
        }
    }
}

impl Stream {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(frame) => {
                self.timer = None;
                Poll::Ready(frame.map(|frame| self.count(frame?)))
            }
            Poll::Pending => {
                let patience = self.patience;
                let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
                timer.as_mut().poll(cx).map(|()| Some(Err(Broke::Silence(patience))))
            }
        }
    }

    fn count(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, Broke> {
        if let (Some(left), Some(data)) = (self.left, frame.data_ref()) {
            let left = left.checked_sub(data.len() as u64).ok_or(Broke::TooLarge(self.limit))?;
            self.left = Some(left);
        }
        Ok(frame)
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Broke;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        match self.get_mut() {
            Outgoing::Full(full) => Pin::new(full).poll_frame(cx).map(|frame| frame.map(|f| f.map_err(|n| match n {}))),
            Outgoing::Stream(stream) => stream.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Outgoing::Full(full) => full.is_end_stream(),
            Outgoing::Stream(stream) => stream.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Outgoing::Full(full) => full.size_hint(),
            Outgoing::Stream(stream) => stream.incoming.size_hint(),
        }
    }
}

/// The body of an answer to a client.
pub(super) enum Answer {
    /// Our own.
    Own(Full<Bytes>),
    /// An endpoint's.
    Relayed(Box<Relay>),
}

/// The body of an endpoint's answer, and what moves it.
pub(super) struct Relay {
    incoming: Incoming,
    /// The connection it comes from, where nobody else moves that.
    connection: Option<Http1>,
    lease: Lease,
    ended: bool,
    ending: Option<Ending>,
}

impl Relay {
    pub(super) fn new(incoming: Incoming, connection: Option<Http1>, lease: Lease, ending: Option<Ending>) -> Self {
        let mut relay = Self { incoming, connection, lease, ended: false, ending };
        // A body that is empty never asks for more.
        relay.give_back(&mut Context::from_waker(Waker::noop()));
        relay
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        let mut frame = Pin::new(&mut self.incoming).poll_frame(cx).map_err(Broke::from);
        if frame.is_pending()
            && let Some(connection) = &mut self.connection
        {
            let ended = connection.poll(cx).is_ready();
            frame = Pin::new(&mut self.incoming).poll_frame(cx).map_err(Broke::from);
            if frame.is_pending() && ended {
                frame = Poll::Ready(Some(Err(Broke::Ended)));
            }
        }
        self.ended |= matches!(frame, Poll::Ready(None));
        if let (Some(ending), Poll::Ready(frame)) = (&mut self.ending, &frame) {
            ending.look(frame.as_ref().map(Result::as_ref));
        }
        if frame.is_ready() {
            self.give_back(cx);
        }
        frame
    }

    /// The connection takes the next request as soon as all of this answer is here.
    fn give_back(&mut self, cx: &mut Context<'_>) {
        if (self.ended || self.incoming.is_end_stream())
            && let Some(connection) = self.connection.take()
        {
            connection.retire(&self.lease, cx);
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Broke;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        match self.get_mut() {
            Answer::Own(full) => Pin::new(full).poll_frame(cx).map(|frame| frame.map(|f| f.map_err(|n| match n {}))),
            Answer::Relayed(relay) => relay.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Answer::Own(full) => full.is_end_stream(),
            Answer::Relayed(relay) => relay.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Answer::Own(full) => full.size_hint(),
            Answer::Relayed(relay) => relay.incoming.size_hint(),
        }
    }
}

/// The length that a head promises.
pub(super) fn promised(headers: &HeaderMap) -> Option<u64> {
    headers.get(http::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
