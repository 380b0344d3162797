//! A gateway on loopback, backends that count, and clients.

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use minik8s_core::network::{Endpoint, ServiceEntry, ServicePortEntry, ServiceTable};
use minik8s_core::routing::{Backend, Host, Owner, PathRule, Plan, RouteSet, Rule, Speaks, Weighted};
use minik8s_net::gateway::{Gateway, GatewayConfig, GatewayMetrics};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

pub(super) const BOUND: Duration = Duration::from_secs(60);

/// What a backend does with a request besides saying what it got.
type Act = Arc<dyn Fn(&Request<Bytes>) -> Response<Full<Bytes>> + Send + Sync>;

/// A server that counts; it ends when it is dropped.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) requests: Arc<AtomicUsize>,
    pub(super) connections: Arc<AtomicUsize>,
    stop: CancellationToken,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Server {
    /// One that says its name, the method, the path, the headers and the body.
    pub(super) async fn named(name: &str) -> Self {
        let name = name.to_owned();
        Self::acting(Arc::new(move |request| {
            let mut text = format!("{name}\n{} {}\n", request.method(), request.uri());
            for (key, value) in request.headers() {
                text += &format!("{key}: {}\n", value.to_str().unwrap());
            }
            let body = [text.as_bytes(), b"\n", request.body()].concat();
            Response::builder()
                .header("x-backend", &name)
                .header("keep-alive", "timeout=5")
                .body(Full::from(body))
                .unwrap()
        }))
        .await
    }

    pub(super) async fn acting(act: Act) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, connections) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let stop = CancellationToken::new();
        let (r, c, s) = (requests.clone(), connections.clone(), stop.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            while let Ok((stream, _)) = listener.accept().await {
                c.fetch_add(1, Ordering::SeqCst);
                let (act, requests) = (act.clone(), r.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (act, requests) = (act.clone(), requests.clone());
                    async move {
                        requests.fetch_add(1, Ordering::SeqCst);
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
                        Ok::<_, Infallible>(act(&Request::from_parts(head, body)))
                    }
                });
                tokio::spawn(s.clone().run_until_cancelled_owned(async move {
                    let auto = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = auto.serve_connection(TokioIo::new(stream), service).await;
                }));
            }
        }));
        Self { address, requests, connections, stop }
    }

    pub(super) fn count(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// Services called `names`, with one port 80, at these addresses.
pub(super) fn services(all: &[(&str, &[SocketAddr])]) -> Arc<ServiceTable> {
    let entry = |name: &str, addresses: &[SocketAddr]| {
        let endpoints = addresses.iter().map(|a| Endpoint::new(a.ip(), a.port())).collect();
        let ports = vec![ServicePortEntry { port: 80, endpoints, ..ServicePortEntry::default() }];
        Arc::new(ServiceEntry { namespace: "d".into(), name: name.into(), ports, ..ServiceEntry::default() })
    };
    let services = all.iter().map(|(name, addresses)| (("d".into(), (*name).into()), entry(name, addresses)));
    Arc::new(ServiceTable { services: services.collect() })
}

pub(super) fn weighted(name: &str, weight: u32) -> Weighted {
    let backend = Backend::Service { namespace: "d".into(), name: name.into(), port: 80, speaks: Speaks::Http };
    Weighted { backend, weight, request_headers: Default::default(), response_headers: Default::default() }
}

pub(super) fn plan(names: &[(&str, u32)]) -> Plan {
    Plan { backends: names.iter().map(|(name, weight)| weighted(name, *weight)).collect(), ..Plan::default() }
}

pub(super) fn rule(name: &str, host: &str, path: &str, plan: Plan) -> Rule {
    Rule {
        owner: Owner { namespace: "d".into(), name: name.into(), kind: "Test", created: 0 },
        host: Host::parse(host, false),
        path: PathRule::prefix(path),
        plan: Arc::new(plan),
        ..Rule::default()
    }
}

/// A gateway on loopback whose routes know it at ports 80 and 443.
pub(super) struct World {
    pub(super) gateway: Gateway,
    pub(super) http: SocketAddr,
    pub(super) https: SocketAddr,
}

impl World {
    pub(super) async fn new(config: GatewayConfig) -> Self {
        let gateway = Gateway::new(config, GatewayMetrics::default());
        let mut addresses = Vec::new();
        for (port, tls) in [(80, false), (443, true)] {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            addresses.push(listener.local_addr().unwrap());
            gateway.listen(listener, port, tls);
        }
        Self { gateway, http: addresses[0], https: addresses[1] }
    }

    /// One with these rules and Services.
    pub(super) async fn with(rules: Vec<Rule>, all: &[(&str, &[SocketAddr])]) -> Self {
        // As the binaries have it; what is made with a configuration of its own shares its runtime with the gateway.
        let world = Self::new(GatewayConfig { lanes: 4, ..GatewayConfig::default() }).await;
        world.gateway.set_services(services(all));
        world.rules(rules);
        world
    }

    pub(super) fn rules(&self, rules: Vec<Rule>) {
        let broken = self.gateway.set_routes(Arc::new(RouteSet { rules, ..RouteSet::default() }));
        assert!(broken.is_empty(), "{broken:?}");
    }

    /// One request on a connection of its own.
    pub(super) async fn ask(&self, request: Request<Full<Bytes>>) -> Got {
        let stream = TcpStream::connect(self.http).await.unwrap();
        let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(driver);
        Got::of(tokio::time::timeout(BOUND, sender.send_request(request)).await.unwrap().unwrap()).await
    }

    pub(super) async fn get(&self, host: &str, path: &str) -> Got {
        self.ask(get(host, path)).await
    }

    /// What comes back for these very bytes, up to the end of the connection or the bound.
    pub(super) async fn raw(&self, bytes: &str) -> String {
        let mut stream = TcpStream::connect(self.http).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut all = Vec::new();
        tokio::time::timeout(BOUND, stream.read_to_end(&mut all)).await.expect("the end").unwrap_or_default();
        String::from_utf8_lossy(&all).into_owned()
    }
}

pub(super) fn get(host: &str, path: &str) -> Request<Full<Bytes>> {
    Request::get(path).header("host", host).body(Full::default()).unwrap()
}

/// An answer.
#[derive(Debug)]
pub(super) struct Got {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
    pub(super) trailers: Option<HeaderMap>,
}

impl Got {
    pub(super) async fn of(response: Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let body = tokio::time::timeout(BOUND, body.collect()).await.unwrap().unwrap();
        let trailers = body.trailers().cloned();
        let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        Self { status: head.status, headers: head.headers, body, trailers }
    }

    /// The name of the backend that answered.
    pub(super) fn from(&self) -> &str {
        self.headers.get("x-backend").map_or("", |name| name.to_str().unwrap())
    }
}
