//! An image as it lies in a registry: its manifests, and its blobs as streams.

use super::content::digest;
use super::manifest::{Descriptor, Manifest, OCI_INDEX, OCI_MANIFEST};
use super::{ImageName, normalize, registry_certs};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use minik8s_core::runtime::{RegistryAuth, RuntimeError, RuntimeResult};
use oci_client::Reference;
use oci_client::client::{Client, ClientConfig, ClientProtocol};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// A registry that is silent for so long is gone.
const SILENCE: Duration = Duration::from_secs(60);
pub(super) const CONNECT: Duration = Duration::from_secs(20);

/// An image in a registry, for this machine. Its manifests are here and verified; its blobs come when they are asked for.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use futures::TryStreamExt;
///
/// let image = minik8s_runtime::RemoteImage::find("docker.io/library/python:3-slim", None).await?;
/// for (digest, size) in image.blobs() {
///     let bytes: u64 = image.blob(digest).await?.try_fold(0, async |sum, part| Ok(sum + part.len() as u64)).await?;
///     assert_eq!(bytes, size);
/// }
/// # Ok(())
/// # }
/// ```
pub struct RemoteImage {
    client: Client,
    reference: Reference,
    auth: oci_client::secrets::RegistryAuth,
    manifest: Manifest,
    /// What the name stands for; where that is an index, followed by this machine's.
    manifests: Vec<(Descriptor, Vec<u8>)>,
}

/// How registries are reached.
#[derive(Clone, Copy)]
pub(super) struct Way<'a> {
    pub(super) certificates: &'a [PathBuf],
    pub(super) plain_http: &'a [String],
    pub(super) connect: Duration,
}

impl Way<'_> {
    fn is_plain(&self, registry: &str) -> bool {
        let host = registry.split(':').next().unwrap_or_default();
        host == "localhost" || host.starts_with("127.") || self.plain_http.iter().any(|r| r == registry)
    }
}

impl RemoteImage {
    /// Finds an image by its name, as users write it. Its registry's certificate is checked against those
    /// below `/etc/docker/certs.d` and `/etc/containerd/certs.d`, too; registries of this machine that have none are asked
    /// without TLS.
    ///
    /// # Errors
    /// [`RuntimeError::Pull`], with what the registry said.
    pub async fn find(name: &str, auth: Option<&RegistryAuth>) -> RuntimeResult<Self> {
        let parsed = normalize(name)?;
        let certificates = crate::config::REGISTRY_CERTS.map(PathBuf::from);
        let way = Way { certificates: &certificates, plain_http: &[], connect: CONNECT };
        Self::find_at(&parsed.registry, &parsed, auth, way).await.map_err(|error| match error {
            RuntimeError::Pull { cause, .. } => RuntimeError::Pull { image: name.to_owned(), cause },
            other => other,
        })
    }

    /// Finds an image in one of the places of its registry.
    pub(super) async fn find_at(
        place: &str,
        name: &ImageName,
        auth: Option<&RegistryAuth>,
        way: Way<'_>,
    ) -> RuntimeResult<Self> {
        // Whoever comes second loses, which is fine: all of this workspace use the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (directories, named) = (way.certificates.to_vec(), name.registry.clone());
        let certificates = tokio::task::spawn_blocking(move || registry_certs::read(&directories, &named)).await;
        let certificates = certificates.map_err(io::Error::other).flatten().map_err(|e| failed(&e.to_string()))?;
        let plain = certificates.is_empty() && way.is_plain(&name.registry);
        let config = ClientConfig {
            protocol: if plain { ClientProtocol::Http } else { ClientProtocol::Https },
            extra_root_certificates: certificates,
            connect_timeout: Some(way.connect),
            read_timeout: Some(SILENCE),
            user_agent: concat!("minik8s/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let client = Client::try_from(config).map_err(|e| failed(&plain_cause(&e)))?;
        let auth = match auth {
            Some(a) => oci_client::secrets::RegistryAuth::Basic(a.username.clone(), a.password.clone()),
            None => oci_client::secrets::RegistryAuth::Anonymous,
        };
        let mut image = Self {
            client,
            reference: reference(place, name),
            auth,
            manifest: Manifest::default(),
            manifests: Vec::new(),
        };
        image.load(name).await?;
        Ok(image)
    }

    /// The bytes of this machine's manifest, and their media type.
    pub fn manifest(&self) -> (&[u8], &str) {
        self.manifests.last().map_or((&[], ""), |(descriptor, bytes)| (bytes, &descriptor.media_type))
    }

    /// Digest and size in bytes of all that the manifest leads to: the layers, the lowest first, and the configuration.
    pub fn blobs(&self) -> impl Iterator<Item = (&str, u64)> {
        self.descriptors().map(|blob| (blob.digest.as_str(), blob.size))
    }

    /// A blob, as it comes: whoever keeps it compares digests.
    ///
    /// # Errors
    /// [`RuntimeError::Pull`].
    pub async fn blob(&self, digest: &str) -> RuntimeResult<BoxStream<'static, io::Result<Bytes>>> {
        let sized = self.client.pull_blob_stream(&self.reference, digest).await;
        Ok(sized.map_err(|e| failed(&plain_cause(&e)))?.stream.boxed())
    }

    pub(super) fn descriptors(&self) -> impl Iterator<Item = &Descriptor> {
        self.manifest.layers.iter().chain(&self.manifest.config)
    }

    pub(super) fn manifests(&self) -> &[(Descriptor, Vec<u8>)] {
        &self.manifests
    }

    /// Digests are verified.
    async fn load(&mut self, name: &ImageName) -> RuntimeResult<()> {
        let (mut next, mut expected) = (self.reference.clone(), name.digest.clone());
        // An index may be within an index.
        for _ in 0..3 {
            let (descriptor, bytes, manifest) = self.fetch(&next, expected.as_deref()).await?;
            self.manifests.push((descriptor, bytes));
            if manifest.config.is_some() {
                self.manifest = manifest;
                return Ok(());
            }
            let Some(entry) = manifest.for_this_machine() else { break };
            let registry = self.reference.registry().to_owned();
            next = Reference::with_digest(registry, name.repository.clone(), entry.digest.clone());
            expected = Some(entry.digest.clone());
        }
        Err(failed(&format!("no manifest for linux/{}", super::manifest::machine_architecture())))
    }

    async fn fetch(
        &self,
        reference: &Reference,
        expected: Option<&str>,
    ) -> RuntimeResult<(Descriptor, Vec<u8>, Manifest)> {
        let accepted = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX];
        let pulled = self.client.pull_manifest_raw(reference, &self.auth, &accepted).await;
        let (bytes, _) = pulled.map_err(|e| failed(&plain_cause(&e)))?;
        let actual = digest(&bytes);
        if let Some(expected) = expected.filter(|expected| *expected != actual) {
            return Err(failed(&format!("digest mismatch: the manifest is {actual}, not {expected}")));
        }
        let typed: Manifest =
            serde_json::from_slice(&bytes).map_err(|e| failed(&format!("unreadable manifest: {e}")))?;
        let media_type = match (typed.media_type.as_str(), typed.config.is_some()) {
            ("", true) => OCI_MANIFEST,
            ("", false) => OCI_INDEX,
            (said, _) => said,
        };
        let descriptor = Descriptor {
            media_type: media_type.to_owned(),
            digest: actual,
            size: bytes.len() as u64,
            ..Descriptor::default()
        };
        Ok((descriptor, bytes.to_vec(), typed))
    }
}

fn reference(place: &str, name: &ImageName) -> Reference {
    let (registry, repository) = (place.to_owned(), name.repository.clone());
    match (&name.digest, &name.tag) {
        (Some(digest), _) => Reference::with_digest(registry, repository, digest.clone()),
        (None, tag) => Reference::with_tag(registry, repository, tag.clone().unwrap_or_else(|| "latest".to_owned())),
    }
}

pub(super) fn failed(cause: &str) -> RuntimeError {
    RuntimeError::Pull { image: String::new(), cause: cause.to_owned() }
}

/// The innermost cause: the outer ones only name the layers of the HTTP client.
fn plain_cause(error: &oci_client::errors::OciDistributionError) -> String {
    use oci_client::errors::OciDistributionError as E;
    match error {
        E::ImageManifestNotFoundError(_) => "not found".to_owned(),
        E::UnauthorizedError { .. } | E::AuthenticationFailure(_) => {
            "access denied: credentials are missing or wrong".to_owned()
        }
        E::ServerError { code: 404, .. } => "not found".to_owned(),
        E::RegistryError { envelope, .. } => {
            let code = envelope.errors.first().map(|e| format!("{:?}", e.code)).unwrap_or_default();
            match code.as_str() {
                "ManifestUnknown" | "NameUnknown" | "NotFound" | "BlobUnknown" => "not found".to_owned(),
                "Denied" | "Unauthorized" => "access denied: credentials are missing or wrong".to_owned(),
                _ => error.to_string(),
            }
        }
        _ => {
            let mut last: &dyn std::error::Error = error;
            while let Some(next) = last.source() {
                last = next;
            }
            match last.to_string() {
                text if text.contains("UnknownIssuer") || text.contains("BadSignature") => format!(
                    "{text}: nobody this machine trusts signed the registry's certificate; put its CA's certificate into \
                     /etc/docker/certs.d/<registry>/ca.crt"
                ),
                text => text,
            }
        }
    }
}
