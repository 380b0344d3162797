//! A real kubectl, run against a cluster of a test: its own home, its own caches, nothing of the user's.

use crate::server::kubeconfig::Kubeconfig;
use crate::server::tls::TlsError;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::OnceLock;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

/// The oldest kubectl that tests are written for.
const OLDEST: u32 = 32;

/// The newest kubectl on this machine that is new enough.
pub fn find() -> Option<&'static Path> {
    all().first().map(PathBuf::as_path)
}

/// Every kubectl on this machine that is new enough, the newest first: `kubectl.1.NN` beside the `kubectl` of the
/// search path, or that one alone.
pub fn all() -> &'static [PathBuf] {
    static FOUND: OnceLock<Vec<PathBuf>> = OnceLock::new();
    FOUND.get_or_init(look_for)
}

fn look_for() -> Vec<PathBuf> {
    let Some(plain) = super::need::find_program("kubectl") else { return Vec::new() };
    let resolved = plain.canonicalize().unwrap_or_else(|_| plain.clone());
    let beside = resolved.parent().and_then(|dir| dir.read_dir().ok()).into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = beside
        .filter_map(|entry| {
            let minor = entry.file_name().to_str()?.strip_prefix("kubectl.1.")?.parse().ok()?;
            Some((minor, entry.path()))
        })
        .collect();
    if found.is_empty() {
        found.extend(minor_of(&plain).map(|minor| (minor, plain)));
    }
    found.retain(|(minor, _)| *minor >= OLDEST);
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, path)| path).collect()
}

fn minor_of(program: &Path) -> Option<u32> {
    let output = std::process::Command::new(program).args(["version", "--client", "-o", "json"]).output().ok()?;
    let version: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    version["clientVersion"]["minor"].as_str()?.trim_end_matches('+').parse().ok()
}

/// kubectl for one cluster.
pub struct Kubectl {
    program: PathBuf,
    home: TempDir,
}

/// How a command ended.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Exit code; -1 where a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Kubectl {
    /// kubectl with this configuration; `None` where the machine has none (see [`find`]).
    ///
    /// # Errors
    /// Where its home cannot be made.
    pub fn new(kubeconfig: &Kubeconfig) -> Result<Option<Self>, TlsError> {
        let Some(program) = find() else { return Ok(None) };
        let failed = |source| TlsError::File { operation: "create", path: std::env::temp_dir(), source };
        let home = tempfile::tempdir().map_err(failed)?;
        kubeconfig.write(&home.path().join("config"))?;
        Ok(Some(Self { program: program.to_owned(), home }))
    }

    /// A directory for files of the test; gone with this value.
    pub fn directory(&self) -> &Path {
        self.home.path()
    }

    /// The command, ready to be started. It is killed when it is dropped.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().env("HOME", self.home.path()).env("KUBECONFIG", self.home.path().join("config"));
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.arg("--cache-dir").arg(self.home.path().join("cache")).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    /// Where kubectl cannot be started.
    pub async fn run(&self, args: &[&str]) -> Ran {
        self.run_with_input(args, "").await
    }

    /// Runs a command to its end, with this on its standard input.
    ///
    /// # Panics
    /// Where kubectl cannot be started.
    #[allow(clippy::expect_used, reason = "a test cannot go on without kubectl")]
    pub async fn run_with_input(&self, args: &[&str], input: &str) -> Ran {
        let mut child = self.start(args, true);
        if let Some(mut stdin) = child.stdin.take() {
            // A command that does not read its input says why by its exit.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        Ran::from(child.wait_with_output().await.expect("kubectl was started"))
    }

    /// Starts a command whose output is piped, and its input where that is wanted.
    ///
    /// # Panics
    /// Where kubectl cannot be started.
    #[allow(clippy::expect_used, reason = "a test cannot go on without kubectl")]
    pub fn start(&self, args: &[&str], input: bool) -> Child {
        let mut command = self.command(args);
        if input {
            command.stdin(Stdio::piped());
        }
        command.spawn().expect("kubectl starts")
    }

    /// Runs a command that must succeed, and answers what it printed.
    ///
    /// # Panics
    /// Where it fails; the message holds what it said.
    pub async fn ok(&self, args: &[&str]) -> String {
        self.run(args).await.success(args)
    }

    /// Applies or creates from text on standard input; must succeed.
    ///
    /// # Panics
    /// Where it fails; the message holds what it said.
    pub async fn ok_with_input(&self, args: &[&str], input: &str) -> String {
        self.run_with_input(args, input).await.success(args)
    }
}

impl Ran {
    fn success(self, args: &[&str]) -> String {
        assert!(self.code == 0, "kubectl {} ended with {}:\n{}{}", args.join(" "), self.code, self.stdout, self.stderr);
        self.stdout
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let code = output.status.code().unwrap_or(-1);
        Self { code, stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}
