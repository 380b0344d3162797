//! How a machine becomes a node: it checks that the server is of the cluster its token names, makes a key of its own,
//! asks for a certificate with the token, and from then on is known by that certificate, which it renews in time.

mod probe;
mod renew;
mod request;
mod token;
mod version;

pub use token::{JoinToken, TokenError};

use crate::api::{ApiError, ApiResult, git_version};
use crate::client::{Client, ClientIdentity, GrpcConfig, GrpcTransport, Servers};
use crate::clock::SharedClock;
use crate::node::{NodeAgent, follow_servers, serve_links};
use crate::server::auth::User;
use crate::server::bootstrap::CLUSTER_FACTS;
use crate::server::tls::{Credentials, Identity, TlsError, new_key, pin_of};
use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Why a machine did not join. Each says the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// Nobody answers there.
    #[error("cannot reach the API server at {url}: {cause}; does `minik8s server` run there, and is the port open?")]
    Unreachable {
        /// Where.
        url: String,
        /// Why.
        cause: String,
    },
    /// The server is of another cluster, or an impostor.
    #[error(
        "the server at {url} is not of the cluster that the token is for: the token pins the authority {pin}, the server \
         shows {found}. Get a token of this cluster with `minik8s token create`; if this one is, somebody may stand between"
    )]
    WrongPin {
        /// Where.
        url: String,
        /// What was expected.
        pin: String,
        /// What was shown.
        found: String,
    },
    /// This program is newer than the server.
    #[error(
        "this agent is of version {agent}, the server of {server}: upgrade the server first, a node is never newer"
    )]
    NewerThanServer {
        /// Ours.
        agent: String,
        /// The server's.
        server: String,
    },
    /// There is neither a certificate nor a token.
    #[error("this machine has not joined yet: add --token, made on the server with `minik8s token create`")]
    NoToken,
    /// The certificate ended while nobody could renew it.
    #[error(
        "the certificate of node {node} expired at {at}: join again with --token, made on the server with `minik8s token create`"
    )]
    Expired {
        /// Whose.
        node: String,
        /// When.
        at: Timestamp,
    },
    /// The data directory is another node's.
    #[error("this machine joined as node {known:?}, not {asked:?}: use --node-name {known}, or another --data-dir")]
    OtherName {
        /// Whose certificate is there.
        known: String,
        /// What was asked for.
        asked: String,
    },
    /// The server refuses the token.
    #[error("the server refuses the token: {0}")]
    Token(String),
    /// The request for a certificate was denied.
    #[error("the cluster does not admit this machine ({reason}): {message}")]
    Denied {
        /// `NameTaken`, …
        reason: String,
        /// Why, and the way out.
        message: String,
    },
    /// Nobody answered the request for a certificate.
    #[error(
        "the request {request} for a certificate was not answered within {waited:?}: do the controllers run? `minik8s get csr` shows it"
    )]
    Unanswered {
        /// Name of the CertificateSigningRequest.
        request: String,
        /// How long we waited.
        waited: Duration,
    },
    /// The API failed otherwise.
    #[error("cannot ask for a certificate: {0}")]
    Api(ApiError),
    /// Keys and certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// How a machine joins.
#[derive(Clone, Debug)]
pub struct JoinConfig {
    /// `https://10.0.0.1:6443`
    pub server: String,
    /// The token, where there is one; not needed once the machine has joined.
    pub token: Option<JoinToken>,
    /// The node's name.
    pub node: String,
    /// Where key and certificates are kept.
    pub directory: PathBuf,
    /// Our version, which must not be newer than the server's.
    pub version: String,
    /// How long to wait for the certificate.
    pub patience: Duration,
}

impl JoinConfig {
    /// The usual: this program's version, a minute of patience.
    pub fn new(server: impl Into<String>, node: impl Into<String>, directory: impl Into<PathBuf>) -> Self {
        Self {
            server: server.into(),
            token: None,
            node: node.into(),
            directory: directory.into(),
            version: git_version(),
            patience: Duration::from_secs(60),
        }
    }
}

/// A machine that has joined: a way to the API under the node's name. See [`Membership::open`].
#[derive(Clone)]
pub struct Membership {
    transport: GrpcTransport,
    /// The way to the API servers: the one we were told of, and all that are known.
    config: GrpcConfig,
    identity: ClientIdentity,
    credentials: Arc<Credentials>,
    node: String,
    key_digest: String,
    clock: SharedClock,
}

/// What all nodes of a cluster share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterFacts {
    /// Range of virtual addresses of Services.
    pub service_cidr: IpNet,
    /// Range of the addresses of all pods, where nodes are given theirs out of one.
    pub pod_cidr: Option<IpNet>,
    /// Domain of the cluster.
    pub cluster_domain: String,
}

/// What lies in the directory of a machine.
enum Kept {
    /// Nothing of use but perhaps the key.
    Nothing { key: Option<String> },
    /// A good certificate.
    Good(Identity),
    /// One that was good, until then.
    Expired { key: String, at: Timestamp },
}

impl Membership {
    /// Goes on with the certificate of before, or joins with the token.
    ///
    /// # Errors
    /// [`JoinError`], each with the way out.
    pub async fn open(config: &JoinConfig, clock: SharedClock) -> Result<Self, JoinError> {
        let credentials = Arc::new(Credentials::new(&config.directory)?);
        let kept = kept(&credentials, config, clock.now())?;
        let (ca, identity) = match kept {
            Kept::Good(identity) => (known(config, &credentials).await?, identity),
            Kept::Nothing { key } => join(config, &credentials, key).await?,
            Kept::Expired { at, .. } if config.token.is_none() => {
                return Err(JoinError::Expired { node: config.node.clone(), at });
            }
            Kept::Expired { key, .. } => join(config, &credentials, Some(key)).await?,
        };
        let key_digest = pin_of(&identity.certificate)?;
        let shown = ClientIdentity::new(&identity.certificate, &identity.key).map_err(JoinError::Api)?;
        let config_of_api = GrpcConfig {
            url: config.server.clone(),
            others: Servers::new(credentials.servers()?),
            ca: ca.into_bytes(),
            identity: Some(shown.clone()),
            ..GrpcConfig::default()
        };
        let transport = GrpcTransport::new(&config_of_api).map_err(JoinError::Api)?;
        let node = config.node.clone();
        Ok(Self { transport, config: config_of_api, identity: shown, credentials, node, key_digest, clock })
    }

    /// The API, as the node. Connects when first used.
    pub fn transport(&self) -> GrpcTransport {
        self.transport.clone()
    }

    /// The API servers that are known: those of an earlier life, and while the node runs, those that live.
    pub fn servers(&self) -> &Servers {
        &self.config.others
    }

    /// Certificate of the cluster's CA, PEM.
    pub fn ca(&self) -> &[u8] {
        &self.config.ca
    }

    /// What all nodes of the cluster share.
    ///
    /// # Errors
    /// Where the API does not answer, or in a way that is not understood.
    pub async fn cluster(&self) -> ApiResult<ClusterFacts> {
        let client = Client::new(Arc::new(self.transport()));
        let map = client.api::<ConfigMap>("kube-public").get(CLUSTER_FACTS).await?;
        let data = map.data.unwrap_or_default();
        let field = |name: &str| {
            let missing =
                || ApiError::internal(format!("the cluster does not say its {name}: is it older than this agent?"));
            data.get(name).filter(|text| !text.is_empty()).ok_or_else(missing)
        };
        let service_cidr = field("serviceCIDR")?;
        let unreadable = |e| ApiError::internal(format!("the cluster's serviceCIDR {service_cidr:?} is no range: {e}"));
        Ok(ClusterFacts {
            service_cidr: service_cidr.parse().map_err(unreadable)?,
            pod_cidr: data.get("podCIDR").and_then(|text| text.parse().ok()),
            cluster_domain: field("clusterDomain")?.clone(),
        })
    }

    /// Runs the node's agent until `shutdown`: beside it, the connections for logs and commands, one to each API server,
    /// and the renewal of the certificate. The agent must have been built over [`transport`](Self::transport).
    pub async fn run(self, agent: NodeAgent, shutdown: CancellationToken) {
        let access = agent.access();
        let client = Client::new(Arc::new(self.transport()));
        // The next start will know them: the server that this machine was told of may be gone by then.
        let keep = |servers: &[String]| {
            if let Err(error) = self.credentials.keep_servers(servers) {
                tracing::warn!(%error, "the next start will not know all API servers");
            }
        };
        let servers = follow_servers(&client, &self.config.others, shutdown.clone(), keep);
        let links = serve_links(&self.config, Some(&self.config.url), access, shutdown.clone());
        let renewal = self.clone().keep_certificate(shutdown.clone());
        tokio::join!(agent.run(shutdown), servers, links, renewal);
    }

    /// The digest of the node's key, which belongs into the node's record: it is how a machine that lost its
    /// certificate is told from another machine of the same name.
    pub fn key_digest(&self) -> &str {
        &self.key_digest
    }
}

/// What is there of an earlier life.
fn kept(credentials: &Credentials, config: &JoinConfig, now: Timestamp) -> Result<Kept, JoinError> {
    let Some(key) = credentials.key()? else { return Ok(Kept::Nothing { key: None }) };
    let (Some(certificate), Some(ca)) = (credentials.certificate()?, credentials.ca()?) else {
        return Ok(Kept::Nothing { key: Some(key) });
    };
    let identity = Identity { certificate, key };
    let Some((user, (_, end))) = identity.user().zip(identity.validity()) else {
        return Ok(Kept::Nothing { key: Some(identity.key) });
    };
    if let Some(known) = user.node().filter(|known| *known != config.node) {
        return Err(JoinError::OtherName { known: known.to_owned(), asked: config.node.clone() });
    }
    // A token of another cluster means that one: the machine moves.
    if let Some(token) = &config.token
        && pin_of(&ca)? != token.pin()
    {
        return Ok(Kept::Nothing { key: Some(identity.key) });
    }
    // Good to the end of its last second.
    Ok(if end.as_second() < now.as_second() {
        Kept::Expired { key: identity.key, at: end }
    } else {
        Kept::Good(identity)
    })
}

/// The authority of a cluster that was joined before, as one of its servers shows it. That all are away now does not
/// matter; one that is no longer of the cluster does only where there is no other.
async fn known(config: &JoinConfig, credentials: &Credentials) -> Result<String, JoinError> {
    let ca = credentials.ca()?.unwrap_or_default();
    let pin = pin_of(&ca)?;
    let mut refused = None;
    let others = credentials.servers()?.into_iter().filter(|url| *url != config.server);
    for url in std::iter::once(config.server.clone()).chain(others) {
        match probe::probe(&url, &pin).await {
            Ok(probed) => return version::check(&config.version, &probed.version).map(|()| ca),
            Err(JoinError::Unreachable { url, cause }) => tracing::warn!(url, cause, "the API server is not there yet"),
            Err(other) => refused = refused.or(Some(other)),
        }
    }
    refused.map_or(Ok(ca), Err)
}

async fn join(
    config: &JoinConfig,
    credentials: &Credentials,
    key: Option<String>,
) -> Result<(String, Identity), JoinError> {
    let token = config.token.as_ref().ok_or(JoinError::NoToken)?;
    let probed = probe::probe(&config.server, token.pin()).await?;
    version::check(&config.version, &probed.version)?;
    // Written before it is used: the key is what the cluster will know this machine by.
    let key = match key {
        Some(key) => key,
        None => credentials.keep_key(new_key()?)?,
    };
    let transport = GrpcTransport::new(&GrpcConfig {
        url: config.server.clone(),
        ca: probed.ca.clone().into_bytes(),
        token: token.bearer(),
        ..GrpcConfig::default()
    });
    let user = User::of_node(&config.node);
    let transport = Arc::new(transport.map_err(JoinError::Api)?);
    let certificate = request::certificate(transport, &user, &key, config.patience).await?;
    credentials.keep(&probed.ca, &certificate)?;
    Ok((probed.ca, Identity { certificate, key }))
}
