//! A registry in this process, on loopback: enough of the OCI distribution protocol to pull from and push to, and
//! willing to misbehave. <https://github.com/opencontainers/distribution-spec/blob/main/spec.md>

use base64::Engine;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use minik8s_core::server::tls::Pki;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::convert::Infallible;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A registry that lives as long as this.
pub struct Registry {
    address: String,
    state: Arc<Mutex<State>>,
    _stop: DropGuard,
}

#[derive(Default)]
struct State {
    blobs: HashMap<String, Bytes>,
    /// By `repository:tag` and `repository@digest`: media type and bytes.
    manifests: HashMap<String, (String, Bytes)>,
    uploads: HashMap<String, Vec<u8>>,
    credentials: Option<String>,
    /// Tokens are wanted, and given out by the registry itself to those with `credentials`.
    tokens: bool,
    corrupt: Vec<String>,
    requests: Vec<String>,
}

type Answer = Response<Full<Bytes>>;

impl Registry {
    /// Starts one on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// Where no port can be had.
    pub async fn start() -> std::io::Result<Self> {
        Self::start_on(None).await
    }

    /// The same over TLS, with the server's certificate of `pki`, which should be for 127.0.0.1.
    ///
    /// # Errors
    /// Where no port can be had or the certificates do not fit.
    pub async fn start_tls(pki: &Pki) -> std::io::Result<Self> {
        let config = pki.server_config().map_err(std::io::Error::other)?;
        Self::start_on(Some(config.into())).await
    }

    async fn start_on(tls: Option<TlsAcceptor>) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let state = Arc::new(Mutex::new(State::default()));
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, tls, state.clone(), stop.clone()));
        Ok(Self { address, state, _stop: stop.drop_guard() })
    }

    /// `127.0.0.1:port`, the first part of the names of its images.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Takes in the image of an OCI archive as `repository:tag`; answers the manifest's digest.
    ///
    /// # Errors
    /// Where the archive cannot be read.
    pub fn load(&self, archive: &Path, repository: &str, tag: &str) -> std::io::Result<String> {
        let mut index = serde_json::Value::Null;
        let mut state = self.state.lock();
        let mut tar = tar::Archive::new(std::fs::File::open(archive)?);
        for entry in tar.entries()? {
            let mut entry = entry?;
            let name = entry.path()?.to_string_lossy().into_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            if let Some(hex) = name.strip_prefix("blobs/sha256/") {
                state.blobs.insert(format!("sha256:{hex}"), bytes.into());
            } else if name == "index.json" {
                index = serde_json::from_slice(&bytes)?;
            }
        }
        let target = &index["manifests"][0];
        let digest = target["digest"].as_str().unwrap_or_default().to_owned();
        let media_type = target["mediaType"].as_str().unwrap_or_default().to_owned();
        let bytes = state.blobs.get(&digest).cloned().unwrap_or_default();
        state.store_manifest(repository, tag, media_type, bytes);
        Ok(digest)
    }

    /// Stores a manifest or index as it is; answers its digest.
    pub fn put_manifest(&self, repository: &str, tag: &str, media_type: &str, bytes: impl Into<Bytes>) -> String {
        self.state.lock().store_manifest(repository, tag, media_type.to_owned(), bytes.into())
    }

    /// From now on only these credentials are let in.
    pub fn require(&self, username: &str, password: &str) {
        let text = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
        self.state.lock().credentials = Some(format!("Basic {text}"));
    }

    /// From now on only bearers of a token are let in, which `/token` gives to those with these credentials.
    pub fn require_token(&self, username: &str, password: &str) {
        self.require(username, password);
        self.state.lock().tokens = true;
    }

    /// Answers the blob or manifest of this digest with other bytes.
    pub fn corrupt(&self, digest: &str) {
        self.state.lock().corrupt.push(digest.to_owned());
    }

    /// Answers truthfully again.
    pub fn heal(&self) {
        let mut state = self.state.lock();
        state.corrupt.clear();
        (state.credentials, state.tokens) = (None, false);
    }

    /// Every request so far, as `METHOD path`, with the query where a token is asked for.
    pub fn requests(&self) -> Vec<String> {
        self.state.lock().requests.clone()
    }

    /// Digests of all blobs.
    pub fn blobs(&self) -> Vec<String> {
        self.state.lock().blobs.keys().cloned().collect()
    }
}

impl State {
    fn store_manifest(&mut self, repository: &str, reference: &str, media_type: String, bytes: Bytes) -> String {
        let digest = sha256(&bytes);
        self.manifests.insert(format!("{repository}@{digest}"), (media_type.clone(), bytes.clone()));
        if !reference.starts_with("sha256:") {
            self.manifests.insert(format!("{repository}:{reference}"), (media_type, bytes));
        }
        digest
    }

    fn answer(&mut self, method: &Method, path: &str, query: &str, media_type: &str, body: Bytes) -> Answer {
        let rest = path.trim_start_matches("/v2/");
        if let Some((repository, reference)) = rest.split_once("/manifests/") {
            return self.manifest(method, repository, reference, media_type, body);
        }
        if let Some((repository, upload)) = rest.split_once("/blobs/uploads/") {
            return self.upload(method, repository, upload, query, &body);
        }
        if let Some((_, digest)) = rest.split_once("/blobs/") {
            return match self.blobs.get(digest).cloned() {
                Some(bytes) => self.content(method, digest, "application/octet-stream", bytes),
                None => error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN"),
            };
        }
        if rest.is_empty() { text(StatusCode::OK, "{}") } else { error(StatusCode::NOT_FOUND, "NAME_UNKNOWN") }
    }

    fn manifest(&mut self, method: &Method, repository: &str, reference: &str, kind: &str, body: Bytes) -> Answer {
        if method == Method::PUT {
            let digest = self.store_manifest(repository, reference, kind.to_owned(), body);
            let location = format!("/v2/{repository}/manifests/{digest}");
            return with(text(StatusCode::CREATED, ""), &[("Location", &location), ("Docker-Content-Digest", &digest)]);
        }
        let key = if reference.starts_with("sha256:") {
            format!("{repository}@{reference}")
        } else {
            format!("{repository}:{reference}")
        };
        match self.manifests.get(&key).cloned() {
            Some((media_type, bytes)) => {
                let digest = sha256(&bytes);
                self.content(method, &digest, &media_type, bytes)
            }
            None => error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
        }
    }

    fn content(&self, method: &Method, digest: &str, media_type: &str, bytes: Bytes) -> Answer {
        let mut bytes = bytes.to_vec();
        if self.corrupt.iter().any(|c| c == digest) {
            bytes.iter_mut().take(1).for_each(|b| *b = b.wrapping_add(1));
        }
        let length = bytes.len().to_string();
        let body = if method == Method::HEAD { Vec::new() } else { bytes };
        let mut response = Response::new(Full::new(body.into()));
        *response.status_mut() = StatusCode::OK;
        let headers = [("Content-Type", media_type), ("Docker-Content-Digest", digest), ("Content-Length", &length)];
        with(response, &headers)
    }

    /// `POST` opens an upload, `PATCH` adds to it, `PUT` ends it.
    fn upload(&mut self, method: &Method, repository: &str, upload: &str, query: &str, body: &Bytes) -> Answer {
        let id = if method == Method::POST { uuid::Uuid::new_v4().simple().to_string() } else { upload.to_owned() };
        let bytes = self.uploads.entry(id.clone()).or_default();
        bytes.extend_from_slice(body);
        let end = bytes.len().saturating_sub(1);
        let digest = query.split('&').find_map(|p| p.strip_prefix("digest=")).map(|d| d.replace("%3A", ":"));
        let Some(digest) = digest else {
            let (location, range) = (format!("/v2/{repository}/blobs/uploads/{id}"), format!("0-{end}"));
            return with(text(StatusCode::ACCEPTED, ""), &[("Location", &location), ("Range", &range)]);
        };
        let bytes = self.uploads.remove(&id).unwrap_or_default();
        if sha256(&bytes) != digest {
            return error(StatusCode::BAD_REQUEST, "DIGEST_INVALID");
        }
        self.blobs.insert(digest.clone(), bytes.into());
        let location = format!("/v2/{repository}/blobs/{digest}");
        with(text(StatusCode::CREATED, ""), &[("Location", &location), ("Docker-Content-Digest", &digest)])
    }
}

async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, state: Arc<Mutex<State>>, stop: CancellationToken) {
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted { Ok((stream, _)) => stream, Err(_) => continue },
        };
        let (state, stop, tls) = (state.clone(), stop.clone(), tls.clone());
        let connection = async move {
            match tls {
                // Clients that do not like the certificate go away.
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => talk(stream, state).await,
                    Err(error) => tracing::debug!(%error, "no handshake"),
                },
                None => talk(stream, state).await,
            }
        };
        tokio::spawn(async move { stop.run_until_cancelled(connection).await });
    }
}

async fn talk(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, state: Arc<Mutex<State>>) {
    let service = hyper::service::service_fn(move |request| handle(state.clone(), request));
    // A connection that breaks is the client's to notice.
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

async fn handle(state: Arc<Mutex<State>>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let header = |name| parts.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let mut state = state.lock();
    let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
    let shown = if path == "/token" { format!("{path}?{query}") } else { path.to_owned() };
    state.requests.push(format!("{} {shown}", parts.method));
    let (shows, host) = (header(header::AUTHORIZATION), header(header::HOST));
    match &state.credentials {
        Some(wanted) if state.tokens && path == "/token" => {
            let known = wanted == shows && query.contains("scope=repository%3A");
            return Ok(if known { token() } else { error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED") });
        }
        Some(_) if state.tokens && shows != format!("Bearer {TOKEN}") => {
            let realm = format!("Bearer realm=\"http://{host}/token\",service=\"test\"");
            return Ok(with(error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED"), &[("WWW-Authenticate", &realm)]));
        }
        Some(wanted) if !state.tokens && wanted != shows => {
            let refused = error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED");
            return Ok(with(refused, &[("WWW-Authenticate", "Basic realm=\"test\"")]));
        }
        _ => {}
    }
    Ok(state.answer(&parts.method, path, query, header(header::CONTENT_TYPE), body))
}

/// What the registry gives out and wants to see again.
const TOKEN: &str = "a-token-of-the-test-registry";

fn token() -> Answer {
    let mut response = Response::new(Full::new(serde_json::json!({"token": TOKEN}).to_string().into()));
    *response.status_mut() = StatusCode::OK;
    with(response, &[("Content-Type", "application/json")])
}

fn text(status: StatusCode, body: &'static str) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    response
}

fn error(status: StatusCode, code: &str) -> Answer {
    let body = serde_json::json!({"errors": [{"code": code, "message": code.to_lowercase().replace('_', " ")}]});
    let mut response = Response::new(Full::new(body.to_string().into()));
    *response.status_mut() = status;
    with(response, &[("Content-Type", "application/json")])
}

fn with(mut response: Answer, headers: &[(&'static str, &str)]) -> Answer {
    for (name, value) in headers {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(*name, value);
        }
    }
    response
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", crate::config::hex(&Sha256::digest(bytes)))
}
