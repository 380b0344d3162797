//! The other API servers of a cluster, as one of them sees them: which live, and how each is asked something for which
//! nobody has to say who they are.

use super::rest::Body;
use crate::api::ApiResult;
use crate::client::{Client, Servers, tls};
use crate::node::{follow_servers, server_url};
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use rustls::ClientConfig;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long a connection may take: a dead machine counts as living for some seconds.
const CONNECT: Duration = Duration::from_secs(3);

/// The other API servers of a cluster. Cheap to clone; clones know the same. The default is a server that is alone.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    living: Servers,
    own: Option<String>,
    tls: Option<Arc<ClientConfig>>,
}

impl Peers {
    /// The servers that `ca` (PEM) signs for, but the one at `own`. None is known before [`follow`](Self::follow).
    ///
    /// # Errors
    /// `BadRequest` where `ca` holds no certificate.
    pub fn new(ca: &str, own: Option<SocketAddr>) -> ApiResult<Self> {
        let mut config = tls::config(ca.as_bytes(), None)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { living: Servers::default(), own: own.map(server_url), tls: Some(Arc::new(config)) })
    }

    /// Keeps to what the Service `kubernetes` says of who lives, until `stop`.
    pub async fn follow(&self, client: &Client, stop: CancellationToken) {
        follow_servers(client, &self.living, stop, |_| {}).await;
    }

    /// The others that live, by their URLs.
    pub fn others(&self) -> Vec<String> {
        let mut all = self.living.all();
        all.retain(|url| Some(url) != self.own.as_ref());
        all
    }

    /// Tells when servers come and go.
    pub fn changes(&self) -> watch::Receiver<Vec<String>> {
        self.living.follow()
    }

    /// Asks the server at `url`, by HTTP/1.1 and without credentials; the request's URI is a path. Bodies are streams, whose
    /// silence the caller bounds.
    ///
    /// # Errors
    /// Where it cannot be reached or does not show a certificate of the cluster's authority.
    pub async fn ask(&self, url: &str, mut request: Request<Body>) -> io::Result<Response<Body>> {
        let uri: Uri = url.parse().map_err(io::Error::other)?;
        let host = uri.host().unwrap_or_default();
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        request.headers_mut().insert(header::HOST, HeaderValue::from_str(authority).map_err(io::Error::other)?);
        let (tls, name) = (self.tls.clone(), tls::server_name(host).map_err(io::Error::other)?);
        let tls = tls.ok_or_else(|| io::Error::other("this server knows no authority"))?;
        let connection = tls::connect(host, uri.port_u16().unwrap_or(443), name, tls);
        let late = |_| io::Error::from(io::ErrorKind::TimedOut);
        let io = tokio::time::timeout(CONNECT, connection).await.map_err(late)??;
        let (mut sender, driver) = http1::handshake(io).await.map_err(io::Error::other)?;
        // Ends with the answer's body, or when nobody wants that any more.
        tokio::spawn(driver);
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
    }
}

#[cfg(any(test, feature = "testkit"))]
impl Peers {
    /// Servers that are these, for tests.
    pub fn of(ca: &str, urls: &[String]) -> ApiResult<Self> {
        let peers = Self::new(ca, None)?;
        peers.living.replace(urls.iter().cloned());
        Ok(peers)
    }
}
