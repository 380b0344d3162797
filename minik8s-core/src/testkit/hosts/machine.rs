//! What makes a group of namespaces a machine: one process that holds them, and is the first in its own space of
//! process ids. It waits for the end of its input, which comes when the test lets go of it or dies in whatever way; the
//! kernel then kills everything else that runs there, and namespaces, mounts and links go with the last process.

use super::super::inside::NetNamespace;
use super::cgroups::Groups;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// Run as the first process. Its id, as the outside counts, must be read before `/proc` is replaced. `/run` is private
/// because containerd and its shims have fixed places there. Who ignores the signal need not bury orphans.
const INIT: &str = r#"
set -e
read -r pid _ </proc/self/stat
name=$1
shift
trap '' CHLD
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mkdir -p /run/netns /run/lock
while [ $# -gt 0 ]; do
  mount --bind "$1" "$2"
  echo 0 >"$2/main/cgroup.procs"
  shift 2
done
mount --make-rshared /
hostname "$name"
ip link set lo up
echo "$pid"
exec cat >/dev/null
"#;

/// Joins the groups, which are the first of each pair, so that they are the roots of what the machine sees.
const START: &str = r#"
set -e
init=$1 name=$2
shift 2
group=yes
for dir in "$@"; do
  if [ $group = yes ]; then
    echo 0 >"$dir/cgroup.procs"
    group=no
  else
    group=yes
  fi
done
exec unshare --mount --uts --ipc --net --pid --cgroup --fork --kill-child -- sh -c "$init" init "$name" "$@"
"#;

/// More than a machine under load takes to start one process, or to kill a few hundred.
const BOUND: Duration = Duration::from_secs(30);

/// A running machine; dropping it cuts its power.
#[derive(Debug)]
pub(super) struct Machine {
    child: Child,
    /// Its end is the machine's.
    power: Option<ChildStdin>,
    pid: u32,
    enter: PathBuf,
    _groups: Groups,
}

impl Machine {
    /// Starts one. `label` must be unlike all others of this system; `dir` must outlive it.
    pub(super) fn boot(label: &str, hostname: &str, dir: &Path) -> Self {
        let groups = Groups::make(label);
        let mut command = Command::new("sh");
        command.args(["-c", START, "start", INIT, hostname]).args(groups.binds()).env("PATH", search_path());
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a host starts with a shell");
        let power = child.stdin.take();
        let mut line = String::new();
        let output = child.stdout.take().expect("a pipe");
        BufReader::new(output).read_line(&mut line).expect("the host's first process says its id");
        let pid = line.trim().parse().unwrap_or_else(|_| panic!("host {hostname} did not start, see above"));
        let enter = dir.join("enter");
        fs::write(&enter, enter_script(pid, &groups)).expect("a script");
        Self { child, power, pid, enter, _groups: groups }
    }

    /// The program, within; it dies when the returned process does. Its working directory is `/`.
    pub(super) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("sh");
        command.arg(&self.enter).arg(program);
        command
    }

    /// The program in its network alone: process ids are those of the outside.
    pub(super) fn in_network(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.pid)).args(["--", program]).env("PATH", search_path());
        command
    }

    /// Its first process.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Its network.
    pub(super) fn network(&self) -> NetNamespace {
        NetNamespace::open(format!("/proc/{}/ns/net", self.pid))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.power.take());
        let end = Instant::now() + BOUND;
        // It is gone when its first process is, and that when all others are.
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > end {
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Becomes a program inside of the machine. For people, too: a test that waits can be looked into with it.
fn enter_script(pid: u32, groups: &Groups) -> String {
    let mut script = format!("#!/bin/sh\nPATH='{}'\nexport PATH\n", search_path());
    for dir in groups.joins() {
        script.push_str(&format!("echo 0 >'{}/cgroup.procs'\n", dir.display()));
    }
    let spaces = "--mount --uts --ipc --net --pid --cgroup";
    script.push_str(&format!("exec nsenter --target {pid} {spaces} -- setpriv --pdeathsig KILL \"$@\"\n"));
    script
}

/// Administration programs are not on everybody's path.
fn search_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/local/bin:/usr/sbin:/sbin:/usr/bin:/bin")
}
