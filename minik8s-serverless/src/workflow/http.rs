//! Calls over HTTP. The answer's body is JSON; every part of it that comes is a sign of life, so that who takes long may
//! send white space ahead.
//!
//! Where addresses matter, they are looked at as a connection is made, and that one is connected to: a name that is looked up
//! twice may lead elsewhere the second time.

use super::invoker::Heartbeat;
use super::machine::Failure;
use super::size::LARGEST;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

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

/// A client. Cheap to clone.
#[derive(Clone)]
pub(super) struct Http {
    client: Client<HttpConnector<Resolver>, Full<Bytes>>,
    policy: HttpPolicy,
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
    /// A client that calls what the policy allows.
    pub(super) fn new(policy: HttpPolicy) -> Self {
        Self::with_lookup(policy, system())
    }

    fn with_lookup(policy: HttpPolicy, lookup: Lookup) -> Self {
        let mut connector = HttpConnector::new_with_resolver(Resolver { lookup, policy: policy.clone() });
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(10)));
        let client = Client::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_secs(30)).build(connector);
        Self { client, policy }
    }

    /// Sends a request, and reads the answer.
    pub(super) async fn call(&self, ask: Ask<'_>, alive: &Heartbeat) -> Result<Value, Failed> {
        let uri: Uri = ask.url.parse().map_err(|e| Failure::new("Refused", format!("{}: {e}", ask.url)))?;
        if !self.policy.allows(ask.url, &uri) {
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
        let answer = self.client.request(request).await;
        let answer = answer.map_err(|e| {
            let error = if is_local_name(&e) { "NotAllowed" } else { "Unavailable" };
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

/// True where a request failed because of where its name leads.
fn is_local_name(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        error.is::<Local>() || inner.is_some_and(|inner| inner.is::<Local>())
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
        let http = Http::with_lookup(HttpPolicy::NotLocal, lookup("127.0.0.1"));
        let url = format!("http://rebound.example:{port}/");
        let ask = || Ask {
            method: Method::GET,
            url: &url,
            headers: Vec::new(),
            key: "k",
            run: "r".into(),
            body: &Value::Null,
        };
        let alive = Heartbeat::default();
        let refused = http.call(ask(), &alive).await.err().unwrap().failure;
        assert_eq!(refused.error, "NotAllowed", "{}", refused.cause);
        assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 1, "what was checked is what is connected to");
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
