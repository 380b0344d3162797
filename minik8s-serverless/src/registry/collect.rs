//! What nothing leads to goes, and what something leads to is kept.

use super::error::RegistryError;
use super::image::Manifest;
use super::store::{LARGEST_MANIFEST, Registry, list};
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};
use tokio::fs;

impl Registry {
    /// Deletes blobs that nothing leads to and that are older than `grace`: what an upload will be part of is not known
    /// yet. `roots` are manifests and blobs that are needed; so are those that have a name in the directory. Returns how many
    /// went.
    pub async fn collect(&self, roots: impl IntoIterator<Item = String>, grace: Duration) -> usize {
        let mut open: Vec<String> = roots.into_iter().collect();
        open.extend(self.named_here().await);
        let mut live = BTreeSet::new();
        while let Some(digest) = open.pop() {
            if live.insert(digest.clone()) && self.size(&digest).await.is_ok_and(|size| size <= LARGEST_MANIFEST as u64)
            {
                open.extend(self.leads_to(&digest).await);
            }
        }
        let mut gone = 0;
        for hex in list(&self.root.join("blobs/sha256")).await {
            let path = self.root.join("blobs/sha256").join(&hex);
            let modified = fs::metadata(&path).await.and_then(|meta| meta.modified()).unwrap_or(SystemTime::now());
            let old = modified.elapsed().unwrap_or_default() >= grace;
            if old && !live.contains(&format!("sha256:{hex}")) && fs::remove_file(&path).await.is_ok() {
                gone += 1;
            }
        }
        gone
    }

    /// Brings a manifest or blob here, and all that it leads to, from wherever it is.
    ///
    /// # Errors
    /// As [`find`](Self::find), for the first thing that cannot be had; what came before stays.
    pub async fn keep(&self, root: &str) -> Result<(), RegistryError> {
        let (mut open, mut seen) = (vec![root.to_owned()], BTreeSet::new());
        while let Some(digest) = open.pop() {
            if seen.insert(digest.clone()) && self.find(&digest).await? <= LARGEST_MANIFEST as u64 {
                open.extend(self.leads_to(&digest).await);
            }
        }
        Ok(())
    }

    /// What a blob that is here leads to. Only manifests lead on, and those are small.
    async fn leads_to(&self, digest: &str) -> Vec<String> {
        let bytes = self.read(digest).await.unwrap_or_default();
        Manifest::parse(&bytes).map(|manifest| manifest.refers()).unwrap_or_default()
    }
}
