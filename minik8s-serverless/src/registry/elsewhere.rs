//! What is not in this directory but in another API server's: it is asked for by digest, streamed to disk, verified, and
//! then it is here. A server that is asked so looks in its own directory alone, so that nobody asks in circles.

use super::error::RegistryError;
use super::http::{empty, parts_of};
use super::place_of_word;
use super::store::Registry;
use bytes::Bytes;
use futures::future::{BoxFuture, Shared};
use futures::stream::{BoxStream, FuturesUnordered};
use futures::{FutureExt, Stream, StreamExt};
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode};
use minik8s_core::client::Client;
use minik8s_core::server::Peers;
use minik8s_core::server::rest::Body;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Marks what one API server asks another.
pub(super) const ASKED_BY_SERVER: HeaderName = HeaderName::from_static("minik8s-asked-by-server");
/// How long a server may take to say whether it has something.
const ANSWER: Duration = Duration::from_secs(5);
/// A server that is silent for so long while it sends is gone.
const SILENCE: Duration = Duration::from_secs(30);
/// At most so many blobs are looked for at once.
const MOST: usize = 64;

/// The cluster that a registry is part of.
#[derive(Clone, Debug, Default)]
pub(super) struct Around(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    cluster: Option<(Client, Peers)>,
    /// What is being fetched, by digest.
    fetches: HashMap<String, Fetch>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("fetches", &self.fetches.len()).finish_non_exhaustive()
    }
}

/// A fetch that any number wait for. Why it failed is told to all.
type Fetch = Shared<BoxFuture<'static, Result<(), String>>>;

impl Registry {
    /// From now on what is not here is looked for at `peers`, and names are objects of the cluster; those that stand in the
    /// directory become such where the cluster has none.
    ///
    /// # Errors
    /// Where the names cannot be written.
    pub async fn join(&self, client: &Client, peers: &Peers) -> Result<(), RegistryError> {
        self.around.0.lock().cluster = Some((client.clone(), peers.clone()));
        self.move_names(client).await
    }

    pub(super) fn client(&self) -> Option<Client> {
        self.around.0.lock().cluster.as_ref().map(|(client, _)| client.clone())
    }

    fn peers(&self) -> Option<(Peers, Vec<String>)> {
        let peers = self.around.0.lock().cluster.as_ref().map(|(_, peers)| peers.clone())?;
        let others = peers.others();
        (!others.is_empty()).then_some((peers, others))
    }

    /// The size of a blob, which is brought here where only another API server of the cluster has it.
    ///
    /// # Errors
    /// `Missing` where nobody has it, `Elsewhere` where somebody may have it who did not give it; the disk's.
    pub async fn find(&self, digest: &str) -> Result<u64, RegistryError> {
        let missing = match self.size(digest).await {
            Err(error @ RegistryError::Missing(_)) => error,
            known => return known,
        };
        let Some((peers, others)) = self.peers() else { return Err(missing) };
        let failed = |why| RegistryError::Elsewhere { digest: digest.to_owned(), why };
        self.fetch_once(digest, peers, others)?.await.map_err(failed)?;
        self.size(digest).await
    }

    /// A small blob as a whole, wherever it is.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub async fn load(&self, digest: &str) -> Result<Vec<u8>, RegistryError> {
        self.find(digest).await?;
        self.read(digest).await
    }

    /// The fetch of a blob: the one that runs, or a new one. It goes on where nobody waits any more.
    fn fetch_once(&self, digest: &str, peers: Peers, others: Vec<String>) -> Result<Fetch, RegistryError> {
        let mut state = self.around.0.lock();
        if let Some(running) = state.fetches.get(digest) {
            return Ok(running.clone());
        }
        if state.fetches.len() >= MOST {
            return Err(RegistryError::Busy(format!("{MOST} blobs are being looked for at other API servers")));
        }
        let (registry, name) = (self.clone(), digest.to_owned());
        let work = tokio::spawn(async move {
            // Also where it panics.
            let _over = Over(registry.around.clone(), name.clone());
            // It may have come since it was looked for.
            match registry.size(&name).await {
                Ok(_) => Ok(()),
                Err(_) => registry.fetch(&name, &peers, others).await,
            }
        });
        let fetch = work.map(|done| done.unwrap_or_else(|error| Err(error.to_string()))).boxed().shared();
        state.fetches.insert(digest.to_owned(), fetch.clone());
        Ok(fetch)
    }

    /// Asks all who has it; takes it from the first that does, or else from the next. That nobody has it is no error.
    async fn fetch(&self, digest: &str, peers: &Peers, others: Vec<String>) -> Result<(), String> {
        let place = format!("/v2/_/blobs/{digest}");
        let has = |url: String| async {
            let head = asking(Method::HEAD, &place, empty());
            let answer = tokio::time::timeout(ANSWER, peers.ask(&url, head)).await;
            (url, answer.map_err(|_| silent(ANSWER)).and_then(|told| told.map(|told| told.status())))
        };
        let mut asked: FuturesUnordered<_> = others.into_iter().map(has).collect();
        let mut failed = Vec::new();
        while let Some((url, told)) = asked.next().await {
            let why = match told {
                Ok(StatusCode::OK) => match self.take(digest, peers, &url, &place).await {
                    Ok(()) => return Ok(()),
                    Err(error) => error.to_string(),
                },
                Ok(StatusCode::NOT_FOUND) => continue,
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            };
            tracing::debug!(digest, server = url, why, "a blob did not come from another API server");
            failed.push(format!("{url}: {why}"));
        }
        if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
    }

    async fn take(&self, digest: &str, peers: &Peers, url: &str, place: &str) -> Result<(), RegistryError> {
        let broken = |error: io::Error| RegistryError::BrokenOff(error.to_string());
        let get = peers.ask(url, asking(Method::GET, place, empty()));
        let answer = tokio::time::timeout(SILENCE, get).await.map_err(|_| silent(SILENCE)).flatten().map_err(broken)?;
        if answer.status() != StatusCode::OK {
            return Err(RegistryError::BrokenOff(answer.status().to_string()));
        }
        let id = self.begin().await?;
        self.complete(&id, audible(answer.into_body()), digest).await
    }

    /// The API server that gave a word, where it is not this one.
    pub(super) async fn who_invited(&self, word: &str) -> Option<Inviter> {
        let (peers, others) = self.peers()?;
        let place = place_of_word(word);
        let gave = |url: String| async {
            let head = asking(Method::HEAD, &place, empty());
            let told = tokio::time::timeout(ANSWER, peers.ask(&url, head)).await;
            told.is_ok_and(|told| told.is_ok_and(|told| told.status() == StatusCode::OK)).then_some(url)
        };
        let asked: FuturesUnordered<_> = others.into_iter().map(gave).collect();
        let url = std::pin::pin!(asked.filter_map(std::future::ready)).next().await?;
        Some(Inviter { peers, url, place })
    }
}

/// An API server that gave a word.
pub(super) struct Inviter {
    peers: Peers,
    url: String,
    place: String,
}

impl Inviter {
    /// Passes the file of the word on, as it comes; answers what the server says.
    pub(super) async fn send(&self, headers: &HeaderMap, body: Body) -> io::Result<Response<Body>> {
        let mut request = asking(Method::PUT, &self.place, body);
        if let Some(length) = headers.get(http::header::CONTENT_LENGTH) {
            request.headers_mut().insert(http::header::CONTENT_LENGTH, length.clone());
        }
        self.peers.ask(&self.url, request).await
    }
}

/// Takes a fetch that is over off the list.
struct Over(Around, String);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.0.lock().fetches.remove(&self.1);
    }
}

fn asking(method: Method, place: &str, body: Body) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = place.parse().unwrap_or_default();
    request.headers_mut().insert(ASKED_BY_SERVER, http::HeaderValue::from_static("1"));
    request
}

fn silent(after: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("it said nothing for {} seconds", after.as_secs()))
}

/// The data of an answer, for as long as it comes.
fn audible(body: Body) -> BoxStream<'static, Result<Bytes, String>> {
    bounded(parts_of(body), SILENCE)
}

/// Parts that end with an error where none comes for so long.
fn bounded(
    parts: impl Stream<Item = Result<Bytes, String>> + Send + Unpin + 'static,
    silence: Duration,
) -> BoxStream<'static, Result<Bytes, String>> {
    let next = move |mut parts| async move {
        match tokio::time::timeout(silence, StreamExt::next(&mut parts)).await {
            Ok(part) => part.map(|part| (part, parts)),
            Err(_) => Some((Err(silent(silence).to_string()), parts)),
        }
    };
    futures::stream::unfold(parts, next).boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_server_that_falls_silent_has_broken_off() {
        let said = futures::stream::iter([Ok(Bytes::from_static(b"a"))]).chain(futures::stream::pending());
        let mut parts = bounded(said.boxed(), SILENCE);
        assert_eq!(parts.next().await, Some(Ok(Bytes::from_static(b"a"))));
        assert_eq!(parts.next().await, Some(Err("it said nothing for 30 seconds".to_owned())));
    }
}
