//! The body of a client's request. It has the reading half of the connection for as long as it is read, and brings it
//! home when it is dropped.

use super::decode::{Decoder, Step};
use super::io::Input;
use crate::gateway::body::Broke;
use bytes::Bytes;
use futures::task::AtomicWaker;
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use tokio::io::AsyncRead;

/// The half of a connection that brings bytes.
pub(super) struct Reader {
    pub(super) stream: Box<dyn AsyncRead + Send + Unpin>,
    pub(super) input: Input,
}

impl Reader {
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        self.input.poll_fill(&mut *self.stream, cx)
    }
}

/// Where the reading half comes home to.
#[derive(Default)]
pub(super) struct Home {
    reader: Mutex<Option<Box<Reader>>>,
    /// The body was read to its end.
    whole: AtomicBool,
    /// Somebody wants the body that a client waits with until it is asked for.
    wanted: AtomicBool,
    waker: AtomicWaker,
}

impl Home {
    /// The reading half, once it is back; `Err` where bytes of the body are left in it.
    pub(super) fn take(&self) -> Option<Result<Box<Reader>, Box<Reader>>> {
        let reader = self.reader.lock().take()?;
        Some(if self.whole.load(Ordering::Acquire) { Ok(reader) } else { Err(reader) })
    }

    /// True once where the client has to be told that its body is wanted; wakes when that becomes so.
    pub(super) fn is_wanted(&self, cx: &Context<'_>) -> bool {
        self.waker.register(cx.waker());
        self.wanted.swap(false, Ordering::AcqRel)
    }
}

/// The body of a request.
pub(in crate::gateway) struct Upload {
    reader: Option<Box<Reader>>,
    decoder: Decoder,
    home: Arc<Home>,
    /// The client waits until it is asked.
    waits: bool,
}

impl Upload {
    pub(super) fn new(reader: Box<Reader>, decoder: Decoder, waits: bool) -> (Self, Arc<Home>) {
        let home = Arc::<Home>::default();
        (Self { reader: Some(reader), decoder, home: home.clone(), waits }, home)
    }

    pub(in crate::gateway) fn is_end_stream(&self) -> bool {
        self.decoder.is_end()
    }

    pub(in crate::gateway) fn size_hint(&self) -> SizeHint {
        self.decoder.size_hint()
    }

    pub(in crate::gateway) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        if std::mem::take(&mut self.waits) {
            self.home.wanted.store(true, Ordering::Release);
            self.home.waker.wake();
        }
        let Some(reader) = &mut self.reader else { return Poll::Ready(None) };
        loop {
            match self.decoder.step(&mut reader.input.bytes) {
                Ok(Step::Frame(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(Step::End) => {
                    self.bring_home();
                    return Poll::Ready(None);
                }
                Ok(Step::More) => {}
                Err(bad) => return Poll::Ready(Some(Err(bad.into()))),
            }
            match reader.poll_fill(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Some(Err(Broke::Left))),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn bring_home(&mut self) {
        if let Some(reader) = self.reader.take() {
            self.home.whole.store(self.decoder.is_end(), Ordering::Release);
            *self.home.reader.lock() = Some(reader);
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.bring_home();
    }
}
