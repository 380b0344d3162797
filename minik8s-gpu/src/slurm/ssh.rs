//! The connection to a machine: one multiplexed master, a bounded number of commands at a time, keys that are known
//! beforehand, and secrets in files that only this process can read.

use super::remote::Text;
use bytes::Bytes;
use minik8s_core::job::{Denial, JobError, JobResult, Outage};
use openssh::{ControlPersist, KnownHosts, Session, SessionBuilder, Stdio};
use std::fmt::Write as _;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Mutex, Semaphore};

/// Where a machine is, and who we are there.
#[derive(Clone)]
pub struct SshConfig {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Who we are there.
    pub user: String,
    /// Our private key, as OpenSSH writes it.
    pub key: Vec<u8>,
    /// Keys of all hosts, as lines of `known_hosts`.
    pub known_hosts: String,
    /// Hosts on the way, the first one first: name, port and user.
    pub jumps: Vec<(String, u16, String)>,
    /// Commands at a time; servers allow ten by default.
    pub channels: usize,
    /// Programs are only found by a login shell.
    pub login_shell: bool,
    /// How long a connection may take to be made.
    pub connect: Duration,
    /// How long a command may take.
    pub command: Duration,
}

/// What was exchanged with a machine so far, without what encryption adds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Commands that were run there.
    pub commands: u64,
    /// Bytes of commands and of their input.
    pub sent: u64,
    /// Bytes of their output.
    pub received: u64,
}

/// What a command answered.
pub(super) struct Answer {
    pub(super) code: i32,
    pub(super) out: Vec<u8>,
    pub(super) err: String,
}

/// A command may answer so much.
const MOST: u64 = 64 << 20;
/// A connection of ours that does not say that it lives by then does not.
const ALIVE: Duration = Duration::from_secs(2);
/// What is sent may take a second more for each of so many bytes.
const SLOWEST: usize = 128 << 10;
/// The destination in our own configuration file; no real name, so that nothing else can be meant.
const TARGET: &str = "cluster";
const PREFIX: &str = "mk8s-ssh-";

pub(super) struct Ssh {
    config: SshConfig,
    /// Key, known hosts and configuration; goes when this does.
    files: TempDir,
    /// The master, where there is one. Held while one is made, so that there are never two.
    session: Mutex<Option<Arc<Session>>>,
    channels: Semaphore,
    traffic: parking_lot::Mutex<Traffic>,
}

impl Ssh {
    /// Writes the files down; connects when there is something to do.
    ///
    /// # Errors
    /// Where the files cannot be written.
    pub(super) fn new(config: SshConfig) -> io::Result<Self> {
        let base = runtime_directory();
        sweep(&base);
        let mut builder = tempfile::Builder::new();
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let private = std::fs::Permissions::from_mode(0o700);
        let files = builder.prefix(&prefix).permissions(private).tempdir_in(&base)?;
        let path = |name: &str| files.path().join(name);
        std::fs::DirBuilder::new().mode(0o700).create(path("c"))?;
        let mut key = config.key.clone();
        // Without it, OpenSSH does not take the key for one.
        if !key.ends_with(b"\n") {
            key.push(b'\n');
        }
        for (name, content) in [
            ("key", key.as_slice()),
            ("known_hosts", config.known_hosts.as_bytes()),
            ("config", configuration(&config, files.path()).as_bytes()),
        ] {
            let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path(name))?;
            io::Write::write_all(&mut file, content)?;
        }
        let channels = Semaphore::new(config.channels.max(1));
        let traffic = parking_lot::Mutex::default();
        Ok(Self { config, files, session: Mutex::default(), channels, traffic })
    }

    /// What was exchanged so far.
    pub(super) fn traffic(&self) -> Traffic {
        *self.traffic.lock()
    }

    async fn session(&self) -> JobResult<Arc<Session>> {
        let mut open = self.session.lock().await;
        if let Some(session) = open.as_ref() {
            // One that nobody used for a while has ended itself. Asking it is a matter of this machine alone.
            if matches!(tokio::time::timeout(ALIVE, session.check()).await, Ok(Ok(()))) {
                return Ok(session.clone());
            }
            *open = None;
        }
        let mut builder = SessionBuilder::default();
        builder
            .known_hosts_check(KnownHosts::Strict)
            .config_file(self.files.path().join("config"))
            .control_directory(self.files.path().join("c"))
            .control_persist(ControlPersist::IdleFor(NonZeroUsize::MIN.saturating_add(59)))
            .connect_timeout(self.config.connect)
            .server_alive_interval(Duration::from_secs(5));
        let late = |_| self.unreachable("no answer in time");
        let bound = self.config.connect + Duration::from_secs(5);
        let made = tokio::time::timeout(bound, builder.connect_mux(TARGET)).await.map_err(late)?;
        let session = match made {
            Ok(session) => Arc::new(session),
            Err(error) => return Err(self.refused(&chain(&error)).await),
        };
        *open = Some(session.clone());
        Ok(session)
    }

    fn unreachable(&self, why: &str) -> JobError {
        let place = format!("{}@{}:{}", self.config.user, self.config.host, self.config.port);
        JobError::Away { what: Outage::Unreachable, why: format!("{place} cannot be reached: {why}") }
    }

    /// Why there is no connection.
    async fn refused(&self, why: &str) -> JobError {
        if let Some(denied) = denied(why, &self.config.host, &self.config.user) {
            return denied;
        }
        // Of a host on the way, nothing is heard but that it closed the connection.
        for (index, (host, _, user)) in self.config.jumps.iter().enumerate() {
            if let Some(denied) = denied(&self.knock(index).await, host, user) {
                return denied;
            }
        }
        self.unreachable(why.lines().last().unwrap_or(why))
    }

    /// What a host on the way says when it is asked for nothing.
    async fn knock(&self, index: usize) -> String {
        let mut command = tokio::process::Command::new("ssh");
        command.arg("-F").arg(self.files.path().join("config")).arg(format!("jump{index}")).arg("exit");
        command.stdin(std::process::Stdio::null()).kill_on_drop(true);
        match tokio::time::timeout(self.config.connect, command.output()).await {
            Ok(Ok(output)) if !output.status.success() => String::from_utf8_lossy(&output.stderr).into_owned(),
            _ => String::new(),
        }
    }

    /// Runs a script there. Whatever breaks the connection is told as an outage, and the next call makes a new one.
    pub(super) async fn run(&self, text: Text, args: &[&str], input: Bytes) -> JobResult<Answer> {
        let lost = |why: String| JobError::Away { what: Outage::Lost, why };
        let _turn = self.channels.acquire().await.map_err(|_| lost("the connection is closed".to_owned()))?;
        let bound = self.config.command + Duration::from_secs((input.len() / SLOWEST) as u64);
        for _ in 0..40 {
            let session = self.session().await?;
            let work = self.once(&session, text, args, &input);
            match tokio::time::timeout(bound, work).await {
                Ok(Ok(answer)) => return Ok(answer),
                // Somebody else uses up the channels: they come free again.
                Ok(Err(error)) if chain(&error).contains("refused by peer") => {
                    tokio::time::sleep(Duration::from_millis(250)).await;
                }
                Ok(Err(error)) => {
                    self.forget(&session).await;
                    return Err(lost(format!("the connection to {} broke off: {}", self.config.host, chain(&error))));
                }
                Err(_) => {
                    let checked = tokio::time::timeout(ALIVE, session.check()).await;
                    if !matches!(checked, Ok(Ok(()))) {
                        self.forget(&session).await;
                    }
                    let seconds = bound.as_secs();
                    return Err(lost(format!("{} did not answer within {seconds} seconds", self.config.host)));
                }
            }
        }
        Err(lost(format!("{} allows no more commands at a time: lower spec.slurm.channels", self.config.host)))
    }

    fn count(&self, commands: u64, sent: usize, received: usize) {
        let mut traffic = self.traffic.lock();
        traffic.commands += commands;
        traffic.sent += sent as u64;
        traffic.received += received as u64;
    }

    async fn forget(&self, broken: &Arc<Session>) {
        let mut open = self.session.lock().await;
        if open.as_ref().is_some_and(|session| Arc::ptr_eq(session, broken)) {
            *open = None;
        }
    }

    async fn once(
        &self,
        session: &Session,
        text: Text,
        args: &[&str],
        input: &Bytes,
    ) -> Result<Answer, openssh::Error> {
        let script = text.script();
        let mut command = match self.config.login_shell {
            true => {
                let mut command = session.command("bash");
                command.arg("-lc").arg("exec sh -c \"$@\"").arg("bash");
                command
            }
            false => {
                let mut command = session.command("sh");
                command.arg("-c");
                command
            }
        };
        command.arg(&script).arg("minik8s").args(args);
        let words = script.len() + args.iter().map(|arg| arg.len()).sum::<usize>() + input.len();
        self.count(1, words, 0);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().await?;
        let (stdin, stdout, stderr) = (child.stdin().take(), child.stdout().take(), child.stderr().take());
        let feed = async {
            if let Some(mut stdin) = stdin {
                // Who does not read to the end says why in its answer.
                let _ = stdin.write_all(input).await;
                let _ = stdin.shutdown().await;
            }
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let read_out = async {
            match stdout {
                Some(stdout) => stdout.take(MOST).read_to_end(&mut out).await.map(|_| ()),
                None => Ok(()),
            }
        };
        let read_err = async {
            match stderr {
                Some(stderr) => stderr.take(64 << 10).read_to_end(&mut err).await.map(|_| ()),
                None => Ok(()),
            }
        };
        let ((), out_read, err_read) = tokio::join!(feed, read_out, read_err);
        self.count(0, 0, out.len() + err.len());
        out_read.and(err_read).map_err(openssh::Error::ChildIo)?;
        let code = match child.wait().await {
            Ok(status) => status.code().unwrap_or(-1),
            // Killed by a signal, or the connection is gone.
            Err(error @ openssh::Error::RemoteProcessTerminated) => {
                session.check().await.map_err(|_| error)?;
                -1
            }
            // What a shell says of a program that is not there.
            Err(openssh::Error::Remote(_)) => 127,
            Err(error) => return Err(error),
        };
        Ok(Answer { code, out, err: String::from_utf8_lossy(&err).into_owned() })
    }
}

/// Whose key is not taken, where that is what `ssh` says.
fn denied(why: &str, host: &str, user: &str) -> Option<JobError> {
    let lower = why.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if says(&["host key verification failed", "identification has changed", "host key is known"]) {
        let why = format!(
            "the key of {host} or of a host on the way is not the one in spec.slurm.knownHosts: compare it with what its \
             administrators say, then change the field"
        );
        return Some(JobError::Denied { what: Denial::HostKey, why });
    }
    if says(&["permission denied", "invalid format", "error in libcrypto", "too many authentication failures"]) {
        let why = format!(
            "{host} does not take the key of {user}: put its public half into authorized_keys there, or another one into the \
             Secret that spec.slurm.keySecret names"
        );
        return Some(JobError::Denied { what: Denial::Key, why });
    }
    None
}

/// An error and what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let _ = write!(text, ": {source}");
        next = source.source();
    }
    text
}

/// What `ssh` is told. All of it is checked where it comes in.
fn configuration(config: &SshConfig, files: &Path) -> String {
    let files = files.display();
    let mut text = String::new();
    let mut before = String::new();
    let hops =
        config.jumps.iter().enumerate().map(|(index, (host, port, user))| (format!("jump{index}"), host, *port, user));
    let target = (TARGET.to_owned(), &config.host, config.port, &config.user);
    for (name, host, port, user) in hops.chain([target]) {
        let _ = write!(
            text,
            "Host {name}\n  HostName {host}\n  Port {port}\n  User {user}\n  HostKeyAlias {}\n",
            if port == 22 { host.clone() } else { format!("[{host}]:{port}") }
        );
        if !before.is_empty() {
            let _ = writeln!(text, "  ProxyJump {before}");
        }
        before = name;
    }
    let _ = write!(
        text,
        "Host *\n  IdentityFile \"{files}/key\"\n  IdentitiesOnly yes\n  IdentityAgent none\n  \
         UserKnownHostsFile \"{files}/known_hosts\"\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n  \
         UpdateHostKeys no\n  BatchMode yes\n  PreferredAuthentications publickey\n  ServerAliveCountMax 3\n  \
         ForwardAgent no\n  ForwardX11 no\n  PermitLocalCommand no\n"
    );
    text
}

/// Memory if there is such a place, else where temporary files go.
fn runtime_directory() -> PathBuf {
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let writable = |path: &PathBuf| tempfile::tempfile_in(path).is_ok();
    own.into_iter().chain([PathBuf::from("/run")]).find(writable).unwrap_or_else(std::env::temp_dir)
}

/// Removes what processes left that were killed.
fn sweep(base: &Path) {
    for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid =
            name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()).and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_on_the_way_come_one_after_the_other() {
        let config = SshConfig {
            host: "login.example".to_owned(),
            port: 2222,
            user: "me".to_owned(),
            key: Vec::new(),
            known_hosts: String::new(),
            jumps: vec![("a.example".to_owned(), 22, "you".to_owned()), ("b.example".to_owned(), 23, "me".to_owned())],
            channels: 1,
            login_shell: false,
            connect: Duration::from_secs(1),
            command: Duration::from_secs(1),
        };
        let text = configuration(&config, Path::new("/run/x"));
        let place = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what} is not in {text}"));
        assert!(place("Host jump0\n  HostName a.example") < place("Host jump1\n  HostName b.example"));
        assert!(place("ProxyJump jump0") < place("Host cluster\n  HostName login.example\n  Port 2222\n  User me"));
        assert!(place("HostKeyAlias [login.example]:2222") < place("ProxyJump jump1"));
        place("StrictHostKeyChecking yes");
    }

    #[test]
    fn secrets_are_only_for_this_process_and_go_with_it() {
        use std::os::unix::fs::MetadataExt;
        let config = SshConfig {
            host: "h".to_owned(),
            port: 22,
            user: "u".to_owned(),
            key: b"secret".to_vec(),
            known_hosts: String::new(),
            jumps: Vec::new(),
            channels: 1,
            login_shell: false,
            connect: Duration::from_secs(1),
            command: Duration::from_secs(1),
        };
        let ssh = Ssh::new(config).unwrap();
        let path = ssh.files.path().to_owned();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o700);
        assert_eq!(path.join("key").metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read(path.join("key")).unwrap(), b"secret\n");
        drop(ssh);
        assert!(!path.exists());
    }

    #[cfg(feature = "testkit")]
    #[tokio::test]
    async fn a_connection_that_ended_while_nobody_used_it_is_made_anew_without_a_word() {
        use minik8s_core::testkit::wait::until;
        let Some(bed) = crate::testkit::SlurmBed::start() else { return };
        let ssh = Ssh::new(bed.config().ssh).unwrap();
        let root = bed.root().display().to_string();
        ssh.run(Text::Kept, &[&root], Bytes::new()).await.unwrap();
        let own = ssh.files.path().display().to_string();
        let lives = |pid: u32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            !status.is_empty() && !status.contains("State:\tZ")
        };
        let masters = || {
            let entries = std::fs::read_dir("/proc").unwrap().flatten();
            let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
            let ours = |pid: &u32| {
                let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&words).contains(&own) && lives(*pid)
            };
            pids.filter(ours).collect::<Vec<u32>>()
        };
        let before = masters();
        assert!(!before.is_empty(), "there is a connection");
        for pid in &before {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid as i32), nix::sys::signal::Signal::SIGKILL).unwrap();
        }
        until("it has ended", Duration::from_secs(60), || async { masters().is_empty().then_some(()) }).await;
        ssh.run(Text::Kept, &[&root], Bytes::new()).await.unwrap();
    }
}
