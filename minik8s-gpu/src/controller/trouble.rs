//! What is in the way of a job: told once for each kind of trouble, in words that say how to go on, and taken back.

use super::site::Site;
use super::{let_go, status};
use crate::kinds::GpuJob;
use minik8s_core::api::ApiResult;
use minik8s_core::client::{EventType, reference_of};
use minik8s_core::controllers::Outcome;
use minik8s_core::job::JobError;
use std::time::Duration;

/// After something failed there.
pub(super) const AGAIN: Duration = Duration::from_secs(2);

impl Site {
    /// Says what went wrong there, and comes back.
    pub(super) async fn trouble(&self, job: &GpuJob, error: &JobError) -> ApiResult<Outcome> {
        if matches!(error, JobError::Away { .. } | JobError::Denied { .. }) {
            self.doubt();
        }
        self.tell(job, error.reason(), &error.to_string()).await?;
        Ok(Outcome::After(AGAIN))
    }

    /// The cluster cannot be asked: says why, where that is known. All of its jobs are looked at when that changes.
    pub(super) async fn closed(&self, job: &GpuJob) -> ApiResult<Outcome> {
        if let Some((reason, message)) = self.problem() {
            self.tell(job, reason, &message).await?;
        }
        Ok(Outcome::Done)
    }

    /// Nothing is in the way any more.
    pub(super) async fn relieve(&self, job: &GpuJob) -> ApiResult<()> {
        status::write(&self.shared.ctx, job, status::relieve).await
    }

    /// Says it where it is not said yet. The first sentence about a trouble stays, so that words which differ each time do
    /// not wake the job again and again.
    async fn tell(&self, job: &GpuJob, reason: &str, why: &str) -> ApiResult<()> {
        let going = job.metadata.deletion_timestamp.is_some();
        let hint = let_go("gpujob", &job.metadata);
        let message = if going { format!("{why}; {hint}") } else { why.to_owned() };
        let said = job.status.as_ref().and_then(status::obstacle);
        if said.is_some_and(|said| said.reason == reason && said.message.contains(&hint) == going) {
            return Ok(());
        }
        self.shared.ctx.events.event(&reference_of(job), EventType::Warning, reason, message.clone());
        let now = self.shared.ctx.clock.now();
        status::write(&self.shared.ctx, job, |status| status::obstruct(status, reason, &message, now)).await
    }
}
