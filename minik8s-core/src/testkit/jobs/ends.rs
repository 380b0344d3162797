//! How jobs end, told apart.

use super::scope::Scope;
use crate::job::{EndReason, JobEnd};
use std::time::Duration;

pub(super) async fn exit_codes_are_reported(scope: &mut Scope) {
    for code in [0, 1, 3, 125, 255] {
        let job = scope.submit(&format!("echo out\nexit {code}")).await;
        let reason = if code == 0 { EndReason::Completed } else { EndReason::Error };
        assert_eq!(scope.ends(&job).await, JobEnd::new(reason, Some(code)));
        assert_eq!(scope.text(&job, "stdout").await, "out\n");
    }
}

pub(super) async fn a_signal_is_128_and_its_number(scope: &mut Scope) {
    let job = scope.submit("kill -9 $$").await;
    assert_eq!(scope.ends(&job).await, JobEnd::new(EndReason::Error, Some(137)));
}

pub(super) async fn a_failed_preparation_is_told_apart(scope: &mut Scope) {
    let mut request = scope.request("echo never");
    request.compile = Some("echo no such compiler >&2\nexit 4".to_owned());
    let job = scope.backend.submit(&request).await.unwrap();
    assert_eq!(scope.ends(&job).await, JobEnd::new(EndReason::CompileError, Some(4)));
    assert_eq!(scope.text(&job, "stdout").await, "");
    assert_eq!(scope.text(&job, "stderr").await, "no such compiler\n");
    let mut request = scope.request("cat made");
    request.compile = Some("echo compiled > made".to_owned());
    let job = scope.backend.submit(&request).await.unwrap();
    assert_eq!(scope.ends(&job).await.reason, EndReason::Completed);
    assert_eq!(scope.text(&job, "stdout").await, "compiled\n");
}

pub(super) async fn too_long_is_told_apart(scope: &mut Scope) {
    let mut request = scope.request("echo started\nsleep 600");
    request.time_limit = Some(Duration::from_secs(1));
    let job = scope.backend.submit(&request).await.unwrap();
    assert_eq!(scope.ends(&job).await.reason, EndReason::Timeout);
    assert_eq!(scope.text(&job, "stdout").await, "started\n");
}

pub(super) async fn a_passed_limit_is_told_apart(scope: &mut Scope) {
    let job = scope.submit("sleep 600").await;
    scope.runs(&job).await;
    scope.faults().expire(&job).await;
    assert_eq!(scope.ends(&job).await.reason, EndReason::Timeout);
}

pub(super) async fn too_much_memory_is_told_apart(scope: &mut Scope) {
    let mut request = scope.request("head -c 300000000 /dev/zero | tail -c 200000000 > /dev/null\nexit 0");
    request.memory = Some(32 << 20);
    let job = scope.backend.submit(&request).await.unwrap();
    assert_eq!(scope.ends(&job).await.reason, EndReason::OutOfMemory);
}

pub(super) async fn a_failed_node_is_told_apart(scope: &mut Scope) {
    let job = scope.submit("sleep 600").await;
    let report = scope.runs(&job).await;
    assert!(!report.nodes.is_empty());
    let faults = scope.faults();
    faults.fail_node(Some(&report)).await;
    let end = scope.ends(&job).await;
    faults.fail_node(None).await;
    assert_eq!(end.reason, EndReason::NodeFailure);
}
