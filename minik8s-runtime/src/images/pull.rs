//! Pulling images from registries. Nothing becomes visible before all of it is here and verified.

use super::content::{Blob, digest};
use super::manifest::Descriptor;
use super::remote::{CONNECT, RemoteImage, Way, failed};
use super::{ImageName, ImageStore, normalize};
use crate::connection::Lease;
use bytes::Bytes;
use futures::StreamExt;
use futures::future::try_join_all;
use minik8s_core::runtime::{ImageInfo, PullProgress, RegistryAuth, RuntimeError, RuntimeResult};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

/// Downloads of one image at a time.
const PARALLEL: usize = 4;
/// Where there are other places to ask, nobody waits for a dead one for long.
const CONNECT_ONE_OF_SEVERAL: Duration = Duration::from_secs(3);

/// What one pull pulls from, and whom it tells.
struct Source {
    image: RemoteImage,
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
        let mut last_failure = None;
        for place in places {
            let pulled = match self.source(name, &place, auth, (progress.clone(), connect)).await {
                Ok(source) => self.pull_from(&source, name).await,
                Err(error) => Err(error),
            };
            match pulled {
                Ok(()) => {
                    if mirror.is_some() {
                        self.last.lock().insert(name.registry.clone(), place);
                    }
                    return Ok(());
                }
                Err(error) => match as_pull_error(&name.to_string(), error) {
                    error @ RuntimeError::Pull { .. } => {
                        tracing::debug!(%error, place, "a registry did not give an image");
                        last_failure = Some(error);
                    }
                    // What is no registry's fault is the same everywhere.
                    error => return Err(error),
                },
            }
        }
        Err(last_failure.unwrap_or_else(|| failed("its registry is nowhere")))
    }

    async fn source(
        &self,
        name: &ImageName,
        registry: &str,
        auth: Option<&RegistryAuth>,
        (to, connect): (Option<mpsc::Sender<PullProgress>>, Duration),
    ) -> RuntimeResult<Source> {
        let way = Way { certificates: &self.registry_certs, plain_http: &self.plain_http, connect };
        let progress = Progress { to, bytes: AtomicU64::new(0), total: AtomicU64::new(0) };
        progress.say("resolving");
        let image = RemoteImage::find_at(registry, name, auth, way).await?;
        Ok(Source { image, progress })
    }

    async fn pull_from(&self, source: &Source, name: &ImageName) -> RuntimeResult<()> {
        let lease = self.connection.lease().await?;
        let pulled = self.pull_leased(source, name, &lease).await;
        self.connection.release(lease).await;
        pulled
    }

    async fn pull_leased(&self, source: &Source, name: &ImageName, lease: &Lease) -> RuntimeResult<()> {
        let manifests = source.image.manifests();
        let blobs: Vec<&Descriptor> = source.image.descriptors().collect();
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
        let mut stream = source.image.blob(&blob.digest).await?;
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
