//! Requests that wait for an endpoint of one backend, and what is told of them.

use super::cluster::Cluster;
use super::endpoint::Lease;
use minik8s_core::api::BackendDemand;
use minik8s_core::routing::Hold;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long a Service may be missing before who waits for it is told so: tables of routes and of Services arrive apart.
const MISSING: Duration = Duration::from_secs(3);
/// An endpoint that was left out may be tried again without anything having happened.
const LOOK: Duration = Duration::from_millis(100);

/// Averages over less than this would be chance.
const SHORTEST: Duration = Duration::from_millis(500);

/// Why a request got no endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gateway) enum Unserved {
    /// As many wait as may.
    Full(usize),
    /// It has waited for so long.
    Late(Duration),
    /// There is nothing to wait for.
    Gone,
}

/// The requests of one backend.
pub(in crate::gateway) struct Line {
    /// Wakes who waits: an endpoint may have room.
    room: Notify,
    count: Mutex<Count>,
    /// Wakes who tells the cluster: somebody waits and nobody is there.
    wanted: Arc<Notify>,
}

/// What is told, and what it is made of.
struct Count {
    waiting: usize,
    active: usize,
    /// Requests since the last report.
    came: u64,
    /// Sum over requests of their time since the last report, up to `at`.
    busy: Duration,
    at: Instant,
    reported: Instant,
    /// The last report was not empty.
    told: bool,
}

impl Count {
    fn now(&mut self) {
        let now = Instant::now();
        self.busy += (now - self.at) * u32::try_from(self.waiting + self.active).unwrap_or(u32::MAX);
        self.at = now;
    }
}

impl Line {
    pub(super) fn new(wanted: Arc<Notify>) -> Self {
        let at = Instant::now();
        let count = Count { waiting: 0, active: 0, came: 0, busy: Duration::ZERO, at, reported: at, told: false };
        Self { room: Notify::new(), count: Mutex::new(count), wanted }
    }

    fn change(&self, change: impl FnOnce(&mut Count)) {
        let mut count = self.count.lock();
        count.now();
        change(&mut count);
    }

    /// Endpoints have changed.
    pub(super) fn look(&self) {
        self.room.notify_waiters();
    }

    pub(super) fn ended(&self) {
        self.change(|count| count.active -= 1);
        self.room.notify_one();
    }

    /// What was asked since the last time; `None` where there is nothing to tell.
    pub(super) fn report(&self) -> Option<BackendDemand> {
        let mut count = self.count.lock();
        count.now();
        let since = (count.at - count.reported).max(SHORTEST).as_secs_f64();
        let some = count.waiting + count.active > 0 || count.came > 0;
        let report = BackendDemand {
            waiting: i64::try_from(count.waiting).unwrap_or(i64::MAX),
            active: i64::try_from(count.active).unwrap_or(i64::MAX),
            concurrency: count.busy.as_secs_f64() / since,
            rate: count.came as f64 / since,
            ..BackendDemand::default()
        };
        if count.at - count.reported >= SHORTEST {
            (count.came, count.busy, count.reported) = (0, Duration::ZERO, count.at);
        }
        let told = std::mem::replace(&mut count.told, some);
        (some || told).then_some(report)
    }
}

/// A request that waits: leaves the line however it ends.
struct Waiting<'a>(&'a Line);

impl<'a> Waiting<'a> {
    /// `None` where as many wait as may.
    fn join(line: &'a Line, queue: usize) -> Option<Self> {
        let mut count = line.count.lock();
        count.now();
        (count.waiting < queue).then(|| count.waiting += 1)?;
        Some(Self(line))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.change(|count| count.waiting -= 1);
    }
}

impl Cluster {
    /// An endpoint that has room, waited for in line. Counts as one more request where it is the `first` try.
    pub(in crate::gateway) async fn lease(&self, hold: &Hold, first: bool) -> Result<Lease, Unserved> {
        if first {
            self.line.change(|count| count.came += 1);
        }
        // Who comes now does not overtake those who wait.
        let mut may_look = self.line.count.lock().waiting == 0;
        if let Some(lease) = may_look.then(|| self.room(hold)).flatten() {
            return Ok(lease);
        }
        let _waiting = Waiting::join(&self.line, hold.queue).ok_or(Unserved::Full(hold.queue))?;
        if self.len() == 0 {
            self.line.wanted.notify_one();
        }
        let began = Instant::now();
        loop {
            let room = self.line.room.notified();
            tokio::pin!(room);
            // Before looking, so that nothing is missed between.
            room.as_mut().enable();
            if let Some(lease) = may_look.then(|| self.room(hold)).flatten() {
                return Ok(lease);
            }
            may_look = true;
            let waited = began.elapsed();
            if waited >= hold.patience {
                return Err(Unserved::Late(hold.patience));
            }
            if waited >= MISSING && !self.is_there() {
                return Err(Unserved::Gone);
            }
            let pause = if self.len() > 0 { LOOK } else { MISSING };
            let _ = tokio::time::timeout(pause.min(hold.patience - waited), room).await;
        }
    }

    fn room(&self, hold: &Hold) -> Option<Lease> {
        let lease = self.pick_within(hold.concurrency.unwrap_or(usize::MAX))?;
        self.line.change(|count| count.active += 1);
        Some(lease.in_line(self.line.clone()))
    }
}
