//! An API server on a memory store, served over TLS on a port of the loopback: what real clients are tested against.

use super::kubectl::Kubectl;
use super::wait;
use crate::client::{ClientIdentity, GrpcConfig, GrpcTransport};
use crate::node::{NodeAccess, serve_link};
use crate::server::auth::{Authenticator, SharedAuthorizer, User};
use crate::server::grpc::GrpcServices;
use crate::server::kubeconfig::Kubeconfig;
use crate::server::listen::{self, Front};
use crate::server::rest::{RestConfig, RestService};
use crate::server::tls::{Pki, ServerNames};
use crate::server::{ApiServer, ApiServerBuilder};
use crate::store::{MemoryStore, Store};
use jiff::Timestamp;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The bearer token [`Served`] knows, as `alice`'s.
pub const TOKEN: &str = "alice-token";

/// How long a connection may take to come to be.
const BOUND: Duration = Duration::from_secs(30);

/// A server that real clients can reach. Ends when it is dropped.
pub struct Served {
    /// The server.
    pub server: Arc<ApiServer>,
    /// Its HTTP front, for calls without sockets.
    pub rest: RestService,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its certificates.
    pub pki: Pki,
    shutdown: CancellationToken,
    listener: JoinHandle<()>,
    _ended: DropGuard,
}

impl Served {
    /// A server with the built-in kinds on an empty store.
    ///
    /// # Panics
    /// Where it cannot be started.
    pub async fn start() -> Self {
        Self::start_with(|builder| builder).await
    }

    /// A server on which this says who may do what.
    ///
    /// # Panics
    /// Where it cannot be started.
    pub async fn start_authorized(authorizer: SharedAuthorizer) -> Self {
        Self::put_together(Arc::new(MemoryStore::new()), None, |builder| builder, Some(authorizer)).await
    }

    /// A server put together by the caller.
    ///
    /// # Panics
    /// Where it cannot be started.
    pub async fn start_with(configure: impl FnOnce(ApiServerBuilder) -> ApiServerBuilder) -> Self {
        Self::put_together(Arc::new(MemoryStore::new()), None, configure, None).await
    }

    /// A server on this store, put together by the caller; with the certificates of another where they are of one cluster.
    ///
    /// # Panics
    /// Where it cannot be started.
    pub async fn start_on(
        store: Arc<dyn Store>,
        pki: Option<&Pki>,
        configure: impl FnOnce(ApiServerBuilder) -> ApiServerBuilder,
    ) -> Self {
        Self::put_together(store, pki, configure, None).await
    }

    #[allow(clippy::expect_used, reason = "a test cannot go on without its server")]
    async fn put_together(
        store: Arc<dyn Store>,
        pki: Option<&Pki>,
        configure: impl FnOnce(ApiServerBuilder) -> ApiServerBuilder,
        authorizer: Option<SharedAuthorizer>,
    ) -> Self {
        let server = configure(ApiServer::builder(store)).start().await.expect("the API server starts");
        let shutdown = CancellationToken::new();
        let config = RestConfig::of(&server);
        let authorizer = authorizer.unwrap_or_else(|| config.authorizer.clone());
        let rest = RestService::new(RestConfig { shutdown: shutdown.clone(), authorizer, ..config });
        let names = ServerNames::default().with(["localhost", "127.0.0.1"]);
        let made = || Pki::in_memory(&names, Timestamp::now()).expect("certificates are made");
        let pki = pki.cloned().unwrap_or_else(made);
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port of the loopback");
        let address = tcp.local_addr().expect("the port's address");
        let tls = pki.server_config().expect("the certificates fit");
        let authenticator = Authenticator::default().with_token(TOKEN, User::new("alice", &[]));
        let grpc = GrpcServices::of(&server, rest.authorizer(), shutdown.clone());
        let front = Front::new(rest.clone(), authenticator).with_grpc(grpc);
        let listener = tokio::spawn(listen::serve(tcp, tls, front, shutdown.clone()));
        Self { server, rest, address, pki, _ended: shutdown.clone().drop_guard(), shutdown, listener }
    }

    /// How the administrator reaches it.
    pub fn kubeconfig(&self) -> Kubeconfig {
        Kubeconfig {
            name: "test".to_owned(),
            server: format!("https://{}", self.address),
            ca_certificate: self.pki.ca_certificate().to_owned(),
            user: self.pki.admin().clone(),
        }
    }

    /// How this user reaches it over gRPC, by a certificate.
    ///
    /// # Panics
    /// Where no certificate can be made for such a name.
    #[allow(clippy::expect_used, reason = "a test cannot go on without it")]
    pub fn grpc_config(&self, user: &User) -> GrpcConfig {
        let identity = self.pki.issue_client(user, Timestamp::now()).expect("a certificate is made");
        GrpcConfig {
            url: format!("https://{}", self.address),
            ca: self.pki.ca_certificate().into(),
            identity: Some(ClientIdentity::new(&identity.certificate, &identity.key).expect("an identity")),
            ..GrpcConfig::default()
        }
    }

    /// Connects a node that serves logs and commands over gRPC; answers when the server can reach it. The connection
    /// ends when the answer is dropped.
    ///
    /// # Panics
    /// Where it does not come to be.
    #[allow(clippy::expect_used, reason = "a test cannot go on without its node")]
    pub async fn link(&self, node: &str, access: Arc<dyn NodeAccess>) -> DropGuard {
        let stop = self.shutdown.child_token();
        let transport = GrpcTransport::new(&self.grpc_config(&User::of_node(node))).expect("the certificate fits");
        tokio::spawn(serve_link(transport, access, stop.clone()));
        wait::until("the node is connected", BOUND, || async { self.server.nodes().find(node).ok() }).await;
        stop.drop_guard()
    }

    /// kubectl for it.
    ///
    /// # Panics
    /// Where the machine has none; ask [`need::met`](super::need::met) first.
    #[allow(clippy::expect_used, reason = "the test has said that it needs kubectl")]
    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(&self.kubeconfig()).expect("kubectl's home is made").expect("a kubectl is here")
    }

    /// Ends it, and answers when every connection is closed.
    ///
    /// # Panics
    /// Where the listener panicked.
    #[allow(clippy::expect_used, reason = "the listener's panic is the test's")]
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.listener.await.expect("the listener ends");
    }
}
