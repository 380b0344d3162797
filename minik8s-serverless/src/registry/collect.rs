//! What nothing leads to goes.

use super::image::Manifest;
use super::store::{LARGEST_MANIFEST, Registry, list};
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};
use tokio::fs;

impl Registry {
    /// Deletes blobs that nothing leads to and that are older than `grace`: what an upload will be part of is not known
    /// yet. `roots` are manifests and blobs that are needed, beside all that have a name. Returns how many went.
    pub async fn collect(&self, roots: impl IntoIterator<Item = String>, grace: Duration) -> usize {
        let mut open: Vec<String> = roots.into_iter().collect();
        for repository in list(&self.root.join("names")).await {
            for tag in list(&self.root.join("names").join(&repository)).await {
                open.extend(self.resolve(&repository.replace('+', "/"), &tag).await);
            }
        }
        let mut live = BTreeSet::new();
        while let Some(digest) = open.pop() {
            // Only manifests lead on, and those are small.
            if live.insert(digest.clone()) && self.size(&digest).await.is_ok_and(|size| size <= LARGEST_MANIFEST as u64)
            {
                let bytes = self.read(&digest).await.unwrap_or_default();
                open.extend(Manifest::parse(&bytes).map(|m| m.refers()).unwrap_or_default());
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
}
