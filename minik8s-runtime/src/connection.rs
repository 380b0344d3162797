//! The one gRPC channel to containerd, shared by every call: it reconnects by itself after an outage.

use containerd_client::services::v1 as api;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use hyper_util::rt::TokioIo;
use minik8s_core::runtime::RuntimeError;
use std::future::Future;
use std::path::Path;
use std::time::Duration;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// Messages of containerd may be as long as its own limit.
const MAX_MESSAGE: usize = 16 << 20;

#[derive(Clone)]
pub(crate) struct Connection {
    channel: Channel,
    namespace: AsciiMetadataValue,
}

macro_rules! client {
    ($name:ident, $path:ty) => {
        pub(crate) fn $name(&self) -> $path {
            <$path>::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
        }
    };
}

impl Connection {
    pub(crate) async fn open(socket: &Path, namespace: &str) -> Result<Self, RuntimeError> {
        let namespace = AsciiMetadataValue::try_from(namespace)
            .map_err(|_| RuntimeError::Invalid(format!("containerd namespace {namespace:?}")))?;
        let path = socket.to_path_buf();
        let channel = Endpoint::from_static("http://containerd")
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .connect_with_connector(tower::service_fn(move |_| {
                let path = path.clone();
                async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
            }))
            .await
            .map_err(|e| RuntimeError::Unavailable {
                operation: "connecting to containerd",
                cause: format!("{}: {}; is containerd running?", socket.display(), root_cause(&e)),
            })?;
        Ok(Self { channel, namespace })
    }

    /// A request in our containerd namespace.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("containerd-namespace", self.namespace.clone());
        request
    }

    /// A request whose results `lease` keeps from garbage collection.
    pub(crate) fn leased<T>(&self, message: T, lease: &Lease) -> Request<T> {
        let mut request = self.request(message);
        request.metadata_mut().insert("containerd-lease", lease.id.clone());
        request
    }

    client!(containers, api::containers_client::ContainersClient<Channel>);
    client!(tasks, api::tasks_client::TasksClient<Channel>);
    client!(images, api::images_client::ImagesClient<Channel>);
    client!(content, api::content_client::ContentClient<Channel>);
    client!(diff, api::diff_client::DiffClient<Channel>);
    client!(leases, api::leases_client::LeasesClient<Channel>);
    client!(events, api::events_client::EventsClient<Channel>);
    client!(namespaces, api::namespaces_client::NamespacesClient<Channel>);
    client!(version, api::version_client::VersionClient<Channel>);
    client!(snapshots, SnapshotsClient<Channel>);

    /// Takes a lease: what is written under it stays until it is released or its day is over.
    pub(crate) async fn lease(&self) -> Result<Lease, RuntimeError> {
        let id = format!("minik8s-{}", uuid::Uuid::new_v4().simple());
        let expires = jiff::Timestamp::now().as_second() + 24 * 3600;
        let expires = jiff::Timestamp::from_second(expires).unwrap_or(jiff::Timestamp::MAX).to_string();
        let labels = [("containerd.io/gc.expire".to_owned(), expires)].into();
        let request = self.request(api::CreateRequest { id: id.clone(), labels });
        self.leases().create(request).await.map_err(unavailable("taking a lease"))?;
        let id = AsciiMetadataValue::try_from(id).map_err(|_| RuntimeError::Invalid("lease id".to_owned()))?;
        Ok(Lease { id })
    }

    /// Keeps what is here already: the collector may be about to take what nobody refers to. Whether it is here
    /// is asked afterwards: a lease may name what is not there.
    pub(crate) async fn keep(&self, lease: &Lease, kind: &str, id: &str) -> Result<(), RuntimeError> {
        let resource = api::Resource { id: id.to_owned(), r#type: kind.to_owned() };
        let lease = lease.id.to_str().unwrap_or_default().to_owned();
        let request = self.request(api::AddResourceRequest { id: lease, resource: Some(resource) });
        self.leases().add_resource(request).await.map_err(unavailable("keeping content"))?;
        Ok(())
    }

    /// Ends a lease. Failure is harmless: it expires.
    pub(crate) async fn release(&self, lease: Lease) {
        let id = lease.id.to_str().unwrap_or_default().to_owned();
        if let Err(e) = self.leases().delete(self.request(api::DeleteRequest { id, sync: false })).await {
            tracing::debug!(error = %e.message(), "lease not released, it will expire");
        }
    }
}

/// Keeps new content and snapshots from the garbage collector.
pub(crate) struct Lease {
    id: AsciiMetadataValue,
}

/// Turns a failed call into `Unavailable`.
pub(crate) fn unavailable(operation: &'static str) -> impl Fn(Status) -> RuntimeError {
    move |status| RuntimeError::Unavailable { operation, cause: status.message().to_owned() }
}

/// What idempotent calls do with an answer that says "there already" or "gone already".
pub(crate) trait Tolerate<T> {
    /// `None` where the call failed with `code`.
    fn tolerate(self, code: Code) -> Result<Option<T>, Status>;
}

impl<T> Tolerate<T> for Result<tonic::Response<T>, Status> {
    fn tolerate(self, code: Code) -> Result<Option<T>, Status> {
        match self {
            Ok(response) => Ok(Some(response.into_inner())),
            Err(status) if status.code() == code => Ok(None),
            Err(status) => Err(status),
        }
    }
}

/// A shim that ends takes its connection away before containerd forgets the task, and containerd answers every call on
/// that task with this meanwhile.
const SHIM_LEAVING: &str = "ttrpc: closed";
/// Long enough for runc to clean up after a shim that was killed, on a machine that is busy.
const ATTEMPTS: u32 = 1000;
const PAUSE: Duration = Duration::from_millis(10);

/// Asks again while a shim is leaving, until containerd knows what became of the task: mostly that there is none.
pub(crate) async fn past_leaving_shims<T, F>(mut call: impl FnMut() -> F) -> Result<T, Status>
where
    F: Future<Output = Result<T, Status>>,
{
    for _ in 0..ATTEMPTS {
        match call().await {
            Err(status) if status.message().contains(SHIM_LEAVING) => tokio::time::sleep(PAUSE).await,
            other => return other,
        }
    }
    call().await
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}
