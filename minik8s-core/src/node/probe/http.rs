//! The least HTTP client a probe needs: one request per connection, redirects on the same host only.

use super::tls;
use crate::api::minor_version;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

const MAX_REDIRECTS: usize = 10;

pub(super) struct Request {
    pub(super) tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) path: String,
    pub(super) headers: Vec<(String, String)>,
}

impl Request {
    fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("{host}:{}", self.port)
    }

    pub(super) fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        let slash = if self.path.starts_with('/') { "" } else { "/" };
        format!("{scheme}://{}{slash}{}", self.authority(), self.path)
    }
}

/// The status code of the answer, after redirects. One that leads elsewhere is an answer, too.
pub(super) async fn get(mut request: Request) -> Result<u16, String> {
    for _ in 0..MAX_REDIRECTS {
        let (status, location) = once(&request).await?;
        let next = location.filter(|_| (300..400).contains(&status)).and_then(|to| same_host(&request, &to));
        match next {
            Some((tls, port, path)) => (request.tls, request.port, request.path) = (tls, port, path),
            None => return Ok(status),
        }
    }
    Err(format!("stopped after {MAX_REDIRECTS} redirects"))
}

/// Where a redirect leads, if it stays on the host.
fn same_host(request: &Request, location: &str) -> Option<(bool, u16, String)> {
    if location.starts_with('/') && !location.starts_with("//") {
        return Some((request.tls, request.port, location.to_owned()));
    }
    let uri: http::Uri = location.parse().ok()?;
    let tls = uri.scheme_str()? == "https";
    let host = uri.host()?.trim_matches(['[', ']']);
    let path = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
    (host == request.host).then(|| (tls, uri.port_u16().unwrap_or(if tls { 443 } else { 80 }), path))
}

async fn once(request: &Request) -> Result<(u16, Option<String>), String> {
    let stream =
        TcpStream::connect((request.host.as_str(), request.port)).await.map_err(|e| format!("dial tcp: {e}"))?;
    if request.tls {
        exchange(tls::connect(stream, &request.host).await?, request).await
    } else {
        exchange(stream, request).await
    }
}

async fn exchange<S>(stream: S, request: &Request) -> Result<(u16, Option<String>), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let path = if request.path.starts_with('/') { request.path.clone() } else { format!("/{}", request.path) };
    let mut builder = http::Request::get(path).header("connection", "close");
    let has = |name: &str| request.headers.iter().any(|(there, _)| there.eq_ignore_ascii_case(name));
    let (host, agent) = (request.authority(), format!("kube-probe/{}", minor_version()));
    for (name, value) in [("host", host.as_str()), ("user-agent", agent.as_str()), ("accept", "*/*")] {
        if !has(name) {
            builder = builder.header(name, value);
        }
    }
    for (name, value) in &request.headers {
        builder = builder.header(name, value);
    }
    let message = builder.body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    // The connection must be driven while the answer is awaited, and ends with this call.
    let answer = async {
        let response = sender.send_request(message).await.map_err(|e| e.to_string())?;
        let location = response.headers().get("location").and_then(|v| v.to_str().ok()).map(str::to_owned);
        Ok((response.status().as_u16(), location))
    };
    tokio::pin!(answer);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        biased;
        result = &mut answer => result,
        ended = &mut connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(error.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Answers each request by its path.
    async fn server(tls: Option<tokio_rustls::TlsAcceptor>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                match &tls {
                    Some(tls) => answer(tls.accept(stream).await.unwrap()).await,
                    None => answer(stream).await,
                }
            }
        });
        port
    }

    async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut buffer = [0; 4096];
        let n = stream.read(&mut buffer).await.unwrap_or(0);
        let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
        let answer = match text.split(' ').nth(1).unwrap_or_default() {
            "/ok" if text.contains("x-token: 1") => "200 OK\r\n",
            "/move" => "302 Found\r\nlocation: /gone\r\n",
            "/away" => "302 Found\r\nlocation: http://192.0.2.1/ok\r\n",
            "/loop" => "302 Found\r\nlocation: /loop\r\n",
            "/gone" => "410 Gone\r\n",
            _ => "500 Oops\r\n",
        };
        let _ = stream.write_all(format!("HTTP/1.1 {answer}content-length: 0\r\n\r\n").as_bytes()).await;
    }

    #[tokio::test]
    async fn certificates_are_not_checked() {
        use crate::server::tls::{Pki, ServerNames};
        // Of a CA that nobody knows, for a name that nobody asks for.
        let names = ServerNames::default().with(["somewhere.else.example"]);
        let pki = Pki::in_memory(&names, jiff::Timestamp::now()).unwrap();
        let port = server(Some(pki.server_config().unwrap().into())).await;
        let ask = |tls: bool, path: &str| {
            let headers = vec![("X-Token".into(), "1".into())];
            get(Request { tls, host: "127.0.0.1".into(), port, path: path.into(), headers })
        };
        assert_eq!(ask(true, "/ok").await, Ok(200));
        assert_eq!(ask(true, "/move").await, Ok(410), "redirects stay on TLS");
        assert_eq!(ask(true, "/x").await, Ok(500));
    }

    #[tokio::test]
    async fn answers_are_codes_and_redirects_stay_on_the_host() {
        let port = server(None).await;
        let ask = |path: &str| {
            get(Request {
                tls: false,
                host: "127.0.0.1".into(),
                port,
                path: path.into(),
                headers: vec![("X-Token".into(), "1".into())],
            })
        };
        assert_eq!(ask("/ok").await, Ok(200));
        assert_eq!(ask("ok").await, Ok(200));
        assert_eq!(ask("/move").await, Ok(410));
        assert_eq!(ask("/away").await, Ok(302));
        assert_eq!(ask("/x").await, Ok(500));
        assert!(ask("/loop").await.unwrap_err().contains("redirects"));
    }
}
