//! One cluster: its backend, the loop that asks what has become of its jobs, and what it answered last.

use super::{Shared, status};
use crate::backends::Problem;
use crate::kinds::{ClusterLimits, GpuJob, JobCluster, Phase};
use k8s_openapi::api::core::v1::ObjectReference;
use minik8s_core::client::{EventType, WorkQueue, key_of, reference_of};
use minik8s_core::controllers::run_workers;
use minik8s_core::job::{EndReason, JobEnd, JobError, JobHandle, JobId, JobReport, JobState, SharedJobBackend};
use minik8s_core::random;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Workers of a cluster.
const WORKERS: usize = 4;
/// A query that takes longer is given up.
const ANSWER: Duration = Duration::from_secs(60);
/// Pauses after failures.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// After a refused key: whoever tries too often is locked out by many sites.
const DENIED_PAUSE: Duration = Duration::from_secs(30);
/// A quiet cluster is asked so much less often than a busy one, at most.
const CALM: u32 = 4;
/// A job must be unknown to so many queries in a row before it is given up.
const MISSED: u32 = 3;

/// One cluster.
pub(super) struct Site {
    pub(super) shared: Arc<Shared>,
    pub(super) cluster: Arc<JobCluster>,
    pub(super) queue: WorkQueue<String>,
    pub(super) backend: Mutex<Option<SharedJobBackend>>,
    reports: Mutex<HashMap<JobId, JobReport>>,
    missing: Mutex<HashMap<JobId, (u32, Instant)>>,
    /// Something was handed over, or somebody follows: ask soon.
    hurry: Notify,
    stop: CancellationToken,
    _on_drop: DropGuard,
}

impl Site {
    /// Begins to look after a cluster's jobs, until the last clone of this is dropped.
    pub(super) fn start(shared: Arc<Shared>, key: &str, cluster: Arc<JobCluster>) -> Arc<Self> {
        let stop = shared.ctx.stop.child_token();
        let queue = WorkQueue::new();
        shared.jobs.list_by("cluster", key).iter().for_each(|job| queue.add(key_of(job.as_ref())));
        let site = Arc::new(Self {
            shared,
            cluster,
            queue,
            backend: Mutex::default(),
            reports: Mutex::default(),
            missing: Mutex::default(),
            hurry: Notify::new(),
            stop: stop.clone(),
            _on_drop: stop.clone().drop_guard(),
        });
        tokio::spawn(run(Arc::downgrade(&site), stop));
        site
    }

    /// Ends what it does at once.
    pub(super) fn end(&self) {
        self.stop.cancel();
    }

    /// True where the site is that of exactly this cluster.
    pub(super) fn is_of(&self, cluster: &JobCluster) -> bool {
        self.cluster.metadata.uid == cluster.metadata.uid && self.cluster.spec == cluster.spec
    }

    pub(super) fn limits(&self) -> ClusterLimits {
        self.cluster.spec.limits.clone().unwrap_or_default()
    }

    pub(super) fn report(&self, id: &JobId) -> Option<JobReport> {
        self.reports.lock().get(id).cloned()
    }

    /// Ask soon.
    pub(super) fn hurry(&self) {
        self.hurry.notify_one();
    }

    fn pause(&self) -> Duration {
        Duration::from_secs_f64(self.cluster.spec.poll_seconds.unwrap_or(5.0).clamp(0.05, 3600.0))
    }

    fn jobs(&self) -> Vec<Arc<GpuJob>> {
        self.shared.jobs.list_by("cluster", &key_of(self.cluster.as_ref()))
    }

    /// True where another job may be handed over.
    pub(super) fn has_room(&self) -> bool {
        let Some(most) = self.limits().jobs else { return true };
        let there = |job: &&Arc<GpuJob>| {
            let phase = job.status.as_ref().map(|status| status.phase).unwrap_or_default();
            phase.is_live() || phase == Phase::Submitting
        };
        self.jobs().iter().filter(there).count() < usize::try_from(most).unwrap_or(0)
    }

    /// Those whose state may change there.
    fn live(&self) -> Vec<(String, JobHandle)> {
        let handle = |job: &Arc<GpuJob>| Some((key_of(job.as_ref()), handle_of(job)?));
        self.jobs().iter().filter_map(handle).collect()
    }

    /// Takes in what the cluster answered; true where anything has changed.
    fn learn(&self, asked: &[(String, JobHandle)], answered: Vec<JobReport>) -> bool {
        let ids: HashSet<&JobId> = asked.iter().map(|(_, handle)| &handle.id).collect();
        let (mut reports, mut missing) = (self.reports.lock(), self.missing.lock());
        reports.retain(|id, _| ids.contains(id));
        missing.retain(|id, _| ids.contains(id));
        let mut any = false;
        for ((key, _), mut report) in asked.iter().zip(answered) {
            if report.state == JobState::Missing {
                let (times, since) = missing.entry(report.id.clone()).or_insert_with(|| (0, Instant::now()));
                *times += 1;
                let lost = Duration::from_secs(self.cluster.spec.lost_after_seconds.unwrap_or(90).unsigned_abs());
                if *times < MISSED || since.elapsed() < lost {
                    continue;
                }
                report.state = JobState::Ended(JobEnd::new(EndReason::Lost, None));
            } else {
                missing.remove(&report.id);
            }
            let id = report.id.clone();
            if reports.get(&id) != Some(&report) {
                any = true;
                reports.insert(id, report);
                self.queue.add(key.clone());
            }
        }
        any
    }

    /// Says on the cluster whether it answers; on its jobs too where that has changed.
    async fn answers(&self, outcome: Result<&str, (&str, &str)>) {
        let shared = &self.shared;
        let Some(now) = shared.clusters.get(&key_of(self.cluster.as_ref())) else { return };
        let (holds, reason, message) = match outcome {
            Ok(_) => (true, "Answers", "its batch system answers"),
            Err((reason, message)) => (false, reason, message),
        };
        let mut fresh = now.as_ref().clone();
        let mut told = fresh.status.take().unwrap_or_default();
        let before = told.clone();
        if let Ok(version) = outcome {
            told.version = version.to_owned();
        }
        status::condition(&mut told.conditions, "Ready", holds, reason, message, shared.ctx.clock.now());
        if told == before {
            return;
        }
        fresh.status = Some(told);
        let api = shared.ctx.client.api::<JobCluster>(fresh.metadata.namespace.as_deref().unwrap_or_default());
        match api.update_status(&fresh).await {
            Ok(_) => {
                let kind = if holds { EventType::Normal } else { EventType::Warning };
                shared.ctx.events.event(&self.reference(), kind, reason, message);
            }
            Err(error) => tracing::debug!(%error, "the state of a job cluster cannot be written"),
        }
    }

    fn reference(&self) -> ObjectReference {
        reference_of(self.cluster.as_ref())
    }
}

/// The handle of a job that is with the batch system.
pub(super) fn handle_of(job: &GpuJob) -> Option<JobHandle> {
    let status = job.status.as_ref().filter(|status| status.phase.is_live())?;
    Some(JobHandle::new(&id_of(job, status.attempt), status.job_id.clone()?))
}

/// The identity of an attempt at a job.
pub(super) fn id_of(job: &GpuJob, attempt: i32) -> JobId {
    JobId::new(job.metadata.uid.clone().unwrap_or_default(), attempt.max(1).unsigned_abs())
}

/// Opens the backend, runs the workers, and asks again and again. Holds the site only while it works.
async fn run(site: std::sync::Weak<Site>, stop: CancellationToken) {
    let Some(own) = site.upgrade() else { return };
    let queue = own.queue.clone();
    let ctx = minik8s_core::controllers::ControllerContext { stop: stop.clone(), ..own.shared.ctx.clone() };
    drop(own);
    let workers = run_workers(&ctx, &queue, WORKERS, Arc::new(super::act::Worker(site.clone())));
    tokio::join!(workers, follow(site, stop));
}

async fn follow(site: std::sync::Weak<Site>, stop: CancellationToken) {
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

impl Site {
    /// One look at the cluster; answers after how long to look again.
    async fn turn(&self, before: Duration, failures: &mut u32) -> Duration {
        let open = self.backend.lock().clone();
        let Some(backend) = open else { return self.open(failures).await };
        let live = self.live();
        if live.is_empty() && *failures == 0 {
            return self.pause();
        }
        let handles: Vec<JobHandle> = live.iter().map(|(_, handle)| handle.clone()).collect();
        let late = |_| JobError::Away {
            what: minik8s_core::job::Outage::Lost,
            why: format!("no answer within {} seconds", ANSWER.as_secs()),
        };
        let answered = tokio::time::timeout(ANSWER, backend.poll(&handles)).await.map_err(late).and_then(|told| told);
        match answered {
            Ok(reports) => {
                if std::mem::take(failures) > 0 {
                    self.answers(Ok(&backend.capabilities().version)).await;
                    // What could not be done meanwhile can be now.
                    live.iter().for_each(|(key, _)| self.queue.add(key.clone()));
                }
                let changed = self.learn(&live, reports);
                if changed { self.pause() } else { before.mul_f64(1.5).clamp(self.pause(), self.pause() * CALM) }
            }
            Err(error) => self.failed(&error, failures).await,
        }
    }

    async fn open(&self, failures: &mut u32) -> Duration {
        match self.shared.backends.open(&self.cluster, &self.shared.ctx.client).await {
            Ok(backend) => match self.greet(&backend).await {
                Ok(()) => {
                    *failures = 0;
                    self.answers(Ok(&backend.capabilities().version)).await;
                    *self.backend.lock() = Some(backend);
                    self.jobs().iter().for_each(|job| self.queue.add(key_of(job.as_ref())));
                    Duration::ZERO
                }
                Err(error) => self.failed(&error, failures).await,
            },
            Err(Problem { reason, message }) => {
                *failures = failures.saturating_add(1);
                self.answers(Err((reason, &message))).await;
                after(*failures)
            }
        }
    }

    /// Sees that the cluster answers, and removes there what belongs to no object any more.
    async fn greet(&self, backend: &SharedJobBackend) -> Result<(), JobError> {
        let kept = backend.kept().await?;
        let known: HashSet<String> =
            self.shared.jobs.list().iter().filter_map(|job| job.metadata.uid.clone()).collect();
        for id in kept.iter().filter(|id| !known.contains(&id.uid)) {
            tracing::info!(%id, "removing a job that has no object any more");
            backend.remove(id).await?;
        }
        Ok(())
    }

    /// Says that something failed, and answers after how long to try again.
    async fn failed(&self, error: &JobError, failures: &mut u32) -> Duration {
        *failures = failures.saturating_add(1);
        self.answers(Err((error.reason(), &error.to_string()))).await;
        if let JobError::Denied { .. } = error {
            // The next one reads the keys anew.
            *self.backend.lock() = None;
            return DENIED_PAUSE;
        }
        after(*failures)
    }
}

fn after(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(6)).min(LONGEST_PAUSE)
}
