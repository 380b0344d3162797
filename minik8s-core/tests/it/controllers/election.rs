//! Two candidates for the same work: never two at once, and never none for long.

use k8s_openapi::api::coordination::v1::Lease;
use minik8s_core::client::{Client, Election, ElectionConfig};
use minik8s_core::clock::SharedClock;
use minik8s_core::server::ApiServer;
use minik8s_core::store::MemoryStore;
use minik8s_core::testkit::clock::TokioClock;
use minik8s_core::testkit::faults::FaultyTransport;
use minik8s_core::testkit::wait::until;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

const BOUND: Duration = Duration::from_secs(300);

/// Who works, seen from outside of the election.
#[derive(Default)]
struct Work {
    running: AtomicUsize,
    begun: AtomicUsize,
    last: parking_lot::Mutex<String>,
}

/// Counts as running for as long as it exists, also when it is dropped where it stands.
struct Shift(Arc<Work>);

impl Shift {
    fn begin(work: &Arc<Work>, who: &str) -> Self {
        assert_eq!(work.running.fetch_add(1, Ordering::SeqCst), 0, "{who} began while {} worked", work.last.lock());
        work.begun.fetch_add(1, Ordering::SeqCst);
        *work.last.lock() = who.to_owned();
        Self(work.clone())
    }
}

impl Drop for Shift {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Candidate {
    transport: Arc<FaultyTransport>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    _guard: DropGuard,
}

struct World {
    server: Arc<ApiServer>,
    clock: SharedClock,
    work: Arc<Work>,
}

impl World {
    async fn new() -> Self {
        let clock: SharedClock = Arc::new(TokioClock::default());
        let server =
            ApiServer::builder(Arc::new(MemoryStore::new())).clock(clock.clone()).seed(7).start().await.unwrap();
        Self { server, clock, work: Arc::default() }
    }

    /// A candidate; where it is stubborn, its work does not end when it is told to.
    fn candidate(&self, name: &str, seed: Option<u64>, stubborn: bool) -> Candidate {
        let transport = FaultyTransport::new(self.server.clone(), seed.unwrap_or_default());
        if seed.is_none() {
            transport.heal();
        }
        let config = ElectionConfig::new("work", name);
        let election = Election::new(&Client::new(transport.clone()), self.clock.clone(), config);
        let (stop, work, name) = (CancellationToken::new(), self.work.clone(), name.to_owned());
        let running = stop.clone();
        let task = tokio::spawn(async move {
            let shift = |end: CancellationToken| {
                let (work, name) = (work.clone(), name.clone());
                async move {
                    let _shift = Shift::begin(&work, &name);
                    end.cancelled().await;
                    if stubborn {
                        std::future::pending::<()>().await;
                    }
                }
            };
            election.run(running, shift).await;
        });
        Candidate { transport, _guard: stop.clone().drop_guard(), stop, task }
    }

    async fn led_by(&self, name: &str) -> Duration {
        let start = Instant::now();
        until(&format!("{name} leads"), BOUND, async || {
            (self.work.running.load(Ordering::SeqCst) == 1 && *self.work.last.lock() == name).then_some(())
        })
        .await;
        start.elapsed()
    }

    async fn lease(&self) -> Lease {
        Client::new(self.server.clone()).api::<Lease>("kube-system").get("work").await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_clean_stop_hands_over_at_once() {
    let world = World::new().await;
    let first = world.candidate("a", None, false);
    world.led_by("a").await;
    let _second = world.candidate("b", None, false);
    sleep(Duration::from_secs(60)).await;
    assert_eq!((*world.work.last.lock()).as_str(), "a");
    let spec = world.lease().await.spec.unwrap();
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("a"), Some(0)));
    first.stop.cancel();
    first.task.await.unwrap();
    assert!(world.led_by("b").await < Duration::from_secs(1));
    let spec = world.lease().await.spec.unwrap();
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("b"), Some(1)));
    assert!(spec.renew_time.is_some() && spec.acquire_time.is_some() && spec.lease_duration_seconds == Some(6));
}

#[tokio::test(start_paused = true)]
async fn a_crash_is_made_up_for_within_ten_seconds() {
    let world = World::new().await;
    let first = world.candidate("a", None, false);
    world.led_by("a").await;
    let _second = world.candidate("b", None, false);
    sleep(Duration::from_millis(10_300)).await;
    first.task.abort();
    assert!(first.task.await.unwrap_err().is_cancelled());
    let pause = world.led_by("b").await;
    assert!(pause > Duration::from_secs(4) && pause < Duration::from_secs(10), "{pause:?}");
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_is_cut_off_ends_its_work_before_another_begins() {
    for stubborn in [false, true] {
        let world = World::new().await;
        let first = world.candidate("a", None, stubborn);
        world.led_by("a").await;
        let second = world.candidate("b", None, false);
        sleep(Duration::from_secs(3)).await;
        first.transport.sever(true);
        let ended =
            until("its work ends", BOUND, async || (world.work.running.load(Ordering::SeqCst) == 0).then(Instant::now))
                .await;
        let pause = world.led_by("b").await;
        assert!(ended.elapsed() > Duration::from_millis(500), "stubborn {stubborn}: no time between the two");
        assert!(pause < Duration::from_secs(10), "stubborn {stubborn}: {pause:?}");
        // Back again, it waits for its turn.
        first.transport.sever(false);
        sleep(Duration::from_secs(30)).await;
        assert_eq!((*world.work.last.lock()).as_str(), "b");
        second.stop.cancel();
        world.led_by("a").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_deleted_lease_makes_no_second_leader() {
    let world = World::new().await;
    let _first = world.candidate("a", None, false);
    let _second = world.candidate("b", None, false);
    for round in 1..5 {
        until("somebody leads", BOUND, async || (world.work.begun.load(Ordering::SeqCst) >= round).then_some(())).await;
        sleep(Duration::from_secs(5)).await;
        let leases = Client::new(world.server.clone()).api::<Lease>("kube-system");
        leases.delete("work", &Default::default()).await.unwrap();
        let next = until("somebody leads again", BOUND, async || {
            (world.work.begun.load(Ordering::SeqCst) > round).then_some(())
        });
        timeout(Duration::from_secs(10), next).await.expect("within ten seconds");
    }
}

#[tokio::test(start_paused = true)]
async fn two_never_lead_at_once_whatever_gets_lost() {
    for seed in 0..20 {
        let world = World::new().await;
        let candidates =
            ["a", "b", "c"].map(|name| world.candidate(name, Some(seed * 3 + u64::from(name.as_bytes()[0])), false));
        for cut in 0..12_usize {
            // Shift::begin fails where one begins while another works.
            sleep(Duration::from_millis(3_700)).await;
            candidates[cut % 3].transport.sever(true);
            sleep(Duration::from_millis(4_900)).await;
            candidates[cut % 3].transport.sever(false);
        }
        assert!(world.work.begun.load(Ordering::SeqCst) > 2, "seed {seed}: leadership never moved");
        candidates.iter().for_each(|c| c.transport.heal());
        until("one leads in the end", Duration::from_secs(30), async || {
            (world.work.running.load(Ordering::SeqCst) == 1).then_some(())
        })
        .await;
        let holder = world.lease().await.spec.unwrap().holder_identity;
        assert_eq!(holder.as_deref(), Some(&**world.work.last.lock()), "seed {seed}");
        for candidate in candidates {
            candidate.stop.cancel();
            candidate.task.await.expect("no candidate saw two at work");
        }
    }
}
