//! The listener: TLS, HTTP/1.1 and HTTP/2, REST and gRPC, on one port that the caller opened.

use super::auth::{Authenticator, User, unauthorized};
use super::grpc::PATH_PREFIX;
use super::rest::{Body, BoxError, Ending, RestService, answers, error_response};
use super::tls::user_of;
use crate::api::ApiError;
use crate::grpc::error::to_status;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::server::Acceptor;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long the head of a request may take.
const HEAD: Duration = Duration::from_secs(30);
/// How often silent HTTP/2 connections are asked whether they live.
const PING: Duration = Duration::from_secs(30);
/// Requests at once on one HTTP/2 connection; each watch is one.
const STREAMS: u32 = 1000;
/// How long connections may take to end when the server does.
const GRACE: Duration = Duration::from_secs(5);

type GrpcService = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// What one port serves: REST, and gRPC beside it. Identifies requests before either sees them.
#[derive(Clone)]
pub struct Front {
    rest: RestService,
    grpc: Option<GrpcService>,
    authenticator: Arc<Authenticator>,
}

impl Front {
    /// A front for REST alone.
    pub fn new(rest: RestService, authenticator: Authenticator) -> Self {
        Self { rest, grpc: None, authenticator: Arc::new(authenticator) }
    }

    /// Serves gRPC too: paths below `/minik8s.` and what else is `application/grpc`. The service finds the [`User`] in
    /// the extensions of each request; without one, requests do not reach it.
    #[must_use]
    pub fn with_grpc<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<tonic::body::Body>, Error = Infallible>,
        S: Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        let boxed = |response: Response<tonic::body::Body>| response.map(|b| b.map_err(BoxError::from).boxed_unsync());
        self.grpc = Some(BoxCloneSyncService::new(service.map_response(boxed)));
        self
    }

    async fn call_identified(self, mut request: Request<Body>) -> Response<Body> {
        let peer = request.extensions_mut().remove::<Peer>().and_then(|p| p.0);
        let grpc = self.grpc.filter(|_| is_grpc(&request));
        let user = match self.authenticator.identify(request.headers(), peer.as_ref()).await {
            Ok(user) => user,
            Err(e) if grpc.is_some() => return grpc_refused(&e),
            Err(e) => return error_response(&e),
        };
        if grpc.is_some() && user.is_none() {
            return grpc_refused(&unauthorized());
        }
        if let Some(user) = user {
            request.extensions_mut().insert(user);
        }
        hand_over(grpc, self.rest, request).await
    }
}

fn hand_over(
    grpc: Option<GrpcService>,
    rest: RestService,
    request: Request<Body>,
) -> BoxFuture<'static, Response<Body>> {
    match grpc {
        Some(grpc) => grpc.oneshot(request).map(|r| r.unwrap_or_else(|never| match never {})).boxed(),
        None => rest.oneshot(request).map(|r| r.unwrap_or_else(|never| match never {})).boxed(),
    }
}

/// The owner of a connection's client certificate.
#[derive(Clone)]
struct Peer(Option<User>);

fn is_grpc(request: &Request<Body>) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    request.uri().path().starts_with(PATH_PREFIX) || content_type.starts_with(b"application/grpc")
}

/// gRPC tells failures in trailers, here sent as headers because nothing else follows.
fn grpc_refused(error: &ApiError) -> Response<Body> {
    let response = to_status(error).into_http::<tonic::body::Body>();
    response.map(|body| body.map_err(BoxError::from).boxed_unsync())
}

answers!(Front, |front, request| front.clone().call_identified(request));

/// Serves connections until `shutdown`, then ends them: REST watches and streams are closed, requests in progress
/// finish, and what has not ended after five seconds is cut. gRPC's watches end with the token that its services were given.
pub async fn serve(listener: TcpListener, tls: Arc<ServerConfig>, front: Front, shutdown: CancellationToken) {
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(connection(stream, tls.clone(), front.clone(), shutdown.clone()));
            }
            Err(e) => {
                // Out of descriptors, most likely: connections that end will free some.
                tracing::warn!(error = %e, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    connections.close();
    // Each connection bounds its own end.
    connections.wait().await;
}

/// The handshake; `None` for those who are sent elsewhere. Who offers HTTP/2 and nothing else speaks gRPC, which is left
/// where this server does not know what is true: its client then goes to the next server at once. Everybody else may ask
/// how the server is.
async fn handshake(
    stream: TcpStream,
    tls: Arc<ServerConfig>,
    lost: &watch::Receiver<bool>,
) -> io::Result<Option<(TlsStream<TcpStream>, bool)>> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let grpc = start.client_hello().alpn().is_some_and(|offered| offered.eq([b"h2"]));
    if grpc && *lost.borrow() {
        return Ok(None);
    }
    Ok(Some((start.into_stream(tls).await?, grpc)))
}

/// Waits until the store is lost.
async fn gone(mut lost: watch::Receiver<bool>) {
    if lost.wait_for(|lost| *lost).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn connection(stream: TcpStream, tls: Arc<ServerConfig>, front: Front, shutdown: CancellationToken) {
    let _ = stream.set_nodelay(true);
    let lost = front.rest.lost();
    let handshake = tokio::select! {
        handshake = tokio::time::timeout(HANDSHAKE, handshake(stream, tls, &lost)) => handshake,
        () = shutdown.cancelled() => return,
    };
    let (stream, grpc) = match handshake {
        Ok(Ok(Some(done))) => done,
        Ok(Ok(None)) => return tracing::debug!("a client was sent to another API server"),
        Ok(Err(e)) => return tracing::debug!(error = %e, "a TLS handshake failed"),
        Err(_) => return tracing::debug!("a TLS handshake took too long"),
    };
    let peer = Peer(peer(&stream));
    let ending = Ending(shutdown.clone());
    let service = tower::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        request.extensions_mut().insert(ending.clone());
        front.clone().oneshot(request)
    });
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
    server.http2().timer(TokioTimer::new()).keep_alive_interval(PING).max_concurrent_streams(STREAMS);
    let running = server.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut running = std::pin::pin!(running);
    let ended = tokio::select! {
        ended = running.as_mut() => Some(ended),
        () = shutdown.cancelled() => None,
        () = gone(lost), if grpc => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            running.as_mut().graceful_shutdown();
            tokio::time::timeout(GRACE, running).await.unwrap_or(Ok(()))
        }
    };
    if let Err(e) = ended {
        tracing::debug!(error = %e, "a connection ended badly");
    }
}

/// The certificate was checked in the handshake; here it is only read.
fn peer(stream: &TlsStream<TcpStream>) -> Option<User> {
    stream.get_ref().1.peer_certificates()?.first().and_then(|certificate| user_of(certificate))
}
