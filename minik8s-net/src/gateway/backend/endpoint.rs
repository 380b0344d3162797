//! One address that answers: how busy it is, whether it fails, and the connections that wait for the next request.

use super::connection::Http2;
use super::line::Line;
use crate::gateway::http1::Http1;
use crate::gateway::{lanes, silence};
use parking_lot::Mutex;
use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Connections that are kept for later in one place.
const IDLE: usize = 512;
/// Places for connections that wait: lanes rarely share one.
const PLACES: usize = 8;
/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(2);
/// How long an endpoint is left out after its first failure in a row, and at most.
const FIRST: u64 = 250;
const LONGEST: u64 = 30_000;

/// Connections, and since when they wait.
type Idle = Vec<(Box<Http1>, Instant)>;

pub(in crate::gateway) struct Endpoint {
    address: SocketAddr,
    /// Requests at this moment.
    active: AtomicUsize,
    failures: AtomicU32,
    /// Until when it is left out, in milliseconds since `born`.
    out_until: AtomicU64,
    born: Instant,
    idle: [Mutex<Idle>; PLACES],
    http2: Mutex<Option<Http2>>,
}

impl Endpoint {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            active: AtomicUsize::new(0),
            failures: AtomicU32::new(0),
            out_until: AtomicU64::new(0),
            born: Instant::now(),
            idle: Default::default(),
            http2: Mutex::default(),
        }
    }

    pub(in crate::gateway) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(in crate::gateway) fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    fn age(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Left out for now.
    pub(super) fn is_ejected(&self) -> bool {
        let until = self.out_until.load(Ordering::Relaxed);
        until != 0 && until > self.age()
    }

    /// It could not be reached: left out for a while, longer each time. True where it was not left out before.
    pub(in crate::gateway) fn failed(&self) -> bool {
        let before = self.is_ejected();
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).min(16);
        let pause = (FIRST << failures).min(LONGEST);
        self.out_until.store(self.age() + pause, Ordering::Relaxed);
        self.idle.iter().for_each(|place| place.lock().clear());
        !before
    }

    /// It answered.
    pub(in crate::gateway) fn worked(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.out_until.store(0, Ordering::Relaxed);
        }
    }

    /// A connection that waits, one of the caller's own lane before all others. Of these the one used last: it is the
    /// least likely to have been closed by the other side.
    pub(in crate::gateway) fn waiting(&self) -> Option<Box<Http1>> {
        let own = lanes::current();
        (own..own + PLACES).find_map(|lane| {
            let place = &self.idle[lane % PLACES];
            std::iter::from_fn(|| Some(place.lock().pop()?.0)).find(|connection| connection.is_quiet())
        })
    }

    /// A new connection.
    pub(in crate::gateway) async fn connect(&self) -> io::Result<TcpStream> {
        let connecting = tokio::time::timeout(CONNECT, TcpStream::connect(self.address));
        let stream = connecting.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        silence::prepare(&stream);
        Ok(stream)
    }

    /// The HTTP/2 connection that all requests share, made where there is none that lives.
    pub(in crate::gateway) async fn shared(&self) -> io::Result<Http2> {
        let known = self.http2.lock().clone().filter(|known| !known.is_closed());
        if let Some(known) = known {
            return Ok(known);
        }
        let made = Http2::open(self.connect().await?).await?;
        *self.http2.lock() = Some(made.clone());
        Ok(made)
    }

    pub(in crate::gateway) fn keep(&self, connection: Box<Http1>) {
        let mut idle = self.idle[connection.lane() % PLACES].lock();
        if idle.len() < IDLE {
            idle.push((connection, Instant::now()));
        }
    }

    /// Closes connections that have waited for so long.
    pub(super) fn sweep(&self, longest: Duration) {
        for place in &self.idle {
            let mut idle = place.lock();
            // The oldest stand first.
            let count = idle.partition_point(|(_, since)| since.elapsed() > longest);
            let old: Vec<_> = idle.drain(..count).collect();
            drop(idle);
            drop(old);
        }
    }
}

/// One request's hold on an endpoint, which counts as busy for as long.
pub(in crate::gateway) struct Lease {
    endpoint: Arc<Endpoint>,
    /// Whom it concerns that there is room again.
    line: Option<Arc<Line>>,
    /// How long the request has waited, where there was no endpoint at all when it came.
    woke: Option<Duration>,
}

impl Lease {
    pub(super) fn new(endpoint: Arc<Endpoint>) -> Self {
        endpoint.active.fetch_add(1, Ordering::Relaxed);
        Self { endpoint, line: None, woke: None }
    }

    /// Where the endpoint has fewer requests than this.
    pub(super) fn within(endpoint: &Arc<Endpoint>, limit: usize) -> Option<Self> {
        let more = |active: usize| (active < limit).then_some(active + 1);
        endpoint.active.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self { endpoint: endpoint.clone(), line: None, woke: None })
    }

    /// Tells the line when it ends.
    pub(super) fn in_line(self, line: Arc<Line>) -> Self {
        let mut lease = self;
        lease.line = Some(line);
        lease
    }

    /// Notes that the request has waited for so long where there was no endpoint.
    pub(super) fn having_woken(mut self, waited: Option<Duration>) -> Self {
        self.woke = waited;
        self
    }

    /// How long the request has waited, where there was no endpoint when it came.
    pub(in crate::gateway) fn woke(&self) -> Option<Duration> {
        self.woke
    }
}

impl Deref for Lease {
    type Target = Endpoint;

    fn deref(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.endpoint.active.fetch_sub(1, Ordering::Relaxed);
        if let Some(line) = &self.line {
            line.ended();
        }
    }
}
