//! A whole cluster in this process: API server, scheduler, controllers, and as many nodes as wanted, each part swappable.
//!
//! The all-in-one binary, tests and embedding programs are made of the same call. Nothing listens on a socket unless a
//! listener is given; clients inside the process go straight to the server.
//!
//! ```
//! # #[cfg(feature = "testkit")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! use k8s_openapi::api::core::v1::Namespace;
//! use minik8s_core::cluster::Cluster;
//!
//! let cluster = Cluster::builder().fake_node("node-1").start().await?;
//! let namespaces = cluster.client().all::<Namespace>().list(&Default::default()).await?;
//! assert!(namespaces.items.iter().any(|n| n.metadata.name.as_deref() == Some("default")));
//! cluster.stop().await;
//! # Ok(()) })
//! # }
//! # #[cfg(not(feature = "testkit"))]
//! # fn main() {}
//! ```

mod builder;
mod extension;
mod parts;

pub use builder::ClusterBuilder;
pub use extension::Extension;

use crate::api::{ApiError, ApiResult};
use crate::client::{Client, SharedTransport};
use crate::join::JoinToken;
use crate::server::auth::{TOKEN_NAMESPACE, User};
use crate::server::kubeconfig::Kubeconfig;
use crate::server::rest::RestService;
use crate::server::tls::Authority;
use crate::server::tls::TlsError;
use crate::server::{ApiServer, Metrics};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Secret;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Why a cluster did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// The state could not be read, or the first objects not be written.
    #[error("the API server did not start")]
    Server(#[source] crate::api::ApiError),
    /// Ranges of addresses that do not go together.
    #[error("unusable ranges of addresses")]
    Ranges(#[from] crate::controllers::RangeError),
    /// Keys and certificates.
    #[error("the certificates could not be made")]
    Tls(#[from] TlsError),
    /// An extension's types do not fit.
    #[error("extension {extension} has an unusable schema")]
    Schema {
        /// Its name.
        extension: String,
        /// What is wrong.
        #[source]
        source: crate::api::schema::SchemaError,
    },
}

/// A running cluster. Dropping it stops it without waiting; containers of real runtimes go on.
pub struct Cluster {
    server: Arc<ApiServer>,
    rest: RestService,
    metrics: Metrics,
    address: Option<SocketAddr>,
    kubeconfig: Option<Kubeconfig>,
    authority: Option<Authority>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    _on_drop: tokio_util::sync::DropGuard,
}

impl Cluster {
    /// A cluster to put together. Without a node it is a control plane.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::default()
    }

    /// The API, in process.
    pub fn transport(&self) -> SharedTransport {
        self.server.clone()
    }

    /// A typed client, in process.
    pub fn client(&self) -> Client {
        Client::new(self.transport())
    }

    /// The API as an HTTP service that acts as an administrator: for HTTP clients inside the process.
    pub fn http_service(&self) -> RestService {
        self.rest.acting_as(User::system())
    }

    /// An unmodified kube-rs client that reaches the API without a socket. Its default namespace is `default`.
    #[cfg(feature = "kube")]
    pub fn kube_client(&self) -> kube::Client {
        kube::Client::new(self.http_service(), "default")
    }

    /// Where it listens, if it does.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// What clients outside the process need, if it listens. Holds the administrator's key.
    pub fn kubeconfig(&self) -> Option<&Kubeconfig> {
        self.kubeconfig.as_ref()
    }

    /// What one of the cluster's components needs that runs in another process, as this user; good for a year. `None`
    /// for a cluster that does not listen.
    ///
    /// # Errors
    /// [`TlsError`] for names no certificate can hold.
    pub fn kubeconfig_of(&self, user: &User) -> Result<Option<Kubeconfig>, TlsError> {
        let Some((own, authority)) = self.kubeconfig.as_ref().zip(self.authority.as_ref()) else { return Ok(None) };
        let user = authority.issue_client(user, self.server.clock().now())?;
        Ok(Some(Kubeconfig { user, ..own.clone() }))
    }

    /// A token with which machines may join for so long; see [`join`](crate::join). The cluster must listen.
    ///
    /// # Errors
    /// `BadRequest` for a cluster that does not listen; what the API says otherwise.
    pub async fn join_token(&self, life: SignedDuration) -> ApiResult<JoinToken> {
        let authority = self.authority.as_ref();
        let authority =
            authority.ok_or_else(|| ApiError::bad_request("nobody can join a cluster that does not listen"))?;
        let pin = authority.pin().map_err(|e| ApiError::internal(e.to_string()))?;
        let token = JoinToken::generate(&pin);
        let end = self.server.clock().now().saturating_add(life).ok();
        self.client().api::<Secret>(TOKEN_NAMESPACE).create(&token.secret(end, "")).await?;
        Ok(token)
    }

    /// Metrics of all components, as `/metrics` shows them.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Cancelled when the cluster is to stop.
    pub fn shutdown_token(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// Stops every part and waits for it. Containers of real runtimes go on, and are found again by the next start.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
