//! Calls over HTTP. The answer's body is JSON; every part of it that comes is a sign of life, so that who takes long may
//! send white space ahead.

use super::invoker::Heartbeat;
use super::machine::Failure;
use super::records::LARGEST;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use std::net::IpAddr;
use std::time::Duration;

/// The header that names an attempt.
pub const KEY_HEADER: &str = "idempotency-key";
/// The header that names the run, `namespace/name`.
pub const RUN_HEADER: &str = "x-workflow-run";

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

/// A client. Cheap to clone.
#[derive(Clone)]
pub(super) struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
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

impl Http {
    pub(super) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(10)));
        let client = Client::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_secs(30)).build(connector);
        Self { client }
    }

    /// Sends a request to a URL that the policy allows.
    pub(super) async fn call_checked(
        &self,
        policy: &HttpPolicy,
        ask: Ask<'_>,
        alive: &Heartbeat,
    ) -> Result<Value, Failure> {
        let uri: Uri = ask.url.parse().map_err(|e| Failure::new("Refused", format!("{}: {e}", ask.url)))?;
        let refused = || Failure::new("NotAllowed", format!("steps may not call {}", ask.url));
        if !policy.allows(ask.url, &uri) {
            return Err(refused());
        }
        let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(80));
        if *policy == HttpPolicy::NotLocal {
            let name = host.trim_matches(['[', ']']);
            let found = tokio::net::lookup_host((name, port)).await;
            let found: Vec<_> = found.map_err(|e| Failure::new("Unavailable", format!("{host}: {e}")))?.collect();
            if found.iter().any(|address| !policy.allows_address(address.ip())) {
                return Err(refused());
            }
        }
        self.call(ask, alive).await
    }

    /// Sends a request, and reads the answer.
    pub(super) async fn call(&self, ask: Ask<'_>, alive: &Heartbeat) -> Result<Value, Failure> {
        let has_body = !matches!(ask.method, Method::GET | Method::HEAD | Method::DELETE);
        let body = if has_body { Bytes::from(ask.body.to_string()) } else { Bytes::new() };
        let mut request =
            Request::builder().method(ask.method).uri(ask.url).header(KEY_HEADER, ask.key).header(RUN_HEADER, ask.run);
        if has_body {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        for (name, value) in ask.headers {
            request = request.header(name, value);
        }
        let request =
            request.body(Full::new(body)).map_err(|e| Failure::new("Refused", format!("{}: {e}", ask.url)))?;
        let answer = self.client.request(request).await;
        let answer = answer.map_err(|e| Failure::new("Unavailable", format!("{}: {}", ask.url, chain(&e))))?;
        let status = answer.status();
        let body = read(answer.into_body(), alive).await?;
        judge(status, &body)
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
        if read.len() + data.len() > LARGEST / 2 {
            return Err(Failure::new("TooLarge", format!("the answer is larger than {} MiB", LARGEST >> 21)));
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
