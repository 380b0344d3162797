//! Handing over, finding again, cancelling, forgetting.

use super::scope::Scope;
use crate::job::{EndReason, JobEnd, JobError, JobHandle, JobId, JobReport, JobState, STDOUT};
use futures::future::join_all;

pub(super) async fn a_job_is_handed_over_and_ends_well(scope: &mut Scope) {
    let job = scope.submit("echo hello").await;
    assert!(!job.native.is_empty());
    assert_eq!(scope.ends(&job).await, JobEnd::new(EndReason::Completed, Some(0)));
    assert_eq!(scope.text(&job, "stdout").await, "hello\n");
    assert_eq!(scope.text(&job, "stderr").await, "");
}

pub(super) async fn the_same_identity_twice_runs_once(scope: &mut Scope) {
    let mut request = scope.request("echo once");
    let first = scope.backend.submit(&request).await.unwrap();
    request.run = "echo twice".to_owned();
    assert_eq!(scope.backend.submit(&request).await.unwrap(), first);
    scope.ends(&first).await;
    assert_eq!(scope.backend.submit(&request).await.unwrap(), first, "after its end too");
    assert_eq!(scope.text(&first, "stdout").await, "once\n");
}

pub(super) async fn the_same_identity_ten_times_at_once_runs_once(scope: &mut Scope) {
    let request = scope.request("echo once");
    let handles = join_all((0..10).map(|_| scope.backend.submit(&request))).await;
    let handles: Vec<JobHandle> = handles.into_iter().map(|handle| handle.expect("submit")).collect();
    assert!(handles.iter().all(|handle| *handle == handles[0]), "{handles:?}");
    scope.ends(&handles[0]).await;
    assert_eq!(scope.text(&handles[0], "stdout").await, "once\n");
}

pub(super) async fn states_only_move_forward(scope: &mut Scope) {
    let rank = |state: &JobState| match state {
        JobState::Queued => 0,
        JobState::Running => 1,
        JobState::Finishing => 2,
        JobState::Ended(_) => 3,
        other => panic!("{other:?} was not asked for"),
    };
    let job = scope.submit("sleep 0.3\necho done").await;
    let most = std::sync::atomic::AtomicU8::new(0);
    scope
        .reaches(&job, "the job ends", |report| {
            let now = rank(&report.state);
            let before = most.fetch_max(now, std::sync::atomic::Ordering::Relaxed);
            assert!(now >= before, "{report:?} after {before}");
            now == 3
        })
        .await;
    assert_eq!(rank(&scope.report(&job).await.state), 3, "an end stays an end");
}

pub(super) async fn a_handle_is_found_again_after_a_reopen(scope: &mut Scope) {
    let job = scope.submit("sleep 0.5\necho survived").await;
    scope.reopen().await;
    assert_eq!(scope.backend.find(&job.id).await.unwrap(), Some(job.clone()));
    let stored: JobHandle = serde_json::from_str(&serde_json::to_string(&job).unwrap()).unwrap();
    scope.ends(&stored).await;
    assert_eq!(scope.text(&stored, "stdout").await, "survived\n");
    assert_eq!(scope.backend.find(&JobId::new("never-was", 1)).await.unwrap(), None);
    assert_eq!(scope.backend.find(&JobId::new(&job.id.uid, 2)).await.unwrap(), None, "another attempt is another");
}

pub(super) async fn what_is_unknown_is_missing_and_no_failure(scope: &mut Scope) {
    let known = scope.submit("echo known").await;
    let unknown = JobHandle::new(&JobId::new("never-was", 1), "987654");
    let reports = scope.backend.poll(&[unknown.clone(), known.clone()]).await.unwrap();
    assert_eq!((reports[0].state.clone(), reports[0].id.clone()), (JobState::Missing, unknown.id.clone()));
    assert_eq!(reports[1].id, known.id);
    assert_ne!(reports[1].state, JobState::Missing);
    assert!(scope.backend.poll(&[]).await.unwrap().is_empty());
    let none = |error| assert_eq!(error, JobError::NotFound(unknown.id.clone()));
    none(scope.backend.files(&unknown, &[]).await.unwrap_err());
    none(scope.backend.read(&unknown, &crate::job::FileName::new("stdout").unwrap(), 0, 1).await.unwrap_err());
    scope.ends(&known).await;
}

pub(super) async fn a_cancelled_job_ends_as_that(scope: &mut Scope) {
    let job = scope.submit("echo started\nsleep 600\necho never").await;
    let wrote = |report: &JobReport| report.output.iter().any(|(name, size)| name.as_str() == STDOUT && *size > 0);
    scope.reaches(&job, "the job has begun", wrote).await;
    scope.backend.cancel(&job.id).await.unwrap();
    assert_eq!(scope.ends(&job).await.reason, EndReason::Cancelled);
    scope.backend.cancel(&job.id).await.unwrap();
    assert_eq!(scope.text(&job, "stdout").await, "started\n");
}

pub(super) async fn cancelling_what_ended_or_never_was_succeeds(scope: &mut Scope) {
    scope.backend.cancel(&JobId::new("never-was", 1)).await.unwrap();
    let job = scope.submit("exit 3").await;
    let end = scope.ends(&job).await;
    scope.backend.cancel(&job.id).await.unwrap();
    assert_eq!(scope.ends(&job).await, end, "an end is not overwritten");
}

pub(super) async fn removing_leaves_nothing_and_works_twice(scope: &mut Scope) {
    let job = scope.submit("echo hello").await;
    assert!(scope.backend.kept().await.unwrap().contains(&job.id));
    scope.ends(&job).await;
    scope.backend.remove(&job.id).await.unwrap();
    scope.backend.remove(&job.id).await.unwrap();
    scope.backend.remove(&JobId::new("never-was", 1)).await.unwrap();
    assert!(!scope.backend.kept().await.unwrap().contains(&job.id));
    assert_eq!(scope.backend.files(&job, &[]).await.unwrap_err(), JobError::NotFound(job.id.clone()));
}

pub(super) async fn a_job_that_is_removed_while_it_runs_ends(scope: &mut Scope) {
    let job = scope.submit("sleep 600").await;
    scope.runs(&job).await;
    scope.backend.remove(&job.id).await.unwrap();
    scope
        .reaches(&job, "nothing of it runs", |report| report.state == JobState::Missing || report.state.is_ended())
        .await;
    assert!(!scope.backend.kept().await.unwrap().contains(&job.id));
}

pub(super) async fn what_can_never_run_is_refused(scope: &mut Scope) {
    let request = scope.impossible();
    match scope.backend.submit(&request).await {
        Err(JobError::Refused { why, field }) => assert!(!why.is_empty() && field.is_some(), "{field:?}: {why}"),
        other => panic!("not refused: {other:?}"),
    }
}

pub(super) async fn a_refused_identity_may_be_tried_again(scope: &mut Scope) {
    let wrong = scope.impossible();
    scope.backend.submit(&wrong).await.unwrap_err();
    let mut right = scope.request("echo right");
    right.id = wrong.id;
    let job = scope.backend.submit(&right).await.unwrap();
    assert_eq!(scope.ends(&job).await.reason, EndReason::Completed);
    assert_eq!(scope.text(&job, "stdout").await, "right\n");
}
