//! The gRPC front: an adapter onto a [`Transport`](crate::client::Transport), so that gRPC meets the same checks as
//! every other way in.

use super::auth::{Attributes, SharedAuthorizer, User, unauthorized};
use super::links::NodeLinks;
use crate::api::{ApiResult, Gvr, Object, ObjectList, Target};
use crate::client::{SharedTransport, WriteOptions};
use crate::grpc::error::to_status;
use crate::grpc::v1::api_server::{Api, ApiServer};
use crate::grpc::v1::node_link_server::NodeLinkServer;
use crate::grpc::{MAX_MESSAGE, convert, v1};
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tower::{Service, ServiceExt};

/// All paths of this service begin with it: what a listener that serves REST as well dispatches on.
pub(super) const PATH_PREFIX: &str = "/minik8s.v1.";

/// What the paths of nodes' connections begin with.
const LINK_PREFIX: &str = "/minik8s.v1.NodeLink/";

/// A piece of a list is sent when it holds this many bytes.
const PIECE: usize = 1 << 20;

/// The service, for a tonic router or any HTTP/2 listener: a `tower::Service` over `http::Request`.
pub type GrpcService = ApiServer<Adapter>;

/// The service over a transport, for callers who may do everything: it asks nobody who they are.
pub fn service(transport: SharedTransport) -> GrpcService {
    over(Adapter { transport, authorizer: None, shutdown: CancellationToken::new() })
}

fn over(adapter: Adapter) -> GrpcService {
    ApiServer::new(adapter).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)
}

/// Everything that a server serves over gRPC: the API, and the connections that nodes open.
#[derive(Clone)]
pub struct GrpcServices {
    api: GrpcService,
    links: NodeLinkServer<NodeLinks>,
}

impl GrpcServices {
    /// The services of a server, behind the same checks as its REST front. Watches and nodes' connections end with
    /// `shutdown`.
    pub fn of(server: &Arc<super::ApiServer>, authorizer: SharedAuthorizer, shutdown: CancellationToken) -> Self {
        let links = NodeLinks::new(server.nodes().clone(), shutdown.clone());
        let api = over(Adapter { transport: server.clone(), authorizer: Some(authorizer), shutdown });
        Self { api, links: NodeLinkServer::new(links) }
    }
}

impl<B> Service<http::Request<B>> for GrpcServices
where
    B: http_body::Body + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        if request.uri().path().starts_with(LINK_PREFIX) {
            Box::pin(self.links.clone().oneshot(request))
        } else {
            Box::pin(self.api.clone().oneshot(request))
        }
    }
}

/// Answers gRPC calls from a transport.
pub struct Adapter {
    transport: SharedTransport,
    /// Asked about every call; `None` where callers may do everything.
    authorizer: Option<SharedAuthorizer>,
    shutdown: CancellationToken,
}

type Reply<T> = Result<Response<T>, Status>;
type Stream<T> = BoxStream<'static, Result<T, Status>>;

fn reply<T>(result: ApiResult<T>) -> Reply<T> {
    result.map(Response::new).map_err(|e| to_status(&e))
}

/// Cuts a list into pieces of bounded size; the last one carries the end.
fn pieces(list: ObjectList, asked: &Gvr) -> Stream<v1::ListPiece> {
    let end = v1::ListEnd { revision: list.revision, continue_token: list.continue_token, remaining: list.remaining };
    let asked = asked.clone();
    let items = list.items.into_iter().peekable();
    let pieces = stream::unfold(Some((items, end)), move |state| {
        let next = state.map(|(mut items, end)| {
            let piece = fill(&mut items, &asked);
            if items.peek().is_some() {
                (Ok(v1::ListPiece { items: piece, end: None }), Some((items, end)))
            } else {
                (Ok(v1::ListPiece { items: piece, end: Some(end) }), None)
            }
        });
        std::future::ready(next)
    });
    pieces.boxed()
}

fn fill(items: &mut impl Iterator<Item = Arc<Object>>, asked: &Gvr) -> Vec<v1::Object> {
    let mut bytes = 0;
    let mut piece = Vec::new();
    while bytes < PIECE {
        let Some(object) = items.next() else { break };
        bytes += object.json.len();
        piece.push(convert::object(&object, asked));
    }
    piece
}

impl Adapter {
    /// The message of a call that its caller may make.
    async fn admit<M: Asks>(&self, request: Request<M>, verb: &str) -> ApiResult<(M, Option<User>)> {
        let Some(authorizer) = &self.authorizer else { return Ok((request.into_inner(), None)) };
        let user = request.extensions().get::<User>().cloned().ok_or_else(unauthorized)?;
        let message = request.into_inner();
        let mut target: Target = message.target().cloned().try_into()?;
        // What is done is what must be allowed, whatever the caller calls it.
        target.subresource = M::SUBRESOURCE.map(str::to_owned).or(target.subresource);
        let fields = message.fields();
        authorizer.authorize(&Attributes { user: &user, verb, target: Some(&target), fields, path: "" }).await?;
        Ok((message, Some(user)))
    }

    async fn try_get(&self, r: v1::GetRequest) -> ApiResult<v1::Object> {
        let target: Target = r.target.try_into()?;
        let object = self.transport.get(&target).await?;
        Ok(convert::object(&object, &target.gvr))
    }

    async fn try_list(&self, r: v1::ListRequest) -> ApiResult<Stream<v1::ListPiece>> {
        let target: Target = r.target.try_into()?;
        let list = self.transport.list(&target, &r.options.unwrap_or_default().into()).await?;
        Ok(pieces(list, &target.gvr))
    }

    async fn try_watch(&self, r: v1::WatchRequest) -> ApiResult<Stream<v1::WatchEvent>> {
        let (target, options) = convert::watch_options(r)?;
        let events = self.transport.watch(&target, &options).await?;
        let send = move |event: ApiResult<_>| match event {
            Ok(event) => Ok(convert::event(&event, &target.gvr)),
            Err(error) => Err(to_status(&error)),
        };
        Ok(events.map(send).take_until(self.shutdown.clone().cancelled_owned()).boxed())
    }

    async fn try_write(&self, r: v1::WriteRequest, user: Option<User>, create: bool) -> ApiResult<v1::WriteReply> {
        let target: Target = r.target.try_into()?;
        let body = convert::need(r.body, "body")?.into();
        let options = WriteOptions { user, ..r.options.unwrap_or_default().into() };
        let written = if create {
            self.transport.create(&target, body, &options).await?
        } else {
            self.transport.update(&target, body, &options).await?
        };
        Ok(convert::written(written, &target.gvr))
    }

    async fn try_patch(&self, r: v1::PatchRequest, user: Option<User>) -> ApiResult<v1::WriteReply> {
        let kind = convert::arrived_patch_type(&r)?;
        let target: Target = r.target.try_into()?;
        let body = convert::need(r.body, "body")?.into();
        let options = WriteOptions { user, ..r.options.unwrap_or_default().into() };
        let written = self.transport.patch(&target, kind, body, &options).await?;
        Ok(convert::written(written, &target.gvr))
    }

    async fn try_delete(&self, r: v1::DeleteRequest) -> ApiResult<v1::DeleteReply> {
        let target: Target = r.target.try_into()?;
        let deleted = self.transport.delete(&target, &r.options.unwrap_or_default().into()).await?;
        Ok(convert::deleted(&deleted, &target.gvr))
    }

    async fn try_delete_all(&self, r: v1::DeleteCollectionRequest) -> ApiResult<Stream<v1::ListPiece>> {
        let target: Target = r.target.try_into()?;
        let (list, options) = (r.list.unwrap_or_default().into(), r.options.unwrap_or_default().into());
        let picked = self.transport.delete_collection(&target, &list, &options).await?;
        Ok(pieces(picked, &target.gvr))
    }

    async fn try_files(&self, r: v1::FilesRequest) -> ApiResult<v1::FilesReply> {
        let target: Target = r.target.try_into()?;
        let files = self.transport.volume_files(&target, &r.volume, &r.wish.unwrap_or_default().into()).await?;
        Ok(files.into())
    }

    async fn try_read_file(&self, r: v1::ReadFileRequest) -> ApiResult<v1::Chunk> {
        let target: Target = r.target.try_into()?;
        let v1::FilePiece { path, from, most } = convert::need(r.piece, "piece")?;
        let data = self.transport.read_volume(&target, &r.volume, &path, from, most).await?;
        Ok(v1::Chunk { data })
    }
}

#[tonic::async_trait]
impl Api for Adapter {
    type ListStream = Stream<v1::ListPiece>;
    type WatchStream = Stream<v1::WatchEvent>;
    type DeleteCollectionStream = Stream<v1::ListPiece>;

    async fn get(&self, r: Request<v1::GetRequest>) -> Reply<v1::Object> {
        reply(async { self.try_get(self.admit(r, "get").await?.0).await }.await)
    }

    async fn list(&self, r: Request<v1::ListRequest>) -> Reply<Self::ListStream> {
        reply(async { self.try_list(self.admit(r, "list").await?.0).await }.await)
    }

    async fn watch(&self, r: Request<v1::WatchRequest>) -> Reply<Self::WatchStream> {
        reply(async { self.try_watch(self.admit(r, "watch").await?.0).await }.await)
    }

    async fn create(&self, r: Request<v1::WriteRequest>) -> Reply<v1::WriteReply> {
        let work = async {
            let (message, user) = self.admit(r, "create").await?;
            self.try_write(message, user, true).await
        };
        reply(work.await)
    }

    async fn update(&self, r: Request<v1::WriteRequest>) -> Reply<v1::WriteReply> {
        let work = async {
            let (message, user) = self.admit(r, "update").await?;
            self.try_write(message, user, false).await
        };
        reply(work.await)
    }

    async fn patch(&self, r: Request<v1::PatchRequest>) -> Reply<v1::WriteReply> {
        let work = async {
            let (message, user) = self.admit(r, "patch").await?;
            self.try_patch(message, user).await
        };
        reply(work.await)
    }

    async fn delete(&self, r: Request<v1::DeleteRequest>) -> Reply<v1::DeleteReply> {
        reply(async { self.try_delete(self.admit(r, "delete").await?.0).await }.await)
    }

    async fn delete_collection(&self, r: Request<v1::DeleteCollectionRequest>) -> Reply<Self::DeleteCollectionStream> {
        reply(async { self.try_delete_all(self.admit(r, "deletecollection").await?.0).await }.await)
    }

    async fn files(&self, r: Request<v1::FilesRequest>) -> Reply<v1::FilesReply> {
        // What a command in the pod could read as well.
        reply(async { self.try_files(self.admit(r, "create").await?.0).await }.await)
    }

    async fn read_file(&self, r: Request<v1::ReadFileRequest>) -> Reply<v1::Chunk> {
        reply(async { self.try_read_file(self.admit(r, "create").await?.0).await }.await)
    }
}

/// What an authorizer must know of a message.
trait Asks {
    /// What of the target it is about, where the message itself says that.
    const SUBRESOURCE: Option<&str> = None;
    fn target(&self) -> Option<&v1::Target>;
    /// The field selector; empty for none.
    fn fields(&self) -> &str;
}

macro_rules! asks {
    ($($message:ident: |$m:ident| $fields:expr),*) => {$(
        impl Asks for v1::$message {
            fn target(&self) -> Option<&v1::Target> {
                self.target.as_ref()
            }

            fn fields(&self) -> &str {
                let $m = self;
                $fields
            }
        }
    )*};
}

asks! {
    GetRequest: |_m| "",
    ListRequest: |m| m.options.as_ref().map_or("", |o| &o.field_selector),
    WatchRequest: |m| &m.field_selector,
    WriteRequest: |_m| "",
    PatchRequest: |_m| "",
    DeleteRequest: |_m| "",
    DeleteCollectionRequest: |m| m.list.as_ref().map_or("", |o| &o.field_selector)
}

impl Asks for v1::FilesRequest {
    const SUBRESOURCE: Option<&str> = Some("files");

    fn target(&self) -> Option<&v1::Target> {
        self.target.as_ref()
    }

    fn fields(&self) -> &str {
        ""
    }
}

impl Asks for v1::ReadFileRequest {
    const SUBRESOURCE: Option<&str> = Some("files");

    fn target(&self) -> Option<&v1::Target> {
        self.target.as_ref()
    }

    fn fields(&self) -> &str {
        ""
    }
}
