//! A private containerd with the test image, gone without trace when it is dropped.

use minik8s_core::runtime::{ContainerSpec, Containers, Images, SandboxSpec, Sandboxes};
use minik8s_core::testkit::need::{Need, met};
use minik8s_runtime::{ContainerdConfig, ContainerdRuntime, PrivateContainerd, testing};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// True where real containers can run.
pub(crate) fn able() -> bool {
    met(&[Need::Root, Need::Program("containerd"), Need::Program("runc")])
}

pub(crate) struct Harness {
    pub(crate) runtime: ContainerdRuntime,
    pub(crate) config: ContainerdConfig,
    pub(crate) daemon: Daemon,
    pub(crate) dir: tempfile::TempDir,
}

/// Dropped before the directory goes, and also where connecting fails.
pub(crate) struct Daemon {
    containerd: Option<PrivateContainerd>,
    cgroup_root: String,
}

impl Harness {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    /// With settings of its own.
    pub(crate) async fn start_with(change: impl FnOnce(&mut ContainerdConfig)) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let home = dir.path().join("containerd");
        let daemon = tokio::task::spawn_blocking(move || PrivateContainerd::start(home)).await.expect("thread");
        let daemon = daemon.expect("private containerd");
        let mut config = daemon.config();
        config.log_driver = Some(env!("CARGO_BIN_EXE_minik8s-logger").into());
        config.cgroup_root = format!("minik8s-test-{}", uuid::Uuid::new_v4().simple());
        change(&mut config);
        let daemon = Daemon { containerd: Some(daemon), cgroup_root: config.cgroup_root.clone() };
        let runtime = ContainerdRuntime::connect(config.clone()).await.expect("connect");
        Self { runtime, config, dir, daemon }
    }

    pub(crate) async fn with_image() -> Self {
        let this = Self::start().await;
        this.runtime.import(busybox(), None).await.expect("import");
        this
    }

    /// A sandbox of that id, ready for containers.
    pub(crate) async fn sandbox(&self, id: &str) -> SandboxSpec {
        let spec = SandboxSpec { id: id.into(), hostname: id.into(), ..SandboxSpec::default() };
        let info = self.runtime.run_sandbox(&spec).await.expect("sandbox");
        assert!(info.ready);
        spec
    }

    /// A container that runs a shell script.
    pub(crate) fn script(&self, id: &str, script: &str) -> ContainerSpec {
        ContainerSpec {
            id: id.into(),
            image: testing::TEST_IMAGE.into(),
            command: vec!["sh".into(), "-c".into(), script.into()],
            log_path: self.dir.path().join("logs").join(id).with_extension("log"),
            ..ContainerSpec::default()
        }
    }

    pub(crate) async fn run(&self, sandbox: &str, spec: &ContainerSpec) {
        self.runtime.create_container(sandbox, spec).await.expect("create");
        self.runtime.start_container(&spec.id).await.expect("start");
    }

    /// Runs containerd's own tool in our namespace.
    pub(crate) fn ctr(&self, words: &[&str]) {
        let mut command = std::process::Command::new("ctr");
        command.arg("-a").arg(&self.config.socket).args(["-n", &self.config.namespace]).args(words);
        // It may fail where the runtime noticed first and is cleaning up itself.
        command.output().expect("ctr");
    }

    /// Kills containerd without warning and starts it anew.
    pub(crate) async fn restart_containerd(&mut self) {
        let pid = self.daemon.containerd.as_ref().expect("running").pid();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).expect("kill");
        let gone = || async { (!Path::new(&format!("/proc/{pid}/exe")).exists()).then_some(()) };
        minik8s_core::testkit::wait::until("containerd is gone", std::time::Duration::from_secs(60), gone).await;
        let home = self.dir.path().join("containerd");
        let started = tokio::task::spawn_blocking(move || PrivateContainerd::start(home)).await.expect("thread");
        self.daemon.containerd = Some(started.expect("private containerd"));
    }

    /// A second runtime object over the same directories, as after a restart of the agent.
    pub(crate) async fn again(&self) -> ContainerdRuntime {
        ContainerdRuntime::connect(self.config.clone()).await.expect("connect again")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(daemon) = self.containerd.take() {
            let destroyed = daemon.destroy();
            if !std::thread::panicking() {
                destroyed.expect("nothing of the private containerd is left");
            }
        }
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            remove_groups(&hierarchy.path().join(&self.cgroup_root));
        }
        remove_groups(&Path::new("/sys/fs/cgroup").join(&self.cgroup_root));
    }
}

fn remove_groups(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_groups(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(dir);
}

/// The test image's archive, built once per run of the tests.
pub(crate) fn busybox() -> PathBuf {
    static ARCHIVE: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        testing::busybox_image(dir).expect("busybox image")
    };
    ARCHIVE.get_or_init(build).clone()
}
