//! Whom calls over HTTPS trust: the authorities that the machine trusts, and those that the configuration adds.

use minik8s_core::api::{ApiError, ApiResult};
use rustls::crypto::ring::default_provider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::fmt;
use std::sync::{Arc, LazyLock};

/// The authorities of the machine, read once: the bundle that `SSL_CERT_FILE` names, or that of the system
/// (`/etc/ssl/certs/ca-certificates.crt` and what others call it).
static MACHINE: LazyLock<RootCertStore> = LazyLock::new(|| {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "certificate authorities of this machine cannot be read");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    roots
});

/// Certificate authorities that steps trust beside those of the machine. Cheap to clone.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Authorities(Arc<Vec<CertificateDer<'static>>>);

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authorities({})", self.0.len())
    }
}

impl Authorities {
    /// The certificates of this text, PEM.
    ///
    /// # Errors
    /// `BadRequest` where one of them cannot be used, or there is none.
    pub fn from_pem(pem: &[u8]) -> ApiResult<Self> {
        let unusable = |e: &dyn fmt::Display| ApiError::bad_request(format!("no certificate authorities: {e}"));
        let all: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|e| unusable(&e))?;
        let mut roots = RootCertStore::empty();
        for certificate in &all {
            roots.add(certificate.clone()).map_err(|e| unusable(&e))?;
        }
        if roots.is_empty() {
            return Err(unusable(&"there is no certificate in PEM"));
        }
        Ok(Self(Arc::new(all)))
    }
}

/// How connections are made that trust these beside those of the machine. Reads files when it is first called.
pub(super) fn client(further: &Authorities) -> Result<ClientConfig, rustls::Error> {
    let mut roots = MACHINE.clone();
    roots.add_parsable_certificates(further.0.iter().cloned());
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    Ok(builder.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth())
}

/// True where a connection failed because of the certificate that was shown.
pub(super) fn is_untrusted(error: &rustls::Error) -> bool {
    matches!(error, rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_authority_is_refused() {
        let made = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
        let two = format!("{}\n{}", made.cert.pem(), made.cert.pem());
        assert_eq!(format!("{:?}", Authorities::from_pem(two.as_bytes()).unwrap()), "Authorities(2)");
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for text in ["", "no PEM", &made.signing_key.serialize_pem(), broken] {
            let error = Authorities::from_pem(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("no certificate authorities") && !error.contains("PRIVATE"), "{error}");
        }
    }
}
