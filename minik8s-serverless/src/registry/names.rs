//! Names that stand for manifests.

use super::error::RegistryError;
use super::store::{Registry, list};
use std::path::PathBuf;
use tokio::fs;

impl Registry {
    fn name(&self, repository: &str, tag: &str) -> Result<PathBuf, RegistryError> {
        let word = |w: &str| {
            !w.is_empty()
                && w.len() <= 128
                && !w.starts_with('.')
                && w.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        if !repository.split('/').all(word) || repository.len() > 255 {
            return Err(RegistryError::Malformed(repository.to_owned(), "repository"));
        }
        if !word(tag) {
            return Err(RegistryError::Malformed(tag.to_owned(), "tag"));
        }
        Ok(self.root.join("names").join(repository.replace('/', "+")).join(tag))
    }

    /// Gives a manifest a name.
    ///
    /// # Errors
    /// For names that cannot be one, and the disk's.
    pub async fn tag(&self, repository: &str, tag: &str, digest: &str) -> Result<(), RegistryError> {
        let path = self.name(repository, tag)?;
        let directory = path.parent().unwrap_or(&self.root).to_owned();
        let failed = |source| RegistryError::Io { operation: "write", path: path.clone(), source };
        fs::create_dir_all(&directory).await.map_err(failed)?;
        let id = self.begin().await?;
        let new = self.upload(&id)?;
        self.hold(&id)?.end();
        fs::write(&new, digest).await.map_err(failed)?;
        fs::rename(&new, &path).await.map_err(failed)
    }

    /// The manifest that a tag or a digest stands for.
    ///
    /// # Errors
    /// `Missing` where there is none.
    pub async fn resolve(&self, repository: &str, reference: &str) -> Result<String, RegistryError> {
        if reference.contains(':') {
            return self.size(reference).await.map(|_| reference.to_owned());
        }
        let missing = |_| RegistryError::Missing(format!("{repository}:{reference}"));
        fs::read_to_string(self.name(repository, reference)?).await.map_err(missing)
    }

    /// The tags of a repository.
    pub async fn tags(&self, repository: &str) -> Vec<String> {
        let Ok(path) = self.name(repository, "x") else { return Vec::new() };
        list(path.parent().unwrap_or(&self.root)).await.into_iter().collect()
    }

    /// Takes a name away.
    ///
    /// # Errors
    /// `Missing` where there is none.
    pub async fn untag(&self, repository: &str, tag: &str) -> Result<(), RegistryError> {
        let path = self.name(repository, tag)?;
        fs::remove_file(path).await.map_err(|_| RegistryError::Missing(format!("{repository}:{tag}")))
    }
}
