//! A server beside the cluster that knows more metrics: whatever speaks `custom.metrics.k8s.io` and
//! `external.metrics.k8s.io` over plain HTTP, as adapters of Prometheus and KEDA do behind a proxy.

use super::fetch;
use crate::api::{ApiError, ApiResult, Reason};
use serde_json::Value;
use std::time::Duration;
use tokio::net::TcpStream;

const ANSWER: Duration = Duration::from_secs(5);

/// The way to an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Adapter {
    authority: String,
    base: String,
}

impl Adapter {
    /// The adapter at an URL such as `http://10.0.0.7:8080`.
    ///
    /// # Errors
    /// `BadRequest` for anything but plain HTTP to a host.
    pub(crate) fn new(url: &str) -> ApiResult<Self> {
        let wrong =
            || ApiError::bad_request(format!("{url:?} is no address of a metrics adapter such as http://host:port"));
        let uri: http::Uri = url.parse().map_err(|_| wrong())?;
        let host = uri.host().filter(|_| uri.scheme_str() == Some("http")).ok_or_else(wrong)?;
        let authority = format!("{host}:{}", uri.port_u16().unwrap_or(80));
        Ok(Self { authority, base: uri.path().trim_end_matches('/').to_owned() })
    }

    /// The items of a list.
    pub(crate) async fn items(&self, path: &str, query: &[(&str, &str)]) -> ApiResult<Vec<Value>> {
        self.list(path, query, "items").await
    }

    /// What stands in a field of an answer, which is a list.
    pub(crate) async fn list(&self, path: &str, query: &[(&str, &str)], field: &str) -> ApiResult<Vec<Value>> {
        let said: Vec<String> =
            query.iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| format!("{k}={}", encode(v))).collect();
        let mark = if said.is_empty() { "" } else { "?" };
        let path = format!(
            "{}{}{mark}{}",
            self.base,
            path.split('/').map(encode).collect::<Vec<_>>().join("/"),
            said.join("&")
        );
        let failed = |why: String| {
            let why = format!("the metrics adapter at {}: {why}", self.authority);
            ApiError::new(Reason::ServiceUnavailable, why)
        };
        let asked = async {
            let io = TcpStream::connect(&self.authority).await.map_err(|e| failed(e.to_string()))?;
            fetch::get(io, &self.authority, &path).await.map_err(failed)
        };
        let late = || failed(format!("no answer in {ANSWER:?}"));
        let text = tokio::time::timeout(ANSWER, asked).await.unwrap_or_else(|_| Err(late()))?;
        let list: Value = serde_json::from_str(&text).map_err(|e| failed(format!("its answer is no JSON: {e}")))?;
        Ok(list[field].as_array().cloned().unwrap_or_default())
    }
}

/// Percent-encoding of a part of a path or a query (RFC 3986).
fn encode(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~*".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_plain_http() {
        let adapter = Adapter::new("http://127.0.0.1/base/").unwrap();
        assert_eq!((adapter.authority.as_str(), adapter.base.as_str()), ("127.0.0.1:80", "/base"));
        for wrong in ["https://a", "a", "/x", "http://"] {
            assert!(Adapter::new(wrong).is_err(), "{wrong}");
        }
        assert_eq!(encode("a=b, c/*"), "a%3Db%2C%20c%2F*");
    }
}
