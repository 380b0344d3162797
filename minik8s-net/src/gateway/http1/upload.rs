//! The reading half of a client's connection, and the bodies of requests that come on it. Only the connection reads, so
//! that it sees when its client leaves; a body takes what was read, and each wakes the other.

use super::decode::{Decoder, Step};
use super::io::Input;
use crate::gateway::body::Broke;
use bytes::Bytes;
use futures::task::AtomicWaker;
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::AsyncRead;

/// What a client may send ahead of what is taken.
const AHEAD: usize = 128 * 1024;

/// What a connection reads with.
pub(super) struct Reader {
    pub(super) stream: Box<dyn AsyncRead + Send + Unpin>,
    pub(super) input: Input,
    /// Nothing more will come.
    ended: bool,
}

impl Reader {
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let count = ready!(self.input.poll_fill(&mut *self.stream, cx));
        self.ended |= matches!(count, Ok(0) | Err(_));
        Poll::Ready(count)
    }
}

/// The reading half of a connection.
pub(super) struct Incoming {
    pub(super) reader: Mutex<Reader>,
    body: AtomicWaker,
    connection: AtomicWaker,
    /// The connection reads on once some was taken.
    full: AtomicBool,
    /// A body is not read to its end.
    owed: AtomicBool,
    /// Somebody wants the body that a client waits with until it is asked for.
    wanted: AtomicBool,
}

impl Incoming {
    pub(super) fn new(stream: Box<dyn AsyncRead + Send + Unpin>, input: Input) -> Self {
        Self {
            reader: Mutex::new(Reader { stream, input, ended: false }),
            body: AtomicWaker::new(),
            connection: AtomicWaker::new(),
            full: AtomicBool::new(false),
            owed: AtomicBool::new(false),
            wanted: AtomicBool::new(false),
        }
    }

    /// The stream itself, and what of it was read; nothing comes here any more.
    pub(super) fn take(&self) -> (Box<dyn AsyncRead + Send + Unpin>, Bytes) {
        let mut reader = self.reader.lock();
        reader.ended = true;
        let stream = std::mem::replace(&mut reader.stream, Box::new(tokio::io::empty()));
        (stream, reader.input.bytes.split().freeze())
    }

    /// Nothing will be read any more: a body that waits in another task breaks off.
    pub(super) fn end(&self) {
        drop(self.take());
        self.body.wake();
    }

    /// Bytes of a body are left: they would be taken for the next request.
    pub(super) fn is_owed(&self) -> bool {
        self.owed.load(Ordering::Acquire)
    }

    /// True once where the client has to be told that its body is wanted.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) && self.wanted.swap(false, Ordering::AcqRel)
    }

    /// Reads ahead, up to a limit. Ready when nothing more comes: the client says so, or its connection broke.
    pub(super) fn poll_left(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_owed() {
            self.connection.register(cx.waker());
        }
        let mut reader = self.reader.lock();
        loop {
            let full = reader.input.bytes.len() >= AHEAD;
            self.full.store(full, Ordering::Release);
            if full {
                return Poll::Pending;
            }
            let count = ready!(reader.poll_fill(cx));
            if self.is_owed() {
                self.body.wake();
            }
            match count {
                Ok(0) => return Poll::Ready(Ok(())),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

/// The body of a request.
pub(in crate::gateway) struct Upload {
    incoming: Arc<Incoming>,
    decoder: Decoder,
    /// The client waits until it is asked.
    waits: bool,
}

impl Upload {
    pub(super) fn new(incoming: Arc<Incoming>, decoder: Decoder, waits: bool) -> Self {
        incoming.wanted.store(false, Ordering::Release);
        incoming.owed.store(true, Ordering::Release);
        Self { incoming, decoder, waits }
    }

    pub(in crate::gateway) fn is_end_stream(&self) -> bool {
        self.decoder.is_end()
    }

    pub(in crate::gateway) fn size_hint(&self) -> SizeHint {
        self.decoder.size_hint()
    }

    pub(in crate::gateway) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        if self.decoder.is_end() {
            return Poll::Ready(None);
        }
        if std::mem::take(&mut self.waits) {
            self.incoming.wanted.store(true, Ordering::Release);
            self.incoming.connection.wake();
        }
        let mut reader = self.incoming.reader.lock();
        // Before looking, so that nothing is missed between.
        self.incoming.body.register(cx.waker());
        let step = self.decoder.step(&mut reader.input.bytes)?;
        let ended = reader.ended;
        drop(reader);
        if self.decoder.is_end() {
            self.incoming.owed.store(false, Ordering::Release);
        }
        if self.incoming.full.load(Ordering::Acquire) {
            self.incoming.connection.wake();
        }
        match step {
            Step::Frame(frame) => Poll::Ready(Some(Ok(frame))),
            Step::End => Poll::Ready(None),
            Step::More if ended => Poll::Ready(Some(Err(Broke::Left))),
            Step::More => Poll::Pending,
        }
    }
}
