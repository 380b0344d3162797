//! What is wrong with the certificates that Secrets hold.

use crate::routing::Key;
use k8s_openapi::api::core::v1::Secret;
use rustls::crypto::ring;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is wrong with each; nothing where it is fine.
pub(super) fn judge(secrets: &[Arc<Secret>]) -> BTreeMap<Key, Result<(), String>> {
    let key = |secret: &Secret| {
        (secret.metadata.namespace.clone().unwrap_or_default(), secret.metadata.name.clone().unwrap_or_default())
    };
    secrets.iter().map(|secret| (key(secret), check(secret))).collect()
}

fn check(secret: &Secret) -> Result<(), String> {
    let part = |name: &str| {
        let data = secret.data.as_ref().and_then(|data| data.get(name));
        data.map(|bytes| bytes.0.as_slice()).ok_or_else(|| format!("it has no {name}"))
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(part("tls.crt")?).collect();
    let chain = chain.map_err(|_| "tls.crt is no certificate".to_owned())?;
    let key = PrivateKeyDer::from_pem_slice(part("tls.key")?).map_err(|_| "tls.key is no private key".to_owned())?;
    let pair = CertifiedKey::from_der(chain, key, &ring::default_provider());
    pair.map(drop).map_err(|_| "tls.crt and tls.key do not make a pair".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    #[test]
    fn only_pairs_are_fine_and_no_key_is_told() {
        let made = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let (a, b) = (made("a.example"), made("b.example"));
        let secret = |certificate: &str, key: &str| {
            let data = [("tls.crt", certificate), ("tls.key", key)];
            let data = data.into_iter().map(|(k, v)| (k.to_owned(), ByteString(v.as_bytes().to_vec()))).collect();
            check(&Secret { data: Some(data), ..Secret::default() })
        };
        let key = a.signing_key.serialize_pem();
        assert_eq!(secret(&a.cert.pem(), &key), Ok(()));
        for (certificate, key, why) in [
            (b.cert.pem(), key.clone(), "tls.crt and tls.key do not make a pair"),
            ("x".into(), key, "tls.crt and tls.key do not make a pair"),
            (a.cert.pem(), "x".into(), "tls.key is no private key"),
        ] {
            assert_eq!(secret(&certificate, &key), Err(why.to_owned()));
        }
        assert_eq!(check(&Secret::default()), Err("it has no tls.crt".to_owned()));
    }
}
