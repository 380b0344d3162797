//! Containers: their life, their records.

use super::scope::{SOON, Scope};
use crate::runtime::{ContainerState, Mount, RuntimeError, Security};
use crate::testkit::wait::until;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub(super) async fn a_container_needs_its_sandbox_and_its_image(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    let lost = s.runtime.create_container(&s.id("nowhere"), &s.sleeper("c")).await.expect_err("no sandbox");
    assert!(matches!(lost, RuntimeError::NotFound { what: "sandbox", .. }), "{lost}");
    let mut spec = s.sleeper("c");
    spec.image = "localhost/not-there:1".into();
    let lost = s.runtime.create_container(&sandbox.spec.id, &spec).await.expect_err("no image");
    assert!(matches!(lost, RuntimeError::NotFound { what: "image", .. }), "{lost}");
    assert_eq!(s.runtime.containers(Some(&sandbox.spec.id)).await.expect("list"), []);
}

pub(super) async fn a_container_moves_from_created_to_running_to_exited(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    let spec = s.sleeper("c");
    s.runtime.create_container(&sandbox.spec.id, &spec).await.expect("create");
    let made = s.info(&spec.id).await;
    assert_eq!((&made.state, made.started_at, made.pid), (&ContainerState::Created, 0, None));
    assert!(made.created_at > 0);
    s.runtime.start_container(&spec.id).await.expect("start");
    let running = s.info(&spec.id).await;
    assert_eq!(running.state, ContainerState::Running);
    assert!(running.started_at >= made.created_at && running.pid.is_some(), "{running:?}");
    s.runtime.stop_container(&spec.id, Duration::ZERO).await.expect("stop");
    let ended = s.info(&spec.id).await;
    let ContainerState::Exited(exit) = &ended.state else { panic!("a stop returns after the end: {ended:?}") };
    assert!(exit.finished_at >= running.started_at, "{ended:?}");
    assert_eq!((ended.pid, ended.started_at), (None, running.started_at));
}

pub(super) async fn creating_twice_is_creating_once(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    let spec = s.sleeper("c");
    for _ in 0..2 {
        s.runtime.create_container(&sandbox.spec.id, &spec).await.expect("create");
    }
    assert_eq!(s.runtime.containers(Some(&sandbox.spec.id)).await.expect("list").len(), 1);
}

pub(super) async fn a_container_does_not_change_its_sandbox(s: &mut Scope) {
    let (a, b) = (s.sandbox("a").await, s.sandbox("b").await);
    let spec = s.sleeper("c");
    s.runtime.create_container(&a.spec.id, &spec).await.expect("create");
    s.runtime.create_container(&b.spec.id, &spec).await.expect_err("elsewhere");
    assert_eq!(s.info(&spec.id).await.sandbox, a.spec.id);
}

pub(super) async fn starting_twice_is_starting_once(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    let spec = s.sleeper("c");
    s.start(&sandbox, &spec).await;
    let first = s.info(&spec.id).await;
    s.runtime.start_container(&spec.id).await.expect("start again");
    s.reopen().await;
    s.runtime.start_container(&spec.id).await.expect("start once more");
    assert_eq!(s.info(&spec.id).await, first);
}

pub(super) async fn an_ended_container_does_not_start_again(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    let spec = s.script("c", "exit 0");
    s.run(&sandbox, &spec).await;
    let refused = s.runtime.start_container(&spec.id).await.expect_err("it ended");
    assert!(matches!(refused, RuntimeError::WrongState { .. }), "{refused}");
}

pub(super) async fn a_missing_container_cannot_be_started(s: &mut Scope) {
    let refused = s.runtime.start_container(&s.id("c")).await.expect_err("missing");
    assert!(matches!(refused, RuntimeError::NotFound { what: "container", .. }), "{refused}");
}

pub(super) async fn a_missing_program_is_named_and_counts_as_an_end(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    let spec = s.command("c", &["/no-such-program"]);
    s.runtime.create_container(&sandbox.spec.id, &spec).await.expect("create");
    let refused = s.runtime.start_container(&spec.id).await.expect_err("no program");
    assert!(matches!(refused, RuntimeError::Container { operation: "start", .. }), "{refused}");
    assert!(refused.to_string().contains("/no-such-program"), "{refused}");
    assert_eq!(s.exit(&spec.id).await.code, 128);
    s.runtime.start_container(&spec.id).await.expect_err("it does not start again");
}

pub(super) async fn a_missing_mount_source_is_named(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    let mut spec = s.sleeper("c");
    let source = s.dir.path().join("not-there");
    spec.mounts = vec![Mount { source, target: "/data".into(), ..Mount::default() }];
    let refused = s.runtime.create_container(&sandbox.spec.id, &spec).await.expect_err("no source");
    assert!(refused.to_string().contains("not-there"), "{refused}");
    assert_eq!(s.runtime.container(&spec.id).await.expect("container"), None);
}

pub(super) async fn root_is_refused_where_it_must_not_be(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    let mut spec = s.sleeper("c");
    spec.security = Security { run_as_non_root: true, ..Security::default() };
    let refused = s.runtime.create_container(&sandbox.spec.id, &spec).await.expect_err("root");
    assert!(refused.to_string().contains("root"), "{refused}");
    spec.security.user = Some(1000);
    s.runtime.create_container(&sandbox.spec.id, &spec).await.expect("another user");
}

pub(super) async fn exit_codes_are_reported(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    for code in [0, 1, 3] {
        let (exit, _) = s.run(&sandbox, &s.script(&format!("c{code}"), &format!("exit {code}"))).await;
        assert_eq!((exit.code, exit.oom_killed), (code, false));
        assert!(exit.finished_at > 0);
    }
}

pub(super) async fn lists_are_filtered_by_sandbox(s: &mut Scope) {
    let (a, b) = (s.sandbox("pod-1").await, s.sandbox("pod-12").await);
    for (sandbox, name) in [(&a, "one"), (&b, "two"), (&b, "three")] {
        s.runtime.create_container(&sandbox.spec.id, &s.sleeper(name)).await.expect("create");
    }
    let names = |list: Vec<crate::runtime::ContainerInfo>| {
        let mut ids: Vec<String> = list.into_iter().map(|c| c.id).collect();
        ids.sort();
        ids
    };
    assert_eq!(names(s.runtime.containers(Some(&a.spec.id)).await.expect("list")), [s.id("one")]);
    assert_eq!(names(s.runtime.containers(Some(&b.spec.id)).await.expect("list")), [s.id("three"), s.id("two")]);
    assert_eq!(s.runtime.containers(Some(&s.id("pod"))).await.expect("list"), []);
    let all = names(s.runtime.containers(None).await.expect("list"));
    assert!(["one", "two", "three"].iter().all(|n| all.contains(&s.id(n))), "{all:?}");
}

pub(super) async fn labels_and_image_are_kept(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    let mut spec = s.sleeper("c");
    spec.labels = [("a/b".into(), "x".into()), ("long".into(), "y".repeat(5000))].into();
    s.runtime.create_container(&sandbox.spec.id, &spec).await.expect("create");
    s.reopen().await;
    let info = s.info(&spec.id).await;
    let image = s.runtime.image(s.image()).await.expect("image").expect("there");
    assert_eq!((info.labels, info.log_path, info.image), (spec.labels, spec.log_path, spec.image));
    assert_eq!((info.image_id, info.sandbox), (image.id, sandbox.spec.id));
}

pub(super) async fn a_stop_ends_a_container_and_works_twice(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    // Before its own program runs, a runtime's helper stands in for it, and ends in its own way.
    let spec = s.script("c", "echo up; exec sleep 1000000");
    s.start(&sandbox, &spec).await;
    s.wait_printed(&spec, "up").await;
    s.runtime.stop_container(&spec.id, Duration::from_millis(100)).await.expect("stop");
    let first = s.exit(&spec.id).await;
    assert!([137, 143].contains(&first.code), "{first:?}");
    s.runtime.stop_container(&spec.id, SOON).await.expect("stop again");
    assert_eq!(s.exit(&spec.id).await, first);
}

pub(super) async fn a_paused_container_stands_still_and_goes_on(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    let spec = s.script("c", "echo up; while true; do echo tick; sleep 0.01; done");
    s.start(&sandbox, &spec).await;
    s.wait_printed(&spec, "up").await;
    for _ in 0..2 {
        s.runtime.pause_container(&spec.id).await.expect("pause");
    }
    let info = s.info(&spec.id).await;
    assert!(info.paused && info.state == ContainerState::Running && info.pid.is_some(), "{info:?}");
    s.reopen().await;
    assert!(s.info(&spec.id).await.paused, "a reopened runtime knows");
    if s.runtime.capabilities().await.expect("capabilities").real_processes {
        // What its last words were is written soon; then nothing comes any more.
        let before = AtomicUsize::new(0);
        until("it says nothing any more", SOON, || async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = s.printed(&spec, "stdout").len();
            (before.swap(now, Ordering::Relaxed) == now).then_some(())
        })
        .await;
        s.runtime.resume_container(&spec.id).await.expect("resume");
        until("it goes on", SOON, || async {
            (s.printed(&spec, "stdout").len() > before.load(Ordering::Relaxed)).then_some(())
        })
        .await;
    }
    for _ in 0..2 {
        s.runtime.resume_container(&spec.id).await.expect("resume");
    }
    assert!(!s.info(&spec.id).await.paused);
    // A paused one ends as any other.
    s.runtime.pause_container(&spec.id).await.expect("pause once more");
    s.runtime.stop_container(&spec.id, Duration::from_millis(100)).await.expect("stop");
    s.exit(&spec.id).await;
    s.runtime.resume_container(&spec.id).await.expect("resume what has ended");
    s.runtime.pause_container(&spec.id).await.expect_err("it has ended");
    s.runtime.resume_container(&s.id("nowhere")).await.expect("resume what is missing");
    s.runtime.pause_container(&s.id("nowhere")).await.expect_err("missing");
    // And is removed as any other.
    let spec = s.sleeper("d");
    s.start(&sandbox, &spec).await;
    s.runtime.pause_container(&spec.id).await.expect("pause");
    s.runtime.remove_container(&spec.id).await.expect("remove");
    assert!(s.runtime.container(&spec.id).await.expect("look").is_none());
}

pub(super) async fn the_shortest_grace_wins(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    let spec = s.script("c", "trap '' TERM; echo up; while true; do sleep 1; done");
    s.start(&sandbox, &spec).await;
    let patient = s.runtime.stop_container(&spec.id, Duration::from_secs(3600));
    let hasty = s.runtime.stop_container(&spec.id, Duration::from_millis(10));
    let both = async { tokio::join!(patient, hasty) };
    let (patient, hasty) = tokio::time::timeout(SOON, both).await.expect("neither waits for the long grace");
    patient.expect("patient");
    hasty.expect("hasty");
    s.exit(&spec.id).await;
}

pub(super) async fn a_removed_container_is_gone_and_its_log_stays(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    let spec = s.script("c", "echo hello");
    s.run(&sandbox, &spec).await;
    let running = s.sleeper("d");
    s.start(&sandbox, &running).await;
    for id in [&spec.id, &running.id] {
        s.runtime.remove_container(id).await.expect("remove");
        s.runtime.remove_container(id).await.expect("remove again");
        assert_eq!(s.runtime.container(id).await.expect("container"), None);
    }
    assert_eq!(s.printed(&spec, "stdout"), "hello\n");
    let (exit, _) = s.run(&sandbox, &s.script("c", "exit 4")).await;
    assert_eq!(exit.code, 4, "the name is free again");
}

pub(super) async fn long_and_odd_container_names_work(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    for name in ["x".repeat(150), "a--b..c_1".to_owned()] {
        let spec = s.script(&name, "exit 6");
        let (exit, _) = s.run(&sandbox, &spec).await;
        assert_eq!(exit.code, 6);
        let listed = s.runtime.containers(Some(&sandbox.spec.id)).await.expect("list");
        assert!(listed.iter().any(|c| c.id == spec.id), "{listed:?}");
        s.runtime.remove_container(&spec.id).await.expect("remove");
    }
}

pub(super) async fn statistics_need_a_running_container(s: &mut Scope) {
    let missing = s.runtime.stats(&s.id("c")).await.expect_err("missing");
    assert!(matches!(missing, RuntimeError::NotFound { .. }), "{missing}");
    let sandbox = s.sandbox("a").await;
    let spec = s.sleeper("c");
    s.runtime.create_container(&sandbox.spec.id, &spec).await.expect("create");
    let early = s.runtime.stats(&spec.id).await.expect_err("not started");
    assert!(matches!(early, RuntimeError::WrongState { .. }), "{early}");
    s.runtime.start_container(&spec.id).await.expect("start");
    let stats = s.runtime.stats(&spec.id).await.expect("stats");
    assert!(stats.at > 0 && stats.pids > 0 && stats.memory_usage > 0, "{stats:?}");
    s.runtime.stop_container(&spec.id, Duration::ZERO).await.expect("stop");
    let late = s.runtime.stats(&spec.id).await.expect_err("ended");
    assert!(matches!(late, RuntimeError::WrongState { .. }), "{late}");
}

pub(super) async fn a_reopened_runtime_adopts_running_containers(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    let (running, made) = (s.sleeper("running"), s.sleeper("made"));
    s.start(&sandbox, &running).await;
    s.runtime.create_container(&sandbox.spec.id, &made).await.expect("create");
    let before = s.info(&running.id).await;
    s.reopen().await;
    assert_eq!(s.info(&running.id).await, before);
    assert_eq!(s.info(&made.id).await.state, ContainerState::Created);
    s.runtime.start_container(&made.id).await.expect("start what was made before");
    assert_eq!(s.info(&made.id).await.state, ContainerState::Running);
    s.runtime.stop_container(&running.id, Duration::ZERO).await.expect("stop");
    s.exit(&running.id).await;
}

pub(super) async fn an_end_that_nobody_saw_is_found_after_a_reopen(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    let gate = s.dir.path().join("gate");
    std::fs::create_dir(&gate).expect("mkdir");
    let mut spec = s.script("c", "sleep 1; exit 9");
    spec.mounts = vec![Mount { source: gate, target: "/gate".into(), ..Mount::default() }];
    s.start(&sandbox, &spec).await;
    s.reopen().await;
    assert_eq!(s.exit(&spec.id).await.code, 9);
    s.reopen().await;
    until("it is still known", SOON, || async { (s.exit(&spec.id).await.code == 9).then_some(()) }).await;
}
