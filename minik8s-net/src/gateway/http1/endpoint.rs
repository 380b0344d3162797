//! A connection to an endpoint. Nobody moves its bytes but the request that uses it.

use super::decode::{Decoder, Step};
use super::encode;
use super::head::{self, Framing, Limits};
use super::io::{Input, Output, Patience};
use crate::gateway::body::{Broke, Outgoing};
use crate::gateway::{lanes, silence};
use bytes::Bytes;
use http::{Method, Request, StatusCode, response};
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::net::TcpStream;

/// Limits of an answer's head.
const HEAD: Limits = Limits { bytes: 256 * 1024, headers: 256 };
/// Steps aside that an endpoint may take before its answer (RFC 9110, section 15.2).
const INFORMATIONAL: usize = 16;

/// Why a request has no answer.
#[derive(Debug)]
pub(in crate::gateway) enum Unsent {
    /// Nothing of it was sent, and its body is as it was.
    Back(String),
    /// Some of it may have arrived.
    Lost(String),
    /// The client's body broke off.
    Body(Broke),
    /// The answer did not begin in time.
    Late,
}

/// A connection of HTTP/1.1.
pub(in crate::gateway) struct Http1 {
    pub(super) stream: TcpStream,
    /// The lane whose runtime sees to the stream.
    lane: usize,
    pub(super) input: Input,
    output: Output,
    /// What of the request's body was not taken over yet.
    body: Option<Outgoing>,
    sending: Framing,
    decoder: Decoder,
    /// The endpoint would take another request.
    keep: bool,
    seen: usize,
    patience: Patience,
    /// The request asked to speak something else.
    upgrade: bool,
    /// What of the request the endpoint has not taken for as long as the patience counts.
    stalled: Option<usize>,
}

/// A body of which nothing was sent: what was taken over to go first, and what was not.
fn whole(rest: Option<Outgoing>, first: Option<Bytes>) -> Outgoing {
    match (rest, first) {
        (Some(rest), first) => rest.behind(first),
        (None, Some(first)) => Outgoing::Full(Full::from(first)),
        (None, None) => Outgoing::empty(),
    }
}

/// How far a request is.
enum Sending {
    /// Its first bytes go out; holds what of the body goes with them.
    First,
    Rest,
    Done,
}

impl Http1 {
    /// Speaks HTTP/1.1 on a stream that was made where it is called.
    pub(in crate::gateway) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            lane: lanes::current(),
            input: Input::default(),
            output: Output::default(),
            body: None,
            sending: Framing::Empty,
            decoder: Decoder::End,
            keep: false,
            seen: 0,
            patience: Patience::new(Duration::ZERO),
            upgrade: false,
            stalled: None,
        }
    }

    /// Where it is at home.
    pub(in crate::gateway) fn lane(&self) -> usize {
        self.lane
    }

    /// True where nothing came while it waited: what comes then is the end, or nothing one could make sense of.
    pub(in crate::gateway) fn is_quiet(&self) -> bool {
        self.input.bytes.is_empty() && silence::is_silent(&self.stream)
    }

    /// All of the request was sent.
    pub(in crate::gateway) fn is_sent(&self) -> bool {
        self.body.is_none() && self.output.is_empty()
    }

    /// Sends a request, and waits for the head of the answer, but once all is sent no longer than `patience`. Where
    /// nothing was sent, the body is put back into the request.
    pub(in crate::gateway) async fn send(
        &mut self,
        request: &mut Request<Outgoing>,
        upgrade: bool,
        patience: Duration,
    ) -> Result<response::Parts, Unsent> {
        let framing = encode::framing(&request.body().size_hint());
        encode::request(&mut self.output.text, request.method(), request.uri(), request.headers(), framing, upgrade);
        (self.sending, self.seen) = (framing, 0);
        let body = std::mem::replace(request.body_mut(), Outgoing::empty());
        self.body = (framing != Framing::Empty).then_some(body);
        let to_head = *request.method() == Method::HEAD;
        let (mut at, mut informed) = (Sending::First, 0);
        (self.upgrade, self.stalled) = (upgrade, None);
        let mut first = None;
        poll_fn(|cx| self.poll_answer(cx, &mut at, &mut first, &mut informed, to_head, patience)).await.map_err(
            |unsent| {
                if let Unsent::Back(_) = unsent {
                    *request.body_mut() = whole(self.body.take(), first);
                }
                unsent
            },
        )
    }

    #[allow(clippy::too_many_arguments, reason = "the state of one poll_fn")]
    fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        at: &mut Sending,
        first: &mut Option<Bytes>,
        informed: &mut usize,
        to_head: bool,
        patience: Duration,
    ) -> Poll<Result<response::Parts, Unsent>> {
        let failed = self.poll_request(cx, at, first, patience);
        if let Err(unsent @ (Unsent::Back(_) | Unsent::Body(_))) = failed {
            return Poll::Ready(Err(unsent));
        }
        // An endpoint that takes no more may have said why.
        loop {
            if let Some(parts) = self.head(to_head, informed)? {
                return Poll::Ready(Ok(parts));
            }
            match self.input.poll_fill(&mut self.stream, cx) {
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(failed.and(Err(Unsent::Lost("it closed the connection".into()))));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(failed.and(Err(Unsent::Lost(error.to_string())))),
                Poll::Pending if failed.is_err() => return Poll::Ready(failed.and(Err(Unsent::Late))),
                Poll::Pending => break,
            }
        }
        let waits_for_endpoint = match at {
            Sending::Done => true,
            _ if self.output.is_empty() => false,
            _ => {
                let left = Some(self.output.left());
                if std::mem::replace(&mut self.stalled, left) != left {
                    self.patience.set(patience);
                }
                true
            }
        };
        if waits_for_endpoint && self.patience.poll(cx).is_ready() {
            return Poll::Ready(Err(Unsent::Late));
        }
        Poll::Pending
    }

    /// Sends what can be sent.
    fn poll_request(
        &mut self,
        cx: &mut Context<'_>,
        at: &mut Sending,
        first: &mut Option<Bytes>,
        patience: Duration,
    ) -> Result<(), Unsent> {
        if let Sending::First = at {
            // The beginning of the body goes with the head.
            if first.is_none() && self.body.is_some() {
                *first = self.take_over(cx)?;
            }
            match self.output.poll_flush(&mut self.stream, cx) {
                Poll::Ready(Ok(())) => (*at, *first) = (Sending::Rest, None),
                Poll::Ready(Err(error)) if self.output.is_untouched() => return Err(Unsent::Back(error.to_string())),
                Poll::Ready(Err(error)) => return Err(Unsent::Lost(error.to_string())),
                Poll::Pending if self.output.is_untouched() => return Ok(()),
                Poll::Pending => (*at, *first) = (Sending::Rest, None),
            }
        }
        if let Sending::Rest = at
            && self.poll_upload(cx)?.is_ready()
        {
            self.patience.set(patience);
            *at = Sending::Done;
        }
        Ok(())
    }

    /// Moves the body on; ready when all is sent.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Unsent> {
        loop {
            while self.body.is_some() && !self.output.is_full() && self.take_over(cx)?.is_some() {}
            let flushed = self.output.poll_flush(&mut self.stream, cx);
            match flushed.map_err(|error| Unsent::Lost(error.to_string()))? {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(()) if self.body.is_none() => return Ok(Poll::Ready(())),
                Poll::Ready(()) => {
                    if self.take_over(cx)?.is_none() && self.body.is_some() {
                        return Ok(Poll::Pending);
                    }
                }
            }
        }
    }

    /// Takes over the next part of the body, if it is there. `None` where it is not, and at the end.
    fn take_over(&mut self, cx: &mut Context<'_>) -> Result<Option<Bytes>, Unsent> {
        let Some(body) = &mut self.body else { return Ok(None) };
        let frame = match Pin::new(body).poll_frame(cx) {
            Poll::Pending => return Ok(None),
            Poll::Ready(Some(frame)) => frame.map_err(Unsent::Body)?,
            Poll::Ready(None) => {
                self.end_upload(None)?;
                return Ok(None);
            }
        };
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                self.end_upload(frame.into_trailers().ok())?;
                return Ok(None);
            }
        };
        match &mut self.sending {
            Framing::Chunked if data.is_empty() => {}
            Framing::Chunked => {
                encode::chunk(&mut self.output.text, data.len());
                self.output.push(data.clone());
                self.output.push_behind(|text| text.extend_from_slice(b"\r\n"));
            }
            Framing::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(Unsent::Body(Broke::Length))?;
                self.output.push(data.clone());
            }
            Framing::Empty | Framing::Close => {}
        }
        if let Framing::Length(0) = self.sending {
            self.end_upload(None)?;
        }
        Ok(Some(data))
    }

    fn end_upload(&mut self, trailers: Option<http::HeaderMap>) -> Result<(), Unsent> {
        self.body = None;
        match self.sending {
            Framing::Chunked => self.output.push_behind(|text| encode::last_chunk(text, trailers.as_ref())),
            // Less than was promised: the endpoint must not take what comes next for the rest.
            Framing::Length(left) if left > 0 => return Err(Unsent::Body(Broke::Length)),
            _ => {}
        }
        Ok(())
    }

    /// The head of the answer, where it is here.
    fn head(&mut self, to_head: bool, informed: &mut usize) -> Result<Option<response::Parts>, Unsent> {
        let bad = |bad: head::Bad| Unsent::Lost(bad.why.into());
        loop {
            let found = head::cut(&mut self.input.bytes, &mut self.seen, HEAD.bytes).map_err(bad)?;
            let Some(found) = found else { return Ok(None) };
            let answered = head::response(&found, HEAD, to_head).map_err(bad)?;
            let status = answered.parts.status;
            let turns = status == StatusCode::SWITCHING_PROTOCOLS;
            if turns && !self.upgrade {
                return Err(Unsent::Lost("it would speak something that nobody asked for".into()));
            }
            if status.is_informational() && !turns {
                *informed += 1;
                if *informed > INFORMATIONAL {
                    return Err(Unsent::Lost("it says again and again that it will answer".into()));
                }
                continue;
            }
            self.decoder = Decoder::new(answered.framing);
            self.keep = answered.keep && !turns;
            return Ok(Some(answered.parts));
        }
    }

    /// The next part of the answer's body.
    pub(in crate::gateway) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        self.go_on_sending(cx)?;
        loop {
            match self.decoder.step(&mut self.input.bytes)? {
                Step::Frame(frame) => return Poll::Ready(Some(Ok(frame))),
                Step::End => return Poll::Ready(None),
                Step::More => {}
            }
            if ready!(self.input.poll_fill(&mut self.stream, cx))? == 0 {
                return match self.decoder {
                    Decoder::Close => {
                        self.decoder = Decoder::End;
                        Poll::Ready(None)
                    }
                    _ => Poll::Ready(Some(Err(Broke::Ended))),
                };
            }
        }
    }

    /// Sends what is left of the request while the answer comes. An endpoint that takes no more of it may still answer.
    pub(in crate::gateway) fn go_on_sending(&mut self, cx: &mut Context<'_>) -> Result<(), Broke> {
        if self.is_sent() {
            return Ok(());
        }
        match self.poll_upload(cx) {
            Ok(_) => Ok(()),
            Err(Unsent::Body(broke)) => Err(broke),
            Err(_) => {
                (self.body, self.keep) = (None, false);
                self.output = Output::default();
                Ok(())
            }
        }
    }

    pub(in crate::gateway) fn size_hint(&self) -> SizeHint {
        self.decoder.size_hint()
    }

    /// All of the answer was read.
    pub(in crate::gateway) fn is_end_stream(&self) -> bool {
        self.decoder.is_end()
    }

    /// True where it can take another request; it rests until then.
    pub(in crate::gateway) fn rest(&mut self) -> bool {
        let done = self.decoder.is_end() && self.body.is_none() && self.output.is_empty();
        self.input.rest();
        done && self.keep && self.input.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn a_body_of_which_nothing_was_sent_is_whole_again() {
        let text = |body: Outgoing| async { body.collect().await.unwrap().to_bytes() };
        let first = || Some(Bytes::from_static(b"first"));
        assert_eq!(text(whole(None, first())).await, "first", "all of it was to go first");
        assert_eq!(text(whole(Some(Outgoing::empty()), first())).await, "first");
        assert!(text(whole(None, None)).await.is_empty());
    }
}
