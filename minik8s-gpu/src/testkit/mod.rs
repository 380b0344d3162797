//! A real Slurm behind a real sshd for tests: on loopback, below a temporary directory, gone with the value.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests fail by panicking"
)]

use crate::slurm::{SlurmConfig, SshConfig};
use async_trait::async_trait;
use minik8s_core::job::{JobHandle, JobReport};
use minik8s_core::testkit::jobs::{Faults, Needs};
use minik8s_core::testkit::need::{self, Need};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// The script, which may be used by hand too.
const SCRIPT: &str = include_str!("slurm-testbed.sh");

/// A running Slurm.
#[derive(Debug)]
pub struct SlurmBed {
    /// Everything of it is here.
    pub dir: PathBuf,
    /// Port of its sshd, on 127.0.0.1.
    pub port: u16,
    /// Port of a second sshd to come through, once it was started (`jump-start`).
    pub jump: u16,
    /// The user to be there.
    pub user: String,
    /// Names of its nodes.
    pub nodes: [String; 2],
    /// Memory limits are enforced.
    pub memory: bool,
}

impl SlurmBed {
    /// Starts one; `None` where the machine cannot (see [`need`]).
    pub fn start() -> Option<Self> {
        let programs = ["slurmctld", "slurmd", "sbatch", "munged", "sshd", "ssh", "ssh-keygen"].map(Need::Program);
        if !need::met(&programs) {
            return None;
        }
        let dir = tempfile::Builder::new().prefix("mk8s-slurm-").tempdir().expect("a directory").keep();
        let out = run(&["start", &dir.display().to_string()]).expect("the test bed starts");
        let value = |name: &str| {
            let line = out.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.unwrap_or_else(|| panic!("{name} is not in {out}")).to_owned()
        };
        Some(Self {
            port: value("ssh_port").parse().expect("a port"),
            jump: value("jump_port").parse().expect("a port"),
            user: value("user"),
            nodes: [value("node1"), value("node2")],
            memory: value("cgroups") == "yes",
            dir,
        })
    }

    /// Breaks or mends something, in the words of the script.
    pub fn fault(&self, words: &[&str]) {
        let dir = self.dir.display().to_string();
        run(&[&["fault", &dir], words].concat()).expect("the fault");
    }

    /// A file of it.
    pub fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.join(name)).unwrap_or_default()
    }

    /// Where files of jobs go.
    pub fn root(&self) -> PathBuf {
        self.dir.join("home/jobs")
    }

    /// How to reach it.
    pub fn config(&self) -> SlurmConfig {
        let ssh = SshConfig {
            host: "127.0.0.1".to_owned(),
            port: self.port,
            user: self.user.clone(),
            key: self.file("ssh/key").into_bytes(),
            known_hosts: self.file("ssh/known_hosts"),
            jumps: Vec::new(),
            channels: 6,
            login_shell: false,
            connect: Duration::from_secs(20),
            command: Duration::from_secs(45),
        };
        let grace = Duration::from_secs(2);
        SlurmConfig {
            settle: Duration::from_secs(15),
            grace,
            ..SlurmConfig::new(ssh, self.root().display().to_string())
        }
    }

    /// How many commands its sshd has run.
    pub fn commands(&self) -> u64 {
        self.file("log/sshd.log").lines().filter(|line| line.contains("Starting session: command")).count() as u64
    }

    /// What a command of Slurm says.
    pub fn slurm(&self, words: &[&str]) -> String {
        let mut command = Command::new(words[0]);
        let output = command.args(&words[1..]).env("SLURM_CONF", self.dir.join("slurm.conf")).output().expect("slurm");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for SlurmBed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("slurmctld's log:\n{}", self.file("log/slurmctld.log"));
        }
        if let Err(why) = run(&["stop", &self.dir.display().to_string()]) {
            eprintln!("{why}");
        }
    }
}

fn run(words: &[&str]) -> Result<String, String> {
    let output = Command::new("bash").arg("-c").arg(SCRIPT).arg("slurm-testbed.sh").args(words).output();
    let output = output.map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(format!("slurm-testbed.sh {words:?}: {}", text(&output.stderr))),
    }
}

/// A Slurm that a suite may break.
pub struct SlurmFaults(pub Arc<SlurmBed>);

impl SlurmFaults {
    async fn fault(&self, words: &[&str]) {
        let (bed, words) = (self.0.clone(), words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        let work = move || bed.fault(&words.iter().map(String::as_str).collect::<Vec<_>>());
        tokio::task::spawn_blocking(work).await.expect("the fault");
    }
}

#[async_trait]
impl Faults for SlurmFaults {
    fn can(&self, need: Needs) -> bool {
        matches!(need, Needs::Outages | Needs::NodeFailures | Needs::Expiry | Needs::Queries)
    }

    async fn connected(&self, connected: bool) {
        self.fault(&[if connected { "ssh-start" } else { "ssh-stop" }]).await;
    }

    async fn fail_node(&self, job: Option<&JobReport>) {
        match job {
            Some(job) => self.fault(&["node-down", &job.nodes]).await,
            None => self.fault(&["nodes-up"]).await,
        }
    }

    async fn expire(&self, job: &JobHandle) {
        self.fault(&["expire", &job.native]).await;
    }

    async fn queries(&self) -> u64 {
        self.0.commands()
    }
}
