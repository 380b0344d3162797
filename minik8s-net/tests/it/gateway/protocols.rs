//! What may be spoken: HTTP/2 with and without TLS, gRPC, WebSockets; and which certificate is shown.

use super::world::{BOUND, Got, Server, World, plan, rule, services};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use minik8s_core::routing::{At, Certificate, Host, Owner, RouteSet, Rule};
use minik8s_net::gateway::{GatewayConfig, TlsSecret};
use rustls::pki_types::{CertificateDer, ServerName};
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::Message;

type Sender = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

async fn http2(address: SocketAddr) -> Sender {
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (sender, driver) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(driver);
    sender
}

#[tokio::test]
async fn http2_is_spoken_without_asking_and_many_requests_share_a_connection() {
    let a = Server::named("a").await;
    let world = World::with(vec![rule("r", "r.example", "/", plan(&[("a", 1)]))], &[("a", &[a.address])]).await;
    let sender = http2(world.http).await;
    let calls = (0..50).map(|n| {
        let mut sender = sender.clone();
        let body = format!("body {n}");
        async move {
            let request = Request::post(format!("http://r.example/{n}")).body(Full::from(body.clone())).unwrap();
            let response = sender.send_request(request).await.unwrap();
            assert_eq!(response.version(), Version::HTTP_2);
            let got = Got::of(response).await;
            assert!(got.body.starts_with(&format!("a\nPOST /{n}\n")) && got.body.ends_with(&body), "{}", got.body);
            assert!(got.body.contains("host: r.example\n"), "{}", got.body);
        }
    });
    tokio::time::timeout(BOUND, futures::future::join_all(calls)).await.unwrap();
    assert_eq!(a.count(), 50);
}

#[tokio::test]
async fn who_was_answered_may_send_the_rest_of_its_body_over_http2() {
    let world = World::with(vec![rule("r", "r.example", "/", plan(&[]))], &[]).await;
    let stream = TokioIo::new(TcpStream::connect(world.http).await.unwrap());
    let (mut sender, driver) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(driver);
    for _ in 0..20 {
        let (mut rest, body) = futures::channel::mpsc::channel::<Result<Frame<Bytes>, Infallible>>(0);
        let request = Request::post("http://other.example/").body(StreamBody::new(body)).unwrap();
        let got = Got::of(sender.send_request(request).await.unwrap()).await;
        assert_eq!(got.status, StatusCode::NOT_FOUND, "{got:?}");
        for part in 0..5 {
            let sent = rest.send(Ok(Frame::data(Bytes::from_static(b"part")))).await;
            assert!(sent.is_ok(), "the stream was ended before part {part} of the body");
        }
    }
}

/// A server as gRPC has them: HTTP/2 alone, a status in trailers.
async fn grpc_server() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = service_fn(|request: Request<Incoming>| async move {
        assert_eq!((request.version(), request.headers()["te"].to_str().unwrap()), (Version::HTTP_2, "trailers"));
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
        let frames = [Ok::<_, Infallible>(Frame::data(body)), Ok(Frame::trailers(trailers))];
        let body = StreamBody::new(futures::stream::iter(frames));
        Ok::<_, Infallible>(Response::builder().header("content-type", "application/grpc").body(body).unwrap())
    });
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(async move { serving.serve_connection(TokioIo::new(stream), service).await });
        }
    });
    address
}

#[tokio::test]
async fn grpc_keeps_its_trailers_and_failures_are_told_its_way() {
    let address = grpc_server().await;
    let world =
        World::with(vec![rule("g", "g.example", "/pkg.Service", plan(&[("g", 1)]))], &[("g", &[address])]).await;
    let mut sender = http2(world.http).await;
    let mut call = async |path: &str| {
        let request = Request::post(format!("http://g.example{path}"))
            .header("content-type", "application/grpc+proto")
            .header("te", "trailers")
            .body(Full::from("message"))
            .unwrap();
        Got::of(sender.send_request(request).await.unwrap()).await
    };
    let got = call("/pkg.Service/Method").await;
    assert_eq!((got.status, got.body.as_str()), (StatusCode::OK, "message"));
    assert_eq!(got.trailers.expect("trailers")["grpc-status"], "0");
    let got = call("/other/Method").await;
    assert_eq!((got.status, got.headers["grpc-status"].to_str().unwrap()), (StatusCode::OK, "12"));
    world.gateway.set_services(services(&[]));
    let got = call("/pkg.Service/Method").await;
    assert_eq!(got.headers["grpc-status"], "14");
    assert!(got.headers["grpc-message"].to_str().unwrap().contains("d/g"));
}

/// A server of gRPC that answers calls, and then says how they ended.
async fn grpc(status: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = service_fn(move |_: Request<Incoming>| async move {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", status.parse().unwrap());
        let frames = [Ok::<_, Infallible>(Frame::data(Bytes::from("message"))), Ok(Frame::trailers(trailers))];
        let body = StreamBody::new(futures::stream::iter(frames));
        Ok::<_, Infallible>(Response::builder().header("content-type", "application/grpc").body(body).unwrap())
    });
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

#[tokio::test]
async fn calls_of_grpc_that_fail_in_their_trailers_count_as_failed() {
    let (good, bad, denied) = (grpc("0").await, grpc("13").await, grpc("7").await);
    let split = plan(&[("good", 1), ("bad", 1), ("denied", 1)]);
    let mut rule = rule("r", "g.example", "/", split);
    rule.owner.kind = "HTTPRoute";
    let world = World::with(vec![rule], &[("good", &[good]), ("bad", &[bad]), ("denied", &[denied])]).await;
    let mut sender = http2(world.http).await;
    for _ in 0..30 {
        let request = Request::post("http://g.example/pkg.Service/Method").header("content-type", "application/grpc");
        let response = sender.send_request(request.body(Full::from(Bytes::from("message"))).unwrap()).await.unwrap();
        assert!(Got::of(response).await.trailers.is_some());
    }
    let tally = world.gateway.tally(&("d".into(), "r".into()));
    let of = |name: &str| tally.get(&format!("d/{name}")).map(|tally| (tally.requests, tally.errors));
    assert_eq!((of("good"), of("bad")), (Some((10, 0)), Some((10, 10))));
    assert_eq!(of("denied"), Some((10, 0)), "what the caller may not do is not the server's failure");
}

async fn echo() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_text() && socket.send(message).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn web_sockets_pass_in_both_directions() {
    let address = echo().await;
    let world = World::with(vec![rule("w", "w.example", "/ws", plan(&[("w", 1)]))], &[("w", &[address])]).await;
    let stream = TcpStream::connect(world.http).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async("ws://w.example/ws", stream).await.unwrap();
    for n in 0..100 {
        socket.send(Message::text(format!("message {n}"))).await.unwrap();
        let got = tokio::time::timeout(BOUND, socket.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(got.into_text().unwrap().as_str(), format!("message {n}"));
    }
    // A connection that became something else does not keep the gateway from ending.
    tokio::time::timeout(BOUND, world.gateway.shutdown()).await.unwrap();
}

struct Issued {
    secret: TlsSecret,
    der: CertificateDer<'static>,
}

fn certificate(names: &[&str]) -> Issued {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let secret =
        TlsSecret { certificate: made.cert.pem().into_bytes(), key: made.signing_key.serialize_pem().into_bytes() };
    Issued { secret, der: made.cert.der().clone() }
}

fn connector(trusted: &[&Issued], alpn: &[u8]) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    trusted.iter().for_each(|issued| roots.add(issued.der.clone()).unwrap());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    TlsConnector::from(Arc::new(config))
}

fn uses(host: &str, secret: &str) -> Certificate {
    let owner = Owner { namespace: "d".into(), kind: "Ingress", ..Owner::default() };
    Certificate { owner, at: At::Usual, host: Host::parse(host, false), namespace: "d".into(), secret: secret.into() }
}

#[tokio::test]
async fn a_port_changes_what_it_speaks_while_it_is_open() {
    let a = Server::named("a").await;
    let world = World::new(GatewayConfig::default()).await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    world.gateway.listen(listener, address.port(), false);
    let issued = certificate(&["x.example"]);
    let at = At::Port(address.port());
    let rules = vec![Rule { at, ..rule("r", "x.example", "/", plan(&[("a", 1)])) }];
    let certificates = vec![Certificate { at, ..uses("x.example", "s") }];
    world.gateway.set_services(services(&[("a", &[a.address])]));
    world.gateway.set_routes(Arc::new(RouteSet { rules, certificates, ..RouteSet::default() }));
    world.gateway.set_secrets(Arc::new(HashMap::from([(("d".to_owned(), "s".to_owned()), issued.secret.clone())])));
    let ask = async |tls: bool| {
        let stream = TcpStream::connect(address).await.unwrap();
        let request = || Request::get("/").header("host", "x.example").body(Full::<Bytes>::default()).unwrap();
        if tls {
            let stream = connector(&[&issued], b"http/1.1")
                .connect(ServerName::try_from("x.example").unwrap(), stream)
                .await
                .ok()?;
            let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(driver);
            return sender.send_request(request()).await.ok().map(|response| response.status());
        }
        let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(driver);
        sender.send_request(request()).await.ok().map(|response| response.status())
    };
    assert_eq!((ask(false).await, ask(true).await), (Some(StatusCode::OK), None));
    world.gateway.open(address, true).unwrap();
    assert_eq!((ask(false).await, ask(true).await), (None, Some(StatusCode::OK)));
    world.gateway.open(address, false).unwrap();
    assert_eq!(ask(false).await, Some(StatusCode::OK));
}

#[tokio::test]
async fn the_older_of_two_certificates_is_shown_and_those_of_ingresses_cover_one_label() {
    let world = World::new(GatewayConfig::default()).await;
    let (old, young, one, many) = (
        certificate(&["x.example"]),
        certificate(&["x.example"]),
        certificate(&["*.w.example"]),
        certificate(&["*.v.w.example"]),
    );
    let by = |created: i64, namespace: &str, secret: &str| {
        let owner = Owner { created, namespace: namespace.into(), name: secret.into(), kind: "Ingress" };
        Certificate { owner, namespace: namespace.into(), ..uses("x.example", secret) }
    };
    let wild = Certificate { host: Host::parse("*.w.example", true), ..uses("", "one") };
    // The younger one's namespace comes first in the alphabet, and it is told first.
    let certificates = vec![by(200, "a", "young"), by(100, "z", "old"), wild];
    world.gateway.set_routes(Arc::new(RouteSet { certificates, ..RouteSet::default() }));
    let named =
        |namespace: &str, name: &str, made: &Issued| ((namespace.to_owned(), name.to_owned()), made.secret.clone());
    let secrets = [named("a", "young", &young), named("z", "old", &old), named("d", "one", &one)];
    assert!(world.gateway.set_secrets(Arc::new(secrets.into())).is_empty());
    let shown = async |name: &'static str| {
        let stream = TcpStream::connect(world.https).await.unwrap();
        let connector = connector(&[&old, &young, &one, &many], b"h2");
        let stream = connector.connect(ServerName::try_from(name).unwrap(), stream).await.ok()?;
        stream.get_ref().1.peer_certificates().map(|all| all[0].clone().into_owned())
    };
    assert_eq!(shown("x.example").await, Some(old.der.clone()));
    assert_eq!(shown("b.w.example").await, Some(one.der.clone()));
    assert_eq!(shown("b.v.w.example").await, None);
}

#[tokio::test]
async fn certificates_are_shown_by_name_and_names_without_one_are_refused() {
    let a = Server::named("a").await;
    let world = World::with(Vec::new(), &[("a", &[a.address])]).await;
    let (exact, wild, other) =
        (certificate(&["x.example"]), certificate(&["*.w.example"]), certificate(&["x.example"]));
    let certificates = vec![uses("x.example", "exact"), uses("*.w.example", "wild"), uses("bad.example", "bad")];
    let rules = vec![rule("r", "", "/", plan(&[("a", 1)]))];
    world.gateway.set_routes(Arc::new(RouteSet { rules, certificates, ..RouteSet::default() }));
    let mixed = TlsSecret { key: other.secret.key.clone(), ..exact.secret.clone() };
    let named = |name: &str, secret: &TlsSecret| (("d".to_owned(), name.to_owned()), secret.clone());
    let secrets = HashMap::from([named("exact", &exact.secret), named("wild", &wild.secret), named("bad", &mixed)]);
    let broken = world.gateway.set_secrets(Arc::new(secrets));
    assert!(broken.len() == 1 && broken[0].contains("Secret d/bad"), "{broken:?}");
    let connect = async |name: &'static str, alpn: &[u8]| {
        let stream = TcpStream::connect(world.https).await.unwrap();
        connector(&[&exact, &wild], alpn).connect(ServerName::try_from(name).unwrap(), stream).await
    };
    for (name, alpn) in [("x.example", &b"h2"[..]), ("a.w.example", b"http/1.1")] {
        let stream = connect(name, alpn).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn));
        let io = TokioIo::new(stream);
        let request =
            Request::get(format!("https://{name}/")).header("host", name).body(Full::<Bytes>::default()).unwrap();
        let got = if alpn == b"h2" {
            let (mut sender, driver) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(driver);
            let request = Request::get(format!("https://{name}/")).body(Full::<Bytes>::default()).unwrap();
            Got::of(sender.send_request(request).await.unwrap()).await
        } else {
            let (mut sender, driver) = hyper::client::conn::http1::handshake(io).await.unwrap();
            tokio::spawn(driver);
            Got::of(sender.send_request(request).await.unwrap()).await
        };
        assert!(got.body.contains("x-forwarded-proto: https\n") && got.body.contains("x-forwarded-port: 443\n"));
    }
    for name in ["bad.example", "unknown.example"] {
        assert!(connect(name, b"h2").await.is_err(), "{name} got a certificate");
    }
}
