//! Sees in the bytes of HTTP/1 what the parser does not tell: a head with both `Content-Length` and `Transfer-Encoding`,
//! of which the parser drops the former. Such a request is safe here, as it is framed anew for the backend, but nobody
//! sends one in good faith.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// How much of what arrives at once is looked at.
const LOOK: usize = 16 * 1024;
/// How long a client is listened to that has its answer.
const LINGER: Duration = Duration::from_millis(500);
const LENGTH: &[u8] = b"\ncontent-length";
const ENCODING: &[u8] = b"\ntransfer-encoding";

/// What was seen on a connection.
#[derive(Debug, Default)]
pub(super) struct Sniffer {
    both: AtomicBool,
}

impl Sniffer {
    /// Some head had both.
    pub(super) fn saw_both(&self) -> bool {
        self.both.load(Ordering::Relaxed)
    }

    fn look(&self, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(LOOK)];
        let Some(at) = find(bytes, ENCODING) else { return };
        // The head around it: what is before an empty line belongs to something else.
        let start = bytes[..at].windows(4).rposition(|w| w == b"\r\n\r\n").map_or(0, |found| found + 3);
        let end = bytes[at..].windows(4).position(|w| w == b"\r\n\r\n").map_or(bytes.len(), |found| at + found);
        if find(&bytes[start..end], LENGTH).is_some() {
            self.both.store(true, Ordering::Relaxed);
        }
    }
}

fn find(bytes: &[u8], word: &[u8]) -> Option<usize> {
    let starts = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
    let mut starts = starts.filter(|at| bytes.len() - at >= word.len());
    starts.find(|at| bytes[*at..at + word.len()].eq_ignore_ascii_case(word))
}

/// A stream that is looked at.
pub(super) struct Sniffed<S> {
    inner: S,
    sniffer: Arc<Sniffer>,
    lingering: Option<Pin<Box<Sleep>>>,
}

impl<S> Sniffed<S> {
    pub(super) fn new(inner: S, sniffer: Arc<Sniffer>) -> Self {
        Self { inner, sniffer, lingering: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Sniffed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(cx, buffer);
        self.sniffer.look(&buffer.filled()[before..]);
        result
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Sniffed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    /// Says that nothing more comes, and then takes in for a moment what the client still sends: a socket that is closed
    /// with bytes unread resets the connection, and the client may never see the answer that was sent before.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(Pin::new(&mut self.inner).poll_shutdown(cx))?;
            self.lingering = Some(Box::pin(tokio::time::sleep(LINGER)));
        }
        let mut bytes = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.inner).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => break,
            }
        }
        self.lingering.as_mut().map_or(Poll::Ready(()), |timer| timer.as_mut().poll(cx)).map(Ok)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_heads_with_both_are_noticed() {
        let saw = |text: &str| {
            let sniffer = Sniffer::default();
            sniffer.look(text.as_bytes());
            sniffer.saw_both()
        };
        assert!(saw("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"));
        assert!(saw("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\nCONTENT-LENGTH: 4\r\n\r\n"));
        assert!(saw(
            "GET / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n"
        ));
        assert!(!saw("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n\nContent-Length: 1\r\n"));
        assert!(!saw("POST / HTTP/1.1\r\nContent-Length: 30\r\n\r\n\r\nTransfer-Encoding: chunked"));
        assert!(!saw("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    }
}
