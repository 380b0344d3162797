//! From blobs to snapshots: each layer is applied on top of the one below, and the result gets the chain's name.

use super::manifest::Manifest;
use super::{Image, ImageConfig, ImageStore};
use crate::connection::{Lease, Tolerate, unavailable};
use containerd_client::services::v1 as api;
use containerd_client::services::v1::snapshots as snap;
use containerd_client::types::Descriptor;
use minik8s_core::runtime::{RuntimeError, RuntimeResult};
use tonic::Code;

impl ImageStore {
    /// Makes sure that every layer of the image has its snapshot, and that the configuration holds on to the last.
    pub(super) async fn unpack(&self, image: &Image, manifest: &Manifest, lease: &Lease) -> RuntimeResult<()> {
        let chain = image.config.chain_ids();
        if chain.len() != manifest.layers.len() {
            return Err(RuntimeError::Invalid(format!(
                "image {} lists {} layers but {} layer digests",
                image.id,
                manifest.layers.len(),
                chain.len()
            )));
        }
        if !self.has_snapshot(&image.chain_id, lease).await? {
            let mut parent = "";
            for ((id, layer), diff) in chain.iter().zip(&manifest.layers).zip(&image.config.rootfs.diff_ids) {
                if !self.has_snapshot(id, lease).await? {
                    self.apply_layer(layer, parent, id, diff, lease).await?;
                }
                parent = id;
            }
        }
        self.pin_snapshot(image).await
    }

    /// The collector keeps the snapshot as long as the configuration's blob.
    async fn pin_snapshot(&self, image: &Image) -> RuntimeResult<()> {
        if image.chain_id.is_empty() {
            return Ok(());
        }
        let key = format!("containerd.io/gc.ref.snapshot.{}", self.snapshotter);
        self.connection.label_blob(&image.id, &[(key, image.chain_id.clone())]).await
    }

    /// True where the snapshot is here; then it stays as long as the lease.
    async fn has_snapshot(&self, name: &str, lease: &Lease) -> RuntimeResult<bool> {
        if name.is_empty() {
            return Ok(true);
        }
        self.connection.keep(lease, &format!("snapshots/{}", self.snapshotter), name).await?;
        let request = snap::StatSnapshotRequest { snapshotter: self.snapshotter.clone(), key: name.to_owned() };
        let found = self.connection.snapshots().stat(self.connection.request(request)).await.tolerate(Code::NotFound);
        Ok(found.map_err(unavailable("looking for a snapshot"))?.is_some())
    }

    async fn apply_layer(
        &self,
        layer: &super::manifest::Descriptor,
        parent: &str,
        name: &str,
        diff_id: &str,
        lease: &Lease,
    ) -> RuntimeResult<()> {
        let key = format!("unpack-{}-{name}", uuid::Uuid::new_v4().simple());
        let done = self.apply_to(&key, layer, parent, name, diff_id, lease).await;
        if done.is_err() {
            self.remove_snapshot(&key).await?;
        }
        done
    }

    async fn apply_to(
        &self,
        key: &str,
        layer: &super::manifest::Descriptor,
        parent: &str,
        name: &str,
        diff_id: &str,
        lease: &Lease,
    ) -> RuntimeResult<()> {
        let connection = &self.connection;
        let snapshotter = || self.snapshotter.clone();
        let prepare = snap::PrepareSnapshotRequest {
            snapshotter: snapshotter(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            ..Default::default()
        };
        let prepared = connection.snapshots().prepare(connection.leased(prepare, lease)).await;
        let mounts = prepared.map_err(unavailable("preparing a layer"))?.into_inner().mounts;
        let diff = Descriptor {
            media_type: layer.media_type.clone(),
            digest: layer.digest.clone(),
            size: i64::try_from(layer.size).unwrap_or(0),
            ..Default::default()
        };
        let apply = api::ApplyRequest { diff: Some(diff), mounts, ..Default::default() };
        let applied = connection.diff().apply(connection.leased(apply, lease)).await;
        let applied = applied.map_err(unavailable("unpacking a layer"))?.into_inner().applied.unwrap_or_default();
        if applied.digest != diff_id {
            return Err(RuntimeError::Invalid(format!(
                "layer {} unpacks to {} instead of {diff_id}",
                layer.digest, applied.digest
            )));
        }
        let commit = snap::CommitSnapshotRequest {
            snapshotter: snapshotter(),
            name: name.to_owned(),
            key: key.to_owned(),
            ..Default::default()
        };
        let committed = connection.snapshots().commit(connection.leased(commit, lease)).await;
        match committed.tolerate(Code::AlreadyExists).map_err(unavailable("committing a layer"))? {
            Some(()) => Ok(()),
            // Another unpack was faster; ours goes.
            None => self.remove_snapshot(key).await,
        }
    }

    pub(crate) async fn remove_snapshot(&self, key: &str) -> RuntimeResult<()> {
        let request = snap::RemoveSnapshotRequest { snapshotter: self.snapshotter.clone(), key: key.to_owned() };
        let removed = self.connection.snapshots().remove(self.connection.request(request)).await;
        removed.tolerate(Code::NotFound).map_err(unavailable("removing a snapshot"))?;
        Ok(())
    }

    /// Reads what a manifest says, and remembers it.
    pub(super) async fn load(&self, digest: &str) -> RuntimeResult<Option<(std::sync::Arc<Image>, Manifest)>> {
        let Some(manifest) = self.manifest(digest).await? else { return Ok(None) };
        let Some(config) = manifest.config.clone() else { return Ok(None) };
        let Some(bytes) = self.connection.read_blob(&config.digest).await? else { return Ok(None) };
        let parsed: ImageConfig = serde_json::from_slice(&bytes)
            .map_err(|e| RuntimeError::Invalid(format!("image configuration {}: {e}", config.digest)))?;
        let image = Image {
            id: config.digest.clone(),
            chain_id: parsed.chain_ids().pop().unwrap_or_default(),
            size: config.size + manifest.layers.iter().map(|l| l.size).sum::<u64>(),
            config: parsed,
        };
        Ok(Some((std::sync::Arc::new(image), manifest)))
    }

    /// The manifest of that digest, or the one for this machine where the digest is an index's.
    async fn manifest(&self, digest: &str) -> RuntimeResult<Option<Manifest>> {
        let mut digest = digest.to_owned();
        for _ in 0..3 {
            let Some(bytes) = self.connection.read_blob(&digest).await? else { return Ok(None) };
            let manifest: Manifest = serde_json::from_slice(&bytes)
                .map_err(|e| RuntimeError::Invalid(format!("image manifest {digest}: {e}")))?;
            if manifest.config.is_some() {
                return Ok(Some(manifest));
            }
            match manifest.for_this_machine() {
                Some(entry) => digest = entry.digest.clone(),
                None => return Ok(None),
            }
        }
        Ok(None)
    }
}
