//! What comes next for a job. Pure.

use super::FINALIZER;
use crate::kinds::{GpuJob, GpuJobStatus, Phase};
use jiff::Timestamp;
use minik8s_core::job::{EndReason, JobReport, JobState};

/// What is known when it is decided.
#[derive(Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) job: &'a GpuJob,
    /// What the batch system said last.
    pub(super) report: Option<&'a JobReport>,
    pub(super) now: Timestamp,
    /// Another job may be handed over.
    pub(super) room: bool,
    /// The cluster is connected to.
    pub(super) open: bool,
    /// The cluster is being deleted: what is there is ended.
    pub(super) leaving: bool,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Nothing, until something changes.
    Rest,
    /// Nothing, for so many seconds.
    Pause(i64),
    /// Say why it waits.
    Wait(&'static str, String),
    /// It will not be handed over.
    Refuse(&'static str, String),
    /// Keep the object until nothing is left of it elsewhere.
    Hold,
    /// Write down that an attempt begins.
    Begin(i32),
    /// Say that its cluster cannot be asked.
    Closed,
    /// Hand it over.
    Submit,
    /// It may have been handed over, and is to be ended.
    Withdraw,
    /// What was in the way of a wish is not wished any more.
    Relieve,
    /// Write down what the batch system said.
    Record,
    /// Stop it, or let it go on.
    Stop(bool),
    /// End it.
    Cancel,
    /// Bring its files home.
    Fetch,
    /// Remove what it left, and write that down.
    Clean,
    /// Try again, after so many seconds.
    Retry(i64),
    /// It is done with.
    Finish(bool),
    /// Remove what it left, and let the object go.
    Release {
        /// There may be something there.
        remote: bool,
    },
    /// Its time has come.
    Delete,
}

/// Failures that others are to blame for do not count, up to this many.
const DISRUPTIONS: i32 = 20;
/// Wait before the second attempt; doubles up to the longest.
const FIRST_PAUSE: i64 = 10;
const LONGEST_PAUSE: i64 = 360;

/// Decides.
pub(super) fn next(facts: Facts<'_>) -> Step {
    let job = facts.job;
    let none = GpuJobStatus::default();
    let status = job.status.as_ref().unwrap_or(&none);
    let held = job.metadata.finalizers.iter().flatten().any(|name| name == FINALIZER);
    if job.metadata.deletion_timestamp.is_some() {
        return if held { end(status, facts.report) } else { Step::Rest };
    }
    match status.phase {
        Phase::Pending => begin(job, status, held, facts),
        Phase::Submitting if ends(facts) => Step::Withdraw,
        Phase::Submitting => Step::Submit,
        Phase::Queued | Phase::Running | Phase::Suspended => follow(status, facts),
        Phase::Fetching => Step::Fetch,
        Phase::Cleaning if !status.conditions.iter().any(|c| c.type_ == "CleanedUp" && c.status == "True") => {
            Step::Clean
        }
        Phase::Cleaning => conclude(job, status),
        Phase::Succeeded | Phase::Failed => expire(job, status, facts.now),
    }
}

/// A deleted job is ended first; its files are not fetched any more.
fn end(status: &GpuJobStatus, report: Option<&JobReport>) -> Step {
    match status.phase {
        // What earlier attempts left was removed before the next one was thought of.
        Phase::Pending => Step::Release { remote: false },
        phase if phase.is_final() => Step::Release { remote: false },
        phase if phase.is_live() && !report.is_some_and(|report| report.state.is_ended()) => Step::Cancel,
        _ => Step::Release { remote: true },
    }
}

/// True where it is to be ended there.
fn ends(facts: Facts<'_>) -> bool {
    facts.job.spec.cancel == Some(true) || facts.leaving
}

fn begin(job: &GpuJob, status: &GpuJobStatus, held: bool, facts: Facts<'_>) -> Step {
    if job.spec.cancel == Some(true) {
        return Step::Refuse("Cancelled", "it was cancelled before it was handed over".to_owned());
    }
    if !held {
        return Step::Hold;
    }
    if job.spec.suspend == Some(true) {
        return Step::Wait("Suspended", "it is suspended before it was handed over".to_owned());
    }
    let left = status.retry_at.as_ref().map_or(0, |at| at.0.as_second() - facts.now.as_second());
    if left > 0 {
        return Step::Pause(left);
    }
    if facts.leaving {
        return Step::Wait("ClusterLeaves", format!("the JobCluster {:?} is being deleted", job.spec.cluster));
    }
    if !facts.open {
        return Step::Closed;
    }
    if !facts.room {
        return Step::Wait("ClusterFull", "as many jobs as may be are with the cluster".to_owned());
    }
    Step::Begin(status.attempt + 1)
}

fn follow(status: &GpuJobStatus, facts: Facts<'_>) -> Step {
    let Some(report) = facts.report else { return if ends(facts) { Step::Cancel } else { Step::Rest } };
    if super::report::differs(status, report) {
        return Step::Record;
    }
    if report.state == JobState::Finishing {
        return Step::Rest;
    }
    let wanted = facts.job.spec.suspend == Some(true);
    match () {
        () if ends(facts) => Step::Cancel,
        () if wanted != status.stopped => Step::Stop(wanted),
        () if super::status::obstacle(status).is_some() => Step::Relieve,
        () => Step::Rest,
    }
}

/// How the last attempt ended; `None` where it never began.
pub(super) fn ended(status: &GpuJobStatus) -> Option<EndReason> {
    serde_json::from_value(status.end.clone()?.into()).ok()
}

fn conclude(job: &GpuJob, status: &GpuJobStatus) -> Step {
    let Some(end) = ended(status) else { return Step::Finish(false) };
    let failures = status.failures.max(0);
    let limit = job.spec.backoff_limit.unwrap_or(0);
    let pause = |times: i32| (FIRST_PAUSE << times.clamp(0, 6)).min(LONGEST_PAUSE);
    match end {
        EndReason::Completed => Step::Finish(true),
        end if end.is_disruption() && status.disruptions < DISRUPTIONS => Step::Retry(pause(status.disruptions)),
        EndReason::Error | EndReason::OutOfMemory | EndReason::LaunchError | EndReason::Lost | EndReason::DiskFull
            if failures < limit =>
        {
            Step::Retry(pause(failures))
        }
        _ => Step::Finish(false),
    }
}

fn expire(job: &GpuJob, status: &GpuJobStatus, now: Timestamp) -> Step {
    let Some(life) = job.spec.ttl_seconds_after_finished else { return Step::Rest };
    let Some(done) = &status.completion_time else { return Step::Rest };
    match done.0.as_second().saturating_add(life) - now.as_second() {
        left if left > 0 => Step::Pause(left),
        _ => Step::Delete,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::GpuJobSpec;

    #[test]
    fn ends_are_tried_again_where_that_is_right() {
        let after = |end: EndReason, failures: i32, disruptions: i32| {
            let spec = GpuJobSpec { backoff_limit: Some(2), ..GpuJobSpec::default() };
            let status =
                GpuJobStatus { end: Some(end.as_str().to_owned()), failures, disruptions, ..GpuJobStatus::default() };
            conclude(&GpuJob { spec, ..GpuJob::default() }, &status)
        };
        use EndReason::*;
        assert_eq!(after(Completed, 0, 0), Step::Finish(true));
        for end in [Error, OutOfMemory, LaunchError, Lost, DiskFull] {
            assert_eq!(after(end, 0, 0), Step::Retry(10), "{end:?}");
            assert_eq!(after(end, 1, 0), Step::Retry(20), "{end:?}");
            assert_eq!(after(end, 2, 0), Step::Finish(false), "{end:?}");
        }
        // Trying again would bring the same.
        for end in [CompileError, Timeout, Cancelled, DependencyFailed] {
            assert_eq!(after(end, 0, 0), Step::Finish(false), "{end:?}");
        }
        // Others are to blame: these do not count, and are not tried for ever.
        for end in [NodeFailure, Preempted] {
            assert_eq!(after(end, 2, 0), Step::Retry(10), "{end:?}");
            assert_eq!(after(end, 2, 19), Step::Retry(360), "{end:?}");
            assert_eq!(after(end, 2, 20), Step::Finish(false), "{end:?}");
        }
    }

    #[test]
    fn what_has_ended_is_kept_as_long_as_it_says() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let status = GpuJobStatus {
            completion_time: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(1000))),
            ..GpuJobStatus::default()
        };
        let step = |ttl: Option<i64>, now: i64| {
            let spec = GpuJobSpec { ttl_seconds_after_finished: ttl, ..GpuJobSpec::default() };
            expire(&GpuJob { spec, ..GpuJob::default() }, &status, at(now))
        };
        assert_eq!(step(None, 1_000_000), Step::Rest);
        assert_eq!(step(Some(60), 1000), Step::Pause(60));
        assert_eq!(step(Some(60), 1059), Step::Pause(1));
        assert_eq!(step(Some(60), 1060), Step::Delete);
        assert_eq!(step(Some(0), 1000), Step::Delete);
    }
}
