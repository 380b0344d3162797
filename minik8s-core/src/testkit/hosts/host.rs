//! One host.

use super::super::inside::NetNamespace;
use super::machine::Machine;
use super::process::Process;
use super::{finish, run};
use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};
use std::ffi::OsStr;
use std::fmt::Display;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A machine of its own to whatever runs on it: network, processes, mounts, `/run`, control groups, host name. The rest
/// of the file system is shared with the test.
#[derive(Debug)]
pub struct Host {
    pub(super) index: usize,
    pub(super) subnet: usize,
    pub(super) label: String,
    pub(super) dir: PathBuf,
    pub(super) machine: Mutex<Option<Machine>>,
}

impl Host {
    /// `host-0`, `host-1`, … The same in every test: nobody outside sees it.
    pub fn name(&self) -> String {
        format!("host-{}", self.index)
    }

    /// Its address, on `eth0`.
    pub fn address(&self) -> Ipv4Addr {
        super::address(self.subnet, 10 + u8::try_from(self.index).unwrap_or(u8::MAX - 10))
    }

    /// The router of its subnet: an address outside of the hosts that answers.
    pub fn gateway(&self) -> Ipv4Addr {
        super::gateway(self.subnet)
    }

    /// A directory of its own, which outlives a crash.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// A program on this host, to be run as usual. It is killed when the process that `spawn` gives is, but prefer
    /// [`Host::spawn`] for what should go on: that one can be signalled. The working directory is `/`.
    ///
    /// # Panics
    /// Where the host is off.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.running().command(program)
    }

    /// Runs words, separated by blanks, to their end and gives what they print.
    ///
    /// # Panics
    /// Where they fail.
    pub fn run(&self, words: &str) -> String {
        run(|program| self.command(program), words)
    }

    /// Runs a shell script to its end and says whether it succeeded.
    ///
    /// # Panics
    /// Where the host is off.
    pub fn succeeds(&self, script: &str) -> bool {
        let mut command = self.command("sh");
        finish(command.args(["-ec", script])).is_ok()
    }

    /// Whether one small packet to an address is answered within a second.
    ///
    /// # Panics
    /// Where the host is off.
    pub fn pings(&self, address: impl Display) -> bool {
        self.succeeds(&format!("busybox ping -q -c 1 -W 1 {address}"))
    }

    /// Starts a command made by [`Host::command`], with its output in a file of that name beside [`Host::data`].
    ///
    /// # Panics
    /// Where it cannot be started.
    pub fn spawn(&self, name: &str, command: Command) -> Process {
        Process::spawn(command, self.dir.join(format!("{name}.log")))
    }

    /// Its network, to enter with threads of the test.
    ///
    /// # Panics
    /// Where the host is off.
    pub fn network(&self) -> NetNamespace {
        self.running().network()
    }

    /// The first of its processes, as the test's machine counts; what `ip … netns` and `nsenter --target` take.
    ///
    /// # Panics
    /// Where the host is off.
    pub fn pid(&self) -> u32 {
        self.running().pid()
    }

    /// Whether it has power.
    pub fn is_on(&self) -> bool {
        self.machine.lock().is_some()
    }

    /// Script that becomes a program on this host, for people: `sh …/enter bash`.
    pub fn enter(&self) -> PathBuf {
        self.dir.join("enter")
    }

    pub(super) fn directory(&self) -> &Path {
        &self.dir
    }

    fn running(&self) -> MappedMutexGuard<'_, Machine> {
        MutexGuard::try_map(self.machine.lock(), Option::as_mut).unwrap_or_else(|_| panic!("{} is off", self.name()))
    }
}
