//! A cluster as a child process, and commands on it. Everything is removed when the value is dropped.

use minik8s_core::testkit::kubectl;
use minik8s_core::testkit::need::{self, Need};
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// Standard output of a command that must have worked.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "failed: {}\n{}", self.err, self.out);
        self.out
    }

    /// Standard error of a command that must not have worked.
    #[track_caller]
    pub(crate) fn refused(self) -> String {
        assert_ne!(self.code, 0, "should have been refused, but printed: {}", self.out);
        self.err
    }
}

fn finish(mut command: Command, input: &str) -> Ran {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    // A command that reads no input may have closed it.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("the program ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
}

/// Runs the program with nothing around it.
pub(crate) fn minik8s(args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_minik8s"));
    command.args(args).env_remove("KUBECONFIG").env("HOME", "/nonexistent");
    finish(command, "")
}

/// A network namespace of the test's own.
struct Namespace(String);

impl Namespace {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("mk8s-it-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        for args in [vec!["netns", "add", &name], vec!["-n", &name, "link", "set", "lo", "up"]] {
            let status = Command::new("ip").args(&args).status().expect("ip starts");
            assert!(status.success(), "ip {args:?}");
        }
        Self(name)
    }

    /// `command`, within. Only the network is another: mounts must stay visible to later commands.
    fn wrap(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.0)).arg("--").arg(program);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// What kind of cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Pretended containers and addresses.
    Fake,
    /// containerd and a bridge.
    Real,
}

/// A running cluster.
pub(crate) struct Up {
    pub(crate) kind: Kind,
    dir: TempDir,
    namespace: Option<Namespace>,
    /// The node's name and whatever else `up` is told.
    arguments: Vec<String>,
    child: Option<Child>,
    /// What it prints.
    lines: Option<Lines<BufReader<ChildStdout>>>,
    /// The line it printed when it was ready.
    pub(crate) ready: String,
    /// The kubectl to use.
    pub(crate) kubectl: Option<&'static Path>,
}

impl Up {
    /// Starts one; `None` where the machine cannot (see [`need`]).
    pub(crate) fn start(kind: Kind) -> Option<Self> {
        Self::start_with(kind, &["--node-name", "node-1"])
    }

    /// Starts one with a node name, and more arguments, of its own.
    pub(crate) fn start_with(kind: Kind, arguments: &[&str]) -> Option<Self> {
        let needs: &[Need] = match kind {
            Kind::Fake => &[],
            Kind::Real => &[Need::Root, Need::Program("containerd"), Need::Program("runc"), Need::Program("ip")],
        };
        if !need::met(needs) {
            return None;
        }
        let dir = tempfile::Builder::new().prefix("mk8s-it").tempdir().expect("a directory");
        let namespace = (kind == Kind::Real).then(Namespace::new);
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let kubectl = kubectl::find();
        let mut up = Self { kind, dir, namespace, arguments, child: None, lines: None, ready: String::new(), kubectl };
        if kind == Kind::Real {
            up.build_image();
        }
        up.run();
        Some(up)
    }

    /// An archive of a base image with Python or Node (`kind`), made of Debian's packages; `None` where that cannot be.
    pub(crate) fn base(&self, kind: &str) -> Option<PathBuf> {
        if !need::met(&[Need::Program("apt-get"), Need::Program("dpkg-deb"), Need::Program("apt-cache")]) {
            return None;
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/function-base.sh");
        let archive = self.dir.path().join(format!("{kind}.tar"));
        let mut making = Command::new(script);
        making.args([Path::new(kind), &archive, Path::new(env!("CARGO_BIN_EXE_minik8s"))]);
        let made = making.output().expect("the script starts");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Some(archive)
    }

    pub(crate) fn python_base(&self) -> Option<PathBuf> {
        self.base("python")
    }

    /// A registry on the loopback of the cluster's network with the image of this archive as v1, and who may have it.
    pub(crate) fn registry(
        &self,
        archive: PathBuf,
        repository: &'static str,
        who: Option<(&'static str, &'static str)>,
    ) -> String {
        let (sender, receiver) = std::sync::mpsc::channel();
        // It ends with the process: nothing else waits in that network.
        drop(self.inside(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let registry = minik8s_runtime::testing::Registry::start().await.unwrap();
                registry.load(&archive, repository, "v1").unwrap();
                if let Some((name, password)) = who {
                    registry.require(name, password);
                }
                sender.send(registry.address().to_owned()).unwrap();
                std::future::pending::<()>().await;
            });
        }));
        receiver.recv().unwrap()
    }

    /// The busybox image that real containers are made of.
    fn build_image(&self) {
        let archive = minik8s_runtime::testing::busybox_image(self.dir.path()).expect("a static busybox");
        self.minik8s(&["image", "import", &archive.display().to_string(), "--name", IMAGE]).ok();
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A directory for the test's files.
    pub(crate) fn files(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = match &self.namespace {
            Some(namespace) => namespace.wrap(program),
            None => Command::new(program),
        };
        command.env("MINIK8S_DATA_DIR", self.data()).env("HOME", self.dir.path());
        command.env("KUBECONFIG", self.data().join("admin.kubeconfig"));
        command
    }

    /// Starts the process, again after it was stopped or killed.
    pub(crate) fn run(&mut self) {
        let mut command = self.command(Path::new(env!("CARGO_BIN_EXE_minik8s")));
        command.args(["up", "--listen", "127.0.0.1:0"]).args(&self.arguments);
        if self.kind == Kind::Fake {
            command.args(["--runtime", "fake", "--network", "noop"]);
        }
        let log = std::fs::File::create(self.dir.path().join("up.log")).expect("a log file");
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().expect("minik8s starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let line = lines.next().and_then(Result::ok).unwrap_or_default();
        (self.child, self.lines) = (Some(child), Some(lines));
        assert!(line.starts_with("ready https://"), "said {line:?} instead of ready; its log:\n{}", self.log());
        self.ready = line;
    }

    /// SIGUSR2: the process becomes its successor, and is ready again.
    pub(crate) fn again(&mut self) {
        let child = self.child.as_ref().expect("it runs");
        let _ = Command::new("kill").args(["-USR2", &child.id().to_string()]).status();
        let lines = self.lines.as_mut().expect("it runs");
        let ready = lines.map_while(Result::ok).find(|line| line.starts_with("ready https://"));
        self.ready = ready.unwrap_or_else(|| panic!("it is not ready again; its log:\n{}", self.log()));
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("up.log")).unwrap_or_default()
    }

    /// SIGTERM, and what became of the process.
    pub(crate) fn stop(&mut self) -> bool {
        self.end("-TERM")
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.end("-KILL");
    }

    fn end(&mut self, signal: &str) -> bool {
        let Some(mut child) = self.child.take() else { return true };
        let _ = Command::new("kill").args([signal, &child.id().to_string()]).status();
        child.wait().is_ok_and(|status| status.success())
    }

    /// One of the program's own commands on this cluster.
    pub(crate) fn minik8s(&self, args: &[&str]) -> Ran {
        self.minik8s_with(args, "")
    }

    pub(crate) fn minik8s_with(&self, args: &[&str], input: &str) -> Ran {
        let mut command = self.command(Path::new(env!("CARGO_BIN_EXE_minik8s")));
        command.args(args);
        finish(command, input)
    }

    /// One that goes on, with its output in a file.
    pub(crate) fn minik8s_into(&self, args: &[&str], output: &Path) -> Child {
        let mut command = self.command(Path::new(env!("CARGO_BIN_EXE_minik8s")));
        let file = std::fs::File::create(output).expect("a file");
        command.args(args).stdin(Stdio::null()).stdout(file).spawn().expect("minik8s starts")
    }

    /// Runs `work` on a thread of its own in the cluster's network.
    pub(crate) fn inside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let name = &self.namespace.as_ref().expect("a real cluster").0;
        let namespace = std::fs::File::open(format!("/run/netns/{name}")).expect("a namespace");
        std::thread::spawn(move || {
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).expect("to enter it");
            work()
        })
    }

    /// An unmodified kubectl on this cluster.
    pub(crate) fn kubectl(&self, args: &[&str]) -> Ran {
        self.kubectl_with(args, "")
    }

    pub(crate) fn kubectl_with(&self, args: &[&str], input: &str) -> Ran {
        finish(self.kubectl_command(args), input)
    }

    pub(crate) fn kubectl_command(&self, args: &[&str]) -> Command {
        let mut command = self.command(self.kubectl.expect("looked for before"));
        command.arg("--cache-dir").arg(self.dir.path().join("cache")).args(args);
        command
    }

    /// Any program, in the cluster's network.
    pub(crate) fn program(&self, program: &str, args: &[&str]) -> Ran {
        let mut command = self.command(Path::new(program));
        command.args(args);
        finish(command, "")
    }

    /// Writes a manifest and applies it.
    pub(crate) fn apply(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).expect("a file");
        self.minik8s(&["apply", "-f", &path.display().to_string()]).ok()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the cluster's log:\n{}", self.log());
        }
        self.end("-TERM");
        let down = self.minik8s(&["down", "--purge"]);
        if !std::thread::panicking() {
            down.ok();
        }
    }
}

/// The image of real containers; pretended ones take any.
pub(crate) const IMAGE: &str = "localhost/minik8s-test:1";

/// True where a kubectl is here that is new enough; says why not otherwise.
pub(crate) fn have_kubectl() -> bool {
    kubectl::find().is_some() || need::met(&[Need::Program("kubectl (1.32 or newer)")])
}

/// Asks until `probe` answers true.
#[track_caller]
pub(crate) fn until(what: &str, seconds: u64, probe: impl FnMut() -> bool) {
    until_or(seconds, probe, || what.to_owned());
}

/// The same, where what is said of a wait that was in vain is found out then.
#[track_caller]
pub(crate) fn until_or(seconds: u64, mut probe: impl FnMut() -> bool, what: impl FnOnce() -> String) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !probe() {
        assert!(Instant::now() < end, "gave up after {seconds} s waiting until {}", what());
        std::thread::sleep(Duration::from_millis(50));
    }
}
