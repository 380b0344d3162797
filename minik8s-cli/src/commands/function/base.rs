//! `function base`: what functions are laid on, brought into the cluster's registry from an archive or another registry.

use super::registry;
use crate::api::Conn;
use crate::args::BaseFrom;
use crate::output::{note, say};
use anyhow::{Context, Result, bail};
use minik8s_runtime::RemoteImage;
use serde_json::Value;
use std::path::Path;
use tokio_util::io::StreamReader;

pub(super) async fn add(conn: &Conn, name: &str, from: &BaseFrom) -> Result<()> {
    let name = match name {
        "python" | "node" => format!("base/{name}:latest"),
        name => name.trim_start_matches("minik8s.internal/").to_owned(),
    };
    let (repository, tag) = name.rsplit_once(':').unwrap_or((&name, "latest"));
    let (manifest, media_type) = match from {
        BaseFrom { archive: Some(archive), .. } => of_archive(conn, repository, archive).await?,
        BaseFrom { from: Some(image), .. } => of_registry(conn, repository, image).await?,
        // The arguments see to it.
        BaseFrom { archive: None, from: None } => bail!("give an archive with -f, or the name of an image with --from"),
    };
    registry::name(conn, repository, tag, manifest, &media_type).await?;
    say(&format!("base image {repository}:{tag} added"));
    Ok(())
}

/// Sends the blobs of an OCI archive; answers the manifest and its media type.
async fn of_archive(conn: &Conn, repository: &str, archive: &Path) -> Result<(Vec<u8>, String)> {
    let directory = tempfile::tempdir()?;
    let file = std::fs::File::open(archive).with_context(|| format!("cannot read {}", archive.display()))?;
    tar::Archive::new(file).unpack(directory.path()).context("this is no OCI archive")?;
    let read = |path: &Path| -> Result<Value> { Ok(serde_json::from_slice(&std::fs::read(path)?)?) };
    let blob = |digest: &str| directory.path().join("blobs").join(digest.replace(':', "/"));
    let index = read(&directory.path().join("index.json")).context("this is no OCI archive: it has no index.json")?;
    let mut at = blob(index["manifests"][0]["digest"].as_str().unwrap_or_default());
    let mut manifest = read(&at)?;
    if let Some(inner) = manifest["manifests"][0]["digest"].as_str() {
        at = blob(inner);
        manifest = read(&at)?;
    }
    let layers = manifest["layers"].as_array().into_iter().flatten();
    for part in layers.chain([&manifest["config"]]) {
        registry::send_file(conn, repository, &blob(part["digest"].as_str().unwrap_or_default())).await?;
    }
    let media_type = manifest["mediaType"].as_str().unwrap_or("application/vnd.oci.image.manifest.v1+json");
    Ok((std::fs::read(&at)?, media_type.to_owned()))
}

/// Sends the blobs of an image on as they come from its registry; answers the manifest and its media type.
async fn of_registry(conn: &Conn, repository: &str, image: &str) -> Result<(Vec<u8>, String)> {
    let image = RemoteImage::find(image, None).await?;
    for (digest, size) in image.blobs() {
        if registry::has(conn, repository, digest).await? {
            continue;
        }
        note(&format!("{} of {size} bytes", digest.chars().take(19).collect::<String>()));
        registry::send(conn, repository, digest, StreamReader::new(image.blob(digest).await?)).await?;
    }
    let (manifest, media_type) = image.manifest();
    Ok((manifest.to_vec(), media_type.to_owned()))
}
