//! A transport put behind gRPC, so that a suite of transports can run over the wire.

use crate::api::ApiResult;
use crate::client::{GrpcConfig, GrpcTransport, SharedTransport};
use crate::server::grpc::service;
use futures::TryFutureExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use std::io;
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::{Endpoint, Server};
use tower::service_fn;
use tracing::{debug, warn};

/// Serves `transport` over gRPC in memory and answers the client's side. The server ends with the last clone of it.
pub fn in_memory(transport: SharedTransport) -> GrpcTransport {
    let (dial, dialled) = mpsc::unbounded_channel::<io::Result<DuplexStream>>();
    let server = Server::builder().add_service(service(transport));
    let incoming = UnboundedReceiverStream::new(dialled);
    tokio::spawn(server.serve_with_incoming(incoming).inspect_err(|error| warn!(%error, "gRPC server ended")));
    let connect = move |_| {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let gone = dial.send(Ok(theirs)).map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused));
        std::future::ready(gone.map(|()| TokioIo::new(ours)))
    };
    GrpcTransport::from_channel(Endpoint::from_static("http://memory").connect_with_connector_lazy(service_fn(connect)))
}

/// Serves `transport` over gRPC on a port of the loopback and answers the client's side. The server ends, and its
/// connections with it, when the guard is dropped.
///
/// # Errors
/// `BadRequest` where the client refuses the address.
///
/// # Panics
/// Where no port of the loopback can be had.
#[allow(clippy::expect_used, reason = "a test machine without a loopback cannot run the test")]
pub async fn on_loopback(transport: SharedTransport) -> ApiResult<(GrpcTransport, DropGuard)> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port of the loopback");
    let address = listener.local_addr().expect("the port's address");
    let guard = serve(listener, transport);
    let config = GrpcConfig { url: format!("http://{address}"), ..GrpcConfig::default() };
    Ok((GrpcTransport::new(&config)?, guard))
}

/// Serves `transport` over gRPC on a listener until the guard is dropped. Open connections are cut then.
pub fn serve(listener: TcpListener, transport: SharedTransport) -> DropGuard {
    let stop = CancellationToken::new();
    let stopped = stop.clone().cancelled_owned();
    tokio::spawn(async move {
        // Dropped with this task, and all connections with it.
        let mut connections = JoinSet::new();
        let accept = async {
            loop {
                let Ok((socket, _)) = listener.accept().await else { continue };
                let service = TowerToHyperService::new(service(transport.clone()));
                let server = auto::Builder::new(TokioExecutor::new());
                connections.spawn(async move {
                    let ended = server.serve_connection(TokioIo::new(socket), service).await;
                    drop(ended.inspect_err(|error| debug!(%error, "gRPC connection ended")));
                });
                while connections.try_join_next().is_some() {}
            }
        };
        tokio::select! {
            () = stopped => {}
            () = accept => {}
        }
    });
    stop.drop_guard()
}
