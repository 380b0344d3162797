use super::*;
use crate::runtime::{Containers, ExecSpec, Images, Output, SandboxSpec, Sandboxes, Streams};
use crate::testkit::wait::until;

const BOUND: Duration = Duration::from_secs(60);

async fn with_container(fake: &FakeRuntime, id: &str, argv: &[&str], edit: impl FnOnce(&mut ContainerSpec)) {
    fake.pull("web:1", None, None).await.unwrap();
    fake.run_sandbox(&SandboxSpec { id: "s".into(), hostname: "host".into(), ..Default::default() }).await.unwrap();
    let mut spec = ContainerSpec {
        id: id.into(),
        image: "web:1".into(),
        command: argv.iter().map(ToString::to_string).collect(),
        ..Default::default()
    };
    edit(&mut spec);
    fake.create_container("s", &spec).await.unwrap();
    fake.start_container(id).await.unwrap();
}

async fn exit_of(fake: &FakeRuntime, id: &str) -> Exit {
    until("the process ends", BOUND, || async {
        match fake.container(id).await.unwrap()?.state {
            ContainerState::Exited(exit) => Some(exit),
            _ => None,
        }
    })
    .await
}

#[tokio::test]
async fn a_shell_script_prints_writes_and_exits() {
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeRuntime::default();
    let log = dir.path().join("c.log");
    let mount =
        crate::runtime::Mount { source: dir.path().into(), target: "/data".into(), read_only: false, propagate: false };
    with_container(&fake, "c", &["sh", "-c", "echo $A; echo x > /data/f; echo bad >&2 && exit 7"], |spec| {
        spec.log_path = log.clone();
        spec.env = vec![("A".into(), "hello".into())];
        spec.mounts = vec![mount];
    })
    .await;
    assert_eq!(exit_of(&fake, "c").await.code, 7);
    let text = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<&str> = text.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    assert_eq!(lines, ["stdout F hello", "stderr F bad"]);
    assert_eq!(std::fs::read_to_string(dir.path().join("f")).unwrap(), "x\n");
}

#[tokio::test(start_paused = true)]
async fn stop_waits_for_the_grace_then_kills() {
    let fake = FakeRuntime::default();
    fake.script(Which::Id("deaf".into()), Script::forever().ignoring_term());
    with_container(&fake, "polite", &["sleep", "infinity"], |_| ()).await;
    with_container(&fake, "deaf", &[], |_| ()).await;
    let start = tokio::time::Instant::now();
    fake.stop_container("polite", Duration::from_secs(30)).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(exit_of(&fake, "polite").await.code, 143);
    fake.stop_container("deaf", Duration::from_secs(30)).await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(30));
    assert_eq!(exit_of(&fake, "deaf").await.code, 137);
}

#[tokio::test]
async fn faults_strike_as_often_as_asked_and_calls_are_recorded() {
    let fake = FakeRuntime::default();
    let error = RuntimeError::Pull { image: "web:1".into(), cause: "no network".into() };
    fake.fail(FakeOp::Pull, "web", Some(2), error);
    for _ in 0..2 {
        fake.pull("web:1", None, None).await.unwrap_err();
    }
    fake.pull("web:1", None, None).await.unwrap();
    assert_eq!(fake.count(FakeOp::Pull, "web:1"), 3);
    fake.pull("registry.invalid/x", None, None).await.unwrap_err();
    assert!(matches!(fake.pull("Bad Name", None, None).await, Err(RuntimeError::InvalidImageName { .. })));
}

#[tokio::test]
async fn exec_answers_by_script_by_shell_or_by_echo() {
    let fake = FakeRuntime::default();
    with_container(&fake, "c", &["sleep", "infinity"], |_| ()).await;
    fake.answer(Which::Any, "healthz", ExecAnswer { stdout: "down".into(), code: 1, ..Default::default() });
    for (line, want, code) in
        [("cat /healthz", "down", 1), ("hostname", "host\n", 0), ("nginx -v", "nginx -v\n", 0), ("false", "", 1)]
    {
        let command = line.split(' ').map(str::to_owned).collect();
        let mut session = fake.exec("c", ExecSpec { command, ..Default::default() }).await.unwrap();
        let mut text = String::new();
        while let Some(Output::Stdout(bytes)) = session.output.recv().await {
            text.push_str(&String::from_utf8_lossy(&bytes));
        }
        assert_eq!((text.as_str(), session.exit.await.unwrap().unwrap()), (want, code), "{line}");
    }
}

#[tokio::test]
async fn a_missing_program_an_end_and_a_reboot_show_in_the_state() {
    let fake = FakeRuntime::default();
    with_container(&fake, "c", &[], |_| ()).await;
    let mut events = fake.events().await.unwrap();
    assert!(fake.out_of_memory("c"));
    assert!(exit_of(&fake, "c").await.oom_killed);
    assert_eq!(events.next().await, Some(RuntimeEvent::Container { sandbox: "s".into(), id: "c".into() }));
    let missing =
        ContainerSpec { id: "m".into(), image: "web:1".into(), command: vec!["/no-such".into()], ..Default::default() };
    fake.create_container("s", &missing).await.unwrap();
    fake.start_container("m").await.unwrap_err();
    with_container(&fake, "d", &[], |_| ()).await;
    fake.reboot();
    assert_eq!(exit_of(&fake, "d").await.code, 255);
    assert!(!fake.sandboxes().await.unwrap()[0].ready);
    fake.remove_sandbox("s").await.unwrap();
    assert!(fake.snapshot().is_empty());
}
