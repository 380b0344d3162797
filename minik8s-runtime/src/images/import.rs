//! Taking in archives.

use super::archive::{Archive, ArchivedImage};
use super::content::Blob;
use super::manifest::Manifest;
use super::{ImageName, ImageStore, normalize};
use crate::connection::Lease;
use bytes::Bytes;
use futures::future::try_join_all;
use minik8s_core::runtime::{ImageInfo, RuntimeError, RuntimeResult};
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::mpsc;

const CHUNK: usize = 256 * 1024;

impl ImageStore {
    pub(crate) async fn import(&self, path: PathBuf, name: Option<&str>) -> RuntimeResult<Vec<ImageInfo>> {
        let wrong = |e: io::Error| RuntimeError::Invalid(format!("image archive {}: {e}", path.display()));
        let (source, spool) = (path.clone(), self.spool.clone());
        let (archive, images) = blocking(move || {
            let archive = Archive::open(&source, &spool)?;
            let images = archive.images()?;
            Ok((Arc::new(archive), images))
        })
        .await
        .map_err(wrong)?;
        let named = give_names(images, name).map_err(|e| wrong(io::Error::other(e)))?;
        let lease = self.connection.lease().await?;
        let imported = self.import_all(&archive, named, &lease).await;
        self.connection.release(lease).await;
        let ids = imported?;
        Ok(self.infos().await?.into_iter().filter(|info| ids.contains(&info.id)).collect())
    }

    async fn import_all(
        &self,
        archive: &Arc<Archive>,
        images: Vec<(ArchivedImage, Vec<ImageName>)>,
        lease: &Lease,
    ) -> RuntimeResult<Vec<String>> {
        let mut ids = Vec::new();
        for (image, names) in images {
            let blobs = image.blobs.iter();
            try_join_all(blobs.map(|(b, entry)| self.import_blob(archive, &b.digest, b.size, entry, lease))).await?;
            for (descriptor, bytes) in image.manifests {
                self.store_manifest(&descriptor, bytes, lease).await?;
            }
            ids.push(self.finish(&image.target, &names, lease).await?);
        }
        Ok(ids)
    }

    /// Stores a manifest with the labels that keep what it names.
    pub(super) async fn store_manifest(
        &self,
        descriptor: &super::manifest::Descriptor,
        bytes: Vec<u8>,
        lease: &Lease,
    ) -> RuntimeResult<()> {
        let manifest: Manifest = serde_json::from_slice(&bytes)
            .map_err(|e| RuntimeError::Invalid(format!("image manifest {}: {e}", descriptor.digest)))?;
        let blob = Blob { digest: &descriptor.digest, size: bytes.len() as u64, labels: manifest.gc_labels() };
        self.connection.write_blob(bytes, blob, lease).await
    }

    /// Unpacks an image whose content is here, and only then makes it visible under its names.
    pub(super) async fn finish(
        &self,
        target: &super::manifest::Descriptor,
        names: &[ImageName],
        lease: &Lease,
    ) -> RuntimeResult<String> {
        let incomplete = || RuntimeError::Invalid(format!("image {} is not complete", target.digest));
        let (image, manifest) = self.load(&target.digest).await?.ok_or_else(incomplete)?;
        self.unpack(&image, &manifest, lease).await?;
        for name in names {
            self.name_image(name, target, lease).await?;
        }
        Ok(image.id.clone())
    }

    async fn import_blob(
        &self,
        archive: &Arc<Archive>,
        digest: &str,
        size: u64,
        entry: &str,
        lease: &Lease,
    ) -> RuntimeResult<()> {
        if self.connection.has_blob(digest, lease).await? {
            return Ok(());
        }
        let (sender, receiver) = mpsc::channel(4);
        let (archive, entry) = (archive.clone(), entry.to_owned());
        let reading = tokio::task::spawn_blocking(move || {
            if let Err(e) = send_entry(&archive, &entry, &sender) {
                let _ = sender.blocking_send(Err(e));
            }
        });
        let blob = Blob { digest, size, labels: Vec::new() };
        let stored = self.connection.write_stream(receiver, blob, lease).await;
        let _ = reading.await;
        stored
    }
}

fn send_entry(archive: &Archive, entry: &str, sender: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
    let mut reader = archive.reader(entry)?;
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        (&mut reader).take(CHUNK as u64).read_to_end(&mut chunk)?;
        if chunk.is_empty() || sender.blocking_send(Ok(chunk.into())).is_err() {
            return Ok(());
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn give_names(
    images: Vec<ArchivedImage>,
    name: Option<&str>,
) -> Result<Vec<(ArchivedImage, Vec<ImageName>)>, RuntimeError> {
    if name.is_some() && images.len() > 1 {
        return Err(RuntimeError::Invalid(format!("it holds {} images, so one name does not do", images.len())));
    }
    let named = |image: ArchivedImage| {
        let names: Vec<String> = name.map_or_else(|| image.names.clone(), |n| vec![n.to_owned()]);
        if names.is_empty() {
            return Err(RuntimeError::Invalid("it does not name its image; give a name".to_owned()));
        }
        let names = names.iter().map(|n| normalize(n)).collect::<Result<Vec<_>, _>>()?;
        Ok((image, names))
    };
    images.into_iter().map(named).collect()
}
