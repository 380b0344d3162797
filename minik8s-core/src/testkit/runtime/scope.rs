//! What a case works in: names of its own, helpers that wait with a bound, and the cleaning up.

use crate::runtime::{
    ContainerInfo, ContainerSpec, ContainerState, ExecSpec, Exit, Output, Resources, SandboxInfo, SandboxSpec,
    SharedRuntime, StreamSession,
};
use crate::testkit::wait::until;
use futures::future::BoxFuture;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Bound of every wait.
pub(super) const SOON: Duration = Duration::from_secs(30);

type Opener = Box<dyn Fn() -> BoxFuture<'static, SharedRuntime> + Send + Sync>;

/// The runtime under test.
pub struct Subject {
    open: Opener,
    image: String,
    archive: PathBuf,
}

impl Subject {
    /// `open` opens the runtime; called again it must find what the first one made. `image` is imported from `archive`
    /// where it is not there yet.
    pub fn new<F, Fut>(image: impl Into<String>, archive: impl Into<PathBuf>, open: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = SharedRuntime> + Send + 'static,
    {
        Self { image: image.into(), archive: archive.into(), open: Box::new(move || Box::pin(open())) }
    }
}

/// One case's view of the runtime.
pub struct Scope {
    /// The runtime.
    pub runtime: SharedRuntime,
    pub(super) dir: tempfile::TempDir,
    subject: Arc<Subject>,
    prefix: String,
}

impl Scope {
    pub(super) async fn open(subject: Arc<Subject>) -> Self {
        let runtime = (subject.open)().await;
        if runtime.image(&subject.image).await.expect("image").is_none() {
            runtime.import(subject.archive.clone(), Some(&subject.image)).await.expect("import");
        }
        let prefix = format!("t{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
        Self { runtime, dir: tempfile::tempdir().expect("temporary directory"), subject, prefix }
    }

    /// Drops the runtime, as an agent that is killed does, and opens it anew.
    pub(super) async fn reopen(&mut self) {
        self.runtime = (self.subject.open)().await;
    }

    pub(super) fn image(&self) -> &str {
        &self.subject.image
    }

    pub(super) fn archive(&self) -> PathBuf {
        self.subject.archive.clone()
    }

    /// A name of this case's own.
    pub(super) fn id(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    pub(super) fn sandbox_spec(&self, name: &str) -> SandboxSpec {
        let id = self.id(name);
        let cgroup_parent = format!("pod{id}");
        SandboxSpec { id, hostname: name.to_owned(), cgroup_parent, ..SandboxSpec::default() }
    }

    pub(super) async fn sandbox(&self, name: &str) -> SandboxInfo {
        self.runtime.run_sandbox(&self.sandbox_spec(name)).await.expect("sandbox")
    }

    /// A container that runs a command.
    pub(super) fn command(&self, name: &str, argv: &[&str]) -> ContainerSpec {
        let id = self.id(name);
        let log_path = self.dir.path().join(&id).with_extension("log");
        let command = argv.iter().map(ToString::to_string).collect();
        ContainerSpec { log_path, id, command, image: self.subject.image.clone(), ..ContainerSpec::default() }
    }

    /// A container that runs a shell script.
    pub(super) fn script(&self, name: &str, script: &str) -> ContainerSpec {
        self.command(name, &["sh", "-c", script])
    }

    /// A container that runs until it is stopped.
    pub(super) fn sleeper(&self, name: &str) -> ContainerSpec {
        self.command(name, &["sleep", "1000000"])
    }

    pub(super) async fn start(&self, sandbox: &SandboxInfo, spec: &ContainerSpec) {
        self.runtime.create_container(&sandbox.spec.id, spec).await.expect("create");
        self.runtime.start_container(&spec.id).await.expect("start");
    }

    /// Runs a script to its end: how it ended, and what it printed to standard output.
    pub(super) async fn run(&self, sandbox: &SandboxInfo, spec: &ContainerSpec) -> (Exit, String) {
        self.start(sandbox, spec).await;
        let exit = self.exit(&spec.id).await;
        (exit, self.printed(spec, "stdout"))
    }

    pub(super) async fn info(&self, id: &str) -> ContainerInfo {
        self.runtime.container(id).await.expect("container").expect("the container is there")
    }

    pub(super) async fn exit(&self, id: &str) -> Exit {
        until("the container has ended", SOON, || async {
            match self.runtime.container(id).await.expect("container")?.state {
                ContainerState::Exited(exit) => Some(exit),
                _ => None,
            }
        })
        .await
    }

    /// Entries of a log: stream, tag and text.
    pub(super) fn entries(&self, spec: &ContainerSpec) -> Vec<(String, String, String)> {
        let text = std::fs::read_to_string(&spec.log_path).unwrap_or_default();
        text.lines().map(parse_entry).collect()
    }

    /// What a container printed to one stream.
    pub(super) fn printed(&self, spec: &ContainerSpec, stream: &str) -> String {
        let entries = self.entries(spec);
        let texts = entries.iter().filter(|(s, ..)| s == stream);
        texts.map(|(_, tag, text)| if tag == "P" { text.clone() } else { format!("{text}\n") }).collect()
    }

    /// Waits until a container has printed the text.
    pub(super) async fn wait_printed(&self, spec: &ContainerSpec, text: &str) {
        let what = format!("the log holds {text:?}");
        until(&what, SOON, || async { self.printed(spec, "stdout").contains(text).then_some(()) }).await;
    }

    /// Runs a command in a container to its end: standard output, standard error, exit code.
    pub(super) async fn exec(&self, id: &str, script: &str) -> (String, String, i32) {
        let session = self.runtime.exec(id, shell(script)).await.expect("exec");
        finish(session).await
    }

    /// Removes what the case made, and checks that nothing of it is left.
    pub(super) async fn clean_up(&mut self) {
        let mine = |id: &str| id.starts_with(&self.prefix);
        for sandbox in self.runtime.sandboxes().await.expect("sandboxes") {
            if mine(&sandbox.spec.id) {
                self.runtime.remove_sandbox(&sandbox.spec.id).await.expect("remove sandbox");
            }
        }
        let left = self.runtime.sandboxes().await.expect("sandboxes");
        assert!(!left.iter().any(|s| mine(&s.spec.id)), "sandboxes are left: {left:?}");
        let left = self.runtime.containers(None).await.expect("containers");
        assert!(!left.iter().any(|c| mine(&c.sandbox)), "containers are left: {left:?}");
        self.dir = tempfile::tempdir().expect("temporary directory");
    }
}

pub(super) fn shell(script: &str) -> ExecSpec {
    ExecSpec { command: vec!["sh".into(), "-c".into(), script.into()], ..ExecSpec::default() }
}

/// Reads a session to its end.
pub(super) async fn finish(mut session: StreamSession) -> (String, String, i32) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let all = async {
        while let Some(piece) = session.output.recv().await {
            match piece {
                Output::Stdout(bytes) => out.extend_from_slice(&bytes),
                Output::Stderr(bytes) => err.extend_from_slice(&bytes),
            }
        }
        session.exit.await.expect("an exit").expect("an exit code")
    };
    let code = tokio::time::timeout(SOON, all).await.expect("the session ends in time");
    (String::from_utf8(out).expect("text"), String::from_utf8(err).expect("text"), code)
}

pub(super) fn limits(memory_bytes: i64) -> Resources {
    Resources { memory_bytes, ..Resources::default() }
}

fn parse_entry(line: &str) -> (String, String, String) {
    let mut fields = line.splitn(4, ' ');
    let time = fields.next().unwrap_or_default();
    time.parse::<jiff::Timestamp>().unwrap_or_else(|e| panic!("no time at the start of {line:?}: {e}"));
    let mut next = || fields.next().unwrap_or_default().to_owned();
    (next(), next(), next())
}
