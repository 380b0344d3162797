//! Several hosts on one machine, for tests of clusters: each is a set of namespaces, joined by pairs of virtual links to
//! a machine of its own that is switch and router in one.
//!
//! ```no_run
//! use minik8s_core::testkit::hosts::Hosts;
//!
//! let hosts = Hosts::subnets(&[2, 1]); // hosts 0 and 1 share a subnet, host 2 is behind the router
//! assert!(hosts[0].pings(hosts[2].address()));
//! let mut command = hosts[1].command("sleep");
//! command.arg("1000");
//! let mut process = hosts[1].spawn("sleeper", command);
//! hosts.cut(1);
//! hosts.heal(1);
//! process.kill();
//! hosts.crash(1); // everything that ran there is dead; what is in `data()` stays
//! hosts.boot(1);
//! ```
//!
//! Needs root and the programs of [`NEEDS`]. Addresses are of 198.18.0.0/16, which no real network has. Everything is
//! gone when the value is dropped, and also, but for a temporary directory and empty control groups, when the test's
//! process is killed: the kernel takes down what runs on hosts that lost their test.

#![allow(clippy::expect_used, reason = "a test that cannot go on must say so")]

mod cgroups;
mod host;
mod machine;
mod process;
mod switch;
#[cfg(test)]
mod tests;

pub use host::Host;
pub use process::Process;

use super::need::Need;
use machine::Machine;
use parking_lot::Mutex;
use std::net::Ipv4Addr;
use std::ops::Index;
use std::process::Command;
use switch::Switch;
use tempfile::TempDir;

/// What a test with hosts needs of its machine.
pub const NEEDS: &[Need] = &[
    Need::Root,
    Need::Program("ip"),
    Need::Program("tc"),
    Need::Program("nft"),
    Need::Program("unshare"),
    Need::Program("nsenter"),
    Need::Program("setpriv"),
    Need::Program("hostname"),
    Need::Program("busybox"),
];

/// Hosts, and what joins them.
#[derive(Debug)]
pub struct Hosts {
    // In the order in which they go.
    hosts: Vec<Host>,
    switch: Switch,
    _dir: TempDir,
}

impl Hosts {
    /// Hosts that share one subnet.
    ///
    /// # Panics
    /// Where the machine cannot have them; see [`NEEDS`].
    pub fn shared(count: usize) -> Self {
        Self::subnets(&[count])
    }

    /// Hosts of which each has a subnet of its own.
    ///
    /// # Panics
    /// Where the machine cannot have them; see [`NEEDS`].
    pub fn routed(count: usize) -> Self {
        Self::subnets(&vec![1; count])
    }

    /// So many hosts in each subnet; they are counted through. At most 240 of them.
    ///
    /// # Panics
    /// Where the machine cannot have them; see [`NEEDS`].
    pub fn subnets(counts: &[usize]) -> Self {
        let dir = tempfile::Builder::new().prefix("mk8s-hosts-").tempdir().expect("a temporary directory");
        let suffix = dir.path().file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let switch = Switch::start(&suffix, dir.path(), counts.len());
        let subnets = counts.iter().enumerate().flat_map(|(subnet, count)| std::iter::repeat_n(subnet, *count));
        let hosts = subnets.enumerate().map(|(index, subnet)| {
            let label = format!("{suffix}-{index}");
            let dir = dir.path().join(format!("host-{index}"));
            std::fs::create_dir_all(dir.join("data")).expect("a directory");
            Host { index, subnet, label, dir, machine: Mutex::new(None) }
        });
        let hosts = Self { hosts: hosts.collect(), switch, _dir: dir };
        (0..hosts.len()).for_each(|index| hosts.boot(index));
        hosts
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// One after the other.
    pub fn iter(&self) -> std::slice::Iter<'_, Host> {
        self.hosts.iter()
    }

    /// The switch and router: a place outside of all hosts that reaches each of them.
    pub fn outside(&self) -> &Switch {
        &self.switch
    }

    /// Power on. A host that is on stays as it is.
    ///
    /// # Panics
    /// Where it does not start.
    pub fn boot(&self, index: usize) {
        let host = &self.hosts[index];
        let mut machine = host.machine.lock();
        if machine.is_none() {
            let new = Machine::boot(&host.label, &host.name(), host.directory());
            self.switch.plug(host, &new);
            *machine = Some(new);
        }
    }

    /// Power off: everything that runs on the host dies at once, containers too, and its network is gone. Only files
    /// stay.
    pub fn crash(&self, index: usize) {
        if let Some(machine) = self.hosts[index].machine.lock().take() {
            // The kernel takes the network away in its own time, and answers pings until then.
            self.switch.unplug(index);
            drop(machine);
        }
    }

    /// Pulls the host's cable at the switch.
    pub fn cut(&self, index: usize) {
        self.switch.set_port(index, false);
    }

    /// Puts the cable back, and waits until it carries.
    pub fn heal(&self, index: usize) {
        self.switch.set_port(index, true);
    }

    /// Lets only hosts of the same group reach each other; what is in no group reaches none of them. The outside still
    /// reaches all. Replaces an earlier partition in one step. Links stay up: packets vanish in silence.
    pub fn partition(&self, groups: &[&[usize]]) {
        let group = |host: usize| groups.iter().position(|members| members.contains(&host));
        let apart = |a: usize, b: usize| a != b && (group(a) != group(b) || group(a).is_none());
        let all = 0..self.len();
        let pairs = all.clone().flat_map(|a| all.clone().map(move |b| (a, b))).filter(|(a, b)| apart(*a, *b));
        self.switch.block(&pairs.collect::<Vec<_>>());
    }

    /// Ends a partition.
    pub fn unite(&self) {
        self.switch.block(&[]);
    }

    /// Limits what the host sends and gets to a rate as `tc` spells it, `1mbit`. This kernel cannot delay each packet
    /// by a fixed time: a queue of up to ten seconds delays what exceeds the rate, and nothing is lost before it is full.
    pub fn slow(&self, index: usize, rate: &str) {
        let shape = format!("root tbf rate {rate} burst 4kb latency 10s");
        self.switch.run(&format!("tc qdisc replace dev {} {shape}", switch::port(index)));
        self.hosts[index].run(&format!("tc qdisc replace dev eth0 {shape}"));
    }

    /// Full speed again.
    pub fn quicken(&self, index: usize) {
        self.switch.run(&format!("tc qdisc del dev {} root", switch::port(index)));
        self.hosts[index].run("tc qdisc del dev eth0 root");
    }
}

impl Index<usize> for Hosts {
    type Output = Host;

    fn index(&self, index: usize) -> &Host {
        &self.hosts[index]
    }
}

/// The router's address in a subnet.
fn gateway(subnet: usize) -> Ipv4Addr {
    address(subnet, 1)
}

fn address(subnet: usize, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, u8::try_from(subnet).unwrap_or(u8::MAX), host)
}

/// Runs words to their end.
fn run(command: impl Fn(&str) -> Command, words: &str) -> String {
    let mut words_left = words.split_whitespace();
    let mut command = command(words_left.next().unwrap_or_default());
    finish(command.args(words_left)).unwrap_or_else(|error| panic!("{words}: {error}"))
}

fn finish(command: &mut Command) -> Result<String, String> {
    let out = command.output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if out.status.success() { Ok(text(&out.stdout)) } else { Err(format!("{}: {}", out.status, text(&out.stderr))) }
}
