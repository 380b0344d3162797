//! A small HTTP server: so many connections at once, heads that come in time, and answers in JSON.

use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use minik8s_core::api::{ApiError, Reason};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Connections at once.
const CONNECTIONS: usize = 256;
/// A head, and a body, is sent within this time: who takes longer takes the place of others.
const SLOWEST: Duration = Duration::from_secs(10);
/// After a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(50);
/// For so long who has not heard that this ends is still served.
const LINGER: Duration = Duration::from_millis(200);
/// Requests that came before the end are answered within this time.
const LAST: Duration = Duration::from_secs(5);

/// A request.
pub(crate) type Asked = Request<Incoming>;
/// What it is answered with.
pub(crate) type Answer = Response<Full<Bytes>>;

/// Serves connections until `stop`, of one request each unless `keep_alive`. What has come by then is answered: a call that was
/// written down and whose answer is lost would be made twice by who calls again.
pub(crate) async fn accept<F, Fut>(stop: &CancellationToken, listener: TcpListener, keep_alive: bool, answer: F)
where
    F: Fn(Asked) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Answer> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let begin = |stream, place| {
        let (answer, stop) = (answer.clone(), stop.clone());
        tokio::spawn(async move {
            serve(stream, keep_alive, answer, &stop).await;
            drop::<OwnedSemaphorePermit>(place);
        });
    };
    let mut over = pin!(async {
        stop.cancelled().await;
        tokio::time::sleep(LINGER).await;
    });
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut over => break,
            accepted = async {
                let place = places.clone().acquire_owned().await;
                (listener.accept().await, place)
            } => accepted,
        };
        match accepted {
            (Ok((stream, _)), Ok(place)) => begin(stream, place),
            (Ok(_), Err(_)) => return,
            (Err(error), _) => {
                // Out of descriptors, most likely: connections that end will free some.
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    while let (Some(Ok((stream, _))), Ok(place)) =
        (listener.accept().now_or_never(), places.clone().try_acquire_owned())
    {
        begin(stream, place);
    }
    let _ = tokio::time::timeout(LAST, places.acquire_many(CONNECTIONS as u32)).await;
}

async fn serve<F, Fut>(stream: TcpStream, keep_alive: bool, answer: F, stop: &CancellationToken)
where
    F: Fn(Asked) -> Fut,
    Fut: Future<Output = Answer>,
{
    let service = service_fn(|request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(SLOWEST).keep_alive(keep_alive);
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    let served = match stop.run_until_cancelled(connection.as_mut()).await {
        Some(served) => served,
        None => {
            // One that is for a single request ends by itself.
            if keep_alive {
                connection.as_mut().graceful_shutdown();
            }
            tokio::time::timeout(LAST, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended badly");
    }
}

/// All of a body of at most so many bytes, which comes in time.
pub(crate) async fn whole(body: Incoming, limit: usize) -> Result<Bytes, Refused> {
    match tokio::time::timeout(SLOWEST, Limited::new(body, limit).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(Refused::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body may have at most {limit} bytes")))
        }
        Ok(Err(_)) => Err(Refused::new(StatusCode::BAD_REQUEST, "the body broke off")),
        Err(_) => Err(Refused::new(StatusCode::REQUEST_TIMEOUT, "the body came too slowly")),
    }
}

/// An answer in JSON.
pub(crate) fn say(status: StatusCode, body: &Value) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body.to_string())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// Why a request is not served.
pub(crate) struct Refused {
    status: StatusCode,
    why: String,
    more: Option<(HeaderName, &'static str)>,
}

impl Refused {
    pub(crate) fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: why.into(), more: None }
    }

    /// Says more in a header.
    pub(crate) fn with(self, name: HeaderName, value: &'static str) -> Self {
        Self { more: Some((name, value)), ..self }
    }

    pub(crate) fn answer(self) -> Answer {
        let mut answer = say(self.status, &json!({"error": self.why}));
        if let Some((name, value)) = self.more {
            answer.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        answer
    }
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Self::new(status_of(&error), error.to_string())
    }
}

/// What is said of an object that cannot be written: that it may be tried again, or need not.
fn status_of(error: &ApiError) -> StatusCode {
    match error.reason {
        Reason::RequestEntityTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Reason::Invalid | Reason::BadRequest => StatusCode::UNPROCESSABLE_ENTITY,
        Reason::NotFound => StatusCode::NOT_FOUND,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}
