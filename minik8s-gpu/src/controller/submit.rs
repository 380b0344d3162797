//! Handing a job over: what is written down before, the asking, and what is refused or taken back.

use super::site::{Site, id_of};
use super::trouble::AGAIN;
use super::{report, request, status};
use crate::kinds::{GpuJob, GpuJobStatus, Phase};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use minik8s_core::api::ApiResult;
use minik8s_core::client::{EventType, reference_of};
use minik8s_core::controllers::Outcome;
use minik8s_core::job::{JobError, JobHandle, SharedJobBackend};
use request::Readiness;
use std::time::Duration;

impl Site {
    /// Writes down that an attempt begins; nothing was asked for before.
    pub(super) async fn begin(&self, job: &GpuJob, attempt: i32) -> ApiResult<Outcome> {
        match request::ready(self, job) {
            Readiness::Ready(_) => {}
            Readiness::Waits(why) => {
                status::waiting(&self.shared.ctx, job, "Dependency", &why).await?;
                return Ok(Outcome::After(AGAIN));
            }
            Readiness::Never(why) => return self.refuse(job, "DependencyFailed", &why).await,
        }
        self.hold().await?;
        let change = |status: &mut GpuJobStatus| {
            let before = std::mem::take(status);
            *status = GpuJobStatus {
                phase: Phase::Submitting,
                attempt,
                failures: before.failures,
                disruptions: before.disruptions,
                excluded_nodes: before.excluded_nodes,
                submitted_at: before.submitted_at,
                ..GpuJobStatus::default()
            };
        };
        status::write(&self.shared.ctx, job, change).await.map(|()| Outcome::Done)
    }

    /// Hands a job over. What is known here may be old: whether it still is to be handed over is asked first.
    pub(super) async fn submit(&self, known: &GpuJob, backend: &SharedJobBackend) -> ApiResult<Outcome> {
        let ctx = &self.shared.ctx;
        let namespace = known.metadata.namespace.as_deref().unwrap_or_default();
        let api = ctx.client.api::<GpuJob>(namespace);
        let job = api.get(known.metadata.name.as_deref().unwrap_or_default()).await?;
        if !self.is_to_be_submitted(&job, known) {
            return Ok(Outcome::After(Duration::from_millis(50)));
        }
        let after = match request::ready(self, &job) {
            Readiness::Ready(after) => after,
            other => return self.hindered(&job, backend, other).await,
        };
        let asked = match request::build(self, &job, after).await {
            Ok(asked) => asked,
            Err(request::Flaw::Api(error)) => return Err(error),
            Err(request::Flaw::Missing(why)) => {
                status::waiting(ctx, &job, "SourceNotFound", &why).await?;
                return Ok(Outcome::After(AGAIN));
            }
            Err(request::Flaw::Bad(why)) => return self.refuse(&job, "BadRequest", &why).await,
        };
        match backend.submit(&asked).await {
            Ok(handle) => self.submitted(&job, &handle).await,
            Err(JobError::Refused { field, why }) => {
                let place = field.map_or_else(String::new, |field| format!("spec.{}: ", spec_field(field)));
                self.refuse(&job, "Refused", &format!("{place}{why}")).await
            }
            Err(error @ JobError::Unsupported(_)) => self.refuse(&job, "Unsupported", &error.to_string()).await,
            Err(error) => self.trouble(&job, &error).await,
        }
    }

    fn is_to_be_submitted(&self, job: &GpuJob, known: &GpuJob) -> bool {
        let submitting = job.status.as_ref().is_some_and(|status| status.phase == Phase::Submitting);
        let unwanted = job.spec.cancel == Some(true) || job.metadata.deletion_timestamp.is_some() || self.leaving();
        submitting && job.metadata.uid == known.metadata.uid && !unwanted
    }

    /// What it waits for has changed since it was begun. Where it was handed over nevertheless, the batch system knows of
    /// its wish and is left to it.
    async fn hindered(&self, job: &GpuJob, backend: &SharedJobBackend, by: Readiness) -> ApiResult<Outcome> {
        let attempt = job.status.as_ref().map_or(1, |status| status.attempt);
        match (backend.find(&id_of(job, attempt)).await, by) {
            (Ok(Some(handle)), _) => self.submitted(job, &handle).await,
            (Ok(None), Readiness::Never(why)) => self.refuse(job, "DependencyFailed", &why).await,
            (Ok(None), Readiness::Waits(why)) => {
                status::waiting(&self.shared.ctx, job, "Dependency", &why).await?;
                Ok(Outcome::After(AGAIN))
            }
            (Ok(None), Readiness::Ready(_)) => Ok(Outcome::After(Duration::ZERO)),
            (Err(error), _) => self.trouble(job, &error).await,
        }
    }

    /// Ends what may have been handed over. Where nobody can say that yet, its directory goes: what starts without one does
    /// nothing.
    pub(super) async fn withdraw(&self, job: &GpuJob, backend: &SharedJobBackend) -> ApiResult<Outcome> {
        let attempt = job.status.as_ref().map_or(1, |status| status.attempt);
        match backend.find(&id_of(job, attempt)).await {
            Ok(Some(handle)) => self.submitted(job, &handle).await,
            Ok(None) | Err(JobError::Unclear(_)) => {
                self.refuse(job, "Cancelled", "it was cancelled before it was known to be handed over").await
            }
            Err(error) => self.trouble(job, &error).await,
        }
    }

    async fn submitted(&self, job: &GpuJob, handle: &JobHandle) -> ApiResult<Outcome> {
        let ctx = &self.shared.ctx;
        let now = ctx.clock.now();
        let sentence = format!("it was handed over as {}", handle.native);
        let change = |status: &mut GpuJobStatus| {
            status::relieve(status);
            status.phase = Phase::Queued;
            status.job_id = Some(handle.native.clone());
            (status.reason, status.message) = (String::new(), String::new());
            status.submitted_at.get_or_insert(Time(jiff::Timestamp::from_second(now.as_second()).unwrap_or(now)));
            status::condition(&mut status.conditions, "Submitted", true, "Submitted", &sentence, now);
        };
        status::write(ctx, job, change).await?;
        ctx.events.event(&reference_of(job), EventType::Normal, "Submitted", sentence.clone());
        self.hurry();
        Ok(Outcome::Done)
    }

    /// It will never run as it is.
    pub(super) async fn refuse(&self, job: &GpuJob, reason: &str, why: &str) -> ApiResult<Outcome> {
        let now = self.shared.ctx.clock.now();
        let change = |status: &mut GpuJobStatus| report::refused(status, reason, why, now);
        self.shared.ctx.events.event(&reference_of(job), EventType::Warning, reason, why.to_owned());
        status::write(&self.shared.ctx, job, change).await.map(|()| Outcome::Done)
    }
}

/// The field of a `GpuJob` behind one of a request.
fn spec_field(field: &str) -> &str {
    match field {
        "gpus" => "gpus.count",
        "time_limit" => "timeLimitSeconds",
        "tasks_per_node" => "tasksPerNode",
        "cpus_per_task" => "cpusPerTask",
        field => field.strip_prefix("placement.").unwrap_or(field),
    }
}
