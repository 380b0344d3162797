//! What goes on in a client's HTTP/2 connection: whether anything is asked, and whether the client takes what it is given.
//! A window that a client never opens is no silence of the connection, and would keep an answer, and who gives it, for ever.

use super::body::Broke;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// The requests of one connection.
pub(super) struct Streams(Mutex<Running>);

struct Running {
    next: u64,
    open: usize,
    /// When the last request ended, or the connection began.
    idle_since: Instant,
    /// Since when parts of answers wait to be taken.
    given: BTreeMap<u64, Instant>,
}

/// Why a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// Nothing is asked.
    Idle,
    /// An answer is not taken.
    Stuck,
}

impl Streams {
    pub(super) fn new() -> Arc<Self> {
        let running = Running { next: 0, open: 0, idle_since: Instant::now(), given: BTreeMap::new() };
        Arc::new(Self(Mutex::new(running)))
    }

    /// A request that counts as long as the answer lives.
    pub(super) fn open(self: &Arc<Self>) -> Stream {
        let mut running = self.0.lock();
        running.open += 1;
        running.next += 1;
        Stream { streams: self.clone(), number: running.next, given: false }
    }

    /// Waits until nothing was asked for `idle`, or something was not taken for `stuck`.
    pub(super) async fn over(&self, idle: Duration, stuck: Duration) -> Over {
        loop {
            let now = Instant::now();
            let at = {
                let running = self.0.lock();
                let oldest = running.given.values().min().copied();
                match (running.open, oldest) {
                    (0, _) if now >= running.idle_since + idle => return Over::Idle,
                    (0, _) => running.idle_since + idle,
                    (_, Some(since)) if now >= since + stuck => return Over::Stuck,
                    (_, Some(since)) => since + stuck,
                    (_, None) => now + stuck,
                }
            };
            tokio::time::sleep_until(at).await;
        }
    }
}

/// A request that is under way.
pub(super) struct Stream {
    streams: Arc<Streams>,
    number: u64,
    given: bool,
}

impl Stream {
    /// Its answer, as it is taken.
    pub(super) fn watch<B>(self, body: B) -> Watched<B> {
        Watched { body, stream: self }
    }

    fn gives(&mut self, given: bool) {
        if std::mem::replace(&mut self.given, given) || given {
            let mut running = self.streams.0.lock();
            if given {
                running.given.insert(self.number, Instant::now());
            } else {
                running.given.remove(&self.number);
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut running = self.streams.0.lock();
        running.given.remove(&self.number);
        running.open -= 1;
        if running.open == 0 {
            running.idle_since = Instant::now();
        }
    }
}

/// The body of an answer. It is asked for more only when there is room for it, so that what was given and not asked for
/// since was not taken.
pub(super) struct Watched<B> {
    body: B,
    stream: Stream,
}

impl<B: Body<Data = Bytes, Error = Broke> + Unpin> Body for Watched<B> {
    type Data = Bytes;
    type Error = Broke;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        self.stream.gives(matches!(polled, Poll::Ready(Some(Ok(_)))));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_connections_without_requests_are_idle_and_only_what_is_not_taken_is_stuck() {
        let (idle, stuck) = (Duration::from_secs(30), Duration::from_secs(60));
        let streams = Streams::new();
        let began = Instant::now();
        let over = async || tokio::time::timeout(Duration::from_secs(300), streams.over(idle, stuck)).await.ok();
        assert_eq!((over().await, began.elapsed()), (Some(Over::Idle), idle));
        let mut stream = streams.open();
        assert_eq!(over().await, None, "an endpoint may be as slow as it likes");
        stream.gives(true);
        tokio::time::sleep(Duration::from_secs(50)).await;
        stream.gives(true);
        let again = Instant::now();
        assert_eq!((over().await, again.elapsed()), (Some(Over::Stuck), stuck));
        stream.gives(false);
        assert_eq!(over().await, None);
        drop(stream);
        let ended = Instant::now();
        assert_eq!((over().await, ended.elapsed()), (Some(Over::Idle), idle));
    }
}
