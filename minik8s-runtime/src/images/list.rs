//! Finding, listing and removing images by name.

use super::reference::is_digest;
use super::{Image, ImageName, ImageStore, normalize};
use crate::connection::{Lease, Tolerate, unavailable};
use containerd_client::services::v1 as api;
use containerd_client::types::Descriptor;
use minik8s_core::runtime::{ImageInfo, RuntimeError, RuntimeResult};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tonic::Code;

impl ImageStore {
    /// The image of a name, a digest reference or an id, ready for containers.
    pub(crate) async fn find(&self, name: &str) -> RuntimeResult<Option<Arc<Image>>> {
        if let Some(id) = as_id(name) {
            let all = self.records().await?;
            for (_, target) in all {
                if let Some(image) = self.known(&target).await?.filter(|i| i.id == id || target == id) {
                    return Ok(Some(image));
                }
            }
            return Ok(None);
        }
        let name = normalize(name)?;
        match self.target(&name).await? {
            Some(target) => self.known(&target).await,
            None => Ok(None),
        }
    }

    /// Digest that a name points to.
    async fn target(&self, name: &ImageName) -> RuntimeResult<Option<String>> {
        let request = self.connection.request(api::GetImageRequest { name: name.to_string() });
        let found = self.connection.images().get(request).await.tolerate(Code::NotFound);
        let found = found.map_err(unavailable("looking for an image"))?;
        if let Some(target) = found.and_then(|r| r.image?.target) {
            return Ok(Some(target.digest));
        }
        let Some(digest) = &name.digest else { return Ok(None) };
        let same = |other: &str| normalize(other).is_ok_and(|n| n.repo() == name.repo());
        let all = self.records().await?;
        Ok(all.into_iter().find(|(other, target)| target == digest && same(other)).map(|(_, target)| target))
    }

    /// Names and what they point to.
    async fn records(&self) -> RuntimeResult<Vec<(String, String)>> {
        let request = self.connection.request(api::ListImagesRequest { filters: Vec::new() });
        let listed = self.connection.images().list(request).await.map_err(unavailable("listing images"))?;
        let record = |image: api::Image| Some((image.name, image.target?.digest));
        Ok(listed.into_inner().images.into_iter().filter_map(record).collect())
    }

    async fn known(&self, target: &str) -> RuntimeResult<Option<Arc<Image>>> {
        if let Some(image) = self.known.lock().get(target) {
            return Ok(Some(image.clone()));
        }
        let Some((image, _)) = self.load(target).await? else { return Ok(None) };
        self.known.lock().insert(target.to_owned(), image.clone());
        Ok(Some(image))
    }

    pub(crate) async fn infos(&self) -> RuntimeResult<Vec<ImageInfo>> {
        let mut by_id: BTreeMap<String, ImageInfo> = BTreeMap::new();
        for (name, target) in self.records().await? {
            let Some(image) = self.known(&target).await? else { continue };
            let info = by_id.entry(image.id.clone()).or_insert_with(|| ImageInfo {
                id: image.id.clone(),
                size: image.size,
                user: image.config.config.user.clone(),
                ..ImageInfo::default()
            });
            if let Ok(parsed) = normalize(&name) {
                let repo_digest = format!("{}@{target}", parsed.repo());
                if !info.repo_digests.contains(&repo_digest) {
                    info.repo_digests.push(repo_digest);
                }
            }
            if !name.contains('@') {
                info.names.push(name);
            }
        }
        Ok(by_id.into_values().collect())
    }

    /// What `Images::image` answers.
    pub(crate) async fn info(&self, name: &str) -> RuntimeResult<Option<ImageInfo>> {
        let (found, all) = tokio::join!(self.find(name), self.infos());
        let Some(image) = found? else { return Ok(None) };
        Ok(all?.into_iter().find(|info| info.id == image.id))
    }

    pub(crate) async fn remove(&self, name: &str) -> RuntimeResult<()> {
        let names = match as_id(name) {
            None => vec![normalize(name)?.to_string()],
            Some(id) => {
                let mut names = Vec::new();
                for (name, target) in self.records().await? {
                    if target == id || self.known(&target).await?.is_some_and(|i| i.id == id) {
                        names.push(name);
                    }
                }
                names
            }
        };
        for name in names {
            let request = self.connection.request(api::DeleteImageRequest { name, ..Default::default() });
            let removed = self.connection.images().delete(request).await;
            removed.tolerate(Code::NotFound).map_err(unavailable("removing an image"))?;
        }
        // What no name leads to any more need not be known either.
        let left: BTreeSet<String> = self.records().await?.into_iter().map(|(_, target)| target).collect();
        self.known.lock().retain(|target, _| left.contains(target));
        Ok(())
    }

    /// Points a name to a manifest or index that is here in full.
    pub(super) async fn name_image(
        &self,
        name: &ImageName,
        target: &super::manifest::Descriptor,
        lease: &Lease,
    ) -> RuntimeResult<()> {
        let target = Descriptor {
            media_type: target.media_type.clone(),
            digest: target.digest.clone(),
            size: i64::try_from(target.size).unwrap_or(0),
            ..Default::default()
        };
        let image = api::Image { name: name.to_string(), target: Some(target), ..Default::default() };
        let create = api::CreateImageRequest { image: Some(image.clone()), ..Default::default() };
        let created = self.connection.images().create(self.connection.leased(create, lease)).await;
        if created.tolerate(Code::AlreadyExists).map_err(unavailable("naming an image"))?.is_some() {
            return Ok(());
        }
        let update = api::UpdateImageRequest { image: Some(image), ..Default::default() };
        let updated = self.connection.images().update(self.connection.leased(update, lease)).await;
        updated.map_err(unavailable("naming an image"))?;
        Ok(())
    }

    pub(crate) async fn require(&self, name: &str) -> RuntimeResult<Arc<Image>> {
        let missing = || RuntimeError::NotFound { what: "image", name: name.to_owned() };
        self.find(name).await?.ok_or_else(missing)
    }
}

/// `sha256:…` or the bare 64 digits name an image by its identity.
fn as_id(name: &str) -> Option<String> {
    let id = if name.starts_with("sha256:") { name.to_owned() } else { format!("sha256:{name}") };
    is_digest(&id).then_some(id)
}
