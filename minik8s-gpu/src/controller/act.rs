//! Does what comes next for a job.

use super::plan::{self, Facts, Step};
use super::site::{Site, handle_of, id_of};
use super::{report, request, status};
use crate::kinds::{GpuJob, GpuJobStatus, Phase};
use async_trait::async_trait;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use minik8s_core::api::{ApiError, ApiResult};
use minik8s_core::client::{DeleteOptions, EventType, reference_of};
use minik8s_core::controllers::{Outcome, Reconciler};
use minik8s_core::job::{JobError, SharedJobBackend};
use std::sync::Weak;
use std::time::Duration;

/// After something failed there.
const AGAIN: Duration = Duration::from_secs(2);

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
        let facts = Facts { job, report: report.as_ref(), now: ctx.clock.now(), room: self.has_room() };
        let step = plan::next(facts);
        match step {
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
                // The site looks at all of its jobs when it has opened.
                None => Ok(Outcome::Done),
            },
        }
    }

    fn opened(&self) -> Option<SharedJobBackend> {
        self.backend.lock().clone()
    }

    /// What has to be done there.
    async fn there(&self, job: &GpuJob, backend: &SharedJobBackend, step: Step) -> ApiResult<Outcome> {
        let attempt = job.status.as_ref().map_or(1, |status| status.attempt);
        let id = id_of(job, attempt);
        let done = match step {
            Step::Submit => return self.submit(job, backend).await,
            Step::Fetch => return super::fetch::fetch(self, backend, job).await,
            Step::Cancel => {
                self.hurry();
                backend.cancel(&id).await.map(|()| Outcome::After(AGAIN * 5))
            }
            Step::Stop(stop) => {
                let Some(handle) = handle_of(job) else { return Ok(Outcome::Done) };
                self.hurry();
                match backend.suspend(&handle, stop).await {
                    Ok(()) => {
                        status::write(&self.shared.ctx, job, |status| status.stopped = stop).await?;
                        Ok(Outcome::Done)
                    }
                    Err(error) => Err(error),
                }
            }
            Step::Clean => match backend.remove(&id).await {
                Ok(()) => {
                    let now = self.shared.ctx.clock.now();
                    let clean = |status: &mut GpuJobStatus| {
                        status::condition(
                            &mut status.conditions,
                            "CleanedUp",
                            true,
                            "Removed",
                            "nothing is left there",
                            now,
                        );
                    };
                    status::write(&self.shared.ctx, job, clean).await?;
                    Ok(Outcome::Done)
                }
                Err(error) => Err(error),
            },
            Step::Release { .. } => match backend.remove(&id).await {
                Ok(()) => return self.shared.release(job).await.map(|()| Outcome::Done),
                Err(error) => Err(error),
            },
            _ => Ok(Outcome::Done),
        };
        match done {
            Ok(outcome) => Ok(outcome),
            Err(error) => self.trouble(job, &error).await,
        }
    }

    /// Says what went wrong there, and comes back.
    pub(super) async fn trouble(&self, job: &GpuJob, error: &JobError) -> ApiResult<Outcome> {
        let about = reference_of(job);
        let message = error.to_string();
        let said = job.status.as_ref().is_some_and(|status| status.message == message);
        if !said {
            self.shared.ctx.events.event(&about, EventType::Warning, error.reason(), message.clone());
        }
        status::waiting(&self.shared.ctx, job, error.reason(), &message).await?;
        Ok(Outcome::After(AGAIN))
    }

    async fn begin(&self, job: &GpuJob, attempt: i32) -> ApiResult<Outcome> {
        match request::ready(self, job) {
            request::Readiness::Ready => {}
            request::Readiness::Waits(why) => {
                status::waiting(&self.shared.ctx, job, "Dependency", &why).await?;
                return Ok(Outcome::After(AGAIN));
            }
            request::Readiness::Never(why) => return self.refuse(job, "DependencyFailed", &why).await,
        }
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
    async fn submit(&self, known: &GpuJob, backend: &SharedJobBackend) -> ApiResult<Outcome> {
        let ctx = &self.shared.ctx;
        let namespace = known.metadata.namespace.as_deref().unwrap_or_default();
        let api = ctx.client.api::<GpuJob>(namespace);
        let job = api.get(known.metadata.name.as_deref().unwrap_or_default()).await?;
        let submitting = job.status.as_ref().is_some_and(|status| status.phase == Phase::Submitting);
        if !submitting || job.metadata.uid != known.metadata.uid || job.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::After(Duration::from_millis(50)));
        }
        let asked = match request::build(self, &job).await {
            Ok(asked) => asked,
            Err(request::Flaw::Api(error)) => return Err(error),
            Err(request::Flaw::Missing(why)) => {
                status::waiting(ctx, &job, "SourceNotFound", &why).await?;
                return Ok(Outcome::After(AGAIN));
            }
            Err(request::Flaw::Bad(why)) => return self.refuse(&job, "BadRequest", &why).await,
        };
        match backend.submit(&asked).await {
            Ok(handle) => {
                let now = ctx.clock.now();
                let sentence = format!("it was handed over as {}", handle.native);
                let change = |status: &mut GpuJobStatus| {
                    status.phase = Phase::Queued;
                    status.job_id = Some(handle.native.clone());
                    (status.reason, status.message) = (String::new(), String::new());
                    status
                        .submitted_at
                        .get_or_insert(Time(jiff::Timestamp::from_second(now.as_second()).unwrap_or(now)));
                    status::condition(&mut status.conditions, "Submitted", true, "Submitted", &sentence, now);
                };
                status::write(ctx, &job, change).await?;
                ctx.events.event(&reference_of(&job), EventType::Normal, "Submitted", sentence.clone());
                self.hurry();
                Ok(Outcome::Done)
            }
            Err(JobError::Refused { field, why }) => {
                let place = field.map_or_else(String::new, |field| format!("spec.{}: ", spec_field(field)));
                self.refuse(&job, "Refused", &format!("{place}{why}")).await
            }
            Err(error @ JobError::Unsupported(_)) => self.refuse(&job, "Unsupported", &error.to_string()).await,
            Err(error) => self.trouble(&job, &error).await,
        }
    }

    /// It will never run as it is.
    async fn refuse(&self, job: &GpuJob, reason: &str, why: &str) -> ApiResult<Outcome> {
        let change = |status: &mut GpuJobStatus| {
            status.phase = Phase::Cleaning;
            status.reason = reason.to_owned();
            status.end = Some(reason.to_owned());
            status.message = why.to_owned();
            let now = self.shared.ctx.clock.now();
            status::condition(&mut status.conditions, "Submitted", false, reason, why, now);
        };
        self.shared.ctx.events.event(&reference_of(job), EventType::Warning, reason, why.to_owned());
        status::write(&self.shared.ctx, job, change).await.map(|()| Outcome::Done)
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
        status::write(&self.shared.ctx, job, change).await.map(|()| Outcome::Done)
    }

    async fn finish(&self, job: &GpuJob, well: bool) -> ApiResult<Outcome> {
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
        status::write(&self.shared.ctx, job, change).await?;
        let id = id_of(job, job.status.as_ref().map_or(1, |status| status.attempt));
        if let Err(error) = self.shared.outputs.complete(&id.uid, id.attempt).await {
            return Err(ApiError::internal(format!("output cannot be marked as complete: {error}")));
        }
        Ok(Outcome::Done)
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
