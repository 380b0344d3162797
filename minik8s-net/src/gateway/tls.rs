//! Certificates: which one a client is shown, by the name it asks for.

use super::table::UsualPorts;
use arc_swap::ArcSwap;
use minik8s_core::routing::{Certificate, Host};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::HashMap;
use std::sync::Arc;

/// What a Secret of type `kubernetes.io/tls` holds. `Debug` hides the key.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsSecret {
    /// `tls.crt`, PEM.
    pub certificate: Vec<u8>,
    /// `tls.key`, PEM.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for TlsSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TlsSecret({} bytes of certificate, key hidden)", self.certificate.len())
    }
}

impl TlsSecret {
    fn certified(&self) -> Result<CertifiedKey, String> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.certificate).collect();
        let chain = chain.map_err(|e| format!("tls.crt is no certificate: {e}"))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|e| format!("tls.key is no private key: {e}"))?;
        let made = CertifiedKey::from_der(chain, key, &ring::default_provider());
        made.map_err(|e| format!("certificate and key do not make a pair: {e}"))
    }
}

/// Certificates by port and name.
#[derive(Default)]
pub(super) struct Certificates {
    ports: HashMap<u16, Names>,
}

#[derive(Default)]
struct Names {
    exact: HashMap<String, Arc<CertifiedKey>>,
    below: HashMap<String, Below>,
    any: Option<Arc<CertifiedKey>>,
}

/// Certificates for `*.example.com`.
#[derive(Default)]
struct Below {
    /// Of one label before it.
    one: Option<Arc<CertifiedKey>>,
    many: Option<Arc<CertifiedKey>>,
}

impl Certificates {
    /// Makes keys of the Secrets that are wanted; returns beside them what is wrong with others.
    pub(super) fn new(
        wanted: &[Certificate],
        secrets: &HashMap<(String, String), TlsSecret>,
        usual: UsualPorts,
    ) -> (Self, Vec<String>) {
        let (mut made, mut broken) = (Self::default(), Vec::new());
        let mut keys: HashMap<(&str, &str), Option<Arc<CertifiedKey>>> = HashMap::new();
        let mut wanted: Vec<&Certificate> = wanted.iter().collect();
        wanted.sort();
        for certificate in wanted {
            let (namespace, name) = (certificate.namespace.as_str(), certificate.secret.as_str());
            let key = keys.entry((namespace, name)).or_insert_with(|| {
                let secret = secrets.get(&(namespace.to_owned(), name.to_owned()))?;
                let key = secret.certified().map_err(|why| broken.push(format!("Secret {namespace}/{name}: {why}")));
                key.ok().map(Arc::new)
            });
            let Some(key) = key else { continue };
            let usual = UsualPorts { http: None, ..usual };
            for port in usual.of(certificate.at) {
                made.ports.entry(port).or_default().add(&certificate.host, key.clone());
            }
        }
        (made, broken)
    }

    fn find(&self, port: u16, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let names = self.ports.get(&port)?;
        let Some(name) = name.map(str::to_ascii_lowercase) else { return names.any.clone() };
        let below = name.match_indices('.').enumerate().find_map(|(nth, (at, _))| {
            let below = names.below.get(&name[at..])?;
            below.one.as_ref().filter(|_| nth == 0).or(below.many.as_ref())
        });
        names.exact.get(&name).or(below).cloned().or_else(|| names.any.clone())
    }
}

impl Names {
    /// Of two for the same name, the first stays: that of the older owner.
    fn add(&mut self, host: &Host, key: Arc<CertifiedKey>) {
        match host {
            Host::Any => drop(self.any.get_or_insert(key)),
            Host::Exact(name) => drop(self.exact.entry(name.clone()).or_insert(key)),
            Host::Below { suffix, one_label } => {
                let below = self.below.entry(suffix.clone()).or_default();
                let _ = if *one_label { &mut below.one } else { &mut below.many }.get_or_insert(key);
            }
        }
    }
}

struct Resolver {
    port: u16,
    certificates: Arc<ArcSwap<Certificates>>,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Resolver({})", self.port)
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let found = self.certificates.load().find(self.port, hello.server_name());
        if found.is_none() {
            tracing::debug!(name = hello.server_name(), port = self.port, "no certificate for this name");
        }
        found
    }
}

/// TLS for one port, with whatever certificates there are at the moment. A name without one is refused.
pub(super) fn server_config(
    certificates: Arc<ArcSwap<Certificates>>,
    port: u16,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?.with_no_client_auth();
    let mut config = builder.with_cert_resolver(Arc::new(Resolver { port, certificates }));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
