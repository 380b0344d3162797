//! Does what comes next for a job.

use super::plan::{self, Facts, Step};
use super::site::{Site, handle_of, id_of};
use super::trouble::AGAIN;
use super::{report, status};
use crate::kinds::{GpuJob, GpuJobStatus, Phase};
use async_trait::async_trait;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use minik8s_core::api::{ApiError, ApiResult};
use minik8s_core::client::{DeleteOptions, EventType, reference_of};
use minik8s_core::controllers::{Outcome, Reconciler};
use minik8s_core::job::{JobId, JobResult, SharedJobBackend};
use std::sync::Weak;
use std::time::Duration;

/// Works for one site; ends with it.
pub(super) struct Worker(pub(super) Weak<Site>);

#[async_trait]
impl Reconciler for Worker {
    type Key = String;

    async fn reconcile(&self, key: &String) -> ApiResult<Outcome> {
        let Some(site) = self.0.upgrade() else { return Ok(Outcome::Done) };
        let Some(job) = site.shared.jobs.get(key) else { return Ok(Outcome::Done) };
        site.advance(&job).await
    }
}

impl Site {
    async fn advance(&self, job: &GpuJob) -> ApiResult<Outcome> {
        let ctx = &self.shared.ctx;
        let attempt = job.status.as_ref().map_or(0, |status| status.attempt);
        let report = self.report(&id_of(job, attempt));
        let facts = Facts {
            job,
            report: report.as_ref(),
            now: ctx.clock.now(),
            room: self.has_room(),
            open: self.opened().is_some(),
            leaving: self.leaving(),
        };
        match plan::next(facts) {
            Step::Rest => {
                let Some((report, handle)) = report.zip(handle_of(job)) else { return Ok(Outcome::Done) };
                let Some(backend) = self.opened() else { return Ok(Outcome::Done) };
                let more = super::fetch::mirror(self, &backend, &handle, &report).await;
                Ok(if more { Outcome::After(Duration::ZERO) } else { Outcome::Done })
            }
            Step::Pause(seconds) => Ok(Outcome::After(Duration::from_secs(seconds.unsigned_abs()))),
            Step::Wait(reason, message) => {
                status::waiting(ctx, job, reason, &message).await?;
                Ok(if reason == "ClusterFull" { Outcome::After(AGAIN) } else { Outcome::Done })
            }
            Step::Refuse(reason, why) => self.refuse(job, reason, &why).await,
            Step::Hold => self.shared.finalizer(job, true).await.map(|()| Outcome::Done),
            Step::Closed => self.closed(job).await,
            Step::Relieve => self.relieve(job).await.map(|()| Outcome::Done),
            Step::Begin(attempt) => self.begin(job, attempt).await,
            Step::Record => self.record(job, report.as_ref()).await,
            Step::Retry(seconds) => self.retry(job, seconds).await,
            Step::Finish(well) => self.finish(job, well).await,
            Step::Delete => {
                let namespace = job.metadata.namespace.as_deref().unwrap_or_default();
                let name = job.metadata.name.as_deref().unwrap_or_default();
                ctx.client.api::<GpuJob>(namespace).delete(name, &DeleteOptions::default()).await?;
                Ok(Outcome::Done)
            }
            Step::Release { remote: false } => self.shared.release(job).await.map(|()| Outcome::Done),
            step => match self.opened() {
                Some(backend) => self.there(job, &backend, step).await,
                None => self.closed(job).await,
            },
        }
    }

    pub(super) fn opened(&self) -> Option<SharedJobBackend> {
        self.backend.lock().clone()
    }

    /// What has to be done there.
    async fn there(&self, job: &GpuJob, backend: &SharedJobBackend, step: Step) -> ApiResult<Outcome> {
        let attempt = job.status.as_ref().map_or(1, |status| status.attempt);
        let id = id_of(job, attempt);
        let done = match &step {
            Step::Submit => return self.submit(job, backend).await,
            Step::Withdraw => return self.withdraw(job, backend).await,
            Step::Fetch => return super::fetch::fetch(self, backend, job).await,
            Step::Cancel => self.cancel(job, backend, &id).await?,
            Step::Stop(stop) => {
                let stop = *stop;
                let Some(handle) = handle_of(job) else { return Ok(Outcome::Done) };
                self.hurry();
                match backend.suspend(&handle, stop).await {
                    Ok(()) => self.done(job, |status| status.stopped = stop).await?,
                    failed => failed,
                }
            }
            Step::Clean => match backend.remove(&id).await {
                Ok(()) => {
                    let now = self.shared.ctx.clock.now();
                    let clean = |status: &mut GpuJobStatus| report::cleaned(status, now);
                    self.done(job, clean).await?
                }
                failed => failed,
            },
            Step::Release { .. } => match backend.remove(&id).await {
                Ok(()) => return self.shared.release(job).await.map(|()| Outcome::Done),
                failed => failed,
            },
            _ => Ok(()),
        };
        match (done, step) {
            // It is asked again until a report says that it has ended.
            (Ok(()), Step::Cancel) => Ok(Outcome::After(AGAIN * 5)),
            (Ok(()), _) => Ok(Outcome::Done),
            (Err(error), _) => self.trouble(job, &error).await,
        }
    }

    async fn cancel(&self, job: &GpuJob, backend: &SharedJobBackend, id: &JobId) -> ApiResult<JobResult<()>> {
        self.hurry();
        match backend.cancel(id).await {
            Ok(()) => self.done(job, |_| {}).await,
            failed => Ok(failed),
        }
    }

    /// Writes down that something was done there, and that nothing is in its way any more.
    async fn done(&self, job: &GpuJob, change: impl FnOnce(&mut GpuJobStatus)) -> ApiResult<JobResult<()>> {
        let change = |status: &mut GpuJobStatus| {
            status::relieve(status);
            change(status);
        };
        status::write(&self.shared.ctx, job, change).await.map(Ok)
    }

    async fn record(&self, job: &GpuJob, told: Option<&minik8s_core::job::JobReport>) -> ApiResult<Outcome> {
        let Some(told) = told else { return Ok(Outcome::Done) };
        let mut after = job.status.clone().unwrap_or_default();
        let before = after.phase;
        report::apply(&mut after, told);
        let (phase, message) = (after.phase, after.message.clone());
        status::write(&self.shared.ctx, job, |status| *status = after).await?;
        if phase != before {
            let text = match phase {
                Phase::Running => format!("it runs on {}", told.nodes),
                _ => message,
            };
            let kind = if phase == Phase::Fetching && !is_good(told) { EventType::Warning } else { EventType::Normal };
            let reason = if phase == Phase::Fetching { job_end(told) } else { phase.as_str() };
            self.shared.ctx.events.event(&reference_of(job), kind, reason, text);
        }
        Ok(Outcome::Done)
    }

    async fn retry(&self, job: &GpuJob, seconds: i64) -> ApiResult<Outcome> {
        let now = self.shared.ctx.clock.now();
        let at = jiff::Timestamp::from_second(now.as_second().saturating_add(seconds)).unwrap_or(now);
        let end = job.status.as_ref().and_then(plan::ended);
        let change = |status: &mut GpuJobStatus| {
            let before = std::mem::take(status);
            let disrupted = end.is_some_and(minik8s_core::job::EndReason::is_disruption);
            let mut excluded = before.excluded_nodes;
            // The old processes may go on there.
            if end == Some(minik8s_core::job::EndReason::NodeFailure) && !before.nodes.is_empty() {
                excluded.push(before.nodes);
                excluded.dedup();
            }
            *status = GpuJobStatus {
                phase: Phase::Pending,
                attempt: before.attempt,
                reason: "Retrying".to_owned(),
                message: format!("attempt {} ended with {}", before.attempt, before.end.unwrap_or_default()),
                failures: before.failures + i32::from(!disrupted),
                disruptions: before.disruptions + i32::from(disrupted),
                excluded_nodes: excluded,
                submitted_at: before.submitted_at,
                retry_at: Some(Time(at)),
                ..GpuJobStatus::default()
            };
        };
        let note = format!("it is tried again in {seconds} seconds");
        self.shared.ctx.events.event(&reference_of(job), EventType::Normal, "Retrying", note);
        // Whoever follows this attempt is done with it.
        self.complete(job).await?;
        status::write(&self.shared.ctx, job, change).await.map(|()| Outcome::Done)
    }

    async fn finish(&self, job: &GpuJob, well: bool) -> ApiResult<Outcome> {
        self.discard(job).await?;
        let now = self.shared.ctx.clock.now();
        let change = |status: &mut GpuJobStatus| {
            status.phase = if well { Phase::Succeeded } else { Phase::Failed };
            let at = jiff::Timestamp::from_second(now.as_second()).unwrap_or(now);
            status.completion_time = Some(Time(at));
            let (reason, message) = (status.end.clone().unwrap_or_default(), status.message.clone());
            status::condition(
                &mut status.conditions,
                if well { "Complete" } else { "Failed" },
                true,
                &reason,
                &message,
                now,
            );
        };
        self.complete(job).await?;
        status::write(&self.shared.ctx, job, change).await.map(|()| Outcome::Done)
    }

    /// Says that nothing is added to an attempt's files any more.
    async fn complete(&self, job: &GpuJob) -> ApiResult<()> {
        let id = id_of(job, job.status.as_ref().map_or(1, |status| status.attempt));
        let failed = |error| ApiError::internal(format!("output cannot be marked as complete: {error}"));
        self.shared.outputs.complete(&id.uid, id.attempt).await.map_err(failed)
    }
}

fn is_good(report: &minik8s_core::job::JobReport) -> bool {
    job_end(report) == "Completed"
}

fn job_end(report: &minik8s_core::job::JobReport) -> &'static str {
    match &report.state {
        minik8s_core::job::JobState::Ended(end) => end.reason.as_str(),
        _ => "Ended",
    }
}
