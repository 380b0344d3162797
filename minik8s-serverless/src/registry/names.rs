//! Names that stand for manifests. In a cluster they are objects, a ConfigMap for each repository: so they are the same at
//! every API server, and what they stand for is known by its digest wherever it is.

use super::error::RegistryError;
use super::store::{Registry, list};
use k8s_openapi::api::core::v1::ConfigMap;
use minik8s_core::client::{Api, Client, PatchType};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use tokio::fs;

/// Where the objects are.
const NAMESPACE: &str = "kube-system";
/// What they bear.
pub(crate) const LABEL: &str = "minik8s.io/registry-names";
/// The repository whose names they hold.
const REPOSITORY: &str = "minik8s.io/registry-repository";

/// The digests that an object's names stand for.
pub(crate) fn named(object: &ConfigMap) -> impl Iterator<Item = &String> {
    object.data.iter().flat_map(|data| data.values())
}

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
    /// For names that cannot be one; `Names`, or the disk's.
    pub async fn tag(&self, repository: &str, tag: &str, digest: &str) -> Result<(), RegistryError> {
        let path = self.name(repository, tag)?;
        if let Some(client) = self.client() {
            return write(&client, repository, &json!({tag: digest})).await;
        }
        let directory = path.parent().unwrap_or(&self.root).to_owned();
        let failed = |source| RegistryError::Io { operation: "write", path: path.clone(), source };
        fs::create_dir_all(&directory).await.map_err(failed)?;
        let id = self.begin().await?;
        let new = self.upload(&id)?;
        self.hold(&id)?.end();
        fs::write(&new, digest).await.map_err(failed)?;
        fs::rename(&new, &path).await.map_err(failed)
    }

    /// The manifest that a tag or a digest stands for, wherever that is.
    ///
    /// # Errors
    /// `Missing` where there is none; `Names`.
    pub async fn resolve(&self, repository: &str, reference: &str) -> Result<String, RegistryError> {
        if reference.contains(':') {
            return self.find(reference).await.map(|_| reference.to_owned());
        }
        let path = self.name(repository, reference)?;
        if let Some(client) = self.client()
            && let Some(digest) = read(&client, repository).await?.data.unwrap_or_default().remove(reference)
        {
            return Ok(digest);
        }
        let missing = |_| RegistryError::Missing(format!("{repository}:{reference}"));
        fs::read_to_string(path).await.map_err(missing)
    }

    /// The tags of a repository.
    ///
    /// # Errors
    /// `Names`.
    pub async fn tags(&self, repository: &str) -> Result<Vec<String>, RegistryError> {
        let Ok(path) = self.name(repository, "x") else { return Ok(Vec::new()) };
        let mut tags = list(path.parent().unwrap_or(&self.root)).await;
        if let Some(client) = self.client() {
            tags.extend(read(&client, repository).await?.data.unwrap_or_default().into_keys());
        }
        Ok(tags.into_iter().collect())
    }

    /// Takes a name away.
    ///
    /// # Errors
    /// `Missing` where there is none; `Names`.
    pub async fn untag(&self, repository: &str, tag: &str) -> Result<(), RegistryError> {
        let (path, mut was) = (self.name(repository, tag)?, false);
        if let Some(client) = self.client()
            && read(&client, repository).await?.data.is_some_and(|data| data.contains_key(tag))
        {
            write(&client, repository, &json!({tag: Value::Null})).await?;
            was = true;
        }
        match fs::remove_file(path).await {
            Err(_) if !was => Err(RegistryError::Missing(format!("{repository}:{tag}"))),
            _ => Ok(()),
        }
    }

    /// What the names that stand in the directory stand for.
    pub(super) async fn named_here(&self) -> Vec<String> {
        let mut digests = Vec::new();
        for directory in list(&self.root.join("names")).await {
            for tag in list(&self.root.join("names").join(&directory)).await {
                digests.extend(fs::read_to_string(self.root.join("names").join(&directory).join(tag)).await);
            }
        }
        digests
    }

    /// Makes the names of the directory objects, where there is none of that name, and forgets them here.
    pub(super) async fn move_names(&self, client: &Client) -> Result<(), RegistryError> {
        for directory in list(&self.root.join("names")).await {
            let repository = directory.replace('+', "/");
            for tag in list(&self.root.join("names").join(&directory)).await {
                let Ok(path) = self.name(&repository, &tag) else { continue };
                let Ok(digest) = fs::read_to_string(&path).await else { continue };
                let known = read(client, &repository).await?.data.unwrap_or_default();
                if !known.contains_key(&tag) {
                    write(client, &repository, &json!({tag: digest})).await?;
                }
                let _ = fs::remove_file(path).await;
            }
            let _ = fs::remove_dir(self.root.join("names").join(&directory)).await;
        }
        Ok(())
    }
}

fn api(client: &Client) -> Api<ConfigMap> {
    client.api(NAMESPACE)
}

/// The name of a repository's object.
fn object_of(repository: &str) -> String {
    let sum: String = Sha256::digest(repository).iter().take(20).map(|byte| format!("{byte:02x}")).collect();
    format!("registry-names-{sum}")
}

async fn read(client: &Client, repository: &str) -> Result<ConfigMap, RegistryError> {
    Ok(api(client).get_opt(&object_of(repository)).await?.unwrap_or_default())
}

/// Writes some names of a repository, and leaves the others as they are.
async fn write(client: &Client, repository: &str, names: &Value) -> Result<(), RegistryError> {
    let (api, name) = (api(client), object_of(repository));
    let meta = json!({"labels": {LABEL: "true"}, "annotations": {REPOSITORY: repository}});
    let change = json!({"metadata": meta, "data": names});
    match api.patch(&name, PatchType::Merge, &change).await {
        Err(error) if error.is_not_found() => {}
        done => return Ok(done.map(drop)?),
    }
    let mut new = json!({"metadata": meta, "data": names});
    new["metadata"]["name"] = json!(name);
    let new: ConfigMap = serde_json::from_value(new).unwrap_or_default();
    match api.create(&new).await {
        // Another one was faster.
        Err(error) if error.is_already_exists() => Ok(api.patch(&name, PatchType::Merge, &change).await.map(drop)?),
        done => Ok(done.map(drop)?),
    }
}
