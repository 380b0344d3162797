//! The cluster's registry, through the API server: files and base images go there in streams.

use super::archive::Archive;
use crate::api::Conn;
use anyhow::{Context, Result, anyhow, bail};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::io::Read as _;
use std::path::Path;
use tokio::io::AsyncReadExt;

/// Bytes that are sent, and held, at a time.
const PART: u64 = 4 << 20;

/// Sends an archive; answers how an object refers to it.
pub(super) async fn upload(conn: &Conn, archive: Archive) -> Result<Value> {
    let (digest, size) = send_file(conn, "functions/sources", archive.path()).await?;
    Ok(json!({"digest": digest, "size": size}))
}

/// Sends a file as a blob, unless it is there already; answers its digest and size.
async fn send_file(conn: &Conn, repository: &str, path: &Path) -> Result<(String, u64)> {
    let read = path.to_owned();
    let (digest, size) = tokio::task::spawn_blocking(move || digest_of(&read)).await??;
    let there = Request::head(format!("/v2/{repository}/blobs/{digest}")).body(Body::empty())?;
    if ask(conn, there).await?.0 == StatusCode::OK {
        return Ok((digest, size));
    }
    let begin = Request::post(format!("/v2/{repository}/blobs/uploads/")).body(Body::empty())?;
    let (status, text, at) = ask(conn, begin).await?;
    expect((status, text), StatusCode::ACCEPTED)?;
    let mut file = tokio::fs::File::open(path).await?;
    loop {
        let mut part = Vec::new();
        (&mut file).take(PART).read_to_end(&mut part).await?;
        if part.is_empty() {
            break;
        }
        let request = Request::patch(&at).header("content-type", "application/octet-stream").body(Body::from(part))?;
        let (status, text, _) = ask(conn, request).await?;
        expect((status, text), StatusCode::ACCEPTED)?;
    }
    let end = Request::put(format!("{at}?digest={digest}")).body(Body::empty())?;
    let (status, text, _) = ask(conn, end).await?;
    expect((status, text), StatusCode::CREATED)?;
    Ok((digest, size))
}

/// Status, body, and where to go on.
async fn ask(conn: &Conn, request: Request<Body>) -> Result<(StatusCode, String, String)> {
    let response = conn.client.send(request).await.map_err(crate::api::explain)?;
    let (head, body) = response.into_parts();
    let bytes = body.collect().await.map_err(|error| anyhow!("the answer broke off: {error}"))?.to_bytes();
    let at = head.headers.get(http::header::LOCATION).and_then(|at| at.to_str().ok()).unwrap_or_default().to_owned();
    Ok((head.status, String::from_utf8_lossy(&bytes).into_owned(), at))
}

fn expect((status, text): (StatusCode, String), wanted: StatusCode) -> Result<()> {
    if status == wanted {
        return Ok(());
    }
    let told: Value = serde_json::from_str(&text).unwrap_or_default();
    let why = told.pointer("/errors/0/message").or_else(|| told.get("message")).and_then(Value::as_str);
    bail!("the cluster's registry refuses: {}", why.unwrap_or(status.canonical_reason().unwrap_or("?")))
}

fn digest_of(path: &Path) -> Result<(String, u64)> {
    let mut file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (mut sum, mut buffer, mut size) = (Sha256::new(), vec![0; 1 << 16], 0);
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            let hex: String = sum.finalize().iter().map(|b| format!("{b:02x}")).collect();
            return Ok((format!("sha256:{hex}"), size));
        }
        sum.update(&buffer[..count]);
        size += count as u64;
    }
}

/// Takes an OCI archive into the registry as what functions are laid on.
pub(super) async fn add_base(conn: &Conn, name: &str, archive: &Path) -> Result<()> {
    let name = match name {
        "python" | "node" => format!("base/{name}:latest"),
        name => name.trim_start_matches("minik8s.internal/").to_owned(),
    };
    let (repository, tag) = name.rsplit_once(':').unwrap_or((&name, "latest"));
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
        send_file(conn, repository, &blob(part["digest"].as_str().unwrap_or_default())).await?;
    }
    let request = Request::put(format!("/v2/{repository}/manifests/{tag}"))
        .header("content-type", manifest["mediaType"].as_str().unwrap_or("application/vnd.oci.image.manifest.v1+json"))
        .body(Body::from(std::fs::read(&at)?))?;
    let (status, text, _) = ask(conn, request).await?;
    expect((status, text), StatusCode::CREATED)?;
    crate::output::say(&format!("base image {repository}:{tag} added"));
    Ok(())
}
