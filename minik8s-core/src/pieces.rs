//! Connections made of pieces: what arrives is a stream of bytes, what is written goes into a bounded queue, as messages
//! of whatever carries the connection.

use crate::runtime::Duplex;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio_util::io::StreamReader;
use tokio_util::sync::PollSender;

/// The largest piece that is written.
pub(crate) const LARGEST: usize = 32 << 10;

/// What is written to a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Bytes, some.
    Data(Bytes),
    /// No more of them. What arrives still does.
    End,
}

/// A connection that reads `inbound`, whose end is the end of what is read, and writes to `outbound` what `wrap` makes of
/// each piece. Writing waits while the queue is full, and fails once nobody takes from it.
pub(crate) fn connection<S, T, W>(inbound: S, outbound: mpsc::Sender<T>, wrap: W) -> impl Duplex
where
    S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    T: Send + 'static,
    W: Fn(Piece) -> T + Send + Unpin + 'static,
{
    let writer = Writer { queue: PollSender::new(outbound), wrap, ended: false };
    tokio::io::join(StreamReader::new(inbound.boxed()), writer)
}

struct Writer<T, W> {
    queue: PollSender<T>,
    wrap: W,
    ended: bool,
}

impl<T: Send + 'static, W: Fn(Piece) -> T + Unpin> Writer<T, W> {
    fn poll_send(&mut self, cx: &mut Context<'_>, piece: impl FnOnce() -> Piece) -> Poll<io::Result<()>> {
        let broken = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the other end has left");
        ready!(self.queue.poll_reserve(cx)).map_err(broken)?;
        Poll::Ready(self.queue.send_item((self.wrap)(piece())).map_err(broken))
    }
}

impl<T: Send + 'static, W: Fn(Piece) -> T + Unpin> AsyncWrite for Writer<T, W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::BrokenPipe, "this direction was shut down")));
        }
        let data = &data[..data.len().min(LARGEST)];
        if !data.is_empty() {
            ready!(self.poll_send(cx, || Piece::Data(Bytes::copy_from_slice(data))))?;
        }
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ended {
            ready!(self.poll_send(cx, || Piece::End))?;
            self.ended = true;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn pieces_are_bounded_and_each_direction_ends_by_itself() {
        let (send, mut queue) = mpsc::channel(1);
        let mut io = connection(stream::iter([Ok(Bytes::from("ab")), Ok(Bytes::new())]), send, |piece| piece);
        assert_eq!(io.write(&vec![1; LARGEST + 1]).await.unwrap(), LARGEST);
        assert!(futures::poll!(std::pin::pin!(io.write(b"x"))).is_pending(), "the queue is full");
        assert_eq!(queue.recv().await.unwrap(), Piece::Data(vec![1; LARGEST].into()));
        io.shutdown().await.unwrap();
        assert_eq!(queue.recv().await.unwrap(), Piece::End);
        assert_eq!(io.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let mut read = String::new();
        io.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "ab");
    }

    #[tokio::test]
    async fn writing_fails_once_nobody_takes() {
        let (send, queue) = mpsc::channel(1);
        let mut io = connection(stream::pending(), send, |piece| piece);
        drop(queue);
        assert_eq!(io.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
