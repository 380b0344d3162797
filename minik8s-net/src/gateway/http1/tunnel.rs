//! Connections that became something else, such as WebSockets: bytes pass both ways until either side ends.

use super::endpoint::Http1;
use super::upload::Incoming;
use crate::gateway::backend::Lease;
use crate::gateway::front::Shared;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional, join};

/// The endpoint's side of such a connection.
pub(in crate::gateway) struct Tunnel {
    connection: Http1,
    _lease: Lease,
}

impl Tunnel {
    pub(in crate::gateway) fn new(connection: Http1, lease: Lease) -> Self {
        Self { connection, _lease: lease }
    }

    /// Passes bytes until either side ends, nothing passes for too long, or the gateway's patience after it was told to
    /// end is over.
    pub(super) async fn pass(
        self,
        shared: &Shared,
        client: &Incoming,
        writer: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> io::Result<()> {
        let (Http1 { stream, input, .. }, (client, ahead)) = (self.connection, client.take());
        let moved = Arc::<AtomicBool>::default();
        let mut client = Watched { inner: join(client, writer), moved: moved.clone() };
        let mut endpoint = Watched { inner: stream, moved: moved.clone() };
        let end = async {
            shared.stop.cancelled().await;
            tokio::time::sleep(shared.config.drain).await;
        };
        let passing = async {
            client.write_all(&input.bytes).await?;
            client.flush().await?;
            endpoint.write_all(&ahead).await?;
            copy_bidirectional(&mut client, &mut endpoint).await
        };
        tokio::select! {
            result = passing => result.map(drop),
            () = silence(&moved, shared.config.tunnel_patience) => Err(io::ErrorKind::TimedOut.into()),
            () = end => Ok(()),
        }
    }
}

/// Ready when nothing has moved for so long, or up to twice that.
async fn silence(moved: &AtomicBool, patience: Duration) {
    loop {
        tokio::time::sleep(patience).await;
        if !moved.swap(false, Ordering::Relaxed) {
            return;
        }
    }
}

/// A stream that says that bytes came.
struct Watched<S> {
    inner: S,
    moved: Arc<AtomicBool>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if result.is_ready() {
            self.moved.store(true, Ordering::Relaxed);
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
