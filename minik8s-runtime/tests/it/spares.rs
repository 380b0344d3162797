//! Sandboxes made ahead: what pods get of them, and what is left of them.

use crate::harness::{Harness, able, busybox};
use minik8s_core::runtime::{ContainerState, Containers, Images, RuntimeError, SandboxInfo, SandboxSpec, Sandboxes};
use minik8s_core::testkit::wait::until;
use minik8s_runtime::{ContainerdConfig, ContainerdRuntime};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
const PORTS: &str = "net.ipv4.ip_unprivileged_port_start";
const MEMORY: &str = "kernel.shmmni";

/// The kernel's number of a pinned namespace.
fn number(pin: &Path) -> u64 {
    std::fs::metadata(pin).expect("a pin").ino()
}

/// The network namespaces of spares that are ready. One that is taken or removed meanwhile is none.
fn spares(config: &ContainerdConfig) -> BTreeSet<u64> {
    let all = std::fs::read_dir(config.state.join("spares")).into_iter().flatten().flatten();
    let ready = all.filter(|entry| entry.file_name().to_string_lossy().starts_with("ready-"));
    ready.filter_map(|entry| std::fs::metadata(entry.path().join("net")).ok()).map(|meta| meta.ino()).collect()
}

fn names(config: &ContainerdConfig) -> BTreeSet<std::ffi::OsString> {
    let all = std::fs::read_dir(config.state.join("spares")).expect("spares");
    all.flatten().map(|entry| entry.file_name()).collect()
}

async fn until_spares(config: &ContainerdConfig, count: usize) -> BTreeSet<u64> {
    until("spares are ready", SOON, || async { Some(spares(config)).filter(|ready| ready.len() == count) }).await
}

/// Mounts below the runtime's volatile directory.
fn mounts(config: &ContainerdConfig) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let below = format!("{}/", config.state.display());
    table.lines().filter_map(|l| l.split(' ').nth(4)).filter(|t| t.starts_with(&below)).map(str::to_owned).collect()
}

fn named(id: &str) -> SandboxSpec {
    SandboxSpec { id: id.into(), hostname: format!("host-{id}"), ..SandboxSpec::default() }
}

async fn make(runtime: &ContainerdRuntime, spec: &SandboxSpec) -> (SandboxInfo, u64) {
    let info = runtime.run_sandbox(spec).await.expect("sandbox");
    assert!(info.ready, "{info:?}");
    let net = number(info.netns.as_deref().expect("a network namespace"));
    (info, net)
}

/// What a container of the sandbox sees of its namespaces, and leaves there.
async fn look(h: &Harness, runtime: &ContainerdRuntime, sandbox: &str) -> String {
    let script = format!(
        "hostname; cat /etc/hostname; ls /dev/shm; df -k /dev/shm | awk 'NR > 1 {{print $2}}'; touch /dev/shm/mark; \
         ip -o link | grep -c .; ip -o link show lo | grep -o '<.*>'; nc -l -p 80 -e echo answered & \
         until nc 127.0.0.1 80 </dev/null 2>/dev/null; do sleep 0.05; done; cat /proc/sys/{} /proc/sys/{}",
        PORTS.replace('.', "/"),
        MEMORY.replace('.', "/"),
    );
    let mut spec = h.script(&format!("look-{sandbox}"), &script);
    spec.log_path = h.dir.path().join(format!("{}.log", uuid::Uuid::new_v4().simple()));
    runtime.create_container(sandbox, &spec).await.expect("create");
    runtime.start_container(&spec.id).await.expect("start");
    until("it has looked", SOON, || async {
        let info = runtime.container(&spec.id).await.expect("container").expect("it is there");
        matches!(info.state, ContainerState::Exited(_)).then_some(())
    })
    .await;
    let log = std::fs::read_to_string(&spec.log_path).expect("log");
    let words = |line: &str| line.splitn(4, ' ').nth(3).unwrap_or_default().to_owned();
    log.lines().map(words).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_cannot_tell_a_spare_from_a_sandbox_that_was_made_for_it() {
    if !able() {
        return;
    }
    let h = Harness::with_image().await;
    let mut plain = h.config.clone();
    (plain.root, plain.state) = (h.dir.path().join("plain"), h.config.state.with_file_name("plain"));
    (plain.namespace, plain.spare_sandboxes) = ("plain".into(), 0);
    let without = ContainerdRuntime::connect(plain.clone()).await.expect("connect");
    without.import(busybox(), None).await.expect("import");
    h.sandbox("first").await;
    let ready = until_spares(&h.config, 2).await;
    assert!(ready.iter().all(|net| *net != number(Path::new("/proc/self/ns/net"))));

    let sysctls = [(PORTS.to_owned(), "80".to_owned()), (MEMORY.to_owned(), "77".to_owned())].into();
    let set = SandboxSpec { sysctls, ..named("set") };
    let (_, net) = make(&h.runtime, &set).await;
    assert!(ready.contains(&net), "it is a spare");
    let (_, made) = make(&without, &set).await;
    assert!(!ready.contains(&made));
    let (seen, expected) = (look(&h, &h.runtime, "set").await, look(&h, &without, "set").await);
    assert_eq!(seen, expected);
    assert!(seen.starts_with("host-set\nhost-set\n65536\n1\n<LOOPBACK,UP,LOWER_UP>\nanswered\n80\n77"), "{seen}");

    // The next pod has nothing of it. Meanwhile others were made.
    let ready = until_spares(&h.config, 2).await;
    let (_, net) = make(&h.runtime, &named("next")).await;
    assert!(ready.contains(&net), "it is a spare");
    make(&without, &named("next")).await;
    let (seen, expected) = (look(&h, &h.runtime, "next").await, look(&h, &without, "next").await);
    assert_eq!(seen, expected);
    assert!(seen.starts_with("host-next\nhost-next\n65536\n1\n") && seen.ends_with("answered\n1024\n4096"), "{seen}");
    // Found again, as what they are and no more.
    let listed: Vec<String> = h.runtime.sandboxes().await.expect("list").into_iter().map(|s| s.spec.id).collect();
    assert_eq!(listed, ["first", "next", "set"]);
    assert_eq!(h.again().await.run_sandbox(&set).await.expect("again").spec, set);
    for id in ["set", "next"] {
        without.remove_sandbox(id).await.expect("remove");
    }
    assert_eq!(mounts(&plain), Vec::<String>::new());
    assert!(!plain.state.join("spares").exists(), "none were asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_the_machines_namespaces_take_no_spare() {
    if !able() {
        return;
    }
    let h = Harness::with_image().await;
    h.sandbox("first").await;
    let ready = until_spares(&h.config, 2).await;
    let net = SandboxSpec { host_network: true, ..named("net") };
    assert!(h.runtime.run_sandbox(&net).await.expect("sandbox").ready);
    let ipc = SandboxSpec { host_ipc: true, ..named("ipc") };
    let (_, made) = make(&h.runtime, &ipc).await;
    assert!(!ready.contains(&made));
    assert!(!h.config.state.join("sandboxes/ipc/shm").exists(), "it has the machine's");
    assert_eq!(spares(&h.config), ready);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_is_refused_costs_a_spare_and_leaves_nothing() {
    if !able() {
        return;
    }
    let h = Harness::start().await;
    h.sandbox("first").await;
    until_spares(&h.config, 2).await;
    let ready = names(&h.config);
    let wrong = [(PORTS.to_owned(), "99".to_owned()), ("net.no.such.thing".to_owned(), "1".to_owned())].into();
    let refused = h.runtime.run_sandbox(&SandboxSpec { sysctls: wrong, ..named("wrong") }).await.expect_err("refused");
    assert!(refused.to_string().contains("net.no.such.thing"), "{refused}");
    until_spares(&h.config, 2).await;
    // By name: the kernel gives the numbers of namespaces that are gone to others.
    let again = names(&h.config);
    assert_eq!(again.intersection(&ready).count(), 1, "whose values were set is nobody's: {ready:?}, {again:?}");
    let pods: BTreeSet<String> = mounts(&h.config).into_iter().filter(|m| m.contains("/sandboxes/")).collect();
    assert!(pods.iter().all(|m| m.contains("/sandboxes/first/")), "{pods:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pods_at_once_share_nothing_and_are_all_whole() {
    if !able() {
        return;
    }
    let h = Harness::start().await;
    h.sandbox("first").await;
    for _ in 0..3 {
        let ready = until_spares(&h.config, 2).await;
        let specs: Vec<SandboxSpec> = (0..12).map(|n| named(&format!("pod-{n}"))).collect();
        let made = futures::future::join_all(specs.iter().map(|spec| make(&h.runtime, spec))).await;
        let nets: BTreeSet<u64> = made.iter().map(|(_, net)| *net).collect();
        assert_eq!(nets.len(), 12, "each has its own");
        assert_eq!(nets.intersection(&ready).count(), 2, "all spares were used");
        for name in ["ipc", "uts"] {
            let pin = |spec: &SandboxSpec| number(&h.config.state.join("sandboxes").join(&spec.id).join(name));
            assert_eq!(specs.iter().map(pin).collect::<BTreeSet<u64>>().len(), 12, "{name}");
        }
        futures::future::join_all(specs.iter().map(|spec| h.runtime.remove_sandbox(&spec.id)))
            .await
            .into_iter()
            .for_each(|removed| removed.expect("remove"));
    }
    h.runtime.remove_sandbox("first").await.expect("remove");
    let ready = until_spares(&h.config, 2).await;
    assert_eq!(mounts(&h.config).len(), ready.len() * 4, "spares, and nothing else");
}

#[tokio::test(flavor = "multi_thread")]
async fn spares_are_one_processs_at_a_time_and_go_with_it() {
    if !able() {
        return;
    }
    let Harness { runtime, config, daemon: _daemon, dir: _dir } = Harness::start().await;
    let other = ContainerdRuntime::connect(config.clone()).await.expect("connect");
    make(&runtime, &named("a")).await;
    let ready = until_spares(&config, 2).await;
    let (_, net) = make(&other, &named("b")).await;
    assert!(!ready.contains(&net), "they are another's");
    assert_eq!(spares(&config), ready);
    drop(runtime);
    assert_eq!(spares(&config), BTreeSet::new());
    assert_eq!(mounts(&config).len(), 8, "two sandboxes: {:?}", mounts(&config));
    // The next sandbox tells that the right to them is free.
    make(&other, &named("c")).await;
    until_spares(&config, 2).await;
    for id in ["a", "b", "c"] {
        other.remove_sandbox(id).await.expect("remove");
    }
    let more = other.clone();
    drop(other);
    assert_eq!(spares(&config).len(), 2, "the last clone counts");
    drop(more);
    assert_eq!(mounts(&config), Vec::<String>::new());
    let left = std::fs::read_dir(config.state.join("spares")).expect("read").count();
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_spares_are_refused() {
    let config = ContainerdConfig { spare_sandboxes: 65, ..ContainerdConfig::new("/no/socket", "/no/root") };
    let refused = ContainerdRuntime::connect(config).await.err().expect("refused");
    assert!(matches!(&refused, RuntimeError::Invalid(why) if why.contains("65") && why.contains("64")), "{refused}");
}
