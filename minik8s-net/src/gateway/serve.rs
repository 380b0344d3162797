//! Accepting connections and speaking HTTP on them.

use super::body::{Answer, Outgoing, Received, Source};
use super::front::Shared;
use super::http1::{self, Client};
use super::lanes::Lanes;
use super::proxy::{Came, handle};
use super::silence;
use super::streams::{Streams, Tasks};
use super::tls;
use bytes::BytesMut;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Connections that may wait to be accepted.
pub(super) const BACKLOG: u32 = 4096;
/// Room for what a connection begins with.
const FIRST: usize = 4096;
/// How long a handshake of TLS may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How often silent HTTP/2 connections are asked whether they live.
const PING: Duration = Duration::from_secs(30);
/// Requests at once on one HTTP/2 connection.
const STREAMS: u32 = 256;
/// What HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0";
/// How long somebody who connected just before the end has to ask.
pub(super) const LAST: Duration = Duration::from_secs(1);

/// A listener for a gateway, with room for that many connections that wait.
///
/// # Errors
/// Where the port is taken, or not this process's to open.
pub fn listener(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(backlog)
}

/// Accepts connections until `stop`; those that the kernel has accepted by then are served, too.
pub(super) async fn accept(
    shared: Arc<Shared>,
    lanes: Arc<Lanes>,
    listener: TcpListener,
    (port, tls): (u16, Arc<AtomicBool>),
    stop: CancellationToken,
) {
    let acceptor = match tls::server_config(shared.certificates.clone(), port) {
        Ok(config) => TlsAcceptor::from(config),
        Err(error) => return tracing::error!(%error, port, "the gateway cannot speak TLS"),
    };
    let serving = |stream, peer| {
        let tls = tls.load(Ordering::Relaxed);
        let acceptor = tls.then(|| acceptor.clone());
        connection(shared.clone(), stream, Came::new(port, tls, peer), acceptor, stop.clone())
    };
    loop {
        let permit = shared.connections.clone().acquire_owned();
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = async { (permit.await, listener.accept().await) } => accepted,
        };
        match accepted {
            (Ok(permit), Ok((stream, peer))) => {
                // Whoever serves a connection sees to its socket.
                let Ok(stream) = stream.into_std() else { continue };
                let serving = serving(stream, peer);
                lanes.spawn(&shared.tasks, async move {
                    let _permit = permit;
                    serving.await;
                });
            }
            (_, Err(error)) => {
                // Out of descriptors, most likely: connections that end will free some.
                tracing::warn!(%error, port, "the gateway cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            (Err(_), _) => break,
        }
    }
    for (stream, peer) in queued(listener) {
        lanes.spawn(&shared.tasks, serving(stream, peer));
    }
}

/// Connections that wait in the kernel, which would be reset with the listener.
fn queued(listener: TcpListener) -> Vec<(std::net::TcpStream, SocketAddr)> {
    let Ok(listener) = listener.into_std() else { return Vec::new() };
    let ready = |(stream, peer): (std::net::TcpStream, SocketAddr)| {
        stream.set_nonblocking(true).ok()?;
        Some((stream, peer))
    };
    std::iter::from_fn(|| listener.accept().ok()).filter_map(ready).collect()
}

async fn connection(
    shared: Arc<Shared>,
    stream: std::net::TcpStream,
    came: Came,
    acceptor: Option<TlsAcceptor>,
    stop: CancellationToken,
) {
    let stream = match TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => return tracing::warn!(%error, "the gateway cannot serve a connection"),
    };
    silence::prepare(&stream);
    shared.metrics.connections.inc();
    let peer = came.peer;
    let served = match acceptor {
        None => plain(&shared, stream, came, &stop).await,
        Some(acceptor) => encrypted(&shared, stream, came, &acceptor, &stop).await,
    };
    shared.metrics.connections.dec();
    if let Err(why) = served {
        tracing::debug!(%peer, %why, "a client's connection ended badly");
    }
}

type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;

async fn plain(shared: &Arc<Shared>, mut stream: TcpStream, came: Came, stop: &CancellationToken) -> Ended {
    let mut first = BytesMut::with_capacity(FIRST);
    let begins = tokio::time::timeout(shared.config.head_patience, begins_http2(&mut stream, &mut first));
    let http2 = tokio::select! {
        biased;
        begins = begins => begins.map_err(|_| "nothing came")??,
        // What came in before is still served; who says nothing is not waited for.
        () = async { stop.cancelled().await; tokio::time::sleep(LAST).await } => return Ok(()),
    };
    let (reader, writer) = stream.into_split();
    match http2 {
        true => {
            let reader = std::io::Cursor::new(first.freeze()).chain(reader);
            speak_http2(shared, tokio::io::join(reader, writer), came, stop).await
        }
        false => speak_http1(shared, reader, writer, first, came, stop).await,
    }
}

/// Reads what a connection begins with. True where the client speaks HTTP/2 right away.
async fn begins_http2(stream: &mut TcpStream, first: &mut BytesMut) -> io::Result<bool> {
    loop {
        let count = stream.read_buf(first).await?;
        let length = first.len().min(PREFACE.len());
        if first[..length] != PREFACE[..length] || length == PREFACE.len() || count == 0 {
            return Ok(first.starts_with(PREFACE));
        }
    }
}

async fn encrypted(
    shared: &Arc<Shared>,
    stream: TcpStream,
    came: Came,
    acceptor: &TlsAcceptor,
    stop: &CancellationToken,
) -> Ended {
    let handshake = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await;
    let stream = handshake.map_err(|_| "the TLS handshake took too long")??;
    match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => speak_http2(shared, stream, came, stop).await,
        _ => {
            let (reader, writer) = tokio::io::split(stream);
            speak_http1(shared, reader, writer, BytesMut::new(), came, stop).await
        }
    }
}

async fn speak_http1(
    shared: &Arc<Shared>,
    reader: impl AsyncRead + Send + Unpin + 'static,
    writer: impl AsyncWrite + Send + Unpin + 'static,
    first: BytesMut,
    came: Came,
    stop: &CancellationToken,
) -> Ended {
    let client = Client { reader: Box::new(reader), writer: Box::new(writer), came: first };
    Ok(http1::serve(shared, &came, client, stop).await?)
}

async fn speak_http2<S>(shared: &Arc<Shared>, stream: S, mut came: Came, stop: &CancellationToken) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    came.version_one = false;
    let mut builder = http2::Builder::new(Tasks);
    builder.timer(TokioTimer::new()).keep_alive_interval(PING).max_concurrent_streams(STREAMS);
    builder.max_header_list_size(u32::try_from(shared.config.max_head).unwrap_or(u32::MAX)).adaptive_window(true);
    let streams = Streams::new();
    let (idle, stuck, drain) = (shared.config.head_patience, shared.config.body_patience, shared.config.drain);
    let (shared, came, open) = (shared.clone(), Arc::new(came), streams.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let (shared, came, stream) = (shared.clone(), came.clone(), open.open());
        async move { answer(&shared, &came, request).await.map(|response| response.map(|body| stream.watch(body))) }
    });
    let mut running = pin!(builder.serve_connection(TokioIo::new(stream), service));
    // Whoever asks nothing takes the place of somebody who would, and who takes nothing that of who answers.
    let patience = tokio::select! {
        biased;
        ended = running.as_mut() => return Ok(ended?),
        () = stop.cancelled() => drain,
        // What was handed over may still be on its way.
        () = streams.idle(idle, stuck) => stuck,
    };
    running.as_mut().graceful_shutdown();
    Ok(tokio::time::timeout(patience, running).await.map_err(|_| "the client does not leave")??)
}

async fn answer(shared: &Arc<Shared>, came: &Came, request: Request<Incoming>) -> Result<Response<Answer>, Infallible> {
    let mut request = request.map(|body| Outgoing::new(Source::Http2(Received::new(body)), &shared.config));
    Ok(handle(shared, came, &mut request).await)
}
