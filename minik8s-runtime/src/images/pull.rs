//! Pulling images from registries. Nothing becomes visible before all of it is here and verified.

use super::content::{Blob, digest};
use super::manifest::{Descriptor, Manifest, OCI_INDEX, OCI_MANIFEST};
use super::{ImageName, ImageStore, normalize, registry_certs};
use crate::connection::Lease;
use bytes::Bytes;
use futures::StreamExt;
use futures::future::try_join_all;
use minik8s_core::runtime::{ImageInfo, PullProgress, RegistryAuth, RuntimeError, RuntimeResult};
use oci_client::Reference;
use oci_client::client::{Client, ClientConfig, ClientProtocol};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Downloads of one image at a time.
const PARALLEL: usize = 4;
/// A registry that is silent for so long is gone.
const SILENCE: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(20);
/// Where there are other places to ask, nobody waits for a dead one for long.
const CONNECT_ONE_OF_SEVERAL: Duration = Duration::from_secs(3);

/// One pull's view of a registry.
struct Source {
    client: Client,
    reference: Reference,
    auth: oci_client::secrets::RegistryAuth,
    progress: Progress,
}

/// What the caller is told. A caller that does not keep up misses steps, never the last.
struct Progress {
    to: Option<mpsc::Sender<PullProgress>>,
    bytes: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    fn now(&self, phase: &'static str) -> PullProgress {
        PullProgress { phase, bytes: self.bytes.load(Ordering::Relaxed), total: self.total.load(Ordering::Relaxed) }
    }

    fn say(&self, phase: &'static str) {
        self.to.as_ref().inspect(|to| drop(to.try_send(self.now(phase))));
    }
}

impl ImageStore {
    pub(crate) async fn pull(
        &self,
        name: &str,
        auth: Option<&RegistryAuth>,
        progress: Option<mpsc::Sender<PullProgress>>,
    ) -> RuntimeResult<ImageInfo> {
        let asked = Instant::now();
        let parsed = normalize(name)?;
        // Who has other credentials has to show them: the lock is per image and credentials.
        let key = digest(
            format!("{parsed}\n{}", auth.map(|a| format!("{}\n{}", a.username, a.password)).unwrap_or_default())
                .as_bytes(),
        );
        let last = self.pulls.lock().entry(key.clone()).or_default().clone();
        let mut finished = last.lock().await;
        let to = progress.clone();
        if finished.is_none_or(|at| at < asked) {
            self.pull_from_any(&parsed, auth, progress).await.map_err(|e| as_pull_error(name, e))?;
            *finished = Some(Instant::now());
        }
        drop(finished);
        // Held by nobody else, so nobody waits for it.
        self.pulls.lock().retain(|k, lock| *k != key || std::sync::Arc::strong_count(lock) > 2);
        let info = self.info(&parsed.to_string()).await?;
        let info = info.ok_or_else(|| RuntimeError::Pull {
            image: name.to_owned(),
            cause: "it was removed meanwhile".to_owned(),
        })?;
        if let Some(to) = to {
            let _ = to.send(PullProgress { phase: "done", bytes: info.size, total: info.size }).await;
        }
        Ok(info)
    }

    /// Pulls from the first place of the registry that gives the image.
    async fn pull_from_any(
        &self,
        name: &ImageName,
        auth: Option<&RegistryAuth>,
        progress: Option<mpsc::Sender<PullProgress>>,
    ) -> RuntimeResult<()> {
        let mirror = self.mirrors.get(&name.registry);
        let last = self.last.lock().get(&name.registry).cloned();
        let places = mirror.map_or_else(|| vec![name.registry.clone()], |mirror| mirror.places(last.as_ref()));
        let connect = if places.len() > 1 { CONNECT_ONE_OF_SEVERAL } else { CONNECT };
        let mut failed = None;
        for place in places {
            let source = self.source(name, &place, auth, (progress.clone(), connect)).await?;
            match self.pull_from(&source, name).await {
                Ok(()) => {
                    if mirror.is_some() {
                        self.last.lock().insert(name.registry.clone(), place);
                    }
                    return Ok(());
                }
                Err(error) => match as_pull_error(&name.to_string(), error) {
                    error @ RuntimeError::Pull { .. } => {
                        tracing::debug!(%error, place, "a registry did not give an image");
                        failed = Some(error);
                    }
                    // What is no registry's fault is the same everywhere.
                    error => return Err(error),
                },
            }
        }
        Err(failed.unwrap_or_else(|| self::failed("its registry is nowhere")))
    }

    async fn source(
        &self,
        name: &ImageName,
        registry: &str,
        auth: Option<&RegistryAuth>,
        (to, connect): (Option<mpsc::Sender<PullProgress>>, Duration),
    ) -> RuntimeResult<Source> {
        // Whoever comes second loses, which is fine: all of this workspace use the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (directories, named) = (self.registry_certs.clone(), name.registry.clone());
        let certificates = tokio::task::spawn_blocking(move || registry_certs::read(&directories, &named)).await;
        let certificates = certificates.map_err(std::io::Error::other).flatten().map_err(|e| failed(&e.to_string()))?;
        let plain = certificates.is_empty() && self.is_plain(&name.registry);
        let config = ClientConfig {
            protocol: if plain { ClientProtocol::Http } else { ClientProtocol::Https },
            extra_root_certificates: certificates,
            connect_timeout: Some(connect),
            read_timeout: Some(SILENCE),
            user_agent: concat!("minik8s/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let (registry, repository) = (registry.to_owned(), name.repository.clone());
        let reference = match (&name.digest, &name.tag) {
            (Some(digest), _) => Reference::with_digest(registry, repository, digest.clone()),
            (None, tag) => {
                Reference::with_tag(registry, repository, tag.clone().unwrap_or_else(|| "latest".to_owned()))
            }
        };
        let auth = match auth {
            Some(a) => oci_client::secrets::RegistryAuth::Basic(a.username.clone(), a.password.clone()),
            None => oci_client::secrets::RegistryAuth::Anonymous,
        };
        let progress = Progress { to, bytes: AtomicU64::new(0), total: AtomicU64::new(0) };
        let client = Client::try_from(config).map_err(|e| failed(&plain_cause(&e)))?;
        Ok(Source { client, reference, auth, progress })
    }

    fn is_plain(&self, registry: &str) -> bool {
        let host = registry.split(':').next().unwrap_or_default();
        host == "localhost" || host.starts_with("127.") || self.plain_http.iter().any(|r| r == registry)
    }

    async fn pull_from(&self, source: &Source, name: &ImageName) -> RuntimeResult<()> {
        source.progress.say("resolving");
        let lease = self.connection.lease().await?;
        let pulled = self.pull_leased(source, name, &lease).await;
        self.connection.release(lease).await;
        pulled
    }

    async fn pull_leased(&self, source: &Source, name: &ImageName, lease: &Lease) -> RuntimeResult<()> {
        let manifests = source.manifests(name).await?;
        let Some((_, bytes)) = manifests.last() else { return Err(failed("the registry sent no manifest")) };
        let manifest: Manifest =
            serde_json::from_slice(bytes).map_err(|e| failed(&format!("unreadable manifest: {e}")))?;
        let blobs: Vec<&Descriptor> = manifest.layers.iter().chain(&manifest.config).collect();
        source.progress.total.store(blobs.iter().map(|b| b.size).sum(), Ordering::Relaxed);
        source.progress.say("downloading");
        let room = Semaphore::new(PARALLEL);
        try_join_all(blobs.iter().map(|blob| self.pull_blob(source, blob, &room, lease))).await?;
        // Inner manifests first: what an index refers to is here when it is.
        for (descriptor, bytes) in manifests.iter().rev() {
            self.store_manifest(descriptor, bytes.clone(), lease).await?;
        }
        source.progress.say("unpacking");
        let target = manifests.first().map(|(d, _)| d.clone()).unwrap_or_default();
        self.finish(&target, std::slice::from_ref(name), lease).await?;
        Ok(())
    }

    async fn pull_blob(
        &self,
        source: &Source,
        blob: &Descriptor,
        room: &Semaphore,
        lease: &Lease,
    ) -> RuntimeResult<()> {
        let _place = room.acquire().await;
        if self.connection.has_blob(&blob.digest, lease).await? {
            source.progress.bytes.fetch_add(blob.size, Ordering::Relaxed);
            source.progress.say("downloading");
            return Ok(());
        }
        let stream = source.client.pull_blob_stream(&source.reference, blob.digest.as_str()).await;
        let mut stream = stream.map_err(|e| failed(&plain_cause(&e)))?.stream;
        let (sender, receiver) = mpsc::channel::<std::io::Result<Bytes>>(4);
        let feed = async move {
            while let Some(part) = stream.next().await {
                let part = part.inspect(|bytes| {
                    source.progress.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    source.progress.say("downloading");
                });
                if sender.send(part).await.is_err() {
                    return;
                }
            }
        };
        let store = Blob { digest: &blob.digest, size: blob.size, labels: Vec::new() };
        let ((), stored) = tokio::join!(feed, self.connection.write_stream(receiver, store, lease));
        stored
    }
}

impl Source {
    /// The manifest that the name stands for; where that is an index, followed by this machine's. Digests are verified.
    async fn manifests(&self, name: &ImageName) -> RuntimeResult<Vec<(Descriptor, Vec<u8>)>> {
        let mut found = vec![self.manifest(&self.reference, name.digest.as_deref()).await?];
        while let Some((_, bytes)) = found.last() {
            let manifest: Manifest =
                serde_json::from_slice(bytes).map_err(|e| failed(&format!("unreadable manifest: {e}")))?;
            if manifest.config.is_some() {
                return Ok(found);
            }
            let Some(entry) = manifest.for_this_machine().filter(|_| found.len() < 3) else { break };
            let registry = self.reference.registry().to_owned();
            let reference = Reference::with_digest(registry, name.repository.clone(), entry.digest.clone());
            let inner = self.manifest(&reference, Some(&entry.digest)).await?;
            found.push(inner);
        }
        Err(failed(&format!("no manifest for linux/{}", super::manifest::machine_architecture())))
    }

    async fn manifest(&self, reference: &Reference, expected: Option<&str>) -> RuntimeResult<(Descriptor, Vec<u8>)> {
        let accepted = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX];
        let pulled = self.client.pull_manifest_raw(reference, &self.auth, &accepted).await;
        let (bytes, _) = pulled.map_err(|e| failed(&plain_cause(&e)))?;
        let actual = digest(&bytes);
        if expected.is_some_and(|e| e != actual) {
            return Err(failed(&format!(
                "digest mismatch: the manifest is {actual}, not {}",
                expected.unwrap_or_default()
            )));
        }
        let typed: Manifest =
            serde_json::from_slice(&bytes).map_err(|e| failed(&format!("unreadable manifest: {e}")))?;
        let media_type = match (typed.media_type.is_empty(), typed.config.is_some()) {
            (false, _) => typed.media_type,
            (true, true) => OCI_MANIFEST.to_owned(),
            (true, false) => OCI_INDEX.to_owned(),
        };
        Ok((
            Descriptor { media_type, digest: actual, size: bytes.len() as u64, ..Descriptor::default() },
            bytes.to_vec(),
        ))
    }
}

fn failed(cause: &str) -> RuntimeError {
    RuntimeError::Pull { image: String::new(), cause: cause.to_owned() }
}

/// Everything that goes wrong on the way is a failed pull of what was asked for, except that containerd is away.
fn as_pull_error(name: &str, error: RuntimeError) -> RuntimeError {
    let image = name.to_owned();
    match error {
        RuntimeError::Pull { cause, .. }
        | RuntimeError::Invalid(cause)
        | RuntimeError::Unavailable { operation: super::content::READING, cause } => {
            RuntimeError::Pull { image, cause }
        }
        other => other,
    }
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
