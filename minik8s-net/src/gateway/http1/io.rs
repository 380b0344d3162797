//! The two ends of a connection: bytes that came and were not read yet, bytes that wait to be sent, and patience.

use bytes::{Buf, Bytes, BytesMut};
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until};

/// Room for what is read at once: at first, and where more comes than fits.
const SMALL: usize = 8 * 1024;
const LARGE: usize = 64 * 1024;
/// Bodies up to this are copied behind what is sent with them, larger ones are sent from where they are.
const COPIED: usize = 16 * 1024;
/// More than this does not wait to be sent.
const FULL: usize = 64 * 1024;

/// What came and was not read yet.
#[derive(Debug, Default)]
pub(super) struct Input {
    pub(super) bytes: BytesMut,
    /// The last read filled all the room there was.
    filled: bool,
}

impl Input {
    pub(super) fn new(bytes: BytesMut) -> Self {
        Self { bytes, filled: false }
    }

    /// Takes in what is there: how many bytes, 0 at the end of the stream.
    pub(super) fn poll_fill<R>(&mut self, reader: &mut R, cx: &mut Context<'_>) -> Poll<io::Result<usize>>
    where
        R: AsyncRead + Unpin + ?Sized,
    {
        let room = if self.filled { LARGE } else { SMALL };
        if self.bytes.capacity() - self.bytes.len() < room / 4 {
            self.bytes.reserve(room);
        }
        let before = self.bytes.capacity() - self.bytes.len();
        let count = ready!(tokio_util::io::poll_read_buf(Pin::new(reader), cx, &mut self.bytes))?;
        self.filled = count == before;
        Poll::Ready(Ok(count))
    }

    /// Gives back room that a large message needed, for as long as the connection waits.
    pub(super) fn rest(&mut self) {
        if self.bytes.is_empty() && self.filled {
            *self = Self::default();
        }
    }
}

/// What waits to be sent.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) text: Vec<u8>,
    sent: usize,
    /// Behind the text.
    data: Bytes,
    /// The writer may hold back some of what it took.
    unflushed: bool,
}

impl Output {
    pub(super) fn is_empty(&self) -> bool {
        self.left() == 0 && !self.unflushed
    }

    /// How many bytes no writer has taken.
    pub(super) fn left(&self) -> usize {
        self.text.len() - self.sent + self.data.len()
    }

    /// Nothing more should be added before some was sent.
    pub(super) fn is_full(&self) -> bool {
        !self.data.is_empty() || self.text.len() - self.sent >= FULL
    }

    /// Nothing of it was sent.
    pub(super) fn is_untouched(&self) -> bool {
        self.sent == 0 && !self.unflushed
    }

    /// Adds bytes of a body; must not be full.
    pub(super) fn push(&mut self, data: Bytes) {
        if data.len() <= COPIED {
            self.text.extend_from_slice(&data);
        } else {
            self.data = data;
        }
    }

    /// Adds bytes behind those of a body, which are copied for that.
    pub(super) fn push_behind(&mut self, add: impl FnOnce(&mut Vec<u8>)) {
        if !self.data.is_empty() {
            let data = std::mem::take(&mut self.data);
            self.text.extend_from_slice(&data);
        }
        add(&mut self.text);
    }

    /// Sends until nothing is left.
    pub(super) fn poll_flush<W>(&mut self, writer: &mut W, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        W: AsyncWrite + Unpin + ?Sized,
    {
        while self.left() > 0 {
            let text = self.sent < self.text.len();
            let bytes = if text { &self.text[self.sent..] } else { &self.data[..] };
            match ready!(Pin::new(&mut *writer).poll_write(cx, bytes))? {
                0 => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                count if text => self.sent += count,
                count => self.data.advance(count),
            }
            self.unflushed = true;
        }
        self.text.clear();
        self.text.shrink_to(LARGE);
        self.sent = 0;
        ready!(Pin::new(writer).poll_flush(cx))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }
}

/// A deadline that is set anew much more often than it is reached: the timer is only touched where it fires too early.
#[derive(Debug)]
pub(super) struct Patience {
    deadline: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    pub(super) fn new(lasts: Duration) -> Self {
        Self { deadline: Instant::now() + lasts, timer: None }
    }

    /// Lasts so long from now on.
    pub(super) fn set(&mut self, lasts: Duration) {
        self.deadline = Instant::now() + lasts;
        if let Some(timer) = &mut self.timer
            && timer.deadline() > self.deadline
        {
            timer.as_mut().reset(self.deadline);
        }
    }

    /// Ready when it is at its end.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(self.deadline)));
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= self.deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(self.deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    #[tokio::test(start_paused = true)]
    async fn patience_counts_from_when_it_was_set_last() {
        let began = Instant::now();
        let mut patience = Patience::new(Duration::from_secs(1));
        assert!(futures::poll!(poll_fn(|cx| patience.poll(cx))).is_pending());
        patience.set(Duration::from_secs(5));
        poll_fn(|cx| patience.poll(cx)).await;
        assert_eq!(began.elapsed().as_secs(), 5);
        patience.set(Duration::from_secs(60));
        assert!(futures::poll!(poll_fn(|cx| patience.poll(cx))).is_pending());
        patience.set(Duration::from_secs(2));
        poll_fn(|cx| patience.poll(cx)).await;
        assert_eq!(began.elapsed().as_secs(), 7, "and may be shorter than before");
    }

    #[tokio::test]
    async fn what_is_sent_comes_in_its_order() {
        let (mut a, mut b) = tokio::io::duplex(100);
        let large = Bytes::from(vec![7; COPIED + 1]);
        let sending = tokio::spawn(async move {
            let mut output = Output::default();
            output.text.extend_from_slice(b"head");
            output.push(large);
            assert!(output.is_full());
            output.push_behind(|text| text.extend_from_slice(b"end"));
            poll_fn(|cx| output.poll_flush(&mut a, cx)).await.unwrap();
            assert!(output.is_empty() && output.is_untouched());
        });
        let mut input = Input::default();
        while poll_fn(|cx| input.poll_fill(&mut b, cx)).await.unwrap() > 0 {}
        sending.await.unwrap();
        assert_eq!(input.bytes.len(), 4 + COPIED + 1 + 3);
        assert!(input.bytes.starts_with(b"head\x07") && input.bytes.ends_with(b"\x07end"));
    }
}
