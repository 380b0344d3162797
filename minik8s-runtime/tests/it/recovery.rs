//! What happens behind the runtime's back, and what is left afterwards.

use crate::harness::{Harness, able};
use futures::StreamExt;
use minik8s_core::runtime::{ContainerState, Containers, Runtime, RuntimeEvent, SandboxSpec, Sandboxes};
use minik8s_core::testkit::frozen::stop_still;
use minik8s_core::testkit::wait::until;
use minik8s_runtime::PrivateContainerd;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

fn kill_9(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("kill");
}

fn parent(pid: u32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    let fields = stat.rsplit_once(')').expect("name").1;
    fields.split_whitespace().nth(1).and_then(|f| f.parse().ok()).expect("parent")
}

/// Nothing of any pod is left: no pin, no group, no mount, no record. Spares are nobody's.
fn assert_clean(h: &Harness) {
    for dir in [h.config.state.join("sandboxes"), h.config.state.join("io"), h.config.root.join("containers")] {
        let left: Vec<_> = std::fs::read_dir(&dir).into_iter().flatten().flatten().map(|e| e.file_name()).collect();
        assert!(left.is_empty(), "left in {}: {left:?}", dir.display());
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    for dir in [h.dir.path(), h.config.state.parent().expect("state")] {
        let dir = dir.to_string_lossy().into_owned();
        let left: Vec<&str> = mounts.lines().filter(|l| l.contains(&dir) && !l.contains("/rt/spares/")).collect();
        assert!(left.is_empty(), "mounts are left: {left:?}");
    }
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        let group = hierarchy.path().join(&h.config.cgroup_root);
        assert!(!group.exists(), "left: {}", group.display());
    }
    assert!(!Path::new("/sys/fs/cgroup").join(&h.config.cgroup_root).exists());
}

async fn sleeper(h: &Harness, id: &str) -> u32 {
    h.run("pod", &h.script(id, "exec sleep 100000")).await;
    h.runtime.container(id).await.expect("container").and_then(|c| c.pid).expect("a process id")
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_that_vanish_leave_nothing() {
    if !able() {
        return;
    }
    let h = Harness::with_image().await;
    h.sandbox("pod").await;
    sleeper(&h, "gone").await;
    sleeper(&h, "half").await;
    h.ctr(&["task", "rm", "-f", "gone"]);
    h.ctr(&["container", "rm", "gone"]);
    h.ctr(&["task", "rm", "-f", "half"]);
    until("the container is missed", SOON, || async {
        h.runtime.container("gone").await.expect("container").is_none().then_some(())
    })
    .await;
    let half = h.runtime.container("half").await.expect("container").expect("its record is there");
    assert!(matches!(half.state, ContainerState::Exited(_)), "{half:?}");
    h.runtime.stop_container("half", Duration::ZERO).await.expect("stop");
    h.runtime.remove_container("half").await.expect("remove");
    h.runtime.remove_sandbox("pod").await.expect("remove");
    assert_clean(&h);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_shim_is_an_end() {
    if !able() {
        return;
    }
    let h = Harness::with_image().await;
    h.sandbox("pod").await;
    let pid = sleeper(&h, "c").await;
    kill_9(parent(pid));
    until("the container has ended", SOON, || async {
        let info = h.runtime.container("c").await.expect("container").expect("its record is there");
        matches!(info.state, ContainerState::Exited(_)).then_some(())
    })
    .await;
    h.runtime.remove_sandbox("pod").await.expect("remove");
    assert_clean(&h);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_that_dies_while_its_container_is_removed_does_not_stop_the_removal() {
    if !able() {
        return;
    }
    let h = Harness::with_image().await;
    h.sandbox("pod").await;
    for round in 0..3 {
        let id = format!("c{round}");
        let shim = parent(sleeper(&h, &id).await);
        // Stopped, it leaves the first request of the removal without an answer; killed, it takes the connection away.
        stop_still(shim.unsigned_abs());
        let mut removal = Box::pin(h.runtime.remove_container(&id));
        let early = tokio::time::timeout(Duration::from_millis(300), &mut removal).await;
        assert!(early.is_err(), "a shim that is stopped answers nothing: {early:?}");
        kill_9(shim);
        removal.await.expect("remove");
        assert!(h.runtime.container(&id).await.expect("container").is_none());
    }
    h.runtime.remove_sandbox("pod").await.expect("remove");
    assert_clean(&h);
}

#[tokio::test(flavor = "multi_thread")]
async fn shims_that_die_at_any_moment_do_not_stop_the_removal_of_pods() {
    if !able() {
        return;
    }
    let h = Harness::with_image().await;
    let one = |n: u32| {
        let h = &h;
        async move {
            let pod = format!("pod-{n}");
            let spec = SandboxSpec { id: pod.clone(), share_pids: n.is_multiple_of(2), ..SandboxSpec::default() };
            h.runtime.run_sandbox(&spec).await.expect("sandbox");
            let id = format!("c{n}");
            h.run(&pod, &h.script(&id, "exec sleep 100000")).await;
            let pid = h.runtime.container(&id).await.expect("container").and_then(|c| c.pid).expect("a process id");
            let shim = parent(pid);
            let mut removal = Box::pin(h.runtime.remove_sandbox(&pod));
            match tokio::time::timeout(Duration::from_millis(u64::from(n) * 7), &mut removal).await {
                Ok(removed) => removed.expect("remove"),
                Err(_) => {
                    // It may have gone by itself by now.
                    let _ = kill(Pid::from_raw(shim), Signal::SIGKILL);
                    removal.await.expect("remove");
                }
            }
        }
    };
    futures::future::join_all((0..12).map(one)).await;
    assert_clean(&h);
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_outlive_a_killed_containerd() {
    if !able() {
        return;
    }
    let mut h = Harness::with_image().await;
    h.sandbox("pod").await;
    let pid = sleeper(&h, "c").await;
    let mut events = h.runtime.events().await.expect("events");
    h.restart_containerd().await;
    let resync = async { while events.next().await.is_some_and(|e| e != RuntimeEvent::Resync) {} };
    tokio::time::timeout(SOON, resync).await.expect("it is said that events may be lost");
    let info = h.runtime.container("c").await.expect("container").expect("it is there");
    assert_eq!((info.state, info.pid), (ContainerState::Running, Some(pid)));
    h.runtime.stop_container("c", Duration::ZERO).await.expect("stop");
    let again = h.again().await;
    assert!(again.sandboxes().await.expect("sandboxes").iter().all(|s| s.ready));
    again.remove_sandbox("pod").await.expect("remove");
    assert_clean(&h);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pods_at_once_come_and_go() {
    if !able() {
        return;
    }
    let h = Harness::with_image().await;
    let one = |n: usize| {
        let h = &h;
        async move {
            let pod = format!("pod-{n}");
            h.sandbox(&pod).await;
            h.run(&pod, &h.script(&format!("c{n}"), "exec sleep 100000")).await;
            h.runtime.remove_sandbox(&pod).await.expect("remove");
        }
    };
    futures::future::join_all((0..12).map(one)).await;
    assert_clean(&h);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_containerd_whose_number_was_never_written_is_found() {
    if !able() {
        return;
    }
    let dir = tempfile::tempdir().expect("dir");
    let home = dir.path().join("containerd");
    let work = move || {
        let daemon = PrivateContainerd::start(&home).expect("start");
        let pid_file = daemon.socket().with_file_name("pid");
        std::fs::remove_file(&pid_file).expect("remove");
        let found = PrivateContainerd::find(&home).map(|d| d.pid());
        let again = PrivateContainerd::start(&home).map(|d| d.pid()).ok();
        let pid = daemon.pid();
        daemon.destroy().expect("destroy");
        assert_eq!((found, again), (Some(pid), Some(pid)));
        // The number cannot be written: then nothing may run.
        std::fs::create_dir_all(&pid_file).expect("in the way");
        PrivateContainerd::start(&home).expect_err("no room for the number");
        let left = PrivateContainerd::find(&home);
        std::fs::remove_dir_all(pid_file.parent().expect("state")).expect("remove");
        if let Some(left) = left {
            let pid = left.pid();
            left.destroy().expect("destroy");
            panic!("process {pid} was left");
        }
    };
    tokio::task::spawn_blocking(work).await.expect("thread");
}
