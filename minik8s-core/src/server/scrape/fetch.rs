//! The least HTTP client that pages of metrics need: one request on a connection that is there already.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::AbortOnDropHandle;

/// Larger pages are refused.
const LARGEST: usize = 8 << 20;

/// The body of a successful answer.
///
/// # Errors
/// Why there is none, in words.
pub(crate) async fn get(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: &str,
    path: &str,
) -> Result<String, String> {
    let failed = |e: hyper::Error| e.to_string();
    let (mut send, connection) = http1::handshake(TokioIo::new(io)).await.map_err(failed)?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = http::Request::get(path)
        .header(http::header::HOST, host)
        .header(http::header::ACCEPT, "text/plain;version=0.0.4,application/json;q=0.9,*/*;q=0.1")
        .body(Empty::<Bytes>::new())
        .map_err(|e| e.to_string())?;
    let answer = send.send_request(request).await.map_err(failed)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), LARGEST).collect().await.map_err(|e| e.to_string())?.to_bytes();
    let text = String::from_utf8(body.into()).map_err(|_| "the answer is no text".to_owned())?;
    if status.is_success() {
        return Ok(text);
    }
    let first: String = text.lines().next().unwrap_or_default().chars().take(200).collect();
    Err(format!("it answered {}: {first}", status.as_u16()))
}
