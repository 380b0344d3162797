//! Bodies: reading requests with a limit and a deadline, and answers that share the bytes of objects.

use crate::api::{ApiError, ApiResult, Reason};
use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// An error of a body, whatever carries it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of requests and answers inside the front.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Largest request body, as in Kubernetes.
const MAX_BODY: usize = 3 * 1024 * 1024;
/// How long a body may take to arrive.
const BODY_DEADLINE: Duration = Duration::from_secs(30);
/// Pieces are joined up to this size, so that small ones do not become packets of their own.
const JOINED: usize = 64 * 1024;
/// A piece of this size is sent as it is, without copying.
const WORTH_SHARING: usize = 16 * 1024;

/// A body that is here as a whole.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Reads a request body.
///
/// # Errors
/// `RequestEntityTooLarge` beyond 3 MiB, `Timeout` where it does not arrive, `BadRequest` where it breaks off.
pub(crate) async fn read(body: Body) -> ApiResult<Bytes> {
    let late = |_| {
        let why = format!("the request body did not arrive within {} seconds", BODY_DEADLINE.as_secs());
        ApiError::new(Reason::Timeout, why)
    };
    tokio::time::timeout(BODY_DEADLINE, collect(body)).await.map_err(late)?
}

async fn collect(mut body: Body) -> ApiResult<Bytes> {
    let mut collected = BytesMut::new();
    let mut first = Bytes::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| ApiError::bad_request(format!("the request body broke off: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + collected.len() + data.len() > MAX_BODY {
            let why = format!("Request entity too large: limit is {MAX_BODY}");
            return Err(ApiError::new(Reason::RequestEntityTooLarge, why));
        }
        if first.is_empty() && collected.is_empty() {
            first = data;
            continue;
        }
        if collected.is_empty() {
            collected.extend_from_slice(&std::mem::take(&mut first));
        }
        collected.extend_from_slice(&data);
    }
    Ok(if collected.is_empty() { first } else { collected.freeze() })
}

/// A body made of pieces, joined lazily: a list of any length holds one buffer, not one copy of itself.
pub(crate) struct Pieces<I> {
    pieces: I,
    held: Option<Bytes>,
    left: u64,
}

/// A body of these pieces; `length` is their sum.
pub(crate) fn pieces<I>(length: u64, pieces: I) -> Body
where
    I: Iterator<Item = Bytes> + Send + Unpin + 'static,
{
    Pieces { pieces, held: None, left: length }.boxed_unsync()
}

impl<I: Iterator<Item = Bytes>> Pieces<I> {
    fn next_frame(&mut self) -> Option<Bytes> {
        let mut joined = BytesMut::new();
        while let Some(piece) = self.held.take().or_else(|| self.pieces.next()) {
            if piece.len() >= WORTH_SHARING {
                if joined.is_empty() {
                    return Some(piece);
                }
                self.held = Some(piece);
                break;
            }
            joined.extend_from_slice(&piece);
            if joined.len() >= JOINED {
                break;
            }
        }
        (!joined.is_empty()).then(|| joined.freeze())
    }
}

impl<I: Iterator<Item = Bytes> + Unpin> HttpBody for Pieces<I> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let frame = this.next_frame();
        this.left = this.left.saturating_sub(frame.as_ref().map_or(0, |f| f.len() as u64));
        Poll::Ready(frame.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Makes a type an HTTP service over any body. It is always ready, and its only errors are answers.
macro_rules! answers {
    ($type:ty, |$service:ident, $request:ident| $answer:expr) => {
        impl<B> tower::Service<http::Request<B>> for $type
        where
            B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
            B::Error: Into<$crate::server::rest::BoxError>,
        {
            type Response = http::Response<$crate::server::rest::Body>;
            type Error = std::convert::Infallible;
            type Future = futures::future::BoxFuture<'static, Result<Self::Response, Self::Error>>;

            fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
                std::task::Poll::Ready(Ok(()))
            }

            fn call(&mut self, request: http::Request<B>) -> Self::Future {
                use futures::FutureExt;
                use http_body_util::BodyExt;
                let ($service, $request) = (self, request.map(|body| body.map_err(Into::into).boxed_unsync()));
                $answer.map(Ok).boxed()
            }
        }
    };
}
pub(crate) use answers;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pieces_are_joined_and_large_ones_shared() {
        let large = Bytes::from(vec![b'x'; WORTH_SHARING]);
        let parts = vec![Bytes::from_static(b"["), Bytes::from_static(b"a"), large.clone(), Bytes::from_static(b"]")];
        let length = parts.iter().map(|p| p.len() as u64).sum();
        let mut body = pieces(length, parts.into_iter());
        assert_eq!(body.size_hint().exact(), Some(length));
        let mut frames = Vec::new();
        while let Some(frame) = body.frame().await {
            frames.push(frame.unwrap().into_data().unwrap());
        }
        assert_eq!(frames.len(), 3);
        assert_eq!(&frames[0][..], b"[a");
        assert_eq!(frames[1].as_ptr(), large.as_ptr());
        assert_eq!(body.size_hint().exact(), Some(0));
    }

    #[tokio::test]
    async fn a_body_beyond_the_limit_is_refused() {
        let error = read(full(vec![0; MAX_BODY + 1])).await.unwrap_err();
        assert_eq!(error.reason, Reason::RequestEntityTooLarge);
        assert_eq!(read(full(vec![0; MAX_BODY])).await.unwrap().len(), MAX_BODY);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_arrive_is_not_waited_for() {
        let silent = http_body_util::StreamBody::new(futures::stream::pending::<Result<Frame<Bytes>, BoxError>>());
        assert_eq!(read(silent.boxed_unsync()).await.unwrap_err().reason, Reason::Timeout);
        let broken = futures::stream::iter([Err::<Frame<Bytes>, BoxError>("cut".into())]);
        let broken = http_body_util::StreamBody::new(broken).boxed_unsync();
        assert_eq!(read(broken).await.unwrap_err().reason, Reason::BadRequest);
    }
}
