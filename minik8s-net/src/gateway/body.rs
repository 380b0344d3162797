//! Bodies on their way through: requests with a limit and a patience, answers that move their own connection.

use super::GatewayConfig;
use super::backend::Lease;
use super::http1::{BadChunk, Http1, LINGER, Tunnel, Upload};
use super::proxy::Ending;
use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Sleep;

/// So many bytes of a body that nobody reads are taken, for as long as a client of HTTP/1 is listened to at its end.
const LEFT_OVER: usize = 256 << 10;

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
    #[error("the client closed the connection before the end")]
    Left,
    #[error("the body has not the length that was promised")]
    Length,
    #[error(transparent)]
    Chunk(#[from] BadChunk),
    #[error("the connection failed: {0}")]
    Io(#[from] std::io::Error),
}

/// The body of a request as it comes from the client.
pub(super) enum Source {
    /// All of it is here, if there is one.
    Whole(Bytes),
    Http1(Upload),
    Http2(Received),
}

impl Source {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        match self {
            Source::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Source::Http1(upload) => upload.poll_frame(cx),
            Source::Http2(received) => received.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Source::Whole(bytes) => bytes.is_empty(),
            Source::Http1(upload) => upload.is_end_stream(),
            Source::Http2(received) => received.0.as_ref().is_none_or(Incoming::is_end_stream),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Source::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Http1(upload) => upload.size_hint(),
            Source::Http2(received) => received.0.as_ref().map(Incoming::size_hint).unwrap_or_default(),
        }
    }
}

/// The body of a request of HTTP/2. What nobody reads of it is taken for a moment all the same: some clients take a stream
/// that is over before they have sent everything for a failure, whatever they were answered (curl 7 does).
pub(super) struct Received(Option<Incoming>);

impl Received {
    pub(super) fn new(incoming: Incoming) -> Self {
        Self(Some(incoming))
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        let Some(incoming) = &mut self.0 else { return Poll::Ready(None) };
        Pin::new(incoming).poll_frame(cx).map_err(Broke::from)
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        let rest = self.0.take().filter(|rest| !rest.is_end_stream());
        if let (Some(rest), Ok(runtime)) = (rest, tokio::runtime::Handle::try_current()) {
            drop(runtime.spawn(tokio::time::timeout(LINGER, discard(rest))));
        }
    }
}

/// Takes what comes, up to a limit.
async fn discard(mut rest: Incoming) {
    let mut left = LEFT_OVER;
    while let Some(Ok(frame)) = rest.frame().await {
        let Some(less) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { return };
        left = less;
    }
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
    source: Source,
    /// Was taken out, and put back.
    unread: Option<Bytes>,
    left: Option<u64>,
    limit: u64,
    patience: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Outgoing {
    pub(super) fn empty() -> Self {
        Outgoing::Full(Full::default())
    }

    /// A body that may be as large and as slow as the configuration says.
    pub(super) fn new(source: Source, config: &GatewayConfig) -> Self {
        let (limit, patience) = (config.max_body, config.body_patience);
        let source = match source {
            // Its length was promised, and compared with the limit.
            Source::Whole(bytes) => return Outgoing::Full(Full::from(bytes)),
            source if source.is_end_stream() => return Outgoing::empty(),
            source => source,
        };
        let stream =
            Stream { source, unread: None, left: limit, limit: limit.unwrap_or_default(), patience, timer: None };
        Outgoing::Stream(Box::new(stream))
    }

    /// Another limit, before any of it was read.
    pub(super) fn limit(&mut self, limit: Option<u64>) {
        if let Outgoing::Stream(stream) = self {
            (stream.left, stream.limit) = (limit, limit.unwrap_or_default());
        }
    }

    /// The same with what was taken from its beginning.
    pub(super) fn behind(self, first: Option<Bytes>) -> Self {
        match (self, first) {
            (Outgoing::Full(_), Some(first)) => Outgoing::Full(Full::from(first)),
            (Outgoing::Stream(mut stream), first) => {
                stream.unread = first;
                Outgoing::Stream(stream)
            }
            (body, None) => body,
        }
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
        if let Some(data) = self.unread.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match self.source.poll_frame(cx) {
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

    fn size_hint(&self) -> SizeHint {
        let (unread, rest) = (self.unread.as_ref().map_or(0, |data| data.len() as u64), self.source.size_hint());
        rest.exact().map_or(rest, |rest| SizeHint::with_exact(rest + unread))
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
            Outgoing::Stream(stream) => stream.unread.is_none() && stream.source.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Outgoing::Full(full) => full.size_hint(),
            Outgoing::Stream(stream) => stream.size_hint(),
        }
    }
}

/// The body of an answer to a client.
pub(super) enum Answer {
    /// Our own.
    Own(Full<Bytes>),
    /// An endpoint's.
    Relayed(Relay),
    /// None: what comes now is no HTTP.
    Tunnel(Box<Tunnel>),
}

/// The body of an endpoint's answer, and what moves it.
pub(super) struct Relay {
    from: From,
    lease: Lease,
    ending: Option<Ending>,
}

enum From {
    /// The connection, until all of the answer is here.
    Http1(Option<Box<Http1>>),
    Http2(Incoming),
}

impl Relay {
    /// The answer that comes on a connection.
    pub(super) fn http1(connection: Box<Http1>, lease: Lease) -> Self {
        let mut relay = Self { from: From::Http1(Some(connection)), lease, ending: None };
        // A body that is empty never asks for more.
        relay.give_back();
        relay
    }

    pub(super) fn http2(incoming: Incoming, lease: Lease) -> Self {
        Self { from: From::Http2(incoming), lease, ending: None }
    }

    /// Looked at on its way.
    pub(super) fn watched(mut self, mut ending: Ending) -> Self {
        if self.is_end_stream() {
            ending.look::<Broke>(None);
        }
        self.ending = Some(ending);
        self
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        let frame = self.poll_any(cx);
        if let (Some(ending), Poll::Ready(frame)) = (&mut self.ending, &frame) {
            ending.look(frame.as_ref().map(Result::as_ref));
        }
        frame
    }

    fn poll_any(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        match &mut self.from {
            From::Http1(None) => Poll::Ready(None),
            From::Http1(Some(connection)) => {
                let frame = connection.poll_frame(cx);
                if frame.is_ready() {
                    self.give_back();
                }
                frame
            }
            From::Http2(incoming) => Pin::new(incoming).poll_frame(cx).map_err(Broke::from),
        }
    }

    /// The connection takes the next request as soon as all of this answer is here.
    fn give_back(&mut self) {
        if let From::Http1(connection) = &mut self.from
            && let Some(mut done) = connection.take_if(|connection| connection.is_end_stream())
            && done.rest()
        {
            self.lease.keep(done);
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.from {
            From::Http1(connection) => connection.is_none(),
            From::Http2(incoming) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.from {
            From::Http1(Some(connection)) => connection.size_hint(),
            From::Http1(None) => SizeHint::with_exact(0),
            From::Http2(incoming) => incoming.size_hint(),
        }
    }
}

impl Answer {
    /// Moves what is left of the request while nobody takes the answer.
    pub(super) fn go_on_sending(&mut self, cx: &mut Context<'_>) -> Result<(), Broke> {
        match self {
            Answer::Relayed(Relay { from: From::Http1(Some(connection)), .. }) => connection.go_on_sending(cx),
            _ => Ok(()),
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
            Answer::Tunnel(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Answer::Own(full) => full.is_end_stream(),
            Answer::Relayed(relay) => relay.is_end_stream(),
            Answer::Tunnel(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Answer::Own(full) => full.size_hint(),
            Answer::Relayed(relay) => relay.size_hint(),
            Answer::Tunnel(_) => SizeHint::with_exact(0),
        }
    }
}

/// The length that a head promises.
pub(super) fn promised(headers: &HeaderMap) -> Option<u64> {
    headers.get(http::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
