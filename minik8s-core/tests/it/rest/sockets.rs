//! The front behind its listener: certificates, tokens, both versions of HTTP, and a quiet end.

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use minik8s_core::testkit::served::{Served, TOKEN};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Connects, with the administrator's certificate or none.
pub(super) async fn connect(served: &Served, certified: bool, alpn: &[u8]) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(served.pki.ca_certificate().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let admin = served.pki.admin();
    let mut config = if certified {
        let chain = vec![CertificateDer::from_pem_slice(admin.certificate.as_bytes()).unwrap()];
        builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(admin.key.as_bytes()).unwrap()).unwrap()
    } else {
        builder.with_no_client_auth()
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    let stream = TcpStream::connect(served.address).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap()
}

async fn send_h1(stream: TlsStream<TcpStream>, request: Request<Empty<Bytes>>) -> http::Response<Incoming> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender.send_request(request).await.unwrap()
}

fn request(path: &str, token: Option<&str>) -> Request<Empty<Bytes>> {
    let mut request = Request::builder().uri(path).header("host", "localhost");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(Empty::new()).unwrap()
}

async fn json(response: http::Response<Incoming>) -> Value {
    serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

#[tokio::test]
async fn a_request_needs_a_certificate_or_a_token() {
    let served = Served::start().await;
    let ask = async |certified, path: &str, token| {
        send_h1(connect(&served, certified, b"http/1.1").await, request(path, token)).await
    };
    assert_eq!(ask(true, "/api/v1/namespaces", None).await.status(), 200);
    assert_eq!(ask(false, "/api/v1/namespaces", Some(TOKEN)).await.status(), 200);
    assert_eq!(ask(false, "/version", None).await.status(), 200);
    for token in [None, Some("wrong")] {
        let refused = ask(false, "/api/v1/namespaces", token).await;
        assert_eq!(refused.status(), 401);
        assert_eq!(json(refused).await["message"], "Unauthorized");
    }
}

#[tokio::test]
async fn http_2_is_spoken_too() {
    let served = Served::start().await;
    let stream = connect(&served, true, b"h2").await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::builder().version(Version::HTTP_2).uri("https://localhost/api/v1/namespaces");
    let response = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (200, Version::HTTP_2));
    assert_eq!(json(response).await["kind"], "NamespaceList");
}

#[tokio::test]
async fn grpc_shares_the_port_and_its_checks() {
    let served = Served::start().await;
    let call = async |certified| {
        let stream = connect(&served, certified, b"h2").await;
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::builder()
            .method("POST")
            .version(Version::HTTP_2)
            .uri("https://localhost/minik8s.v1.Api/NoSuchMethod")
            .header("content-type", "application/grpc")
            .body(Empty::<Bytes>::new());
        let response = sender.send_request(request.unwrap()).await.unwrap();
        response.headers().get("grpc-status").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
    };
    // 12 is UNIMPLEMENTED: the service was reached and knows no such method. 16 is UNAUTHENTICATED.
    assert_eq!(call(true).await, "12");
    assert_eq!(call(false).await, "16");
}

#[tokio::test]
async fn the_head_of_a_watch_comes_at_once_and_its_end_is_quiet() {
    let served = Served::start().await;
    let path = "/api/v1/namespaces/default/configmaps?watch=true&labelSelector=none%3Dnone";
    let response = send_h1(connect(&served, true, b"http/1.1").await, request(path, None)).await;
    assert_eq!(response.status(), 200);
    let reading = tokio::spawn(async move { response.into_body().collect().await.map(|b| b.to_bytes().len()) });
    tokio::time::timeout(Duration::from_secs(60), served.stop()).await.expect("the server ends");
    // The watch was closed, not cut.
    assert_eq!(reading.await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn a_watch_ends_with_its_client() {
    let served = Served::start().await;
    let running = async || {
        let metrics = served.server.metrics().render().unwrap();
        let of_watch = |l: &&str| l.starts_with("apiserver_longrunning_requests{") && l.contains("configmaps");
        metrics.lines().find(of_watch).and_then(|l| l.rsplit(' ').next()).unwrap_or("0").to_owned()
    };
    let before = running().await;
    let path = "/api/v1/namespaces/default/configmaps?watch=true";
    let response = send_h1(connect(&served, true, b"http/1.1").await, request(path, None)).await;
    assert_ne!(running().await, before);
    drop(response);
    let bound = Duration::from_secs(60);
    minik8s_core::testkit::wait::until("the watch ends", bound, async || (running().await == before).then_some(()))
        .await;
}

#[tokio::test]
async fn who_may_not_is_told_what() {
    struct Nobody;
    #[async_trait::async_trait]
    impl minik8s_core::server::auth::Authorizer for Nobody {
        async fn authorize(
            &self,
            attributes: &minik8s_core::server::auth::Attributes<'_>,
        ) -> minik8s_core::api::ApiResult<()> {
            Err(minik8s_core::server::auth::forbidden(attributes))
        }
    }
    let served = Served::start().await;
    let config = minik8s_core::server::rest::RestConfig {
        authorizer: Arc::new(Nobody),
        ..minik8s_core::server::rest::RestConfig::of(&served.server)
    };
    let alice = minik8s_core::server::auth::User::new("alice", &[]);
    let rest = minik8s_core::server::rest::RestService::new(config).acting_as(alice);
    let http = super::Http { rest, server: served.server.clone() };
    let answer = http.get("/api/v1/namespaces/default/pods").await;
    let message = "pods is forbidden: User \"alice\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"";
    assert_eq!((answer.code, answer.json()["message"].as_str()), (403, Some(message)));
    assert_eq!(http.get("/apis").await.code, 403);
    assert_eq!(http.get("/version").await.code, 200);
}
