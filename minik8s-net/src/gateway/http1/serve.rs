//! A client's connection: one request after the other, each answered before the next is looked at.

use super::decode::Decoder;
use super::encode::{self, After};
use super::head::{self, Asked, Bad, Framing, Limits};
use super::io::{Input, Output, Patience};
use super::upload::{Incoming, Upload};
use crate::gateway::body::{Answer, Outgoing, Source};
use crate::gateway::front::Shared;
use crate::gateway::proxy::{Came, handle, refuse};
use crate::gateway::serve::LAST;
use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode, Version, header};
use hyper::body::Body;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// How long a client is listened to that has its last answer: a socket that is closed with bytes unread resets the
/// connection, and the client may never see the answer that was sent before.
pub(in crate::gateway) const LINGER: Duration = Duration::from_millis(500);
/// How long a client that sends nothing more is waited for: it may have closed its half only, or have left.
const HALF: Duration = Duration::from_secs(5);
/// How long a client that was answered before may have been about to ask when the end came.
const NEXT: Duration = Duration::from_millis(50);

/// The two halves of a client's connection, and what came on it already.
pub(in crate::gateway) struct Client {
    pub(in crate::gateway) reader: Box<dyn AsyncRead + Send + Unpin>,
    pub(in crate::gateway) writer: Box<dyn AsyncWrite + Send + Unpin>,
    pub(in crate::gateway) came: BytesMut,
}

/// What an answer has to know of its request.
struct About {
    to_head: bool,
    version: Version,
    keep: bool,
    trailers: bool,
}

/// Why waiting for a head ended without one.
enum Silent {
    /// The client is done, or nothing came from it.
    Over,
    /// It is no head.
    Bad(Bad),
}

struct Connection<'a> {
    shared: &'a Arc<Shared>,
    incoming: Arc<Incoming>,
    writer: Box<dyn AsyncWrite + Send + Unpin>,
    output: Output,
    patience: Patience,
    stop: CancellationToken,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    seen: usize,
    /// Nothing was asked yet.
    fresh: bool,
    /// The client does not take what is sent.
    slow: bool,
    /// How long one that sends nothing more is waited for.
    half: Option<Pin<Box<Sleep>>>,
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        self.incoming.end();
    }
}

/// Serves a client until either side ends the connection.
pub(in crate::gateway) async fn serve(
    shared: &Arc<Shared>,
    came: &Came,
    client: Client,
    stop: &CancellationToken,
) -> io::Result<()> {
    let mut connection = Connection {
        shared,
        incoming: Arc::new(Incoming::new(client.reader, Input::new(client.came))),
        writer: client.writer,
        output: Output::default(),
        patience: Patience::new(shared.config.head_patience),
        stop: stop.clone(),
        stopped: Box::pin(stop.clone().cancelled_owned()),
        seen: 0,
        fresh: true,
        slow: false,
        half: None,
    };
    while connection.one(came).await? {}
    Ok(())
}

impl Connection<'_> {
    /// One request and its answer; false at the end of the connection.
    async fn one(&mut self, came: &Came) -> io::Result<bool> {
        let asked = match poll_fn(|cx| self.poll_head(cx)).await {
            Ok(asked) => asked,
            Err(Silent::Over) => return Ok(false),
            Err(Silent::Bad(bad)) => {
                let about = About { to_head: false, version: Version::HTTP_11, keep: false, trailers: false };
                self.answer(refuse(self.shared, bad.status, bad.why), &about).await?;
                return self.close().await.map(|()| false);
            }
        };
        self.fresh = false;
        let about = About {
            to_head: asked.parts.method == Method::HEAD,
            version: asked.parts.version,
            keep: asked.keep,
            trailers: asked.parts.headers.get(header::TE).is_some_and(|te| te.as_bytes() == b"trailers"),
        };
        let response = {
            let (shared, mut request) = (self.shared, self.request(asked));
            let mut handled = pin!(handle(shared, came, &mut request));
            let answered = poll_fn(|cx| self.poll_handled(cx, handled.as_mut())).await;
            let Some(response) = answered? else { return Ok(false) };
            response
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return self.turn(response).await.map(|()| false);
        }
        let keep = self.answer(response, &about).await? && !self.incoming.is_owed();
        match keep {
            true => self.patience.set(self.shared.config.head_patience),
            false => self.close().await?,
        }
        Ok(keep)
    }

    /// The head of the next request.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Asked, Silent>> {
        let config = &self.shared.config;
        let limits = Limits { bytes: config.max_head, headers: config.max_headers };
        let mut reader = self.incoming.reader.lock();
        loop {
            let was_empty = self.seen == 0;
            let found = head::cut(&mut reader.input.bytes, &mut self.seen, limits.bytes).map_err(Silent::Bad)?;
            if let Some(found) = found {
                return Poll::Ready(head::request(&found, limits).map_err(Silent::Bad));
            }
            if was_empty && self.seen > 0 {
                self.patience.set(config.head_patience);
            }
            match reader.poll_fill(cx) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(Silent::Over)),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => break,
            }
        }
        let nothing = reader.input.bytes.is_empty();
        if nothing {
            reader.input.rest();
            // What came in before is still served; who says nothing is not waited for.
            if self.stopped.as_mut().poll(cx).is_ready() {
                self.stopped = Box::pin(CancellationToken::new().cancelled_owned());
                self.patience.set(if self.fresh { LAST } else { NEXT });
            }
        }
        ready!(self.patience.poll(cx));
        let late = Bad { status: StatusCode::REQUEST_TIMEOUT, why: "the head did not come in time" };
        Poll::Ready(Err(if nothing { Silent::Over } else { Silent::Bad(late) }))
    }

    /// The request with its body, which need not be read where it is here already.
    fn request(&self, asked: Asked) -> Request<Outgoing> {
        let body = match asked.framing {
            Framing::Empty => Source::Whole(Bytes::new()),
            framing => {
                let input = &mut self.incoming.reader.lock().input.bytes;
                match framing {
                    Framing::Length(length) if length <= input.len() as u64 => {
                        let length = usize::try_from(length).unwrap_or(input.len());
                        Source::Whole(input.split_to(length).freeze())
                    }
                    _ => Source::Http1(Upload::new(self.incoming.clone(), Decoder::new(framing), asked.expects)),
                }
            }
        };
        Request::from_parts(asked.parts, Outgoing::new(body, &self.shared.config))
    }

    /// Ready with the answer, or with `None` where the client has left meanwhile.
    fn poll_handled(
        &mut self,
        cx: &mut Context<'_>,
        handled: Pin<&mut impl Future<Output = Response<Answer>>>,
    ) -> Poll<io::Result<Option<Response<Answer>>>> {
        if let Poll::Ready(response) = handled.poll(cx) {
            return Poll::Ready(Ok(Some(response)));
        }
        let left = self.poll_gone(cx).is_ready();
        if self.incoming.is_wanted() {
            self.output.text.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        if !self.output.is_empty() {
            let _ = self.output.poll_flush(&mut self.writer, cx)?;
        }
        if left { Poll::Ready(Ok(None)) } else { Poll::Pending }
    }

    /// Ready when the client has left, as far as one can tell while it sends nothing more.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match ready!(self.incoming.poll_left(cx)) {
            Err(_) => Poll::Ready(()),
            Ok(()) => self.half.get_or_insert_with(|| Box::pin(tokio::time::sleep(HALF))).as_mut().poll(cx),
        }
    }

    /// Sends an answer; true where another request may follow.
    async fn answer(&mut self, response: Response<Answer>, about: &About) -> io::Result<bool> {
        let (head, mut body) = response.into_parts();
        let bodiless = about.to_head
            || head.status.is_informational()
            || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let framing = if bodiless { Framing::Empty } else { encode::framing(&body.size_hint()) };
        let framing = encode::understood(framing, about.version);
        let told = head.headers.contains_key(header::CONNECTION);
        // Nobody will read what is left of the request's body.
        let left_over = self.incoming.is_owed() && (matches!(body, Answer::Own(_)) || body.is_end_stream());
        let keep = about.keep && !told && !left_over && framing != Framing::Close && !self.stop.is_cancelled();
        let after = match keep {
            false => After::Ends,
            true if about.version == Version::HTTP_10 => After::Stays,
            true => After::Goes,
        };
        encode::response(&mut self.output.text, head.status, &head.headers, framing, after, about.to_head);
        if framing == Framing::Empty {
            drop(body);
        } else {
            let mut framing = framing;
            poll_fn(|cx| self.poll_body(cx, &mut body, &mut framing, about.trailers)).await?;
        }
        poll_fn(|cx| self.poll_flush(cx)).await?;
        Ok(keep)
    }

    /// Moves the body of an answer; ready when all of it stands in the output.
    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut Answer,
        framing: &mut Framing,
        trailers: bool,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.output.is_full() && self.poll_flush(cx)?.is_pending() {
                // A client may send all it has before it takes anything.
                body.go_on_sending(cx).map_err(io::Error::other)?;
                return self.poll_gone(cx).map(|()| Err(io::ErrorKind::ConnectionReset.into()));
            }
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        self.half = None;
                        self.part(data, framing)?;
                    }
                    Err(_) if matches!(framing, Framing::Length(left) if *left > 0) => {
                        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                    }
                    Err(frame) => {
                        let found = frame.into_trailers().ok().filter(|_| trailers);
                        self.last(framing, found.as_ref());
                        return Poll::Ready(Ok(()));
                    }
                },
                Poll::Ready(None) => {
                    if matches!(framing, Framing::Length(left) if *left > 0) {
                        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                    }
                    self.last(framing, None);
                    return Poll::Ready(Ok(()));
                }
                // The client sees that there is no end.
                Poll::Ready(Some(Err(broke))) => return Poll::Ready(Err(io::Error::other(broke))),
                Poll::Pending => {
                    if self.poll_gone(cx).is_ready() {
                        return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                    }
                    if !self.output.is_empty() && self.poll_flush(cx)?.is_ready() {
                        continue;
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn part(&mut self, data: Bytes, framing: &mut Framing) -> io::Result<()> {
        match framing {
            Framing::Chunked if !data.is_empty() => {
                encode::chunk(&mut self.output.text, data.len());
                self.output.push(data);
                self.output.push_behind(|text| text.extend_from_slice(b"\r\n"));
            }
            Framing::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(io::ErrorKind::InvalidData)?;
                self.output.push(data);
            }
            Framing::Close => self.output.push(data),
            Framing::Chunked | Framing::Empty => {}
        }
        Ok(())
    }

    fn last(&mut self, framing: &Framing, trailers: Option<&http::HeaderMap>) {
        if *framing == Framing::Chunked {
            self.output.push_behind(|text| encode::last_chunk(text, trailers));
        }
    }

    /// Sends what stands in the output; who takes nothing is not waited for longer than for a body.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let before = self.output.left();
        let flushed = self.output.poll_flush(&mut self.writer, cx);
        if flushed.is_ready() {
            self.slow = false;
            return flushed;
        }
        if !std::mem::replace(&mut self.slow, true) || self.output.left() < before {
            self.patience.set(self.shared.config.body_patience);
        }
        self.patience.poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Agrees to speak something else, and passes its bytes.
    async fn turn(&mut self, response: Response<Answer>) -> io::Result<()> {
        let (head, body) = response.into_parts();
        let Answer::Tunnel(tunnel) = body else {
            return Err(io::Error::other("an upgrade that nobody asked for"));
        };
        let out = &mut self.output.text;
        encode::response(out, head.status, &head.headers, Framing::Empty, After::Turns, true);
        poll_fn(|cx| self.poll_flush(cx)).await?;
        tunnel.pass(self.shared, &self.incoming, &mut self.writer).await
    }

    /// Ends the connection after its last answer.
    async fn close(&mut self) -> io::Result<()> {
        self.patience.set(LINGER);
        let shutdown = poll_fn(|cx| match Pin::new(&mut self.writer).poll_shutdown(cx) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => self.patience.poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into())),
        });
        shutdown.await?;
        poll_fn(|cx| {
            let mut reader = self.incoming.reader.lock();
            loop {
                reader.input.bytes.clear();
                match reader.poll_fill(cx) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Pending => return self.patience.poll(cx),
                }
            }
        })
        .await;
        Ok(())
    }
}
