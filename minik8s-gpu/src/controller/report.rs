//! What a report of the batch system makes of a job's status. Pure.

use crate::kinds::{GpuJobStatus, Phase, TaskStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use minik8s_core::job::{JobReport, JobState};

/// True where the report says something that is not in the status yet.
pub(super) fn differs(status: &GpuJobStatus, report: &JobReport) -> bool {
    let mut after = status.clone();
    apply(&mut after, report);
    after != *status
}

/// Writes a report into a status.
pub(super) fn apply(status: &mut GpuJobStatus, report: &JobReport) {
    let time = |at: Option<Timestamp>| at.and_then(|at| Timestamp::from_second(at.as_second()).ok()).map(Time);
    match &report.state {
        JobState::Missing | JobState::Unknown => return,
        JobState::Queued => status.phase = Phase::Queued,
        JobState::Running | JobState::Finishing => status.phase = Phase::Running,
        JobState::Suspended => status.phase = Phase::Suspended,
        JobState::Ended(end) => {
            status.phase = Phase::Fetching;
            status.end = Some(end.reason.as_str().to_owned());
            status.exit_code = end.exit_code;
        }
    }
    status.reason = match &report.state {
        JobState::Ended(end) => end.reason.as_str().to_owned(),
        _ => word(&report.reason),
    };
    status.message = message(report);
    status.native_state.clone_from(&report.native_state);
    if !report.nodes.is_empty() {
        status.nodes.clone_from(&report.nodes);
    }
    status.start_estimate = if report.state == JobState::Queued { time(report.start_estimate) } else { None };
    if report.started.is_some() {
        status.start_time = time(report.started);
    }
    status.tasks = report.tasks.iter().map(|task| task_status(task.index, &task.state)).collect();
}

/// Writes that it will never run as it is.
pub(super) fn refused(status: &mut GpuJobStatus, reason: &str, why: &str, now: Timestamp) {
    super::status::relieve(status);
    status.phase = Phase::Cleaning;
    status.reason = reason.to_owned();
    status.end = Some(reason.to_owned());
    status.message = why.to_owned();
    super::status::condition(&mut status.conditions, "Submitted", false, reason, why, now);
}

/// Writes that nothing is left of it there.
pub(super) fn cleaned(status: &mut GpuJobStatus, now: Timestamp) {
    super::status::condition(&mut status.conditions, "CleanedUp", true, "Removed", "nothing is left there", now);
}

/// What may stand as a reason: a word of letters, digits and underscores.
fn word(text: &str) -> String {
    let fits = text.len() <= 128 && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if fits && text != "None" { text.to_owned() } else { String::new() }
}

fn message(report: &JobReport) -> String {
    let said = if report.reason == "None" { "" } else { report.reason.as_str() };
    match &report.state {
        JobState::Queued => match stuck(said) {
            Some(why) => why.to_owned(),
            None if said.is_empty() => "it waits".to_owned(),
            None => format!("it waits: {said}"),
        },
        JobState::Running if report.restarts > 0 => format!("it runs, begun anew {} times", report.restarts),
        JobState::Ended(end) => match end.exit_code {
            Some(code) => format!("it ended with {} and exit code {code}", end.reason.as_str()),
            None => format!("it ended with {}", end.reason.as_str()),
        },
        _ => said.to_owned(),
    }
}

/// Reasons of waiting that will not go away by themselves.
fn stuck(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "PartitionConfig" | "PartitionNodeLimit" => "no node of the partition has what is asked for: ask for less",
        "PartitionTimeLimit" => "spec.timeLimitSeconds is more than the partition allows",
        "DependencyNeverSatisfied" => "what it waits for can never come",
        "BadConstraints" => "no node fits spec.constraint",
        "JobHeldAdmin" => "an administrator holds it",
        "AssocGrpGRES" | "QOSMaxGRESPerUser" | "QOSGrpGRES" => "the account's share of graphics processors is used up",
        _ => return None,
    })
}

fn task_status(index: u32, state: &JobState) -> TaskStatus {
    let (state, exit_code) = match state {
        JobState::Ended(end) => (end.reason.as_str().to_owned(), end.exit_code),
        other => (format!("{other:?}"), None),
    };
    TaskStatus { index: i32::try_from(index).unwrap_or(i32::MAX), state, exit_code }
}
