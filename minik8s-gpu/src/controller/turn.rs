//! The loop of a cluster: it connects, and asks again and again what has become of all jobs at once.

use super::site::Site;
use crate::backends::Problem;
use minik8s_core::controllers::{ControllerContext, run_workers};
use minik8s_core::job::{JobError, JobHandle, JobId, JobResult, Outage, SharedJobBackend};
use minik8s_core::random;
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Workers of a cluster.
const WORKERS: usize = 4;
/// A query that takes longer is given up.
const ANSWER: Duration = Duration::from_secs(60);
/// Pauses after failures.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// After a refused key: whoever tries too often is locked out by many sites.
pub(super) const DENIED_PAUSE: Duration = Duration::from_secs(30);
/// A quiet cluster is asked so much less often than a busy one, at most.
const CALM: u32 = 4;
/// Where no job is, the cluster is still looked at, so that what it says of itself is true. Longer than an unused
/// connection lives: each look makes a new one, and shows that our key is still taken.
const IDLE: Duration = Duration::from_secs(150);

/// Opens the backend, runs the workers, and asks again and again. Holds the site only while it works.
pub(super) async fn run(site: Weak<Site>, stop: CancellationToken) {
    let Some(own) = site.upgrade() else { return };
    let queue = own.queue.clone();
    let ctx = ControllerContext { stop: stop.clone(), ..own.shared.ctx.clone() };
    drop(own);
    let workers = run_workers(&ctx, &queue, WORKERS, std::sync::Arc::new(super::act::Worker(site.clone())));
    tokio::join!(workers, follow(site, stop));
}

async fn follow(site: Weak<Site>, stop: CancellationToken) {
    let (mut failures, mut pause) = (0_u32, Duration::ZERO);
    loop {
        {
            let Some(own) = site.upgrade() else { return };
            let hurried = own.hurry.notified();
            let least = own.pause().min(pause);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                () = async { tokio::time::sleep(least).await; hurried.await }, if failures == 0 => {}
            }
        }
        let Some(own) = site.upgrade() else { return };
        pause = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            pause = own.turn(pause, &mut failures) => pause,
        };
        pause = pause.mul_f64(0.9 + 0.2 * random::fraction());
    }
}

pub(super) async fn in_time<T>(asking: impl Future<Output = JobResult<T>>) -> JobResult<T> {
    let why = format!("no answer within {} seconds", ANSWER.as_secs());
    let late = |_| JobError::Away { what: Outage::Lost, why };
    tokio::time::timeout(ANSWER, asking).await.map_err(late).and_then(|told| told)
}

impl Site {
    /// One look at the cluster; answers after how long to look again.
    async fn turn(&self, before: Duration, failures: &mut u32) -> Duration {
        let open = self.opened();
        let parting = match self.leaving() {
            true => self.leave(open.as_ref()).await,
            false => Duration::ZERO,
        };
        let pause = match open {
            Some(backend) => self.look(&backend, before, failures).await,
            None => self.open(failures).await,
        };
        pause.max(parting)
    }

    /// Asks about all jobs.
    async fn look(&self, backend: &SharedJobBackend, before: Duration, failures: &mut u32) -> Duration {
        let live = self.live();
        let doubted = self.doubt.swap(false, Ordering::Relaxed);
        if live.is_empty() {
            let fresh = self.looked.lock().is_some_and(|at| at.elapsed() < IDLE);
            let wanted = doubted || *failures > 0 || !fresh;
            return if wanted { self.glance(backend, failures).await } else { self.pause() };
        }
        let handles: Vec<JobHandle> = live.iter().map(|(_, handle)| handle.clone()).collect();
        match in_time(backend.poll(&handles)).await {
            Ok(reports) => {
                self.answered(backend, failures).await;
                let changed = self.learn(&live, reports);
                if changed { self.pause() } else { before.mul_f64(1.5).clamp(self.pause(), self.pause() * CALM) }
            }
            Err(error) => self.failed(&error, failures).await,
        }
    }

    /// A look at a cluster without jobs.
    async fn glance(&self, backend: &SharedJobBackend, failures: &mut u32) -> Duration {
        match in_time(backend.kept()).await {
            Ok(kept) => {
                self.answered(backend, failures).await;
                self.sweep_beside(backend, kept);
                self.pause()
            }
            Err(error) => self.failed(&error, failures).await,
        }
    }

    async fn answered(&self, backend: &SharedJobBackend, failures: &mut u32) {
        *self.looked.lock() = Some(Instant::now());
        if std::mem::take(failures) > 0 || self.problem().is_some() {
            self.answers(Ok(&backend.capabilities().version)).await;
            // What could not be done meanwhile can be now.
            self.wake_jobs();
        }
    }

    async fn open(&self, failures: &mut u32) -> Duration {
        let backend = match self.shared.backends.open(&self.cluster, &self.shared.ctx.client).await {
            Ok(backend) => backend,
            Err(Problem { reason, message }) => {
                *failures = failures.saturating_add(1);
                self.answers(Err((reason, &message))).await;
                return after(*failures);
            }
        };
        match in_time(backend.kept()).await {
            Ok(kept) => {
                *failures = 0;
                *self.looked.lock() = Some(Instant::now());
                *self.backend.lock() = Some(backend.clone());
                self.answers(Ok(&backend.capabilities().version)).await;
                self.wake_jobs();
                self.sweep_beside(&backend, kept);
                Duration::ZERO
            }
            Err(error) => self.failed(&error, failures).await,
        }
    }

    /// Removes what belongs to nobody while the cluster is used already: that may take long, or never work.
    fn sweep_beside(&self, backend: &SharedJobBackend, kept: Vec<JobId>) {
        let (site, backend, stop) = (self.me.clone(), backend.clone(), self.stop.clone());
        if kept.is_empty() || self.leaving() {
            return;
        }
        tokio::spawn(async move {
            let Some(site) = site.upgrade() else { return };
            tokio::select! {
                () = stop.cancelled() => {}
                () = site.sweep(&backend, kept) => {}
            }
        });
    }

    /// The next connection is made with the keys of then. Where the cluster goes, they may have gone before it, and what is
    /// known of them is all there is.
    async fn read_keys_anew(&self) {
        if !self.leaving() {
            *self.backend.lock() = None;
        } else if let Ok(fresh) = self.shared.backends.open(&self.cluster, &self.shared.ctx.client).await {
            *self.backend.lock() = Some(fresh);
        }
    }

    /// Says that something failed, and answers after how long to try again.
    async fn failed(&self, error: &JobError, failures: &mut u32) -> Duration {
        *failures = failures.saturating_add(1);
        self.answers(Err((error.reason(), &error.to_string()))).await;
        if let JobError::Denied { .. } = error {
            self.read_keys_anew().await;
            return DENIED_PAUSE;
        }
        after(*failures)
    }
}

/// After so many failures.
pub(super) fn after(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(6)).min(LONGEST_PAUSE)
}
