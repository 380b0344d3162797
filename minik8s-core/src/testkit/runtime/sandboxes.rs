//! Sandboxes.

use super::scope::Scope;
use crate::runtime::{RuntimeError, SandboxSpec};
use std::time::Duration;

pub(super) async fn a_sandbox_is_made_once_and_found_again(s: &mut Scope) {
    let spec = SandboxSpec { labels: [("k".into(), "v".into())].into(), ..s.sandbox_spec("a") };
    let first = s.runtime.run_sandbox(&spec).await.expect("make");
    assert!(first.ready && first.netns.is_some() && first.created_at > 0, "{first:?}");
    let second = s.runtime.run_sandbox(&spec).await.expect("make again");
    assert_eq!(first, second);
    let listed = s.runtime.sandboxes().await.expect("list");
    assert_eq!(listed.into_iter().find(|i| i.spec.id == spec.id), Some(first));
}

pub(super) async fn a_sandbox_is_made_and_removed_ten_times(s: &mut Scope) {
    for _ in 0..10 {
        let info = s.sandbox("a").await;
        assert!(info.ready);
        s.runtime.remove_sandbox(&info.spec.id).await.expect("remove");
        assert!(!s.runtime.sandboxes().await.expect("list").iter().any(|i| i.spec.id == info.spec.id));
    }
}

pub(super) async fn removing_what_is_missing_succeeds(s: &mut Scope) {
    let missing = s.id("missing");
    for _ in 0..2 {
        s.runtime.remove_sandbox(&missing).await.expect("sandbox");
        s.runtime.stop_container(&missing, Duration::ZERO).await.expect("stop");
        s.runtime.remove_container(&missing).await.expect("container");
        s.runtime.remove_image("localhost/not-there:1").await.expect("image");
    }
    assert_eq!(s.runtime.container(&missing).await.expect("container"), None);
}

pub(super) async fn a_removed_sandbox_takes_its_containers_along(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    s.start(&sandbox, &s.sleeper("one")).await;
    s.runtime.create_container(&sandbox.spec.id, &s.sleeper("two")).await.expect("create");
    s.runtime.remove_sandbox(&sandbox.spec.id).await.expect("remove");
    for name in ["one", "two"] {
        assert_eq!(s.runtime.container(&s.id(name)).await.expect("container"), None);
    }
    s.runtime.remove_sandbox(&sandbox.spec.id).await.expect("remove again");
}

pub(super) async fn a_host_network_sandbox_has_no_network_namespace(s: &mut Scope) {
    let spec = SandboxSpec { host_network: true, ..s.sandbox_spec("a") };
    let info = s.runtime.run_sandbox(&spec).await.expect("make");
    assert_eq!((info.netns.clone(), info.ready), (None, true));
    let (exit, _) = s.run(&info, &s.script("c", "exit 0")).await;
    assert_eq!(exit.code, 0);
}

pub(super) async fn a_reopened_runtime_finds_its_sandboxes(s: &mut Scope) {
    let made = s.sandbox("a").await;
    s.reopen().await;
    let found = s.runtime.sandboxes().await.expect("list").into_iter().find(|i| i.spec.id == made.spec.id);
    assert_eq!(found, Some(made.clone()));
    assert_eq!(s.runtime.run_sandbox(&made.spec).await.expect("make again"), made);
}

pub(super) async fn assert_shared_pids_are_refused(s: &Scope) {
    let spec = SandboxSpec { share_pids: true, ..s.sandbox_spec("a") };
    let refused = s.runtime.run_sandbox(&spec).await.expect_err("refused");
    assert!(matches!(refused, RuntimeError::Unsupported(_)), "{refused}");
}
