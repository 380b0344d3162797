use super::*;
use crate::node::ids;
use crate::runtime::{ContainerState, Exit};
use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Value, json};

/// Milliseconds of the test's present.
const NOW: i64 = 1_000_000_000;

struct World {
    pod: Pod,
    gone: bool,
    sandbox: SandboxState,
    containers: Vec<ContainerInfo>,
    memory: Memory,
}

impl World {
    fn new(spec: Value) -> Self {
        let pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": spec}));
        Self {
            pod: pod.unwrap(),
            gone: false,
            sandbox: SandboxState::Ready,
            containers: vec![],
            memory: Memory::default(),
        }
    }

    fn status_is(mut self, status: Value) -> Self {
        self.pod.status = Some(serde_json::from_value(status).unwrap());
        self
    }

    fn deleted(mut self, grace: i64) -> Self {
        self.pod.metadata.deletion_timestamp = Some(time(NOW + grace * 1000));
        self.pod.metadata.deletion_grace_period_seconds = Some(grace);
        self
    }

    fn with(mut self, name: &str, attempt: u32, state: ContainerState) -> Self {
        self.containers.push(ContainerInfo {
            id: ids::container_id("u", name, attempt),
            sandbox: "u".into(),
            started_at: if state == ContainerState::Created { 0 } else { NOW - 60_000 },
            state,
            labels: [
                (ids::CONTAINER_NAME.to_owned(), name.to_owned()),
                (ids::ATTEMPT.to_owned(), attempt.to_string()),
                (ids::BACKOFF_STEP.to_owned(), attempt.to_string()),
            ]
            .into(),
            ..ContainerInfo::default()
        });
        self
    }

    fn remember(mut self, edit: impl FnOnce(&mut Memory)) -> Self {
        edit(&mut self.memory);
        self
    }

    fn view<T>(&self, ask: impl FnOnce(&View<'_>) -> T) -> T {
        let backoff = Backoff::default();
        ask(&View {
            pod: &self.pod,
            gone: self.gone,
            sandbox: self.sandbox,
            containers: &self.containers,
            memory: &self.memory,
            backoff: &backoff,
            now: backoff::from_millis(NOW),
        })
    }

    /// What is to be done, in short.
    fn does(&self) -> Vec<String> {
        self.view(|view| next(view).actions.iter().map(short).collect())
    }

    fn wakes_in(&self) -> Option<i64> {
        self.view(|view| next(view).wake.map(|at| at.as_second() - NOW / 1000))
    }

    fn shows(&self) -> PodStatus {
        self.view(|view| status(view, &StatusContext { scheme: "fake".into(), ..StatusContext::default() }))
    }

    fn phase(&self) -> String {
        self.shows().phase.unwrap()
    }

    /// `name: state`, in short.
    fn states(&self) -> Vec<String> {
        let status = self.shows();
        let all =
            status.init_container_statuses.into_iter().flatten().chain(status.container_statuses.into_iter().flatten());
        all.map(|c| {
            let state = c.state.unwrap();
            let text = if let Some(waiting) = state.waiting {
                waiting.reason.unwrap()
            } else if let Some(ended) = state.terminated {
                format!("{} {}", ended.reason.unwrap(), ended.exit_code)
            } else {
                "running".to_owned()
            };
            format!("{} {text}{}", c.name, if c.ready { " ready" } else { "" })
        })
        .collect()
    }
}

fn time(millis: i64) -> k8s_openapi::apimachinery::pkg::apis::meta::v1::Time {
    k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(backoff::from_millis(millis))
}

fn short(action: &Action) -> String {
    match action {
        Action::Start { container, attempt, step } => format!("start {container} {attempt} step {step}"),
        Action::Stop { container, grace, .. } => format!("stop {container} {}s", grace.as_secs()),
        Action::Remove { id } => format!("remove {id}"),
        Action::Doom { reason, .. } => format!("doom {reason}"),
        Action::Pause { container, pause, .. } => format!("{} {container}", if *pause { "pause" } else { "resume" }),
        other => format!("{other:?}").to_lowercase(),
    }
}

fn exited(code: i32, ago_seconds: i64) -> ContainerState {
    ContainerState::Exited(Exit { code, oom_killed: false, finished_at: NOW - ago_seconds * 1000 })
}

fn two() -> Value {
    json!({"containers": [{"name": "a"}, {"name": "b"}]})
}

fn one(policy: &str) -> Value {
    json!({"restartPolicy": policy, "containers": [{"name": "a", "image": "i"}]})
}

use ContainerState::{Created, Running};

#[test]
fn a_new_pod_gets_a_sandbox_then_all_its_containers() {
    let mut world = World::new(two());
    world.sandbox = SandboxState::Absent;
    assert_eq!(world.does(), ["setup"]);
    assert_eq!(
        (world.phase().as_str(), world.states()),
        ("Pending", vec!["a ContainerCreating".into(), "b ContainerCreating".into()])
    );
    world.sandbox = SandboxState::Ready;
    assert_eq!(world.does(), ["start a 0 step 0", "start b 0 step 0"]);
    let world = world.with("a", 0, Running).remember(|m| {
        let _ = m.busy.insert("b".into(), Busy::Starting);
    });
    assert_eq!(world.does(), [""; 0]);
    assert_eq!(world.phase(), "Pending");
    let world = world.with("b", 0, Running);
    assert_eq!(
        (world.phase().as_str(), world.states()),
        ("Running", vec!["a running ready".into(), "b running ready".into()])
    );
}

#[test]
fn a_made_container_is_started_after_the_agents_death() {
    let world = World::new(one("Always")).with("a", 3, Created);
    assert_eq!(world.does(), ["start a 3 step 3"]);
}

#[test]
fn restarts_back_off_and_say_so() {
    for (attempt, ago, does, wakes, state) in [
        (0, 0, vec!["start a 1 step 1"], None, "a Error 1"),
        (1, 4, vec![], Some(6), "a CrashLoopBackOff"),
        (1, 10, vec!["start a 2 step 2"], None, "a Error 1"),
        (3, 39, vec![], Some(1), "a CrashLoopBackOff"),
        (9, 100, vec![], Some(200), "a CrashLoopBackOff"),
    ] {
        let world = World::new(one("Always")).with("a", attempt, exited(1, ago));
        assert_eq!(world.does(), does, "attempt {attempt}, {ago} s ago");
        assert_eq!((world.wakes_in(), world.states()), (wakes, vec![state.to_owned()]));
        assert_eq!(world.phase(), "Running");
    }
}

#[test]
fn a_long_life_resets_the_back_off() {
    let mut world = World::new(one("Always")).with("a", 7, exited(1, 1));
    world.containers[0].started_at = NOW - 700_000;
    assert_eq!(world.does(), ["start a 8 step 1"]);
}

#[test]
fn policies_decide_about_restarts_and_phases() {
    for (policy, code, does, phase) in [
        ("Always", 0, "start a 1 step 1", "Running"),
        ("OnFailure", 0, "release", "Succeeded"),
        ("OnFailure", 1, "start a 1 step 1", "Running"),
        ("Never", 0, "release", "Succeeded"),
        ("Never", 1, "release", "Failed"),
    ] {
        let world = World::new(one(policy)).with("a", 0, exited(code, 0));
        assert_eq!((world.does(), world.phase().as_str()), (vec![does.to_owned()], phase), "{policy} {code}");
    }
}

#[test]
fn a_pod_that_ended_stays_ended() {
    let world = World::new(one("Always")).status_is(json!({"phase": "Failed", "containerStatuses": [
        {"name": "a", "image": "i", "imageID": "", "ready": false, "restartCount": 2,
         "state": {"terminated": {"exitCode": 3, "reason": "Error"}}}]}));
    let world = world.remember(|m| m.released = true);
    assert_eq!(world.does(), [""; 0]);
    assert_eq!((world.phase().as_str(), world.states()), ("Failed", vec!["a Error 3".to_owned()]));
}

#[test]
fn init_containers_run_in_order_and_sidecars_stay() {
    let spec = json!({"initContainers": [{"name": "i1"}, {"name": "side", "restartPolicy": "Always",
        "startupProbe": {"exec": {"command": ["x"]}}}, {"name": "i2"}], "containers": [{"name": "m"}]});
    let world = World::new(spec);
    assert_eq!(world.does(), ["start i1 0 step 0"]);
    assert_eq!(world.states()[3], "m PodInitializing");
    let world = world.with("i1", 0, exited(0, 5));
    assert_eq!(world.does(), ["start side 0 step 0"]);
    let world = world.with("side", 0, Running);
    assert_eq!(world.does(), [""; 0], "its startup probe is still open");
    let world = world.remember(|m| {
        m.health.insert("u-side-0".into(), Health { startup: Some(true), ..Health::default() });
    });
    assert_eq!(world.does(), ["start i2 0 step 0"]);
    let world = world.with("i2", 0, exited(0, 1));
    assert_eq!(world.does(), ["start m 0 step 0"]);
    assert_eq!(world.phase(), "Pending");
    let mut world = world.with("m", 0, Running);
    assert_eq!(world.phase(), "Running");
    world.containers.retain(|c| ids::name(c) != "i1");
    assert_eq!(world.does(), [""; 0], "lost init containers do not run again beside main ones");
    let mut ended = world.with("x", 0, Running);
    ended.containers.iter_mut().find(|c| ids::name(c) == "side").unwrap().state = exited(1, 0);
    assert_eq!(ended.does(), ["start side 1 step 1"]);
}

#[test]
fn a_failed_init_container_fails_a_pod_that_never_restarts() {
    let spec =
        |policy| json!({"restartPolicy": policy, "initContainers": [{"name": "i"}], "containers": [{"name": "m"}]});
    let world = World::new(spec("Never")).with("i", 0, exited(2, 0));
    assert_eq!((world.does(), world.phase().as_str()), (vec!["release".to_owned()], "Failed"));
    let world = World::new(spec("Always")).with("i", 0, exited(2, 0));
    assert_eq!((world.does(), world.phase().as_str()), (vec!["start i 1 step 1".to_owned()], "Pending"));
}

#[test]
fn sidecars_end_after_main_containers_and_in_reverse() {
    let spec = json!({"initContainers": [{"name": "s1", "restartPolicy": "Always"}, {"name": "s2", "restartPolicy": "Always"}],
        "containers": [{"name": "m"}]});
    let mut world = World::new(spec).with("s1", 0, Running).with("s2", 0, Running).with("m", 0, Running).deleted(30);
    assert_eq!(world.does(), ["stop m 30s"]);
    world.memory.busy.insert("m".into(), Busy::Stopping(backoff::from_millis(NOW + 30_000)));
    assert_eq!(world.does(), [""; 0]);
    world.memory.busy.clear();
    world.containers[2].state = exited(0, 0);
    assert_eq!(world.does(), ["stop s2 30s"]);
    world.containers[1].state = exited(0, 0);
    assert_eq!(world.does(), ["stop s1 30s"]);
    world.containers[0].state = exited(0, 0);
    assert_eq!(world.does(), ["teardown"]);
    world.memory.torn_down = true;
    assert_eq!(world.does(), ["finish"]);
}

#[test]
fn a_shorter_grace_stops_again_and_a_longer_one_does_not() {
    let stopping = |seconds: i64| Busy::Stopping(backoff::from_millis(NOW + seconds * 1000));
    let world = |grace, until| {
        World::new(one("Always")).with("a", 0, Running).deleted(grace).remember(|m| {
            let _ = m.busy.insert("a".into(), stopping(until));
        })
    };
    assert_eq!(world(1, 30).does(), ["stop a 1s"]);
    assert_eq!(world(30, 30).does(), [""; 0]);
    assert_eq!(world(30, 5).does(), [""; 0]);
}

#[test]
fn a_pod_without_a_record_is_ended_quickly() {
    let mut world = World::new(one("Always")).with("a", 0, Running);
    world.gone = true;
    assert_eq!(world.does(), ["stop a 2s"]);
    world.containers[0].state = exited(137, 0);
    assert_eq!(world.does(), ["teardown"]);
}

#[test]
fn a_container_lost_behind_our_back_comes_back_with_the_next_number() {
    let recorded = json!({"phase": "Running", "containerStatuses": [{"name": "a", "image": "i", "imageID": "",
        "ready": true, "restartCount": 4, "state": {"running": {}}}]});
    let world = World::new(one("Always")).status_is(recorded.clone());
    assert_eq!(world.does(), ["start a 5 step 1"]);
    let never = World::new(one("Never")).status_is(recorded);
    assert_eq!((never.does(), never.phase().as_str()), (vec!["release".to_owned()], "Failed"));
    assert_eq!(never.states(), ["a ContainerStatusUnknown 137"]);
}

#[test]
fn a_broken_sandbox_is_made_anew_only_for_what_should_run() {
    let mut world = World::new(one("Always")).with("a", 0, exited(255, 0));
    world.sandbox = SandboxState::Broken;
    assert_eq!(world.does(), ["rebuild"]);
    world.containers.clear();
    assert_eq!(world.does(), ["setup"]);
    let mut done = World::new(one("Never")).with("a", 0, exited(0, 0));
    done.sandbox = SandboxState::Broken;
    assert_eq!(done.does(), ["release"]);
}

#[test]
fn unhealthy_or_changed_containers_are_stopped() {
    let spec = json!({"terminationGracePeriodSeconds": 7, "containers": [{"name": "a", "image": "new"}]});
    let mut world = World::new(spec).with("a", 0, Running);
    world.containers[0].labels.insert(ids::IMAGE.into(), "new".into());
    assert_eq!(world.does(), [""; 0]);
    world.memory.health.insert("u-a-0".into(), Health { unhealthy: Some("dead".into()), ..Health::default() });
    assert_eq!(world.does(), ["stop a 7s"]);
    world.memory.health.clear();
    world.containers[0].labels.insert(ids::IMAGE.into(), "old".into());
    assert_eq!(world.does(), ["stop a 7s"]);
}

#[test]
fn failures_wait_and_change_their_name() {
    let failure = |reason, ago: i64| Failure {
        reason,
        message: "m".into(),
        count: 1,
        at: backoff::from_millis(NOW - ago * 1000),
        retry_at: backoff::from_millis(NOW - ago * 1000 + 10_000),
    };
    for (reason, ago, does, state, wakes) in [
        ("ErrImagePull", 0, vec![], "a ErrImagePull", Some(2)),
        ("ErrImagePull", 5, vec![], "a ImagePullBackOff", Some(5)),
        ("ErrImagePull", 10, vec!["start a 0 step 0"], "a ImagePullBackOff", None),
        ("CreateContainerConfigError", 1, vec![], "a CreateContainerConfigError", Some(1)),
    ] {
        let world = World::new(one("Always")).remember(|m| drop(m.failures.insert("a".into(), failure(reason, ago))));
        assert_eq!((world.does(), world.wakes_in()), (does.into_iter().map(str::to_owned).collect(), wakes));
        assert_eq!((world.states(), world.phase().as_str()), (vec![state.to_owned()], "Pending"));
    }
    let world = World::new(one("Always"))
        .with("a", 0, Created)
        .remember(|m| drop(m.failures.insert("a".into(), failure("RunContainerError", 10))));
    assert_eq!(world.does(), ["start a 1 step 1"]);
}

#[test]
fn time_runs_out() {
    let spec = json!({"activeDeadlineSeconds": 100, "containers": [{"name": "a"}]});
    let started = |ago: i64| json!({"startTime": backoff::from_millis(NOW - ago * 1000).to_string()});
    let world = World::new(spec.clone()).status_is(started(40)).with("a", 0, Running);
    assert_eq!((world.does(), world.wakes_in()), (vec![], Some(60)));
    let world = World::new(spec).status_is(started(100)).with("a", 0, Running);
    assert_eq!(world.does(), ["doom DeadlineExceeded"]);
    let world = world.remember(|m| m.doom = Some(("DeadlineExceeded", "late".into())));
    assert_eq!(world.does(), ["stop a 30s"]);
    let status = world.shows();
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("DeadlineExceeded")));
}

#[test]
fn conditions_are_truthful_and_keep_their_times() {
    let spec = json!({"readinessGates": [{"conditionType": "x/y"}],
        "containers": [{"name": "a", "readinessProbe": {"exec": {"command": ["x"]}}}]});
    let world = World::new(spec).with("a", 0, Running).status_is(json!({"conditions": [
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2001-01-01T00:00:00Z"}]}));
    let get = |world: &World, kind: &str| {
        let condition = world.shows().conditions.unwrap().into_iter().find(|c| c.type_ == kind).unwrap();
        (condition.status, condition.reason.unwrap_or_default())
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(get(&world, "ContainersReady"), pair("False", "ContainersNotReady"));
    let scheduled = world.shows().conditions.unwrap().remove(0);
    assert_eq!(scheduled.last_transition_time.unwrap().0.to_string(), "2001-01-01T00:00:00Z");
    let world = world.remember(|m| {
        m.health.insert("u-a-0".into(), Health { ready: Some(true), ..Health::default() });
    });
    assert_eq!(get(&world, "ContainersReady"), pair("True", ""));
    assert_eq!(get(&world, "Ready"), pair("False", "ReadinessGatesNotReady"));
    let world = world.status_is(json!({"conditions": [{"type": "x/y", "status": "True"}]}));
    assert_eq!(get(&world, "Ready"), pair("True", ""));
}

#[test]
fn last_state_and_restart_count_tell_the_life_before() {
    let mut world =
        World::new(one("Always")).with("a", 1, exited(1, 5)).with("a", 2, Running).with("a", 0, exited(9, 60));
    world.containers[0].state = ContainerState::Exited(Exit { code: 137, oom_killed: true, finished_at: NOW - 5000 });
    assert_eq!(world.does(), ["remove u-a-0"]);
    let status = world.shows().container_statuses.unwrap().remove(0);
    assert_eq!(status.restart_count, 2);
    assert_eq!(status.container_id.as_deref(), Some("fake://u-a-2"));
    let last = status.last_state.unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (137, Some("OOMKilled")));
}

fn pod_failed(reason: &'static str) -> Failure {
    let (at, retry_at) = (backoff::from_millis(NOW), backoff::from_millis(NOW + 30_000));
    Failure { reason, message: "m".into(), count: 9, at, retry_at }
}

#[test]
fn a_pod_that_could_not_be_set_up_is_torn_down_at_once() {
    let world = |reason| World::new(two()).deleted(30).remember(|m| m.setup_failure = Some(pod_failed(reason)));
    for reason in ["FailedMount", "FailedCreatePodSandBox"] {
        assert_eq!(world(reason).does(), ["teardown"], "{reason}");
    }
    let failed = world(FAILED_KILL);
    assert_eq!((failed.does(), failed.wakes_in()), (vec![], Some(30)));
}

#[test]
fn nobody_touches_volumes_that_are_brought_up_to_date() {
    let refreshed = |mut world: World| {
        world.memory.refreshing = true;
        world.does()
    };
    let none: [&str; 0] = [];
    assert_eq!(refreshed(World::new(two()).deleted(30)), none);
    assert_eq!(refreshed(World::new(one("Never")).with("a", 0, exited(0, 5))), none);
    let mut absent = World::new(two());
    absent.sandbox = SandboxState::Absent;
    assert_eq!(refreshed(absent), none);
    let stops = World::new(one("Always")).with("a", 0, Running).deleted(30);
    assert_eq!(refreshed(stops), ["stop a 30s"]);
}

#[test]
fn kernel_parameters_that_are_not_safe_fail_the_pod() {
    let with = |name: &str, host: &str| {
        let mut world = World::new(json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem", "value": "1"},
            {"name": name, "value": "1"}]}, host: true, "containers": [{"name": "a"}]}));
        world.sandbox = SandboxState::Absent;
        world.does()
    };
    for name in ["kernel.core_pattern", "net.core.somaxconn", "kernel/core_pattern", "net.ipv4.tcp_rmem.x"] {
        assert_eq!(with(name, "hostPID"), ["doom SysctlForbidden"], "{name}");
    }
    assert_eq!(with("kernel.shm_rmid_forced", "hostPID"), ["setup"]);
    assert_eq!(with("net/ipv4/tcp_syncookies", "hostPID"), ["setup"]);
    assert_eq!(with("kernel.shm_rmid_forced", "hostIPC"), ["doom SysctlForbidden"]);
    assert_eq!(
        with("kernel.shm_rmid_forced", "hostNetwork"),
        ["doom SysctlForbidden"],
        "net.ipv4.tcp_rmem is the host's"
    );
}

#[test]
fn a_pod_that_is_to_pause_is_not_ready_and_is_paused_once() {
    let world = |wanted: bool, paused: bool| {
        let mut world = World::new(one("Always")).with("a", 0, Running);
        world.containers[0].paused = paused;
        let annotations = wanted.then(|| [(crate::node::PAUSED.to_owned(), "true".to_owned())].into());
        world.pod.metadata.annotations = annotations;
        world
    };
    let ready = |world: &World| {
        let status = world.view(|view| status(view, &StatusContext::default()));
        status.container_statuses.unwrap()[0].ready
    };
    for (wanted, paused, does, is_ready) in [
        (false, false, &[][..], true),
        (true, false, &["pause a"], false),
        (true, true, &[], false),
        (false, true, &["resume a"], false),
    ] {
        let world = world(wanted, paused);
        assert_eq!(
            (&world.does()[..], ready(&world)),
            (&does.iter().map(|d| (*d).to_owned()).collect::<Vec<_>>()[..], is_ready)
        );
    }
    // One thing at a time, and no end before it.
    let turning = world(true, false).remember(|memory| {
        memory.busy.insert("a".into(), Busy::Turning);
    });
    assert!(turning.does().is_empty());
    assert!(turning.deleted(30).does().is_empty());
    assert_eq!(world(true, true).deleted(30).does(), ["stop a 30s"]);
}
