//! The first look at a server: is it the cluster that we were sent to, and is it old enough to be joined?

use super::JoinError;
use crate::client::tls::{connect, server_name};
use crate::server::tls::key_digest_of;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use parking_lot::Mutex;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring::default_provider};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;
use std::time::Duration;

/// How long the server may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// A version is not longer than this.
const LONGEST: usize = 64 << 10;

/// What is known of a server now.
pub(super) struct Probed {
    /// The certificate of its authority, PEM.
    pub(super) ca: String,
    /// `v1.33.0+minik8s-0.1.0`
    pub(super) version: String,
}

/// Trusts the one authority with this pin, which a server of ours shows behind its own certificate.
#[derive(Debug)]
struct Pinned {
    pin: String,
    provider: Arc<CryptoProvider>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    authority: Option<CertificateDer<'static>>,
    others: Vec<String>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let digests = || chain.iter().filter_map(|c| key_digest_of(c));
        let Some(authority) = chain.iter().find(|c| key_digest_of(c).is_some_and(|d| d == self.pin)) else {
            self.seen.lock().others = digests().collect();
            return Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone()).build();
        let verifier = verifier.map_err(|e| Error::General(e.to_string()))?;
        let verified = verifier.verify_server_cert(end, &[], name, ocsp, now)?;
        self.seen.lock().authority = Some(authority.clone().into_owned());
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Looks at the server of a URL, trusting only the authority with this pin.
pub(super) async fn probe(url: &str, pin: &str) -> Result<Probed, JoinError> {
    let unreachable = |cause: String| JoinError::Unreachable { url: url.to_owned(), cause };
    let provider = Arc::new(default_provider());
    let pinned = Arc::new(Pinned { pin: pin.to_owned(), provider: provider.clone(), seen: Mutex::default() });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| unreachable(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(pinned.clone())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let asked = tokio::time::timeout(PATIENCE, version(url, Arc::new(config))).await;
    let outcome = asked.unwrap_or_else(|_| Err("it does not answer".to_owned()));
    let seen = std::mem::take(&mut *pinned.seen.lock());
    match (outcome, seen.authority) {
        (Ok(version), Some(authority)) => Ok(Probed { ca: pem(&authority), version }),
        (_, None) if !seen.others.is_empty() => {
            Err(JoinError::WrongPin { url: url.to_owned(), pin: pin.to_owned(), found: seen.others.join(", ") })
        }
        (Err(cause), _) => Err(unreachable(cause)),
        (Ok(_), None) => Err(unreachable("it showed no certificate authority".to_owned())),
    }
}

async fn version(url: &str, config: Arc<ClientConfig>) -> Result<String, String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let uri: http::Uri = url.parse().map_err(|e| text(&e))?;
    let (Some("https"), Some(host)) = (uri.scheme_str(), uri.host()) else {
        return Err("it is no address such as https://10.0.0.1:6443".to_owned());
    };
    let name = server_name(host).map_err(|e| e.message)?;
    let io = connect(host, uri.port_u16().unwrap_or(443), name, config).await.map_err(|e| text(&e))?;
    let (mut send, connection) = hyper::client::conn::http1::handshake(io).await.map_err(|e| text(&e))?;
    let request = http::Request::get("/version").header(http::header::HOST, host);
    let request = request.body(Empty::<Bytes>::new()).map_err(|e| text(&e))?;
    let answer = async {
        let response = send.send_request(request).await.map_err(|e| text(&e))?;
        let body = Limited::new(response.into_body(), LONGEST).collect().await.map_err(|e| e.to_string())?.to_bytes();
        let value: serde_json::Value = serde_json::from_slice(&body).map_err(|e| text(&e))?;
        let version = value.get("gitVersion").and_then(|v| v.as_str());
        version.map(str::to_owned).ok_or_else(|| "it does not say its version".to_owned())
    };
    tokio::select! {
        answer = answer => answer,
        ended = connection => Err(ended.err().map_or_else(|| "the connection ended".to_owned(), |e| text(&e))),
    }
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let body = STANDARD.encode(certificate);
    let lines: Vec<&str> = body.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
