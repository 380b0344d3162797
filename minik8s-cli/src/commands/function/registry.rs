//! The cluster's registry, through the API server: blobs go there in streams.

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
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes that are sent, and held, at a time.
const PART: u64 = 4 << 20;

/// Sends an archive; answers how an object refers to it.
pub(super) async fn upload(conn: &Conn, archive: Archive) -> Result<Value> {
    let (digest, size) = send_file(conn, "functions/sources", archive.path()).await?;
    Ok(json!({"digest": digest, "size": size}))
}

/// Sends a file as a blob, unless it is there already; answers its digest and size.
pub(super) async fn send_file(conn: &Conn, repository: &str, path: &Path) -> Result<(String, u64)> {
    let read = path.to_owned();
    let (digest, size) = tokio::task::spawn_blocking(move || digest_of(&read)).await??;
    if !has(conn, repository, &digest).await? {
        send(conn, repository, &digest, tokio::fs::File::open(path).await?).await?;
    }
    Ok((digest, size))
}

pub(super) async fn has(conn: &Conn, repository: &str, digest: &str) -> Result<bool> {
    let there = Request::head(format!("/v2/{repository}/blobs/{digest}")).body(Body::empty())?;
    Ok(ask(conn, there).await?.0 == StatusCode::OK)
}

/// Sends what has this digest: the registry takes nothing else for it.
pub(super) async fn send(conn: &Conn, repository: &str, digest: &str, mut from: impl AsyncRead + Unpin) -> Result<()> {
    let begin = Request::post(format!("/v2/{repository}/blobs/uploads/")).body(Body::empty())?;
    let (status, text, at) = ask(conn, begin).await?;
    expect((status, text), StatusCode::ACCEPTED)?;
    loop {
        let mut part = Vec::new();
        (&mut from).take(PART).read_to_end(&mut part).await?;
        if part.is_empty() {
            break;
        }
        let request = Request::patch(&at).header("content-type", "application/octet-stream").body(Body::from(part))?;
        let (status, text, _) = ask(conn, request).await?;
        expect((status, text), StatusCode::ACCEPTED)?;
    }
    let end = Request::put(format!("{at}?digest={digest}")).body(Body::empty())?;
    let (status, text, _) = ask(conn, end).await?;
    expect((status, text), StatusCode::CREATED)
}

/// Names an image whose blobs are there.
pub(super) async fn name(conn: &Conn, repository: &str, tag: &str, manifest: Vec<u8>, media_type: &str) -> Result<()> {
    let request = Request::put(format!("/v2/{repository}/manifests/{tag}"))
        .header("content-type", media_type)
        .body(Body::from(manifest))?;
    let (status, text, _) = ask(conn, request).await?;
    expect((status, text), StatusCode::CREATED)
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
