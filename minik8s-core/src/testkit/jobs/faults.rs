//! What happens when things break, and what asking costs.

use super::scope::{SOON, Scope};
use crate::job::{EndReason, JobError, JobState};
use crate::testkit::wait::until;

pub(super) async fn an_outage_fails_calls_and_no_job(scope: &mut Scope) {
    let job = scope.submit("echo before\nsleep 1\necho after").await;
    let faults = scope.faults();
    faults.connected(false).await;
    let error = scope.backend.poll(std::slice::from_ref(&job)).await.unwrap_err();
    assert!(matches!(error, JobError::Away { .. }), "{error:?}");
    let request = scope.request("echo later");
    assert!(scope.backend.submit(&request).await.unwrap_err().is_transient());
    faults.connected(true).await;
    let again = until("the machine is reached again", SOON, || async {
        scope.backend.poll(std::slice::from_ref(&job)).await.ok()
    });
    assert_ne!(again.await[0].state, JobState::Missing);
    assert_eq!(scope.ends(&job).await.reason, EndReason::Completed);
    assert_eq!(scope.text(&job, "stdout").await, "before\nafter\n");
    let later = until("what was refused is taken", SOON, || async { scope.backend.submit(&request).await.ok() }).await;
    assert_eq!(scope.ends(&later).await.reason, EndReason::Completed);
}

pub(super) async fn many_jobs_cost_one_query(scope: &mut Scope) {
    let mut jobs = Vec::new();
    for number in 0..12 {
        jobs.push(scope.submit(&format!("echo {number}")).await);
    }
    for job in &jobs {
        scope.ends(job).await;
    }
    let faults = scope.faults();
    let before = faults.queries().await;
    let reports = scope.backend.poll(&jobs).await.unwrap();
    assert_eq!(faults.queries().await - before, 1, "however many jobs");
    assert!(reports.iter().zip(&jobs).all(|(report, job)| report.id == job.id && report.state.is_ended()));
}
