//! Making certificates, and reading what one says.

use super::{Authority, Identity, TlsError, User, facts};
use jiff::{SignedDuration, Timestamp};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::SystemTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};

const CA_LIFE: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);
const LEAF_LIFE: SignedDuration = SignedDuration::from_hours(365 * 24);
/// A certificate is renewed when it has less than this left.
const RENEWAL: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Certificates are good from a little before they are made: clocks differ.
const SKEW: SignedDuration = SignedDuration::from_hours(1);

/// What a certificate is for.
pub(super) enum Purpose {
    /// Serving under these names and addresses.
    Server(BTreeSet<String>),
    /// Asking as this user.
    Client(User),
}

impl Purpose {
    fn what(&self) -> &'static str {
        match self {
            Purpose::Server(_) => "server",
            Purpose::Client(_) => "client",
        }
    }

    fn subject(&self) -> (String, BTreeSet<String>) {
        match self {
            Purpose::Server(_) => ("kube-apiserver".to_owned(), BTreeSet::new()),
            Purpose::Client(user) => (user.name.clone(), user.groups.iter().cloned().collect()),
        }
    }
}

/// A new CA.
pub(super) fn make_ca(now: Timestamp) -> Result<Identity, TlsError> {
    let failed = |source| TlsError::Make { what: "CA", source };
    let mut params = CertificateParams::default();
    lifetime(&mut params, now, CA_LIFE);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "minik8s-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// A new certificate, signed by the CA.
pub(super) fn issue(ca: &Authority, purpose: &Purpose, now: Timestamp) -> Result<Identity, TlsError> {
    let failed = |source| TlsError::Make { what: purpose.what(), source };
    let (usage, names) = match purpose {
        Purpose::Server(names) => (ExtendedKeyUsagePurpose::ServerAuth, names.iter().cloned().collect()),
        Purpose::Client(_) => (ExtendedKeyUsagePurpose::ClientAuth, Vec::new()),
    };
    let mut params = CertificateParams::new(names).map_err(failed)?;
    lifetime(&mut params, now, LEAF_LIFE);
    let (name, groups) = purpose.subject();
    named(&mut params, &User { name, groups: groups.into_iter().collect() })?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.signed_by(&key, &ca.issuer()?).map_err(failed)?;
    Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// Names a user in a certificate, which holds one organisation.
pub(super) fn named(params: &mut CertificateParams, user: &User) -> Result<(), TlsError> {
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, user.name.clone());
    if user.groups.len() > 1 {
        return Err(TlsError::Groups { user: user.name.clone(), groups: user.groups.len() });
    }
    if let Some(group) = user.groups.first() {
        params.distinguished_name.push(DnType::OrganizationName, group.clone());
    }
    Ok(())
}

pub(super) fn lifetime(params: &mut CertificateParams, now: Timestamp, life: SignedDuration) {
    params.not_before = SystemTime::from(now.saturating_add(-SKEW).unwrap_or(now)).into();
    params.not_after = SystemTime::from(now.saturating_add(life).unwrap_or(Timestamp::MAX)).into();
}

/// What a certificate says.
pub(super) struct Facts {
    name: String,
    groups: BTreeSet<String>,
    alternatives: BTreeSet<String>,
    signed_by: Option<Vec<u8>>,
    own_key: Option<Vec<u8>>,
    ends: i64,
}

impl Facts {
    /// Reads a certificate; `None` where it is none.
    pub(super) fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        let (name, groups) = subject(&certificate);
        let mut facts = Self {
            name,
            groups,
            alternatives: BTreeSet::new(),
            signed_by: None,
            own_key: None,
            ends: certificate.validity().not_after.timestamp(),
        };
        for extension in certificate.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(names) => {
                    facts.alternatives = names.general_names.iter().filter_map(alternative).collect();
                }
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    facts.signed_by = id.key_identifier.as_ref().map(|k| k.0.to_vec());
                }
                ParsedExtension::SubjectKeyIdentifier(id) => facts.own_key = Some(id.0.to_vec()),
                _ => {}
            }
        }
        Some(facts)
    }
}

fn subject(certificate: &X509Certificate<'_>) -> (String, BTreeSet<String>) {
    let subject = certificate.subject();
    let name = subject.iter_common_name().find_map(|n| n.as_str().ok()).unwrap_or_default();
    let groups = subject.iter_organization().filter_map(|g| g.as_str().ok()).map(str::to_owned).collect();
    (name.to_owned(), groups)
}

fn alternative(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
        },
        _ => None,
    }
}

/// True where a certificate is of this CA, for this purpose, and lasts a while yet.
pub(super) fn still_good(pair: &Identity, ca: &Authority, purpose: &Purpose, now: Timestamp) -> bool {
    let (Some(facts), Some(ca)) = (facts(pair), facts(&ca.0)) else { return false };
    let lasting = facts.ends > now.saturating_add(RENEWAL).unwrap_or(now).as_second();
    let ours = facts.signed_by.is_some() && facts.signed_by == ca.own_key;
    let subject = purpose.subject() == (facts.name, facts.groups);
    let names = match purpose {
        Purpose::Server(names) => *names == facts.alternatives,
        Purpose::Client(_) => true,
    };
    lasting && ours && subject && names
}

/// The user a client certificate names: its common name, in the groups its organisations are.
pub(crate) fn user_of(der: &[u8]) -> Option<User> {
    let facts = Facts::read(der)?;
    (!facts.name.is_empty()).then(|| User { name: facts.name, groups: facts.groups.into_iter().collect() })
}
