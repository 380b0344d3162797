//! The API over gRPC: a [`Transport`] for components that run in another process or on another machine.

use super::dial::Dialer;
use super::servers::Servers;
use super::tls::{self, ClientIdentity};
use super::{
    DeleteOptions, Deleted, ListOptions, PatchType, Payload, Transport, WatchOptions, WatchStream, WriteOptions,
    Written,
};
use crate::api::{ApiError, ApiResult, Gvr, Object, ObjectList, Target};
use crate::grpc::error::from_status;
use crate::grpc::v1::api_client::ApiClient;
use crate::grpc::v1::node_link_client::NodeLinkClient;
use crate::grpc::{MAX_MESSAGE, convert, v1};
use crate::node::{FilesWish, VolumeFile};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use std::sync::Arc;
use std::time::Duration;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

const CONNECT: Duration = Duration::from_secs(5);
/// For an answer's beginning; a watch may go on for ever after that.
const ANSWER: Duration = Duration::from_secs(60);
/// A peer that does not answer pings for this long is taken for dead, and watches over it end.
const ALIVE: Duration = Duration::from_secs(10);

/// Where the API server is, and how it and we prove who we are. The authority is PEM.
#[derive(Clone, Default)]
pub struct GrpcConfig {
    /// `https://10.0.0.1:6443`, or `http://…` without TLS.
    pub url: String,
    /// Other servers of the same cluster, for when the one of `url` does not answer.
    pub others: Servers,
    /// The authority that signed the server's certificate.
    pub ca: Vec<u8>,
    /// Our certificate and key, where we have one.
    pub identity: Option<ClientIdentity>,
    /// Our bearer token; empty for none.
    pub token: String,
    /// The name to expect in the server's certificate, where it is not the URL's host.
    pub server_name: Option<String>,
}

/// Carries calls over gRPC. Connects when first used, and again after a connection broke; calls meanwhile fail with
/// `ServiceUnavailable`. Cheap to clone; clones share the connection.
#[derive(Clone)]
pub struct GrpcTransport {
    channel: Channel,
    bearer: Bearer,
    client: ApiClient<InterceptedService<Channel, Bearer>>,
}

#[derive(Clone)]
struct Bearer(Option<AsciiMetadataValue>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

impl GrpcTransport {
    /// A transport to a server. Does not connect yet. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// `BadRequest` where the URL, a certificate or the token cannot be used.
    pub fn new(config: &GrpcConfig) -> ApiResult<Self> {
        let unusable = |e: &dyn std::fmt::Display| {
            ApiError::bad_request(format!("cannot use the API server address {:?}: {e}", config.url))
        };
        let url: http::Uri = config.url.parse().map_err(|e| unusable(&e))?;
        let bearer = bearer(&config.token)?;
        let tls = match url.scheme_str() {
            Some("https") => Some(tls::config(&config.ca, config.identity.clone())?),
            _ => None,
        };
        let dialer = Dialer::new(&config.url, &config.others, config.server_name.as_deref(), tls)?;
        // Where to, and TLS, are the connector's business: it goes to whoever answers, with what is ours at that time.
        let plain = config.url.replacen("https:", "http:", 1);
        let endpoint = Endpoint::from_shared(plain).map_err(|e| unusable(&e))?.origin(url);
        let connect = move |_: http::Uri| dialer.clone().connect();
        Ok(Self::over(tuned(endpoint).connect_with_connector_lazy(tower::service_fn(connect)), bearer))
    }

    /// A transport over a channel that someone else has set up, such as one in memory.
    pub fn from_channel(channel: Channel) -> Self {
        Self::over(channel, Bearer(None))
    }

    fn over(channel: Channel, bearer: Bearer) -> Self {
        let client = ApiClient::with_interceptor(channel.clone(), bearer.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        Self { channel, bearer, client }
    }

    /// Opens a connection in the other direction: what leaves on it goes in, what arrives on it comes back.
    pub(crate) async fn open_link(
        &self,
        outbound: impl Stream<Item = v1::Chunk> + Send + 'static,
    ) -> ApiResult<tonic::Streaming<v1::Chunk>> {
        let mut client = NodeLinkClient::with_interceptor(self.channel.clone(), self.bearer.clone());
        client.open(outbound).await.map(Response::into_inner).map_err(failed)
    }
}

fn tuned(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(CONNECT)
        .timeout(ANSWER)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(ALIVE)
        .keep_alive_timeout(ALIVE)
        .keep_alive_while_idle(true)
}

fn bearer(token: &str) -> ApiResult<Bearer> {
    if token.is_empty() {
        return Ok(Bearer(None));
    }
    let mut value = AsciiMetadataValue::try_from(format!("Bearer {token}"))
        .map_err(|_| ApiError::bad_request("the token holds characters that no header may"))?;
    value.set_sensitive(true);
    Ok(Bearer(Some(value)))
}

fn failed(status: Status) -> ApiError {
    from_status(&status)
}

async fn gather(mut pieces: tonic::Streaming<v1::ListPiece>, asked: &Gvr) -> ApiResult<ObjectList> {
    let mut items = Vec::new();
    while let Some(piece) = pieces.message().await.map_err(failed)? {
        for object in piece.items {
            items.push(convert::arrived(object, asked)?);
        }
        if let Some(end) = piece.end {
            let v1::ListEnd { revision, continue_token, remaining } = end;
            return Ok(ObjectList { items, revision, continue_token, remaining });
        }
    }
    Err(ApiError::internal("the list broke off before its end"))
}

#[async_trait]
impl Transport for GrpcTransport {
    async fn get(&self, target: &Target) -> ApiResult<Arc<Object>> {
        let request = v1::GetRequest { target: Some(target.into()) };
        let object = self.client.clone().get(request).await.map_err(failed)?.into_inner();
        convert::arrived(object, &target.gvr)
    }

    async fn list(&self, target: &Target, options: &ListOptions) -> ApiResult<ObjectList> {
        let request = v1::ListRequest { target: Some(target.into()), options: Some(options.into()) };
        let pieces = self.client.clone().list(request).await.map_err(failed)?.into_inner();
        gather(pieces, &target.gvr).await
    }

    async fn watch(&self, target: &Target, options: &WatchOptions) -> ApiResult<WatchStream> {
        let request = convert::watch_request(target, options);
        let events = self.client.clone().watch(request).await.map_err(failed)?.into_inner();
        let gvr = target.gvr.clone();
        let take = move |event: Result<v1::WatchEvent, Status>| convert::arrived_event(event.map_err(failed)?, &gvr);
        Ok(events.map(take).boxed())
    }

    async fn create(&self, target: &Target, body: Payload, options: &WriteOptions) -> ApiResult<Written> {
        let reply = self.client.clone().create(write_request(target, body, options)).await.map_err(failed)?;
        convert::arrived_write(reply.into_inner(), &target.gvr)
    }

    async fn update(&self, target: &Target, body: Payload, options: &WriteOptions) -> ApiResult<Written> {
        let reply = self.client.clone().update(write_request(target, body, options)).await.map_err(failed)?;
        convert::arrived_write(reply.into_inner(), &target.gvr)
    }

    async fn patch(
        &self,
        target: &Target,
        kind: PatchType,
        body: Payload,
        options: &WriteOptions,
    ) -> ApiResult<Written> {
        let (kind, force) = convert::patch_type(kind);
        let request = v1::PatchRequest {
            target: Some(target.into()),
            r#type: kind.into(),
            force,
            body: Some(body.into()),
            options: Some(options.into()),
        };
        let reply = self.client.clone().patch(request).await.map_err(failed)?;
        convert::arrived_write(reply.into_inner(), &target.gvr)
    }

    async fn delete(&self, target: &Target, options: &DeleteOptions) -> ApiResult<Deleted> {
        let request = v1::DeleteRequest { target: Some(target.into()), options: Some(options.into()) };
        let reply = self.client.clone().delete(request).await.map_err(failed)?;
        convert::arrived_delete(reply.into_inner(), &target.gvr)
    }

    async fn delete_collection(
        &self,
        target: &Target,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> ApiResult<ObjectList> {
        let request = v1::DeleteCollectionRequest {
            target: Some(target.into()),
            list: Some(list.into()),
            options: Some(options.into()),
        };
        let pieces = self.client.clone().delete_collection(request).await.map_err(failed)?.into_inner();
        gather(pieces, &target.gvr).await
    }

    async fn volume_files(&self, pod: &Target, volume: &str, wish: &FilesWish) -> ApiResult<Vec<VolumeFile>> {
        let (target, volume) = (Some(pod.into()), volume.to_owned());
        let request = v1::FilesRequest { target, volume, wish: Some(wish.into()) };
        let reply = self.client.clone().files(request).await.map_err(failed)?;
        Ok(reply.into_inner().into())
    }

    async fn read_volume(&self, pod: &Target, volume: &str, path: &str, from: u64, most: u64) -> ApiResult<Bytes> {
        let piece = Some(v1::FilePiece { path: path.to_owned(), from, most });
        let request = v1::ReadFileRequest { target: Some(pod.into()), volume: volume.to_owned(), piece };
        let reply = self.client.clone().read_file(request).await.map_err(failed)?;
        Ok(reply.into_inner().data)
    }
}

fn write_request(target: &Target, body: Payload, options: &WriteOptions) -> v1::WriteRequest {
    v1::WriteRequest { target: Some(target.into()), body: Some(body.into()), options: Some(options.into()) }
}
