//! What goes on in a client's HTTP/2 connection: whether anything is asked, and whether the client takes what it is given.
//! A window that a client never opens is no silence of the connection, and would keep an answer, and who gives it, for ever:
//! the one stream is reset, and its neighbours go on.

use super::body::Broke;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::rt::Executor;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The requests of one connection.
pub(super) struct Streams(Mutex<Running>);

struct Running {
    next: u64,
    open: usize,
    /// When the last request ended, or the connection began.
    idle_since: Instant,
    /// Parts of answers that wait to be taken.
    given: BTreeMap<u64, Given>,
}

struct Given {
    since: Instant,
    /// Ends the stream.
    cut: CancellationToken,
}

tokio::task_local! {
    /// What ends the task of a stream.
    static CUT: CancellationToken;
}

/// Runs every stream of a connection on a task that can be cut: what serves HTTP/2 offers no other hold on a stream. Where
/// its task is dropped, the stream is reset.
#[derive(Clone, Copy)]
pub(super) struct Tasks;

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, stream: F) {
        let cut = CancellationToken::new();
        let cuttable = cut.clone().run_until_cancelled_owned(stream);
        tokio::spawn(CUT.scope(cut, async move {
            let _ = cuttable.await;
        }));
    }
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
        Stream { streams: self.clone(), number: running.next, given: false, cut: CancellationToken::new() }
    }

    /// Waits until nothing was asked for `idle`. Streams on which something was not taken for `stuck` are ended meanwhile.
    pub(super) async fn idle(&self, idle: Duration, stuck: Duration) {
        loop {
            let now = Instant::now();
            let at = {
                let mut running = self.0.lock();
                let late = running.given.extract_if(.., |_, given| now >= given.since + stuck);
                late.for_each(|(_, given)| given.cut.cancel());
                match (running.open, running.given.values().map(|given| given.since).min()) {
                    (0, _) if now >= running.idle_since + idle => return,
                    (0, _) => running.idle_since + idle,
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
    cut: CancellationToken,
}

impl Stream {
    /// Its answer, as it is taken. Called on the stream's own task.
    pub(super) fn watch<B>(mut self, body: B) -> Watched<B> {
        if let Ok(cut) = CUT.try_with(Clone::clone) {
            self.cut = cut;
        }
        Watched { body, stream: self }
    }

    fn gives(&mut self, given: bool) {
        if std::mem::replace(&mut self.given, given) || given {
            let mut running = self.streams.0.lock();
            if given {
                running.given.insert(self.number, Given { since: Instant::now(), cut: self.cut.clone() });
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
    async fn only_connections_without_requests_are_idle_and_only_streams_that_are_not_read_are_cut() {
        let (idle, stuck) = (Duration::from_secs(30), Duration::from_secs(60));
        let streams = Streams::new();
        let began = Instant::now();
        let is_idle = async || tokio::time::timeout(Duration::from_secs(300), streams.idle(idle, stuck)).await.is_ok();
        assert_eq!((is_idle().await, began.elapsed()), (true, idle));
        let (mut taken, mut stream) = (streams.open(), streams.open());
        assert!(!is_idle().await, "an endpoint may be as slow as it likes");
        stream.gives(true);
        tokio::time::sleep(Duration::from_secs(50)).await;
        stream.gives(true);
        taken.gives(true);
        let waits = async {
            tokio::time::sleep(Duration::from_secs(59)).await;
            taken.gives(false);
            assert!(!stream.cut.is_cancelled(), "what was taken in between counts");
            stream.cut.cancelled().await;
        };
        let again = Instant::now();
        tokio::select! {
            () = waits => {}
            () = streams.idle(idle, stuck) => panic!("two requests are under way"),
        }
        assert_eq!((again.elapsed(), taken.cut.is_cancelled()), (stuck, false));
        drop((stream, taken));
        let ended = Instant::now();
        assert_eq!((is_idle().await, ended.elapsed()), (true, idle));
    }

    #[tokio::test]
    async fn a_stream_that_is_cut_is_dropped_where_it_stands() {
        let (tell, told) = tokio::sync::oneshot::channel();
        let (held, gone) = tokio::sync::oneshot::channel::<()>();
        Tasks.execute(async move {
            let _held = held;
            let stream = Streams::new().open().watch(());
            let _ = tell.send(stream.stream.cut.clone());
            std::future::pending::<()>().await;
        });
        told.await.unwrap().cancel();
        assert!(gone.await.is_err(), "the task's own were dropped");
    }
}
