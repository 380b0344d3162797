//! How a connection to one of several servers comes about: the one that was good last is tried first, and each of the
//! others a little later, or at once where those before it refuse. The first connection wins.

use super::servers::Servers;
use super::tls;
use crate::api::{ApiError, ApiResult};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// How much later the next server is tried, where the one before says nothing.
const STAGGER: Duration = Duration::from_millis(300);

/// Either kind of connection.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection to some server.
pub(super) type Connected = TokioIo<Box<dyn Io>>;

/// One server's address, taken apart.
#[derive(Clone)]
struct Address {
    host: String,
    port: u16,
    /// The name to expect in its certificate; `None` without TLS.
    name: Option<ServerName<'static>>,
}

/// Makes connections. Cheap to clone; clones remember together who was good last.
#[derive(Clone)]
pub(super) struct Dialer {
    first: String,
    others: Servers,
    /// The name to expect in every certificate, where it is not the host.
    name: Option<String>,
    tls: Option<Arc<ClientConfig>>,
    last: Arc<Mutex<String>>,
}

impl Dialer {
    /// Connections to `first` and `others`. With a configuration of TLS, or without.
    ///
    /// # Errors
    /// `BadRequest` where `first` is no address.
    pub(super) fn new(first: &str, others: &Servers, name: Option<&str>, tls: Option<ClientConfig>) -> ApiResult<Self> {
        let dialer = Self {
            first: first.to_owned(),
            others: others.clone(),
            name: name.map(str::to_owned),
            tls: tls.map(Arc::new),
            last: Arc::new(Mutex::new(first.to_owned())),
        };
        dialer.address(first)?;
        Ok(dialer)
    }

    /// A connection to whichever server answers.
    pub(super) async fn connect(self) -> io::Result<Connected> {
        let order = in_order(&self.last.lock(), &self.first, &self.others.all());
        let mut waiting = order.into_iter();
        let mut trying = FuturesUnordered::<BoxFuture<'_, (String, io::Result<Connected>)>>::new();
        let mut failed: Option<io::Error> = None;
        let mut next_at = Instant::now();
        loop {
            tokio::select! {
                biased;
                Some((url, tried)) = trying.next() => match tried {
                    Ok(io) => {
                        *self.last.lock() = url;
                        return Ok(io);
                    }
                    Err(error) => {
                        failed = Some(io::Error::new(error.kind(), format!("{url}: {error}")));
                        next_at = Instant::now();
                    }
                },
                () = tokio::time::sleep_until(next_at), if waiting.len() > 0 => {
                    next_at = Instant::now() + STAGGER;
                    if let Some(url) = waiting.next() {
                        let dialer = &self;
                        let attempt = async move {
                            let tried = dialer.to(&url).await;
                            (url, tried)
                        };
                        trying.push(attempt.boxed());
                    }
                }
                else => return Err(failed.unwrap_or_else(|| io::Error::other("no server is known"))),
            }
        }
    }

    async fn to(&self, url: &str) -> io::Result<Connected> {
        let Address { host, port, name } = self.address(url).map_err(io::Error::other)?;
        let io: Box<dyn Io> = match (&self.tls, name) {
            (Some(tls), Some(name)) => Box::new(tls::connect(&host, port, name, tls.clone()).await?.into_inner()),
            _ => {
                let stream = TcpStream::connect((host.as_str(), port)).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
        };
        Ok(TokioIo::new(io))
    }

    fn address(&self, url: &str) -> ApiResult<Address> {
        let unusable = |e: &dyn std::fmt::Display| {
            ApiError::bad_request(format!("cannot use the API server address {url:?}: {e}"))
        };
        let uri: http::Uri = url.parse().map_err(|e| unusable(&e))?;
        let host = uri.host().ok_or_else(|| unusable(&"it names no host"))?.to_owned();
        let encrypted = self.tls.is_some();
        let name = encrypted.then(|| tls::server_name(self.name.as_deref().unwrap_or(&host))).transpose()?;
        let port = uri.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
        Ok(Address { host: host.trim_start_matches('[').trim_end_matches(']').to_owned(), port, name })
    }
}

/// Every server once: the one that was good last, the one we were told of, the others.
fn in_order(last: &str, first: &str, others: &[String]) -> Vec<String> {
    let known = |url: &str| url == first || others.iter().any(|other| other == url);
    let mut order: Vec<String> = Vec::new();
    let all = [last].into_iter().filter(|last| known(last)).chain([first]).chain(others.iter().map(String::as_str));
    for url in all {
        if !order.iter().any(|known| known == url) {
            order.push(url.to_owned());
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn each_is_tried_once_and_who_was_good_last_first() {
        let others = ["b".to_owned(), "c".to_owned(), "a".to_owned()];
        assert_eq!(in_order("a", "a", &others), ["a", "b", "c"]);
        assert_eq!(in_order("c", "a", &others), ["c", "a", "b"]);
        assert_eq!(in_order("gone", "a", &others), ["a", "b", "c"]);
    }

    async fn listener() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        (listener, url)
    }

    #[tokio::test]
    async fn whoever_answers_is_taken_and_remembered() {
        let ((first, url), (second, other)) = (listener().await, listener().await);
        let dialer = Dialer::new(&url, &Servers::new([&other]), None, None).unwrap();
        dialer.clone().connect().await.unwrap();
        first.accept().await.unwrap();
        drop(first);
        dialer.clone().connect().await.unwrap();
        second.accept().await.unwrap();
        assert_eq!(*dialer.last.lock(), other);
        drop(second);
        let error = dialer.connect().await.map(drop).unwrap_err();
        assert!(error.to_string().contains("http://127.0.0.1:"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_says_nothing_keeps_nobody_waiting() {
        // One whose queue of connections is full takes no more, and does not say so.
        let silent = tokio::net::TcpSocket::new_v4().unwrap();
        silent.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let silent = silent.listen(1).unwrap();
        let address = silent.local_addr().unwrap();
        let mut filling = Vec::new();
        for _ in 0..16 {
            filling.push(tokio::spawn(TcpStream::connect(address)));
        }
        let (second, other) = listener().await;
        let url = format!("http://{address}");
        let dialer = Dialer::new(&url, &Servers::new([&other]), None, None).unwrap();
        while filling.iter().filter(|task| task.is_finished()).count() < 2 {
            tokio::task::yield_now().await;
        }
        dialer.clone().connect().await.unwrap();
        second.accept().await.unwrap();
        assert_eq!(*dialer.last.lock(), other);
        filling.iter().for_each(|task| task.abort());
    }
}
