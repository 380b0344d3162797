//! One cluster: its backend, its jobs, and what it answered last.

use super::{Shared, status};
use crate::kinds::{ClusterLimits, GpuJob, JobCluster, Phase};
use k8s_openapi::api::core::v1::ObjectReference;
use minik8s_core::client::{EventType, WorkQueue, key_of, reference_of};
use minik8s_core::job::{EndReason, JobEnd, JobHandle, JobId, JobReport, JobState, SharedJobBackend};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

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
    pub(super) hurry: Notify,
    /// A job met something that concerns the whole cluster: look, even where no job is there.
    pub(super) doubt: AtomicBool,
    /// When it answered last.
    pub(super) looked: Mutex<Option<Instant>>,
    /// Why it does not answer.
    problem: Mutex<Option<(&'static str, String)>>,
    /// How often it could not be seen that nothing is left there, though no job of its is known any more.
    pub(super) partings: AtomicU32,
    pub(super) me: Weak<Site>,
    pub(super) stop: CancellationToken,
    _on_drop: DropGuard,
}

impl Site {
    /// Begins to look after a cluster's jobs, until the last clone of this is dropped.
    pub(super) fn start(shared: Arc<Shared>, key: &str, cluster: Arc<JobCluster>) -> Arc<Self> {
        let stop = shared.ctx.stop.child_token();
        let queue = WorkQueue::new();
        shared.jobs.list_by("cluster", key).iter().for_each(|job| queue.add(key_of(job.as_ref())));
        let site = Arc::new_cyclic(|me| Self {
            shared,
            cluster,
            queue,
            backend: Mutex::default(),
            reports: Mutex::default(),
            missing: Mutex::default(),
            hurry: Notify::new(),
            doubt: AtomicBool::new(false),
            looked: Mutex::default(),
            problem: Mutex::default(),
            partings: AtomicU32::new(0),
            me: me.clone(),
            stop: stop.clone(),
            _on_drop: stop.clone().drop_guard(),
        });
        tokio::spawn(super::turn::run(Arc::downgrade(&site), stop));
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

    /// Ask soon, even where no job is there: what a job met may concern all of them.
    pub(super) fn doubt(&self) {
        self.doubt.store(true, Ordering::Relaxed);
        self.hurry();
    }

    /// Look at everything anew.
    pub(super) fn wake(&self) {
        self.wake_jobs();
        self.doubt();
    }

    pub(super) fn wake_jobs(&self) {
        self.jobs().iter().for_each(|job| self.queue.add(key_of(job.as_ref())));
    }

    /// Why it does not answer, where that is so.
    pub(super) fn problem(&self) -> Option<(&'static str, String)> {
        self.problem.lock().clone()
    }

    pub(super) fn pause(&self) -> Duration {
        let spec = &self.cluster.spec;
        // Pods are looked at here, and that they change is heard.
        let usual = if spec.nodes.is_some() { 1.0 } else { 5.0 };
        Duration::from_secs_f64(spec.poll_seconds.unwrap_or(usual).clamp(0.05, 3600.0))
    }

    pub(super) fn jobs(&self) -> Vec<Arc<GpuJob>> {
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
    pub(super) fn live(&self) -> Vec<(String, JobHandle)> {
        let handle = |job: &Arc<GpuJob>| Some((key_of(job.as_ref()), handle_of(job)?));
        self.jobs().iter().filter_map(handle).collect()
    }

    /// Takes in what the cluster answered; true where anything has changed.
    pub(super) fn learn(&self, asked: &[(String, JobHandle)], answered: Vec<JobReport>) -> bool {
        let ids: HashSet<&JobId> = asked.iter().map(|(_, handle)| &handle.id).collect();
        let (mut reports, mut missing) = (self.reports.lock(), self.missing.lock());
        reports.retain(|id, _| ids.contains(id));
        missing.retain(|id, _| ids.contains(id));
        let mut any = false;
        for ((key, _), mut report) in asked.iter().zip(answered) {
            if report.state == JobState::Missing {
                let (times, since) = missing.entry(report.id.clone()).or_insert_with(|| (0, Instant::now()));
                *times += 1;
                let lost = self.cluster.spec.lost_after();
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

    /// Says on the cluster whether it answers; its jobs are looked at again where that has changed.
    pub(super) async fn answers(&self, outcome: Result<&str, (&'static str, &str)>) {
        let problem = outcome.err().map(|(reason, message)| (reason, message.to_owned()));
        let changed = std::mem::replace(&mut *self.problem.lock(), problem.clone()) != problem;
        if changed {
            self.wake_jobs();
        }
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

    pub(super) fn reference(&self) -> ObjectReference {
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
