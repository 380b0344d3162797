//! Certificates: a CA of the cluster's own, made at the first start, and what it signs: the server's certificate, the
//! administrator's, and those of components. Private keys are shown nowhere and readable by the owner alone.

mod files;
mod identity;
mod request;
mod shared;

use super::auth::{MASTERS, User};
use files::{Files, Pair};
use identity::{Facts, Purpose};
use jiff::Timestamp;
use rcgen::{Issuer, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use files::Credentials;
pub(crate) use files::write_private;
pub(crate) use identity::user_of;
pub(crate) use request::key_digest_of;
pub use request::{CertificateRequest, new_key};

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file could not be read or written.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// `read`, `write`, …
        operation: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The key of the CA is there without its certificate, or the other way round.
    #[error("{} is missing, but the other half of the cluster's CA is there: restore it, or remove both to begin a new CA", path.display())]
    HalfMissing {
        /// The missing half.
        path: PathBuf,
    },
    /// What is in a file is no certificate or key.
    #[error("the {what} is unreadable: {cause}")]
    Unreadable {
        /// `CA certificate`, …
        what: &'static str,
        /// Why.
        cause: String,
    },
    /// A certificate could not be made.
    #[error("cannot make the {what} certificate")]
    Make {
        /// `server`, …
        what: &'static str,
        /// Why.
        source: rcgen::Error,
    },
    /// More groups than a certificate made here can hold.
    #[error("no certificate for {user}: it is in {groups} groups, and a certificate holds one")]
    Groups {
        /// Whose.
        user: String,
        /// How many.
        groups: usize,
    },
    /// The CA that several servers share could not be read or written.
    #[error("cannot share the cluster's CA: {0}")]
    Store(String),
    /// The certificates do not make a TLS configuration.
    #[error("unusable TLS configuration: {0}")]
    Config(String),
}

/// A certificate and its private key, as PEM. `Debug` hides the key.
#[derive(Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({} bytes of certificate, key hidden)", self.certificate.len())
    }
}

impl Identity {
    /// The user that the certificate names; `None` where it is none.
    pub fn user(&self) -> Option<User> {
        certificate(self).ok().and_then(|der| user_of(&der))
    }

    /// When the certificate begins and ends to be good; `None` where it is none.
    pub fn validity(&self) -> Option<(Timestamp, Timestamp)> {
        request::validity(self)
    }
}

/// The names and addresses the server is called by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerNames(BTreeSet<String>);

impl ServerNames {
    /// What every server is called by: the host's own names, the Service `kubernetes` and its address.
    pub fn standard(cluster_domain: &str, service_address: IpAddr) -> Self {
        let service = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned);
        Self::default()
            .with(["localhost", "127.0.0.1", "::1"])
            .with(service)
            .with([format!("kubernetes.default.svc.{cluster_domain}"), service_address.to_string()])
    }

    /// Adds names and addresses.
    #[must_use]
    pub fn with<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.0.extend(names.into_iter().map(Into::into));
        self
    }
}

/// The cluster's CA: what its clients trust, and the key that signs for it. `Debug` hides the key.
#[derive(Clone, Debug)]
pub struct Authority(Identity);

impl Authority {
    /// A CA that lives as long as the process.
    ///
    /// # Errors
    /// [`TlsError::Make`].
    pub fn in_memory(now: Timestamp) -> Result<Self, TlsError> {
        identity::make_ca(now).map(Self)
    }

    /// The CA in `directory`, made where there is none.
    ///
    /// # Errors
    /// [`TlsError::HalfMissing`] where key or certificate is gone, [`TlsError::File`].
    pub fn open(directory: &Path, now: Timestamp) -> Result<Self, TlsError> {
        let files = Files::new(directory)?;
        match files.read("ca")? {
            Pair::Both(ca) => Ok(Self(ca)),
            Pair::Neither => files.write("ca", identity::make_ca(now)?).map(Self),
            Pair::Missing(path) => Err(TlsError::HalfMissing { path }),
        }
    }

    /// Its certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.0.certificate
    }

    /// What joining machines know it by: `sha256:` and the digest of its public key.
    ///
    /// # Errors
    /// [`TlsError::Unreadable`].
    pub fn pin(&self) -> Result<String, TlsError> {
        pin_of(&self.0.certificate)
    }

    /// A client certificate and its key for a user, good for a year.
    ///
    /// # Errors
    /// [`TlsError::Make`] for names no certificate can hold.
    pub fn issue_client(&self, user: &User, now: Timestamp) -> Result<Identity, TlsError> {
        identity::issue(self, &Purpose::Client(user.clone()), now)
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, TlsError> {
        let unreadable = |e: rcgen::Error| TlsError::Unreadable { what: "CA", cause: e.to_string() };
        let key = KeyPair::from_pem(&self.0.key).map_err(unreadable)?;
        Issuer::from_ca_cert_pem(&self.0.certificate, key).map_err(unreadable)
    }
}

/// What joining machines know the CA by whose certificate, PEM, this is: `sha256:` and the digest of its public key.
///
/// # Errors
/// [`TlsError::Unreadable`].
pub fn pin_of(certificate: &str) -> Result<String, TlsError> {
    let unreadable = |cause: String| TlsError::Unreadable { what: "CA certificate", cause };
    let der = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|e| unreadable(e.to_string()))?;
    key_digest_of(&der).ok_or_else(|| unreadable("it is no certificate".to_owned()))
}

/// The cluster's CA and the certificates it signed.
#[derive(Clone, Debug)]
pub struct Pki {
    ca: Authority,
    server: Identity,
    admin: Identity,
}

impl Pki {
    /// Certificates that live as long as the process.
    ///
    /// # Errors
    /// [`TlsError::Make`] for names no certificate can hold.
    pub fn in_memory(names: &ServerNames, now: Timestamp) -> Result<Self, TlsError> {
        Self::of(Authority::in_memory(now)?, names, now)
    }

    /// Certificates of this CA that live as long as the process.
    ///
    /// # Errors
    /// [`TlsError::Make`] for names no certificate can hold.
    pub fn of(ca: Authority, names: &ServerNames, now: Timestamp) -> Result<Self, TlsError> {
        let server = identity::issue(&ca, &server_purpose(names), now)?;
        let admin = identity::issue(&ca, &admin_purpose(), now)?;
        Ok(Self { ca, server, admin })
    }

    /// The certificates in `directory`; what is missing, about to expire, or made for other names is made anew.
    ///
    /// # Errors
    /// [`TlsError::File`] and [`TlsError::Unreadable`] where the directory does not hold what it should.
    pub fn open(directory: &Path, names: &ServerNames, now: Timestamp) -> Result<Self, TlsError> {
        let files = Files::new(directory)?;
        let ca = Authority::open(directory, now)?;
        let kept = |name: &str, purpose: &Purpose| -> Result<Identity, TlsError> {
            match files.read(name)? {
                Pair::Both(pair) if identity::still_good(&pair, &ca, purpose, now) => Ok(pair),
                _ => files.write(name, identity::issue(&ca, purpose, now)?),
            }
        };
        let server = kept("server", &server_purpose(names))?;
        let admin = kept("admin", &admin_purpose())?;
        Ok(Self { ca, server, admin })
    }

    /// The CA's certificate, as PEM: what clients trust.
    pub fn ca_certificate(&self) -> &str {
        self.ca.certificate()
    }

    /// The CA, to sign with.
    pub fn authority(&self) -> &Authority {
        &self.ca
    }

    /// The administrator's certificate.
    pub fn admin(&self) -> &Identity {
        &self.admin
    }

    /// A client certificate for a user, good for a year.
    ///
    /// # Errors
    /// [`TlsError::Make`] for names no certificate can hold.
    pub fn issue_client(&self, user: &User, now: Timestamp) -> Result<Identity, TlsError> {
        self.ca.issue_client(user, now)
    }

    /// Serves with the server's certificate, HTTP/2 and HTTP/1.1; clients may show a certificate of this CA.
    ///
    /// # Errors
    /// [`TlsError::Config`] where the certificates do not fit together.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let config = |e: &dyn std::fmt::Display| TlsError::Config(e.to_string());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(certificate(&self.ca.0)?).map_err(|e| config(&e))?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|e| config(&e))?;
        let key = PrivateKeyDer::from_pem_slice(self.server.key.as_bytes()).map_err(|e| config(&e))?;
        let mut served = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| config(&e))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate(&self.server)?, certificate(&self.ca.0)?], key)
            .map_err(|e| config(&e))?;
        served.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(served))
    }
}

fn server_purpose(names: &ServerNames) -> Purpose {
    Purpose::Server(names.0.clone())
}

fn admin_purpose() -> Purpose {
    Purpose::Client(User::new("minik8s-admin", &[MASTERS]))
}

fn certificate(identity: &Identity) -> Result<CertificateDer<'static>, TlsError> {
    CertificateDer::from_pem_slice(identity.certificate.as_bytes())
        .map_err(|e| TlsError::Unreadable { what: "certificate", cause: e.to_string() })
}

fn facts(identity: &Identity) -> Option<Facts> {
    certificate(identity).ok().and_then(|der| Facts::read(&der))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn names() -> ServerNames {
        ServerNames::standard("cluster.local", "10.96.0.1".parse().unwrap())
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn certificates_are_kept_and_renewed_when_they_must_be() {
        let directory = tempfile::tempdir().unwrap();
        let start = at("2026-01-01T00:00:00Z");
        let first = Pki::open(directory.path(), &names(), start).unwrap();
        let again = Pki::open(directory.path(), &names(), at("2026-06-01T00:00:00Z")).unwrap();
        assert_eq!(again.server.certificate, first.server.certificate);
        assert_eq!(again.admin.certificate, first.admin.certificate);
        let more = Pki::open(directory.path(), &names().with(["node-1"]), start).unwrap();
        assert_ne!(more.server.certificate, first.server.certificate);
        assert_eq!(more.admin.certificate, first.admin.certificate);
        let late = Pki::open(directory.path(), &names(), at("2026-12-20T00:00:00Z")).unwrap();
        assert_ne!(late.admin.certificate, first.admin.certificate);
        assert_eq!(late.ca_certificate(), first.ca_certificate());
    }

    #[test]
    fn certificates_of_another_ca_are_not_kept() {
        let directory = tempfile::tempdir().unwrap();
        let now = at("2026-01-01T00:00:00Z");
        let first = Pki::open(directory.path(), &names(), now).unwrap();
        for half in ["ca.crt", "ca.key"] {
            std::fs::remove_file(directory.path().join(half)).unwrap();
        }
        let second = Pki::open(directory.path(), &names(), now).unwrap();
        assert_ne!(second.admin.certificate, first.admin.certificate);
        std::fs::remove_file(directory.path().join("ca.key")).unwrap();
        let error = Pki::open(directory.path(), &names(), now).unwrap_err();
        assert!(error.to_string().contains("ca.key is missing"), "{error}");
    }

    #[test]
    fn keys_are_readable_by_their_owner_alone_and_hidden() {
        let directory = tempfile::tempdir().unwrap();
        let pki = Pki::open(directory.path(), &names(), at("2026-01-01T00:00:00Z")).unwrap();
        for name in ["ca.key", "server.key", "admin.key"] {
            let mode = std::fs::metadata(directory.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        assert!(!format!("{pki:?}").contains("PRIVATE"));
    }

    #[test]
    fn the_owner_of_a_client_certificate_is_read_back() {
        let now = at("2026-01-01T00:00:00Z");
        let pki = Pki::in_memory(&names(), now).unwrap();
        let node = User::new("system:node:n1", &["system:nodes"]);
        let crowd = User::new("x", &["a", "b"]);
        assert!(matches!(pki.issue_client(&crowd, now), Err(TlsError::Groups { groups: 2, .. })));
        let issued = pki.issue_client(&node, now).unwrap();
        assert_eq!(user_of(&certificate(&issued).unwrap()), Some(node));
        assert!(user_of(&certificate(pki.admin()).unwrap()).unwrap().groups.contains(&MASTERS.to_owned()));
        pki.server_config().unwrap();
    }
}
