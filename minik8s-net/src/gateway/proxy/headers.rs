//! Headers on their way through: those that are about one connection only are taken out, and what the backend could not
//! know otherwise is put in.

use super::answers::Refusal;
use http::header::{self, Entry, HeaderName};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, Version};
use std::net::SocketAddr;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// What is about one connection only.
static HOPS: [HeaderName; 6] =
    [header::CONNECTION, header::TE, header::UPGRADE, header::TRANSFER_ENCODING, KEEP_ALIVE, PROXY_CONNECTION];

/// How a request came in.
#[derive(Clone)]
pub(in crate::gateway) struct Came {
    pub(in crate::gateway) port: u16,
    pub(in crate::gateway) tls: bool,
    pub(in crate::gateway) peer: SocketAddr,
    /// By HTTP/1.
    pub(in crate::gateway) version_one: bool,
    /// The client's address as a header has it.
    client: HeaderValue,
    port_text: HeaderValue,
}

impl Came {
    pub(in crate::gateway) fn new(port: u16, tls: bool, peer: SocketAddr) -> Self {
        let text = |text: String| HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("unknown"));
        let client = text(peer.ip().to_canonical().to_string());
        let port_text = HeaderValue::from(port);
        Self { port, tls, peer, version_one: true, client, port_text }
    }

    pub(in crate::gateway) fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    /// Makes a request ready for a backend of HTTP/1.1.
    pub(super) fn prepare<B>(&self, request: &mut Request<B>, host: Option<&str>) -> Result<(), Refusal> {
        self.local_form(request)?;
        *request.version_mut() = Version::HTTP_11;
        let headers = request.headers_mut();
        without_hops(headers);
        let original = headers.get(header::HOST).cloned();
        if let Some(host) = host.and_then(|host| HeaderValue::from_str(host).ok()) {
            headers.insert(header::HOST, host);
        }
        // HTTP/1.0 needs none, what is asked next does.
        headers.entry(header::HOST).or_insert(HeaderValue::from_static(""));
        match headers.entry(FORWARDED_FOR) {
            Entry::Vacant(entry) => drop(entry.insert(self.client.clone())),
            Entry::Occupied(mut entry) => {
                let all: Vec<&[u8]> = entry.iter().map(HeaderValue::as_bytes).chain([self.client.as_bytes()]).collect();
                if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b", "[..])) {
                    entry.insert(joined);
                }
            }
        }
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(self.scheme()));
        headers.insert(FORWARDED_PORT, self.port_text.clone());
        if let Some(original) = original {
            headers.insert(FORWARDED_HOST, original);
        }
        Ok(())
    }

    /// `/path?query`, with the host in a header.
    fn local_form<B>(&self, request: &mut Request<B>) -> Result<(), Refusal> {
        let uri = request.uri();
        let Some(authority) = uri.authority() else { return Ok(()) };
        let bad = |_| Refusal::new(StatusCode::BAD_REQUEST, "a host that is no name".into());
        let host = HeaderValue::from_str(authority.as_str()).map_err(bad)?;
        let local = uri.path_and_query().cloned().map_or(Uri::from_static("/"), Uri::from);
        request.headers_mut().insert(header::HOST, host);
        *request.uri_mut() = local;
        join_cookies(request.headers_mut());
        Ok(())
    }
}

/// HTTP/2 cuts cookies into several headers, which HTTP/1.1 does not.
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let all: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

/// Takes out what is about one connection only, and what `Connection` says is so.
pub(super) fn without_hops(headers: &mut HeaderMap) {
    // Comparing names costs less than looking up one, and most messages have none of these.
    let mut found = [false; HOPS.len()];
    for name in headers.keys() {
        if let Some(hop) = HOPS.iter().position(|hop| hop == name) {
            found[hop] = true;
        }
    }
    let [connection, te, ..] = found;
    if connection {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .filter(|name| !name.eq_ignore_ascii_case("keep-alive") && !name.eq_ignore_ascii_case("close"))
            .filter_map(|name| name.parse().ok())
            // What says whom and how much is about the message, whatever a client says.
            .filter(|name| *name != header::HOST && *name != header::CONTENT_LENGTH)
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    // What the other side may send after the body is asked for end to end by gRPC.
    let trailers = te && headers.get(header::TE).is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    for (name, _) in HOPS.iter().zip(found).filter(|(_, found)| *found) {
        headers.remove(name);
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_one_connection_do_not_travel() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Secret, host"),
            ("host", "a.example"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("proxy-connection", "keep-alive"),
            ("accept", "*/*"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        without_hops(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "host", "te"]);
    }

    #[test]
    fn backends_learn_who_asked_and_how() {
        let came = Came::new(443, true, "192.0.2.1:5000".parse().unwrap());
        let mut request = Request::builder()
            .uri("https://a.example/x?y=1")
            .version(Version::HTTP_2)
            .header("x-forwarded-for", "198.51.100.7")
            .header("x-forwarded-proto", "http")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .body(())
            .unwrap();
        came.prepare(&mut request, Some("inside.example")).unwrap();
        let header = |name: &str| request.headers()[name].to_str().unwrap();
        assert_eq!((request.uri().to_string().as_str(), header("host")), ("/x?y=1", "inside.example"));
        assert_eq!(header("x-forwarded-for"), "198.51.100.7, 192.0.2.1");
        assert_eq!((header("x-forwarded-proto"), header("x-forwarded-port")), ("https", "443"));
        assert_eq!((header("x-forwarded-host"), header("cookie")), ("a.example", "a=1; b=2"));
    }
}
