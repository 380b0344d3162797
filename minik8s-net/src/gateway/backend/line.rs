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
    /// Wakes who tells the cluster: requests come where the cluster believes that there are none, or wait for nobody.
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
    /// The last report was not empty, or the next one has been asked for.
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
    pub(super) fn look(&self, any: bool) {
        self.room.notify_waiters();
        // They joined when there was somebody to wait for.
        self.tell(!any && self.count.lock().waiting > 0);
    }

    /// One more request. True for the first one after a while, which is told of at once, also where an endpoint takes it:
    /// that one may just have been put to sleep, and only the cluster wakes it.
    fn came(&self) -> bool {
        let mut news = false;
        self.change(|count| {
            count.came += 1;
            news = !std::mem::replace(&mut count.told, true);
        });
        news
    }

    /// Tells of what is asked now: who is to be told of must be counted already.
    fn tell(&self, news: bool) {
        if news {
            self.wanted.notify_one();
        }
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
    /// An endpoint that has room, waited for in line, for a request that came at `came`: all tries together have the time
    /// that it has. Counts as one more request where it is the `first` try.
    pub(in crate::gateway) async fn lease(&self, hold: &Hold, came: Instant, first: bool) -> Result<Lease, Unserved> {
        if !first && came.elapsed() >= hold.patience {
            return Err(Unserved::Late(hold.patience));
        }
        let news = first && self.line.came();
        // Who comes now does not overtake those who wait.
        let mut may_look = self.line.count.lock().waiting == 0;
        if let Some(lease) = may_look.then(|| self.room(hold)).flatten() {
            self.line.tell(news);
            return Ok(lease);
        }
        let _waiting = Waiting::join(&self.line, hold.queue).ok_or(Unserved::Full(hold.queue))?;
        let wakes = self.len() == 0;
        self.line.tell(news || wakes);
        let began = Instant::now();
        loop {
            let room = self.line.room.notified();
            tokio::pin!(room);
            // Before looking, so that nothing is missed between.
            room.as_mut().enable();
            let waited = began.elapsed();
            if let Some(lease) = may_look.then(|| self.room(hold)).flatten() {
                return Ok(lease.having_woken(wakes.then_some(waited)));
            }
            may_look = true;
            let left = hold.patience.saturating_sub(came.elapsed());
            if left.is_zero() {
                return Err(Unserved::Late(hold.patience));
            }
            if waited >= MISSING && !self.is_there() {
                return Err(Unserved::Gone);
            }
            let pause = if self.len() > 0 { LOOK } else { MISSING };
            let _ = tokio::time::timeout(pause.min(left), room).await;
        }
    }

    fn room(&self, hold: &Hold) -> Option<Lease> {
        let lease = self.pick_within(hold.concurrency.unwrap_or(usize::MAX))?;
        self.line.change(|count| count.active += 1);
        Some(lease.in_line(self.line.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::cluster::Clusters;
    use super::*;
    use futures::FutureExt;
    use minik8s_core::network::{Endpoint, ServiceEntry, ServicePortEntry, ServiceTable};
    use std::net::Ipv4Addr;

    const HOLD: Hold = Hold { queue: 10, patience: Duration::from_secs(60), concurrency: Some(1) };

    fn table(endpoints: usize) -> Arc<ServiceTable> {
        let endpoints = vec![Endpoint::new(Ipv4Addr::new(10, 0, 0, 1), 80); endpoints];
        let ports = vec![ServicePortEntry { port: 80, endpoints, ..ServicePortEntry::default() }];
        let entry = ServiceEntry { ports, ..ServiceEntry::default() };
        Arc::new(ServiceTable { services: [(("d".into(), "f".into()), Arc::new(entry))].into() })
    }

    /// Whether who tells the cluster has been woken since the last time.
    fn woken(clusters: &Clusters) -> bool {
        clusters.wanted().notified().now_or_never().is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_after_a_while_is_told_of_at_once_although_an_endpoint_takes_it() {
        let mut clusters = Clusters::default();
        clusters.follow(table(1));
        let cluster = clusters.get("d", "f", 80);
        assert!(!woken(&clusters), "nobody has asked yet");
        for round in 0..3 {
            let first = cluster.lease(&HOLD, Instant::now(), true).await.unwrap();
            assert!(woken(&clusters), "round {round}: an endpoint that sleeps would have it until the next turn");
            let active: Vec<_> = clusters.demand().unwrap().iter().map(|told| told.active).collect();
            assert_eq!(active, [1], "round {round}");
            drop(first);
            drop(cluster.lease(&HOLD, Instant::now(), true).await.unwrap());
            assert!(!woken(&clusters), "round {round}: under load it is told in turns");
            // As turns go: what was asked, then that nothing is.
            for left in [1, 0] {
                tokio::time::advance(Duration::from_secs(1)).await;
                assert_eq!(clusters.demand().map(|told| told.len()), Some(left), "round {round}");
            }
            assert_eq!(clusters.demand(), None, "round {round}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_told_of_when_the_last_endpoint_goes() {
        let mut clusters = Clusters::default();
        clusters.follow(table(1));
        let cluster = clusters.get("d", "f", 80);
        let _first = cluster.lease(&HOLD, Instant::now(), true).await.unwrap();
        let mut second = Box::pin(cluster.lease(&HOLD, Instant::now(), true));
        assert!(second.as_mut().now_or_never().is_none() && woken(&clusters));
        clusters.demand();
        clusters.follow(table(1));
        assert!(!woken(&clusters), "there is somebody to wait for");
        clusters.follow(table(0));
        assert!(woken(&clusters), "nobody is left, and one waits");
    }

    #[tokio::test(start_paused = true)]
    async fn only_who_came_where_nobody_was_is_said_to_have_woken_somebody() {
        let mut clusters = Clusters::default();
        clusters.follow(table(0));
        let cluster = clusters.get("d", "f", 80);
        let mut waits = Box::pin(cluster.lease(&HOLD, Instant::now(), true));
        assert!(waits.as_mut().now_or_never().is_none());
        tokio::time::advance(Duration::from_millis(70)).await;
        clusters.follow(table(1));
        let first = waits.await.unwrap();
        assert_eq!(first.woke(), Some(Duration::from_millis(70)));
        let mut behind = Box::pin(cluster.lease(&HOLD, Instant::now(), true));
        assert!(behind.as_mut().now_or_never().is_none());
        drop(first);
        assert_eq!(behind.await.unwrap().woke(), None);
    }
}
