//! Arrays, dependencies, stopping, graphics processors.

use super::Needs;
use super::scope::Scope;
use crate::job::{
    After, AfterWhen, Array, EndReason, Gpus, JobCapabilities, JobError, JobHandle, JobRequest, JobState,
};

pub(super) async fn tasks_of_an_array_have_outputs_and_ends_of_their_own(scope: &mut Scope) {
    let mut request = scope.request("echo task $JOB_TASK_INDEX\nexit $JOB_TASK_INDEX");
    request.array = Some(Array::parse("0,2-3", 10).unwrap());
    let job = scope.backend.submit(&request).await.unwrap();
    let end = scope.ends(&job).await;
    assert_eq!(end.reason, EndReason::Error, "the worst of its tasks");
    let report = scope.report(&job).await;
    let codes: Vec<(u32, Option<i32>)> = report.tasks.iter().map(|task| (task.index, code(&task.state))).collect();
    assert_eq!(codes, [(0, Some(0)), (2, Some(2)), (3, Some(3))]);
    for index in [0, 2, 3] {
        assert_eq!(scope.text(&job, &format!("stdout.{index}")).await, format!("task {index}\n"));
    }
}

fn code(state: &JobState) -> Option<i32> {
    if let JobState::Ended(end) = state { end.exit_code } else { None }
}

pub(super) async fn a_job_waits_for_another(scope: &mut Scope) {
    let first = scope.submit("sleep 0.5\necho first").await;
    let mut request = scope.request("echo second");
    request.after = vec![After { job: first.clone(), when: AfterWhen::Ok }];
    let second = scope.backend.submit(&request).await.unwrap();
    scope.reaches(&second, "the second ends", |report| report.state.is_ended()).await;
    assert!(scope.report(&first).await.state.is_ended(), "the second ended before the first");
    assert_eq!(scope.text(&second, "stdout").await, "second\n");
}

pub(super) async fn what_waits_in_vain_ends(scope: &mut Scope) {
    let first = scope.submit("exit 1").await;
    let mut request = scope.request("echo never");
    request.after = vec![After { job: first.clone(), when: AfterWhen::Ok }];
    let second = scope.backend.submit(&request).await.unwrap();
    assert_eq!(scope.ends(&second).await.reason, EndReason::DependencyFailed);
    assert_eq!(scope.text(&second, "stdout").await, "");
}

pub(super) async fn a_stopped_job_goes_on_where_it_was(scope: &mut Scope) {
    let job = scope.submit("echo one\nsleep 1\necho two").await;
    scope.runs(&job).await;
    scope.backend.suspend(&job, true).await.unwrap();
    scope.backend.suspend(&job, true).await.unwrap();
    scope.reaches(&job, "the job is stopped", |report| report.state == JobState::Suspended).await;
    scope.backend.suspend(&job, false).await.unwrap();
    assert_eq!(scope.ends(&job).await.reason, EndReason::Completed);
    assert_eq!(scope.text(&job, "stdout").await, "one\ntwo\n");
    scope.backend.suspend(&job, true).await.unwrap();
    assert!(scope.report(&job).await.state.is_ended());
}

/// Two jobs that each want every graphics processor there is: the second waits.
async fn rivals(scope: &mut Scope, count: u32, run: &str) -> (JobHandle, JobHandle) {
    let mut handles = Vec::new();
    for _ in 0..2 {
        let mut request: JobRequest = scope.request(run);
        request.gpus = Some(Gpus { count, kind: None });
        handles.push(scope.backend.submit(&request).await.unwrap());
    }
    let second = handles.remove(1);
    (handles.remove(0), second)
}

pub(super) async fn a_job_kept_from_starting_starts_later(scope: &mut Scope) {
    let blocker = scope.submit("sleep 600").await;
    let mut request = scope.request("echo late");
    request.after = vec![After { job: blocker.clone(), when: AfterWhen::Any }];
    let job = match scope.backend.submit(&request).await {
        Err(JobError::Unsupported(_)) => return,
        submitted => submitted.unwrap(),
    };
    scope.backend.suspend(&job, true).await.unwrap();
    scope.runs(&blocker).await;
    scope.backend.cancel(&blocker.id).await.unwrap();
    scope.ends(&blocker).await;
    assert!(!scope.report(&job).await.state.is_ended(), "it is kept from starting");
    scope.backend.suspend(&job, false).await.unwrap();
    assert_eq!(scope.ends(&job).await.reason, EndReason::Completed);
}

pub(super) async fn gpus_are_handed_out_exclusively(scope: &mut Scope) {
    let (first, second) = rivals(scope, 1, "echo $CUDA_VISIBLE_DEVICES\nsleep 0.2").await;
    for job in [&first, &second] {
        assert_eq!(scope.ends(job).await.reason, EndReason::Completed);
        let visible = scope.text(job, "stdout").await;
        assert!(!visible.trim().is_empty() && !visible.contains(','), "one, not {visible:?}");
    }
    let (first, second) = rivals(scope, 2, "echo $CUDA_VISIBLE_DEVICES\nsleep 0.2").await;
    for job in [&first, &second] {
        assert_eq!(scope.ends(job).await.reason, EndReason::Completed);
        let visible = scope.text(job, "stdout").await;
        assert_eq!(visible.trim().split(',').count(), 2, "two, not {visible:?}");
    }
}

/// What a backend denies, it refuses openly.
pub(super) async fn assert_refusal(needs: &[Needs], has: &JobCapabilities, scope: &mut Scope) {
    let mut request = scope.request("echo never");
    let denied = match needs.first() {
        Some(Needs::Arrays) if !has.arrays => {
            request.array = Some(Array::parse("0-1", 10).unwrap());
            scope.backend.submit(&request).await.map(|_| ())
        }
        Some(Needs::Dependencies) if !has.dependencies => {
            let job = JobHandle::new(&request.id, "1");
            request.after = vec![After { job, when: AfterWhen::Ok }];
            scope.backend.submit(&request).await.map(|_| ())
        }
        Some(Needs::Gpus) if !has.gpus => {
            request.gpus = Some(Gpus { count: 1, kind: None });
            return assert!(scope.backend.submit(&request).await.is_err(), "there are none");
        }
        Some(Needs::Suspend) if !has.suspend => {
            let job = scope.backend.submit(&request).await.unwrap();
            scope.backend.suspend(&job, true).await
        }
        _ => return scope.clean_up().await,
    };
    assert!(matches!(denied, Err(JobError::Unsupported(_))), "{denied:?}");
    scope.clean_up().await;
}
