//! The OCI distribution API over a registry's directory.

use super::elsewhere::ASKED_BY_SERVER;
use super::error::RegistryError;
use super::image::{MANIFEST, Manifest};
use super::store::{LARGEST_MANIFEST, Registry};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use hyper::body::Frame;
use minik8s_core::server::HttpDoor;
use minik8s_core::server::auth::{MASTERS, User};
use minik8s_core::server::rest::{Body, BoxError};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncSeekExt, SeekFrom};
use tokio_util::io::ReaderStream;

/// The registry, below `/v2/`.
pub struct RegistryDoor(pub Registry);

#[async_trait]
impl HttpDoor for RegistryDoor {
    fn prefix(&self) -> &str {
        "/v2/"
    }

    async fn call(&self, user: Option<User>, request: Request<Body>) -> Response<Body> {
        match self.serve(user, request).await {
            Ok(response) => response,
            Err(refusal) => refusal.answer(),
        }
    }
}

/// An answer that says why not.
struct Refusal(StatusCode, &'static str, String);

impl Refusal {
    fn answer(self) -> Response<Body> {
        let Self(status, code, message) = self;
        let text = json!({"errors": [{"code": code, "message": message}]}).to_string();
        answer(status, full(text), &[(header::CONTENT_TYPE, "application/json")])
    }
}

impl From<RegistryError> for Refusal {
    fn from(error: RegistryError) -> Self {
        let text = error.to_string();
        match error {
            RegistryError::Missing(_) | RegistryError::Elsewhere { .. } => {
                Self(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", text)
            }
            RegistryError::Names(_) => Self(StatusCode::SERVICE_UNAVAILABLE, "UNKNOWN", text),
            RegistryError::Digest { .. } => Self(StatusCode::BAD_REQUEST, "DIGEST_INVALID", text),
            RegistryError::TooLarge(_) => Self(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", text),
            RegistryError::Malformed(..) => Self(StatusCode::BAD_REQUEST, "NAME_INVALID", text),
            RegistryError::Busy(_) => Self(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", text),
            RegistryError::Contended(_) => Self(StatusCode::CONFLICT, "BLOB_UPLOAD_INVALID", text),
            RegistryError::BrokenOff(_) => Self(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID", text),
            RegistryError::Io { source, .. } => {
                Self(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", format!("{text}: {source}"))
            }
        }
    }
}

/// What a path below `/v2/` is about.
#[derive(Debug, PartialEq, Eq)]
enum Place<'a> {
    Root,
    Blob(&'a str),
    Manifest(&'a str, &'a str),
    Uploads(&'a str),
    Upload(&'a str, &'a str),
    Tags(&'a str),
    Invited(&'a str),
}

fn place(path: &str) -> Option<Place<'_>> {
    let rest = path.strip_prefix("/v2/")?;
    if rest.is_empty() {
        return Some(Place::Root);
    }
    // No repository's name begins so.
    if let Some(word) = rest.strip_prefix("_invited/") {
        return Some(Place::Invited(word));
    }
    if let Some((name, id)) = rest.split_once("/blobs/uploads") {
        let id = id.trim_start_matches('/');
        return Some(if id.is_empty() { Place::Uploads(name) } else { Place::Upload(name, id) });
    }
    if let Some((_, digest)) = rest.rsplit_once("/blobs/") {
        return Some(Place::Blob(digest));
    }
    if let Some((name, reference)) = rest.rsplit_once("/manifests/") {
        return Some(Place::Manifest(name, reference));
    }
    rest.strip_suffix("/tags/list").map(Place::Tags)
}

impl RegistryDoor {
    async fn serve(&self, user: Option<User>, request: Request<Body>) -> Result<Response<Body>, Refusal> {
        let path = request.uri().path().to_owned();
        let unknown = || Refusal(StatusCode::NOT_FOUND, "UNSUPPORTED", format!("nothing is served at {path}"));
        let place = place(&path).ok_or_else(unknown)?;
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        let open = match place {
            Place::Root | Place::Blob(_) => reads,
            Place::Manifest(_, reference) => reads && reference.contains(':'),
            Place::Invited(_) => true,
            _ => false,
        };
        if !open {
            may(user.as_ref())?;
        }
        let digest = parameter(request.uri().query().unwrap_or_default(), "digest");
        let asked_by_server = request.headers().contains_key(ASKED_BY_SERVER);
        match (request.method().clone(), place) {
            (_, Place::Root) if reads => Ok(answer(StatusCode::OK, full("{}"), &[])),
            (_, Place::Blob(digest)) if reads => self.blob(digest, request).await,
            (_, Place::Manifest(name, reference)) if reads => self.manifest(name, reference, request.method()).await,
            (Method::PUT, Place::Manifest(name, reference)) => self.put_manifest(name, reference, request).await,
            (Method::DELETE, Place::Manifest(name, tag)) => {
                self.0.untag(name, tag).await?;
                Ok(answer(StatusCode::ACCEPTED, full(""), &[]))
            }
            (Method::GET, Place::Tags(name)) => {
                let text = json!({"name": name, "tags": self.0.tags(name).await?}).to_string();
                Ok(answer(StatusCode::OK, full(text), &[(header::CONTENT_TYPE, "application/json")]))
            }
            (Method::POST, Place::Uploads(name)) => self.begin(name, digest, request).await,
            (Method::PATCH, Place::Upload(name, id)) => self.patch(name, id, request).await,
            (Method::PUT, Place::Upload(name, id)) => {
                let digest = digest.ok_or_else(|| bad("the query says no digest"))?;
                self.whole(name, id, &digest, request).await
            }
            (Method::PUT, Place::Invited(word)) => {
                if !asked_by_server
                    && !self.0.has_invited(word).await?
                    && let Some(inviter) = self.0.who_invited(word).await
                {
                    let (head, body) = request.into_parts();
                    let broken = |error: std::io::Error| RegistryError::BrokenOff(error.to_string());
                    return Ok(inviter.send(&head.headers, body).await.map_err(broken)?);
                }
                self.0.receive(word, parts(request)).await?;
                Ok(answer(StatusCode::CREATED, full(""), &[]))
            }
            (Method::HEAD, Place::Invited(word)) if asked_by_server => {
                let status = if self.0.has_invited(word).await? { StatusCode::OK } else { StatusCode::NOT_FOUND };
                Ok(answer(status, full(""), &[]))
            }
            (Method::DELETE, Place::Upload(_, id)) => {
                self.0.cancel(id).await;
                Ok(answer(StatusCode::NO_CONTENT, full(""), &[]))
            }
            _ => Err(Refusal(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "this is not served here".to_owned())),
        }
    }

    async fn blob(&self, digest: &str, request: Request<Body>) -> Result<Response<Body>, Refusal> {
        let size = match request.headers().contains_key(ASKED_BY_SERVER) {
            true => self.0.size(digest).await?,
            false => self.0.find(digest).await?,
        };
        let range = request.headers().get(header::RANGE).and_then(|v| v.to_str().ok());
        let (from, to) = match range {
            None => (0, size),
            Some(text) => range_of(text, size).ok_or_else(|| {
                Refusal(StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID", format!("no such range: {text}"))
            })?,
        };
        let body = match *request.method() == Method::HEAD {
            true => full(""),
            false => {
                let path = self.0.path(digest)?;
                let failed = |source| RegistryError::Io { operation: "read", path: path.clone(), source };
                let mut file = tokio::fs::File::open(&path).await.map_err(failed)?;
                file.seek(SeekFrom::Start(from)).await.map_err(failed)?;
                let parts = ReaderStream::with_capacity(file.take(to - from), 64 << 10);
                StreamBody::new(parts.map_ok(Frame::data).map_err(|error| Box::new(error) as BoxError)).boxed_unsync()
            }
        };
        let length = (to - from).to_string();
        let mut headers = vec![
            (header::CONTENT_TYPE, "application/octet-stream"),
            (header::CONTENT_LENGTH, &length),
            (header::ACCEPT_RANGES, "bytes"),
            (DIGEST, digest),
        ];
        let shown = format!("bytes {from}-{}/{size}", to.saturating_sub(1));
        if range.is_some() {
            headers.push((header::CONTENT_RANGE, &shown));
        }
        let status = if range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
        Ok(answer(status, body, &headers))
    }

    async fn manifest(&self, name: &str, reference: &str, method: &Method) -> Result<Response<Body>, Refusal> {
        let unknown = |e: RegistryError| match Refusal::from(e) {
            Refusal(StatusCode::NOT_FOUND, _, why) => Refusal(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", why),
            other => other,
        };
        let digest = self.0.resolve(name, reference).await.map_err(unknown)?;
        let bytes = self.0.load(&digest).await.map_err(unknown)?;
        let kind = Manifest::parse(&bytes).map(|m| m.media_type).filter(|kind| !kind.is_empty());
        let kind = kind.unwrap_or_else(|| MANIFEST.to_owned());
        let length = bytes.len().to_string();
        let body = if *method == Method::HEAD { full("") } else { full(bytes) };
        let headers = [(header::CONTENT_TYPE, &*kind), (header::CONTENT_LENGTH, &length), (DIGEST, &digest)];
        Ok(answer(StatusCode::OK, body, &headers))
    }

    async fn put_manifest(
        &self,
        name: &str,
        reference: &str,
        request: Request<Body>,
    ) -> Result<Response<Body>, Refusal> {
        let bytes = whole_of(request, LARGEST_MANIFEST).await?;
        let manifest = Manifest::parse(&bytes)
            .ok_or_else(|| Refusal(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", "this is no manifest".to_owned()))?;
        for digest in manifest.refers() {
            let unknown = |e: RegistryError| Refusal(StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN", e.to_string());
            self.0.find(&digest).await.map_err(unknown)?;
        }
        let digest = self.0.put(bytes).await?;
        if reference.contains(':') && reference != digest {
            let (expected, actual) = (reference.to_owned(), digest);
            return Err(RegistryError::Digest { expected, actual }.into());
        }
        if !reference.contains(':') {
            self.0.tag(name, reference, &digest).await?;
        }
        let at = format!("/v2/{name}/manifests/{digest}");
        Ok(answer(StatusCode::CREATED, full(""), &[(header::LOCATION, &at), (DIGEST, &digest)]))
    }

    async fn begin(
        &self,
        name: &str,
        digest: Option<String>,
        request: Request<Body>,
    ) -> Result<Response<Body>, Refusal> {
        if let Some(mount) = parameter(request.uri().query().unwrap_or_default(), "mount")
            && self.0.find(&mount).await.is_ok()
        {
            return Ok(created(name, &mount));
        }
        let id = self.0.admit().await?;
        match digest {
            Some(digest) => self.whole(name, &id, &digest, request).await,
            None => Ok(under_way(name, &id, 0)),
        }
    }

    async fn patch(&self, name: &str, id: &str, request: Request<Body>) -> Result<Response<Body>, Refusal> {
        let length = self.0.append(id, parts(request)).await?;
        Ok(under_way(name, id, length))
    }

    /// The rest of an upload, or all of it.
    async fn whole(
        &self,
        name: &str,
        id: &str,
        digest: &str,
        request: Request<Body>,
    ) -> Result<Response<Body>, Refusal> {
        self.0.complete(id, parts(request), digest).await?;
        Ok(created(name, digest))
    }
}

const DIGEST: header::HeaderName = header::HeaderName::from_static("docker-content-digest");

fn created(name: &str, digest: &str) -> Response<Body> {
    let at = format!("/v2/{name}/blobs/{digest}");
    answer(StatusCode::CREATED, full(""), &[(header::LOCATION, &at), (DIGEST, digest)])
}

fn under_way(name: &str, id: &str, length: u64) -> Response<Body> {
    let (at, range) = (format!("/v2/{name}/blobs/uploads/{id}"), format!("0-{}", length.saturating_sub(1)));
    answer(StatusCode::ACCEPTED, full(""), &[(header::LOCATION, &at), (header::RANGE, &range)])
}

/// The data of a request as it comes.
fn parts(request: Request<Body>) -> BoxStream<'static, Result<Bytes, String>> {
    parts_of(request.into_body())
}

/// The data of a body as it comes.
pub(super) fn parts_of(body: Body) -> BoxStream<'static, Result<Bytes, String>> {
    let frames = BodyStream::new(body);
    let data = |frame: Result<Frame<Bytes>, BoxError>| match frame {
        Ok(frame) => frame.into_data().ok().map(Ok),
        Err(error) => Some(Err(error.to_string())),
    };
    frames.filter_map(move |frame| std::future::ready(data(frame))).boxed()
}

/// A body as a whole, if it is no larger than this.
async fn whole_of(request: Request<Body>, largest: usize) -> Result<Vec<u8>, Refusal> {
    let (mut parts, mut all) = (parts(request), Vec::new());
    while let Some(part) = parts.next().await {
        all.extend_from_slice(&part.map_err(|why| bad(&why))?);
        if all.len() > largest {
            return Err(RegistryError::TooLarge(largest as u64).into());
        }
    }
    Ok(all)
}

/// Who writes functions may write their images.
fn may(user: Option<&User>) -> Result<(), Refusal> {
    match user {
        Some(user) if user.groups.iter().any(|group| group == MASTERS) => Ok(()),
        Some(user) => Err(Refusal(StatusCode::FORBIDDEN, "DENIED", format!("{} may not do this", user.name))),
        None => Err(Refusal(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "say who you are".to_owned())),
    }
}

fn bad(why: &str) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, "UNSUPPORTED", why.to_owned())
}

pub(super) fn empty() -> Body {
    full("")
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

fn answer(status: StatusCode, body: Body, headers: &[(header::HeaderName, &str)]) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name.clone(), value);
        }
    }
    response
}

/// A parameter of a query, with its colon as it is or encoded.
fn parameter(query: &str, name: &str) -> Option<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(key, _)| *key == name).map(|(_, value)| value.replace("%3A", ":").replace("%3a", ":")).next()
}

/// `bytes=FROM-[TO]`, as a half-open range.
fn range_of(text: &str, size: u64) -> Option<(u64, u64)> {
    let (from, to) = text.strip_prefix("bytes=")?.split_once('-')?;
    let from: u64 = from.parse().ok()?;
    let to = if to.is_empty() { size } else { to.parse::<u64>().ok()?.checked_add(1)?.min(size) };
    (from < to).then_some((from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_ranges_are_read() {
        let table = [
            ("/v2/", Some(Place::Root)),
            ("/v2/a/b/blobs/sha256:1", Some(Place::Blob("sha256:1"))),
            ("/v2/a/b/blobs/uploads/", Some(Place::Uploads("a/b"))),
            ("/v2/a/blobs/uploads/7", Some(Place::Upload("a", "7"))),
            ("/v2/a/b/manifests/latest", Some(Place::Manifest("a/b", "latest"))),
            ("/v2/a/tags/list", Some(Place::Tags("a"))),
            ("/v2/_invited/word", Some(Place::Invited("word"))),
            ("/v2/a", None),
        ];
        for (path, want) in table {
            assert_eq!(place(path), want, "{path}");
        }
        let ranges = [("bytes=0-", Some((0, 10))), ("bytes=3-4", Some((3, 5))), ("bytes=9-99", Some((9, 10)))];
        for (text, want) in ranges.into_iter().chain([("bytes=10-", None), ("bytes=5-2", None), ("x", None)]) {
            assert_eq!(range_of(text, 10), want, "{text}");
        }
    }
}
