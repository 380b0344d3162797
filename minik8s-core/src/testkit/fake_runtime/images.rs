//! Images: names and digests, no content.

use super::{FakeOp, FakeRuntime, State};
use crate::runtime::{ImageInfo, Images, PullProgress, RegistryAuth, RuntimeError, RuntimeResult};
use async_trait::async_trait;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::path::PathBuf;
use tokio::sync::mpsc;

/// Size every image pretends to have.
const IMAGE_BYTES: u64 = 4 << 20;

/// The full name of an image: registry, path, tag.
pub(super) fn normalise(name: &str) -> RuntimeResult<String> {
    let invalid = |cause: &str| RuntimeError::InvalidImageName { name: name.to_owned(), cause: cause.to_owned() };
    if name.is_empty() {
        return Err(invalid("it is empty"));
    }
    if name.starts_with("sha256:") {
        return Ok(name.to_owned());
    }
    if let Some(bad) = name.chars().find(|c| !c.is_ascii_alphanumeric() && !"._-/:@".contains(*c)) {
        return Err(invalid(&format!("{bad:?} is not allowed")));
    }
    let (host, path) = match name.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (host, path.to_owned()),
        Some(_) => ("docker.io", name.to_owned()),
        None => ("docker.io", format!("library/{name}")),
    };
    let (bare, tag) = match path.rsplit_once(':') {
        Some((bare, tag)) if !tag.contains('/') => (bare, Some(tag)),
        _ => (path.as_str(), None),
    };
    if bare.is_empty() || bare.chars().any(|c| c.is_ascii_uppercase()) {
        return Err(invalid("the repository must be lower case"));
    }
    if tag.is_some_and(str::is_empty) || name.contains("//") {
        return Err(invalid("a part of it is empty"));
    }
    Ok(if tag.is_some() { format!("{host}/{path}") } else { format!("{host}/{path}:latest") })
}

fn digest(text: &str) -> String {
    Sha256::digest(text).iter().fold("sha256:".to_owned(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn invented(full: &str) -> ImageInfo {
    if full.contains('@') {
        // One that was fetched by its digest has no other name.
        let repo_digests = vec![full.to_owned()];
        return ImageInfo { id: digest(full), repo_digests, size: IMAGE_BYTES, ..ImageInfo::default() };
    }
    let repository = full.rsplit_once(':').map_or(full, |(repository, _)| repository);
    ImageInfo {
        names: vec![full.to_owned()],
        id: digest(full),
        repo_digests: vec![format!("{repository}@{}", digest(repository))],
        size: IMAGE_BYTES,
        user: String::new(),
    }
}

impl State {
    fn pullable(&self, name: &str, full: &str) -> Result<(), String> {
        let host = full.split('/').next().unwrap_or_default();
        if host.split(':').next().unwrap_or_default().ends_with(".invalid") {
            return Err(format!("dial tcp: lookup {host}: no such host"));
        }
        match &self.known_images {
            Some(known) if !known.iter().any(|k| k == name || k == full) => Err("not found".to_owned()),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Images for FakeRuntime {
    async fn image(&self, name: &str) -> RuntimeResult<Option<ImageInfo>> {
        self.inner.call(FakeOp::Image, name).await?;
        let full = normalise(name)?;
        let state = self.inner.state.lock();
        let by_digest = || state.images.values().find(|i| i.id == name || i.repo_digests.iter().any(|d| d == name));
        Ok(state.images.get(&full).or_else(by_digest).cloned())
    }

    async fn images(&self) -> RuntimeResult<Vec<ImageInfo>> {
        self.inner.call(FakeOp::Image, "").await?;
        Ok(self.inner.state.lock().images.values().cloned().collect())
    }

    async fn pull(
        &self,
        name: &str,
        _auth: Option<&RegistryAuth>,
        progress: Option<mpsc::Sender<PullProgress>>,
    ) -> RuntimeResult<ImageInfo> {
        self.inner.call(FakeOp::Pull, name).await?;
        let full = normalise(name)?;
        let refusal = self.inner.state.lock().pullable(name, &full);
        refusal.map_err(|cause| RuntimeError::Pull { image: name.to_owned(), cause })?;
        for (phase, bytes) in [("resolving", 0), ("downloading", IMAGE_BYTES), ("done", IMAGE_BYTES)] {
            if let Some(progress) = &progress {
                let _ = progress.try_send(PullProgress { phase, bytes, total: IMAGE_BYTES });
            }
        }
        let image = invented(&full);
        self.inner.state.lock().images.insert(full, image.clone());
        Ok(image)
    }

    async fn import(&self, archive: PathBuf, name: Option<&str>) -> RuntimeResult<Vec<ImageInfo>> {
        self.inner.call(FakeOp::Import, &archive.display().to_string()).await?;
        if !archive.is_file() {
            return Err(RuntimeError::Invalid(format!("archive {} does not exist", archive.display())));
        }
        let stem = archive.file_stem().map(|s| s.to_string_lossy().to_lowercase()).unwrap_or_default();
        let full = normalise(name.unwrap_or(&stem))?;
        let image = invented(&full);
        self.inner.state.lock().images.insert(full, image.clone());
        Ok(vec![image])
    }

    async fn remove_image(&self, name: &str) -> RuntimeResult<()> {
        self.inner.call(FakeOp::RemoveImage, name).await?;
        let full = normalise(name)?;
        self.inner.state.lock().images.remove(&full);
        Ok(())
    }
}
