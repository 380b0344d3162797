//! A containerd of our own: its own root, socket and configuration, so that nothing on the host is disturbed.
//!
//! It runs in its own process group and outlives the program that started it; a later start finds it again by the
//! process id it recorded. Only [`PrivateContainerd::stop`] and [`PrivateContainerd::destroy`] end it.

use crate::config::state_dir;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use thiserror::Error;

/// Plugins that a runtime of pods has no use for, some of which would touch the host outside our directory.
const DISABLED: &[&str] = &[
    "io.containerd.grpc.v1.cri",
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.restart",
    "io.containerd.internal.v1.tracing",
    "io.containerd.tracing.processor.v1.otlp",
    "io.containerd.monitor.v1.cgroups",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
];

/// Why a private containerd could not be started or stopped.
#[derive(Debug, Error)]
pub enum PrivateError {
    /// The program is not installed.
    #[error("containerd is not installed: no program `containerd` in PATH (Debian: apt-get install containerd runc)")]
    Missing,
    /// A file or process operation failed.
    #[error("private containerd: {operation} {path}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// It ended or hung instead of listening.
    #[error("private containerd did not come up: {cause}; its log is {log}")]
    NotUp {
        /// What happened.
        cause: String,
        /// Where it logs.
        log: PathBuf,
    },
    /// It did not end when told to.
    #[error("private containerd with process id {pid} does not end")]
    Stuck {
        /// Its process id.
        pid: i32,
    },
}

/// A containerd process of our own. Dropping this leaves it running.
#[derive(Debug)]
pub struct PrivateContainerd {
    dir: PathBuf,
    state: PathBuf,
    pid: i32,
}

impl PrivateContainerd {
    /// Starts a containerd with everything below `dir`, or finds the one that runs there already. Blocks until it listens.
    ///
    /// # Errors
    /// Where containerd is not installed, `dir` is not writable, or it does not listen within a minute.
    pub fn start(dir: impl Into<PathBuf>) -> Result<Self, PrivateError> {
        let dir = dir.into();
        make_dir(&dir)?;
        let dir = dir.canonicalize().map_err(failed("resolving", &dir))?;
        let state = state_dir(&dir);
        make_dir(&state)?;
        let mut this = Self { dir, state, pid: 0 };
        match this.running() {
            Some(pid) => this.pid = pid,
            None => this.pid = this.spawn()?,
        }
        this.wait_until_up()?;
        Ok(this)
    }

    /// The running one of `dir`, where there is one.
    pub fn find(dir: impl AsRef<Path>) -> Option<Self> {
        let dir = dir.as_ref().canonicalize().ok()?;
        let state = state_dir(&dir);
        let mut this = Self { dir, state, pid: 0 };
        this.pid = this.running()?;
        Some(this)
    }

    /// Its gRPC socket.
    pub fn socket(&self) -> PathBuf {
        self.state.join("c.sock")
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Settings for a runtime on it, with the runtime's records below the same directory.
    pub fn config(&self) -> crate::ContainerdConfig {
        let mut config = crate::ContainerdConfig::new(self.socket(), self.dir.join("runtime"));
        config.state = self.state.join("rt");
        config.cgroup_root = self.cgroup_root();
        config
    }

    /// Another instance on the machine must not find our pods' groups below its own.
    fn cgroup_root(&self) -> String {
        format!("minik8s-{}", self.state.file_name().unwrap_or_default().to_string_lossy())
    }

    /// Ends the daemon. Containers go on: start it again to find them.
    ///
    /// # Errors
    /// Where it does not end even when killed.
    pub fn stop(self) -> Result<(), PrivateError> {
        self.end()
    }

    /// Ends the daemon and everything it left: shims, containers, mounts, and `dir` itself.
    ///
    /// # Errors
    /// Where something does not go away; the rest is removed all the same.
    pub fn destroy(self) -> Result<(), PrivateError> {
        let ended = self.end();
        crate::leftovers::kill_shims(&self.socket());
        crate::leftovers::remove_shim_sockets(&self.state.join("state"));
        crate::leftovers::unmount_below(&self.dir);
        crate::leftovers::unmount_below(&self.state);
        crate::cgroup::Cgroups::of_this_machine().remove(&self.cgroup_root());
        let removed = remove_dir(&self.state).and_then(|()| remove_dir(&self.dir));
        ended.and(removed)
    }

    fn end(&self) -> Result<(), PrivateError> {
        for (signal, wait) in [(Signal::SIGTERM, 10), (Signal::SIGKILL, 5)] {
            if self.running() != Some(self.pid) || kill(Pid::from_raw(self.pid), signal).is_err() {
                break;
            }
            if wait_for(Duration::from_secs(wait), || self.running() != Some(self.pid)) {
                break;
            }
        }
        match self.running() {
            Some(pid) if pid == self.pid => Err(PrivateError::Stuck { pid }),
            _ => {
                let _ = fs::remove_file(self.pid_file());
                let _ = fs::remove_file(self.socket());
                Ok(())
            }
        }
    }

    fn pid_file(&self) -> PathBuf {
        self.state.join("pid")
    }

    fn config_file(&self) -> PathBuf {
        self.dir.join("config.toml")
    }

    fn log_file(&self) -> PathBuf {
        self.dir.join("containerd.log")
    }

    /// Our containerd, where it runs.
    fn running(&self) -> Option<i32> {
        // Who started it may have died, or have had no room, before the pid file was written.
        self.recorded().or_else(|| crate::leftovers::daemon_of(&self.config_file()))
    }

    /// The process of the pid file, where it still is our containerd (and not a later process of that number).
    fn recorded(&self) -> Option<i32> {
        let pid: i32 = fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok()?;
        reap(pid);
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        if stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z')) {
            return None;
        }
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        if command.is_empty() {
            // Between its start and its having arguments; or it is ending, has no memory any more, and still has its socket.
            return fs::read_link(format!("/proc/{pid}/exe")).is_ok().then_some(pid);
        }
        let ours = self.config_file();
        command.split(|b| *b == 0).any(|arg| arg == ours.as_os_str().as_encoded_bytes()).then_some(pid)
    }

    fn spawn(&self) -> Result<i32, PrivateError> {
        let config = self.config_file();
        fs::write(&config, self.config_text()).map_err(failed("writing", &config))?;
        let _ = fs::remove_file(self.socket());
        let log = self.log_file();
        let output = fs::File::options().create(true).append(true).open(&log).map_err(failed("opening", &log))?;
        let errors = output.try_clone().map_err(failed("opening", &log))?;
        let mut child = Command::new("containerd")
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .current_dir("/")
            .process_group(0)
            .spawn()
            .map_err(|e| match e.kind() {
                io::ErrorKind::NotFound => PrivateError::Missing,
                _ => failed("starting", Path::new("containerd"))(e),
            })?;
        let pid = i32::try_from(child.id()).unwrap_or_default();
        if let Err(error) = fs::write(self.pid_file(), pid.to_string()) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(failed("writing", &self.pid_file())(error));
        }
        Ok(pid)
    }

    fn config_text(&self) -> String {
        let (root, state) = (self.dir.join("root"), self.state.join("state"));
        let disabled: Vec<String> = DISABLED.iter().map(|p| format!("{p:?}")).collect();
        format!(
            "version = 2\nroot = {root:?}\nstate = {state:?}\noom_score = -999\ndisabled_plugins = [{}]\n\
             [grpc]\naddress = {:?}\n[debug]\nlevel = \"warn\"\n",
            disabled.join(", "),
            self.socket(),
        )
    }

    /// A socket file may be there before anyone listens, so only a connection tells.
    fn wait_until_up(&self) -> Result<(), PrivateError> {
        let up = wait_for(Duration::from_secs(60), || {
            std::os::unix::net::UnixStream::connect(self.socket()).is_ok() || self.running().is_none()
        });
        let cause = match (up, self.running()) {
            (true, Some(_)) => return Ok(()),
            (_, None) => "it ended".to_owned(),
            (false, _) => "it does not listen after 60 seconds".to_owned(),
        };
        Err(PrivateError::NotUp { cause, log: self.log_file() })
    }
}

/// Collects a child that ended; of other processes it does nothing.
fn reap(pid: i32) {
    use nix::sys::wait::{WaitPidFlag, waitpid};
    let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
}

/// Processes that are not our children cannot be waited for, hence the short naps.
fn wait_for(bound: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + bound;
    while !done() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}

fn make_dir(path: &Path) -> Result<(), PrivateError> {
    fs::create_dir_all(path).map_err(failed("creating", path))
}

fn remove_dir(path: &Path) -> Result<(), PrivateError> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("removing", path)(e)),
        _ => Ok(()),
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PrivateError + use<> {
    let path = path.to_path_buf();
    move |source| PrivateError::Io { operation, path, source }
}
