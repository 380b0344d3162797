//! A node at the other end of a connection, and the messages that its door is made of.

use super::access::{ContainerRef, FilesWish, LogOptions, NodeAccess, NodeUsage, PodRef, VolumeFile, VolumeRef};
use super::forward;
use crate::api::{ApiError, ApiResult};
use crate::grpc::MAX_MESSAGE;
use crate::grpc::error::from_status;
use crate::grpc::v1::{self, from_process, node_client::NodeClient, start::What, to_process};
use crate::runtime::{Connection, ExecSpec, Output, RuntimeError, StreamSession, TerminalSize};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

/// Messages on their way to a process.
const QUEUE: usize = 16;

/// The door to a node that serves on a connection of its own making.
pub(crate) struct RemoteNode {
    client: NodeClient<Channel>,
}

impl RemoteNode {
    /// A node that serves on `io`. What fails after that connection ended fails with `ServiceUnavailable`.
    pub(crate) fn over(io: DuplexStream) -> Self {
        let once = Mutex::new(Some(TokioIo::new(io)));
        let connect = move |_: http::Uri| {
            let io = once.lock().take().ok_or_else(|| std::io::Error::other("the node's connection has ended"));
            std::future::ready(io)
        };
        // The name is never resolved: the connection is there already.
        let channel = Endpoint::from_static("http://node").connect_with_connector_lazy(tower::service_fn(connect));
        Self { client: NodeClient::new(channel).max_decoding_message_size(MAX_MESSAGE) }
    }

    async fn run(&self, at: &ContainerRef, what: What) -> ApiResult<StreamSession> {
        let start = v1::Start { container: Some(at.into()), what: Some(what) };
        let (send, inbox) = mpsc::channel(QUEUE);
        // The queue is empty: there is room for this.
        let _ = send.try_send(to(to_process::Part::Start(start)));
        let reply = self.client.clone().run(ReceiverStream::new(inbox)).await;
        let mut from = reply.map_err(|s| from_status(&s))?.into_inner();
        let first = from.message().await.map_err(|s| from_status(&s))?.and_then(|m| m.part);
        let Some(from_process::Part::Started(started)) = first else {
            return Err(ApiError::internal("the node did not say whether the process started"));
        };
        Ok(session(&started, send, from))
    }
}

fn session(
    started: &v1::Started,
    send: mpsc::Sender<v1::ToProcess>,
    from: Streaming<v1::FromProcess>,
) -> StreamSession {
    let (stdin, input) = mpsc::channel(QUEUE);
    let (resize, sizes) = mpsc::channel(1);
    let (out, output) = mpsc::channel(QUEUE);
    let (end, exit) = oneshot::channel();
    // Ends with the last of the two senders, or with the call.
    tokio::spawn(carry_in(input, sizes, send));
    tokio::spawn(carry_out(from, out, end));
    StreamSession { stdin: started.stdin.then_some(stdin), resize: started.resize.then_some(resize), output, exit }
}

fn to(part: to_process::Part) -> v1::ToProcess {
    v1::ToProcess { part: Some(part) }
}

async fn carry_in(
    mut input: mpsc::Receiver<Bytes>,
    mut sizes: mpsc::Receiver<TerminalSize>,
    send: mpsc::Sender<v1::ToProcess>,
) {
    let (mut reading, mut sizing) = (true, true);
    while reading || sizing {
        let part = tokio::select! {
            data = input.recv(), if reading => match data {
                Some(data) => to_process::Part::Stdin(data),
                None => {
                    reading = false;
                    to_process::Part::StdinEnd(v1::StdinEnd {})
                }
            },
            size = sizes.recv(), if sizing => match size {
                Some(size) => to_process::Part::Resize(size.into()),
                None => {
                    sizing = false;
                    continue;
                }
            },
        };
        if send.send(to(part)).await.is_err() {
            return;
        }
    }
}

/// Passes on what the process says. Where nobody listens any more the call ends, and with it the process.
async fn carry_out(
    mut from: Streaming<v1::FromProcess>,
    out: mpsc::Sender<Output>,
    mut end: oneshot::Sender<Result<i32, RuntimeError>>,
) {
    let exit = tokio::select! {
        exit = deliver(&mut from, &out) => exit,
        () = async { tokio::join!(out.closed(), end.closed()); } => return,
    };
    drop(out);
    let _ = end.send(exit);
}

async fn deliver(from: &mut Streaming<v1::FromProcess>, out: &mpsc::Sender<Output>) -> Result<i32, RuntimeError> {
    let lost = |cause: String| RuntimeError::Unavailable { operation: "running a process", cause };
    loop {
        let message = from.message().await.map_err(|s| lost(from_status(&s).message))?;
        let part = message.ok_or_else(|| lost("the node's connection has ended".to_owned()))?.part;
        let output = match part {
            Some(from_process::Part::Stdout(data)) => Output::Stdout(data),
            Some(from_process::Part::Stderr(data)) => Output::Stderr(data),
            Some(from_process::Part::Exit(code)) => return Ok(code),
            Some(from_process::Part::Started(_)) | None => continue,
        };
        // Nobody reads it, but someone may still wait for the exit.
        let _ = out.send(output).await;
    }
}

#[async_trait]
impl NodeAccess for RemoteNode {
    async fn logs(&self, at: &ContainerRef, options: LogOptions) -> ApiResult<BoxStream<'static, ApiResult<Bytes>>> {
        let request = v1::LogsRequest {
            container: Some(at.into()),
            follow: options.follow,
            previous: options.previous,
            tail_lines: options.tail_lines,
            since_unix_nanos: options.since,
            timestamps: options.timestamps,
            limit_bytes: options.limit_bytes,
        };
        let chunks = self.client.clone().logs(request).await.map_err(|s| from_status(&s))?.into_inner();
        Ok(chunks.map(|chunk| chunk.map(|c| c.data).map_err(|s| from_status(&s))).boxed())
    }

    async fn exec(&self, at: &ContainerRef, spec: ExecSpec) -> ApiResult<StreamSession> {
        let ExecSpec { command, tty, stdin } = spec;
        self.run(at, What::Exec(v1::Exec { command, tty, stdin })).await
    }

    async fn attach(&self, at: &ContainerRef, stdin: bool) -> ApiResult<StreamSession> {
        self.run(at, What::Attach(v1::Attach { stdin })).await
    }

    async fn port_forward(&self, pod: &PodRef, port: u16) -> ApiResult<Connection> {
        let (send, parts) = forward::opening(v1::PodPort { pod: Some(pod.into()), port: port.into() });
        let reply = self.client.clone().forward(parts).await.map_err(|s| from_status(&s))?;
        Ok(Box::new(forward::near_end(reply.into_inner(), send)))
    }

    async fn metrics(&self) -> ApiResult<String> {
        let reply = self.client.clone().metrics(v1::MetricsRequest {}).await.map_err(|s| from_status(&s))?;
        Ok(reply.into_inner().page)
    }

    async fn stats(&self) -> ApiResult<NodeUsage> {
        let reply = self.client.clone().stats(v1::StatsRequest {}).await.map_err(|s| from_status(&s))?;
        Ok(reply.into_inner().into())
    }

    async fn volume_files(&self, at: &VolumeRef, wish: &FilesWish) -> ApiResult<Vec<VolumeFile>> {
        let request = v1::NodeFilesRequest { volume: Some(at.into()), wish: Some(wish.into()) };
        let reply = self.client.clone().files(request).await.map_err(|s| from_status(&s))?;
        Ok(reply.into_inner().into())
    }

    async fn read_volume(&self, at: &VolumeRef, path: &str, from: u64, most: u64) -> ApiResult<Bytes> {
        let piece = v1::FilePiece { path: path.to_owned(), from, most };
        let request = v1::NodeReadFileRequest { volume: Some(at.into()), piece: Some(piece) };
        let reply = self.client.clone().read_file(request).await.map_err(|s| from_status(&s))?;
        Ok(reply.into_inner().data)
    }
}

impl From<&ContainerRef> for v1::ContainerRef {
    fn from(c: &ContainerRef) -> Self {
        let ContainerRef { namespace, pod, uid, container } = c.clone();
        Self { namespace, pod, uid, container }
    }
}

impl From<v1::ContainerRef> for ContainerRef {
    fn from(c: v1::ContainerRef) -> Self {
        let v1::ContainerRef { namespace, pod, uid, container } = c;
        Self { namespace, pod, uid, container }
    }
}

impl From<TerminalSize> for v1::TerminalSize {
    fn from(size: TerminalSize) -> Self {
        Self { width: size.width.into(), height: size.height.into() }
    }
}

impl From<v1::TerminalSize> for TerminalSize {
    fn from(size: v1::TerminalSize) -> Self {
        let cells = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
        Self { width: cells(size.width), height: cells(size.height) }
    }
}
