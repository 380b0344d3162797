//! What three versions of Slurm really answered about the same jobs, and what is to be made of it.
//!
//! The files beside this one were recorded, not written: the query of `remote` ran on each version, with jobs in every state
//! that can be brought about on one machine. States that cannot (a node that does not boot, federations, burst buffers) are
//! after Slurm's list of job states, in the tests of `judge`.

use super::judge::{Verdict, judge};
use super::parse::{Answer, answer};
use minik8s_core::job::{EndReason, JobEnd, JobHandle, JobId, JobReport, JobState};
use std::time::Duration;

const VERSIONS: [(&str, &str, &str); 3] = [
    ("20.11.4", include_str!("recorded/20.11.4-queue.txt"), include_str!("recorded/20.11.4-accounting.txt")),
    ("22.05.8", include_str!("recorded/22.05.8-queue.txt"), include_str!("recorded/22.05.8-accounting.txt")),
    ("24.11.5", include_str!("recorded/24.11.5-queue.txt"), include_str!("recorded/24.11.5-accounting.txt")),
];

/// The report about the job that the recording calls so; `None` where this version refused it.
fn report(text: &str, told: &Answer, name: &str) -> Option<JobReport> {
    let native = text.lines().find_map(|line| line.strip_prefix(&format!("L|mk8s-{name}-1|")))?;
    let job = JobHandle::new(&JobId::new(name, 1), native);
    match judge(&job, native, told, Duration::from_secs(20)) {
        Verdict::Report(report) => Some(*report),
        other => panic!("{name}: {other:?}"),
    }
}

fn ended(reason: EndReason, code: Option<i32>) -> JobState {
    JobState::Ended(JobEnd::new(reason, code))
}

/// What all versions must be understood to say, whoever is asked.
fn common() -> Vec<(&'static str, JobState)> {
    use EndReason::{Cancelled, Completed, Error, NodeFailure, Preempted, Timeout};
    vec![
        ("completed", ended(Completed, Some(0))),
        ("highprio", ended(Completed, Some(0))),
        ("failed", ended(Error, Some(3))),
        ("killed", ended(Error, Some(137))),
        ("cancelled", ended(Cancelled, None)),
        ("withdrawn", ended(Cancelled, None)),
        ("timeout", ended(Timeout, None)),
        ("deadline", ended(Timeout, None)),
        ("nodefail", ended(NodeFailure, None)),
        ("preempted", ended(Preempted, None)),
        ("running", JobState::Running),
        ("lowprio", JobState::Running),
        ("stopped", JobState::Suspended),
        ("held", JobState::Queued),
        ("later", JobState::Queued),
        ("waits", JobState::Queued),
        ("heldarray", JobState::Queued),
        // Begun anew and held, by an administrator or for a special exit code.
        ("rehold", JobState::Queued),
        ("respecial", JobState::Queued),
        ("array", JobState::Running),
    ]
}

#[test]
fn every_version_is_understood_whether_its_queue_or_its_accounting_answers() {
    for (version, queue, accounting) in VERSIONS {
        for (who, text) in [("squeue", queue), ("sacct", accounting)] {
            let told = answer(text);
            assert!(told.now.is_some() && told.away.is_none(), "{version} {who}");
            for (name, want) in common() {
                let found = report(text, &told, name).unwrap_or_else(|| panic!("{version} {who} has no {name}"));
                assert_eq!(found.state, want, "{version} {who}: {name}");
            }
            let tasks = report(text, &told, "array").unwrap().tasks;
            let states: Vec<JobState> = tasks.into_iter().map(|task| task.state).collect();
            let over = [ended(EndReason::Completed, Some(0)), ended(EndReason::Error, Some(4))];
            assert_eq!(states[..2], over, "{version} {who}");
            assert_eq!(states[2..5], [const { JobState::Running }; 3], "{version} {who}");
            assert_eq!(states[5], JobState::Queued, "{version} {who}");
            let held = report(text, &told, "heldarray").unwrap().tasks;
            let indices: Vec<u32> = held.iter().map(|task| task.index).collect();
            assert_eq!(indices, [0, 2, 4], "{version} {who}");
            assert!(held.iter().all(|task| task.state == JobState::Queued), "{version} {who}: {held:?}");
        }
    }
}

#[test]
fn what_versions_see_differently_is_told_as_each_sees_it() {
    let state = |version: usize, name: &str, queue: bool| {
        let (_, of_queue, of_accounting) = VERSIONS[version];
        let text = if queue { of_queue } else { of_accounting };
        report(text, &answer(text), name).map(|report| report.state)
    };
    for queue in [true, false] {
        // Where its output cannot be made, a job does not begin: with exit code 1 or with one that means just that. The
        // newest makes the directory.
        assert_eq!(state(0, "nowhere", queue), Some(ended(EndReason::LaunchError, None)));
        assert_eq!(state(1, "nowhere", queue), Some(ended(EndReason::LaunchError, None)));
        assert_eq!(state(2, "nowhere", queue), Some(ended(EndReason::Completed, Some(0))));
        // More processors than any node has: two let it wait, the newest refuses it.
        assert_eq!(state(0, "toolarge", queue), Some(JobState::Queued));
        assert_eq!(state(1, "toolarge", queue), Some(JobState::Queued));
        assert_eq!(state(2, "toolarge", queue), None);
    }
    for version in 0..3 {
        // Only the queue says why.
        assert_eq!(state(version, "never", true), Some(ended(EndReason::DependencyFailed, None)));
        assert_eq!(state(version, "never", false), Some(ended(EndReason::Cancelled, None)));
    }
}

#[test]
fn nodes_times_reasons_restarts_and_output_are_read_from_every_version() {
    for (version, text, _) in VERSIONS {
        let told = answer(text);
        let of = |name: &str| report(text, &told, name).unwrap();
        let running = of("running");
        assert_eq!((running.nodes.as_str(), running.native_state.as_str()), ("gpu1", "RUNNING"), "{version}");
        assert!(running.started.is_some() && running.start_estimate.is_none(), "{version}: {running:?}");
        let size = |report: &JobReport, name: &str| {
            report.output.iter().find(|(file, _)| file.as_str() == name).map(|(_, size)| *size)
        };
        assert_eq!((size(&running, "stdout"), size(&running, "stderr")), (Some(6), Some(0)), "{version}");
        assert_eq!(size(&of("array"), "stdout.1"), Some(2), "{version}");
        let later = of("later");
        assert_eq!((later.reason.as_str(), later.nodes.as_str()), ("BeginTime", ""), "{version}");
        assert!(later.start_estimate.is_some() && later.started.is_none(), "{version}: {later:?}");
        assert_eq!((of("held").reason.as_str(), of("held").start_estimate), ("JobHeldUser", None), "{version}");
        let again = of("rehold");
        assert_eq!((again.restarts, again.reason.as_str()), (1, "job requeued in held state"), "{version}");
        let timeout = of("timeout");
        assert!(timeout.ended > timeout.started && timeout.reason == "TimeLimit", "{version}: {timeout:?}");
    }
}
