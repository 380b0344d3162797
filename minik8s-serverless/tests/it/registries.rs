//! The registries of several API servers, over TLS: one takes from another what it lacks.

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use futures::{StreamExt, stream};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use minik8s_core::client::Client;
use minik8s_core::cluster::{Cluster, Extension};
use minik8s_core::server::auth::User;
use minik8s_core::server::rest::{Body, BoxError};
use minik8s_core::server::{HttpDoor, Peers};
use minik8s_serverless::Serverless;
use minik8s_serverless::registry::image::{Descriptor, Manifest};
use minik8s_serverless::registry::{Registry, RegistryDoor, RegistryError};
use std::path::Path;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::Notify;

const MARK: &str = "minik8s-asked-by-server";

/// What a server of our own does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Has nothing.
    Empty,
    /// Sends what was asked for, once it may.
    Good,
    /// Sends something else.
    Wrong,
    /// Sends a part of it.
    Part,
}

/// A server that says it has a blob, and writes down what it was asked.
#[derive(Debug)]
struct Odd {
    way: Way,
    content: Bytes,
    asked: Mutex<Vec<String>>,
    /// Told when a GET begins.
    begun: Arc<Notify>,
    /// Awaited before it says whether it has something.
    waits: Option<Arc<Notify>>,
    /// Awaited before it sends.
    sends: Option<Arc<Notify>>,
}

impl Odd {
    fn new(way: Way, content: &'static [u8]) -> Self {
        let (content, asked) = (Bytes::from_static(content), Mutex::default());
        Self { way, content, asked, begun: Arc::default(), waits: None, sends: None }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn count(&self, method: &str) -> usize {
        self.asked().iter().filter(|line| line.starts_with(method)).count()
    }
}

struct Door(Arc<Odd>);

#[async_trait]
impl HttpDoor for Door {
    fn prefix(&self) -> &str {
        "/v2/"
    }

    async fn call(&self, user: Option<User>, request: Request<Body>) -> Response<Body> {
        let odd = &self.0;
        let who = if user.is_none() && request.headers().contains_key(MARK) { "a server" } else { "somebody" };
        let line = format!("{} {} by {who}", request.method(), request.uri().path());
        odd.asked.lock().unwrap().push(line);
        let answer = |status: StatusCode, body: Body| {
            let mut response = Response::new(body);
            *response.status_mut() = status;
            response
        };
        let full = |bytes: Bytes| Full::new(bytes).map_err(|never| match never {}).boxed_unsync();
        if request.method() == Method::HEAD {
            if let Some(waits) = &odd.waits {
                waits.notified().await;
            }
            let status = if odd.way == Way::Empty { StatusCode::NOT_FOUND } else { StatusCode::OK };
            return answer(status, full(Bytes::new()));
        }
        odd.begun.notify_one();
        if let Some(sends) = &odd.sends {
            sends.notified().await;
        }
        let part = |bytes| Ok::<_, BoxError>(Frame::data(bytes));
        let body = match odd.way {
            Way::Empty => return answer(StatusCode::NOT_FOUND, full(Bytes::new())),
            Way::Good => full(odd.content.clone()),
            Way::Wrong => full(Bytes::from_static(b"something else")),
            Way::Part => {
                let parts = [part(odd.content.slice(..2)), Err("the disk is broken".into())];
                StreamBody::new(stream::iter(parts)).boxed_unsync()
            }
        };
        answer(StatusCode::OK, body)
    }
}

struct Own(Arc<Odd>);

impl Extension for Own {
    fn name(&self) -> &str {
        "odd"
    }

    fn doors(&self) -> Vec<Arc<dyn HttpDoor>> {
        vec![Arc::new(Door(self.0.clone()))]
    }
}

/// API servers of one authority.
#[derive(Default)]
struct Servers {
    running: Vec<Cluster>,
    urls: Vec<String>,
    pki: Option<TempDir>,
}

impl Servers {
    async fn add(&mut self, extension: impl Extension) -> &Cluster {
        let pki = self.pki.get_or_insert_with(|| tempfile::tempdir().unwrap()).path().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.urls.push(format!("https://{}", listener.local_addr().unwrap()));
        let builder = Cluster::builder().listen(listener).pki(pki).extension(extension).without_controllers();
        self.running.push(builder.start().await.unwrap());
        self.running.last().unwrap()
    }

    async fn odd(&mut self, odd: Odd) -> Arc<Odd> {
        let odd = Arc::new(odd);
        self.add(Own(odd.clone())).await;
        odd
    }

    fn client(&self) -> Client {
        self.running[0].client()
    }

    /// All of them.
    fn peers(&self) -> Peers {
        Peers::of(&self.running[0].kubeconfig().unwrap().ca_certificate, &self.urls).unwrap()
    }

    /// A registry that has nothing and knows them all.
    async fn beside(&self) -> (TempDir, Registry) {
        let (dir, registry) = open();
        registry.join(&self.client(), &self.peers()).await.unwrap();
        (dir, registry)
    }
}

fn open() -> (TempDir, Registry) {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::open(dir.path()).unwrap();
    (dir, registry)
}

fn files(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

/// The digest of `blob`.
const BLOB: &[u8] = b"blob";
const DIGEST: &str = "sha256:fa2c8cc4f28176bbeed4b736df569a34c79cd3723e9ec42f9674b4d46ac6b8b8";

async fn get(registry: &Registry, mark: bool) -> (StatusCode, Bytes) {
    let mut request = Request::get(format!("/v2/any/blobs/{DIGEST}"));
    if mark {
        request = request.header(MARK, "1");
    }
    let empty = Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync();
    let answer = RegistryDoor(registry.clone()).call(None, request.body(empty).unwrap()).await;
    (answer.status(), answer.into_body().collect().await.unwrap().to_bytes())
}

#[tokio::test]
async fn what_another_server_has_is_taken_kept_and_served_to_who_knows_its_digest() {
    let (mut servers, (_other, other)) = (Servers::default(), open());
    assert_eq!(other.put(BLOB.to_vec()).await.unwrap(), DIGEST);
    servers.add(Serverless::new().registry(other)).await;
    let (_dir, registry) = servers.beside().await;
    assert_eq!(get(&registry, false).await, (StatusCode::OK, Bytes::from_static(BLOB)));
    drop(servers);
    assert_eq!(get(&registry, false).await.0, StatusCode::OK, "it is here now");
}

#[tokio::test]
async fn who_is_asked_by_a_server_asks_nobody() {
    let mut servers = Servers::default();
    let (_first, first) = open();
    servers.add(Serverless::new().registry(first.clone())).await;
    let odd = servers.odd(Odd::new(Way::Empty, BLOB)).await;
    first.join(&servers.client(), &servers.peers()).await.unwrap();
    let (_second, second) = servers.beside().await;
    // The first knows itself and the odd one; the second knows both.
    let error = second.find(DIGEST).await.unwrap_err();
    assert!(matches!(error, RegistryError::Missing(_)), "{error}");
    assert_eq!(odd.asked(), [format!("HEAD /v2/_/blobs/{DIGEST} by a server")], "and only by the second");
    assert_eq!(get(&first, true).await.0, StatusCode::NOT_FOUND);
    assert_eq!(odd.asked().len(), 1, "nobody was asked");
    assert_eq!(get(&first, false).await.0, StatusCode::NOT_FOUND);
    assert_eq!(odd.asked().len(), 2, "once, for somebody who is no server");
}

#[tokio::test]
async fn what_is_not_what_was_asked_for_is_not_kept_and_the_next_server_is_asked() {
    for way in [Way::Wrong, Way::Part] {
        let mut servers = Servers::default();
        let bad = servers.odd(Odd::new(way, BLOB)).await;
        let (dir, registry) = servers.beside().await;
        let error = registry.find(DIGEST).await.unwrap_err();
        assert!(matches!(error, RegistryError::Elsewhere { .. }), "{way:?}: {error}");
        assert!(error.to_string().contains(&servers.urls[0]), "it is told who: {error}");
        assert_eq!(bad.count("GET"), 1);
        for place in ["blobs/sha256", "uploads"] {
            assert_eq!(files(&dir.path().join(place)), 0, "{way:?}: something was kept in {place}");
        }
        assert_eq!(get(&registry, false).await.0, StatusCode::NOT_FOUND);
        // The good one speaks only when the bad one has been asked for the blob.
        bad.begun.notified().await;
        let good = Odd { waits: Some(bad.begun.clone()), ..Odd::new(Way::Good, BLOB) };
        let good = servers.odd(good).await;
        let (_dir, registry) = servers.beside().await;
        assert_eq!(registry.load(DIGEST).await.unwrap(), BLOB);
        assert_eq!((bad.count("GET"), good.count("GET")), (3, 1), "{way:?}");
    }
}

#[tokio::test]
async fn a_server_that_the_authority_did_not_sign_for_is_not_asked() {
    let mut servers = Servers::default();
    let odd = servers.odd(Odd::new(Way::Good, BLOB)).await;
    let mut others = Servers::default();
    others.odd(Odd::new(Way::Empty, BLOB)).await;
    let ca = others.running[0].kubeconfig().unwrap().ca_certificate.clone();
    let (_dir, registry) = open();
    registry.join(&servers.client(), &Peers::of(&ca, &servers.urls).unwrap()).await.unwrap();
    let error = registry.find(DIGEST).await.unwrap_err();
    assert!(matches!(error, RegistryError::Elsewhere { .. }), "{error}");
    assert_eq!(odd.asked(), [""; 0]);
}

#[tokio::test]
async fn many_who_ask_for_one_blob_at_once_are_one_fetch_which_goes_on_without_them() {
    let mut servers = Servers::default();
    let sends = Arc::new(Notify::new());
    let odd = servers.odd(Odd { sends: Some(sends.clone()), ..Odd::new(Way::Good, BLOB) }).await;
    let (_dir, registry) = servers.beside().await;
    let ask = || {
        let registry = registry.clone();
        tokio::spawn(async move { registry.find(DIGEST).await })
    };
    let first = ask();
    odd.begun.notified().await;
    first.abort();
    let _ = first.await;
    let many: Vec<_> = (0..50).map(|_| ask()).collect();
    sends.notify_one();
    for found in join_all(many).await {
        assert_eq!(found.unwrap().unwrap(), BLOB.len() as u64);
    }
    assert_eq!((odd.count("HEAD"), odd.count("GET")), (1, 1), "{:?}", odd.asked());
}

#[tokio::test]
async fn an_image_is_kept_with_all_that_it_leads_to() {
    let (mut servers, (_other, other)) = (Servers::default(), open());
    let mut descriptors = Vec::new();
    for part in ["config", "a layer", "another"] {
        let digest = other.put(part.into()).await.unwrap();
        descriptors.push(Descriptor { digest, size: part.len() as u64, ..Descriptor::default() });
    }
    let layers = descriptors.split_off(1);
    let manifest = Manifest { schema_version: 2, config: descriptors.pop(), layers, ..Manifest::default() };
    let image = other.put(serde_json::to_vec(&manifest).unwrap()).await.unwrap();
    other.put(b"nobody's".to_vec()).await.unwrap();
    servers.add(Serverless::new().registry(other)).await;
    let (dir, registry) = servers.beside().await;
    registry.keep(&image).await.unwrap();
    assert_eq!(files(&dir.path().join("blobs/sha256")), 4);
    assert!(registry.keep(DIGEST).await.is_err(), "nobody has that");
}

#[tokio::test]
async fn names_are_the_same_at_every_server_and_those_of_a_directory_become_so() {
    let mut servers = Servers::default();
    servers.odd(Odd::new(Way::Empty, BLOB)).await;
    let (dir, before) = open();
    before.tag("base/python", "latest", "sha256:old").await.unwrap();
    before.tag("base/python", "own", "sha256:own").await.unwrap();
    let (_dir, one) = servers.beside().await;
    one.tag("base/python", "latest", "sha256:new").await.unwrap();
    before.join(&servers.client(), &servers.peers()).await.unwrap();
    assert_eq!(files(&dir.path().join("names")), 0, "they are objects now");
    let (_dir, two) = servers.beside().await;
    for registry in [&one, &two, &before] {
        assert_eq!(
            registry.resolve("base/python", "latest").await.unwrap(),
            "sha256:new",
            "what the cluster says holds"
        );
        assert_eq!(registry.resolve("base/python", "own").await.unwrap(), "sha256:own");
        assert_eq!(registry.tags("base/python").await.unwrap(), ["latest", "own"]);
        assert!(matches!(registry.resolve("base/node", "latest").await, Err(RegistryError::Missing(_))));
    }
    two.untag("base/python", "own").await.unwrap();
    assert!(matches!(one.resolve("base/python", "own").await, Err(RegistryError::Missing(_))));
    assert!(matches!(one.untag("base/python", "own").await, Err(RegistryError::Missing(_))));
    two.tag("base/python", "latest", "sha256:newest").await.unwrap();
    assert_eq!(one.resolve("base/python", "latest").await.unwrap(), "sha256:newest");
}

#[tokio::test]
async fn the_file_of_a_word_reaches_the_server_that_gave_the_word_whichever_it_is_sent_to() {
    let (mut servers, (_other, other)) = (Servers::default(), open());
    servers.add(Serverless::new().registry(other.clone())).await;
    let (_dir, registry) = servers.beside().await;
    let send = |word: String, parts: Vec<Result<&'static str, BoxError>>| {
        let parts = stream::iter(parts).map(|part| part.map(|text| Frame::data(Bytes::from_static(text.as_bytes()))));
        let request = Request::put(format!("/v2/_invited/{word}")).body(StreamBody::new(parts).boxed_unsync()).unwrap();
        let door = RegistryDoor(registry.clone());
        async move { door.call(None, request).await.status() }
    };
    let word = other.invite().await.unwrap();
    let broken = send(word.clone(), vec![Ok("a"), Err("gone".into())]).await;
    assert!(broken.is_client_error() && other.sent(&word).await.is_err(), "a part of it is none: {broken}");
    // The other server hears of that a little later than we do.
    let again = || async { (send(word.clone(), vec![Ok("a"), Ok("b")]).await == StatusCode::CREATED).then_some(()) };
    minik8s_core::testkit::wait::until("it is taken", super::world::BOUND, again).await;
    assert_eq!(std::fs::read(other.sent(&word).await.unwrap()).unwrap(), b"ab");
    assert_eq!(send(word, vec![Ok("c")]).await, StatusCode::NOT_FOUND, "a second one");
    assert_eq!(send("a".repeat(40), vec![Ok("c")]).await, StatusCode::NOT_FOUND, "a word that nobody gave");
    let own = registry.invite().await.unwrap();
    assert_eq!(send(own.clone(), vec![Ok("d")]).await, StatusCode::CREATED);
    assert_eq!(std::fs::read(registry.sent(&own).await.unwrap()).unwrap(), b"d");
}
