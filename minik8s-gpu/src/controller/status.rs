//! Writing statuses: conditions, and the one way they are written.

use crate::kinds::{GpuJob, GpuJobStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use minik8s_core::api::ApiResult;
use minik8s_core::controllers::ControllerContext;

/// Longest message of a condition.
const LONGEST: usize = 1024;

/// Sets a condition; its time moves only where its status does.
pub(super) fn condition(
    all: &mut Vec<Condition>,
    kind: &str,
    holds: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let status = if holds { "True" } else { "False" };
    let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    let before = all.iter().find(|c| c.type_ == kind).filter(|c| c.status == status);
    let last_transition_time = before.map_or(now, |c| c.last_transition_time.clone());
    let message: String = message.chars().take(LONGEST).collect();
    let (type_, reason, status) = (kind.to_owned(), reason.to_owned(), status.to_owned());
    all.retain(|c| c.type_ != kind);
    all.push(Condition { last_transition_time, message, observed_generation: None, reason, status, type_ });
}

/// The condition that says what is in the way of a wish. The batch system's own words have `reason` and `message` for
/// themselves while it has the job: two that write the same fields would never agree.
const OBSTACLE: &str = "Obstructed";

/// What is in the way, where something is.
pub(super) fn obstacle(status: &GpuJobStatus) -> Option<&Condition> {
    status.conditions.iter().find(|c| c.type_ == OBSTACLE)
}

/// Nothing is in the way any more.
pub(super) fn relieve(status: &mut GpuJobStatus) {
    status.conditions.retain(|c| c.type_ != OBSTACLE);
}

/// Says what is in the way.
pub(super) fn obstruct(status: &mut GpuJobStatus, reason: &str, message: &str, now: Timestamp) {
    condition(&mut status.conditions, OBSTACLE, true, reason, message, now);
    if !status.phase.is_live() {
        status.reason = reason.to_owned();
        status.message = message.chars().take(LONGEST).collect();
    }
}

/// Writes a job's status at the version that was looked at; what does not change is not written.
pub(super) async fn write(
    ctx: &ControllerContext,
    job: &GpuJob,
    change: impl FnOnce(&mut GpuJobStatus),
) -> ApiResult<()> {
    let mut fresh = job.clone();
    let mut status = fresh.status.take().unwrap_or_default();
    change(&mut status);
    if job.status.as_ref() == Some(&status) {
        return Ok(());
    }
    fresh.status = Some(status);
    let namespace = job.metadata.namespace.as_deref().unwrap_or_default();
    ctx.client.api::<GpuJob>(namespace).update_status(&fresh).await.map(|_| ())
}

/// Says why a job waits.
pub(super) async fn waiting(ctx: &ControllerContext, job: &GpuJob, reason: &str, message: &str) -> ApiResult<()> {
    write(ctx, job, |status| {
        status.reason = reason.to_owned();
        status.message = message.chars().take(LONGEST).collect();
    })
    .await
}
