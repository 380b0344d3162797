//! Calls over HTTP and HTTPS. The answer's body is JSON; every part of it that comes is a sign of life, so that who takes
//! long may send white space ahead.
//!
//! Where addresses matter, they are looked at as a connection is made, and that one is connected to: a name that is looked up
//! twice may lead elsewhere the second time.

use super::invoker::Heartbeat;
use super::machine::Failure;
use super::size::LARGEST;
use super::trust::{self, Authorities};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::OnceCell;

/// The header that names an attempt.
pub const KEY_HEADER: &str = "idempotency-key";
/// The header that names the run, `namespace/name`.
pub const RUN_HEADER: &str = "x-workflow-run";
/// The header that names a call, for the logs of all who deal with it.
pub(super) const REQUEST_HEADER: &str = "x-request-id";

/// Which URLs steps may call. They are called from where the controllers run, which may reach more than pods do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HttpPolicy {
    /// All but loopback and link-local addresses and the names for them.
    #[default]
    NotLocal,
    /// Those that begin so.
    Prefixes(Vec<String>),
    /// All.
    Any,
    /// None.
    Nothing,
}

impl HttpPolicy {
    /// Whether a URL may be called, as far as it tells.
    fn allows(&self, url: &str, uri: &Uri) -> bool {
        match self {
            Self::Any => true,
            Self::Nothing => false,
            Self::Prefixes(prefixes) => prefixes.iter().any(|prefix| begins(url, prefix)),
            Self::NotLocal => {
                let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
                let name = host.trim_end_matches('.').to_ascii_lowercase();
                let local_name = name == "localhost" || name.ends_with(".localhost");
                !local_name && host.parse::<IpAddr>().map_or(true, |ip| !is_local(ip))
            }
        }
    }

    /// Whether an address may be connected to: a name may lead anywhere.
    fn allows_address(&self, ip: IpAddr) -> bool {
        *self != Self::NotLocal || !is_local(ip)
    }
}

/// `http://a.b` allows `http://a.b/c`, not `http://a.b.evil`.
fn begins(url: &str, prefix: &str) -> bool {
    let rest = url.strip_prefix(prefix);
    rest.is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with(['/', '?']))
}

fn is_local(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || ip.octets()[0] == 0,
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unspecified(),
    }
}

/// Addresses of a name; ports are 0.
type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// Addresses of a name that steps may connect to.
#[derive(Clone)]
struct Resolver {
    lookup: Lookup,
    policy: HttpPolicy,
}

/// A name leads where the policy does not allow to go.
#[derive(Debug, thiserror::Error)]
#[error("it leads to addresses of this machine")]
struct Local;

impl Resolver {
    async fn resolve(self, name: String) -> std::io::Result<std::vec::IntoIter<SocketAddr>> {
        let found = (self.lookup)(name).await?;
        if found.iter().any(|address| !self.policy.allows_address(address.ip())) {
            return Err(std::io::Error::other(Local));
        }
        Ok(found.into_iter())
    }
}

impl tower::Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = std::io::Error;
    type Future = BoxFuture<'static, std::io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(self.clone().resolve(name.as_str().to_owned()))
    }
}

fn system() -> Lookup {
    Arc::new(|name| Box::pin(async move { Ok(tokio::net::lookup_host((name.as_str(), 0)).await?.collect()) }))
}

type Connections = Client<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>;

/// A client. Cheap to clone.
#[derive(Clone)]
pub(super) struct Http {
    /// Made when it is first needed: the authorities of the machine are in files.
    client: Arc<OnceCell<Connections>>,
    resolver: Resolver,
    authorities: Authorities,
}

/// What is sent.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) url: &'a str,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) key: &'a str,
    pub(super) run: String,
    pub(super) body: &'a Value,
}

/// Why a call brought nothing.
pub(super) struct Failed {
    pub(super) failure: Failure,
    /// Nobody can have heard of it: not even a connection came about.
    pub(super) undelivered: bool,
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self { failure, undelivered: false }
    }
}

impl Http {
    /// A client that calls what the policy allows, and trusts the authorities of the machine.
    pub(super) fn new(policy: HttpPolicy) -> Self {
        Self::with_lookup(policy, Authorities::default(), system())
    }

    /// The same, which trusts other authorities beside those of the machine.
    pub(super) fn trusting(self, authorities: Authorities) -> Self {
        Self { client: Arc::default(), authorities, ..self }
    }

    fn with_lookup(policy: HttpPolicy, authorities: Authorities, lookup: Lookup) -> Self {
        Self { client: Arc::default(), resolver: Resolver { lookup, policy }, authorities }
    }

    async fn client(&self) -> Result<&Connections, Failure> {
        let make = async || {
            let authorities = self.authorities.clone();
            let config = tokio::task::spawn_blocking(move || trust::client(&authorities)).await;
            let unusable = |e: &dyn std::error::Error| Failure::new("Internal", format!("TLS cannot be used: {e}"));
            let config = config.map_err(|e| unusable(&e))?.map_err(|e| unusable(&e))?;
            let mut connector = HttpConnector::new_with_resolver(self.resolver.clone());
            connector.set_nodelay(true);
            connector.set_connect_timeout(Some(Duration::from_secs(10)));
            connector.enforce_http(false);
            let connector = HttpsConnector::from((connector, config));
            Ok(Client::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_secs(30)).build(connector))
        };
        self.client.get_or_try_init(make).await
    }

    /// Sends a request, and reads the answer.
    pub(super) async fn call(&self, ask: Ask<'_>, alive: &Heartbeat) -> Result<Value, Failed> {
        let uri: Uri = ask.url.parse().map_err(|e| Failure::new("Refused", format!("{}: {e}", ask.url)))?;
        if !self.resolver.policy.allows(ask.url, &uri) {
            return Err(Failure::new("NotAllowed", format!("steps may not call {}", ask.url)).into());
        }
        let has_body = !matches!(ask.method, Method::GET | Method::HEAD | Method::DELETE);
        let body = if has_body { Bytes::from(ask.body.to_string()) } else { Bytes::new() };
        let mut request =
            Request::builder().method(ask.method).uri(uri).header(KEY_HEADER, ask.key).header(RUN_HEADER, ask.run);
        if has_body {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        for (name, value) in ask.headers {
            request = request.header(name, value);
        }
        let request =
            request.body(Full::new(body)).map_err(|e| Failure::new("Refused", format!("{}: {e}", ask.url)))?;
        let answer = self.client().await?.request(request).await;
        let answer = answer.map_err(|e| {
            let error = match () {
                () if within::<Local>(&e).is_some() => "NotAllowed",
                () if within::<rustls::Error>(&e).is_some_and(trust::is_untrusted) => "NotTrusted",
                () => "Unavailable",
            };
            let failure = Failure::new(error, format!("{}: {}", ask.url, chain(&e)));
            Failed { failure, undelivered: e.is_connect() }
        })?;
        let status = answer.status();
        let body = read(answer.into_body(), alive).await?;
        Ok(judge(status, &body)?)
    }
}

async fn read(mut body: hyper::body::Incoming, alive: &Heartbeat) -> Result<Vec<u8>, Failure> {
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        alive.beat();
        let frame = frame.map_err(|e| Failure::new("Unavailable", format!("the answer broke off: {}", chain(&e))))?;
        let Ok(data) = frame.into_data() else { continue };
        // Signs of life before the answer are not kept.
        let data = if read.is_empty() { data.trim_ascii_start() } else { &data[..] };
        if read.len() + data.len() > LARGEST {
            return Err(Failure::new("TooLarge", format!("the answer is larger than {} MiB", LARGEST >> 20)));
        }
        read.extend_from_slice(data);
    }
    Ok(read)
}

/// What an answer means.
fn judge(status: StatusCode, body: &[u8]) -> Result<Value, Failure> {
    let words = || {
        let text = String::from_utf8_lossy(&body[..body.len().min(1000)]);
        format!("HTTP {status}: {}", text.trim())
    };
    let error = match status.as_u16() {
        200..=299 if body.trim_ascii().is_empty() => return Ok(Value::Null),
        200..=299 => {
            let bad = |e| Failure::new("BadAnswer", format!("the answer is not JSON: {e}"));
            return serde_json::from_slice(body).map_err(bad);
        }
        404 | 410 => "NotFound",
        408 | 504 => "Timeout",
        429 | 502 | 503 => "Unavailable",
        400..=499 => "Refused",
        _ => "TaskFailed",
    };
    Err(Failure::new(error, words()))
}

/// What is behind a failure, if that is such an error. Errors of the disk and the network hold others that they do not show.
fn within<'a, E: std::error::Error + 'static>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a E> {
    std::iter::successors(Some(error), |error| error.source()).find_map(|error| {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        error.downcast_ref::<E>().or_else(|| within::<E>(inner?))
    })
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_this_machine_are_not_for_steps() {
        let allows = |policy: &HttpPolicy, url: &str| policy.allows(url, &url.parse().unwrap());
        for url in [
            "http://127.0.0.1/",
            "http://localhost:80",
            "http://LOCALHOST./",
            "http://a.localhost/",
            "http://[::1]:6443/",
            "http://169.254.169.254/meta",
            "http://0.0.0.0/",
            "http://[::ffff:127.0.0.1]/",
            "http://[fe80::1]/",
        ] {
            assert!(!allows(&HttpPolicy::NotLocal, url), "{url}");
            assert!(allows(&HttpPolicy::Any, url) && !allows(&HttpPolicy::Nothing, url));
        }
        for url in ["http://10.0.0.1/", "http://example.com/x", "http://[2001:db8::1]/"] {
            assert!(allows(&HttpPolicy::NotLocal, url), "{url}");
        }
        let some = HttpPolicy::Prefixes(vec!["http://a.b".into(), "http://c/d/".into()]);
        for (url, want) in [
            ("http://a.b", true),
            ("http://a.b/c", true),
            ("http://a.b.evil/", false),
            ("http://c/d/e", true),
            ("http://c/e", false),
        ] {
            assert_eq!(allows(&some, url), want, "{url}");
        }
    }

    async fn get(http: &Http, url: &str) -> Result<Value, Failure> {
        let (method, body, run) = (Method::GET, &Value::Null, "r".to_owned());
        let ask = Ask { method, url, headers: Vec::new(), key: "k", run, body };
        http.call(ask, &Heartbeat::default()).await.map_err(|failed| failed.failure)
    }

    /// A server of HTTPS for names, and the authority that its certificate is of.
    async fn server(names: &[&str]) -> (u16, Authorities, tokio::task::JoinHandle<()>) {
        let made =
            rcgen::generate_simple_self_signed(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
        let authorities = Authorities::from_pem(made.cert.pem().as_bytes()).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.unwrap().with_no_client_auth();
        let config = builder.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                let answer = hyper::service::service_fn(async |_| {
                    Ok::<_, std::convert::Infallible>(http::Response::new(Full::new(Bytes::from("\"safe\""))))
                });
                let io = hyper_util::rt::TokioIo::new(stream);
                let _ = hyper::server::conn::http1::Builder::new().keep_alive(false).serve_connection(io, answer).await;
            }
        });
        (port, authorities, serving)
    }

    #[tokio::test]
    async fn https_is_for_the_right_name_of_an_authority_that_is_trusted() {
        let (port, authorities, serving) = server(&["right.example"]).await;
        let here: Lookup = Arc::new(|_| Box::pin(async { Ok(vec!["127.0.0.1:0".parse().unwrap()]) }));
        let trusting = Http::with_lookup(HttpPolicy::Any, authorities.clone(), here.clone());
        let url = |name: &str| format!("https://{name}:{port}/x");
        assert_eq!(get(&trusting, &url("right.example")).await, Ok(Value::from("safe")));
        let wrong = get(&trusting, &url("wrong.example")).await.unwrap_err();
        assert_eq!(wrong.error, "NotTrusted", "{}", wrong.cause);
        assert!(wrong.cause.contains("not valid for name") && wrong.cause.contains("wrong.example"), "{}", wrong.cause);
        let unknowing = Http::with_lookup(HttpPolicy::Any, Authorities::default(), here.clone());
        let unknown = get(&unknowing, &url("right.example")).await.unwrap_err();
        assert_eq!(unknown.error, "NotTrusted", "{}", unknown.cause);
        assert!(unknown.cause.contains("UnknownIssuer"), "{}", unknown.cause);
        // Who may not be called is not called over HTTPS either.
        let near = Http::with_lookup(HttpPolicy::NotLocal, authorities.clone(), here.clone());
        assert_eq!(get(&near, &url("right.example")).await.unwrap_err().error, "NotAllowed");
        let policy = HttpPolicy::Prefixes(vec!["http://right.example".into()]);
        let plain = Http::with_lookup(policy, authorities, here);
        assert_eq!(get(&plain, &url("right.example")).await.unwrap_err().error, "NotAllowed");
        serving.abort();
    }

    #[tokio::test]
    async fn a_name_is_looked_up_once_and_where_it_leads_then_counts() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        // A name that leads elsewhere each time: who asks twice is told of a harmless address first.
        let lookup = |first: &'static str| -> Lookup {
            let asked = asked.clone();
            Arc::new(move |_| {
                let times = asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let ip: IpAddr = if times == 0 { first } else { "127.0.0.1" }.parse().unwrap();
                Box::pin(async move { Ok(vec![SocketAddr::new(ip, 0)]) })
            })
        };
        for (times, scheme) in [(1, "http"), (2, "https")] {
            let http = Http::with_lookup(HttpPolicy::NotLocal, Authorities::default(), lookup("127.0.0.1"));
            let refused = get(&http, &format!("{scheme}://rebound.example:{port}/")).await.unwrap_err();
            assert_eq!(refused.error, "NotAllowed", "{}", refused.cause);
            let asked = asked.load(std::sync::atomic::Ordering::SeqCst);
            assert_eq!(asked, times, "what was checked is what is connected to");
        }
        // Nobody connected: the first who does is this.
        let own = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        assert_eq!(listener.accept().await.unwrap().1, own.local_addr().unwrap());
    }

    #[test]
    fn answers_mean_what_retries_and_catches_speak_of() {
        let table = [
            (200, "{\"a\":1}", Ok(serde_json::json!({"a": 1}))),
            (204, "", Ok(Value::Null)),
            (200, "  ", Ok(Value::Null)),
            (200, "<html>", Err("BadAnswer")),
            (404, "", Err("NotFound")),
            (400, "no", Err("Refused")),
            (413, "no", Err("Refused")),
            (429, "", Err("Unavailable")),
            (500, "oh", Err("TaskFailed")),
            (503, "", Err("Unavailable")),
            (504, "", Err("Timeout")),
            (302, "", Err("TaskFailed")),
        ];
        for (status, body, want) in table {
            let got = judge(StatusCode::from_u16(status).unwrap(), body.as_bytes());
            assert_eq!(got.map_err(|e| e.error), want.map_err(str::to_owned), "{status} {body}");
        }
    }
}
