//! The node's end of the connection that it opens to the API server: its door, served over gRPC.

use super::access::{ContainerRef, LogOptions, NodeAccess, PodRef, VolumeFile, VolumeRef};
use super::forward;
use crate::api::{ApiError, ApiResult};
use crate::client::{Backoff, GrpcTransport};
use crate::grpc::convert::need;
use crate::grpc::error::to_status;
use crate::grpc::pipe::pipe;
use crate::grpc::v1::{self, forwarded, from_process, node_server, start::What, to_process};
use crate::random;
use crate::runtime::{Connection, ExecSpec, Output, StreamSession, TerminalSize};
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status, Streaming};

/// Between attempts to reach a server that does not answer.
const RETRY: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
/// A connection that lasted this long was a good one: the next attempt comes at once.
const LASTED: Duration = Duration::from_secs(10);

/// Keeps a connection to the API server on which `access` is served, until `shutdown`.
pub async fn serve_link(transport: GrpcTransport, access: Arc<dyn NodeAccess>, shutdown: CancellationToken) {
    let mut failures = 0;
    loop {
        let began = Instant::now();
        let ended = tokio::select! {
            ended = serve_once(&transport, access.clone()) => ended,
            () = shutdown.cancelled() => return,
        };
        failures = if began.elapsed() > LASTED { 1 } else { failures + 1 };
        match ended {
            Ok(()) => tracing::info!("the connection for logs and commands has ended"),
            Err(error) => tracing::warn!(%error, "no connection for logs and commands"),
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY.jittered(failures, random::fraction())) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Opens one connection and serves it to its end.
async fn serve_once(transport: &GrpcTransport, access: Arc<dyn NodeAccess>) -> ApiResult<()> {
    let (tell, told) = oneshot::channel::<Streaming<v1::Chunk>>();
    // What arrives is known only once the call with what leaves was made.
    let inbound = told.into_stream().filter_map(|inbound| std::future::ready(inbound.ok())).flatten();
    let (io, outbound) = pipe(inbound);
    let inbound = transport.open_link(outbound).await?;
    let _ = tell.send(inbound);
    let service = TowerToHyperService::new(node_server::NodeServer::new(Door { access }));
    let connection = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(io), service);
    connection.await.map_err(|e| ApiError::internal(format!("the connection broke: {e}")))
}

/// Answers the API server's calls from the node's door.
struct Door {
    access: Arc<dyn NodeAccess>,
}

type Stream<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl node_server::Node for Door {
    type LogsStream = Stream<v1::Chunk>;
    type RunStream = Stream<v1::FromProcess>;
    type ForwardStream = Stream<v1::Forwarded>;

    async fn logs(&self, request: Request<v1::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let chunks = self.try_logs(request.into_inner()).await.map_err(|e| to_status(&e))?;
        let send = |chunk: ApiResult<Bytes>| chunk.map(|data| v1::Chunk { data }).map_err(|e| to_status(&e));
        Ok(Response::new(chunks.map(send).boxed()))
    }

    async fn run(&self, request: Request<Streaming<v1::ToProcess>>) -> Result<Response<Self::RunStream>, Status> {
        let mut to = request.into_inner();
        let first = to.message().await?.and_then(|m| m.part);
        let session = self.try_run(first).await.map_err(|e| to_status(&e))?;
        Ok(Response::new(carry(session, to)))
    }

    async fn forward(
        &self,
        request: Request<Streaming<v1::Forwarded>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        let mut from = request.into_inner();
        let first = from.message().await?.and_then(|m| m.part);
        let port = self.try_forward(first).await.map_err(|e| to_status(&e))?;
        Ok(Response::new(forward::far_end(port, from).boxed()))
    }

    async fn metrics(&self, _: Request<v1::MetricsRequest>) -> Result<Response<v1::MetricsReply>, Status> {
        let page = self.access.metrics().await.map_err(|e| to_status(&e))?;
        Ok(Response::new(v1::MetricsReply { page }))
    }

    async fn stats(&self, _: Request<v1::StatsRequest>) -> Result<Response<v1::StatsReply>, Status> {
        let usage = self.access.stats().await.map_err(|e| to_status(&e))?;
        Ok(Response::new(usage.into()))
    }

    async fn files(&self, request: Request<v1::NodeFilesRequest>) -> Result<Response<v1::FilesReply>, Status> {
        let files = self.try_files(request.into_inner()).await.map_err(|e| to_status(&e))?;
        Ok(Response::new(files.into()))
    }

    async fn read_file(&self, request: Request<v1::NodeReadFileRequest>) -> Result<Response<v1::Chunk>, Status> {
        let data = self.try_read_file(request.into_inner()).await.map_err(|e| to_status(&e))?;
        Ok(Response::new(v1::Chunk { data }))
    }
}

impl Door {
    async fn try_logs(&self, request: v1::LogsRequest) -> ApiResult<BoxStream<'static, ApiResult<Bytes>>> {
        let options = LogOptions {
            follow: request.follow,
            previous: request.previous,
            tail_lines: request.tail_lines,
            since: request.since_unix_nanos,
            timestamps: request.timestamps,
            limit_bytes: request.limit_bytes,
        };
        let at: ContainerRef = need(request.container, "container")?.into();
        self.access.logs(&at, options).await
    }

    async fn try_run(&self, first: Option<to_process::Part>) -> ApiResult<StreamSession> {
        let Some(to_process::Part::Start(start)) = first else {
            return Err(ApiError::bad_request("the first message does not say what to start"));
        };
        let at: ContainerRef = need(start.container, "container")?.into();
        match need(start.what, "command")? {
            What::Exec(v1::Exec { command, tty, stdin }) => {
                self.access.exec(&at, ExecSpec { command, tty, stdin }).await
            }
            What::Attach(v1::Attach { stdin }) => self.access.attach(&at, stdin).await,
        }
    }
}

impl Door {
    async fn try_files(&self, request: v1::NodeFilesRequest) -> ApiResult<Vec<VolumeFile>> {
        let at: VolumeRef = need(request.volume, "volume")?.try_into()?;
        self.access.volume_files(&at, &request.wish.unwrap_or_default().into()).await
    }

    async fn try_read_file(&self, request: v1::NodeReadFileRequest) -> ApiResult<Bytes> {
        let at: VolumeRef = need(request.volume, "volume")?.try_into()?;
        let v1::FilePiece { path, from, most } = need(request.piece, "piece")?;
        self.access.read_volume(&at, &path, from, most).await
    }

    async fn try_forward(&self, first: Option<forwarded::Part>) -> ApiResult<Connection> {
        let Some(forwarded::Part::Open(v1::PodPort { pod, port })) = first else {
            return Err(ApiError::bad_request("the first message does not say which port is meant"));
        };
        let port = u16::try_from(port).map_err(|_| ApiError::bad_request(format!("{port} is no port")))?;
        let pod: PodRef = need(pod, "pod")?.into();
        self.access.port_forward(&pod, port).await
    }
}

/// A process as messages. Dropping the stream drops the session, which ends a command.
fn carry(session: StreamSession, to: Streaming<v1::ToProcess>) -> Stream<v1::FromProcess> {
    let StreamSession { stdin, output, resize, exit } = session;
    let started = v1::Started { stdin: stdin.is_some(), resize: resize.is_some() };
    let input = AbortOnDropHandle::new(tokio::spawn(carry_in(to, stdin, resize)));
    let outputs = ReceiverStream::new(output).map(|output| match output {
        Output::Stdout(data) => Ok(from_process::Part::Stdout(data)),
        Output::Stderr(data) => Ok(from_process::Part::Stderr(data)),
    });
    let exit = exit.map(|exit| match exit {
        Ok(Ok(code)) => Ok(from_process::Part::Exit(code)),
        Ok(Err(error)) => Err(Status::internal(error.to_string())),
        Err(_) => Err(Status::internal("the process ended without a word")),
    });
    stream::once(std::future::ready(Ok(from_process::Part::Started(started))))
        .chain(outputs)
        .chain(exit.into_stream())
        .map(move |part| {
            let _input = &input;
            part.map(|part| v1::FromProcess { part: Some(part) })
        })
        .boxed()
}

async fn carry_in(
    mut to: Streaming<v1::ToProcess>,
    mut stdin: Option<mpsc::Sender<Bytes>>,
    resize: Option<mpsc::Sender<TerminalSize>>,
) {
    while let Ok(Some(message)) = to.message().await {
        match message.part {
            Some(to_process::Part::Stdin(data)) => {
                if let Some(stdin) = &stdin {
                    // A process that has closed its input does not read this.
                    let _ = stdin.send(data).await;
                }
            }
            Some(to_process::Part::StdinEnd(_)) => stdin = None,
            Some(to_process::Part::Resize(size)) => {
                if let Some(resize) = &resize {
                    let _ = resize.send(size.into()).await;
                }
            }
            Some(to_process::Part::Start(_)) | None => {}
        }
    }
}
