//! TLS from the client's side: which authority is trusted, who we say we are, and connections over it.

use crate::api::{ApiError, ApiResult};
use arc_swap::ArcSwapOption;
use hyper_util::rt::TokioIo;
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring::default_provider;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::fmt;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A client's certificate and key. They may be replaced while connections use them: the next connection shows the new
/// ones. Clones share them. `Debug` hides them.
#[derive(Clone, Default)]
pub struct ClientIdentity(Arc<ArcSwapOption<CertifiedKey>>);

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.load().is_some() { "ClientIdentity(hidden)" } else { "ClientIdentity(none)" })
    }
}

impl ClientIdentity {
    /// An identity of this certificate and key, PEM.
    ///
    /// # Errors
    /// `BadRequest` where they cannot be used.
    pub fn new(certificate: &str, key: &str) -> ApiResult<Self> {
        let identity = Self::default();
        identity.replace(certificate, key)?;
        Ok(identity)
    }

    /// From now on this one.
    ///
    /// # Errors
    /// `BadRequest` where they cannot be used; the identity stays as it was.
    pub fn replace(&self, certificate: &str, key: &str) -> ApiResult<()> {
        let unusable = |e: &dyn fmt::Display| ApiError::bad_request(format!("the client certificate is unusable: {e}"));
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
        let chain = chain.map_err(|e| unusable(&e))?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| unusable(&e))?;
        let certified = CertifiedKey::from_der(chain, key, &default_provider()).map_err(|e| unusable(&e))?;
        self.0.store(Some(Arc::new(certified)));
        Ok(())
    }
}

#[derive(Debug)]
struct Shown(ClientIdentity);

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.0.load_full()
    }

    fn has_certs(&self) -> bool {
        self.0.0.load().is_some()
    }
}

/// How connections to a server of this authority (PEM) are made.
pub(crate) fn config(ca: &[u8], identity: Option<ClientIdentity>) -> ApiResult<ClientConfig> {
    let unusable = |e: &dyn fmt::Display| ApiError::bad_request(format!("the certificate authority is unusable: {e}"));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca) {
        roots.add(certificate.map_err(|e| unusable(&e))?).map_err(|e| unusable(&e))?;
    }
    if roots.is_empty() {
        return Err(unusable(&"it holds no certificate"));
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| unusable(&e))?
        .with_root_certificates(roots);
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(Shown(identity))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// One connection.
pub(crate) async fn connect(
    host: &str,
    port: u16,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
) -> std::io::Result<TokioIo<TlsStream<TcpStream>>> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(TokioIo::new(TlsConnector::from(config).connect(name, stream).await?))
}

/// The name that a server's certificate must be for, where `host` is asked for.
pub(crate) fn server_name(host: &str) -> ApiResult<ServerName<'static>> {
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    ServerName::try_from(host.clone()).map_err(|_| ApiError::bad_request(format!("{host:?} is no name of a server")))
}
