//! Requests for certificates: made by whoever has a key, signed by whoever has the CA's.

use super::identity::{lifetime, named};
use super::{Authority, Identity, TlsError};
use crate::server::auth::User;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, PublicKey,
};
use sha2::{Digest, Sha256};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

/// A request that was signed with the key it is about (PKCS #10, RFC 2986).
pub struct CertificateRequest {
    user: User,
    plain: bool,
    digest: String,
    key: PublicKey,
}

impl CertificateRequest {
    /// Reads a request, PEM, and checks its signature.
    ///
    /// # Errors
    /// [`TlsError::Unreadable`].
    pub fn parse(pem: &str) -> Result<Self, TlsError> {
        let unreadable = |cause: String| TlsError::Unreadable { what: "certificate request", cause };
        let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|e| unreadable(e.to_string()))?;
        if block.label != "CERTIFICATE REQUEST" {
            return Err(unreadable(format!("it is a PEM block of type {:?}, not CERTIFICATE REQUEST", block.label)));
        }
        let parsed = CertificateSigningRequestParams::from_der(&block.contents.as_slice().into());
        let parsed = parsed.map_err(|e| unreadable(e.to_string()))?;
        let (_, request) =
            X509CertificationRequest::from_der(&block.contents).map_err(|e| unreadable(e.to_string()))?;
        let info = &request.certification_request_info;
        let name = info.subject.iter_common_name().find_map(|n| n.as_str().ok()).unwrap_or_default().to_owned();
        let groups = info.subject.iter_organization().filter_map(|g| g.as_str().ok()).map(str::to_owned).collect();
        Ok(Self {
            user: User { name, groups },
            plain: parsed.params.subject_alt_names.is_empty(),
            digest: digest(info.subject_pki.raw),
            key: parsed.public_key,
        })
    }

    /// A request for a client certificate of this user, signed with a key in PEM.
    ///
    /// # Errors
    /// [`TlsError::Unreadable`] where the key is none, [`TlsError::Groups`] for more than one group.
    pub fn make(user: &User, key: &str) -> Result<String, TlsError> {
        let key = KeyPair::from_pem(key).map_err(|e| TlsError::Unreadable { what: "key", cause: e.to_string() })?;
        let mut params = CertificateParams::default();
        named(&mut params, user)?;
        let failed = |source| TlsError::Make { what: "request for a client", source };
        params.serialize_request(&key).and_then(|request| request.pem()).map_err(failed)
    }

    /// Whom the certificate shall name.
    pub fn user(&self) -> &User {
        &self.user
    }

    /// True where it asks for no names or addresses to serve under.
    pub fn is_plain(&self) -> bool {
        self.plain
    }

    /// `sha256:` and the digest of the public key (its SubjectPublicKeyInfo), in hexadecimal digits.
    pub fn key_digest(&self) -> &str {
        &self.digest
    }
}

/// A new private key, PEM.
///
/// # Errors
/// [`TlsError::Make`].
pub fn new_key() -> Result<String, TlsError> {
    let key = KeyPair::generate().map_err(|source| TlsError::Make { what: "key for a client", source })?;
    Ok(key.serialize_pem())
}

/// `sha256:` and a digest in hexadecimal digits, as kubeadm pins authorities.
pub(super) fn digest(key_info: &[u8]) -> String {
    let hex: String = Sha256::digest(key_info).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// The digest of the key that a certificate in DER is for; `None` where it is no certificate.
pub(crate) fn key_digest_of(certificate: &[u8]) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(digest(parsed.public_key().raw))
}

impl Authority {
    /// A client certificate, PEM, for the user and key of a request.
    ///
    /// # Errors
    /// [`TlsError::Groups`] for more than one group, [`TlsError::Make`] for names no certificate can hold.
    pub fn sign(&self, request: &CertificateRequest, life: SignedDuration, now: Timestamp) -> Result<String, TlsError> {
        let mut params = CertificateParams::default();
        named(&mut params, request.user())?;
        lifetime(&mut params, now, life);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let failed = |source| TlsError::Make { what: "client", source };
        let certificate = params.signed_by(&request.key, &self.issuer()?).map_err(failed)?;
        Ok(certificate.pem())
    }
}

/// When a certificate in PEM begins and ends to be good.
pub(super) fn validity(identity: &Identity) -> Option<(Timestamp, Timestamp)> {
    let der = super::certificate(identity).ok()?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).ok()?;
    let at = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
    Some((at(parsed.validity().not_before)?, at(parsed.validity().not_after)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tls::user_of;
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;

    #[test]
    fn what_is_asked_for_is_signed_and_nothing_more() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let authority = Authority::in_memory(now).unwrap();
        let (node, key) = (User::of_node("n1"), new_key().unwrap());
        let text = CertificateRequest::make(&node, &key).unwrap();
        let request = CertificateRequest::parse(&text).unwrap();
        assert!(request.user() == &node && request.is_plain() && request.key_digest().starts_with("sha256:"));
        let signed = authority.sign(&request, SignedDuration::from_hours(1), now).unwrap();
        let der = CertificateDer::from_pem_slice(signed.as_bytes()).unwrap();
        assert_eq!(user_of(&der), Some(node));
        assert_eq!(key_digest_of(&der).unwrap(), request.key_digest());
        let (begin, end) = validity(&Identity { certificate: signed, key }).unwrap();
        assert!(begin < now && end == now + SignedDuration::from_hours(1));
    }

    #[test]
    fn what_is_no_request_or_badly_signed_is_refused() {
        let refused = |text: &str| CertificateRequest::parse(text).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(refused("hello").contains("certificate request is unreadable"));
        assert!(refused(&new_key().unwrap()).contains("not CERTIFICATE REQUEST"));
        let text = CertificateRequest::make(&User::of_node("n1"), &new_key().unwrap()).unwrap();
        let (_, mut block) = x509_parser::pem::parse_x509_pem(text.as_bytes()).unwrap();
        let last = block.contents.len() - 1;
        block.contents[last] ^= 1;
        use base64::Engine;
        let body = base64::engine::general_purpose::STANDARD.encode(&block.contents);
        let forged = format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n");
        assert!(!refused(&forged).is_empty(), "a forged signature was taken");
    }
}
